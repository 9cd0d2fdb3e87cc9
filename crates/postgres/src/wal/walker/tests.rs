//! The walker over forged WAL: splits, spans, ends, flipped bytes.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::timeline::{Ancestor, Ancestry, History};
use crate::wal::forge::{Forge, MIB, identity};
use crate::wal::record::Ended;
use proptest::prelude::*;

struct Walked {
    records: Vec<Record>,
    outcome: Result<(), WalDamage>,
    walker: Walker,
}

fn walk_in_parts<'a>(identity: WalIdentity, at: Lsn, parts: impl IntoIterator<Item = &'a [u8]>) -> Walked {
    let (mut walker, mut records) = (Walker::new(identity, at), vec![]);
    let mut outcome = Ok(());
    for part in parts {
        outcome = walker.feed(part, &mut |record| records.push(record));
        if outcome.is_err() {
            break;
        }
    }
    Walked {
        records,
        outcome,
        walker,
    }
}

fn walk(at: Lsn, bytes: &[u8]) -> Walked {
    walk_in_parts(identity(), at, [bytes])
}

fn starts(walked: &Walked) -> Vec<Lsn> {
    walked.records.iter().map(|record| record.start).collect()
}

const START: Lsn = Lsn(3 * MIB);

#[test]
fn records_across_pages_and_segments_are_found() {
    let mut log = Forge::new(START);
    for length in [10, 8000, 30, 20_000, 500, 1_200_000, 7, 8152, 1] {
        log.filler(length);
    }
    let walked = walk(START, &log.bytes);
    assert_eq!(walked.outcome, Ok(()));
    assert_eq!(starts(&walked), log.starts);
    assert_eq!(walked.walker.last().unwrap().end, log.at());
    assert_eq!(walked.walker.at(), log.at());
    let lengths: Vec<u32> = walked.records.iter().map(|record| record.length).collect();
    assert_eq!(lengths, [36, 8029, 56, 20029, 529, 1_200_029, 33, 8181, 27]);
}

#[test]
fn a_cold_start_in_the_middle_of_a_record_begins_with_the_next_one() {
    let mut log = Forge::new(START);
    log.filler(100);
    log.filler(2_500_000);
    let next = log.filler(40);
    let second = &log.bytes[MIB as usize..];
    let walked = walk(Lsn(4 * MIB), second);
    assert_eq!((walked.outcome.clone(), starts(&walked)), (Ok(()), vec![next]));
    // The same from a page in the middle, and from a place within a page.
    for inside in [MIB as usize + 8192, MIB as usize + 8192 + 17] {
        let walked = walk(START.plus(inside as u64), &log.bytes[inside..]);
        assert_eq!((walked.outcome.clone(), starts(&walked)), (Ok(()), vec![next]));
    }
}

#[test]
fn zeroes_after_the_last_record_are_the_end() {
    let mut log = Forge::new(START);
    log.filler(100);
    let end = Lsn(log.at().0.next_multiple_of(8));
    let walked = walk(START, &log.padded());
    assert_eq!(walked.outcome, Ok(()));
    assert_eq!(
        walked.walker.ended(),
        Some(EndOfWal {
            at: end,
            unfinished: None
        })
    );
    assert_eq!(walked.walker.last().unwrap().end, log.at());
}

#[test]
fn zeroes_at_a_page_border_are_the_end_and_a_cut_record_is_named() {
    let mut log = Forge::new(START);
    log.filler(8192 - 40 - 24 - 5);
    assert_eq!(log.at(), START.plus(8192));
    let walked = walk(START, &log.padded());
    assert_eq!(
        walked.walker.ended(),
        Some(EndOfWal {
            at: log.at(),
            unfinished: None
        })
    );

    let cut = log.filler(20_000);
    let mut bytes = log.padded();
    bytes[3 * 8192..].fill(0);
    let walked = walk(START, &bytes);
    assert_eq!((walked.outcome, walked.records.len()), (Ok(()), 1));
    assert_eq!(
        walked.walker.ended(),
        Some(EndOfWal {
            at: START.plus(3 * 8192),
            unfinished: Some(cut)
        })
    );
}

