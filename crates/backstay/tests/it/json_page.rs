//! `docs/reference/json.md` and what the program prints are held against each other.
//!
//! Promise: whatever any test has a command print with `--json` is in the page, with its type; whatever the page says of a
//! command stands in one of its examples, which are goldens, unless what it would stand in is empty there; every command has
//! a section. `BLESS=1` puts the goldens into the page.

use crate::golden::{assert_file, assert_shape};
use crate::program::Place;
use backstay::cli::Cli;
use clap::CommandFactory;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// One row of a table.
#[derive(Clone)]
struct Field {
    path: String,
    kind: String,
    may_be_absent: bool,
}

/// A section: its fields and the names of its examples.
#[derive(Default)]
struct Section {
    fields: Vec<Field>,
    examples: Vec<String>,
}

struct Page(BTreeMap<String, Section>);

fn place_of_page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/json.md")
}

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/golden/{name}.json"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn example_in(line: &str) -> Option<&str> {
    line.strip_prefix("<!-- example ")?.strip_suffix(" -->")
}

/// `[name](#name)`: the fields of that section stand here.
fn part_of(kind: &str) -> Option<&str> {
    kind.strip_prefix('[')?.split(']').next()
}

impl Page {
    fn read() -> Page {
        let text = fs::read_to_string(place_of_page()).unwrap();
        let mut sections: BTreeMap<String, Section> = BTreeMap::new();
        let mut title = String::new();
        for line in text.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                title = heading.trim_matches('`').to_lowercase();
                sections.insert(title.clone(), Section::default());
            }
            let Some(section) = sections.get_mut(&title) else {
                continue;
            };
            section.examples.extend(example_in(line).map(str::to_owned));
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let (true, [names, kind, meaning]) = (line.starts_with('|'), cells.as_slice()) else {
                continue;
            };
            if *names != "Field" {
                let field = |name: &str| Field {
                    path: name.trim_matches(['`', ' ', '|']).to_owned(),
                    kind: (*kind).to_owned(),
                    may_be_absent: meaning.contains("absent"),
                };
                section.fields.extend(names.split(", ").map(field));
            }
        }
        Page(sections)
    }

    /// The fields of a section, those of its parts in their places.
    fn fields(&self, title: &str) -> Vec<Field> {
        let section = self
            .0
            .get(title)
            .unwrap_or_else(|| panic!("json.md has no section {title}"));
        let mut all = Vec::new();
        for field in &section.fields {
            match part_of(&field.kind) {
                None => all.push(field.clone()),
                Some(part) => all.extend(self.fields(part).into_iter().map(|inner| {
                    Field {
                        path: format!("{}.{}", field.path, inner.path)
                            .trim_start_matches('.')
                            .to_owned(),
                        may_be_absent: inner.may_be_absent || field.may_be_absent,
                        ..inner
                    }
                })),
            }
        }
        all
    }
}

/// Each value that holds no other, by its path.
fn flatten(path: &str, value: &Value, into: &mut Vec<(String, Value)>) {
    let below = |name: &str| format!("{path}.{name}").trim_start_matches('.').to_owned();
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, value)| flatten(&below(name), value, into)),
        Value::Array(elements) if !elements.is_empty() => elements
            .iter()
            .for_each(|value| flatten(&format!("{path}[]"), value, into)),
        _ => into.push((path.to_owned(), value.clone())),
    }
}

/// Whether this row is about the value at `path`.
fn is_about(field: &Field, path: &str) -> bool {
    let below = |prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with(['.', '[']))
    };
    match field.path.strip_suffix(".*") {
        Some(prefix) => path.starts_with(&format!("{prefix}.")),
        // A list without an element.
        None if field.path.starts_with(&format!("{path}[]")) => true,
        None => field.path == path || (field.kind == "anything" && below(&field.path)),
    }
}

/// Whether a row of this type may have that value.
fn allows(kind: &str, value: &Value) -> bool {
    let main = kind.split(" or ").next().unwrap_or_default();
    match value {
        Value::Null => kind.ends_with("null") || kind == "anything",
        Value::Bool(_) => ["boolean", "anything"].contains(&main),
        Value::Number(_) => ["number", "position", "anything"].contains(&main),
        Value::Array(_) => true,
        _ => !["boolean", "number", "position", "object", "null"].contains(&main),
    }
}

