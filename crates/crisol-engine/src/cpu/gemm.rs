//! GEMM on the CPU: `C = factor · A · B` or `C += factor · A · B`, with `B` packed.
//!
//! The loops are those of BLIS (Van Zee & van de Geijn 2015), with `B` packed ahead of time
//! ([`super::packed`]). Names in brackets are the constants and parameters below.
//!
//! ```text
//!             k                     n                            n
//!        ┌────[KC]────┐      ┌──┬──┬──┬──┬──┐              ┌──┬──┬──┬──┬──┐
//!        │            │   [KC]  │  │  │  │  │              │  │  │  │  │  │
//!   [MC] ├────────────┤  ×   │NR│NR│  │  │  │   =     [MR] ├──┼──┤  │  │  │
//!        │  MR rows   │      │  │  │  │  │  │              │  │▓▓│  │  │  │ ← one MR × NR tile
//!        ├────────────┤      │  │  │  │  │  │              ├──┼──┤  │  │  │   in registers
//!        │            │      │  │  │  │  │  │              │  │  │  │  │  │
//!        └────────────┘      └──┴──┴──┴──┴──┘              └──┴──┴──┴──┴──┘
//!           A (m × k)           B (k × n)                     C (m × n)
//!        rows in place,       panels of NR columns,
//!        or packed MR wide    KC × NR of one in L1,
//!                             KC × part of all in L2
//!
//!   for depth in k by KC                 Gemm::run
//!     for block in m by MC               Gemm::run         (packs A if it is column-major)
//!       for part in n by L2_FLOATS / KC  Gemm::row_block   (panels that stay in L2)
//!         for row in block by MR         Gemm::row_block   (prefetches the next MR rows of A)
//!           for panel in part by NR      Gemm::row_block
//!             for l in depth             MicroKernel::run  C tile += A[rows, l] ⊗ B[l, panel]
//! ```
//!
//! With 16 registers of 8 floats (AVX2), `MR × NR` is 6 × 16: two loads and six broadcasts feed
//! twelve fused multiply-adds. With 32 registers (AVX-512, NEON), `MR` is 12.
//!
//! Each element is summed over `l` in ascending order, whatever tile or task it falls into. The
//! number of threads changes no bit. The plain twin is `gemm` in [`reference`](super::reference).

use std::ops::Range;
use std::time::{Duration, Instant};

use pulp::Simd;

use super::mat::{Mat, MatMut};
use super::math::fma;
use super::packed::{MAX_NR, PackedOperand, packed_len, panel_width};

/// Longest block of the inner dimension: `KC × NR` of a panel fill most of the L1 cache.
const KC: usize = 384;
/// Floats of `B` that are reused while rows of `A` pass: half of an L2 cache.
const L2_FLOATS: usize = 64 * 1024;
/// Rows of a column-major `A` that are packed at once: whole cache lines and whole tiles.
const MC: usize = 48;
/// A multiple of `MR` on every processor.
const MR_MULTIPLE: usize = 12;
/// An `A` of at most this many floats stays in the L1 cache in either order, so it is not packed.
const L1_FLOATS: usize = 4 * 1024;
/// Most columns of a column-major `A` that are read in place.
const MAX_COLUMNS_IN_PLACE: usize = 64;
/// Floats in a cache line.
const CACHE_LINE: usize = 16;
/// Unrolling of the inner loop with `MR = 6`, where its end test would cost issue slots. `MR = 12`
/// hides the test; unrolled, the compiler spills accumulators to the stack.
const UNROLL: usize = 4;
/// Multiply-adds below which a second thread does not pay: about ten microseconds.
const MIN_PARALLEL_MACS: usize = if cfg!(miri) { 1 << 10 } else { 1 << 20 };

