//! What every store must do, as one suite that every adapter and wrapper runs.
//!
//! Promise: `check_every_promise` fails with a sentence that names the broken promise, and so does `check_passed_over`, for which a
//! store needs a place where something else can be put beside objects.
//! Not here: what a store does in a crash (each adapter), faults (wrappers).

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::{Created, Key, More, ObjectMeta, Page, Prefix, Store, StoreError, Support, list_all};

/// How many writers race for one name.
const RACERS: u8 = 8;

/// How often they do.
const RACES: usize = 10;

/// The length of the largest object that the suite writes: one pack.
const LARGE: usize = 32 * 1024 * 1024;

/// How a check ends: a sentence about what was broken, with what was seen.
pub type Verdict = Result<(), Broken>;

/// A promise of [`Store`] that a store does not keep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{promise}: expected {expected}, saw {seen}")]
pub struct Broken {
    /// The promise.
    pub promise: &'static str,
    /// What it asks for.
    pub expected: String,
    /// What happened.
    pub seen: String,
}

/// Runs every check, each over a fresh, empty store from `make`.
pub async fn check_every_promise<F, Made>(make: F) -> Verdict
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Store>>,
{
    puts_once(&*make().await).await?;
    absent_names_are_not_found(&*make().await).await?;
    any_length_comes_back(&*make().await).await?;
    ranges_are_exact(&*make().await).await?;
    head_tells_size_and_age(&*make().await).await?;
    lists_in_byte_order(&*make().await).await?;
    pages_join_without_seam(&*make().await).await?;
    deletes_for_good(&*make().await).await?;
    every_valid_name_works(&*make().await).await?;
    one_racer_wins(make().await).await?;
    parallel_puts_all_land(make().await).await?;
    objects_are_never_passed_over(&*make().await).await?;
    unsupported_calls_say_so(&*make().await).await
}

async fn puts_once(store: &dyn Store) -> Verdict {
    let name = key("a/once");
    expect_put(store, "a first put stores", &name, "first", Created::Now).await?;
    expect_put(
        store,
        "a second put changes nothing",
        &name,
        "second",
        Created::AlreadyThere,
    )
    .await?;
    expect_put(
        store,
        "nor does a third of the same bytes",
        &name,
        "first",
        Created::AlreadyThere,
    )
    .await?;
    expect_body(store, "the first body stays", &name, b"first").await
}

async fn absent_names_are_not_found(store: &dyn Store) -> Verdict {
    expect_put(store, "a put stores", &key("a/b/there"), "x", Created::Now).await?;
    for absent in ["a/b/absent", "a/b", "a", "absent", "a/b/there/below"] {
        let name = key(absent);
        let seen = [
            kind(&store.get(&name).await),
            kind(&store.get_range(&name, 0..1).await),
            kind(&store.head(&name).await),
        ];
        equal("an absent name is not found", &["not found"; 3], &seen)?;
    }
    Ok(())
}

async fn any_length_comes_back(store: &dyn Store) -> Verdict {
    for length in [0, 1, 511, 512, 513, 65_536, 65_537, LARGE] {
        let name = key(&format!("lengths/{length}"));
        let body = pattern(length);
        let created = store.put_if_absent(&name, body.clone()).await;
        equal("an object of any length is stored", &Ok(Created::Now), &created)?;
        let back = store.get(&name).await;
        let same = back.as_ref() == Ok(&body);
        let seen = back.map(|bytes| bytes.len());
        if !same {
            return Err(broken("an object comes back as it was", &length, &seen));
        }
        let size = store.head(&name).await.map(|meta| meta.size);
        equal("head tells the length", &Ok(length as u64), &size)?;
    }
    Ok(())
}

