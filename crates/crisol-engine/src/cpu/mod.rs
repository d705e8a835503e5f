//! The operations on the CPU. This file dispatches; each kernel has a file of its own.
//!
//! Kernels are loops over slices, vectorised by the compiler once per instruction set ([`math`]),
//! around the GEMM of [`gemm`]. With enough shards each thread works on its own. With fewer,
//! threads share a shard's GEMMs ([`gemm::parallel_gemm`]) and heads ([`parallel_attention`]); the
//! rest of a shard, about 1 % of the work, runs on one thread.
//!
//! The definition of every operation as plain loops is in `reference.rs`, which the tests compare
//! with.

// Kernels must inline into the function that is compiled for the instruction set.
#![allow(clippy::inline_always)]

mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod concat_heads;
mod contract;
mod device;
mod dora;
mod draw;
mod dropout;
mod embedding;
mod experts;
mod formats;
mod gemm;
mod gemm_bf16;
mod kv_cache;
mod lanes;
mod layer_norm;
mod linear;
mod mat;
mod math;
mod muon;
mod norm;
mod optimizer;
mod packed;
mod parallel;
mod parallel_attention;
mod params;
mod quantised;
#[cfg(test)]
mod reference;
mod rope;
mod tiles;
mod token_scores;
mod values;
mod weights;

use std::mem::take;

pub(crate) use self::device::Cpu;
pub(crate) use self::params::would_cache_packed;

use self::gemm::parallel_gemm;
use self::kv_cache::Cache;
use self::mat::{Mat, MatMut};
use self::packed::PackedBuffer;
use self::parallel::for_rows;
use self::params::{Grads, Orientation, Params};
use self::quantised::dequantise;
use self::values::{Kept, Value, Values, data};
use self::weights::Weight;
use crate::backend::Pass;
use crate::buffer::{Buffer, Pool};
use crate::dropout::Dropout;
use crate::layout::{Adapter, ParamId};
use crate::op::{Attention, HeadSlice, Op, Var};
use crate::precision::Precision;
use crate::rope::RopeTables;

/// Forward keeps the logits of a shard up to this number (64 MiB). Backward then needs two GEMMs
/// with the head instead of three, because it does not compute the logits again.
pub const MAX_SAVED_LOGITS: usize = 16 << 20;

/// Takes the data of an output to write to.
fn take_data(values: &mut [Value], var: Var) -> Buffer<f32> {
    take(&mut values[var.0 as usize].data)
}

fn put_data(values: &mut [Value], var: Var, data: Buffer<f32>) {
    values[var.0 as usize].data = data;
}

