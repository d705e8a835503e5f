//! Mixture of experts: the router's weights, grouped linear layers, scaling and summing of rows.

use super::linear;
use super::mat::{Mat, MatMut};
use super::math::{add_assign, dot, scale_all, vectorised};
use super::params::{Grads, Params};
use crate::backend::Pass;
use crate::buffer::Pool;
use crate::dropout::Dropout;
use crate::op::{Choice, Experts, Router, Scoring};

/// Keeps the sum of sigmoids away from zero, as DeepSeek-V3's code does.
const MIN_SUM: f32 = 1e-20;

fn sigmoid(z: f32) -> f32 {
    1.0 / (1.0 + (-z).exp())
}

/// `e^(z - max)` of all `logits`, their sum.
fn softmax_sum(logits: impl Iterator<Item = f32> + Clone) -> (f32, f32) {
    let largest = logits.clone().fold(f32::NEG_INFINITY, f32::max);
    (largest, logits.map(|z| (z - largest).exp()).sum())
}

impl Router {
    /// Writes the scores of a row's chosen experts, whose sum, if normalised, is 1.
    fn scores(self, logits: &[f32], chosen: &[u32], scores: &mut [f32]) {
        let chosen_logits = chosen.iter().map(|&expert| logits[expert as usize]);
        match self.scoring {
            Scoring::Sigmoid => {
                for (score, z) in scores.iter_mut().zip(chosen_logits) {
                    *score = sigmoid(z);
                }
            }
            Scoring::Softmax => {
                let (largest, sum) = if self.normalise {
                    softmax_sum(chosen_logits.clone())
                } else {
                    softmax_sum(logits.iter().copied())
                };
                for (score, z) in scores.iter_mut().zip(chosen_logits) {
                    *score = (z - largest).exp() / sum;
                }
            }
        }
    }

    /// The factor from scores to weights in a row.
    fn factor(self, sum: f32) -> f32 {
        match self.scoring {
            Scoring::Sigmoid if self.normalise => self.scale / (sum + MIN_SUM),
            Scoring::Sigmoid | Scoring::Softmax => self.scale,
        }
    }
}

/// Weights of the chosen experts of every row: `chosen` and `weights` are `[rows, k]`, `logits`
/// `[rows, experts]`.
pub(crate) fn route(
    router: Router,
    logits: &[f32],
    experts: usize,
    chosen: &[u32],
    weights: &mut [f32],
) {
    let rows = logits.chunks_exact(experts);
    let k = (chosen.len() / rows.len().max(1)).max(1);
    for ((logits, chosen), weights) in
        rows.zip(chosen.chunks_exact(k)).zip(weights.chunks_exact_mut(k))
    {
        router.scores(logits, chosen, weights);
        let factor = router.factor(weights.iter().sum());
        scale_all(weights, factor);
    }
}

/// Adds to the logits' gradients, where `s` are scores and `c` is the router's scale.
///
/// | weights | gradient of the logit of expert `i` |
/// |---|---|
/// | sigmoid, `w = c·s` | `c · dw_i · s_i · (1 - s_i)` |
/// | sigmoid, `w = c·s / Σs` | `c/Σs · (dw_i - Σ dw·s / Σs) · s_i · (1 - s_i)` |
/// | softmax, all or the chosen, `w = c·s` | `c · s_i · (dw_i - Σ dw·s)`, `dw_i` 0 if not chosen |
pub(crate) fn route_backward(
    router: Router,
    logits: &[f32],
    experts: usize,
    chosen: &[u32],
    dweights: &[f32],
    dlogits: &mut [f32],
    floats: &mut Pool<f32>,
) {
    let rows = logits.chunks_exact(experts);
    let k = (chosen.len() / rows.len().max(1)).max(1);
    let mut scores = floats.take(k);
    let all = rows.zip(chosen.chunks_exact(k)).zip(dweights.chunks_exact(k));
    for (((logits, chosen), dweights), dlogits) in all.zip(dlogits.chunks_exact_mut(experts)) {
        router.scores(logits, chosen, &mut scores);
        let sum: f32 = scores.iter().sum();
        let factor = router.factor(sum);
        let products = dweights.iter().zip(&*scores).map(|(dweight, s)| dweight * s);
        let mean = match router.scoring {
            Scoring::Sigmoid if router.normalise => products.sum::<f32>() / (sum + MIN_SUM),
            Scoring::Sigmoid => 0.0,
            Scoring::Softmax => products.sum(),
        };
        for ((&expert, dweight), s) in chosen.iter().zip(dweights).zip(&*scores) {
            dlogits[expert as usize] += match router.scoring {
                Scoring::Sigmoid => factor * (dweight - mean) * s * (1.0 - s),
                Scoring::Softmax if router.normalise => factor * s * (dweight - mean),
                Scoring::Softmax => factor * s * dweight,
            };
        }
        if router.scoring == Scoring::Softmax && !router.normalise {
            let (largest, sum) = softmax_sum(logits.iter().copied());
            for (dlogit, z) in dlogits.iter_mut().zip(logits) {
                *dlogit -= factor * mean * (z - largest).exp() / sum;
            }
        }
    }
    floats.give(scores);
}

