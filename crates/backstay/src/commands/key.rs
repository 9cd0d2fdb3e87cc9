//! `key new` and `key show`; in files of their own `key check`, `key rotate` and `key recovery-sheet`.
//!
//! Promise: a key is printed by neither; a file that is there is never overwritten; the new file is on the disk, and its
//! owner's alone, before it is reported.

pub mod check;
pub mod recovery_sheet;
pub mod rotate;

use crate::cli::KeyNew;
use crate::codes::Code;
use crate::failure::Failure;
use crate::keys::{self, Key, Material};
use crate::new_file;
use crate::render::Report;
use crate::render::look::Look;
use crate::render::table::{Column, Table};
use crate::session::Session;
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

struct Made {
    file: PathBuf,
    id: String,
}

/// Makes a key file.
pub fn new(arguments: &KeyNew) -> Result<Box<dyn Report>, Failure> {
    let file = arguments.file.clone();
    let id = write_key_file(&file)?;
    Ok(Box::new(Made { file, id }))
}

/// Writes a new raw key into a file that is not there yet; returns the key's id.
pub fn write_key_file(file: &Path) -> Result<String, Failure> {
    let (key, line) = keys::new_master()?;
    let line = Zeroizing::new(format!("{}\n", *line));
    new_file::write(file, line.as_bytes()).map_err(|error| not_written(file, &error))?;
    Ok(key.master_key_id())
}

fn not_written(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    if error.kind() == io::ErrorKind::AlreadyExists {
        let message = format!("there is a file {shown} already, and a key file is never overwritten");
        let help = "give another name: backstay key new FILE";
        return Failure::new(Code::FileExists, message, help)
            .or("if nothing was ever stored with the key in it, move it away first");
    }
    let help = "give a file in a directory that exists and that you may write to: backstay key new FILE";
    Failure::new(
        Code::LocalFile,
        format!("the key file {shown} cannot be written"),
        help,
    )
    .caused_by(error)
}

impl Report for Made {
    fn human(&self, _: &Look) -> String {
        let file = self.file.display();
        // Whole, because the configuration may lie elsewhere.
        let absolute = std::path::absolute(&self.file);
        let absolute = absolute.as_deref().unwrap_or(&self.file).display();
        format!(
            "key      {}\nfile     {file}\nkeep     a copy of this file where the repository is not: whoever loses it loses \
             every backup,\n         and whoever finds it can read them\nnext     add {{ file: {absolute} }} to keys: in the configuration and leave \
             what is there,\n         which opens what is stored; then: backstay key rotate\n",
            self.id
        )
    }

    fn json(&self) -> Value {
        json!({ "id": self.id, "file": self.file.display().to_string() })
    }
}

struct Configured {
    keys: Vec<Key>,
}

/// Lists the configured keys by their ids.
pub async fn show(session: &mut Session) -> Result<Box<dyn Report>, Failure> {
    let loaded = keys::load(session).await?;
    Ok(Box::new(Configured { keys: loaded.keys }))
}

fn place(key: &Key) -> String {
    match (&key.material, key.source.secret()) {
        (_, Some(place)) => place.to_string(),
        (Material::None, None) => "stored unencrypted".to_owned(),
        (_, None) => "configuration".to_owned(),
    }
}

impl Report for Configured {
    fn human(&self, look: &Look) -> String {
        let mut table = Table::new([
            Column::needed("KIND"),
            Column::needed("ID"),
            Column::useful("FROM"),
        ]);
        for key in &self.keys {
            let id = key.id().unwrap_or_else(|| "-".to_owned());
            table.row([key.source.kind().to_owned(), id, place(key)]);
        }
        table.render(look)
    }

    fn json(&self) -> Value {
        let key = |key: &Key| json!({ "kind": key.source.kind(), "id": key.id(), "from": place(key) });
        json!({ "keys": self.keys.iter().map(key).collect::<Vec<Value>>() })
    }
}
