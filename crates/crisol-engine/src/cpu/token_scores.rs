//! Log-probabilities and entropies of tokens from hidden states: head, softmax and gather fused.
//!
//! ```text
//!                 VOCAB_CHUNK
//!               ┌──────┬──────┬───┐
//!    BLOCK_ROWS │ z    │      │   │   z = scale · x[rows] · head[:, chunk]        GEMM
//!               ├──────┼──────┼───┤   running max and Σ e^z, as in attention
//!               │      │      │   │   logp = z[target] - lse     H = -Σ p log p
//!               └──────┴──────┴───┘
//! ```
//!
//! With a soft-cap, `z = scale · cap · tanh(x · head / cap)`.
//!
//! The logits of one block exist at a time. Where all of them are few, forward saves them block by
//! block, which skips recomputing them in backward: three head GEMMs instead of four.

use super::device::Cpu;
use super::gemm::parallel_gemm;
use super::mat::{Mat, MatMut};
use super::math::{LANES, exp, fma, max, softcap_slope, sum_lanes, tanh, vectorised};
use super::packed::{PackedOperand, packed_len, parallel_pack};
use super::parallel::for_rows;
use super::weights::Weight;
use crate::buffer::{Buffer, Pool};

/// Rows and vocabulary entries of a block of logits: half a megabyte, which fits the L2 cache.
const BLOCK_ROWS: usize = 256;
const VOCAB_CHUNK: usize = 512;

/// Results of forward, `[rows]` each but the logits.
pub(crate) struct Outputs<'a> {
    pub(crate) logp: &'a mut [f32],
    pub(crate) entropy: &'a mut [f32],
    pub(crate) lse: &'a mut [f32],
    /// All scaled logits, block by block; empty if they are not saved.
    pub(crate) saved_logits: &'a mut [f32],
    pub(crate) with_entropy: bool,
}

/// Inputs and results of forward that backward reads.
pub(crate) struct Saved<'a> {
    pub(crate) x: &'a [f32],
    /// `[vocab, dim]`.
    pub(crate) head: Weight<'a>,
    /// `[dim, vocab]`, to recompute logits that were not saved.
    pub(crate) transposed_head: Option<Weight<'a>>,
    pub(crate) targets: &'a [u32],
    pub(crate) scale: f32,
    pub(crate) softcap: Option<f32>,
    pub(crate) lse: &'a [f32],
    pub(crate) entropy: &'a [f32],
}

/// Ranges of at most `step` that cover `0..n`.
fn blocks(n: usize, step: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..n).step_by(step).map(move |start| start..(start + step).min(n))
}

/// Memory of the blocks of logits, in order: saved side by side, or one scratch block reused.
enum LogitBlocks<'a> {
    Saved(&'a mut [f32]),
    Scratch(Buffer<f32>),
}

impl<'a> LogitBlocks<'a> {
    fn new(saved_logits: &'a mut [f32], rows: usize, vocab: usize, floats: &mut Pool<f32>) -> Self {
        if saved_logits.is_empty() {
            return LogitBlocks::Scratch(
                floats.take(BLOCK_ROWS.min(rows) * VOCAB_CHUNK.min(vocab)),
            );
        }
        assert_eq!(saved_logits.len(), rows * vocab, "one logit per row and token");
        LogitBlocks::Saved(saved_logits)
    }

    /// The next block, of `len` logits.
    fn next(&mut self, len: usize) -> &mut [f32] {
        match self {
            LogitBlocks::Saved(rest) => {
                rest.split_off_mut(..len).expect("blocks cover the logits once")
            }
            LogitBlocks::Scratch(scratch) => &mut scratch[..len],
        }
    }

    fn recycle(self, floats: &mut Pool<f32>) {
        if let LogitBlocks::Scratch(scratch) = self {
            floats.give(scratch);
        }
    }
}

