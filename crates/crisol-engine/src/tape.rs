//! A tape records the forward operations of one shard and plays their backward in reverse.
//!
//! It borrows the parameters for one pass and its memory from a [`Workspace`], which gets everything back when
//! the tape is dropped. A tape made with [`Tape::inference`] records nothing and cannot go backward.

use std::borrow::Cow;

use crate::{Grads, KvCache, ParamId, Params, Rope, Workspace};

/// Handle of a value on a tape: a matrix `[rows, cols]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Var(u32);

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

/// See the module's text.
#[derive(Debug)]
pub struct Tape<'a> {
    _params: &'a Params,
    _workspace: &'a mut Workspace,
}

impl<'a> Tape<'a> {
    /// A tape that can go backward.
    pub fn training(_params: &'a Params, _workspace: &'a mut Workspace) -> Tape<'a> {
        todo!()
    }
    /// A tape for generation and evaluation.
    pub fn inference(_params: &'a Params, _workspace: &'a mut Workspace) -> Tape<'a> {
        todo!()
    }
    /// The parameters in use.
    pub fn params(&self) -> &'a Params {
        todo!()
    }
    /// `[rows, cols]` of a value.
    pub fn shape(&self, _x: Var) -> (usize, usize) {
        todo!()
    }
    /// Rows `ids` of the table `[vocab, dim]` → `[ids.len(), dim]`. Ids must be below vocab (checked by the model).
    pub fn embedding(&mut self, _table: ParamId, _ids: &[u32]) -> Var {
        todo!()
    }
    /// `x · Wᵀ (+ b)`: `[n, in]` → `[n, out]` for a weight `[out, in]`.
    pub fn linear(&mut self, _x: Var, _weight: ParamId, _bias: Option<ParamId>) -> Var {
        todo!()
    }
    /// Element-wise sum of two values of equal shape (residual connections).
    pub fn add(&mut self, _x: Var, _y: Var) -> Var {
        todo!()
    }
    /// Root-mean-square norm over each group of `weight.len()` columns (Zhang & Sennrich 2019, arXiv:1910.07467):
    /// the whole row for a layer norm, each head for a per-head QK-norm. Computed as transformers does.
    pub fn rms_norm(&mut self, _x: Var, _weight: ParamId, _eps: f32) -> Var {
        todo!()
    }
    /// Rotates every head of `head_dim` columns of row `r` by `positions[r]`.
    pub fn rope(&mut self, _x: Var, _rope: &Rope, _head_dim: usize, _positions: &[u32]) -> Var {
        todo!()
    }
    /// Causal attention within each document; documents are the row ranges `offsets[i]..offsets[i+1]`.
    /// q `[n, heads·qk_dim]`, k `[n, kv_heads·qk_dim]`, v `[n, kv_heads·v_dim]` → `[n, heads·v_dim]`.
    /// Never materialises the T×T scores (Dao et al. 2022, arXiv:2205.14135).
    pub fn attention(&mut self, _q: Var, _k: Var, _v: Var, _shape: Attention, _offsets: &[u32]) -> Var {
        todo!()
    }
    /// Inference only: appends the new rows of k and v of document `i` to slot `slots[i]` of `layer` and lets its
    /// new queries attend to everything the slot then holds. One operation for prefill and for decode.
    /// The slot's length counts from the last layer of the forward pass on (`layer == layers - 1`).
    pub fn attention_cached(
        &mut self,
        _q: Var,
        _k: Var,
        _v: Var,
        _shape: Attention,
        _offsets: &[u32],
        _cache: &mut KvCache,
        _slots: &[usize],
        _layer: usize,
    ) -> Var {
        todo!()
    }
    /// `silu(gate) ⊙ up` (Shazeer 2020, arXiv:2002.05202).
    pub fn swiglu(&mut self, _gate: Var, _up: Var) -> Var {
        todo!()
    }
    /// The given rows of `x`, in this order (rows may not repeat) → `[rows.len(), cols]`.
    pub fn select_rows(&mut self, _x: Var, _rows: &[u32]) -> Var {
        todo!()
    }
    /// Log-probability of `targets[r]` under `softmax(scale · x[r]·Wᵀ)`, and the entropy of that distribution,
    /// as two values `[n, 1]`. Fused over vocabulary chunks in forward and backward: logits are never stored whole.
    /// `logit_scale` is 1/temperature. Entropy is computed (and differentiable) only if asked for, else zeros.
    pub fn token_scores(&mut self, _x: Var, _head: ParamId, _targets: &[u32], _logit_scale: f32, _entropy: bool) -> (Var, Var) {
        todo!()
    }
    /// Inference only: whole logits `[n, vocab]`, for the few rows that are sampled from.
    pub fn logits(&mut self, _x: Var, _head: ParamId) -> Var {
        todo!()
    }
    /// The value's numbers on the host, row-major (borrowed where the device is the host).
    pub fn read(&self, _x: Var) -> Cow<'_, [f32]> {
        todo!()
    }
    /// Inference only: gives back the memory of every value but `keep` (between layers). No-op while training.
    pub fn keep_only(&mut self, _keep: Var) {}

    /// Plays the tape backward from the given seeds `(value, dL/dvalue)` and adds every parameter's gradient to
    /// `grads`. Panics on an inference tape: a dropped gradient must not go unnoticed.
    pub fn backward(self, _seeds: &[(Var, &[f32])], _grads: &mut Grads) {
        todo!()
    }
}
