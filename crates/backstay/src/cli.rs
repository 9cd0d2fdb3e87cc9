//! The command line: commands, arguments and their help texts.
//!
//! Promise: only what works is here. No secret is ever the value of an argument.
//! Not here: what the commands do (commands).

use crate::arguments;
use crate::config::Overrides;
use crate::logging::LogFormat;
use crate::render::look::ColourWanted;
use crate::render::printer::{Format, Loudness};
use crate::render::progress::ProgressWanted;
use backstay_terms::{BackupId, Branch, Lsn, RetentionClass, SourceName};
use clap::{ArgAction, Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Backs up and recovers the data tier of an application.
#[derive(Debug, Parser)]
#[command(
    name = "backstay",
    version,
    max_term_width = 100,
    after_help = "Exit codes and error codes: docs/reference/exit-codes.md"
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the arguments of the process, its own name first.
    ///
    /// # Errors
    /// What clap does not understand, or was asked to show.
    pub fn read(arguments: &[OsString]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(arguments::as_clap_reads(arguments))
    }
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The configuration file [else: BACKSTAY_CONFIG, ./backstay.yaml, the user's, the system's]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The repository, instead of the one in the configuration, such as file:///srv/backups
    #[arg(short, long, global = true, value_name = "URL")]
    pub repo: Option<String>,
    /// The form of results and errors
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
    /// The same as --output json
    #[arg(long, global = true, conflicts_with = "output")]
    pub json: bool,
    /// Print results, warnings and errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log more to standard error; twice for each object
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// When to colour
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: ColourWanted,
    /// How to show what a long command does, on standard error
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub progress: ProgressWanted,
    /// Never ask, go on; what destroys needs --confirm anyway
    #[arg(long, global = true)]
    pub no_input: bool,
    /// Read and print times in UTC
    #[arg(long, global = true, conflicts_with = "local")]
    pub utc: bool,
    /// Print times in the zone of this machine; without --utc they are read in it anyway
    #[arg(long, global = true)]
    pub local: bool,
    /// The form of log lines
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub log_format: LogFormat,
}

impl Global {
    /// The form of results and errors.
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }

    /// How much is said beside the result.
    pub fn loudness(&self) -> Loudness {
        if self.quiet {
            Loudness::Quiet
        } else {
            Loudness::Normal
        }
    }

    /// What the flags say about the configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            config: self.config.clone(),
            repo: self.repo.clone(),
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a configuration, make a key and create the repository, where they are missing; then check
    Init(Init),
    /// Find out what would stop a backup or a restore, and how to fix it
    #[command(visible_alias = "doctor")]
    Check(Services),
    /// Can I recover, from when, to when
    Status(Status),
    /// List the backups
    List(Services),
    /// Show one backup or one run in full
    Show(Show),
    /// Print the ranges of time that can be recovered, and the gaps between them
    Window(Services),
    /// Take a full backup now
    Backup(Backup),
    /// Follow a service's log and store it within seconds, until stopped by a signal
    Stream(Stream),
    /// Recover a service to a point in time, into a new directory
    Restore(Restore),
    /// Read stored objects back and name what is not as it was written
    Verify(Verify),
    /// Remove what its promise no longer covers
    Expire(Expire),
    /// Look at the stored log, settle it, or fetch a file of it
    #[command(subcommand)]
    Wal(WalCommand),
    /// Look at the histories of a service's log, or say which one counts
    #[command(subcommand)]
    Lineage(LineageCommand),
    /// Show or drop the replication slot that keeps WAL at the server for us
    #[command(subcommand)]
    Slot(SlotCommand),
    /// Make, show, prove and rotate keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print the content of one sealed object of the repository
    Decrypt(Decrypt),
    /// Show the configuration in force, or check it
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Back up, break and recover a throw-away database on this machine
    Demo(Demo),
    /// Print the version and what it supports
    Version,
}

/// About the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting in force
    Show(ConfigShow),
    /// Check the file, the key files and the connection strings, without connecting
    Validate,
}

/// Arguments of `config show`.
#[derive(Args, Debug)]
pub struct ConfigShow {
    /// Also print where each value came from
    #[arg(long)]
    pub origin: bool,
}

/// About keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a new raw key in a file that only its owner can read
    New(KeyNew),
    /// Print the configured keys by their ids, never the keys
    Show,
    /// Open every envelope with every configured key, and with age identities
    Check(KeyCheck),
    /// Give every configured key a wrap in every envelope, so that each of them opens everything
    Rotate(KeyRotate),
    /// Print a page to keep where the repository is not: ids, places, and how to restore
    RecoverySheet(RecoverySheet),
}

/// About the stored log.
#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// List the gaps of the stored log
    Gaps(Services),
    /// Fetch one file of the log, for restore_command: wal fetch SERVICE %f %p
    Fetch(WalFetch),
    /// Write settled ranges for what only live ranges hold; needs no server
    Settle(Services),
}

