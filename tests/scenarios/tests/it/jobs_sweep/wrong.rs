//! Planted bugs: the sweep must find each.
//!
//! Promise: each is right but for the one thing that its name says.

use async_trait::async_trait;
use backstay_postgres::PostgresSource;
use backstay_source::{
    Evidence, FileSink, LogReader, LogSource, LogStart, LogStep, Need, Preceding, Recovery, Rehearsal,
    Restore, Resume, SourceError, Space, StartRequest, Ticket,
};
use backstay_terms::{Durable, EntryHeader};
use std::path::PathBuf;
use std::sync::Arc;

/// Tells the server that bytes are durable when it hands them on.
#[derive(Debug)]
pub struct ConfirmsEarly(pub Arc<PostgresSource>);

#[async_trait]
impl LogSource for ConfirmsEarly {
    async fn follow(&self, resume: Resume, preceding: &Preceding) -> Result<Box<dyn LogReader>, SourceError> {
        Ok(Box::new(Early(self.0.follow(resume, preceding).await?)))
    }
}

struct Early(Box<dyn LogReader>);

#[async_trait]
impl LogReader for Early {
    fn start(&self) -> &LogStart {
        self.0.start()
    }

    async fn next(&mut self) -> Result<LogStep, SourceError> {
        let step = self.0.next().await?;
        if let LogStep::Piece(piece) = &step {
            self.0.confirm(&Durable::attest(piece.ends())).await?;
        }
        Ok(step)
    }

    async fn keep_alive(&mut self) -> Result<(), SourceError> {
        self.0.keep_alive().await
    }

    async fn confirm(&mut self, durable: &Durable) -> Result<(), SourceError> {
        self.0.confirm(durable).await
    }

    async fn finish(self: Box<Self>) -> Result<(), SourceError> {
        self.0.finish().await
    }
}

/// Gives pg_control its name as soon as it is placed.
#[derive(Debug)]
pub struct ControlFirst {
    pub inner: Arc<dyn Restore>,
    pub directory: PathBuf,
}

#[async_trait]
impl Restore for ControlFirst {
    fn inspect(&self, need: &Need, ticket: &Ticket) -> Result<(), SourceError> {
        self.inner.inspect(need, ticket)
    }

    fn inspect_start(&self, need: &Need, request: &StartRequest) -> Result<(), SourceError> {
        self.inner.inspect_start(need, request)
    }

    fn space(&self, need: &Need) -> Result<Space, SourceError> {
        self.inner.space(need)
    }

    async fn rehearse(&self, rehearsal: &Rehearsal) -> Result<(), SourceError> {
        self.inner.rehearse(rehearsal).await
    }

    fn begin(&self, ticket: &Ticket) -> Result<(), SourceError> {
        self.inner.begin(ticket)
    }

    fn place(&self, entry: &EntryHeader) -> Result<Box<dyn FileSink>, SourceError> {
        let sink = self.inner.place(entry)?;
        match entry.path.as_bytes() {
            b"global/pg_control" => Ok(Box::new(Named {
                sink,
                directory: self.directory.clone(),
            })),
            _ => Ok(sink),
        }
    }

    fn finish(&self, recovery: &Recovery) -> Result<(), SourceError> {
        self.inner.finish(recovery)
    }

    async fn start(&self, request: &StartRequest, recovery: &Recovery) -> Result<Evidence, SourceError> {
        self.inner.start(request, recovery).await
    }
}

struct Named {
    sink: Box<dyn FileSink>,
    directory: PathBuf,
}

impl FileSink for Named {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        self.sink.write(bytes)
    }

    fn close(self: Box<Self>) -> Result<(), SourceError> {
        self.sink.close()?;
        let global = self.directory.join("global");
        let named = std::fs::rename(
            global.join("pg_control.backstay-incomplete"),
            global.join("pg_control"),
        );
        named.unwrap();
        Ok(())
    }
}
