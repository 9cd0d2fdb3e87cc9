//! What an error of a server or a restore target means to a person.
//!
//! Promise: every kind leads to one code; the message and the advice are the error's own.

use crate::codes::Code;
use crate::failure::Failure;
use backstay_postgres::conninfo::ConninfoError;
use backstay_source::{SourceError, SourceErrorKind};

impl From<&SourceError> for Failure {
    fn from(error: &SourceError) -> Failure {
        let (what, said) = error.what.split_once('\n').unwrap_or((&error.what, ""));
        let failure = Failure::new(code(error.kind), what, error.advice.clone());
        match said {
            "" => failure,
            said => failure.fact("it said", said),
        }
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Failure {
        Failure::from(&error)
    }
}

impl From<&ConninfoError> for Failure {
    fn from(error: &ConninfoError) -> Failure {
        Failure::new(Code::ConnectionString, error.to_string(), error.advice())
    }
}

fn code(kind: SourceErrorKind) -> Code {
    match kind {
        SourceErrorKind::Unreachable => Code::ServerUnreachable,
        SourceErrorKind::Unauthenticated => Code::ServerDenied,
        SourceErrorKind::Refused => Code::ServerNotReady,
        SourceErrorKind::Conflict => Code::Busy,
        SourceErrorKind::LogGone => Code::LogGone,
        SourceErrorKind::LogBehind => Code::LogBehind,
        SourceErrorKind::OtherSystem => Code::OtherSystem,
        SourceErrorKind::Damaged => Code::ProofFailed,
        SourceErrorKind::TargetRefused => Code::TargetRefused,
        SourceErrorKind::NoSpace => Code::NoSpace,
        SourceErrorKind::Local => Code::LocalFile,
        SourceErrorKind::Protocol => Code::ProtocolViolated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_of_a_server_has_its_code() {
        use SourceErrorKind::*;
        let table = [
            (Unreachable, "BKS-8002", 8),
            (Unauthenticated, "BKS-4002", 4),
            (Refused, "BKS-5005", 5),
            (Conflict, "BKS-7001", 7),
            (LogGone, "BKS-5008", 5),
            (LogBehind, "BKS-5009", 5),
            (OtherSystem, "BKS-5010", 5),
            (Damaged, "BKS-9003", 9),
            (TargetRefused, "BKS-5007", 5),
            (NoSpace, "BKS-5003", 5),
            (Local, "BKS-1904", 1),
            (Protocol, "BKS-9002", 9),
        ];
        for (kind, number, exit) in table {
            let failure = Failure::from(SourceError::new(kind, "what happened", "what to do"));
            assert_eq!(failure.code.to_string(), number, "{kind:?}");
            assert_eq!(failure.code.exit().number(), exit, "{kind:?}");
            assert_eq!(
                (failure.message.as_str(), &failure.help[..]),
                ("what happened", &["what to do".to_owned()][..])
            );
        }
    }
}
