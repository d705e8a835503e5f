//! Attention on several threads: one head of keys and values of one document, with its queries, is a piece of work.
//!
//! A piece is copied out of the rows of all heads and its results are copied back, which costs little beside the work, and
//! is then computed as attention with a single head of keys and values: the same operations, so the same bits.

use std::ops::Range;

use super::attention::{self, Cached, Saved};
use crate::workspace::{Buffer, Pool};
use crate::{Attention, Device, parallel};

/// Documents and their heads, piece after piece.
struct Pieces<'a> {
    shape: &'a Attention,
    offsets: &'a [u32],
    /// Attention of one piece.
    piece: Attention,
}

impl<'a> Pieces<'a> {
    fn new(shape: &'a Attention, offsets: &'a [u32]) -> Pieces<'a> {
        let piece = Attention { heads: shape.heads / shape.kv_heads, kv_heads: 1, ..*shape };
        Pieces { shape, offsets, piece }
    }

    fn all(&self) -> Range<usize> {
        0..(self.offsets.len() - 1) * self.shape.kv_heads
    }

    /// Rows of a piece's document, and its head.
    fn of(&self, piece: usize) -> (Range<usize>, usize) {
        let document = piece / self.shape.kv_heads;
        let rows = self.offsets[document] as usize..self.offsets[document + 1] as usize;
        (rows, piece % self.shape.kv_heads)
    }

    /// Where a piece starts among results that lie piece after piece, with `width` columns a head.
    fn start(&self, piece: usize, width: usize) -> usize {
        let (rows, head) = match piece {
            end if end == self.all().end => (self.offsets[self.offsets.len() - 1] as usize..0, 0),
            piece => self.of(piece),
        };
        let length = rows.end.saturating_sub(rows.start);
        (rows.start * self.shape.kv_heads + length * head) * width
    }

    /// A piece's columns of `x`, which has `width` of them a head.
    fn gather(&self, piece: usize, x: &[f32], width: usize, floats: &mut Pool<f32>) -> Buffer<f32> {
        let (rows, head) = self.of(piece);
        let stride = self.shape.kv_heads * width;
        let mut columns = floats.take(rows.len() * width);
        let rows = x[rows.start * stride..rows.end * stride].chunks_exact(stride);
        for (to, row) in columns.chunks_exact_mut(width).zip(rows) {
            to.copy_from_slice(&row[head * width..][..width]);
        }
        columns
    }

    /// Puts the results of all pieces, which lie piece after piece, into their columns.
    fn scatter(&self, results: &[f32], width: usize, to: &mut [f32]) {
        let stride = self.shape.kv_heads * width;
        for piece in self.all() {
            let (rows, head) = self.of(piece);
            let results = &results[self.start(piece, width)..self.start(piece + 1, width)];
            let rows = to[rows.start * stride..rows.end * stride].chunks_exact_mut(stride);
            for (from, row) in results.chunks_exact(width).zip(rows) {
                row[head * width..][..width].copy_from_slice(from);
            }
        }
    }

    /// Runs `f(piece, its parts of results)` for some pieces; `results` start with the first of them and have so many columns
    /// a head (`widths`).
    fn run<const N: usize>(
        &self,
        pieces: Range<usize>,
        widths: [usize; N],
        results: [&mut [f32]; N],
        f: &(impl Fn(usize, [&mut [f32]; N]) + Sync),
    ) {
        if pieces.len() <= 1 {
            if !pieces.is_empty() {
                f(pieces.start, results);
            }
            return;
        }
        let middle = pieces.start + pieces.len() / 2;
        let places =
            widths.map(|width| self.start(middle, width) - self.start(pieces.start, width));
        let (left, right) = parallel::split(results, places);
        rayon::join(
            || self.run(pieces.start..middle, widths, left, f),
            || self.run(middle..pieces.end, widths, right, f),
        );
    }
}