/// Arguments of `wal fetch`.
#[derive(Args, Debug)]
pub struct WalFetch {
    /// A service of the configuration
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// The file's name: %f
    #[arg(value_name = "FILE")]
    pub file: String,
    /// Where to put it: %p
    #[arg(value_name = "PATH")]
    pub destination: PathBuf,
    /// The lineage to recover along [else: the newest of the file's timeline]
    #[arg(long, value_name = "SYSTEM/TLI.LINEAGE", value_parser = lineage)]
    pub lineage: Option<Branch>,
    /// A backup whose own log counts too
    #[arg(long, value_name = "BACKUP")]
    pub base: Option<BackupId>,
    /// Where the recovery needs no more log: what begins there or later is absent, what lies before must be there
    #[arg(long, value_name = "LSN")]
    pub until: Option<Lsn>,
}

/// How deep `verify` looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DepthWanted {
    /// Everything that is named is there, with its size
    List,
    /// And tables, indexes and records open and fit each other
    #[default]
    Structure,
    /// And every byte is read and compared
    Everything,
}

/// Arguments of `verify`.
#[derive(Args, Debug)]
pub struct Verify {
    /// A service of the configuration [else: everything that is stored]
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
    /// How deep to look
    #[arg(long, value_enum, default_value_t, value_name = "DEPTH")]
    pub depth: DepthWanted,
    /// An age identity file that every wrap for it must open with; may be given more than once
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// Write no record of this run, for whoever may only read
    #[arg(long)]
    pub no_record: bool,
}

/// Arguments of `expire`.
#[derive(Args, Debug)]
pub struct Expire {
    /// A service of the configuration
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// The name of the service once more: yes, remove what is planned
    #[arg(long, value_name = "SERVICE")]
    pub confirm: Option<String>,
}

/// About the histories of a log.
#[derive(Debug, Subcommand)]
pub enum LineageCommand {
    /// List the histories of the log, and what has become of each
    List(Services),
    /// Say which history is the service's present one; the others stay restorable by name
    Adopt(LineageAdopt),
}

/// Arguments of `lineage adopt`.
#[derive(Args, Debug)]
pub struct LineageAdopt {
    /// A service of the configuration
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// The lineage, as `lineage list` names it
    #[arg(value_name = "SYSTEM/TLI.LINEAGE", value_parser = lineage)]
    pub lineage: Branch,
}

/// About replication slots.
#[derive(Debug, Subcommand)]
pub enum SlotCommand {
    /// Show where the slot stands and what the server keeps for it
    Show(SlotShow),
    /// Drop the slot, so that the server forgets what it keeps for us
    Drop(SlotDrop),
}

/// Arguments of `slot show`.
#[derive(Args, Debug)]
pub struct SlotShow {
    /// A service of the configuration
    #[arg(value_name = "SERVICE")]
    pub service: String,
}

/// Arguments of `slot drop`.
#[derive(Args, Debug)]
pub struct SlotDrop {
    /// A service of the configuration
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// The name of the service once more: yes, its slot
    #[arg(long, value_name = "SERVICE")]
    pub confirm: Option<String>,
}

/// Arguments of `key check`.
#[derive(Args, Debug)]
pub struct KeyCheck {
    /// An age identity file to prove; may be given more than once
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
}

/// Arguments of `key rotate`.
#[derive(Args, Debug)]
pub struct KeyRotate {
    /// Carry out the plan instead of printing it
    #[arg(long)]
    pub confirm: bool,
}

/// Arguments of `key recovery-sheet`.
#[derive(Args, Debug)]
pub struct RecoverySheet {
    /// Print the raw keys themselves too; refused on a terminal
    #[arg(long)]
    pub with_key: bool,
}

/// Arguments of `decrypt`.
#[derive(Args, Debug)]
pub struct Decrypt {
    /// The object's name in the repository
    #[arg(value_name = "OBJECT")]
    pub object: String,
    /// A file to make instead of writing to standard output
    #[arg(long, value_name = "FILE")]
    pub into: Option<PathBuf>,
}

/// Arguments of `show`.
#[derive(Args, Debug)]
pub struct Show {
    /// latest, the id of a backup, or the word run
    #[arg(value_name = "latest|BACKUP|run")]
    pub what: String,
    /// The service of the backup, or the id of the run
    #[arg(value_name = "SERVICE|ID")]
    pub which: Option<String>,
}

/// What a violated objective does to the exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnViolation {
    /// The command ends with exit 10.
    Exit,
    /// It is only told.
    Tell,
}

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct Status {
    /// Which services.
    #[command(flatten)]
    pub services: Services,
    /// End with exit 10 when an objective is violated or a service is failing
    #[arg(long)]
    pub exit_code: bool,
}

impl Status {
    /// What a violated objective, or a failing service, does to the exit.
    pub fn on_violation(&self) -> OnViolation {
        if self.exit_code {
            OnViolation::Exit
        } else {
            OnViolation::Tell
        }
    }
}