/// Computes the outputs of an operation, and what its backward needs besides.
fn forward(
    cpu: &Cpu,
    op: &Op,
    params: &Params,
    memory: &mut Values,
    tasks: usize,
    pass: Pass,
) -> Kept {
    let Values { floats, matrices: values, .. } = memory;
    let mut kept = Kept::Nothing;
    match op {
        Op::Embedding { table, ids, out } => {
            let mut y = take_data(values, *out);
            let cols = values[out.0 as usize].cols;
            match params.quantised(*table) {
                None => embedding::gather(params.slice(*table), ids, &mut y, cols),
                Some(table) => {
                    for (&id, y) in ids.iter().zip(y.chunks_exact_mut(cols)) {
                        dequantise(table, id as usize..id as usize + 1, y, floats);
                    }
                }
            }
            put_data(values, *out, y);
        }
        // GEMMs take most of the time. Nobody reads the result once a stop is requested.
        Op::Linear { .. } if cpu.interrupt().requested() => {}
        Op::Linear { x, weight, bias, out } => {
            let mut y = take_data(values, *out);
            let (out_dim, in_dim) = params.matrix_shape(*weight);
            let rows = values[x.0 as usize].rows;
            let mut low_rank = floats.take(rows * params.rank(*weight));
            let x = Mat::new(data(values, *x), rows, in_dim);
            let y_mat = MatMut::new(&mut y, rows, out_dim);
            linear::forward(params, *weight, x, y_mat, &mut low_rank, pass, tasks, floats);
            kept = Kept::LowRank(low_rank);
            if let Some(bias) = bias {
                for row in y.chunks_exact_mut(out_dim) {
                    math::add_assign(row, params.slice(*bias));
                }
            }
            put_data(values, *out, y);
        }
        Op::Add { x, y, out } => {
            let mut sum = take_data(values, *out);
            let (x, y) = (data(values, *x), data(values, *y));
            for_rows(tasks, 0..sum.len(), [1], [&mut sum], &|part, [sum]| {
                math::add(&x[part.clone()], &y[part], sum);
            });
            put_data(values, *out, sum);
        }
        Op::RmsNorm { x, weight, plus_one, group, eps, out } => {
            let mut y = take_data(values, *out);
            let mut rstd = floats.take(y.len() / group);
            let own = weight.map(|weight| params.slice(weight));
            let factors = norm_factors(own, *plus_one, *group, floats);
            let x = data(values, *x);
            let weight = own.filter(|_| !plus_one).unwrap_or(&factors);
            let n = *group;
            for_rows(tasks, 0..rstd.len(), [n, 1], [&mut y, &mut rstd], &|groups, [y, rstd]| {
                norm::forward(&x[groups.start * n..groups.end * n], weight, *eps, y, rstd);
            });
            floats.give(factors);
            kept = Kept::Rstd(rstd);
            put_data(values, *out, y);
        }
        Op::LayerNorm { x, weight, bias, eps, out } => {
            let mut y = take_data(values, *out);
            let (x, n) = (data(values, *x), values[out.0 as usize].cols);
            let mut stats = floats.take(2 * values[out.0 as usize].rows);
            let (weight, bias) =
                (params.slice(*weight), bias.map_or(&[][..], |bias| params.slice(bias)));
            let (rows, parts) = (0..stats.len() / 2, [&mut *y, &mut *stats]);
            for_rows(tasks, rows, [n, 2], parts, &|rows, [y, stats]| {
                let x = &x[rows.start * n..rows.end * n];
                layer_norm::forward(x, weight, bias, *eps, y, stats);
            });
            kept = Kept::RowStats(stats);
            put_data(values, *out, y);
        }
        Op::Scale { x, factor, out } => {
            let mut y = take_data(values, *out);
            let x = data(values, *x);
            for_rows(tasks, 0..y.len(), [1], [&mut y], &|part, [y]| {
                math::scale(&x[part], *factor, y);
            });
            put_data(values, *out, y);
        }
        Op::SoftCap { x, cap, out } => {
            let mut y = take_data(values, *out);
            y.copy_from_slice(data(values, *x));
            for_rows(tasks, 0..y.len(), [1], [&mut y], &|_, [y]| math::softcap(y, *cap));
            put_data(values, *out, y);
        }
        Op::Rope { x, tables, head_dim, positions, out } => {
            let mut y = take_data(values, *out);
            y.copy_from_slice(data(values, *x));
            rotate(&mut y, tables, *head_dim, positions, rope::Direction::Forward, tasks);
            put_data(values, *out, y);
        }
        Op::Attention { q, k, v, shape, offsets, out } => {
            let mut y = take_data(values, *out);
            let mut lse = floats.take(values[q.0 as usize].rows * shape.heads);
            let [q, k, v] = [*q, *k, *v].map(|var| data(values, var));
            let sinks = sinks(params, shape);
            if tasks > 1 {
                let inputs = [q, k, v];
                parallel_attention::forward(
                    cpu, inputs, shape, sinks, offsets, &mut y, &mut lse, floats,
                );
            } else {
                attention::forward(q, k, v, shape, sinks, offsets, &mut y, &mut lse, cpu, floats);
            }
            kept = Kept::Lse(lse);
            put_data(values, *out, y);
        }
        Op::Gated { gate, up, activation, out } => {
            let mut y = take_data(values, *out);
            let (gate, up) = (data(values, *gate), data(values, *up));
            for_rows(tasks, 0..y.len(), [1], [&mut y], &|part, [y]| {
                activation::gated_forward(*activation, &gate[part.clone()], &up[part], y);
            });
            put_data(values, *out, y);
        }
        Op::Gelu { x, out } => {
            let mut y = take_data(values, *out);
            let x = data(values, *x);
            for_rows(tasks, 0..y.len(), [1], [&mut y], &|part, [y]| {
                activation::gelu_forward(&x[part], y);
            });
            put_data(values, *out, y);
        }
        Op::SelectRows { x, rows, out } => {
            let mut y = take_data(values, *out);
            embedding::gather(data(values, *x), rows, &mut y, values[out.0 as usize].cols);
            put_data(values, *out, y);
        }
        Op::ConcatHeads { parts, heads, out } => {
            let mut y = take_data(values, *out);
            let width = values[out.0 as usize].cols / *heads;
            for (part, first) in with_offsets(*parts) {
                concat_heads::copy(part, data(values, part.x), &mut y, *heads, first, width);
            }
            put_data(values, *out, y);
        }
        Op::Router { logits, router, chosen, out } => {
            let mut weights = take_data(values, *out);
            let experts = values[logits.0 as usize].cols;
            experts::route(*router, data(values, *logits), experts, chosen, &mut weights);
            put_data(values, *out, weights);
        }
        Op::GroupedLinear { x, experts, biases, bounds, out } => {
            let mut y = take_data(values, *out);
            let x = data(values, *x);
            let mut low_rank = floats.take(experts::low_rank_len(params, *experts, bounds));
            experts::forward(
                params,
                *experts,
                *biases,
                bounds,
                x,
                &mut y,
                &mut low_rank,
                pass,
                tasks,
                floats,
            );
            kept = Kept::LowRank(low_rank);
            put_data(values, *out, y);
        }
        Op::ScaleRows { x, weights, entries, out } => {
            let mut y = take_data(values, *out);
            let dim = values[x.0 as usize].cols;
            experts::scale_rows(data(values, *x), data(values, *weights), entries, &mut y, dim);
            put_data(values, *out, y);
        }
        Op::SumRows { x, order, k, out } => {
            let mut y = take_data(values, *out);
            experts::sum_rows(data(values, *x), order, *k, &mut y, values[x.0 as usize].cols);
            put_data(values, *out, y);
        }
        Op::TokenScores { x, head, targets, scale, softcap, with_entropy, logp, entropy } => {
            let mut logp_data = take_data(values, *logp);
            let mut entropy_data = take_data(values, *entropy);
            let (rows, (vocab, _)) = (targets.len(), params.matrix_shape(*head));
            let keep_logits = pass.keeps && rows * vocab <= MAX_SAVED_LOGITS;
            let mut lse = floats.take(rows);
            let mut logits = floats.take(if keep_logits { rows * vocab } else { 0 });
            let head = Weight::forward(params, *head, rows, pass);
            let scores = token_scores::Outputs {
                logp: &mut logp_data,
                entropy: &mut entropy_data,
                lse: &mut lse,
                saved_logits: &mut logits,
                with_entropy: *with_entropy,
            };
            token_scores::forward(
                data(values, *x),
                head,
                targets,
                *scale,
                *softcap,
                scores,
                tasks,
                cpu,
                floats,
            );
            kept = Kept::Scores { lse, logits };
            put_data(values, *logp, logp_data);
            put_data(values, *entropy, entropy_data);
        }
    }
    kept
}

