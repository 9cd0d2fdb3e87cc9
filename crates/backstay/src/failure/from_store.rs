//! What an error of a store means to a person.
//!
//! Promise: every variant leads to one code; the message, the place and the advice are the error's own.

use crate::codes::Code;
use crate::failure::Failure;
use backstay_store::StoreError;

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Failure {
        Failure::new(code(error), error.to_string(), error.advice())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::from(&error)
    }
}

fn code(error: &StoreError) -> Code {
    match error {
        StoreError::NotFound { .. } => Code::NotFound,
        StoreError::PermissionDenied { .. } => Code::StoreDenied,
        StoreError::NotSupported { .. } => Code::NotSupported,
        StoreError::Unreachable { .. } | StoreError::Busy { .. } | StoreError::Timeout { .. } => {
            Code::StoreUnreachable
        }
        StoreError::ShortRead { .. } | StoreError::OutOfRange { .. } | StoreError::Damaged { .. } => {
            Code::StoreDamaged
        }
        StoreError::Foreign { .. } => Code::ForeignObject,
        StoreError::NoSpace { .. } => Code::NoSpace,
        StoreError::ReadOnly { .. } => Code::StoreReadOnly,
        StoreError::InvalidKey { .. } | StoreError::Died { .. } | StoreError::Other { .. } => {
            Code::StoreFailed
        }
    }
}
