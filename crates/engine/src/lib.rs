//! Jobs and plans: the only place where a source meets the repository.
//!
//! Promise: a job's `run` reads like a table of contents; plans are pure functions of the catalog, the policy and the
//! time. Everything that happens is a `Fact`, told to one `Observer`.
//! Not here: formats (backstay-repository), protocols (the adapters), printing (backstay).

mod error;
mod fact;
pub mod jobs;
pub mod plan;
mod supervisor;

pub use error::{EngineError, ErrorKind, Side};
pub use fact::{Fact, Observer, Silent};
