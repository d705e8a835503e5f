//! Mixture of experts: every row is routed to k of many small MLPs.
//!
//! ```text
//! x [rows, hidden] ─ select_rows ─► [rows · k, hidden], sorted by expert
//!                  ─ grouped GEMMs: gate, up, SwiGLU, down ─► [rows · k, hidden]
//!                  ─ sum_rows ─► [rows, hidden]
//! ```
//!
//! Sorting makes the rows of an expert contiguous, so that each expert needs one GEMM per matrix.

use crisol_engine::{Experts, GatedActivation, Params, Tape, Var};

use crate::block::{Specs, weight};

/// Weights of all routed experts of a layer.
#[derive(Debug)]
pub(crate) struct Mixture {
    gate: Experts,
    up: Experts,
    down: Experts,
}

/// Where the routing weight is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WeightApplied {
    /// To the expert's input (Llama 4).
    Input,
    /// To the expert's output (DeepSeek).
    Output,
}

impl Mixture {
    /// Specs of experts `{name}0.gate_proj` and so on.
    pub(crate) fn specs(specs: &mut Specs, name: &str, count: usize, hidden: usize, inner: usize) {
        for part in ["gate_proj", "up_proj"] {
            for expert in 0..count {
                specs.linear(&format!("{name}{expert}.{part}"), inner, hidden, false);
            }
        }
        for expert in 0..count {
            specs.residual_linear(&format!("{name}{expert}.down_proj"), hidden, inner, false);
        }
    }

    pub(crate) fn bind(params: &Params, prefix: &str, name: &str, count: usize) -> Mixture {
        // The specs list each matrix of all experts contiguously.
        let experts = |part: &str| {
            let first = weight(params, prefix, &format!("{name}0.{part}"));
            Experts { first, count }
        };
        Mixture { gate: experts("gate_proj"), up: experts("up_proj"), down: experts("down_proj") }
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
        let mut bounds = vec![0u32; self.gate.count + 1];
        for &expert in chosen {
            bounds[expert as usize + 1] += 1;
        }
        for expert in 0..self.gate.count {
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
        let gate = tape.grouped_linear(x, self.gate, None, &bounds);
        let up = tape.grouped_linear(x, self.up, None, &bounds);
        let inner = tape.gated(gate, up, GatedActivation::Silu);
        let mut y = tape.grouped_linear(inner, self.down, None, &bounds);
        if applied == WeightApplied::Output {
            y = tape.scale_rows(y, weights, &entries);
        }
        tape.sum_rows(y, &order, k)
    }
}

/// Indices of the `k` largest numbers, ascending; ties go to the lower index.
pub(crate) fn top_k(numbers: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[b].total_cmp(&numbers[a]));
    order.truncate(k);
    order.sort_unstable();
    order
}

/// An expert's matrix within a fused tensor `[experts, in, out]` of Llama 4's files. The fused
/// tensor is transposed, and gate and up projections are concatenated along `out`.
#[derive(Clone, Debug)]
pub(crate) struct FusedExpert {
    /// Name and shape of the fused tensor.
    pub(crate) tensor: String,
    pub(crate) shape: [usize; 3],
    expert: usize,
    first_column: usize,
}

impl FusedExpert {
    /// The location of parameter `name` with shape `[out, in]`, if it is an expert's.
    pub(crate) fn new(name: &str, shape: &[usize], experts: usize) -> Option<FusedExpert> {
        let (layer, rest) = name.split_once(".experts.")?;
        let (expert, part) = rest.split_once('.')?;
        let (expert, &[out, inner]) = (expert.parse().ok()?, shape) else { return None };
        let (part, columns, first_column) = match part {
            "gate_proj.weight" => ("gate_up_proj", 2 * out, 0),
            "up_proj.weight" => ("gate_up_proj", 2 * out, out),
            _ => ("down_proj", out, 0),
        };
        let tensor = format!("{layer}.experts.{part}");
        Some(FusedExpert { tensor, shape: [experts, inner, columns], expert, first_column })
    }

    fn offset(&self, inner: usize) -> usize {
        let [_, rows, columns] = self.shape;
        (self.expert * rows + inner) * columns + self.first_column
    }

    /// Extracts the matrix `[out, in]` from the fused tensor.
    pub(crate) fn extract<T: Copy + Default>(&self, all: &[T], out: usize) -> Vec<T> {
        let inner = self.shape[1];
        let mut weight = vec![T::default(); out * inner];
        for i in 0..inner {
            for (row, &number) in all[self.offset(i)..][..out].iter().enumerate() {
                weight[row * inner + i] = number;
            }
        }
        weight
    }

    /// Writes the matrix `[out, in]` into the fused tensor.
    pub(crate) fn insert(&self, all: &mut [f32], weight: &[f32], out: usize) {
        let inner = self.shape[1];
        for i in 0..inner {
            for (row, number) in all[self.offset(i)..][..out].iter_mut().enumerate() {
                *number = weight[row * inner + i];
            }
        }
    }
}
