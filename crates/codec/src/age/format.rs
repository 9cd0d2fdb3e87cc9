//! The lines of an age header (C2SP age.md, "Header").
//!
//! Promise: one spelling only: every line as the specification writes it, or the whole file is refused.
//! Not here: keys.

use crate::base64_text::{from_base64_unpadded, to_base64_unpadded};

const VERSION_LINE: &str = "age-encryption.org/v1";
/// Characters of base64 in a line of a stanza's body; a shorter line ends it.
const COLUMNS: usize = 64;

/// One X25519 stanza.
#[derive(Debug)]
pub(super) struct Share {
    /// The sender's ephemeral public key.
    pub ephemeral: [u8; 32],
    /// The sealed file key.
    pub body: [u8; 32],
}

/// A file, taken apart.
#[derive(Debug)]
pub(super) struct Parsed<'a> {
    /// The X25519 stanzas.
    pub shares: Vec<Share>,
    /// The kinds of the other stanzas.
    pub others: Vec<String>,
    /// What the MAC covers.
    pub authenticated: &'a [u8],
    /// The MAC.
    pub mac: [u8; 32],
    /// What follows the header.
    pub payload: &'a [u8],
}

/// A header with one stanza, up to where its MAC begins.
pub(super) fn header(ephemeral: &[u8; 32], body: &[u8]) -> String {
    let (ephemeral, body) = (to_base64_unpadded(ephemeral), to_base64_unpadded(body));
    format!("{VERSION_LINE}\n-> X25519 {ephemeral}\n{body}\n---")
}

/// The header with its MAC.
pub(super) fn closed(header: &str, mac: &[u8]) -> Vec<u8> {
    format!("{header} {}\n", to_base64_unpadded(mac)).into_bytes()
}

/// Takes a file apart; none if a line is not as the specification writes it.
pub(super) fn parse(file: &[u8]) -> Option<Parsed<'_>> {
    let mut lines = Lines { rest: file };
    if lines.next()? != VERSION_LINE {
        return None;
    }
    let (mut shares, mut others) = (Vec::new(), Vec::new());
    loop {
        let begins = file.len() - lines.rest.len();
        let line = lines.next()?;
        if let Some(mac) = line.strip_prefix("--- ") {
            return Some(Parsed {
                shares,
                others,
                authenticated: file.get(..begins + 3)?,
                mac: decoded(mac)?,
                payload: lines.rest,
            });
        }
        let arguments: Vec<&str> = line.strip_prefix("-> ")?.split(' ').collect();
        let body = lines.body()?;
        match arguments.as_slice() {
            ["X25519", ephemeral] => shares.push(Share {
                ephemeral: decoded(ephemeral)?,
                body: body.try_into().ok()?,
            }),
            ["X25519", ..] => return None,
            [kind, ..] if arguments.iter().all(|argument| is_visible(argument)) => {
                others.push((*kind).to_owned());
            }
            _ => return None,
        }
    }
}

fn is_visible(argument: &str) -> bool {
    !argument.is_empty() && argument.bytes().all(|byte| byte.is_ascii_graphic())
}

fn decoded(text: &str) -> Option<[u8; 32]> {
    from_base64_unpadded(text)?.try_into().ok()
}

/// Lines that end with LF.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = (self.rest.get(..end)?, self.rest.get(end + 1..)?);
        self.rest = rest;
        std::str::from_utf8(line).ok()
    }

    /// A stanza's body: full lines, then one that is shorter and may be empty.
    fn body(&mut self) -> Option<Vec<u8>> {
        let mut text = String::new();
        loop {
            let line = self.next()?;
            text.push_str(line);
            match line.len() {
                COLUMNS => continue,
                0..COLUMNS => return from_base64_unpadded(&text),
                _ => return None,
            }
        }
    }
}
