//! Weights as right operands of GEMMs: packed once and cached, or packed on the fly.
//!
//! | operand | when | cost |
//! |---|---|---|
//! | [`Weight::Cached`] | small models; decoding | as much memory again as the weight |
//! | [`Weight::OnTheFly`] | large models; quantised weights | packs or dequantises for every GEMM |
//! | [`Weight::QuantisedRows`] | gradients through quantised weights | the same |
//!
//! On the fly, columns are packed part by part. All rows use a part while it is in the L2 cache, so
//! main memory is read once. Tasks share the columns.
//!
//! A quantised matrix is stored by outputs: `out` tiles of `in` columns. Going forward, outputs are
//! the columns of the operand and are cut as above. Going backward, they are its inner dimension:
//!
//! ```text
//! dx[rows, in] = Σ over parts of out:  dy[rows, part] · W[part, in]
//! ```

use std::ops::Range;

use super::gemm::{gemm, parallel_gemm};
use super::lanes::in_lanes;
use super::mat::{Mat, MatMut};
use super::packed::{PackedBuffer, PackedOperand, pack, packed_len, panel_width};
use super::params::{Orientation, Params};
use super::quantised::{MAX_ROWS_OF_PAIRS, QuantisedView, parallel_dequantise};
use super::tiles::Tiles;
use crate::backend::Pass;
use crate::buffer::Pool;
use crate::layout::ParamId;
use crate::precision::Precision;

/// From this many rows on, packing costs a few percent of the GEMM.
const MIN_ROWS_TO_REPACK: usize = 128;
/// From this many rows on, quantised weights are dequantised into panels. Below, the kernel of
/// [`super::quantised`] dequantises in registers, once for every few rows.
fn min_rows_to_dequantise(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 8,
        Precision::Bf16 => MAX_ROWS_OF_PAIRS + 1,
    }
}
/// Lanes of a part: what the L2 cache holds beside the rows of `A`.
const L2_LANES: usize = 64 * 1024;

/// A weight as the right operand of a GEMM.
#[derive(Clone, Copy)]
pub(crate) enum Weight<'a> {
    Cached(PackedOperand<'a>),
    OnTheFly(Source<'a>, Precision),
    /// Rows of a quantised matrix `[out, in]`, not transposed.
    QuantisedRows {
        matrix: &'a Tiles,
        first: usize,
        end: usize,
        precision: Precision,
    },
}

/// A weight before packing.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Dense(Mat<'a>),
    Quantised(QuantisedView<'a>),
}

impl<'a> Source<'a> {
    fn row_count(self) -> usize {
        match self {
            Source::Dense(mat) => mat.row_count(),
            Source::Quantised(quantised) => quantised.row_count(),
        }
    }

    fn col_count(self) -> usize {
        match self {
            Source::Dense(mat) => mat.col_count(),
            Source::Quantised(quantised) => quantised.col_count(),
        }
    }

    fn cols(self, range: Range<usize>) -> Source<'a> {
        match self {
            Source::Dense(mat) => Source::Dense(mat.cols(range)),
            Source::Quantised(quantised) => Source::Quantised(quantised.cols(range)),
        }
    }

    fn pack(self, precision: Precision, panels: &mut [f32]) {
        match self {
            Source::Dense(mat) => pack(precision, mat, panels),
            Source::Quantised(quantised) => quantised.pack(precision, panels),
        }
    }
}

impl<'a> Weight<'a> {
    /// The transposed operand for a forward pass of `rows` rows.
    pub(crate) fn forward(params: &'a Params, id: ParamId, rows: usize, pass: Pass) -> Weight<'a> {
        // Decoding reuses a packed copy many times. Training changes the weight with every step.
        if rows < MIN_ROWS_TO_REPACK && !pass.trains && params.quantised(id).is_none() {
            Weight::Cached(params.packed(id, Orientation::Transposed))
        } else {
            Weight::new(params, id, Orientation::Transposed)
        }
    }

    /// The operand. Packed copies of small models are cached.
    pub(crate) fn new(params: &'a Params, id: ParamId, orientation: Orientation) -> Weight<'a> {
        let precision = params.precision();
        if let Some(matrix) = params.quantised(id) {
            match orientation {
                Orientation::Transposed => {
                    Weight::OnTheFly(Source::Quantised(QuantisedView::new(matrix)), precision)
                }
                Orientation::Normal => {
                    Weight::QuantisedRows { matrix, first: 0, end: matrix.rows, precision }
                }
            }
        } else if params.caches_packed(id) {
            Weight::Cached(params.packed(id, orientation))
        } else {
            Weight::OnTheFly(Source::Dense(params.right_operand(id, orientation)), precision)
        }
    }

    pub(crate) fn row_count(self) -> usize {
        match self {
            Weight::Cached(packed) => packed.row_count(),
            Weight::OnTheFly(source, _) => source.row_count(),
            Weight::QuantisedRows { first, end, .. } => end - first,
        }
    }

    pub(crate) fn col_count(self) -> usize {
        match self {
            Weight::Cached(packed) => packed.col_count(),
            Weight::OnTheFly(source, _) => source.col_count(),
            Weight::QuantisedRows { matrix, .. } => matrix.cols,
        }
    }

    /// The rows in `range`, of a weight that is not transposed.
    pub(crate) fn rows(self, range: Range<usize>) -> Weight<'a> {
        match self {
            Weight::Cached(packed) => Weight::Cached(packed.rows(range)),
            Weight::OnTheFly(Source::Dense(mat), precision) => {
                Weight::OnTheFly(Source::Dense(mat.rows(range)), precision)
            }
            Weight::OnTheFly(Source::Quantised(_), _) => {
                panic!("a transposed quantised weight has no row ranges")
            }
            Weight::QuantisedRows { matrix, first, end, precision } => {
                assert!(first + range.end <= end, "rows {range:?} of {}", end - first);
                let (first, end) = (first + range.start, first + range.end);
                Weight::QuantisedRows { matrix, first, end, precision }
            }
        }
    }

    /// The columns in `range`, which starts at a panel, of a transposed weight.
    pub(crate) fn cols(self, range: Range<usize>) -> Weight<'a> {
        match self {
            Weight::Cached(packed) => Weight::Cached(packed.cols(range)),
            Weight::OnTheFly(source, precision) => Weight::OnTheFly(source.cols(range), precision),
            Weight::QuantisedRows { .. } => panic!("quantised rows have no column ranges"),
        }
    }