/// [`gemm`] in `tasks` tasks. Each computes whole rows of `dst`, or whole panels of a single row,
/// so the number of tasks changes no bit.
pub(crate) fn parallel_gemm(
    tasks: usize,
    dst: MatMut<'_>,
    accumulate: bool,
    factor: f32,
    a: Mat<'_>,
    b: PackedOperand<'_>,
) {
    let (rows, cols) = (dst.row_count(), dst.col_count());
    let first = tasks.div_ceil(2);
    let (length, step) = if rows == 1 { (cols, panel_width()) } else { (rows, MR_MULTIPLE) };
    // Round to the nearest tile: rounding up 512 rows for two tasks would cost an eighth.
    let middle = (length * first / tasks + step / 2) / step * step;
    if tasks == 1
        || rows * cols * a.col_count() < MIN_PARALLEL_MACS
        || middle == 0
        || middle >= length
    {
        return gemm(dst, accumulate, factor, a, b);
    }
    let ((dst, other_dst), (a, other_a), (b, other_b)) = if rows == 1 {
        (dst.split_cols(middle), (a, a), (b.cols(0..middle), b.cols(middle..cols)))
    } else {
        (dst.split_rows(middle), (a.rows(0..middle), a.rows(middle..rows)), (b, b))
    };
    rayon::join(
        || parallel_gemm(first, dst, accumulate, factor, a, b),
        || parallel_gemm(tasks - first, other_dst, accumulate, factor, other_a, other_b),
    );
}

/// `dst = factor · a · b`, or `dst += factor · a · b` if `accumulate`. Shapes `[m, k]`, `[k, n]`
/// and `[m, n]`; `a` is row-major or column-major.
pub(crate) fn gemm(
    dst: MatMut<'_>,
    accumulate: bool,
    factor: f32,
    a: Mat<'_>,
    b: PackedOperand<'_>,
) {
    let (rows, cols) = (dst.row_count(), dst.col_count());
    assert!(
        a.row_count() == rows && b.col_count() == cols && a.col_count() == b.row_count(),
        "gemm of {}×{} and {}×{} into {rows}×{cols}",
        a.row_count(),
        a.col_count(),
        b.row_count(),
        b.col_count()
    );
    pulp::Arch::new().dispatch(Gemm { dst, accumulate, factor, a, b });
}

struct Gemm<'a> {
    dst: MatMut<'a>,
    accumulate: bool,
    factor: f32,
    a: Mat<'a>,
    b: PackedOperand<'a>,
}

impl pulp::WithSimd for Gemm<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // MR × 2 accumulators, one broadcast and two loads must fit into the registers.
        if S::REGISTER_COUNT >= 32 { self.run::<S, 12>(simd) } else { self.run::<S, 6>(simd) }
    }
}