/// The sinks of attention's heads; empty if there are none.
fn sinks<'a>(params: &'a Params, shape: &Attention) -> &'a [f32] {
    shape.sinks.map_or(&[], |id| params.slice(id))
}

/// Factors of a norm that are not a weight as it is: ones without one, or one more than it. Empty
/// if the weight itself serves.
fn norm_factors(
    weight: Option<&[f32]>,
    plus_one: bool,
    n: usize,
    floats: &mut Pool<f32>,
) -> Buffer<f32> {
    let mut factors = ones_unless(weight.is_some() && !plus_one, n, floats);
    if let (Some(weight), true) = (weight, plus_one) {
        math::add_assign(&mut factors, weight);
    }
    factors
}

/// `n` ones; empty if they are not needed.
fn ones_unless(needless: bool, n: usize, floats: &mut Pool<f32>) -> Buffer<f32> {
    let mut ones = floats.take(if needless { 0 } else { n });
    ones.fill(1.0);
    ones
}

/// Rotates rows by their positions, in `tasks` tasks.
fn rotate(
    x: &mut [f32],
    tables: &RopeTables,
    head_dim: usize,
    positions: &[u32],
    direction: rope::Direction,
    tasks: usize,
) {
    let cols = x.len().checked_div(positions.len()).unwrap_or(0);
    for_rows(tasks, 0..positions.len(), [cols], [x], &|rows, [x]| {
        rope::rotate(x, tables, head_dim, &positions[rows], direction);
    });
}

