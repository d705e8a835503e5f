//! One AdamW update over a slice of parameters, and moments in bf16, the upper halves of f32
//! numbers.

use super::math::vectorised;

/// Factors of an update that all parameters share.
#[derive(Clone, Copy)]
pub(crate) struct AdamWStep {
    /// Factor on the gradient.
    pub(crate) clip: f32,
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) eps: f32,
    /// Learning rate over the first moment's bias correction.
    pub(crate) step_size: f32,
    /// Square root of the second moment's bias correction.
    pub(crate) second_correction: f32,
}

vectorised! {
    /// Updates parameters and moments; `keep` is `1 - lr · weight_decay`.
    pub(crate) fn adamw<'a, S>(
        p: &'a mut [f32],
        m: &'a mut [f32],
        v: &'a mut [f32],
        g: &'a [f32],
        keep: f32,
        step: AdamWStep,
    ) {
        let AdamWStep { clip, beta1, beta2, eps, step_size, second_correction } = step;
        for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
            let g = g * clip;
            *m += (1.0 - beta1) * (g - *m);
            *v = *v * beta2 + (1.0 - beta2) * g * g;
            let denominator = v.sqrt() / second_correction + eps;
            *p = *p * keep - step_size * (*m / denominator);
        }
    }
}

vectorised! {
    /// Moments as f32.
    pub(crate) fn widen<'a, S>(halves: &'a [u16], numbers: &'a mut [f32]) {
        for (number, half) in numbers.iter_mut().zip(halves) {
            *number = f32::from_bits(u32::from(*half) << 16);
        }
    }
}

/// Seed of the rounding of a chunk of moments at a step. The numbers of a chunk take consecutive
/// seeds.
pub(crate) fn rounding_seed(step: u64, first: usize) -> u32 {
    // The golden ratio spreads the steps over all seeds (Knuth, volume 3, section 6.4).
    (step as u32).wrapping_mul(0x9e37_79b9).wrapping_add(first as u32)
}

/// A permutation of the 32-bit numbers whose bits look random (`lowbias32` of Wellons 2018,
/// <https://nullprogram.com/blog/2018/07/31/>).
#[inline(always)]
fn mix(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

vectorised! {
    /// Rounds both moments to bf16, up with the probability of the part that is cut off, else down:
    /// the mean is the number itself. The same seed gives the same bits.
    pub(crate) fn round_at_random<'a, S>(
        m: &'a [f32],
        v: &'a [f32],
        first: &'a mut [u16],
        second: &'a mut [u16],
        seed: u32,
    ) {
        let moments = m.iter().zip(v).zip(first.iter_mut().zip(second));
        for (i, ((m, v), (first, second))) in moments.enumerate() {
            let random = mix(seed.wrapping_add(i as u32));
            *first = ((m.to_bits().wrapping_add(random & 0xffff)) >> 16) as u16;
            *second = ((v.to_bits().wrapping_add(random >> 16)) >> 16) as u16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_at_random_keeps_the_mean() {
        const N: usize = 40_000;
        // A quarter of a bf16 step above 1, and exact numbers.
        for (number, tolerance) in [(1.0 + 1.0 / 512.0, 1e-4), (-3.0e-5, 0.0), (0.0, 0.0)] {
            let number = if tolerance == 0.0 { exact(number) } else { number };
            let (mut first, mut second) = ([0; N], [0; N]);
            round_at_random(&[number; N], &[number; N], &mut first, &mut second, 7);
            for halves in [first, second] {
                let mut wide = [0.0; N];
                widen(&halves, &mut wide);
                let mean = wide.iter().map(|&x| f64::from(x)).sum::<f64>() / N as f64;
                assert!((mean - f64::from(number)).abs() <= tolerance, "{number}: {mean}");
            }
            assert!(tolerance == 0.0 || first != second, "both moments were rounded alike");
        }
    }

    fn exact(number: f32) -> f32 {
        f32::from_bits(number.to_bits() & 0xffff_0000)
    }

    #[test]
    fn infinity_and_nan_stay_themselves() {
        let numbers = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        for seed in 0..100 {
            let (mut first, mut second) = ([0; 3], [0; 3]);
            round_at_random(&numbers, &numbers, &mut first, &mut second, seed);
            let mut wide = [0.0; 3];
            widen(&first, &mut wide);
            assert_eq!(wide[..2], numbers[..2]);
            assert!(wide[2].is_nan());
        }
    }
}
