//! Fetches one file of the log for a server that recovers: `wal fetch %f %p`.
//!
//! Promise: a file is delivered whole, checked and under its name at once, or not at all. It is called absent only when
//! the listing proves that it lies after the end of everything that is stored of its timeline, or that its timeline is
//! known nowhere: to the server absence means the end of the log. Everything else is an error, a hole above all.
//! Not here: exit codes (backstay), the parts of a segment (jobs::assembly).

mod deliver;
mod reach;

use crate::EngineError;
use crate::jobs::assembly::{Assembly, PART_BYTES};
use crate::plan::{Chain, Link};
use backstay_repository::{
    BaseReader, Head, HeadLog, HiddenRecord, HistoryName, LineageRecord, LogStore, RecordsSeen, Repository,
    StoredObject, StoredRange, UnreadableRecord, missing, moment_of, stretches,
};
use backstay_terms::{
    BackupId, Branch, EngineKind, LogRange, Lsn, Position, SourceName, Timeline, WalFileName, WalSegmentSize,
};
use deliver::Delivery;
use jiff::SignedDuration;
use reach::{Reach, reach};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

/// The kind in the id of a record that an attachment of a stream writes.
const ATTACHMENT: &str = "attach";

/// A file to fetch.
#[derive(Clone, Debug)]
pub struct FetchJob {
    /// Where from.
    pub repository: Repository,
    /// The engine.
    pub engine: EngineKind,
    /// The service.
    pub name: SourceName,
    /// The lineage to recover along; none: the newest one of the timeline in the file's name.
    pub lineage: Option<Branch>,
    /// A backup whose own log counts too.
    pub base: Option<BackupId>,
    /// Where the recovery needs no more log; none: it goes to the end. What begins at or past it is called absent, so
    /// that a server that reads ahead never stumbles over a gap behind its target; before it nothing is.
    pub until: Option<Position>,
    /// The file's name: a segment or `NNNNNNNN.history`.
    pub file: String,
    /// Where to; it is replaced at once.
    pub destination: PathBuf,
}

/// How a fetch ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Fetched {
    /// The file is there, whole and durable.
    Delivered {
        /// Its bytes.
        bytes: u64,
    },
    /// It exists nowhere, for this reason.
    AbsentProved {
        /// Why that is certain.
        reason: String,
    },
}

impl FetchJob {
    /// Fetches the file.
    pub async fn run(&self) -> Result<Fetched, EngineError> {
        let log = LogStore::new(&self.repository, self.engine, &self.name);
        let seen = match self.lineage {
            // Along a lineage by name, a record that cannot be opened says nothing that is needed.
            Some(_) => log.records_seen().await?,
            None => {
                let (records, hidden) = log.records_and_hidden().await?;
                refuse_if_it_depends(&records, &hidden)?;
                let unreadable = hidden.into_iter().map(|hidden| hidden.record).collect();
                RecordsSeen { records, unreadable }
            }
        };
        let fetch = Fetch {
            job: self,
            base: self.base_head().await?,
            log,
            records: seen.records,
            unreadable: seen.unreadable,
        };
        let found = match parse(&self.file)? {
            File::Segment(name) => fetch.segment(name).await?,
            File::History(timeline) => fetch.history(timeline).await?,
        };
        match found {
            Found::Content(content) => {
                let file = Delivery::new(&self.destination).add(content).await?;
                let bytes = file.finish().await?;
                Ok(Fetched::Delivered { bytes })
            }
            Found::Segment(file) => {
                let bytes = file.finish().await?;
                Ok(Fetched::Delivered { bytes })
            }
            Found::Nowhere(reason) => Ok(Fetched::AbsentProved { reason }),
        }
    }

    async fn base_head(&self) -> Result<Option<Head>, EngineError> {
        let Some(wanted) = &self.base else { return Ok(None) };
        let places = self.repository.backup_places(self.engine, &self.name).await?;
        let place = places.iter().find(|place| place.backup == *wanted);
        let place = place.ok_or_else(|| EngineError::NoSuchThing {
            what: format!("there is no backup {wanted} of {}", self.name),
            advice: format!("see: backstay list {}", self.name),
        })?;
        Ok(Some(self.repository.read_head(place).await?))
    }
}

