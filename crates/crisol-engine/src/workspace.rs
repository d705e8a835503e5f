//! Recycled memory of one tape at a time: its shapes, records and indices here, its numbers on the
//! device. After the first step of a shape nothing is allocated.
//!
//! Fresh pages from the operating system cost more than the arithmetic on them: candle and burn
//! train twice as fast once their allocator keeps its memory.

use crate::Device;
use crate::backend::Backend;
use crate::buffer::Pool;
use crate::device::OnDevice;
use crate::op::{Shape, Var};
use crate::tape::Record;

/// Recycled memory of one tape at a time.
#[derive(Debug)]
pub struct Workspace {
    device: Device,
    /// Tasks per operation; 1 where shards keep every thread busy.
    pub(crate) tasks: usize,
    pub(crate) indices: Pool<u32>,
    /// Of the values of the current tape.
    pub(crate) shapes: Vec<Shape>,
    pub(crate) values: <OnDevice as Backend>::Values,
    /// Its operations and segments, in order.
    pub(crate) records: Vec<Record>,
}

impl Workspace {
    /// An empty workspace on `device`.
    pub fn new(device: &Device) -> Workspace {
        Workspace {
            tasks: 1,
            indices: Pool::default(),
            shapes: Vec::new(),
            values: device.backend().values(),
            records: Vec::new(),
            device: device.clone(),
        }
    }

    /// A new value with unspecified contents.
    pub(crate) fn value(&mut self, rows: usize, cols: usize) -> Var {
        let (var, shape) = (Var(self.shapes.len() as u32), Shape { rows, cols });
        self.device.backend().allocate(&mut self.values, shape);
        self.shapes.push(shape);
        var
    }

    /// Frees the memory of the values from number `first` on, but for `keep`.
    pub(crate) fn free_values(&mut self, first: usize, keep: Var) {
        for var in (first as u32..self.shapes.len() as u32).map(Var).filter(|&var| var != keep) {
            self.device.backend().free(&mut self.values, var);
        }
    }

    /// Takes everything back from a tape.
    pub(crate) fn recycle(&mut self) {
        while let Some(record) = self.records.pop() {
            if let Record::Op(op) = record {
                op.recycle(&mut self.indices);
            }
        }
        self.device.backend().clear(&mut self.values);
        self.shapes.clear();
    }
}
