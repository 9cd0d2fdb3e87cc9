//! New clusters, without a run of initdb for each.
//!
//! Promise: a cluster is what initdb makes with these options, with a system identifier of its own. What initdb made is kept
//! beside the test programs, for the runs to come, by version, options and user; where nothing can be kept initdb runs.
//! Not here: configuration and the server's life (pg).

use super::files::{Owner, Room, program};
use super::{Checksums, PgOptions, run_to_end};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Makes a data directory.
pub(super) fn make(room: &Room, data: &Path, options: &PgOptions) {
    match kept(room, options) {
        Some(kept) => {
            copy(&kept, data);
            give_identity(data);
        }
        None => initdb(room, data, options),
    }
}

/// A data directory in which no server ever ran; none if none can be kept.
fn kept(room: &Room, options: &PgOptions) -> Option<PathBuf> {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let shelf = shelf()?;
    let name = name(room, options);
    let path = shelf.join(&name);
    if !path.exists() {
        let made = room.path().join("made");
        initdb(room, &made, options);
        let unfinished = shelf.join(format!("{name}.{}", std::process::id()));
        copy(&made, &unfinished);
        // Another process may have been faster: its directory is as good.
        if fs::rename(&unfinished, &path).is_err() {
            let _ = fs::remove_dir_all(&unfinished);
        }
        let _ = fs::remove_dir_all(&made);
    }
    path.exists().then_some(path)
}

/// Test programs lie in `target/PROFILE/deps`.
fn shelf() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let deps = program.parent().filter(|parent| parent.ends_with("deps"))?;
    let shelf = deps.with_file_name("clusters");
    fs::create_dir_all(&shelf).ok()?;
    Some(shelf)
}

fn name(room: &Room, options: &PgOptions) -> String {
    let said = run_to_end(Command::new(initdb_of(options)).arg("--version"));
    let version = said.trim().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let checksums = match options.checksums {
        Checksums::On => "checksums",
        Checksums::Off => "plain",
    };
    let user = match room.owner() {
        Owner::Ourselves => rustix::process::geteuid().as_raw(),
        Owner::Postgres { user, .. } => user,
    };
    format!("{version}-{}-{checksums}-{user}", options.wal_segment_mebibytes)
}

fn initdb_of(options: &PgOptions) -> PathBuf {
    program(options.programs.as_deref(), "initdb")
}

/// Copies a directory with its owners.
pub(super) fn copy(from: &Path, to: &Path) {
    run_to_end(
        Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(from)
            .arg(to),
    );
}

fn initdb(room: &Room, data: &Path, options: &PgOptions) {
    let mut command = room.owner().command(&initdb_of(options));
    command.args([
        "--no-sync",
        "--no-locale",
        "--encoding=UTF8",
        "--username=postgres",
        "--auth=trust",
    ]);
    command.arg(format!("--wal-segsize={}", options.wal_segment_mebibytes));
    if options.checksums == Checksums::On {
        command.arg("--data-checksums");
    }
    run_to_end(command.arg("-D").arg(data));
}

/// Gives a copy another system identifier: in the control file (pg_control.h), whose CRC follows its last field, and in the
/// first page of each WAL segment (xlog_internal.h, XLogLongPageHeaderData), which has none.
fn give_identity(data: &Path) {
    let (mut before, after) = ([0; 8], identity().to_le_bytes());
    let control = data.join("global/pg_control");
    change(&control, |bytes| {
        before.copy_from_slice(&bytes[..8]);
        let sum = |bytes: &[u8], at: usize| crc32c::crc32c(&bytes[..at]).to_le_bytes();
        let at = (8..512).find(|at| bytes[*at..*at + 4] == sum(bytes, *at));
        let at = at.unwrap_or_else(|| panic!("{}: no CRC is found", control.display()));
        bytes[..8].copy_from_slice(&after);
        let sum = sum(bytes, at);
        bytes[at..at + 4].copy_from_slice(&sum);
    });
    const PAGE_HEADER: usize = 24;
    for segment in fs::read_dir(data.join("pg_wal")).unwrap() {
        let segment = segment.unwrap();
        if segment.file_type().unwrap().is_file() {
            change(&segment.path(), |bytes| {
                let place = &mut bytes[PAGE_HEADER..PAGE_HEADER + 8];
                assert_eq!(*place, before, "{:?}", segment.path());
                place.copy_from_slice(&after);
            });
        }
    }
}

/// As initdb chooses it: the time in the upper half, and what tells this cluster from others of the same second below.
fn identity() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let second = jiff::Timestamp::now().as_second().unsigned_abs();
    let number = NEXT.fetch_add(1, Ordering::Relaxed) & 0xFFF;
    second << 32 | (u64::from(std::process::id()) & 0xF_FFFF) << 12 | number
}

fn change(path: &Path, change: impl FnOnce(&mut [u8])) {
    let changed = fs::read(path).and_then(|mut bytes| {
        change(&mut bytes);
        fs::write(path, bytes)
    });
    changed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
