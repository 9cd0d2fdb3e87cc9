//! Wraps and objects that somebody planted: KEY-3, and a key serves its own envelope and class alone.
//!
//! Promise: whoever writes the store can hide and delete, but not make a reader take other bytes.

use backstay_codec::{KeyClass, KeySet, Kind, Salt, SecretKey, Wrap, seal, split_container};
use backstay_repository::{Head, Recipient, Repository, RepositoryError};
use backstay_store::Key;
use bytes::Bytes;

use crate::envelopes::{age, files, reads};
use crate::log::{append, begin, branch, log_bytes, log_store, range, store_settled};
use crate::raw;
use crate::support::*;

/// The name of a wrap of this generation that sorts before every other.
fn first_wrap(head: &Head) -> Key {
    let generation = &head.generation;
    Key::new(format!(
        "postgres-backups/keys/35d/orders/{generation}.aaaaaaaaaa"
    ))
    .unwrap()
}

fn envelope(head: &Head) -> String {
    format!("postgres/orders/{}", head.generation)
}

async fn backed_up(recipients: &[Recipient]) -> (World, Head) {
    let world = World::new();
    let repository = world.init_with(recipients).await.unwrap();
    let head = back_up(&repository, &files()).await.unwrap();
    (world, head)
}

#[tokio::test]
async fn what_is_no_wrap_harms_nobody() {
    let (world, head) = backed_up(&[raw_key(7)]).await;
    let whole = world.body(&world.names("postgres-backups/keys/")[0]);
    let other = KeySet::generate(&KeyClass::ALL).unwrap();
    let elsewhere = Wrap::raw("postgres/orders/other", &SecretKey::new([7; 32]), &other).unwrap();
    let newer = String::from_utf8(whole.to_vec())
        .unwrap()
        .replace("\"format\":1", "\"format\":2");
    for body in [
        Bytes::new(),
        Bytes::from_static(b"{}"),
        Bytes::from_static(b"\xff\xfe not a text"),
        whole.slice(..whole.len() / 2),
        Bytes::from(newer),
        Bytes::from(elsewhere.to_json()),
        whole.clone(),
    ] {
        world.memory.overwrite(&first_wrap(&head), body);
        let repository = world.open().await;
        reads(&repository, &head).await.unwrap();
        for envelope in repository.envelopes().await.unwrap() {
            assert_eq!(repository.rewrap(&envelope).await.unwrap(), 0);
        }
    }
    // Alone it is named.
    let real = world.names("postgres-backups/keys/")[1].clone();
    world.memory.overwrite(&first_wrap(&head), Bytes::new());
    world.memory.overwrite(&real, Bytes::new());
    let error = reads(&world.open().await, &head).await.unwrap_err();
    assert!(matches!(&error, RepositoryError::NoKey { .. }), "{error}");
    assert!(error.to_string().contains(real.as_str()), "{error}");
}

