//! Values of a tape in the processor's memory, their gradients, and what operations keep.

use super::draw::Sampler;
use crate::buffer::{Buffer, Pool};
use crate::op::{Shape, Var};

/// The memory of one tape, recycled from tape to tape.
#[derive(Debug, Default)]
pub(crate) struct Values {
    pub(crate) floats: Pool<f32>,
    /// The values, in the order of their handles.
    pub(crate) matrices: Vec<Value>,
    /// Gradients during backward; empty: none yet.
    pub(crate) grads: Vec<Buffer<f32>>,
    /// By kept operation, in order.
    pub(crate) kept: Vec<Kept>,
    /// Of the tasks that draw tokens.
    pub(crate) samplers: Vec<Sampler>,
}

/// A matrix on a tape.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Empty once freed.
    pub(crate) data: Buffer<f32>,
}

/// What an operation keeps for its backward besides inputs and outputs.
#[derive(Debug, Default)]
pub(crate) enum Kept {
    #[default]
    Nothing,
    /// Of a linear operation: the input of its adapter's B, `[rows, rank]`; of experts, one after
    /// the other.
    LowRank(Buffer<f32>),
    /// Of a norm: `1 / sqrt(mean(x²) + eps)` of each group of columns.
    Rstd(Buffer<f32>),
    /// Of a layer norm: mean and `1 / sqrt(variance + eps)` of each row, `[rows, 2]`.
    RowStats(Buffer<f32>),
    /// Of attention: log-sum-exp of the scores, `[rows, heads]`.
    Lse(Buffer<f32>),
    /// Of token scores.
    Scores {
        /// Log-sum-exp of the scaled logits, per row.
        lse: Buffer<f32>,
        /// The scaled logits, if few enough to be kept; else empty.
        logits: Buffer<f32>,
    },
}

impl Kept {
    pub(crate) fn recycle(self, floats: &mut Pool<f32>) {
        match self {
            Kept::Nothing => {}
            Kept::LowRank(buffer)
            | Kept::Rstd(buffer)
            | Kept::RowStats(buffer)
            | Kept::Lse(buffer) => floats.give(buffer),
            Kept::Scores { lse, logits } => {
                floats.give(lse);
                floats.give(logits);
            }
        }
    }
}

/// The numbers of a value.
pub(crate) fn data(values: &[Value], var: Var) -> &[f32] {
    let value = &values[var.0 as usize];
    let len = value.rows * value.cols;
    assert_eq!(value.data.len(), len, "the value's memory was freed by `keep_only`");
    &value.data
}

impl Values {
    pub(crate) fn allocate(&mut self, Shape { rows, cols }: Shape) {
        let data = self.floats.take(rows * cols);
        self.matrices.push(Value { rows, cols, data });
    }

    pub(crate) fn free(&mut self, var: Var) {
        let index = var.0 as usize;
        self.floats.give(std::mem::take(&mut self.matrices[index].data));
        if let Some(grad) = self.grads.get_mut(index) {
            self.floats.give(std::mem::take(grad));
        }
    }

    pub(crate) fn fit(&mut self, var: Var) {
        let data = &mut self.matrices[var.0 as usize].data;
        *data = self.floats.fit(std::mem::take(data));
    }

    pub(crate) fn clear(&mut self) {
        while let Some(value) = self.matrices.pop() {
            self.floats.give(value.data);
        }
        while let Some(grad) = self.grads.pop() {
            self.floats.give(grad);
        }
        while let Some(kept) = self.kept.pop() {
            kept.recycle(&mut self.floats);
        }
    }

    /// One place for the gradient of each value.
    pub(crate) fn grow_grads(&mut self) {
        self.grads.resize_with(self.matrices.len(), Default::default);
    }
}
