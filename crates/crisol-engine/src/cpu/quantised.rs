//! GEMM with matrices in half precision or quantised.
//!
//! Few rows: tiles are dequantised in registers, with `Σ scale · code · x` computed as
//! `scale · Σ code · x`. In bf16, x is rounded; codes are exact, and scales stay f32. Many rows:
//! parts of the matrix are dequantised into the panels of [`super::packed`] and used from cache
//! ([`super::weights`]).

use std::marker::PhantomData;
use std::ops::Range;

use pulp::Simd;

use super::formats::{BlockFormat, Lanes, UNIT_COLUMNS, with_blocks};
use super::gemm::{Numbers, Product, prefetch};
use super::gemm_bf16::{PairKernel, Pairs, with_pairs};
use super::lanes::{clear_second, pair, rounded};
use super::mat::{Mat, MatMut};
use super::math::{sum_lanes, vectorised};
use super::packed::{MAX_NR, packed_len, panel_width};
use super::tiles::Tiles;
use crate::buffer::{Buffer, Pool};
use crate::precision::Precision;

/// Columns of half a unit, which share a scale and an offset.
const HALF_UNIT: usize = UNIT_COLUMNS / 2;
/// Most rows that are multiplied so in bf16: six passes of eight. In f32, passes are of four.
pub(super) const MAX_ROWS_OF_PAIRS: usize = 48;
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

    /// `dst = factor · a · self` for few rows, or `dst += …`, in `tasks` tasks.
    pub(crate) fn gemm(
        self,
        tasks: usize,
        dst: MatMut<'_>,
        accumulate: bool,
        factor: f32,
        precision: Precision,
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
        let left = PaddedLeft::new(precision, a, floats);
        let view = left.view(precision);
        with_blocks!(self.matrix.format, F => {
            gemm_in_tasks::<F>(tasks, dst, accumulate, factor, view, self);
        });
        floats.give(left.numbers);
    }
}

/// `A` in memory from a pool: each row in lanes, padded to whole units, then its sums over half
/// units.
struct PaddedLeft {
    numbers: Buffer<f32>,
    padded: usize,
}

impl PaddedLeft {
    fn new(precision: Precision, a: Mat<'_>, floats: &mut Pool<f32>) -> PaddedLeft {
        let (rows, cols) = (a.row_count(), a.col_count());
        let padded = cols.next_multiple_of(UNIT_COLUMNS);
        let stride = stride(precision, padded);
        let mut numbers = floats.take_zeros(rows * stride);
        for (row, numbers) in numbers.chunks_exact_mut(stride.max(1)).enumerate() {
            let row = a.tile(row, 1, 0..cols);
            let (lanes, sums) = numbers.split_at_mut(precision.lanes(padded));
            match precision {
                Precision::F32 => {
                    lanes[..cols].copy_from_slice(row);
                    for (sum, numbers) in sums.iter_mut().zip(lanes.chunks_exact(HALF_UNIT)) {
                        *sum = numbers.iter().sum();
                    }
                }
                Precision::Bf16 => pair_alternate(row, lanes, sums),
            }
        }
        PaddedLeft { numbers, padded }
    }

    fn view(&self, precision: Precision) -> LeftView<'_> {
        LeftView { numbers: &self.numbers, precision, padded: self.padded }
    }
}

/// Floats from row to row of a [`PaddedLeft`].
fn stride(precision: Precision, padded: usize) -> usize {
    precision.lanes(padded) + padded / HALF_UNIT
}

