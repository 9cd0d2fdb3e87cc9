//! What a process was told is done: the outside world's memory, which survives every crash.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use backstay_repository::Head;
use backstay_terms::{Branch, LogRange, Position};

/// Acknowledgements of all processes of a cell. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    state: Arc<Mutex<Acknowledged>>,
}

/// What was acknowledged.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged {
    /// Heads whose commit returned.
    pub heads: Vec<Head>,
    /// Of every branch: from its first position to the last durable one.
    pub durable: BTreeMap<Branch, LogRange>,
    /// Deletions and changes that the store saw.
    pub misdeeds: Vec<String>,
}

impl Ledger {
    pub fn committed(&self, head: Head) {
        self.state().heads.push(head);
    }

    /// The source was told that everything of a branch from `from` to `to` is durable.
    pub fn durable(&self, branch: Branch, from: Position, to: Position) {
        let mut state = self.state();
        let known = state.durable.entry(branch).or_insert(LogRange { from, to: from });
        *known = LogRange {
            from: known.from.min(from),
            to: known.to.max(to),
        };
    }

    pub fn misdeed(&self, what: String) {
        self.state().misdeeds.push(what);
    }

    pub fn read(&self) -> Acknowledged {
        self.state().clone()
    }

    fn state(&self) -> MutexGuard<'_, Acknowledged> {
        self.state.lock().unwrap()
    }
}
