//! Stores that die, lie and fail on request, for tests.
//!
//! Promise: every fault is placed by a number, so a test repeats it exactly.
//! Not here: faults of the network itself (a real server with a scripted one in front, for S3).

mod crash;
mod faulty;

pub use crash::{CrashMode, CrashPlan, CrashStore, Fate};
pub use faulty::{Fault, FaultKind, FaultyStore, When};
