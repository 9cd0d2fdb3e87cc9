//! Names: as the format document spells them, and read back.

use super::*;
use backstay_terms::{Lineage, Suffix, TimedId};
use proptest::prelude::*;

fn id(kind: &str, chance: u64) -> TimedId {
    TimedId::new("20261123T020011Z", kind, Suffix::from_chance(chance)).unwrap()
}

fn source() -> SourceName {
    "orders-db".parse().unwrap()
}

#[test]
fn names_are_the_ones_of_the_format_document() {
    let place = BackupPlace {
        engine: EngineKind::Postgres,
        source: source(),
        class: RetentionClass::Years7,
        generation: id("full", 1),
        backup: id("full", 1),
    };
    let head = place.head().unwrap();
    let pack = place.pack("p00000").unwrap();
    let id = "20261123T020011Z-full-baaaaaaaaa";
    assert_eq!(
        head.key.as_str(),
        format!("postgres-backups/manifests/7y/orders-db/{id}/{id}")
    );
    assert_eq!(head.logical, format!("postgres/orders-db/{id}/{id}/head"));
    assert_eq!(
        pack.key.as_str(),
        format!("postgres-backups/data/7y/orders-db/{id}/{id}/p00000")
    );
    assert_eq!(BackupPlace::of_head(&head.key), Some(place.clone()));
    assert_eq!(BackupPlace::of_part(&pack.key), Some(place));
    assert_eq!(BackupPlace::of_head(&pack.key), None);
}

#[test]
fn envelopes_are_found_again_from_their_wraps() {
    let wrap = WrapId(Suffix::from_chance(77));
    let envelopes = [
        EnvelopePlace::generation(
            EngineKind::Qdrant,
            RetentionClass::Days35,
            &source(),
            &id("full", 3),
        ),
        EnvelopePlace::epoch(EngineKind::Postgres, &source(), &id("log", 4)),
        EnvelopePlace::epoch(EngineKind::Redis, &source(), &id("log", 5)),
        EnvelopePlace::facts("2026-11"),
    ];
    for envelope in envelopes {
        let key = envelope.wrap(wrap).unwrap();
        assert_eq!(envelope_of_wrap(&key), Some(envelope.clone()), "{key}");
        let prefixes = envelope_prefixes().unwrap();
        assert!(prefixes.iter().any(|prefix| key.starts_with(prefix)), "{key}");
    }
}

proptest! {
    #[test]
    fn range_names_are_read_back_and_sort_by_position(
        from in 0..u64::MAX / 2, length in 0u64..1 << 28, chance in any::<u64>(), number in any::<u32>(), later in 0u64..1 << 40,
    ) {
        let log = LogPlace { engine: EngineKind::Postgres, source: source() };
        let branch = Branch { system: 7, timeline: 3, lineage: Lineage(9) };
        let range = LogRange { from: Position(from), to: Position(from + length) };
        let name = RangeName { range, epoch: id("log", chance), number };
        let place = log.range(Level::Live, &branch, &name).unwrap();
        prop_assert_eq!(log.of_range(Level::Live, &place.key), Some((branch, name)));
        prop_assert_eq!(log.of_range(Level::Settled, &place.key), None);
        prop_assert!(log.range_start_after(Level::Live, &branch, Position(from)).unwrap() < place.key);
        let after = log.range_start_after(Level::Live, &branch, Position(from + 1 + later)).unwrap();
        prop_assert!(place.key < after);
    }
}

#[test]
fn run_records_lie_under_their_day() {
    let run_id = id("backup", 8);
    let place = run(&run_id, RunMoment::Started).unwrap();
    assert_eq!(
        place.key.as_str(),
        format!("facts/runs/2026/11/23/{run_id}.started")
    );
    assert_eq!(of_run(&place.key), Some((run_id, RunMoment::Started)));
}

#[test]
fn names_of_objects_are_told_from_names_of_folders() {
    let backup = BackupPlace {
        engine: EngineKind::Qdrant,
        source: source(),
        class: RetentionClass::Days35,
        generation: id("full", 1),
        backup: id("full", 1),
    };
    let log = LogPlace {
        engine: EngineKind::Postgres,
        source: source(),
    };
    let branch = Branch {
        system: 7,
        timeline: 3,
        lineage: Lineage(9),
    };
    let name = RangeName {
        range: LogRange {
            from: Position(1),
            to: Position(2),
        },
        epoch: id("log", 2),
        number: 0,
    };
    let wrap = WrapId(Suffix::from_chance(77));
    let epoch = EnvelopePlace::epoch(EngineKind::Redis, &source(), &id("log", 4));
    let objects = [
        Key::new(REPOSITORY).unwrap(),
        backup.head().unwrap().key,
        backup.table("t0000").unwrap().key,
        backup.pack("p00000").unwrap().key,
        log.range(Level::Held, &branch, &name).unwrap().key,
        log.index(&branch, "20261123T04", &id("log", 2)).unwrap().key,
        log.lineage(&id("lineage", 5)).unwrap().key,
        log.history(7, 3, "0badcafe").unwrap().key,
        run(&id("backup", 8), RunMoment::Finished).unwrap().key,
        epoch.wrap(wrap).unwrap(),
        EnvelopePlace::facts("2026-11").wrap(wrap).unwrap(),
        keyring("k").unwrap(),
    ];
    for object in objects {
        assert!(is_of_an_object(object.as_str()), "{object}");
        for (at, _) in object.as_str().match_indices('/') {
            let folder = &object.as_str()[..at];
            assert!(!is_of_an_object(folder), "{folder}");
        }
    }
}

#[test]
fn times_have_the_forms_that_names_need() {
    let time: Timestamp = "2026-11-03T04:05:06.789Z".parse().unwrap();
    assert_eq!(
        (moment(time), month(time), hour(time)),
        ("20261103T040506Z".into(), "2026-11".into(), "20261103T04".into())
    );
}
