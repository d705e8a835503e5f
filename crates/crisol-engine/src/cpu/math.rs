//! Vectorised loops: how they are compiled, the exponential, and passes that kernels share.
//!
//! [`vectorised`] compiles a function once per instruction set and dispatches at run time. Sums run
//! in [`LANES`] independent lanes, because the compiler may not reorder a sum of floats.

use pulp::Simd;

/// SIMD lanes of a partial sum: one AVX-512 register, two of AVX2 or four of NEON.
pub(crate) const LANES: usize = 16;

/// Defines a function that is compiled for every supported instruction set. The type parameter is
/// the set in use; pass it on to helpers such as [`exp`].
macro_rules! vectorised {
    ($(
        $(#[$meta:meta])*
        $visibility:vis fn $name:ident<$lifetime:lifetime, $simd:ident>(
            $($arg:ident: $type:ty),* $(,)?
        ) $(-> $output:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        #[allow(unused_parens, clippy::needless_lifetimes, clippy::type_complexity)]
        $visibility fn $name<$lifetime>($($arg: $type),*) -> ($($output)?) {
            struct Arguments<$lifetime>($($type,)* std::marker::PhantomData<&$lifetime ()>);
            impl<$lifetime> pulp::WithSimd for Arguments<$lifetime> {
                type Output = ($($output)?);
                #[inline(always)]
                fn with_simd<$simd: pulp::Simd>(self, _: $simd) -> Self::Output {
                    let Arguments($($arg,)* _) = self;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Arguments($($arg,)* std::marker::PhantomData))
        }
    )*};
}
pub(crate) use vectorised;

/// `a · b + c`, fused where the instruction set has it. Elsewhere fusing would be a library call.
#[inline(always)]
pub(crate) fn fma<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::IS_SCALAR { a * b + c } else { a.mul_add(b, c) }
}

/// Sum over lanes, as a binary tree.
#[inline(always)]
pub(crate) fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    fold_lanes(lanes, |a, b| a + b)
}

/// Combines lanes as a binary tree, for a short dependency chain. A loop, because the closure of
/// `from_fn` is not inlined without link-time optimisation.
#[inline(always)]
fn fold_lanes(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = combine(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Dot product.
#[inline(always)]
pub(crate) fn dot<S: Simd>(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] = fma::<S>(a[lane], b[lane], lanes[lane]);
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane = fma::<S>(*a, *b, *lane);
    }
    sum_lanes(lanes)
}

/// Scales all values.
#[inline(always)]
pub(crate) fn scale_all(values: &mut [f32], factor: f32) {
    for x in values {
        *x *= factor;
    }
}

/// Largest element, ignoring NaN; -∞ if there is none.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], chunk[lane]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, x);
    }
    fold_lanes(lanes, larger)
}

/// `e^x` without branches. Relative error below 2e-7; 0 below -87.3, where f32 becomes subnormal;
/// infinity above 88.3; NaN for NaN.
///
/// Cody and Waite's reduction and the minimax polynomial of Cephes' `expf` (Moshier 1989).
#[inline(always)]
pub(crate) fn exp<S: Simd>(x: f32) -> f32 {
    /// Adding 1.5·2²³ leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts; small integer multiples of the first are exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let rounded = fma::<S>(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = fma::<S>(n, -LN2_LOW, fma::<S>(n, -LN2_HIGH, x));
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = fma::<S>(p, r, coefficient);
    }
    let p = fma::<S>(p * r, r, r) + 1.0;
    // 2ⁿ from its exponent bits. A multiplication, unlike adding exponents, propagates NaN.
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    let y = p * power;
    if x < -87.3 {
        0.0
    } else if x > 88.3 {
        f32::INFINITY
    } else {
        y
    }
}

/// `tanh x` without branches. Relative error below 3e-7.
///
/// Near 0 the polynomial of Cephes' `tanhf` (Moshier 1989), elsewhere by [`exp`].
#[inline(always)]
pub(crate) fn tanh<S: Simd>(x: f32) -> f32 {
    let (size, square) = (x.abs(), x * x);
    let mut p = -5.704_988_7e-3;
    for coefficient in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = fma::<S>(p, square, coefficient);
    }
    let near = fma::<S>(p * square, x, x);
    let far = (1.0 - 2.0 / (exp::<S>(2.0 * size) + 1.0)).copysign(x);
    if size < 0.625 { near } else { far }
}

