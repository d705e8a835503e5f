//! Matrices in half precision or quantised, as model files store them.

use std::ops::Range;

use crate::backend::Backend;
use crate::device::{Device, OnDevice};
use crate::weight_format::WeightFormat;

/// A frozen matrix in the format of a model's file, on a device.
#[derive(Debug)]
pub struct QuantisedMatrix {
    pub(crate) shape: [usize; 2],
    pub(crate) on_device: <OnDevice as Backend>::Matrix,
}

impl QuantisedMatrix {
    /// A matrix of a `shape` `[rows, columns]`, whose row `i` has the little-endian bytes `row(i)`.
    /// Rows are read in order, some megabytes at a time; `done(rows)` reports rows that are no
    /// longer needed.
    pub fn new<R: AsRef<[u8]>>(
        device: &Device,
        format: WeightFormat,
        shape: [usize; 2],
        row: impl Fn(usize) -> R + Sync,
        done: impl Fn(Range<usize>),
    ) -> QuantisedMatrix {
        let on_device = device.backend().matrix(format, shape, row, done);
        QuantisedMatrix { shape, on_device }
    }
}
