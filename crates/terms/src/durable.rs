//! The token that says: these bytes are in the store.
//!
//! Promise: whoever holds a `Durable` may confirm its position to a source, because every byte before it is stored.
//! Only `backstay-repository`'s log writer attests one; the architecture test refuses the call anywhere else.

use crate::Position;

/// Proof that every byte of a log before `position` is durable in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Durable {
    position: Position,
}

impl Durable {
    /// States that every byte before `position` is durable. For the repository's log writer alone.
    pub fn attest(position: Position) -> Durable {
        Durable { position }
    }

    /// The first position that is not known to be durable.
    pub fn position(&self) -> Position {
        self.position
    }
}