/// Indices of the `k` largest numbers, ascending; ties go to the lower index.
fn largest(numbers: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[b].total_cmp(&numbers[a]));
    order.truncate(k);
    order.sort_unstable();
    order
}

/// The experts of every row of `logits`, `[rows, experts]`. `correction`: see [`Choice`].
pub(crate) fn choose(
    choice: &Choice,
    logits: &[f32],
    experts: usize,
    correction: Option<&[f32]>,
) -> Vec<u32> {
    let mut chosen = Vec::with_capacity(logits.len() / experts * choice.k);
    for logits in logits.chunks_exact(experts) {
        let mut scores: Vec<f32> = match correction {
            None => logits.to_vec(),
            Some(all) => logits.iter().zip(all).map(|(&z, more)| sigmoid(z) + more).collect(),
        };
        if choice.kept_groups < choice.groups {
            let group = experts / choice.groups;
            let of_group =
                |scores: &[f32]| largest(scores, 2).into_iter().map(|i| scores[i]).sum::<f32>();
            let groups: Vec<f32> = scores.chunks_exact(group).map(of_group).collect();
            let kept = largest(&groups, choice.kept_groups);
            for (index, scores) in scores.chunks_exact_mut(group).enumerate() {
                if !kept.contains(&index) {
                    scores.fill(f32::NEG_INFINITY);
                }
            }
        }
        chosen.extend(largest(&scores, choice.k).into_iter().map(|expert| expert as u32));
    }
    chosen
}

/// The experts that have rows, with their row ranges.
fn groups(
    experts: Experts,
    bounds: &[u32],
) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
    let ranges = bounds.windows(2).map(|bounds| bounds[0] as usize..bounds[1] as usize);
    debug_assert_eq!(bounds.len(), experts.count + 1);
    ranges.enumerate().filter(|(_, rows)| !rows.is_empty())
}

/// Numbers that the adapters of all experts keep.
pub(crate) fn low_rank_len(params: &Params, experts: Experts, bounds: &[u32]) -> usize {
    groups(experts, bounds).map(|(expert, rows)| rows.len() * params.rank(experts.id(expert))).sum()
}

/// `y = x · W_eᵀ + b_e` for the rows of every expert `e`. `low_rank`: see [`linear::forward`].
pub(crate) fn forward(
    params: &Params,
    experts: Experts,
    biases: Option<Experts>,
    bounds: &[u32],
    x: &[f32],
    y: &mut [f32],
    mut low_rank: &mut [f32],
    pass: Pass,
    tasks: usize,
    floats: &mut Pool<f32>,
) {
    for (expert, rows) in groups(experts, bounds) {
        let id = experts.id(expert);
        let (out_dim, in_dim) = params.matrix_shape(id);
        let n = rows.len();
        let x = Mat::new(&x[rows.start * in_dim..rows.end * in_dim], n, in_dim);
        let y = &mut y[rows.start * out_dim..rows.end * out_dim];
        let (u, rest) = low_rank.split_at_mut(n * params.rank(id));
        linear::forward(params, id, x, MatMut::new(y, n, out_dim), u, pass, tasks, floats);
        if let Some(biases) = biases {
            let bias = params.slice(biases.id(expert));
            y.chunks_exact_mut(out_dim).for_each(|row| add_assign(row, bias));
        }
        low_rank = rest;
    }
}

