//! The words with which a restored server fetches its log: the value of `restore_command`.
//!
//! Promise: names the program, the configuration, the lineage, the base and the end of the recovery, so that the
//! server gets exactly the log of the plan whatever is stored later; holds no secret.
//! Not here: whether it is used (engine), what it does (commands::wal_fetch).

use crate::codes::Code;
use crate::config::{Config, Origin, Service};
use crate::failure::Failure;
use crate::render::shell;
use backstay_engine::plan::{Catalog, Chain, RestorePlan};
use backstay_terms::Lsn;
use std::path::Path;

/// The command, with `%f` and `%p` in it.
///
/// # Errors
/// A path that a setting of the server cannot hold; this program cannot tell where it is.
pub fn fetch_command(
    config: &Config,
    service: &Service,
    catalog: &Catalog,
    plan: &RestorePlan,
) -> Result<String, Failure> {
    let program = std::env::current_exe().map_err(|error| {
        let help = "run the program by its full path";
        Failure::new(Code::LocalFile, "this program cannot tell where it lies", help).caused_by(&error)
    })?;
    let mut words = vec![path(&program)?, "--config".to_owned(), path(&config.file)?];
    // The server has neither our flags nor our environment.
    if !matches!(config.repository.origin, Origin::Line(_)) {
        words.extend(["--repo".to_owned(), quoted(&config.repository.value.to_string())]);
    }
    words.extend(["wal", "fetch", service.name.as_str(), "%f", "%p"].map(str::to_owned));
    if let Some(link) = catalog.chain.as_ref().and_then(Chain::target) {
        words.extend(["--lineage".to_owned(), link.branch.to_string()]);
    }
    words.extend(["--base".to_owned(), plan.head.backup.to_string()]);
    words.extend(["--until".to_owned(), Lsn::from(plan.needs).to_string()]);
    Ok(words.join(" "))
}

fn path(path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let fit = absolute
        .to_str()
        .filter(|text| !text.chars().any(char::is_control));
    fit.map(quoted).ok_or_else(|| {
        let message = format!("{} cannot be written into a server's settings", path.display());
        Failure::new(
            Code::LocalFile,
            message,
            "use a path of printable UTF-8 characters",
        )
    })
}

/// A word for the shell that the server starts, which gets `%%` as `%`.
fn quoted(word: &str) -> String {
    shell::quoted(&word.replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_program_as_they_are() {
        for (word, expected) in [
            ("/usr/bin/backstay", "/usr/bin/backstay"),
            ("/srv/my files/b", "'/srv/my files/b'"),
            ("/srv/it's/100%", r"'/srv/it'\''s/100%%'"),
            ("file:///srv/b?x=$HOME", "'file:///srv/b?x=$HOME'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
