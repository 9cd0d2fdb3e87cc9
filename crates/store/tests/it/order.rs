//! Listings against a sorted model.
//!
//! Promise: names are drawn from an alphabet whose bytes lie on both sides of the slash.
//! Not here: listings of a chosen tree (conformance).

use std::collections::BTreeSet;
use std::sync::Arc;

use backstay_store::directory::sim::{HardLinks, SimDisk};
use backstay_store::faults::CrashPlan;
use backstay_store::{Key, LocalDirectory, MemoryStore, More, Prefix, Store};
use bytes::Bytes;
use proptest::prelude::*;

use crate::support::clock;

/// Names of few letters, so that they share segments and beginnings.
fn names() -> impl Strategy<Value = BTreeSet<String>> {
    let name = "[a0_-][a0._-]{0,2}(/[a0_-][a0._-]{0,2}){0,3}";
    proptest::collection::btree_set(name, 0..40).prop_map(without_folders)
}

/// A directory cannot hold `a` beside `a/b`.
fn without_folders(names: BTreeSet<String>) -> BTreeSet<String> {
    let is_folder = |name: &String| {
        let below = format!("{name}/");
        names.iter().any(|other| other.starts_with(&below))
    };
    names.iter().filter(|name| !is_folder(name)).cloned().collect()
}

async fn pages(store: &dyn Store, prefix: &Prefix, after: Option<&Key>, limit: usize) -> Vec<String> {
    let mut names: Vec<Key> = Vec::new();
    loop {
        let page = store
            .list_page(prefix, names.last().or(after), limit)
            .await
            .unwrap();
        assert!(page.objects.len() <= limit);
        names.extend(page.objects.into_iter().map(|object| object.key));
        if page.more == More::No {
            return names.iter().map(Key::to_string).collect();
        }
    }
}

async fn compare(names: &BTreeSet<String>, prefix: &Prefix, after: Option<&Key>, limit: usize) {
    let disk = SimDisk::new(clock(), HardLinks::Supported);
    let stores: [Arc<dyn Store>; 2] = [
        Arc::new(MemoryStore::new(clock())),
        Arc::new(LocalDirectory::over(
            Box::new(disk),
            "simulated".to_owned(),
            clock(),
        )),
    ];
    let model: Vec<String> = names
        .iter()
        .filter(|name| name.starts_with(prefix.as_str()))
        .filter(|name| after.is_none_or(|after| name.as_str() > after.as_str()))
        .cloned()
        .collect();
    for store in stores {
        for name in names {
            store
                .put_if_absent(&Key::new(name).unwrap(), Bytes::new())
                .await
                .unwrap();
        }
        assert_eq!(pages(&*store, prefix, after, limit).await, model, "{store:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_store_lists_like_a_sorted_set(
        names in names(),
        prefix in "([a0_-][a0._-]{0,2}(/[a0_-][a0._-]{0,1}){0,2}/?)?",
        after in proptest::option::of("[a0_-][a0._-]{0,2}(/[a0_-][a0._-]{0,2}){0,3}"),
        limit in 1_usize..9,
    ) {
        let prefix = Prefix::new(prefix).unwrap();
        let after = after.map(|after| Key::new(after).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(compare(&names, &prefix, after.as_ref(), limit));
    }
}

/// The directories that a listing of three names reads, in a tree of a hundred directories.
async fn directories_read(prefix: &str, after: Option<&str>) -> Vec<String> {
    let disk = SimDisk::new(clock(), HardLinks::Supported);
    let store = |disk| LocalDirectory::over(Box::new(disk), "simulated".to_owned(), clock());
    for n in 0..100 {
        let name = Key::new(format!("d/{n:02}/x")).unwrap();
        store(disk.clone())
            .put_if_absent(&name, Bytes::new())
            .await
            .unwrap();
    }
    let plan = CrashPlan::never();
    let after = after.map(|after| Key::new(after).unwrap());
    let prefix = Prefix::new(prefix).unwrap();
    let page = store(disk.under(plan.clone()))
        .list_page(&prefix, after.as_ref(), 3)
        .await;
    assert!(page.is_ok());
    let calls = plan.calls();
    let read = calls.iter().filter_map(|call| call.strip_prefix("entries "));
    read.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_listing_reads_only_the_directories_that_it_needs() {
    assert_eq!(directories_read("d/50/", None).await, ["d/50"]);
    assert_eq!(
        directories_read("d/9", Some("d/97/x")).await,
        ["d", "d/97", "d/98", "d/99"]
    );
    assert_eq!(
        directories_read("", None).await,
        ["", "d", "d/00", "d/01", "d/02", "d/03"]
    );
    assert_eq!(directories_read("d/", Some("d/99/x")).await, ["d", "d/99"]);
    assert_eq!(directories_read("absent/below/", None).await, ["absent/below"]);
}
