//! The operations a tape records: what went in, what came out, and what backward needs besides.
//!
//! They know no device; a device module computes them.

use std::sync::Arc;

use crate::rope::RopeTables;
use crate::workspace::{Buffer, Pool};
use crate::{Attention, Experts, HeadSlice, ParamId, Params, Router, Var};

/// A matrix on a tape.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Empty once given back.
    pub(crate) data: Buffer<f32>,
}

/// One recorded operation.
#[derive(Debug)]
pub(crate) enum Op {
    Embedding {
        table: ParamId,
        ids: Buffer<u32>,
        out: Var,
    },
    Linear {
        x: Var,
        weight: ParamId,
        bias: Option<ParamId>,
        out: Var,
    },
    Add {
        x: Var,
        y: Var,
        out: Var,
    },
    RmsNorm {
        x: Var,
        /// None: all ones.
        weight: Option<ParamId>,
        /// Columns that are normed together.
        group: usize,
        eps: f32,
        /// Reciprocal root mean square of each group of columns.
        rstd: Buffer<f32>,
        out: Var,
    },
    Rope {
        x: Var,
        tables: Arc<RopeTables>,
        head_dim: usize,
        positions: Buffer<u32>,
        out: Var,
    },
    Attention {
        q: Var,
        k: Var,
        v: Var,
        shape: Attention,
        offsets: Buffer<u32>,
        /// Log-sum-exp of the scores, `[rows, heads]`.
        lse: Buffer<f32>,
        out: Var,
    },
    SwiGlu {
        gate: Var,
        up: Var,
        out: Var,
    },
    SelectRows {
        x: Var,
        rows: Buffer<u32>,
        out: Var,
    },
    ConcatHeads {
        parts: [Option<HeadSlice>; 2],
        heads: usize,
        out: Var,
    },
    Router {
        logits: Var,
        router: Router,
        /// `[rows, k]`
        chosen: Buffer<u32>,
        out: Var,
    },
    GroupedLinear {
        x: Var,
        experts: Experts,
        /// Rows of each expert.
        bounds: Buffer<u32>,
        out: Var,
    },
    ScaleRows {
        x: Var,
        weights: Var,
        /// Which weight each row has.
        entries: Buffer<u32>,
        out: Var,
    },
    SumRows {
        x: Var,
        /// `[rows of the output, k]`
        order: Buffer<u32>,
        k: usize,
        out: Var,
    },
    TokenScores {
        x: Var,
        head: ParamId,
        targets: Buffer<u32>,
        scale: f32,
        with_entropy: bool,
        /// Log-sum-exp of the scaled logits, per row.
        lse: Buffer<f32>,
        /// The scaled logits, if they are few enough to be kept; else empty.
        logits: Buffer<f32>,
        logp: Var,
        entropy: Var,
    },
}

impl Op {
    /// Gives the memory of an operation back.
    pub(crate) fn recycle(self, floats: &mut Pool<f32>, indices: &mut Pool<u32>) {
        match self {
            Op::Linear { .. } | Op::Add { .. } | Op::SwiGlu { .. } | Op::ConcatHeads { .. } => {}
            Op::Embedding { ids, .. } => indices.give(ids),
            Op::RmsNorm { rstd, .. } => floats.give(rstd),
            Op::Rope { positions, .. } => indices.give(positions),
            Op::SelectRows { rows, .. } => indices.give(rows),
            Op::Router { chosen, .. } => indices.give(chosen),
            Op::GroupedLinear { bounds, .. } => indices.give(bounds),
            Op::ScaleRows { entries, .. } => indices.give(entries),
            Op::SumRows { order, .. } => indices.give(order),
            Op::Attention { offsets, lse, .. } => {
                indices.give(offsets);
                floats.give(lse);
            }
            Op::TokenScores { targets, lse, logits, .. } => {
                indices.give(targets);
                floats.give(lse);
                floats.give(logits);
            }
        }
    }

    /// Floating-point operations of its matrix products, forward (see [`crate::Profiled`]); those of backward are twice as many.
    pub(crate) fn flops(&self, values: &[Value], params: &Params) -> u64 {
        let rows = |var: Var| values[var.0 as usize].rows;
        let weights = |id: ParamId| params.spec(id).shape.iter().product::<usize>();
        let multiplied = match self {
            Op::Linear { x, weight, .. } => rows(*x) * weights(*weight),
            Op::GroupedLinear { x, experts, .. } => rows(*x) * weights(experts.first),
            Op::TokenScores { x, head, .. } => rows(*x) * weights(*head),
            Op::Attention { shape, offsets, .. } => {
                let lengths = offsets.windows(2).map(|bounds| (bounds[1] - bounds[0]) as usize);
                let seen: usize = lengths.map(|length| length * length).sum();
                seen * shape.heads * (shape.qk_dim + shape.v_dim)
            }
            Op::Embedding { .. }
            | Op::Add { .. }
            | Op::RmsNorm { .. }
            | Op::Rope { .. }
            | Op::SwiGlu { .. }
            | Op::SelectRows { .. }
            | Op::ConcatHeads { .. }
            | Op::Router { .. }
            | Op::ScaleRows { .. }
            | Op::SumRows { .. } => 0,
        };
        2 * multiplied as u64
    }

    /// The values it produced (the second only of operations with two).
    pub(crate) fn outputs(&self) -> [Option<Var>; 2] {
        match *self {
            Op::Embedding { out, .. }
            | Op::Linear { out, .. }
            | Op::Add { out, .. }
            | Op::RmsNorm { out, .. }
            | Op::Rope { out, .. }
            | Op::Attention { out, .. }
            | Op::SwiGlu { out, .. }
            | Op::SelectRows { out, .. }
            | Op::ConcatHeads { out, .. }
            | Op::Router { out, .. }
            | Op::GroupedLinear { out, .. }
            | Op::ScaleRows { out, .. }
            | Op::SumRows { out, .. } => [Some(out), None],
            Op::TokenScores { logp, entropy, .. } => [Some(logp), Some(entropy)],
        }
    }
}
