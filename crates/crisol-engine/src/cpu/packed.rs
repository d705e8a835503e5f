//! Packed operands: the layout in which [`super::gemm`] reads its right operand `B`.
//!
//! `B` `[k, n]` is cut into panels of nr columns, two vectors wide (micro-panels in BLIS). A panel
//! is stored row after row, so the micro-kernel reads it as one stream. The last panel is padded
//! with zeros. In bf16, a row of a panel holds two rows of `B` ([`super::lanes`]).
//!
//! ```text
//!            B: n = 40, nr = 16                    memory
//!          ┌─ panel 0 ─┬─ panel 1 ─┬─ panel 2 ─┐
//!   row 0  │  b0 … b15 │ b16 … b31 │ b32…b39 0 │   panel 0: row 0, row 1, …, of 16 floats
//!   row 1  │           │           │         0 │   panel 1: row 0, row 1, …
//!     ⋮    │           │           │         0 │   panel 2: …, of 8 floats and 8 zeros
//!          └───────────┴───────────┴───────────┘
//! ```

use std::ops::Range;

use pulp::Simd;

use super::lanes::{pair_neighbours, pair_rows};
use super::mat::Mat;
use crate::buffer::{Buffer, Pool};
use crate::precision::Precision;

/// Largest nr: that of AVX-512.
pub(super) const MAX_NR: usize = 32;
/// Scalars below which packing with a second thread does not pay.
const MIN_PARALLEL_SCALARS: usize = if cfg!(miri) { 1 << 6 } else { 1 << 16 };

/// nr, the columns of a panel: 32 with AVX-512, 16 with AVX2, 8 with NEON.
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

/// Lanes of a packed `rows × cols` matrix, with padding.
pub(crate) fn packed_len(precision: Precision, rows: usize, cols: usize) -> usize {
    precision.lanes(rows) * cols.next_multiple_of(panel_width())
}

/// Packs `mat` into `panels`, whose length is [`packed_len`].
pub(crate) fn pack(precision: Precision, mat: Mat<'_>, panels: &mut [f32]) {
    let (rows, cols) = (mat.row_count(), mat.col_count());
    assert_eq!(panels.len(), packed_len(precision, rows, cols), "panels of {rows}×{cols}");
    if rows == 0 || cols == 0 {
        return;
    }
    match precision {
        Precision::F32 => pulp::Arch::new().dispatch(Pack { mat, panels }),
        Precision::Bf16 => pack_pairs(mat, panels),
    }
}

/// Lanes of each of [`BLOCK`] columns that are rounded before they are transposed: 16 KiB, which
/// stay in L1. Columns come from main memory, which is fast where it is read in long runs.
const ROUNDED: usize = 512;

/// [`pack`] in bf16, of a matrix that is not empty.
fn pack_pairs(mat: Mat<'_>, panels: &mut [f32]) {
    let (rows, cols, nr) = (mat.row_count(), mat.col_count(), panel_width());
    let lanes = Precision::Bf16.lanes(rows);
    if mat.strides().1 == 1 {
        return pair_rows(mat, panels, nr);
    }
    let mut rounded = [0.0; BLOCK * ROUNDED];
    for (panel, start) in panels.chunks_exact_mut(lanes * nr).zip((0..cols).step_by(nr)) {
        let used = nr.min(cols - start);
        if used < nr {
            panel.fill(0.0);
        }
        for block in (0..used).step_by(BLOCK) {
            let block_cols = BLOCK.min(used - block);
            for first in (0..lanes).step_by(ROUNDED) {
                let count = ROUNDED.min(lanes - first);
                let depth = 2 * first..rows.min(2 * (first + count));
                for (column, rounded) in
                    rounded.chunks_exact_mut(count).enumerate().take(block_cols)
                {
                    let column = start + block + column;
                    pair_neighbours(mat.t().tile(column, 1, depth.clone()), rounded);
                }
                for lane in (0..count).step_by(BLOCK) {
                    let to = &mut panel[(first + lane) * nr + block..];
                    let block_rows = BLOCK.min(count - lane);
                    transpose(&rounded[lane..], count, to, nr, block_cols, block_rows);
                }
            }
        }
    }
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
        if col_stride == 1 {
            let all = mat.tile(0, rows, 0..cols);
            for row in 0..rows {
                let numbers = &all[row * row_stride..][..cols];
                for (panel, from) in numbers.chunks(nr).enumerate() {
                    let to = &mut panels[(panel * rows + row) * nr..][..nr];
                    if let ([first, second], _) = S::as_simd_f32s(from) {
                        S::as_mut_simd_f32s(to).0.copy_from_slice(&[*first, *second]);
                    } else {
                        // The last panel, padded.
                        to[..from.len()].copy_from_slice(from);
                        to[from.len()..].fill(0.0);
                    }
                }
            }
        } else {
            assert_eq!(row_stride, 1, "the operand is neither row-major nor column-major");
            // Column-major, but panels are row-major: transpose block by block.
            let all = mat.t().tile(0, cols, 0..rows);
            for (panel, j) in panels.chunks_exact_mut(rows * nr).zip((0..cols).step_by(nr)) {
                let used = nr.min(cols - j);
                if used < nr {
                    panel.fill(0.0);
                }
                let columns = &all[j * col_stride..];
                for col in (0..used).step_by(BLOCK) {
                    let block_cols = BLOCK.min(used - col);
                    for row in (0..rows).step_by(BLOCK) {
                        let (from, to) =
                            (&columns[col * col_stride + row..], &mut panel[row * nr + col..]);
                        transpose(from, col_stride, to, nr, block_cols, BLOCK.min(rows - row));
                    }
                }
            }
        }
    }
}

