//! A world for scenarios: a repository, a stream that can be stopped, and what was confirmed.
//!
//! Promise: nothing waits by sleeping; every wait has a fact that it waits for and a deadline.
//! Not here: the servers (backstay-testkit), the scenarios (tests/it).

mod running;
mod world;

pub use running::Running;
pub use world::World;
