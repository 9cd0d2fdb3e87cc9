//! A live server under the program: streams as children, and waiting for what they confirmed.

use crate::program::Place;
use backstay_clock::SystemClock;
use backstay_postgres::{Connection, Mode, PostgresDirectory, RestoreOptions};
use backstay_testkit::pg::{PgServer, parse};
use std::fs::File;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whether everything that the server wrote is confirmed by us.
pub const CONFIRMED: &str = "SELECT coalesce(bool_or(flush_lsn >= pg_current_wal_lsn()), false)::text \
                             FROM pg_stat_replication WHERE application_name LIKE 'backstay%'";

/// Waits until a query gives `wanted`.
pub async fn until(server: &PgServer, sql: &str, wanted: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.value(sql).await != wanted {
        assert!(Instant::now() < deadline, "{sql} never gave {wanted}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Streams `main`; what it logs goes to `stream.log` of the place.
pub fn start_stream(place: &Place) -> Child {
    let log = File::create(place.directory.join("stream.log")).unwrap();
    let mut command = place.command(&["stream", "main"]);
    command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// Stops it with SIGTERM; it stores what it holds.
pub fn stop_stream(mut stream: Child) {
    signal(&stream, "-TERM");
    assert_eq!(stream.wait().unwrap().code(), Some(0));
}

/// Stops the copy that a restore started in this directory of the place.
pub async fn stop_copy(place: &Place, into: &str) {
    let options = RestoreOptions::new(place.directory.join(into), Arc::new(SystemClock::new()));
    PostgresDirectory::new(options).stop().await.unwrap();
}

/// Connects to the copy that a restore started and told of in JSON.
pub async fn connect_to_copy(told: &serde_json::Value) -> Connection {
    let conninfo = parse(told["evidence"]["connect"].as_str().unwrap());
    Connection::connect(&conninfo, Mode::Sql).await.unwrap()
}

/// Sends a signal, such as `-TERM`.
pub fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill")
        .args([name, &pid])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// What the last stream logged.
pub fn stream_log(place: &Place) -> String {
    std::fs::read_to_string(place.directory.join("stream.log")).unwrap()
}

/// Points the configuration at another server.
pub fn move_service(place: &Place, from: &PgServer, to: &PgServer) {
    let config = std::fs::read_to_string(place.directory.join("backstay.yaml")).unwrap();
    let (old, new) = (from.socket_dir(), to.socket_dir());
    let moved = config.replace(&old.display().to_string(), &new.display().to_string());
    assert_ne!(config, moved);
    place.write("backstay.yaml", moved);
}
