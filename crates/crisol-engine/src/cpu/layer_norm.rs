//! `LayerNorm` over rows.

use super::math::{LANES, dot, fma, sum_lanes, vectorised};

vectorised! {
    /// `out = (x - mean) · rstd · weight + bias` with `rstd = 1 / sqrt(variance + eps)`; saves mean
    /// and rstd of each row in `stats`. `bias` may be empty.
    pub(crate) fn forward<'a, S>(
        x: &'a [f32],
        weight: &'a [f32],
        bias: &'a [f32],
        eps: f32,
        out: &'a mut [f32],
        stats: &'a mut [f32],
    ) {
        let n = weight.len();
        let rows = x.chunks_exact(n).zip(out.chunks_exact_mut(n));
        for ((x, out), stats) in rows.zip(stats.as_chunks_mut::<2>().0) {
            let mean = sum(x) / n as f32;
            for (out, x) in out.iter_mut().zip(x) {
                *out = x - mean;
            }
            let rstd = 1.0 / (dot::<S>(out, out) / n as f32 + eps).sqrt();
            for (out, w) in out.iter_mut().zip(weight) {
                *out *= rstd * w;
            }
            for (out, b) in out.iter_mut().zip(bias) {
                *out += b;
            }
            *stats = [mean, rstd];
        }
    }

    /// With `x̂ = (x - mean) · rstd`: `dx = rstd · (w·dy - mean(w·dy) - x̂ · mean(w·dy·x̂))`,
    /// `dw += dy · x̂` and `db += dy`.
    pub(crate) fn backward<'a, S>(
        x: &'a [f32],
        weight: &'a [f32],
        stats: &'a [f32],
        dy: &'a [f32],
        dx: &'a mut [f32],
        accumulate: bool,
        dweight: &'a mut [f32],
        dbias: &'a mut [f32],
    ) {
        let n = weight.len();
        let inputs = x.chunks_exact(n).zip(dy.chunks_exact(n));
        let rows = inputs.zip(dx.chunks_exact_mut(n)).zip(stats.as_chunks::<2>().0);
        for (((x, dy), dx), &[mean, rstd]) in rows {
            let [first, second] = moments::<S>(x, dy, weight, mean);
            let (first, slope) = (first / n as f32, rstd * rstd * second / n as f32);
            if !accumulate {
                dx.fill(0.0);
            }
            let weights = weight.iter().zip(dweight.iter_mut());
            for (((dx, x), dy), (w, dw)) in dx.iter_mut().zip(x).zip(dy).zip(weights) {
                let centred = x - mean;
                *dx += rstd * (fma::<S>(*dy, *w, -first) - centred * slope);
                *dw = fma::<S>(dy * rstd, centred, *dw);
            }
            for (db, dy) in dbias.iter_mut().zip(dy) {
                *db += dy;
            }
        }
    }
}

#[inline(always)]
fn sum(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for x in chunks {
        for lane in 0..LANES {
            lanes[lane] += x[lane];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += x;
    }
    sum_lanes(lanes)
}

/// `Σ w·dy` and `Σ w·dy·(x - mean)`.
#[inline(always)]
fn moments<S: pulp::Simd>(x: &[f32], dy: &[f32], weight: &[f32], mean: f32) -> [f32; 2] {
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (dy, dy_rest) = dy.as_chunks::<LANES>();
    let (w, w_rest) = weight.as_chunks::<LANES>();
    let (mut first, mut second) = ([0.0; LANES], [0.0; LANES]);
    for ((x, dy), w) in x.iter().zip(dy).zip(w) {
        for lane in 0..LANES {
            let wdy = w[lane] * dy[lane];
            first[lane] += wdy;
            second[lane] = fma::<S>(wdy, x[lane] - mean, second[lane]);
        }
    }
    for (lane, ((x, dy), w)) in x_rest.iter().zip(dy_rest).zip(w_rest).enumerate() {
        let wdy = w * dy;
        first[lane] += wdy;
        second[lane] = fma::<S>(wdy, x - mean, second[lane]);
    }
    [sum_lanes(first), sum_lanes(second)]
}
