//! Seeded random numbers: one named stream per file of the data set.
//!
//! With a stream of its own, a change to one file leaves every other file as it was.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Seed of the whole data set. It is fixed: the world is data, not an experiment.
const SEED: u64 = 2026;

/// A seeded random number generator.
pub(crate) struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream called `name`.
    pub(crate) fn new(name: &str) -> Self {
        Self(ChaCha8Rng::seed_from_u64(SEED ^ fnv1a(name.as_bytes())))
    }

    /// A whole number in `low..=high`.
    pub(crate) fn range(&mut self, low: u32, high: u32) -> u32 {
        self.0.random_range(low..=high)
    }

    /// True with probability `p`.
    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.0.random_bool(p)
    }

    /// One element, drawn uniformly. `from` must not be empty.
    pub(crate) fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        from.choose(&mut self.0).expect("the tables of the world have no empty lists")
    }

    /// One string of a table, drawn uniformly. `from` must not be empty.
    pub(crate) fn choose_str<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.range(0, from.len() as u32 - 1) as usize]
    }

    /// Shuffles `items` in place.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        items.shuffle(&mut self.0);
    }

    /// A random permutation of `0..n`.
    pub(crate) fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }
}

/// The FNV-1a hash, for seeds and splits. Its values do not depend on the version of Rust.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
