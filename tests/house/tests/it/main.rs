//! The rules of the house, applied to this checkout: one test for each rule.
//!
//! Promise: a failure prints each offence with its place, its rule and what to do.

use backstay_house::Offence;
use backstay_house::rules::{arrows, calls, dependencies, documents, shape, words};
use backstay_house::source::{SourceFile, sources};
use backstay_house::tree::{self, TextFile};
use backstay_house::workspace;
use std::sync::LazyLock;

static FILES: LazyLock<Vec<TextFile>> = LazyLock::new(|| tree::files(&tree::root()));
static SOURCES: LazyLock<Vec<SourceFile>> = LazyLock::new(|| sources(&FILES));

#[track_caller]
fn assert_none(offences: Vec<Offence>) {
    let lines: Vec<String> = offences.iter().map(Offence::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} offences:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

#[test]
fn crates_import_each_other_only_along_the_arrows() {
    assert_none(arrows::offences(&workspace::packages(&tree::root())));
}

#[test]
fn versions_stand_in_the_root_manifest_only() {
    assert_none(dependencies::versions(&FILES));
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    assert_none(dependencies::lints(&FILES));
}

#[test]
fn every_dependency_is_described() {
    assert_none(dependencies::descriptions(&FILES));
}

#[test]
fn dependencies_are_described_with_the_rooms_that_import_them() {
    assert_none(dependencies::rooms(&FILES));
}

#[test]
fn every_source_file_has_a_header() {
    assert_none(shape::headers(&SOURCES));
}

#[test]
fn no_file_is_too_long() {
    assert_none(shape::file_sizes(&SOURCES));
}

#[test]
fn few_functions_are_long() {
    assert_none(shape::function_sizes(&SOURCES));
}

#[test]
fn nothing_is_unsafe() {
    assert_none(calls::unsafe_code(&SOURCES));
}

#[test]
fn time_environment_and_output_stay_in_their_rooms() {
    assert_none(calls::outside_their_room(&SOURCES));
}

#[test]
fn no_file_names_a_machine_or_a_registry_host() {
    assert_none(words::forbidden(&FILES));
}

#[test]
fn every_decision_record_has_a_status() {
    assert_none(documents::statuses(&FILES));
}

#[test]
fn every_decision_record_is_in_the_index() {
    assert_none(documents::index(&FILES));
}

#[test]
fn every_document_with_commands_is_checked() {
    assert_none(documents::unchecked(&FILES));
}
