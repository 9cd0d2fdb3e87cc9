//! The question that a restore asks a person, on a terminal.

use crate::program::{Place, Run};
use crate::terminal::{END_OF_INPUT, run_on_terminal};
use crate::tree::{changes, tree};
use backstay_testkit::pg::PgServer;
use std::path::Path;

const QUESTION: &str = "Proceed? [y/N]";

fn restore(place: &Place, into: &Path, more: &[&str], answer: &str) -> Run {
    let into = into.to_str().unwrap();
    let line = [
        "restore",
        "main",
        "--to",
        "immediate",
        "--into",
        into,
        "--progress",
        "none",
        "--color",
        "never",
    ];
    run_on_terminal(place, &[&line, more].concat(), QUESTION, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_on_a_terminal_asks_and_only_yes_is_yes() {
    let server = PgServer::start().await;
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 7) AS n")
        .await;
    let place = Place::new().serving(&server);
    assert_eq!(place.run("backup main").exit, 0);
    let into = server.room().path().join("copy");
    let before = tree(&place.directory);
    for answer in ["n\n", "\n", "yup\n", END_OF_INPUT] {
        let run = restore(&place, &into, &[], answer);
        assert_eq!(run.exit, 5, "{answer:?}: {}", run.out);
        let (plan, rest) = run.out.split_once(QUESTION).unwrap();
        assert!(plan.starts_with("Plan\n"), "{plan}");
        let refusal = "error[BKS-5012]: not confirmed: nothing was touched\n  help run it again and answer y, or add --confirm\n";
        assert!(squeezed(rest).ends_with(refusal), "{answer:?}: {rest}");
        assert_eq!(changes(&before, &tree(&place.directory)), Vec::<String>::new());
        assert!(!into.exists(), "{answer:?}");
    }
    let run = restore(&place, &into, &[], "y\n");
    assert_eq!(run.exit, 0, "{}", run.out);
    assert_eq!(run.out.matches(QUESTION).count(), 1, "{}", run.out);
    assert_eq!(rows_of(&into).await, "7 to 7");
}

/// Columns pushed together.
fn squeezed(text: &str) -> String {
    crate::mask::mask(text)
}

async fn rows_of(directory: &Path) -> String {
    let copy = PgServer::start_on(directory, &[]).await.unwrap();
    copy.value("SELECT count(*) || ' to ' || max(n) FROM t").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_on_a_terminal_asks_nothing_where_it_was_told_to_go_on() {
    let server = PgServer::start().await;
    let place = Place::new().serving(&server);
    assert_eq!(place.run("backup main").exit, 0);
    for flag in ["--confirm", "--no-input", "--quiet"] {
        let into = server.room().path().join(format!("copy{flag}"));
        let run = restore(&place, &into, &[flag], "n\n");
        assert_eq!(run.exit, 0, "{flag}: {}", run.out);
        assert!(!run.out.contains(QUESTION), "{flag}: {}", run.out);
        assert!(into.join("PG_VERSION").exists(), "{flag}");
    }
}
