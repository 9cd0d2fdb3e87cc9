//! The command line: commands, arguments and their help texts.
//!
//! Promise: only what works is here. No secret is ever the value of an argument.
//! Not here: what the commands do (commands).

use crate::config::Overrides;
use crate::logging::LogFormat;
use crate::render::look::ColourWanted;
use crate::render::printer::{Format, Loudness};
use crate::render::progress::ProgressWanted;
use clap::{ArgAction, Args, Parser, Subcommand};
use std::path::PathBuf;

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
    /// Never ask; fail where an answer is needed
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
    /// Show the configuration in force, or check it
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make a master key, or show which keys are configured
    #[command(subcommand)]
    Key(KeyCommand),
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
    /// Make a new master key in a file that only its owner can read
    New(KeyNew),
    /// Print the configured keys by their ids, never the keys
    Show,
}

/// Arguments of `key new`.
#[derive(Args, Debug)]
pub struct KeyNew {
    /// The file to make; it must not exist
    #[arg(value_name = "FILE", default_value = "./backstay.key")]
    pub file: PathBuf,
}
