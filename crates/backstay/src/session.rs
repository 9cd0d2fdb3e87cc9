//! What every command needs: the flags, the environment, the clock, the printer and, on demand, the configuration.
//!
//! Promise: the configuration is read once, and its warnings are told once.

use crate::cli::Global;
use crate::commands::scratch::Scratch;
use crate::config::{self, Config};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::look::Stream;
use crate::render::printer::{Format, Loudness, Printer};
use crate::render::progress::{Progress, ProgressWanted};
use crate::time::{TimeError, Zone};
use backstay_clock::Clock;
use std::rc::Rc;
use std::sync::Arc;

/// One run of the program.
#[derive(Debug)]
pub struct Session {
    /// The flags of every command.
    pub global: Global,
    /// Where results and messages go.
    pub printer: Printer,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What standard output is.
    pub stdout: Stream,
    /// What standard error is.
    pub stderr: Stream,
    environment: Box<dyn Environment>,
    config: Option<Rc<Config>>,
    leftovers: Vec<Scratch>,
    threads: Threads,
}

/// What becomes of blocking threads, which cannot be interrupted, when the command has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// They are waited for.
    #[default]
    Awaited,
    /// They end with the process.
    Left,
}

impl Session {
    /// A session whose configuration is not read yet.
    pub fn new(
        global: Global,
        printer: Printer,
        clock: Arc<dyn Clock>,
        (stdout, stderr): (Stream, Stream),
        environment: Box<dyn Environment>,
    ) -> Session {
        Session {
            global,
            printer,
            clock,
            stdout,
            stderr,
            environment,
            config: None,
            leftovers: Vec::new(),
            threads: Threads::default(),
        }
    }

    /// The variables.
    pub fn environment(&self) -> &dyn Environment {
        self.environment.as_ref()
    }

    /// The configuration; read and warned about on the first call.
    pub fn config(&mut self) -> Result<Rc<Config>, Failure> {
        if let Some(config) = &self.config {
            return Ok(Rc::clone(config));
        }
        let config = Rc::new(config::load(&self.global.overrides(), self.environment.as_ref())?);
        for warning in config.warnings() {
            self.printer.warning(&warning);
        }
        self.config = Some(Rc::clone(&config));
        Ok(config)
    }

    /// Removes a directory when the session ends: after the runtime, whose blocking threads may still write there when a
    /// command has been cut short.
    pub fn remove_at_the_end(&mut self, directory: Scratch) {
        self.leftovers.push(directory);
    }

    /// Ends the process without waiting for blocking threads: one of them may wait for a store that does not answer.
    pub fn leave_threads(&mut self) {
        self.threads = Threads::Left;
    }

    /// What becomes of blocking threads.
    pub fn threads(&self) -> Threads {
        self.threads
    }

    /// The zone in which a time without an offset is read.
    pub fn reading_zone(&self) -> Result<Zone, TimeError> {
        if self.global.utc {
            Ok(Zone::utc())
        } else {
            Zone::local(self.environment.as_ref())
        }
    }

    /// Progress as the flags and the terminal want it.
    pub fn progress(&self) -> Progress {
        let wanted = match (self.global.progress, self.printer.format, self.printer.loudness) {
            (ProgressWanted::Auto, Format::Json, _) | (ProgressWanted::Auto, _, Loudness::Quiet) => {
                ProgressWanted::None
            }
            (ProgressWanted::Auto, ..) if self.stderr == Stream::Terminal => ProgressWanted::Bar,
            (ProgressWanted::Auto, ..) => ProgressWanted::Plain,
            (told, ..) => told,
        };
        Progress::new(wanted, Arc::clone(&self.clock))
    }
}
