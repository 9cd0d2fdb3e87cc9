//! The text form of a master key: `BACKSTAY-KEY-1:<base64 of 32 bytes>:<first 8 hex digits of their SHA-256>`.
//!
//! Promise: a mistyped key is refused by its checksum instead of making backups that nobody can open.

use crate::base64_text::{from_base64, to_base64};
use crate::digest::{digest, hex, unhex};
use crate::key::SecretKey;
use zeroize::Zeroizing;

const TAG: &str = "BACKSTAY-KEY-1";

/// A text is not a master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    /// Neither of the accepted forms.
    #[error("it is not a master key: expected {TAG}:…, 64 hexadecimal digits, or base64 of 32 bytes")]
    Form,
    /// The checksum is wrong.
    #[error("its checksum is wrong: a character was changed or lost")]
    Checksum,
}

/// The line for a key file.
pub fn print_master_key(key: &SecretKey) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "{TAG}:{}:{}",
        to_base64(key.bytes()),
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
        return if checksum(&bytes) == sum {
            Ok(SecretKey::new(*bytes))
        } else {
            Err(MasterKeyError::Checksum)
        };
    }
    let bytes = unhex::<32>(&text.to_ascii_lowercase())
        .map(Zeroizing::new)
        .or_else(|| decode(text));
    bytes
        .map(|bytes| SecretKey::new(*bytes))
        .ok_or(MasterKeyError::Form)
}

fn decode(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(from_base64(text)?);
    let bytes: [u8; 32] = bytes.as_slice().try_into().ok()?;
    Some(Zeroizing::new(bytes))
}

fn checksum(bytes: &[u8; 32]) -> String {
    hex(&digest(bytes).0[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_typing_errors_are_found() {
        let key = SecretKey::new([7; 32]);
        let line = print_master_key(&key);
        assert_eq!(parse_master_key(&format!(" {}\n", *line)), Ok(key.clone()));
        assert_eq!(parse_master_key(&"07".repeat(32)), Ok(key.clone()));
        assert_eq!(parse_master_key(&to_base64(&[7; 32])), Ok(key));
        let mistyped = line.replace("Bw", "Cw");
        assert_eq!(parse_master_key(&mistyped), Err(MasterKeyError::Checksum));
        assert_eq!(parse_master_key("hunter2"), Err(MasterKeyError::Form));
    }
}
