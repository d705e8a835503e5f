//! Mixture of experts: every row is routed to k of many small MLPs.
//!
//! ```text
//! x [rows, hidden] ─ select_rows ─► [rows · k, hidden], sorted by expert
//!                  ─ grouped GEMMs: gate, up, SwiGLU, down ─► [rows · k, hidden]
//!                  ─ sum_rows ─► [rows, hidden]
//! ```
//!
//! Sorting makes the rows of an expert contiguous, so that each expert needs one GEMM per matrix.

use crisol_engine::{
    Choice, Experts, GatedActivation, ParamId, Params, Router, Scoring, Tape, Var, WeightFormat,
};

use crate::block::{Linear, Mlp, Specs};
use crate::config::MAX_SIZE;

/// Names of the matrices of experts: `{prefix}0.{gate}.weight` and so on.
#[derive(Clone, Copy)]
pub(crate) struct ExpertNames {
    pub(crate) prefix: &'static str,
    pub(crate) gate: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
}

impl ExpertNames {
    /// With the names of most architectures.
    pub(crate) const fn new(prefix: &'static str) -> ExpertNames {
        ExpertNames { prefix, gate: "gate_proj", up: "up_proj", down: "down_proj" }
    }
}

/// One matrix of every expert, and its biases if the parameters have any.
#[derive(Clone, Copy, Debug)]
struct ExpertLinear {
    weights: Experts,
    biases: Option<Experts>,
}

impl ExpertLinear {
    fn forward(self, tape: &mut Tape<'_>, x: Var, bounds: &[u32]) -> Var {
        tape.grouped_linear(x, self.weights, self.biases, bounds)
    }
}

/// Weights of all routed experts of a layer.
#[derive(Debug)]
pub(crate) struct Mixture {
    gate: ExpertLinear,
    up: ExpertLinear,
    down: ExpertLinear,
    activation: GatedActivation,
}

/// Where the routing weight is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WeightApplied {
    /// To the expert's input (Llama 4).
    Input,
    /// To the expert's output (all others).
    Output,
}

impl Mixture {
    /// Specs of the experts. Each matrix, and each bias, of all experts is contiguous.
    pub(crate) fn specs(
        specs: &mut Specs,
        names: ExpertNames,
        count: usize,
        hidden: usize,
        inner: usize,
        bias: bool,
    ) {
        for (part, out) in [(names.gate, inner), (names.up, inner), (names.down, hidden)] {
            let module = |expert: usize| format!("{}{expert}.{part}", names.prefix);
            if bias {
                (0..count)
                    .for_each(|expert| specs.vector(&format!("{}.bias", module(expert)), out));
            }
            for expert in 0..count {
                if part == names.down {
                    specs.residual_linear(&module(expert), out, inner, false);
                } else {
                    specs.linear(&module(expert), out, hidden, false);
                }
            }
        }
    }

    pub(crate) fn bind(
        params: &Params,
        prefix: &str,
        names: ExpertNames,
        count: usize,
        activation: GatedActivation,
    ) -> Mixture {
        let linear = |part: &str| {
            let first = Linear::bind(params, prefix, &format!("{}0.{part}", names.prefix));
            let experts = |first: ParamId| Experts { first, count };
            ExpertLinear { weights: experts(first.weight), biases: first.bias.map(experts) }
        };
        let (gate, up, down) = (linear(names.gate), linear(names.up), linear(names.down));
        Mixture { gate, up, down, activation }
    }