/// Rows and columns of a block that is transposed in registers.
pub(super) const BLOCK: usize = 8;

/// Copies a block of at most [`BLOCK`] rows and columns: column-major at `from`, with `stride` from
/// column to column; row-major at `to`, with `nr` from row to row.
#[inline(always)]
pub(super) fn transpose(
    from: &[f32],
    stride: usize,
    to: &mut [f32],
    nr: usize,
    cols: usize,
    rows: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if cols == BLOCK && rows == BLOCK && std::arch::is_x86_feature_detected!("avx") {
        assert!(
            7 * stride + BLOCK <= from.len() && 7 * nr + BLOCK <= to.len(),
            "blocks within both slices"
        );
        // SAFETY: AVX was detected, and the assertion keeps both blocks within their slices.
        #[allow(unsafe_code)]
        unsafe {
            transpose_square(from.as_ptr(), stride, to.as_mut_ptr(), nr);
        }
        return;
    }
    for col in 0..cols {
        for row in 0..rows {
            to[row * nr + col] = from[col * stride + row];
        }
    }
}

/// [`transpose`] of an 8 × 8 block with columns a to h. The path of row 0 through the two halves of
/// a register:
///
/// ```text
///   load      a0 a1 a2 a3 │ a4 a5 a6 a7     column a
///   unpack    a0 b0 a1 b1 │ a4 b4 a5 b5     of a and b
///   shuffle   a0 b0 c0 d0 │ a4 b4 c4 d4     of ab and cd
///   permute   a0 b0 c0 d0 │ e0 f0 g0 h0     of abcd and efgh
/// ```
///
/// # Safety
/// Eight scalars must be readable at each of eight columns `stride` apart from `from`, and writable
/// at each of eight rows `nr` apart from `to`.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
#[target_feature(enable = "avx")]
#[inline]
unsafe fn transpose_square(from: *const f32, stride: usize, to: *mut f32, nr: usize) {
    use std::arch::x86_64::{
        _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_setzero_ps, _mm256_shuffle_ps,
        _mm256_storeu_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };
    // Loops, because closures are not inlined here without link-time optimisation.
    let mut registers = [_mm256_setzero_ps(); BLOCK];
    for (col, register) in registers.iter_mut().enumerate() {
        // SAFETY: guaranteed by the caller.
        *register = unsafe { _mm256_loadu_ps(from.add(col * stride)) };
    }
    // Columns 0 to 3, then columns 4 to 7.
    for half in 0..2 {
        let first = 4 * half;
        let [a, b, c, d] =
            [registers[first], registers[first + 1], registers[first + 2], registers[first + 3]];
        // Rows 0, 1 │ 4, 5 of two columns.
        let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
        // Rows 2, 3 │ 6, 7 of two columns.
        let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
        // Rows 0 │ 4, then 1 │ 5, 2 │ 6 and 3 │ 7 of four columns.
        registers[first] = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
        registers[first + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd);
        registers[first + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high);
        registers[first + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high);
    }
    for row in 0..4 {
        let (abcd, efgh) = (registers[row], registers[row + 4]);
        // SAFETY: guaranteed by the caller.
        unsafe {
            _mm256_storeu_ps(to.add(row * nr), _mm256_permute2f128_ps::<0x20>(abcd, efgh));
            _mm256_storeu_ps(to.add((row + 4) * nr), _mm256_permute2f128_ps::<0x31>(abcd, efgh));
        }
    }
}

