//! Weights as right sides of products: laid out beforehand and kept, laid out by parts right before use, or as they are stored.
//!
//! A layout that is kept takes as much memory as the weight. Where that is too much, a part of the columns is laid out and used
//! by all rows while it is in the second-level cache, so that memory only sees the weight itself. Tasks then work on different
//! columns, each laying out its own.

use std::ops::Range;

use super::mat::{Mat, MatMut};
use super::packed::{Packed, pack, packed_len, panel_width, product, shared_product};
use super::quantised::QuantisedView;
use crate::params::Orientation;
use crate::workspace::Pool;
use crate::{ParamId, Params};

/// With so many rows, laying a weight out anew is a few hundredths of a product with it.
const ROWS_TO_LAY_OUT_FOR: usize = 128;
/// With fewer rows than this a stored matrix is better widened anew for every four of them.
const FEW_ROWS: usize = 8;
/// Numbers of a part: what a second-level cache holds beside the left side that passes by.
const PART: usize = 64 * 1024;

/// See the module's text.
#[derive(Clone, Copy)]
pub(crate) enum Weight<'a> {
    Kept(Packed<'a>),
    ByParts(Parts<'a>),
}

/// What parts are laid out of.
#[derive(Clone, Copy)]
pub(crate) enum Parts<'a> {
    Mat(Mat<'a>),
    Quantised(QuantisedView<'a>),
}

impl<'a> Parts<'a> {
    fn row_count(self) -> usize {
        match self {
            Parts::Mat(mat) => mat.row_count(),
            Parts::Quantised(stored) => stored.row_count(),
        }
    }

    fn col_count(self) -> usize {
        match self {
            Parts::Mat(mat) => mat.col_count(),
            Parts::Quantised(stored) => stored.col_count(),
        }
    }

    fn cols(self, range: Range<usize>) -> Parts<'a> {
        match self {
            Parts::Mat(mat) => Parts::Mat(mat.cols(range)),
            Parts::Quantised(stored) => Parts::Quantised(stored.cols(range)),
        }
    }

    fn pack(self, panels: &mut [f32]) {
        match self {
            Parts::Mat(mat) => pack(mat, panels),
            Parts::Quantised(stored) => stored.pack(panels),
        }
    }
}

impl<'a> Weight<'a> {
    /// For products with `rows` rows on the left.
    pub(crate) fn new(
        params: &'a Params,
        id: ParamId,
        orientation: Orientation,
        rows: usize,
    ) -> Weight<'a> {
        if let Some(matrix) = params.stored(id) {
            assert!(
                matches!(orientation, Orientation::Transposed),
                "a weight for inference has no backward"
            );
            Weight::ByParts(Parts::Quantised(QuantisedView::new(matrix)))
        } else if params.keeps_packed()
            || (rows < ROWS_TO_LAY_OUT_FOR && matches!(orientation, Orientation::Transposed))
        {
            // Of large models what decodes with a few rows again and again; going backward a weight is used about once a step.
            Weight::Kept(params.packed(id, orientation))
        } else {
            Weight::ByParts(Parts::Mat(params.right_side(id, orientation)))
        }
    }

    pub(crate) fn row_count(self) -> usize {
        match self {
            Weight::Kept(packed) => packed.row_count(),
            Weight::ByParts(parts) => parts.row_count(),
        }
    }

    pub(crate) fn col_count(self) -> usize {
        match self {
            Weight::Kept(packed) => packed.col_count(),
            Weight::ByParts(parts) => parts.col_count(),
        }
    }

    /// Some of the rows.
    pub(crate) fn rows(self, range: Range<usize>) -> Weight<'a> {
        match self {
            Weight::Kept(packed) => Weight::Kept(packed.rows(range)),
            Weight::ByParts(Parts::Mat(mat)) => Weight::ByParts(Parts::Mat(mat.rows(range))),
            Weight::ByParts(Parts::Quantised(_)) => panic!("rows of a stored weight's transpose"),
        }
    }

    /// Some of the columns, from the start of a panel.
    pub(crate) fn cols(self, range: Range<usize>) -> Weight<'a> {
        match self {
            Weight::Kept(packed) => Weight::Kept(packed.cols(range)),
            Weight::ByParts(parts) => Weight::ByParts(parts.cols(range)),
        }
    }

    /// `dst = factor · a · self`, or `dst += …`, in so many tasks, whose number changes no bit.
    pub(crate) fn product(
        self,
        tasks: usize,
        dst: MatMut<'_>,
        accumulate: bool,
        factor: f32,
        a: Mat<'_>,
        floats: &mut Pool<f32>,
    ) {
        match self {
            Weight::Kept(packed) => shared_product(tasks, dst, accumulate, factor, a, packed),
            Weight::ByParts(Parts::Quantised(stored)) if a.row_count() < FEW_ROWS => {
                assert!(!accumulate, "products with stored weights are not added to anything");
                stored.product(tasks, dst, factor, a, floats);
            }
            Weight::ByParts(b) => {
                let (rows, cols) = (b.row_count(), b.col_count());
                let width = panel_width();
                let part = ((PART / rows.max(1)).max(1) / width).max(1) * width;
                let part = part.min(cols.div_ceil(tasks).next_multiple_of(width));
                let mut rooms = floats.take(tasks * packed_len(rows, part));
                by_parts(tasks, dst, accumulate, factor, a, b, part, &mut rooms);
                floats.give(rooms);
            }
        }
    }
}

/// Every task computes some of the columns, `part` at a time.
fn by_parts(
    tasks: usize,
    mut dst: MatMut<'_>,
    accumulate: bool,
    factor: f32,
    a: Mat<'_>,
    b: Parts<'_>,
    part: usize,
    rooms: &mut [f32],
) {
    let (rows, cols) = (b.row_count(), b.col_count());
    let first = tasks.div_ceil(2);
    let middle = (cols * first / tasks).next_multiple_of(panel_width());
    if tasks == 1 || middle >= cols {
        for start in (0..cols).step_by(part) {
            let columns = start..(start + part).min(cols);
            let room = &mut rooms[..packed_len(rows, columns.len())];
            b.cols(columns.clone()).pack(room);
            let b = Packed::new(room, rows, columns.len());
            product(dst.cols(columns), accumulate, factor, a, b);
        }
        return;
    }
    let (left, right) = dst.split_cols(middle);
    let (left_rooms, right_rooms) = rooms.split_at_mut(rooms.len() / tasks * first);
    rayon::join(
        || by_parts(first, left, accumulate, factor, a, b.cols(0..middle), part, left_rooms),
        || {
            by_parts(
                tasks - first,
                right,
                accumulate,
                factor,
                a,
                b.cols(middle..cols),
                part,
                right_rooms,
            )
        },
    );
}
