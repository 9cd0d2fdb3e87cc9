//! Who can open what, and what a repository refuses before it spends data.
//!
//! Promise: every kind of recipient opens what it was given, alone.
//! Not here: wraps that somebody planted (envelopes_planted), the wraps' bytes (the codec's known answers).

use backstay_codec::{Passphrase, Wrap, age_recipient_of};
use backstay_repository::{
    BaseWriter, Head, KeyWarning, LogStore, Recipient, Repository, RepositoryError, RunFinished, RunResult,
};
use backstay_store::Key;
use backstay_terms::EngineKind;
use bytes::Bytes;

use crate::support::*;

/// An age identity for tests; its recipient is computed.
pub const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

pub fn passphrase(text: &str) -> Recipient {
    Recipient::Passphrase(Passphrase::new(text.to_owned()))
}

pub fn age() -> Recipient {
    Recipient::Age(age_recipient_of(IDENTITY).unwrap())
}

pub fn files() -> Vec<Entry> {
    vec![file("PG_VERSION", b"15\n".to_vec()), file("a", prose(1, 1000))]
}

/// Whether this process reads the backup whole.
pub async fn reads(repository: &Repository, head: &Head) -> Result<(), RepositoryError> {
    let reader = open_backup(repository, head).await?;
    assert_eq!(read_whole(&reader, 1).await?, contents_of(&files()));
    Ok(())
}

fn is_no_key(error: &RepositoryError, envelope: &str, recipient: &str) -> bool {
    matches!(error, RepositoryError::NoKey { envelope: found, recipients }
        if found.contains(envelope) && recipients.contains(recipient))
}