async fn ranges_are_exact(store: &dyn Store) -> Verdict {
    let (name, body) = (key("ranges/of-100000"), pattern(100_000));
    let size = body.len() as u64;
    let created = store.put_if_absent(&name, body.clone()).await;
    equal("a put stores", &Ok(Created::Now), &created)?;
    let inside = [
        0..size,
        0..1,
        0..0,
        size..size,
        5..5,
        size - 1..size,
        65_535..65_537,
    ];
    for range in inside {
        let wanted = body.slice(range.start as usize..range.end as usize);
        let seen = store.get_range(&name, range.clone()).await;
        equal("a range is exactly what was asked for", &Ok(wanted), &seen)?;
    }
    #[allow(clippy::reversed_empty_ranges)]
    let outside = [
        0..size + 1,
        size..size + 1,
        size + 1..size + 1,
        size + 5..size + 9,
        9..3,
        0..u64::MAX,
    ];
    for range in outside {
        let seen = kind(&store.get_range(&name, range).await);
        equal("a range that is not there is refused", &"out of range", &seen)?;
    }
    Ok(())
}

async fn head_tells_size_and_age(store: &dyn Store) -> Verdict {
    let name = key("head/one");
    expect_put(store, "a put stores", &name, "12345", Created::Now).await?;
    let listed = list_all(store, &Prefix::everything(), None).await;
    let head = store.head(&name).await.map(|meta| vec![meta]);
    equal("head and listing agree", &listed, &head)?;
    let seen = head.map(|metas| metas.iter().map(|meta| (meta.key.clone(), meta.size)).collect());
    equal("head tells name and size", &Ok(vec![(name, 5)]), &seen)
}

/// Names whose order by directory differs from their order by bytes, as `-` and `.` sort before `/`.
const TREE: [&str; 14] = [
    "a", "b-c/x", "b.c", "b/a", "b/a-", "b/a.b/c", "b/ab/c", "b/b", "b0", "bb/c", "c/d/e/f", "c/d/e0",
    "c/d-e", "d",
];

async fn grow_tree(store: &dyn Store) -> Result<Vec<&'static str>, Broken> {
    for name in TREE.iter().rev() {
        expect_put(store, "a put stores", &key(name), name, Created::Now).await?;
    }
    let mut sorted = TREE.to_vec();
    sorted.sort_unstable();
    Ok(sorted)
}

/// Prefixes at every kind of border; one to a word.
const PREFIXES: &str = "a b b/ b- b/a b/a/ b/a.b/ c/d c/d/ c/d/e nothing c/nothing/ d/";

/// Names to start after, present and absent, before and behind everything.
const STARTS: &str = "a 0 b b/a b/a.b/c b/zz c/d/e z";

async fn lists_in_byte_order(store: &dyn Store) -> Verdict {
    let tree = grow_tree(store).await?;
    let starts = || [None].into_iter().chain(STARTS.split(' ').map(Some));
    for below in [""].into_iter().chain(PREFIXES.split(' ')) {
        for start in starts() {
            let matches = |name: &&str| name.starts_with(below) && start.is_none_or(|start| *name > start);
            let expected: Vec<&str> = tree.iter().copied().filter(matches).collect();
            let listed = list_all(store, &prefix(below), start.map(key).as_ref()).await;
            let listed = listed.map_err(|error| broken("a listing succeeds", &"names", &error))?;
            let seen: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
            equal(
                "a listing has the names under the prefix after the start, in byte order",
                &expected,
                &seen,
            )?;
        }
    }
    Ok(())
}

async fn pages_join_without_seam(store: &dyn Store) -> Verdict {
    let tree = grow_tree(store).await?;
    for limit in [1, 2, 3, 5, 13, 14, 15] {
        let mut names: Vec<Key> = Vec::new();
        for _ in 0..=tree.len() {
            let page = page(store, names.last(), limit).await?;
            let length = page.objects.len();
            equal("a page keeps to its limit", &length.min(limit), &length)?;
            names.extend(page.objects.into_iter().map(|object: ObjectMeta| object.key));
            if page.more == More::No {
                break;
            }
        }
        let seen: Vec<&str> = names.iter().map(Key::as_str).collect();
        equal("pages joined are the whole listing", &tree, &seen)?;
    }
    let end = page(store, Some(&key("z")), 5).await?;
    let empty = Page {
        objects: Vec::new(),
        more: More::No,
    };
    equal("nothing follows after the last name", &empty, &end)
}

