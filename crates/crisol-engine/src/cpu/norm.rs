//! `RMSNorm` over groups of columns.

use super::math::{LANES, dot, fma, sum_lanes, vectorised};

vectorised! {
    /// `out = x / sqrt(mean(x²) + eps) · weight` in groups of `weight.len()`; saves `1 / sqrt(…)`
    /// per group.
    pub(crate) fn forward<'a, S>(
        x: &'a [f32],
        weight: &'a [f32],
        eps: f32,
        out: &'a mut [f32],
        rstd: &'a mut [f32],
    ) {
        let n = weight.len();
        for ((x, out), rstd) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)).zip(rstd) {
            *rstd = 1.0 / (dot::<S>(x, x) / n as f32 + eps).sqrt();
            for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
                *out = x * *rstd * w;
            }
        }
    }

    /// With `x̂ = x · rstd`: `dx = rstd · (w·dy - x̂ · mean(w·dy·x̂))` and `dw += dy · x̂`.
    pub(crate) fn backward<'a, S>(
        x: &'a [f32],
        weight: &'a [f32],
        rstd: &'a [f32],
        dy: &'a [f32],
        dx: &'a mut [f32],
        accumulate: bool,
        dweight: &'a mut [f32],
    ) {
        let n = weight.len();
        let inputs = x.chunks_exact(n).zip(dy.chunks_exact(n));
        let groups = inputs.zip(dx.chunks_exact_mut(n)).zip(rstd);
        for (((x, dy), dx), &rstd) in groups {
            let mean = dot3(x, dy, weight) / n as f32;
            let slope = rstd * rstd * rstd * mean;
            if !accumulate {
                dx.fill(0.0);
            }
            let weights = weight.iter().zip(dweight.iter_mut());
            for (((dx, x), dy), (w, dw)) in dx.iter_mut().zip(x).zip(dy).zip(weights) {
                *dx += fma::<S>(dy * w, rstd, -x * slope);
                *dw = fma::<S>(dy * rstd, *x, *dw);
            }
        }
    }
}

/// Sum of `a · b · c`.
#[inline(always)]
fn dot3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let (c, c_rest) = c.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane] * c[lane];
        }
    }
    for (((lane, a), b), c) in lanes.iter_mut().zip(a_rest).zip(b_rest).zip(c_rest) {
        *lane += a * b * c;
    }
    sum_lanes(lanes)
}
