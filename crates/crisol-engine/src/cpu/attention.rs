//! Causal attention over packed documents (`FlashAttention`, Dao et al. 2022, arXiv:2205.14135),
//! and attention over a key/value cache.
//!
//! ```text
//!   scores of one head of one document          out = softmax(scale · Q Kᵀ) V, block by block:
//!
//!              KEYS     KEYS
//!            ┌────────┬────────┐                for 32 queries (QUERIES rows):
//!    QUERIES │▒▒      │        │                  for 256 keys (KEYS columns) up to the diagonal:
//!            ├────────┤        │                    S  = scale · Q Kᵀ          GEMM
//!            │▒▒▒▒    │ never  │                    S  = -∞ above the diagonal
//!            ├────────┤computed│                    m' = max(m, rowmax(S))
//!            │▒▒▒▒▒▒▒▒│        │                    P  = exp(S - m')
//!            ├────────┼────────┤                    l  = l · exp(m - m') + rowsum(P)
//!            │▒▒▒▒▒▒▒▒│▒▒      │                    O  = O · exp(m - m') + P V GEMM
//!            └────────┴────────┘                  out = O / l,   lse = m + ln l
//! ```
//!
//! Backward visits the same blocks and recomputes `P = exp(S - lse)`:
//!
//! ```text
//! dP  = dO Vᵀ         dS  = P ⊙ (dP - rowsum(dO ⊙ O))
//! dV += Pᵀ dO         dK += scale · dSᵀ Q         dQ += scale · dS K
//! ```
//!
//! With a window, a block of queries starts at the block of keys that its first query sees: keys
//! before it are never computed. A soft-cap changes S before the mask, and dS by its derivative. A
//! sink is where `m` and `l` start: a score without a value. Its gradient is
//! `-exp(sink - lse) · rowsum(dO ⊙ O)` ([`sink_gradient`]).
//!
//! Keys and values are packed once per head and document. Decoding one token reads the cache once;
//! it is bound by memory bandwidth and has a loop of its own ([`decode`]). The plain twins are
//! `attention` and `attention_backward` in [`reference`](super::reference).

use std::ops::Range;

use super::device::Cpu;
use super::gemm::parallel_gemm;
use super::kv_cache::{Cache, TILE};
use super::mat::{Mat, MatMut};
use super::math::{
    LANES, dot, exp, fma, max, scale_all, softcap_all, softcap_slope, sum_lanes, vectorised,
};
use super::packed::{MAX_NR, PackedBuffer};
use crate::buffer::Pool;
use crate::op::Attention;

/// Queries per block: few, to compute little above the diagonal.
const QUERIES: usize = 32;
/// Keys per block.
const KEYS: usize = 256;
/// Documents with fewer new rows than this are decoded row by row.
const PREFILL: usize = 8;

/// Row stride of a block of scores: whole [`LANES`], and an odd number of cache lines, to spread a
/// column over the cache's sets.
fn row_width(cols: usize) -> usize {
    cols.next_multiple_of(LANES) | LANES
}

/// Forward over all documents. Writes `out` and `lse`, the log-sum-exp of each row and head.
/// `sinks` are those of the heads, or empty. Returns early, with part of them unwritten, once a
/// stop is requested.
pub(crate) fn forward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    shape: &Attention,
    sinks: &[f32],
    offsets: &[u32],
    out: &mut [f32],
    lse: &mut [f32],
    cpu: &Cpu,
    floats: &mut Pool<f32>,
) {
    let heads = Heads::new(shape);
    for document in offsets.windows(2) {
        let (start, end) = (document[0] as usize, document[1] as usize);
        let k =
            Rows { data: &k[start * heads.k_stride..end * heads.k_stride], stride: heads.k_stride };
        let v =
            Rows { data: &v[start * heads.v_stride..end * heads.v_stride], stride: heads.v_stride };
        let q = &q[start * heads.q_stride..end * heads.q_stride];
        let out = &mut out[start * heads.out_stride..end * heads.out_stride];
        let lse = &mut lse[start * shape.heads..end * shape.heads];
        for head in 0..shape.heads {
            let (k, v) = heads.of_kv_head(head, k, v);
            flash_forward(q, k, v, head, shape, sinks, 0, out, Some(lse), cpu, floats);
        }
    }
}

