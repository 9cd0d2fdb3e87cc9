//! Writers with planted bugs: the harness must find each.
//!
//! Promise: each is right but for the one thing that its name says.

use std::sync::Arc;

use backstay_codec::{Kind, Salt, SecretKey, seal};
use backstay_repository::{
    AttachReason, HeadVerdict, LineageKind, LineageRecord, LogStore, LogWriter, Repository, RepositoryError,
};
use backstay_store::{Key, MemoryStore};
use backstay_terms::{Branch, EngineKind, Lineage, LogFacts, LogRange, Position};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::flow::{files, open_or_init};
use super::server::{FILE, START, SYSTEM, log_bytes};
use super::sweep::Process;
use crate::support::*;

type Ended<'a> = BoxFuture<'a, Result<(), RepositoryError>>;

/// Tells the source that bytes are durable while they are still on their way.
pub fn acknowledges_early(process: &Process) -> Ended<'_> {
    Box::pin(async move {
        let repository = open_or_init(process).await?;
        let log = LogStore::new(&repository, EngineKind::Postgres, &source());
        let branch = Branch {
            system: SYSTEM,
            timeline: 1,
            lineage: Lineage(repository.chance() as u32),
        };
        let epoch = repository.new_id("log")?;
        let mut writer = LogWriter::begin(&repository, log.place().clone(), branch, epoch).await?;
        log.put_record(&record(&repository, branch, &writer)?).await?;
        let range = LogRange {
            from: START,
            to: Position(START.0 + 100),
        };
        writer.append(range.from, log_bytes(1, range).into(), LogFacts::default())?;
        process.ledger.durable(branch, range.from, range.to);
        if let Some(upload) = writer.cut_settled(FILE, None)? {
            writer.complete(&upload.run().await?);
        }
        Ok(())
    })
}

fn record(
    repository: &Repository,
    branch: Branch,
    writer: &LogWriter,
) -> Result<LineageRecord, RepositoryError> {
    Ok(LineageRecord {
        format: 1,
        kind: LineageKind::Attach,
        id: repository.new_id("attach")?,
        created: repository.now(),
        branch,
        from: START,
        history: None,
        parent: None,
        reason: AttachReason::First,
        epoch: writer.epoch().clone(),
        segment_size: FILE,
        server_end: START,
        frontier: None,
        over: vec![],
        moved: None,
        after: None,
    })
}

/// The objects of a backup that a right writer made, in the order in which their names sort.
async fn objects_of_a_backup(process: &Process) -> Result<Vec<(Key, Bytes)>, RepositoryError> {
    open_or_init(process).await?;
    let before = process.world.memory.snapshot();
    let apart = MemoryStore::from_snapshot(process.world.clock(), before.clone());
    let repository = process
        .world
        .open_over(Arc::new(apart.clone()), &[raw_key(7)])
        .await?;
    back_up(&repository, &files()).await?;
    let after = apart.snapshot();
    let new = after.objects().filter(|(key, _)| before.get(key).is_none());
    Ok(new.map(|(key, body)| (key.clone(), body.clone())).collect())
}

async fn put_in_order(
    process: &Process,
    mut objects: Vec<(Key, Bytes)>,
    order: fn(&Key) -> u8,
) -> Result<(), RepositoryError> {
    objects.sort_by_key(|(key, _)| order(key));
    for (key, body) in objects {
        process.store.put_if_absent(&key, body).await?;
    }
    Ok(())
}

/// Envelope, head, then what the head names.
pub fn head_first(process: &Process) -> Ended<'_> {
    Box::pin(async move {
        let objects = objects_of_a_backup(process).await?;
        let order = |key: &Key| match key.segments().nth(1) {
            Some("keys") => 0,
            Some("manifests") => 1,
            _ => 2,
        };
        put_in_order(process, objects, order).await
    })
}

/// Data, tables, envelope, head.
pub fn envelope_last(process: &Process) -> Ended<'_> {
    Box::pin(async move {
        let objects = objects_of_a_backup(process).await?;
        let order = |key: &Key| match key.segments().nth(1) {
            Some("keys") => 1,
            Some("manifests") => 2,
            _ => 0,
        };
        put_in_order(process, objects, order).await
    })
}

/// Seals again, with a new salt, under the name of the run before.
pub fn retry_overwrites(process: &Process) -> Ended<'_> {
    Box::pin(async move {
        open_or_init(process).await?;
        let id = "20260101T000000Z-full-aaaaaaaaaa";
        let key = Key::new(format!("postgres-backups/data/35d/{}/{id}/{id}/p00000", source())).unwrap();
        let salt = Salt::random().unwrap();
        let logical = format!("postgres/{}/{id}/{id}/p00000", source());
        let sealed = seal(Kind::Pack, &SecretKey::new([9; 32]), &logical, &salt, b"pack").unwrap();
        process.store.put_if_absent(&key, sealed.into()).await?;
        Ok(())
    })
}

/// Tidies up an abandoned backup.
pub fn deletes(process: &Process) -> Ended<'_> {
    Box::pin(async move {
        let repository = open_or_init(process).await?;
        let mut writer = backstay_repository::BaseWriter::begin(&repository, order()).await?;
        write_entries(&mut writer, &files()).await?;
        let pack = name_of(writer.place(), "data", "/p00000");
        writer.commit(summary(HeadVerdict::Good)).await?;
        process.store.delete(&pack).await?;
        Ok(())
    })
}