impl Gemm<'_> {
    #[inline(always)]
    fn run<S: Simd, const MR: usize>(mut self, simd: S) {
        let (rows, inner) = (self.a.row_count(), self.a.col_count());
        if inner == 0 {
            if !self.accumulate {
                (0..rows).for_each(|row| self.dst.row_mut(row, 0..self.b.col_count()).fill(0.0));
            }
            return;
        }
        // Blocks of equal length, so that none is short.
        let kc = inner.div_ceil(inner.div_ceil(KC));
        let k_blocks = (0..inner).step_by(kc).map(|start| start..(start + kc).min(inner));
        let (row_stride, col_stride) = self.a.strides();
        // An odd distance in cache lines spreads the columns over the sets of the L1 cache.
        let in_place = inner <= MAX_COLUMNS_IN_PLACE && col_stride / CACHE_LINE % 2 == 1;
        if col_stride == 1 || in_place || self.a.tile(0, rows, 0..inner).len() <= L1_FLOATS {
            for depth in k_blocks {
                let left = LeftPanel {
                    data: self.a.tile(0, rows, depth.clone()),
                    row_stride,
                    col_stride,
                    tile_stride: MR * row_stride,
                };
                self.row_block::<S, MR>(simd, left, 0..rows, depth);
            }
        } else {
            // 72 KiB of a thread's stack, which has at least 2 MiB.
            #[allow(clippy::large_stack_arrays)]
            let mut scratch = [0.0; MC * KC];
            for depth in k_blocks {
                for top in (0..rows).step_by(MC) {
                    let block = top..(top + MC).min(rows);
                    let left = self.pack_left::<MR>(block.clone(), depth.clone(), &mut scratch);
                    self.row_block::<S, MR>(simd, left, block, depth.clone());
                }
            }
        }
    }

    /// Packs rows of a column-major `A`, `MR` rows wide: a tile then reads one stream. In place its
    /// columns are at least a cache line apart, often in the same few cache sets.
    #[inline(always)]
    fn pack_left<'r, const MR: usize>(
        &self,
        block: Range<usize>,
        depth: Range<usize>,
        scratch: &'r mut [f32],
    ) -> LeftPanel<'r> {
        let (row_stride, col_stride) = self.a.strides();
        assert_eq!(row_stride, 1, "`A` is neither row-major nor column-major");
        let columns = self.a.tile(block.start, block.len(), depth.clone());
        let tile_stride = MR * depth.len();
        for l in 0..depth.len() {
            let column = &columns[l * col_stride..][..block.len()];
            let (tiles, rest) = column.as_chunks::<MR>();
            for (tile, numbers) in tiles.iter().enumerate() {
                scratch[tile * tile_stride + l * MR..][..MR].copy_from_slice(numbers);
            }
            if !rest.is_empty() {
                scratch[tiles.len() * tile_stride + l * MR..][..rest.len()].copy_from_slice(rest);
            }
        }
        LeftPanel { data: scratch, row_stride: 1, col_stride: MR, tile_stride }
    }

    /// Computes the rows `block` of `C` over the inner range `depth`; `left` starts at the first
    /// row.
    #[inline(always)]
    fn row_block<S: Simd, const MR: usize>(
        &mut self,
        simd: S,
        left: LeftPanel<'_>,
        block: Range<usize>,
        depth: Range<usize>,
    ) {
        let cols = self.b.col_count();
        let nr = 2 * S::F32_LANES;
        let part = (L2_FLOATS / depth.len() / nr).max(1) * nr;
        for start in (0..cols).step_by(part) {
            let part = start..(start + part).min(cols);
            let mut row = 0;
            while row < block.len() {
                let rows = match block.len() - row {
                    rest if rest >= MR => MR,
                    4.. => 4,
                    2.. => 2,
                    _ => 1,
                };
                // Prefetch the next tile's rows of `A`, a few with every panel.
                let fetched = if left.col_stride == 1 { row + rows + MR } else { 0 };
                let mut fetched = row + rows..fetched.min(block.len());
                let rows_per_panel = MR.div_ceil(part.len().div_ceil(nr));
                let at = &left.data[left.offset::<MR>(row)..];
                for first in part.clone().step_by(nr) {
                    for row in fetched.by_ref().take(rows_per_panel) {
                        let next = &left.data[left.offset::<MR>(row)..];
                        for line in next[..depth.len().min(next.len())].chunks(CACHE_LINE) {
                            prefetch(&line[0]);
                        }
                    }
                    let columns = first..(first + nr).min(cols);
                    let kernel = MicroKernel {
                        left: at,
                        row_stride: left.row_stride,
                        col_stride: left.col_stride,
                        panel: self.b.panel(first, depth.clone(), nr),
                        accumulate: self.accumulate || depth.start > 0,
                        factor: self.factor,
                    };
                    let row = block.start + row;
                    if rows == MR {
                        kernel.run::<S, MR>(simd, &mut self.dst, row, columns);
                    } else {
                        match rows {
                            4 => kernel.run::<S, 4>(simd, &mut self.dst, row, columns),
                            2 => kernel.run::<S, 2>(simd, &mut self.dst, row, columns),
                            _ => kernel.run::<S, 1>(simd, &mut self.dst, row, columns),
                        }
                    }
                }
                row += rows;
            }
        }
    }
}

/// Rows of `A` over one block of the inner dimension, in place or packed.
#[derive(Clone, Copy)]
struct LeftPanel<'a> {
    data: &'a [f32],
    row_stride: usize,
    col_stride: usize,
    /// Distance of tiles of `MR` rows.
    tile_stride: usize,
}

