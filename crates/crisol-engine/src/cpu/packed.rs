//! Matrix products with a right side that was laid out for it beforehand.
//!
//! The right side is cut into panels of as many columns as two registers hold, each panel row after row, so that the
//! innermost loop reads it in one stream. Weights are packed once a step and used by every shard; the left side is read
//! where it lies, or laid out by tiles if it is stored by columns. A tile of the result stays in registers while the inner
//! dimension passes: with 16 registers of eight numbers (AVX2) 6 rows of 16 columns, which take two loads and six
//! broadcasts for twelve fused multiply-adds. While all panels pass by a tile's rows, the next tile's are fetched.
//!
//! Each element is the sum over the inner dimension in its order, whatever the tile it falls into.

use std::ops::Range;
use std::time::{Duration, Instant};

use pulp::Simd;

use super::mat::{Mat, MatMut};
use super::math::fma;
use crate::workspace::{Buffer, Pool};

/// Longest kc of the inner dimension that is summed in registers: a panel's part of it fills most of a first-level
/// cache.
const KC: usize = 384;
/// Numbers of the right side that are kept at hand while rows pass: half of a second-level cache.
const L2_FLOATS: usize = 64 * 1024;
/// Rows of a left side stored by columns that are laid out by tiles at once: whole cache lines, and whole tiles.
const MC: usize = 48;
/// Rows of whole tiles on any processor.
const MR_MULTIPLE: usize = 12;
/// A left side of so many numbers stays in a first-level cache, however it is stored.
const L1_FLOATS: usize = 4 * 1024;
/// Cache lines from which the columns of a left side may be read where they lie.
const MAX_LINES_IN_PLACE: usize = 64;
/// Numbers in a cache line.
const CACHE_LINE: usize = 16;
/// Columns of the widest panel.
pub(super) const MAX_NR: usize = 32;
/// Steps along the inner dimension between two tests for its end, with six rows a tile: the processor has more to do per step
/// than it can take in where it shares a core. (Twelve rows hide the tests; several steps of them the compiler would interleave,
/// and keep some of the sums on the stack.)
const UNROLL: usize = 4;
/// Multiplications that are not worth a second thread: some ten microseconds.
const MIN_PARALLEL_MACS: usize = if cfg!(miri) { 1 << 10 } else { 1 << 20 };

/// Columns of a panel on this machine.
pub(crate) fn panel_width() -> usize {
    struct Width;
    impl pulp::WithSimd for Width {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            2 * S::F32_LANES
        }
    }
    pulp::Arch::new().dispatch(Width)
}

/// Room that a matrix takes when it is packed.
pub(crate) fn packed_len(rows: usize, cols: usize) -> usize {
    rows * cols.next_multiple_of(panel_width())
}

/// Lays `mat` out in panels; the last one is filled up with zeros.
pub(crate) fn pack(mat: Mat<'_>, panels: &mut [f32]) {
    let (rows, cols) = (mat.row_count(), mat.col_count());
    assert_eq!(panels.len(), packed_len(rows, cols), "scratch for {rows}×{cols}");
    pulp::Arch::new().dispatch(Pack { mat, panels });
}

struct Pack<'a> {
    mat: Mat<'a>,
    panels: &'a mut [f32],
}

impl pulp::WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Pack { mat, panels } = self;
        let nr = 2 * S::F32_LANES;
        let (rows, cols) = (mat.row_count(), mat.col_count());
        let (row_stride, col_stride) = mat.strides();
        if rows == 0 || cols == 0 {
            return;
        }
        if col_stride == 1 {
            let all = mat.tile(0, rows, 0..cols);
            for row in 0..rows {
                let line = &all[row * row_stride..][..cols];
                for (panel, numbers) in line.chunks(nr).enumerate() {
                    let slots = &mut panels[(panel * rows + row) * nr..][..nr];
                    if let ([first, second], _) = S::as_simd_f32s(numbers) {
                        S::as_mut_simd_f32s(slots).0.copy_from_slice(&[*first, *second]);
                    } else {
                        slots[..numbers.len()].copy_from_slice(numbers);
                        slots[numbers.len()..].fill(0.0);
                    }
                }
            }
        } else {
            assert_eq!(row_stride, 1, "a matrix that is stored neither by rows nor by columns");
            // The transpose of a row-major matrix: lines become columns.
            let lines = mat.t().tile(0, cols, 0..rows);
            for (panel, first) in panels.chunks_exact_mut(rows * nr).zip((0..cols).step_by(nr)) {
                let used = nr.min(cols - first);
                if used < nr {
                    panel.fill(0.0);
                }
                let lines = &lines[first * col_stride..];
                for column in (0..used).step_by(BLOCK) {
                    let columns = BLOCK.min(used - column);
                    for row in (0..rows).step_by(BLOCK) {
                        let (from, to) =
                            (&lines[column * col_stride + row..], &mut panel[row * nr + column..]);
                        transpose(from, col_stride, to, nr, columns, BLOCK.min(rows - row));
                    }
                }
            }
        }
    }
}

