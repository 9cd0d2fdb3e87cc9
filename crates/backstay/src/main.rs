//! The process: everything is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    backstay::wire::main()
}
