//! Durations and sizes as people write them: `1h30m`, `10GiB`.
//!
//! Promise: a number without a unit is refused, and so is a unit that could mean two things; what is printed (backstay-clock)
//! would be read as the same.

use backstay_terms::ByteCount;
use std::time::Duration;

pub use backstay_clock::print_duration;

/// A text is not a duration or a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No digits where a number should be.
    #[error("{text:?} is not {what}: it does not begin with a number")]
    Number {
        /// What was given.
        text: String,
        /// What was expected, with its article.
        what: &'static str,
    },
    /// A number and nothing after it.
    #[error("{text:?} lacks a unit: {example}")]
    UnitMissing {
        /// What was given.
        text: String,
        /// How to write it.
        example: String,
    },
    /// A word after the number that is no unit.
    #[error("{unit:?} in {text:?} is not a unit: {known}")]
    UnitUnknown {
        /// What was given.
        text: String,
        /// The word.
        unit: String,
        /// The units that are known.
        known: &'static str,
    },
    /// More than can be counted.
    #[error("{text:?} is too large")]
    TooLarge {
        /// What was given.
        text: String,
    },
}

const DURATION_UNITS: &str = "use s, min, h, d or w";
const SIZE_UNITS: &str = "use B, KiB, MiB, GiB, TiB, or KB, MB, GB, TB for powers of ten";

/// Reads `45s`, `90 min`, `1h30m`, `7d`, `2 weeks`. A day is 24 hours.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text.trim();
    let mut seconds: u64 = 0;
    loop {
        let (number, unit, after) = next_part(text, rest, "a duration such as 1h")?;
        let factor = match unit {
            "" => {
                return Err(unit_missing(
                    text,
                    &format!("{number}s, {number}min, {number}h or {number}d"),
                ));
            }
            "s" | "sec" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86_400,
            "w" | "week" | "weeks" => 604_800,
            _ => return Err(unit_unknown(text, unit, DURATION_UNITS)),
        };
        let part = number.checked_mul(factor);
        let sum = part.and_then(|part| seconds.checked_add(part));
        // Beyond this no date can be computed.
        seconds = sum.filter(|sum| *sum <= 1 << 40).ok_or_else(|| too_large(text))?;
        if after.is_empty() {
            return Ok(Duration::from_secs(seconds));
        }
        rest = after;
    }
}

/// Reads `10GiB`, `512 MiB`, `1GB`, `100B`.
pub fn size(text: &str) -> Result<ByteCount, UnitError> {
    let (number, unit, after) = next_part(text, text.trim(), "a size such as 10GiB")?;
    let factor: u64 = match unit {
        _ if !after.is_empty() => return Err(unit_unknown(text, &format!("{unit} {after}"), SIZE_UNITS)),
        "" => return Err(unit_missing(text, &format!("{number}MiB or {number}GiB"))),
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(unit_unknown(text, unit, SIZE_UNITS)),
    };
    number
        .checked_mul(factor)
        .map(ByteCount)
        .ok_or_else(|| too_large(text))
}

/// A number of things: `1 key`, `2 keys`.
pub fn count(number: usize, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {what}{ending}")
}

/// The leading number and unit of `rest`, and what comes after them.
fn next_part<'a>(
    text: &str,
    rest: &'a str,
    what: &'static str,
) -> Result<(u64, &'a str, &'a str), UnitError> {
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, tail) = rest.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::Number {
            text: text.to_owned(),
            what,
        });
    }
    let number = number.parse().map_err(|_| too_large(text))?;
    let tail = tail.trim_start();
    let end = tail
        .find(|c: char| c.is_ascii_digit() || c.is_whitespace())
        .unwrap_or(tail.len());
    let (unit, after) = tail.split_at(end);
    Ok((number, unit, after.trim_start()))
}

fn unit_missing(text: &str, example: &str) -> UnitError {
    UnitError::UnitMissing {
        text: text.to_owned(),
        example: example.to_owned(),
    }
}

fn unit_unknown(text: &str, unit: &str, known: &'static str) -> UnitError {
    UnitError::UnitUnknown {
        text: text.to_owned(),
        unit: unit.to_owned(),
        known,
    }
}

fn too_large(text: &str) -> UnitError {
    UnitError::TooLarge {
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let table = [
            ("45s", 45),
            ("90 min", 5400),
            ("1h30m", 5400),
            ("1 h 30 min", 5400),
            ("7d", 604_800),
            ("2 weeks", 1_209_600),
            ("0s", 0),
        ];
        for (text, seconds) in table {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_why() {
        let table = [
            ("60", "\"60\" lacks a unit: 60s, 60min, 60h or 60d"),
            (
                "",
                "\"\" is not a duration such as 1h: it does not begin with a number",
            ),
            (
                "-1h",
                "\"-1h\" is not a duration such as 1h: it does not begin with a number",
            ),
            ("1.5h", "\".\" in \"1.5h\" is not a unit: use s, min, h, d or w"),
            ("1y", "\"y\" in \"1y\" is not a unit: use s, min, h, d or w"),
            ("99999999999999999999h", "\"99999999999999999999h\" is too large"),
            ("9999999999999w", "\"9999999999999w\" is too large"),
        ];
        for (text, message) in table {
            assert_eq!(duration(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn sizes_are_read_and_ambiguous_units_refused() {
        assert_eq!(size("10GiB"), Ok(ByteCount(10 << 30)));
        assert_eq!(size("1 MB"), Ok(ByteCount(1_000_000)));
        let unit = |text: &str| size(text).unwrap_err().to_string();
        assert_eq!(unit("10"), "\"10\" lacks a unit: 10MiB or 10GiB");
        let known = "use B, KiB, MiB, GiB, TiB, or KB, MB, GB, TB for powers of ten";
        assert_eq!(unit("10G"), format!("\"G\" in \"10G\" is not a unit: {known}"));
        assert_eq!(unit("9999999999999TiB"), "\"9999999999999TiB\" is too large");
    }

    #[test]
    fn printed_durations_are_read_back() {
        for seconds in [0, 1, 59, 60, 3600, 5400, 86_399, 86_400, 694_861] {
            let length = Duration::from_secs(seconds);
            assert_eq!(duration(&print_duration(length)), Ok(length));
        }
    }
}
