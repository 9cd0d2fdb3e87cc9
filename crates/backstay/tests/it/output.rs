//! Streams: what goes where, closed pipes, full disks, usage errors.

use crate::golden::assert_golden;
use crate::program::Place;
use std::fs::File;
use std::process::Stdio;

#[test]
fn usage_errors_have_the_form_of_every_other_error() {
    let place = Place::new();
    let mut text = String::new();
    for line in [
        "confg show",
        "config show --orign",
        "config show extra",
        "--output yaml version",
        "--utc --local version",
        "--color",
        "wal gaps a b",
        "restore --to latest",
        "lineage adopt",
        "restore main --to latest --into copy --start --wait 0s",
        "restore main --to --into copy",
        "restore main --to -c other.yaml --into copy",
        "help nope",
        "help restor",
        "key help nope",
        "key nwe",
        "nope",
        "--json --wrong",
        "--json",
    ] {
        text += &place.run(line).whole(line);
    }
    assert_golden("output/usage.txt", &text);
}

#[test]
fn help_is_a_result_and_a_missing_command_is_an_error_with_the_same_text() {
    let place = Place::new();
    let asked = place.run("-h");
    assert_eq!((asked.exit, asked.err.as_str()), (0, ""));
    assert_golden("output/help.txt", &asked.out);
    let missing = place.finish(place.command(&[]));
    assert_eq!((missing.exit, missing.out.as_str()), (2, ""));
    assert!(missing.err.contains("Commands:"), "{}", missing.err);
}

#[test]
fn help_of_help_is_what_help_prints_about_itself() {
    let place = Place::new();
    let shown = |line: &str| {
        let run = place.run(line);
        assert_eq!((run.exit, run.err.as_str()), (0, ""), "{line}");
        run.out
    };
    let help = shown("help help");
    assert!(help.contains("Usage: backstay help [COMMAND]..."), "{help}");
    for line in ["help --help", "help -h"] {
        assert_eq!(shown(line), help, "{line}");
    }
    assert_eq!(shown("help restore"), shown("restore --help"));
    assert_eq!(shown("help restore --help"), shown("restore --help"));
    assert_eq!(shown("help key new"), shown("key new --help"));
    assert_eq!(shown("key help"), shown("key --help"));
    assert_eq!(shown("key help --help"), shown("key help help"));
}

#[test]
fn a_closed_pipe_changes_neither_output_nor_exit() {
    let place = Place::new();
    let mut command = place.command(&["version"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer).stderr(Stdio::piped());
    let run = place.finish(command);
    assert_eq!((run.exit, run.err.as_str()), (0, ""));
}

#[test]
fn closed_standard_error_does_not_stop_a_failure_from_having_its_exit() {
    let place = Place::new();
    let mut command = place.command(&["config", "show"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stderr(writer);
    assert_eq!(place.finish(command).exit, 2);
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let place = Place::new();
    let mut command = place.command(&["version"]);
    command.stdout(File::options().write(true).open("/dev/full").unwrap());
    let run = place.finish(command);
    assert_eq!(run.exit, 1);
    assert!(run.err.starts_with("error[BKS-1902]: "), "{}", run.err);
}

#[test]
fn colour_is_used_only_when_asked_for_off_a_terminal() {
    let place = Place::new();
    assert!(!place.run("config show").err.contains('\x1b'));
    assert!(
        place
            .run("--color always config show")
            .err
            .starts_with("\x1b[1;31merror[BKS-2002]\x1b[0m: ")
    );
}