/// Log-probability of each row's target, entropy if requested, and log-sum-exp of the scaled
/// logits. `head` is `[dim, vocab]`. Returns early once a stop is requested.
pub(crate) fn forward(
    x: &[f32],
    head: Weight<'_>,
    targets: &[u32],
    scale: f32,
    softcap: Option<f32>,
    scores: Outputs<'_>,
    tasks: usize,
    cpu: &Cpu,
    floats: &mut Pool<f32>,
) {
    let Outputs { logp, entropy, lse, saved_logits, with_entropy } = scores;
    let (dim, vocab) = (head.row_count(), head.col_count());
    let x = Mat::new(x, targets.len(), dim);
    let mut logit_blocks = LogitBlocks::new(saved_logits, targets.len(), vocab, floats);
    let mut largest = floats.take(BLOCK_ROWS);
    for rows in blocks(targets.len(), BLOCK_ROWS).take_while(|_| !cpu.interrupt().requested()) {
        // `lse` and `entropy` hold the running Σ e^(z - max) and Σ e^(z - max)·(z - max).
        let (sums, weighted) = (&mut lse[rows.clone()], &mut entropy[rows.clone()]);
        let largest = &mut largest[..rows.len()];
        largest.fill(f32::NEG_INFINITY);
        sums.fill(0.0);
        weighted.fill(0.0);
        for chunk in blocks(vocab, VOCAB_CHUNK) {
            let logits = logit_blocks.next(rows.len() * chunk.len());
            let z = MatMut::new(logits, rows.len(), chunk.len());
            let factor = if softcap.is_some() { 1.0 } else { scale };
            head.cols(chunk.clone()).gemm(tasks, z, false, factor, x.rows(rows.clone()), floats);
            cap(softcap, scale, logits, tasks);
            for ((logits, &target), logp) in logits
                .chunks_exact(chunk.len())
                .zip(&targets[rows.clone()])
                .zip(&mut logp[rows.clone()])
            {
                if chunk.contains(&(target as usize)) {
                    *logp = logits[target as usize - chunk.start];
                }
            }
            let columns = chunk.len();
            let running = [logits, &mut *largest, &mut *sums, &mut *weighted];
            for_rows(tasks, 0..rows.len(), [columns, 1, 1, 1], running, &|_,
                                                                          [
                logits,
                largest,
                sums,
                weighted,
            ]| {
                if with_entropy {
                    accumulate_with_entropy(logits, columns, largest, sums, weighted);
                } else {
                    accumulate(logits, columns, largest, sums);
                }
            });
        }
        for (row, &largest) in rows.zip(&*largest) {
            let log_sum = lse[row].ln();
            if with_entropy {
                // H = -Σ p·(z - max - log_sum)
                entropy[row] = log_sum - entropy[row] / lse[row];
            }
            // In this order large logits lose no digits.
            logp[row] = logp[row] - largest - log_sum;
            lse[row] = largest + log_sum;
        }
    }
    logit_blocks.recycle(floats);
    floats.give(largest);
}

