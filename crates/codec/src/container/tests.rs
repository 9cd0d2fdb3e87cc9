//! What a container refuses, byte by byte.

use super::*;
use crate::header::SEALED_CHUNK;
use crate::{CHUNK, Cause, UnsealError, plaintext_length};
use proptest::prelude::*;

const NAME: &str = "postgres/a/g/b/p00000";
const SALT: Salt = Salt([9; 32]);

fn key() -> SecretKey {
    SecretKey::new([5; 32])
}

fn sealed(plain: &[u8]) -> Vec<u8> {
    seal(Kind::Pack, &key(), NAME, &SALT, plain).unwrap()
}

fn opened(bytes: &[u8]) -> Result<Vec<u8>, UnsealError> {
    unseal(Kind::Pack, &key(), NAME, bytes)
}

fn filler(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8).collect()
}

#[test]
fn every_flipped_bit_of_every_kind_is_refused_with_its_cause() {
    for kind in Kind::ALL {
        let mut whole = seal(
            kind,
            &key(),
            NAME,
            &SALT,
            b"forty-two bytes of the most precious data.",
        )
        .unwrap();
        for place in 0..whole.len() {
            let expected = match place {
                16..32 => Cause::Key,
                32..48 => Cause::Name,
                _ => Cause::Content,
            };
            for bit in 0..8 {
                whole[place] ^= 1 << bit;
                let error = unseal(kind, &key(), NAME, &whole).unwrap_err();
                assert_eq!(error.cause(), expected, "{kind}, byte {place}: {error}");
                assert!(error.to_string().contains(NAME), "{error}");
                whole[place] ^= 1 << bit;
            }
        }
        assert!(unseal(kind, &key(), NAME, &whole).is_ok());
    }
}

#[test]
fn a_container_is_refused_under_every_other_kind() {
    for (kind, other) in Kind::ALL
        .into_iter()
        .flat_map(|kind| Kind::ALL.map(|other| (kind, other)))
    {
        let mut whole = seal(kind, &key(), NAME, &SALT, b"x").unwrap();
        if kind == other {
            continue;
        }
        let error = unseal(other, &key(), NAME, &whole).unwrap_err();
        let text = format!(
            "content: {NAME} is of kind {} ({kind}), not a {other}",
            kind.number()
        );
        assert_eq!(error.to_string(), text);
        // In disguise its header no longer fits its commitment.
        whole[10] = other.number();
        let what = "its header was changed".to_owned();
        let name = NAME.to_owned();
        assert_eq!(
            unseal(other, &key(), NAME, &whole),
            Err(UnsealError::Damaged { name, what })
        );
    }
}

/// Lengths of plaintext at and around the borders of chunks.
const LENGTHS: [usize; 11] = [
    0,
    1,
    15,
    17,
    CHUNK - 1,
    CHUNK,
    CHUNK + 1,
    CHUNK + 16,
    2 * CHUNK - 1,
    2 * CHUNK,
    2 * CHUNK + 1,
];

#[test]
fn lengths_around_chunk_borders_are_read_back() {
    for length in LENGTHS {
        let plain = filler(length);
        let whole = sealed(&plain);
        assert_eq!(whole.len() as u64, container_length(length as u64));
        assert_eq!(plaintext_length(whole.len() as u64), Some(length as u64));
        assert_eq!(opened(&whole).unwrap(), plain);
        assert_eq!(
            seal_proven(Kind::Pack, &key(), NAME, &SALT, &plain).unwrap(),
            whole
        );
    }
}

#[test]
fn containers_cut_at_and_around_every_border_are_truncated() {
    for length in LENGTHS {
        let whole = sealed(&filler(length));
        let borders = (0..4).map(|chunk| HEADER_LENGTH + chunk * SEALED_CHUNK);
        let ends = borders.chain([0, 8, 12, 80, whole.len()]).flat_map(|border| {
            [
                border.saturating_sub(17),
                border.saturating_sub(16),
                border.saturating_sub(1),
                border,
                border + 1,
                border + 16,
            ]
        });
        for end in ends.filter(|end| *end < whole.len()) {
            let error = opened(&whole[..end]).unwrap_err();
            assert!(
                matches!(error, UnsealError::Truncated { .. }),
                "{length} cut at {end}: {error}"
            );
        }
    }
}

#[test]
fn containers_with_anything_after_their_end_are_too_long() {
    for length in LENGTHS {
        let whole = sealed(&filler(length));
        for more in [1, 15, 16, 17, CHUNK, SEALED_CHUNK] {
            let longer = [whole.clone(), vec![0; more]].concat();
            let error = opened(&longer).unwrap_err();
            assert!(
                matches!(error, UnsealError::TooLong { .. }),
                "{length} and {more}: {error}"
            );
        }
    }
}

