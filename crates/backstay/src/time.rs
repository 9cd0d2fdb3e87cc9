//! Times as people write them, and the targets of `--to`.
//!
//! Promise: a text is read as one moment or refused; where daylight saving makes a local time happen twice or not at
//! all, both candidates are named. A time without an offset is in the zone that was asked for.
//! Not here: whether a moment can be recovered (engine).

mod phrase;
#[cfg(test)]
mod tests;
mod zone;

use crate::codes::Code;
use crate::failure::Failure;
use backstay_terms::{RecoveryTarget, TargetError};
use jiff::Timestamp;
use jiff::civil::DateTime;

pub use zone::Zone;

/// 2000-01-01T00:00:00Z in microseconds of the Unix epoch: where PostgreSQL's time begins (POSTGRES_EPOCH_JDATE).
pub const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// A text is not a moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not of any form that is known.
    #[error("{text:?} is not a time: {reason}")]
    Unreadable {
        /// What was given.
        text: String,
        /// What does not fit.
        reason: String,
    },
    /// The clocks were put back over it.
    #[error("{local} happened twice in {zone}: {earlier} and {later}")]
    Twice {
        /// The local time.
        local: String,
        /// The zone.
        zone: String,
        /// The first of the two, with its offset.
        earlier: String,
        /// The second of the two, with its offset.
        later: String,
    },
    /// The clocks were put forward over it.
    #[error("{local} did not happen in {zone}: the clocks went from {before} to {after}")]
    Never {
        /// The local time.
        local: String,
        /// The zone.
        zone: String,
        /// The last local moment before the jump, with its offset.
        before: String,
        /// The first local moment after the jump, with its offset.
        after: String,
        /// The same reading of the clock before and after the jump, as moments.
        candidates: Box<[String; 2]>,
    },
    /// No zone is known in which to read it.
    #[error("the time zone {name:?} in TZ is not known on this machine")]
    Zone {
        /// The value of TZ.
        name: String,
    },
}

/// A target as it was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What the planner gets.
    pub target: RecoveryTarget,
    /// How to echo it: the resolved moment, and the words it came from when they differ.
    pub echo: String,
}

/// Reads the value of `--to`. `zone` is asked for only when the text needs one.
pub fn read_target(
    text: &str,
    now: Timestamp,
    zone: &dyn Fn() -> Result<Zone, TimeError>,
) -> Result<Target, Failure> {
    let text = text.trim();
    if let Some(target) = RecoveryTarget::parse_word(text).map_err(|error| not_a_target(&error))? {
        return Ok(Target {
            target,
            echo: text.to_owned(),
        });
    }
    let time = read(text, now, zone).map_err(|error| Failure::from(&error))?;
    let postgres = time.as_microsecond() - POSTGRES_EPOCH;
    let echo = echo(text, time, zone);
    Ok(Target {
        target: RecoveryTarget::Time(postgres),
        echo,
    })
}

/// Reads a time.
pub fn read(
    text: &str,
    now: Timestamp,
    zone: &dyn Fn() -> Result<Zone, TimeError>,
) -> Result<Timestamp, TimeError> {
    match phrase::parse(text)? {
        phrase::Phrase::Now => Ok(now),
        phrase::Phrase::Ago(length) => now
            .checked_sub(length)
            .map_err(|_| unreadable(text, "it is before the first time that can be written")),
        phrase::Phrase::Absolute(datetime, offset) => offset
            .to_timestamp(datetime)
            .map_err(|_| unreadable(text, "it is beyond the times that can be written")),
        phrase::Phrase::Local(datetime) => local(text, datetime, &zone()?),
        phrase::Phrase::Day(days_back, time) => {
            let zone = zone()?;
            let today = now.to_zoned_datetime(zone.zone.clone()).date();
            let day = (0..days_back).try_fold(today, |day, _| day.yesterday());
            let day = day.map_err(|_| unreadable(text, "there is no such day"))?;
            local(text, day.to_datetime(time), &zone)
        }
    }
}

/// A moment in UTC, to the microsecond where it has a fraction: `2026-11-22T14:05:00.25Z`.
pub fn in_utc(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.fZ").to_string()
}

/// A moment in UTC, to the second.
pub fn to_the_second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn local(text: &str, datetime: DateTime, zone: &Zone) -> Result<Timestamp, TimeError> {
    let ambiguous = zone.zone.to_ambiguous_timestamp(datetime);
    match zone::candidates(&ambiguous) {
        Some(candidates) => Err(zone::two_readings(datetime, zone, candidates)),
        None => ambiguous
            .unambiguous()
            .map_err(|_| unreadable(text, "it is beyond the times that can be written")),
    }
}

fn echo(text: &str, time: Timestamp, zone: &dyn Fn() -> Result<Zone, TimeError>) -> String {
    let resolved = in_utc(time);
    let needs_zone = !matches!(
        phrase::parse(text),
        Ok(phrase::Phrase::Absolute(..) | phrase::Phrase::Ago(_) | phrase::Phrase::Now)
    );
    match zone() {
        _ if resolved == text => resolved,
        Ok(zone) if needs_zone => format!("{resolved}  ({text:?}, your zone {})", zone.name),
        _ => format!("{resolved}  ({text:?})"),
    }
}

fn unreadable(text: &str, reason: &str) -> TimeError {
    TimeError::Unreadable {
        text: text.to_owned(),
        reason: reason.to_owned(),
    }
}

fn not_a_target(error: &TargetError) -> Failure {
    Failure::new(Code::TimeUnreadable, error.to_string(), TARGETS).or(TIMES)
}

const TARGETS: &str = "a target is latest, immediate, lsn:0/3000060, xid:742, name:before_deploy, or a time";
const TIMES: &str = "a time is 2026-11-22T14:05:00Z, \"2026-11-22 14:05\", \"yesterday 14:05\", \"today 09:30\", \"10 min ago\" or now";

impl From<&TimeError> for Failure {
    fn from(error: &TimeError) -> Failure {
        let message = error.to_string();
        match error {
            TimeError::Unreadable { text, .. } => {
                let failure = Failure::new(Code::TimeUnreadable, message, TARGETS).or(TIMES);
                let word = crate::suggest::nearest(text, ["latest", "immediate", "now"]).map(str::to_owned);
                let position = format!("lsn:{}", text.trim());
                let is_position = matches!(RecoveryTarget::parse_word(&position), Ok(Some(_)));
                match word.or_else(|| is_position.then_some(position)) {
                    Some(word) => failure.or(format!("did you mean {word}?")),
                    None => failure,
                }
            }
            TimeError::Twice { earlier, later, .. } => Failure::new(
                Code::TimeAmbiguous,
                message,
                format!("the first:  --to {earlier}"),
            )
            .or(format!("the second: --to {later}")),
            TimeError::Never { candidates, .. } => {
                let [first, second] = candidates.as_ref();
                let help = format!("by the clock before the jump: --to {first}");
                Failure::new(Code::TimeAmbiguous, message, help)
                    .or(format!("by the clock after the jump:  --to {second}"))
            }
            TimeError::Zone { .. } => Failure::new(
                Code::TimeUnreadable,
                message,
                "write the time with its offset (2026-11-22T14:05:00Z), or use --utc",
            )
            .or("or install the time zones (package tzdata), or correct TZ"),
        }
    }
}
