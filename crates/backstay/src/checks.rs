//! What would stop a backup or a restore, and what to type against it.
//!
//! Promise: looking changes nothing anywhere; what cannot be looked at is itself a finding.
//! Not here: the server's own findings (backstay-postgres), reading every byte (verify).

mod keys;
mod repository;
mod service;
mod slot;

use crate::access;
use crate::config::{Config, Service};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::human::clean;
use crate::render::look::{Look, Mark};
use crate::session::Session;
use crate::units::count;
use backstay_source::{Finding, Severity};
use serde_json::{Value, json};

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Area {
    /// Everything.
    Common,
    /// This service.
    Service(String),
}

/// All that was found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    found: Vec<(Area, Finding)>,
}

impl Findings {
    fn add(&mut self, area: &Area, findings: impl IntoIterator<Item = Finding>) {
        self.found
            .extend(findings.into_iter().map(|finding| (area.clone(), finding)));
    }

    fn count(&self, severity: Severity) -> usize {
        self.found
            .iter()
            .filter(|(_, finding)| finding.severity == severity)
            .count()
    }
}

/// Looks at everything that concerns these services.
pub async fn run(session: &mut Session, config: &Config, services: &[&Service]) -> Findings {
    let mut findings = Findings::default();
    findings.add(&Area::Common, [configuration(config)]);
    let opened = access::repository(session).await;
    findings.add(
        &Area::Common,
        repository::findings(session, config, &opened).await,
    );
    findings.add(&Area::Common, keys::findings(config, &opened).await);
    for service in services {
        let area = Area::Service(service.name.to_string());
        findings.add(
            &area,
            service::findings(session, service, opened.as_ref().ok()).await,
        );
    }
    findings
}

fn configuration(config: &Config) -> Finding {
    let (keys, services) = (
        count(config.keys.len(), "key"),
        count(config.services.len(), "service"),
    );
    let what = format!("{}: version 1, {keys}, {services}", config.file.display());
    match config.services.len() {
        0 => {
            let fix = "add one under services: NAME: { postgresql: \"host=HOST user=NAME dbname=postgres\" }";
            Finding::warning("configuration", what, fix)
        }
        _ => Finding::good("configuration", what),
    }
}

/// A failure as a finding.
fn failed(id: &'static str, failure: &Failure) -> Finding {
    let mut what = failure.message.clone();
    for cause in &failure.cause {
        what.push_str(&format!(": {cause}"));
    }
    Finding::failure(id, what, failure.help.join("; "))
}

fn mark(severity: Severity) -> Mark {
    match severity {
        Severity::Good => Mark::Good,
        Severity::Warning => Mark::Warning,
        Severity::Failure => Mark::Bad,
    }
}

impl Report for Findings {
    fn human(&self, look: &Look) -> String {
        let width = self
            .found
            .iter()
            .map(|(_, finding)| finding.id.len())
            .max()
            .unwrap_or(0);
        let (mut text, mut area) = (String::new(), &Area::Common);
        for (of, finding) in &self.found {
            if of != area
                && let Area::Service(name) = of
            {
                text.push_str(&format!("{}\n", look.bold(name)));
            }
            area = of;
            let what = clean(&finding.what).replace('\n', " ");
            text.push_str(&format!(
                "{} {:width$}  {what}\n",
                look.mark(mark(finding.severity)),
                finding.id
            ));
            if !finding.fix.is_empty() {
                text.push_str(&format!(
                    "  {:width$}  fix: {}\n",
                    "",
                    clean(&finding.fix).replace('\n', "; ")
                ));
            }
        }
        let (passed, warned) = (self.count(Severity::Good), self.count(Severity::Warning));
        let failed = self.count(Severity::Failure);
        text + &format!("{passed} passed, {}, {failed} failed\n", count(warned, "warning"))
    }

    fn json(&self) -> Value {
        let one = |(area, finding): &(Area, Finding)| {
            let service = match area {
                Area::Common => None,
                Area::Service(name) => Some(name),
            };
            json!({
                "service": service, "id": finding.id, "severity": finding.severity, "what": finding.what,
                "fix": finding.fix,
            })
        };
        json!({
            "findings": self.found.iter().map(one).collect::<Vec<_>>(),
            "passed": self.count(Severity::Good),
            "warnings": self.count(Severity::Warning),
            "failed": self.count(Severity::Failure),
        })
    }

    fn exit(&self) -> Exit {
        match self.count(Severity::Failure) {
            0 => Exit::Done,
            _ => Exit::Objective,
        }
    }
}
