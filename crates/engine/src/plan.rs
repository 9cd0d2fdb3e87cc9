//! Plans: what a restore needs, what can be restored at all, how long a backup is kept.
//!
//! Promise: decisions are pure functions of what the catalog says; reading the catalog is kept beside them, in `Catalog`.

mod catalog;
mod chain;
pub mod class;
mod closed;
mod earlier;
mod headless;
mod latest;
mod lineages;
mod lost;
mod lost_backups;
mod names;
mod own_log;
mod passed_over;
mod resolve;
mod restore;
pub mod retention;
mod rivals;
mod two_servers;
mod unread;
mod window;

pub use catalog::Catalog;
pub(crate) use catalog::bytes_along;
pub use chain::{Chain, Link};
pub use closed::ClosedPart;
pub use headless::{Fate, HeadlessBackup};
pub(crate) use headless::{fate_of, may_be_expired};
pub use latest::latest_refused;
pub use lineages::{LineageSeen, Standing, lineages};
pub(crate) use lost::{Known, LostWhole, lost_at_attach, lost_whole, missed_since};
pub use lost::{LostLog, told_once};
pub(crate) use lost_backups::CLOCKS_DIFFER;
pub use lost_backups::{LostBackup, lost_backups};
pub(crate) use own_log::file_of;
pub use passed_over::{PassedOver, PassedOverBackup};
pub use restore::{Request, RestorePlan, SegmentPlan, plan, show_time};
pub use rivals::Rival;
pub(crate) use rivals::{present, rivals, stored_chain};
pub use unread::{Unread, Unreadable};
pub use window::{Window, WindowRange, window};
