//! Jobs: one file a verb.

pub mod adopt;
mod assembly;
pub mod backup;
pub mod expire;
pub mod fetch;
pub(crate) mod losses;
pub mod recorded;
pub mod restore;
pub mod stream;
pub mod verify;