/// Rows and columns that are transposed within registers.
const BLOCK: usize = 8;

/// Writes `lines` lines of `len` numbers, `stride` apart, as columns of rows that are `nr` apart; at most [`BLOCK`] of both.
#[inline(always)]
fn transpose(from: &[f32], stride: usize, to: &mut [f32], nr: usize, lines: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if lines == BLOCK && len == BLOCK && std::arch::is_x86_feature_detected!("avx") {
        assert!(
            7 * stride + BLOCK <= from.len() && 7 * nr + BLOCK <= to.len(),
            "squares within both"
        );
        // SAFETY: the processor has AVX, and both slices hold eight runs of eight numbers.
        #[allow(unsafe_code)]
        unsafe {
            transpose_square(from.as_ptr(), stride, to.as_mut_ptr(), nr);
        }
        return;
    }
    for line in 0..lines {
        for i in 0..len {
            to[i * nr + line] = from[line * stride + i];
        }
    }
}

/// [`transpose`] of eight lines of eight numbers: pairs are interleaved, then pairs of pairs, then halves of registers are
/// exchanged.
///
/// # Safety
/// `from` must have eight runs of eight numbers, `stride` apart, to read, and `to` such runs, `nr` apart, to write.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
#[target_feature(enable = "avx")]
#[inline]
unsafe fn transpose_square(from: *const f32, stride: usize, to: *mut f32, nr: usize) {
    use std::arch::x86_64::{
        _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_setzero_ps, _mm256_shuffle_ps,
        _mm256_storeu_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };
    // Loops: without link-time optimisation closures are calls here.
    let mut lines = [_mm256_setzero_ps(); BLOCK];
    for (i, line) in lines.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *line = unsafe { _mm256_loadu_ps(from.add(i * stride)) };
    }
    for half in 0..2 {
        let four = 4 * half;
        // Lines 0 and 1, 2 and 3: numbers 0, 1, 4, 5 of both, and 2, 3, 6, 7.
        let [a, b, c, d] = [lines[four], lines[four + 1], lines[four + 2], lines[four + 3]];
        let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
        let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
        // Of all four: numbers 0 and 4, 1 and 5, 2 and 6, 3 and 7.
        lines[four] = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
        lines[four + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd);
        lines[four + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high);
        lines[four + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high);
    }
    for i in 0..4 {
        let (upper, lower) = (lines[i], lines[i + 4]);
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_ps(to.add(i * nr), _mm256_permute2f128_ps::<0x20>(upper, lower));
            _mm256_storeu_ps(to.add((i + 4) * nr), _mm256_permute2f128_ps::<0x31>(upper, lower));
        }
    }
}

/// Rows of a packed matrix.
#[derive(Clone, Copy)]
pub(crate) struct PackedOperand<'a> {
    panels: &'a [f32],
    /// Rows of the whole matrix, which is how far panels are apart.
    all_rows: usize,
    first_row: usize,
    rows: usize,
    cols: usize,
}

impl<'a> PackedOperand<'a> {
    /// A matrix that [`pack`] has laid out.
    pub(crate) fn new(panels: &'a [f32], rows: usize, cols: usize) -> PackedOperand<'a> {
        assert_eq!(panels.len(), packed_len(rows, cols), "a packed {rows}×{cols}");
        PackedOperand { panels, all_rows: rows, first_row: 0, rows, cols }
    }

    pub(crate) fn row_count(self) -> usize {
        self.rows
    }

    pub(crate) fn col_count(self) -> usize {
        self.cols
    }

    /// Some of the rows.
    pub(crate) fn rows(self, range: Range<usize>) -> PackedOperand<'a> {
        assert!(range.end <= self.rows, "rows {range:?} of {}", self.rows);
        PackedOperand { first_row: self.first_row + range.start, rows: range.len(), ..self }
    }

