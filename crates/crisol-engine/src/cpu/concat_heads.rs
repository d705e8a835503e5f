//! Slices of the columns of heads, concatenated per head (multi-head latent attention).

use super::math::add_assign;
use crate::op::HeadSlice;

/// Copies a slice into columns `first..` of every head of `out`, which has `heads` heads of
/// `out_width` columns.
pub(crate) fn copy(
    part: HeadSlice,
    x: &[f32],
    out: &mut [f32],
    heads: usize,
    first: usize,
    out_width: usize,
) {
    let (x_stride, out_stride) = (part.heads * part.head_dim, heads * out_width);
    for (x, out) in x.chunks_exact(x_stride).zip(out.chunks_exact_mut(out_stride)) {
        for (head, out) in out.chunks_exact_mut(out_width).enumerate() {
            let from = part.column(head);
            out[first..first + part.width].copy_from_slice(&x[from..from + part.width]);
        }
    }
}

/// Adds a slice's gradient to that of its source.
pub(crate) fn add_back(
    part: HeadSlice,
    dout: &[f32],
    dx: &mut [f32],
    heads: usize,
    first: usize,
    out_width: usize,
) {
    let (x_stride, out_stride) = (part.heads * part.head_dim, heads * out_width);
    for (dx, dout) in dx.chunks_exact_mut(x_stride).zip(dout.chunks_exact(out_stride)) {
        for (head, dout) in dout.chunks_exact(out_width).enumerate() {
            let to = part.column(head);
            add_assign(&mut dx[to..to + part.width], &dout[first..first + part.width]);
        }
    }
}
