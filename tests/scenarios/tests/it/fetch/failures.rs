//! Everything that can go wrong with a fetch: none of it is called absent or delivered.
//!
//! Not here: what is delivered and what is absent (fetch).

use super::*;

/// Every failure: what is wrong, and the fetch that meets it.
async fn failures(shelf: &Shelf) -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    let files = [segment(2, 3), segment(2, 5), "00000003.history".to_owned()];
    for kind in FaultKind::ALL {
        for operation in [Operation::List, Operation::Get] {
            for file in &files {
                let mut case = Case::new(shelf, file);
                case.faults.push((When::Every(operation), Fault::Refuse(kind)));
                cases.push((format!("{operation:?} {kind:?} {file}"), case));
            }
        }
    }
    let bodies = [
        Fault::TruncatedBody,
        Fault::ExtendedBody,
        Fault::BitFlip(999),
        Fault::NotFoundYet,
        Fault::OldVersion,
        Fault::TimeoutAfterEffect,
    ];
    for fault in bodies {
        for file in &files {
            let mut case = Case::new(shelf, file);
            case.faults.push((When::Every(Operation::Get), fault));
            cases.push((format!("{fault:?} {file}"), case));
        }
    }
    for file in &files {
        let mut case = Case::new(shelf, file);
        case.faults
            .push((When::Every(Operation::List), Fault::LoopingList));
        cases.push((format!("a listing that loops {file}"), case));
    }
    cases.extend(refused_names(shelf));
    cases.extend(holes(shelf).await);
    cases.extend(damage(shelf).await);
    cases.extend(wrong_places(shelf).await);
    cases
}

fn refused_names(shelf: &Shelf) -> Vec<(String, Case)> {
    let names = [
        "",
        "000000020000000000000003.partial",
        "000000020000000000000003.00000028.backup",
        "00000002000000000000000a",
        "00000002000000000000FFFFF",
        "000000000000000000000003",
        "000000020000000000001003",
        "00000000.history",
        "0000000a.history",
        "2.history",
        ".history",
        "RECOVERYXLOG",
        "../000000020000000000000003",
        "%f",
    ];
    let case = |name: &str| (format!("the name {name:?}"), Case::new(shelf, name));
    names.into_iter().map(case).collect()
}

async fn holes(shelf: &Shelf) -> Vec<(String, Case)> {
    let mut cases = vec![
        ("before everything".to_owned(), Case::new(shelf, &segment(1, 0))),
        (
            "before everything on timeline 2".to_owned(),
            Case::new(shelf, &segment(2, 0)),
        ),
    ];
    let without = |range: [u64; 2]| format!("{:016x}-{:016x}", range[0], range[1]);
    let table = [
        ("the switch segment lacks its end", [FORK, 4 * MIB], segment(2, 3)),
        (
            "the switch segment lacks its ancestor's part",
            [3 * MIB, 3 * MIB + 2 * QUARTER],
            segment(2, 3),
        ),
        (
            "a segment is missing in the middle",
            [2 * MIB, 3 * MIB],
            segment(1, 2),
        ),
        (
            "and asked for on the timeline after",
            [2 * MIB, 3 * MIB],
            segment(2, 2),
        ),
    ];
    for (what, range, file) in table {
        let case = Case::new(shelf, &file);
        case.shelf.remove(&without(range)).await;
        cases.push((what.to_owned(), case));
    }
    // Marks and attachments tell that the log went on.
    for file in [segment(2, 5), segment(2, 4)] {
        let case = Case::new(shelf, &file);
        case.shelf.mark(new(), 6 * MIB).await;
        cases.push((format!("a mark beyond the end {file}"), case));
        let case = Case::new(shelf, &file);
        case.shelf.attach(new(), 6 * MIB, None, None).await;
        cases.push((format!("an attachment beyond the end {file}"), case));
    }
    // Without a lineage by name another lineage of the same timeline counts.
    for file in [segment(2, 5), segment(2, 4)] {
        let case = Case::new(shelf, &file);
        let rival = branch(2, 1);
        case.shelf
            .log(rival, &[5 * MIB, 6 * MIB], 0, &[Written::Live])
            .await;
        case.shelf.attach(rival, 5 * MIB, None, None).await;
        case.shelf.clock.advance(std::time::Duration::from_secs(1));
        let parent = Parent {
            branch: old(),
            fork: Position(FORK),
        };
        case.shelf
            .attach(new(), 3 * MIB, Some(parent), Some(HISTORY))
            .await;
        cases.push((format!("a rival that goes on {file}"), case));
    }
    cases
}

