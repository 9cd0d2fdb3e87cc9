//! Opens any sealed object by its name, with the format document alone: no code of the repository is used.
//!
//! Promise: an object is refused when its envelope lacks a wrap with all the keys of its kind (KEY-2), when it does not
//! open (REPO-3), or when its name is not one of the format's.

use backstay_codec::{Header, KeyClass, KeySet, SecretKey, Wrap, split_container, unseal};
use backstay_store::{Key, MemoryImage};

/// Which envelope an object needs, and what its sealing binds.
struct Sealed {
    stem: String,
    envelope: String,
    logical: String,
    classes: &'static [KeyClass],
    containers: usize,
}

const ALL: &[KeyClass] = &KeyClass::ALL;
const LOG: &[KeyClass] = &[KeyClass::Data, KeyClass::Facts];
const FACTS: &[KeyClass] = &[KeyClass::Facts];

/// A sentence for what is wrong with an object, if anything is.
pub fn refuse(image: &MemoryImage, key: &Key, body: &[u8], master: [u8; 32]) -> Option<String> {
    let parts: Vec<&str> = key.as_str().split('/').collect();
    if is_clear(&parts) {
        return None;
    }
    let Some(sealed) = sealed(&parts) else {
        return Some(format!("NAMES: {key} is not a name of the format"));
    };
    let keys = keys(image, &sealed, &SecretKey::new(master));
    let whole = |keys: &KeySet| sealed.classes.iter().all(|class| keys.get(*class).is_some());
    if !keys.iter().any(whole) {
        return Some(format!("KEY-2: no wrap carries the keys of {key}"));
    }
    let mut rest = body;
    for _ in 0..sealed.containers {
        match open_one(&sealed.logical, rest, &keys) {
            Ok(later) => rest = later,
            Err(what) => return Some(format!("REPO-3: {key} does not open: {what}")),
        }
    }
    (!rest.is_empty()).then(|| format!("REPO-3: {key} is too long"))
}

fn is_clear(parts: &[&str]) -> bool {
    matches!(parts, ["repository.json"] | ["keyring", _]) || parts.get(1) == Some(&"keys")
}

fn open_one<'a>(logical: &str, bytes: &'a [u8], keys: &[KeySet]) -> Result<&'a [u8], String> {
    let (container, rest) = split_container(logical, bytes).map_err(|e| e.to_string())?;
    let header = Header::read(container, logical).map_err(|e| e.to_string())?;
    let kind = header.kind().ok_or("its kind is not known")?;
    let fits = |set: &&KeySet| set.get(kind.key_class()).map(SecretKey::id) == Some(*header.key_id());
    let key = keys.iter().find(fits).and_then(|set| set.get(kind.key_class()));
    let key = key.ok_or("no wrap holds its key")?;
    unseal(kind, key, logical, container).map_err(|e| e.to_string())?;
    Ok(rest)
}

fn sealed(parts: &[&str]) -> Option<Sealed> {
    let build = |stem: String, envelope: String, logical: String, classes, containers| {
        Some(Sealed {
            stem,
            envelope,
            logical,
            classes,
            containers,
        })
    };
    match parts {
        [
            "postgres-backups",
            role @ ("manifests" | "tables" | "data"),
            class,
            source,
            generation,
            backup,
            rest @ ..,
        ] => {
            let last = match (*role, rest) {
                ("manifests", []) => "head",
                ("tables" | "data", [last]) => last,
                _ => return None,
            };
            let stem = format!("postgres-backups/keys/{class}/{source}/{generation}.");
            let envelope = format!("postgres/{source}/{generation}");
            build(
                stem,
                envelope.clone(),
                format!("{envelope}/{backup}/{last}"),
                ALL,
                1,
            )
        }
        ["wal-archive", "lineage", source, id] => {
            let logical = format!("postgres/{source}/lineage/{id}");
            build("facts/keys/".into(), "facts/".into(), logical, FACTS, 1)
        }
        ["wal-archive", "history", source, system, file] => {
            let logical = format!("postgres/{source}/{system}/{file}");
            build("facts/keys/".into(), "facts/".into(), logical, FACTS, 1)
        }
        ["wal-archive", "live" | "settled", source, system, branch, name] => {
            let (epoch, _) = name.split_once('.')?.1.rsplit_once('-')?;
            let stem = format!("wal-archive/keys/{source}/{epoch}.");
            let envelope = format!("postgres/{source}/log/{epoch}");
            let logical = format!("postgres/{source}/{system}/{branch}/{name}");
            build(stem, envelope, logical, LOG, 2)
        }
        ["wal-archive", "index", source, system, branch, name] => {
            let (_, epoch) = name.split_once('.')?;
            let stem = format!("wal-archive/keys/{source}/{epoch}.");
            let envelope = format!("postgres/{source}/log/{epoch}");
            let logical = format!("postgres/{source}/{system}/{branch}/{name}");
            build(stem, envelope, logical, LOG, 1)
        }
        ["facts", "runs", _, _, _, file] => build(
            "facts/keys/".into(),
            "facts/".into(),
            format!("facts/runs/{file}"),
            FACTS,
            1,
        ),
        _ => None,
    }
}

/// What each wrap of an envelope gives to this master key. A fact may be of any month.
fn keys(image: &MemoryImage, sealed: &Sealed, master: &SecretKey) -> Vec<KeySet> {
    let wraps = image
        .objects()
        .filter(|(key, _)| key.as_str().starts_with(&sealed.stem));
    let opened = wraps.filter_map(|(_, body)| {
        let wrap = Wrap::from_json(body).ok()?;
        let ours = wrap.envelope() == sealed.envelope || sealed.envelope == "facts/";
        let envelope = wrap.envelope().to_owned();
        ours.then(|| wrap.open_raw(&envelope, master).ok()).flatten()
    });
    opened.collect()
}
