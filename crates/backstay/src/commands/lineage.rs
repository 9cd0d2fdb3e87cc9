//! `lineage list` and `lineage adopt`: the histories of a service's log, and a person's word which one counts.
//!
//! Promise: adopting removes nothing; what was passed over stays restorable by name.

use super::seen::{NO_SERVICES, chosen};
use crate::access;
use crate::cli::{LineageAdopt, Services};
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::render::table::{Column, Table};
use crate::session::Session;
use backstay_engine::jobs::adopt::{self, Adopted};
use backstay_engine::plan::{Catalog, LineageSeen, Standing, lineages};
use backstay_terms::{Branch, EngineKind, Lsn, SourceName};
use serde_json::{Value, json};

/// Lists the lineages of one service, or of all.
pub async fn list(session: &mut Session, arguments: &Services) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let services = chosen(&config, arguments.service.as_deref())?;
    let repository = access::repository(session).await?;
    let mut listed = Vec::new();
    for service in services {
        let catalog = Catalog::read(&repository, EngineKind::Postgres, &service.name, None).await?;
        listed.push((service.name.clone(), lineages(&catalog).await?));
    }
    Ok(Box::new(Listed { listed }))
}

/// Makes a lineage the present one.
pub async fn adopt(session: &mut Session, arguments: &LineageAdopt) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let service = config.service(&arguments.service)?;
    let repository = access::repository(session).await?;
    let catalog = Catalog::read(&repository, EngineKind::Postgres, &service.name, None).await?;
    let adopted = adopt::adopt(&repository, &catalog, arguments.lineage).await?;
    Ok(Box::new(Done {
        service: service.name.clone(),
        lineage: arguments.lineage,
        adopted,
    }))
}

struct Listed {
    listed: Vec<(SourceName, Vec<LineageSeen>)>,
}

fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Present => "present",
        Standing::Ancestor => "ancestor",
        Standing::Rival => "rival",
        Standing::Past => "past",
        Standing::Empty => "empty",
    }
}

impl Report for Listed {
    fn human(&self, look: &Look) -> String {
        if self.listed.is_empty() {
            return NO_SERVICES.to_owned();
        }
        let mut table = Table::new([
            Column::needed("SERVICE"),
            Column::needed("LINEAGE"),
            Column::needed("STATE"),
            Column::needed("STORED TO"),
            Column::useful("LEFT ITS PARENT AT"),
            Column::useful("LAST ATTACHED"),
        ]);
        let lsn = |position| Lsn::from(position).to_string();
        for (service, seen) in self
            .listed
            .iter()
            .flat_map(|(service, seen)| seen.iter().map(move |one| (service, one)))
        {
            table.row([
                service.to_string(),
                seen.branch.to_string(),
                word(seen.standing).to_owned(),
                seen.reach.map_or("-".to_owned(), lsn),
                seen.parent.map_or("-".to_owned(), |parent| lsn(parent.fork)),
                look.time(seen.touched),
            ]);
        }
        let mut text = table.render(look);
        for (service, seen) in &self.listed {
            if seen.iter().any(|one| one.standing == Standing::Rival) {
                text.push_str(&format!(
                    "\nnext      say which history of {service} counts: backstay lineage adopt {service} LINEAGE\n"
                ));
            }
        }
        text
    }

    fn json(&self) -> Value {
        let one = |seen: &LineageSeen| {
            json!({
                "lineage": seen.branch.to_string(),
                "state": word(seen.standing),
                "stored_to_lsn": seen.reach.map(Lsn::from),
                "parent": seen.parent.map(|parent| json!({
                    "lineage": parent.branch.to_string(), "left_at_lsn": Lsn::from(parent.fork),
                })),
                "reason": seen.reason,
                "began": seen.began,
                "last_attached": seen.touched,
            })
        };
        let services = self.listed.iter().map(|(service, seen)| {
            json!({ "service": service, "lineages": seen.iter().map(one).collect::<Vec<_>>() })
        });
        json!({ "services": services.collect::<Vec<_>>() })
    }
}

struct Done {
    service: SourceName,
    lineage: Branch,
    adopted: Adopted,
}

impl Report for Done {
    fn human(&self, _: &Look) -> String {
        let Done {
            service,
            lineage,
            adopted,
        } = self;
        match adopted {
            Adopted::Already => format!("present   {lineage} is the present history of {service} already\n"),
            Adopted::Over(others) => {
                let mut text = format!("adopted   {lineage} is the present history of {service}\n");
                for other in others {
                    text.push_str(&format!(
                        "kept      {other}, to be recovered with --lineage {other}\n"
                    ));
                }
                text.push_str(&format!(
                    "next      see that a backup of it is there: backstay window {service}\n"
                ));
                text
            }
        }
    }

    fn json(&self) -> Value {
        let over = match &self.adopted {
            Adopted::Already => Vec::new(),
            Adopted::Over(others) => others.iter().map(ToString::to_string).collect(),
        };
        json!({ "service": self.service, "lineage": self.lineage.to_string(), "passed_over": over })
    }
}