#[test]
fn a_container_of_which_the_beginning_is_at_hand_is_refused_when_anything_follows_it() {
    for length in LENGTHS {
        let whole = sealed(&filler(length));
        let found = whole.len() as u64;
        let opener = |found| Opener::of_beginning(Kind::Pack, &key(), NAME, &whole, found);
        assert_eq!(opener(found).unwrap().plaintext_length(), length as u64);
        for more in [1, 16, SEALED_CHUNK as u64, u64::from(u32::MAX)] {
            let error = opener(found + more).unwrap_err();
            assert!(
                matches!(error, UnsealError::TooLong { .. }),
                "{length} and {more}: {error}"
            );
        }
    }
    // More than a header can say, as a table of objects might.
    let longest = u64::from(u32::MAX);
    assert!(Opener::new(Kind::Pack, &key(), NAME, &SALT, longest).is_ok());
    let error = Opener::new(Kind::Pack, &key(), NAME, &SALT, longest + 1).unwrap_err();
    assert!(
        error.to_string().contains("more than a container holds"),
        "{error}"
    );
}

#[test]
fn pieces_that_end_around_a_chunk_border_are_appended_without_a_gap() {
    for first in [CHUNK - 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK] {
        let plain = filler(first + 3);
        let mut buffer = SealBuffer::with_capacity(plain.len());
        buffer.append(&plain[..first]);
        (first..first + 3).for_each(|at| buffer.append(&plain[at..=at]));
        buffer.append(&[]);
        assert_eq!(
            buffer.seal_proven(Kind::Pack, &key(), NAME, &SALT).unwrap(),
            sealed(&plain),
            "{first}"
        );
    }
}

#[test]
fn ten_thousand_flips_in_a_large_container_are_refused() {
    let mut whole = sealed(&filler(1 << 20));
    let mut place = 7;
    for flip in 0..10_000 {
        place = (place * 48_271 + 11) % whole.len();
        whole[place] ^= 1 << (flip % 8);
        assert!(opened(&whole).is_err(), "byte {place}");
        whole[place] ^= 1 << (flip % 8);
    }
    assert!(opened(&whole).is_ok());
}

#[test]
fn rearranged_chunks_are_refused() {
    let whole = sealed(&filler(3 * CHUNK));
    let (header, body) = whole.split_at(HEADER_LENGTH);
    let chunks: Vec<&[u8]> = body.chunks(SEALED_CHUNK).collect();
    for order in [[1, 0, 2], [0, 2, 1], [2, 1, 0], [0, 0, 2], [0, 1, 1], [0, 2, 2]] {
        let moved = order.map(|place| chunks[place]).concat();
        let error = opened(&[header, &moved].concat()).unwrap_err();
        assert!(matches!(error, UnsealError::Damaged { .. }), "{order:?}: {error}");
    }
    assert_eq!(
        opened(&[header, &chunks.concat()].concat()).unwrap(),
        filler(3 * CHUNK)
    );
}

#[test]
fn chunks_of_another_container_are_refused() {
    let plain = filler(2 * CHUNK);
    let ours = sealed(&plain);
    // Only one of salt, name and key differs; the plaintext is the same.
    let theirs = [
        seal(Kind::Pack, &key(), NAME, &Salt([8; 32]), &plain).unwrap(),
        seal(Kind::Pack, &key(), "postgres/a/g/b/p00001", &SALT, &plain).unwrap(),
        seal(Kind::Pack, &SecretKey::new([6; 32]), NAME, &SALT, &plain).unwrap(),
        seal(Kind::RangeData, &key(), NAME, &SALT, &plain).unwrap(),
        sealed(&filler(2 * CHUNK - 1)),
    ];
    for other in theirs {
        let mixed = [
            &ours[..HEADER_LENGTH + SEALED_CHUNK],
            &other[HEADER_LENGTH + SEALED_CHUNK..],
        ]
        .concat();
        assert_eq!(opened(&mixed).unwrap_err().cause(), Cause::Content);
        let crossed = [&other[..HEADER_LENGTH], &ours[HEADER_LENGTH..]].concat();
        assert!(opened(&crossed).is_err());
    }
}

#[test]
fn another_name_or_key_is_refused_in_words() {
    let whole = sealed(b"x");
    let other = SecretKey::new([6; 32]);
    let error = unseal(Kind::Pack, &key(), "postgres/a/g/b/p00001", &whole).unwrap_err();
    assert_eq!(
        error.to_string(),
        "name: postgres/a/g/b/p00001 was written under another name"
    );
    let error = unseal(Kind::Pack, &other, NAME, &whole).unwrap_err();
    let (ours, theirs) = (key().id(), other.id());
    assert_eq!(
        error.to_string(),
        format!("key: {NAME} is sealed with key {ours}, not with {theirs}")
    );
}

#[test]
fn other_things_than_containers_of_this_version_are_named() {
    let mut newer = sealed(b"x");
    newer[8] = 2;
    let mut suite = sealed(b"x");
    suite[9] = 2;
    let cases = [
        (
            &b"PK\x03\x04"[..],
            format!("content: {NAME} is not a Backstay object"),
        ),
        (
            &[][..],
            format!("content: {NAME} is truncated: 0 bytes instead of 112"),
        ),
        (
            &newer[..],
            format!("content: {NAME} has format version 2; this program opens version 1"),
        ),
        (
            &suite[..],
            format!(
                "content: {NAME} has suite 2 with chunks of 2^16 bytes; this program opens suite 1 with 2^16"
            ),
        ),
    ];
    for (bytes, text) in cases {
        assert_eq!(opened(bytes).unwrap_err().to_string(), text);
    }
}