/// A view of a packed matrix, or of some of its rows and panels.
#[derive(Clone, Copy)]
pub(crate) struct PackedOperand<'a> {
    precision: Precision,
    panels: &'a [f32],
    /// Lanes along the rows of the whole packed matrix: its panels are `all_lanes · nr` apart.
    all_lanes: usize,
    first_lane: usize,
    rows: usize,
    cols: usize,
}

impl<'a> PackedOperand<'a> {
    /// A `rows × cols` matrix that [`pack`] wrote.
    pub(crate) fn new(
        precision: Precision,
        panels: &'a [f32],
        rows: usize,
        cols: usize,
    ) -> PackedOperand<'a> {
        assert_eq!(panels.len(), packed_len(precision, rows, cols), "a packed {rows}×{cols}");
        let all_lanes = precision.lanes(rows);
        PackedOperand { precision, panels, all_lanes, first_lane: 0, rows, cols }
    }

    pub(crate) fn precision(self) -> Precision {
        self.precision
    }

    /// Lanes along the rows.
    pub(crate) fn lane_count(self) -> usize {
        self.precision.lanes(self.rows)
    }

    pub(crate) fn row_count(self) -> usize {
        self.rows
    }

    pub(crate) fn col_count(self) -> usize {
        self.cols
    }

    /// The rows in `range`, which starts with a lane. If it ends within one, the other half of that
    /// lane is multiplied by the zero that ends the left operand's rows.
    pub(crate) fn rows(self, range: Range<usize>) -> PackedOperand<'a> {
        assert!(range.end <= self.rows, "rows {range:?} of {}", self.rows);
        let before = self.precision.lanes(range.start);
        assert!(
            self.precision == Precision::F32 || range.start.is_multiple_of(2),
            "rows {range:?} in pairs"
        );
        PackedOperand { first_lane: self.first_lane + before, rows: range.len(), ..self }
    }

    /// Lanes `k_block` of the panel that starts at column `j`, a multiple of nr ([`panel_width`]).
    #[inline(always)]
    pub(super) fn panel(self, j: usize, k_block: Range<usize>, nr: usize) -> &'a [f32] {
        // The panels before this one hold `j · all_lanes` lanes.
        let start = j * self.all_lanes + (self.first_lane + k_block.start) * nr;
        &self.panels[start..start + k_block.len() * nr]
    }

    /// The columns in `range`, which starts at the border of a panel.
    pub(crate) fn cols(self, range: Range<usize>) -> PackedOperand<'a> {
        assert!(range.end <= self.cols, "columns {range:?} of {}", self.cols);
        let nr = panel_width();
        assert!(range.start.is_multiple_of(nr), "columns {range:?} in panels of {nr}");
        let start = range.start * self.all_lanes;
        let end = start + self.all_lanes * range.len().next_multiple_of(nr);
        PackedOperand { panels: &self.panels[start..end], cols: range.len(), ..self }
    }
}

/// A packed matrix in memory borrowed from a pool, for a few GEMMs.
pub(crate) struct PackedBuffer {
    precision: Precision,
    buffer: Buffer<f32>,
    rows: usize,
    cols: usize,
}

impl PackedBuffer {
    /// Packs `mat` in `tasks` tasks.
    pub(crate) fn new(
        precision: Precision,
        tasks: usize,
        mat: Mat<'_>,
        floats: &mut Pool<f32>,
    ) -> PackedBuffer {
        let (rows, cols) = (mat.row_count(), mat.col_count());
        let mut buffer = floats.take(packed_len(precision, rows, cols));
        parallel_pack(precision, tasks, mat, &mut buffer);
        PackedBuffer { precision, buffer, rows, cols }
    }

    pub(crate) fn as_operand(&self) -> PackedOperand<'_> {
        PackedOperand::new(self.precision, &self.buffer, self.rows, self.cols)
    }

    pub(crate) fn recycle(self, floats: &mut Pool<f32>) {
        floats.give(self.buffer);
    }
}

/// [`pack`] in `tasks` tasks; each packs whole panels.
pub(crate) fn parallel_pack(precision: Precision, tasks: usize, mat: Mat<'_>, panels: &mut [f32]) {
    let (rows, cols) = (mat.row_count(), mat.col_count());
    let nr = panel_width();
    let first_tasks = tasks.div_ceil(2);
    let middle = (cols * first_tasks / tasks).next_multiple_of(nr);
    if tasks == 1 || rows * cols < MIN_PARALLEL_SCALARS || middle >= cols {
        return pack(precision, mat, panels);
    }
    let (left, right) = panels.split_at_mut(precision.lanes(rows) * middle);
    rayon::join(
        || parallel_pack(precision, first_tasks, mat.cols(0..middle), left),
        || parallel_pack(precision, tasks - first_tasks, mat.cols(middle..cols), right),
    );
}