/// What a name asks for.
enum File {
    Segment(WalFileName),
    History(u32),
}

/// What was found.
enum Found {
    Content(Vec<u8>),
    /// Written, and not placed yet.
    Segment(Delivery),
    Nowhere(String),
}

fn parse(file: &str) -> Result<File, EngineError> {
    let refuse = || EngineError::NoSuchThing {
        what: format!("{file:?} is neither a WAL segment nor a history file"),
        advice: "restore_command must pass %f as it is".into(),
    };
    if let Some(digits) = file.strip_suffix(".history") {
        let upper = digits
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        let timeline = u32::from_str_radix(digits, 16)
            .ok()
            .filter(|t| upper && digits.len() == 8 && *t > 0);
        return timeline.map(File::History).ok_or_else(refuse);
    }
    let name = file
        .parse::<WalFileName>()
        .ok()
        .filter(|name| name.timeline.0 > 0);
    name.map(File::Segment).ok_or_else(refuse)
}

/// A fetch under way.
struct Fetch<'a> {
    job: &'a FetchJob,
    log: LogStore,
    records: Vec<LineageRecord>,
    unreadable: Vec<UnreadableRecord>,
    base: Option<Head>,
}

impl Fetch<'_> {
    async fn segment(&self, name: WalFileName) -> Result<Found, EngineError> {
        let timeline = name.timeline.0;
        let mut chain = match self.chain_of(timeline)? {
            Some(chain) => Some(chain),
            // A source that never streamed has the log of its bases alone.
            None if self.records.is_empty()
                && self.base_log().is_some_and(|log| log.timeline == timeline) =>
            {
                None
            }
            None => return self.nowhere(timeline).await,
        };
        let size = self.segment_size(chain.as_ref())?;
        let number = name.segment(size).ok_or_else(|| EngineError::NoSuchThing {
            what: format!("no segment of {} bytes has the name {name}", size.bytes()),
            advice: "check that this is the service whose server recovers".into(),
        })?;
        let begins = Position::from(size.start_of(number));
        let whole = LogRange {
            from: begins,
            to: Position(begins.0.saturating_add(size.bytes())),
        };
        if let Some(until) = self.job.until.filter(|until| begins >= *until) {
            let (at, until) = (Lsn::from(begins), Lsn::from(until));
            return Ok(Found::Nowhere(format!(
                "the recovery ends at {until}, before {at}"
            )));
        }
        self.refuse_past_switch(chain.as_ref(), whole)?;
        let seen = self.list(&mut chain, begins).await?;
        let base = self.open_base(whole).await?;
        let assembly = Assembly {
            log: &self.log,
            chain: chain.as_ref(),
            base: base.as_ref().zip(self.base_log()),
            until: self.job.until,
        };
        let (file, covered) = self.assemble(&assembly, whole).await?;
        if let Some(until) = self.job.until {
            let to = whole.to.min(until);
            let needed = LogRange { from: begins, to };
            return match missing(needed, &covered).first() {
                Some(gap) => Err(assembly.gap(*gap)),
                None => Ok(Found::Segment(file)),
            };
        }
        match reach(whole, &covered, seen) {
            Reach::Whole => Ok(Found::Segment(file)),
            Reach::Gap(gap) => Err(assembly.gap(gap)),
            Reach::UpTo(_) => {
                self.refuse_if_ambiguous(chain.as_ref(), begins).await?;
                Ok(Found::Segment(file))
            }
            Reach::Beyond => {
                self.refuse_if_ambiguous(chain.as_ref(), begins).await?;
                let at = Lsn::from(begins);
                let reason =
                    format!("nothing is stored of timeline {timeline} from {at} on: the log ends before");
                Ok(Found::Nowhere(reason))
            }
        }
    }

    /// Writes a segment part by part beside its destination; gives back what of it is stored.
    async fn assemble(
        &self,
        assembly: &Assembly<'_>,
        whole: LogRange,
    ) -> Result<(Delivery, Vec<LogRange>), EngineError> {
        let (mut file, mut covered) = (Delivery::new(&self.job.destination), Vec::new());
        let mut from = whole.from;
        while from < whole.to {
            let to = Position(from.0.saturating_add(PART_BYTES)).min(whole.to);
            let part = LogRange { from, to };
            let assembled = assembly.assemble(part).await?;
            match missing(part, &assembled.covered) == [part] {
                true => file.add_zeros(part.length()),
                false => file = file.add(assembled.content).await?,
            }
            covered.extend(assembled.covered);
            from = to;
        }
        Ok((file, stretches(&covered)))
    }

    /// Along a lineage by name, a segment that reaches past a switch point belongs to the descendant: under the ancestor's
    /// name it is neither whole nor absent.
    fn refuse_past_switch(&self, chain: Option<&Chain>, whole: LogRange) -> Result<(), EngineError> {
        let until = chain.and_then(Chain::target).and_then(|link| link.until);
        match until {
            Some(until) if whole.to > until => {
                let at = Lsn::from(until);
                let file = &self.job.file;
                Err(self.no_such(format!(
                    "{file} reaches past {at}, where this lineage leaves its timeline"
                )))
            }
            _ => Ok(()),
        }
    }

    fn base_log(&self) -> Option<&HeadLog> {
        self.base.as_ref().and_then(|base| base.log.as_ref())
    }

    /// The base with its tables, which are large, if its own log reaches into the segment.
    async fn open_base(&self, whole: LogRange) -> Result<Option<BaseReader>, EngineError> {
        let touches = |log: &HeadLog| log.start < whole.to && whole.from < log.stop;
        let base = self
            .base
            .as_ref()
            .filter(|head| head.log.as_ref().is_some_and(touches));
        let Some(head) = base else { return Ok(None) };
        Ok(Some(BaseReader::open(&self.job.repository, &head.place()).await?))
    }

    /// Lists the links of a chain from the segment on. Returns the furthest position of which anything speaks: marks and
    /// attachments tell that the log once reached there.
    async fn list(&self, chain: &mut Option<Chain>, begins: Position) -> Result<Position, EngineError> {
        let mut seen = Position::default();
        for link in chain.iter_mut().flat_map(|chain| chain.links.iter_mut()) {
            let (objects, strays) = self.log.listed(&link.branch, begins).await?;
            if let Some(stray) = strays.first() {
                return Err(unknown_name(stray));
            }
            let until = link.until.unwrap_or(Position(u64::MAX));
            // What is cut is damaged to whoever needs it, and never absent: an absent segment ends recovery.
            let listed: Vec<StoredRange> = objects
                .ranges
                .into_iter()
                .chain(objects.cut)
                .map(|range| range.stored)
                .collect();
            let marks = listed.iter().map(|stored| stored.name.range.to);
            let attached = self
                .records
                .iter()
                .filter(|r| r.branch == link.branch)
                .map(|r| r.from);
            seen = marks
                .chain(attached)
                .map(|at| at.min(until))
                .fold(seen, Position::max);
            link.ranges = listed;
        }
        Ok(seen)
    }

    /// The lineage to take a timeline's bytes from, with its ancestors; none if no lineage of it is known.
    fn chain_of(&self, timeline: u32) -> Result<Option<Chain>, EngineError> {
        let of = |branch: Branch| Chain::of(branch, &self.records);
        if let Some(lineage) = self.job.lineage {
            let known = self.records.iter().any(|record| record.branch == lineage);
            if !known && self.unreadable.is_empty() {
                return Err(self.no_such(format!("there is no lineage {lineage} of {}", self.job.name)));
            }
            let mut chain = of(lineage);
            let Some(place) = chain
                .links
                .iter()
                .position(|link| link.branch.timeline == timeline)
            else {
                return Ok(None);
            };
            // LIN-3: along this lineage nothing of an ancestor counts past the switch point.
            chain.links.truncate(place + 1);
            return Ok(Some(chain));
        }
        let Some(newest) = self.records.last().map(|record| record.branch) else {
            return match self.base {
                Some(_) => Ok(None),
                None => Err(self.no_such(format!("no log of {} has ever been stored", self.job.name))),
            };
        };
        let is_it = |branch: &Branch| branch.timeline == timeline && branch.system == newest.system;
        let on_chain = of(newest)
            .links
            .into_iter()
            .map(|link: Link| link.branch)
            .find(is_it);
        let newest_of_it = self.records.iter().rev().map(|record| record.branch).find(is_it);
        Ok(on_chain.or(newest_of_it).map(of))
    }

    /// Proves that a timeline is known nowhere.
    async fn nowhere(&self, timeline: u32) -> Result<Found, EngineError> {
        if self.is_known(timeline).await? {
            let what =
                format!("timeline {timeline} is known, but none of the log that is recovered belongs to it");
            return Err(self.no_such(what));
        }
        self.refuse_end_if_untold()?;
        Ok(Found::Nowhere(format!("timeline {timeline} is known nowhere")))
    }

    /// Without a lineage by name, nothing is proved to be the end beside a record that cannot be opened: what its epoch gives
    /// away is enough to deliver what is there, and not to end a recovery.
    fn refuse_end_if_untold(&self) -> Result<(), EngineError> {
        match self.unreadable.first().filter(|_| self.job.lineage.is_none()) {
            Some(record) => Err(untold("whether the log ends", record)),
            None => Ok(()),
        }
    }

    /// Whether anything that is stored speaks of a timeline.
    async fn is_known(&self, timeline: u32) -> Result<bool, EngineError> {
        let system = self.system()?;
        let known = |branch: Branch| (branch.system, branch.timeline) == (system, timeline);
        let (histories, strays) = self.log.history_names(system).await?;
        if let Some(stray) = strays.first() {
            return Err(unknown_name(stray));
        }
        Ok(self.records.iter().any(|record| known(record.branch))
            || histories.iter().any(|(name, _)| name.timeline == timeline)
            || self
                .heads()
                .await?
                .iter()
                .filter_map(|head| head.log.as_ref())
                .any(|log| (log.system, log.timeline) == (system, timeline)))
    }

    /// The heads that open: one that does not is no reason to end a recovery that does not need it.
    async fn heads(&self) -> Result<Vec<Head>, EngineError> {
        let FetchJob {
            repository,
            engine,
            name,
            ..
        } = self.job;
        Ok(repository.heads_seen(*engine, name).await?.heads)
    }

    fn system(&self) -> Result<u64, EngineError> {
        let newest = self.records.last().map(|record| record.branch);
        let branch = self.job.lineage.or(newest).map(|branch| branch.system);
        let system = branch.or(self.base_log().map(|log| log.system));
        system.ok_or_else(|| self.no_such(format!("no log of {} has ever been stored", self.job.name)))
    }

    fn segment_size(&self, chain: Option<&Chain>) -> Result<WalSegmentSize, EngineError> {
        let target = chain.and_then(Chain::target).map(|link| link.branch);
        let recorded = self
            .records
            .iter()
            .rev()
            .find(|record| Some(record.branch) == target);
        let bytes = recorded.map(|record| record.segment_size);
        let bytes = bytes
            .or(self.base_log().map(|log| log.segment_size))
            .unwrap_or_default();
        WalSegmentSize::new(bytes).ok_or_else(|| EngineError::Integrity {
            what: format!(
                "the lineage record of {} names {bytes} as the size of a segment",
                self.job.name
            ),
        })
    }

    /// Without a lineage by name, the end of one is no proof while another one of the same timeline goes on.
    async fn refuse_if_ambiguous(&self, chain: Option<&Chain>, begins: Position) -> Result<(), EngineError> {
        let Some(target) = chain.and_then(Chain::target).map(|link| link.branch) else {
            return Ok(());
        };
        if self.job.lineage.is_some() {
            return Ok(());
        }
        self.refuse_end_if_untold()?;
        let rivals = self.records.iter().map(|record| record.branch).filter(|branch| {
            (branch.system, branch.timeline) == (target.system, target.timeline) && *branch != target
        });
        for rival in rivals {
            let (objects, strays) = self.log.listed(&rival, begins).await?;
            let goes_on = objects
                .ranges
                .iter()
                .any(|range| range.stored.name.range.to > begins);
            if goes_on || !strays.is_empty() {
                let what = format!("the log of {target} ends here, but {rival} of the same timeline goes on");
                let advice = "say which one is recovered: --lineage".to_owned();
                return Err(EngineError::NoSuchThing { what, advice });
            }
        }
        Ok(())
    }

    async fn history(&self, timeline: u32) -> Result<Found, EngineError> {
        let chain = self.chain_of(timeline)?;
        let target = chain.as_ref().and_then(Chain::target);
        let system = self.system()?;
        let (names, strays) = self.log.history_names(system).await?;
        if let Some(stray) = strays.first() {
            return Err(unknown_name(stray));
        }
        let of_timeline: Vec<&(HistoryName, StoredObject)> = names
            .iter()
            .filter(|(name, _)| name.timeline == timeline)
            .collect();
        let wanted = target.and_then(|link| link.history.as_ref());
        let chosen = match (wanted, &of_timeline[..]) {
            (Some(digest), listed) => listed.iter().copied().find(|(name, _)| name.digest == *digest),
            (None, [one]) => Some(*one),
            (None, _) => None,
        };
        match chosen {
            Some((name, object)) => {
                let content = self.log.history(system, name, object).await?;
                Ok(Found::Content(content.to_vec()))
            }
            None if of_timeline.is_empty() && timeline == 1 => {
                Ok(Found::Nowhere("timeline 1 has no history file".to_owned()))
            }
            // Along a lineage by name the target's timeline is explicit: others are only asked for by a server that is
            // promoted and looks for a number that nobody has used.
            None if target.is_none() && self.job.lineage.is_some() && self.is_known(timeline).await? => {
                let reserving = Timeline(timeline).reserving_history();
                Ok(Found::Content(reserving.into_bytes()))
            }
            None if of_timeline.is_empty() && target.is_none() => self.nowhere(timeline).await,
            None => Err(EngineError::Integrity {
                what: format!("the history file of timeline {timeline} that is recovered is not stored"),
            }),
        }
    }

    fn no_such(&self, what: String) -> EngineError {
        let advice = format!(
            "check the service and the lineage; see: backstay status {}",
            self.job.name
        );
        EngineError::NoSuchThing { what, advice }
    }
}

