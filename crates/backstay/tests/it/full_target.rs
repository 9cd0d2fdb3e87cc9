//! Restores whose target is full before everything is placed: the disk, a quota, a limit on the size of files.
//!
//! Promise: each says so with its own exit, how much is missing, and what to do; the same restore, run again where there is room,
//! is whole.
//! Not here: too little space that is seen beforehand (backstay-postgres).

use crate::live::{connect_to_copy, stop_copy};
use crate::program::Place;
use backstay_testkit::pg::{PgServer, free_port};
use std::fs;
use std::process::Command;

/// Stands before the C library: a write into a table below `$FULL` fails with `$ERRNO`.
const FULL: &str = r#"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>
ssize_t write(int file, const void *bytes, size_t count) {
    const char *below = getenv("FULL");
    char link[64], path[4097];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, 4096);
    if (below && length > 0) {
        path[length] = 0;
        if (!strncmp(path, below, strlen(below)) && strstr(path, "/base/")) {
            errno = atoi(getenv("ERRNO"));
            return -1;
        }
    }
    return syscall(SYS_write, file, bytes, count);
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_whose_target_is_full_in_the_middle_says_so_and_is_whole_when_it_is_run_again() {
    let server = PgServer::start().await;
    let place = Place::with_program(server.room().path().join("place")).serving(&server);
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        .await;
    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);
    let at = |name: &str| place.directory.join(name);
    fs::write(at("full.c"), FULL).unwrap();
    let built = Command::new("gcc")
        .args(["-shared", "-fPIC", "-o"])
        .args([at("full.so"), at("full.c")])
        .status();
    assert!(built.unwrap().success());

    let words = [
        "restore",
        "main",
        "--to",
        "immediate",
        "--into",
        "copy",
        "--progress",
        "none",
    ];
    for (errno, said) in [
        (28, "No space left on device"),
        (122, "quota exceeded"),
        (27, "File too large"),
    ] {
        let mut command = place.command(&words);
        command
            .env("LD_PRELOAD", at("full.so"))
            .env("FULL", at("copy"))
            .env("ERRNO", errno.to_string());
        let run = place.finish(command);
        assert_eq!(run.exit, 5, "{errno}: {}{}", run.out, run.err);
        for part in [
            "error[BKS-5003]: cannot write /DIR/copy/base/",
            said,
            "the restore needs ",
            " can be used",
            "then run the same restore again",
        ] {
            assert!(run.err.contains(part), "{errno}: {part}: {}", run.err);
        }
        assert!(!at("copy/global/pg_control").exists());
    }

    let port = free_port().to_string();
    let again = [&words[..], &["--start", "--json", "--port", &port]].concat();
    let run = place.finish(place.command(&again));
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
    let mut connection = connect_to_copy(&serde_json::from_str(&run.out).unwrap()).await;
    let sets = connection
        .simple_query("SELECT count(*), sum(n) FROM t")
        .await
        .unwrap();
    assert_eq!(
        sets[0].rows[0],
        [Some("1000".to_owned()), Some("500500".to_owned())]
    );
    stop_copy(&place, "copy").await;
}
