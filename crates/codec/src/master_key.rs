//! The text form of a raw key: `BACKSTAY-KEY-1:<base64url of 32 bytes>:<first 8 hex digits of their SHA-256>`.
//!
//! Promise: a mistyped key is refused by its checksum instead of making backups that nobody can open.

use crate::base64_text::{from_any_base64, to_base64url};
use crate::digest::{digest, hex, unhex};
use crate::key::SecretKey;
use zeroize::Zeroizing;

const TAG: &str = "BACKSTAY-KEY-1";

/// A text is not a raw key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    /// Neither of the accepted forms.
    #[error("it is not a raw key: expected {TAG}:…, 64 hexadecimal digits, or base64 of 32 bytes")]
    Form,
    /// The checksum is wrong.
    #[error("its checksum is wrong: a character was changed or lost")]
    Checksum,
}

impl MasterKeyError {
    /// What a person can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Form => "give the line that `key new` wrote, whole",
            Self::Checksum => "compare it with the recovery sheet, character by character",
        }
    }
}

/// The line for a key file, without its line end.
pub fn print_master_key(key: &SecretKey) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "{TAG}:{}:{}",
        *to_base64url(key.bytes()),
        checksum(key.bytes())
    ))
}

/// Reads a key file's text; surrounding white space is ignored.
pub fn parse_master_key(text: &str) -> Result<SecretKey, MasterKeyError> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix(TAG) {
        let (encoded, sum) = rest
            .strip_prefix(':')
            .and_then(|r| r.split_once(':'))
            .ok_or(MasterKeyError::Form)?;
        let bytes = decode(encoded).ok_or(MasterKeyError::Checksum)?;
        let right = checksum(&bytes).eq_ignore_ascii_case(sum);
        return right
            .then(|| SecretKey::new(*bytes))
            .ok_or(MasterKeyError::Checksum);
    }
    let bytes = unhex::<32>(&text.to_ascii_lowercase())
        .map(Zeroizing::new)
        .or_else(|| decode(text));
    bytes
        .map(|bytes| SecretKey::new(*bytes))
        .ok_or(MasterKeyError::Form)
}

fn decode(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = from_any_base64(text)?;
    bytes.as_slice().try_into().ok().map(Zeroizing::new)
}

fn checksum(bytes: &[u8; 32]) -> String {
    hex(&digest(bytes).0[..4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base64_text::to_base64;

    #[test]
    fn the_line_is_the_documented_one() {
        let line = print_master_key(&SecretKey::new([0xFB; 32]));
        assert_eq!(
            *line,
            "BACKSTAY-KEY-1:-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s:456a0498"
        );
    }

    #[test]
    fn every_form_is_read_with_white_space_around_it() {
        let key = SecretKey::new([0xFB; 32]);
        let line = print_master_key(&key);
        let forms = [
            line.to_string(),
            "fb".repeat(32),
            "FB".repeat(32),
            to_base64(&[0xFB; 32]),
        ];
        for form in forms {
            assert_eq!(
                parse_master_key(&format!(" \t{form}\r\n")),
                Ok(key.clone()),
                "{form}"
            );
        }
    }

    #[test]
    fn every_mistyped_character_is_found() {
        let line = print_master_key(&SecretKey::new([7; 32]));
        for place in 0..line.len() {
            let typed: String = (0..)
                .zip(line.chars())
                .map(|(n, c)| if n == place { '%' } else { c })
                .collect();
            assert!(parse_master_key(&typed).is_err(), "{typed}");
            let shifted: String = (0..)
                .zip(line.chars())
                .map(|(n, c)| if n == place { 'A' } else { c })
                .collect();
            assert!(
                shifted == *line || parse_master_key(&shifted).is_err(),
                "{shifted}"
            );
        }
        assert_eq!(
            parse_master_key(&line.replace("Bw", "Cw")),
            Err(MasterKeyError::Checksum)
        );
        assert_eq!(
            parse_master_key(&line[..line.len() - 1]),
            Err(MasterKeyError::Checksum)
        );
    }

    #[test]
    fn other_texts_are_not_master_keys() {
        for text in [
            "",
            "hunter2",
            "BACKSTAY-KEY-1",
            "BACKSTAY-KEY-1:",
            "BACKSTAY-KEY-2:AA:00",
            "\u{e9}=\u{fffd}",
        ] {
            assert_eq!(parse_master_key(text), Err(MasterKeyError::Form), "{text:?}");
        }
    }
}
