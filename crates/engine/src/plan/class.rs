//! Chooses how long a new backup is kept, by its rank in the week and in the day.
//!
//! Promise: `choose` is pure. A backup is kept at least as long as every rank that it takes. A rank is taken only by a good
//! backup that is kept as long as the rank wants: none that failed, that is damaged, or that somebody asked to keep for
//! less uses up a week or a day. Weeks begin on Monday and days at midnight, in UTC.
//! Not here: when backups are due (plan::schedule, later), what goes when (retention).

use crate::EngineError;
use backstay_repository::{
    BackupKind, Head, HeadVerdict, Repository, RepositoryError, StoreError, moment_of,
};
use backstay_terms::{BackupId, EngineKind, RetentionClass, SourceName};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;
use std::fmt;

/// The class of each rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassPolicy {
    /// The first good full of a week; none: a week has no rank.
    pub weekly: Option<RetentionClass>,
    /// The first good backup of a day; none: a day has no rank.
    pub daily: Option<RetentionClass>,
    /// Every other backup.
    pub rest: RetentionClass,
}

/// A week of ISO 8601: `2026-W48`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Week {
    year: i16,
    number: i8,
}

impl Week {
    /// The week that holds this moment, in UTC.
    pub fn of(moment: Timestamp) -> Week {
        let date = day_of(moment).iso_week_date();
        Week {
            year: date.year(),
            number: date.week(),
        }
    }
}

impl fmt::Display for Week {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-W{:02}", self.year, self.number)
    }
}

impl From<Week> for String {
    fn from(week: Week) -> String {
        week.to_string()
    }
}

/// Why a backup has its class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "rank", rename_all = "kebab-case")]
pub enum Because {
    /// Somebody asked for it.
    Asked,
    /// It takes the place of its week.
    FirstOfWeek {
        /// Which.
        week: Week,
    },
    /// It takes the place of its day.
    FirstOfDay {
        /// Which, in UTC.
        day: Date,
    },
    /// Both places are taken, or nothing longer is wanted for them.
    Rest {
        /// The backup that has the place of its week.
        #[serde(skip_serializing_if = "Option::is_none")]
        week_has: Option<BackupId>,
        /// The backup that has the place of its day.
        #[serde(skip_serializing_if = "Option::is_none")]
        day_has: Option<BackupId>,
    },
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Because::Asked => f.write_str("as it was asked for"),
            Because::FirstOfWeek { week } => write!(f, "the first good full of week {week}"),
            Because::FirstOfDay { day } => write!(f, "the first good backup of {day}"),
            Because::Rest { week_has, day_has } => fmt_rest(f, week_has.as_ref(), day_has.as_ref()),
        }
    }
}

fn fmt_rest(f: &mut fmt::Formatter<'_>, week: Option<&BackupId>, day: Option<&BackupId>) -> fmt::Result {
    match (week, day) {
        (Some(week), Some(day)) if week == day => {
            write!(f, "this week and this day have their backup already ({week})")
        }
        (Some(week), Some(day)) => {
            write!(
                f,
                "this week has its backup already ({week}), and this day too ({day})"
            )
        }
        (Some(week), None) => write!(
            f,
            "this week has its backup already ({week}), and no day is kept for longer"
        ),
        (None, Some(day)) => write!(
            f,
            "this day has its backup already ({day}), and no week is kept for longer"
        ),
        (None, None) => f.write_str("no week and no day is kept for longer"),
    }
}

/// A class and the reason for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// How long the backup is kept.
    pub class: RetentionClass,
    /// Why.
    #[serde(flatten)]
    pub because: Because,
}

impl Chosen {
    /// What somebody asked for beats every policy.
    pub fn asked(class: RetentionClass) -> Chosen {
        Chosen {
            class,
            because: Because::Asked,
        }
    }
}

/// Chooses for a full that begins `now`, beside the backups that are stored.
pub fn choose(heads: &[Head], policy: ClassPolicy, now: Timestamp) -> Chosen {
    let (week, day) = (Week::of(now), day_of(now));
    let week_has = policy.weekly.and_then(|class| has_week(heads, week, class));
    let day_has = policy.daily.and_then(|class| has_day(heads, day, class));
    let weekly = policy.weekly.filter(|_| week_has.is_none());
    let daily = policy.daily.filter(|_| day_has.is_none());
    let rest = Chosen {
        class: policy.rest,
        because: Because::Rest { week_has, day_has },
    };
    let rank = |because| move |class| Chosen { class, because };
    let open = [
        daily.map(rank(Because::FirstOfDay { day })),
        weekly.map(rank(Because::FirstOfWeek { week })),
    ];
    // Of equally long ones the last, which is the rarest rank.
    let longer = |longest: Chosen, chosen: Chosen| {
        if chosen.class >= longest.class {
            chosen
        } else {
            longest
        }
    };
    open.into_iter().flatten().fold(rest, longer)
}

fn has_week(heads: &[Head], week: Week, class: RetentionClass) -> Option<BackupId> {
    let mut fulls = heads.iter().filter(|head| head.kind == BackupKind::Full);
    let has = fulls.find(|head| is_kept_for(head, class) && Week::of(head.began()) == week);
    has.map(|head| head.backup.clone())
}

fn has_day(heads: &[Head], day: Date, class: RetentionClass) -> Option<BackupId> {
    let has = heads
        .iter()
        .find(|head| is_kept_for(head, class) && day_of(head.began()) == day);
    has.map(|head| head.backup.clone())
}

fn is_kept_for(head: &Head, class: RetentionClass) -> bool {
    head.verdict == HeadVerdict::Good && head.class >= class
}

fn day_of(moment: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(moment).date()
}

/// The stored backups that can take a rank from a backup that begins `now`: those of its week, which holds its day.
pub async fn rivals(
    repository: &Repository,
    engine: EngineKind,
    source: &SourceName,
    now: Timestamp,
) -> Result<Vec<Head>, EngineError> {
    let mut heads = Vec::new();
    for place in repository.backup_places(engine, source).await? {
        if moment_of(&place.backup).map(Week::of) != Some(Week::of(now)) {
            continue;
        }
        match repository.read_head(&place).await {
            Ok(head) => heads.push(head),
            // It expired just now.
            Err(RepositoryError::Store(StoreError::NotFound { .. })) => {}
            Err(RepositoryError::Store(error)) => return Err(RepositoryError::Store(error).into()),
            // What nobody here can open takes nothing: the new backup is then kept for too long, never for too short.
            Err(_) => {}
        }
    }
    Ok(heads)
}

#[cfg(test)]
mod tests;
