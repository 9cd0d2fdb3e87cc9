//! Whether another stream stores into the same lineage, and of which server.
//!
//! Promise: pure: a comparison is due when something was stored since the last one, at once after the first range of an
//! attachment; another stream of the same server is told of once.
//! Not here: comparing (backstay-repository::log::twins), what follows from it (stream::attachment).

use super::cadence::{Cadence, Due};
use crate::{Fact, Observer};
use backstay_repository::{Leaving, Twins};
use backstay_terms::Lsn;
use std::time::Duration;

/// What is known of other streams.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Company {
    compared_at: Option<Duration>,
    news: News,
    told: Told,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum News {
    #[default]
    None,
    Stored,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Never,
    Once,
}

impl Company {
    /// A range was stored.
    pub fn stored(&mut self) {
        self.news = News::Stored;
    }

    /// When the next comparison is due.
    pub fn next(&self, cadence: &Cadence) -> Option<(Duration, Due)> {
        let at = self
            .compared_at
            .map_or(Duration::ZERO, |at| at + cadence.compare_every);
        (self.news == News::Stored).then_some((at, Due::Compare))
    }

    /// A comparison begins.
    pub fn compares(&mut self, now: Duration) {
        (self.compared_at, self.news) = (Some(now), News::None);
    }

    /// Whether to tell of a stream of the same server.
    pub fn is_news(&mut self, twins: &Twins) -> bool {
        let is_news = !twins.equal.is_empty() && self.told == Told::Never;
        if is_news {
            self.told = Told::Once;
        }
        is_news
    }
}

/// Says which lineages two servers were told apart into.
pub(crate) fn tell_apart(observer: &dyn Observer, leaving: &[Leaving]) {
    for Leaving { branch, to, fork, .. } in leaving {
        observer.observe(&Fact::LineageBegan {
            branch: *to,
            reason: format!(
                "two servers were streamed under one name into {branch}: their bytes differ from {} on, and what the one that \
                 attached later stored from there on is this lineage now",
                Lsn::from(*fork)
            ),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_range_is_compared_at_once_and_then_what_is_new_every_minute() {
        let (mut company, cadence) = (Company::default(), Cadence::default());
        assert_eq!(company.next(&cadence), None);
        company.stored();
        assert_eq!(company.next(&cadence), Some((Duration::ZERO, Due::Compare)));
        let now = Duration::from_secs(7);
        company.compares(now);
        assert_eq!(company.next(&cadence), None, "nothing new was stored");
        company.stored();
        assert_eq!(
            company.next(&cadence),
            Some((now + cadence.compare_every, Due::Compare))
        );
    }
}
