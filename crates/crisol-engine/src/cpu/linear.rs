//! The linear operation, with the low-rank adapter of a frozen weight (Hu et al. 2021,
//! arXiv:2106.09685):
//!
//! ```text
//! forward    y  = x·Wᵀ + s·u·Bᵀ      u = x·Aᵀ      [rows, rank], saved
//! backward   dx = dy·W + t·A         t = s·dy·B    [rows, rank]
//!            dW += dyᵀ·x             if W is trained
//!            dA += tᵀ·x              dB += s·dyᵀ·u
//! ```
//!
//! With magnitudes, y and dy are multiplied by gains g ([`super::dora`]). With dropout, the
//! adapter's x is masked ([`super::dropout`]) to x̂, and so is its part of dx. With both, W counts
//! as a part of the update, as in PEFT, and only what the update adds is masked:
//!
//! ```text
//! forward    y  = (x - x̂)·Wᵀ + g ∘ (x̂·Wᵀ + s·u·Bᵀ)
//! backward   dx = dy·W + mask ∘ ((g ∘ dy - dy)·W + t·A)
//! ```

use super::dora;
use super::gemm::parallel_gemm;
use super::mat::{Mat, MatMut};
use super::math::add_assign;
use super::packed::PackedBuffer;
use super::params::Orientation::{Normal, Transposed};
use super::params::{Grads, Params};
use super::weights::Weight;
use crate::backend::Pass;
use crate::buffer::{Buffer, Pool};
use crate::dropout::Dropout;
use crate::layout::ParamId;

/// What forward wrote.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    pub(crate) y: Mat<'a>,
    /// What was added to y after it.
    pub(crate) bias: Option<&'a [f32]>,
}

/// The adapter's input where a part of x is dropped.
fn masked(
    x: Mat<'_>,
    weight: ParamId,
    dropout: Option<Dropout>,
    floats: &mut Pool<f32>,
) -> Option<Buffer<f32>> {
    let dropout = dropout?;
    let mut values = copied(x, floats);
    dropout.apply(&mut values, x.col_count(), weight.0);
    Some(values)
}

fn copied(x: Mat<'_>, floats: &mut Pool<f32>) -> Buffer<f32> {
    let (rows, cols) = (x.row_count(), x.col_count());
    let mut values = floats.take(rows * cols);
    for (row, values) in values.chunks_exact_mut(cols).enumerate() {
        values.copy_from_slice(x.tile(row, 1, 0..cols));
    }
    values
}

/// Turns the adapter's input into what was dropped of x.
fn subtract_from(x: Mat<'_>, masked: &mut [f32]) {
    let cols = x.col_count();
    for (row, masked) in masked.chunks_exact_mut(cols).enumerate() {
        for (masked, x) in masked.iter_mut().zip(x.tile(row, 1, 0..cols)) {
            *masked = x - *masked;
        }
    }
}

/// Writes `y`, `[rows, out]`, and u. `low_rank` has [`Params::rank`] floats a row.
pub(crate) fn forward(
    params: &Params,
    weight: ParamId,
    x: Mat<'_>,
    mut y: MatMut<'_>,
    low_rank: &mut [f32],
    pass: Pass,
    tasks: usize,
    floats: &mut Pool<f32>,
) {
    let (rows, cols) = (x.row_count(), y.col_count());
    let in_dim = x.col_count();
    let operand = |id| Weight::forward(params, id, rows, pass);
    let adapter = params.adapter(weight);
    let mut masked = adapter.and_then(|_| masked(x, weight, pass.dropout, floats));
    let gains = params.gains(weight);
    let of_adapter = masked.as_ref().map_or(x, |values| Mat::new(values, rows, in_dim));
    let of_weight = if gains.is_some() { of_adapter } else { x };
    operand(weight).gemm(tasks, y.cols(0..cols), false, 1.0, of_weight, floats);
    let Some(adapter) = adapter else { return };
    let rank = params.rank(weight);
    let u = MatMut::new(low_rank, rows, rank);
    operand(adapter.a).gemm(tasks, u, false, 1.0, of_adapter, floats);
    let u = Mat::new(low_rank, rows, rank);
    operand(adapter.b).gemm(tasks, y.cols(0..cols), true, adapter.scale, u, floats);
    if let Some(gains) = gains {
        (0..rows).for_each(|row| dora::scale(y.row_mut(row, 0..cols), gains));
        if let Some(masked) = &mut masked {
            subtract_from(x, masked);
            let dropped = Mat::new(masked, rows, in_dim);
            operand(weight).gemm(tasks, y.cols(0..cols), true, 1.0, dropped, floats);
        }
    }
    floats.give(masked.unwrap_or_default());
}