#[tokio::test]
async fn each_kind_of_recipient_opens_alone_what_all_were_given() {
    let world = World::new();
    let all = [raw_key(7), passphrase("correct horse"), Recipient::None, age()];
    let repository = world.init_with(&all).await.unwrap();
    let head = back_up(&repository, &files()).await.unwrap();
    for recipient in &all[..3] {
        let repository = world.open_with(std::slice::from_ref(recipient)).await.unwrap();
        reads(&repository, &head).await.unwrap();
    }
    // age cannot be opened here: its wrap is a standard file, opened with the identity elsewhere.
    let envelope = format!("postgres/orders/{}", head.generation);
    let wraps = world.names("postgres-backups/keys/");
    assert_eq!(wraps.len(), 4);
    let opened = wraps.iter().filter_map(|key| {
        let wrap = Wrap::from_json(&world.body(key)).unwrap();
        wrap.open_age(&envelope, IDENTITY).ok()
    });
    let opened: Vec<_> = opened.collect();
    let ids = |key: &Option<backstay_codec::SecretKey>| key.as_ref().map(|key| key.id());
    assert_eq!(opened.len(), 1);
    assert_eq!(ids(&opened[0].data), Some(head.key_ids.data));
    assert_eq!(ids(&opened[0].index), Some(head.key_ids.index));
    assert_eq!(ids(&opened[0].facts), Some(head.key_ids.facts));
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_the_recipients_are_named() {
    let world = World::new();
    let repository = world.init_with(&[raw_key(7), age()]).await.unwrap();
    let head = back_up(&repository, &files()).await.unwrap();
    for stranger in [raw_key(8), Recipient::None, age()] {
        let repository = world.open_with(std::slice::from_ref(&stranger)).await.unwrap();
        let error = reads(&repository, &head).await.unwrap_err();
        let envelope = head.generation.as_str();
        let age = age_recipient_of(IDENTITY).unwrap();
        assert!(is_no_key(&error, envelope, "raw "), "{stranger:?}: {error}");
        assert!(is_no_key(&error, envelope, &age), "{stranger:?}: {error}");
    }
}

#[tokio::test]
async fn key_2_a_backup_that_nobody_here_could_open_is_not_begun() {
    let world = World::new();
    let repository = world.init_with(&[age()]).await.unwrap();
    let error = BaseWriter::begin(&repository, order()).await.unwrap_err();
    assert!(
        matches!(&error, RepositoryError::Key { what } if what.contains("nothing could ever be restored")),
        "{error}"
    );
    assert_eq!(world.names("postgres-backups/data/"), []);
    let refused = world.open_with(&[]).await.unwrap_err();
    assert!(matches!(refused, RepositoryError::Key { .. }), "no key at all");
}

#[tokio::test]
async fn key_2_an_envelope_that_the_store_changed_or_lost_is_not_used() {
    use backstay_store::Operation;
    use backstay_store::faults::{Fault, FaultyStore, When};
    for fault in [Fault::BitFlip(4000), Fault::TruncatedBody] {
        let world = World::new();
        world.init().await;
        let faulty = FaultyStore::new(world.store()).with(When::Nth(Operation::Get, 2), fault);
        let faulty = std::sync::Arc::new(faulty);
        // The first get reads repository.json, the second the wrap.
        let repository = world.open_over(faulty.clone(), &[raw_key(7)]).await.unwrap();
        BaseWriter::begin(&repository, order()).await.unwrap_err();
        assert_eq!(faulty.unused(), []);
        assert_eq!(world.names("postgres-backups/data/"), []);
    }
}

#[tokio::test]
async fn a_wrap_that_goes_between_the_listing_and_the_read_stops_nobody() {
    use backstay_store::Operation;
    use backstay_store::faults::{Fault, FaultyStore, When};
    let world = World::new();
    let keys = [raw_key(1), raw_key(2)];
    let started = world
        .init_with(&keys)
        .await
        .unwrap()
        .run_started("backup", "orders")
        .await;
    let started = started.unwrap();
    // After repository.json and a wrap, by which it is opened, two wraps are read.
    let gone = || FaultyStore::new(world.store()).with(When::Nth(Operation::Get, 4), Fault::NotFoundYet);
    let faulty = std::sync::Arc::new(gone());
    let repository = world.open_over(faulty.clone(), &keys).await.unwrap();
    let month = &repository.envelopes().await.unwrap()[0];
    let seen = repository.look_at_envelope(month).await.unwrap();
    assert_eq!((seen.wraps.len(), faulty.unused()), (1, vec![]));
    assert_eq!(seen.lacking.len(), 1, "{seen:?}");
    let faulty = std::sync::Arc::new(gone());
    let repository = world.open_over(faulty.clone(), &keys).await.unwrap();
    assert_eq!(repository.read_run_started(&started.run).await.unwrap(), started);
    assert_eq!(faulty.unused(), []);
}

#[tokio::test]
async fn rewrapping_adds_wraps_changes_none_and_needs_a_key() {
    let world = World::new();
    let repository = world.init().await;
    let head = back_up(&repository, &files()).await.unwrap();
    let started = repository.run_started("backup", "orders").await.unwrap();
    let before = world.memory.snapshot();

    let strange = world.open_with(&[raw_key(8)]).await.unwrap();
    let envelopes = strange.envelopes().await.unwrap();
    assert_eq!(envelopes.len(), 2, "the generation's and the month's");
    for envelope in &envelopes {
        let error = strange.rewrap(envelope).await.unwrap_err();
        assert!(is_no_key(&error, &envelope.name, "raw "), "{error}");
    }
    assert_eq!(world.memory.snapshot(), before);

    let both = world.open_with(&[raw_key(7), raw_key(8), age()]).await.unwrap();
    for envelope in &envelopes {
        assert_eq!(both.rewrap(envelope).await.unwrap(), 2);
        assert_eq!(both.rewrap(envelope).await.unwrap(), 0);
    }
    let after = world.memory.snapshot();
    assert!(
        before.objects().all(|(key, body)| after.get(key) == Some(body)),
        "REPO-1, REPO-2"
    );
    assert_eq!(after.len(), before.len() + 4);
    let new = world.open_with(&[raw_key(8)]).await.unwrap();
    reads(&new, &head).await.unwrap();
    let finished = RunFinished {
        started: started.clone(),
        finished: new.now(),
        result: RunResult::Succeeded,
        error: None,
        figures: serde_json::json!({"bytes": 5}),
    };
    new.run_finished(&finished).await.unwrap();
    assert_eq!(
        world.open().await.read_run_finished(&started.run).await.unwrap(),
        finished
    );
}

#[tokio::test]
async fn two_processes_that_make_the_months_key_at_once_harm_nobody() {
    let world = World::new();
    world.init().await;
    // Each sees an empty month: the second opens over what was there before the first.
    let empty = world.memory.snapshot();
    let first = world.open().await;
    let one = first.run_started("backup", "orders").await.unwrap();
    let apart = backstay_store::MemoryStore::from_snapshot(world.clock(), empty);
    let second = world
        .open_over(std::sync::Arc::new(apart.clone()), &[raw_key(7)])
        .await
        .unwrap();
    let two = second.run_started("stream", "orders").await.unwrap();
    for (key, body) in apart.snapshot().objects() {
        if world.memory.snapshot().get(key).is_none() {
            world.memory.overwrite(key, body.clone());
        }
    }
    // A third one finishes both; a new recipient gets both sets of keys.
    let third = world.open_with(&[raw_key(7), raw_key(8)]).await.unwrap();
    for started in [&one, &two] {
        let finished = RunFinished {
            started: started.clone(),
            finished: third.now(),
            result: RunResult::Failed,
            error: Some("the store was full".into()),
            figures: serde_json::json!(null),
        };
        third.run_finished(&finished).await.unwrap();
    }
    for envelope in third.envelopes().await.unwrap() {
        third.rewrap(&envelope).await.unwrap();
    }
    assert_eq!(world.names("facts/keys/").len(), 4, "two sets for two recipients");
    let new = world.open_with(&[raw_key(8)]).await.unwrap();
    for started in [&one, &two] {
        assert_eq!(
            new.read_run_finished(&started.run).await.unwrap().started,
            *started
        );
    }
    for key in world.names("facts/runs/") {
        assert_eq!(
            crate::crash::containers::refuse(&world.memory.snapshot(), &key, &world.body(&key), [8; 32]),
            None
        );
    }
}

#[tokio::test]
async fn a_months_envelope_that_a_dead_process_left_half_made_is_completed() {
    let world = World::new();
    world.init().await;
    // As if the process had died between the wraps of its two recipients.
    let one = world.open().await.run_started("backup", "orders").await.unwrap();
    assert_eq!(world.names("facts/keys/").len(), 1);
    let both = world.open_with(&[raw_key(7), raw_key(8)]).await.unwrap();
    both.run_started("backup", "orders").await.unwrap();
    assert_eq!(world.names("facts/keys/").len(), 2);
    let finished = RunFinished {
        started: one.clone(),
        finished: both.now(),
        result: RunResult::Incomplete,
        error: None,
        figures: serde_json::json!({}),
    };
    both.run_finished(&finished).await.unwrap();
    let other = world.open_with(&[raw_key(8)]).await.unwrap();
    assert_eq!(other.read_run_finished(&one.run).await.unwrap(), finished);
}

#[tokio::test]
async fn two_processes_that_make_the_keyring_at_once_harm_nobody() {
    let world = World::new();
    world.init().await;
    let empty = world.memory.snapshot();
    let words = [passphrase("correct horse battery staple")];
    let one = world.open_with(&words).await.unwrap();
    let first = back_up(&one, &files()).await.unwrap();
    let apart = backstay_store::MemoryStore::from_snapshot(world.clock(), empty);
    let two = world
        .open_over(std::sync::Arc::new(apart.clone()), &words)
        .await
        .unwrap();
    let second = back_up(&two, &files()).await.unwrap();
    for (key, body) in apart.snapshot().objects() {
        if world.memory.snapshot().get(key).is_none() {
            world.memory.overwrite(key, body.clone());
        }
    }
    assert_eq!(world.names("keyring/").len(), 2);
    let later = world.open_with(&words).await.unwrap();
    assert_eq!(later.key_warnings(), [KeyWarning::SingleRecipient]);
    for head in [&first, &second] {
        reads(&later, head).await.unwrap();
    }
    assert_eq!(world.names("keyring/").len(), 2, "no third one is made");
    let wrong = world.open_with(&[passphrase("correct horse")]).await.unwrap_err();
    assert!(
        matches!(&wrong, RepositoryError::Key { what } if what.contains("none of the 2 keyring objects")),
        "{wrong}"
    );
}

#[tokio::test]
async fn a_history_file_that_two_processes_store_at_once_is_stored_once() {
    let world = World::new();
    let repository = world.init().await;
    repository.run_started("stream", "orders").await.unwrap();
    let content = b"1\t0/3000000\tno reason\n";
    let empty = world.memory.snapshot();
    let log = |repository: &Repository| LogStore::new(repository, EngineKind::Postgres, &source());
    log(&repository).put_history(5, 2, content).await.unwrap();
    let key: Key = world.names("wal-archive/history/")[0].clone();
    let before = world.body(&key);
    // The second process lists before the first has stored, and puts after it.
    let stale = crate::support::StaleListing::over(world.store(), empty);
    let second = world.open_over(stale, &[raw_key(7)]).await.unwrap();
    log(&second).put_history(5, 2, content).await.unwrap();
    assert_eq!(world.body(&key), before);
    let log = log(&world.open().await);
    let (names, _) = log.history_names(5).await.unwrap();
    assert_eq!(names.len(), 1);
    let stored = log.history(5, &names[0].0, &names[0].1).await.unwrap();
    assert_eq!(stored, Bytes::from_static(content));
}

#[tokio::test]
async fn what_is_at_risk_is_told() {
    let world = World::new();
    let warnings = |repository: Repository| repository.key_warnings();
    assert_eq!(warnings(world.init().await), [KeyWarning::SingleRecipient]);
    let two = world.open_with(&[raw_key(7), age()]).await.unwrap();
    assert_eq!(warnings(two), []);
    let open = world.open_with(&[raw_key(7), Recipient::None]).await.unwrap();
    assert_eq!(warnings(open), [KeyWarning::NotEncrypted]);
}

#[tokio::test]
async fn a_place_that_is_taken_or_not_empty_is_refused_and_left_alone() {
    let world = World::new();
    let absent = world.open_with(&[raw_key(7)]).await.unwrap_err();
    assert!(matches!(absent, RepositoryError::Absent));
    let stray = Key::new("holiday/photo.jpg").unwrap();
    world.memory.overwrite(&stray, Bytes::from_static(b"x"));
    let error = world.init_with(&[raw_key(7)]).await.unwrap_err();
    assert!(matches!(&error, RepositoryError::NotEmpty { example } if example == stray.as_str()));
    assert_eq!(world.names(""), [stray]);

    let world = World::new();
    let id = world.init().await.id().to_owned();
    let before = world.memory.snapshot();
    let error = world.init_with(&[raw_key(8)]).await.unwrap_err();
    assert!(matches!(&error, RepositoryError::AlreadyThere { id: found } if *found == id));
    assert_eq!(world.memory.snapshot(), before);
}

#[tokio::test]
async fn a_newer_format_and_nonsense_are_refused_before_anything_is_read() {
    let name = Key::new("repository.json").unwrap();
    let id = "0123456789abcdef0123456789abcdef";
    for (body, expected) in [
        (
            r#"{"format":2,"surprise":true}"#.to_owned(),
            "repository.json has format version 2; this program reads version 1",
        ),
        (
            "{}".to_owned(),
            "repository.json does not say which repository this is",
        ),
        (
            "not JSON".to_owned(),
            "repository.json does not say which repository this is",
        ),
        (
            String::new(),
            "repository.json does not say which repository this is",
        ),
        (
            format!(r#"{{"format":1,"repository":"{id}"}}"#),
            "repository.json does not say which repository this is",
        ),
        (
            r#"{"format":1,"repository":"short","created":"2026-01-01T00:00:00Z"}"#.to_owned(),
            "repository.json does not say which repository this is",
        ),
    ] {
        let world = World::new();
        world.memory.overwrite(&name, body.clone().into());
        for error in [
            world.open_with(&[raw_key(7)]).await.unwrap_err(),
            world.init_with(&[raw_key(7)]).await.unwrap_err(),
        ] {
            assert!(error.to_string().starts_with(expected), "{body}: {error}");
        }
        assert_eq!(world.names(""), std::slice::from_ref(&name));
    }
}

#[tokio::test]
async fn a_backup_of_another_repository_is_refused() {
    let world = World::new();
    let head = back_up(&world.init().await, &files()).await.unwrap();
    let other = World::new();
    other.init().await;
    for (key, body) in world.memory.snapshot().objects() {
        if key.as_str() != "repository.json" {
            other.memory.overwrite(key, body.clone());
        }
    }
    // Another id, as chance gives to another repository.
    let name = Key::new("repository.json").unwrap();
    let text = String::from_utf8(other.body(&name).to_vec()).unwrap();
    let id = text.split('"').nth(5).unwrap().to_owned();
    let changed = text.replace(&id, "0123456789abcdef0123456789abcdef");
    other.memory.overwrite(&name, changed.into());
    let error = reads(&other.open().await, &head).await.unwrap_err();
    assert!(
        matches!(error, RepositoryError::OtherRepository { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_repository_whose_maker_died_before_its_keyring_is_completed_by_the_next_process() {
    use backstay_store::faults::{CrashMode, CrashPlan, CrashStore};
    let world = World::new();
    let words = [passphrase("correct horse")];
    let plan = CrashPlan::never();
    let counted = std::sync::Arc::new(CrashStore::new(World::new().store(), plan.clone()));
    Repository::init(counted, world.clock(), world.chance(), &words)
        .await
        .unwrap();
    // The last call of init is the keyring's put.
    let plan = CrashPlan::at(plan.count(), CrashMode::Before);
    let dying = std::sync::Arc::new(CrashStore::new(world.store(), plan));
    Repository::init(dying, world.clock(), world.chance(), &words)
        .await
        .unwrap_err();
    assert_eq!(world.names(""), [Key::new("repository.json").unwrap()]);
    let head = back_up(&world.open_with(&words).await.unwrap(), &files())
        .await
        .unwrap();
    assert_eq!(world.names("keyring/").len(), 1);
    reads(&world.open_with(&words).await.unwrap(), &head)
        .await
        .unwrap();
    // A keyring object that is no keyring harms nobody while a good one is there, and is named when it is alone.
    let stray = Key::new("keyring/aaaaaaaaaa").unwrap();
    let good = world.names("keyring/")[0].clone();
    world.memory.overwrite(&stray, Bytes::from_static(b"{"));
    reads(&world.open_with(&words).await.unwrap(), &head)
        .await
        .unwrap();
    world.memory.overwrite(&good, Bytes::from_static(b"{"));
    let error = world.open_with(&words).await.unwrap_err();
    assert!(matches!(&error, RepositoryError::Malformed { object, .. } if object.starts_with("keyring/")));
}

#[tokio::test]
async fn a_key_that_opens_nothing_of_a_repository_writes_nothing_into_it() {
    let world = World::new();
    let ours = world.init_with(&[raw_key(1)]).await.unwrap();
    ours.run_started("backup", "orders").await.unwrap();
    let before = world.memory.snapshot();
    let strange = world.open_with(&[raw_key(2)]).await.unwrap();
    let refused = strange.run_started("backup", "orders").await.unwrap_err();
    assert!(matches!(refused, RepositoryError::NoKey { .. }), "{refused}");
    assert!(refused.to_string().contains("raw "), "{refused}");
    assert_eq!(
        world.memory.snapshot().objects().count(),
        before.objects().count()
    );
    // With both keys, as while rotating, it goes on.
    let both = world.open_with(&[raw_key(2), raw_key(1)]).await.unwrap();
    both.run_started("backup", "orders").await.unwrap();
}
