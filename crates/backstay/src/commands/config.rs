//! `config show` and `config validate`.
//!
//! Promise: `show` lists every setting in force and no secret; `validate` looks at everything that can be looked at without
//! connecting: the file, the secrets of the keys, the connection strings.

use crate::cli::ConfigShow;
use crate::config::{Config, Shown};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::keys;
use crate::render::Report;
use crate::render::look::{Look, Mark};
use crate::render::table::{Column, Table};
use crate::session::Session;
use crate::units::count;
use backstay_postgres::Conninfo;
use serde_json::{Value, json};

/// Whether origins are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origins {
    Shown,
    Hidden,
}

struct Settings {
    file: String,
    settings: Vec<Shown>,
    origins: Origins,
}

/// Every setting in force.
pub fn show(session: &mut Session, arguments: &ConfigShow) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    Ok(Box::new(Settings {
        file: config.file.display().to_string(),
        settings: config.shown(),
        origins: if arguments.origin {
            Origins::Shown
        } else {
            Origins::Hidden
        },
    }))
}

impl Report for Settings {
    fn human(&self, look: &Look) -> String {
        let mut columns = vec![Column::needed("SETTING"), Column::needed("VALUE")];
        if self.origins == Origins::Shown {
            columns.push(Column::needed("FROM"));
        }
        let mut table = Table::new(columns);
        for shown in &self.settings {
            table.row([&shown.name, &shown.value, &shown.origin].map(String::as_str));
        }
        format!("{}\n{}", self.file, table.render(look))
    }

    fn json(&self) -> Value {
        let setting =
            |shown: &Shown| json!({ "name": shown.name, "value": shown.value, "origin": shown.origin });
        let settings: Vec<Value> = self.settings.iter().map(setting).collect();
        json!({ "file": self.file, "settings": settings })
    }
}

struct Valid {
    file: String,
    keys: usize,
    services: usize,
    warnings: Vec<String>,
}

/// Checks everything that needs no connection.
pub async fn validate(session: &mut Session) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let mut warnings = config.warnings();
    warnings.extend(keys::load(session).await?.warnings);
    connection_strings(&config, session.environment())?;
    Ok(Box::new(Valid {
        file: config.file.display().to_string(),
        keys: config.keys.len(),
        services: config.services.len(),
        warnings,
    }))
}

fn connection_strings(config: &Config, environment: &dyn Environment) -> Result<(), Failure> {
    for service in config.services.values() {
        let text = service.postgresql.value.expose();
        Conninfo::parse(text, &|name| environment.get(name))
            .map_err(|error| Failure::from(&error).at(service.place.clone()))?;
    }
    Ok(())
}

impl Report for Valid {
    fn human(&self, look: &Look) -> String {
        let mark = look.mark(if self.warnings.is_empty() {
            Mark::Good
        } else {
            Mark::Warning
        });
        let counts = format!("{}, {}", count(self.keys, "key"), count(self.services, "service"));
        let warnings = match self.warnings.len() {
            0 => String::new(),
            number => format!(", {}", count(number, "warning")),
        };
        format!("{mark} {}: {counts}{warnings}\n", self.file)
    }

    fn json(&self) -> Value {
        json!({
            "file": self.file,
            "valid": true,
            "keys": self.keys,
            "services": self.services,
            "warnings": self.warnings,
        })
    }
}
