//! Rule: files open with a header, and files and functions stay small enough to be read at once.
//!
//! Promise: headers are asked of every Rust file; sizes of what is not a test.
//! Not here: the layout of lines, which is rustfmt's.

use crate::Offence;
use crate::source::{Function, SourceFile, functions};

const HEADER: &str = "every source file opens with a `//!` header";
const FILE_SIZE: &str = "a file has at most 600 lines without its tests";
const FUNCTION_SIZE: &str = "at most three functions are longer than 70 lines";

/// The header begins within these lines: a shebang or a licence line may come before.
const HEADER_LINES: usize = 5;
/// Lines that belong to no test.
const FILE_LINES_MAX: usize = 600;
/// From `fn` to the closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Tables and encoders may be long; more than these are a habit.
const LONG_FUNCTIONS_MAX: usize = 3;

/// Files without a header.
pub fn headers(sources: &[SourceFile]) -> Vec<Offence> {
    sources
        .iter()
        .filter(|file| {
            !file
                .text
                .lines()
                .take(HEADER_LINES)
                .any(|line| line.starts_with("//!"))
        })
        .map(|file| Offence {
            place: file.path.clone(),
            rule: HEADER,
            found: format!("no `//!` within the first {HEADER_LINES} lines"),
            remedy: "say what the file is, what it promises and what it leaves to others".to_owned(),
        })
        .collect()
}

/// Files that are too long.
pub fn file_sizes(sources: &[SourceFile]) -> Vec<Offence> {
    sources
        .iter()
        .filter(|file| file.product_lines > FILE_LINES_MAX)
        .map(|file| Offence {
            place: file.path.clone(),
            rule: FILE_SIZE,
            found: format!("{} lines without tests", file.product_lines),
            remedy: "finish the sentence \"this file knows about …\"; two answers are two files".to_owned(),
        })
        .collect()
}

/// All functions that are too long, when there are more than the house allows.
pub fn function_sizes(sources: &[SourceFile]) -> Vec<Offence> {
    let long: Vec<Offence> = sources.iter().flat_map(long_functions).collect();
    if long.len() > LONG_FUNCTIONS_MAX {
        long
    } else {
        Vec::new()
    }
}

fn long_functions(file: &SourceFile) -> Vec<Offence> {
    functions(&file.product)
        .into_iter()
        .filter(|function| function.lines > FUNCTION_LINES_MAX)
        .map(|function| long_function(file, &function))
        .collect()
}

fn long_function(file: &SourceFile, function: &Function) -> Offence {
    Offence {
        place: format!("{}:{}", file.path, function.line),
        rule: FUNCTION_SIZE,
        found: format!("{} has {} lines", function.name, function.lines),
        remedy: "look for the second idea and give it a name".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::sources;
    use crate::tree::TextFile;

    fn planted(text: &str) -> Vec<SourceFile> {
        sources(&[TextFile::planted("crates/x/src/lib.rs", text)])
    }

    fn long(name: &str) -> String {
        format!("fn {name}() {{\n{}}}\n", "    act();\n".repeat(69))
    }

    #[test]
    fn a_planted_file_without_a_header_is_found() {
        assert_eq!(headers(&planted("\n\n\n\n\n//! Too late.\n")).len(), 1);
        assert_eq!(headers(&planted("#!/usr/bin/env x\n//! A room.\n")), []);
    }

    #[test]
    fn a_planted_long_file_is_found_and_its_tests_do_not_count() {
        let lines = |count: usize| "// a line\n".repeat(count);
        assert_eq!(
            file_sizes(&planted(&lines(601)))[0].found,
            "601 lines without tests"
        );
        let with_tests = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(600), lines(500));
        assert_eq!(file_sizes(&planted(&with_tests)), []);
    }

    #[test]
    fn the_fourth_long_function_is_found_with_the_other_three() {
        let three = ["a", "b", "c"].map(long).concat();
        assert_eq!(function_sizes(&planted(&three)), []);
        let four = function_sizes(&planted(&(three + &long("d"))));
        assert_eq!(four.len(), 4);
        assert_eq!(
            (four[3].place.as_str(), four[3].found.as_str()),
            ("crates/x/src/lib.rs:214", "d has 71 lines")
        );
    }

    #[test]
    fn a_function_of_seventy_lines_is_not_long() {
        let seventy = long("a").replacen("    act();\n", "", 1);
        assert_eq!(function_sizes(&planted(&seventy.repeat(5))), []);
    }
}
