//! Every object is changed in every way that a store or a stranger can: reading it is refused and names it.
//!
//! Promise: never wrong content; the error tells whether key, name or content is wrong; the number of changes is printed.
//! Not here: the container alone (the codec's tests), objects that lie (envelopes_planted), keys (wraps).

mod changes;
mod large_range;
mod scene;
mod wraps;

use std::collections::BTreeMap;

use backstay_codec::Cause;
use backstay_repository::RepositoryError;
use backstay_store::Key;
use bytes::Bytes;

use changes::{Change, changes, few_changes};
use scene::{Reading, Scene};

/// How an error refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Refusal {
    Key,
    Name,
    Content,
    /// Not the object that a sealed record describes.
    NotAsRecorded,
    /// Clear text that makes no sense.
    Malformed,
}

fn refusal(error: &RepositoryError) -> Option<Refusal> {
    Some(match error {
        RepositoryError::Sealed { source, .. } => match source.cause() {
            Cause::Key => Refusal::Key,
            Cause::Name => Refusal::Name,
            Cause::Content => Refusal::Content,
        },
        RepositoryError::UnknownKey { .. } | RepositoryError::NoKey { .. } => Refusal::Key,
        RepositoryError::Differs { .. }
        | RepositoryError::OtherRepository { .. }
        | RepositoryError::OtherId { .. } => Refusal::NotAsRecorded,
        RepositoryError::Malformed { .. }
        | RepositoryError::NoIdentity { .. }
        | RepositoryError::NewerFormat { .. } => Refusal::Malformed,
        _ => return None,
    })
}

/// An object, how it is read, and whether its bytes are clear (then a change may be without meaning).
struct Target {
    key: Key,
    reading: Reading,
}

/// Makes each change, reads, puts the object back.
async fn tamper(scene: &Scene, target: &Target, changes: Vec<Change>) -> BTreeMap<Refusal, usize> {
    let original = scene.world.body(&target.key);
    let expected = scene.read(target.reading).await.unwrap();
    let mut refusals = BTreeMap::new();
    for Change { what, body } in changes {
        scene.world.memory.overwrite(&target.key, body);
        match scene.read(target.reading).await {
            Ok(content) => {
                assert!(content == expected, "{}, {what}: wrong content", target.key);
                assert!(target.reading.is_clear(), "{}, {what}: not refused", target.key);
            }
            Err(error) => {
                let named = error.to_string().contains(target.reading.named(&target.key));
                assert!(named, "{}, {what}: {error}", target.key);
                let refusal = refusal(&error).unwrap_or_else(|| panic!("{}, {what}: {error:?}", target.key));
                *refusals.entry(refusal).or_insert(0) += 1;
            }
        }
    }
    scene.world.memory.overwrite(&target.key, original);
    assert!(scene.read(target.reading).await.unwrap() == expected);
    refusals
}

#[tokio::test]
async fn every_byte_of_every_small_object_matters() {
    let scene = Scene::new().await;
    let mut total = 0;
    for (key, reading) in scene.small_objects() {
        let all = changes(&scene.world.body(&key));
        total += all.len();
        let target = Target { key, reading };
        let refusals = tamper(&scene, &target, all).await;
        if reading.is_sealed_alone() {
            // Key id, name check and all else of a container: each cause is told.
            let causes: Vec<Refusal> = refusals.keys().copied().collect();
            let expected = [Refusal::Key, Refusal::Name, Refusal::Content];
            assert_eq!(causes, expected, "{}", target.key);
        }
    }
    println!("measured: {total} changes of small objects, all refused or without meaning");
}

#[tokio::test]
async fn ten_thousand_places_of_a_pack_matter() {
    let scene = Scene::new().await;
    let key = scene.pack();
    let original = scene.world.body(&key);
    assert!(original.len() > 5 * 65_552, "several chunks");
    // Whole: the digest of the pack list.
    let target = Target {
        key: key.clone(),
        reading: Reading::Files,
    };
    let refusals = tamper(&scene, &target, few_changes(&original, 200)).await;
    assert_eq!(refusals.keys().collect::<Vec<_>>(), [&Refusal::NotAsRecorded]);
    // By ranges: each chunk authenticates itself.
    let mut refused = 0;
    for place in scene.places(original.len(), 10_000) {
        let mut changed = original.to_vec();
        changed[place] ^= 1 << (place % 8);
        scene.world.memory.overwrite(&key, changed.into());
        match scene.read_chunk_at(place).await {
            // The header is in the pack list's stead: no byte of it is read.
            Ok(()) => assert!(place < 112, "{place}"),
            Err(error) => {
                assert_eq!(refusal(&error), Some(Refusal::Content), "{place}: {error}");
                assert!(error.to_string().contains(key.as_str()));
                refused += 1;
            }
        }
    }
    assert!(refused > 9_870, "all but the header: {refused}");
    println!("measured: 10000 places of a pack changed, {refused} refused, the others in the header");
}

#[tokio::test]
async fn an_object_in_the_place_of_another_is_refused_by_its_name() {
    let scene = Scene::new().await;
    let mut swaps = 0;
    for (key, reading) in scene.all_objects() {
        for sibling in scene.siblings(&key) {
            let body = scene.world.body(&sibling);
            let what = format!("replaced by {sibling}");
            let target = Target {
                key: key.clone(),
                reading,
            };
            let refusals = tamper(&scene, &target, vec![Change { what, body }]).await;
            swaps += 1;
            let expected: &[Refusal] = match reading {
                reading if reading.is_recorded() => &[Refusal::NotAsRecorded],
                reading if reading.is_clear() => continue,
                _ => &[Refusal::Name],
            };
            let found: Vec<Refusal> = refusals.into_keys().collect();
            assert_eq!(found, expected, "{key} replaced by {sibling}");
        }
    }
    assert!(swaps > 80, "{swaps}");
    println!("measured: {swaps} objects in the place of others (older ones among them), all refused");
}

#[tokio::test]
async fn an_object_under_a_new_name_is_refused_or_ignored() {
    let scene = Scene::new().await;
    let expected = scene.read_everything().await.unwrap();
    // A copy of a head, a range and of each kind of record under names that nobody wrote.
    for (from, part, to) in scene.renames() {
        let key = Key::new(from.as_str().replace(&part, &to)).unwrap();
        assert_ne!(key, from);
        scene.world.memory.overwrite(&key, scene.world.body(&from));
        let error = scene.read_everything().await.unwrap_err();
        assert_eq!(refusal(&error), Some(Refusal::Name), "{key}: {error}");
        assert!(error.to_string().contains(key.as_str()), "{error}");
        scene.remove(&key).await;
    }
    // Names that are not of the format are not looked at.
    for stray in [
        "wal-archive/live/orders/stray",
        "facts/runs/stray",
        "keyring-not/x",
    ] {
        let key = Key::new(stray).unwrap();
        scene.world.memory.overwrite(&key, Bytes::from_static(b"x"));
        assert!(scene.read_everything().await.unwrap() == expected, "{stray}");
    }
}
