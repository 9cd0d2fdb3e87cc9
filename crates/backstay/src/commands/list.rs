//! `list`: the backups.

use super::seen::{NO_SERVICES, Seen, exit_of, show_range};
use crate::cli::Services;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::render::table::{Column, Table};
use crate::session::Session;
use crate::units::count;
use backstay_engine::plan::{LostBackup, Unreadable};
use backstay_repository::{Head, HeadVerdict};
use serde_json::{Value, json};

/// The backups of one service, or of all.
pub async fn list(session: &mut Session, arguments: &Services) -> Result<Box<dyn Report>, Failure> {
    let seen = Seen::of_all(session, arguments).await?;
    Ok(Box::new(List { seen }))
}

/// What a backup is good for: every point after it, its own point only, or nothing sure.
pub fn state(seen: &Seen, head: &Head) -> &'static str {
    let alone = || {
        seen.window
            .points
            .iter()
            .any(|(backup, _)| *backup == head.backup)
    };
    match head.verdict {
        HeadVerdict::Damaged => "damaged",
        HeadVerdict::Good if alone() => "snapshot-only",
        HeadVerdict::Good => "pitr",
    }
}

struct List {
    seen: Vec<Seen>,
}

impl List {
    fn hint(&self) -> String {
        let none =
            |seen: &&Seen| seen.heads.is_empty() && seen.unread.heads.is_empty() && seen.lost.is_empty();
        let told = |seen: &&Seen| seen.trouble.is_none();
        let empty = self.seen.iter().filter(none).filter(told);
        let hint = |seen: &Seen| {
            format!(
                "{0} has no backup yet; take one: backstay backup {0}\n",
                seen.service
            )
        };
        let untold = self.seen.iter().filter_map(Seen::untold_line);
        empty.map(hint).chain(untold).collect()
    }

    fn logs(&self, look: &Look) -> String {
        let lines: String = self.seen.iter().filter_map(|seen| log_line(seen, look)).collect();
        match lines.is_empty() {
            true => lines,
            false => format!("\n{lines}"),
        }
    }
}

/// The log that the backups of a service stand in, in a line; none where it has none.
fn log_line(seen: &Seen, look: &Look) -> Option<String> {
    let window = &seen.window;
    let (oldest, newest) = (window.ranges.first()?, window.ranges.last()?);
    let range = show_range(look, oldest.from_time, newest.to_time);
    let gaps = count(window.gaps.len(), "gap");
    Some(format!("log  {}  {range}  {gaps}\n", seen.service))
}

impl Report for List {
    fn human(&self, look: &Look) -> String {
        if self.seen.is_empty() {
            return NO_SERVICES.to_owned();
        }
        let mut table = Table::new([
            Column::needed("BACKUP"),
            Column::needed("SERVICE"),
            Column::useful("TAKEN"),
            Column::extra("KIND"),
            Column::useful("SIZE").right(),
            Column::useful("STORED").right(),
            Column::extra("CLASS"),
            Column::useful("KEPT UNTIL"),
            Column::needed("STATE"),
        ]);
        let rows = self
            .seen
            .iter()
            .flat_map(|seen| seen.heads.iter().rev().map(move |head| (seen, head)));
        for (seen, head) in rows.clone() {
            table.row([
                head.backup.to_string(),
                seen.service.to_string(),
                look.time(head.created),
                head.kind.name().to_owned(),
                head.totals.bytes.to_string(),
                head.totals.stored.to_string(),
                head.class.to_string(),
                look.time(head.expires_at),
                state(seen, head).to_owned(),
            ]);
        }
        let closed: Vec<(&Seen, Unreadable)> = self
            .seen
            .iter()
            .flat_map(|seen| {
                seen.unread
                    .objects()
                    .into_iter()
                    .map(move |object| (seen, object))
            })
            .collect();
        for (seen, object) in &closed {
            let Some(backup) = &object.backup else { continue };
            let unknown = || "-".to_owned();
            table.row([
                backup.to_string(),
                seen.service.to_string(),
                object.begun.map_or_else(unknown, |begun| look.time(begun)),
                backup.kind().to_owned(),
                unknown(),
                unknown(),
                object.class.map_or_else(unknown, |class| class.to_string()),
                unknown(),
                "unreadable".to_owned(),
            ]);
        }
        let lost: Vec<(&Seen, &LostBackup)> = self
            .seen
            .iter()
            .flat_map(|seen| seen.lost.iter().map(move |lost| (seen, lost)))
            .collect();
        for (seen, lost) in &lost {
            table.row([
                lost.backup.to_string(),
                seen.service.to_string(),
                look.time(lost.committed),
                lost.backup.kind().to_owned(),
                "-".to_owned(),
                "-".to_owned(),
                "-".to_owned(),
                look.time(lost.promised),
                "lost".to_owned(),
            ]);
        }
        match rows.count() + closed.len() + lost.len() {
            0 => self.hint(),
            _ => table.render(look) + &self.logs(look) + &self.hint(),
        }
    }

    fn json(&self) -> Value {
        let head = |seen: &Seen, head: &Head| {
            json!({
                "backup": head.backup, "kind": head.kind, "created": head.created, "class": head.class,
                "expires_at": head.expires_at, "bytes": head.totals.bytes, "stored": head.totals.stored,
                "verdict": head.verdict, "state": state(seen, head),
            })
        };
        let one = |seen: &Seen| {
            let backups: Vec<Value> = seen.heads.iter().rev().map(|h| head(seen, h)).collect();
            let lost = seen
                .lost
                .iter()
                .map(|lost| json!({ "backup": lost.backup, "run": lost.run, "committed": lost.committed }));
            json!({
                "service": seen.service, "backups": backups, "unreadable": seen.unreadable,
                "lost": lost.collect::<Vec<_>>(),
                "trouble": seen.trouble.as_ref().map(|trouble| &trouble.message),
            })
        };
        json!({ "services": self.seen.iter().map(one).collect::<Vec<_>>() })
    }

    fn exit(&self) -> Exit {
        exit_of(&self.seen)
    }
}