async fn damage(shelf: &Shelf) -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    let parts = [
        ("/settled/orders/0000000000000007/00000002", segment(2, 3)),
        ("/lineage/", segment(2, 3)),
        ("/lineage/", segment(2, 5)),
        ("/history/", "00000002.history".to_owned()),
    ];
    for (part, file) in parts {
        for (what, change) in [("cut", 0), ("flipped", 1), ("emptied", 2)] {
            let case = Case::new(shelf, &file);
            for key in case.shelf.names(part) {
                case.shelf.change(&key, |body| match change {
                    0 => body.truncate(body.len() - 1),
                    1 => *body.last_mut().unwrap() ^= 1,
                    _ => body.clear(),
                });
            }
            cases.push((format!("{part} {what} {file}"), case));
        }
    }
    let case = Case::new(shelf, "00000002.history");
    case.shelf.remove("/history/").await;
    cases.push(("the history file of a known timeline is gone".to_owned(), case));
    let case = Case::new(shelf, &segment(2, 3));
    case.shelf.remove("wal-archive/keys/").await;
    cases.push(("the keys of the log are gone".to_owned(), case));
    // Two ranges of one epoch change places.
    let case = Case::new(shelf, &segment(1, 2));
    let names = case.shelf.names("/settled/orders/0000000000000007/00000001");
    let body = |key: &Key| case.shelf.memory.snapshot().get(key).unwrap().clone();
    let (first, second) = (body(&names[0]), body(&names[1]));
    case.shelf.memory.overwrite(&names[0], second);
    case.shelf.memory.overwrite(&names[1], first);
    cases.push(("two ranges changed places".to_owned(), case));
    for stray in ["live", "settled", "held"] {
        let case = Case::new(shelf, &segment(2, 5));
        let name =
            format!("wal-archive/{stray}/orders/{SYSTEM:016x}/00000002.00000002/0000000000500000-later");
        case.shelf
            .memory
            .overwrite(&Key::new(name).unwrap(), Bytes::from_static(b"?"));
        cases.push((format!("a name that nobody can read: {stray}"), case));
    }
    let case = Case::new(shelf, "00000003.history");
    let name = format!("wal-archive/history/orders/{SYSTEM:016x}/x");
    case.shelf
        .memory
        .overwrite(&Key::new(name).unwrap(), Bytes::from_static(b"?"));
    cases.push(("a history that nobody can read".to_owned(), case));
    cases
}

async fn wrong_places(shelf: &Shelf) -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    for file in [segment(2, 3), segment(2, 5), "00000003.history".to_owned()] {
        let strange = "other".parse().unwrap();
        let case = Case {
            service: strange,
            ..Case::new(shelf, &file)
        };
        cases.push((format!("a service of which nothing is stored {file}"), case));
        let case = Case {
            lineage: Some(branch(2, 99)),
            ..Case::new(shelf, &file)
        };
        cases.push((format!("an unknown lineage {file}"), case));
        let case = Case {
            key: key(8),
            ..Case::new(shelf, &file)
        };
        cases.push((format!("another key {file}"), case));
    }
    for (file, lineage) in [
        (segment(1, 3), new()),
        (segment(1, 4), new()),
        (segment(2, 4), old()),
    ] {
        let case = Case {
            lineage: Some(lineage),
            ..Case::new(shelf, &file)
        };
        cases.push((format!("{file} along {lineage}"), case));
    }
    // A timeline that only a history file knows.
    let case = Case::new(shelf, &segment(3, 5));
    let repository = case.shelf.open().await;
    let log = backstay_repository::LogStore::new(&repository, EngineKind::Postgres, &name());
    log.put_history(SYSTEM, 3, b"1\t0/1\tx\n").await.unwrap();
    cases.push(("a timeline of which only the history is stored".to_owned(), case));
    let mut case = Case::new(shelf, &segment(2, 3));
    case.destination = case.room.0.join("missing/RECOVERYXLOG");
    cases.push(("no directory to write to".to_owned(), case));
    let mut case = Case::new(shelf, &segment(2, 3));
    case.destination = case.room.0.join("directory");
    std::fs::create_dir(&case.destination).unwrap();
    std::fs::write(case.destination.join("file"), b"x").unwrap();
    cases.push(("the destination is a directory".to_owned(), case));
    cases
}

#[tokio::test]
async fn no_failure_is_called_absent_or_delivered() {
    let shelf = shelf().await;
    let failures = failures(&shelf).await;
    assert!(failures.len() >= 30);
    for (what, case) in &failures {
        let before = case.room.files();
        let fetched = case.run().await;
        assert!(fetched.is_err(), "{what}: {fetched:?}");
        assert_eq!(case.room.files(), before, "{what} left something behind");
    }
}

#[tokio::test]
async fn one_failing_call_is_an_error_or_changes_nothing() {
    let shelf = shelf().await;
    let mut cells = 0;
    for file in [
        segment(2, 3),
        segment(2, 5),
        segment(3, 5),
        "00000003.history".to_owned(),
    ] {
        let case = Case::new(&shelf, &file);
        case.run().await.unwrap();
        let whole = case.delivered();
        for call in 1.. {
            let mut met = 0;
            for fault in [
                Fault::Refuse(FaultKind::Unreachable),
                Fault::NotFoundYet,
                Fault::TimeoutAfterEffect,
            ] {
                let mut case = Case::new(&shelf, &file);
                case.faults
                    .push((When::Call(case.opening_calls().await + call), fault));
                let (fetched, unused) = case.run_counted().await;
                if unused {
                    continue;
                }
                met += 1;
                // A key that is not there is looked for again: then it is the whole file, as without the fault.
                let is_whole = || fault == Fault::NotFoundYet && case.delivered() == whole;
                assert!(
                    fetched.is_err() || is_whole(),
                    "{file}, call {call}, {fault:?}: {fetched:?}"
                );
            }
            if met == 0 {
                break;
            }
            cells += met;
        }
    }
    assert!(cells > 60, "{cells}");
}
