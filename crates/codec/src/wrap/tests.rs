//! What a wrap refuses.

use super::*;

fn keys() -> KeySet {
    KeySet::generate(&KeyClass::ALL).unwrap()
}

fn other_recipient(result: Result<KeySet, WrapError>) -> bool {
    matches!(result, Err(WrapError::OtherRecipient { .. }))
}

const IDENTITY: &str = "AGE-SECRET-KEY-1TX5H2J8M55RDRXLWEMKDNVNT287NEM0KC6WX964A467D576YJRMQY5AAKR";
const OTHER: &str = "AGE-SECRET-KEY-1NLFEF4WPDAMM3MY4952QM83VGRTN60FK9E42YZT8JC34KQSW8CXQTHTLKA";

#[test]
fn a_wrap_opens_for_its_master_key_and_its_envelope_alone() {
    let (master, other, keys) = (SecretKey::new([1; 32]), SecretKey::new([2; 32]), keys());
    let wrap = Wrap::from_json(&Wrap::raw("postgres/a/g", &master, &keys).unwrap().to_json()).unwrap();
    assert_eq!(wrap.open_raw("postgres/a/g", &master), Ok(keys));
    assert!(other_recipient(wrap.open_raw("postgres/a/g", &other)));
    assert!(other_recipient(wrap.open_raw("postgres/b/g", &master)));
    assert!(other_recipient(wrap.open_none("postgres/a/g")));
    assert!(other_recipient(wrap.open_age("postgres/a/g", IDENTITY)));
    assert!(other_recipient(wrap.open_passphrase(
        "postgres/a/g",
        "abcdefghij",
        &master
    )));
}

#[test]
fn a_passphrase_wrap_opens_for_its_keyring_alone() {
    let (key, keys) = (SecretKey::new([1; 32]), keys());
    let wrap = Wrap::passphrase("e", "abcdefghij", &key, &keys).unwrap();
    assert_eq!(wrap.open_passphrase("e", "abcdefghij", &key), Ok(keys));
    let other = SecretKey::new([2; 32]);
    assert_eq!(
        wrap.open_passphrase("e", "abcdefghij", &other),
        Err(WrapError::Refused)
    );
    assert!(other_recipient(wrap.open_passphrase("e", "abcdefghik", &key)));
    assert!(other_recipient(wrap.open_raw("e", &key)));
}

#[test]
fn an_age_wrap_opens_for_its_identity_alone() {
    let (recipient, keys) = (crate::age_recipient_of(IDENTITY).unwrap(), keys());
    let wrap = Wrap::age("e", &recipient, &keys).unwrap();
    assert_eq!(wrap.recipient().to_string(), format!("age {recipient}"));
    assert_eq!(wrap.open_age("e", IDENTITY), Ok(keys));
    assert_eq!(wrap.open_age("e", OTHER), Err(WrapError::Refused));
    assert_eq!(wrap.open_age("e", "AGE"), Err(WrapError::Age(AgeError::Identity)));
    assert!(other_recipient(wrap.open_age("f", IDENTITY)));
}

#[test]
fn a_wrap_carries_the_keys_that_it_is_given_and_no_others() {
    let (master, all) = (SecretKey::new([1; 32]), keys());
    let facts = KeySet {
        facts: all.facts.clone(),
        ..KeySet::default()
    };
    let wrap = Wrap::raw("e", &master, &facts).unwrap();
    let json = String::from_utf8(wrap.to_json()).unwrap();
    assert!(json.contains("\"key_ids\":{\"facts\":\""), "{json}");
    assert_eq!(wrap.open_raw("e", &master), Ok(facts));
}

#[test]
fn a_wrap_that_states_another_repository_or_none_does_not_open() {
    let (recipient, master, keys) = (
        crate::age_recipient_of(IDENTITY).unwrap(),
        SecretKey::new([1; 32]),
        keys(),
    );
    let of = Binding {
        envelope: "e",
        repository: Some("0123456789abcdef0123456789abcdef"),
    };
    let raw = Wrap::raw(of, &master, &keys).unwrap();
    let age = Wrap::age(of, &recipient, &keys).unwrap();
    let none = Wrap::none(of, &keys).unwrap();
    let open = |wrap: &Wrap| match wrap.recipient.kind.as_str() {
        "raw" => wrap.open_raw("e", &master),
        "age" => wrap.open_age("e", IDENTITY),
        _ => wrap.open_none("e"),
    };
    for wrap in [raw, age, none] {
        let wrap = Wrap::from_json(&wrap.to_json()).unwrap();
        assert_eq!((wrap.repository(), wrap.check_form()), (of.repository, Ok(())));
        assert_eq!(open(&wrap), Ok(keys.clone()), "{wrap:?}");
        for other in [None, Some("1123456789abcdef0123456789abcdef".to_owned())] {
            let repository = other.clone();
            let changed = Wrap {
                repository,
                ..wrap.clone()
            };
            assert_eq!(open(&changed), Err(WrapError::OtherKeys), "{wrap:?} {other:?}");
        }
    }
}

