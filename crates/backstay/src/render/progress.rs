//! What a long job shows while it runs, on standard error.
//!
//! Promise: a bar on a terminal; elsewhere a plain line every 10 s or 10 %, whichever is first; JSON lines when asked. All
//! say the phase and, where they are measured in it, bytes, rate and the time left.
//! Reporting is cheap and may be done per buffer.
//! Not here: what the phases are (the engine's facts).

use crate::render::human::clean;
use crate::units::print_duration;
use backstay_clock::Clock;
use backstay_terms::{ByteCount, Rate};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// Which progress is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressWanted {
    /// A bar on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// A bar.
    Bar,
    /// Plain lines.
    Plain,
    /// One JSON object per line.
    Json,
    /// Nothing.
    None,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is being done, such as `base backup`.
    pub phase: String,
    /// Bytes done in this phase.
    pub done: ByteCount,
    /// Bytes in this phase, where known; an estimate may be passed.
    pub total: Option<ByteCount>,
}

/// Shows the steps of one job.
pub struct Progress {
    clock: Arc<dyn Clock>,
    sink: Sink,
    pace: Pace,
}

enum Sink {
    Bar(ProgressBar),
    Plain(Box<dyn Write + Send>),
    Json(Box<dyn Write + Send>),
    None,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

const BAR: &str = "  {msg:12} {bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
const SPINNER: &str = "  {msg:12} {spinner} {bytes}  {bytes_per_sec}";
const ALONE: &str = "  {msg:12} {spinner}";

impl Progress {
    /// Progress of the wanted kind on standard error; `Auto` is decided by the caller and counts as plain lines.
    pub fn new(wanted: ProgressWanted, clock: Arc<dyn Clock>) -> Progress {
        let sink = match wanted {
            ProgressWanted::Bar => {
                Sink::Bar(ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()))
            }
            ProgressWanted::Auto | ProgressWanted::Plain => Sink::Plain(Box::new(std::io::stderr())),
            ProgressWanted::Json => Sink::Json(Box::new(std::io::stderr())),
            ProgressWanted::None => Sink::None,
        };
        Progress::over(sink, clock)
    }

    fn over(sink: Sink, clock: Arc<dyn Clock>) -> Progress {
        let pace = Pace::new(clock.instant());
        Progress { clock, sink, pace }
    }

    /// Shows where the job stands, if it is time to.
    pub fn step(&mut self, step: &Step) {
        if let Sink::Bar(bar) = &self.sink {
            return draw(bar, step);
        }
        if let Some(rate) = self.pace.due(step, self.clock.instant()) {
            self.line(step, rate);
        }
    }

    /// Takes the bar away; lines stay.
    pub fn finish(&mut self) {
        if let Sink::Bar(bar) = &self.sink {
            bar.finish_and_clear();
        }
    }

    fn line(&mut self, step: &Step, rate: Rate) {
        // When standard error cannot be written, the job goes on.
        let _ = match &mut self.sink {
            Sink::Plain(out) => writeln!(out, "{}", plain(step, rate)),
            Sink::Json(out) => writeln!(out, "{}", object(step, rate)),
            Sink::Bar(_) | Sink::None => Ok(()),
        };
    }
}

fn draw(bar: &ProgressBar, step: &Step) {
    let template = match (step.total, step.done.0) {
        (Some(_), _) => BAR,
        (None, 0) => ALONE,
        (None, _) => SPINNER,
    };
    if bar.message() != step.phase || bar.length() != step.total.map(|total| total.0) {
        bar.reset();
        bar.set_style(ProgressStyle::with_template(template).expect("the templates are tested"));
        bar.set_message(clean(&step.phase));
    }
    match step.total {
        Some(total) => bar.set_length(total.0),
        None => bar.unset_length(),
    }
    bar.set_position(step.done.0);
}

/// A phase alone where nothing was measured in it: a checkpoint, or bytes that an earlier phase has done.
fn plain(step: &Step, rate: Rate) -> String {
    let phase = clean(&step.phase);
    let measured = (rate.0 > 0).then(|| rate.to_string());
    match percent(step) {
        Some(100) if measured.is_none() => phase,
        Some(percent) => {
            let left = left(step, rate).filter(|left| !left.is_zero());
            let left = left.map(|left| format!("{} left", print_duration(left)));
            let bytes = format!("{} of {}", step.done, step.total.unwrap_or_default());
            let parts: Vec<String> = [Some(bytes), measured, left].into_iter().flatten().collect();
            format!("{phase}: {percent} % ({})", parts.join(", "))
        }
        None if step.done.0 == 0 => phase,
        None => {
            let rate = measured.map_or(String::new(), |rate| format!(" ({rate})"));
            format!("{phase}: {}{rate}", step.done)
        }
    }
}

