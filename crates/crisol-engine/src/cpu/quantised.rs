//! GEMM with matrices in half precision or quantised.
//!
//! Few rows: each tile is read once and dequantised in registers, with `Σ scale · code · x`
//! computed as `scale · Σ code · x`, in f32 whatever the precision. Many rows: parts of the matrix
//! are dequantised into the panels of [`super::packed`] and used from cache ([`super::weights`]).

use std::marker::PhantomData;
use std::ops::Range;

use pulp::Simd;

use super::formats::{BlockFormat, Lanes, UNIT_COLUMNS, with_blocks};
use super::lanes::{clear_second, pair_vectors};
use super::mat::{Mat, MatMut};
use super::packed::{MAX_NR, packed_len, panel_width};
use super::tiles::Tiles;
use crate::buffer::Pool;
use crate::precision::Precision;

/// Columns of half a unit, which share a scale and an offset.
const HALF_UNIT: usize = UNIT_COLUMNS / 2;
/// Rows of `A` that share the dequantisation of a tile.
const ROWS_PER_PASS: usize = 4;
/// Weights below which a second thread does not pay.
const MIN_PARALLEL_WEIGHTS: usize = 32 * 1024;

/// Some rows of a quantised matrix, transposed: the right operand of a GEMM.
#[derive(Clone, Copy)]
pub(crate) struct QuantisedView<'a> {
    matrix: &'a Tiles,
    first: usize,
    len: usize,
}

impl<'a> QuantisedView<'a> {
    pub(crate) fn new(matrix: &'a Tiles) -> QuantisedView<'a> {
        QuantisedView { matrix, first: 0, len: matrix.rows }
    }

    pub(crate) fn row_count(self) -> usize {
        self.matrix.cols
    }

    pub(crate) fn col_count(self) -> usize {
        self.len
    }

    /// The columns in `range`, which starts at a tile.
    pub(crate) fn cols(self, range: Range<usize>) -> QuantisedView<'a> {
        assert!(range.end <= self.len, "columns {range:?} of {}", self.len);
        assert!(range.start.is_multiple_of(panel_width()), "columns {range:?} in tiles");
        QuantisedView { first: self.first + range.start, len: range.len(), ..self }
    }

    /// Dequantises into panels, as [`super::packed::pack`] writes them.
    pub(crate) fn pack(self, precision: Precision, panels: &mut [f32]) {
        let (rows, width) = (self.row_count(), panel_width());
        assert_eq!(panels.len(), packed_len(precision, rows, self.len), "panels of the matrix");
        let panel = (precision.lanes(rows) * width).max(1);
        for (tile, panel) in self.matrix.tiles(self.first).zip(panels.chunks_exact_mut(panel)) {
            dequantise_tile(precision, self.matrix, tile, panel);
            if precision == Precision::Bf16 && !rows.is_multiple_of(2) {
                // What a tile is padded with.
                clear_second(&mut panel[rows / 2 * width..]);
            }
        }
    }

    /// `dst = factor · a · self` for few rows, in `tasks` tasks.
    pub(crate) fn gemm(
        self,
        tasks: usize,
        dst: MatMut<'_>,
        factor: f32,
        a: Mat<'_>,
        floats: &mut Pool<f32>,
    ) {
        let (rows, cols) = (a.row_count(), a.col_count());
        assert!(
            cols == self.row_count() && dst.row_count() == rows && dst.col_count() == self.len,
            "product of {rows}×{cols} and {}×{}",
            self.row_count(),
            self.len
        );
        // Rows padded to whole units, followed by their sums over half units.
        let padded = cols.next_multiple_of(UNIT_COLUMNS);
        let stride = padded + padded / HALF_UNIT;
        let mut x = floats.take_zeros(rows * stride);
        for (row, x) in x.chunks_exact_mut(stride.max(1)).enumerate() {
            let (x, sums) = x.split_at_mut(padded);
            x[..cols].copy_from_slice(a.tile(row, 1, 0..cols));
            for (sum, x) in sums.iter_mut().zip(x.chunks_exact(HALF_UNIT)) {
                *sum = x.iter().sum();
            }
        }
        let left = PaddedLeft { x: &x, padded, stride };
        with_blocks!(self.matrix.format, F => gemm_in_tasks::<F>(tasks, dst, factor, left, self));
        floats.give(x);
    }
}

