//! `list`: the backups.

use super::seen::{NO_SERVICES, Seen, exit_of, misdated_words, show_range};
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
use backstay_terms::{ByteCount, RetentionClass};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The backups of one service, or of all.
pub async fn list(session: &mut Session, arguments: &Services) -> Result<Box<dyn Report>, Failure> {
    let seen = Seen::of_all(session, arguments).await?;
    let now = session.clock.now();
    Ok(Box::new(List { seen, now }))
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
    now: Timestamp,
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
        let misdated = |seen: &Seen| {
            let words = seen
                .heads
                .iter()
                .filter_map(|head| misdated_words(head, self.now));
            words
                .map(|words| format!("{}: {words}\n", seen.service))
                .collect::<String>()
        };
        let misdated = self.seen.iter().map(misdated);
        empty.map(hint).chain(untold).chain(misdated).collect()
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

impl List {
    /// A row for each backup, then for each that cannot be read, then for each that is lost.
    fn rows(&self) -> impl Iterator<Item = Row> {
        let seen = || self.seen.iter();
        let good = seen().flat_map(|seen| seen.heads.iter().rev().map(|head| Row::of(seen, head)));
        let closed = seen().flat_map(|seen| {
            let objects = seen.unread.objects().into_iter();
            objects.filter_map(|object| Row::unreadable(seen, &object))
        });
        let lost = seen().flat_map(|seen| seen.lost.iter().map(|lost| Row::lost(seen, lost)));
        good.chain(closed).chain(lost)
    }
}

/// What a line says; a figure that is not known is none.
struct Row {
    backup: String,
    service: String,
    taken: Option<Timestamp>,
    kind: String,
    sizes: Option<(ByteCount, ByteCount)>,
    class: Option<RetentionClass>,
    until: Option<Timestamp>,
    state: &'static str,
}

impl Row {
    fn of(seen: &Seen, head: &Head) -> Row {
        Row {
            backup: head.backup.to_string(),
            service: seen.service.to_string(),
            taken: Some(head.created),
            kind: head.kind.name().to_owned(),
            sizes: Some((head.totals.bytes, head.totals.stored)),
            class: Some(head.class),
            until: Some(head.expires_at),
            state: state(seen, head),
        }
    }

    /// None for an object that is no backup.
    fn unreadable(seen: &Seen, object: &Unreadable) -> Option<Row> {
        let backup = object.backup.as_ref()?;
        Some(Row {
            backup: backup.to_string(),
            service: seen.service.to_string(),
            taken: object.begun,
            kind: backup.kind().to_owned(),
            sizes: None,
            class: object.class,
            until: None,
            state: "unreadable",
        })
    }

    fn lost(seen: &Seen, lost: &LostBackup) -> Row {
        Row {
            backup: lost.backup.to_string(),
            service: seen.service.to_string(),
            taken: Some(lost.committed),
            kind: lost.backup.kind().to_owned(),
            sizes: None,
            class: None,
            until: Some(lost.promised),
            state: "lost",
        }
    }

    fn cells(self, look: &Look) -> [String; 9] {
        let time = |time: Option<Timestamp>| time.map(|time| look.time(time));
        let (bytes, stored) = self.sizes.unzip();
        let or_unknown = |known: Option<String>| known.unwrap_or_else(|| "-".to_owned());
        [
            self.backup,
            self.service,
            or_unknown(time(self.taken)),
            self.kind,
            or_unknown(bytes.map(|bytes| bytes.to_string())),
            or_unknown(stored.map(|stored| stored.to_string())),
            or_unknown(self.class.map(|class| class.to_string())),
            or_unknown(time(self.until)),
            self.state.to_owned(),
        ]
    }
}

impl Report for List {
    fn human(&self, look: &Look) -> String {
        if self.seen.is_empty() {
            return NO_SERVICES.to_owned();
        }
        let mut rows = self.rows().peekable();
        if rows.peek().is_none() {
            return self.hint();
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
        for row in rows {
            table.row(row.cells(look));
        }
        table.render(look) + &self.logs(look) + &self.hint()
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
