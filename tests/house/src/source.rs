//! Rust sources as a reader sees them: without comments and literals, product apart from tests.
//!
//! Promise: blanking keeps every line where it was; text inside a comment, string or character never
//! counts as code.
//! Not here: a parser. Braces and keywords are enough for the rules, and a full grammar would be a dependency.

mod mask;

use crate::tree::TextFile;
use std::collections::BTreeSet;
use std::ops::Range;

/// What a source file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Part of the program.
    Product,
    /// Helps tests: the crate testkit.
    Support,
    /// Compiled for tests only, or run by cargo before the build.
    Test,
}

/// One Rust file.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Path from the root of the checkout.
    pub path: String,
    /// The file as it stands.
    pub text: String,
    /// The file with comments and literals blanked.
    pub code: String,
    /// `code` with test items blanked as well; empty of code when the role is `Test`.
    pub product: String,
    /// Lines that belong to no test item; 0 when the role is `Test`.
    pub product_lines: usize,
    /// What the file is for.
    pub role: Role,
}

/// A function of the product: its name, the line of its `fn` and its length in lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The name after `fn`.
    pub name: String,
    /// Line of the `fn`, from 1.
    pub line: usize,
    /// From the `fn` to the closing brace, both counted.
    pub lines: usize,
}

/// The Rust files among `files`.
pub fn sources(files: &[TextFile]) -> Vec<SourceFile> {
    let rust: Vec<&TextFile> = files.iter().filter(|file| file.path.ends_with(".rs")).collect();
    let test_modules: BTreeSet<String> = rust.iter().flat_map(|file| declared_test_modules(file)).collect();
    rust.iter().map(|file| source(file, &test_modules)).collect()
}

fn source(file: &TextFile, test_modules: &BTreeSet<String>) -> SourceFile {
    let code = mask::mask(&file.text);
    let role = role_of(&file.path, &code, test_modules);
    let mut product = code.clone();
    let mut product_lines = file.text.lines().count();
    if role == Role::Test {
        product = blanked(product, 0..code.len());
        product_lines = 0;
    } else {
        for item in test_items(&code) {
            product_lines -= code[item.clone()].lines().count();
            product = blanked(product, item);
        }
    }
    SourceFile {
        path: file.path.clone(),
        text: file.text.clone(),
        code,
        product,
        product_lines,
        role,
    }
}

fn role_of(path: &str, code: &str, test_modules: &BTreeSet<String>) -> Role {
    let by_folder = path
        .split('/')
        .any(|part| ["tests", "benches", "examples", "tests.rs", "build.rs"].contains(&part));
    let by_module = test_modules.iter().any(|module| {
        path.strip_prefix(module.as_str())
            .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    });
    if by_folder || by_module || code.contains("#![cfg(test)]") {
        Role::Test
    } else if path.starts_with("crates/testkit/") {
        Role::Support
    } else {
        Role::Product
    }
}

/// Paths without `.rs` of modules declared as `#[cfg(test)] mod name;`.
fn declared_test_modules(file: &TextFile) -> Vec<String> {
    let code = mask::mask(&file.text);
    let children = match file.name() {
        "lib.rs" | "main.rs" | "mod.rs" => file.path.trim_end_matches(file.name()).to_owned(),
        _ => format!("{}/", file.path.trim_end_matches(".rs")),
    };
    test_items(&code)
        .into_iter()
        .filter_map(|item| {
            let words: Vec<&str> = code[item].trim_end_matches(';').split_whitespace().collect();
            let at = words.iter().position(|word| *word == "mod")?;
            words
                .get(at + 1)
                .filter(|_| words.len() == at + 2)
                .map(|name| format!("{children}{name}"))
        })
        .collect()
}

/// Byte ranges of the items behind `#[cfg(test)]`, attribute included.
fn test_items(code: &str) -> Vec<Range<usize>> {
    const MARK: &str = "#[cfg(test)]";
    let mut items: Vec<Range<usize>> = Vec::new();
    for (begin, _) in code.match_indices(MARK) {
        let inside_the_last = items.last().is_some_and(|item| item.contains(&begin));
        if !inside_the_last {
            items.push(begin..item_end(code, begin + MARK.len()));
        }
    }
    items
}

/// Where the item ends that begins at `from`: its `;`, or the brace that closes its body.
fn item_end(code: &str, from: usize) -> usize {
    let bytes = code.as_bytes();
    let mut nested = 0_usize;
    for at in from..bytes.len() {
        match bytes[at] {
            b'(' | b'[' => nested += 1,
            b')' | b']' => nested = nested.saturating_sub(1),
            b';' if nested == 0 => return at + 1,
            b'{' if nested == 0 => return closing_brace(bytes, at),
            _ => {}
        }
    }
    bytes.len()
}

/// One past the brace that closes the one at `open`.
fn closing_brace(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    bytes.len()
}

fn blanked(code: String, range: Range<usize>) -> String {
    let blank: String = code[range.clone()]
        .chars()
        .map(|c| if c == '\n' { '\n' } else { ' ' })
        .collect();
    format!("{}{}{}", &code[..range.start], blank, &code[range.end..])
}

/// The functions of `code` that have a body.
pub fn functions(code: &str) -> Vec<Function> {
    words(code, "fn")
        .filter_map(|begin| function_at(code, begin))
        .collect()
}

fn function_at(code: &str, begin: usize) -> Option<Function> {
    let after = &code[begin + 2..];
    let name: String = after.trim_start().chars().take_while(|c| is_word(*c)).collect();
    let is_declared = after.starts_with(char::is_whitespace) && !name.is_empty();
    let end = item_end(code, begin);
    let has_body = code[..end].ends_with('}');
    (is_declared && has_body).then(|| Function {
        name,
        line: line_of(code, begin),
        lines: code[begin..end].lines().count(),
    })
}

/// Where `word` stands in `code` as a whole word; `word` may hold `::` and end in `!`.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let ends_as_word = word.ends_with(is_word);
        let continues = ends_as_word && after.is_some_and(is_word);
        !(continues || before.is_some_and(is_word))
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The line, from 1, that holds the byte at `at`.
pub fn line_of(code: &str, at: usize) -> usize {
    1 + code[..at].matches('\n').count()
}

#[cfg(test)]
mod tests;