    /// Some of the columns, from the start of a panel.
    pub(crate) fn cols(self, range: Range<usize>) -> PackedOperand<'a> {
        assert!(range.end <= self.cols, "columns {range:?} of {}", self.cols);
        let nr = panel_width();
        assert!(range.start.is_multiple_of(nr), "columns {range:?} in panels of {nr}");
        let start = range.start * self.all_rows;
        let end = start + packed_len(self.all_rows, range.len());
        PackedOperand { panels: &self.panels[start..end], cols: range.len(), ..self }
    }
}

/// A matrix that is packed for a few products.
pub(crate) struct PackedBuffer {
    buffer: Buffer<f32>,
    rows: usize,
    cols: usize,
}

impl PackedBuffer {
    /// Packs `mat`, in so many tasks.
    pub(crate) fn new(tasks: usize, mat: Mat<'_>, floats: &mut Pool<f32>) -> PackedBuffer {
        let (rows, cols) = (mat.row_count(), mat.col_count());
        let mut buffer = floats.take(packed_len(rows, cols));
        parallel_pack(tasks, mat, &mut buffer);
        PackedBuffer { buffer, rows, cols }
    }

    pub(crate) fn get(&self) -> PackedOperand<'_> {
        PackedOperand::new(&self.buffer, self.rows, self.cols)
    }

    pub(crate) fn recycle(self, floats: &mut Pool<f32>) {
        floats.give(self.buffer);
    }
}

/// [`pack`] in so many tasks, some panels each.
pub(crate) fn parallel_pack(tasks: usize, mat: Mat<'_>, panels: &mut [f32]) {
    let (rows, cols) = (mat.row_count(), mat.col_count());
    let nr = panel_width();
    let first = tasks.div_ceil(2);
    let middle = (cols * first / tasks).next_multiple_of(nr);
    if tasks == 1 || rows * cols < MIN_PARALLEL_MACS / 16 || middle >= cols {
        return pack(mat, panels);
    }
    let (left, right) = panels.split_at_mut(rows * middle);
    rayon::join(
        || parallel_pack(first, mat.cols(0..middle), left),
        || parallel_pack(tasks - first, mat.cols(middle..cols), right),
    );
}

/// [`gemm`] in so many tasks: each computes some rows of the result, or some columns of a single row, whole. So the
/// bits are the same for any number of them.
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
    // The nearest edge: with 512 rows for two tasks, one strip more for one of them would cost an eighth.
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

/// `dst = factor · a · b`, or `dst += factor · a · b`.
pub(crate) fn gemm(
    dst: MatMut<'_>,
    accumulate: bool,
    factor: f32,
    a: Mat<'_>,
    b: PackedOperand<'_>,
) {
    let (rows, cols) = (dst.row_count(), dst.col_count());
    assert!(
        a.row_count() == rows && b.cols == cols && a.col_count() == b.rows,
        "product of {}×{} and {}×{} into {rows}×{cols}",
        a.row_count(),
        a.col_count(),
        b.rows,
        b.cols
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
        // Twice as many rows where there are twice as many registers.
        if S::REGISTER_COUNT >= 32 { self.run::<S, 12>(simd) } else { self.run::<S, 6>(simd) }
    }
}