async fn page(store: &dyn Store, after: Option<&Key>, limit: usize) -> Result<Page, Broken> {
    let page = store.list_page(&Prefix::everything(), after, limit).await;
    page.map_err(|error| broken("a page can be listed", &"a page", &error))
}

async fn deletes_for_good(store: &dyn Store) -> Verdict {
    let (gone, stays) = (key("d/gone"), key("d/stays"));
    expect_put(store, "a put stores", &gone, "x", Created::Now).await?;
    expect_put(store, "a put stores", &stays, "y", Created::Now).await?;
    for name in ["d/gone", "d/gone", "d/never", "e/never/was"] {
        let deleted = store.delete(&key(name)).await;
        equal("a delete succeeds, also of what is absent", &Ok(()), &deleted)?;
    }
    equal(
        "what was deleted is gone",
        &"not found",
        &kind(&store.get(&gone).await),
    )?;
    expect_body(store, "its neighbour stays", &stays, b"y").await?;
    expect_put(store, "a name is free after a delete", &gone, "z", Created::Now).await?;
    expect_body(store, "and holds the new body", &gone, b"z").await
}

async fn every_valid_name_works(store: &dyn Store) -> Verdict {
    let segment = "s".repeat(255);
    let longest = format!("{segment}/{segment}/{segment}/{}", "t".repeat(132));
    let deep = vec!["d"; 100].join("/");
    let mut expected = Vec::new();
    for name in [&longest, &deep, "UPPER", "upper", "a..b", "-", "_", "0.1-2_3"] {
        expect_put(
            store,
            "every valid name can be stored",
            &key(name),
            name,
            Created::Now,
        )
        .await?;
        expect_body(store, "and read", &key(name), name.as_bytes()).await?;
        expected.push(key(name));
    }
    expected.sort_unstable();
    let listed = list_all(store, &Prefix::everything(), None).await;
    let seen = listed.map(|objects| objects.into_iter().map(|object| object.key).collect());
    equal("and listed", &Ok(expected), &seen)
}

async fn one_racer_wins(store: Arc<dyn Store>) -> Verdict {
    for race in 0..RACES {
        let name = key(&format!("race/{race}/goal"));
        let racers = (0..RACERS).map(|racer| {
            let (store, name) = (Arc::clone(&store), name.clone());
            tokio::spawn(async move {
                let body = Bytes::from(vec![racer; 10_000 + usize::from(racer)]);
                (racer, store.put_if_absent(&name, body).await)
            })
        });
        let mut winners = Vec::new();
        for ended in join_all(racers).await {
            let (racer, created) = ended.map_err(|lost| broken("a racer ends", &"an answer", &lost))?;
            match created.map_err(|error| broken("a racer gets an answer", &"an answer", &error))? {
                Created::Now => winners.push(racer),
                Created::AlreadyThere => {}
            }
        }
        let body = store
            .get(&name)
            .await
            .map(|body| vec![body.first().copied().unwrap_or(u8::MAX)]);
        equal("one racer wins", &1, &winners.len())?;
        equal("and the object is the winner's", &Ok(winners), &body)?;
    }
    Ok(())
}

async fn parallel_puts_all_land(store: Arc<dyn Store>) -> Verdict {
    let names: Vec<Key> = (0..64).map(|n| key(&format!("many/{}/{n:03}", n % 7))).collect();
    let puts = names.iter().map(|name| {
        let (store, name) = (Arc::clone(&store), name.clone());
        tokio::spawn(async move { store.put_if_absent(&name, name.to_string().into()).await })
    });
    for ended in join_all(puts).await {
        let created = ended.map_err(|lost| broken("a put ends", &"an answer", &lost))?;
        equal("parallel puts store", &Ok(Created::Now), &created)?;
    }
    let mut expected: BTreeMap<Key, u64> = BTreeMap::new();
    for name in names {
        expect_body(
            &*store,
            "each under its own name",
            &name,
            name.to_string().as_bytes(),
        )
        .await?;
        let size = name.to_string().len() as u64;
        expected.insert(name, size);
    }
    let listed = list_all(&*store, &Prefix::everything(), None).await;
    let seen = listed.map(|objects| {
        objects
            .into_iter()
            .map(|object| (object.key, object.size))
            .collect()
    });
    equal("and all are listed", &Ok(expected), &seen)
}

