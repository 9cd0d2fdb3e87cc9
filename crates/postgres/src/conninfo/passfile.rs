//! libpq's password file (manual 34.16).
//!
//! Promise: read anew for each connection, so that a changed password needs no restart. A file that others may read is
//! not used, and the caller learns why.
//! Not here: when a password is needed at all.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::{Host, HostAddress, SOCKET_DIRECTORY_DEFAULT, Secret};

const FILE_BYTES_MAX: u64 = 1 << 20;

/// Which line is looked for.
#[derive(Debug)]
pub struct PassfileQuery<'a> {
    /// The server.
    pub host: &'a Host,
    /// The database, or `replication`.
    pub database: &'a str,
    /// The role.
    pub user: &'a str,
}

/// What the file said.
#[derive(Debug, PartialEq, Eq)]
pub enum PassfileAnswer {
    /// The first line that matches.
    Password(Secret),
    /// No file, or no line for this server.
    Nothing,
    /// There is a file and it was not used, for this reason.
    Ignored(String),
}

impl PassfileQuery<'_> {
    /// Looks into the file at `path`.
    pub fn ask(&self, path: &Path) -> PassfileAnswer {
        match read(path) {
            Ok(Some(text)) => self.find(&text),
            Ok(None) => PassfileAnswer::Nothing,
            Err(reason) => PassfileAnswer::Ignored(reason),
        }
    }

    fn find(&self, text: &str) -> PassfileAnswer {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        match lines.filter_map(|line| self.password_in(line)).next() {
            Some(password) => PassfileAnswer::Password(password),
            None => PassfileAnswer::Nothing,
        }
    }

    fn password_in(&self, line: &str) -> Option<Secret> {
        let port = self.host.port.to_string();
        let mut rest = line;
        for wanted in [self.host_word().as_str(), &port, self.database, self.user] {
            let (field, after) = field(rest)?;
            if rest[..rest.len() - after.len() - 1] != *"*" && *field != wanted {
                return None;
            }
            rest = after;
        }
        // The password is the last field; a further colon ends it, as in libpq.
        let password = field(rest).map_or_else(|| unescaped(rest), |(password, _)| password);
        Some(Secret::new(password.to_string())).filter(|password| !password.expose().is_empty())
    }

    // libpq: the default socket directory is called localhost in the file.
    fn host_word(&self) -> String {
        match &self.host.address {
            HostAddress::Unix(path) if path == Path::new(SOCKET_DIRECTORY_DEFAULT) => "localhost".to_owned(),
            HostAddress::Unix(path) => path.display().to_string(),
            HostAddress::Tcp(name) => name.clone(),
        }
    }
}

/// The text up to the next colon that is not escaped, and what follows the colon.
fn field(text: &str) -> Option<(Zeroizing<String>, &str)> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ':' => return Some((unescaped(&text[..at]), &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unescaped(text: &str) -> Zeroizing<String> {
    let mut plain = Zeroizing::new(String::with_capacity(text.len()));
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => plain.extend(characters.next()),
            c => plain.push(c),
        }
    }
    plain
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, String> {
    let failed = |error: std::io::Error| format!("password file {} cannot be read: {error}", path.display());
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() {
        return Err(format!("password file {} is not a plain file", path.display()));
    }
    if facts.mode() & 0o077 != 0 {
        return Err(format!(
            "password file {} can be read by others, so it is not used; chmod 600 {}",
            path.display(),
            path.display()
        ));
    }
    let mut text = Zeroizing::new(String::new());
    file.by_ref()
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(Some(text))
}