    /// `dst = factor · a · self`, or `dst += …`, in `tasks` tasks. Their number changes no bit.
    pub(crate) fn gemm(
        self,
        tasks: usize,
        dst: MatMut<'_>,
        accumulate: bool,
        factor: f32,
        a: Mat<'_>,
        floats: &mut Pool<f32>,
    ) {
        match self {
            Weight::Cached(packed) => {
                parallel_gemm(tasks, dst, accumulate, factor, a, packed, floats);
            }
            Weight::OnTheFly(Source::Quantised(quantised), precision)
                if a.row_count() < min_rows_to_dequantise(precision) =>
            {
                quantised.gemm(tasks, dst, accumulate, factor, precision, a, floats);
            }
            Weight::QuantisedRows { matrix, first, end, precision } => {
                let rows = first..end;
                gemm_by_rows(tasks, dst, accumulate, factor, a, precision, matrix, rows, floats);
            }
            Weight::OnTheFly(b, precision) => {
                let (lanes, cols) = (precision.lanes(b.row_count()), b.col_count());
                let width = panel_width();
                let part = ((L2_LANES / lanes.max(1)).max(1) / width).max(1) * width;
                let part = part.min(cols.div_ceil(tasks).next_multiple_of(width));
                let mut scratch = floats.take(tasks * packed_len(precision, b.row_count(), part));
                in_lanes(precision, tasks, a, floats, |a| {
                    let b = OnTheFly { source: b, precision, part };
                    gemm_on_the_fly(tasks, dst, accumulate, factor, a, b, &mut scratch);
                });
                floats.give(scratch);
            }
        }
    }
}

/// A right operand that is packed `part` columns at a time.
#[derive(Clone, Copy)]
struct OnTheFly<'a> {
    source: Source<'a>,
    precision: Precision,
    part: usize,
}

/// Every task computes its own columns, part by part. `a` is in lanes.
fn gemm_on_the_fly(
    tasks: usize,
    mut dst: MatMut<'_>,
    accumulate: bool,
    factor: f32,
    a: Mat<'_>,
    b: OnTheFly<'_>,
    scratch: &mut [f32],
) {
    let OnTheFly { source, precision, part } = b;
    let (rows, cols) = (source.row_count(), source.col_count());
    let cut = |range| OnTheFly { source: source.cols(range), ..b };
    let first = tasks.div_ceil(2);
    let middle = (cols * first / tasks).next_multiple_of(panel_width());
    if tasks == 1 || middle >= cols {
        for start in (0..cols).step_by(part) {
            let columns = start..(start + part).min(cols);
            let panels = &mut scratch[..packed_len(precision, rows, columns.len())];
            source.cols(columns.clone()).pack(precision, panels);
            let b = PackedOperand::new(precision, panels, rows, columns.len());
            gemm(dst.cols(columns), accumulate, factor, a, b);
        }
        return;
    }
    let (left, right) = dst.split_cols(middle);
    let (left_scratch, right_scratch) = scratch.split_at_mut(scratch.len() / tasks * first);
    rayon::join(
        || gemm_on_the_fly(first, left, accumulate, factor, a, cut(0..middle), left_scratch),
        || {
            let (tasks, b) = (tasks - first, cut(middle..cols));
            gemm_on_the_fly(tasks, right, accumulate, factor, a, b, right_scratch);
        },
    );
}

/// `dst = factor · a · W[rows]`, or `dst += …`. Parts of the rows are dequantised and packed, one
/// after another, each by all tasks.
fn gemm_by_rows(
    tasks: usize,
    mut dst: MatMut<'_>,
    accumulate: bool,
    factor: f32,
    a: Mat<'_>,
    precision: Precision,
    matrix: &Tiles,
    rows: Range<usize>,
    floats: &mut Pool<f32>,
) {
    let (cols, width) = (matrix.cols, panel_width());
    // Whole tiles.
    let part = (L2_LANES / cols.max(1)).next_multiple_of(width);
    let mut dense = floats.take(part.min(rows.len()) * cols);
    let mut first = rows.start;
    while first < rows.end {
        let end = ((first + part) / width * width).min(rows.end);
        let count = end - first;
        let dense = &mut dense[..count * cols];
        parallel_dequantise(tasks, matrix, first..end, dense, floats);
        let panels = PackedBuffer::new(precision, tasks, Mat::new(dense, count, cols), floats);
        let a = a.cols(first - rows.start..end - rows.start);
        let accumulate = accumulate || first > rows.start;
        let dst = dst.cols(0..cols);
        parallel_gemm(tasks, dst, accumulate, factor, a, panels.as_operand(), floats);
        panels.recycle(floats);
        first = end;
    }
    floats.give(dense);
}