/// Row strides of q, k, v and the output.
#[derive(Clone, Copy)]
struct Heads<'s> {
    shape: &'s Attention,
    q_stride: usize,
    k_stride: usize,
    v_stride: usize,
    out_stride: usize,
}

impl<'s> Heads<'s> {
    fn new(shape: &'s Attention) -> Heads<'s> {
        Heads {
            shape,
            q_stride: shape.heads * shape.qk_dim,
            k_stride: shape.kv_heads * shape.qk_dim,
            v_stride: shape.kv_heads * shape.v_dim,
            out_stride: shape.heads * shape.v_dim,
        }
    }

    /// Index of the key/value head that a query head uses.
    fn kv_head(self, head: usize) -> usize {
        head / (self.shape.heads / self.shape.kv_heads)
    }

    fn of_kv_head<'a>(self, head: usize, k: Rows<'a>, v: Rows<'a>) -> (Rows<'a>, Rows<'a>) {
        let kv_head = self.kv_head(head);
        (k.column(kv_head * self.shape.qk_dim), v.column(kv_head * self.shape.v_dim))
    }
}

/// Columns of one head within the rows of all heads.
#[derive(Clone, Copy)]
struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
}

impl<'a> Rows<'a> {
    fn column(self, column: usize) -> Rows<'a> {
        Rows { data: self.data.get(column..).unwrap_or_default(), ..self }
    }

    fn mat(self, rows: Range<usize>, cols: usize) -> Mat<'a> {
        Mat::strided(&self.data[rows.start * self.stride..], rows.len(), cols, self.stride)
    }
}

/// Position of a block of scores relative to the diagonal and the window.
#[derive(Clone, Copy)]
struct Diagonal {
    /// Position of the block's first query in the document.
    position: usize,
    /// Position of its first key.
    first_key: usize,
    /// The block's keys.
    cols: usize,
    shape: Attention,
}

impl Diagonal {
    /// The block's keys that query `row` of the block may attend to.
    #[inline(always)]
    fn visible(self, row: usize) -> Range<usize> {
        let position = self.position + row;
        let hidden = self.shape.first_visible(position).saturating_sub(self.first_key);
        hidden.min(self.cols)..(position + 1).saturating_sub(self.first_key).min(self.cols)
    }
}

/// First key of the blocks of a block of queries at `position`: at the edge of a panel.
fn first_block(shape: &Attention, position: usize) -> usize {
    shape.first_visible(position) / MAX_NR * MAX_NR
}

/// One head of one document. Queries are rows `past..past + n`, keys `0..past + n`. `q` and `out`
/// hold the rows of all heads; `k` and `v` start at their head's first column.
fn flash_forward(
    q: &[f32],
    k: Rows<'_>,
    v: Rows<'_>,
    head: usize,
    shape: &Attention,
    sinks: &[f32],
    past: usize,
    out: &mut [f32],
    mut lse: Option<&mut [f32]>,
    cpu: &Cpu,
    floats: &mut Pool<f32>,
) {
    let &Attention { heads, qk_dim, v_dim, scale, .. } = shape;
    let n = q.len() / (heads * qk_dim);
    let precision = cpu.precision();
    let mut scores = floats.take(QUERIES * row_width(KEYS));
    let transposed_k = PackedBuffer::new(precision, 1, k.mat(0..past + n, qk_dim).t(), floats);
    let v = PackedBuffer::new(precision, 1, v.mat(0..past + n, v_dim), floats);
    let (mut largest, mut sums) = ([0.0; QUERIES], [0.0; QUERIES]);
    for first in (0..n).step_by(QUERIES).take_while(|_| !cpu.interrupt().requested()) {
        let rows = QUERIES.min(n - first);
        let keys = past + first + rows;
        let q = Mat::strided(
            &q[first * heads * qk_dim + head * qk_dim..],
            rows,
            qk_dim,
            heads * qk_dim,
        );
        let out = &mut out[first * heads * v_dim + head * v_dim..];
        let (start, sink) = (first_block(shape, past + first), sinks.get(head));
        largest.fill(sink.copied().unwrap_or(f32::NEG_INFINITY));
        sums.fill(sink.map_or(0.0, |_| 1.0));
        for first_key in (start..keys).step_by(KEYS) {
            let block = first_key..keys.min(first_key + KEYS);
            let (cols, width) = (block.len(), row_width(block.len()));
            let scores = &mut scores[..rows * width];
            let keys = transposed_k.as_operand().cols(block.clone());
            let dst = MatMut::strided(scores, rows, cols, width);
            parallel_gemm(1, dst, false, scale, q, keys, floats);
            let diagonal = Diagonal { position: past + first, first_key, cols, shape: *shape };
            let rescale = (first_key > start).then_some((&mut *out, heads * v_dim, v_dim));
            running_softmax(scores, diagonal, &mut largest, &mut sums, rescale);
            let p = Mat::strided(scores, rows, cols, width);
            let out = MatMut::strided(out, rows, v_dim, heads * v_dim);
            let v = v.as_operand().rows(block);
            parallel_gemm(1, out, first_key > start, 1.0, p, v, floats);
        }
        divide_rows(out, heads * v_dim, v_dim, &sums[..rows]);
        if let Some(lse) = &mut lse {
            for row in 0..rows {
                lse[(first + row) * heads + head] = largest[row] + sums[row].ln();
            }
        }
    }
    floats.give(scores);
    transposed_k.recycle(floats);
    v.recycle(floats);
}

