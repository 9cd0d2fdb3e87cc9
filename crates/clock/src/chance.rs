//! Numbers that look random, from a generator that the caller passes in.
//!
//! Promise: the same seed gives the same numbers on every machine and in every version.
//! Not here: keys, nonces and name suffixes: those need the system's generator (repository).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of numbers for jitter, samples and tests.
pub trait Chance: fmt::Debug + Send + Sync {
    /// The next 64 bits.
    fn next_u64(&self) -> u64;
}

/// SplitMix64 (Steele, Lea, Flood 2014): repeatable from a seed, and no secret.
#[derive(Debug)]
pub struct SeededChance {
    state: AtomicU64,
}

/// The step of SplitMix64: 2^64 divided by the golden ratio, made odd.
const GOLDEN_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl SeededChance {
    /// The generator whose whole sequence follows from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self {
            state: AtomicU64::new(seed),
        }
    }
}

impl Chance for SeededChance {
    fn next_u64(&self) -> u64 {
        let before = self.state.fetch_add(GOLDEN_STEP, Ordering::Relaxed);
        let mut mixed = before.wrapping_add(GOLDEN_STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        // The first numbers of the reference implementation for seed 1234567.
        let chance = SeededChance::new(1_234_567);
        let drawn: Vec<u64> = (0..5).map(|_| chance.next_u64()).collect();
        assert_eq!(
            drawn,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821,
            ]
        );
    }
}
