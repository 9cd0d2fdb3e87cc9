//! Where a real server's slot stands, and what is there when a stream comes back: after a restart, a gap, a slot given up.

use backstay_postgres::replication::stream::WalStream;
use backstay_source::{Preceding, Resume, SourceErrorKind};
use backstay_terms::{Lsn, Position};

use crate::stream_kit::{
    Kept, PATIENCE, SEGMENT, after, attach, confirm, flushed, kind, lsn, options, server_with, step, work,
};

#[tokio::test]
async fn a_restart_sends_the_segment_again_and_the_slot_never_falls_back() {
    let server = server_with(&[]).await;
    let mut stream = attach(&server, Some("backstay"), Resume::Fresh).await;
    work(&server, 3000).await;
    let end = flushed(&server).await;
    let mut kept = Kept::default();
    kept.read_to(&mut stream, end).await;
    confirm(&mut stream, end).await;
    let resume = after(&stream, 1, end);
    stream.finish().await.unwrap();
    let restart = "SELECT restart_lsn FROM pg_replication_slots";
    assert_eq!(lsn(&server, restart).await, end);

    let mut stream = attach(&server, Some("backstay"), resume).await;
    let begins = end.0 / SEGMENT * SEGMENT;
    assert_eq!(stream.start().from, Position(begins));
    let mut again = Kept::default();
    again.read_to(&mut stream, end).await;
    let overlap = (begins - kept.from.unwrap().0) as usize;
    assert!(
        again.bytes[..(end.0 - begins) as usize]
            == kept.bytes[overlap..(end.0 - kept.from.unwrap().0) as usize]
    );
    assert_eq!(lsn(&server, restart).await, end);
}

#[tokio::test]
async fn attaching_at_a_position_leaves_the_slot_where_it_is_until_something_is_confirmed() {
    let server = server_with(&[]).await;
    let mut stream = attach(&server, Some("backstay"), Resume::Fresh).await;
    work(&server, 3000).await;
    let confirmed = flushed(&server).await;
    Kept::default().read_to(&mut stream, confirmed).await;
    confirm(&mut stream, confirmed).await;
    let Resume::After { system, timeline, .. } = after(&stream, 1, confirmed) else {
        panic!("made so above")
    };
    stream.finish().await.unwrap();
    work(&server, 3000).await;
    let end = flushed(&server).await;
    let position = end.into();

    // The server has taken every report before the stream is finished.
    let restart = "SELECT restart_lsn FROM pg_replication_slots";
    let at = Resume::At {
        system,
        timeline,
        position,
    };
    let mut stream = attach(&server, Some("backstay"), at).await;
    assert_eq!(stream.start().from, Position(end.0 / SEGMENT * SEGMENT));
    let mut kept = Kept::default();
    kept.read_to(&mut stream, end).await;
    stream.finish().await.unwrap();
    assert_eq!(lsn(&server, restart).await, confirmed);

    let mut stream = attach(&server, Some("backstay"), at).await;
    Kept::default().read_to(&mut stream, end).await;
    confirm(&mut stream, end).await;
    stream.finish().await.unwrap();
    assert_eq!(lsn(&server, restart).await, end);

    // What is durable is reported at once: that is the difference.
    work(&server, 10).await;
    let later = flushed(&server).await;
    let resume = Resume::After {
        system,
        timeline,
        position: later.into(),
    };
    let stream = attach(&server, Some("backstay"), resume).await;
    stream.finish().await.unwrap();
    assert_eq!(lsn(&server, restart).await, later);
}

#[tokio::test]
async fn wal_that_the_server_has_removed_is_a_gap() {
    let server = server_with(&["max_wal_size = 2MB", "min_wal_size = 2MB"]).await;
    let mut stream = attach(&server, None, Resume::Fresh).await;
    let old = Lsn::from(stream.start().from).plus(100);
    let resume = after(&stream, 1, old);
    let _ = step(&mut stream).await;
    drop(stream);
    work(&server, 8000).await;
    server.sql("CHECKPOINT").await;
    work(&server, 10).await;
    server.sql("CHECKPOINT").await;
    let mut error = WalStream::attach(options(&server, None), resume, &Preceding::none()).await;
    // The server may notice only when it opens the file.
    if let Ok(stream) = &mut error {
        error = Err(tokio::time::timeout(PATIENCE, stream.next())
            .await
            .unwrap()
            .unwrap_err());
    }
    let error = error.unwrap_err();
    assert!(error.to_string().contains("has already been removed"), "{error}");
    assert_eq!(kind(error), SourceErrorKind::LogGone);
}

