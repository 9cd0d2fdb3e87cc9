//! Timelines: history files, and which timeline holds a position on the way to another.
//!
//! Promise: a file is read by PostgreSQL's rules (access/transam/timeline.c, readTimeLineHistory): fields by white
//! space, comments and blank lines skipped, timeline numbers increasing and below the file's own; in addition the
//! switch points must not fall. Text that was read is kept byte for byte: `History::bytes` is what a digest is made of.
//! Not here: naming histories in the store (repository), fetching them (replication::stream).

use backstay_terms::{Lsn, Timeline};
use std::fmt::Write as _;

/// The largest history file that is read: a cluster would need some 20,000 promotions to exceed it.
pub const HISTORY_BYTES_MAX: usize = 1 << 20;

/// One ancestor of a timeline: it was left at `until`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// The ancestor.
    pub timeline: Timeline,
    /// The switch point: the first position that is not the ancestor's.
    pub until: Lsn,
    /// Why it was left, in the server's words.
    pub reason: String,
}

/// A timeline's history file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    timeline: Timeline,
    ancestors: Vec<Ancestor>,
    bytes: Vec<u8>,
}

/// A history file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// A line is not `timeline LSN reason`.
    #[error("history of timeline {timeline}, line {line}: expected a timeline number and a switch point")]
    Line {
        /// Whose history.
        timeline: Timeline,
        /// The line, counted from 1.
        line: usize,
    },
    /// The numbers or switch points are not in order.
    #[error("history of timeline {timeline}, line {line}: timelines and switch points must rise")]
    Order {
        /// Whose history.
        timeline: Timeline,
        /// The line, counted from 1.
        line: usize,
    },
    /// It is too long to be one.
    #[error("history of timeline {timeline} has {length} bytes; at most {HISTORY_BYTES_MAX} are read")]
    Size {
        /// Whose history.
        timeline: Timeline,
        /// Its length.
        length: usize,
    },
    /// A timeline above 1 has ancestors.
    #[error("history of timeline {timeline} names no ancestor")]
    Empty {
        /// Whose history.
        timeline: Timeline,
    },
}

impl HistoryError {
    /// What the person can do.
    pub fn advice(&self) -> &'static str {
        "compare the file with the one in pg_wal of the server; a damaged history file must be replaced by that one"
    }
}

impl History {
    /// Reads the history file of `timeline`.
    pub fn parse(timeline: Timeline, bytes: &[u8]) -> Result<History, HistoryError> {
        if bytes.len() > HISTORY_BYTES_MAX {
            return Err(HistoryError::Size {
                timeline,
                length: bytes.len(),
            });
        }
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let text = String::from_utf8_lossy(line);
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let line = index + 1;
            let ancestor = parse_line(text).ok_or(HistoryError::Line { timeline, line })?;
            let rises = ancestors
                .last()
                .is_none_or(|last| last.timeline < ancestor.timeline && last.until <= ancestor.until);
            if !rises || ancestor.timeline >= timeline || ancestor.timeline.0 == 0 {
                return Err(HistoryError::Order { timeline, line });
            }
            ancestors.push(ancestor);
        }
        if ancestors.is_empty() {
            return Err(HistoryError::Empty { timeline });
        }
        Ok(History {
            timeline,
            ancestors,
            bytes: bytes.to_vec(),
        })
    }

    /// The history of `timeline` with these ancestors, oldest first, in PostgreSQL's form; refused like a file would be.
    pub fn compose(timeline: Timeline, ancestors: &[Ancestor]) -> Result<History, HistoryError> {
        let mut text = String::new();
        for (index, ancestor) in ancestors.iter().enumerate() {
            // PostgreSQL leaves an empty line before each entry that it appends; ours has none.
            let reason: String = ancestor.reason.chars().filter(|c| !c.is_control()).collect();
            writeln!(text, "{}\t{}\t{reason}", ancestor.timeline, ancestor.until).map_err(|_| {
                HistoryError::Line {
                    timeline,
                    line: index + 1,
                }
            })?;
        }
        History::parse(timeline, text.as_bytes())
    }

    /// The timeline whose history this is.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Its ancestors, oldest first.
    pub fn ancestors(&self) -> &[Ancestor] {
        &self.ancestors
    }

    /// The file, byte for byte: what is stored, and what a digest is made of.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn parse_line(text: &str) -> Option<Ancestor> {
    let (number, rest) = text.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let (lsn, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let timeline = Timeline(number.parse().ok()?);
    Some(Ancestor {
        timeline,
        until: lsn.parse().ok()?,
        reason: reason.trim_start().to_owned(),
    })
}

