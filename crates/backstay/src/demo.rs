//! `demo`: the whole loop on a throw-away server of this machine.
//!
//! Promise: what is printed was measured and compared in this run; everything made is removed unless `--keep` is given;
//! nothing outside its own directory is touched. That holds for a SIGINT, SIGTERM or SIGHUP too; a second one ends the process.
//! Not here: the servers (server, engine), the steps (story), what is compared (proofs).

mod proofs;
mod server;
mod story;
mod streaming;

use crate::cli::Demo;
use crate::codes::Code;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::session::Session;
use crate::signals::{Asked, Signals};
use backstay_terms::ByteCount;
use proofs::{Held, Proof};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use story::Story;

/// Runs the loop.
pub async fn demo(session: &mut Session, arguments: &Demo) -> Result<Box<dyn Report>, Failure> {
    // Before anything is made: from here on a signal cuts the story short and kills nobody.
    let mut signals = Signals::listen()?;
    let mut story = Story::begin(session, arguments)?;
    let told = tokio::select! {
        by = signals.next() => Err(cut_short(by)),
        told = story.tell(session) => told,
    };
    let place = story.place().to_owned();
    let ended = tokio::select! {
        ended = story.end(session, told) => ended,
        by = signals.again() => {
            session.leave_threads();
            Err(left_behind(by, &place))
        }
    };
    Ok(Box::new(ended?))
}

fn cut_short(by: Asked) -> Failure {
    let help = "nothing runs any more; the directory of the demo is removed unless --keep is given";
    Failure::new(by.code(), "the demo was stopped by a signal", help)
}

fn left_behind(by: Asked, place: &Path) -> Failure {
    let help = format!(
        "a server of the demo may still run, with its files in {}",
        place.display()
    );
    Failure::new(
        by.code(),
        "the demo was stopped by a second signal while it cleaned up",
        help,
    )
}

fn defect(what: &str) -> Failure {
    Failure::new(
        Code::Other,
        format!("the demo cannot go on: {what}"),
        "run it again; if it stays, report it",
    )
}

/// What is left to look at.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Where.
    pub place: PathBuf,
    /// How to connect to the copy, which runs.
    pub connect: String,
    /// A command that opens the repository.
    pub look: String,
    /// A command that stops the copy.
    pub stop: String,
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
    /// What was left, if it was to be.
    pub kept: Option<Kept>,
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
            let Kept {
                place,
                connect,
                look,
                stop,
            } = kept;
            text.push_str(&format!(
                "kept      {}\nlook      {look}\nconnect   {connect}\nstop      {stop}\n",
                place.display()
            ));
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
            "kept": self.kept.as_ref().map(|kept| &kept.place),
            "connect": self.kept.as_ref().map(|kept| &kept.connect),
            "look": self.kept.as_ref().map(|kept| &kept.look),
            "stop": self.kept.as_ref().map(|kept| &kept.stop),
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
