//! `Durable` never runs ahead of the store, whatever the order in which uploads end or fail.
//!
//! Promise: proptest prints and keeps a smallest case; the store alone is asked what is there.

use backstay_repository::{LogWriter, Upload, missing, stretches};
use backstay_terms::{LogRange, Position};
use proptest::prelude::*;

use crate::log::{FILE, append, begin, branch, log_bytes, log_store, range};
use crate::support::*;

const FIRST: u64 = 4096 + 700;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// A piece of up to so many bytes arrives; it ends at a border at the latest.
    Piece(u64),
    CutLive,
    CutSettled,
    /// One of the uploads under way ends well.
    Ends(prop::sample::Index),
    /// One of them takes effect, and its answer is lost.
    AnswerLost(prop::sample::Index),
    /// One of them fails without effect.
    Fails(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..1500).prop_map(Step::Piece),
        3 => Just(Step::CutLive),
        2 => Just(Step::CutSettled),
        4 => any::<prop::sample::Index>().prop_map(Step::Ends),
        1 => any::<prop::sample::Index>().prop_map(Step::AnswerLost),
        1 => any::<prop::sample::Index>().prop_map(Step::Fails),
    ]
}

/// A writer and what it has under way.
struct Course {
    writer: LogWriter,
    at: u64,
    under_way: Vec<Upload>,
    stored: Vec<LogRange>,
}

impl Course {
    fn draw(&mut self, index: &prop::sample::Index) -> Option<Upload> {
        let count = self.under_way.len();
        (count > 0).then(|| self.under_way.swap_remove(index.index(count)))
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Piece(length) => {
                let border = (self.at / FILE + 1) * FILE;
                let to = (self.at + length).min(border);
                append(&mut self.writer, self.at, to);
                self.at = to;
            }
            Step::CutLive => self.under_way.extend(self.writer.cut_live(FILE, None).unwrap()),
            Step::CutSettled => self
                .under_way
                .extend(self.writer.cut_settled(FILE, None).unwrap()),
            Step::Ends(index) => {
                if let Some(upload) = self.draw(index) {
                    let stored = upload.run().await.unwrap();
                    self.stored.push(stored.range);
                    self.writer.complete(&stored);
                }
            }
            Step::AnswerLost(index) => {
                if let Some(upload) = self.draw(index) {
                    self.stored.push(upload.range());
                    upload.run().await.unwrap();
                }
            }
            Step::Fails(index) => drop(self.draw(index)),
        }
    }

    fn durable(&self) -> u64 {
        self.writer.durable().position().0
    }
}

async fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let world = World::new();
    let mut course = Course {
        writer: begin(&world.init().await, branch(1, 1)).await,
        at: FIRST,
        under_way: Vec::new(),
        stored: Vec::new(),
    };
    append(&mut course.writer, FIRST, FIRST + 1);
    course.at += 1;
    let mut durable = FIRST;
    for step in steps {
        course.take(step).await;
        prop_assert!(course.durable() >= durable, "durable went backwards");
        durable = course.durable();
        let covered = stretches(&course.stored);
        let lacking = missing(range(FIRST, durable), &covered);
        prop_assert_eq!(lacking, vec![], "durable is ahead of the store");
    }
    // The process dies here. Another one reads and settles from the store alone.
    let repository = world.open().await;
    let log = log_store(&repository);
    let wanted = range(FIRST, durable);
    let bytes = log.read(&branch(1, 1), wanted).await.unwrap();
    prop_assert!(bytes == log_bytes(branch(1, 1), wanted));
    log.settle(&branch(1, 1), FILE).await.unwrap();
    let ranges = log.ranges(&branch(1, 1), None).await.unwrap();
    prop_assert_eq!(backstay_repository::LogStore::unsettled(&ranges), vec![]);
    let settled: Vec<_> = ranges
        .into_iter()
        .filter(|r| r.level != backstay_repository::layout::Level::Live)
        .collect();
    // What live ranges held is now served without them.
    for stretch in stretches(&course.stored) {
        let bytes = log.read_from(stretch, &settled).await.unwrap();
        prop_assert!(bytes == log_bytes(branch(1, 1), stretch));
    }
    prop_assert!(Position(durable) <= course.writer.state().appended);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn durable_is_never_ahead_of_the_store(steps in prop::collection::vec(step(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(&steps))?;
    }
}
