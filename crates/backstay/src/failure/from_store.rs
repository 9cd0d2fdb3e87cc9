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
        StoreError::ShortRead { .. }
        | StoreError::OutOfRange { .. }
        | StoreError::Damaged { .. }
        | StoreError::NotAnObject { .. } => Code::StoreDamaged,
        StoreError::Foreign { .. } => Code::ForeignObject,
        StoreError::NoSpace { .. } => Code::NoSpace,
        StoreError::ReadOnly { .. } => Code::StoreReadOnly,
        StoreError::InvalidKey { .. } | StoreError::Died { .. } | StoreError::Other { .. } => {
            Code::StoreFailed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstay_store::{Call, Key, KeyFault, Operation};
    use std::time::Duration;

    #[test]
    fn every_error_of_a_store_has_its_code() {
        let call = || Call::on_key(Operation::Put, &Key::new("a/b").unwrap());
        let detail = || "detail".to_owned();
        let table = [
            (StoreError::NotFound { call: call() }, "BKS-6001"),
            (
                StoreError::PermissionDenied {
                    call: call(),
                    detail: detail(),
                },
                "BKS-4001",
            ),
            (
                StoreError::NotSupported {
                    call: call(),
                    detail: detail(),
                },
                "BKS-5006",
            ),
            (
                StoreError::Unreachable {
                    call: call(),
                    detail: detail(),
                },
                "BKS-8001",
            ),
            (
                StoreError::Busy {
                    call: call(),
                    detail: detail(),
                },
                "BKS-8001",
            ),
            (
                StoreError::Timeout {
                    call: call(),
                    after: Duration::ZERO,
                },
                "BKS-8001",
            ),
            (
                StoreError::ShortRead {
                    call: call(),
                    expected: 2,
                    received: 1,
                },
                "BKS-9001",
            ),
            (
                StoreError::Damaged {
                    call: call(),
                    detail: detail(),
                },
                "BKS-9001",
            ),
            (
                StoreError::Foreign {
                    call: call(),
                    detail: detail(),
                },
                "BKS-7002",
            ),
            (
                StoreError::NoSpace {
                    call: call(),
                    detail: detail(),
                },
                "BKS-5003",
            ),
            (
                StoreError::NotAnObject {
                    call: call(),
                    what: "a directory",
                },
                "BKS-9001",
            ),
            (StoreError::ReadOnly { call: call() }, "BKS-5002"),
            (
                StoreError::InvalidKey {
                    text: "..".to_owned(),
                    fault: KeyFault::Empty,
                },
                "BKS-1903",
            ),
        ];
        for (error, number) in table {
            let failure = Failure::from(&error);
            assert_eq!(failure.code.to_string(), number, "{error:?}");
            assert_eq!(
                (failure.message, failure.help),
                (error.to_string(), vec![error.advice().to_owned()])
            );
        }
    }
}
