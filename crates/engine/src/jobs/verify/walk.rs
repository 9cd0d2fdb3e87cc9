//! Walks the records of a branch while its bytes are read.
//!
//! Promise: a walk begins at the first border of a file in each stretch, and again at the next border after damage, so
//! that one damaged place hides no other.
//! Not here: what a record is (an adapter's `LogFormat`).

use backstay_repository::{CheckFinding, Invariant};
use backstay_source::{LogFormat, LogScanner, ScanOrder, Wanted};
use backstay_terms::{Branch, Position};

/// A walk along one branch.
pub(super) struct Walk<'a> {
    format: Option<&'a dyn LogFormat>,
    branch: Branch,
    segment_size: Option<u64>,
    scanner: Option<Box<dyn LogScanner>>,
    at: Position,
    walked: u64,
    findings: Vec<CheckFinding>,
}

impl<'a> Walk<'a> {
    /// A walk; without a format or a segment size nothing is walked.
    pub fn new(format: Option<&'a dyn LogFormat>, branch: Branch, segment_size: Option<u64>) -> Walk<'a> {
        Walk {
            format,
            branch,
            segment_size: segment_size.filter(|size| *size > 0),
            scanner: None,
            at: Position::default(),
            walked: 0,
            findings: Vec::new(),
        }
    }

    /// Takes the next bytes.
    pub fn take(&mut self, begins: Position, bytes: &[u8]) {
        if begins != self.at {
            self.scanner = None;
        }
        self.at = Position(begins.0 + bytes.len() as u64);
        let mut rest = bytes;
        if self.scanner.is_none() {
            let Some(start) = self.begin(begins, bytes.len() as u64) else {
                return;
            };
            rest = bytes.get((start.0 - begins.0) as usize..).unwrap_or_default();
        }
        let Some(scanner) = &mut self.scanner else { return };
        match scanner.feed(rest) {
            Ok(()) => self.walked += rest.len() as u64,
            Err(error) => {
                self.scanner = None;
                self.find(begins, &error.what);
            }
        }
    }

    /// How many bytes were walked, and what was found.
    pub fn finish(self) -> (u64, Vec<CheckFinding>) {
        (self.walked, self.findings)
    }

    /// Begins a scan at the first border in these bytes.
    fn begin(&mut self, begins: Position, length: u64) -> Option<Position> {
        let (format, segment_size) = (self.format?, self.segment_size?);
        let start = Position(begins.0.checked_next_multiple_of(segment_size)?);
        if start.0 >= begins.0 + length {
            return None;
        }
        let order = ScanOrder {
            system: self.branch.system,
            timeline: self.branch.timeline,
            segment_size,
            begins: start,
            from: start,
            wanted: Wanted::LastComplete,
        };
        match format.scan(order) {
            Ok(scanner) => self.scanner = Some(scanner),
            Err(error) => self.find(start, &error.what),
        }
        self.scanner.is_some().then_some(start)
    }

    fn find(&mut self, begins: Position, what: &str) {
        let object = format!("branch {} from {begins} on", self.branch);
        self.findings
            .push(CheckFinding::new(object, Invariant::Log2, what));
    }
}