#[test]
fn two_containers_in_one_object_are_split_and_do_not_change_places() {
    let index = seal(Kind::RangeIndex, &key(), NAME, &SALT, b"index").unwrap();
    for size in [0, 1, CHUNK, CHUNK + 1] {
        let data = seal(Kind::RangeData, &key(), NAME, &SALT, &filler(size)).unwrap();
        let object = [index.clone(), data.clone()].concat();
        assert_eq!(split_container(NAME, &object), Ok((&index[..], &data[..])));
        let swapped = [data.clone(), index.clone()].concat();
        let (first, second) = split_container(NAME, &swapped).unwrap();
        assert!(unseal(Kind::RangeIndex, &key(), NAME, first).is_err());
        assert!(unseal(Kind::RangeData, &key(), NAME, second).is_err());
    }
    let cut = split_container(NAME, &index[..index.len() - 1]).unwrap_err();
    assert!(matches!(cut, UnsealError::Truncated { .. }), "{cut}");
}

#[test]
fn a_part_of_another_length_than_asked_for_is_refused() {
    let whole = sealed(&filler(CHUNK + 10));
    let opener = Opener::new(Kind::Pack, &key(), NAME, &SALT, (CHUNK + 10) as u64).unwrap();
    let first = &whole[HEADER_LENGTH..HEADER_LENGTH + SEALED_CHUNK];
    assert_eq!(opener.open_range(0..10, first).unwrap(), filler(10));
    assert!(matches!(
        opener.open_range(0..10, &first[1..]),
        Err(UnsealError::Truncated { .. })
    ));
    assert!(matches!(
        opener.open_range(0..10, &whole[HEADER_LENGTH..]),
        Err(UnsealError::TooLong { .. })
    ));
    let (beyond, backwards) = (
        CHUNK as u64..CHUNK as u64 + 11,
        std::ops::Range { start: 5, end: 4 },
    );
    for part in [beyond, backwards, u64::MAX - 1..u64::MAX] {
        assert!(matches!(
            opener.open_range(part, first),
            Err(UnsealError::Damaged { .. })
        ));
    }
    let recorded = Opener::new(Kind::Pack, &key(), NAME, &SALT, 1 << 32);
    assert!(matches!(recorded, Err(UnsealError::Damaged { .. })));
}

proptest! {
    #[test]
    fn what_was_appended_in_any_pieces_is_unsealed(
        pieces in proptest::collection::vec(0usize..70_000, 0..6),
    ) {
        let plain = filler(pieces.iter().sum());
        let mut buffer = SealBuffer::with_capacity(0);
        let mut rest = plain.as_slice();
        for piece in pieces {
            let (now, later) = rest.split_at(piece);
            buffer.append(now);
            rest = later;
        }
        prop_assert_eq!(buffer.len(), plain.len());
        let whole = buffer.seal_proven(Kind::Pack, &key(), NAME, &SALT).unwrap();
        prop_assert_eq!(&whole, &sealed(&plain));
        prop_assert_eq!(opened(&whole).unwrap(), plain);
    }

    #[test]
    fn any_part_opens_from_just_its_chunks(length in 1usize..200_000, from in 0usize..200_000, size in 0usize..70_000) {
        let plain = filler(length);
        let whole = sealed(&plain);
        let from = from.min(length - 1);
        let to = (from + size).min(length);
        let opener = Opener::new(Kind::Pack, &key(), NAME, &SALT, length as u64).unwrap();
        let range = opener.sealed_range(from as u64..to as u64);
        let chunks = (to.div_ceil(CHUNK) - from / CHUNK).max(1);
        prop_assert!(range.end - range.start <= (chunks * SEALED_CHUNK) as u64);
        let part = opener.open_range(from as u64..to as u64, &whole[range.start as usize..range.end as usize]).unwrap();
        prop_assert_eq!(part, &plain[from..to]);
    }

    #[test]
    fn no_range_makes_an_opener_panic(length in any::<u32>(), start in any::<u64>(), end in any::<u64>(), bytes in 0usize..70_000) {
        let opener = Opener::new(Kind::Pack, &key(), NAME, &SALT, length.into()).unwrap();
        let range = opener.sealed_range(start..end);
        prop_assert!(range.start < range.end && range.end <= container_length(length.into()));
        prop_assert!(opener.open_range(start..end, &vec![0; bytes]).is_err());
        prop_assert!(bytes == 0 || opener.open_chunks(start, &vec![0; bytes]).is_err());
    }

    #[test]
    fn no_input_makes_opening_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), prefix in 0usize..112) {
        let mut input = sealed(b"seed")[..prefix].to_vec();
        input.extend(bytes);
        prop_assert!(opened(&input).is_err());
        if let Ok((first, second)) = split_container(NAME, &input) {
            prop_assert_eq!(first.len() + second.len(), input.len());
        }
    }
}