#[tokio::test]
async fn a_slot_that_was_given_up_is_a_gap_behind_which_it_keeps_wal_again() {
    let server = server_with(&[
        "max_slot_wal_keep_size = 1MB",
        "max_wal_size = 2MB",
        "min_wal_size = 2MB",
    ])
    .await;
    let mut stream = attach(&server, Some("backstay"), Resume::Fresh).await;
    let end = flushed(&server).await;
    Kept::default().read_to(&mut stream, end).await;
    confirm(&mut stream, end).await;
    let resume = after(&stream, 1, end);
    stream.finish().await.unwrap();
    for _ in 0..2 {
        work(&server, 8000).await;
        server.sql("CHECKPOINT").await;
    }
    let status = "SELECT wal_status FROM pg_replication_slots";
    assert_eq!(server.value(status).await, "lost");

    let mut error = WalStream::attach(options(&server, Some("backstay")), resume, &Preceding::none()).await;
    // The server may notice only when it opens the file.
    if let Ok(stream) = &mut error {
        error = Err(tokio::time::timeout(PATIENCE, stream.next())
            .await
            .unwrap()
            .unwrap_err());
    }
    assert_eq!(kind(error.unwrap_err()), SourceErrorKind::LogGone);

    let now = flushed(&server).await;
    let Resume::After { system, timeline, .. } = resume else {
        panic!("made so above")
    };
    let at = Resume::At {
        system,
        timeline,
        position: now.into(),
    };
    let mut stream = attach(&server, Some("backstay"), at).await;
    assert_eq!(stream.start().from, Position(now.0 / SEGMENT * SEGMENT));
    work(&server, 100).await;
    let end = flushed(&server).await;
    Kept::default().read_to(&mut stream, end).await;
    confirm(&mut stream, end).await;
    stream.finish().await.unwrap();
    assert_eq!(
        lsn(&server, "SELECT restart_lsn FROM pg_replication_slots").await,
        end
    );
    assert_eq!(server.value(status).await, "reserved");
}

#[tokio::test]
async fn an_attempt_that_finds_a_gap_leaves_a_new_slot_where_it_stands_so_that_all_it_keeps_is_read() {
    let server = server_with(&["max_wal_size = 2MB", "min_wal_size = 2MB"]).await;
    let mut stream = attach(&server, None, Resume::Fresh).await;
    let resume = after(&stream, 1, Lsn::from(stream.start().from).plus(100));
    let _ = step(&mut stream).await;
    drop(stream);
    for _ in 0..2 {
        work(&server, 8000).await;
        server.sql("CHECKPOINT").await;
    }
    // What a new slot keeps: all from the last checkpoint on.
    work(&server, 8000).await;
    let mut stream = WalStream::attach(options(&server, Some("backstay")), resume, &Preceding::none())
        .await
        .unwrap();
    let error = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap();
    assert_eq!(kind(error.unwrap_err()), SourceErrorKind::LogGone);
    drop(stream);
    let kept = lsn(&server, "SELECT restart_lsn FROM pg_replication_slots").await;
    let Resume::After { position, .. } = resume else {
        panic!("made so above")
    };
    assert!(kept > Lsn::from(position), "{kept}");

    let mut stream = attach(&server, Some("backstay"), Resume::Fresh).await;
    let from = stream.start().from;
    assert_eq!(from, Position(kept.0 / SEGMENT * SEGMENT));
    let end = flushed(&server).await;
    let mut read = Kept::default();
    read.read_to_without_confirming(&mut stream, end).await;
    read.assert_equals_files(&server, 1);
    // Nothing is reported before it is stored.
    let restart = "SELECT restart_lsn FROM pg_replication_slots";
    assert_eq!(lsn(&server, restart).await, kept);
    confirm(&mut stream, end).await;
    stream.finish().await.unwrap();
    assert_eq!(lsn(&server, restart).await, end);
}

#[tokio::test]
async fn a_stream_that_resumes_at_a_border_reads_the_segment_before_it_once_more_if_the_server_has_it() {
    let server = server_with(&["max_wal_size = 2MB", "min_wal_size = 2MB"]).await;
    let mut stream = attach(&server, Some("backstay"), Resume::Fresh).await;
    work(&server, 3000).await;
    let border = Lsn(flushed(&server).await.0 / SEGMENT * SEGMENT);
    let resume = after(&stream, 1, border);
    Kept::default().read_to(&mut stream, border).await;
    confirm(&mut stream, border).await;
    stream.finish().await.unwrap();
    let mut stream = attach(&server, Some("backstay"), resume).await;
    assert_eq!(stream.start().from, Position(border.0 - SEGMENT));
    let mut again = Kept::default();
    again.read_to(&mut stream, border).await;
    again.assert_equals_files(&server, 1);
    stream.finish().await.unwrap();
    // The slot keeps nothing before the border.
    for _ in 0..3 {
        work(&server, 8000).await;
        server.sql("CHECKPOINT").await;
    }
    let before = format!(
        "SELECT count(*) FROM pg_ls_waldir() WHERE name = pg_walfile_name('{}'::pg_lsn)",
        Lsn(border.0 - SEGMENT + 1)
    );
    assert_eq!(server.value(&before).await, "0");
    let stream = attach(&server, Some("backstay"), resume).await;
    assert_eq!(stream.start().from, Position(border.0));
}
