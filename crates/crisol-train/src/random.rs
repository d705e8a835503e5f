//! Stateless random streams: every random choice is a function of the run's seed, its purpose and a
//! step number. So a resumed run draws what the uninterrupted one would have drawn.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The random stream for `purpose` (e.g. `"sft/order"`) at `index` (an epoch, a step).
pub fn random_stream(seed: u64, purpose: &str, index: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ fnv1a(purpose.as_bytes()));
    rng.set_stream(index);
    rng
}

/// A seed derived from the run's, for code that takes its own.
pub fn derived_seed(seed: u64, purpose: &str, index: u64) -> u64 {
    use rand::Rng;
    random_stream(seed, purpose, index).next_u64()
}

/// A permutation of `0..n` (Fisher-Yates), e.g. the order of documents in an epoch.
pub fn permutation(seed: u64, purpose: &str, index: u64, n: usize) -> Vec<usize> {
    use rand::RngExt;
    let mut rng = random_stream(seed, purpose, index);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, rng.random_range(0..=i));
    }
    order
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| {
        (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_hold_everything_once_and_differ_by_epoch_and_purpose() {
        let a = permutation(1, "order", 0, 100);
        let mut sorted = a.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(a, permutation(1, "order", 0, 100));
        assert_ne!(a, permutation(1, "order", 1, 100));
        assert_ne!(a, permutation(1, "other", 0, 100));
        assert_ne!(a, permutation(2, "order", 0, 100));
    }
}
