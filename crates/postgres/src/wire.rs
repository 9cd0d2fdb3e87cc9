//! The frontend/backend protocol, version 3.0, on one socket.
//!
//! Promise: no frame is longer than its bound, no wait is without an end, a cancelled read loses nothing.
//! Not here: what a command means (replication, base_backup).

mod frames;
mod login;
mod messages;
mod transport;

pub use messages::{Notice, Rows};

pub(crate) use frames::{Bound, Frames};
pub(crate) use login::{Login, log_in};
pub(crate) use messages::Incoming;
pub(crate) use transport::{Transport, open};
