//! `wal fetch` never leaves with an exit that PostgreSQL takes for "this segment does not exist".

use crate::program::Place;

#[test]
fn no_bad_invocation_leaves_with_a_common_exit() {
    let bad = Place::with_config("version: 1\nrepo: [");
    let none = Place::new();
    let lines = [
        "wal fetch",
        "wal fetch orders-db",
        "wal fetch orders-db 000000010000000000000001",
        "wal fetch orders-db not-a-segment pg_wal/RECOVERYXLOG",
        "wal fetch --unknown orders-db 000000010000000000000001 x",
        "--unknown wal fetch orders-db 000000010000000000000001 x",
        "-c missing.yaml wal fetch orders-db 000000010000000000000001 x",
        "-c",
        "wal fetch nobody 000000010000000000000001 x",
        "wal fetch orders-db 000000010000000000000001 /no/such/directory/x",
        "--json wal fetch",
        "-o yaml wal fetch orders-db 000000010000000000000001 x",
    ];
    for place in [&bad, &none] {
        for line in lines.iter().filter(|line| line.contains("fetch")) {
            let run = place.run(line);
            assert!(
                (200..=209).contains(&run.exit),
                "{line} exits {}\n{}",
                run.exit,
                run.err
            );
            assert!(!run.err.is_empty(), "{line} says nothing");
        }
    }
}

#[test]
fn a_broken_standard_error_does_not_change_it() {
    let place = Place::new();
    let mut command = place.command(&["wal", "fetch"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stderr(writer);
    assert!((200..=209).contains(&place.finish(command).exit));
}
