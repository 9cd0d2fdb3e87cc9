//! Jobs: one file a verb.

pub mod backup;
pub mod restore;
pub mod stream;
