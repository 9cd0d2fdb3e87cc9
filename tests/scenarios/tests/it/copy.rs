//! A copy of what is stored: restored into a directory, started read-only, and looked at.
//!
//! Promise: the copy is stopped before its rows are given out, and has its socket beside its directory.
//! Not here: planning, and restoring without a start (backstay-scenarios, `World`).

use backstay_clock::SystemClock;
use backstay_engine::plan::Catalog;
use backstay_postgres::{Connection, Mode, PostgresDirectory, RestoreOptions};
use backstay_scenarios::World;
use backstay_source::{Evidence, RecoveryAction};
use backstay_terms::RecoveryTarget;
use backstay_testkit::pg::{free_port, parse};
use std::path::Path;
use std::sync::Arc;

/// What the restore found in the copy.
pub async fn evidence(world: &World, into: &Path, target: &RecoveryTarget) -> Evidence {
    let catalog = world.catalog().await.unwrap();
    let (evidence, directory) = start(world, catalog, into, target).await;
    directory.stop().await.unwrap();
    evidence
}

/// The rows that it counted: database, table, rows.
pub async fn counts(world: &World, into: &Path, target: &RecoveryTarget) -> Vec<(String, String, u64)> {
    evidence(world, into, target).await.rows
}

/// The first column of what a query finds in a copy from this catalog; its directory is removed then.
pub async fn column(
    world: &World,
    catalog: Catalog,
    into: &Path,
    target: &RecoveryTarget,
    sql: &str,
) -> Vec<String> {
    let (evidence, directory) = start(world, catalog, into, target).await;
    let mut copy = Connection::connect(&parse(&evidence.connect), Mode::Sql)
        .await
        .unwrap();
    let mut sets = copy.simple_query(sql).await.unwrap();
    directory.stop().await.unwrap();
    std::fs::remove_dir_all(into).unwrap();
    let rows = sets.remove(0).rows.into_iter();
    rows.map(|mut row| row.remove(0).unwrap()).collect()
}

async fn start(
    world: &World,
    catalog: Catalog,
    into: &Path,
    target: &RecoveryTarget,
) -> (Evidence, Arc<PostgresDirectory>) {
    let directory = Arc::new(PostgresDirectory::new(RestoreOptions {
        sockets: into.parent().unwrap().to_owned(),
        ..RestoreOptions::new(into, Arc::new(SystemClock::new()))
    }));
    let pause = RecoveryAction::Pause;
    let restored = world
        .restore_from(catalog, target, directory.clone(), pause, free_port())
        .await
        .unwrap();
    (restored.evidence.unwrap(), directory)
}
