//! How a restored server gets its log: placed where it fits, else fetched.

use async_trait::async_trait;
use backstay_clock::SystemClock;
use backstay_engine::jobs::restore::{LogWish, deliver};
use backstay_engine::plan::RestorePlan;
use backstay_postgres::{PostgresDirectory, RestoreOptions};
use backstay_scenarios::World;
use backstay_source::{
    Evidence, FileSink, Need, Recovery, Rehearsal, Restore, SourceError, Space, StartRequest, Ticket,
    WalDelivery,
};
use backstay_terms::{EntryHeader, RecoveryTarget};
use backstay_testkit::pg::PgServer;
use std::sync::Arc;

/// A real directory on a file system with this much room.
#[derive(Debug)]
struct Cramped {
    directory: PostgresDirectory,
    free: u64,
}

#[async_trait]
impl Restore for Cramped {
    fn inspect(&self, need: &Need, ticket: &Ticket) -> Result<(), SourceError> {
        self.directory.inspect(need, ticket)
    }

    fn inspect_start(&self, need: &Need, request: &StartRequest) -> Result<(), SourceError> {
        self.directory.inspect_start(need, request)
    }

    fn space(&self, need: &Need) -> Result<Space, SourceError> {
        let Space { needed, .. } = self.directory.space(need)?;
        Ok(Space {
            needed,
            free: self.free,
        })
    }

    async fn rehearse(&self, rehearsal: &Rehearsal) -> Result<(), SourceError> {
        self.directory.rehearse(rehearsal).await
    }

    fn begin(&self, ticket: &Ticket) -> Result<(), SourceError> {
        self.directory.begin(ticket)
    }

    fn place(&self, entry: &EntryHeader) -> Result<Box<dyn FileSink>, SourceError> {
        self.directory.place(entry)
    }

    fn finish(&self, recovery: &Recovery) -> Result<(), SourceError> {
        self.directory.finish(recovery)
    }

    async fn start(&self, request: &StartRequest, recovery: &Recovery) -> Result<Evidence, SourceError> {
        self.directory.start(request, recovery).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_is_placed_where_it_fits_and_fetched_where_it_does_not() {
    let server = PgServer::start().await;
    let world = World::new().await;
    let running = world.stream(world.source(server.conninfo()));
    let scratch = server.room().dir("scratch");
    world
        .backup(world.source(server.conninfo()), &scratch)
        .await
        .unwrap();
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 200000) AS n")
        .await;
    running
        .until_durable(crate::stream::end_of_log(&server).await)
        .await;
    running.stop().await.unwrap();
    let plan = world.plan(&RecoveryTarget::Latest).await.unwrap();
    let base = plan.head.totals.bytes.0;
    let all = base + plan.log_bytes();
    assert!(
        plan.log_bytes() >= 2 * plan.log.segment_size,
        "{}",
        plan.log_bytes()
    );
    let chosen = |plan: &RestorePlan, wish, free| {
        let clock = Arc::new(SystemClock::new());
        let directory = PostgresDirectory::new(RestoreOptions::new(server.room().path().join("copy"), clock));
        deliver(plan, wish, "fetch %f %p".to_owned(), &Cramped { directory, free }).unwrap()
    };
    let fetched = WalDelivery::Command("fetch %f %p".to_owned());
    // A twentieth is kept free.
    let enough = all + all / 20;
    assert_eq!(chosen(&plan, LogWish::WhereItFits, enough), WalDelivery::Placed);
    assert_eq!(chosen(&plan, LogWish::WhereItFits, enough - 1), fetched);
    assert_eq!(chosen(&plan, LogWish::Place, 0), WalDelivery::Placed);
    assert_eq!(chosen(&plan, LogWish::Fetch, u64::MAX), fetched);
    // A base's own log is part of it and never fetched.
    let immediate = world.plan(&RecoveryTarget::Immediate).await.unwrap();
    assert_eq!(chosen(&immediate, LogWish::Fetch, u64::MAX), WalDelivery::Placed);
}