/// Adds `grad` to the gradient of a value.
pub(crate) fn add_grad(
    grads: &mut [Buffer<f32>],
    var: Var,
    grad: Buffer<f32>,
    floats: &mut Pool<f32>,
) {
    let slot = &mut grads[var.0 as usize];
    if slot.is_empty() {
        floats.give(std::mem::replace(slot, grad));
    } else {
        math::add_assign(slot, &grad);
        floats.give(grad);
    }
}

/// The gradient buffer of a value, and whether it already holds a gradient to accumulate into. If
/// not, its contents are unspecified.
fn take_grad(
    grads: &mut [Buffer<f32>],
    values: &[Value],
    var: Var,
    floats: &mut Pool<f32>,
) -> (Buffer<f32>, bool) {
    let grad = take(&mut grads[var.0 as usize]);
    if grad.is_empty() {
        floats.give(grad);
        let value = &values[var.0 as usize];
        (floats.take(value.rows * value.cols), false)
    } else {
        (grad, true)
    }
}

/// The gradient of a value, zeroed if it had none.
fn take_zeroed_grad(
    grads: &mut [Buffer<f32>],
    values: &[Value],
    var: Var,
    floats: &mut Pool<f32>,
) -> Buffer<f32> {
    let (mut grad, accumulate) = take_grad(grads, values, var, floats);
    if !accumulate {
        grad.fill(0.0);
    }
    grad
}

/// The slices of a head with their first columns in the result.
fn with_offsets(parts: [Option<HeadSlice>; 2]) -> impl Iterator<Item = (HeadSlice, usize)> {
    let after = parts[0].map_or(0, |part| part.width);
    parts.into_iter().zip([0, after]).filter_map(|(part, first)| Some((part?, first)))
}

