//! `check`: what would stop a backup or a restore, and how to fix it.

use super::seen::chosen;
use crate::checks;
use crate::cli::Services;
use crate::failure::Failure;
use crate::render::Report;
use crate::session::Session;

/// Looks at everything, or at what concerns one service.
pub async fn check(session: &mut Session, arguments: &Services) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let services = chosen(&config, arguments.service.as_deref())?;
    Ok(Box::new(checks::run(session, &config, &services).await))
}
