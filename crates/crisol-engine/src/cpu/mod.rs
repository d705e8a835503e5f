//! The operations on the CPU: this file moves values in and out, each kernel has a file of its own.
//!
//! Kernels are single-threaded; threads work on different shards. They are plain loops over slices which the
//! compiler vectorises, once per instruction set (see [`math`]), around the matrix products of
//! [`packed`].

// Kernels must inline into the function that is compiled for the instruction set.
#![allow(clippy::inline_always)]

mod attention;
mod embedding;
mod head;
mod mat;
pub(crate) mod math;
pub(crate) mod muon;
mod norm;
pub(crate) mod optimizer;
pub(crate) mod packed;
mod rope;
mod swiglu;

use std::mem::take;

pub(crate) use self::packed::product_rate;

pub(crate) use self::mat::Mat;
use self::mat::MatMut;
use self::packed::{Packed, pack, packed_len, product};
use crate::op::{Op, Value};
use crate::params::Way;
use crate::workspace::{Buffer, Pool};
use crate::{Attention, Grads, KvCache, Params, Var, Workspace};

fn data(values: &[Value], var: Var) -> &[f32] {
    let value = &values[var.0 as usize];
    assert_eq!(value.data.len(), value.rows * value.cols, "a value that was given back is used");
    &value.data
}

/// Takes the data of an output to write to.
fn take_data(values: &mut [Value], var: Var) -> Buffer<f32> {
    take(&mut values[var.0 as usize].data)
}

fn put_data(values: &mut [Value], var: Var, data: Buffer<f32>) {
    values[var.0 as usize].data = data;
}

/// Computes the outputs of an operation (and what it saves for backward).
pub(crate) fn forward(op: &mut Op, params: &Params, workspace: &mut Workspace) {
    let Workspace { floats, values, .. } = workspace;
    match op {
        Op::Embedding { table, ids, out } => {
            let mut y = take_data(values, *out);
            embedding::gather(params.slice(*table), ids, &mut y, values[out.0 as usize].cols);
            put_data(values, *out, y);
        }
        Op::Linear { x, weight, bias, out } => {
            let mut y = take_data(values, *out);
            let (out_dim, in_dim) = params.matrix_shape(*weight);
            let rows = values[x.0 as usize].rows;
            let x = Mat::new(data(values, *x), rows, in_dim);
            product(MatMut::new(&mut y, rows, out_dim), false, 1.0, x, params.packed(*weight, Way::Forward));
            if let Some(bias) = bias {
                for row in y.chunks_exact_mut(out_dim) {
                    math::add_assign(row, params.slice(*bias));
                }
            }
            put_data(values, *out, y);
        }
        Op::Add { x, y, out } => {
            let mut sum = take_data(values, *out);
            math::add(data(values, *x), data(values, *y), &mut sum);
            put_data(values, *out, sum);
        }
        Op::RmsNorm { x, weight, eps, rstd, out } => {
            let mut y = take_data(values, *out);
            norm::forward(data(values, *x), params.slice(*weight), *eps, &mut y, rstd);
            put_data(values, *out, y);
        }
        Op::Rope { x, tables, head_dim, positions, out } => {
            let mut y = take_data(values, *out);
            y.copy_from_slice(data(values, *x));
            rope::rotate(&mut y, tables, *head_dim, positions, rope::Direction::Forward);
            put_data(values, *out, y);
        }
        Op::Attention { q, k, v, shape, offsets, lse, out } => {
            let mut y = take_data(values, *out);
            let [q, k, v] = [*q, *k, *v].map(|var| data(values, var));
            attention::forward(q, k, v, shape, offsets, &mut y, lse, floats);
            put_data(values, *out, y);
        }
        Op::SwiGlu { gate, up, out } => {
            let mut y = take_data(values, *out);
            swiglu::forward(data(values, *gate), data(values, *up), &mut y);
            put_data(values, *out, y);
        }
        Op::SelectRows { x, rows, out } => {
            let mut y = take_data(values, *out);
            embedding::gather(data(values, *x), rows, &mut y, values[out.0 as usize].cols);
            put_data(values, *out, y);
        }
        Op::TokenScores { x, head, targets, scale, with_entropy, lse, logits, logp, entropy } => {
            let mut logp_data = take_data(values, *logp);
            let mut entropy_data = take_data(values, *entropy);
            let head = params.packed(*head, Way::Forward);
            let scores = head::Scores {
                logp: &mut logp_data,
                entropy: &mut entropy_data,
                lse,
                kept_logits: logits,
                with_entropy: *with_entropy,
            };
            head::forward(data(values, *x), head, targets, *scale, scores, floats);
            put_data(values, *logp, logp_data);
            put_data(values, *entropy, entropy_data);
        }
    }
}

/// Adds `grad` to the gradient of a value.
pub(crate) fn add_grad(grads: &mut [Buffer<f32>], var: Var, grad: Buffer<f32>, floats: &mut Pool<f32>) {
    let slot = &mut grads[var.0 as usize];
    if slot.is_empty() {
        floats.give(std::mem::replace(slot, grad));
    } else {
        math::add_assign(slot, &grad);
        floats.give(grad);
    }
}

/// The gradient of a value, to accumulate into, and whether something is there already (else its contents
/// are unspecified).
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

