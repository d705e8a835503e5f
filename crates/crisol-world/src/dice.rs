//! Chance: one named, seeded stream of random numbers per file of the data set, so that a change to one file
//! leaves every other file as it was.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The seed of the whole data set. It is fixed: the world is data, not an experiment.
const SEED: u64 = 2026;

/// A seeded source of chance.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
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

    /// One element, each equally likely. The slice must not be empty.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        from.choose(&mut self.0).expect("the tables of the world have no empty lists")
    }

    /// One word or template of a table.
    pub(crate) fn word<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.range(0, from.len() as u32 - 1) as usize]
    }

    /// Brings `items` into random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        items.shuffle(&mut self.0);
    }

    /// The numbers `0..n` in random order.
    pub(crate) fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }
}

/// FNV-1a: a hash whose values never change between versions of Rust, used for seeds and for splits.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
