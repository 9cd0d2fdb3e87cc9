//! A server whose clock is set back while the log streams: a time that it passed twice names no point.
//!
//! The server's gettimeofday, from which it takes the times of commits (timestamp.c, GetCurrentTimestamp), is replaced by
//! one that adds what a file says.

use crate::stream::end_of_log;
use crate::unclear_targets::{backup, planned, positions, rows_at};
use backstay_engine::ErrorKind;
use backstay_scenarios::World;
use backstay_terms::RecoveryTarget;
use backstay_testkit::pg::{PgOptions, PgServer, binary};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <sys/time.h>

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int answer = real(now, zone);
    long seconds = 0;
    FILE *file = fopen(AHEAD, "r");
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1)
            seconds = 0;
        fclose(file);
    }
    now->tv_sec += seconds;
    return answer;
}
"#;

/// The programs of a server whose clock can be set; gone when dropped.
struct SetClock(PathBuf);

impl SetClock {
    fn new() -> SetClock {
        let place = std::env::temp_dir().join(format!("backstay-clock-{}", std::process::id()));
        std::fs::create_dir(&place).unwrap();
        let clock = SetClock(place);
        clock.set_ahead(0);
        let (source, library) = (clock.0.join("clock.c"), clock.0.join("clock.so"));
        std::fs::write(&source, SOURCE).unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-ldl", "-o"])
            .args([&library, &source])
            .arg(format!("-DAHEAD=\"{}\"", clock.ahead().display()))
            .status();
        assert!(
            built.unwrap().success(),
            "cc, which Rust links with, builds a library"
        );
        let real = binary("postgres");
        for program in std::fs::read_dir(real.parent().unwrap()).unwrap() {
            let program = program.unwrap();
            if program.file_name() != "postgres" {
                symlink(program.path(), clock.0.join(program.file_name())).unwrap();
            }
        }
        let words = format!(
            "#!/bin/sh\nLD_PRELOAD={} exec {} \"$@\"\n",
            library.display(),
            real.display()
        );
        let postgres = clock.0.join("postgres");
        std::fs::write(&postgres, words).unwrap();
        std::fs::set_permissions(&postgres, PermissionsExt::from_mode(0o755)).unwrap();
        clock
    }

    fn ahead(&self) -> PathBuf {
        self.0.join("ahead")
    }

    fn set_ahead(&self, seconds: i64) {
        // In one step: the server reads it at any time.
        let next = self.0.join("next");
        std::fs::write(&next, seconds.to_string()).unwrap();
        std::fs::rename(next, self.ahead()).unwrap();
    }

    fn programs(&self) -> &Path {
        &self.0
    }
}

impl Drop for SetClock {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Inserts a row; gives a time of the server at which it had committed.
async fn insert(server: &PgServer, n: u32) -> i64 {
    server.sql(&format!("INSERT INTO t VALUES ({n})")).await;
    let since_2000 = "extract(epoch FROM clock_timestamp() - timestamptz '2000-01-01 00:00:00+00')";
    let micros = format!("SELECT ({since_2000} * 1000000)::bigint::text");
    server.value(&micros).await.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_the_servers_clock_passed_twice_is_refused_in_live_log_and_in_settled_log() {
    let clock = SetClock::new();
    let server = PgServer::start_with(PgOptions {
        // The server ends connections by the same clock.
        conf: vec!["wal_sender_timeout = 0".to_owned()],
        programs: Some(clock.programs().to_owned()),
        ..PgOptions::default()
    })
    .await;
    let world = World::new().await;
    let running = world.stream(world.source(server.conninfo()));
    server.sql("CREATE TABLE t (n int)").await;
    backup(&server, &world, "base").await;
    let first = insert(&server, 1).await;
    clock.set_ahead(7200);
    let second = insert(&server, 2).await;
    insert(&server, 3).await;
    clock.set_ahead(0);
    let fourth = insert(&server, 4).await;
    let fifth = insert(&server, 5).await;
    assert!(first < fourth && fourth < fifth && fifth < second);
    running.until_durable(end_of_log(&server).await).await;

    let check = async |state: &str| {
        for (n, time) in [(2, second), (4, fourth), (5, fifth)] {
            let error = planned(&world, &RecoveryTarget::Time(time), None)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Ambiguous, "{state}, after {n}: {error}");
            assert!(
                error.to_string().starts_with("the server's clock stepped back: "),
                "{error}"
            );
        }
        // What lies before the step was passed once.
        let once = RecoveryTarget::Time(first);
        assert_eq!(rows_at(&server, &world, state, &once).await, "1");
    };
    check("live").await;
    running.stop().await.unwrap();
    check("settled").await;

    // The positions that it names are the last record before the step and the first one after it.
    let error = planned(&world, &RecoveryTarget::Time(fourth), None)
        .await
        .unwrap_err();
    let later = error
        .to_string()
        .split("the one at ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    let mut rows = Vec::new();
    for position in [positions(&error.advice())[0], later.parse().unwrap()] {
        rows.push(rows_at(&server, &world, "by-position", &RecoveryTarget::Lsn(position)).await);
    }
    assert_eq!(rows, ["1 2", "1 2 3 4"]);
}
