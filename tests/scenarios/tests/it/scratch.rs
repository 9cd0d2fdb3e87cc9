//! Backups whose scratch directory fails: nothing is committed, and the next backup is whole.
//!
//! Not here: which file fails how (the tests of backstay-postgres).

use backstay_engine::{EngineError, ErrorKind};
use backstay_scenarios::World;
use backstay_testkit::pg::PgServer;
use std::path::Path;

async fn commits_nothing(world: &World, server: &PgServer, scratch: &Path) -> EngineError {
    let refused = world.backup(world.source(server.conninfo()), scratch).await;
    let error = refused.expect_err("a backup without scratch ends with an error");
    let said = error.to_string();
    assert!(said.contains(&scratch.display().to_string()), "{said}");
    assert!(error.advice().contains("scratch directory"), "{}", error.advice());
    assert_eq!(
        world.catalog().await.unwrap().heads.len(),
        0,
        "no head is committed"
    );
    error
}

#[tokio::test]
async fn a_backup_whose_scratch_fails_commits_no_head_and_the_next_one_is_whole() {
    let server = PgServer::start().await;
    let world = World::new().await;
    let room = server.room();
    commits_nothing(&world, &server, &room.path().join("absent")).await;

    let file = room.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    commits_nothing(&world, &server, &file).await;

    let full = room.dir("full");
    for segment in 0..64 {
        let name = format!("wal-00000001{:016X}", segment);
        std::os::unix::fs::symlink("/dev/full", full.join(name)).unwrap();
    }
    let error = commits_nothing(&world, &server, &full).await;
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Refused);

    let scratch = room.dir("scratch");
    world
        .backup(world.source(server.conninfo()), &scratch)
        .await
        .unwrap();
    assert_eq!(world.catalog().await.unwrap().heads.len(), 1);
    let left = std::fs::read_dir(&scratch).unwrap().count();
    assert_eq!(left, 0, "scratch files are left");
}