/// Writes the gradient of the hidden states, or adds to it if `accumulate`, and adds to the head's
/// if it is trained.
/// `dlogp` and `dentropy` may be empty. Overwrites `saved_logits`; if empty, logits are recomputed.
/// Returns early once a stop is requested.
pub(crate) fn backward(
    saved: &Saved<'_>,
    saved_logits: &mut [f32],
    dlogp: &[f32],
    dentropy: &[f32],
    dx: &mut [f32],
    accumulate: bool,
    mut dhead: Option<&mut [f32]>,
    tasks: usize,
    cpu: &Cpu,
    floats: &mut Pool<f32>,
) {
    let &Saved { x, head, transposed_head, targets, scale, softcap, lse, entropy } = saved;
    let (vocab, dim) = (head.row_count(), head.col_count());
    let x = Mat::new(x, targets.len(), dim);
    let mut logit_blocks = LogitBlocks::new(saved_logits, targets.len(), vocab, floats);
    let most_rows = if dhead.is_some() { BLOCK_ROWS.min(targets.len()) } else { 0 };
    let precision = cpu.precision();
    let mut panels = floats.take(packed_len(precision, most_rows, dim));
    let block = BLOCK_ROWS.min(targets.len()) * VOCAB_CHUNK.min(vocab);
    let mut slopes = floats.take(if softcap.is_some() { block } else { 0 });
    for rows in blocks(targets.len(), BLOCK_ROWS).take_while(|_| !cpu.interrupt().requested()) {
        let x = x.rows(rows.clone());
        let panels = &mut panels[..packed_len(precision, rows.len().min(most_rows), dim)];
        if dhead.is_some() {
            parallel_pack(precision, tasks, x, panels);
        }
        let lse = &lse[rows.clone()];
        for chunk in blocks(vocab, VOCAB_CHUNK) {
            let logits = logit_blocks.next(rows.len() * chunk.len());
            if let Some(head) = transposed_head {
                let z = MatMut::new(logits, rows.len(), chunk.len());
                let factor = if softcap.is_some() { 1.0 } else { scale };
                head.cols(chunk.clone()).gemm(tasks, z, false, factor, x, floats);
                cap(softcap, scale, logits, tasks);
            }
            if let Some(cap) = softcap {
                cap_slopes(logits, scale * cap, &mut slopes);
            }
            // ∂logp/∂z = onehot - p and ∂H/∂z = -p·(log p + H)
            let first = rows.start;
            for_rows(tasks, 0..rows.len(), [chunk.len()], [&mut *logits], &|part, [logits]| {
                let lse = &lse[part.clone()];
                let part = first + part.start..first + part.end;
                match (dlogp, dentropy) {
                    (dlogp, []) => grad_of_logp(logits, chunk.len(), lse, &dlogp[part]),
                    (dlogp, dentropy) => {
                        let dlogp = (!dlogp.is_empty()).then(|| &dlogp[part.clone()]);
                        let (dentropy, entropy) = (&dentropy[part.clone()], &entropy[part]);
                        grad_of_entropy(logits, chunk.len(), lse, dlogp, dentropy, entropy);
                    }
                }
            });
            if !dlogp.is_empty() {
                for ((dz, &target), &dlogp) in logits
                    .chunks_exact_mut(chunk.len())
                    .zip(&targets[rows.clone()])
                    .zip(&dlogp[rows.clone()])
                {
                    if chunk.contains(&(target as usize)) {
                        dz[target as usize - chunk.start] += dlogp;
                    }
                }
            }
            if softcap.is_some() {
                multiply(logits, &slopes);
            }
            let dz = Mat::new(logits, rows.len(), chunk.len());
            let dx = MatMut::new(&mut dx[rows.start * dim..rows.end * dim], rows.len(), dim);
            head.rows(chunk.clone()).gemm(
                tasks,
                dx,
                accumulate || chunk.start > 0,
                scale,
                dz,
                floats,
            );
            if let Some(dhead) = &mut dhead {
                let dhead =
                    MatMut::new(&mut dhead[chunk.start * dim..chunk.end * dim], chunk.len(), dim);
                let packed_x = PackedOperand::new(precision, panels, rows.len(), dim);
                parallel_gemm(tasks, dhead, true, scale, dz.t(), packed_x, floats);
            }
        }
    }
    floats.give(panels);
    floats.give(slopes);
    logit_blocks.recycle(floats);
}

/// Caps a block of unscaled logits and scales them, if there is a cap.
fn cap(softcap: Option<f32>, scale: f32, logits: &mut [f32], tasks: usize) {
    if let Some(cap) = softcap {
        for_rows(tasks, 0..logits.len(), [1], [logits], &|_, [z]| cap_logits(z, scale, cap));
    }
}

