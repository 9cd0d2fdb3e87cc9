//! The crate against what others compute: known answers made in Python, files of Debian's age.
//!
//! Not here: what each part refuses by itself (unit tests beside the code).
#![allow(clippy::unwrap_used, clippy::panic)]

mod age;
mod garbage;
mod vectors;
