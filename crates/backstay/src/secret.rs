//! Where a secret is kept, and reading it from there.
//!
//! Promise: a secret is never an argument, is wiped when dropped, and shows in no error; a file that every user of the
//! machine can read is named in a warning.
//! Not here: what the secret is (codec).

use crate::codes::Code;
use crate::environment::Environment;
use crate::failure::Failure;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

/// More than any key or passphrase has.
const SIZE_MAX: usize = 64 << 10;
/// How long a command may think about a secret.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(60);

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretPlace {
    /// In this file.
    File(PathBuf),
    /// In this variable of the environment.
    Variable(String),
    /// This program prints it: program and arguments, no shell.
    Command(Vec<String>),
}

/// A secret that was read.
pub struct Secret {
    /// The bytes, without one line end at their end.
    pub bytes: Zeroizing<Vec<u8>>,
    /// What a person should know about its place.
    pub warning: Option<String>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for SecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretPlace::File(path) => write!(f, "file {}", path.display()),
            SecretPlace::Variable(name) => write!(f, "variable {name}"),
            // Arguments may name what nobody else needs to know.
            SecretPlace::Command(command) => {
                write!(f, "command {}", command.first().map_or("", String::as_str))
            }
        }
    }
}

impl SecretPlace {
    /// Reads the secret.
    pub async fn read(&self, environment: &dyn Environment) -> Result<Secret, Failure> {
        let (bytes, warning) = match self {
            SecretPlace::File(path) => (read_file(path)?, readable_by_all(path)),
            SecretPlace::Variable(name) => (self.read_variable(name, environment)?, None),
            SecretPlace::Command(command) => (self.read_command(command).await?, None),
        };
        let secret = Secret {
            bytes: without_line_end(bytes),
            warning,
        };
        if secret.bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(self.missing(
                "it is empty",
                "put the key there, or correct keys: in the configuration",
            ));
        }
        Ok(secret)
    }

    fn read_variable(
        &self,
        name: &str,
        environment: &dyn Environment,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        match environment.get(name) {
            Some(value) => Ok(Zeroizing::new(value.into_bytes())),
            None if environment.is_no_text(name) => Err(self.missing(
                "its value is not UTF-8 text",
                "set it to the line that key new wrote, or to a passphrase in UTF-8",
            )),
            None => Err(self.missing("it is not set", "set it in the environment of this command")),
        }
    }

    async fn read_command(&self, command: &[String]) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let help = "run the command by hand and see what it says";
        let Some((program, arguments)) = command.split_first() else {
            return Err(self.missing("it is empty", "name a program in keys:"));
        };
        let mut process = tokio::process::Command::new(program);
        process
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        match tokio::time::timeout(COMMAND_TIME_MAX, printed(process)).await {
            Err(_) => Err(self.missing("it gave no answer within 60 s", help)),
            Ok(Err(error)) => Err(self.missing("it cannot be started", help).caused_by(&error)),
            Ok(Ok(None)) => Err(self.missing("it printed more than 64 KiB", help)),
            Ok(Ok(Some((_, status)))) if !status.success() => {
                Err(self.missing(&format!("it failed: {status}"), help))
            }
            Ok(Ok(Some((bytes, _)))) => Ok(bytes),
        }
    }

    fn missing(&self, reason: &str, help: &str) -> Failure {
        Failure::new(Code::KeyMissing, format!("no key from {self}: {reason}"), help)
    }
}

/// What a program printed, and how it ended; nothing if it is more than a secret can be. The program is ended then.
async fn printed(
    mut process: tokio::process::Command,
) -> std::io::Result<Option<(Zeroizing<Vec<u8>>, ExitStatus)>> {
    let mut child = process.spawn()?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(SIZE_MAX + 1));
    if let Some(output) = child.stdout.take() {
        output.take(limit()).read_to_end(&mut bytes).await?;
    }
    if bytes.len() > SIZE_MAX {
        return Ok(None);
    }
    Ok(Some((bytes, child.wait().await?)))
}

/// One byte more than is taken, to notice that there is more.
fn limit() -> u64 {
    u64::try_from(SIZE_MAX).unwrap_or(u64::MAX).saturating_add(1)
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(SIZE_MAX + 1));
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    Read::take(file, limit())
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, &error))?;
    if bytes.len() > SIZE_MAX {
        let help = "name the file that holds the key alone";
        return Err(Failure::new(Code::KeyMalformed, "a key file has at most 64 KiB", help).at(shown(path)));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let shown = shown(path);
    if error.kind() == std::io::ErrorKind::NotFound {
        let help = format!("bring the key file back from where you keep its copy to {shown}");
        return Failure::new(Code::KeyMissing, format!("there is no key file {shown}"), help).or(format!(
            "or, only for a repository that holds nothing yet: backstay key new {shown}"
        ));
    }
    let help = match error.kind() {
        std::io::ErrorKind::IsADirectory => {
            "name the file in this directory under keys: in the configuration"
        }
        _ => "give the user that runs this the right to read it",
    };
    Failure::new(
        Code::KeyMissing,
        format!("the key file {shown} cannot be read"),
        help,
    )
    .caused_by(error)
}

/// A warning if every user of the machine can read the file.
pub fn readable_by_all(path: &Path) -> Option<String> {
    let mode = path.metadata().ok()?.permissions().mode();
    let shown = shown(path);
    (mode & 0o004 != 0)
        .then(|| format!("the key file {shown} can be read by every user of this machine: chmod 600 {shown}"))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn without_line_end(mut bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    bytes
}
