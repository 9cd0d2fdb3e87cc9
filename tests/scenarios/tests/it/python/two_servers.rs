//! `scripts/restore.py` on log of two servers in one lineage: refused before they are told apart, each its own afterwards.

use super::{ask, one_key, restore, script};
use crate::copied_disk::{Pair, ROWS};
use backstay_engine::Silent;
use backstay_engine::jobs::stream::settle_all;
use backstay_testkit::pg::Room;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_mixes_no_rows_of_two_servers_and_restores_those_of_each() {
    let room = Room::new();
    let (world, repository, key_file) = one_key(&room).await;
    let pair = Pair::over(world).await;
    let ours = pair.both_killed().await;

    let into = room.path().join("mixed");
    let mut command = script(&repository, &["--key-file".as_ref(), key_file.as_os_str()]);
    let refused = command
        .args(["--source", "orders", "--into"])
        .arg(&into)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{said}");
    assert!(
        said.contains("two servers wrote here at the same time: run backstay wal settle orders"),
        "{said}"
    );
    assert!(!into.join("global/pg_control").exists());

    settle_all(&pair.world.repository, &pair.world.name, &Silent)
        .await
        .unwrap();
    let theirs = pair.moved().await;
    for (lineage, server) in [(ours, &pair.first), (theirs, &pair.second)] {
        let (name, into) = (lineage.lineage.to_string(), room.path().join("restored"));
        restore(&repository, &key_file, "orders", &into, &["--lineage", &name]);
        assert!(ask(&into, ROWS).await == server.value(ROWS).await, "{lineage}");
        std::fs::remove_dir_all(&into).unwrap();
    }
}