/// Writes `dx`, or adds to it if `accumulate`; adds to the gradients of what is trained.
pub(crate) fn backward(
    params: &Params,
    weight: ParamId,
    x: Mat<'_>,
    output: Output<'_>,
    dy: Mat<'_>,
    mut dx: MatMut<'_>,
    accumulate: bool,
    low_rank: &[f32],
    dropout: Option<Dropout>,
    grads: &mut Grads,
    tasks: usize,
    floats: &mut Pool<f32>,
) {
    let (rows, in_dim, out_dim) = (x.row_count(), x.col_count(), dy.col_count());
    let operand = |id, orientation| Weight::new(params, id, orientation);
    let (adapter, precision) = (params.adapter(weight), params.precision());
    let gains = params.gains(weight);
    // Backward of the gains first: all of the adapter's below is that of their input.
    let scaled = gains.map(|gains| {
        let magnitude = adapter.and_then(|adapter| adapter.magnitude);
        if let Some((id, dm)) = magnitude.and_then(|id| Some((id, grads.slice_mut(id)?))) {
            let Output { y, bias } = output;
            let scaled_part = masked(x, weight, dropout, floats).map(|mut masked| {
                subtract_from(x, &mut masked);
                let dropped = Mat::new(&masked, rows, in_dim);
                let mut part = copied(y, floats);
                let part_mat = MatMut::new(&mut part, rows, out_dim);
                operand(weight, Transposed).gemm(tasks, part_mat, true, -1.0, dropped, floats);
                floats.give(masked);
                part
            });
            let y = scaled_part.as_ref().map_or(y, |part| Mat::new(part, rows, out_dim));
            dora::magnitude_gradient(dy, y, bias, params.slice(id), dm, floats);
            floats.give(scaled_part.unwrap_or_default());
        }
        let mut scaled = copied(dy, floats);
        dora::scale(&mut scaled, gains);
        scaled
    });
    let unscaled = dy;
    let dy = scaled.as_ref().map_or(dy, |values| Mat::new(values, rows, out_dim));
    let dropped_gains = scaled.is_some() && dropout.is_some();
    let of_weight = if dropped_gains { unscaled } else { dy };
    operand(weight, Normal).gemm(tasks, dx.cols(0..in_dim), accumulate, 1.0, of_weight, floats);
    if let Some(dw) = grads.slice_mut(weight) {
        let panels = PackedBuffer::new(precision, tasks, x, floats);
        let dw = MatMut::new(dw, out_dim, in_dim);
        parallel_gemm(tasks, dw, true, 1.0, dy.t(), panels.as_operand(), floats);
        panels.recycle(floats);
    }
    if let Some(adapter) = adapter {
        let rank = params.rank(weight);
        let mut t = floats.take(rows * rank);
        let t_mat = MatMut::new(&mut t, rows, rank);
        operand(adapter.b, Normal).gemm(tasks, t_mat, false, adapter.scale, dy, floats);
        let t_mat = Mat::new(&t, rows, rank);
        let masked = masked(x, weight, dropout, floats);
        let x = masked.as_ref().map_or(x, |values| Mat::new(values, rows, in_dim));
        let panels = PackedBuffer::new(precision, tasks, x, floats);
        if let Some(dropout) = dropout {
            let mut part = floats.take(rows * in_dim);
            if dropped_gains {
                let mut added = copied(dy, floats);
                for (row, added) in added.chunks_exact_mut(out_dim).enumerate() {
                    let dy = unscaled.tile(row, 1, 0..out_dim);
                    added.iter_mut().zip(dy).for_each(|(added, dy)| *added -= dy);
                }
                let part = MatMut::new(&mut part, rows, in_dim);
                let added_mat = Mat::new(&added, rows, out_dim);
                operand(weight, Normal).gemm(tasks, part, false, 1.0, added_mat, floats);
                floats.give(added);
            }
            let part_mat = MatMut::new(&mut part, rows, in_dim);
            operand(adapter.a, Normal).gemm(tasks, part_mat, dropped_gains, 1.0, t_mat, floats);
            dropout.apply(&mut part, in_dim, weight.0);
            for (row, part) in part.chunks_exact(in_dim).enumerate() {
                add_assign(dx.row_mut(row, 0..in_dim), part);
            }
            floats.give(part);
        } else {
            operand(adapter.a, Normal).gemm(tasks, dx, true, 1.0, t_mat, floats);
        }
        if let Some(da) = grads.slice_mut(adapter.a) {
            let da = MatMut::new(da, rank, in_dim);
            parallel_gemm(tasks, da, true, 1.0, t_mat.t(), panels.as_operand(), floats);
        }
        panels.recycle(floats);
        floats.give(masked.unwrap_or_default());
        if let Some(db) = grads.slice_mut(adapter.b) {
            let u = PackedBuffer::new(precision, tasks, Mat::new(low_rank, rows, rank), floats);
            let db = MatMut::new(db, out_dim, rank);
            parallel_gemm(tasks, db, true, adapter.scale, dy.t(), u.as_operand(), floats);
            u.recycle(floats);
        }
        floats.give(t);
    }
    floats.give(scaled.unwrap_or_default());
}