vectorised! {
    /// `z` becomes `scale · cap · tanh(z / cap)`.
    fn cap_logits<'a, S>(logits: &'a mut [f32], scale: f32, cap: f32) {
        for z in logits {
            *z = scale * cap * tanh::<S>(*z / cap);
        }
    }

    /// Derivatives of capped logits by the logits, without the scale; `limit` is `scale · cap`.
    fn cap_slopes<'a, S>(logits: &'a [f32], limit: f32, slopes: &'a mut [f32]) {
        for (slope, z) in slopes.iter_mut().zip(logits) {
            *slope = softcap_slope(*z, limit);
        }
    }

    /// `x *= factors`.
    fn multiply<'a, S>(x: &'a mut [f32], factors: &'a [f32]) {
        for (x, factor) in x.iter_mut().zip(factors) {
            *x *= factor;
        }
    }

    /// Adds a chunk of logits to each row's running maximum and sum of exponentials.
    fn accumulate<'a, S>(
        logits: &'a [f32],
        cols: usize,
        largest: &'a mut [f32],
        sums: &'a mut [f32],
    ) {
        for ((z, largest), sum) in logits.chunks_exact(cols).zip(largest).zip(sums) {
            let new = max(z).max(*largest);
            let (chunks, rest) = z.as_chunks::<LANES>();
            let mut lanes = [0.0; LANES];
            for z in chunks {
                for lane in 0..LANES {
                    lanes[lane] += exp::<S>(z[lane] - new);
                }
            }
            for (lane, z) in lanes.iter_mut().zip(rest) {
                *lane += exp::<S>(z - new);
            }
            *sum = fma::<S>(*sum, exp::<S>(*largest - new), sum_lanes(lanes));
            *largest = new;
        }
    }

    /// As [`accumulate`], with the sum of `e^(z - max)·(z - max)` in `weighted`.
    fn accumulate_with_entropy<'a, S>(
        logits: &'a [f32],
        cols: usize,
        largest: &'a mut [f32],
        sums: &'a mut [f32],
        weighted: &'a mut [f32],
    ) {
        let rows = logits.chunks_exact(cols).zip(largest).zip(sums).zip(weighted);
        for (((z, largest), sum), weighted) in rows {
            let new = max(z).max(*largest);
            let (chunks, rest) = z.as_chunks::<LANES>();
            let (mut lanes, mut weighted_lanes) = ([0.0; LANES], [0.0; LANES]);
            for z in chunks {
                for lane in 0..LANES {
                    let e = exp::<S>(z[lane] - new);
                    lanes[lane] += e;
                    weighted_lanes[lane] = fma::<S>(e, z[lane] - new, weighted_lanes[lane]);
                }
            }
            for ((lane, weighted), z) in lanes.iter_mut().zip(&mut weighted_lanes).zip(rest) {
                let e = exp::<S>(z - new);
                *lane += e;
                *weighted = fma::<S>(e, z - new, *weighted);
            }
            // The first chunk has nothing to rescale; -inf · 0 would be NaN.
            if *sum > 0.0 {
                let factor = exp::<S>(*largest - new);
                *weighted = factor * fma::<S>(*sum, *largest - new, *weighted);
                *sum *= factor;
            }
            *weighted += sum_lanes(weighted_lanes);
            *sum += sum_lanes(lanes);
            *largest = new;
        }
    }

    /// Turns logits into `-dlogp · p` in place.
    fn grad_of_logp<'a, S>(logits: &'a mut [f32], cols: usize, lse: &'a [f32], dlogp: &'a [f32]) {
        for ((z, &lse), &dlogp) in logits.chunks_exact_mut(cols).zip(lse).zip(dlogp) {
            for z in z {
                *z = -dlogp * exp::<S>(*z - lse);
            }
        }
    }

    /// Turns logits into `-p · (dlogp + dH · (log p + H))` in place.
    fn grad_of_entropy<'a, S>(
        logits: &'a mut [f32],
        cols: usize,
        lse: &'a [f32],
        dlogp: Option<&'a [f32]>,
        dentropy: &'a [f32],
        entropy: &'a [f32],
    ) {
        for (row, z) in logits.chunks_exact_mut(cols).enumerate() {
            let (lse, dentropy, entropy) = (lse[row], dentropy[row], entropy[row]);
            let constant = fma::<S>(dentropy, entropy, dlogp.map_or(0.0, |dlogp| dlogp[row]));
            for z in z {
                let log_p = *z - lse;
                *z = -exp::<S>(log_p) * fma::<S>(dentropy, log_p, constant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packed::pack;
    use super::*;
    use crate::Precision::F32;

    /// Across edges of blocks and chunks, with and without entropy.
    #[test]
    fn saved_logits_change_no_bit() {
        let number = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 500.0 - 1.0;
        let (dim, vocab) = (8, VOCAB_CHUNK + 37);
        for rows in [1, BLOCK_ROWS + 5] {
            let x: Vec<f32> = (0..rows * dim).map(number).collect();
            let weights: Vec<f32> = (0..vocab * dim).map(|i| number(i + 5)).collect();
            let targets: Vec<u32> = (0..rows).map(|row| (row * 31 % vocab) as u32).collect();
            let seed: Vec<f32> = (0..rows).map(number).collect();
            for (with_entropy, softcap) in
                [(false, None), (true, None), (false, Some(2.0)), (true, Some(2.0))]
            {
                let run = |saved_logits: usize| {
                    let weights = Mat::new(&weights, vocab, dim);
                    let [mut head, mut transposed] = [(vocab, dim), (dim, vocab)]
                        .map(|(rows, cols)| vec![0.0; packed_len(F32, rows, cols)]);
                    pack(F32, weights, &mut head);
                    pack(F32, weights.t(), &mut transposed);
                    let (head, transposed) = (
                        PackedOperand::new(F32, &head, vocab, dim),
                        PackedOperand::new(F32, &transposed, dim, vocab),
                    );
                    let [head, transposed] = [head, transposed].map(Weight::Cached);
                    let mut floats = Pool::default();
                    let mut saved_logits = vec![0.0; saved_logits];
                    let [mut logp, mut entropy, mut lse] = [(); 3].map(|()| vec![0.0; rows]);
                    let scores = Outputs {
                        logp: &mut logp,
                        entropy: &mut entropy,
                        lse: &mut lse,
                        saved_logits: &mut saved_logits,
                        with_entropy,
                    };
                    let cpu = Cpu::for_tests();
                    forward(&x, transposed, &targets, 0.7, softcap, scores, 1, &cpu, &mut floats);
                    let (mut dx, mut dhead) = (vec![0.0; x.len()], vec![0.0; vocab * dim]);
                    let saved = Saved {
                        x: &x,
                        head,
                        transposed_head: saved_logits.is_empty().then_some(transposed),
                        targets: &targets,
                        scale: 0.7,
                        softcap,
                        lse: &lse,
                        entropy: &entropy,
                    };
                    let dentropy = if with_entropy { &seed[..] } else { &[] };
                    let (dx_of, dhead_of) = (&mut dx, Some(&mut *dhead));
                    backward(
                        &saved,
                        &mut saved_logits,
                        &seed,
                        dentropy,
                        dx_of,
                        false,
                        dhead_of,
                        1,
                        &cpu,
                        &mut floats,
                    );
                    [logp, entropy, lse, dx, dhead]
                        .map(|v| v.into_iter().map(f32::to_bits).collect::<Vec<_>>())
                };
                assert_eq!(run(0), run(rows * vocab));
            }
        }
    }

    /// Forward checks for a stop before every block of rows.
    #[test]
    fn nothing_is_computed_once_a_stop_is_requested() {
        let (dim, vocab, targets) = (4, 6, [1; BLOCK_ROWS + 3]);
        let weights = vec![0.5; vocab * dim];
        let mut transposed = vec![0.0; packed_len(F32, dim, vocab)];
        pack(F32, Mat::new(&weights, vocab, dim).t(), &mut transposed);
        let transposed = Weight::Cached(PackedOperand::new(F32, &transposed, dim, vocab));
        let cpu = Cpu::for_tests();
        let run = || {
            let [mut logp, mut entropy, mut lse] = [(); 3].map(|()| vec![7.0; targets.len()]);
            let scores = Outputs {
                logp: &mut logp,
                entropy: &mut entropy,
                lse: &mut lse,
                saved_logits: &mut [],
                with_entropy: true,
            };
            let x = vec![1.0; targets.len() * dim];
            let floats = &mut Pool::default();
            forward(&x, transposed, &targets, 1.0, None, scores, 1, &cpu, floats);
            [logp, entropy, lse].concat()
        };
        assert!(run().iter().all(|number| *number != 7.0));
        cpu.interrupt().request();
        assert!(run().iter().all(|number| *number == 7.0));
    }
}