impl LeftPanel<'_> {
    /// Index of a row's first element.
    #[inline(always)]
    fn offset<const MR: usize>(&self, row: usize) -> usize {
        row / MR * self.tile_stride + row % MR * self.row_stride
    }
}

/// The micro-kernel: one tile of `C` in registers, from `MR` rows of `A` and one panel of `B`.
struct MicroKernel<'a> {
    left: &'a [f32],
    row_stride: usize,
    col_stride: usize,
    panel: &'a [f32],
    accumulate: bool,
    factor: f32,
}

impl MicroKernel<'_> {
    /// Computes rows `top..top + MR` of `columns`, of which there are at most `NR`.
    #[inline(always)]
    fn run<S: Simd, const MR: usize>(
        self,
        simd: S,
        out: &mut MatMut<'_>,
        top: usize,
        columns: Range<usize>,
    ) {
        let MicroKernel { left, row_stride, col_stride, panel, accumulate, factor } = self;
        let (pairs, _) = S::as_simd_f32s(panel);
        let depth = pairs.len() / 2;
        assert!(
            (MR - 1) * row_stride + (depth - 1) * col_stride < left.len(),
            "rows of the tile within `A`"
        );
        for i in 0..MR {
            prefetch(&out.row_mut(top + i, columns.clone())[0]);
        }
        let mut sums = [[simd.splat_f32s(0.0); 2]; MR];
        if col_stride == 1 {
            // SAFETY: asserted above.
            #[allow(unsafe_code)]
            unsafe {
                multiply_panels::<S, MR>(simd, left, |i, l| i * row_stride + l, pairs, &mut sums);
            }
        } else {
            assert_eq!(row_stride, 1, "`A` is neither row-major nor column-major");
            // SAFETY: asserted above.
            #[allow(unsafe_code)]
            unsafe {
                multiply_panels::<S, MR>(simd, left, |i, l| i + l * col_stride, pairs, &mut sums);
            }
        }
        if columns.len() == 2 * S::F32_LANES {
            let factor = simd.splat_f32s(factor);
            for (i, sums) in sums.into_iter().enumerate() {
                let (line, _) = S::as_mut_simd_f32s(out.row_mut(top + i, columns.clone()));
                for (out, sum) in line.iter_mut().zip(sums) {
                    *out = if accumulate {
                        simd.mul_add_e_f32s(factor, sum, *out)
                    } else {
                        simd.mul_f32s(factor, sum)
                    };
                }
            }
        } else {
            // Through the stack: masked stores take dozens of cycles on AMD processors.
            for (i, sums) in sums.into_iter().enumerate() {
                let mut line = [0.0; MAX_NR];
                S::as_mut_simd_f32s(&mut line).0[..2].copy_from_slice(&sums);
                for (out, sum) in out.row_mut(top + i, columns.clone()).iter_mut().zip(line) {
                    *out = if accumulate { fma::<S>(factor, sum, *out) } else { factor * sum };
                }
            }
        }
    }
}

/// `sums[row] += left[at(row, l)] · pairs[l]` for every `l` in ascending order.
///
/// # Safety
/// `at(row, l)` must be an index of `left` for `row < MR` and `l < pairs.len() / 2`.
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn multiply_panels<S: Simd, const MR: usize>(
    simd: S,
    left: &[f32],
    at: impl Fn(usize, usize) -> usize,
    pairs: &[S::f32s],
    sums: &mut [[S::f32s; 2]; MR],
) {
    let (whole, rest) = if S::REGISTER_COUNT >= 32 {
        (&[][..], pairs)
    } else {
        pairs.as_chunks::<{ 2 * UNROLL }>()
    };
    for (block, pairs) in whole.iter().enumerate() {
        for (l, pair) in pairs.chunks_exact(2).enumerate() {
            let l = block * UNROLL + l;
            // SAFETY: guaranteed by the caller.
            unsafe { rank_one_update::<S, MR>(simd, left, |i| at(i, l), pair, sums) };
        }
    }
    for (l, pair) in rest.chunks_exact(2).enumerate() {
        let l = whole.len() * UNROLL + l;
        // SAFETY: guaranteed by the caller.
        unsafe { rank_one_update::<S, MR>(simd, left, |i| at(i, l), pair, sums) };
    }
}

