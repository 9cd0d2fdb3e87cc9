//! A failure as a person reads it: what, where, what to do.
//!
//! Promise: three parts in this order, labels in one column; control characters from outside are shown, not obeyed.

use crate::failure::Failure;
use crate::render::look::{Look, Mark};

/// The lines of a failure.
pub fn failure(failure: &Failure, look: &Look) -> String {
    let head = look.paint(Mark::Bad, &format!("error[{}]", failure.code));
    let message = look.bold(&clean(&failure.message).replace('\n', " "));
    let mut lines = vec![format!("{head}: {message}")];
    let parts = parts(failure);
    let width = parts.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    for (label, text) in &parts {
        push_part(&mut lines, label, &clean(text), width);
    }
    lines.join("\n") + "\n"
}

/// A warning: something went wrong and work continues.
pub fn warning(text: &str, look: &Look) -> String {
    format!("{}: {}\n", look.paint(Mark::Warning, "warning"), clean(text))
}

fn parts(failure: &Failure) -> Vec<(&'static str, String)> {
    let mut parts = failure.places.clone();
    if !failure.cause.is_empty() {
        parts.push(("cause", failure.cause.join("\n")));
    }
    parts.push(("help", failure.help.join("\n")));
    parts
}

fn push_part(lines: &mut Vec<String>, label: &str, text: &str, width: usize) {
    for (place, line) in text.lines().enumerate() {
        let label = if place == 0 { label } else { "" };
        lines.push(format!("  {label:width$}   {line}").trim_end().to_owned());
    }
}

/// `text` without control characters but line ends: a message from a server must not write to the terminal's title.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push(c),
            '\t' => out.push_str("    "),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::Code;

    #[test]
    fn the_three_parts_stand_below_each_other() {
        let shown = Failure::new(
            Code::AfterWindow,
            "the target is 12 min 19 s after the last point that can be recovered",
            "latest possible: backstay restore orders-db --to latest",
        )
        .fact(
            "recoverable",
            "2026-11-16T02:11:04Z → 2026-11-23T02:17:41Z   (no gaps)",
        )
        .or("or force the current segment out first");
        assert_eq!(
            failure(&shown, &Look::plain()),
            "error[BKS-6012]: the target is 12 min 19 s after the last point that can be recovered\n  \
             recoverable   2026-11-16T02:11:04Z → 2026-11-23T02:17:41Z   (no gaps)\n  \
             help          latest possible: backstay restore orders-db --to latest\n                \
             or force the current segment out first\n"
        );
    }

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        let shown = Failure::new(Code::Other, "\x1b]0;title\x07 said\r\nthe server", "none");
        assert_eq!(
            failure(&shown, &Look::plain()),
            "error[BKS-1900]: \\u{1b}]0;title\\u{7} said\\r the server\n  help   none\n"
        );
    }
}