/// [`attention::forward`] on the device's threads.
pub(crate) fn forward(
    device: &Device,
    [q, k, v]: [&[f32]; 3],
    shape: &Attention,
    offsets: &[u32],
    out: &mut [f32],
    lse: &mut [f32],
    floats: &mut Pool<f32>,
) {
    let pieces = Pieces::new(shape, offsets);
    let &Attention { heads, qk_dim, v_dim, .. } = &pieces.piece;
    let (mut results, mut sums) = (floats.take(out.len()), floats.take(lse.len()));
    pieces.run(
        pieces.all(),
        [heads * v_dim, heads],
        [&mut results, &mut sums],
        &|piece, [out, lse]| {
            device.with_workspace_for_part(|workspace| {
                let floats = &mut workspace.floats;
                let inputs = [(q, heads * qk_dim), (k, qk_dim), (v, v_dim)];
                let inputs = inputs.map(|(x, width)| pieces.gather(piece, x, width, floats));
                let [q, k, v] = &inputs;
                let offsets = [0, pieces.of(piece).0.len() as u32];
                attention::forward(
                    q,
                    k,
                    v,
                    &pieces.piece,
                    &offsets,
                    out,
                    lse,
                    device.interrupt(),
                    floats,
                );
                for buffer in inputs {
                    floats.give(buffer);
                }
            });
        },
    );
    pieces.scatter(&results, heads * v_dim, out);
    pieces.scatter(&sums, heads, lse);
    floats.give(results);
    floats.give(sums);
}

/// [`Cached::attend_all`] on the device's threads.
pub(crate) fn cached(
    device: &Device,
    cached: &Cached<'_>,
    out: &mut [f32],
    floats: &mut Pool<f32>,
) {
    let pieces = Pieces::new(cached.shape, cached.offsets);
    let &Attention { heads, qk_dim, v_dim, .. } = &pieces.piece;
    let mut results = floats.take(out.len());
    pieces.run(pieces.all(), [heads * v_dim], [&mut results], &|piece, [out]| {
        device.with_workspace_for_part(|workspace| {
            let floats = &mut workspace.floats;
            let q = pieces.gather(piece, cached.q, heads * qk_dim, floats);
            let (document, head) = (piece / cached.shape.kv_heads, pieces.of(piece).1);
            cached.attend(document, head..head + 1, &q, out, floats);
            floats.give(q);
        });
    });
    pieces.scatter(&results, heads * v_dim, out);
    floats.give(results);
}

/// [`attention::backward`] on the device's threads; `grads` of q, k and v are written.
pub(crate) fn backward(
    device: &Device,
    saved: &Saved<'_>,
    shape: &Attention,
    offsets: &[u32],
    dout: &[f32],
    grads: [&mut [f32]; 3],
    floats: &mut Pool<f32>,
) {
    let pieces = Pieces::new(shape, offsets);
    let &Attention { heads, qk_dim, v_dim, .. } = &pieces.piece;
    let widths = [heads * qk_dim, qk_dim, v_dim];
    let mut results: [_; 3] = std::array::from_fn(|i| floats.take(grads[i].len()));
    let [dq, dk, dv] = &mut results;
    pieces.run(pieces.all(), widths, [dq, dk, dv], &|piece, [dq, dk, dv]| {
        device.with_workspace_for_part(|workspace| {
            let floats = &mut workspace.floats;
            let inputs = [
                (saved.q, heads * qk_dim),
                (saved.k, qk_dim),
                (saved.v, v_dim),
                (saved.out, heads * v_dim),
                (saved.lse, heads),
                (dout, heads * v_dim),
            ];
            let inputs = inputs.map(|(x, width)| pieces.gather(piece, x, width, floats));
            let [q, k, v, out, lse, dout] = &inputs;
            let saved = Saved { q, k, v, out, lse };
            let offsets = [0, pieces.of(piece).0.len() as u32];
            dk.fill(0.0);
            dv.fill(0.0);
            attention::backward(
                &saved,
                &pieces.piece,
                &offsets,
                dout,
                dq,
                dk,
                dv,
                device.interrupt(),
                floats,
            );
            for buffer in inputs {
                floats.give(buffer);
            }
        });
    });
    for ((result, grad), width) in results.into_iter().zip(grads).zip(widths) {
        pieces.scatter(&result, width, grad);
        floats.give(result);
    }
}