vectorised! {
    /// Turns a block of scores, with row stride [`row_width`], into `exp(score - max)`, 0 for keys
    /// that are not visible. Updates each row's maximum and sum, and rescales its sum and output so
    /// far.
    fn running_softmax<'a, S>(
        scores: &'a mut [f32],
        diagonal: Diagonal,
        largest: &'a mut [f32],
        sums: &'a mut [f32],
        rescale: Option<(&'a mut [f32], usize, usize)>,
    ) {
        let (mut rescale, cols) = (rescale, diagonal.cols);
        for (row, z) in scores.chunks_exact_mut(row_width(cols)).enumerate() {
            let z = &mut z[..cols.next_multiple_of(LANES)];
            if let Some(cap) = diagonal.shape.softcap {
                softcap_all::<S>(z, cap);
            }
            mask(z, diagonal.visible(row));
            let new = max(z).max(largest[row]);
            let sum = exponentials::<S>(z, new);
            let factor = exp::<S>(largest[row] - new);
            if let Some((out, stride, dim)) = &mut rescale
                && factor != 1.0
            {
                scale_all(&mut out[row * *stride..][..*dim], factor);
            }
            sums[row] = fma::<S>(sums[row], factor, sum);
            largest[row] = new;
        }
    }

    /// Divides each row, `stride` apart, by its sum.
    fn divide_rows<'a, S>(rows: &'a mut [f32], stride: usize, dim: usize, sums: &'a [f32]) {
        for (row, sum) in sums.iter().enumerate() {
            let factor = 1.0 / sum;
            scale_all(&mut rows[row * stride..][..dim], factor);
        }
    }
}

/// Inputs and results of forward that backward reads.
pub(crate) struct Saved<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    pub(crate) out: &'a [f32],
    pub(crate) lse: &'a [f32],
}

