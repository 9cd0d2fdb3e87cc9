//! From the arguments of the process to its exit.
//!
//! Promise: whatever happens, a person gets what, where and what to do, a program gets one JSON object, and the exit is
//! one of the table; `wal fetch` is under its own discipline before anything else is looked at.

use crate::cli::{Cli, Command, ConfigCommand, Global, KeyCommand, LineageCommand, SlotCommand, WalCommand};
use crate::codes::Code;
use crate::commands;
use crate::demo;
use crate::environment::{Environment, Process};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::logging;
use crate::process;
use crate::render::Report;
use crate::render::look::{ColourWanted, Look, Stream};
use crate::render::printer::{Loudness, Printer};
use crate::session::{Session, Threads};
use crate::time::Zone;
use crate::usage::{self, Said};
use crate::wal_fetch_guard::{self, Discipline};
use backstay_clock::SystemClock;
use jiff::tz::TimeZone;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A result was printed.
    Reported(Exit),
    /// A failure was printed.
    Failed(Code),
}

/// Runs the program.
pub fn main() -> ExitCode {
    process::protect_memory();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let number = match wal_fetch_guard::discipline(&arguments) {
        Discipline::WalFetch => wal_fetch_guard::run(|| run(&arguments)),
        Discipline::Common => guarded(&arguments),
    };
    ExitCode::from(number)
}

// A panic is a defect of ours; Rust's own exit for it, 101, is not in the table.
fn guarded(arguments: &[OsString]) -> u8 {
    let ending = catch_unwind(AssertUnwindSafe(|| run(arguments)));
    let ending = ending.unwrap_or_else(|_| {
        let message = "Backstay stopped itself: this is a defect";
        let help = "report it with the lines above; the repository stays readable, run again or run check";
        early_printer(arguments).failure(&Failure::new(Code::Defect, message, help));
        Ending::Failed(Code::Defect)
    });
    match ending {
        Ending::Reported(exit) => exit.number(),
        Ending::Failed(code) => code.exit().number(),
    }
}

fn run(arguments: &[OsString]) -> Ending {
    let cli = match Cli::read(arguments) {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error, arguments),
    };
    let (mut session, command) = match session(cli) {
        Ok(ready) => ready,
        Err(failure) => return failed(&mut early_printer(arguments), &failure),
    };
    let ended = runtime().and_then(|runtime| {
        let ended = runtime.block_on(execute(command, &mut session));
        match session.threads() {
            Threads::Awaited => drop(runtime),
            Threads::Left => runtime.shutdown_background(),
        }
        ended
    });
    let printed = ended.and_then(|report| {
        session.printer.report(report.as_ref())?;
        Ok(report.exit())
    });
    match printed {
        Ok(exit) => Ending::Reported(exit),
        Err(failure) => failed(&mut session.printer, &failure),
    }
}

async fn execute(command: Command, session: &mut Session) -> Result<Box<dyn Report>, Failure> {
    match command {
        Command::Init(arguments) => commands::init::init(session, &arguments).await,
        Command::Check(arguments) => commands::check::check(session, &arguments).await,
        Command::Status(arguments) => commands::status::status(session, &arguments).await,
        Command::List(arguments) => commands::list::list(session, &arguments).await,
        Command::Show(arguments) => commands::show::show(session, &arguments).await,
        Command::Window(arguments) => commands::window::window(session, &arguments).await,
        Command::Backup(arguments) => commands::backup::backup(session, &arguments).await,
        Command::Stream(arguments) => commands::stream::stream(session, &arguments).await,
        Command::Restore(arguments) => commands::restore::restore(session, &arguments).await,
        Command::Verify(arguments) => commands::verify::verify(session, &arguments).await,
        Command::Expire(arguments) => commands::expire::expire(session, &arguments).await,
        Command::Wal(command) => wal(command, session).await,
        Command::Lineage(LineageCommand::List(arguments)) => {
            commands::lineage::list(session, &arguments).await
        }
        Command::Lineage(LineageCommand::Adopt(arguments)) => {
            commands::lineage::adopt(session, &arguments).await
        }
        Command::Slot(SlotCommand::Show(arguments)) => commands::slot::show(session, &arguments).await,
        Command::Slot(SlotCommand::Drop(arguments)) => commands::slot::drop(session, &arguments).await,
        Command::Key(command) => key(command, session).await,
        Command::Decrypt(arguments) => commands::decrypt::decrypt(session, &arguments).await,
        Command::Config(ConfigCommand::Show(arguments)) => commands::config::show(session, &arguments),
        Command::Config(ConfigCommand::Validate) => commands::config::validate(session).await,
        Command::Demo(arguments) => demo::demo(session, &arguments).await,
        Command::Version => Ok(commands::version::version()),
    }
}