/// A stretch of the log that one timeline holds on the way to a target timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Who holds it.
    pub timeline: Timeline,
    /// Its first position.
    pub from: Lsn,
    /// The position after its last; none for the target itself.
    pub until: Option<Lsn>,
}

/// The way from the beginning of a cluster to one timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestry {
    timeline: Timeline,
    // None: the history is not known, so nothing can be said about ancestors.
    spans: Option<Vec<Span>>,
}

impl Ancestry {
    /// The way to a timeline whose history is known.
    pub fn of(history: &History) -> Ancestry {
        let mut spans = Vec::with_capacity(history.ancestors.len() + 1);
        let mut from = Lsn::INVALID;
        for ancestor in &history.ancestors {
            spans.push(Span {
                timeline: ancestor.timeline,
                from,
                until: Some(ancestor.until),
            });
            from = ancestor.until;
        }
        spans.push(Span {
            timeline: history.timeline,
            from,
            until: None,
        });
        Ancestry {
            timeline: history.timeline,
            spans: Some(spans),
        }
    }

    /// The way to `timeline` without its history: complete for timeline 1, which has no ancestor.
    pub fn without_history(timeline: Timeline) -> Ancestry {
        let root = Span {
            timeline,
            from: Lsn::INVALID,
            until: None,
        };
        Ancestry {
            timeline,
            spans: (timeline == Timeline(1)).then(|| vec![root]),
        }
    }

    /// The target timeline.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// The stretches, oldest first; none if the history is not known.
    pub fn spans(&self) -> Option<&[Span]> {
        self.spans.as_deref()
    }

    /// The timeline that holds the byte at `lsn`; none if the history is not known.
    pub fn holding(&self, lsn: Lsn) -> Option<Timeline> {
        let spans = self.spans.as_ref()?;
        spans
            .iter()
            .find(|span| span.until.is_none_or(|until| lsn < until))
            .map(|span| span.timeline)
    }

    /// Where the way leaves `timeline`: none if it never does, or never passes there.
    pub fn leaves(&self, timeline: Timeline) -> Option<Lsn> {
        let spans = self.spans.as_ref()?;
        spans
            .iter()
            .find(|span| span.timeline == timeline)
            .and_then(|span| span.until)
    }

    /// Whether `lsn` of `timeline` lies on the way: a backup that stopped there can be rolled forward to the target.
    /// A stop exactly at the switch point is still the ancestor's.
    pub fn passes(&self, timeline: Timeline, lsn: Lsn) -> bool {
        match &self.spans {
            None => timeline == self.timeline,
            Some(spans) => spans.iter().any(|span| {
                span.timeline == timeline && span.from <= lsn && span.until.is_none_or(|until| lsn <= until)
            }),
        }
    }

    /// Whether a page that begins at `page` may carry `timeline` in its header: that of the timeline that held its
    /// first byte, because a promotion goes on in the page that it finds. Without history: nothing newer than the target.
    pub fn may_carry(&self, page: Lsn, timeline: Timeline) -> bool {
        match self.holding(page) {
            Some(holder) => timeline == holder,
            None => (Timeline(1)..=self.timeline).contains(&timeline),
        }
    }
}

#[cfg(test)]
mod tests;