/// Backward over all documents. Writes `dq`; adds to `dk` and `dv`. Returns early once a stop is
/// requested.
pub(crate) fn backward(
    saved: &Saved<'_>,
    shape: &Attention,
    offsets: &[u32],
    dout: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
    cpu: &Cpu,
    floats: &mut Pool<f32>,
) {
    let &Attention { heads, qk_dim, v_dim, scale, .. } = shape;
    let (strides, precision) = (Heads::new(shape), cpu.precision());
    let mut p = floats.take(QUERIES * row_width(KEYS));
    let mut dp = floats.take(QUERIES * row_width(KEYS));
    // rowsum(dO ⊙ O) = rowsum(P ⊙ dP), as in FlashAttention.
    let mut delta = floats.take(saved.lse.len());
    row_dots(dout, saved.out, v_dim, &mut delta);
    for document in offsets.windows(2) {
        let (start, end) = (document[0] as usize, document[1] as usize);
        for head in 0..heads {
            let kv_head = strides.kv_head(head);
            let k_at = start * strides.k_stride + kv_head * qk_dim;
            let v_at = start * strides.v_stride + kv_head * v_dim;
            let k = Mat::strided(&saved.k[k_at..], end - start, qk_dim, strides.k_stride);
            let v = Mat::strided(&saved.v[v_at..], end - start, v_dim, strides.v_stride);
            let [k, transposed_k, transposed_v] =
                [k, k.t(), v.t()].map(|mat| PackedBuffer::new(precision, 1, mat, floats));
            for first in (start..end).step_by(QUERIES).take_while(|_| !cpu.interrupt().requested())
            {
                let rows = first..end.min(first + QUERIES);
                let keys = rows.end - start;
                let q_at = first * strides.q_stride + head * qk_dim;
                let out_at = first * strides.out_stride + head * v_dim;
                let q = Mat::strided(&saved.q[q_at..], rows.len(), qk_dim, strides.q_stride);
                let dout = Mat::strided(&dout[out_at..], rows.len(), v_dim, strides.out_stride);
                let [packed_q, packed_dout] =
                    [q, dout].map(|mat| PackedBuffer::new(precision, 1, mat, floats));
                let first_key = first_block(shape, first - start);
                let first_keys = (first_key..keys).step_by(KEYS);
                for (index, first_key) in first_keys.enumerate() {
                    let block = first_key..keys.min(first_key + KEYS);
                    let (cols, width) = (block.len(), row_width(block.len()));
                    let p = &mut p[..rows.len() * width];
                    let dp = &mut dp[..rows.len() * width];
                    let (keys, values) = (
                        transposed_k.as_operand().cols(block.clone()),
                        transposed_v.as_operand().cols(block.clone()),
                    );
                    let dst = MatMut::strided(p, rows.len(), cols, width);
                    parallel_gemm(1, dst, false, scale, q, keys, floats);
                    let dst = MatMut::strided(dp, rows.len(), cols, width);
                    parallel_gemm(1, dst, false, 1.0, dout, values, floats);
                    let position = first - start;
                    let diagonal = Diagonal { position, first_key, cols, shape: *shape };
                    softmax_backward(
                        p,
                        dp,
                        diagonal,
                        &saved.lse[first * heads + head..],
                        &delta[first * heads + head..],
                        heads,
                    );
                    let p = Mat::strided(p, rows.len(), cols, width);
                    let ds = Mat::strided(dp, rows.len(), cols, width);
                    let dv = &mut dv[v_at + first_key * strides.v_stride..];
                    let dv = MatMut::strided(dv, cols, v_dim, strides.v_stride);
                    parallel_gemm(1, dv, true, 1.0, p.t(), packed_dout.as_operand(), floats);
                    let dk = &mut dk[k_at + first_key * strides.k_stride..];
                    let dk = MatMut::strided(dk, cols, qk_dim, strides.k_stride);
                    parallel_gemm(1, dk, true, scale, ds.t(), packed_q.as_operand(), floats);
                    let dq = MatMut::strided(&mut dq[q_at..], rows.len(), qk_dim, strides.q_stride);
                    let k = k.as_operand().rows(block);
                    parallel_gemm(1, dq, index > 0, scale, ds, k, floats);
                }
                packed_q.recycle(floats);
                packed_dout.recycle(floats);
            }
            for panels in [k, transposed_k, transposed_v] {
                panels.recycle(floats);
            }
        }
    }
    floats.give(p);
    floats.give(dp);
    floats.give(delta);
}