/// The command of a line, without its options and arguments.
fn command_of<'a>(words: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let root = Cli::command();
    let (mut command, mut name) = (&root, "backstay".to_owned());
    for word in words {
        match command.find_subcommand(word) {
            Some(found) => (command, name) = (found, format!("{name} {}", found.get_name())),
            None if command.has_subcommands() => {}
            None => break,
        }
    }
    (!command.has_subcommands()).then_some(name)
}

/// Fails where a command printed JSON that the page does not describe.
#[track_caller]
pub fn assert_described<'a>(arguments: impl IntoIterator<Item = &'a OsStr>, out: &str) {
    let words: Vec<&str> = arguments.into_iter().filter_map(OsStr::to_str).collect();
    let asked = words
        .windows(2)
        .any(|pair| pair == ["-o", "json"] || pair == ["--output", "json"]);
    let is_raw = words.contains(&"decrypt") && !words.contains(&"--into");
    if out.is_empty() || is_raw || !(asked || words.contains(&"--json")) {
        return;
    }
    let (Some(command), Ok(printed)) = (command_of(words), serde_json::from_str(out)) else {
        return;
    };
    let fields = Page::read().fields(&command);
    let mut values = Vec::new();
    flatten("", &printed, &mut values);
    for (path, value) in values {
        let described = fields
            .iter()
            .any(|field| is_about(field, &path) && allows(&field.kind, &value));
        assert!(
            described,
            "{command} prints {path}: {value}; docs/reference/json.md does not say so"
        );
    }
}

#[test]
fn the_examples_of_the_page_are_goldens() {
    let text = fs::read_to_string(place_of_page()).unwrap();
    let mut page = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        page += &format!("{line}\n");
        let Some(name) = example_in(line) else { continue };
        page += &format!("```json\n{}```\n", golden(name));
        if lines.next_if(|line| *line == "```json").is_some() {
            lines.by_ref().find(|line| *line == "```");
        }
    }
    assert_file(&place_of_page(), &page);
}

#[test]
fn every_command_has_its_section_and_no_other_has() {
    fn leaves(command: &clap::Command, name: &str, into: &mut Vec<String>) {
        let children = command
            .get_subcommands()
            .filter(|child| child.get_name() != "help");
        let before = into.len();
        children.for_each(|child| leaves(child, &format!("{name} {}", child.get_name()), into));
        if into.len() == before {
            into.push(name.to_owned());
        }
    }
    let mut commands = Vec::new();
    leaves(&Cli::command(), "backstay", &mut commands);
    commands.sort();
    let page = Page::read();
    let sections: Vec<&String> = page
        .0
        .keys()
        .filter(|title| title.starts_with("backstay "))
        .collect();
    assert_eq!(sections, commands.iter().collect::<Vec<_>>());
}

/// Whether something that the field would stand in is nothing, or has no element, in an example.
fn stands_in_nothing(field: &str, values: &[(String, Value)]) -> bool {
    let is_nothing = |value: &Value| *value == "null" || value.is_array();
    let above = field.match_indices(['.', '[']).map(|(at, _)| &field[..at]);
    above.into_iter().any(|above| {
        values
            .iter()
            .any(|(path, value)| path == above && is_nothing(value))
    })
}

#[test]
fn every_field_of_the_page_is_printed() {
    let page = Page::read();
    for (title, section) in page.0.iter().filter(|(_, section)| !section.examples.is_empty()) {
        let mut values = Vec::new();
        for name in &section.examples {
            flatten("", &serde_json::from_str(&golden(name)).unwrap(), &mut values);
        }
        for field in page.fields(title).iter().filter(|field| !field.may_be_absent) {
            let inside = format!("{}.", field.path);
            let is_seen = values
                .iter()
                .any(|(path, _)| is_about(field, path) || path.starts_with(&inside));
            assert!(
                is_seen || stands_in_nothing(&field.path, &values),
                "docs/reference/json.md: no example of {title} has {}",
                field.path
            );
        }
    }
}

#[test]
fn what_needs_no_server_is_printed_as_its_example() {
    let place = Place::of("host=/nowhere user=postgres");
    let golden_of = |name: &str, line: &str| {
        let run = place.run(line);
        assert_eq!((run.exit, run.err.as_str()), (0, ""), "{line}");
        assert_shape(name, &run.out);
    };
    golden_of("key-new", "key new other.key --json");
    golden_of("key-show", "key show --json");
    golden_of("recovery-sheet", "key recovery-sheet --json");
    golden_of("config-show", "config show --json");
    golden_of("config-validate", "config validate --json");
}
