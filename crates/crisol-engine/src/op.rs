//! The operations of a tape, as data: handles of inputs and outputs, shapes, indices of rows. A
//! backend computes them and keeps what their backward needs besides ([`crate::backend`]).

use std::sync::Arc;

use crate::buffer::{Buffer, Pool};
use crate::layout::{Layout, ParamId};
use crate::rope::RopeTables;

/// Handle of a value on a tape: a matrix `[rows, cols]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Var(pub(crate) u32);

/// Shape of an attention operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Scalars per query/key head.
    pub qk_dim: usize,
    /// Scalars per value head.
    pub v_dim: usize,
    /// Factor on the scores, usually `1/sqrt(qk_dim)`.
    pub scale: f32,
}

/// Columns `first..first + width` of each head of a value `[n, heads · head_dim]`. A part of
/// [`crate::Tape::concat_heads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadSlice {
    /// The value.
    pub x: Var,
    /// Its heads: as many as the result has, or one, which is broadcast to all of them.
    pub heads: usize,
    /// Columns of each of its heads.
    pub head_dim: usize,
    /// First column within a head.
    pub first: usize,
    /// Number of columns.
    pub width: usize,
}

impl HeadSlice {
    /// First column of the slice for head `head` of the result.
    pub(crate) fn column(self, head: usize) -> usize {
        (if self.heads == 1 { 0 } else { head }) * self.head_dim + self.first
    }
}

/// Weights of experts: consecutive parameters of equal shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// The first expert's.
    pub first: ParamId,
    /// Number of experts.
    pub count: usize,
}

impl Experts {
    pub(crate) fn id(self, expert: usize) -> ParamId {
        ParamId(self.first.0 + expert as u32)
    }
}

/// Router of a mixture of experts: weights of the chosen experts are `scale · sigmoid(logit)`,
/// divided by their sum if `normalise` (DeepSeek-AI 2024, arXiv:2412.19437, equations 13 to 15).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Router {
    /// Whether the weights of a row sum to `scale`.
    pub normalise: bool,
    /// Factor on all weights.
    pub scale: f32,
}

/// Rows and columns of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// An operation.
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
        /// Columns normalised together.
        group: usize,
        eps: f32,
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
        logp: Var,
        entropy: Var,
    },
}

impl Op {
    /// Returns the indices of an operation.
    pub(crate) fn recycle(self, indices: &mut Pool<u32>) {
        match self {
            Op::Add { .. }
            | Op::Linear { .. }
            | Op::RmsNorm { .. }
            | Op::SwiGlu { .. }
            | Op::ConcatHeads { .. } => {}
            Op::Embedding { ids: list, .. }
            | Op::Rope { positions: list, .. }
            | Op::Attention { offsets: list, .. }
            | Op::SelectRows { rows: list, .. }
            | Op::Router { chosen: list, .. }
            | Op::GroupedLinear { bounds: list, .. }
            | Op::ScaleRows { entries: list, .. }
            | Op::SumRows { order: list, .. }
            | Op::TokenScores { targets: list, .. } => indices.give(list),
        }
    }

    /// FLOPs of its GEMMs, backward: twice the forward's, less the gradients of frozen weights.
    pub(crate) fn backward_flops(&self, shapes: &[Shape], layout: &Layout) -> u64 {
        let (x, weight) = match *self {
            Op::Linear { x, weight: id, .. }
            | Op::GroupedLinear { x, experts: Experts { first: id, .. }, .. }
            | Op::TokenScores { x, head: id, .. }
                if !layout.trains(id) =>
            {
                (x, id)
            }
            _ => return 2 * self.flops(shapes, layout),
        };
        let rows = shapes[x.0 as usize].rows;
        2 * self.flops(shapes, layout) - 2 * (rows * layout.spec(weight).len()) as u64
    }

    /// FLOPs of its GEMMs, forward (see [`crate::Profiled`]).
    pub(crate) fn flops(&self, shapes: &[Shape], layout: &Layout) -> u64 {
        let rows = |var: Var| shapes[var.0 as usize].rows;
        // With the adapter's A and B.
        let weights = |id: ParamId| {
            let update = layout
                .adapter(id)
                .map_or(0, |adapter| layout.spec(adapter.a).len() + layout.spec(adapter.b).len());
            layout.spec(id).len() + update
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