/// `A`: rows padded to whole units, each followed by its sums over half units.
#[derive(Clone, Copy)]
struct PaddedLeft<'a> {
    x: &'a [f32],
    padded: usize,
    stride: usize,
}

/// Every task computes its own columns.
fn gemm_in_tasks<F: BlockFormat>(
    tasks: usize,
    dst: MatMut<'_>,
    factor: f32,
    left: PaddedLeft<'_>,
    right: QuantisedView<'_>,
) {
    let cols = dst.col_count();
    let first = tasks.div_ceil(2);
    let middle = (cols * first / tasks).next_multiple_of(panel_width());
    if tasks == 1 || cols * left.padded < 2 * MIN_PARALLEL_WEIGHTS || middle >= cols {
        pulp::Arch::new().dispatch(QuantisedGemm::<F> {
            dst,
            factor,
            left,
            right,
            blocks: PhantomData,
        });
        return;
    }
    let (low, high) = dst.split_cols(middle);
    rayon::join(
        || gemm_in_tasks::<F>(first, low, factor, left, right.cols(0..middle)),
        || gemm_in_tasks::<F>(tasks - first, high, factor, left, right.cols(middle..cols)),
    );
}

struct QuantisedGemm<'a, F> {
    dst: MatMut<'a>,
    factor: f32,
    left: PaddedLeft<'a>,
    right: QuantisedView<'a>,
    blocks: PhantomData<F>,
}

impl<F: BlockFormat> pulp::WithSimd for QuantisedGemm<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let PaddedLeft { x, padded, stride } = self.left;
        let (rows, cols) = (self.dst.row_count(), self.dst.col_count());
        let tiles = self.right.matrix.tiles(self.right.first);
        let width = 2 * S::F32_LANES;
        for (tile, first) in tiles.zip((0..cols).step_by(width)) {
            let (tile, _) = S::as_simd_u32s(tile);
            let columns = first..(first + width).min(cols);
            let mut row = 0;
            while row < rows {
                let x = &x[row * stride..];
                if rows - row >= ROWS_PER_PASS {
                    let sums = tile_gemm::<F, S, ROWS_PER_PASS>(simd, tile, x, padded, stride);
                    for (i, sums) in sums.iter().enumerate() {
                        self.write_row(simd, row + i, columns.clone(), sums);
                    }
                    row += ROWS_PER_PASS;
                } else {
                    let [sums] = tile_gemm::<F, S, 1>(simd, tile, x, padded, stride);
                    self.write_row(simd, row, columns.clone(), &sums);
                    row += 1;
                }
            }
        }
    }
}

impl<F> QuantisedGemm<'_, F> {
    #[inline(always)]
    fn write_row<S: Simd>(&mut self, simd: S, row: usize, columns: Range<usize>, sums: &Lanes<S>) {
        let mut line = [0.0; MAX_NR];
        for (out, sum) in S::as_mut_simd_f32s(&mut line).0.iter_mut().zip(sums) {
            *out = simd.mul_f32s(simd.splat_f32s(self.factor), *sum);
        }
        let out = self.dst.row_mut(row, columns);
        out.copy_from_slice(&line[..out.len()]);
    }
}

