//! Matrices within slices, of any strides.

use std::ops::Range;

/// A matrix within a slice.
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

    /// Some of the rows.
    pub(crate) fn rows(self, range: Range<usize>) -> Mat<'a> {
        assert!(range.end <= self.rows, "rows {range:?} of {}", self.rows);
        let start = (range.start * self.row_stride).min(self.data.len());
        Mat { data: &self.data[start..], rows: range.len(), ..self }
    }

    /// Some of the columns.
    pub(crate) fn cols(self, range: Range<usize>) -> Mat<'a> {
        self.t().rows(range).t()
    }

    pub(crate) fn row_count(self) -> usize {
        self.rows
    }

    pub(crate) fn col_count(self) -> usize {
        self.cols
    }

    /// Distance of neighbours in a column and in a row.
    pub(crate) fn strides(self) -> (usize, usize) {
        (self.row_stride, self.col_stride)
    }

    /// The slice that starts with element `(row, depth.start)` and is known to hold `rows` rows of `depth`.
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

/// A row-major matrix to write to.
pub(crate) struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// Row-major, without gaps.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize) -> MatMut<'a> {
        MatMut::strided(data, rows, cols, cols)
    }

    /// Row-major, rows `row_stride` apart.
    pub(crate) fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> MatMut<'a> {
        MatMut { data, rows, cols, row_stride }
    }

    /// The rows before `row`, and the others.
    pub(crate) fn split_rows(self, row: usize) -> (MatMut<'a>, MatMut<'a>) {
        assert!(row <= self.rows, "row {row} of {}", self.rows);
        let MatMut { data, rows, cols, row_stride } = self;
        let (top, bottom) = data.split_at_mut((row * row_stride).min(data.len()));
        (MatMut::strided(top, row, cols, row_stride), MatMut::strided(bottom, rows - row, cols, row_stride))
    }

    /// Of a matrix of one row: the columns before `column`, and the others.
    pub(crate) fn split_row(self, column: usize) -> (MatMut<'a>, MatMut<'a>) {
        assert!(self.rows == 1 && column <= self.cols, "column {column} of one row of {}", self.cols);
        let (left, right) = self.data[..self.cols].split_at_mut(column);
        (MatMut::new(left, 1, column), MatMut::new(right, 1, self.cols - column))
    }

    pub(crate) fn row_count(&self) -> usize {
        self.rows
    }

    pub(crate) fn col_count(&self) -> usize {
        self.cols
    }

    /// The slice that starts with element `(row, columns.start)` and holds those columns of `rows` rows, and their distance.
    #[inline(always)]
    pub(crate) fn tile(&mut self, row: usize, rows: usize, columns: Range<usize>) -> (&mut [f32], usize) {
        assert!(
            row + rows <= self.rows && columns.end <= self.cols,
            "{rows} rows from {row}, columns {columns:?}"
        );
        (&mut self.data[row * self.row_stride + columns.start..], self.row_stride)
    }

    /// Some columns of one row.
    pub(crate) fn row_mut(&mut self, row: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(row < self.rows && columns.end <= self.cols, "row {row}, columns {columns:?}");
        &mut self.data[row * self.row_stride..][columns]
    }
}
