//! What the demo claims, and the comparisons that show it.
//!
//! Promise: counts and digests of the tables are taken on the source before the accident and on the restored server, row
//! by row through the digest; a claim holds only if both were read in this run.
//! Not here: when they are taken (story).

use super::server::one;
use crate::failure::Failure;
use backstay_postgres::Connection;
use backstay_repository::{Head, HeadVerdict};
use backstay_terms::Lsn;

/// A cluster of its own has more files than this.
const FILES_MIN: u64 = 900;

/// Something that was claimed and compared.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The claim.
    pub name: String,
    /// What was seen.
    pub seen: String,
    /// Whether it held.
    pub held: Held,
}

/// Whether a proof held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// As claimed.
    Yes,
    /// Not so.
    No,
}

/// What a table holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// How many rows.
    pub rows: String,
    /// Over all columns of all rows, in order.
    pub digest: String,
}

/// What was seen on the way.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The tables before the accident.
    pub before: &'a [Content],
    /// The tables of the copy.
    pub after: &'a [Content],
    /// The backup.
    pub head: &'a Head,
    /// How far the log was durable when the server was killed.
    pub confirmed: Lsn,
    /// Where the accident ended, as the server said it.
    pub dropped: &'a str,
}

/// Rows and digests of both tables.
pub async fn contents(connection: &mut Connection) -> Result<Vec<Content>, Failure> {
    let mut contents = Vec::new();
    for table in ["orders", "customers"] {
        let rows = one(connection, &format!("SELECT count(*) FROM {table}")).await?;
        let digest = format!("SELECT md5(string_agg(md5(t::text), '' ORDER BY id)) FROM {table} t");
        contents.push(Content {
            rows,
            digest: one(connection, &digest).await?,
        });
    }
    Ok(contents)
}

impl Seen<'_> {
    /// Every claim with what was seen.
    pub fn proofs(&self) -> Vec<Proof> {
        let (rows_before, rows_after) = (rows(self.before), rows(self.after));
        let (confirmed, dropped) = (self.confirmed, self.dropped);
        let Head { verdict, totals, .. } = self.head;
        let digests = digests(self.after).join(", ");
        vec![
            proof(
                "every row is back",
                format!("{rows_before} rows before the drop, {rows_after} after the restore"),
                rows_before == rows_after,
            ),
            proof(
                "every row is equal",
                format!("digests over all columns of all rows: {digests}"),
                self.before == self.after,
            ),
            proof(
                "the log was stored past the accident",
                format!(
                    "the drop ended at {dropped}, {confirmed} was confirmed before the server was killed"
                ),
                dropped.parse::<Lsn>().is_ok_and(|dropped| confirmed >= dropped),
            ),
            proof(
                "the backup was complete and checked against the server's manifest",
                format!("{} files, verdict {verdict:?}", totals.files),
                *verdict == HeadVerdict::Good && totals.files > FILES_MIN,
            ),
        ]
    }
}

fn rows(contents: &[Content]) -> String {
    let rows: Vec<&str> = contents.iter().map(|content| content.rows.as_str()).collect();
    rows.join(" + ")
}

fn digests(contents: &[Content]) -> Vec<&str> {
    contents.iter().map(|content| content.digest.as_str()).collect()
}

fn proof(name: &str, seen: String, equal: bool) -> Proof {
    Proof {
        name: name.to_owned(),
        seen,
        held: if equal { Held::Yes } else { Held::No },
    }
}