fn object(step: &Step, rate: Rate) -> serde_json::Value {
    json!({ "progress": {
        "phase": step.phase,
        "bytes_done": step.done.0,
        "bytes_total": step.total.map(|total| total.0),
        "bytes_per_second": rate.0,
        "seconds_left": left(step, rate).map(|left| left.as_secs()),
    }})
}

/// How long the phase would go on at this rate, in whole seconds rounded up; none where its size or the rate is not known.
fn left(step: &Step, rate: Rate) -> Option<Duration> {
    let bytes = step.total?.0.saturating_sub(step.done.0);
    match (bytes, rate.0) {
        (0, _) => Some(Duration::ZERO),
        (_, 0) => None,
        (bytes, rate) => Some(Duration::from_secs(bytes.div_ceil(rate))),
    }
}

fn percent(step: &Step) -> Option<u64> {
    let total = step.total.filter(|total| total.0 > 0)?;
    Some((u128::from(step.done.0) * 100 / u128::from(total.0)).min(100) as u64)
}

/// Decides when a line is due: at the start of a phase, then every 10 s or 10 %.
#[derive(Debug)]
struct Pace {
    phase: Option<String>,
    phase_began: Duration,
    line_at: Duration,
    tenth: u64,
}

const LINE_EVERY: Duration = Duration::from_secs(10);

impl Pace {
    fn new(now: Duration) -> Pace {
        Pace {
            phase: None,
            phase_began: now,
            line_at: now,
            tenth: 0,
        }
    }

    /// The mean rate of the phase so far, if a line is due.
    fn due(&mut self, step: &Step, now: Duration) -> Option<Rate> {
        let tenth = percent(step).unwrap_or(0) / 10;
        let is_new = self.phase.as_deref() != Some(step.phase.as_str());
        if is_new {
            self.phase = Some(step.phase.clone());
            self.phase_began = now;
        } else if tenth <= self.tenth && now.saturating_sub(self.line_at) < LINE_EVERY {
            return None;
        }
        self.tenth = tenth;
        self.line_at = now;
        let seconds = now.saturating_sub(self.phase_began).as_secs_f64();
        let rate = if seconds > 0.0 {
            step.done.0 as f64 / seconds
        } else {
            0.0
        };
        Some(Rate(rate as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstay_clock::SimClock;
    use std::sync::Mutex;

    fn step(phase: &str, done: u64, total: Option<u64>) -> Step {
        Step {
            phase: phase.to_owned(),
            done: ByteCount(done),
            total: total.map(ByteCount),
        }
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_comes_at_the_start_of_a_phase_and_then_each_tenth_or_ten_seconds() {
        let clock = Arc::new(SimClock::new());
        let out = Shared::default();
        let mut progress = Progress::over(Sink::Plain(Box::new(out.clone())), clock.clone());
        for (seconds, done) in [(0, 0), (1, 50), (1, 99), (1, 100), (3, 150), (7, 199), (1, 1000)] {
            clock.advance(Duration::from_secs(seconds));
            progress.step(&step("base", done << 10, Some(1000 << 10)));
        }
        progress.step(&step("tables", 5, None));
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text,
            "base: 0 % (0 B of 1000.0 KiB)\n\
             base: 10 % (100.0 KiB of 1000.0 KiB, 33.3 KiB/s, 28s left)\n\
             base: 19 % (199.0 KiB of 1000.0 KiB, 15.3 KiB/s, 53s left)\n\
             base: 100 % (1000.0 KiB of 1000.0 KiB, 71.4 KiB/s)\n\
             tables: 5 B\n"
        );
    }

    #[test]
    fn a_phase_that_has_no_bytes_of_its_own_is_named_alone() {
        let clock = Arc::new(SimClock::new());
        let out = Shared::default();
        let mut progress = Progress::over(Sink::Plain(Box::new(out.clone())), clock.clone());
        progress.step(&step("checkpoint", 0, None));
        progress.step(&step("copy", 0, Some(2048)));
        clock.advance(Duration::from_secs(2));
        progress.step(&step("copy", 2048, Some(2048)));
        progress.step(&step("log", 2048, Some(2048)));
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text,
            "checkpoint\ncopy: 0 % (0 B of 2.0 KiB)\ncopy: 100 % (2.0 KiB of 2.0 KiB, 1.0 KiB/s)\nlog\n"
        );
    }

    #[test]
    fn the_json_form_says_what_is_known_of_the_time_left() {
        let left = |done, total, rate| {
            object(&step("base", done, total), Rate(rate))["progress"]["seconds_left"].clone()
        };
        assert_eq!(left(100, Some(1000), 300), 3);
        assert_eq!(left(100, Some(1001), 300), 4);
        assert_eq!(left(1000, Some(1000), 0), 0);
        assert_eq!(left(1001, Some(1000), 300), 0, "an estimate is passed");
        assert!(left(0, Some(1000), 0).is_null());
        assert!(left(5, None, 300).is_null());
    }

    #[test]
    fn the_templates_of_the_bar_are_understood() {
        for template in [BAR, SPINNER, ALONE] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
