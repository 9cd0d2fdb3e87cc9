//! Streams from real servers: bytes, facts, timelines, shutdown, and each way in which a stream is refused.

use std::time::Duration;

use backstay_source::{LogReader, LogStep, Preceding, Resume, SourceError, SourceErrorKind};
use backstay_terms::{Durable, Lsn, Position};
use backstay_testkit::pg::{PgServer, Stop};

use crate::stream_kit::{
    Kept, PATIENCE, SEGMENT, after, attach, confirm, flushed, kind, lsn, options, refused, server_with, step,
    work,
};

#[tokio::test]
async fn what_is_streamed_is_what_the_server_has_in_its_files() {
    let server = server_with(&["wal_keep_size = 200MB"]).await;
    let mut stream = attach(&server, Some("backstay"), Resume::Fresh).await;
    assert_eq!(stream.start().from.0 % SEGMENT, 0);
    assert_eq!(
        (stream.start().timeline, stream.start().history.clone()),
        (1, None)
    );
    work(&server, 8000).await;
    server.sql("SELECT pg_create_restore_point('here')").await;
    server.sql("SELECT pg_switch_wal()").await;
    work(&server, 10).await;
    let end = flushed(&server).await;
    let mut kept = Kept::default();
    kept.read_to(&mut stream, end).await;
    assert!(kept.bytes.len() > 4 << 20, "{} bytes", kept.bytes.len());
    kept.assert_equals_files(&server, 1);
    let points: Vec<_> = kept
        .facts
        .points
        .iter()
        .filter_map(|point| point.name.as_deref())
        .collect();
    assert_eq!(points, ["here"]);
    assert!(kept.facts.transactions.unwrap().count >= 3);
    // Nothing was confirmed, so nothing could be marked.
    assert_eq!(kept.marks, []);
    stream.finish().await.unwrap();
}

#[tokio::test]
async fn an_idle_primary_makes_marks_once_everything_is_durable() {
    let server = server_with(&["wal_sender_timeout = 600ms"]).await;
    let mut stream = attach(&server, None, Resume::Fresh).await;
    work(&server, 10).await;
    let end = flushed(&server).await;
    Kept::default().read_to(&mut stream, end).await;
    let here = stream.received();
    confirm(&mut stream, here).await;
    let mut marks = vec![];
    while marks.len() < 3 {
        match step(&mut stream).await {
            LogStep::Mark(mark) => marks.push(mark),
            LogStep::Piece(piece) => confirm(&mut stream, piece.ends().into()).await,
            other => panic!("{other:?}"),
        }
    }
    assert!(
        marks
            .windows(2)
            .all(|pair| pair[0].position <= pair[1].position && pair[0].time < pair[1].time)
    );
    let now: i64 = server
        .value("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 946684800000000")
        .await
        .parse()
        .unwrap();
    assert!(
        marks
            .iter()
            .all(|mark| (now - mark.time).abs() < 60_000_000 && mark.position.0 >= end.0)
    );
}