    /// The weighted sum of the outputs of the `chosen` experts, k per row of `x`; `weights` is
    /// `[rows, k]`.
    pub(crate) fn forward(
        &self,
        tape: &mut Tape<'_>,
        x: Var,
        weights: Var,
        chosen: &[u32],
        applied: WeightApplied,
    ) -> Var {
        let (rows, k) = tape.shape(weights);
        debug_assert_eq!(chosen.len(), rows * k);
        // A counting sort of the entries (row, choice) by expert. Expert `e` gets
        // `bounds[e]..bounds[e + 1]`.
        let mut bounds = vec![0u32; self.gate.weights.count + 1];
        for &expert in chosen {
            bounds[expert as usize + 1] += 1;
        }
        for expert in 0..self.gate.weights.count {
            bounds[expert + 1] += bounds[expert];
        }
        let mut next = bounds.clone();
        let mut order = vec![0u32; chosen.len()];
        let mut entries = vec![0u32; chosen.len()];
        for (entry, &expert) in chosen.iter().enumerate() {
            let slot = &mut next[expert as usize];
            order[entry] = *slot;
            entries[*slot as usize] = entry as u32;
            *slot += 1;
        }
        let sources: Vec<u32> = entries.iter().map(|&entry| entry / k as u32).collect();
        let mut x = tape.select_rows(x, &sources);
        if applied == WeightApplied::Input {
            x = tape.scale_rows(x, weights, &entries);
        }
        let gate = self.gate.forward(tape, x, &bounds);
        let up = self.up.forward(tape, x, &bounds);
        let inner = tape.gated(gate, up, self.activation);
        let mut y = self.down.forward(tape, inner, &bounds);
        if applied == WeightApplied::Output {
            y = tape.scale_rows(y, weights, &entries);
        }
        tape.sum_rows(y, &order, k)
    }
}

/// A feed-forward layer, dense or with a softmax router.
#[derive(Debug)]
pub(crate) enum FeedForward {
    Dense(Mlp),
    Mixture(SoftmaxMixture),
}

impl FeedForward {
    pub(crate) fn forward(&self, tape: &mut Tape<'_>, x: Var) -> Var {
        match self {
            FeedForward::Dense(mlp) => mlp.forward(tape, x),
            FeedForward::Mixture(mixture) => mixture.forward(tape, x),
        }
    }
}

/// The `k` experts with the largest logits, weighted by the softmax of the logits.
#[derive(Debug)]
pub(crate) struct SoftmaxMixture {
    pub(crate) router: Linear,
    pub(crate) experts: Mixture,
    pub(crate) k: usize,
    /// Whether the weights of a token sum to 1.
    pub(crate) normalise: bool,
}

impl SoftmaxMixture {
    fn forward(&self, tape: &mut Tape<'_>, x: Var) -> Var {
        let logits = self.router.forward(tape, x);
        let chosen = tape.choose_experts(logits, &Choice::largest(self.k));
        let router = Router { scoring: Scoring::Softmax, normalise: self.normalise, scale: 1.0 };
        let weights = tape.expert_weights(logits, router, &chosen);
        self.experts.forward(tape, x, weights, &chosen, WeightApplied::Output)
    }
}

/// What is wrong with the number of experts, or with how many of them a token has.
pub(crate) fn experts_problem(
    (name, experts): (&str, usize),
    (chosen_name, chosen): (&str, usize),
) -> Option<String> {
    for (name, size) in [(name, experts), (chosen_name, chosen)] {
        if size == 0 || size > MAX_SIZE {
            return Some(format!("{name} is {size}, not between 1 and {MAX_SIZE}"));
        }
    }
    (chosen > experts).then(|| format!("{chosen_name} ({chosen}) is more than {name} ({experts})"))
}

/// How the columns of gate and up projections share a fused tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Columns {
    /// First all of the gate, then all of up (Llama 4).
    Concatenated,
    /// In turns (gpt-oss).
    Interleaved,
}

/// An expert's matrix or bias within a tensor of all experts of a layer: `[experts, in, columns]`,
/// transposed, or `[experts, columns]`.
///
/// In MXFP4 (gpt-oss) rows of a matrix lie together, as blocks of 32 numbers in two tensors:
///
/// ```text
/// ..._blocks  [experts, columns, in / 32, 16]    two codes of 4 bits in a byte
/// ..._scales  [experts, columns, in / 32]        an exponent for each block
/// ```
#[derive(Clone, Debug)]
pub(crate) struct FusedExpert {
    /// Name and shape of the fused tensor.
    pub(crate) tensor: String,
    pub(crate) shape: Vec<usize>,
    expert: usize,
    inner: usize,
    columns: usize,
    first_column: usize,
    /// From one of its columns to the next.
    step: usize,
}

