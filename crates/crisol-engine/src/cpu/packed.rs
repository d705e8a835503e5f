//! Packed operands: the layout in which [`super::gemm`] reads its right operand `B`.
//!
//! `B` `[k, n]` is cut into panels of `NR` columns, two vector registers wide. Each panel is stored
//! row after row, so the micro-kernel reads it as one stream. The last panel is padded with zeros.
//!
//! ```text
//!          n = 40, NR = 16                      memory
//!        ┌ panel 0 ┬ panel 1 ┬ 2  ┐
//!   row 0│ b0 … b15│         │  00│    panel 0: row 0 (16), row 1 (16), … row k-1
//!   row 1│         │         │  00│    panel 1: row 0 (16), …
//!    ⋮   │         │         │  00│    panel 2: row 0 (8 and 8 zeros), …
//!        └─────────┴─────────┴────┘
//! ```

use std::ops::Range;

use pulp::Simd;

use super::mat::Mat;
use crate::workspace::{Buffer, Pool};

/// Columns of the widest panel (`NR` with AVX-512).
pub(super) const MAX_NR: usize = 32;
/// Scalars below which packing on a second thread costs more than it saves.
const MIN_PARALLEL_SCALARS: usize = if cfg!(miri) { 1 << 6 } else { 1 << 16 };

/// `NR`: columns of a panel, two vector registers: 32 with AVX-512, 16 with AVX2, 8 with NEON.
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

/// Scalars that a matrix takes when packed.
pub(crate) fn packed_len(rows: usize, cols: usize) -> usize {
    rows * cols.next_multiple_of(panel_width())
}

/// Packs `mat` into `panels`, whose length is [`packed_len`].
pub(crate) fn pack(mat: Mat<'_>, panels: &mut [f32]) {
    let (rows, cols) = (mat.row_count(), mat.col_count());
    assert_eq!(panels.len(), packed_len(rows, cols), "panels of {rows}×{cols}");
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
            assert_eq!(row_stride, 1, "the operand is neither row-major nor column-major");
            // The transpose of a row-major matrix: its rows become columns.
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

/// Rows and columns of a block that is transposed in registers.
const BLOCK: usize = 8;

/// Transposes a block: `lines` rows of `len` scalars at `from`, `stride` apart, become columns of
/// rows at `to` that are `nr` apart. At most [`BLOCK`] of each.
#[inline(always)]
fn transpose(from: &[f32], stride: usize, to: &mut [f32], nr: usize, lines: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if lines == BLOCK && len == BLOCK && std::arch::is_x86_feature_detected!("avx") {
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
    for line in 0..lines {
        for i in 0..len {
            to[i * nr + line] = from[line * stride + i];
        }
    }
}

/// [`transpose`] of an 8 × 8 block: interleave pairs, then pairs of pairs, then exchange halves of
/// registers.
///
/// # Safety
/// `from` must hold eight readable runs of eight scalars, `stride` apart; `to` eight writable ones,
/// `nr` apart.
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
    let mut lines = [_mm256_setzero_ps(); BLOCK];
    for (i, line) in lines.iter_mut().enumerate() {
        // SAFETY: guaranteed by the caller.
        *line = unsafe { _mm256_loadu_ps(from.add(i * stride)) };
    }
    for half in 0..2 {
        let four = 4 * half;
        // Rows 0 and 1, 2 and 3: elements 0, 1, 4, 5 of both, and 2, 3, 6, 7.
        let [a, b, c, d] = [lines[four], lines[four + 1], lines[four + 2], lines[four + 3]];
        let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
        let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
        // All four rows: elements 0 and 4, 1 and 5, 2 and 6, 3 and 7.
        lines[four] = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
        lines[four + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd);
        lines[four + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high);
        lines[four + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high);
    }
    for i in 0..4 {
        let (upper, lower) = (lines[i], lines[i + 4]);
        // SAFETY: guaranteed by the caller.
        unsafe {
            _mm256_storeu_ps(to.add(i * nr), _mm256_permute2f128_ps::<0x20>(upper, lower));
            _mm256_storeu_ps(to.add((i + 4) * nr), _mm256_permute2f128_ps::<0x31>(upper, lower));
        }
    }
}

/// A view of a packed matrix, or of some of its rows and panels.
#[derive(Clone, Copy)]
pub(crate) struct PackedOperand<'a> {
    panels: &'a [f32],
    /// Rows of the whole matrix: the distance of panels in rows.
    all_rows: usize,
    first_row: usize,
    rows: usize,
    cols: usize,
}

impl<'a> PackedOperand<'a> {
    /// A `rows × cols` matrix that [`pack`] wrote.
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

    /// The rows in `range`.
    pub(crate) fn rows(self, range: Range<usize>) -> PackedOperand<'a> {
        assert!(range.end <= self.rows, "rows {range:?} of {}", self.rows);
        PackedOperand { first_row: self.first_row + range.start, rows: range.len(), ..self }
    }

    /// Rows `depth` of the panel that starts at column `first`; `nr` is [`panel_width`].
    #[inline(always)]
    pub(super) fn panel(self, first: usize, depth: Range<usize>, nr: usize) -> &'a [f32] {
        let start = first * self.all_rows + (self.first_row + depth.start) * nr;
        &self.panels[start..start + depth.len() * nr]
    }

    /// The columns in `range`, which starts at a panel.
    pub(crate) fn cols(self, range: Range<usize>) -> PackedOperand<'a> {
        assert!(range.end <= self.cols, "columns {range:?} of {}", self.cols);
        let nr = panel_width();
        assert!(range.start.is_multiple_of(nr), "columns {range:?} in panels of {nr}");
        let start = range.start * self.all_rows;
        let end = start + packed_len(self.all_rows, range.len());
        PackedOperand { panels: &self.panels[start..end], cols: range.len(), ..self }
    }
}

/// A packed matrix in memory borrowed from a pool, for a few GEMMs.
pub(crate) struct PackedBuffer {
    buffer: Buffer<f32>,
    rows: usize,
    cols: usize,
}

impl PackedBuffer {
    /// Packs `mat` in `tasks` tasks.
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

/// [`pack`] in `tasks` tasks; each packs whole panels.
pub(crate) fn parallel_pack(tasks: usize, mat: Mat<'_>, panels: &mut [f32]) {
    let (rows, cols) = (mat.row_count(), mat.col_count());
    let nr = panel_width();
    let first = tasks.div_ceil(2);
    let middle = (cols * first / tasks).next_multiple_of(nr);
    if tasks == 1 || rows * cols < MIN_PARALLEL_SCALARS || middle >= cols {
        return pack(mat, panels);
    }
    let (left, right) = panels.split_at_mut(rows * middle);
    rayon::join(
        || parallel_pack(first, mat.cols(0..middle), left),
        || parallel_pack(tasks - first, mat.cols(middle..cols), right),
    );
}
