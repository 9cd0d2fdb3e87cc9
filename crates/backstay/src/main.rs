//! The process: everything is in the library beside it.

fn main() {}
