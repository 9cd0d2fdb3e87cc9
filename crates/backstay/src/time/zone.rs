//! The reader's zone, and what happens in it when the clocks change.
//!
//! Promise: a zone named in TZ that this machine does not know is an error, never silently UTC.

use super::{TimeError, in_utc};
use crate::environment::Environment;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, AmbiguousTimestamp, Offset, TimeZone};

/// A zone and its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// The rules.
    pub zone: TimeZone,
    /// What to call it.
    pub name: String,
}

impl Zone {
    /// Coordinated universal time.
    pub fn utc() -> Zone {
        Zone {
            zone: TimeZone::UTC,
            name: "UTC".to_owned(),
        }
    }

    /// A zone by its name, such as `Europe/Berlin`.
    pub fn named(name: &str) -> Result<Zone, TimeError> {
        let refuse = |_| TimeError::Zone {
            name: name.to_owned(),
        };
        let zone = TimeZone::get(name).map_err(refuse)?;
        Ok(Zone {
            zone,
            name: name.to_owned(),
        })
    }

    /// The zone of this machine: TZ, else the system's setting, else UTC as every C library has it.
    pub fn local(environment: &dyn Environment) -> Result<Zone, TimeError> {
        let told = environment.get("TZ").filter(|name| !name.is_empty());
        match (TimeZone::try_system(), told) {
            (Ok(zone), told) => {
                let name = zone.iana_name().map(str::to_owned).or(told);
                Ok(Zone {
                    name: name.unwrap_or_else(|| "local".to_owned()),
                    zone,
                })
            }
            (Err(_), Some(name)) => Err(TimeError::Zone { name }),
            (Err(_), None) => Ok(Zone::utc()),
        }
    }
}

/// The two offsets that a local time may have had, where there are two.
#[derive(Clone, Copy, Debug)]
pub(super) enum Candidates {
    Fold(Offset, Offset),
    Gap(Offset, Offset),
}

pub(super) fn candidates(time: &AmbiguousTimestamp) -> Option<Candidates> {
    match time.offset() {
        AmbiguousOffset::Unambiguous { .. } => None,
        AmbiguousOffset::Fold { before, after } => Some(Candidates::Fold(before, after)),
        AmbiguousOffset::Gap { before, after } => Some(Candidates::Gap(before, after)),
    }
}

pub(super) fn two_readings(datetime: DateTime, zone: &Zone, candidates: Candidates) -> TimeError {
    let local = datetime.strftime("%Y-%m-%d %H:%M:%S%.f").to_string();
    let name = zone.name.clone();
    match candidates {
        Candidates::Fold(before, after) => TimeError::Twice {
            local,
            zone: name,
            earlier: with_offset(datetime, before),
            later: with_offset(datetime, after),
        },
        Candidates::Gap(before, after) => {
            let (last, first) = jump(datetime, zone, before, after);
            TimeError::Never {
                local,
                zone: name,
                before: last,
                after: first,
                candidates: Box::new([moment(datetime, before), moment(datetime, after)]),
            }
        }
    }
}

fn with_offset(datetime: DateTime, offset: Offset) -> String {
    format!("{}{}", datetime.strftime("%Y-%m-%dT%H:%M:%S%.f"), colon(offset))
}

fn moment(datetime: DateTime, offset: Offset) -> String {
    offset
        .to_timestamp(datetime)
        .map_or_else(|_| with_offset(datetime, offset), in_utc)
}

/// The moment of the jump, on the clock before it and on the clock after it.
fn jump(datetime: DateTime, zone: &Zone, before: Offset, after: Offset) -> (String, String) {
    let at = before.to_timestamp(datetime).ok().and_then(|time| {
        let transitions = zone.zone.preceding(time);
        transitions.map(|transition| transition.timestamp()).next()
    });
    let shown = |offset: Offset| match at {
        Some(time) => with_offset(offset.to_datetime(time), offset),
        None => colon(offset),
    };
    (shown(before), shown(after))
}

fn colon(offset: Offset) -> String {
    let seconds = offset.seconds();
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.unsigned_abs() / 60;
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}
