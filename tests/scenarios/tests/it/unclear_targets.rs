//! Targets that mean several points, nothing, or less than is stored: each is refused with what to type instead, and what
//! is to be typed leads where it says.

use crate::copy;
use crate::stream::end_of_log;
use backstay_engine::plan::{Catalog, Request, RestorePlan, latest_refused, plan};
use backstay_engine::{EngineError, ErrorKind};
use backstay_postgres::Mode;
use backstay_postgres::wal::PostgresLog;
use backstay_repository::Head;
use backstay_scenarios::{Running, World};
use backstay_source::Outcome;
use backstay_terms::{BackupId, Lsn, RecoveryTarget};
use backstay_testkit::pg::PgServer;

/// A server with a table, and a repository that follows it.
async fn followed() -> (PgServer, World, Running) {
    let server = PgServer::start().await;
    let world = World::new().await;
    let running = world.stream(world.source(server.conninfo()));
    server.sql("CREATE TABLE t (n int)").await;
    (server, world, running)
}

pub async fn backup(server: &PgServer, world: &World, name: &str) -> Head {
    let scratch = server.room().dir(name);
    let source = world.source(server.conninfo());
    world.backup(source, &scratch).await.unwrap()
}

pub async fn planned(
    world: &World,
    target: &RecoveryTarget,
    base: Option<&BackupId>,
) -> Result<RestorePlan, EngineError> {
    let request = Request {
        target: target.clone(),
        base: base.cloned(),
        now: world.repository.now(),
    };
    plan(&world.catalog().await?, &request, &PostgresLog).await
}

/// The rows of `t` in a copy.
pub async fn rows_at(server: &PgServer, world: &World, name: &str, target: &RecoveryTarget) -> String {
    let into = server.room().path().join(name);
    let catalog = world.catalog().await.unwrap();
    let sql = "SELECT string_agg(n::text, ' ' ORDER BY n) FROM t";
    copy::column(world, catalog, &into, target, sql).await.remove(0)
}

/// The positions after `--to lsn:` in a text.
pub fn positions(text: &str) -> Vec<Lsn> {
    let after = text.split("--to lsn:").skip(1);
    let position = |rest: &str| rest.split([' ', ';', ',']).next().unwrap().parse().unwrap();
    after.map(position).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_point_whose_name_stands_twice_is_refused_and_each_of_the_two_can_be_named() {
    let (server, world, running) = followed().await;
    backup(&server, &world, "first").await;
    let point = |name: &str| format!("SELECT pg_create_restore_point('{name}')");
    server.sql("INSERT INTO t VALUES (1)").await;
    server.sql(&point("deploy")).await;
    server.sql("INSERT INTO t VALUES (2)").await;
    let newest = backup(&server, &world, "second").await.backup;
    server.sql("INSERT INTO t VALUES (3)").await;
    server.sql(&point("once")).await;
    server.sql(&point("deploy")).await;
    server.sql("INSERT INTO t VALUES (4)").await;
    running.until_durable(end_of_log(&server).await).await;
    running.stop().await.unwrap();

    let deploy = RecoveryTarget::Name("deploy".to_owned());
    // The second one is the only one after the newest base: there, too, nobody can tell which is meant.
    for base in [None, Some(&newest)] {
        let error = planned(&world, &deploy, base).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Ambiguous, "{error}");
        let found = positions(&error.advice());
        let [first, second] = found[..] else {
            panic!("two positions: {}", error.advice());
        };
        let what = error.to_string();
        let begins = "restore point \"deploy\" stands 2 times in the stored log of orders: at ";
        assert!(what.starts_with(&format!("{begins}{first} (20")), "{what}");
        assert!(what.contains(&format!(", at {second} (20")), "{what}");
    }
    let found = positions(&planned(&world, &deploy, None).await.unwrap_err().advice());
    let rows = rows_at(&server, &world, "at-first", &RecoveryTarget::Lsn(found[0])).await;
    assert_eq!(rows, "1");
    let rows = rows_at(&server, &world, "at-second", &RecoveryTarget::Lsn(found[1])).await;
    assert_eq!(rows, "1 2 3");
    let once = RecoveryTarget::Name("once".to_owned());
    assert_eq!(rows_at(&server, &world, "once", &once).await, "1 2 3");
}

