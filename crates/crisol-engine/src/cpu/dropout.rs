//! Dropout of the inputs of adapters.

use crate::dropout::{Dropout, mix};

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
