//! Plans: what a restore needs, what can be restored at all, how long a backup is kept.
//!
//! Promise: decisions are pure functions of what the catalog says; reading the catalog is kept beside them, in `Catalog`.

mod catalog;
mod chain;
pub mod class;
mod resolve;
mod restore;
pub mod retention;
mod window;

pub use catalog::Catalog;
pub(crate) use catalog::bytes_along;
pub use chain::{Chain, Link};
pub use restore::{Request, RestorePlan, SegmentPlan, plan, show_time};
pub use window::{Window, WindowRange, window};
