//! What the tests of restores share: a base of a real server, made by `pg_basebackup` and placed through the port.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backstay_clock::SystemClock;
use backstay_postgres::{Connection, Mode, PostgresDirectory, RestoreOptions};
use backstay_source::{
    Evidence, Need, Recovery, RecoveryAction, RecoveryStop, Restore, SourceError, StartRequest, Ticket,
    WalDelivery,
};
use backstay_terms::{EntryHeader, EntryKind, EntryPath, EntryRole, Lsn, Position};
use backstay_testkit::pg::{PgServer, parse, run_to_end};

/// An entry and where its bytes are.
pub struct Piece {
    pub header: EntryHeader,
    pub file: PathBuf,
}

pub fn options(directory: &Path) -> RestoreOptions {
    RestoreOptions::new(directory, Arc::new(SystemClock::new()))
}

pub fn target(server: &PgServer, name: &str) -> PostgresDirectory {
    PostgresDirectory::new(options(&server.room().path().join(name)))
}

pub fn ticket() -> Ticket {
    Ticket {
        backup: "20261123T220000Z-full-0123456789".to_owned(),
        target: "latest".to_owned(),
    }
}

pub fn need() -> Need {
    Need {
        bytes: 1 << 20,
        version: "15.18".to_owned(),
        engine_facts: serde_json::Value::Null,
        written_by_log: vec![],
    }
}

pub fn recovery(stop: RecoveryStop, action: RecoveryAction) -> Recovery {
    Recovery {
        timeline: 1,
        stop,
        action,
        delivery: WalDelivery::Placed,
        timeline_highest: 1,
    }
}

pub fn header(role: EntryRole, path: &str, size: u64) -> EntryHeader {
    EntryHeader {
        role,
        path: EntryPath::new(path).unwrap(),
        kind: EntryKind::File,
        size,
        mode: 0o600,
        modified: 0,
    }
}

/// A base without WAL; tablespaces go below `name.<oid>`.
pub fn base(server: &PgServer, name: &str) -> Vec<Piece> {
    let into = server.room().path().join(name);
    let mut copy = server.tool("pg_basebackup");
    copy.arg("-h").arg(server.socket_dir());
    copy.args(["-p", &server.port().to_string(), "-U", "postgres"]);
    copy.args(["--no-sync", "-c", "fast", "-X", "none", "-D"])
        .arg(&into);
    run_to_end(&mut copy);
    pieces(&into, EntryRole::Data)
}

/// Everything below a directory, links left out.
pub fn pieces(root: &Path, role: EntryRole) -> Vec<Piece> {
    let mut found = Vec::new();
    walk(root, root, role, &mut found);
    found
}

fn walk(root: &Path, at: &Path, role: EntryRole, found: &mut Vec<Piece>) {
    for entry in fs::read_dir(at).unwrap() {
        let file = entry.unwrap().path();
        let facts = fs::symlink_metadata(&file).unwrap();
        let path = file.strip_prefix(root).unwrap().to_str().unwrap();
        let mut header = header(role, path, 0);
        if facts.is_symlink() {
            continue;
        } else if facts.is_dir() {
            header.kind = EntryKind::Directory;
            found.push(Piece {
                header,
                file: file.clone(),
            });
            walk(root, &file, role, found);
        } else {
            header.size = facts.len();
            found.push(Piece { header, file });
        }
    }
}

/// The WAL that the server has, up to now; segments and history files.
pub async fn wal(server: &PgServer) -> Vec<Piece> {
    server.sql("SELECT pg_switch_wal()").await;
    let mut found = pieces(&server.data_dir().join("pg_wal"), EntryRole::Wal);
    for piece in &mut found {
        if piece.header.path.as_text().unwrap().ends_with(".history") {
            piece.header.role = EntryRole::History;
        }
    }
    found.retain(|piece| {
        let path = piece.header.path.as_text().unwrap();
        piece.header.role == EntryRole::History || (path.len() == 24 && !path.contains(['/', '.']))
    });
    found
}

/// Places everything, from several threads.
pub fn place(directory: &PostgresDirectory, pieces: &[Piece]) {
    std::thread::scope(|scope| {
        for share in pieces.chunks(pieces.len().div_ceil(4).max(1)) {
            scope.spawn(move || {
                share
                    .iter()
                    .for_each(|piece| place_one(directory, piece).unwrap())
            });
        }
    });
}

pub fn place_one(directory: &PostgresDirectory, piece: &Piece) -> Result<(), SourceError> {
    let mut sink = directory.place(&piece.header)?;
    if piece.header.kind == EntryKind::File {
        let mut file = fs::File::open(&piece.file).unwrap();
        let mut buffer = vec![0; 100_000];
        loop {
            let count = file.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            sink.write(&buffer[..count])?;
        }
    }
    sink.close()
}

/// Inspects, begins, places and finishes.
pub fn restore(directory: &PostgresDirectory, pieces: &[Piece], recovery: &Recovery) {
    directory.inspect(&need(), &ticket()).unwrap();
    directory.begin(&ticket()).unwrap();
    place(directory, pieces);
    directory.finish(recovery).unwrap();
}

pub async fn start(directory: &PostgresDirectory, recovery: &Recovery) -> Result<Evidence, SourceError> {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let request = StartRequest {
        port,
        wait_max: Duration::from_secs(60),
    };
    directory.start(&request, recovery).await
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// The first value that a started copy answers with.
pub async fn ask(evidence: &Evidence, sql: &str) -> String {
    let mut connection = Connection::connect(&parse(&evidence.connect), Mode::Sql)
        .await
        .unwrap();
    let sets = connection.simple_query(sql).await.unwrap();
    sets[0].rows[0][0].clone().unwrap()
}

/// Inserts rows and gives the place where the commit record starts, and where the next record will.
pub async fn insert(server: &PgServer, count: u32) -> (Position, Position) {
    let sql = format!(
        "BEGIN; INSERT INTO t SELECT generate_series(1, {count}); SELECT pg_current_wal_insert_lsn(); COMMIT;
         SELECT pg_current_wal_insert_lsn()"
    );
    let sets = server.sql(&sql).await;
    let lsn = |set: usize| sets[set].rows[0][0].as_ref().unwrap().parse::<Lsn>().unwrap();
    (lsn(2).into(), lsn(4).into())
}
