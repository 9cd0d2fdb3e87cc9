//! The class of a backup by its rank, as it is configured.
//!
//! Promise: only classes of the table are accepted; what a service leaves open comes from the block of all services.
//! Not here: which rank a backup has (backstay-engine::plan::class).

use super::raw::RawRetention;
use super::text::Text;
use super::{Origin, Setting};
use crate::codes::Code;
use crate::failure::Failure;
use crate::suggest;
use backstay_engine::plan::class::ClassPolicy;
use backstay_terms::RetentionClass;
use serde_saphyr::Spanned;
use std::fmt;

/// The class of a backup by its rank in the week and the day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The first good full backup of a week.
    pub weekly: Setting<RankClass>,
    /// The first good backup of a day.
    pub daily: Setting<RankClass>,
    /// Every other backup.
    pub rest: Setting<RetentionClass>,
}

/// The class of a rank, or that there is no such rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankClass {
    /// Its backups are of this class.
    Of(RetentionClass),
    /// Nobody has it.
    Off,
}

impl RankClass {
    fn class(self) -> Option<RetentionClass> {
        match self {
            RankClass::Of(class) => Some(class),
            RankClass::Off => None,
        }
    }
}

impl fmt::Display for RankClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RankClass::Of(class) => class.fmt(f),
            RankClass::Off => f.write_str(OFF),
        }
    }
}

impl Retention {
    /// What holds where nothing is said.
    pub(super) fn usual() -> Retention {
        fn unsaid<T>(value: T) -> Setting<T> {
            Setting {
                value,
                origin: Origin::Default,
            }
        }
        Retention {
            weekly: unsaid(RankClass::Of(RetentionClass::Years7)),
            daily: unsaid(RankClass::Of(RetentionClass::Year1)),
            rest: unsaid(RetentionClass::Days35),
        }
    }

    /// The same for the planner.
    pub fn policy(&self) -> ClassPolicy {
        ClassPolicy {
            weekly: self.weekly.value.class(),
            daily: self.daily.value.class(),
            rest: self.rest.value,
        }
    }
}

const OFF: &str = "off";
const CLASSES_ARE_FIXED: &str = "the classes are fixed, because the lifecycle rules of the store name them";

pub(super) fn retention(text: &Text, raw: RawRetention, common: &Retention) -> Result<Retention, Failure> {
    Ok(Retention {
        weekly: rank(text, raw.weekly, &common.weekly)?,
        daily: rank(text, raw.daily, &common.daily)?,
        rest: match raw.rest {
            None => common.rest.clone(),
            Some(raw) if is_off(&raw.value) => {
                let message = format!("rest is {}, and every backup is kept for some time", raw.value);
                let help =
                    "choose the class of the backups that are neither weekly nor daily: 35d is the shortest";
                return Err(text.failure(Code::ConfigValue, message, help, raw.referenced));
            }
            Some(raw) => said(&raw, class(text, &raw, &[])?),
        },
    })
}

fn rank(
    text: &Text,
    raw: Option<Spanned<String>>,
    common: &Setting<RankClass>,
) -> Result<Setting<RankClass>, Failure> {
    match raw {
        None => Ok(common.clone()),
        Some(raw) if is_off(&raw.value) => Ok(said(&raw, RankClass::Off)),
        Some(raw) => Ok(said(&raw, RankClass::Of(class(text, &raw, &[OFF])?))),
    }
}

fn is_off(word: &str) -> bool {
    matches!(word, "off" | "none")
}

fn said<T>(raw: &Spanned<String>, value: T) -> Setting<T> {
    let origin = Origin::Line(raw.referenced.line());
    Setting { value, origin }
}

/// Reads a class; `besides` are the other words that this place takes.
fn class(
    text: &Text,
    raw: &Spanned<String>,
    besides: &'static [&'static str],
) -> Result<RetentionClass, Failure> {
    raw.value.parse().map_err(|reason: String| {
        let classes = RetentionClass::ALL.into_iter().map(RetentionClass::name);
        let near = suggest::nearest(&raw.value, classes.chain(besides.iter().copied()));
        let failure = |help: String| text.failure(Code::ConfigValue, reason, help, raw.referenced);
        let failure = match near {
            Some(near) => failure(format!("did you mean {near}?")).or(CLASSES_ARE_FIXED),
            None => failure(CLASSES_ARE_FIXED.to_owned()),
        };
        match besides.is_empty() {
            true => failure,
            false => failure.or("off means that no backup has this rank"),
        }
    })
}
