//! Weight-decomposed adapters (DoRA; Liu et al. 2024, arXiv:2402.09353): the rows of an updated
//! weight have trained norms m.
//!
//! ```text
//! y = g ∘ (x·Wᵀ + s·u·Bᵀ)      g = m / n      n_j = ‖W_j + s·B_j·A‖
//! ```
//!
//! Backward takes n as a constant (section 4.3). The updated weight is never in memory:
//!
//! ```text
//! n_j² = ‖W_j‖² + 2s·(W·Aᵀ)_j·B_j + s²·B_j·(A·Aᵀ)·B_jᵀ
//! ```

use super::mat::{Mat, MatMut};
use super::params::Orientation::Transposed;
use super::params::Params;
use super::quantised::dequantise;
use super::weights::Weight;
use crate::buffer::{Buffer, Pool};
use crate::layout::{Adapter, ParamId};

/// Squares of the norms of a weight's rows.
pub(crate) fn row_squares(params: &Params, weight: ParamId) -> Vec<f64> {
    let (rows, cols) = params.matrix_shape(weight);
    let Some(matrix) = params.quantised(weight) else {
        return params.slice(weight).chunks_exact(cols).map(super::math::sum_of_squares).collect();
    };
    let mut floats = Pool::default();
    let mut row = floats.take(cols);
    let square = |index: usize| {
        dequantise(matrix, index..index + 1, &mut row, &mut floats);
        super::math::sum_of_squares(&row)
    };
    (0..rows).map(square).collect()
}

/// g of a weight with an adapter whose norms are `magnitude`. A row of zeros has g = 0.
pub(crate) fn gains(
    params: &Params,
    weight: ParamId,
    adapter: Adapter,
    magnitude: ParamId,
    row_squares: &[f64],
) -> Buffer<f32> {
    let (rows, cols) = params.matrix_shape(weight);
    let rank = params.rank(weight);
    let (a, b) = (params.slice(adapter.a), params.slice(adapter.b));
    let mut floats = Pool::default();
    // A·Wᵀ, [rank, rows].
    let mut projected = floats.take(rank * rows);
    let operand = Weight::new(params, weight, Transposed);
    let product = MatMut::new(&mut projected, rank, rows);
    operand.gemm(1, product, false, 1.0, Mat::new(a, rank, cols), &mut floats);
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    let a_rows: Vec<&[f32]> = a.chunks_exact(cols).collect();
    let gram: Vec<f64> =
        a_rows.iter().flat_map(|x| a_rows.iter().map(move |y| dot(x, y))).collect();
    let s = f64::from(adapter.scale);
    let mut gains = Buffer::zeros(rows);
    for (j, (gain, &m)) in gains.iter_mut().zip(params.slice(magnitude)).enumerate() {
        let b: Vec<f64> = b[j * rank..(j + 1) * rank].iter().map(|&b| f64::from(b)).collect();
        let with_weight: f64 =
            b.iter().enumerate().map(|(k, b)| b * f64::from(projected[k * rows + j])).sum();
        let of_gram = |(k, b_k): (usize, &f64)| {
            b_k * b.iter().zip(&gram[k * rank..]).map(|(b, g)| b * g).sum::<f64>()
        };
        let of_update: f64 = b.iter().enumerate().map(of_gram).sum();
        let square = row_squares[j] + 2.0 * s * with_weight + s * s * of_update;
        *gain = if square > 0.0 { (f64::from(m) / square.sqrt()) as f32 } else { 0.0 };
    }
    gains
}

/// Multiplies the rows of a weight by their g.
pub(crate) fn scale_weight(rows: &mut [f32], cols: usize, gains: &[f32]) {
    for (row, &gain) in rows.chunks_exact_mut(cols).zip(gains) {
        super::math::scale_all(row, gain);
    }
}

/// Multiplies every row of outputs by g, element by element.
pub(crate) fn scale(values: &mut [f32], gains: &[f32]) {
    for row in values.chunks_exact_mut(gains.len()) {
        for (value, gain) in row.iter_mut().zip(gains) {
            *value *= gain;
        }
    }
}

/// Adds the gradient of m: `dm_j += Σ dy_j · y_j / m_j`, with y before its bias and without what g
/// does not multiply.
pub(crate) fn magnitude_gradient(
    dy: Mat<'_>,
    y: Mat<'_>,
    bias: Option<&[f32]>,
    magnitude: &[f32],
    dm: &mut [f32],
    floats: &mut Pool<f32>,
) {
    let cols = magnitude.len();
    let mut sums = floats.take_zeros(cols);
    for row in 0..y.row_count() {
        let (dy, y) = (dy.tile(row, 1, 0..cols), y.tile(row, 1, 0..cols));
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum += dy[j] * (y[j] - bias.map_or(0.0, |bias| bias[j]));
        }
    }
    for ((dm, &sum), &m) in dm.iter_mut().zip(&*sums).zip(magnitude) {
        if m != 0.0 {
            *dm += sum / m;
        }
    }
    floats.give(sums);
}
