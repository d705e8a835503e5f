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

impl Mixture {
    /// Experts called `name` + `0.gate_proj` and so on.
    pub(crate) fn specs(specs: &mut Specs, name: &str, count: usize, hidden: usize, inner: usize) {
        for expert in 0..count {
            specs.linear(&format!("{name}{expert}.gate_proj"), inner, hidden, false);
            specs.linear(&format!("{name}{expert}.up_proj"), inner, hidden, false);
            specs.residual_linear(&format!("{name}{expert}.down_proj"), hidden, inner, false);
        }
    }

    pub(crate) fn bind(params: &Params, prefix: &str, name: &str, count: usize) -> Mixture {
        // The specs above: three parameters an expert.
        let experts = |part: &str| {
            let first = weight(params, prefix, &format!("{name}0.{part}"));
            Experts { first, stride: 3, count }
        };
        Mixture { gate: experts("gate_proj"), up: experts("up_proj"), down: experts("down_proj") }
    }

    /// The weighted sum of what its `chosen` experts (k of each row of `x`) make of it; `weights` is `[rows, k]`.
    pub(crate) fn forward(&self, tape: &mut Tape<'_>, x: Var, weights: Var, chosen: &[u32]) -> Var {
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
        let x = tape.select_rows(x, &sent);
        let gate = tape.grouped_linear(x, self.gate, &bounds);
        let up = tape.grouped_linear(x, self.up, &bounds);
        let inner = tape.swiglu(gate, up);
        let y = tape.grouped_linear(inner, self.down, &bounds);
        let y = tape.scale_rows(y, weights, &entries);
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
