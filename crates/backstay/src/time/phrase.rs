//! The grammar of times, without knowing the time or the zone.
//!
//! Promise: nothing is guessed: a date without a time, a time without a day and more than six digits of a second are
//! refused with what to write instead.

use super::{TimeError, unreadable};
use crate::units;
use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;

/// What a text says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phrase {
    /// `now`.
    Now,
    /// `10 min ago` or `-10 min`: a length before now.
    Ago(SignedDuration),
    /// `2026-11-22T14:05:00Z`: a date and time with its offset.
    Absolute(DateTime, Offset),
    /// `2026-11-22 14:05`: a date and time in the reader's zone.
    Local(DateTime),
    /// `yesterday 14:05`: so many days before today, at a time in the reader's zone.
    Day(u8, Time),
}

pub(super) fn parse(text: &str) -> Result<Phrase, TimeError> {
    let trimmed = text.trim();
    if trimmed == "now" {
        return Ok(Phrase::Now);
    }
    if let Some(length) = trimmed.strip_suffix(" ago").or_else(|| trimmed.strip_prefix('-')) {
        return ago(text, length);
    }
    for (word, days_back) in [("today", 0), ("yesterday", 1)] {
        if let Some(rest) = trimmed.strip_prefix(word) {
            return match rest.trim_start() {
                "" => Err(unreadable(
                    text,
                    &format!("it lacks a time of day: \"{word} 14:05\""),
                )),
                time => Ok(Phrase::Day(days_back, time_of_day(text, time)?)),
            };
        }
    }
    absolute(text, trimmed)
}

fn ago(text: &str, length: &str) -> Result<Phrase, TimeError> {
    let length = units::duration(length).map_err(|error| unreadable(text, &error.to_string()))?;
    SignedDuration::try_from(length)
        .map(Phrase::Ago)
        .map_err(|_| unreadable(text, "it is too long ago"))
}

fn absolute(text: &str, trimmed: &str) -> Result<Phrase, TimeError> {
    let Some((day, rest)) = trimmed.split_at_checked(10) else {
        return Err(unreadable(text, without_date(trimmed)));
    };
    let Some(date) = date(day) else {
        let looks_like_a_day = day.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
        let reason = match looks_like_a_day {
            true => format!("there is no day {day}"),
            false => without_date(trimmed).to_owned(),
        };
        return Err(unreadable(text, &reason));
    };
    if rest.is_empty() {
        return Err(unreadable(
            text,
            &format!("it lacks a time of day: \"{day} 14:05\""),
        ));
    }
    let rest = rest.strip_prefix(['T', 't', ' ']).unwrap_or("").trim_start();
    let end = rest
        .find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.'))
        .unwrap_or(rest.len());
    let (time, zone) = rest.split_at(end);
    let datetime = date.to_datetime(time_of_day(text, time)?);
    match zone.trim() {
        "" => Ok(Phrase::Local(datetime)),
        zone => match offset(zone) {
            Some(offset) => Ok(Phrase::Absolute(datetime, offset)),
            None => Err(unreadable(
                text,
                &format!("{zone:?} is not an offset such as Z or +01:00"),
            )),
        },
    }
}

fn without_date(text: &str) -> &'static str {
    if time_of_day(text, text).is_ok() {
        "it lacks a day: \"today 14:05\" or \"yesterday 14:05\""
    } else {
        "it does not begin with a day (2026-11-22, today, yesterday) or end with \"ago\""
    }
}

/// `2026-11-22` and no other form.
fn date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || (year.len(), month.len(), day.len()) != (4, 2, 2) {
        return None;
    }
    Date::new(number(year)?, number(month)?, number(day)?).ok()
}

/// `14:05`, `14:05:09` or `14:05:09.123456`.
fn time_of_day(text: &str, time: &str) -> Result<Time, TimeError> {
    let refuse = || {
        unreadable(
            text,
            &format!("{time:?} is not a time of day such as 14:05 or 14:05:09.25"),
        )
    };
    let (clock, fraction) = match time.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (time, None),
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let (hour, minute, second) = match (parts.as_slice(), fraction) {
        ([hour, minute], None) => (*hour, *minute, "00"),
        ([hour, minute, second], _) => (*hour, *minute, *second),
        _ => return Err(refuse()),
    };
    if [hour, minute, second].iter().any(|part| part.len() != 2) {
        return Err(refuse());
    }
    let nanosecond = match fraction {
        Some(digits) if digits.len() > 6 => {
            return Err(unreadable(
                text,
                "PostgreSQL knows microseconds: at most six digits of a second",
            ));
        }
        Some(digits) => number::<i32>(&format!("{digits:0<9}")).filter(|_| !digits.is_empty()),
        None => Some(0),
    };
    let parts = (number(hour), number(minute), number(second), nanosecond);
    let (Some(hour), Some(minute), Some(second), Some(nanosecond)) = parts else {
        return Err(refuse());
    };
    Time::new(hour, minute, second, nanosecond).map_err(|_| refuse())
}

/// `Z`, `UTC`, `+01`, `+0100` or `+01:00`.
fn offset(text: &str) -> Option<Offset> {
    if text.eq_ignore_ascii_case("z") || text.eq_ignore_ascii_case("utc") {
        return Some(Offset::UTC);
    }
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let digits = text.get(1..)?;
    let (hours, minutes) = match (digits.len(), digits.split_once(':')) {
        (2, None) => (digits, "00"),
        (4, None) => digits.split_at_checked(2)?,
        (5, Some((hours, minutes))) if hours.len() == 2 => (hours, minutes),
        _ => return None,
    };
    let (hours, minutes): (i32, i32) = (number(hours)?, number(minutes)?);
    let seconds = (minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))?;
    Offset::from_seconds(seconds).ok()
}

fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}