/// `N` rows of `A`, `stride` apart, times a tile.
#[inline(always)]
fn tile_gemm<F: BlockFormat, S: Simd, const N: usize>(
    simd: S,
    tile: &[S::u32s],
    x: &[f32],
    padded: usize,
    stride: usize,
) -> [Lanes<S>; N] {
    let zero = [[simd.splat_f32s(0.0); 2]; N];
    let mut total = zero;
    let mut first = 0;
    for block in tile.chunks_exact(F::BLOCK) {
        let (header, units) = block.split_at(F::HEADER);
        let header = F::header(simd, header);
        for unit in units.chunks_exact(F::UNIT) {
            // Each row's values of this unit, and their sums.
            let (mut numbers, mut row_sums) = ([&[0.0; UNIT_COLUMNS]; N], [&[0.0; 2]; N]);
            for (n, (numbers, row_sums)) in numbers.iter_mut().zip(&mut row_sums).enumerate() {
                let row = &x[n * stride..];
                *numbers = row[first..].first_chunk().expect("rows are filled up to whole units");
                *row_sums = row[padded + first / HALF_UNIT..]
                    .first_chunk()
                    .expect("two sums for each unit");
            }
            let mut sums = if F::SCALED { zero } else { total };
            accumulate_half::<F, S, N, 0>(simd, unit, numbers, &mut sums);
            if F::SCALES_PER_HALF {
                accumulate_scaled::<F, S, N>(simd, &header, unit, 0, row_sums, &sums, &mut total);
                sums = zero;
            }
            accumulate_half::<F, S, N, 1>(simd, unit, numbers, &mut sums);
            if F::SCALED {
                accumulate_scaled::<F, S, N>(simd, &header, unit, 1, row_sums, &sums, &mut total);
            } else {
                total = sums;
            }
            first += UNIT_COLUMNS;
        }
    }
    total
}

/// Adds half a unit's codes times each row's values.
#[inline(always)]
fn accumulate_half<F: BlockFormat, S: Simd, const N: usize, const HALF: usize>(
    simd: S,
    unit: &[S::u32s],
    numbers: [&[f32; UNIT_COLUMNS]; N],
    sums: &mut [Lanes<S>; N],
) {
    for quarter in 0..HALF_UNIT / 4 {
        let codes = F::codes::<S, HALF>(simd, unit, quarter);
        for (i, codes) in codes.iter().enumerate() {
            for (sums, numbers) in sums.iter_mut().zip(numbers) {
                let x = simd.splat_f32s(numbers[HALF_UNIT * HALF + 4 * quarter + i]);
                for (sum, code) in sums.iter_mut().zip(codes) {
                    *sum = simd.mul_add_e_f32s(*code, x, *sum);
                }
            }
        }
    }
}

/// Adds `scale · sums + offset · row_sums` of half a unit.
#[inline(always)]
fn accumulate_scaled<F: BlockFormat, S: Simd, const N: usize>(
    simd: S,
    header: &[Lanes<S>; 2],
    unit: &[S::u32s],
    half: usize,
    row_sums: [&[f32; 2]; N],
    sums: &[Lanes<S>; N],
    total: &mut [Lanes<S>; N],
) {
    let [scale, offset] = F::scales(simd, header, unit, half);
    for ((total, sums), row_sums) in total.iter_mut().zip(sums).zip(row_sums) {
        let x = simd.splat_f32s(if F::SCALES_PER_HALF {
            row_sums[half]
        } else {
            row_sums[0] + row_sums[1]
        });
        for i in 0..2 {
            total[i] = simd.mul_add_e_f32s(scale[i], sums[i], total[i]);
            if F::OFFSET {
                total[i] = simd.mul_add_e_f32s(offset[i], x, total[i]);
            }
        }
    }
}

/// Dequantises a tile into a panel (see [`super::packed`]), of bf16 if `BF16`.
struct Dequantise<'a, F, const BF16: bool> {
    tile: &'a [u32],
    panel: &'a mut [f32],
    blocks: PhantomData<F>,
}

impl<F: BlockFormat, const BF16: bool> pulp::WithSimd for Dequantise<'_, F, BF16> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (tile, _) = S::as_simd_u32s(self.tile);
        let mut rows = S::as_mut_simd_f32s(self.panel).0.chunks_exact_mut(2);
        for block in tile.chunks_exact(F::BLOCK) {
            let (header, units) = block.split_at(F::HEADER);
            let header = F::header(simd, header);
            for unit in units.chunks_exact(F::UNIT) {
                dequantise_half::<F, S, BF16, 0>(simd, &header, unit, &mut rows);
                dequantise_half::<F, S, BF16, 1>(simd, &header, unit, &mut rows);
            }
        }
    }
}

