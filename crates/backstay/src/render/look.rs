//! What the reader's side can show: colour, glyphs, width, zone.
//!
//! Promise: `NO_COLOR`, `CLICOLOR_FORCE`, `TERM=dumb`, `COLUMNS` and the locale are honoured; flags beat them; off a
//! terminal there is no colour and no cutting to a width.

use crate::environment::Environment;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColourWanted {
    /// On a terminal, unless the environment says otherwise.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Whether a stream is a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// A person looks at it.
    Terminal,
    /// A file or a pipe.
    Redirected,
}

/// Whether colour is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// ANSI colours.
    On,
    /// Plain text.
    Off,
}

/// Which characters can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyphs {
    /// ✓ ▲ ✗ → ●
    Unicode,
    /// The same in ASCII.
    Ascii,
}

/// How wide a line may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Columns of a terminal.
    Columns(u16),
    /// Not cut.
    Unlimited,
}

/// A state that is shown by shape and by colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is as it should be.
    Good,
    /// Somebody should look at it.
    Warning,
    /// It is not as it should be.
    Bad,
}

/// All of it, for one stream.
#[derive(Clone, Debug)]
pub struct Look {
    /// Whether colour is used.
    pub colour: Colour,
    /// Which characters can be shown.
    pub glyphs: Glyphs,
    /// How wide a line may be.
    pub width: Width,
    /// The zone in which times are printed.
    pub zone: TimeZone,
}

impl Look {
    /// No colour, Unicode, any width, UTC: what a file gets.
    pub fn plain() -> Look {
        Look {
            colour: Colour::Off,
            glyphs: Glyphs::Unicode,
            width: Width::Unlimited,
            zone: TimeZone::UTC,
        }
    }

    /// The look of a stream, `columns` wide if it is a terminal that says so.
    pub fn of(
        stream: Stream,
        wanted: ColourWanted,
        columns: Option<u16>,
        zone: TimeZone,
        environment: &dyn Environment,
    ) -> Look {
        Look {
            colour: colour(stream, wanted, environment),
            glyphs: glyphs(stream, environment),
            width: width(stream, columns, environment),
            zone,
        }
    }

    /// A time with its zone, to the second: `2026-11-23T02:17:41Z`.
    pub fn time(&self, time: Timestamp) -> String {
        if self.zone == TimeZone::UTC {
            return time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        }
        let local = time.to_zoned_datetime(self.zone.clone());
        local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }

    /// The sign of a state, in its colour.
    pub fn mark(&self, mark: Mark) -> String {
        self.paint(mark, self.sign(mark))
    }

    /// The sign of a state without colour, for the cells of a table.
    pub fn sign(&self, mark: Mark) -> &'static str {
        match (mark, self.glyphs) {
            (Mark::Good, Glyphs::Unicode) => "✓",
            (Mark::Warning, Glyphs::Unicode) => "▲",
            (Mark::Bad, Glyphs::Unicode) => "✗",
            (Mark::Good, Glyphs::Ascii) => "ok",
            (Mark::Warning, Glyphs::Ascii) => "!",
            (Mark::Bad, Glyphs::Ascii) => "x",
        }
    }

    /// `text` in the colour of a state.
    pub fn paint(&self, mark: Mark, text: &str) -> String {
        match mark {
            Mark::Good => self.ansi("32", text),
            Mark::Warning => self.ansi("33", text),
            Mark::Bad => self.ansi("1;31", text),
        }
    }

    /// `text` in bold.
    pub fn bold(&self, text: &str) -> String {
        self.ansi("1", text)
    }

    /// From one point to another.
    pub fn arrow(&self) -> &'static str {
        match self.glyphs {
            Glyphs::Unicode => "→",
            Glyphs::Ascii => "->",
        }
    }

    fn ansi(&self, style: &str, text: &str) -> String {
        match self.colour {
            Colour::On => format!("\x1b[{style}m{text}\x1b[0m"),
            Colour::Off => text.to_owned(),
        }
    }
}

