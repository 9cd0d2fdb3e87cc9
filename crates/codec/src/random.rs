//! The system's generator: for keys, salts and names.
//!
//! Promise: no key or salt is ever made of anything else. Not here: chance that tests must repeat; it is passed in.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// The system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct NoRandomness;

/// Random bytes.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// 64 random bits, for names. Without randomness the process cannot go on: names would collide.
pub fn random_u64() -> u64 {
    u64::from_be_bytes(random_bytes().expect("a system without randomness cannot name anything safely"))
}
