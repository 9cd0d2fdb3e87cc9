//! Jobs: one file a verb.

pub mod backup;
pub mod expire;
pub mod restore;
pub mod stream;