/// Adds to the gradients of an operation's inputs and parameters.
pub(crate) fn backward(op: &mut Op, params: &Params, grads: &mut Grads, workspace: &mut Workspace) {
    let Workspace { floats, values, value_grads, .. } = workspace;
    match op {
        Op::Embedding { table, ids, out } => {
            let dy = &value_grads[out.0 as usize];
            embedding::scatter_add(dy, ids, grads.slice_mut(*table), values[out.0 as usize].cols);
        }
        Op::Linear { x, weight, bias, out } => {
            let dy = take(&mut value_grads[out.0 as usize]);
            let (out_dim, in_dim) = params.matrix_shape(*weight);
            let rows = values[x.0 as usize].rows;
            let dy_mat = Mat::new(&dy, rows, out_dim);
            let w = params.packed(*weight, Way::Backward);
            let (mut dx, accumulate) = take_grad(value_grads, values, *x, floats);
            product(MatMut::new(&mut dx, rows, in_dim), accumulate, 1.0, dy_mat, w);
            value_grads[x.0 as usize] = dx;
            let mut panels = floats.take(packed_len(rows, in_dim));
            pack(Mat::new(data(values, *x), rows, in_dim), &mut panels);
            let dw = MatMut::new(grads.slice_mut(*weight), out_dim, in_dim);
            product(dw, true, 1.0, dy_mat.t(), Packed::new(&panels, rows, in_dim));
            floats.give(panels);
            if let Some(bias) = bias {
                let db = grads.slice_mut(*bias);
                for row in dy.chunks_exact(out_dim) {
                    math::add_assign(db, row);
                }
            }
            floats.give(dy);
        }
        Op::Add { x, y, out } => {
            let dout = take(&mut value_grads[out.0 as usize]);
            let copy = floats.take_copy(&dout);
            add_grad(value_grads, *y, copy, floats);
            add_grad(value_grads, *x, dout, floats);
        }
        Op::RmsNorm { x, weight, rstd, out, .. } => {
            let dy = take(&mut value_grads[out.0 as usize]);
            let (mut dx, accumulate) = take_grad(value_grads, values, *x, floats);
            let dw = grads.slice_mut(*weight);
            norm::backward(data(values, *x), params.slice(*weight), rstd, &dy, &mut dx, accumulate, dw);
            value_grads[x.0 as usize] = dx;
            floats.give(dy);
        }
        Op::Rope { x, tables, head_dim, positions, out } => {
            let mut dx = take(&mut value_grads[out.0 as usize]);
            rope::rotate(&mut dx, tables, *head_dim, positions, rope::Direction::Backward);
            add_grad(value_grads, *x, dx, floats);
        }
        Op::Attention { q, k, v, shape, offsets, lse, out } => {
            let dout = take(&mut value_grads[out.0 as usize]);
            let inputs = [*q, *k, *v];
            let [q, k, v] = inputs.map(|var| data(values, var));
            let mut dq = floats.take(q.len());
            let mut dk = floats.take_zeros(k.len());
            let mut dv = floats.take_zeros(v.len());
            let saved = attention::Saved { q, k, v, out: data(values, *out), lse };
            attention::backward(&saved, shape, offsets, &dout, &mut dq, &mut dk, &mut dv, floats);
            for (var, grad) in inputs.into_iter().zip([dq, dk, dv]) {
                add_grad(value_grads, var, grad, floats);
            }
            floats.give(dout);
        }
        Op::SwiGlu { gate, up, out } => {
            // The gradient of `up` takes the place of the output's.
            let mut dup = take(&mut value_grads[out.0 as usize]);
            let mut dgate = floats.take(dup.len());
            swiglu::backward(data(values, *gate), data(values, *up), &mut dup, &mut dgate);
            add_grad(value_grads, *gate, dgate, floats);
            add_grad(value_grads, *up, dup, floats);
        }
        Op::SelectRows { x, rows, out } => {
            let dy = take(&mut value_grads[out.0 as usize]);
            let (mut dx, accumulate) = take_grad(value_grads, values, *x, floats);
            if !accumulate {
                dx.fill(0.0);
            }
            embedding::scatter_add(&dy, rows, &mut dx, values[x.0 as usize].cols);
            value_grads[x.0 as usize] = dx;
            floats.give(dy);
        }
        Op::TokenScores { x, head, targets, scale, with_entropy, lse, logits, logp, entropy } => {
            let dlogp = take(&mut value_grads[logp.0 as usize]);
            let dentropy = take(&mut value_grads[entropy.0 as usize]);
            assert!(
                *with_entropy || dentropy.is_empty(),
                "a gradient of an entropy that was not asked for would be lost"
            );
            let (mut dx, accumulate) = take_grad(value_grads, values, *x, floats);
            let saved = head::Saved {
                x: data(values, *x),
                head: params.packed(*head, Way::Backward),
                transposed_head: (logits.is_empty()).then(|| params.packed(*head, Way::Forward)),
                targets,
                scale: *scale,
                lse,
                entropy: data(values, *entropy),
            };
            let dhead = grads.slice_mut(*head);
            head::backward(&saved, logits, &dlogp, &dentropy, &mut dx, accumulate, dhead, floats);
            value_grads[x.0 as usize] = dx;
            floats.give(dlogp);
            floats.give(dentropy);
        }
    }
}

/// Attention over a cache, see [`crate::Tape::attention_cached`]. `vars` are q, k, v and the output.
pub(crate) fn attention_cached(
    vars: [Var; 4],
    shape: &Attention,
    offsets: &[u32],
    cache: &mut KvCache,
    slots: &[usize],
    layer: usize,
    workspace: &mut Workspace,
) {
    let Workspace { floats, values, .. } = workspace;
    let [q, k, v, out] = vars;
    let mut y = take_data(values, out);
    let [q, k, v] = [q, k, v].map(|var| data(values, var));
    attention::cached(q, k, v, shape, offsets, cache, slots, layer, &mut y, floats);
    put_data(values, out, y);
}