impl FusedExpert {
    /// The location of parameter `name`, with shape `[out, in]` or `[out]`, if it is an expert's.
    pub(crate) fn new(
        name: &str,
        shape: &[usize],
        experts: usize,
        columns: Columns,
    ) -> Option<FusedExpert> {
        let (layer, rest) = name.split_once(".experts.")?;
        let (expert, part) = rest.split_once('.')?;
        let (part, kind) = part.split_once('.')?;
        let expert = expert.parse().ok()?;
        let out = shape[0];
        let (part, first_column, step) = match (part, columns) {
            ("gate_proj", Columns::Concatenated) => ("gate_up_proj", 0, 1),
            ("up_proj", Columns::Concatenated) => ("gate_up_proj", out, 1),
            ("gate_proj", Columns::Interleaved) => ("gate_up_proj", 0, 2),
            ("up_proj", Columns::Interleaved) => ("gate_up_proj", 1, 2),
            _ => ("down_proj", 0, 1),
        };
        let columns = if part == "gate_up_proj" { 2 * out } else { out };
        let (suffix, inner) = if kind == "bias" { ("_bias", None) } else { ("", Some(shape[1])) };
        Some(FusedExpert {
            tensor: format!("{layer}.experts.{part}{suffix}"),
            shape: [Some(experts), inner, Some(columns)].into_iter().flatten().collect(),
            expert,
            inner: inner.unwrap_or(1),
            columns,
            first_column,
            step,
        })
    }

    /// Indices in the fused tensor of the column of input `i`, row by row of the matrix.
    fn column(&self, i: usize) -> impl Iterator<Item = usize> {
        let start = (self.expert * self.inner + i) * self.columns + self.first_column;
        (start..).step_by(self.step)
    }

    /// Extracts the matrix `[out, in]` from the fused tensor.
    pub(crate) fn extract<T: Copy + Default>(&self, all: &[T], out: usize) -> Vec<T> {
        let mut weight = vec![T::default(); out * self.inner];
        for i in 0..self.inner {
            for (row, index) in (0..out).zip(self.column(i)) {
                weight[row * self.inner + i] = all[index];
            }
        }
        weight
    }

    /// Writes the matrix `[out, in]` into the fused tensor.
    pub(crate) fn insert(&self, all: &mut [f32], weight: &[f32], out: usize) {
        for i in 0..self.inner {
            for (row, index) in (0..out).zip(self.column(i)) {
                all[index] = weight[row * self.inner + i];
            }
        }
    }

    /// Whether rows of a matrix are whole blocks of MXFP4.
    pub(crate) fn has_whole_blocks(&self) -> bool {
        self.inner.is_multiple_of(WeightFormat::Mxfp4.block().0)
    }

    /// Shapes of blocks and scales in MXFP4.
    pub(crate) fn mxfp4_shapes(&self) -> [Vec<usize>; 2] {
        let (columns, _) = WeightFormat::Mxfp4.block();
        let scales = vec![self.shape[0], self.columns, self.inner / columns];
        [[&scales[..], &[columns / 2]].concat(), scales]
    }

    /// The rows of the matrix in MXFP4, from the bytes of blocks and scales.
    pub(crate) fn extract_mxfp4(&self, blocks: &[u8], scales: &[u8], out: usize) -> Vec<u8> {
        let (columns, _) = WeightFormat::Mxfp4.block();
        let per_row = self.inner / columns;
        let first = self.expert * self.columns + self.first_column;
        let rows = (first..).step_by(self.step).take(out);
        rows.flat_map(|row| {
            let codes = &blocks[row * per_row * columns / 2..][..per_row * columns / 2];
            WeightFormat::mxfp4_row(&scales[row * per_row..][..per_row], codes)
        })
        .collect()
    }
}