#[test]
fn bytes_that_stop_in_a_record_leave_it_unfinished() {
    let mut log = Forge::new(START);
    log.filler(100);
    let begun = log.filler(20_000);
    let walked = walk(START, &log.bytes[..9000]);
    assert_eq!(walked.walker.unfinished(), Some(begun));
    assert_eq!((walked.walker.ended(), walked.records.len()), (None, 1));
}

#[test]
fn a_switch_passes_over_the_rest_of_its_segment() {
    let mut log = Forge::new(START);
    log.filler(100);
    let switch = log.switch();
    let next = log.filler(5);
    let walked = walk(START, &log.bytes);
    assert_eq!(
        (walked.outcome.clone(), starts(&walked)[1..].to_vec()),
        (Ok(()), vec![switch, next])
    );
    assert_eq!(walked.records[1].meaning, Meaning::Switch);
    assert_eq!(next, Lsn(4 * MIB + 40));
}

#[test]
fn a_torn_record_is_dropped_when_the_server_gave_it_up() {
    let mut log = Forge::new(START);
    log.filler(100);
    let lost = log.torn(20_000);
    log.filler(50);
    let walked = walk(START, &log.bytes);
    assert_eq!(
        (walked.outcome.clone(), starts(&walked)),
        (Ok(()), log.starts.clone())
    );
    assert_eq!(walked.records[1].meaning, Meaning::Abandoned { lost });

    let mut other = log.bytes.clone();
    other[8192 + 24 + 26] ^= 1;
    let walked = walk(START, &other);
    assert!(matches!(
        walked.outcome.unwrap_err().damage,
        Damage::Checksum { .. }
    ));
}

#[test]
fn meanings_are_read() {
    let mut log = Forge::new(START);
    log.commit(701, -5);
    log.abort(702, 6);
    log.restore_point("before the drop", 7);
    log.backup_end(Lsn(0x2000028));
    log.end_of_recovery(8, 2, 1);
    log.shutdown_checkpoint(2, 1);
    let meanings: Vec<Meaning> = walk(START, &log.bytes)
        .records
        .into_iter()
        .map(|record| record.meaning)
        .collect();
    let end = |ended, time, xid| Meaning::TransactionEnd {
        ended,
        time,
        xid,
        subtransactions: vec![],
    };
    assert_eq!(
        meanings[..5],
        [
            end(Ended::Committed, -5, 701),
            end(Ended::Aborted, 6, 702),
            Meaning::RestorePoint {
                time: 7,
                name: "before the drop".into()
            },
            Meaning::BackupEnd {
                start: Lsn(0x2000028)
            },
            Meaning::EndOfRecovery {
                time: 8,
                timeline: Timeline(2),
                previous: Timeline(1)
            },
        ]
    );
    assert!(matches!(
        meanings[5],
        Meaning::Checkpoint {
            timeline: Timeline(2),
            previous: Timeline(1),
            ..
        }
    ));
}

#[test]
fn the_end_of_a_prepared_transaction_names_the_one_that_was_prepared() {
    // xinfo: database, subtransactions, relations, invalidations, two-phase, dropped statistics.
    let xinfo: u32 = 1 | 2 | 4 | 8 | 16 | 1 << 8;
    let list = |item: usize, count: u32| [&count.to_le_bytes()[..], &vec![9; item * count as usize]].concat();
    let data = |committed: bool| {
        let mut data = [&5i64.to_le_bytes()[..], &xinfo.to_le_bytes(), &[1; 8]].concat();
        data.extend(list(4, 3));
        data.extend(list(12, 2));
        data.extend(list(12, 1));
        if committed {
            data.extend(list(16, 700));
        }
        data.extend(4242u32.to_le_bytes());
        data
    };
    let mut log = Forge::new(START);
    log.record(1, 0x80 | 0x30, 9, &data(true));
    log.record(1, 0x80 | 0x40, 9, &data(false));
    let meanings: Vec<Meaning> = walk(START, &log.bytes)
        .records
        .into_iter()
        .map(|record| record.meaning)
        .collect();
    let end = |ended| Meaning::TransactionEnd {
        ended,
        time: 5,
        xid: 4242,
        subtransactions: vec![0x0909_0909; 3],
    };
    assert_eq!(
        meanings,
        [end(Ended::CommittedPrepared), end(Ended::AbortedPrepared)]
    );
}

