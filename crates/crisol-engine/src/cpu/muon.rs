//! Muon's update of one matrix: the momentum, orthogonalised by Newton-Schulz iterations.

use super::gemm::gemm;
use super::mat::{Mat, MatMut};
use super::math::{sum_of_squares, vectorised};
use super::packed::{PackedOperand, pack, packed_len, panel_width};
use crate::buffer::Pool;
use crate::precision::Precision;

/// Decay of the momentum (Jordan et al. 2024).
const MOMENTUM: f32 = 0.95;
/// Newton-Schulz steps, and the quintic of each. It maps singular values in (0, 1] to about 0.7 to
/// 1.2, small ones as fast as possible (Jordan et al. 2024).
const NEWTON_SCHULZ_STEPS: usize = 5;
const QUINTIC: [f32; 3] = [3.4445, -4.775, 2.0315];
/// RMS of an update, that of AdamW, so both take the same learning rates: an orthogonal matrix is
/// scaled by this times the root of its longer side (Liu et al. 2025, arXiv:2502.16982, section
/// 2.2).
const UPDATE_RMS: f32 = 0.2;

/// Writes the direction of a step, which is subtracted times the learning rate, from gradient `g`
/// and the momentum `m` before this step.
pub(crate) fn direction(
    m: &[f32],
    g: &[f32],
    clip: f32,
    rows: usize,
    cols: usize,
    out: &mut [f32],
    floats: &mut Pool<f32>,
) {
    nesterov(m, g, clip, out);
    // Iterate on the orientation with the smaller Gram matrix.
    let (short, long) = (rows.min(cols), rows.max(cols));
    let mut x = floats.take(short * long);
    if rows <= cols {
        x.copy_from_slice(out);
    } else {
        transpose(out, rows, cols, &mut x);
    }
    // The Frobenius norm bounds the largest singular value.
    let norm = sum_of_squares(&x).sqrt() as f32 + 1e-7;
    scale(&mut x, 1.0 / norm);
    let (mut gram, mut square) = (floats.take(short * short), floats.take(short * short));
    let mut next = floats.take(short * long);
    let mut panels = floats.take(packed_len(Precision::F32, long, short).max(packed_len(
        Precision::F32,
        short,
        long,
    )));
    let mut multiply =
        |dst: &mut [f32], accumulate, factor, left: Mat<'_>, right: Mat<'_>, structure| {
            let (rows, inner, cols) = (left.row_count(), left.col_count(), right.col_count());
            let panels = &mut panels[..packed_len(Precision::F32, inner, cols)];
            pack(Precision::F32, right, panels);
            let right = PackedOperand::new(Precision::F32, panels, inner, cols);
            match structure {
                Structure::General => {
                    gemm(MatMut::new(dst, rows, cols), accumulate, factor, left, right);
                }
                Structure::Symmetric => symmetric_gemm(dst, accumulate, factor, left, right),
            }
        };
    let [a, b, c] = QUINTIC;
    for _ in 0..NEWTON_SCHULZ_STEPS {
        // X ← aX + (bXXᵀ + c(XXᵀ)²)X
        let of = Mat::new(&x, short, long);
        multiply(&mut gram, false, 1.0, of, of.t(), Structure::Symmetric);
        let of_gram = Mat::new(&gram, short, short);
        square.copy_from_slice(&gram);
        scale(&mut square, b);
        multiply(&mut square, true, c, of_gram, of_gram, Structure::Symmetric);
        next.copy_from_slice(&x);
        scale(&mut next, a);
        multiply(&mut next, true, 1.0, Mat::new(&square, short, short), of, Structure::General);
        std::mem::swap(&mut x, &mut next);
    }
    scale(&mut x, UPDATE_RMS * (long as f32).sqrt());
    if rows <= cols {
        out.copy_from_slice(&x);
    } else {
        transpose(&x, cols, rows, out);
    }
    for buffer in [x, next, gram, square, panels] {
        floats.give(buffer);
    }
}

/// Structure of a GEMM's result.
enum Structure {
    General,
    Symmetric,
}

/// [`gemm`] where `dst` and `a · b` are symmetric: blocks on and above the diagonal are computed
/// and mirrored. The bits are those of the full GEMM.
fn symmetric_gemm(
    dst: &mut [f32],
    accumulate: bool,
    factor: f32,
    a: Mat<'_>,
    b: PackedOperand<'_>,
) {
    let n = a.row_count();
    // Whole panels and whole tiles of rows.
    let step = 3 * panel_width();
    for start in (0..n).step_by(step) {
        let end = (start + step).min(n);
        let block = MatMut::strided(&mut dst[start * n + start..], end - start, n - start, n);
        gemm(block, accumulate, factor, a.rows(start..end), b.cols(start..n));
        for row in start..end {
            for col in end..n {
                dst[col * n + row] = dst[row * n + col];
            }
        }
    }
}

fn transpose(from: &[f32], rows: usize, cols: usize, to: &mut [f32]) {
    for (row, values) in from.chunks_exact(cols).enumerate() {
        for (value, to) in values.iter().zip(to[row..].iter_mut().step_by(rows)) {
            *to = *value;
        }
    }
}

vectorised! {
    /// Nesterov momentum: the gradient blended with the updated momentum.
    fn nesterov<'a, S>(m: &'a [f32], g: &'a [f32], clip: f32, out: &'a mut [f32]) {
        for ((m, g), out) in m.iter().zip(g).zip(out) {
            let g = g * clip;
            let m = m + (1.0 - MOMENTUM) * (g - m);
            *out = g + MOMENTUM * (m - g);
        }
    }

    fn scale<'a, S>(values: &'a mut [f32], factor: f32) {
        for x in values {
            *x *= factor;
        }
    }

    /// Updates parameters and momentum; `keep` is `1 - lr · weight_decay`.
    pub(crate) fn update<'a, S>(
        p: &'a mut [f32],
        m: &'a mut [f32],
        g: &'a [f32],
        direction: &'a [f32],
        clip: f32,
        keep: f32,
        lr: f32,
    ) {
        for (((p, m), g), direction) in p.iter_mut().zip(m).zip(g).zip(direction) {
            *m += (1.0 - MOMENTUM) * (g * clip - *m);
            *p = *p * keep - lr * direction;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symmetric_product_has_the_bits_of_the_full_one() {
        for n in [1, 7, 48, 97, 130] {
            let a: Vec<f32> =
                (0..n * 20).map(|i| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0).collect();
            let a = Mat::new(&a, n, 20);
            let mut panels = vec![0.0; packed_len(Precision::F32, 20, n)];
            pack(Precision::F32, a.t(), &mut panels);
            let b = PackedOperand::new(Precision::F32, &panels, 20, n);
            let mut full: Vec<f32> = (0..n * n).map(|i| (i / n + i % n) as f32).collect();
            let mut half = full.clone();
            for accumulate in [true, false] {
                gemm(MatMut::new(&mut full, n, n), accumulate, 0.3, a, b);
                symmetric_gemm(&mut half, accumulate, 0.3, a, b);
                assert_eq!(full, half, "{n}, {accumulate}");
            }
        }
    }
}
