//! The process itself: what it does not leave behind.
//!
//! Promise: a crash writes no image of memory, which holds keys.
//! Not here: wiping keys while we run (zeroize, in the types that hold them).

/// Forbids core dumps of this process. Programs that it starts are not affected.
pub fn protect_memory() {
    // On Linux "not dumpable" also covers dumps through a pipe, which a limit of zero does not; execve resets it, so
    // that a server started by a restore can be debugged. A refusal changes nothing that was asked for.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    #[cfg(not(target_os = "linux"))]
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Core,
        rustix::process::Rlimit {
            current: Some(0),
            maximum: None,
        },
    );
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, dumpable_behavior};

    #[test]
    fn the_process_cannot_be_dumped_afterwards() {
        super::protect_memory();
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
    }
}