#[test]
fn a_large_commit_in_many_pieces_still_shows_its_time() {
    let mut data = 77i64.to_le_bytes().to_vec();
    data.resize(900_000, 3);
    let mut log = Forge::new(START);
    log.record(1, 0x80, 703, &data);
    let walked = walk_in_parts(identity(), START, log.bytes.chunks(1000));
    let Meaning::TransactionEnd {
        ended,
        time,
        xid,
        subtransactions,
    } = &walked.records[0].meaning
    else {
        panic!("{:?}", walked.records[0].meaning)
    };
    assert_eq!((*ended, *time, *xid), (Ended::Committed, 77, 703));
    assert!(
        (200..256).contains(&subtransactions.len()),
        "what was kept of the list"
    );
    assert!(walked.walker.kept.capacity() <= 4096);
}

#[test]
fn a_page_may_carry_the_ancestor_that_began_it() {
    let switch = START.plus(8192 + 200);
    let ancestor = Ancestor {
        timeline: Timeline(1),
        until: switch,
        reason: String::new(),
    };
    let history = History::compose(Timeline(2), &[ancestor]).unwrap();
    let mut log = Forge::new(START);
    log.filler(8000);
    log.filler(300);
    log.page_timeline = Timeline(2);
    log.filler(9000);
    let identity = WalIdentity {
        ancestry: Ancestry::of(&history),
        ..identity()
    };
    let walked = walk_in_parts(identity.clone(), START, [&log.bytes[..]]);
    assert_eq!((walked.outcome, walked.records.len()), (Ok(()), 3));

    log.page_timeline = Timeline(1);
    log.filler(9000);
    let walked = walk_in_parts(identity, START, [&log.bytes[..]]);
    assert_eq!(
        walked.outcome.unwrap_err().to_string(),
        "WAL at 0/306000: page is of timeline 1, which does not hold this position"
    );
}

#[test]
fn each_kind_of_damage_is_named() {
    let mut log = Forge::new(START);
    log.filler(100);
    log.filler(20_000);
    log.filler(30);
    let damaged = |place: usize, value: u8| {
        let mut bytes = log.bytes.clone();
        bytes[place] = value;
        walk(START, &bytes).outcome.unwrap_err().to_string()
    };
    assert_eq!(
        damaged(0, 0x13),
        "WAL at 0/300000: page magic D113, expected D110"
    );
    assert_eq!(
        damaged(2, 0),
        "WAL at 0/300000: page flags 0000 do not belong here"
    );
    assert_eq!(
        damaged(8192 + 2, 2),
        "WAL at 0/302000: page flags 0002 do not belong here"
    );
    assert_eq!(
        damaged(4, 2),
        "WAL at 0/300000: page is of timeline 2, which does not hold this position"
    );
    assert_eq!(
        damaged(10, 0x10),
        "WAL at 0/300000: page says it belongs at 0/100000"
    );
    assert_eq!(
        damaged(24, 0),
        "WAL at 0/300000: segment is of system 7000000000000000000"
    );
    assert_eq!(
        damaged(34, 0),
        "WAL at 0/300000: segment says its size is 0 bytes"
    );
    assert_eq!(
        damaged(38, 1),
        "WAL at 0/300000: segment says its pages have 73728 bytes"
    );
    assert_eq!(damaged(40, 3), "WAL at 0/300028: record length 3");
    assert_eq!(
        damaged(40 + 24, 0),
        "WAL at 0/300028: record checksum ABA8FC16, computed 07FA207C"
    );
    assert_eq!(
        damaged(8192 + 16, 0),
        "WAL at 0/302000: page continues a record by 11776 bytes, expected 12005"
    );
    assert_eq!(
        damaged(8192 + 2, 0),
        "WAL at 0/302000: page continues a record by 12005 bytes, expected 0"
    );
    assert_eq!(
        damaged(168 + 8, 0),
        "WAL at 0/3000A8: record names 0/300000 as its predecessor, expected 0/300028"
    );
}

#[test]
fn damage_stops_the_walker_for_good() {
    let mut log = Forge::new(START);
    log.filler(100);
    log.bytes[70] ^= 1;
    let mut walked = walk(START, &log.bytes);
    let first = walked.outcome.unwrap_err();
    assert_eq!(
        walked
            .walker
            .feed(&[0; 8], &mut |_| panic!("no record follows damage")),
        Err(first)
    );
}