vectorised! {
    /// Dot products of groups of `dim` columns.
    fn row_dots<'a, S>(x: &'a [f32], y: &'a [f32], dim: usize, out: &'a mut [f32]) {
        for ((x, y), out) in x.chunks_exact(dim).zip(y.chunks_exact(dim)).zip(out) {
            *out = dot::<S>(x, y);
        }
    }

    /// Adds to the gradients of sinks, one for each head.
    pub(crate) fn sink_gradient<'a, S>(
        sinks: &'a [f32],
        lse: &'a [f32],
        out: &'a [f32],
        dout: &'a [f32],
        dsinks: &'a mut [f32],
    ) {
        let (heads, v_dim) = (sinks.len(), out.len() / lse.len().max(1));
        let rows = out.chunks_exact(v_dim.max(1)).zip(dout.chunks_exact(v_dim.max(1))).zip(lse);
        for (index, ((out, dout), lse)) in rows.enumerate() {
            let head = index % heads;
            dsinks[head] -= exp::<S>(sinks[head] - lse) * dot::<S>(dout, out);
        }
    }

    /// In place, with row stride [`row_width`]: scores become `p = exp(score - lse)`, and `dp`
    /// becomes `ds = p · (dp - delta)`, times the soft-cap's derivative. `lse` and `delta` have
    /// stride `heads`.
    fn softmax_backward<'a, S>(
        p: &'a mut [f32],
        dp: &'a mut [f32],
        diagonal: Diagonal,
        lse: &'a [f32],
        delta: &'a [f32],
        heads: usize,
    ) {
        let cols = diagonal.cols;
        let width = row_width(cols);
        let rows = p.chunks_exact_mut(width).zip(dp.chunks_exact_mut(width));
        for (row, (p, dp)) in rows.enumerate() {
            let whole = cols.next_multiple_of(LANES);
            let (p, dp) = (&mut p[..whole], &mut dp[..whole]);
            let (lse, delta) = (lse[row * heads], delta[row * heads]);
            if let Some(cap) = diagonal.shape.softcap {
                softcap_all::<S>(p, cap);
                mask(p, diagonal.visible(row));
                for (p, dp) in p.iter_mut().zip(dp) {
                    let slope = softcap_slope(*p, cap);
                    *p = exp::<S>(*p - lse);
                    *dp = *p * (*dp - delta) * slope;
                }
                continue;
            }
            mask(p, diagonal.visible(row));
            let (p, dp) = (p.as_chunks_mut::<LANES>().0, dp.as_chunks_mut::<LANES>().0);
            for (p, dp) in p.iter_mut().zip(dp) {
                for lane in 0..LANES {
                    p[lane] = exp::<S>(p[lane] - lse);
                    dp[lane] = p[lane] * (dp[lane] - delta);
                }
            }
        }
    }
}

/// Attention of new queries over a cache, which already holds their keys and values.
#[derive(Clone, Copy)]
pub(crate) struct Cached<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) shape: &'a Attention,
    /// Of all heads, or empty.
    pub(crate) sinks: &'a [f32],
    pub(crate) offsets: &'a [u32],
    pub(crate) cache: &'a Cache,
    pub(crate) slots: &'a [usize],
    /// Rows that each slot held before.
    pub(crate) past: &'a [u32],
    pub(crate) layer: usize,
    /// Chunked attention: a query attends to its own chunk of this many positions.
    pub(crate) chunk: Option<usize>,
    pub(crate) cpu: &'a Cpu,
}