async fn wal(command: WalCommand, session: &mut Session) -> Result<Box<dyn Report>, Failure> {
    match command {
        WalCommand::Gaps(arguments) => commands::wal::gaps(session, &arguments).await,
        WalCommand::Fetch(arguments) => commands::wal_fetch::fetch(session, &arguments).await,
        WalCommand::Settle(arguments) => commands::wal::settle(session, &arguments).await,
    }
}

async fn key(command: KeyCommand, session: &mut Session) -> Result<Box<dyn Report>, Failure> {
    match command {
        KeyCommand::New(arguments) => commands::key::new(&arguments),
        KeyCommand::Show => commands::key::show(session).await,
        KeyCommand::Check(arguments) => commands::key::check::check(session, &arguments).await,
        KeyCommand::Rotate(arguments) => commands::key::rotate::rotate(session, &arguments).await,
        KeyCommand::RecoverySheet(arguments) => {
            commands::key::recovery_sheet::recovery_sheet(session, &arguments).await
        }
    }
}

fn failed(printer: &mut Printer, failure: &Failure) -> Ending {
    printer.failure(failure);
    Ending::Failed(failure.code)
}

fn not_understood(error: &clap::Error, arguments: &[OsString]) -> Ending {
    let mut printer = early_printer(arguments);
    match usage::said(error) {
        Said::Asked(text) => match printer.text(&text) {
            Ok(()) => Ending::Reported(Exit::Done),
            Err(failure) => failed(&mut printer, &failure),
        },
        Said::Needed(text) => {
            printer.note(text.trim_end());
            Ending::Failed(Code::Usage)
        }
        Said::Wrong(failure) => failed(&mut printer, &failure),
    }
}

/// A printer for before the arguments are understood.
fn early_printer(arguments: &[OsString]) -> Printer {
    let format = usage::wanted_format(arguments);
    let look = |stream| Look::of(stream, ColourWanted::Auto, None, TimeZone::UTC, &Process);
    Printer::standard(format, Loudness::Normal, look(stdout()), look(stderr()))
}

fn session(cli: Cli) -> Result<(Session, Command), Failure> {
    let Cli { global, command } = cli;
    let environment: Box<dyn Environment> = Box::new(Process);
    let zone = if global.local {
        Zone::local(environment.as_ref())
            .map_err(|error| Failure::from(&error))?
            .zone
    } else {
        TimeZone::UTC
    };
    let columns = comfy_table::Table::new().width();
    let look = |stream| Look::of(stream, global.color, columns, zone.clone(), environment.as_ref());
    let (out_look, err_look) = (look(stdout()), look(stderr()));
    logging::start(
        global.log_format,
        verbosity(&global, &command),
        stderr(),
        &err_look,
        environment.as_ref(),
    );
    let printer = Printer::standard(global.format(), global.loudness(), out_look, err_look);
    let clock = Arc::new(SystemClock::new());
    Ok((
        Session::new(global, printer, clock, (stdout(), stderr()), environment),
        command,
    ))
}

/// A stream runs for weeks and shows no progress: its log is what a person sees of it.
fn verbosity(global: &Global, command: &Command) -> u8 {
    let is_stream = matches!(command, Command::Stream(_)) && !global.quiet;
    global.verbose.saturating_add(u8::from(is_stream))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            let help = "check the limits on threads and open files of this user (ulimit -u, ulimit -n)";
            Failure::new(Code::Other, "the threads of this process cannot be started", help).caused_by(&error)
        })
}

fn stdout() -> Stream {
    stream(&std::io::stdout())
}

fn stderr() -> Stream {
    stream(&std::io::stderr())
}

fn stream(stream: &impl IsTerminal) -> Stream {
    if stream.is_terminal() {
        Stream::Terminal
    } else {
        Stream::Redirected
    }
}
