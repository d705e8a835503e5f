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
    /// A query sees its own token and the `window - 1` before it; `None`: all before it.
    pub window: Option<usize>,
    /// Scaled scores become `cap · tanh(score / cap)` (Gemma 2).
    pub softcap: Option<f32>,
    /// A logit for each query head, `[heads]`, that joins the softmax's denominator and has no
    /// value (gpt-oss).
    pub sinks: Option<ParamId>,
}

impl Attention {
    /// Full causal attention, without a soft-cap and sinks.
    pub const fn new(
        heads: usize,
        kv_heads: usize,
        qk_dim: usize,
        v_dim: usize,
        scale: f32,
    ) -> Attention {
        let (window, softcap, sinks) = (None, None, None);
        Attention { heads, kv_heads, qk_dim, v_dim, scale, window, softcap, sinks }
    }

    /// First position that the query at `position` sees.
    pub(crate) fn first_visible(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// Keys that each query of a document of this length is counted with: without the causal
    /// mask's savings.
    fn keys(&self, length: usize) -> usize {
        self.window.map_or(length, |window| window.min(length))
    }
}

/// How a gate and a value become the input of the last layer of a gated MLP (Shazeer 2020,
/// arXiv:2002.05202).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GatedActivation {
    /// `silu(gate) · up`, with `silu(z) = z · sigmoid(z)`: `SwiGLU`.
    Silu,
    /// `gelu(gate) · up`, with [`crate::Tape::gelu`]'s approximation: `GeGLU` (Gemma).
    Gelu,
    /// `g · sigmoid(1.702 · g) · (u + 1)`, where `g` is the gate, at most `limit`, and `u` is `up`,
    /// within `±limit` (gpt-oss).
    ClampedSilu {
        /// The limit.
        limit: f32,
    },
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

/// Weights or biases of experts: consecutive parameters of equal shape.
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

/// What a router makes of its logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// `sigmoid(logit)` (DeepSeek-AI 2024, arXiv:2412.19437, equations 13 to 15).
    Sigmoid,
    /// Softmax over all experts. Normalised it is the softmax over the chosen ones (Mixtral,
    /// gpt-oss).
    Softmax,
}

/// Router of a mixture of experts: weights of the chosen experts are `scale · score`, divided by
/// the sum of their scores if `normalise`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Router {
    /// Scores of the experts.
    pub scoring: Scoring,
    /// Whether the weights of a row sum to `scale`.
    pub normalise: bool,
    /// Factor on all weights.
    pub scale: f32,
}

/// How the experts of each token are chosen: those with the largest scores, of equal ones the
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Experts of a token.
    pub k: usize,
    /// Scores are `sigmoid(logit) + correction`, `[experts]` (DeepSeek-AI 2024, arXiv:2412.19437,
    /// equation 16); `None`: the logits.
    pub correction: Option<ParamId>,
    /// Groups of consecutive experts; divides their number.
    pub groups: usize,
    /// Groups whose experts can be chosen: those with the largest sums of their two best scores.
    pub kept_groups: usize,
}

impl Choice {
    /// The `k` experts with the largest logits.
    pub const fn largest(k: usize) -> Choice {
        Choice { k, correction: None, groups: 1, kept_groups: 1 }
    }
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
        /// Whether the factor is one more than the weight.
        plus_one: bool,
        /// Columns normalised together.
        group: usize,
        eps: f32,
        out: Var,
    },
    LayerNorm {
        x: Var,
        weight: ParamId,
        bias: Option<ParamId>,
        eps: f32,
        out: Var,
    },
    Scale {
        x: Var,
        factor: f32,
        out: Var,
    },
    SoftCap {
        x: Var,
        cap: f32,
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
    Gated {
        gate: Var,
        up: Var,
        activation: GatedActivation,
        out: Var,
    },
    Gelu {
        x: Var,
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
        biases: Option<Experts>,
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
        softcap: Option<f32>,
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
            | Op::LayerNorm { .. }
            | Op::Scale { .. }
            | Op::SoftCap { .. }
            | Op::Gated { .. }
            | Op::Gelu { .. }
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
                let seen: usize = lengths.map(|length| length * shape.keys(length)).sum();
                seen * shape.heads * (shape.qk_dim + shape.v_dim)
            }
            Op::Embedding { .. }
            | Op::Add { .. }
            | Op::RmsNorm { .. }
            | Op::LayerNorm { .. }
            | Op::Scale { .. }
            | Op::SoftCap { .. }
            | Op::Rope { .. }
            | Op::Gated { .. }
            | Op::Gelu { .. }
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
            | Op::LayerNorm { out, .. }
            | Op::Scale { out, .. }
            | Op::SoftCap { out, .. }
            | Op::Rope { out, .. }
            | Op::Attention { out, .. }
            | Op::Gated { out, .. }
            | Op::Gelu { out, .. }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A window is counted as the computed keys of each query.
    #[test]
    fn attention_is_counted_by_its_window() {
        let layout = Layout::new(None, Vec::new(), |_| false);
        let flops = |window| {
            let shape = Attention { window, ..Attention::new(3, 1, 5, 7, 1.0) };
            let mut offsets = Pool::default();
            let offsets = offsets.take_copy(&[0u32, 4, 104]);
            let (q, k, v, out) = (Var(0), Var(1), Var(2), Var(3));
            Op::Attention { q, k, v, shape, offsets, out }.flops(&[], &layout)
        };
        let of_pairs = |pairs: u64| 2 * pairs * 3 * (5 + 7);
        assert_eq!(flops(None), of_pairs(4 * 4 + 100 * 100));
        assert_eq!(flops(Some(10)), of_pairs(4 * 4 + 100 * 10));
        assert_eq!(flops(Some(1000)), flops(None));
    }
}
