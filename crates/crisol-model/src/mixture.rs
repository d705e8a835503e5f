//! Mixtures of experts: every row goes to a few of many small feed-forward layers.
//!
//! Rows are sorted by expert, so that each expert's rows lie together and its three products are as large as they can be.

use crisol_engine::{Experts, Params, Tape, Var};

use crate::block::{Specs, weight};

/// Weights of all routed experts of a layer.
#[derive(Debug)]
pub(crate) struct Mixture {
    gate: Experts,
    up: Experts,
    down: Experts,
}

/// Where a row's weight for an expert is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weighted {
    /// To what it brings (Llama 4).
    Input,
    /// To what it takes away (DeepSeek).
    Output,
}

impl Mixture {
    /// Experts called `name` + `0.gate_proj` and so on.
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
        // Those of all experts follow one another in the specs above.
        let experts = |part: &str| {
            let first = weight(params, prefix, &format!("{name}0.{part}"));
            Experts { first, count }
        };
        Mixture { gate: experts("gate_proj"), up: experts("up_proj"), down: experts("down_proj") }
    }

    /// The weighted sum of what its `chosen` experts (k of each row of `x`) make of it; `weights` is `[rows, k]`.
    pub(crate) fn forward(
        &self,
        tape: &mut Tape<'_>,
        x: Var,
        weights: Var,
        chosen: &[u32],
        weighted: Weighted,
    ) -> Var {
        let (rows, k) = tape.shape(weights);
        debug_assert_eq!(chosen.len(), rows * k);
        // Entries (a row's choices, row by row) in the order of their experts, and each expert's range of them.
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
            let place = &mut next[expert as usize];
            order[entry] = *place;
            entries[*place as usize] = entry as u32;
            *place += 1;
        }
        let sent: Vec<u32> = entries.iter().map(|&entry| entry / k as u32).collect();
        let mut x = tape.select_rows(x, &sent);
        if weighted == Weighted::Input {
            x = tape.scale_rows(x, weights, &entries);
        }
        let gate = tape.grouped_linear(x, self.gate, &bounds);
        let up = tape.grouped_linear(x, self.up, &bounds);
        let inner = tape.swiglu(gate, up);
        let mut y = tape.grouped_linear(inner, self.down, &bounds);
        if weighted == Weighted::Output {
            y = tape.scale_rows(y, weights, &entries);
        }
        tape.sum_rows(y, &order, k)
    }
}

/// Indices of the `k` largest numbers, ascending; of equal ones the first.
pub(crate) fn largest(numbers: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[b].total_cmp(&numbers[a]));
    order.truncate(k);
    order.sort_unstable();
    order
}

/// Where an expert's weight is in Llama 4's files, which hold those of all experts in one tensor `[experts, in, out]`, transposed to
/// what other files have. Gates and ups are one tensor, side by side.
#[derive(Clone, Debug)]
pub(crate) struct Fused {
    /// Name and shape of that tensor.
    pub(crate) tensor: String,
    pub(crate) shape: [usize; 3],
    expert: usize,
    first_column: usize,
}

impl Fused {
    /// Of the parameter `name`, whose shape is `[out, in]`, if it is an expert's.
    pub(crate) fn of(name: &str, shape: &[usize], experts: usize) -> Option<Fused> {
        let (layer, rest) = name.split_once(".experts.")?;
        let (expert, part) = rest.split_once('.')?;
        let (expert, &[out, inner]) = (expert.parse().ok()?, shape) else { return None };
        let (part, columns, first_column) = match part {
            "gate_proj.weight" => ("gate_up_proj", 2 * out, 0),
            "up_proj.weight" => ("gate_up_proj", 2 * out, out),
            _ => ("down_proj", out, 0),
        };
        let tensor = format!("{layer}.experts.{part}");
        Some(Fused { tensor, shape: [experts, inner, columns], expert, first_column })
    }

    fn place(&self, inner: usize) -> usize {
        let [_, rows, columns] = self.shape;
        (self.expert * rows + inner) * columns + self.first_column
    }

    /// The parameter `[out, in]` from the tensor, whatever its elements are.
    pub(crate) fn take<T: Copy + Default>(&self, all: &[T], out: usize) -> Vec<T> {
        let inner = self.shape[1];
        let mut weight = vec![T::default(); out * inner];
        for i in 0..inner {
            for (row, &number) in all[self.place(i)..][..out].iter().enumerate() {
                weight[row * inner + i] = number;
            }
        }
        weight
    }

    /// Puts the parameter `[out, in]` into the tensor.
    pub(crate) fn put(&self, all: &mut [f32], weight: &[f32], out: usize) {
        let inner = self.shape[1];
        for i in 0..inner {
            for (row, number) in all[self.place(i)..][..out].iter_mut().enumerate() {
                *number = weight[row * inner + i];
            }
        }
    }
}
