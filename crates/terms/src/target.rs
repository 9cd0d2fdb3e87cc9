//! The point that a recovery aims at, and its text forms.
//!
//! Promise: the grammar of `--to`: `latest | immediate | lsn:X | xid:N | name:S | offset:N | before:CMD`, else a time,
//! which is left as text here because only the edge knows the clock and the zone.
//! Not here: resolving a target to a record (backstay-engine::plan), reading times (backstay).

use crate::Lsn;
use std::fmt;

/// What a recovery aims at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryTarget {
    /// The last complete record of the log.
    Latest,
    /// The moment at which the base is consistent.
    Immediate,
    /// A time on the source's clock: microseconds since 2000-01-01 00:00:00 UTC. Transactions that ended at or
    /// before it are kept.
    Time(i64),
    /// Up to and including the first record that starts at or after this position: PostgreSQL's inclusive
    /// `recovery_target_lsn`.
    Lsn(Lsn),
    /// Up to and including the end of this transaction.
    Transaction(u32),
    /// Up to and including the restore point of this name.
    Name(String),
}

/// A target cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The part after `lsn:` is not an LSN.
    #[error("{0}")]
    Lsn(#[from] crate::LsnParseError),
    /// The part after `xid:` is not a transaction id.
    #[error("{text:?} is not a transaction id: expected a number from 3 to 4294967295")]
    Transaction {
        /// What was given.
        text: String,
    },
    /// The part after `name:` is empty or too long.
    #[error("a restore point has a name of 1 to 63 bytes, not {length}")]
    Name {
        /// The length given.
        length: usize,
    },
    /// A form that belongs to another engine.
    #[error("{text:?} is a target for another engine than PostgreSQL")]
    OtherEngine {
        /// What was given.
        text: String,
    },
}

impl RecoveryTarget {
    /// Reads every form but a time; none if the text is not one of them, so it may be a time.
    pub fn parse_word(text: &str) -> Result<Option<RecoveryTarget>, TargetError> {
        match text.split_once(':') {
            _ if text == "latest" => Ok(Some(RecoveryTarget::Latest)),
            _ if text == "immediate" => Ok(Some(RecoveryTarget::Immediate)),
            Some(("lsn", lsn)) => Ok(Some(RecoveryTarget::Lsn(lsn.parse()?))),
            Some(("xid", number)) => parse_transaction(number).map(Some),
            Some(("name", name)) => parse_name(name).map(Some),
            Some(("offset" | "before", _)) => Err(TargetError::OtherEngine {
                text: text.to_owned(),
            }),
            _ => Ok(None),
        }
    }
}

fn parse_transaction(text: &str) -> Result<RecoveryTarget, TargetError> {
    let number = text.parse::<u32>().ok().filter(|xid| *xid >= 3);
    let refuse = || TargetError::Transaction {
        text: text.to_owned(),
    };
    number.map(RecoveryTarget::Transaction).ok_or_else(refuse)
}

fn parse_name(name: &str) -> Result<RecoveryTarget, TargetError> {
    if (1..=63).contains(&name.len()) {
        return Ok(RecoveryTarget::Name(name.to_owned()));
    }
    Err(TargetError::Name { length: name.len() })
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoveryTarget::Latest => f.write_str("latest"),
            RecoveryTarget::Immediate => f.write_str("immediate"),
            RecoveryTarget::Time(time) => write!(f, "time:{time}"),
            RecoveryTarget::Lsn(lsn) => write!(f, "lsn:{lsn}"),
            RecoveryTarget::Transaction(xid) => write!(f, "xid:{xid}"),
            RecoveryTarget::Name(name) => write!(f, "name:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_read() {
        let read = |text| RecoveryTarget::parse_word(text);
        assert_eq!(read("latest"), Ok(Some(RecoveryTarget::Latest)));
        assert_eq!(read("immediate"), Ok(Some(RecoveryTarget::Immediate)));
        assert_eq!(
            read("lsn:1/20"),
            Ok(Some(RecoveryTarget::Lsn(Lsn(0x1_0000_0020))))
        );
        assert_eq!(read("xid:700"), Ok(Some(RecoveryTarget::Transaction(700))));
        assert_eq!(read("name:a:b"), Ok(Some(RecoveryTarget::Name("a:b".into()))));
        assert_eq!(read("2026-11-23T02:17:41Z"), Ok(None));
        assert!(
            read("xid:2").is_err()
                && read("name:").is_err()
                && read("lsn:x").is_err()
                && read("offset:7").is_err()
        );
    }
}
