//! What a store is and what it can do.
//!
//! Promise: a store says `No` or `Unknown` rather than guess.
//! Not here: proving a claim by trying it (check).

use jiff::Timestamp;

/// A store's description of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFacts {
    /// What it is.
    pub kind: StoreKind,
    /// Where it is, for people.
    pub place: String,
    /// Whether a put onto an existing name is refused.
    pub conditional_put: Support,
    /// Whether older versions of a name are kept.
    pub versioning: Support,
    /// Whether objects can be locked against removal.
    pub object_lock: Support,
    /// Whether the store removes or moves objects by age on its own.
    pub lifecycle: Support,
    /// Whose time its objects carry.
    pub clock: StoreClock,
}

/// The kinds of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// A directory of this machine.
    Directory,
    /// The memory of this process; for tests.
    Memory,
    /// A bucket behind the S3 protocol.
    S3,
}

/// Whether a store has a faculty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It has, and it is switched on.
    Yes,
    /// It has not, or it is switched off.
    No,
    /// We may not ask, or the answer is not to be trusted without a trial.
    Unknown,
}

/// Whose clock stamps the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreClock {
    /// The store's own, which stood at this time when it answered.
    Own(Timestamp),
    /// The clock of this machine.
    ThisMachine,
}