/// Writes `dx`, or adds to it if `accumulate`; adds to the gradients of every expert.
pub(crate) fn backward(
    params: &Params,
    experts: Experts,
    biases: Option<Experts>,
    bounds: &[u32],
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    accumulate: bool,
    mut low_rank: &[f32],
    dropout: Option<Dropout>,
    grads: &mut Grads,
    tasks: usize,
    floats: &mut Pool<f32>,
) {
    for (expert, rows) in groups(experts, bounds) {
        let id = experts.id(expert);
        let (out_dim, in_dim) = params.matrix_shape(id);
        let n = rows.len();
        let x = Mat::new(&x[rows.start * in_dim..rows.end * in_dim], n, in_dim);
        let [y, dy] =
            [y, dy].map(|all| Mat::new(&all[rows.start * out_dim..rows.end * out_dim], n, out_dim));
        let bias = biases.map(|biases| biases.id(expert));
        let y = linear::Output { y, bias: bias.map(|bias| params.slice(bias)) };
        let dx = MatMut::new(&mut dx[rows.start * in_dim..rows.end * in_dim], n, in_dim);
        let (u, rest) = low_rank.split_at(n * params.rank(id));
        linear::backward(params, id, x, y, dy, dx, accumulate, u, dropout, grads, tasks, floats);
        if let Some(db) = bias.and_then(|bias| grads.slice_mut(bias)) {
            (0..n).for_each(|row| add_assign(db, dy.tile(row, 1, 0..out_dim)));
        }
        low_rank = rest;
    }
}

vectorised! {
    /// `out[i] = weights[entries[i]] · x[i]` for rows of `dim` columns.
    pub(crate) fn scale_rows<'a, S>(
        x: &'a [f32],
        weights: &'a [f32],
        entries: &'a [u32],
        out: &'a mut [f32],
        dim: usize,
    ) {
        for ((x, out), &entry) in x.chunks_exact(dim).zip(out.chunks_exact_mut(dim)).zip(entries) {
            let weight = weights[entry as usize];
            for (out, x) in out.iter_mut().zip(x) {
                *out = weight * x;
            }
        }
    }

    /// Adds to `dx` and `dweights`.
    pub(crate) fn scale_rows_backward<'a, S>(
        x: &'a [f32],
        weights: &'a [f32],
        entries: &'a [u32],
        dout: &'a [f32],
        dx: &'a mut [f32],
        dweights: &'a mut [f32],
        dim: usize,
    ) {
        let rows = x.chunks_exact(dim).zip(dout.chunks_exact(dim)).zip(dx.chunks_exact_mut(dim));
        for (((x, dout), dx), &entry) in rows.zip(entries) {
            let weight = weights[entry as usize];
            for (dx, dout) in dx.iter_mut().zip(dout) {
                *dx += weight * dout;
            }
            dweights[entry as usize] += dot::<S>(dout, x);
        }
    }
}

/// `out[i] = Σ x[order[i·k..(i + 1)·k]]`, summed in this order.
pub(crate) fn sum_rows(x: &[f32], order: &[u32], k: usize, out: &mut [f32], dim: usize) {
    for (out, order) in out.chunks_exact_mut(dim).zip(order.chunks_exact(k)) {
        let (&first, others) = order.split_first().expect("at least one row is summed");
        out.copy_from_slice(&x[first as usize * dim..][..dim]);
        for &row in others {
            add_assign(out, &x[row as usize * dim..][..dim]);
        }
    }
}

/// `dx[order[i·k..(i + 1)·k]] += dout[i]`.
pub(crate) fn sum_rows_backward(dout: &[f32], order: &[u32], k: usize, dx: &mut [f32], dim: usize) {
    for (dout, order) in dout.chunks_exact(dim).zip(order.chunks_exact(k)) {
        for &row in order {
            add_assign(&mut dx[row as usize * dim..][..dim], dout);
        }
    }
}