vectorised! {
    /// Lanes of columns 0 and 2, 1 and 3 of every four, as [`BlockFormat::code_pairs`] has them,
    /// and the sums of the rounded numbers over half units.
    fn pair_alternate<'a, S>(row: &'a [f32], lanes: &'a mut [f32], sums: &'a mut [f32]) {
        let halves = row.chunks(HALF_UNIT).zip(lanes.as_chunks_mut::<{ HALF_UNIT / 2 }>().0);
        for ((part, lanes), sum) in halves.zip(sums) {
            let mut numbers = [0.0; HALF_UNIT];
            numbers[..part.len()].copy_from_slice(part);
            for (lanes, four) in lanes.as_chunks_mut::<2>().0.iter_mut().zip(numbers.as_chunks::<4>().0) {
                *lanes = [pair(four[0], four[2]), pair(four[1], four[3])];
            }
            *sum = sum_lanes(numbers.map(rounded));
        }
    }
}

/// A [`PaddedLeft`], or some of its rows.
#[derive(Clone, Copy)]
struct LeftView<'a> {
    numbers: &'a [f32],
    precision: Precision,
    padded: usize,
}

impl<'a> LeftView<'a> {
    fn stride(self) -> usize {
        stride(self.precision, self.padded)
    }

    /// The rows from `row` on.
    fn starting_at(self, row: usize) -> LeftView<'a> {
        LeftView { numbers: &self.numbers[row * self.stride()..], ..self }
    }

    /// Sums of row `row` over the halves of the unit that starts at column `first`.
    #[inline(always)]
    fn sums(self, row: usize, first: usize) -> &'a [f32; 2] {
        let start = row * self.stride() + self.precision.lanes(self.padded) + first / HALF_UNIT;
        self.numbers[start..].first_chunk().expect("two sums for each unit")
    }
}

/// Every task computes its own columns.
fn gemm_in_tasks<F: BlockFormat>(
    tasks: usize,
    dst: MatMut<'_>,
    accumulate: bool,
    factor: f32,
    left: LeftView<'_>,
    right: QuantisedView<'_>,
) {
    let cols = dst.col_count();
    let first = tasks.div_ceil(2);
    let middle = (cols * first / tasks).next_multiple_of(panel_width());
    if tasks == 1 || cols * left.padded < 2 * MIN_PARALLEL_WEIGHTS || middle >= cols {
        let blocks = PhantomData::<F>;
        let kernel = QuantisedGemm { dst, accumulate, factor, left, right, blocks };
        return match left.precision {
            Precision::F32 => pulp::Arch::new().dispatch(kernel),
            Precision::Bf16 => with_pairs(kernel),
        };
    }
    let (low, high) = dst.split_cols(middle);
    let of = |range| right.cols(range);
    rayon::join(
        || gemm_in_tasks::<F>(first, low, accumulate, factor, left, of(0..middle)),
        || gemm_in_tasks::<F>(tasks - first, high, accumulate, factor, left, of(middle..cols)),
    );
}

/// How codes become lanes.
trait CodeLanes<S: Simd>: Product<S> {
    /// Columns of a lane.
    const COLUMNS: usize;
    /// What lanes add to every code.
    fn bias<F: BlockFormat>() -> f32;
    /// Lanes of four columns: `4 / COLUMNS` of them.
    fn of_codes<F: BlockFormat, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4];
    /// Writes four columns to the next rows of a panel, if it has as many.
    fn write(simd: S, four: [Lanes<S>; 4], rows: &mut PanelRows<'_, S>);
}

/// The rows of a panel.
type PanelRows<'a, S> = std::slice::ChunksExactMut<'a, <S as Simd>::f32s>;

impl<S: Simd> CodeLanes<S> for Numbers {
    const COLUMNS: usize = 1;

    #[inline(always)]
    fn bias<F: BlockFormat>() -> f32 {
        0.0
    }

    #[inline(always)]
    fn of_codes<F: BlockFormat, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4] {
        F::codes::<S, HALF>(simd, unit, quarter)
    }

    #[inline(always)]
    fn write(_: S, four: [Lanes<S>; 4], rows: &mut PanelRows<'_, S>) {
        for numbers in &four {
            if let Some(row) = rows.next() {
                row.copy_from_slice(numbers);
            }
        }
    }
}

/// Lanes are pairs, multiplied by `P`.
struct OfPairs<P>(PhantomData<P>);

