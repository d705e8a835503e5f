//! The linear operation, with the low-rank adapter of a frozen weight (Hu et al. 2021,
//! arXiv:2106.09685):
//!
//! ```text
//! forward    y  = x·Wᵀ + s·u·Bᵀ      u = x·Aᵀ      [rows, rank], saved
//! backward   dx = dy·W + t·A         t = s·dy·B    [rows, rank]
//!            dW += dyᵀ·x             if W is trained
//!            dA += tᵀ·x              dB += s·dyᵀ·u
//! ```

use super::gemm::parallel_gemm;
use super::mat::{Mat, MatMut};
use super::packed::PackedBuffer;
use super::params::Orientation::{Normal, Transposed};
use super::params::{Grads, Params};
use super::weights::Weight;
use crate::buffer::Pool;
use crate::layout::ParamId;

/// Writes `y`, `[rows, out]`, and u. `low_rank` has [`Params::rank`] floats a row.
pub(crate) fn forward(
    params: &Params,
    weight: ParamId,
    x: Mat<'_>,
    mut y: MatMut<'_>,
    low_rank: &mut [f32],
    tasks: usize,
    floats: &mut Pool<f32>,
) {
    let (rows, cols) = (x.row_count(), y.col_count());
    let operand = |id, orientation| Weight::new(params, id, orientation, rows);
    operand(weight, Transposed).gemm(tasks, y.cols(0..cols), false, 1.0, x, floats);
    if let Some(adapter) = params.adapter(weight) {
        let rank = params.rank(weight);
        let u = MatMut::new(low_rank, rows, rank);
        operand(adapter.a, Transposed).gemm(tasks, u, false, 1.0, x, floats);
        let u = Mat::new(low_rank, rows, rank);
        operand(adapter.b, Transposed).gemm(tasks, y, true, adapter.scale, u, floats);
    }
}

/// Writes `dx`, or adds to it if `accumulate`; adds to the gradients of what is trained.
pub(crate) fn backward(
    params: &Params,
    weight: ParamId,
    x: Mat<'_>,
    dy: Mat<'_>,
    mut dx: MatMut<'_>,
    accumulate: bool,
    low_rank: &[f32],
    grads: &mut Grads,
    tasks: usize,
    floats: &mut Pool<f32>,
) {
    let (rows, in_dim, out_dim) = (x.row_count(), x.col_count(), dy.col_count());
    let operand = |id, orientation| Weight::new(params, id, orientation, rows);
    let (trained, adapter) = (grads.slice_mut(weight), params.adapter(weight));
    let precision = params.precision();
    // The right operand of dW and dA.
    let panels = (trained.is_some() || adapter.is_some())
        .then(|| PackedBuffer::new(precision, tasks, x, floats));
    operand(weight, Normal).gemm(tasks, dx.cols(0..in_dim), accumulate, 1.0, dy, floats);
    if let (Some(dw), Some(panels)) = (trained, &panels) {
        let dw = MatMut::new(dw, out_dim, in_dim);
        parallel_gemm(tasks, dw, true, 1.0, dy.t(), panels.as_operand(), floats);
    }
    if let (Some(adapter), Some(panels)) = (adapter, &panels) {
        let rank = params.rank(weight);
        let mut t = floats.take(rows * rank);
        let t_mat = MatMut::new(&mut t, rows, rank);
        operand(adapter.b, Normal).gemm(tasks, t_mat, false, adapter.scale, dy, floats);
        let t_mat = Mat::new(&t, rows, rank);
        operand(adapter.a, Normal).gemm(tasks, dx, true, 1.0, t_mat, floats);
        if let Some(da) = grads.slice_mut(adapter.a) {
            let da = MatMut::new(da, rank, in_dim);
            parallel_gemm(tasks, da, true, 1.0, t_mat.t(), panels.as_operand(), floats);
        }
        if let Some(db) = grads.slice_mut(adapter.b) {
            let u = PackedBuffer::new(precision, tasks, Mat::new(low_rank, rows, rank), floats);
            let db = MatMut::new(db, out_dim, rank);
            parallel_gemm(tasks, db, true, adapter.scale, dy.t(), u.as_operand(), floats);
            u.recycle(floats);
        }
        floats.give(t);
    }
    if let Some(panels) = panels {
        panels.recycle(floats);
    }
}