impl Gemm<'_> {
    #[inline(always)]
    fn run<S: Simd, const MR: usize>(mut self, simd: S) {
        let (rows, inner) = (self.a.row_count(), self.a.col_count());
        if inner == 0 {
            if !self.accumulate {
                (0..rows).for_each(|row| self.dst.row_mut(row, 0..self.b.cols).fill(0.0));
            }
            return;
        }
        // Stretches of equal length, so that none is short.
        let kc = inner.div_ceil(inner.div_ceil(KC));
        let k_blocks = (0..inner).step_by(kc).map(|start| start..(start + kc).min(inner));
        let (row_stride, col_stride) = self.a.strides();
        // Few lines stay in a first-level cache if they are an odd number of lines apart: else they share some of its sets.
        let in_place = inner <= MAX_LINES_IN_PLACE && col_stride / CACHE_LINE % 2 == 1;
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
            // 72 KiB, of the 2 MiB that a thread's stack has at least.
            #[allow(clippy::large_stack_arrays)]
            let mut scratch = [0.0; MC * KC];
            for depth in k_blocks {
                for top in (0..rows).step_by(MC) {
                    let strip = top..(top + MC).min(rows);
                    let left = self.pack_left::<MR>(strip.clone(), depth.clone(), &mut scratch);
                    self.row_block::<S, MR>(simd, left, strip, depth.clone());
                }
            }
        }
    }

    /// Copies rows of a left side that is stored by columns, so that what a tile reads lies in one piece: the first number of
    /// each of its rows, then the second of each, and so on. In place they would be a line apart at least, often in
    /// the same few sets of the cache.
    #[inline(always)]
    fn pack_left<'r, const MR: usize>(
        &self,
        strip: Range<usize>,
        depth: Range<usize>,
        scratch: &'r mut [f32],
    ) -> LeftPanel<'r> {
        let (row_stride, col_stride) = self.a.strides();
        assert_eq!(row_stride, 1, "a matrix that is stored neither by rows nor by columns");
        let columns = self.a.tile(strip.start, strip.len(), depth.clone());
        let tile_stride = MR * depth.len();
        for l in 0..depth.len() {
            let column = &columns[l * col_stride..][..strip.len()];
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

    /// Computes the rows `strip`, which `left` starts with, over a kc of the inner dimension.
    #[inline(always)]
    fn row_block<S: Simd, const MR: usize>(
        &mut self,
        simd: S,
        left: LeftPanel<'_>,
        strip: Range<usize>,
        depth: Range<usize>,
    ) {
        let cols = self.b.cols;
        let nr = 2 * S::F32_LANES;
        let part = (L2_FLOATS / depth.len() / nr).max(1) * nr;
        for start in (0..cols).step_by(part) {
            let part = start..(start + part).min(cols);
            let mut row = 0;
            while row < strip.len() {
                let rows = match strip.len() - row {
                    rest if rest >= MR => MR,
                    4.. => 4,
                    2.. => 2,
                    _ => 1,
                };
                // What the next tile will read where it lies is fetched while this one is computed, a few rows at every panel.
                let fetched = if left.col_stride == 1 { row + rows + MR } else { 0 };
                let mut fetched = row + rows..fetched.min(strip.len());
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
                    let panel = first * self.b.all_rows + (self.b.first_row + depth.start) * nr;
                    let kernel = MicroKernel {
                        left: at,
                        row_stride: left.row_stride,
                        col_stride: left.col_stride,
                        panel: &self.b.panels[panel..panel + depth.len() * nr],
                        accumulate: self.accumulate || depth.start > 0,
                        factor: self.factor,
                    };
                    let row = strip.start + row;
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

/// Rows of the left side over a kc of the inner dimension, where they lie or laid out by tiles.
#[derive(Clone, Copy)]
struct LeftPanel<'a> {
    data: &'a [f32],
    row_stride: usize,
    col_stride: usize,
    /// Distance of tiles of as many rows as fit into registers.
    tile_stride: usize,
}

impl LeftPanel<'_> {
    /// Where a row starts.
    #[inline(always)]
    fn offset<const MR: usize>(&self, row: usize) -> usize {
        row / MR * self.tile_stride + row % MR * self.row_stride
    }
}

/// What one tile of the result is computed from.
struct MicroKernel<'a> {
    left: &'a [f32],
    row_stride: usize,
    col_stride: usize,
    panel: &'a [f32],
    accumulate: bool,
    factor: f32,
}

impl MicroKernel<'_> {
    /// Computes `MR` rows, from row `top` on, of `columns`, at most as many as the panel has.
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
            "the left side has the tile"
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
            assert_eq!(row_stride, 1, "a left side that is stored neither by rows nor by columns");
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
            // Masked stores take dozens of cycles on AMD's processors.
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

/// Adds the products of `MR` numbers of the left side, where `at(row, l)` says, and pairs of vectors of the right side,
/// for every `l` in order.
///
/// # Safety
/// `left` must have the number at every `at(row, l)` for `row < MR` and `l < pairs.len() / 2`.
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
            // SAFETY: the caller's promise.
            unsafe { rank_one_update::<S, MR>(simd, left, |i| at(i, l), pair, sums) };
        }
    }
    for (l, pair) in rest.chunks_exact(2).enumerate() {
        let l = whole.len() * UNROLL + l;
        // SAFETY: the caller's promise.
        unsafe { rank_one_update::<S, MR>(simd, left, |i| at(i, l), pair, sums) };
    }
}

