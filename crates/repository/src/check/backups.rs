//! Checks one backup: what is listed, how its tables fit, every byte.
//!
//! Promise: each depth names what it finds and goes on; nothing is written.
//! Not here: what a table must say (base::reader).

use super::{CheckFinding, Invariant, keep};
use crate::base::NamedObject;
use crate::inventory::{BackupObjects, HeadState, StoredObject};
use crate::layout::{BackupPlace, Place};
use crate::{BaseReader, Digest, PackReading, Repository, RepositoryError};
use backstay_terms::EntryKind;
use serde::Serialize;
use std::collections::BTreeMap;

/// So many findings of one backup are enough to know that it cannot be used.
const FINDINGS_MAX: usize = 100;

/// What was read of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BackupContent {
    /// Files whose SHA-256 was compared.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Repository {
    /// Compares what head, root table and pack list name with what is listed.
    pub async fn check_listed(&self, backup: &BackupObjects) -> Result<Vec<CheckFinding>, RepositoryError> {
        let mut findings = Vec::new();
        let at = backup.place.head()?.key.to_string();
        let head = match &backup.head {
            HeadState::Absent => return Ok(findings),
            HeadState::Opened(_, head) => Some(head.as_ref().clone()),
            HeadState::Closed(..) => keep(&mut findings, &at, self.read_head(&backup.place).await)?,
        };
        let Some(head) = head else { return Ok(findings) };
        let Some(survey) = keep(&mut findings, &at, self.survey(&head).await)? else {
            return Ok(findings);
        };
        let table = |name: &str| backup.place.table(name);
        let pack = |name: &str| backup.place.pack(name);
        compare_listing(&survey.tables, &backup.tables, table, &mut findings)?;
        compare_listing(&survey.packs, &backup.packs, pack, &mut findings)?;
        if head.base.is_some() && head.generation == head.backup {
            let what = "it is an increment and names itself as its generation";
            findings.push(CheckFinding::new(at, Invariant::Repo5, what));
        }
        Ok(findings)
    }

    /// Opens every table and compares them with each other and with the head.
    pub async fn check_tables(&self, place: &BackupPlace) -> Result<Vec<CheckFinding>, RepositoryError> {
        let mut findings = Vec::new();
        let at = place.head()?.key.to_string();
        let Some(reader) = keep(&mut findings, &at, BaseReader::open(self, place).await)? else {
            return Ok(findings);
        };
        keep(&mut findings, &at, reader.server_manifest().await)?;
        let totals = &reader.head().totals;
        let files = reader.files().len() as u64;
        let bytes: u64 = reader.files().map(|file| file.size).sum();
        if (files, bytes) != (totals.files, totals.bytes.0) {
            let what = format!(
                "its file table has {files} entries of {bytes} bytes, its head states {} of {}",
                totals.files, totals.bytes.0
            );
            findings.push(CheckFinding::new(at, Invariant::Repo3, what));
        }
        Ok(findings)
    }

    /// Reads every file: each pack is compared with its digest and opened, each frame decompressed, each file's SHA-256
    /// compared.
    pub async fn check_content(
        &self,
        place: &BackupPlace,
    ) -> Result<(BackupContent, Vec<CheckFinding>), RepositoryError> {
        let (mut content, mut findings) = (BackupContent::default(), Vec::new());
        let at = place.head()?.key.to_string();
        let Some(reader) = keep(&mut findings, &at, BaseReader::open(self, place).await)? else {
            return Ok((content, findings));
        };
        let mut cursor = reader.cursor(PackReading::WholePacks);
        for file in reader.files().filter(|file| file.kind == EntryKind::File) {
            let mut digest = Digest::new();
            let read = cursor.read_file(&file, |bytes| {
                digest.update(bytes);
                Ok(())
            });
            if keep(&mut findings, &at, read.await)?.is_some() {
                content.files += 1;
                content.bytes += file.size;
                if file.sha256 != Some(digest.finish()) {
                    let what = format!("{} has another SHA-256 than the file table states", file.path);
                    findings.push(CheckFinding::new(&at, Invariant::Repo3, what));
                }
            }
            // One damaged pack is found again with each of its files.
            findings.dedup();
            if findings.len() >= FINDINGS_MAX {
                break;
            }
        }
        Ok((content, findings))
    }
}

fn compare_listing(
    named: &[NamedObject],
    listed: &[StoredObject],
    place: impl Fn(&str) -> Result<Place, RepositoryError>,
    findings: &mut Vec<CheckFinding>,
) -> Result<(), RepositoryError> {
    let mut listed: BTreeMap<&str, u64> = listed.iter().map(|o| (o.name.as_str(), o.size)).collect();
    for object in named {
        let at = place(&object.name)?.key;
        let what = match listed.remove(at.as_str()) {
            Some(size) if size == object.size => continue,
            Some(size) => format!("it has {size} bytes where {} were written", object.size),
            None => format!("it is not there; {} bytes were written", object.size),
        };
        findings.push(CheckFinding::new(at.as_str(), Invariant::Repo4, what));
    }
    for (name, size) in listed {
        let what = format!("no table of its backup names it ({size} bytes)");
        let next = "give it its name back if it was renamed; else leave it, it expires with its backup";
        findings.push(CheckFinding::new(name, Invariant::Repo4, what).then(next));
    }
    Ok(())
}
