//! Whether a hole in a segment is the end of the log.
//!
//! Promise: pure. A hole is the end only if nothing that is stored, and nothing that was ever said, lies after it.

use backstay_repository::missing;
use backstay_terms::{LogRange, Position};

/// How far a segment is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// To its end.
    Whole,
    /// From its beginning up to here, where everything ends.
    UpTo(Position),
    /// Everything ends at or before its beginning.
    Beyond,
    /// Something is missing that is not the end.
    Gap(LogRange),
}

/// How far `whole` is stored. `seen` is the furthest position of which anything speaks.
pub(super) fn reach(whole: LogRange, covered: &[LogRange], seen: Position) -> Reach {
    let Some(hole) = missing(whole, covered).first().copied() else {
        return Reach::Whole;
    };
    let end = covered.iter().map(|stretch| stretch.to).max().unwrap_or_default();
    let last = end.max(seen);
    if last > hole.from {
        return Reach::Gap(hole);
    }
    match hole.from == whole.from {
        true => Reach::Beyond,
        false => Reach::UpTo(hole.from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: u64, to: u64) -> LogRange {
        LogRange {
            from: Position(from),
            to: Position(to),
        }
    }

    #[test]
    fn only_the_end_of_everything_is_an_end() {
        let whole = range(100, 200);
        let table = [
            (vec![range(0, 250)], 0, Reach::Whole),
            (vec![range(100, 200)], 900, Reach::Whole),
            (vec![range(0, 150)], 0, Reach::UpTo(Position(150))),
            (vec![range(0, 150)], 150, Reach::UpTo(Position(150))),
            (vec![range(0, 150)], 151, Reach::Gap(range(150, 200))),
            (
                vec![range(0, 150), range(160, 200)],
                0,
                Reach::Gap(range(150, 160)),
            ),
            (
                vec![range(0, 150), range(300, 301)],
                0,
                Reach::Gap(range(150, 200)),
            ),
            (vec![range(110, 200)], 0, Reach::Gap(range(100, 110))),
            (vec![range(0, 100)], 0, Reach::Beyond),
            (vec![range(0, 90)], 100, Reach::Beyond),
            (vec![range(0, 90)], 101, Reach::Gap(range(100, 200))),
            (
                vec![range(0, 90), range(200, 210)],
                0,
                Reach::Gap(range(100, 200)),
            ),
            (vec![], 0, Reach::Beyond),
        ];
        for (covered, seen, expected) in table {
            assert_eq!(
                reach(whole, &covered, Position(seen)),
                expected,
                "{covered:?} {seen}"
            );
        }
    }
}
