//! A process of its own under a hard limit of memory, where this machine lets us set one.
//!
//! Promise: the limit stands before the program begins; the cgroup is removed afterwards. Without one the kernel's figure
//! of the highest memory stands alone, and the line that is printed says which of the two it was.
//! Not here: what the process does (memory).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

/// The limit, and what a peak must stay under where there is none.
pub const CEILING_KIB: u64 = 128 << 10;

/// A cgroup of one process.
struct Cage {
    directory: PathBuf,
    version: &'static str,
}

impl Cage {
    /// A cgroup v2 or v1 with the limit; none where none can be made.
    fn made() -> Option<Cage> {
        let v2 = ("/sys/fs/cgroup", "memory.max", "v2");
        let v1 = ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "v1");
        [v2, v1]
            .into_iter()
            .find_map(|(root, limit, version)| Cage::below(Path::new(root), limit, version))
    }

    fn below(root: &Path, limit: &str, version: &'static str) -> Option<Cage> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = root.join(format!("backstay-test-{}-{number}", std::process::id()));
        if !root.join("cgroup.procs").exists() || std::fs::create_dir(&directory).is_err() {
            return None;
        }
        let cage = Cage { directory, version };
        let limit = cage.directory.join(limit);
        // A directory without the controller has no such file, and a file system that is none would make one.
        let set = limit.exists() && std::fs::write(limit, (CEILING_KIB << 10).to_string()).is_ok();
        set.then_some(cage)
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.directory) {
            println!("{} stays: {error}", self.directory.display());
        }
    }
}

/// Runs a test of this binary in a process of its own; returns its peak and prints its line with what held it.
pub fn peak_of(test: &str, told: &[(&str, String)]) -> u64 {
    let cage = Cage::made();
    let program = std::env::current_exe().unwrap();
    let mut command = match &cage {
        // The shell enters and becomes the program.
        Some(cage) => {
            let mut shell = Command::new("/bin/sh");
            let enter = "echo $$ >\"$0/cgroup.procs\" && exec \"$@\"";
            shell.arg("-c").arg(enter).arg(&cage.directory).arg(program);
            shell
        }
        None => Command::new(program),
    };
    let output = command
        .args([test, "--exact", "--ignored", "--nocapture"])
        .envs(told.iter().map(|(name, value)| (*name, value.as_str())))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let (error, ended) = (String::from_utf8_lossy(&output.stderr), output.status);
    assert!(ended.success(), "{ended}: {said}{error}");
    let line = said
        .lines()
        .find_map(|line| line.find("measured: ").map(|at| &line[at..]));
    let line = line.expect("the child says what it measured");
    match &cage {
        Some(cage) => println!(
            "{line}, under a hard limit of {} MiB (cgroup {})",
            CEILING_KIB >> 10,
            cage.version
        ),
        None => println!("{line}, by VmHWM alone (no cgroup can be made here)"),
    }
    let peak = line.rsplit_once("peak memory ").unwrap().1;
    peak.strip_suffix(" KiB").unwrap().parse().unwrap()
}

/// The highest memory of this process so far, by the kernel.
pub fn own_peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}
