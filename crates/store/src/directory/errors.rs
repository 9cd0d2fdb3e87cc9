//! The kernel's errors as errors of a store.
//!
//! Promise: what may pass by itself is told apart from what needs a person.
//! Not here: the errors that an operation expects (writing, walk).

use std::io;

use rustix::io::Errno;

use super::EntryKind;
use crate::{Call, StoreError};

/// The store's error for a failed file call.
pub(super) fn explain(call: Call, error: &io::Error) -> StoreError {
    let detail = error.to_string();
    match Errno::from_io_error(error) {
        // A name below an object is simply not there, as in a bucket.
        Some(Errno::NOENT | Errno::NOTDIR) => StoreError::NotFound { call },
        Some(Errno::ACCESS | Errno::PERM) => StoreError::PermissionDenied { call, detail },
        Some(Errno::LOOP) => StoreError::NotAnObject {
            call,
            what: "a symbolic link, a pipe, a socket or a device",
        },
        Some(Errno::ISDIR) => StoreError::NotAnObject {
            call,
            what: "a directory",
        },
        Some(Errno::NOSPC | Errno::DQUOT) => StoreError::NoSpace { call, detail },
        Some(Errno::ROFS) => StoreError::ReadOnly { call },
        Some(Errno::STALE | Errno::TIMEDOUT | Errno::HOSTDOWN | Errno::NOTCONN) => {
            StoreError::Unreachable { call, detail }
        }
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN | Errno::INTR) => {
            StoreError::Busy { call, detail }
        }
        Some(Errno::OPNOTSUPP | Errno::NOSYS) => StoreError::NotSupported { call, detail },
        None if error.kind() == io::ErrorKind::StaleNetworkFileHandle => {
            StoreError::Unreachable { call, detail }
        }
        Some(Errno::IO) => StoreError::Damaged { call, detail },
        _ => StoreError::Other { call, detail },
    }
}

/// Refuses what is no regular file: nothing else is an object. A directory is a folder of names, which a bucket does not have.
pub(super) fn refuse_no_object(kind: EntryKind) -> io::Result<()> {
    match kind {
        EntryKind::File => Ok(()),
        EntryKind::Directory => Err(Errno::NOENT.into()),
        EntryKind::Other => Err(Errno::LOOP.into()),
    }
}

/// Whether the call failed with this error of the kernel.
pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Operation, Retry};

    #[test]
    fn each_error_of_the_kernel_says_what_to_do_next() {
        let table = [
            (Errno::NOENT, "NotFound", Retry::Never),
            (Errno::NOTDIR, "NotFound", Retry::Never),
            (Errno::ACCESS, "PermissionDenied", Retry::AfterHelp),
            (Errno::PERM, "PermissionDenied", Retry::AfterHelp),
            (Errno::LOOP, "NotAnObject", Retry::Never),
            (Errno::ISDIR, "NotAnObject", Retry::Never),
            (Errno::NOSPC, "NoSpace", Retry::AfterHelp),
            (Errno::DQUOT, "NoSpace", Retry::AfterHelp),
            (Errno::ROFS, "ReadOnly", Retry::AfterHelp),
            (Errno::STALE, "Unreachable", Retry::Later),
            (Errno::TIMEDOUT, "Unreachable", Retry::Later),
            (Errno::MFILE, "Busy", Retry::Later),
            (Errno::AGAIN, "Busy", Retry::Later),
            (Errno::OPNOTSUPP, "NotSupported", Retry::Never),
            (Errno::IO, "Damaged", Retry::Never),
            (Errno::NAMETOOLONG, "Other", Retry::Never),
        ];
        for (errno, variant, retry) in table {
            let error = explain(Call::on_store(Operation::Facts), &errno.into());
            assert!(format!("{error:?}").starts_with(variant), "{error:?}");
            assert_eq!(error.retry(), retry, "{error:?}");
        }
    }
}
