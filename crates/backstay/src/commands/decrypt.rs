//! `decrypt`: the content of one sealed object, by its name.
//!
//! Promise: a file is never overwritten, and only its owner can read what is written.

use crate::access;
use crate::cli::Decrypt;
use crate::codes::Code;
use crate::failure::Failure;
use crate::new_file;
use crate::render::Report;
use crate::render::look::Look;
use crate::session::Session;
use backstay_store::Key;
use backstay_terms::ByteCount;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Opens one object; its bytes go to standard output as they are, or into a new file.
pub async fn decrypt(session: &mut Session, arguments: &Decrypt) -> Result<Box<dyn Report>, Failure> {
    let repository = access::repository(session).await?;
    let is_name = Key::new(&arguments.object).is_ok();
    let content = match is_name {
        true => repository.decrypt(&arguments.object).await?,
        false => None,
    };
    let content = content.ok_or_else(|| not_sealed(&arguments.object))?;
    let Some(file) = arguments.into.clone() else {
        session.printer.bytes(&content)?;
        return Ok(Box::new(Nothing));
    };
    new_file::write(&file, &content).map_err(|error| {
        let help = "give a file that is not there yet, in a directory that you may write to: --into FILE";
        let message = format!("{} cannot be written", file.display());
        Failure::new(Code::LocalFile, message, help).caused_by(&error)
    })?;
    Ok(Box::new(Written {
        file,
        bytes: content.len() as u64,
    }))
}

fn not_sealed(object: &str) -> Failure {
    let help = "give a name as it stands below the repository's directory, such as facts/runs/2026/11/23/…";
    Failure::new(
        Code::NotFound,
        format!("{object} is not the name of a sealed object"),
        help,
    )
    .or("wraps, keyring/ and repository.json are JSON and not sealed: read them as they are")
}

/// Everything was printed already.
struct Nothing;

impl Report for Nothing {
    fn human(&self, _: &Look) -> String {
        String::new()
    }

    fn json(&self) -> Value {
        Value::Null
    }
}

struct Written {
    file: PathBuf,
    bytes: u64,
}

impl Report for Written {
    fn human(&self, _: &Look) -> String {
        format!("written   {} ({})\n", self.file.display(), ByteCount(self.bytes))
    }

    fn json(&self) -> Value {
        json!({ "file": self.file.display().to_string(), "bytes": self.bytes })
    }
}
