//! Jobs: one file a verb.

pub mod backup;

pub mod stream;
