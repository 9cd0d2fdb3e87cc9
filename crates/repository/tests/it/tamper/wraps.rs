//! Wraps and keyring objects are changed in every way: they give their own keys or none, and the envelope is named.
//!
//! Promise: each kind of envelope (a generation's, an epoch's, a month's) by each kind of recipient that can be refused.
//! Not here: wraps of keys that somebody else made (envelopes_planted).

use backstay_codec::Wrap;
use backstay_repository::layout::envelope_of_wrap;
use backstay_repository::{Recipient, Repository, RepositoryError, RunFinished, RunResult};
use backstay_store::{Key, Store};
use backstay_terms::{EngineKind, RunId};
use bytes::Bytes;

use super::changes::{Change, changes};
use crate::envelopes::{IDENTITY, age, passphrase};
use crate::log::{append, begin, branch, log_store, store_settled};
use crate::support::*;

/// `keyring()` of docs/internals/vectors/check.py with the least cost that readers accept, for the passphrase below.
const KEYRING: &str = r#"{"format":1,"id":"abcdefgh23","kdf":"scrypt","log_n":14,"r":8,"p":1,"salt":"Y0ea1poJCyWCd+yPum+ZQQ==","kek_id":"80179858a8fee416","wrap":"LaVM+8P/7fk1Df00HXsvRxvGoRfXApTAy1yJIsdQCddaq322HQkVCYwWxIxM7LjC"}"#;
const WORDS: &str = "correct horse";

const PLACES: [&str; 3] = ["postgres-backups/keys/", "wal-archive/keys/", "facts/keys/"];

struct Scene {
    world: World,
    runs: Vec<RunId>,
    /// Knows the passphrase: stretching it takes long.
    stretched: Repository,
}

/// With three recipients, one object of each kind in each of two months.
async fn scene() -> Scene {
    let world = World::new();
    let first = world.init().await;
    drop(first);
    let keyring = Key::new("keyring/abcdefgh23").unwrap();
    world.memory.overwrite(&keyring, Bytes::from(KEYRING));
    let all = [raw_key(7), passphrase(WORDS), age()];
    let repository = world.open_with(&all).await.unwrap();
    let mut runs = Vec::new();
    for lineage in [1, 2] {
        back_up(&repository, &[file("PG_VERSION", b"15\n".to_vec())])
            .await
            .unwrap();
        let mut writer = begin(&repository, branch(1, lineage)).await;
        append(&mut writer, 100, 300);
        store_settled(&mut writer).await;
        let started = repository.run_started("backup", "orders").await.unwrap();
        runs.push(started.run.clone());
        let finished = RunFinished {
            started,
            finished: repository.now(),
            result: RunResult::Succeeded,
            error: None,
            figures: serde_json::json!({}),
        };
        repository.run_finished(&finished).await.unwrap();
        world.clock.advance(std::time::Duration::from_secs(40 * 86_400));
    }
    for place in PLACES {
        assert_eq!(
            world.names(place).len(),
            6,
            "{place}: two envelopes, three recipients"
        );
    }
    let stretched = world.open_with(&[passphrase(WORDS)]).await.unwrap();
    Scene {
        world,
        runs,
        stretched,
    }
}

impl Scene {
    fn wrap(&self, key: &Key) -> Wrap {
        Wrap::from_json(&self.world.body(key)).unwrap()
    }

    /// The wraps at a place for a kind of recipient, the older first.
    fn wraps_for(&self, place: &str, kind: &str) -> [Key; 2] {
        let mut wraps = self.world.names(place);
        wraps.retain(|key| self.wrap(key).recipient().kind == kind);
        wraps.try_into().unwrap()
    }

    /// Everything that needs keys, by a new process.
    async fn read(&self, recipient: Recipient) -> Result<String, RepositoryError> {
        let repository = self.world.open_with(&[recipient]).await?;
        let mut all = format!("{:?}", repository.heads(EngineKind::Postgres, &source()).await?);
        let log = log_store(&repository);
        for lineage in [1, 2] {
            for stored in log.ranges(&branch(1, lineage), None).await? {
                all.push_str(&format!("{:?}", log.range(&stored).await?));
            }
        }
        for run in &self.runs {
            all.push_str(&format!("{:?}", repository.read_run_finished(run).await?));
        }
        Ok(all)
    }

    /// What a recipient of this kind gets out of a wrap as it lies there, or why nothing.
    async fn open(&self, kind: &str, key: &Key) -> Result<String, String> {
        let envelope = envelope_of_wrap(key).unwrap();
        match kind {
            "raw" => self.read(raw_key(7)).await.map_err(|error| error.to_string()),
            "passphrase" => {
                let seen = self.stretched.look_at_envelope(&envelope).await.unwrap();
                let refusal = seen.refusal().map(|error| error.to_string());
                refusal.map_or_else(
                    || Ok("its keys, which have the ids that it states".to_owned()),
                    Err,
                )
            }
            _ => {
                let wrap = Wrap::from_json(&self.world.body(key));
                let opened = wrap.and_then(|wrap| wrap.open_age(&envelope.name, IDENTITY));
                let keys = opened.map_err(|error| format!("{}: {error}", envelope.name))?;
                let id = |key: &Option<backstay_codec::SecretKey>| key.as_ref().map(|key| key.id());
                Ok(format!(
                    "{:?}",
                    (id(&keys.data), id(&keys.index), id(&keys.facts))
                ))
            }
        }
    }

