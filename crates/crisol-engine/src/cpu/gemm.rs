//! Matrix products of any strides, single-threaded, by the `gemm` crate.

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

    pub(crate) fn row_count(&self) -> usize {
        self.rows
    }

    pub(crate) fn col_count(&self) -> usize {
        self.cols
    }

    /// Some columns of one row.
    pub(crate) fn row_mut(&mut self, row: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(row < self.rows && columns.end <= self.cols, "row {row}, columns {columns:?}");
        &mut self.data[row * self.row_stride..][columns]
    }
}

/// `dst = factor · a · b`, or `dst += factor · a · b`.
pub(crate) fn gemm(dst: MatMut<'_>, accumulate: bool, factor: f32, a: Mat<'_>, b: Mat<'_>) {
    let MatMut { data, rows, cols, row_stride } = dst;
    assert!(
        a.rows == rows && b.cols == cols && a.cols == b.rows,
        "product of {}×{} and {}×{} into {rows}×{cols}",
        a.rows,
        a.cols,
        b.rows,
        b.cols
    );
    if rows == 0 || cols == 0 {
        return;
    }
    if a.cols == 0 {
        if !accumulate {
            data.chunks_mut(row_stride).take(rows).for_each(|row| row[..cols].fill(0.0));
        }
        return;
    }
    assert!(cols <= row_stride || rows == 1, "rows of the result overlap");
    assert!((rows - 1) * row_stride + cols <= data.len(), "the result lies within its slice");
    for mat in [a, b] {
        let last = (mat.rows - 1) * mat.row_stride + (mat.cols - 1) * mat.col_stride;
        assert!(last < mat.data.len(), "an operand lies within its slice");
    }
    #[cfg(test)]
    let _packing = crate::steady_state::allocating_on_purpose();
    // SAFETY: the assertions above keep every element of the three matrices within their slices, the borrows
    // make the result disjoint from the operands, and distinct elements of the result are distinct in memory.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            rows,
            cols,
            a.cols,
            data.as_mut_ptr(),
            1,
            row_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All combinations of transposes, gaps between rows and accumulation, over edges of the microkernels.
    #[test]
    fn equals_a_triple_loop() {
        let number = |i: usize| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0;
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (17, 33, 2), (1, 40, 9), (40, 1, 9), (31, 65, 130), (2, 3, 0)]
        {
            for case in 0..8 {
                let (ta, tb, accumulate) = (case & 1 == 1, case & 2 == 2, case & 4 == 4);
                let gap = 3;
                let side =
                    |rows: usize, cols: usize| (0..rows * (cols + gap)).map(number).collect::<Vec<_>>();
                let (a, b, c) =
                    (if ta { side(k, m) } else { side(m, k) }, side(k.max(n), k.max(n)), side(m, n));
                let a =
                    if ta { Mat::strided(&a, k, m, m + gap).t() } else { Mat::strided(&a, m, k, k + gap) };
                let b =
                    if tb { Mat::strided(&b, n, k, k + gap).t() } else { Mat::strided(&b, k, n, n + gap) };
                let mut result = c.clone();
                gemm(MatMut::strided(&mut result, m, n, n + gap), accumulate, 0.5, a, b);
                for i in 0..m {
                    for j in 0..n + gap {
                        let old = c[i * (n + gap) + j];
                        let at = |mat: Mat<'_>, i: usize, j: usize| {
                            f64::from(mat.data[i * mat.row_stride + j * mat.col_stride])
                        };
                        let product: f64 =
                            if j < n { (0..k).map(|l| at(a, i, l) * at(b, l, j)).sum() } else { 0.0 };
                        let start = if accumulate || j >= n { f64::from(old) } else { 0.0 };
                        let expected = start + 0.5 * product;
                        let error = (f64::from(result[i * (n + gap) + j]) - expected).abs();
                        assert!(error < 1e-5, "{m}×{n}×{k} case {case} at {i},{j}: off by {error}");
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "within its slice")]
    fn an_operand_outside_its_slice_panics() {
        let (a, b, mut c) = ([1.0; 5], [1.0; 6], [0.0; 4]);
        gemm(MatMut::new(&mut c, 2, 2), false, 1.0, Mat::new(&a, 2, 3), Mat::new(&b, 3, 2));
    }
}
