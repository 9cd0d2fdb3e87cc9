//! What a store says about its objects.
//!
//! Promise: plain data; sizes are bytes, times are the store's own.
//! Not here: what the bytes mean (repository).

use std::fmt;

use jiff::Timestamp;

use crate::Key;

/// One object in a listing or an answer to `head`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its name.
    pub key: Key,
    /// Its length in bytes.
    pub size: u64,
    /// When it was stored, by the store's clock.
    pub modified: Timestamp,
}

/// How a put ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// This call stored the object.
    Now,
    /// Something was there; it was left as it is.
    AlreadyThere,
}

/// Some names in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In byte order of the key.
    pub objects: Vec<ObjectMeta>,
    /// Whether names follow after the last of these.
    pub more: More,
}

/// Whether a listing goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum More {
    /// Ask again after the last name of this page.
    Yes,
    /// This was the last page.
    No,
}

/// The store's name of one version of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId(String);

impl VersionId {
    /// Takes the store's text as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The store's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One version in the history of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The name.
    pub key: Key,
    /// Which version of it.
    pub id: VersionId,
    /// Its length in bytes; zero for a delete marker.
    pub size: u64,
    /// When it was stored, by the store's clock.
    pub modified: Timestamp,
    /// Content or the mark of a deletion.
    pub kind: VersionKind,
}

/// What a version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionKind {
    /// Bytes that can be read.
    Content,
    /// The mark that hides older versions.
    DeleteMarker,
}

/// A wish for a readable copy of a cold object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThawRequest {
    /// How many days the copy shall stay.
    pub days: u32,
    /// What the haste may cost.
    pub speed: ThawSpeed,
}

/// The retrieval tiers of S3 Glacier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThawSpeed {
    /// Cheapest: within 12 hours, 48 from Deep Archive.
    Bulk,
    /// Within 5 hours, 12 from Deep Archive.
    Standard,
    /// Minutes; not from Deep Archive.
    Expedited,
}

/// How a thaw stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thaw {
    /// This call began it.
    Started,
    /// It had been asked for before and goes on.
    UnderWay,
    /// The object can be read now.
    Ready,
}
