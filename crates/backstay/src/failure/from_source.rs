//! What an error of a server or a restore target means to a person.
//!
//! Promise: every kind leads to one code; the message and the advice are the error's own.

use crate::codes::Code;
use crate::failure::Failure;
use backstay_postgres::conninfo::ConninfoError;
use backstay_source::{SourceError, SourceErrorKind};

impl From<&SourceError> for Failure {
    fn from(error: &SourceError) -> Failure {
        Failure::new(code(error.kind), error.what.clone(), error.advice.clone())
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
        SourceErrorKind::Local => Code::LocalFile,
        SourceErrorKind::Protocol => Code::ProtocolViolated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn an_unreachable_server_can_be_tried_again_and_a_refusal_cannot() {
        let exit = |kind| code(kind).exit();
        assert_eq!(exit(SourceErrorKind::Unreachable), Exit::Unreachable);
        assert_eq!(exit(SourceErrorKind::TargetRefused), Exit::Refused);
        assert_eq!(exit(SourceErrorKind::Unauthenticated), Exit::NotAuthorised);
    }
}
