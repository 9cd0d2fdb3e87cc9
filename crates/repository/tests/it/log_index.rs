//! Log indexes: they say what the ranges say, an object an hour, and only repeat it.

use crate::log::{append, begin, branch, log_store, store_live, store_settled};
use crate::support::*;
use backstay_repository::layout::Level;
use backstay_repository::{LogStore, Wanted};
use std::time::Duration;

#[tokio::test]
async fn an_index_of_an_hour_says_what_its_settled_ranges_say() {
    let world = World::new();
    let repository = world.init().await;
    let mut writer = begin(&repository, branch(1, 1)).await;
    for file in 0..3 {
        append(&mut writer, file * 4096, (file + 1) * 4096);
        store_live(&mut writer).await;
        store_settled(&mut writer).await;
    }
    assert!(
        writer.cut_index(Wanted::OverHours).unwrap().is_none(),
        "its hour is not over"
    );
    world.clock.advance(Duration::from_secs(3600));
    let index = writer.cut_index(Wanted::OverHours).unwrap().unwrap();
    index.run().await.unwrap();
    assert!(
        writer.cut_index(Wanted::Everything).unwrap().is_none(),
        "nothing is gathered twice"
    );
    append(&mut writer, 3 * 4096, 4 * 4096);
    store_settled(&mut writer).await;
    writer
        .cut_index(Wanted::Everything)
        .unwrap()
        .unwrap()
        .run()
        .await
        .unwrap();

    let log = log_store(&world.open().await);
    let gathered = log.gathered(&branch(1, 1)).await.unwrap();
    let ranges = log.ranges(&branch(1, 1), None).await.unwrap();
    let settled: Vec<_> = ranges
        .iter()
        .filter(|stored| stored.level == Level::Settled)
        .collect();
    assert_eq!((gathered.len(), settled.len()), (4, 4));
    for stored in settled {
        let facts = log.index_of(stored).await.unwrap().facts;
        assert_eq!(gathered.get(&LogStore::gathered_key(stored)), Some(&facts));
    }
    assert_eq!(world.names("wal-archive/index/").len(), 2);
}

#[tokio::test]
async fn settling_gathers_an_index_of_what_it_wrote() {
    let world = World::new();
    let repository = world.init().await;
    let mut writer = begin(&repository, branch(1, 1)).await;
    append(&mut writer, 0, 1000);
    store_live(&mut writer).await;
    let log = log_store(&repository);
    log.settle(&branch(1, 1), 4096).await.unwrap();
    assert_eq!(log.gathered(&branch(1, 1)).await.unwrap().len(), 1);
}
