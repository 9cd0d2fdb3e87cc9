//! `docs/internals/vectors/container-1.json`: the same file is made and checked by `check.py`.

use backstay_codec::{
    Cause, KeyClass, KeySet, Keyring, Kind, Passphrase, Salt, SecretKey, Wrap, container_length, digest_hex,
    parse_master_key, print_master_key, seal, unseal,
};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

#[derive(Deserialize)]
struct Vectors {
    keys: BTreeMap<String, NamedKey>,
    master_key: MasterKey,
    passphrase: PassphraseVector,
    age: AgeKey,
    envelope: String,
    containers: Vec<ContainerVector>,
    wraps: Vec<WrapVector>,
}

#[derive(Deserialize)]
struct NamedKey {
    key: String,
    id: String,
}

#[derive(Deserialize)]
struct MasterKey {
    key: String,
    id: String,
    lines: Vec<String>,
}

#[derive(Deserialize)]
struct PassphraseVector {
    passphrase: String,
    keyring: String,
    key: String,
}

#[derive(Deserialize)]
struct AgeKey {
    identity: String,
}

#[derive(Deserialize)]
struct ContainerVector {
    kind: u8,
    key: String,
    name: String,
    salt: String,
    plaintext_length: usize,
    sealed_length: u64,
    sealed_sha256: String,
    sealed: Option<String>,
}

#[derive(Deserialize)]
struct WrapVector {
    opens_with: String,
    object: String,
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/internals/vectors")
}

fn vectors() -> Vectors {
    serde_json::from_slice(&std::fs::read(directory().join("container-1.json")).unwrap()).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

fn key(hex: &str) -> SecretKey {
    SecretKey::new(unhex(hex).try_into().unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Vectors {
    fn key(&self, class: &str) -> SecretKey {
        key(&self.keys[class].key)
    }

    fn all_keys(&self) -> KeySet {
        KeySet {
            data: Some(self.key("data")),
            index: Some(self.key("index")),
            facts: Some(self.key("facts")),
        }
    }

    fn open(&self, vector: &WrapVector) -> KeySet {
        let wrap = Wrap::from_json(vector.object.as_bytes()).unwrap();
        let kek = key(&self.passphrase.key);
        let opened = match vector.opens_with.as_str() {
            "raw" => wrap.open_raw(&self.envelope, &key(&self.master_key.key)),
            "passphrase" => wrap.open_passphrase(&self.envelope, &wrap.recipient().id, &kek),
            "age" => wrap.open_age(&self.envelope, &self.age.identity),
            "none" => wrap.open_none(&self.envelope),
            other => panic!("no test opens {other}"),
        };
        opened.unwrap()
    }
}

#[test]
fn sealing_gives_the_bytes_that_python_computed() {
    let vectors = vectors();
    let mut lengths = Vec::new();
    for vector in &vectors.containers {
        let kind = Kind::ALL.into_iter().find(|k| *k as u8 == vector.kind).unwrap();
        assert_eq!(kind.key_class().name(), vector.key);
        let plain: Vec<u8> = (0..vector.plaintext_length)
            .map(|n| (n * 31 % 251) as u8)
            .collect();
        let salt = Salt(unhex(&vector.salt).try_into().unwrap());
        let key = vectors.key(&vector.key);
        let sealed = seal(kind, &key, &vector.name, &salt, &plain).unwrap();
        assert_eq!(sealed.len() as u64, vector.sealed_length);
        assert_eq!(container_length(plain.len() as u64), vector.sealed_length);
        assert_eq!(digest_hex(&sealed), vector.sealed_sha256, "{}", vector.name);
        if let Some(expected) = &vector.sealed {
            assert_eq!(hex(&sealed), *expected);
        }
        assert_eq!(unseal(kind, &key, &vector.name, &sealed).unwrap(), plain);
        lengths.push(plain.len());
    }
    assert_eq!(lengths[..8], [0, 1, 42, 65535, 65536, 65537, 131_072, 131_073]);
    let kinds: BTreeSet<u8> = vectors.containers.iter().map(|vector| vector.kind).collect();
    assert_eq!(kinds, (1..=18).collect(), "every kind of object");
}

#[test]
fn containers_that_python_sealed_open_under_their_own_name_alone() {
    let vectors = vectors();
    for vector in vectors.containers.iter().filter(|v| v.sealed.is_some()) {
        let kind = Kind::ALL.into_iter().find(|k| *k as u8 == vector.kind).unwrap();
        let (key, sealed) = (vectors.key(&vector.key), unhex(vector.sealed.as_ref().unwrap()));
        let opened = unseal(kind, &key, &vector.name, &sealed).unwrap();
        assert_eq!(opened.len(), vector.plaintext_length);
        let renamed = format!("{}0", vector.name);
        assert_eq!(
            unseal(kind, &key, &renamed, &sealed).unwrap_err().cause(),
            Cause::Name
        );
    }
}

#[test]
fn key_ids_are_the_ones_that_python_computed() {
    let vectors = vectors();
    for class in KeyClass::ALL {
        let named = &vectors.keys[class.name()];
        assert_eq!(key(&named.key).id().to_string(), named.id);
    }
    assert_eq!(
        key(&vectors.master_key.key).master_key_id(),
        vectors.master_key.id
    );
}

#[test]
fn every_kind_of_wrap_opens_to_the_keys_that_it_names() {
    let vectors = vectors();
    let mut opened = Vec::new();
    for vector in &vectors.wraps {
        let keys = vectors.open(vector);
        let all = vectors.all_keys();
        for class in KeyClass::ALL {
            assert!(keys.get(class).is_none_or(|key| Some(key) == all.get(class)));
        }
        let count = KeyClass::ALL.iter().filter(|c| keys.get(**c).is_some()).count();
        opened.push((vector.opens_with.as_str(), count));
    }
    let expected = [("raw", 3), ("raw", 1), ("passphrase", 3), ("none", 3), ("age", 3)];
    assert_eq!(opened, expected);
}

#[test]
fn the_keyring_object_opens_with_its_passphrase() {
    let PassphraseVector {
        passphrase,
        keyring,
        key: expected,
    } = vectors().passphrase;
    let object = Keyring::from_json(keyring.as_bytes()).unwrap();
    assert_eq!(object.open(&Passphrase::new(passphrase)), Ok(key(&expected)));
    assert_eq!(
        String::from_utf8(object.to_json()).unwrap(),
        keyring,
        "Backstay writes the same object"
    );
}

#[test]
fn every_form_of_a_master_key_is_read_and_the_first_is_printed() {
    let MasterKey {
        key: expected, lines, ..
    } = vectors().master_key;
    for line in &lines {
        assert_eq!(parse_master_key(line), Ok(key(&expected)), "{line}");
    }
    assert_eq!(*print_master_key(&key(&expected)), lines[0]);
}

#[test]
fn wraps_are_written_in_the_form_that_they_are_read() {
    for vector in vectors().wraps {
        let again = Wrap::from_json(vector.object.as_bytes()).unwrap().to_json();
        assert_eq!(String::from_utf8(again).unwrap(), vector.object);
    }
}

#[test]
fn python_computes_the_file_as_it_is() {
    let output = Command::new("/usr/bin/python3")
        .arg(directory().join("check.py"))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}", text.concat());
}