/// Arguments of `key new`.
#[derive(Args, Debug)]
pub struct KeyNew {
    /// The file to make; it must not exist
    #[arg(value_name = "FILE", default_value = "./backstay.key")]
    pub file: PathBuf,
}

/// Arguments of `init`.
#[derive(Args, Debug)]
pub struct Init {
    /// The name of the first service in a new configuration
    #[arg(value_name = "SERVICE", default_value = Init::SERVICE)]
    pub service: SourceName,
    /// How to reach its server
    #[arg(long, value_name = "CONNECTION", default_value = Init::CONNECTION)]
    pub postgresql: String,
}

impl Init {
    /// The service of a new configuration for which no name was given.
    pub const SERVICE: &str = "main";
    /// Its connection string.
    pub const CONNECTION: &str = "dbname=postgres";
}

/// One service, or all of the configuration.
#[derive(Args, Debug)]
pub struct Services {
    /// A service of the configuration [else: all]
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
}

/// Arguments of `backup`.
#[derive(Args, Debug)]
pub struct Backup {
    /// A service of the configuration
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// How long to keep it: 35d, 1y, 3y or 7y [else: by its rank, as retention in the configuration says]
    #[arg(long, value_name = "CLASS")]
    pub keep: Option<RetentionClass>,
    /// Let the server take its usual time for the checkpoint instead of making one at once
    #[arg(long)]
    pub spread: bool,
    /// Read at most this many kB per second from the server
    #[arg(long, value_name = "KB", value_parser = clap::value_parser!(u32).range(32..=1_048_576))]
    pub rate_max: Option<u32>,
}

/// Arguments of `stream`.
#[derive(Args, Debug)]
pub struct Stream {
    /// A service of the configuration
    #[arg(value_name = "SERVICE")]
    pub service: String,
}

/// What happens when a restored server has reached its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Action {
    /// It stays read-only
    #[default]
    Pause,
    /// It becomes a primary on a new timeline
    Promote,
    /// It shuts down
    Shutdown,
}

/// How a restored server gets the log that it replays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogDelivery {
    /// Placed if there is room, else fetched
    #[default]
    Auto,
    /// Placed in pg_wal and checked before the server starts; it needs nothing of Backstay then
    Place,
    /// Fetched by the server while it recovers, with `backstay wal fetch`
    Fetch,
}

/// Arguments of `restore`.
#[derive(Args, Debug)]
pub struct Restore {
    /// A service of the configuration
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// The point: latest, immediate, a time, lsn:X, xid:N or name:S
    #[arg(long, value_name = "POINT", default_value = "latest")]
    pub to: String,
    /// The directory to restore into; it must be empty or absent
    #[arg(long, value_name = "DIR", required_unless_present = "plan")]
    pub into: Option<PathBuf>,
    /// Only print the plan
    #[arg(long)]
    pub plan: bool,
    /// Do not ask on a terminal whether to proceed
    #[arg(long)]
    pub confirm: bool,
    /// Start from this backup instead of the one that the planner chooses
    #[arg(long, value_name = "BACKUP")]
    pub base: Option<BackupId>,
    /// Recover along this lineage instead of the present one; see: lineage list
    #[arg(long, value_name = "SYSTEM/TLI.LINEAGE", value_parser = lineage)]
    pub lineage: Option<Branch>,
    /// What happens at the target
    #[arg(long, value_enum, default_value_t, value_name = "ACTION")]
    pub action: Action,
    /// How the server gets its log
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub wal: LogDelivery,
    /// Start the server, wait for the target and prove what is there
    #[arg(long)]
    pub start: bool,
    /// The port of the started server
    #[arg(long, value_name = "PORT", default_value_t = 5433, requires = "start", value_parser = port)]
    pub port: u16,
    /// The directory of the server's programs, of the base's major version [else: the usual places are searched]
    #[arg(long, value_name = "DIR", requires = "start")]
    pub bindir: Option<PathBuf>,
    /// The role that asks the started server what it holds [else: the one that initdb made, as the backup recorded it]
    #[arg(long, value_name = "ROLE", requires = "start")]
    pub superuser: Option<String>,
    /// How long the recovery may take before it counts as failed
    #[arg(long, value_name = "DURATION", default_value = "4h", requires = "start", value_parser = time_to_recover)]
    pub wait: Duration,
}

/// Arguments of `demo`.
#[derive(Args, Debug)]
pub struct Demo {
    /// Leave everything in place to look at; the restored server goes on running
    #[arg(long)]
    pub keep: bool,
}

fn lineage(text: &str) -> Result<Branch, String> {
    let refused = |_| "it is not the name of a lineage; see: backstay lineage list".to_owned();
    text.parse().map_err(refused)
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| "a server listens on a port from 1 to 65535; 0 and other words name none".to_owned())
}

fn time_to_recover(text: &str) -> Result<Duration, String> {
    match crate::units::duration(text) {
        Ok(Duration::ZERO) => Err("no server recovers in no time: give it a while, such as 4h".to_owned()),
        answer => answer.map_err(|error| error.to_string()),
    }
}