/// One step of [`multiply_panels`].
///
/// # Safety
/// `left` must have the number at every `at(row)` for `row < MR`.
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
        // SAFETY: the caller's promise.
        let x = simd.splat_f32s(unsafe { *left.get_unchecked(at(i)) });
        sums[0] = simd.mul_add_e_f32s(x, pair[0], sums[0]);
        sums[1] = simd.mul_add_e_f32s(x, pair[1], sums[1]);
    }
}

/// Asks for the cache line of a number.
#[inline(always)]
fn prefetch(number: &f32) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: a prefetch changes no state that a program can see, whatever the address; SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(number).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = number;
}

/// Operations per second of `[rows, inner] · [inner, cols]` with a packed right side, computed over and over for `duration`.
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
    use super::*;

    /// Over edges of tiles, panels, blocks and k_blocks; both orders of either side, accumulation, rows and columns of the
    /// packed side.
    #[test]
    fn equals_a_triple_loop() {
        let number = |i: usize| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0;
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
            // By columns, in place.
            (17 * CACHE_LINE, 40, 20),
        ];
        // Miri, which looks for undefined behaviour, takes minutes for the large ones.
        let shapes = if cfg!(miri) { &shapes[..3] } else { &shapes[..] };
        for &(rows, inner, cols) in shapes {
            for case in 0..8 {
                let (by_columns, transposed, accumulate) =
                    (case & 1 == 1, case & 2 == 2, case & 4 == 4);
                let a: Vec<f32> = (0..rows * inner).map(number).collect();
                let b: Vec<f32> = (0..inner * cols).map(|i| number(i + 3)).collect();
                let old: Vec<f32> = (0..rows * cols).map(|i| number(i + 5)).collect();
                let a_at = |i: usize, l: usize| {
                    if by_columns { a[l * rows + i] } else { a[i * inner + l] }
                };
                let b_at = |l: usize, j: usize| {
                    if transposed { b[j * inner + l] } else { b[l * cols + j] }
                };
                let left = if by_columns {
                    Mat::new(&a, inner, rows).t()
                } else {
                    Mat::new(&a, rows, inner)
                };
                let right = if transposed {
                    Mat::new(&b, cols, inner).t()
                } else {
                    Mat::new(&b, inner, cols)
                };
                let mut panels = vec![f32::NAN; packed_len(inner, cols)];
                pack(right, &mut panels);
                let mut result = old.clone();
                let right = PackedOperand::new(&panels, inner, cols);
                gemm(MatMut::new(&mut result, rows, cols), accumulate, 0.5, left, right);
                for i in 0..rows {
                    for j in 0..cols {
                        let products =
                            (0..inner).map(|l| f64::from(a_at(i, l)) * f64::from(b_at(l, j)));
                        let (sum, size) = products
                            .fold((0.0, 0.0), |(sum, size), x: f64| (sum + x, size + x.abs()));
                        let start = if accumulate { f64::from(old[i * cols + j]) } else { 0.0 };
                        let error = (f64::from(result[i * cols + j]) - start - 0.5 * sum).abs();
                        let most = 1e-6 * (1.0 + size);
                        assert!(
                            error < most,
                            "{rows}×{inner}×{cols} case {case} at {i},{j}: off by {error}"
                        );
                    }
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

    /// Rows, columns of a single row, and a left side stored by columns, each above and below what is worth sharing.
    #[test]
    fn tasks_change_no_bit() {
        let number = |i: usize| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0;
        let shapes = [(3, 5, 7), (50, 9, 21), (131, 97, 85), (1, 1100, 1000), (200, 90, 70)];
        let shapes = if cfg!(miri) { &shapes[..2] } else { &shapes[..] };
        for &(rows, inner, cols) in shapes {
            let a: Vec<f32> = (0..rows * inner).map(number).collect();
            let b: Vec<f32> = (0..inner * cols).map(|i| number(i + 3)).collect();
            let run = |tasks, by_columns| {
                let mut floats = Pool::default();
                let panels = PackedBuffer::new(tasks, Mat::new(&b, inner, cols), &mut floats);
                let left = if by_columns {
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
            for by_columns in [false, true] {
                let one = run(1, by_columns);
                for tasks in [2, 3, 5, 16] {
                    assert_eq!(
                        run(tasks, by_columns),
                        one,
                        "{rows}×{inner}×{cols} in {tasks} tasks"
                    );
                }
            }
        }
    }

    /// What is not a number must not be lost, nor come from the filling of the last panel.
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