/// A name in the log before the oldest backup cannot be reached, and may still be the one that is meant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_point_before_the_oldest_backup_counts_too() {
    let (server, world, running) = followed().await;
    running.until_durable(end_of_log(&server).await).await;
    server.sql("SELECT pg_create_restore_point('deploy')").await;
    backup(&server, &world, "first").await;
    let deploy = RecoveryTarget::Name("deploy".to_owned());
    server.sql("SELECT pg_create_restore_point('deploy')").await;
    // A restore point alone is not flushed.
    server.sql("INSERT INTO t VALUES (1)").await;
    running.until_durable(end_of_log(&server).await).await;
    running.stop().await.unwrap();
    let error = planned(&world, &deploy, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Ambiguous, "{error}");
    let found = positions(&error.advice());
    assert_eq!(found.len(), 2);
    let first = planned(&world, &RecoveryTarget::Lsn(found[0]), None).await;
    assert_eq!(first.unwrap_err().kind(), ErrorKind::BeforeWindow);
    assert!(
        planned(&world, &RecoveryTarget::Lsn(found[1]), None)
            .await
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_and_a_restore_point_before_the_oldest_backup_are_said_to_be_before_the_window() {
    let (server, world, running) = followed().await;
    running.until_durable(end_of_log(&server).await).await;
    let sets = server
        .sql("BEGIN; INSERT INTO t VALUES (1); SELECT pg_current_xact_id()::text; COMMIT")
        .await;
    let row = sets.iter().find_map(|set| set.rows.first()).unwrap();
    let xid = RecoveryTarget::Transaction(row[0].clone().unwrap().parse().unwrap());
    server.sql("SELECT pg_create_restore_point('early')").await;
    server.sql("INSERT INTO t VALUES (2)").await;
    backup(&server, &world, "first").await;
    server.sql("INSERT INTO t VALUES (3)").await;
    running.until_durable(end_of_log(&server).await).await;
    running.stop().await.unwrap();
    for target in [xid, RecoveryTarget::Name("early".to_owned())] {
        let error = planned(&world, &target, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BeforeWindow, "{error}");
        let begins = format!(
            "{target} is in the stored log before the first point of orders that can be recovered, 20"
        );
        assert!(error.to_string().starts_with(&begins), "{error}");
        let advice = error.advice();
        let nearest = advice
            .strip_prefix("the nearest point that can be recovered: --to \"")
            .unwrap();
        let nearest: jiff::Timestamp = nearest.trim_end_matches('"').parse().unwrap();
        let nearest = RecoveryTarget::Time(nearest.as_microsecond() - 946_684_800_000_000);
        assert_eq!(
            rows_at(
                &server,
                &world,
                &format!("at-{}", error.to_string().len()),
                &nearest
            )
            .await,
            "1 2"
        );
    }
    let error = planned(&world, &RecoveryTarget::Name("never".to_owned()), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AfterWindow, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_aborted_is_said_to_have_and_one_that_never_ended_is_refused() {
    let (server, world, running) = followed().await;
    backup(&server, &world, "first").await;
    let xid = |text: &str| RecoveryTarget::Transaction(text.parse().unwrap());
    let ended = |how: &str, n: u32| {
        format!("BEGIN; INSERT INTO t VALUES ({n}); SELECT pg_current_xact_id()::text; {how}")
    };
    let mut xids = Vec::new();
    for (how, n) in [("COMMIT", 1), ("ROLLBACK", 2)] {
        let sets = server.sql(&ended(how, n)).await;
        let row = sets.iter().find_map(|set| set.rows.first()).unwrap();
        xids.push(row[0].clone().unwrap());
    }
    let [committed, aborted] = &xids[..] else { panic!() };
    let mut open = server.connect(Mode::Sql).await.unwrap();
    open.simple_query("BEGIN").await.unwrap();
    open.simple_query("INSERT INTO t VALUES (3)").await.unwrap();
    let sets = open
        .simple_query("SELECT pg_current_xact_id()::text")
        .await
        .unwrap();
    let in_progress = sets[0].rows[0][0].clone().unwrap();
    server.sql("INSERT INTO t VALUES (4)").await;
    running.until_durable(end_of_log(&server).await).await;
    running.stop().await.unwrap();

    let plan = planned(&world, &xid(committed), None).await.unwrap();
    assert_eq!(plan.outcome, Some(Outcome::Committed));
    let plan = planned(&world, &xid(aborted), None).await.unwrap();
    assert_eq!(plan.outcome, Some(Outcome::Aborted));
    let rows = rows_at(&server, &world, "at-the-abort", &xid(aborted)).await;
    assert_eq!(rows, "1");
    let error = planned(&world, &xid(&in_progress), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AfterWindow);
    let begins = format!("transaction {in_progress} neither committed nor aborted in the stored log after");
    assert!(error.to_string().starts_with(&begins), "{error}");
    assert!(
        error.to_string().contains("it was in progress at its end"),
        "{error}"
    );
    assert_eq!(
        planned(&world, &RecoveryTarget::Latest, None)
            .await
            .unwrap()
            .outcome,
        None
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subtransaction_is_said_to_be_one_and_the_transaction_that_it_ends_with_is_a_target() {
    let (server, world, running) = followed().await;
    backup(&server, &world, "first").await;
    let mut session = server.connect(Mode::Sql).await.unwrap();
    let mut value = async |sql: &str| {
        let sets = session.simple_query(sql).await.unwrap();
        sets.first().and_then(|set| set.rows.first()?.first()?.clone())
    };
    let mut xids = Vec::new();
    for sql in [
        "BEGIN",
        "INSERT INTO t VALUES (1)",
        "SAVEPOINT a",
        "INSERT INTO t VALUES (2)",
        "SELECT xmin::text FROM t ORDER BY n",
        "SELECT xmin::text FROM t ORDER BY n DESC",
        "COMMIT",
        "INSERT INTO t VALUES (3)",
    ] {
        xids.extend(value(sql).await);
    }
    running.until_durable(end_of_log(&server).await).await;
    running.stop().await.unwrap();
    let [whole, part] = &xids[..] else {
        panic!("{xids:?}")
    };
    let target = |xid: &str| RecoveryTarget::Transaction(xid.parse().unwrap());
    let error = planned(&world, &target(part), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSuchThing, "{error}");
    let said = format!("transaction {part} is a subtransaction of {whole} and ends with it");
    assert_eq!(error.to_string(), said);
    assert_eq!(error.advice(), format!("choose that one: --to xid:{whole}"));
    assert_eq!(rows_at(&server, &world, "whole", &target(whole)).await, "1 2");
}

async fn refused(catalog: &Catalog, base: Option<&BackupId>, world: &World) -> EngineError {
    let request = Request {
        target: RecoveryTarget::Latest,
        base: base.cloned(),
        now: world.repository.now(),
    };
    plan(catalog, &request, &PostgresLog).await.unwrap_err()
}

/// The stream stopped, and backups went on: `latest` would lose the newest of them, or all log after the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_is_refused_in_the_same_words_everywhere_when_the_newest_backup_lies_beyond_the_log() {
    let (server, world, running) = followed().await;
    let older = backup(&server, &world, "older").await.backup;
    server.sql("INSERT INTO t VALUES (1)").await;
    running.until_durable(end_of_log(&server).await).await;
    running.stop().await.unwrap();
    let now = world.repository.now();
    assert!(
        latest_refused(&world.catalog().await.unwrap(), now)
            .await
            .unwrap()
            .is_none()
    );
    server
        .sql("INSERT INTO t VALUES (2); SELECT pg_switch_wal()")
        .await;
    server.sql("INSERT INTO t VALUES (3)").await;
    let newest = backup(&server, &world, "newest").await.backup;

    let catalog = world.catalog().await.unwrap();
    let told = latest_refused(&catalog, world.repository.now())
        .await
        .unwrap()
        .unwrap();
    let what = told.to_string();
    assert!(what.starts_with("the stored log ends at "), "{what}");
    assert!(
        what.contains(&format!(
            "and does not reach the newest backup {newest}, consistent at "
        )),
        "{what}"
    );
    for base in [None, Some(&older), Some(&newest)] {
        let error = refused(&catalog, base, &world).await;
        assert_eq!(
            (error.kind(), error.to_string()),
            (ErrorKind::InGap, what.clone()),
            "{base:?}"
        );
    }
    // Each way out that is named is one.
    let advice = told.advice();
    assert!(
        advice.starts_with("recover the backup itself: --to immediate; or "),
        "{advice}"
    );
    let end = positions(&advice)[0];
    assert_eq!(
        rows_at(&server, &world, "end", &RecoveryTarget::Lsn(end)).await,
        "1"
    );
    let itself = rows_at(&server, &world, "itself", &RecoveryTarget::Immediate).await;
    assert_eq!(itself, "1 2 3");
    let advice = refused(&catalog, Some(&older), &world).await.advice();
    let named = format!(
        "--base {newest} --to immediate; or the last point of the log: --base {older} --to lsn:{end}"
    );
    assert!(advice.contains(&named), "{advice}");
}