impl<S: Simd, P: Pairs<S>> Product<S> for OfPairs<P> {
    #[allow(unsafe_code)]
    #[inline(always)]
    unsafe fn rank_one_update<const MR: usize>(
        simd: S,
        a: &[f32],
        at: impl Fn(usize) -> usize,
        panel_row: &[S::f32s],
        sums: &mut [[S::f32s; 2]; MR],
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe { P::rank_one_update(simd, a, at, panel_row, sums) }
    }
}

impl<S: Simd, P: Pairs<S>> CodeLanes<S> for OfPairs<P> {
    const COLUMNS: usize = 2;

    #[inline(always)]
    fn bias<F: BlockFormat>() -> f32 {
        F::PAIR_BIAS
    }

    #[inline(always)]
    fn of_codes<F: BlockFormat, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4] {
        let [even, odd] = F::code_pairs::<S, P, HALF>(simd, unit, quarter);
        [even, odd, even, odd]
    }

    #[inline(always)]
    fn write(simd: S, four: [Lanes<S>; 4], rows: &mut PanelRows<'_, S>) {
        for [first, second] in four.as_chunks::<2>().0 {
            if let Some(row) = rows.next() {
                row[0] = P::round(simd, first[0], second[0]);
                row[1] = P::round(simd, first[1], second[1]);
            }
        }
    }
}

struct QuantisedGemm<'a, F> {
    dst: MatMut<'a>,
    accumulate: bool,
    factor: f32,
    left: LeftView<'a>,
    right: QuantisedView<'a>,
    blocks: PhantomData<F>,
}

impl<F: BlockFormat> pulp::WithSimd for QuantisedGemm<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Sums, totals and four codes: 8 + 8 + 8 registers.
        self.multiply::<S, Numbers, 4>(simd);
    }
}

impl<F: BlockFormat> PairKernel for QuantisedGemm<'_, F> {
    #[inline(always)]
    fn run<S: Simd, P: Pairs<S>>(self, simd: S) {
        // With 16 registers of sums, totals are in memory between units. With six rows they would
        // stay in registers, but a tile would be dequantised more often, which is slower.
        self.multiply::<S, OfPairs<P>, 8>(simd);
    }
}

impl<F: BlockFormat> QuantisedGemm<'_, F> {
    /// `MR` rows of `A` share the dequantisation of a tile.
    #[inline(always)]
    fn multiply<S: Simd, P: CodeLanes<S>, const MR: usize>(mut self, simd: S) {
        let (rows, cols) = (self.dst.row_count(), self.dst.col_count());
        let mut tiles = self.right.matrix.tiles(self.right.first).peekable();
        let width = 2 * S::F32_LANES;
        for first in (0..cols).step_by(width) {
            let Some(tile) = tiles.next() else { break };
            let (tile, _) = S::as_simd_u32s(tile);
            let next = tiles.peek().map_or(&[][..], |next| S::as_simd_u32s(next).0);
            let columns = first..(first + width).min(cols);
            let mut row = 0;
            while row < rows {
                let left = self.left.starting_at(row);
                let columns = columns.clone();
                row += match rows - row {
                    rest if rest >= MR => {
                        let sums = tile_gemm::<F, S, P, MR>(simd, tile, next, left);
                        self.write_rows::<S>(row, columns, &sums)
                    }
                    4.. => {
                        let sums = tile_gemm::<F, S, P, 4>(simd, tile, next, left);
                        self.write_rows::<S>(row, columns, &sums)
                    }
                    2.. => {
                        let sums = tile_gemm::<F, S, P, 2>(simd, tile, next, left);
                        self.write_rows::<S>(row, columns, &sums)
                    }
                    _ => {
                        let sums = tile_gemm::<F, S, P, 1>(simd, tile, next, left);
                        self.write_rows::<S>(row, columns, &sums)
                    }
                };
            }
        }
    }

    /// Writes some rows from `top` on, and says how many.
    #[inline(always)]
    fn write_rows<S: Simd>(
        &mut self,
        top: usize,
        columns: Range<usize>,
        rows: &[Lanes<S>],
    ) -> usize {
        for (row, sums) in (top..).zip(rows) {
            let mut line = [0.0; MAX_NR];
            S::as_mut_simd_f32s(&mut line).0[..2].copy_from_slice(sums);
            for (out, sum) in self.dst.row_mut(row, columns.clone()).iter_mut().zip(line) {
                let start = if self.accumulate { *out } else { 0.0 };
                *out = start + self.factor * sum;
            }
        }
        rows.len()
    }
}

