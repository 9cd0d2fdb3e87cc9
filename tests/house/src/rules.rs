//! The rules, one module each; every module plants an offence and finds it.
//!
//! Promise: each `offences` returns all offences, in order of file.
//! Not here: reading the checkout (tree, source, workspace).

pub mod arrows;
pub mod calls;
pub mod dependencies;
pub mod documents;
pub mod shape;
pub mod words;
