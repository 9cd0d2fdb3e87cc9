//! What a container refuses, byte by byte.

use super::*;
use crate::{CHUNK, Cause, KeyClass, Opener};
use proptest::prelude::*;

const NAME: &str = "postgres/a/g/b/p00000";

fn key() -> SecretKey {
    SecretKey::new([5; 32])
}

fn sealed(plain: &[u8]) -> Vec<u8> {
    seal(Kind::Pack, &key(), NAME, &Salt([9; 32]), plain).unwrap()
}

fn filler(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8).collect()
}

#[test]
fn every_flipped_byte_is_refused_with_its_cause() {
    let whole = sealed(b"forty-two bytes of the most precious data.");
    for place in 0..whole.len() {
        for bit in [0x01, 0x80] {
            let mut changed = whole.clone();
            changed[place] ^= bit;
            let error = unseal(Kind::Pack, &key(), NAME, &changed).unwrap_err();
            let expected = match place {
                16..32 => Cause::Key,
                32..48 => Cause::Name,
                _ => Cause::Content,
            };
            assert_eq!(error.cause(), expected, "byte {place}: {error}");
            assert!(error.to_string().contains(NAME), "{error}");
        }
    }
}

#[test]
fn lengths_around_chunk_borders_are_read_back_and_no_other_length_is() {
    for length in [
        0,
        1,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        2 * CHUNK - 1,
        2 * CHUNK,
        2 * CHUNK + 1,
    ] {
        let plain = filler(length);
        let whole = sealed(&plain);
        assert_eq!(whole.len() as u64, container_length(length as u64));
        assert_eq!(crate::plaintext_length(whole.len() as u64), Some(length as u64));
        assert_eq!(unseal(Kind::Pack, &key(), NAME, &whole).unwrap(), plain);
        for cut in [1, 16, 17, CHUNK, CHUNK + 16, whole.len()]
            .into_iter()
            .filter(|cut| *cut <= whole.len())
        {
            let shorter = &whole[..whole.len() - cut];
            assert_eq!(
                unseal(Kind::Pack, &key(), NAME, shorter).unwrap_err().cause(),
                Cause::Content,
                "{length} less {cut}"
            );
        }
        for more in [1, 16, CHUNK + 16] {
            let longer = [whole.clone(), vec![0; more]].concat();
            assert_eq!(
                unseal(Kind::Pack, &key(), NAME, &longer).unwrap_err().cause(),
                Cause::Content
            );
        }
    }
}

#[test]
fn ten_thousand_flips_in_a_large_container_are_refused() {
    let whole = sealed(&filler(1 << 20));
    let mut place = 7;
    let mut changed = whole.clone();
    for _ in 0..10_000 {
        place = (place * 48_271 + 11) % whole.len();
        changed[place] ^= 0x10;
        assert!(
            unseal(Kind::Pack, &key(), NAME, &changed).is_err(),
            "byte {place}"
        );
        changed[place] ^= 0x10;
    }
}

#[test]
fn swapped_chunks_are_refused() {
    let mut whole = sealed(&filler(3 * CHUNK));
    let (first, second) = (112, 112 + CHUNK + 16);
    for n in 0..CHUNK + 16 {
        whole.swap(first + n, second + n);
    }
    assert_eq!(
        unseal(Kind::Pack, &key(), NAME, &whole).unwrap_err().cause(),
        Cause::Content
    );
}

#[test]
fn another_name_kind_or_key_is_refused() {
    let whole = sealed(b"x");
    let refused = |kind, key: SecretKey, name| unseal(kind, &key, name, &whole).unwrap_err().cause();
    assert_eq!(refused(Kind::Pack, key(), "postgres/a/g/b/p00001"), Cause::Name);
    assert_eq!(refused(Kind::Head, key(), NAME), Cause::Content);
    assert_eq!(refused(Kind::Pack, SecretKey::new([6; 32]), NAME), Cause::Key);
    let mut disguised = whole.clone();
    disguised[10] = Kind::Head as u8;
    assert_eq!(
        unseal(Kind::Head, &key(), NAME, &disguised).unwrap_err().cause(),
        Cause::Content
    );
}

#[test]
fn kinds_have_distinct_numbers_from_one_on() {
    let numbers: Vec<u8> = Kind::ALL.iter().map(|kind| *kind as u8).collect();
    assert_eq!(numbers, (1..=18).collect::<Vec<u8>>());
    assert_eq!(Kind::PageIndex.key_class(), KeyClass::Index);
}

proptest! {
    #[test]
    fn any_part_opens_from_just_its_chunks(length in 1usize..200_000, from in 0usize..200_000, size in 1usize..70_000) {
        let plain = filler(length);
        let whole = sealed(&plain);
        let from = from.min(length - 1);
        let to = (from + size).min(length);
        let opener = Opener::new(Kind::Pack, &key(), NAME, &Salt([9; 32]), length as u64).unwrap();
        let range = opener.sealed_range(from as u64..to as u64);
        let chunks = (to.div_ceil(CHUNK) - from / CHUNK) as u64;
        prop_assert!(range.end - range.start <= chunks * (CHUNK as u64 + 16));
        let part = opener.open_range(from as u64..to as u64, &whole[range.start as usize..range.end as usize]).unwrap();
        prop_assert_eq!(part, &plain[from..to]);
    }

    #[test]
    fn no_input_makes_opening_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), prefix in 0usize..112) {
        let mut input = sealed(b"seed")[..prefix].to_vec();
        input.extend(bytes);
        prop_assert!(unseal(Kind::Pack, &key(), NAME, &input).is_err());
    }
}