#[test]
fn a_record_beyond_the_limit_is_refused_before_its_body() {
    let mut log = Forge::new(START);
    log.filler(100);
    log.bytes[40..44].copy_from_slice(&(RECORD_BYTES_MAX + 1).to_le_bytes());
    assert_eq!(
        walk(START, &log.bytes[..64]).outcome.unwrap_err().damage,
        Damage::Length(RECORD_BYTES_MAX + 1)
    );
}

fn mixed_log() -> Forge {
    let mut log = Forge::new(START);
    log.filler(100);
    log.commit(800, 1);
    log.filler(9_000);
    log.torn(20_000);
    log.restore_point("x", 2);
    log.filler(3);
    log.filler(13);
    log
}

/// The bytes of `log` over which the server writes no checksum; the module header names them.
fn holes(log: &Forge) -> Vec<std::ops::Range<u64>> {
    let records = walk(START, &log.bytes).records;
    let mut holes: Vec<_> = records
        .iter()
        .map(|r| r.end.0..r.end.0.next_multiple_of(8))
        .collect();
    for page in (START.0..log.at().0).step_by(PAGE_BYTES as usize) {
        holes.push(page + 20..page + 24);
    }
    if let Some((record, Meaning::Abandoned { lost })) = records
        .iter()
        .map(|r| (r, &r.meaning))
        .find(|(_, m)| matches!(m, Meaning::Abandoned { .. }))
    {
        // Its length and link are still checked, but its body never is.
        holes.push(lost.0..record.start.0 - 24);
    }
    holes
}

#[test]
fn every_flipped_byte_is_detected_or_lies_in_a_named_hole() {
    let log = mixed_log();
    let whole = walk(START, &log.bytes);
    let holes = holes(&log);
    for place in 0..log.bytes.len() {
        for bit in 0..8 {
            let mut bytes = log.bytes.clone();
            bytes[place] ^= 1 << bit;
            let walked = walk(START, &bytes);
            let detected = walked.outcome.is_err() || walked.records != whole.records;
            let at = START.0 + place as u64;
            let removable_flag = at % PAGE_BYTES == 2 && bit == 2;
            let hole = removable_flag || holes.iter().any(|hole| hole.contains(&at));
            assert!(
                detected || hole,
                "bit {bit} of the byte at {} was flipped unnoticed",
                Lsn(at)
            );
            // Nothing may be read that was not written.
            assert!(walked.records.iter().all(|record| whole.records.contains(record)) || hole);
        }
    }
}

fn forged(lengths: &[usize]) -> Forge {
    let mut log = Forge::new(START);
    for (n, length) in lengths.iter().enumerate() {
        match n % 5 {
            0 => log.commit(n as u32, *length as i64),
            3 if *length < 40 => log.switch(),
            4 => log.restore_point("p", n as i64),
            _ => log.filler(*length),
        };
    }
    log
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_split_gives_the_same_records(
        lengths in prop::collection::vec(prop_oneof![0usize..60, 0usize..20_000], 1..30),
        cuts in prop::collection::vec(prop_oneof![1usize..40, 1usize..100_000], 1..60),
    ) {
        let log = forged(&lengths);
        let whole = walk(START, &log.bytes);
        prop_assert_eq!(&whole.outcome, &Ok(()));
        prop_assert_eq!(starts(&whole), log.starts.clone());
        let mut parts: Vec<&[u8]> = vec![];
        let mut rest = &log.bytes[..];
        for cut in cuts.iter().cycle() {
            let (part, after) = split_at_most(rest, *cut);
            parts.push(part);
            rest = after;
            if rest.is_empty() { break; }
        }
        let split = walk_in_parts(identity(), START, parts);
        prop_assert_eq!(split.outcome, Ok(()));
        prop_assert_eq!(split.records, whole.records);
        prop_assert_eq!(split.walker.at(), whole.walker.at());
    }

    #[test]
    fn any_bytes_are_walked_without_a_panic(
        noise in prop::collection::vec((any::<u16>(), any::<u8>()), 0..20),
        at in prop_oneof![Just(START), (0u64..3 * MIB).prop_map(Lsn)],
    ) {
        let mut log = mixed_log();
        for (place, value) in noise {
            if let Some(byte) = log.bytes.get_mut(place as usize) { *byte = value; }
        }
        let _ = walk(at, &log.bytes);
    }
}