/// Dequantises half a unit into the panel's next rows; the last unit may have fewer.
#[inline(always)]
fn dequantise_half<F: BlockFormat, S: Simd, const BF16: bool, const HALF: usize>(
    simd: S,
    header: &[Lanes<S>; 2],
    unit: &[S::u32s],
    rows: &mut std::slice::ChunksExactMut<'_, S::f32s>,
) {
    let [scale, offset] = F::scales(simd, header, unit, HALF);
    for quarter in 0..HALF_UNIT / 4 {
        let mut four = F::codes::<S, HALF>(simd, unit, quarter);
        for numbers in &mut four {
            if F::OFFSET {
                for i in 0..2 {
                    numbers[i] = simd.mul_add_e_f32s(scale[i], numbers[i], offset[i]);
                }
            } else if F::SCALED {
                *numbers =
                    [simd.mul_f32s(scale[0], numbers[0]), simd.mul_f32s(scale[1], numbers[1])];
            }
            if !BF16 && let Some(row) = rows.next() {
                row.copy_from_slice(numbers);
            }
        }
        if BF16 {
            for [first, second] in four.as_chunks::<2>().0 {
                if let Some(row) = rows.next() {
                    row[0] = pair_vectors(simd, first[0], second[0]);
                    row[1] = pair_vectors(simd, first[1], second[1]);
                }
            }
        }
    }
}

fn dequantise_tile(precision: Precision, matrix: &Tiles, tile: &[u32], panel: &mut [f32]) {
    let arch = pulp::Arch::new();
    with_blocks!(matrix.format, F => match precision {
        Precision::F32 => arch.dispatch(Dequantise::<F, false> { tile, panel, blocks: PhantomData }),
        Precision::Bf16 => arch.dispatch(Dequantise::<F, true> { tile, panel, blocks: PhantomData }),
    });
}

/// [`dequantise`] in `tasks` tasks; each takes whole tiles.
pub(crate) fn parallel_dequantise(
    tasks: usize,
    matrix: &Tiles,
    rows: Range<usize>,
    out: &mut [f32],
    floats: &mut Pool<f32>,
) {
    let mut panels = floats.take(tasks * panel_width() * matrix.cols);
    dequantise_in_tasks(tasks, matrix, rows, out, &mut panels);
    floats.give(panels);
}

/// `panels`: a tile for each task.
fn dequantise_in_tasks(
    tasks: usize,
    matrix: &Tiles,
    rows: Range<usize>,
    out: &mut [f32],
    panels: &mut [f32],
) {
    let panel = panel_width() * matrix.cols;
    let first_tasks = tasks.div_ceil(2);
    let middle = (rows.start + rows.len() * first_tasks / tasks).next_multiple_of(panel_width());
    if tasks == 1 || out.len() < MIN_PARALLEL_WEIGHTS || middle >= rows.end {
        return dequantise_rows(matrix, rows, out, &mut panels[..panel]);
    }
    let (low, high) = out.split_at_mut((middle - rows.start) * matrix.cols);
    let (low_panels, high_panels) = panels.split_at_mut(first_tasks * panel);
    rayon::join(
        || dequantise_in_tasks(first_tasks, matrix, rows.start..middle, low, low_panels),
        || dequantise_in_tasks(tasks - first_tasks, matrix, middle..rows.end, high, high_panels),
    );
}

/// Dequantises rows `rows` of a matrix, row-major.
pub(crate) fn dequantise(
    matrix: &Tiles,
    rows: Range<usize>,
    out: &mut [f32],
    floats: &mut Pool<f32>,
) {
    let mut panel = floats.take(panel_width() * matrix.cols);
    dequantise_rows(matrix, rows, out, &mut panel);
    floats.give(panel);
}

/// [`dequantise`] by way of `panel`, a tile.
fn dequantise_rows(matrix: &Tiles, rows: Range<usize>, out: &mut [f32], panel: &mut [f32]) {
    let (cols, width) = (matrix.cols, panel_width());
    assert!(
        rows.end <= matrix.rows && out.len() == rows.len() * cols,
        "rows {rows:?} of {}",
        matrix.rows
    );
    let first = rows.start / width * width;
    for (tile, first) in matrix.tiles(first).zip((first..rows.end).step_by(width)) {
        dequantise_tile(Precision::F32, matrix, tile, panel);
        for row in rows.start.max(first)..rows.end.min(first + width) {
            let out = &mut out[(row - rows.start) * cols..][..cols];
            for (out, numbers) in out.iter_mut().zip(panel.chunks_exact(width)) {
                *out = numbers[row - first];
            }
        }
    }
}
