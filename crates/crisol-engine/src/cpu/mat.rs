//! Strided views of matrices within slices.

use std::marker::PhantomData;
use std::ops::Range;

use super::gemm::{CACHE_LINE, prefetch_address};

/// A matrix view with any strides.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// Row-major, without gaps.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize) -> Mat<'a> {
        Mat::strided(data, rows, cols, cols)
    }

    /// Row-major, rows `row_stride` apart.
    pub(crate) fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Mat<'a> {
        Mat { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Mat<'a> {
        Mat {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// The rows in `range`.
    pub(crate) fn rows(self, range: Range<usize>) -> Mat<'a> {
        assert!(range.end <= self.rows, "rows {range:?} of {}", self.rows);
        let start = (range.start * self.row_stride).min(self.data.len());
        Mat { data: &self.data[start..], rows: range.len(), ..self }
    }

    /// The columns in `range`.
    pub(crate) fn cols(self, range: Range<usize>) -> Mat<'a> {
        self.t().rows(range).t()
    }

    pub(crate) fn row_count(self) -> usize {
        self.rows
    }

    pub(crate) fn col_count(self) -> usize {
        self.cols
    }

    /// `(row_stride, col_stride)`.
    pub(crate) fn strides(self) -> (usize, usize) {
        (self.row_stride, self.col_stride)
    }

    /// The slice from element `(row, depth.start)` to the last one of `rows` rows of `depth`.
    #[inline(always)]
    pub(crate) fn tile(self, row: usize, rows: usize, depth: Range<usize>) -> &'a [f32] {
        assert!(
            row + rows <= self.rows && depth.end <= self.cols,
            "{rows} rows from {row}, columns {depth:?}"
        );
        let at = |row: usize, col: usize| row * self.row_stride + col * self.col_stride;
        if rows == 0 || depth.is_empty() {
            return &[];
        }
        &self.data[at(row, depth.start)..=at(row + rows - 1, depth.end - 1)]
    }
}

/// Prefetches rows of a row-major matrix; those beyond its end do no harm.
#[inline(always)]
pub(super) fn prefetch_rows(data: *const f32, row_stride: usize, cols: usize, rows: Range<usize>) {
    for row in rows {
        for line in (0..cols).step_by(CACHE_LINE) {
            prefetch_address(data.wrapping_add(row * row_stride + line));
        }
    }
}

/// A mutable row-major matrix view. Tasks may own different columns of one row, so it is a pointer
/// and hands out runs of its own columns only.
pub(crate) struct MatMut<'a> {
    data: *mut f32,
    rows: usize,
    cols: usize,
    row_stride: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `MatMut` borrows its elements exclusively, as `&mut [f32]` does, which is `Send`.
#[allow(unsafe_code)]
unsafe impl Send for MatMut<'_> {}

impl<'a> MatMut<'a> {
    /// Row-major, without gaps.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize) -> MatMut<'a> {
        MatMut::strided(data, rows, cols, cols)
    }

    /// Row-major, rows `row_stride` apart.
    pub(crate) fn strided(
        data: &'a mut [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> MatMut<'a> {
        assert!(cols <= row_stride, "{cols} columns with row stride {row_stride}");
        let needed = if rows == 0 { 0 } else { (rows - 1) * row_stride + cols };
        assert!(
            needed <= data.len(),
            "{rows}×{cols} with row stride {row_stride} in {} floats",
            data.len()
        );
        MatMut { data: data.as_mut_ptr(), rows, cols, row_stride, borrowed: PhantomData }
    }

    /// Splits before `row`.
    pub(crate) fn split_rows(self, row: usize) -> (MatMut<'a>, MatMut<'a>) {
        assert!(row <= self.rows, "row {row} of {}", self.rows);
        // `wrapping_add`, because without rows left the pointer may lie outside of the borrow.
        let rest = self.data.wrapping_add(row * self.row_stride);
        (MatMut { rows: row, ..self }, MatMut { data: rest, rows: self.rows - row, ..self })
    }

    /// Splits before `column`.
    pub(crate) fn split_cols(self, column: usize) -> (MatMut<'a>, MatMut<'a>) {
        assert!(column <= self.cols, "column {column} of {}", self.cols);
        let rest = self.data.wrapping_add(column);
        (MatMut { cols: column, ..self }, MatMut { data: rest, cols: self.cols - column, ..self })
    }

    /// The columns in `range`, reborrowed.
    pub(crate) fn cols(&mut self, range: Range<usize>) -> MatMut<'_> {
        assert!(
            range.start <= range.end && range.end <= self.cols,
            "columns {range:?} of {}",
            self.cols
        );
        let data = self.data.wrapping_add(range.start);
        MatMut {
            data,
            rows: self.rows,
            cols: range.len(),
            row_stride: self.row_stride,
            borrowed: PhantomData,
        }
    }

    /// Prefetches rows.
    #[inline(always)]
    pub(crate) fn prefetch(&self, rows: Range<usize>) {
        prefetch_rows(self.data, self.row_stride, self.cols, rows);
    }

    pub(crate) fn row_count(&self) -> usize {
        self.rows
    }

    pub(crate) fn col_count(&self) -> usize {
        self.cols
    }

    /// The given columns of one row.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, row: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(
            row < self.rows && columns.start <= columns.end && columns.end <= self.cols,
            "row {row}, columns {columns:?}"
        );
        // SAFETY: element `(row, column)` is at `row · row_stride + column`, within the borrowed
        // slice for `row < rows` and `column < cols`: checked by `strided`, kept by every split. No
        // other `MatMut` owns it.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts_mut(
                self.data.add(row * self.row_stride + columns.start),
                columns.len(),
            )
        }
    }
}