/// Without a lineage by name the newest record chooses. An attachment that cannot be opened changes nothing where its epoch
/// gives away that it is of a lineage that is known from before, and that is the newest anyway, or was followed by it.
fn refuse_if_it_depends(records: &[LineageRecord], hidden: &[HiddenRecord]) -> Result<(), EngineError> {
    let newest = records.last();
    let says_nothing = |hidden: &HiddenRecord| {
        let id = &hidden.record.id;
        let (Some(of), Some(at), Some(newest)) = (hidden.of, moment_of(id), newest) else {
            return false;
        };
        let known_before = records
            .iter()
            .any(|record| record.branch == of && record.created < at);
        // Names tell the second.
        let followed = newest.created.duration_since(at) >= SignedDuration::from_secs(1);
        id.kind() == ATTACHMENT && known_before && (newest.branch == of || followed)
    };
    match hidden.iter().find(|hidden| !says_nothing(hidden)) {
        None => Ok(()),
        Some(hidden) => Err(untold("which lineage is recovered", &hidden.record)),
    }
}

/// Something cannot be told because of a record that does not open.
fn untold(what: &str, record: &UnreadableRecord) -> EngineError {
    EngineError::Unreadable {
        what: format!("{what} cannot be told without a record that cannot be opened"),
        why: Arc::clone(&record.why),
        advice: "name the lineage: --lineage; see: backstay lineage list".into(),
    }
}

/// A name that we cannot read may be the very thing that is asked for.
fn unknown_name(stray: &StoredObject) -> EngineError {
    EngineError::Integrity {
        what: format!(
            "{} has a name of no known format: what is absent cannot be told",
            stray.name
        ),
    }
}