#[tokio::test]
async fn a_synchronous_commit_returns_only_when_it_is_durable_with_us() {
    let server = server_with(&["synchronous_standby_names = 'backstay'"]).await;
    let mut stream = attach(&server, None, Resume::Fresh).await;
    let conninfo = server.conninfo();
    let commit = tokio::spawn(async move {
        let mut session = backstay_postgres::Connection::connect(&conninfo, backstay_postgres::Mode::Sql)
            .await
            .unwrap();
        session
            .simple_query("SET synchronous_commit = remote_apply; CREATE TABLE s (a int)")
            .await
            .unwrap();
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let mut kept = Kept::default();
    loop {
        let LogStep::Piece(piece) = step(&mut stream).await else {
            continue;
        };
        kept.add(piece);
        // The commit is here, in a record that ends at the end of what was sent, and nobody has been told.
        if kept.facts.transactions.is_some() && server.value(waits).await == "1" {
            break;
        }
    }
    assert!(!commit.is_finished());
    // One byte short releases nobody; the whole does.
    confirm(&mut stream, Lsn(kept.end().0 - 8)).await;
    assert_eq!(server.value(waits).await, "1");
    loop {
        confirm(&mut stream, kept.end()).await;
        if commit.is_finished() {
            break;
        }
        let next = tokio::time::timeout(Duration::from_millis(50), stream.next()).await;
        if let Ok(Ok(LogStep::Piece(piece))) = next {
            kept.add(piece);
        }
    }
    commit.await.unwrap();
}

#[tokio::test]
async fn a_fast_shutdown_ends_as_soon_as_the_tail_is_durable() {
    let mut server = server_with(&[]).await;
    let mut stream = attach(&server, Some("backstay"), Resume::Fresh).await;
    let mut kept = Kept::default();
    work(&server, 2000).await;
    let end = flushed(&server).await;
    kept.read_to(&mut stream, end).await;
    server.begin_stop(Stop::Fast);
    let mut wanted = 0;
    loop {
        match step(&mut stream).await {
            LogStep::Piece(piece) => kept.add(piece),
            LogStep::Mark(mark) => kept.marks.push(mark),
            LogStep::FlushWanted => {
                wanted += 1;
                // A store that needs 200 ms.
                let _ = tokio::time::timeout(Duration::from_millis(200), stream.keep_alive()).await;
                confirm(&mut stream, kept.end()).await;
            }
            LogStep::Ended => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((1..10).contains(&wanted), "asked {wanted} times");
    server.wait_stopped(Duration::from_secs(10)).await.unwrap();
    // The last thing that we hold is the shutdown checkpoint.
    let control = std::fs::read(server.data_dir().join("global/pg_control")).unwrap();
    let control = backstay_postgres::control_file::ControlFile::parse(&control).unwrap();
    assert_eq!(
        kept.facts.records.unwrap().last_start,
        Position::from(control.checkpoint)
    );
}

#[tokio::test]
async fn a_fast_shutdown_is_let_go_when_the_store_is_dead() {
    let mut server = server_with(&[]).await;
    let mut stream = attach(&server, Some("backstay"), Resume::Fresh).await;
    work(&server, 100).await;
    let end = flushed(&server).await;
    Kept::default().read_to_without_confirming(&mut stream, end).await;
    let durable = lsn(&server, "SELECT restart_lsn FROM pg_replication_slots").await;
    server.begin_stop(Stop::Fast);
    while !matches!(step(&mut stream).await, LogStep::Ended) {}
    server.wait_stopped(Duration::from_secs(15)).await.unwrap();
    server.run().await;
    assert_eq!(
        lsn(&server, "SELECT restart_lsn FROM pg_replication_slots").await,
        durable
    );
}

#[tokio::test]
async fn keeping_alive_without_reading_holds_the_connection_and_loses_nothing() {
    let server = server_with(&["wal_sender_timeout = 1s", "wal_keep_size = 200MB"]).await;
    let mut stream = attach(&server, None, Resume::Fresh).await;
    work(&server, 20_000).await;
    let end = flushed(&server).await;
    // Three times the server's patience.
    tokio::time::timeout(Duration::from_secs(3), stream.keep_alive())
        .await
        .unwrap_err();
    let mut kept = Kept::default();
    kept.read_to(&mut stream, end).await;
    kept.assert_equals_files(&server, 1);
}

#[tokio::test]
async fn a_step_that_is_dropped_while_it_waits_loses_nothing() {
    let server = server_with(&["wal_keep_size = 200MB"]).await;
    let mut stream = attach(&server, None, Resume::Fresh).await;
    work(&server, 8000).await;
    let end = flushed(&server).await;
    let mut kept = Kept::default();
    let mut dropped = 0;
    while kept.end() < end {
        let patience = Duration::from_micros(kept.bytes.len() as u64 % 97);
        match tokio::time::timeout(patience, stream.next()).await {
            Ok(Ok(LogStep::Piece(piece))) => kept.add(piece),
            Ok(other) => panic!("{other:?}"),
            Err(_) => dropped += 1,
        }
        if dropped % 7 == 3 {
            let _ = tokio::time::timeout(Duration::ZERO, stream.keep_alive()).await;
        }
    }
    kept.assert_equals_files(&server, 1);
}

#[tokio::test]
async fn a_promoted_standby_ends_its_timeline_and_goes_on_with_the_next() {
    let primary = server_with(&["wal_keep_size = 200MB"]).await;
    work(&primary, 3000).await;
    let standby = primary.start_standby().await;
    let mut stream = attach(&standby, Some("backstay"), Resume::Fresh).await;
    work(&primary, 3000).await;
    let end = flushed(&primary).await;
    let mut old = Kept::default();
    old.read_to(&mut stream, end).await;
    confirm(&mut stream, end).await;

    standby.promote().await;
    let (switch, history) = loop {
        match step(&mut stream).await {
            LogStep::Piece(piece) => old.add(piece),
            LogStep::TimelineEnd {
                switch,
                next,
                history,
            } => {
                assert_eq!(next, 2);
                break (switch, history);
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(old.end(), Lsn::from(switch));
    let file = std::fs::read(standby.data_dir().join("pg_wal/00000002.history")).unwrap();
    assert_eq!(history, file);
    let start = stream.start().clone();
    assert_eq!(
        (start.timeline, start.from.0, start.history),
        (2, switch.0 / SEGMENT * SEGMENT, Some(history))
    );
    assert_eq!(start.identity.ancestors.len(), 1);
    assert_eq!(
        (
            start.identity.ancestors[0].timeline,
            start.identity.ancestors[0].left_at
        ),
        (1, switch)
    );

    work(&standby, 3000).await;
    let end = flushed(&standby).await;
    let mut new = Kept::default();
    new.read_to(&mut stream, end).await;
    new.assert_equals_files(&standby, 2);
    let kinds: Vec<_> = new.facts.points.iter().map(|point| point.kind).collect();
    assert_eq!(kinds, [backstay_terms::LogPointKind::EndOfRecovery]);
    drop(stream);
    resume_across(&standby, &start.identity.place.system, switch.into(), end).await;
}

/// A stream that was away during the promotion finds the next timeline, also from exactly the switch point; one that
/// holds more of the old timeline than the new primary ever had is told so.
async fn resume_across(promoted: &PgServer, system: &u64, switch: Lsn, end: Lsn) {
    for position in [Lsn(switch.0 - 8), switch] {
        let resume = Resume::After {
            system: *system,
            timeline: 1,
            position: position.into(),
        };
        let mut stream = attach(promoted, None, resume).await;
        let mut kept = Kept::default();
        let found = loop {
            match step(&mut stream).await {
                LogStep::Piece(piece) => kept.add(piece),
                LogStep::TimelineEnd { switch, .. } => break switch,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(Lsn::from(found), switch);
        Kept::default().read_to(&mut stream, end).await;
    }
    let resume = Resume::After {
        system: *system,
        timeline: 1,
        position: Position(switch.0 + 8),
    };
    let error = refused(promoted, None, resume).await;
    assert_eq!(
        error.to_string(),
        format!(
            "timeline 2 left timeline 1 at {switch}, but WAL is stored up to {}",
            switch.plus(8)
        )
    );
}

#[tokio::test]
async fn each_refusal_has_its_kind() {
    let server = server_with(&[]).await;
    let stream = attach(&server, Some("backstay"), Resume::Fresh).await;
    let end = flushed(&server).await;
    let ahead = refused(&server, None, after(&stream, 1, end.plus(1 << 30))).await;
    assert_eq!(kind(ahead), SourceErrorKind::LogBehind);
    let newer = refused(&server, None, after(&stream, 2, end)).await;
    assert_eq!(kind(newer), SourceErrorKind::LogBehind);
    let other = Resume::After {
        system: 1,
        timeline: 1,
        position: Position(0),
    };
    assert_eq!(
        kind(refused(&server, None, other).await),
        SourceErrorKind::OtherSystem
    );
    let taken = refused(&server, Some("backstay"), Resume::Fresh).await;
    assert!(taken.to_string().contains("is active for PID"), "{taken}");
    assert_eq!(kind(taken), SourceErrorKind::Conflict);
}

#[tokio::test]
async fn a_server_that_dies_is_unreachable_and_worth_another_try() {
    let mut server = server_with(&[]).await;
    let mut stream = attach(&server, Some("backstay"), Resume::Fresh).await;
    server.stop(Stop::Kill).await;
    let error = loop {
        match tokio::time::timeout(PATIENCE, stream.next()).await.unwrap() {
            Ok(LogStep::Piece(_) | LogStep::Mark(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break SourceError::from(error),
        }
    };
    assert_eq!(
        (error.kind, error.retry()),
        (SourceErrorKind::Unreachable, backstay_source::Retry::Later)
    );
}

#[tokio::test]
async fn the_port_follows_a_server_through_its_adapter() {
    let server = server_with(&[]).await;
    let mut reader: Box<dyn LogReader> = backstay_postgres::replication::log_reader::follow(
        options(&server, Some("backstay")),
        Resume::Fresh,
        &Preceding::none(),
    )
    .await
    .unwrap();
    let from = reader.start().from;
    let piece = loop {
        if let LogStep::Piece(piece) = tokio::time::timeout(PATIENCE, reader.next())
            .await
            .unwrap()
            .unwrap()
        {
            break piece;
        }
    };
    assert_eq!(piece.begins, from);
    reader.confirm(&Durable::attest(piece.ends())).await.unwrap();
    reader.finish().await.unwrap();
}
