//! Weights as right operands of GEMMs: packed once and cached, or packed on the fly.
//!
//! | operand | when | cost |
//! |---|---|---|
//! | [`Weight::Cached`] | small models; few rows | as much memory again as the weight |
//! | [`Weight::OnTheFly`] | many rows; quantised weights | packs or dequantises for every GEMM |
//!
//! On the fly, columns are packed part by part. All rows use a part while it is in the L2 cache, so
//! main memory is read once. Tasks share the columns.

use std::ops::Range;

use super::gemm::{gemm, parallel_gemm};
use super::mat::{Mat, MatMut};
use super::packed::{PackedOperand, pack, packed_len, panel_width};
use super::quantised::QuantisedView;
use crate::params::Orientation;
use crate::workspace::Pool;
use crate::{ParamId, Params};

/// From this many rows on, packing costs a few percent of the GEMM.
const MIN_ROWS_TO_REPACK: usize = 128;
/// From this many rows on, quantised weights are dequantised into panels. Below, the kernel of
/// [`super::quantised`] dequantises in registers, once for every four rows.
const MIN_ROWS_TO_DEQUANTISE: usize = 8;
/// Floats of a part: what the L2 cache holds beside the rows of `A`.
const L2_FLOATS: usize = 64 * 1024;

/// A weight as the right operand of a GEMM.
#[derive(Clone, Copy)]
pub(crate) enum Weight<'a> {
    Cached(PackedOperand<'a>),
    OnTheFly(Source<'a>),
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

    fn pack(self, panels: &mut [f32]) {
        match self {
            Source::Dense(mat) => pack(mat, panels),
            Source::Quantised(quantised) => quantised.pack(panels),
        }
    }
}

impl<'a> Weight<'a> {
    /// The operand for GEMMs with `rows` rows.
    pub(crate) fn new(
        params: &'a Params,
        id: ParamId,
        orientation: Orientation,
        rows: usize,
    ) -> Weight<'a> {
        if let Some(matrix) = params.quantised(id) {
            assert!(
                matches!(orientation, Orientation::Transposed),
                "a quantised weight has no backward"
            );
            Weight::OnTheFly(Source::Quantised(QuantisedView::new(matrix)))
        } else if params.caches_packed()
            || (rows < MIN_ROWS_TO_REPACK && matches!(orientation, Orientation::Transposed))
        {
            // Large models cache what decoding reuses; backward uses a weight about once a step.
            Weight::Cached(params.packed(id, orientation))
        } else {
            Weight::OnTheFly(Source::Dense(params.right_operand(id, orientation)))
        }
    }

    pub(crate) fn row_count(self) -> usize {
        match self {
            Weight::Cached(packed) => packed.row_count(),
            Weight::OnTheFly(source) => source.row_count(),
        }
    }

    pub(crate) fn col_count(self) -> usize {
        match self {
            Weight::Cached(packed) => packed.col_count(),
            Weight::OnTheFly(source) => source.col_count(),
        }
    }

    /// The rows in `range`.
    pub(crate) fn rows(self, range: Range<usize>) -> Weight<'a> {
        match self {
            Weight::Cached(packed) => Weight::Cached(packed.rows(range)),
            Weight::OnTheFly(Source::Dense(mat)) => {
                Weight::OnTheFly(Source::Dense(mat.rows(range)))
            }
            Weight::OnTheFly(Source::Quantised(_)) => {
                panic!("a quantised weight has no row ranges")
            }
        }
    }

    /// The columns in `range`, which starts at a panel.
    pub(crate) fn cols(self, range: Range<usize>) -> Weight<'a> {
        match self {
            Weight::Cached(packed) => Weight::Cached(packed.cols(range)),
            Weight::OnTheFly(source) => Weight::OnTheFly(source.cols(range)),
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
            Weight::Cached(packed) => parallel_gemm(tasks, dst, accumulate, factor, a, packed),
            Weight::OnTheFly(Source::Quantised(quantised))
                if a.row_count() < MIN_ROWS_TO_DEQUANTISE =>
            {
                assert!(!accumulate, "GEMMs with quantised weights do not accumulate");
                quantised.gemm(tasks, dst, factor, a, floats);
            }
            Weight::OnTheFly(b) => {
                let (rows, cols) = (b.row_count(), b.col_count());
                let width = panel_width();
                let part = ((L2_FLOATS / rows.max(1)).max(1) / width).max(1) * width;
                let part = part.min(cols.div_ceil(tasks).next_multiple_of(width));
                let mut scratch = floats.take(tasks * packed_len(rows, part));
                gemm_on_the_fly(tasks, dst, accumulate, factor, a, b, part, &mut scratch);
                floats.give(scratch);
            }
        }
    }
}

/// Every task computes its own columns, `part` at a time.
fn gemm_on_the_fly(
    tasks: usize,
    mut dst: MatMut<'_>,
    accumulate: bool,
    factor: f32,
    a: Mat<'_>,
    b: Source<'_>,
    part: usize,
    scratch: &mut [f32],
) {
    let (rows, cols) = (b.row_count(), b.col_count());
    let first = tasks.div_ceil(2);
    let middle = (cols * first / tasks).next_multiple_of(panel_width());
    if tasks == 1 || middle >= cols {
        for start in (0..cols).step_by(part) {
            let columns = start..(start + part).min(cols);
            let panels = &mut scratch[..packed_len(rows, columns.len())];
            b.cols(columns.clone()).pack(panels);
            let b = PackedOperand::new(panels, rows, columns.len());
            gemm(dst.cols(columns), accumulate, factor, a, b);
        }
        return;
    }
    let (left, right) = dst.split_cols(middle);
    let (left_scratch, right_scratch) = scratch.split_at_mut(scratch.len() / tasks * first);
    rayon::join(
        || {
            gemm_on_the_fly(
                first,
                left,
                accumulate,
                factor,
                a,
                b.cols(0..middle),
                part,
                left_scratch,
            );
        },
        || {
            gemm_on_the_fly(
                tasks - first,
                right,
                accumulate,
                factor,
                a,
                b.cols(middle..cols),
                part,
                right_scratch,
            );
        },
    );
}