impl Cached<'_> {
    /// Multiply-adds of all heads, approximately.
    pub(crate) fn macs(&self) -> usize {
        let keys = |(document, &past): (&[u32], &u32)| {
            let rows = (document[1] - document[0]) as usize;
            let seen = past as usize + rows;
            rows * self.shape.window.map_or(seen, |window| seen.min(window))
        };
        let pairs: usize = self.offsets.windows(2).zip(self.past).map(keys).sum();
        pairs * self.shape.heads * (self.shape.qk_dim + self.shape.v_dim)
    }

    /// Attention of one document for the query heads of `kv_heads`; `q` and `out` hold these heads.
    pub(crate) fn attend(
        &self,
        document: usize,
        kv_heads: Range<usize>,
        q: &[f32],
        out: &mut [f32],
        floats: &mut Pool<f32>,
    ) {
        let shape = self.shape;
        let group = shape.heads / shape.kv_heads;
        let part = Attention { heads: group * kv_heads.len(), kv_heads: kv_heads.len(), ..*shape };
        let sinks = self.sinks.get(group * kv_heads.start..group * kv_heads.end);
        let sinks = sinks.unwrap_or_default();
        let heads = Heads::new(&part);
        let (slot, rows) =
            (self.slots[document], self.offsets[document + 1] - self.offsets[document]);
        let past = self.past[document] as usize;
        let keys = past + rows as usize;
        let chunk_start = |position: usize| self.chunk.map_or(0, |chunk| position / chunk * chunk);
        let first_visible =
            |position: usize| chunk_start(position).max(shape.first_visible(position));
        let (tiles, values) = self.cache.slot(self.layer, slot);
        if keys - past < PREFILL {
            let mut scores = floats.take(part.heads * self.cache.capacity);
            let rows = q.chunks_exact(heads.q_stride).zip(out.chunks_exact_mut(heads.out_stride));
            for (row, (q, out)) in rows.enumerate() {
                let visible = first_visible(past + row)..past + row + 1;
                decode(q, tiles, values, visible, shape, sinks, kv_heads.start, out, &mut scores);
            }
            floats.give(scores);
            return;
        }
        // Nothing before is visible to any row.
        let oldest = first_visible(past);
        let mut unpacked = floats.take((keys - oldest) * heads.k_stride);
        for (token, row) in (oldest..).zip(unpacked.chunks_exact_mut(heads.k_stride)) {
            let tile = token / TILE * shape.kv_heads + kv_heads.start;
            let column = &tiles[tile * shape.qk_dim * TILE + token % TILE..];
            for (x, column) in row.iter_mut().zip(column.iter().step_by(TILE)) {
                *x = *column;
            }
        }
        let stride = shape.kv_heads * shape.v_dim;
        let values = &values[kv_heads.start * shape.v_dim..];
        let mut position = past;
        while position < keys {
            // The rows of one chunk and its keys.
            let first = first_visible(position);
            let end = self.chunk.map_or(keys, |chunk| keys.min(chunk_start(position) + chunk));
            let rows = position - past..end - past;
            let k = &unpacked[(first - oldest) * heads.k_stride..];
            let k = Rows { data: k, stride: heads.k_stride };
            let v = Rows { data: &values[first * stride..], stride };
            let q = &q[rows.start * heads.q_stride..rows.end * heads.q_stride];
            let out = &mut out[rows.start * heads.out_stride..rows.end * heads.out_stride];
            for head in 0..part.heads {
                let (k, v) = heads.of_kv_head(head, k, v);
                let past = position - first;
                flash_forward(q, k, v, head, &part, sinks, past, out, None, self.cpu, floats);
            }
            position = past + rows.end;
        }
        floats.give(unpacked);
    }

    /// [`Cached::attend`] for all documents and heads, in order.
    pub(crate) fn attend_all(&self, out: &mut [f32], floats: &mut Pool<f32>) {
        let heads = Heads::new(self.shape);
        for (index, document) in self.offsets.windows(2).enumerate() {
            let (start, end) = (document[0] as usize, document[1] as usize);
            let q = &self.q[start * heads.q_stride..end * heads.q_stride];
            let out = &mut out[start * heads.out_stride..end * heads.out_stride];
            self.attend(index, 0..self.shape.kv_heads, q, out, floats);
        }
    }
}