#[test]
fn a_wrap_without_keys_never_opens() {
    let (master, none) = (SecretKey::new([1; 32]), KeySet::default());
    let raw = Wrap::raw("e", &master, &none).unwrap();
    assert_eq!(raw.open_raw("e", &master), Err(WrapError::OtherKeys));
    assert_eq!(
        Wrap::none("e", &none).unwrap().open_none("e"),
        Err(WrapError::OtherKeys)
    );
}

#[test]
fn what_is_wrapped_is_a_line_for_each_key_in_order() {
    let keys = KeySet {
        data: Some(SecretKey::new([0xAB; 32])),
        index: None,
        facts: Some(SecretKey::new([0x01; 32])),
    };
    assert_eq!(
        *lines(&keys),
        format!("data {}\nfacts {}\n", "ab".repeat(32), "01".repeat(32))
    );
    assert_eq!(lines(&self::keys()).capacity(), 4 * 72);
}

#[test]
fn every_changed_byte_of_a_wrap_is_refused() {
    let (master, keys) = (SecretKey::new([1; 32]), keys());
    let wrap = Wrap::raw("e", &master, &keys).unwrap();
    let sealed = wrap.sealed().unwrap();
    for place in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[place] ^= 1;
        assert_eq!(
            with(&wrap, &changed).open_raw("e", &master),
            Err(WrapError::Refused),
            "byte {place}"
        );
        let cut = with(&wrap, &sealed[..place]);
        assert_eq!(
            cut.open_raw("e", &master),
            Err(WrapError::Refused),
            "cut at {place}"
        );
    }
}

fn with(wrap: &Wrap, sealed: &[u8]) -> Wrap {
    Wrap {
        wrap: to_base64(sealed),
        ..wrap.clone()
    }
}

#[test]
fn every_changed_character_of_the_json_is_refused() {
    let (master, keys) = (SecretKey::new([1; 32]), keys());
    let json = Wrap::raw("e", &master, &keys).unwrap().to_json();
    for place in 0..json.len() {
        let mut changed = json.clone();
        changed[place] ^= 1;
        let opened = Wrap::from_json(&changed).and_then(|wrap| wrap.open_raw("e", &master));
        assert!(
            opened.is_err(),
            "byte {place} of {}",
            String::from_utf8_lossy(&json)
        );
    }
}

#[test]
fn planted_key_ids_are_refused() {
    let (master, keys) = (SecretKey::new([1; 32]), keys());
    let without_index = |wrap: Wrap| Wrap {
        key_ids: KeyIds {
            index: None,
            ..wrap.key_ids.clone()
        },
        ..wrap
    };
    let raw = without_index(Wrap::raw("e", &master, &keys).unwrap());
    assert_eq!(raw.open_raw("e", &master), Err(WrapError::Refused));
    let none = without_index(Wrap::none("e", &keys).unwrap());
    assert_eq!(none.open_none("e"), Err(WrapError::OtherKeys));
}

#[test]
fn planted_lines_are_refused() {
    let keys = keys();
    let wrap = Wrap::none("e", &keys).unwrap();
    let right = String::from_utf8(wrap.sealed().unwrap()).unwrap();
    let doubled = format!("{right}data {}\n", "00".repeat(32));
    let unknown = right.replace("facts", "fakes");
    let spaced = right.replacen(' ', "  ", 1);
    let upper = right.to_uppercase();
    for text in ["", "\n", "data", "\u{fffd}", &doubled, &unknown, &spaced, &upper] {
        assert_eq!(
            with(&wrap, text.as_bytes()).open_none("e"),
            Err(WrapError::OtherKeys),
            "{text:?}"
        );
    }
    assert_eq!(with(&wrap, right.as_bytes()).open_none("e"), Ok(keys));
}

#[test]
fn texts_that_are_no_wraps_are_malformed() {
    let good = String::from_utf8(Wrap::none("e", &keys()).unwrap().to_json()).unwrap();
    let newer = good.replace("\"format\":1", "\"format\":2");
    let id = good.replacen("\"data\":\"", "\"data\":\"z", 1);
    for json in ["", "{}", "[]", "\u{fffd}", &newer, &id, &good[..good.len() - 1]] {
        assert!(
            matches!(Wrap::from_json(json.as_bytes()), Err(WrapError::Malformed { .. })),
            "{json}"
        );
    }
}

#[test]
fn a_wrap_in_clear_does_not_print_its_keys() {
    let wrap = Wrap::none("postgres/a/g", &keys()).unwrap();
    assert_eq!(format!("{wrap:?}"), "Wrap of postgres/a/g for none none");
}
