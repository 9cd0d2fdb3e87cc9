//! `key recovery-sheet`: a page to print and to keep where the repository is not.
//!
//! Promise: it holds no key unless `--with-key` asks for it, and then it is never written to a terminal, whose memory
//! would keep it; passphrases are never on it.

use crate::access;
use crate::cli::RecoverySheet;
use crate::codes::Code;
use crate::failure::Failure;
use crate::keys::{self, Key, Material};
use crate::render::Report;
use crate::render::look::{Look, Stream};
use crate::session::Session;
use backstay_codec::print_master_key;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Makes the sheet.
pub async fn recovery_sheet(
    session: &mut Session,
    arguments: &RecoverySheet,
) -> Result<Box<dyn Report>, Failure> {
    if arguments.with_key && session.stdout == Stream::Terminal {
        let help = "send it to a printer or a file: backstay key recovery-sheet --with-key | lpr";
        return Err(Failure::new(
            Code::Usage,
            "a key is not shown on a terminal",
            help,
        ));
    }
    let config = session.config()?;
    let repository = access::repository(session).await?;
    let loaded = keys::load(session).await?;
    let entry = |key: Key| Entry {
        printed: match &key.material {
            Material::Master(master) if arguments.with_key => Some(print_master_key(master)),
            _ => None,
        },
        key,
    };
    Ok(Box::new(Sheet {
        place: config.repository.value.to_string(),
        id: repository.id().to_owned(),
        services: config.services.keys().map(ToString::to_string).collect(),
        made: session.clock.now(),
        entries: loaded.keys.into_iter().map(entry).collect(),
    }))
}

struct Entry {
    key: Key,
    printed: Option<Zeroizing<String>>,
}

impl Entry {
    fn id(&self) -> String {
        self.key.id().unwrap_or_else(|| "-".to_owned())
    }

    fn place(&self) -> String {
        let place = self.key.source.secret().map(ToString::to_string);
        place.unwrap_or_else(|| "not on this machine".to_owned())
    }

    fn lines(&self) -> String {
        let kind = self.key.source.kind();
        let mut text = format!(
            "  {kind}\n    id        {}\n    kept in   {}\n",
            self.id(),
            self.place()
        );
        match &self.printed {
            Some(key) => text.push_str(&format!("    the key   {}\n", **key)),
            None => text.push_str("    copy in   ______________________________________________\n"),
        }
        text
    }
}

struct Sheet {
    place: String,
    id: String,
    services: Vec<String>,
    made: jiff::Timestamp,
    entries: Vec<Entry>,
}

const HOW: &str = "\
To restore with Backstay
  1. Bring back the key file and the configuration (repo and keys are enough to open the repository).
  2. backstay check; backstay window
";

const WITHOUT: &str = "
To restore without Backstay (needs: apt install python3-cryptography python3-zstandard)
  The script is scripts/restore.py of the source, the format docs/internals/repository-format.md.
  1. Copy the repository into a directory REPO and the key into a file KEY; run this as postgres, beside restore.py:
";

impl Sheet {
    fn commands(&self) -> String {
        let mut text = HOW.to_owned();
        for service in &self.services {
            text.push_str(&format!(
                "  3. backstay restore {service} --to latest --into DIR --start\n"
            ));
        }
        text.push_str(WITHOUT);
        for service in &self.services {
            text.push_str(&format!(
                "  2. /usr/bin/python3 restore.py REPO --key-file KEY --source {service} --into DIR\n"
            ));
        }
        text + "  3. Start the PostgreSQL of the backup's version on DIR.\n\n"
    }
}

impl Report for Sheet {
    fn human(&self, look: &Look) -> String {
        let mut text = format!(
            "BACKSTAY RECOVERY SHEET, made {}\n\nKeep it where the repository is not. Whoever loses every key loses every backup;\n\
             whoever has one key and the repository can read the data.\n\nRepository\n  {}\n  id {}\n  services {}\n\nKeys\n",
            look.time(self.made),
            self.place,
            self.id,
            self.services.join(", ")
        );
        for entry in &self.entries {
            text.push_str(&entry.lines());
        }
        text.push('\n');
        text + &self.commands() + "Proved by: backstay key check      on ____________  by ____________\n"
    }

    fn json(&self) -> Value {
        let entry = |entry: &Entry| {
            json!({
                "kind": entry.key.source.kind(), "id": entry.key.id(), "kept_in": entry.place(),
                "key": entry.printed.as_ref().map(|key| key.as_str()),
            })
        };
        json!({
            "repository": self.place, "id": self.id, "services": self.services, "made": self.made,
            "keys": self.entries.iter().map(entry).collect::<Vec<_>>(),
        })
    }
}
