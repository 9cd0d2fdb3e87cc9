//! The ledger that restored copies are compared with.
//!
//! Promise: what a target demands is told from the commit records as `pg_waldump` prints them, without the planner.
//! Not here: planning and restoring (targets).

use backstay_engine::plan::RestorePlan;
use backstay_source::RecoveryStop;
use backstay_terms::{Lsn, RecoveryTarget};
use backstay_testkit::pg::{PgServer, run_to_end};

/// A committed row of the ledger.
#[derive(Clone, Debug)]
pub struct Committed {
    pub n: u32,
    pub xid: u32,
    /// Where its commit record starts.
    pub commit: Lsn,
    /// When, in microseconds since 2000-01-01 00:00:00 UTC.
    pub time: i64,
}

pub const ROWS: u32 = 300;

/// One transaction a row, and a restore point after every fiftieth.
pub async fn write_ledger(server: &PgServer, from: u32, to: u32) {
    let mut sql = String::new();
    for n in from..to {
        sql.push_str(&format!("INSERT INTO ledger VALUES ({n});"));
        if n % 50 == 0 {
            sql.push_str(&format!("SELECT pg_create_restore_point('point-{n}');"));
        }
    }
    // One transaction a statement: autocommit holds only for statements sent one by one.
    for statement in sql.split_inclusive(';') {
        server.sql(statement).await;
    }
}

/// Commit records as the server's own tool prints them.
fn commits(server: &PgServer, until: Lsn) -> Vec<(u32, Lsn)> {
    let wal = server.data_dir().join("pg_wal");
    let mut dump = server.tool("pg_waldump");
    dump.arg("-p")
        .arg(&wal)
        .arg("-r")
        .arg("Transaction")
        .arg("-s")
        .arg("0/1000028")
        .arg("-e")
        .arg(until.to_string());
    let text = run_to_end(&mut dump);
    let field = |line: &str, name: &str| -> Option<String> {
        let rest = line.split(name).nth(1)?;
        Some(rest.trim_start().split([',', ' ']).next()?.to_owned())
    };
    let commit = |line: &str| {
        let xid = field(line, "tx:")?.parse().ok()?;
        line.contains("COMMIT")
            .then_some((xid, field(line, "lsn:")?.parse().ok()?))
    };
    text.lines().filter_map(commit).collect()
}

/// Reads it back, with the commit record of each transaction.
pub async fn ledger(server: &PgServer, until: Lsn) -> Vec<Committed> {
    let micros = "(extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint - 946684800000000";
    let sets = server
        .sql(&format!("SELECT n, xmin::text, {micros} FROM ledger ORDER BY n"))
        .await;
    let commits = commits(server, until);
    let row = |row: &Vec<Option<String>>| {
        let number = |at: usize| row[at].clone().unwrap();
        let xid: u32 = number(1).parse().unwrap();
        let commit = commits
            .iter()
            .find(|(known, _)| *known == xid)
            .map(|(_, lsn)| *lsn);
        let commit = commit.unwrap_or_else(|| panic!("no commit record of {xid}"));
        Committed {
            n: number(0).parse().unwrap(),
            xid,
            commit,
            time: number(2).parse().unwrap(),
        }
    };
    sets[0].rows.iter().map(row).collect()
}

/// The rows that a copy must hold when it stops as planned.
pub fn expected(ledger: &[Committed], plan: &RestorePlan) -> Vec<u32> {
    let kept = |row: &&Committed| match plan.stop {
        RecoveryStop::Consistent => row.commit < Lsn::from(plan.log.stop),
        RecoveryStop::After(at) => row.commit <= Lsn::from(at),
        RecoveryStop::Before(at) => row.commit < Lsn::from(at),
    };
    ledger.iter().filter(kept).map(|row| row.n).collect()
}

/// What the target itself demands, independent of the plan.
pub fn demanded(ledger: &[Committed], target: &RecoveryTarget) -> Option<Vec<u32>> {
    let rows = |kept: &dyn Fn(&Committed) -> bool| {
        Some(ledger.iter().filter(|row| kept(row)).map(|row| row.n).collect())
    };
    match target {
        RecoveryTarget::Latest => rows(&|_| true),
        RecoveryTarget::Time(time) => {
            let first_later = ledger
                .iter()
                .filter(|row| row.time > *time)
                .map(|row| row.commit)
                .min();
            rows(&|row| first_later.is_none_or(|later| row.commit < later))
        }
        RecoveryTarget::Transaction(xid) => {
            let own = ledger.iter().find(|row| row.xid == *xid)?.commit;
            rows(&|row| row.commit <= own)
        }
        RecoveryTarget::Lsn(lsn) => {
            // The first record at or after the position is replayed too; it is a commit only if it is one of ours.
            rows(&|row| row.commit <= *lsn)
        }
        RecoveryTarget::Name(name) => {
            let n: u32 = name.strip_prefix("point-")?.parse().ok()?;
            rows(&|row| row.n <= n)
        }
        // The newest base is consistent while nobody writes, after two thirds.
        RecoveryTarget::Immediate => rows(&|row| row.n < 2 * ROWS / 3),
    }
}

/// The moments and positions between which everything can be recovered.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Where the first base stops.
    pub first: Lsn,
    /// The end of the log that was written.
    pub end: Lsn,
    /// The clock when the first base stopped, in microseconds since 2000-01-01 00:00:00 UTC.
    pub oldest: i64,
    /// The last moment that the stored log proves, likewise.
    pub newest: i64,
}

/// Where a target lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before the first base.
    Before,
    /// Where it must be reached.
    Within,
    /// After everything, or nowhere.
    After,
}

/// Where a target lies by the ledger alone.
pub fn place(ledger: &[Committed], bounds: &Bounds, target: &RecoveryTarget) -> Place {
    let by = |is_before: bool, is_after: bool| match (is_before, is_after) {
        (true, _) => Place::Before,
        (_, true) => Place::After,
        _ => Place::Within,
    };
    let by_row =
        |row: Option<&Committed>| row.map_or(Place::After, |row| by(row.commit < bounds.first, false));
    match target {
        RecoveryTarget::Latest | RecoveryTarget::Immediate => Place::Within,
        RecoveryTarget::Time(time) => by(*time < bounds.oldest, *time > bounds.newest),
        RecoveryTarget::Lsn(lsn) => by(*lsn < bounds.first, *lsn >= bounds.end),
        RecoveryTarget::Transaction(xid) => by_row(ledger.iter().find(|row| row.xid == *xid)),
        // A point is written right after the commit of its row.
        RecoveryTarget::Name(name) => by_row(
            ledger
                .iter()
                .find(|row| row.n % 50 == 0 && *name == format!("point-{}", row.n)),
        ),
    }
}
