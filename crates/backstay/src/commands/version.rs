//! `version`: what this program is and what it can read.

use crate::render::Report;
use crate::render::look::Look;
use serde_json::{Value, json};

/// The majors of PostgreSQL that this version backs up and restores.
const POSTGRESQL: &str = "13 to 18";
/// The version of the configuration file.
const CONFIGURATION: u32 = 1;

struct Version;

/// The report.
pub fn version() -> Box<dyn Report> {
    Box::new(Version)
}

impl Report for Version {
    fn human(&self, _: &Look) -> String {
        let number = env!("CARGO_PKG_VERSION");
        format!(
            "backstay {number}\n  configuration   version {CONFIGURATION}\n  postgresql      {POSTGRESQL}\n"
        )
    }

    fn json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "configuration_version": CONFIGURATION,
            "postgresql": POSTGRESQL,
        })
    }
}
