//! What an error of the repository or of a job means to a person.
//!
//! Promise: every kind leads to one code; the message and the advice are the error's own.

use crate::codes::Code;
use crate::failure::Failure;
use backstay_engine::{EngineError, ErrorKind};
use backstay_repository::RepositoryError;

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Failure {
        match error {
            EngineError::Source(error) => Failure::from(&error),
            EngineError::Repository(RepositoryError::Store(error)) => Failure::from(&error),
            error => Failure::new(code(error.kind()), error.to_string(), error.advice()),
        }
    }
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Failure {
        Failure::from(EngineError::from(error))
    }
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Other => Code::Other,
        ErrorKind::NotAuthorised => Code::StoreDenied,
        ErrorKind::Refused => Code::RepositoryRefused,
        ErrorKind::NoSuchThing => Code::NotFound,
        ErrorKind::BeforeWindow => Code::BeforeWindow,
        ErrorKind::AfterWindow => Code::AfterWindow,
        ErrorKind::InGap => Code::InGap,
        ErrorKind::Ambiguous => Code::TargetAmbiguous,
        ErrorKind::Conflict => Code::Busy,
        ErrorKind::Unreachable => Code::StoreUnreachable,
        ErrorKind::Integrity => Code::ProofFailed,
        ErrorKind::Key => Code::KeyWrong,
        ErrorKind::Defect => Code::Defect,
    }
}
