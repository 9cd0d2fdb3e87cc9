//! One result of a check.

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Good,
    /// Works, but a promise is weaker than it could be.
    Warning,
    /// A backup, a stream or a restore would fail.
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable word for programs: `replication-role`, `max-slot-wal-keep-size`.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, with values.
    pub what: String,
    /// What to type or change; empty when good.
    pub fix: String,
}

impl Finding {
    /// A good finding.
    pub fn good(id: &'static str, what: impl Into<String>) -> Finding {
        Finding {
            id,
            severity: Severity::Good,
            what: what.into(),
            fix: String::new(),
        }
    }

    /// A warning and what to do.
    pub fn warning(id: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            id,
            severity: Severity::Warning,
            what: what.into(),
            fix: fix.into(),
        }
    }

    /// A failure and what to do.
    pub fn failure(id: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            id,
            severity: Severity::Failure,
            what: what.into(),
            fix: fix.into(),
        }
    }
}