/// Adds to the gradients of an operation's inputs and parameters. Returns what it kept.
fn backward(
    cpu: &Cpu,
    op: &Op,
    mut kept: Kept,
    params: &Params,
    grads: &mut Grads,
    memory: &mut Values,
    tasks: usize,
    dropout: Option<Dropout>,
) -> Kept {
    let Values { floats, matrices: values, grads: value_grads, .. } = memory;
    match (op, &mut kept) {
        (Op::Embedding { table, ids, out }, _) => {
            if let Some(dtable) = grads.slice_mut(*table) {
                let dy = &value_grads[out.0 as usize];
                embedding::scatter_add(dy, ids, dtable, values[out.0 as usize].cols);
            }
        }
        (Op::Linear { x, weight, bias, out }, Kept::LowRank(low_rank)) => {
            let dy = take(&mut value_grads[out.0 as usize]);
            let (out_dim, in_dim) = params.matrix_shape(*weight);
            let rows = values[x.0 as usize].rows;
            let (mut dx, accumulate) = take_grad(value_grads, values, *x, floats);
            let x_mat = Mat::new(data(values, *x), rows, in_dim);
            let dy_mat = Mat::new(&dy, rows, out_dim);
            let dx_mat = MatMut::new(&mut dx, rows, in_dim);
            let y = linear::Output {
                y: Mat::new(data(values, *out), rows, out_dim),
                bias: bias.map(|bias| params.slice(bias)),
            };
            linear::backward(
                params, *weight, x_mat, y, dy_mat, dx_mat, accumulate, low_rank, dropout, grads,
                tasks, floats,
            );
            value_grads[x.0 as usize] = dx;
            if let Some(db) = bias.and_then(|bias| grads.slice_mut(bias)) {
                for row in dy.chunks_exact(out_dim) {
                    math::add_assign(db, row);
                }
            }
            floats.give(dy);
        }
        (Op::Add { x, y, out }, _) => {
            let dout = take(&mut value_grads[out.0 as usize]);
            let copy = floats.take_copy(&dout);
            add_grad(value_grads, *y, copy, floats);
            add_grad(value_grads, *x, dout, floats);
        }
        (Op::RmsNorm { x, weight, plus_one, group, out, .. }, Kept::Rstd(rstd)) => {
            let dy = take(&mut value_grads[out.0 as usize]);
            let (mut dx, accumulate) = take_grad(value_grads, values, *x, floats);
            let own = weight.map(|weight| params.slice(weight));
            let factors = norm_factors(own, *plus_one, *group, floats);
            // Without a trained weight, its gradient is computed and dropped.
            let trained = weight.and_then(|weight| grads.slice_mut(weight));
            let mut unused = ones_unless(trained.is_some(), *group, floats);
            let dw = trained.unwrap_or(&mut unused);
            let w = own.filter(|_| !plus_one).unwrap_or(&factors);
            norm::backward(data(values, *x), w, rstd, &dy, &mut dx, accumulate, dw);
            value_grads[x.0 as usize] = dx;
            for buffer in [dy, factors, unused] {
                floats.give(buffer);
            }
        }
        (Op::LayerNorm { x, weight, bias, out, .. }, Kept::RowStats(stats)) => {
            let dy = take(&mut value_grads[out.0 as usize]);
            let (mut dx, accumulate) = take_grad(value_grads, values, *x, floats);
            let n = values[out.0 as usize].cols;
            let mut dw = floats.take_zeros(n);
            let mut db = floats.take_zeros(n);
            let (x_data, w) = (data(values, *x), params.slice(*weight));
            layer_norm::backward(x_data, w, stats, &dy, &mut dx, accumulate, &mut dw, &mut db);
            for (id, grad) in [(Some(*weight), &dw), (*bias, &db)] {
                if let Some(sum) = id.and_then(|id| grads.slice_mut(id)) {
                    math::add_assign(sum, grad);
                }
            }
            value_grads[x.0 as usize] = dx;
            for buffer in [dy, dw, db] {
                floats.give(buffer);
            }
        }
        (Op::Scale { x, factor, out }, _) => {
            let mut dx = take(&mut value_grads[out.0 as usize]);
            math::scale_by(&mut dx, *factor);
            add_grad(value_grads, *x, dx, floats);
        }
        (Op::SoftCap { x, cap, out }, _) => {
            let mut dx = take(&mut value_grads[out.0 as usize]);
            math::softcap_backward(data(values, *out), *cap, &mut dx);
            add_grad(value_grads, *x, dx, floats);
        }
        (Op::Rope { x, tables, head_dim, positions, out }, _) => {
            let mut dx = take(&mut value_grads[out.0 as usize]);
            rotate(&mut dx, tables, *head_dim, positions, rope::Direction::Backward, tasks);
            add_grad(value_grads, *x, dx, floats);
        }
        (Op::Attention { q, k, v, shape, offsets, out }, Kept::Lse(lse)) => {
            let dout = take(&mut value_grads[out.0 as usize]);
            let inputs = [*q, *k, *v];
            let [q, k, v] = inputs.map(|var| data(values, var));
            let mut dq = floats.take(q.len());
            let mut dk = floats.take_zeros(k.len());
            let mut dv = floats.take_zeros(v.len());
            let saved = attention::Saved { q, k, v, out: data(values, *out), lse };
            if tasks > 1 {
                let grads = [&mut dq, &mut dk, &mut dv].map(|grad| &mut **grad);
                parallel_attention::backward(cpu, &saved, shape, offsets, &dout, grads, floats);
            } else {
                attention::backward(
                    &saved, shape, offsets, &dout, &mut dq, &mut dk, &mut dv, cpu, floats,
                );
            }
            if let Some(dsinks) = shape.sinks.and_then(|id| grads.slice_mut(id)) {
                let sinks = sinks(params, shape);
                attention::sink_gradient(sinks, saved.lse, saved.out, &dout, dsinks);
            }
            for (var, grad) in inputs.into_iter().zip([dq, dk, dv]) {
                add_grad(value_grads, var, grad, floats);
            }
            floats.give(dout);
        }
        (Op::Gated { gate, up, activation, out }, _) => {
            // The gradient of `up` overwrites the output's.
            let mut dup = take(&mut value_grads[out.0 as usize]);
            let mut dgate = floats.take(dup.len());
            let (gate_data, up_data) = (data(values, *gate), data(values, *up));
            for_rows(tasks, 0..dup.len(), [1, 1], [&mut dup, &mut dgate], &|part, [dup, dgate]| {
                let (gate, up) = (&gate_data[part.clone()], &up_data[part]);
                activation::gated_backward(*activation, gate, up, dup, dgate);
            });
            add_grad(value_grads, *gate, dgate, floats);
            add_grad(value_grads, *up, dup, floats);
        }
        (Op::Gelu { x, out }, _) => {
            let mut dx = take(&mut value_grads[out.0 as usize]);
            let x_data = data(values, *x);
            for_rows(tasks, 0..dx.len(), [1], [&mut dx], &|part, [dx]| {
                activation::gelu_backward(&x_data[part], dx);
            });
            add_grad(value_grads, *x, dx, floats);
        }
        (Op::SelectRows { x, rows, out }, _) => {
            let dy = take(&mut value_grads[out.0 as usize]);
            let mut dx = take_zeroed_grad(value_grads, values, *x, floats);
            embedding::scatter_add(&dy, rows, &mut dx, values[x.0 as usize].cols);
            value_grads[x.0 as usize] = dx;
            floats.give(dy);
        }
        (Op::ConcatHeads { parts, heads, out }, _) => {
            let dout = take(&mut value_grads[out.0 as usize]);
            let width = values[out.0 as usize].cols / *heads;
            for (part, first) in with_offsets(*parts) {
                let mut dx = take_zeroed_grad(value_grads, values, part.x, floats);
                concat_heads::add_back(part, &dout, &mut dx, *heads, first, width);
                value_grads[part.x.0 as usize] = dx;
            }
            floats.give(dout);
        }
        (Op::Router { logits, router, chosen, out }, _) => {
            let dweights = take(&mut value_grads[out.0 as usize]);
            let mut dlogits = take_zeroed_grad(value_grads, values, *logits, floats);
            let experts = values[logits.0 as usize].cols;
            let logits_data = data(values, *logits);
            experts::route_backward(
                *router,
                logits_data,
                experts,
                chosen,
                &dweights,
                &mut dlogits,
                floats,
            );
            value_grads[logits.0 as usize] = dlogits;
            floats.give(dweights);
        }
        (Op::GroupedLinear { x, experts, biases, bounds, out }, Kept::LowRank(low_rank)) => {
            let dy = take(&mut value_grads[out.0 as usize]);
            let (mut dx, accumulate) = take_grad(value_grads, values, *x, floats);
            let (x_data, y) = (data(values, *x), data(values, *out));
            experts::backward(
                params, *experts, *biases, bounds, x_data, y, &dy, &mut dx, accumulate, low_rank,
                dropout, grads, tasks, floats,
            );
            value_grads[x.0 as usize] = dx;
            floats.give(dy);
        }
        (Op::ScaleRows { x, weights, entries, out }, _) => {
            let dout = take(&mut value_grads[out.0 as usize]);
            let mut dx = take_zeroed_grad(value_grads, values, *x, floats);
            let mut dweights = take_zeroed_grad(value_grads, values, *weights, floats);
            let dim = values[x.0 as usize].cols;
            let (x_data, weights_data) = (data(values, *x), data(values, *weights));
            experts::scale_rows_backward(
                x_data,
                weights_data,
                entries,
                &dout,
                &mut dx,
                &mut dweights,
                dim,
            );
            value_grads[x.0 as usize] = dx;
            value_grads[weights.0 as usize] = dweights;
            floats.give(dout);
        }
        (Op::SumRows { x, order, k, out }, _) => {
            let dout = take(&mut value_grads[out.0 as usize]);
            let mut dx = take_zeroed_grad(value_grads, values, *x, floats);
            experts::sum_rows_backward(&dout, order, *k, &mut dx, values[x.0 as usize].cols);
            value_grads[x.0 as usize] = dx;
            floats.give(dout);
        }
        (
            Op::TokenScores { x, head, targets, scale, softcap, with_entropy, logp, entropy },
            Kept::Scores { lse, logits },
        ) => {
            let dlogp = take(&mut value_grads[logp.0 as usize]);
            let dentropy = take(&mut value_grads[entropy.0 as usize]);
            assert!(
                *with_entropy || dentropy.is_empty(),
                "a gradient of an entropy that was not requested would be lost"
            );
            let (mut dx, accumulate) = take_grad(value_grads, values, *x, floats);
            let weight = |orientation| Weight::new(params, *head, orientation);
            let saved = token_scores::Saved {
                x: data(values, *x),
                head: weight(Orientation::Normal),
                transposed_head: logits.is_empty().then(|| weight(Orientation::Transposed)),
                targets,
                scale: *scale,
                softcap: *softcap,
                lse,
                entropy: data(values, *entropy),
            };
            let dhead = grads.slice_mut(*head);
            token_scores::backward(
                &saved, logits, &dlogp, &dentropy, &mut dx, accumulate, dhead, tasks, cpu, floats,
            );
            value_grads[x.0 as usize] = dx;
            floats.give(dlogp);
            floats.give(dentropy);
        }
        (op, kept) => unreachable!("{op:?} does not keep {kept:?}"),
    }
    kept
}