/// The first `N` rows of `A` times a tile. Prefetches the next one.
#[inline(always)]
fn tile_gemm<F: BlockFormat, S: Simd, P: CodeLanes<S>, const N: usize>(
    simd: S,
    tile: &[S::u32s],
    next: &[S::u32s],
    left: LeftView<'_>,
) -> [Lanes<S>; N] {
    let mut next = next.iter();
    let (lanes, stride) = (UNIT_COLUMNS / P::COLUMNS, left.stride());
    let zero = [[simd.splat_f32s(0.0); 2]; N];
    let mut total = zero;
    let mut first = 0;
    for block in tile.chunks_exact(F::BLOCK) {
        let (header, units) = block.split_at(F::HEADER);
        let header = F::header(simd, header);
        for unit in units.chunks_exact(F::UNIT) {
            next.by_ref().take(F::UNIT).for_each(prefetch);
            // Each row's lanes of this unit, `stride` apart, and their sums.
            let numbers = &left.numbers[first / P::COLUMNS..];
            assert!((N - 1) * stride + lanes <= numbers.len(), "rows are filled to whole units");
            let row_sums: [&[f32; 2]; N] = std::array::from_fn(|row| left.sums(row, first));
            let mut sums = if F::SCALED { zero } else { total };
            accumulate_half::<F, S, P, N, 0>(simd, unit, numbers, stride, &mut sums);
            if F::SCALES_PER_HALF {
                accumulate_scaled::<F, S, P, N>(
                    simd, &header, unit, 0, row_sums, &sums, &mut total,
                );
                sums = zero;
            }
            accumulate_half::<F, S, P, N, 1>(simd, unit, numbers, stride, &mut sums);
            if F::SCALED {
                accumulate_scaled::<F, S, P, N>(
                    simd, &header, unit, 1, row_sums, &sums, &mut total,
                );
            } else {
                total = sums;
            }
            first += UNIT_COLUMNS;
        }
    }
    total
}

/// Adds half a unit's codes times each row's numbers, which are within `numbers`.
#[inline(always)]
fn accumulate_half<F: BlockFormat, S: Simd, P: CodeLanes<S>, const N: usize, const HALF: usize>(
    simd: S,
    unit: &[S::u32s],
    numbers: &[f32],
    stride: usize,
    sums: &mut [Lanes<S>; N],
) {
    for quarter in 0..HALF_UNIT / 4 {
        let codes = P::of_codes::<F, HALF>(simd, unit, quarter);
        let first = (HALF_UNIT * HALF + 4 * quarter) / P::COLUMNS;
        for (i, codes) in codes[..4 / P::COLUMNS].iter().enumerate() {
            // SAFETY: `tile_gemm` asserted that the whole unit of the last row is within `numbers`.
            #[allow(unsafe_code)]
            unsafe {
                P::rank_one_update::<N>(simd, numbers, |row| row * stride + first + i, codes, sums);
            }
        }
    }
}

/// Scale and offset of half a unit whose lanes hold more than the codes.
#[inline(always)]
fn scales_of_lanes<F: BlockFormat, S: Simd, P: CodeLanes<S>>(
    simd: S,
    header: &[Lanes<S>; 2],
    unit: &[S::u32s],
    half: usize,
) -> [Lanes<S>; 2] {
    let [scale, mut offset] = F::scales(simd, header, unit, half);
    if P::bias::<F>() != 0.0 {
        for (offset, scale) in offset.iter_mut().zip(scale) {
            *offset = simd.mul_add_e_f32s(simd.splat_f32s(-P::bias::<F>()), scale, *offset);
        }
    }
    [scale, offset]
}