vectorised! {
    /// One query row against the visible tokens of a slot, for the query heads of key/value heads
    /// `first..`. Heads alternate within a tile of tokens: the cache is read once, in order.
    fn decode<'a, S>(
        q: &'a [f32],
        tiles: &'a [f32],
        values: &'a [f32],
        visible: Range<usize>,
        shape: &'a Attention,
        sinks: &'a [f32],
        first: usize,
        out: &'a mut [f32],
        scores: &'a mut [f32],
    ) {
        let &Attention { heads, kv_heads, qk_dim, v_dim, scale, softcap, .. } = shape;
        let len = visible.end;
        let hidden_tiles = visible.start / TILE;
        let kv_head = |head: usize| first + head / (heads / kv_heads);
        let padded = len.next_multiple_of(TILE);
        let keys = (0..len).step_by(TILE).zip(tiles.chunks_exact(TILE * kv_heads * qk_dim));
        for (start, tile) in keys.skip(hidden_tiles) {
            for (head, q) in q.chunks_exact(qk_dim).enumerate() {
                let sums = weighted_sum::<S>(q, &tile[kv_head(head) * qk_dim * TILE..], TILE);
                let mut sums = sums.map(|sum| scale * sum);
                if let Some(cap) = softcap {
                    softcap_all::<S>(&mut sums, cap);
                }
                scores[head * padded + start..][..TILE].copy_from_slice(&sums);
            }
        }
        let rows = scores.chunks_exact_mut(padded).take(out.len() / v_dim);
        for (head, scores) in rows.enumerate() {
            let (hidden, scores) = scores[..len].split_at_mut(visible.start);
            hidden[hidden_tiles * TILE..].fill(0.0);
            let sink = sinks.get(head).copied().unwrap_or(f32::NEG_INFINITY);
            let largest = max(scores).max(sink);
            let sum = exponentials::<S>(scores, largest) + exp::<S>(sink - largest);
            scale_all(scores, 1.0 / sum);
        }
        out.fill(0.0);
        let stride = kv_heads * v_dim;
        let values = (0..len).step_by(TILE).zip(values.chunks(TILE * stride));
        for (start, rows) in values.skip(hidden_tiles) {
            let tokens = TILE.min(len - start);
            for (head, out) in out.chunks_exact_mut(v_dim).enumerate() {
                let weights = &scores[head * padded + start..][..tokens];
                let rows = &rows[kv_head(head) * v_dim..];
                let (wide, narrow) = out.as_chunks_mut::<LANES>();
                let narrow_at = wide.len() * LANES;
                for (index, out) in wide.iter_mut().enumerate() {
                    let sums = weighted_sum::<S>(weights, &rows[index * LANES..], stride);
                    for lane in 0..LANES {
                        out[lane] += sums[lane];
                    }
                }
                for (index, out) in narrow.iter_mut().enumerate() {
                    let column = rows[narrow_at + index..].iter().step_by(stride);
                    *out += weights.iter().zip(column).map(|(p, v)| p * v).sum::<f32>();
                }
            }
        }
    }
}

/// Sets the scores outside `visible` to -∞. Working on whole vectors beats a loop over the visible
/// scores with a scalar tail.
#[inline(always)]
fn mask(scores: &mut [f32], visible: Range<usize>) {
    scores[..visible.start].fill(f32::NEG_INFINITY);
    let visible = visible.end;
    let first = visible / LANES;
    let (chunks, _) = scores.as_chunks_mut::<LANES>();
    if let Some(edge) = chunks.get_mut(first) {
        for (lane, score) in edge.iter_mut().enumerate() {
            *score = if lane < visible % LANES { *score } else { f32::NEG_INFINITY };
        }
        chunks[first + 1..].as_flattened_mut().fill(f32::NEG_INFINITY);
    }
}

/// Turns scores into `exp(score - largest)` and returns their sum.
#[inline(always)]
fn exponentials<S: pulp::Simd>(scores: &mut [f32], largest: f32) -> f32 {
    let (chunks, rest) = scores.as_chunks_mut::<LANES>();
    let mut lanes = [0.0; LANES];
    for z in chunks {
        for lane in 0..LANES {
            z[lane] = exp::<S>(z[lane] - largest);
            lanes[lane] += z[lane];
        }
    }
    for (lane, z) in lanes.iter_mut().zip(rest) {
        *z = exp::<S>(*z - largest);
        *lane += *z;
    }
    sum_lanes(lanes)
}