/// `dst += factor · a · b` in f32, with `a` `[rows, inner]` and `b` `[inner, cols]`, on one thread.
pub(crate) fn add_product(
    dst: &mut [f32],
    [rows, inner, cols]: [usize; 3],
    factor: f32,
    a: &[f32],
    b: &[f32],
) {
    let mut floats = Pool::default();
    let panels = PackedBuffer::new(Precision::F32, 1, Mat::new(b, inner, cols), &mut floats);
    let (dst, a) = (MatMut::new(dst, rows, cols), Mat::new(a, rows, inner));
    parallel_gemm(1, dst, true, factor, a, panels.as_operand(), &mut floats);
}

/// See [`crate::Tape::per_head_matmul`].
fn per_head_matmul(
    x: Var,
    params: &Params,
    weight: ParamId,
    group: usize,
    rows: std::ops::Range<usize>,
    transposed: bool,
    out: Var,
    memory: &mut Values,
    tasks: usize,
) {
    let Values { floats, matrices: values, .. } = memory;
    let mut y = take_data(values, out);
    let (n, stride) = (values[x.0 as usize].rows, values[x.0 as usize].cols);
    let x = data(values, x);
    let (out_dim, in_dim) = params.matrix_shape(weight);
    let heads = out_dim / group;
    let (from, to) = (stride / heads, y.len() / n.max(1) / heads);
    let (quantised, adapter) = (params.quantised(weight), params.adapter(weight));
    // Such a weight is computed, head by head.
    let computed = quantised.is_some() || adapter.is_some();
    let precision = params.precision();
    // Rows of a packed operand are the inner dimension and can be cut anywhere, in bf16 between
    // pairs; columns at panels only.
    let between_pairs = [group, rows.start, rows.end].iter().all(|row| row.is_multiple_of(2));
    let cut_anywhere = precision == Precision::F32 || between_pairs;
    let cached = (!transposed && !computed && cut_anywhere)
        .then(|| params.packed(weight, Orientation::Normal));
    let mut dense = floats.take(if computed { rows.len() * in_dim } else { 0 });
    for head in 0..heads {
        let rows = head * group + rows.start..head * group + rows.end;
        let left = Mat::strided(&x[head * from..], n, from, stride);
        let result = MatMut::strided(&mut y[head * to..], n, to, heads * to);
        if let Some(cached) = cached {
            parallel_gemm(tasks, result, false, 1.0, left, cached.rows(rows), floats);
            continue;
        }
        let right = if computed {
            match quantised {
                Some(matrix) => dequantise(matrix, rows.clone(), &mut dense, floats),
                None => dense
                    .copy_from_slice(&params.slice(weight)[rows.start * in_dim..rows.end * in_dim]),
            }
            if let Some(Adapter { a, b, scale, .. }) = adapter {
                let rank = params.rank(weight);
                let b = &params.slice(b)[rows.start * rank..rows.end * rank];
                add_product(&mut dense, [rows.len(), rank, in_dim], scale, b, params.slice(a));
            }
            if let Some(gains) = params.gains(weight) {
                dora::scale_weight(&mut dense, in_dim, &gains[rows.clone()]);
            }
            Mat::new(&dense, rows.len(), in_dim)
        } else {
            params.right_operand(weight, Orientation::Normal).rows(rows)
        };
        let right = if transposed { right.t() } else { right };
        let panels = PackedBuffer::new(precision, tasks, right, floats);
        parallel_gemm(tasks, result, false, 1.0, left, panels.as_operand(), floats);
        panels.recycle(floats);
    }
    floats.give(dense);
    put_data(values, out, y);
}

