//! The reference documents say what the program does.

use crate::golden::assert_file;
use crate::program::Place;
use backstay::cli::Cli;
use backstay::codes::Code;
use backstay::exit::{Exit, Retry};
use backstay::wal_fetch_guard::EXITS;
use clap::CommandFactory;
use std::fs;
use std::path::{Path, PathBuf};

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/reference")
        .join(name)
}

const GENERATED: &str = "<!-- Generated from the program: BLESS=1 cargo test -p backstay documents -->";

#[test]
fn the_exit_codes_are_those_of_the_program() {
    let mut text = format!("# Exit codes and error codes\n\n{GENERATED}\n\n");
    text += "A command ends with one of these numbers. They are frozen: numbers are added, never reused. A number that \
             is not here is a failure.\n\n| Exit | Meaning | Try again |\n|---|---|---|\n";
    for exit in Exit::ALL {
        let again = match exit.retry() {
            Retry::Later => "yes, with backoff",
            Retry::Never => "",
        };
        text += &format!("| {} | {} | {again} |\n", exit.number(), exit.meaning());
    }
    text += "\n## `wal fetch`\n\nPostgreSQL takes every exit of `restore_command` from 1 to 125 for \"this segment does \
             not exist\", and ends recovery there. So `wal fetch` alone has other numbers, and has them from its first \
             instruction on.\n\n| Exit | Meaning |\n|---|---|\n";
    for (number, meaning) in EXITS {
        text += &format!("| {number} | {meaning} |\n");
    }
    text += "\n## Error codes\n\nEvery error begins with its code: `error[BKS-2005]: …`; with `--json` it is one object \
             on standard error with the members `code`, `message`, `where`, `cause`, `help`, `exit` and `retryable`. \
             The number begins with that of the exit.\n\n| Code | Exit | Meaning |\n|---|---|---|\n";
    for code in Code::ALL {
        text += &format!("| {code} | {} | {} |\n", code.exit().number(), code.meaning());
    }
    assert_file(&document("exit-codes.md"), &text);
}

#[test]
fn the_commands_are_those_of_the_program() {
    let mut root = Cli::command();
    root.build();
    let mut text = format!("# Commands\n\n{GENERATED}\n\n");
    text += "Results go to standard output, everything else to standard error. `SERVICE` is a name in the \
             [configuration](configuration.md). How a command ends: [exit codes](exit-codes.md).\n\n";
    text += "## Options of every command\n\n";
    text += &options(&root);
    for command in root
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
    {
        describe(command, &mut text);
    }
    assert_file(&document("commands.md"), &text);
}

fn describe(command: &clap::Command, text: &mut String) {
    let children: Vec<&clap::Command> = command
        .get_subcommands()
        .filter(|child| child.get_name() != "help")
        .collect();
    if !children.is_empty() {
        return children.into_iter().for_each(|child| describe(child, text));
    }
    let mut command = command.clone();
    let usage = command.render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    let name = command.get_bin_name().unwrap_or_default().to_owned();
    let about = command
        .get_long_about()
        .or(command.get_about())
        .map(ToString::to_string)
        .unwrap_or_default();
    *text += &format!("\n## `{name}`\n\n{about}.\n\n    {usage}\n");
    let aliases: Vec<String> = command
        .get_visible_aliases()
        .map(|alias| format!("`{alias}`"))
        .collect();
    if !aliases.is_empty() {
        *text += &format!("\nThe same command: {}.\n", aliases.join(", "));
    }
    let own = options(&command);
    if !own.is_empty() {
        *text += &format!("\n{own}");
    }
}

/// The arguments of a command; those of every command only for the root.
fn options(command: &clap::Command) -> String {
    let is_root = command.get_name() == "backstay";
    let shown = |argument: &&clap::Arg| {
        let name = argument.get_id().as_str();
        !["help", "version"].contains(&name) && argument.is_global_set() == is_root && !argument.is_hide_set()
    };
    let mut text = String::new();
    for argument in command.get_arguments().filter(shown) {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let short = argument.get_short();
        text += &format!(
            "| {}`{}` | {}{} |\n",
            short.map(|short| format!("`-{short}`, ")).unwrap_or_default(),
            argument.to_string().replace('|', "\\|"),
            help.replace('|', "\\|"),
            values(argument)
        );
    }
    if text.is_empty() {
        text
    } else {
        format!("| Argument | Meaning |\n|---|---|\n{text}")
    }
}

/// What an argument may be and what it is when it is not given, as `--help` puts it.
fn values(argument: &clap::Arg) -> String {
    if !argument.get_action().takes_values() {
        return String::new();
    }
    let may_be: Vec<String> = argument
        .get_possible_values()
        .iter()
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    let defaults = argument.get_default_values().iter();
    let default: Vec<String> = defaults.map(|value| format!("`{}`", value.display())).collect();
    let mut text = String::new();
    if !may_be.is_empty() {
        text += &format!(": {}", may_be.join(", "));
    }
    if !default.is_empty() {
        text += &format!(" [default: {}]", default.join(" "));
    }
    text
}

#[test]
fn every_configuration_in_the_reference_is_valid() {
    let text = fs::read_to_string(document("configuration.md")).unwrap();
    let examples: Vec<&str> = text
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(
        examples.len() >= 3,
        "the reference shows {} configurations",
        examples.len()
    );
    for example in examples {
        let place = Place::with_config(example);
        let run = place.run("config show");
        assert_eq!(run.exit, 0, "{example}\n{}", run.err);
    }
}

#[test]
fn every_setting_of_the_program_is_in_the_reference() {
    let text = fs::read_to_string(document("configuration.md")).unwrap();
    let known = backstay::config::KEYS;
    for key in known {
        assert!(
            text.contains(&format!("| `{key}`")),
            "docs/reference/configuration.md lacks a row for {key}"
        );
    }
}
