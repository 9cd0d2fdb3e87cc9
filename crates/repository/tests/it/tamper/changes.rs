//! The changes that damage or a stranger makes to one object.

use backstay_clock::{Chance, SeededChance};
use bytes::Bytes;

/// An object's new bytes, and what was done.
#[derive(Debug, Clone)]
pub struct Change {
    pub what: String,
    pub body: Bytes,
}

/// One byte changed.
pub fn flipped(body: &[u8], place: usize, mask: u8) -> Change {
    let mut bytes = body.to_vec();
    bytes[place] ^= mask;
    Change {
        what: format!("byte {place} of {} changed by {mask:02x}", body.len()),
        body: bytes.into(),
    }
}

fn cut(body: &[u8], length: usize) -> Change {
    Change {
        what: format!("cut to {length} of {}", body.len()),
        body: Bytes::copy_from_slice(&body[..length]),
    }
}

fn extended(body: &[u8], by: usize, byte: u8) -> Change {
    Change {
        what: format!("extended by {by} times {byte}"),
        body: [body, &vec![byte; by]].concat().into(),
    }
}

/// Every byte changed, every length from nothing to one too few near the ends, and longer ones.
pub fn changes(body: &[u8]) -> Vec<Change> {
    let all = 0..body.len();
    let mut changes: Vec<Change> = all.map(|place| flipped(body, place, 1 << (place % 8))).collect();
    let near = |length: &usize| *length < 130 || length.is_multiple_of(13) || length + 20 > body.len();
    changes.extend((0..body.len()).filter(near).map(|length| cut(body, length)));
    changes.extend(around_chunks(body.len()).map(|length| cut(body, length)));
    changes.extend([1, 15, 16, 17, 112, 128, 65_552].map(|by| extended(body, by, 0)));
    changes.push(extended(body, 3, b'}'));
    changes
}

/// The same for an object that costs much to read: the header, chunk borders, and places by chance.
pub fn few_changes(body: &[u8], count: u64) -> Vec<Change> {
    let chance = SeededChance::new(count);
    let random = (0..count).map(|_| (chance.next_u64() % body.len() as u64) as usize);
    let mut changes: Vec<Change> = (0..112)
        .chain(random)
        .map(|place| flipped(body, place, 0x80))
        .collect();
    changes.extend(around_chunks(body.len()).map(|length| cut(body, length)));
    changes.extend([1, 16, 17, 65_552].map(|by| extended(body, by, 0)));
    changes
}

/// Lengths around the borders of sealed chunks.
fn around_chunks(length: usize) -> impl Iterator<Item = usize> {
    let borders = (0..)
        .map(|n| 112 + n * 65_552)
        .take_while(move |border| *border < length);
    borders
        .flat_map(|border| [border - 1, border, border + 1, border + 16])
        .filter(move |at| *at < length)
}