// https://no-color.org and https://bixense.com/clicolors: set and not empty.
fn colour(stream: Stream, wanted: ColourWanted, environment: &dyn Environment) -> Colour {
    let is_set = |name| environment.get(name).is_some_and(|value| !value.is_empty());
    let forced = is_set("CLICOLOR_FORCE") && environment.get("CLICOLOR_FORCE").as_deref() != Some("0");
    match (wanted, stream) {
        (ColourWanted::Always, _) => Colour::On,
        (ColourWanted::Never, _) => Colour::Off,
        (ColourWanted::Auto, _) if is_set("NO_COLOR") => Colour::Off,
        (ColourWanted::Auto, _) if forced => Colour::On,
        (ColourWanted::Auto, Stream::Redirected) => Colour::Off,
        (ColourWanted::Auto, Stream::Terminal) => match environment.get("TERM").as_deref() {
            None | Some("dumb" | "") => Colour::Off,
            Some(_) => Colour::On,
        },
    }
}

// A file is UTF-8 in any locale; a terminal says what it can show.
fn glyphs(stream: Stream, environment: &dyn Environment) -> Glyphs {
    if stream == Stream::Redirected {
        return Glyphs::Unicode;
    }
    if environment.get("TERM").as_deref() == Some("dumb") {
        return Glyphs::Ascii;
    }
    let set = |name: &&str| environment.get(name).filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(set)
        .unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    if locale.contains("utf-8") || locale.contains("utf8") {
        Glyphs::Unicode
    } else {
        Glyphs::Ascii
    }
}

fn width(stream: Stream, columns: Option<u16>, environment: &dyn Environment) -> Width {
    let told = environment.get("COLUMNS").and_then(|text| text.parse().ok());
    // A terminal that does not know its width says 0.
    let columns = columns.filter(|columns| *columns > 0);
    match stream {
        Stream::Redirected => Width::Unlimited,
        Stream::Terminal => told
            .or(columns)
            .map_or(Width::Unlimited, |columns: u16| Width::Columns(columns.max(20))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Fixed;

    fn look(stream: Stream, wanted: ColourWanted, variables: &[(&str, &str)]) -> (Colour, Glyphs, Width) {
        let look = Look::of(stream, wanted, Some(100), TimeZone::UTC, &Fixed::new(variables));
        (look.colour, look.glyphs, look.width)
    }

    #[test]
    fn a_terminal_gets_colour_glyphs_and_its_width() {
        let variables = [("TERM", "xterm"), ("LANG", "C.UTF-8")];
        assert_eq!(
            look(Stream::Terminal, ColourWanted::Auto, &variables),
            (Colour::On, Glyphs::Unicode, Width::Columns(100))
        );
    }

    #[test]
    fn a_pipe_gets_plain_text_of_any_width() {
        let variables = [("TERM", "xterm"), ("COLUMNS", "40")];
        assert_eq!(
            look(Stream::Redirected, ColourWanted::Auto, &variables),
            (Colour::Off, Glyphs::Unicode, Width::Unlimited)
        );
    }

    #[test]
    fn no_color_beats_the_terminal_and_the_flag_beats_no_color() {
        let variables = [("TERM", "xterm"), ("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")];
        assert_eq!(
            look(Stream::Terminal, ColourWanted::Auto, &variables).0,
            Colour::Off
        );
        assert_eq!(
            look(Stream::Redirected, ColourWanted::Always, &variables).0,
            Colour::On
        );
        let forced = [("CLICOLOR_FORCE", "1")];
        assert_eq!(
            look(Stream::Redirected, ColourWanted::Auto, &forced).0,
            Colour::On
        );
    }

    #[test]
    fn a_dumb_terminal_and_one_without_utf_8_get_ascii() {
        let dumb = [("TERM", "dumb"), ("LANG", "C.UTF-8"), ("COLUMNS", "60")];
        assert_eq!(
            look(Stream::Terminal, ColourWanted::Auto, &dumb),
            (Colour::Off, Glyphs::Ascii, Width::Columns(60))
        );
        let latin = [
            ("TERM", "xterm"),
            ("LC_ALL", "de_DE.ISO-8859-1"),
            ("LANG", "C.UTF-8"),
        ];
        assert_eq!(
            look(Stream::Terminal, ColourWanted::Auto, &latin).1,
            Glyphs::Ascii
        );
    }

    #[test]
    fn times_name_their_zone() {
        let time: Timestamp = "2026-11-23T02:17:41.5Z".parse().unwrap();
        let mut look = Look::plain();
        assert_eq!(look.time(time), "2026-11-23T02:17:41Z");
        look.zone = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(look.time(time), "2026-11-23T03:17:41+01:00");
    }
}