#[tokio::test]
async fn a_planted_wrap_with_other_keys_is_passed_over() {
    // Anybody can write a wrap for `none` or for an age recipient: its keys are not the ones that the head names.
    let (world, head) = backed_up(&[Recipient::None, raw_key(7)]).await;
    let other = KeySet::generate(&KeyClass::ALL).unwrap();
    let planted = Wrap::none(envelope(&head).as_str(), &other).unwrap();
    world
        .memory
        .overwrite(&first_wrap(&head), planted.to_json().into());
    for recipients in [
        &[Recipient::None][..],
        &[raw_key(7)],
        &[raw_key(7), Recipient::None],
    ] {
        reads(&world.open_with(recipients).await.unwrap(), &head)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_wrap_that_only_claims_a_recipient_does_not_stop_rotation() {
    let (world, head) = backed_up(&[raw_key(7)]).await;
    let image = world.memory.snapshot();
    let keys = raw::keys(&image, &head.place(), [7; 32]);
    // It says that it is for key 8, and was made with another.
    let claimed = Wrap::raw(envelope(&head).as_str(), &SecretKey::new([8; 32]), &keys).unwrap();
    let mut fields: serde_json::Value = serde_json::from_slice(&claimed.to_json()).unwrap();
    let text = fields["wrap"].as_str().unwrap().to_owned();
    fields["wrap"] = text.replace(&text[4..8], "AAAA").into();
    let planted = serde_json::to_vec(&fields).unwrap();
    world.memory.overwrite(&first_wrap(&head), planted.into());
    // And one for an age recipient that carries other keys.
    let other = KeySet::generate(&KeyClass::ALL).unwrap();
    let Recipient::Age(recipient) = age() else {
        panic!("age")
    };
    let wrong = Wrap::age(envelope(&head).as_str(), &recipient, &other).unwrap();
    let second = Key::new(first_wrap(&head).as_str().replace("aaaaaaaaaa", "aaaaaaaaab")).unwrap();
    world.memory.overwrite(&second, wrong.to_json().into());

    let both = world.open_with(&[raw_key(7), raw_key(8), age()]).await.unwrap();
    for envelope in both.envelopes().await.unwrap() {
        assert_eq!(
            both.rewrap(&envelope).await.unwrap(),
            2,
            "one for key 8, one for age"
        );
        assert_eq!(both.rewrap(&envelope).await.unwrap(), 0);
    }
    reads(&world.open_with(&[raw_key(8)]).await.unwrap(), &head)
        .await
        .unwrap();
}

/// A process that has used the keys of both backups.
async fn knowing(world: &World, heads: &[&Head]) -> Repository {
    let repository = world.open().await;
    for head in heads {
        reads(&repository, head).await.unwrap();
    }
    repository
}

#[tokio::test]
async fn a_key_of_another_generation_serves_no_object_of_this_one() {
    let world = World::new();
    let repository = world.init().await;
    let one = back_up(&repository, &files()).await.unwrap();
    let two = back_up(&repository, &files()).await.unwrap();
    let image = world.memory.snapshot();
    let stolen = raw::keys(&image, &one.place(), [7; 32]);
    let repository = knowing(&world, &[&one, &two]).await;
    // Whoever held the writer's machine during the first backup forges the head of the second.
    let logical = format!("postgres/orders/{}/{}/head", two.generation, two.backup);
    let mut forged = two.clone();
    forged.version = "forged".into();
    let json = forged.to_json().unwrap();
    let facts = stolen.facts.unwrap();
    let sealed = seal(Kind::Head, &facts, &logical, &Salt::random().unwrap(), &json).unwrap();
    world
        .memory
        .overwrite(&name_of(&two.place(), "manifests", ""), sealed.into());
    let error = repository.read_head(&two.place()).await.unwrap_err();
    assert!(
        matches!(&error, RepositoryError::UnknownKey { id, .. } if *id == facts.id()),
        "{error}"
    );
}

#[tokio::test]
async fn a_facts_key_serves_no_data() {
    // Whoever holds the facts keys reads times and positions; the bytes of the log he can neither read nor make.
    let world = World::new();
    let repository = world.init().await;
    let mut writer = begin(&repository, branch(1, 1)).await;
    append(&mut writer, 100, 300);
    store_settled(&mut writer).await;
    let key = world.names("wal-archive/settled/")[0].clone();
    let object = world.body(&key);
    let name = key.as_str().strip_prefix("wal-archive/settled/").unwrap();
    let logical = format!("postgres/{name}");
    let (index, data) = split_container(&logical, &object).unwrap();

    let wrap = Wrap::from_json(&world.body(&world.names("wal-archive/keys/")[0])).unwrap();
    let envelope = format!("postgres/orders/log/{}", writer.epoch());
    let keys = wrap.open_raw(&envelope, &SecretKey::new([7; 32])).unwrap();
    let plain = backstay_codec::unseal(Kind::RangeData, &keys.data.clone().unwrap(), &logical, data).unwrap();
    let facts = keys.facts.unwrap();
    let salt = Salt::random().unwrap();
    let resealed = seal(Kind::RangeData, &facts, &logical, &salt, &plain).unwrap();
    let forged = [index, &resealed].concat();
    world.memory.overwrite(&key, forged.into());

    let log = log_store(&repository);
    let error = log.read(&branch(1, 1), range(100, 300)).await.unwrap_err();
    let RepositoryError::Unreadable { damage, .. } = &error else {
        panic!("{error}")
    };
    assert!(
        matches!(damage.as_ref(), RepositoryError::UnknownKey { id, .. } if *id == facts.id()),
        "{error}"
    );
    world.memory.overwrite(&key, object);
    let bytes = log.read(&branch(1, 1), range(100, 300)).await.unwrap();
    assert!(bytes == log_bytes(branch(1, 1), range(100, 300)));
}

#[tokio::test]
async fn a_record_of_a_newer_format_is_refused_by_its_version() {
    let world = World::new();
    let repository = world.init().await;
    let started = repository.run_started("backup", "orders").await.unwrap();
    let finished = backstay_repository::RunFinished {
        started,
        finished: repository.now(),
        result: backstay_repository::RunResult::Succeeded,
        error: None,
        figures: serde_json::json!({}),
    };
    repository.run_finished(&finished).await.unwrap();
    let wrap = Wrap::from_json(&world.body(&world.names("facts/keys/")[0])).unwrap();
    let keys = wrap.open_raw("facts/2026-01", &SecretKey::new([7; 32])).unwrap();
    let run = &finished.started.run;
    let logical = format!("facts/runs/{run}.finished");
    let mut fields = serde_json::to_value(&finished).unwrap();
    fields["format"] = 2.into();
    let json = serde_json::to_vec(&fields).unwrap();
    let sealed = seal(
        Kind::Run,
        &keys.facts.unwrap(),
        &logical,
        &Salt::random().unwrap(),
        &json,
    )
    .unwrap();
    let key = Key::new(format!("facts/runs/2026/01/01/{run}.finished")).unwrap();
    world.memory.overwrite(&key, sealed.into());
    let error = world.open().await.read_run_finished(run).await.unwrap_err();
    assert!(
        matches!(&error, RepositoryError::NewerFormat { object, format: 2 } if *object == key.to_string()),
        "{error}"
    );
}
