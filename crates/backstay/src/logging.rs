//! Log lines on standard error.
//!
//! Promise: nothing is logged to standard output; `BACKSTAY_LOG` names a filter of its own (`backstay_engine=debug`);
//! without it warnings are shown, with -v the life of a run, with -vv each object. Of `stream`, which nobody watches on a
//! bar, the life is shown without -v.

use crate::environment::Environment;
use crate::render::look::{Colour, Look, Stream};
use tracing_subscriber::EnvFilter;

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere when a Kubernetes pod is around us.
    #[default]
    Auto,
    /// Lines for a person.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging; a second call in one process does nothing.
pub fn start(format: LogFormat, verbose: u8, stderr: Stream, look: &Look, environment: &dyn Environment) {
    let filter = filter(verbose, environment);
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_ansi(look.colour == Colour::On)
        .with_target(verbose >= 2);
    // It fails only when logging has been started before.
    let _ = match chosen(format, stderr, environment) {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Auto | LogFormat::Text => builder.try_init(),
    };
}

fn filter(verbose: u8, environment: &dyn Environment) -> EnvFilter {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let told = environment.get("BACKSTAY_LOG").filter(|text| !text.is_empty());
    EnvFilter::new(told.unwrap_or_else(|| level.to_owned()))
}

fn chosen(format: LogFormat, stderr: Stream, environment: &dyn Environment) -> LogFormat {
    let in_pod = || environment.get("KUBERNETES_SERVICE_HOST").is_some();
    match (format, stderr) {
        (LogFormat::Auto, Stream::Redirected) if in_pod() => LogFormat::Json,
        (LogFormat::Auto, _) => LogFormat::Text,
        (told, _) => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Fixed;

    #[test]
    fn json_is_chosen_only_in_a_pod_or_when_asked_for() {
        let pod = Fixed::new(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]);
        let here = Fixed::default();
        assert_eq!(chosen(LogFormat::Auto, Stream::Redirected, &pod), LogFormat::Json);
        assert_eq!(chosen(LogFormat::Auto, Stream::Terminal, &pod), LogFormat::Text);
        assert_eq!(
            chosen(LogFormat::Auto, Stream::Redirected, &here),
            LogFormat::Text
        );
        assert_eq!(chosen(LogFormat::Json, Stream::Terminal, &here), LogFormat::Json);
    }

    #[test]
    fn the_filter_of_the_environment_beats_the_flag() {
        let told = Fixed::new(&[("BACKSTAY_LOG", "backstay_engine=debug")]);
        assert_eq!(filter(0, &told).to_string(), "backstay_engine=debug");
        assert_eq!(filter(1, &Fixed::default()).to_string(), "info");
    }
}
