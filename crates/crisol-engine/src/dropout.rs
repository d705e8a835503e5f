//! Which inputs of adapters are dropped in training (Srivastava et al. 2014): a hash of a key, the
//! weight, the row and the column. Backward computes it again, and neither threads nor a resumed
//! run change it.

/// A mask, but for the weight whose inputs it is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropout {
    /// Probability of 0; other inputs are divided by 1 - rate.
    pub(crate) rate: f32,
    pub(crate) key: u64,
}

/// SplitMix64's finaliser (Steele et al. 2014): close numbers become independent ones.
pub(crate) fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Dropout {
    /// The masks of a tape with this key.
    pub(crate) fn of_tape(self, key: u64) -> Dropout {
        Dropout { key: mix(self.key ^ mix(key)), ..self }
    }
}