async fn unsupported_calls_say_so(store: &dyn Store) -> Verdict {
    let name = key("u/one");
    expect_put(store, "a put stores", &name, "x", Created::Now).await?;
    let facts = store.facts().await;
    let facts = facts.map_err(|error| broken("a store knows its facts", &"facts", &error))?;
    let versions = kind(&store.list_versions(&Prefix::everything()).await);
    let refused = versions == "not supported";
    equal(
        "facts and calls agree on versions",
        &(facts.versioning == Support::No),
        &refused,
    )?;
    if facts.object_lock == Support::No {
        let lock = store.retain_until(&name, jiff::Timestamp::UNIX_EPOCH).await;
        equal("a store without locks says so", &"not supported", &kind(&lock))?;
    }
    Ok(())
}

async fn objects_are_never_passed_over(store: &dyn Store) -> Verdict {
    for name in ["p/a", "p/b/c"] {
        expect_put(store, "a put stores", &key(name), "x", Created::Now).await?;
    }
    let listed = list_all(store, &Prefix::everything(), None).await;
    equal("a listing answers", &Ok(2), &listed.map(|objects| objects.len()))?;
    let none: Vec<String> = Vec::new();
    equal(
        "among objects nothing is passed over",
        &none,
        &store.passed_over(),
    )
}

/// Checks a store in whose place these names, in byte order, were made that lead to no object and to no folder, as links do in a
/// directory. A wrapper is checked around a store of that kind.
pub async fn check_passed_over(store: &dyn Store, planted: &[&str]) -> Verdict {
    let name = key("p/object");
    expect_put(store, "a put stores", &name, "x", Created::Now).await?;
    let listed = list_all(store, &Prefix::everything(), None).await;
    let names = listed.map(|objects| objects.into_iter().map(|object| object.key).collect());
    equal("a listing gives objects alone", &Ok(vec![name]), &names)?;
    for _ in 0..2 {
        equal(
            "what a listing has passed over is named",
            &planted.iter().map(ToString::to_string).collect::<Vec<_>>(),
            &store.passed_over(),
        )?;
    }
    equal(
        "a folder that a listing went into is named",
        &vec!["p".to_owned()],
        &store.folders(),
    )?;
    Ok(())
}

async fn expect_put(
    store: &dyn Store,
    promise: &'static str,
    name: &Key,
    body: &str,
    expected: Created,
) -> Verdict {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let created = store.put_if_absent(name, body).await;
    equal(promise, &Ok(expected), &created)
}

async fn expect_body(store: &dyn Store, promise: &'static str, name: &Key, body: &[u8]) -> Verdict {
    let seen = store.get(name).await;
    equal(promise, &Ok(Bytes::copy_from_slice(body)), &seen)
}

fn kind<T>(answer: &Result<T, StoreError>) -> &'static str {
    match answer {
        Ok(_) => "an answer",
        Err(StoreError::NotFound { .. }) => "not found",
        Err(StoreError::OutOfRange { .. }) => "out of range",
        Err(StoreError::NotSupported { .. }) => "not supported",
        Err(_) => "another error",
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(promise: &'static str, expected: &T, seen: &T) -> Verdict {
    match expected == seen {
        true => Ok(()),
        false => Err(broken(promise, expected, seen)),
    }
}

fn broken(promise: &'static str, expected: &dyn std::fmt::Debug, seen: &dyn std::fmt::Debug) -> Broken {
    Broken {
        promise,
        expected: format!("{expected:?}"),
        seen: format!("{seen:?}"),
    }
}

fn key(text: &str) -> Key {
    Key::new(text).expect("the suite's own names are valid")
}

fn prefix(text: &str) -> Prefix {
    Prefix::new(text).expect("the suite's own prefixes are valid")
}

/// Bytes that differ from place to place, so that a shifted or repeated piece is seen.
fn pattern(length: usize) -> Bytes {
    (0..length)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 16) as u8)
        .collect()
}