    /// Makes each change and puts the object back; gives those that were not refused.
    async fn survivors(&self, kind: &str, key: &Key, changes: Vec<Change>) -> Vec<String> {
        let original = self.world.body(key);
        let expected = self.open(kind, key).await.unwrap();
        let envelope = envelope_of_wrap(key).unwrap().name;
        let mut survivors = Vec::new();
        for Change { what, body } in changes {
            self.world.memory.overwrite(key, body);
            match self.open(kind, key).await {
                Ok(opened) => {
                    assert!(opened == expected, "{key}, {what}: other keys");
                    survivors.push(what);
                }
                Err(error) => assert!(error.contains(&envelope), "{key}, {what}: {error}"),
            }
        }
        self.world.memory.overwrite(key, original);
        assert!(self.open(kind, key).await.unwrap() == expected);
        survivors
    }
}

#[tokio::test]
async fn every_byte_of_every_kind_of_wrap_matters() {
    let scene = scene().await;
    let mut total = 0;
    for place in PLACES {
        for kind in ["raw", "passphrase", "age"] {
            let [_, key] = scene.wraps_for(place, kind);
            let body = scene.world.body(&key);
            let all = changes(&body);
            total += all.len();
            let mut survivors = scene.survivors(kind, &key, all).await;
            // An age file says itself for whom it is: its recipient's name in the wrap is for people.
            let name = scene.wrap(&key).recipient().id.clone();
            let at = String::from_utf8_lossy(&body).find(&name).unwrap();
            let of_name = (at..at + name.len()).map(|place| format!("byte {place} of"));
            let of_name: Vec<String> = of_name.filter(|_| kind == "age").collect();
            survivors.retain(|what| !of_name.iter().any(|of_name| what.starts_with(of_name)));
            assert_eq!(survivors, [""; 0], "{key}");
        }
    }
    println!("measured: {total} changes of wraps, none gave another key");
}

#[tokio::test]
async fn a_wrap_in_the_place_of_another_gives_nothing() {
    let scene = scene().await;
    for place in PLACES {
        for kind in ["raw", "passphrase", "age"] {
            let [older, key] = scene.wraps_for(place, kind);
            let mut others = scene.world.names("facts/keys/");
            others.extend(scene.world.names("wal-archive/keys/"));
            others.extend(scene.world.names("postgres-backups/keys/"));
            others.retain(|other| *other != key);
            assert!(others.contains(&older) && others.len() == 17);
            let swaps = others.iter().map(|other| Change {
                what: format!("replaced by {other}"),
                body: scene.world.body(other),
            });
            let survivors = scene.survivors(kind, &key, swaps.collect()).await;
            assert_eq!(survivors, [""; 0], "{key}");
        }
    }
}

#[tokio::test]
async fn a_wrap_under_the_name_of_another_envelope_opens_nothing_and_harms_nobody() {
    let scene = scene().await;
    let expected = scene.read(raw_key(7)).await.unwrap();
    for place in PLACES {
        let [older, key] = scene.wraps_for(place, "raw");
        let parted = |key: &Key| {
            key.as_str()
                .rsplit_once('.')
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
        };
        let ((envelope, _), (_, wrap)) = (parted(&older).unwrap(), parted(&key).unwrap());
        let planted = Key::new(format!("{envelope}.{wrap}")).unwrap();
        let body = scene.world.body(&key);
        scene.world.memory.overwrite(&planted, body.clone());
        assert_eq!(
            scene.read(raw_key(7)).await.unwrap(),
            expected,
            "{planted} is passed over"
        );
        // Moved, not copied: its own envelope is closed now.
        scene.world.memory.delete(&key).await.unwrap();
        let error = scene.read(raw_key(7)).await.unwrap_err();
        let name = envelope_of_wrap(&key).unwrap().name;
        assert!(
            matches!(&error, RepositoryError::NoKey { envelope, .. } if *envelope == name),
            "{error:?}"
        );
        scene.world.memory.overwrite(&key, body);
        scene.world.memory.delete(&planted).await.unwrap();
    }
}

#[tokio::test]
async fn every_byte_of_a_keyring_object_matters() {
    let scene = scene().await;
    let key = scene.world.names("keyring/").remove(0);
    let expected = scene.read(passphrase(WORDS)).await.unwrap();
    let other = KEYRING.replace("LaVM", "MaVM");
    let mut all = changes(KEYRING.as_bytes());
    all.push(Change {
        what: "replaced by one of another passphrase".to_owned(),
        body: other.into(),
    });
    let count = all.len();
    for Change { what, body } in all {
        scene.world.memory.overwrite(&key, body);
        let error = scene.world.open_with(&[passphrase(WORDS)]).await.unwrap_err();
        assert!(error.to_string().contains("keyring"), "{what}: {error}");
        let expected = matches!(
            error,
            RepositoryError::Malformed { .. } | RepositoryError::Key { .. }
        );
        assert!(expected, "{what}: {error:?}");
        assert_eq!(
            scene.world.names("keyring/").len(),
            1,
            "{what}: no other is made in its stead"
        );
    }
    let broken = KEYRING.replace("LaVM", "L%VM");
    scene.world.memory.overwrite(&key, broken.into());
    let error = scene.world.open_with(&[passphrase(WORDS)]).await.unwrap_err();
    assert!(
        matches!(&error, RepositoryError::Malformed { object, .. } if *object == key.to_string()),
        "what no passphrase could open is damaged: {error}"
    );
    // The other recipients do not need it.
    assert_eq!(scene.read(raw_key(7)).await.unwrap(), expected);
    scene.world.memory.overwrite(&key, KEYRING.into());
    assert_eq!(scene.read(passphrase(WORDS)).await.unwrap(), expected);
    println!("measured: {count} changes of a keyring object, all refused");
}
