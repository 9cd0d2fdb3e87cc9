//! The binary: command line, configuration, wiring and printing.

fn main() {}
