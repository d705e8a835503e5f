//! Matrices within slices, of any strides.

use std::marker::PhantomData;
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

/// A row-major matrix to write to. Tasks may hold different columns of the same rows, so it is a pointer, and only whole
/// runs of its own columns are handed out.
pub(crate) struct MatMut<'a> {
    data: *mut f32,
    rows: usize,
    cols: usize,
    row_stride: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `MatMut` is an exclusive borrow of its elements, as a `&mut [f32]` is, which may go to another thread.
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
        assert!(cols <= row_stride, "{cols} columns in rows {row_stride} apart");
        let needed = if rows == 0 { 0 } else { (rows - 1) * row_stride + cols };
        assert!(
            needed <= data.len(),
            "{rows}×{cols}, {row_stride} apart, in {} numbers",
            data.len()
        );
        MatMut { data: data.as_mut_ptr(), rows, cols, row_stride, borrowed: PhantomData }
    }

    /// The rows before `row`, and the others.
    pub(crate) fn split_rows(self, row: usize) -> (MatMut<'a>, MatMut<'a>) {
        assert!(row <= self.rows, "row {row} of {}", self.rows);
        // No element, and so no pointer that must be within the borrow, where no rows are left.
        let rest = self.data.wrapping_add(row * self.row_stride);
        (MatMut { rows: row, ..self }, MatMut { data: rest, rows: self.rows - row, ..self })
    }

    /// The columns before `column`, and the others.
    pub(crate) fn split_cols(self, column: usize) -> (MatMut<'a>, MatMut<'a>) {
        assert!(column <= self.cols, "column {column} of {}", self.cols);
        let rest = self.data.wrapping_add(column);
        (MatMut { cols: column, ..self }, MatMut { data: rest, cols: self.cols - column, ..self })
    }

    /// Some of the columns, for a while.
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

    pub(crate) fn row_count(&self) -> usize {
        self.rows
    }

    pub(crate) fn col_count(&self) -> usize {
        self.cols
    }

    /// Some columns of one row.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, row: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(
            row < self.rows && columns.start <= columns.end && columns.end <= self.cols,
            "row {row}, columns {columns:?}"
        );
        // SAFETY: the elements `(row, column)` with `row < rows` and `column < cols` lie at `row · row_stride + column` within
        // the slice that is borrowed (checked when it was, and kept by every cut), and no other `MatMut` has them.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts_mut(
                self.data.add(row * self.row_stride + columns.start),
                columns.len(),
            )
        }
    }
}
