//! The operations of a tape: inputs, outputs, and what backward needs in addition.
//!
//! They are independent of the device; a device module computes them.

use std::fmt;
use std::sync::Arc;

use crate::rope::RopeTables;
use crate::workspace::{Buffer, Pool};
use crate::{Attention, Experts, HeadSlice, ParamId, Params, Router, Tape, Var};

/// A matrix on a tape.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Empty once freed.
    pub(crate) data: Buffer<f32>,
}

/// What backward goes through, from the last to the first.
#[derive(Debug)]
pub(crate) enum Record {
    Op(Op),
    Segment(Segment),
}

/// Operations whose values backward computes again.
pub(crate) struct Segment {
    pub(crate) x: Var,
    pub(crate) compute: Box<dyn Fn(&mut Tape<'_>, Var) -> Var + Send + Sync>,
    pub(crate) out: Var,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment {{ x: {:?}, out: {:?} }}", self.x, self.out)
    }
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
        /// Input of the adapter's B, `[rows, rank]`; empty without an adapter.
        low_rank: Buffer<f32>,
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
        /// Columns normalised together.
        group: usize,
        eps: f32,
        /// `1 / sqrt(mean(x²) + eps)` of each group of columns.
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
        /// Inputs of the adapters' B.
        low_rank: Buffer<f32>,
        out: Var,
    },
    ScaleRows {
        x: Var,
        weights: Var,
        /// Index of each row's weight.
        entries: Buffer<u32>,
        out: Var,
    },
    SumRows {
        x: Var,
        /// `[output rows, k]`
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
        /// The scaled logits, if few enough to be saved; else empty.
        logits: Buffer<f32>,
        logp: Var,
        entropy: Var,
    },
}

impl Op {
    /// Returns the memory of an operation.
    pub(crate) fn recycle(self, floats: &mut Pool<f32>, indices: &mut Pool<u32>) {
        match self {
            Op::Add { .. } | Op::SwiGlu { .. } | Op::ConcatHeads { .. } => {}
            Op::Linear { low_rank, .. } => floats.give(low_rank),
            Op::Embedding { ids, .. } => indices.give(ids),
            Op::RmsNorm { rstd, .. } => floats.give(rstd),
            Op::Rope { positions, .. } => indices.give(positions),
            Op::SelectRows { rows, .. } => indices.give(rows),
            Op::Router { chosen, .. } => indices.give(chosen),
            Op::GroupedLinear { bounds, low_rank, .. } => {
                indices.give(bounds);
                floats.give(low_rank);
            }
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

    /// FLOPs of its GEMMs, backward: twice the forward's, less the gradients of frozen weights.
    pub(crate) fn backward_flops(&self, values: &[Value], params: &Params) -> u64 {
        let (x, weight) = match *self {
            Op::Linear { x, weight: id, .. }
            | Op::GroupedLinear { x, experts: Experts { first: id, .. }, .. }
            | Op::TokenScores { x, head: id, .. }
                if !params.trains(id) =>
            {
                (x, id)
            }
            _ => return 2 * self.flops(values, params),
        };
        let rows = values[x.0 as usize].rows;
        2 * self.flops(values, params) - 2 * (rows * params.spec(weight).len()) as u64
    }

    /// FLOPs of its GEMMs, forward (see [`crate::Profiled`]).
    pub(crate) fn flops(&self, values: &[Value], params: &Params) -> u64 {
        let rows = |var: Var| values[var.0 as usize].rows;
        // With the adapter's A and B.
        let weights = |id: ParamId| {
            let update = params
                .adapter(id)
                .map_or(0, |adapter| params.spec(adapter.a).len() + params.spec(adapter.b).len());
            params.spec(id).len() + update
        };
        let multiplied = match self {
            Op::Linear { x, weight: id, .. }
            | Op::GroupedLinear { x, experts: Experts { first: id, .. }, .. }
            | Op::TokenScores { x, head: id, .. } => rows(*x) * weights(*id),
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

    /// Its output values.
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
