//! Is a service protected: its server, its slot, its backups, its log.
//!
//! Promise: reads only, at the server and in the repository.
//! Not here: what the server thinks of itself (backstay-postgres).

use super::{failed, slot};
use crate::access;
use crate::commands::seen::last_trouble;
use crate::config::Service;
use crate::failure::Failure;
use crate::session::Session;
use crate::units::count;
use backstay_postgres::PostgresSource;
use backstay_repository::{
    BackupKind, BackupObjects, Head, HeadState, HeadVerdict, Inventory, LogCheck, LogStore, Repository,
    oldest_first,
};
use backstay_source::{Finding, Source};
use backstay_terms::{EngineKind, RetentionClass};
use jiff::{SignedDuration, Timestamp};

/// Live ranges alone should not hold anything for longer: a bucket's own rules would delete them one day.
const SETTLED_WITHIN: SignedDuration = SignedDuration::from_hours(24);

/// After so long a bucket's own rule deletes a live range.
const LIVE_FOR: SignedDuration = SignedDuration::from_hours(90 * 24);

/// How old the newest long-kept full backup may be: a week, and a day in which to take the next.
const WEEKLY_WITHIN: SignedDuration = SignedDuration::from_hours(8 * 24);

/// How far back restores are looked for; none matter to a check.
const RESTORES_WITHIN: SignedDuration = SignedDuration::from_hours(1);

pub(super) async fn findings(
    session: &mut Session,
    service: &Service,
    repository: Option<&Repository>,
) -> Vec<Finding> {
    let server = match access::server(session, service) {
        Ok(server) => server,
        Err(failure) => return vec![failed("connection-string", &failure)],
    };
    let mut findings = server.check().await;
    let Some(repository) = repository else {
        return findings;
    };
    let now = session.clock.now();
    match stored(repository, service, now).await {
        Ok(inventory) => {
            slot::compare(&mut findings, &server, (repository, service, &inventory)).await;
            let mut heads: Vec<&Head> = inventory
                .backups
                .iter()
                .filter_map(|backup| backup.opened())
                .collect();
            oldest_first(&mut heads, now);
            findings.extend(system(&server, &heads).await);
            findings.extend(closed(&inventory));
            findings.extend(newest(service, &inventory, &heads, now));
            findings.extend(weekly(service, &heads, now));
            findings.push(settled(repository, service, &inventory, now));
        }
        Err(failure) => findings.push(failed("stored", &failure)),
    }
    findings.extend(trouble(repository, service, now).await);
    findings
}

async fn stored(repository: &Repository, service: &Service, now: Timestamp) -> Result<Inventory, Failure> {
    let since = now.checked_sub(RESTORES_WITHIN).unwrap_or(Timestamp::MIN);
    Ok(repository
        .inventory(EngineKind::Postgres, &service.name, since)
        .await?)
}

/// Whether the server is the one that was backed up. That it does not answer is told already.
async fn system(server: &PostgresSource, heads: &[&Head]) -> Option<Finding> {
    let known = heads.iter().rev().find_map(|head| head.log.as_ref())?.system;
    let found = server.identify().await.ok()?.place.system;
    Some(match found == known {
        true => Finding::good(
            "system",
            format!("system identifier {found}, as in the newest backup"),
        ),
        false => Finding::failure(
            "system",
            format!("the server is system {found}, and the newest backup is of system {known}"),
            "check the connection string; if the new server is meant, give it a service of its own",
        ),
    })
}

/// Backups that are there and that the configured keys do not open.
fn closed(inventory: &Inventory) -> Option<Finding> {
    let mut closed = inventory.backups.iter().filter_map(|backup| match &backup.head {
        HeadState::Closed(_, why) => Some(why),
        _ => None,
    });
    let first = closed.next()?;
    let number = 1 + closed.count();
    let cannot = format!("{} cannot be opened: {first}", count(number, "stored backup"));
    let fix = "see which key opens what: backstay key check";
    Some(Finding::failure("sealed", cannot, fix))
}

