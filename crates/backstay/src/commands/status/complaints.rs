//! What is not as it should be with a service: how bad it is, and what to type next.
//!
//! Promise: whatever makes a restore of the newest point fail, because something is lost or opens with no key, is `Bad`.
//! Not here: how it is shown, how the program ends (status).

use super::{Answer, misdated_words, rounded};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::look::Mark;
use crate::units::{count, print_duration};
use backstay_engine::plan::LostLog;
use backstay_repository::{Head, STORE_SKEW_MAX};

/// What is not as it should be, and what to type.
pub(super) struct Complaint {
    pub mark: Mark,
    pub what: String,
    pub next: String,
}

impl Complaint {
    fn warning(what: String, next: String) -> Complaint {
        let mark = Mark::Warning;
        Complaint { mark, what, next }
    }

    fn bad(what: String, next: String) -> Complaint {
        let mark = Mark::Bad;
        Complaint { mark, what, next }
    }

    fn bad_if(is_bad: bool, what: String, next: String) -> Complaint {
        match is_bad {
            true => Complaint::bad(what, next),
            false => Complaint::warning(what, next),
        }
    }
}

impl Answer {
    /// Everything that is wrong, what matters most first.
    pub(super) fn complaints(&self) -> Vec<Complaint> {
        if let Some(trouble) = &self.seen.trouble {
            return vec![self.untold(trouble)];
        }
        let of_log = [self.rivals(), self.gaps(), self.unreadable(), self.closed()];
        let mut complaints: Vec<Complaint> = self.objective().into_iter().collect();
        complaints.extend(of_log.into_iter().flatten());
        complaints.extend(self.losses());
        complaints.extend(self.latest());
        complaints.extend(self.misdated());
        complaints.extend(self.failed_run());
        complaints
    }

    fn untold(&self, trouble: &Failure) -> Complaint {
        Complaint::bad(
            format!("what is stored of it cannot be told: {}", trouble.message),
            format!(
                "backstay verify {}; {}",
                self.seen.service,
                trouble.help.join("; ")
            ),
        )
    }

    fn objective(&self) -> Option<Complaint> {
        let service = &self.seen.service;
        match self.seen.behind(self.now) {
            None => Some(self.nothing_recoverable()),
            Some(behind) if behind > self.rpo => {
                let over = print_duration(rounded(behind - self.rpo));
                let next = match self.seen.window.ranges.is_empty() {
                    true => format!(
                        "backstay stream {service} (nothing follows the log), then backstay backup {service}"
                    ),
                    false => format!("backstay stream {service}, and see that it goes on running"),
                };
                Some(Complaint::bad(
                    format!("RPO is over its objective by {over}"),
                    next,
                ))
            }
            Some(_) => None,
        }
    }

    /// Says what a restore says: it knows what may still be restored by name.
    fn nothing_recoverable(&self) -> Complaint {
        let service = &self.seen.service;
        let (why, next) = match &self.seen.latest_refused {
            Some(refused) => (refused.message.as_str(), refused.help.join("; ")),
            None => ("there is no backup yet", format!("backstay backup {service}")),
        };
        Complaint::bad(format!("nothing can be recovered: {why}"), next)
    }

    fn rivals(&self) -> Option<Complaint> {
        let service = &self.seen.service;
        let rivals = self.seen.rivals.iter().map(|rival| rival.branch.to_string());
        let rivals = rivals.collect::<Vec<_>>().join(", ");
        let complaint = Complaint::bad(
            format!(
                "there is more than one history of bytes, and nobody has said which one counts; besides what is shown: {rivals}"
            ),
            format!("backstay lineage list {service}, then backstay lineage adopt {service} LINEAGE"),
        );
        (!rivals.is_empty()).then_some(complaint)
    }

    fn gaps(&self) -> Option<Complaint> {
        let gaps = &self.seen.window.gaps;
        let what = format!("the log has {}", count(gaps.len(), "gap"));
        let next = format!("backstay wal gaps {}", self.seen.service);
        (!gaps.is_empty()).then(|| Complaint::warning(what, next))
    }

    /// Heads and lineage records.
    fn unreadable(&self) -> Option<Complaint> {
        let unreadable = self.seen.unread.objects();
        let first = unreadable.first()?;
        let number = count(unreadable.len(), "backup or lineage record");
        Some(Complaint::warning(
            format!("{number} cannot be opened: {}", first.why),
            format!("backstay verify {}", self.seen.service),
        ))
    }

    /// Parts of the log; that one of them may hold what is newest is said of `latest`.
    fn closed(&self) -> Option<Complaint> {
        let next = format!("backstay verify {}", self.seen.service);
        Some(Complaint::warning(self.seen.closed_words()?, next))
    }

    /// A loss is as bad as it can be until a backup has everything that was lost, or is newer.
    fn losses(&self) -> Vec<Complaint> {
        let (service, heads) = (&self.seen.service, &self.seen.heads);
        let next = || format!("bring it back from a copy of the repository, or: backstay backup {service}");
        let more = |count: usize| match count {
            0 | 1 => String::new(),
            all => format!("; and {} more", all - 1),
        };
        let backup = self.seen.lost.last().map(|lost| {
            let what = lost.words() + &more(self.seen.lost.len());
            Complaint::bad_if(lost.is_newest, what, next())
        });
        let headless = self.seen.headless.last().map(|headless| {
            let next = format!("backstay verify {service}; take a new backup: backstay backup {service}");
            Complaint::bad_if(headless.is_untold(), headless.words(), next)
        });
        let usable = || heads.iter().filter(|head: &&Head| head.is_usable(self.now));
        let is_open = |lost: &&LostLog| !usable().any(|head| lost.is_behind(head));
        let log = &self.seen.lost_log;
        let worst = log.iter().rfind(is_open).or(log.last());
        let log =
            worst.map(|lost| Complaint::bad_if(is_open(&lost), lost.words() + &more(log.len()), next()));
        backup.into_iter().chain(headless).chain(log).collect()
    }

    /// What is newest cannot be restored. Where nothing can, that is said of the objective.
    fn latest(&self) -> Option<Complaint> {
        let refused = self.seen.latest_refused.as_ref()?;
        self.seen.behind(self.now)?;
        let is_bad = matches!(refused.code.exit(), Exit::Integrity | Exit::Key);
        let what = format!("--to latest is refused: {}", refused.message);
        Some(Complaint::bad_if(is_bad, what, refused.help.join("; ")))
    }

    /// A backup that says it was taken in the future: until then it is named before every other one in a listing by names.
    fn misdated(&self) -> Option<Complaint> {
        let (service, heads) = (&self.seen.service, &self.seen.heads);
        let is_ahead = |head: &&Head| head.created.duration_since(self.now) > STORE_SKEW_MAX;
        let head = heads.iter().rfind(is_ahead)?;
        let what = misdated_words(head, self.now)?;
        let next = format!(
            "set the clock right of the machine that takes the backups, then see: backstay list {service}"
        );
        Some(Complaint::warning(what, next))
    }

    fn failed_run(&self) -> Option<Complaint> {
        let run = self.trouble.as_ref()?;
        let error = run.error.as_deref().unwrap_or("it does not say why");
        Some(Complaint::warning(
            format!("the last {} failed: {error}", run.started.verb),
            format!("backstay show run {}", run.started.run),
        ))
    }
}
