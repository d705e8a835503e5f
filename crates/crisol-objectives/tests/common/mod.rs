//! What the tests of several objectives share: made-up scores.

use crisol_objectives::TokenScores;

/// Owned scores of a shard.
#[derive(Clone)]
pub(crate) struct Scores {
    pub(crate) logp: Vec<f32>,
    pub(crate) entropy: Vec<f32>,
    pub(crate) value: Vec<f32>,
    pub(crate) offsets: Vec<u32>,
}

impl Scores {
    /// Made-up scores of sequences with these lengths.
    pub(crate) fn new(lengths: &[u32], seed: u64) -> Self {
        let mut offsets = vec![0];
        for n in lengths {
            offsets.push(offsets[offsets.len() - 1] + n);
        }
        let n = offsets[lengths.len()] as usize;
        Self {
            logp: numbers(n, -4.0, -0.1, seed),
            entropy: numbers(n, 0.1, 3.0, seed + 1),
            value: numbers(n, -2.0, 2.0, seed + 2),
            offsets,
        }
    }

    pub(crate) fn view(&self) -> TokenScores<'_> {
        TokenScores {
            logp: &self.logp,
            entropy: &self.entropy,
            value: &self.value,
            offsets: &self.offsets,
        }
    }

    /// One number per sequence as one per token.
    pub(crate) fn per_token(&self, per_sequence: &[f32]) -> Vec<f32> {
        let lengths = self.offsets.windows(2).map(|w| (w[1] - w[0]) as usize);
        per_sequence.iter().zip(lengths).flat_map(|(&x, n)| vec![x; n]).collect()
    }

    /// The shards that hold sequences `0..at` and `at..`.
    pub(crate) fn split(&self, at: usize) -> [Self; 2] {
        let token = self.offsets[at];
        let cut = token as usize;
        [
            Self {
                logp: self.logp[..cut].to_vec(),
                entropy: self.entropy[..cut].to_vec(),
                value: self.value[..cut].to_vec(),
                offsets: self.offsets[..=at].to_vec(),
            },
            Self {
                logp: self.logp[cut..].to_vec(),
                entropy: self.entropy[cut..].to_vec(),
                value: self.value[cut..].to_vec(),
                offsets: self.offsets[at..].iter().map(|o| o - token).collect(),
            },
        ]
    }
}

/// `n` numbers in `low..high` from a seed (splitmix64).
pub(crate) fn numbers(n: usize, low: f32, high: f32, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..n)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let unit = ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32;
            low + (high - low) * unit
        })
        .collect()
}

/// `base` moved by up to `by` either way.
pub(crate) fn near(base: &[f32], by: f32, seed: u64) -> Vec<f32> {
    base.iter().zip(numbers(base.len(), -by, by, seed)).map(|(x, d)| x + d).collect()
}
