//! Age identity files that are named on the command line: they prove wraps, and open nothing for work.
//!
//! Promise: a file is read once; its secret is wiped when it is dropped.

use crate::codes::Code;
use crate::failure::Failure;
use backstay_codec::AgeIdentity;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// An identity and its file.
#[derive(Debug)]
pub struct Identity {
    /// The identity.
    pub age: AgeIdentity,
    /// The file as it was named.
    pub file: String,
}

/// Reads these files.
pub fn read_all(files: &[PathBuf]) -> Result<Vec<Identity>, Failure> {
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> Result<Identity, Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map(Zeroizing::new)
        .map_err(|error| {
            let help = "give the file that age-keygen wrote";
            Failure::new(
                Code::KeyMissing,
                format!("the identity file {shown} cannot be read"),
                help,
            )
            .caused_by(&error)
        })?;
    let age = AgeIdentity::new(text).map_err(|error| {
        let help = "give the file that age-keygen wrote, with its line AGE-SECRET-KEY-1…";
        Failure::new(
            Code::KeyMalformed,
            format!("{shown} holds no age identity: {error}"),
            help,
        )
    })?;
    let file = shown.to_string();
    Ok(Identity { age, file })
}