/// One step of [`multiply_panels`]: the outer product of a column of `A` and a row of the panel.
///
/// # Safety
/// `at(row)` must be an index of `left` for `row < MR`.
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn rank_one_update<S: Simd, const MR: usize>(
    simd: S,
    left: &[f32],
    at: impl Fn(usize) -> usize,
    pair: &[S::f32s],
    sums: &mut [[S::f32s; 2]; MR],
) {
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: guaranteed by the caller.
        let x = simd.splat_f32s(unsafe { *left.get_unchecked(at(i)) });
        sums[0] = simd.mul_add_e_f32s(x, pair[0], sums[0]);
        sums[1] = simd.mul_add_e_f32s(x, pair[1], sums[1]);
    }
}

/// Prefetches the cache line of a float.
#[inline(always)]
fn prefetch(number: &f32) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: a prefetch has no architectural effect at any address; x86-64 includes SSE.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(number).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = number;
}

/// Floating-point operations per second of `[rows, inner] · [inner, cols]` on one thread, measured
/// for `duration`.
pub(crate) fn gemm_rate(rows: usize, inner: usize, cols: usize, duration: Duration) -> f64 {
    let (a, b, mut c) =
        (vec![1.0; rows * inner], vec![1.0; packed_len(inner, cols)], vec![0.0; rows * cols]);
    let mut once = || {
        let (a, b) = (Mat::new(&a, rows, inner), PackedOperand::new(&b, inner, cols));
        gemm(MatMut::new(&mut c, rows, cols), false, 1.0, a, b);
    };
    once();
    let (mut runs, start) = (0, Instant::now());
    while start.elapsed() < duration {
        once();
        runs += 1;
    }
    (2 * rows * inner * cols * runs) as f64 / start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::super::packed::{PackedBuffer, pack};
    use super::super::reference::{self, Matrix};
    use super::*;
    use crate::workspace::Pool;

    fn number(i: usize) -> f32 {
        ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0
    }

    fn matrix(rows: usize, cols: usize, seed: usize) -> Matrix {
        Matrix::from_fn(rows, cols, |i, j| number(i * cols + j + seed).into())
    }

    /// Sizes across the edges of tiles, panels, `MC` and `KC`; both orders of `A` and `B`;
    /// accumulation.
    #[test]
    fn equals_the_reference() {
        let shapes = [
            (1, 1, 1),
            (3, 5, 7),
            (17, 33, 2),
            (40, 9, 1),
            (31, 130, 65),
            (2, 0, 3),
            (600, 70, 40),
            (13, 2 * KC + 5, 37),
            (2 * MC, KC, 20),
            // A column-major `A` that is read in place.
            (17 * CACHE_LINE, 40, 20),
        ];
        // The large ones take Miri minutes.
        let shapes = if cfg!(miri) { &shapes[..3] } else { &shapes[..] };
        for &(rows, inner, cols) in shapes {
            let (a, b) = (matrix(rows, inner, 0), matrix(inner, cols, 3));
            let c = matrix(rows, cols, 5);
            let expected = reference::gemm(0.5, &a, &b);
            let size = reference::gemm(0.5, &a.map(f64::abs), &b.map(f64::abs));
            for case in 0..8 {
                let (column_major_a, column_major_b, accumulate) =
                    (case & 1 == 1, case & 2 == 2, case & 4 == 4);
                let a = if column_major_a { a.transposed() } else { a.clone() }.to_f32();
                let a = if column_major_a {
                    Mat::new(&a, inner, rows).t()
                } else {
                    Mat::new(&a, rows, inner)
                };
                let b = if column_major_b { b.transposed() } else { b.clone() }.to_f32();
                let b = if column_major_b {
                    Mat::new(&b, cols, inner).t()
                } else {
                    Mat::new(&b, inner, cols)
                };
                let mut panels = vec![f32::NAN; packed_len(inner, cols)];
                pack(b, &mut panels);
                let b = PackedOperand::new(&panels, inner, cols);
                let mut result = c.to_f32();
                gemm(MatMut::new(&mut result, rows, cols), accumulate, 0.5, a, b);
                for (i, &result) in result.iter().enumerate() {
                    let start = if accumulate { c.data[i] } else { 0.0 };
                    let error = (f64::from(result) - start - expected.data[i]).abs();
                    let limit = 1e-6 * (1.0 + 2.0 * size.data[i]);
                    assert!(
                        error < limit,
                        "{rows}×{inner}×{cols} case {case} at {i}: off by {error}"
                    );
                }
            }
        }
    }

    #[test]
    fn parts_of_a_packed_matrix_are_its_rows_and_columns() {
        let (inner, nr) = (11, panel_width());
        let cols = 2 * nr + 3;
        let b: Vec<f32> = (0..inner * cols).map(|i| i as f32).collect();
        let mut panels = vec![0.0; packed_len(inner, cols)];
        pack(Mat::new(&b, inner, cols), &mut panels);
        let part = PackedOperand::new(&panels, inner, cols).rows(4..9).cols(nr..cols);
        let mut unit = [0.0; 5];
        for l in 0..5 {
            unit.fill(0.0);
            unit[l] = 1.0;
            let mut row = vec![0.0; cols - nr];
            gemm(MatMut::new(&mut row, 1, cols - nr), false, 1.0, Mat::new(&unit, 1, 5), part);
            assert_eq!(row, b[(4 + l) * cols + nr..(5 + l) * cols]);
        }
    }

    /// Split by rows, and a single row by columns; both orders of `A`; above and below
    /// [`MIN_PARALLEL_MACS`].
    #[test]
    fn tasks_change_no_bit() {
        let shapes = [(3, 5, 7), (50, 9, 21), (131, 97, 85), (1, 1100, 1000), (200, 90, 70)];
        let shapes = if cfg!(miri) { &shapes[..2] } else { &shapes[..] };
        for &(rows, inner, cols) in shapes {
            let a: Vec<f32> = (0..rows * inner).map(number).collect();
            let b: Vec<f32> = (0..inner * cols).map(|i| number(i + 3)).collect();
            let run = |tasks, column_major| {
                let mut floats = Pool::default();
                let panels = PackedBuffer::new(tasks, Mat::new(&b, inner, cols), &mut floats);
                let left = if column_major {
                    Mat::new(&a, inner, rows).t()
                } else {
                    Mat::new(&a, rows, inner)
                };
                let mut result: Vec<f32> = (0..rows * cols).map(|i| number(i + 5)).collect();
                parallel_gemm(
                    tasks,
                    MatMut::new(&mut result, rows, cols),
                    true,
                    0.5,
                    left,
                    panels.get(),
                );
                result.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            for column_major in [false, true] {
                let one = run(1, column_major);
                for tasks in [2, 3, 5, 16] {
                    assert_eq!(
                        run(tasks, column_major),
                        one,
                        "{rows}×{inner}×{cols} in {tasks} tasks"
                    );
                }
            }
        }
    }

    /// NaN and infinity are neither lost nor spread by the padding of the last panel.
    #[test]
    fn nan_and_infinity_stay_where_they_are() {
        let a = [1.0, f32::NAN, f32::INFINITY, 1.0];
        let b = [1.0, 2.0, 3.0, 4.0];
        let mut panels = vec![0.0; packed_len(1, 4)];
        pack(Mat::new(&b, 1, 4), &mut panels);
        let mut c = [0.0; 16];
        gemm(
            MatMut::new(&mut c, 4, 4),
            false,
            1.0,
            Mat::new(&a, 4, 1),
            PackedOperand::new(&panels, 1, 4),
        );
        for (row, a) in c.chunks(4).zip(a) {
            assert!(
                row.iter()
                    .zip(b)
                    .all(|(c, b)| c.to_bits() == (a * b).to_bits() || (c.is_nan() && a.is_nan()))
            );
        }
    }
}
