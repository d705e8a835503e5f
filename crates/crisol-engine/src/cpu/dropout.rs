//! Dropout of the inputs of adapters (Srivastava et al. 2014): each is 0 with the probability
//! `rate`, the others are divided by 1 - rate.
//!
//! The mask is a hash of a key, the row and the column, so backward computes it again, and neither
//! threads nor a resumed run change it.

/// A mask, but for the weight whose inputs it is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropout {
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
    /// Masks rows of `cols` columns, the inputs of weight number `weight`.
    pub(crate) fn apply(self, values: &mut [f32], cols: usize, weight: u32) {
        let threshold = (f64::from(self.rate) * 2f64.powi(32)) as u64;
        let kept = 1.0 / (1.0 - self.rate);
        let key = mix(self.key ^ mix(u64::from(weight)));
        for (row, values) in values.chunks_exact_mut(cols).enumerate() {
            let key = mix(key ^ row as u64);
            for (pair, values) in values.chunks_mut(2).enumerate() {
                let bits = mix(key.wrapping_add(pair as u64));
                for (value, bits) in values.iter_mut().zip([bits >> 32, bits & 0xffff_ffff]) {
                    *value = if bits < threshold { 0.0 } else { kept * *value };
                }
            }
        }
    }
}
