//! Makes a placed directory startable.
//!
//! Promise: everything is on disk before pg_control gets its name, which is the act that makes the directory startable;
//! the marker goes last. Each step can be repeated.
//! Not here: the texts (settings, configuration).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backstay_source::{Recovery, WalDelivery};
use backstay_terms::Timeline;
use rustix::fs::FileType;

use super::error::RestoreError;
use super::limits::StandbyLimits;
use super::marker::{MARKER, remove_file};
use super::place::{CONTROL, CONTROL_INCOMPLETE, TABLESPACE_MAP};
use super::sync::{sync_all, sync_one};
use super::tree::Tree;
use super::{configuration, programs, settings};
use crate::control_file::poison_checkpoint;

/// More promotions than any cluster has seen; a number above is not believed.
const STUBS_MAX: u32 = 10_000;

/// A placed directory.
#[derive(Debug)]
pub(super) struct Placed<'a> {
    /// The data directory.
    pub(super) tree: &'a Tree,
    /// The same, by path.
    pub(super) directory: &'a Path,
    /// Where each tablespace went.
    pub(super) tablespaces: &'a BTreeMap<u32, PathBuf>,
}

/// All steps, in their order.
pub(super) fn finish(placed: &Placed<'_>, recovery: &Recovery) -> Result<(), RestoreError> {
    let control = placed.control()?;
    placed.is_whole(recovery)?;
    configuration::complete(placed.tree)?;
    placed.link_tablespaces()?;
    placed.write_settings(recovery, &StandbyLimits::parse(&control)?)?;
    placed.write_history_stubs(recovery)?;
    placed.write_poisoned(control)?;
    for path in placed.tablespaces.values() {
        sync_all(path)?;
    }
    sync_all(placed.directory)?;
    placed.make_startable()
}

impl Placed<'_> {
    fn control(&self) -> Result<Vec<u8>, RestoreError> {
        // Under its real name when an earlier call was interrupted between its last steps.
        let found = match self.tree.read(CONTROL_INCOMPLETE.as_bytes())? {
            Some(bytes) => Some(bytes),
            None => self.tree.read(CONTROL.as_bytes())?,
        };
        found.ok_or_else(|| self.not_whole("global/pg_control was not placed"))
    }

    fn is_whole(&self, recovery: &Recovery) -> Result<(), RestoreError> {
        if self.tree.kind(MARKER.as_bytes())?.is_none() {
            // A finished directory may have been started: nothing of it is ours any more.
            return Err(self.not_whole("no restore is under way"));
        }
        if self.tree.kind(b"backup_label")?.is_none() {
            // Without it the server would start from pg_control's checkpoint, and corrupt the data silently.
            return Err(self.not_whole("backup_label was not placed"));
        }
        let history = Timeline(recovery.timeline).history_file_name();
        let needed = recovery.timeline > 1 && recovery.delivery == WalDelivery::Placed;
        if needed && self.tree.kind(in_wal(&history).as_bytes())?.is_none() {
            return Err(self.not_whole(&format!("{history} was not placed")));
        }
        Ok(())
    }

    fn not_whole(&self, what: &str) -> RestoreError {
        RestoreError::NotWhole {
            directory: self.directory.to_owned(),
            what: what.to_owned(),
        }
    }

    fn link_tablespaces(&self) -> Result<(), RestoreError> {
        for (oid, path) in self.tablespaces {
            let link = format!("pg_tblspc/{oid}");
            // A tablespace inside the data directory (allow_in_place_tablespaces) is a directory there.
            if self.tree.kind(link.as_bytes())? != Some(FileType::Directory) {
                self.tree.link(link.as_bytes(), path)?;
            }
        }
        Ok(())
    }

    fn write_settings(&self, recovery: &Recovery, limits: &StandbyLimits) -> Result<(), RestoreError> {
        const FILE: &[u8] = b"postgresql.auto.conf";
        let existing = self.tree.read(FILE)?.unwrap_or_default();
        let text = settings::with_block(&existing, recovery, limits, self.major()?)?;
        self.tree.write(FILE, &text)?;
        self.tree.write(b"recovery.signal", b"")
    }

    fn major(&self) -> Result<u32, RestoreError> {
        let text = self.tree.read(b"PG_VERSION")?;
        let text = text.ok_or_else(|| self.not_whole("PG_VERSION was not placed"))?;
        programs::major(String::from_utf8_lossy(&text).trim())
    }

    /// A promoted copy is not to take a number that somebody else has used.
    fn write_history_stubs(&self, recovery: &Recovery) -> Result<(), RestoreError> {
        let (first, last) = (recovery.timeline, recovery.timeline_highest);
        if last.saturating_sub(first) > STUBS_MAX {
            return Err(self.not_whole(&format!(
                "timelines up to {last} are said to exist beside {first}"
            )));
        }
        for number in first.saturating_add(1)..=last {
            let name = in_wal(&Timeline(number).history_file_name());
            if self.tree.kind(name.as_bytes())?.is_none() {
                let text = Timeline(number).reserving_history();
                self.tree.write(name.as_bytes(), text.as_bytes())?;
            }
        }
        Ok(())
    }

    fn write_poisoned(&self, mut control: Vec<u8>) -> Result<(), RestoreError> {
        poison_checkpoint(&mut control)?;
        self.tree.write(CONTROL_INCOMPLETE.as_bytes(), &control)
    }

    fn make_startable(&self) -> Result<(), RestoreError> {
        self.tree
            .rename(CONTROL_INCOMPLETE.as_bytes(), CONTROL.as_bytes())?;
        self.tree.sync(b"global")?;
        for path in self.tablespaces.values() {
            remove_file(&path.join(MARKER))?;
            sync_one(path)?;
        }
        self.tree.remove(MARKER.as_bytes())?;
        self.tree.sync(b"")
    }
}

fn in_wal(name: &str) -> String {
    format!("pg_wal/{name}")
}

/// The object identifiers in a tablespace_map: lines `oid path`.
pub(super) fn mapped(tree: &Tree) -> Result<Vec<u32>, RestoreError> {
    let text = tree.read(TABLESPACE_MAP.as_bytes())?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let oids = text
        .lines()
        .filter_map(|line| line.split(' ').next()?.parse().ok());
    Ok(oids.collect())
}
