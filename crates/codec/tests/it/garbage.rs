//! Every reader of this crate, on bytes that nobody wrote and on good ones with a wound.
//!
//! Promise: an answer or an error, never a panic; what opens despite a wound is what was sealed.

use backstay_codec::{
    Decompressor, Header, KeyClass, KeySet, Keyring, SecretKey, Wrap, age_recipient_of, check_age_recipient,
    parse_master_key, plaintext_length,
};
use proptest::prelude::*;

const IDENTITY: &str = "AGE-SECRET-KEY-1TX5H2J8M55RDRXLWEMKDNVNT287NEM0KC6WX964A467D576YJRMQY5AAKR";

fn wounded(json: &[u8], place: usize, cut: usize, inserted: &[u8]) -> Vec<u8> {
    let place = place % json.len();
    let end = (place + cut).min(json.len());
    [&json[..place], inserted, &json[end..]].concat()
}

fn keys() -> KeySet {
    let key = |n| Some(SecretKey::new([n; 32]));
    KeySet {
        data: key(1),
        index: key(2),
        facts: key(3),
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400), length in 0usize..1000) {
        prop_assert!(Wrap::from_json(&bytes).is_err());
        prop_assert!(Keyring::from_json(&bytes).is_err());
        prop_assert!(Header::read(&bytes, "n").is_err());
        let frame = [&[0x28, 0xB5, 0x2F, 0xFD][..], &bytes].concat();
        if let Ok(plain) = Decompressor::new().unwrap().decompress(&frame, length) {
            prop_assert_eq!(plain.len(), length);
        }
        let _ = plaintext_length(bytes.len() as u64);
    }

    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        let line = format!("BACKSTAY-KEY-1:{text}");
        let recipient = format!("age1{text}");
        let identity = format!("AGE-SECRET-KEY-1{text}");
        prop_assert!(parse_master_key(&line).is_err());
        prop_assert!(check_age_recipient(&recipient).is_err());
        prop_assert!(age_recipient_of(&identity).is_err());
    }

    #[test]
    fn a_wounded_wrap_opens_to_its_keys_or_not_at_all(
        place in any::<usize>(),
        cut in 0usize..4,
        inserted in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let master = SecretKey::new([4; 32]);
        let recipient = age_recipient_of(IDENTITY).unwrap();
        let wraps = [
            Wrap::raw("e", &master, &keys()).unwrap(),
            Wrap::age("e", &recipient, &keys()).unwrap(),
            Wrap::none("e", &keys()).unwrap(),
        ];
        for wrap in wraps {
            let Ok(wounded) = Wrap::from_json(&wounded(&wrap.to_json(), place, cut, &inserted)) else { continue };
            let answers = [
                wounded.open_raw("e", &master),
                wounded.open_age("e", IDENTITY),
                wounded.open_none("e"),
            ];
            for opened in answers.into_iter().flatten() {
                for class in KeyClass::ALL {
                    prop_assert!(opened.get(class).is_none_or(|key| Some(key) == keys().get(class)));
                }
            }
        }
    }
}