/// Multiply-adds of attention over a cache below which a second thread does not pay.
const MIN_PARALLEL_ATTENTION: usize = 1 << 16;

/// See [`crate::Tape::attention_cached`]. `vars` are q, k, v and the output.
fn attention_cached(
    cpu: &Cpu,
    vars: [Var; 4],
    params: &Params,
    shape: &Attention,
    offsets: &[u32],
    cache: &mut Cache,
    slots: &[usize],
    past: &[u32],
    layer: usize,
    chunk: Option<usize>,
    memory: &mut Values,
    tasks: usize,
) {
    let Values { floats, matrices: values, .. } = memory;
    let [q, k, v, out] = vars;
    let mut y = take_data(values, out);
    let [q, k, v] = [q, k, v].map(|var| data(values, var));
    let (k_dim, v_dim) = (cache.k_dim, cache.v_dim);
    let documents = offsets.windows(2).map(|document| document[0] as usize..document[1] as usize);
    for ((rows, &slot), &start) in documents.zip(slots).zip(past) {
        let (k, v) =
            (&k[rows.start * k_dim..rows.end * k_dim], &v[rows.start * v_dim..rows.end * v_dim]);
        cache.write(layer, slot, start as usize, k, v);
    }
    let sinks = sinks(params, shape);
    let cached =
        attention::Cached { q, shape, sinks, offsets, cache, slots, past, layer, chunk, cpu };
    if tasks > 1 && cached.macs() >= MIN_PARALLEL_ATTENTION {
        parallel_attention::cached(cpu, &cached, &mut y, floats);
    } else {
        cached.attend_all(&mut y, floats);
    }
    put_data(values, out, y);
}