/// Adds `scale · sums + offset · row_sums` of half a unit, or of a whole one.
#[inline(always)]
fn add_scaled<F: BlockFormat, S: Simd>(
    simd: S,
    [scale, offset]: &[Lanes<S>; 2],
    half: usize,
    row_sums: &[f32; 2],
    sums: &Lanes<S>,
    total: &mut Lanes<S>,
) {
    let x = if F::SCALES_PER_HALF { row_sums[half] } else { row_sums[0] + row_sums[1] };
    let x = simd.splat_f32s(x);
    for i in 0..2 {
        total[i] = simd.mul_add_e_f32s(scale[i], sums[i], total[i]);
        if F::OFFSET {
            total[i] = simd.mul_add_e_f32s(offset[i], x, total[i]);
        }
    }
}

/// [`add_scaled`] of `N` rows.
#[inline(always)]
fn accumulate_scaled<F: BlockFormat, S: Simd, P: CodeLanes<S>, const N: usize>(
    simd: S,
    header: &[Lanes<S>; 2],
    unit: &[S::u32s],
    half: usize,
    row_sums: [&[f32; 2]; N],
    sums: &[Lanes<S>; N],
    total: &mut [Lanes<S>; N],
) {
    let scales = scales_of_lanes::<F, S, P>(simd, header, unit, half);
    for ((total, sums), row_sums) in total.iter_mut().zip(sums).zip(row_sums) {
        add_scaled::<F, S>(simd, &scales, half, row_sums, sums, total);
    }
}

/// Dequantises a tile into a panel (see [`super::packed`]).
struct Dequantise<'a, F> {
    tile: &'a [u32],
    panel: &'a mut [f32],
    blocks: PhantomData<F>,
}

impl<F: BlockFormat> pulp::WithSimd for Dequantise<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.dequantise::<S, Numbers>(simd);
    }
}

impl<F: BlockFormat> PairKernel for Dequantise<'_, F> {
    #[inline(always)]
    fn run<S: Simd, P: Pairs<S>>(self, simd: S) {
        self.dequantise::<S, OfPairs<P>>(simd);
    }
}

impl<F: BlockFormat> Dequantise<'_, F> {
    #[inline(always)]
    fn dequantise<S: Simd, P: CodeLanes<S>>(self, simd: S) {
        let (tile, _) = S::as_simd_u32s(self.tile);
        let mut rows = S::as_mut_simd_f32s(self.panel).0.chunks_exact_mut(2);
        for block in tile.chunks_exact(F::BLOCK) {
            let (header, units) = block.split_at(F::HEADER);
            let header = F::header(simd, header);
            for unit in units.chunks_exact(F::UNIT) {
                dequantise_half::<F, S, P, 0>(simd, &header, unit, &mut rows);
                dequantise_half::<F, S, P, 1>(simd, &header, unit, &mut rows);
            }
        }
    }
}

/// Dequantises half a unit into the panel's next rows; the last unit may have fewer.
#[inline(always)]
fn dequantise_half<F: BlockFormat, S: Simd, P: CodeLanes<S>, const HALF: usize>(
    simd: S,
    header: &[Lanes<S>; 2],
    unit: &[S::u32s],
    rows: &mut PanelRows<'_, S>,
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
        }
        P::write(simd, four, rows);
    }
}

fn dequantise_tile(precision: Precision, matrix: &Tiles, tile: &[u32], panel: &mut [f32]) {
    with_blocks!(matrix.format, F => {
        let kernel = Dequantise::<F> { tile, panel, blocks: PhantomData };
        match precision {
            Precision::F32 => pulp::Arch::new().dispatch(kernel),
            Precision::Bf16 => with_pairs(kernel),
        }
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
