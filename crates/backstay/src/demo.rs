//! `demo`: the whole loop on a throw-away server of this machine.
//!
//! Promise: what is printed was measured and compared in this run; everything made is removed unless `--keep` is given;
//! nothing outside its own directory is touched.
//! Not here: the server (server), the steps (story).

mod server;
mod story;

use crate::cli::Demo;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::session::Session;
use backstay_terms::ByteCount;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use story::Story;

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

impl Held {
    fn from_comparison(equal: bool) -> Held {
        if equal { Held::Yes } else { Held::No }
    }
}

/// Runs the loop.
pub async fn demo(session: &mut Session, arguments: &Demo) -> Result<Box<dyn Report>, Failure> {
    let story = Story::begin(session, arguments)?;
    let told = story.tell(session).await;
    Ok(Box::new(told?))
}

/// What the loop proved.
#[derive(Debug)]
pub struct Told {
    /// The claims.
    pub proofs: Vec<Proof>,
    /// How long each step took.
    pub steps: Vec<(&'static str, Duration)>,
    /// Bytes of the database's files.
    pub database: ByteCount,
    /// Bytes stored for the backup.
    pub stored: ByteCount,
    /// Where everything was left.
    pub kept: Option<PathBuf>,
}

impl Told {
    fn seconds(&self) -> f64 {
        self.steps.iter().map(|(_, length)| length.as_secs_f64()).sum()
    }

    fn all_held(&self) -> bool {
        self.proofs.iter().all(|proof| proof.held == Held::Yes)
    }
}

impl Report for Told {
    fn human(&self, _: &Look) -> String {
        let mut text = String::from("\nProved in this run\n");
        for proof in &self.proofs {
            let sign = if proof.held == Held::Yes { "held" } else { "FAILED" };
            text.push_str(&format!("  {sign:6}  {}: {}\n", proof.name, proof.seen));
        }
        let (database, stored, seconds) = (self.database, self.stored, self.seconds());
        text.push_str(&format!(
            "\n{database} of database, {stored} stored (compressed and encrypted), {seconds:.1} s in all\n"
        ));
        if let Some(kept) = &self.kept {
            text.push_str(&format!("kept      {}\n", kept.display()));
        }
        text
    }

    fn json(&self) -> Value {
        let proof = |p: &Proof| json!({ "name": p.name, "seen": p.seen, "held": p.held == Held::Yes });
        let step =
            |(name, length): &(&str, Duration)| json!({ "name": name, "seconds": length.as_secs_f64() });
        json!({
            "proofs": self.proofs.iter().map(proof).collect::<Vec<_>>(),
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "database_bytes": self.database,
            "stored_bytes": self.stored,
            "seconds": self.seconds(),
        })
    }

    fn exit(&self) -> Exit {
        if self.all_held() {
            Exit::Done
        } else {
            Exit::Integrity
        }
    }
}