/// `Σ weights[i] · rows[i]` over rows of [`LANES`] columns, `stride` apart. Four rows at a time
/// shorten the dependency chain of the sum.
#[inline(always)]
fn weighted_sum<S: pulp::Simd>(weights: &[f32], rows: &[f32], stride: usize) -> [f32; LANES] {
    let row = |index: usize| -> &[f32; LANES] {
        rows[index * stride..].first_chunk().expect("a row holds the columns of its head")
    };
    let (fours, rest) = weights.as_chunks::<4>();
    let mut sum = [0.0; LANES];
    for (index, weights) in fours.iter().enumerate() {
        let rows = [row(4 * index), row(4 * index + 1), row(4 * index + 2), row(4 * index + 3)];
        for lane in 0..LANES {
            let first = fma::<S>(weights[0], rows[0][lane], weights[1] * rows[1][lane]);
            let second = fma::<S>(weights[2], rows[2][lane], weights[3] * rows[3][lane]);
            sum[lane] += first + second;
        }
    }
    for (index, weight) in (4 * fours.len()..).zip(rest) {
        let row = row(index);
        for lane in 0..LANES {
            sum[lane] = fma::<S>(*weight, row[lane], sum[lane]);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::reference::{self, Matrix};
    use super::*;

    /// Documents shorter and longer than a block of queries and of keys, grouped heads; windows
    /// shorter and longer than a block, soft-caps and sinks.
    #[test]
    fn forward_and_backward_equal_the_reference() {
        let full = Attention::new(4, 2, 6, 5, 0.4);
        compare(full, &[]);
        compare(Attention { softcap: Some(0.7), ..full }, &[]);
        for window in [1, 2, 31, 32, 40, KEYS, KEYS + 50] {
            compare(Attention { window: Some(window), ..full }, &[]);
        }
        let sinks = [0.5, -3.0, 4.0, 0.0];
        compare(full, &sinks);
        compare(Attention { window: Some(50), softcap: Some(0.5), ..full }, &sinks);
    }

    fn compare(shape: Attention, sinks: &[f32]) {
        let offsets = [0, 1, 4, 4 + QUERIES as u32 + 3, 7 + (2 * QUERIES + KEYS) as u32 + 8];
        let n = offsets[4] as usize;
        let number = |i: usize| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0;
        let [q, k, v, dout] = [(24, 0), (12, 1), (10, 2), (20, 3)]
            .map(|(width, seed)| (0..n * width).map(|i| number(i + seed)).collect::<Vec<f32>>());
        let (mut out, mut lse) = (vec![f32::NAN; n * 20], vec![f32::NAN; n * 4]);
        let (cpu, floats) = (Cpu::for_tests(), &mut Pool::default());
        forward(&q, &k, &v, &shape, sinks, &offsets, &mut out, &mut lse, &cpu, floats);
        let mut dq = vec![f32::NAN; q.len()];
        let [mut dk, mut dv] = [&k, &v].map(|x| vec![0.0; x.len()]);
        let saved = Saved { q: &q, k: &k, v: &v, out: &out, lse: &lse };
        backward(&saved, &shape, &offsets, &dout, &mut dq, &mut dk, &mut dv, &cpu, floats);

        let [q, k, v, dout] = [&q, &k, &v, &dout].map(|x| Matrix::from_f32(n, x.len() / n, x));
        let sinks: Vec<f64> = sinks.iter().map(|&sink| sink.into()).collect();
        let expected = reference::attention(&q, &k, &v, shape, &sinks, &offsets);
        let [eq, ek, ev] =
            reference::attention_backward([&q, &k, &v], shape, &sinks, &offsets, &dout);
        for (name, result, expected) in
            [("out", out, expected), ("dq", dq, eq), ("dk", dk, ek), ("dv", dv, ev)]
        {
            assert_eq!(result.len(), expected.data.len(), "{name}");
            for (i, (x, expected)) in result.iter().zip(&expected.data).enumerate() {
                let error = (f64::from(*x) - expected).abs();
                assert!(error < 2e-5, "{shape:?} {name} {i}: {x}, the reference has {expected}");
            }
        }
    }

    /// Forward and backward check for a stop before every block of queries.
    #[test]
    fn nothing_is_computed_once_a_stop_is_requested() {
        let shape = Attention::new(2, 1, 8, 8, 1.0);
        let (n, floats) = (QUERIES + 3, &mut Pool::default());
        let number = |i: usize| (i % 13) as f32 / 13.0;
        let [q, k, v, dout] =
            [16, 8, 8, 16].map(|width| (0..n * width).map(number).collect::<Vec<f32>>());
        let cpu = Cpu::for_tests();
        let mut run = || {
            let (mut out, mut lse) = (vec![7.0; n * 16], vec![7.0; n * 2]);
            let offsets = [0, n as u32];
            forward(&q, &k, &v, &shape, &[], &offsets, &mut out, &mut lse, &cpu, floats);
            let [mut dq, mut dk, mut dv] = [16, 8, 8].map(|width| vec![7.0; n * width]);
            let saved = Saved { q: &q, k: &k, v: &v, out: &out, lse: &lse };
            backward(&saved, &shape, &offsets, &dout, &mut dq, &mut dk, &mut dv, &cpu, floats);
            [out, lse, dq, dk, dv].map(|numbers| numbers.iter().all(|number| *number == 7.0))
        };
        assert_eq!(run(), [false; 5]);
        cpu.interrupt().request();
        assert_eq!(run(), [true; 5]);
    }
}
