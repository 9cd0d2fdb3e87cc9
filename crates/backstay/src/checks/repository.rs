//! Is the repository there, can it be written, and is time what we think it is.
//!
//! Promise: no object is written, not even for a trial: a writer has no right to delete one again, so it would stay. For a
//! directory the file system is asked instead.

use super::failed;
use crate::config::{Config, RepositoryPlace};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::Session;
use backstay_repository::Repository;
use backstay_source::Finding;
use backstay_store::Prefix;
use backstay_terms::ByteCount;
use jiff::SignedDuration;
use rustix::fs::{Access, access, statvfs};
use std::path::Path;

/// Below this a backup of anything fails soon.
const SPACE_MIN: u64 = 1 << 30;

/// Below this not even one pack can be stored.
const SPACE_NONE: u64 = 32 << 20;

/// A clock that is wrong by more is named.
const SKEW_MAX: SignedDuration = SignedDuration::from_mins(2);

pub(super) async fn findings(
    session: &Session,
    config: &Config,
    opened: &Result<Repository, Failure>,
) -> Vec<Finding> {
    let place = &config.repository.value;
    let RepositoryPlace::Directory(path) = place;
    let repository = match opened {
        Ok(repository) => repository,
        // What is wrong with the keys is told among them.
        Err(failure) if failure.code.exit() == Exit::Key => {
            let mut findings = vec![unopened(&place.to_string(), path)];
            findings.push(writing(path));
            findings.extend(space(path));
            return findings;
        }
        Err(failure) => return vec![failed("repository", failure)],
    };
    let mut findings = vec![listing(repository, &place.to_string()).await];
    findings.push(writing(path));
    findings.extend(space(path));
    findings.push(clock(session, repository).await);
    findings
}

/// A repository that was not opened, because a key is wanting.
fn unopened(place: &str, path: &Path) -> Finding {
    match path.join("repository.json").is_file() {
        true => Finding::warning(
            "repository",
            format!("{place} is there, and is not looked into without a key"),
            "bring the key back first",
        ),
        false => Finding::failure(
            "repository",
            format!("{place}: there is no repository at this place"),
            "check repo in the configuration, and that the disk is mounted; or make a new one: backstay init",
        ),
    }
}

async fn listing(repository: &Repository, place: &str) -> Finding {
    match repository.store().list_page(&Prefix::everything(), None, 1).await {
        Ok(_) => Finding::good("repository", format!("{place}, id {}", repository.id())),
        Err(error) => failed("repository", &Failure::from(&error)),
    }
}

fn writing(path: &Path) -> Finding {
    match access(path, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::good("write", "the directory can be written"),
        Err(error) => {
            let fix = format!(
                "give this user the directory {}, or mount it for writing",
                path.display()
            );
            Finding::failure("write", format!("the directory cannot be written: {error}"), fix)
        }
    }
}

fn space(path: &Path) -> Option<Finding> {
    let facts = statvfs(path).ok()?;
    Some(room(facts.f_bavail.saturating_mul(facts.f_frsize)))
}

/// What so many free bytes mean.
fn room(free: u64) -> Finding {
    let what = format!("{} free", ByteCount(free));
    let fix = "free space there, or choose another place for the repository";
    match free {
        ..SPACE_NONE => Finding::failure("space", what, fix),
        SPACE_NONE..SPACE_MIN => Finding::warning("space", what, fix),
        _ => Finding::good("space", what),
    }
}

async fn clock(session: &Session, repository: &Repository) -> Finding {
    let fix = "let the clock of this machine be set by the network: timedatectl set-ntp true";
    match repository.store_skew().await {
        Ok(Some(skew)) if skew > SKEW_MAX => {
            let what = format!(
                "the clock of this machine and the store's differ by {} s",
                skew.as_secs()
            );
            Finding::warning("clock", what, fix)
        }
        Ok(Some(_)) => Finding::good("clock", "it agrees with the store's"),
        Ok(None) => Finding::good(
            "clock",
            format!(
                "{} by this machine",
                crate::time::to_the_second(session.clock.now())
            ),
        ),
        Err(error) => failed("clock", &Failure::from(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstay_source::Severity;

    #[test]
    fn a_repository_without_room_for_a_pack_fails_and_one_that_is_nearly_full_warns() {
        for (free, severity) in [
            (0, Severity::Failure),
            (SPACE_NONE - 1, Severity::Failure),
            (SPACE_NONE, Severity::Warning),
            (SPACE_MIN, Severity::Good),
        ] {
            assert_eq!(room(free).severity, severity, "{free}");
        }
    }
}
