//! The server of the sweep: its log, whose every byte follows from its place, and its promotion.
//!
//! Promise: timelines 1 and 2 share the bytes before the switch and none after it.

use backstay_repository::{Presented, PresentedAncestor, history_digest};
use backstay_terms::{LogRange, Position};

/// Bytes in a file of its log.
pub const FILE: u64 = 4096;
/// Where its log begins.
pub const START: Position = Position(0x0200_0000);
/// Where timeline 2 left timeline 1.
pub const SWITCH: Position = Position(START.0 + 2 * FILE + 1500);
/// The start of the file that holds the switch: where a stream of timeline 2 begins.
pub const SECOND: Position = Position(START.0 + 2 * FILE);
/// Where its log ends now.
pub const END: Position = Position(START.0 + 3 * FILE + 2600);
/// Its system identifier.
pub const SYSTEM: u64 = 0x6543_2100_1234_5678;
/// The history file of timeline 2.
pub const HISTORY: &[u8] = b"1\t0/2002DDC\tno recovery target specified\n";

/// The bytes of a timeline.
pub fn log_bytes(timeline: u32, range: LogRange) -> Vec<u8> {
    let byte = |position: u64| {
        let own = if position < SWITCH.0 {
            1
        } else {
            u64::from(timeline)
        };
        let mixed = (position ^ own << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 40) as u8
    };
    (range.from.0..range.to.0).map(byte).collect()
}

/// What it says when a stream attaches after the promotion.
pub fn presented() -> Presented {
    Presented {
        system: SYSTEM,
        timeline: 2,
        history: Some(history_digest(HISTORY)),
        ancestors: vec![PresentedAncestor {
            timeline: 1,
            history: None,
            left_at: SWITCH,
        }],
        server_end: END,
    }
}
