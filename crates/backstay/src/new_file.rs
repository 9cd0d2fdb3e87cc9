//! Writes a file that was not there, or nothing.
//!
//! Promise: whatever call the process dies at, the name leads to the whole content or to nothing; a file that is there is
//! never overwritten; only the owner can read the new one, and it is on the disk when this returns.
//! Not here: what is written.

use backstay_codec::random_u64;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes `content` under a name that must be free.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let whole = parent.join(format!(".{name}.{:016x}", random_u64()));
    // A link fails when the name is taken; a rename would overwrite.
    let linked = write_through(&whole, content).and_then(|()| std::fs::hard_link(&whole, path));
    // A leftover is a nuisance; the outcome of the link is what counts.
    let _ = std::fs::remove_file(&whole);
    linked?;
    File::open(parent)?.sync_all()
}

fn write_through(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