/// How the newest backup is; none if all that is stored is sealed to us, which is told already.
fn newest(service: &Service, inventory: &Inventory, heads: &[&Head], now: Timestamp) -> Option<Finding> {
    let sealed = |backup: &BackupObjects| matches!(backup.head, HeadState::Closed(..));
    if heads.is_empty() && inventory.backups.iter().any(sealed) {
        return None;
    }
    Some(newest_opened(service, heads, now))
}

fn newest_opened(service: &Service, heads: &[&Head], now: Timestamp) -> Finding {
    let fix = format!("backstay backup {}", service.name);
    let Some(head) = heads.iter().rev().find(|head| head.is_usable(now)) else {
        let what = match heads.is_empty() {
            true => "there is no backup yet: nothing can be recovered",
            false => "no backup is usable: each is damaged or past its time",
        };
        return Finding::warning("backup", what, fix);
    };
    let taken = crate::time::to_the_second(head.created);
    match head.verdict {
        HeadVerdict::Good => Finding::good("backup", format!("the newest is {} of {taken}", head.backup)),
        HeadVerdict::Damaged => {
            Finding::failure("backup", format!("the newest, of {taken}, is damaged"), fix)
        }
    }
}

/// A bucket's own rules know no floor: only a backup of a long class outlives a service that stopped being backed up.
fn weekly(service: &Service, heads: &[&Head], now: Timestamp) -> Option<Finding> {
    if heads.is_empty() {
        return None;
    }
    let is_recent = |head: &Head| now.duration_since(head.began()) <= WEEKLY_WITHIN;
    let is_long = |head: &Head| head.class != RetentionClass::Days35 && head.kind == BackupKind::Full;
    Some(match heads.iter().any(|head| is_recent(head) && is_long(head)) {
        true => Finding::good(
            "weekly",
            "a full backup of this week is kept for a year or longer",
        ),
        false => Finding::warning(
            "weekly",
            "no full backup of this week is kept for a year or longer",
            weekly_fix(service),
        ),
    })
}

/// A backup of its own accord is enough where the configuration keeps one a week for so long.
fn weekly_fix(service: &Service) -> String {
    match service.retention.policy().weekly {
        None | Some(RetentionClass::Days35) => format!(
            "set retention: {{ weekly: 7y }} in the configuration, or take one by hand: backstay backup {} --keep 1y",
            service.name
        ),
        Some(_) => format!("backstay backup {}", service.name),
    }
}

fn settled(repository: &Repository, service: &Service, inventory: &Inventory, now: Timestamp) -> Finding {
    let log = LogStore::new(repository, EngineKind::Postgres, &service.name);
    let late = inventory
        .branches
        .iter()
        .flat_map(|branch| LogCheck::new(&log, branch).unsettled(now, SETTLED_WITHIN, LIVE_FOR));
    match late.min_by_key(|unsettled| unsettled.lost_at) {
        None => Finding::good("settled", "no log waits for longer than a day to be settled"),
        Some(late) => Finding::failure(
            "settled",
            format!(
                "log has been in live ranges alone since {}; a bucket's own rule would delete it on {}",
                crate::time::to_the_second(late.since),
                crate::time::to_the_second(late.lost_at)
            ),
            format!("backstay wal settle {}", service.name),
        ),
    }
}

async fn trouble(repository: &Repository, service: &Service, now: Timestamp) -> Option<Finding> {
    match last_trouble(repository, &service.name, now).await {
        Ok(None) => None,
        Ok(Some(run)) => {
            let error = run.error.unwrap_or_else(|| "it does not say why".to_owned());
            let what = format!("the last {} failed: {error}", run.started.verb);
            Some(Finding::warning(
                "runs",
                what,
                format!("backstay show run {}", run.started.run),
            ))
        }
        Err(failure) => Some(failed("runs", &failure)),
    }
}
