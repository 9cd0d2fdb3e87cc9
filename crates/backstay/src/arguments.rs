//! The arguments as clap reads them: what a person may type and clap takes for something else.
//!
//! Promise: only the form changes, never what is asked for; what clap would understand stays as it is.
//! Not here: the arguments (cli), what is wrong with them (usage).

use crate::cli::Cli;
use clap::CommandFactory;
use std::ffi::{OsStr, OsString};

/// The same arguments, the name of the program first.
pub fn as_clap_reads(arguments: &[OsString]) -> Vec<OsString> {
    with_help(with_points(arguments))
}

/// A point such as `-5 min` made one word with its `--to`: clap takes what begins with a minus for an option.
fn with_points(arguments: &[OsString]) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::with_capacity(arguments.len());
    for argument in arguments {
        match joined.last_mut() {
            Some(to) if to == "--to" && is_length_ago(argument) => {
                to.push("=");
                to.push(argument);
            }
            _ => joined.push(argument.clone()),
        }
    }
    joined
}

fn is_length_ago(argument: &OsStr) -> bool {
    let length = argument.to_str().and_then(|text| text.trim().strip_prefix('-'));
    length.is_some_and(|length| length.trim_start().starts_with(|c: char| c.is_ascii_digit()))
}

/// `help restore --help` made `help restore`, and `help --help` made `help help`: after `help`, clap takes every word for
/// the name of a command.
fn with_help(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(at) = help_command(&arguments) else {
        return arguments;
    };
    let asked: Vec<OsString> = arguments.drain(at + 1..).collect();
    let (again, names): (Vec<_>, Vec<_>) = asked
        .into_iter()
        .partition(|word| word == "-h" || word == "--help");
    let is_about_itself = names.is_empty() && !again.is_empty();
    arguments.extend(names);
    if is_about_itself {
        arguments.push("help".into());
    }
    arguments
}

/// Where the command `help` stands, if that is the command.
fn help_command(arguments: &[OsString]) -> Option<usize> {
    let root = Cli::command();
    let takes_value = |word: &str| {
        let of = |option: &&clap::Arg| {
            let short = option.get_short().map(|short| format!("-{short}"));
            let long = option.get_long().map(|long| format!("--{long}"));
            [short, long].contains(&Some(word.to_owned()))
        };
        root.get_arguments()
            .find(of)
            .is_some_and(|option| option.get_action().takes_values())
    };
    let mut command = &root;
    let mut words = arguments.iter().enumerate().skip(1);
    while let Some((at, word)) = words.next() {
        let word = word.to_str()?;
        if word.starts_with('-') {
            if takes_value(word) {
                words.next();
            }
        } else if word == "help" && command.has_subcommands() {
            return Some(at);
        } else {
            command = command.find_subcommand(word)?;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let read = as_clap_reads(&words).into_iter();
        let read: Vec<String> = read.map(|word| word.into_string().unwrap()).collect();
        read.join(" ")
    }

    #[test]
    fn help_about_help_is_asked_for_in_words() {
        for (typed, read_as) in [
            ("backstay help --help", "backstay help help"),
            ("backstay help -h", "backstay help help"),
            ("backstay help restore --help", "backstay help restore"),
            ("backstay key help --help", "backstay key help help"),
            (
                "backstay -c key --json help --help",
                "backstay -c key --json help help",
            ),
        ] {
            assert_eq!(read(typed), read_as, "{typed}");
        }
        for same in [
            "backstay help",
            "backstay help nope",
            "backstay --help",
            "backstay restore help --help",
            "backstay -c help restore --help",
        ] {
            assert_eq!(read(same), same);
        }
    }

    #[test]
    fn a_length_ago_belongs_to_its_option() {
        assert_eq!(read("backstay restore --to -5min"), "backstay restore --to=-5min");
        assert_eq!(read("backstay restore --to -c x"), "backstay restore --to -c x");
    }
}
