//! `wal gaps` and `wal settle`: the stored log itself.

use super::seen::{Seen, chosen};
use crate::access;
use crate::cli::Services;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::render::table::{Column, Table};
use crate::session::Session;
use backstay_engine::jobs::stream::settle_all;
use backstay_engine::{Fact, Observer};
use backstay_terms::{ByteCount, LogRange, Lsn};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// Lists the gaps of the stored log.
pub async fn gaps(session: &mut Session, arguments: &Services) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let services = chosen(&config, arguments.service.as_deref())?;
    let repository = access::repository(session).await?;
    let now = session.clock.now();
    let mut seen = Vec::new();
    for service in services {
        seen.push(Seen::of(&repository, service, now).await?);
    }
    Ok(Box::new(Gaps { seen }))
}

struct Gaps {
    seen: Vec<Seen>,
}

impl Gaps {
    fn all(&self) -> impl Iterator<Item = (&Seen, &LogRange)> {
        self.seen
            .iter()
            .flat_map(|seen| seen.window.gaps.iter().map(move |gap| (seen, gap)))
    }
}

impl Report for Gaps {
    fn human(&self, look: &Look) -> String {
        let mut table = Table::new([
            Column::needed("SERVICE"),
            Column::needed("FROM"),
            Column::needed("TO"),
            Column::useful("MISSING").right(),
        ]);
        for (seen, gap) in self.all() {
            let missing = ByteCount(gap.length()).to_string();
            let (from, to) = (Lsn::from(gap.from).to_string(), Lsn::from(gap.to).to_string());
            table.row([seen.service.to_string(), from, to, missing]);
        }
        match self.all().next() {
            None => "no gaps: the stored log is whole from its first byte to its last\n".to_owned(),
            Some(_) => {
                table.render(look)
                    + "points before a gap can be recovered up to it, points after it from the next backup on\n"
            }
        }
    }

    fn json(&self) -> Value {
        let gap = |(seen, gap): (&Seen, &LogRange)| {
            json!({
                "service": seen.service, "from_lsn": Lsn::from(gap.from), "to_lsn": Lsn::from(gap.to),
                "bytes": gap.length(),
            })
        };
        json!({ "gaps": self.all().map(gap).collect::<Vec<_>>() })
    }
}

/// Writes settled ranges for whatever only live ranges hold. Needs the repository and the keys, never the server.
pub async fn settle(session: &mut Session, arguments: &Services) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let services = chosen(&config, arguments.service.as_deref())?;
    let repository = access::repository(session).await?;
    let mut settled = Vec::new();
    for service in services {
        let counter = Counter::default();
        settle_all(&repository, &service.name, &counter).await?;
        settled.push((service.name.to_string(), counter.0.into_inner()));
    }
    Ok(Box::new(Settled { settled }))
}

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Observer for Counter {
    fn observe(&self, fact: &Fact) {
        if let Fact::Settled { bytes } = fact {
            self.0.fetch_add(bytes.0, Ordering::Relaxed);
        }
    }
}

struct Settled {
    settled: Vec<(String, u64)>,
}

impl Report for Settled {
    fn human(&self, _: &Look) -> String {
        let line = |(service, bytes): &(String, u64)| match bytes {
            0 => format!("{service}: everything was settled already\n"),
            bytes => format!("{service}: {} settled\n", ByteCount(*bytes)),
        };
        self.settled.iter().map(line).collect()
    }

    fn json(&self) -> Value {
        let one = |(service, bytes): &(String, u64)| json!({ "service": service, "bytes": bytes });
        json!({ "services": self.settled.iter().map(one).collect::<Vec<_>>() })
    }
}