/// `x` becomes `cap · tanh(x / cap)`.
#[inline(always)]
pub(crate) fn softcap_all<S: Simd>(values: &mut [f32], cap: f32) {
    for x in values {
        *x = cap * tanh::<S>(*x / cap);
    }
}

/// Derivative of [`softcap_all`] where its result is `y`. Of -∞, a masked score, it is 0.
#[inline(always)]
pub(crate) fn softcap_slope(y: f32, cap: f32) -> f32 {
    let t = if y > -cap { y / cap } else { -1.0 };
    1.0 - t * t
}

vectorised! {
    /// `out = factor · x`.
    pub(crate) fn scale<'a, S>(x: &'a [f32], factor: f32, out: &'a mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = factor * x;
        }
    }

    /// `x` becomes `factor · x`.
    pub(crate) fn scale_by<'a, S>(values: &'a mut [f32], factor: f32) {
        scale_all(values, factor);
    }

    /// `x` becomes `cap · tanh(x / cap)`.
    pub(crate) fn softcap<'a, S>(values: &'a mut [f32], cap: f32) {
        softcap_all::<S>(values, cap);
    }

    /// Multiplies `dy` by the soft-cap's derivative where its result is `y`.
    pub(crate) fn softcap_backward<'a, S>(y: &'a [f32], cap: f32, dy: &'a mut [f32]) {
        for (dy, y) in dy.iter_mut().zip(y) {
            *dy *= softcap_slope(*y, cap);
        }
    }

    /// `out = x + y`.
    pub(crate) fn add<'a, S>(x: &'a [f32], y: &'a [f32], out: &'a mut [f32]) {
        for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
            *out = x + y;
        }
    }

    /// `out += x`.
    pub(crate) fn add_assign<'a, S>(out: &'a mut [f32], x: &'a [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out += x;
        }
    }

    /// `weights = e^(scale · (logits - largest))`; returns the largest logit and the sum of
    /// weights. The sum is not finite if a logit is NaN or infinite, or all are.
    pub(crate) fn softmax_weights<'a, S>(
        logits: &'a [f32],
        scale: f32,
        weights: &'a mut [f32],
    ) -> (f32, f64) {
        let largest = max(logits);
        let (chunks, rest) = logits.as_chunks::<LANES>();
        let (weight_chunks, weight_rest) = weights.as_chunks_mut::<LANES>();
        let mut lanes = [0.0f64; LANES];
        for (weights, logits) in weight_chunks.iter_mut().zip(chunks) {
            for lane in 0..LANES {
                weights[lane] = exp::<S>((logits[lane] - largest) * scale);
                lanes[lane] += f64::from(weights[lane]);
            }
        }
        for ((lane, weight), logit) in lanes.iter_mut().zip(weight_rest).zip(rest) {
            *weight = exp::<S>((logit - largest) * scale);
            *lane += f64::from(*weight);
        }
        (largest, lanes.into_iter().sum())
    }

    /// Sum of all values with enough accumulators to be bound by memory bandwidth.
    pub(crate) fn sum<'a, S>(values: &'a [f32]) -> f32 {
        let (chunks, rest) = values.as_chunks::<{ 4 * LANES }>();
        let mut lanes = [[0.0; LANES]; 4];
        for chunk in chunks {
            for (lanes, chunk) in lanes.iter_mut().zip(chunk.as_chunks::<LANES>().0) {
                for lane in 0..LANES {
                    lanes[lane] += chunk[lane];
                }
            }
        }
        lanes.into_iter().map(sum_lanes).sum::<f32>() + rest.iter().sum::<f32>()
    }

    /// Sum of squares in f64.
    pub(crate) fn sum_of_squares<'a, S>(values: &'a [f32]) -> f64 {
        let (chunks, rest) = values.as_chunks::<LANES>();
        let mut lanes = [0.0f64; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                let x = f64::from(chunk[lane]);
                lanes[lane] += x * x;
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(x) * f64::from(x);
        }
        lanes.into_iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::*;

    vectorised! {
        fn exp_all<'a, S>(values: &'a mut [f32]) {
            for x in values {
                *x = exp::<S>(*x);
            }
        }
        fn tanh_all<'a, S>(values: &'a mut [f32]) {
            for x in values {
                *x = tanh::<S>(*x);
            }
        }
        fn dot_and_max<'a, S>(a: &'a [f32], b: &'a [f32]) -> (f32, f32) {
            (dot::<S>(a, b), max(a))
        }
    }

    #[test]
    fn exp_is_accurate_over_its_whole_range() {
        let inputs: Vec<f32> = (0..2_000_000).map(|i| -87.3 + i as f32 * (175.6 / 2e6)).collect();
        let mut outputs = inputs.clone();
        exp_all(&mut outputs);
        let scalar = inputs.iter().map(|&x| exp::<pulp::Scalar>(x));
        for ((&x, &y), scalar) in inputs.iter().zip(&outputs).zip(scalar) {
            let exact = f64::from(x).exp();
            for y in [y, scalar] {
                let error = (f64::from(y) / exact - 1.0).abs();
                assert!(error < 2e-7, "exp({x}) = {y}, relative error {error:e}");
            }
        }
    }

    #[test]
    fn exp_of_special_values() {
        let mut values =
            [f32::NEG_INFINITY, -1e30, -100.0, -0.0, 0.0, 100.0, 1e30, f32::INFINITY, f32::NAN];
        exp_all(&mut values);
        assert_eq!(
            values[..8],
            [0.0, 0.0, 0.0, 1.0, 1.0, f32::INFINITY, f32::INFINITY, f32::INFINITY]
        );
        assert!(values[8].is_nan());
    }

    #[test]
    fn tanh_is_accurate_over_its_whole_range() {
        let inputs: Vec<f32> = (0..1_000_001).map(|i| (i as f32 - 5e5) * 2e-5).collect();
        let inputs = [&inputs[..], &[1e-30, -1e-5, 90.0, -1e30, f32::INFINITY]].concat();
        let mut outputs = inputs.clone();
        tanh_all(&mut outputs);
        let scalar = inputs.iter().map(|&x| tanh::<pulp::Scalar>(x));
        for ((&x, &y), scalar) in inputs.iter().zip(&outputs).zip(scalar) {
            let exact = f64::from(x).tanh();
            for y in [y, scalar] {
                let error = (f64::from(y) - exact).abs();
                assert!(error <= 3e-7 * exact.abs(), "tanh({x}) = {y}, error {error:e}");
            }
        }
        assert!(tanh::<pulp::Scalar>(f32::NAN).is_nan());
        assert_eq!(softcap_slope(f32::NEG_INFINITY, 50.0), 0.0);
    }

    #[test]
    fn softmax_weights_equal_the_reference() {
        for n in [1, 15, 16, 50] {
            let logits: Vec<f32> = (0..n).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
            let mut weights = vec![f32::NAN; n];
            let (largest, sum) = softmax_weights(&logits, 0.7, &mut weights);
            assert_eq!(largest, logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let scaled: Vec<f64> = logits.iter().map(|&z| f64::from(z * 0.7)).collect();
            for (weight, p) in weights.iter().zip(reference::softmax(&scaled)) {
                assert!((f64::from(*weight) / sum - p).abs() < 1e-6, "{weight} of {sum}, {p}");
            }
        }
    }

    #[test]
    fn lanes_miss_no_element() {
        for n in 0..70 {
            let a: Vec<f32> = (0..n).map(|i| ((i * 37) % 11) as f32 - 20.0).collect();
            let b: Vec<f32> = (0..n).map(|i| ((i * 17) % 7) as f32 - 3.0).collect();
            let exact: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
            let largest = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            // Small integers: exact in any order.
            assert_eq!(dot_and_max(&a, &b), (exact, largest));
            assert_eq!(sum_of_squares(&a), f64::from(a.iter().map(|a| a * a).sum::<f32>()));
        }
    }
}
