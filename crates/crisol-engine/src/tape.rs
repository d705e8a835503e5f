//! The tape: reverse-mode automatic differentiation over the operations of one shard.
//!
//! ```text
//! let y = tape.linear(x, weight, None);      computes y at once, and records the operation
//! tape.backward(&[(loss, &[1.0])], grads);   pops the operations, from the last to the first
//! ```
//!
//! Each method of [`Tape`] checks shapes, takes memory for its result and passes an [`Op`] to
//! `Tape::apply`. The kernels of an operation are in `cpu/`. Values and recorded operations live
//! in a [`Workspace`], so that the next tape reuses their memory. A tape of [`Tape::inference`]
//! computes only. One of [`Tape::recomputing`] keeps of each [`Tape::segment`] its input, and
//! backward computes the rest again (Chen et al. 2016, arXiv:1604.06174):
//!
//! ```text
//! forward    x0 ──[block 0]──► x1 ──[block 1]──► x2      keeps x0, x1, x2
//! backward   x1 ──[block 1]──► its values, then back through them; then x0 ──[block 0]──► …
//! ```

use std::borrow::Cow;
use std::fmt;

use crate::backend::{Backend, Pass};
use crate::device::OnDevice;
use crate::draw::{Draw, Drawn, Sampling};
use crate::dropout::Dropout;
use crate::op::{Attention, Choice, Experts, GatedActivation, HeadSlice, Op, Router, Var};
use crate::profile::Part;
use crate::{Grads, KvCache, ParamId, Params, Rope, Workspace};

/// What backward goes through, from the last to the first.
#[derive(Debug)]
pub(crate) enum Record {
    Op(Op),
    Segment(Segment),
}

/// What a segment computes from its input.
type Compute = dyn Fn(&mut Tape<'_>, Var) -> Var + Send + Sync;

/// Operations whose values backward computes again.
pub(crate) struct Segment {
    pub(crate) x: Var,
    pub(crate) compute: Box<Compute>,
    pub(crate) out: Var,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment {{ x: {:?}, out: {:?} }}", self.x, self.out)
    }
}

/// What a tape keeps for backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Nothing: there is no backward.
    Inference,
    /// Every operation and its values.
    Training,
    /// As [`Mode::Training`], but of segments only the input.
    Recomputing,
    /// Nothing: backward computes the segment again.
    Segment,
}

/// Records operations on values and runs their backward.
#[derive(Debug)]
pub struct Tape<'a> {
    params: &'a Params,
    workspace: &'a mut Workspace,
    mode: Mode,
    dropout: Option<Dropout>,
}

impl<'a> Tape<'a> {
    /// A tape with a backward pass.
    pub fn training(params: &'a Params, workspace: &'a mut Workspace) -> Tape<'a> {
        Tape::new(params, workspace, Mode::Training)
    }

    /// A tape with a backward pass that computes the values of every [`Tape::segment`] again: the
    /// same gradients, bit for bit, in less memory.
    pub fn recomputing(params: &'a Params, workspace: &'a mut Workspace) -> Tape<'a> {
        Tape::new(params, workspace, Mode::Recomputing)
    }

    /// A tape that computes only, for generation and evaluation.
    pub fn inference(params: &'a Params, workspace: &'a mut Workspace) -> Tape<'a> {
        Tape::new(params, workspace, Mode::Inference)
    }

    fn new(params: &'a Params, workspace: &'a mut Workspace, mode: Mode) -> Tape<'a> {
        // A tape that was leaked (`mem::forget`) left its values here.
        workspace.recycle();
        Tape { params, workspace, mode, dropout: None }
    }

    /// Drops inputs of adapters where the parameters have a rate
    /// ([`Params::set_adapter_dropout`]): which, is a function of their seed and this key, which
    /// must differ between all tapes of a run.
    pub fn set_dropout_key(&mut self, key: u64) {
        assert!(self.mode != Mode::Inference, "nothing is dropped in inference");
        self.dropout = self.params.dropout.map(|dropout| dropout.of_tape(key));
    }

    /// The parameters in use.
    pub fn params(&self) -> &'a Params {
        self.params
    }

    /// `[rows, cols]` of a value.
    pub fn shape(&self, x: Var) -> (usize, usize) {
        let shape = self.workspace.shapes[x.0 as usize];
        (shape.rows, shape.cols)
    }

    /// Rows `ids` of the table `[vocab, dim]` → `[ids.len(), dim]`. The model checks that ids are
    /// below vocab.
    pub fn embedding(&mut self, table: ParamId, ids: &[u32]) -> Var {
        let (_, dim) = self.params.layout.matrix_shape(table);
        assert_eq!(self.params.adapter(table), None, "an embedding table has no adapter");
        let ids = self.workspace.indices.take_copy(ids);
        let out = self.value(ids.len(), dim);
        self.apply(Op::Embedding { table, ids, out });
        out
    }

    /// `x · Wᵀ (+ b)`: `[n, in]` → `[n, out]` for a weight `[out, in]`, with its adapter if it has
    /// one ([`Params::adapt`]).
    pub fn linear(&mut self, x: Var, weight: ParamId, bias: Option<ParamId>) -> Var {
        let (rows, cols) = self.shape(x);
        let (out_dim, in_dim) = self.params.layout.matrix_shape(weight);
        assert_eq!(cols, in_dim, "input and weight `{}`", self.params.spec(weight).name);
        if let Some(bias) = bias {
            assert_eq!(
                self.params.spec(bias).len(),
                out_dim,
                "bias `{}`",
                self.params.spec(bias).name
            );
        }
        let out = self.value(rows, out_dim);
        self.apply(Op::Linear { x, weight, bias, out });
        out
    }

    /// Element-wise sum of two values of equal shape (residual connections).
    pub fn add(&mut self, x: Var, y: Var) -> Var {
        let (rows, cols) = self.shape(x);
        assert_eq!((rows, cols), self.shape(y), "terms of a sum");
        let out = self.value(rows, cols);
        self.apply(Op::Add { x, y, out });
        out
    }

    /// `factor · x`.
    pub fn scale(&mut self, x: Var, factor: f32) -> Var {
        let (rows, cols) = self.shape(x);
        let out = self.value(rows, cols);
        self.apply(Op::Scale { x, factor, out });
        out
    }

    /// `cap · tanh(x / cap)`: `x` where it is small, within `±cap` (Gemma 2). For logits to sample
    /// from; [`Tape::token_scores`] has a cap of its own.
    pub fn softcap(&mut self, x: Var, cap: f32) -> Var {
        assert!(cap > 0.0, "a soft-cap of {cap}");
        let (rows, cols) = self.shape(x);
        let out = self.value(rows, cols);
        self.apply(Op::SoftCap { x, cap, out });
        out
    }

    /// `RMSNorm` over each group of `weight.len()` columns (Zhang & Sennrich 2019,
    /// arXiv:1910.07467): the whole row for a layer norm, each head for QK-norm.
    pub fn rms_norm(&mut self, x: Var, weight: ParamId, eps: f32) -> Var {
        let group = self.params.spec(weight).len();
        self.norm(x, Some(weight), false, group, eps)
    }

    /// [`Self::rms_norm`] with the factors `1 + weight` (Gemma).
    pub fn rms_norm_plus_one(&mut self, x: Var, weight: ParamId, eps: f32) -> Var {
        let group = self.params.spec(weight).len();
        self.norm(x, Some(weight), true, group, eps)
    }

    /// [`Self::rms_norm`] over groups of `group` columns without a weight (Llama 4's QK-norm).
    pub fn unit_norm(&mut self, x: Var, group: usize, eps: f32) -> Var {
        self.norm(x, None, false, group, eps)
    }

    fn norm(
        &mut self,
        x: Var,
        weight: Option<ParamId>,
        plus_one: bool,
        group: usize,
        eps: f32,
    ) -> Var {
        let (rows, cols) = self.shape(x);
        assert!(group > 0 && cols.is_multiple_of(group), "{cols} columns in groups of {group}");
        let out = self.value(rows, cols);
        self.apply(Op::RmsNorm { x, weight, plus_one, group, eps, out });
        out
    }

    /// `LayerNorm` over whole rows: `(x - mean) / sqrt(variance + eps) · weight + bias` (Ba et al.
    /// 2016, arXiv:1607.06450).
    pub fn layer_norm(&mut self, x: Var, weight: ParamId, bias: Option<ParamId>, eps: f32) -> Var {
        let (rows, cols) = self.shape(x);
        for id in [Some(weight), bias].into_iter().flatten() {
            let spec = self.params.spec(id);
            assert_eq!(spec.len(), cols, "`{}` for {cols} columns", spec.name);
        }
        let out = self.value(rows, cols);
        self.apply(Op::LayerNorm { x, weight, bias, eps, out });
        out
    }

    /// Rotary embedding: rotates every head of `head_dim` columns of row `r` by `positions[r]`. The
    /// tables may have fewer pairs than a head; its other columns, the last ones, are kept.
    pub fn rope(&mut self, x: Var, rope: &Rope, head_dim: usize, positions: &[u32]) -> Var {
        let (rows, cols) = self.shape(x);
        let positions_needed = positions.iter().max().map_or(0, |&p| p as usize + 1);
        let tables = rope.tables(positions_needed);
        assert!(
            head_dim > 0 && cols.is_multiple_of(head_dim),
            "{cols} columns in heads of {head_dim}"
        );
        assert!(
            2 * tables.pairs <= head_dim,
            "{} rotated pairs in heads of {head_dim}",
            tables.pairs
        );
        assert_eq!(positions.len(), rows, "positions of rows");
        let positions = self.workspace.indices.take_copy(positions);
        let out = self.value(rows, cols);
        self.apply(Op::Rope { x, tables, head_dim, positions, out });
        out
    }

    /// Causal attention within documents, the row ranges `offsets[i]..offsets[i+1]`. q `[n,
    /// heads·qk_dim]`, k `[n, kv_heads·qk_dim]`, v `[n, kv_heads·v_dim]` → `[n, heads·v_dim]`.
    /// Memory is linear in the length of documents (Dao et al. 2022, arXiv:2205.14135); with a
    /// window, so is time.
    pub fn attention(&mut self, q: Var, k: Var, v: Var, shape: Attention, offsets: &[u32]) -> Var {
        let rows = self.check_attention(q, k, v, shape, offsets);
        let offsets = self.workspace.indices.take_copy(offsets);
        let out = self.value(rows, shape.heads * shape.v_dim);
        self.apply(Op::Attention { q, k, v, shape, offsets, out });
        out
    }

    /// Inference only, for prefill and decode: as [`Tape::attention`], with the earlier tokens of
    /// each document in `cache`.
    ///
    /// A slot of the cache holds one document. The new rows of k and v of document `i` are appended
    /// to slot `slots[i]` of `layer`; then its queries attend to the whole slot. After the last
    /// layer, the slot is longer by the new tokens. With a `chunk`, a token attends only to
    /// positions of its own chunk (Llama 4).
    pub fn attention_cached(
        &mut self,
        q: Var,
        k: Var,
        v: Var,
        shape: Attention,
        offsets: &[u32],
        cache: &mut KvCache,
        slots: &[usize],
        layer: usize,
        chunk: Option<usize>,
    ) -> Var {
        assert!(chunk != Some(0), "chunks of no positions");
        assert!(
            self.mode == Mode::Inference,
            "cached attention has no backward; use an inference tape"
        );
        let rows = self.check_attention(q, k, v, shape, offsets);
        assert_eq!(slots.len() + 1, offsets.len(), "slots of documents");
        let repeated = slots.iter().enumerate().any(|(i, slot)| slots[..i].contains(slot));
        assert!(!repeated, "two documents in one slot: {slots:?}");
        let dims = [shape.kv_heads * shape.qk_dim, shape.kv_heads * shape.v_dim];
        assert_eq!(dims, cache.dims, "columns of k and v in the cache");
        let lengths = offsets.windows(2).map(|bounds| (bounds[1] - bounds[0]) as usize);
        lengths.clone().zip(slots).for_each(|(rows, &slot)| cache.check_room(slot, rows));
        let out = self.value(rows, shape.heads * shape.v_dim);
        let device = self.params.device();
        let Workspace { tasks, indices, values, .. } = &mut *self.workspace;
        let mut past = indices.take(slots.len());
        past.iter_mut().zip(slots).for_each(|(past, &slot)| *past = cache.len(slot) as u32);
        let (vars, on_device) = ([q, k, v, out], &mut cache.on_device);
        let params = &self.params.on_device;
        device.profile().time(Part::CachedAttention, device.threads_at(*tasks), || {
            device.backend().attention_cached(
                vars, params, &shape, offsets, on_device, slots, &past, layer, chunk, values,
                *tasks,
            );
        });
        indices.give(past);
        if layer + 1 == cache.layers {
            lengths.zip(slots).for_each(|(rows, &slot)| cache.grow(slot, rows));
        }
        out
    }

    /// Checks the shapes of attention; returns the number of rows.
    fn check_attention(&self, q: Var, k: Var, v: Var, shape: Attention, offsets: &[u32]) -> usize {
        let (rows, _) = self.shape(q);
        assert!(shape.kv_heads > 0 && shape.heads.is_multiple_of(shape.kv_heads), "{shape:?}");
        assert!(shape.window != Some(0), "a window without the query's own token");
        assert!(shape.softcap.is_none_or(|cap| cap > 0.0), "{shape:?}");
        if let Some(sinks) = shape.sinks {
            assert_eq!(self.params.spec(sinks).shape, [shape.heads], "sinks of heads");
        }
        assert_eq!(self.shape(q), (rows, shape.heads * shape.qk_dim), "queries");
        assert_eq!(self.shape(k), (rows, shape.kv_heads * shape.qk_dim), "keys");
        assert_eq!(self.shape(v), (rows, shape.kv_heads * shape.v_dim), "values");
        assert!(offsets.is_sorted(), "documents out of order: {offsets:?}");
        assert_eq!(offsets.first().copied(), Some(0), "the first document starts at row 0");
        assert_eq!(
            offsets.last().map(|&end| end as usize),
            Some(rows),
            "the last document ends at the last row"
        );
        rows
    }

    /// The inner values of a gated MLP.
    pub fn gated(&mut self, gate: Var, up: Var, activation: GatedActivation) -> Var {
        let (rows, cols) = self.shape(gate);
        assert_eq!((rows, cols), self.shape(up), "gate and up");
        let out = self.value(rows, cols);
        self.apply(Op::Gated { gate, up, activation, out });
        out
    }

    /// `GELU` by tanh, `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))` (Hendrycks & Gimpel 2016,
    /// arXiv:1606.08415): GPT-2's `gelu_new`.
    pub fn gelu(&mut self, x: Var) -> Var {
        let (rows, cols) = self.shape(x);
        let out = self.value(rows, cols);
        self.apply(Op::Gelu { x, out });
        out
    }

    /// Rows `rows` of `x`, in this order → `[rows.len(), cols]`.
    pub fn select_rows(&mut self, x: Var, rows: &[u32]) -> Var {
        let (_, cols) = self.shape(x);
        let rows = self.workspace.indices.take_copy(rows);
        let out = self.value(rows.len(), cols);
        self.apply(Op::SelectRows { x, rows, out });
        out
    }

    /// Concatenates one or two slices head by head → `[n, heads · Σ width]`:
    ///
    /// ```text
    /// part 0   [ a0 | a1 | a2 ]     part 1   [ b0 | b1 | b2 ]       three heads each
    /// result   [ a0 b0 | a1 b1 | a2 b2 ]
    /// ```
    ///
    /// With one part, it cuts columns out of every head of a wider projection. With two, it joins
    /// the rotated and the unrotated columns of queries or keys.
    pub fn concat_heads(&mut self, heads: usize, parts: [Option<HeadSlice>; 2]) -> Var {
        let mut rows = None;
        let mut width = 0;
        for part in parts.into_iter().flatten() {
            let (n, cols) = self.shape(part.x);
            assert_eq!(*rows.get_or_insert(n), n, "rows of parts");
            assert_eq!(cols, part.heads * part.head_dim, "columns of {part:?}");
            assert!(part.heads == heads || part.heads == 1, "{part:?} for {heads} heads");
            assert!(part.first + part.width <= part.head_dim, "{part:?}");
            width += part.width;
        }
        let out = self.value(rows.expect("at least one part"), heads * width);
        self.apply(Op::ConcatHeads { parts, heads, out });
        out
    }

    /// The experts of each row of a router's logits `[n, experts]`: `[n, k]`, ascending in a row.
    /// The choice has no gradient.
    pub fn choose_experts(&self, logits: Var, choice: &Choice) -> Vec<u32> {
        let (_, experts) = self.shape(logits);
        let Choice { k, correction, groups, kept_groups } = *choice;
        assert!(groups > 0 && experts.is_multiple_of(groups), "{experts} experts, {choice:?}");
        let eligible = kept_groups * (experts / groups);
        assert!(kept_groups <= groups && k <= eligible, "{experts} experts, {choice:?}");
        if let Some(correction) = correction {
            assert_eq!(self.params.spec(correction).len(), experts, "corrections of experts");
        }
        let params = &self.params.on_device;
        self.backend().choose_experts(logits, choice, params, &self.workspace.values)
    }

    /// Weights `[n, k]` of the experts `chosen` (k distinct ones a row, [`Tape::choose_experts`])
    /// from a router's logits `[n, experts]`.
    pub fn expert_weights(&mut self, logits: Var, router: Router, chosen: &[u32]) -> Var {
        let (rows, experts) = self.shape(logits);
        assert!(
            chosen.len().is_multiple_of(rows.max(1)),
            "{} choices of {rows} rows",
            chosen.len()
        );
        assert!(
            chosen.iter().all(|&expert| (expert as usize) < experts),
            "experts below {experts}"
        );
        let chosen = self.workspace.indices.take_copy(chosen);
        let out = self.value(rows, chosen.len() / rows.max(1));
        self.apply(Op::Router { logits, router, chosen, out });
        out
    }

    /// `x · W_eᵀ (+ b_e)` for rows `bounds[e]..bounds[e + 1]` of expert `e`: `[n, in]` →
    /// `[n, out]`.
    pub fn grouped_linear(
        &mut self,
        x: Var,
        experts: Experts,
        biases: Option<Experts>,
        bounds: &[u32],
    ) -> Var {
        let (rows, cols) = self.shape(x);
        let (out_dim, in_dim) = self.params.layout.matrix_shape(experts.first);
        for expert in 0..experts.count {
            let shape = self.params.layout.matrix_shape(experts.id(expert));
            assert_eq!(shape, (out_dim, in_dim), "weight of expert {expert}");
        }
        if let Some(biases) = biases {
            assert_eq!(biases.count, experts.count, "biases of experts");
            for expert in 0..biases.count {
                let len = self.params.spec(biases.id(expert)).len();
                assert_eq!(len, out_dim, "bias of expert {expert}");
            }
        }
        assert_eq!(cols, in_dim, "input and weights of experts");
        assert_eq!(bounds.len(), experts.count + 1, "bounds of experts");
        assert!(bounds.is_sorted() && bounds[0] == 0, "experts' rows out of order: {bounds:?}");
        assert_eq!(bounds[experts.count] as usize, rows, "the last expert ends at the last row");
        let bounds = self.workspace.indices.take_copy(bounds);
        let out = self.value(rows, out_dim);
        self.apply(Op::GroupedLinear { x, experts, biases, bounds, out });
        out
    }

    /// Row `i` is `w[entries[i]] · x[i]`, where `w` are the elements of `weights`, row by row.
    ///
    /// In a mixture of experts, `weights` is `[tokens, k]` and `x` has a row for each token and
    /// expert.
    pub fn scale_rows(&mut self, x: Var, weights: Var, entries: &[u32]) -> Var {
        let (rows, cols) = self.shape(x);
        let (weight_rows, weight_cols) = self.shape(weights);
        assert_eq!(entries.len(), rows, "entries of rows");
        let count = weight_rows * weight_cols;
        assert!(entries.iter().all(|&entry| (entry as usize) < count), "entries below {count}");
        let entries = self.workspace.indices.take_copy(entries);
        let out = self.value(rows, cols);
        self.apply(Op::ScaleRows { x, weights, entries, out });
        out
    }

    /// Row `i` is the sum of the `k` rows `order[i·k..(i + 1)·k]` of `x`, in this order →
    /// `[order.len() / k, cols]`.
    pub fn sum_rows(&mut self, x: Var, order: &[u32], k: usize) -> Var {
        let (rows, cols) = self.shape(x);
        assert!(k > 0 && order.len().is_multiple_of(k), "{} rows in sums of {k}", order.len());
        assert!(order.iter().all(|&row| (row as usize) < rows), "rows below {rows}");
        let order = self.workspace.indices.take_copy(order);
        let out = self.value(order.len() / k, cols);
        self.apply(Op::SumRows { x, order, k, out });
        out
    }

    /// Inference only: multiplies every head `x_h` of `x` by its own part of a weight
    /// `[heads · group, in]`.
    ///
    /// ```text
    /// W_h = rows h·group + part.start .. h·group + part.end of the weight
    /// out_h = x_h · W_h        [n, part.len()] → [n, in]
    /// out_h = x_h · W_hᵀ       [n, in] → [n, part.len()]      if `transposed`
    /// ```
    ///
    /// Multi-head latent attention decodes with it, without expanding keys and values (DeepSeek-AI
    /// 2024, arXiv:2405.04434, section 2.1.2): a head's group is its key rows, then its value rows.
    pub fn per_head_matmul(
        &mut self,
        x: Var,
        weight: ParamId,
        group: usize,
        part: std::ops::Range<usize>,
        transposed: bool,
    ) -> Var {
        assert!(
            self.mode == Mode::Inference,
            "products of heads have no backward; use an inference tape"
        );
        let (n, cols) = self.shape(x);
        let (out_dim, in_dim) = self.params.layout.matrix_shape(weight);
        assert!(
            out_dim.is_multiple_of(group) && part.end <= group,
            "rows {part:?} of groups of {group}"
        );
        let heads = out_dim / group;
        let (from, to) = if transposed { (in_dim, part.len()) } else { (part.len(), in_dim) };
        assert_eq!(cols, heads * from, "columns of {heads} heads");
        let out = self.value(n, heads * to);
        let Workspace { tasks, values, .. } = &mut *self.workspace;
        let (backend, params) = (self.params.device().backend(), &self.params.on_device);
        backend.per_head_matmul(x, params, weight, group, part, transposed, out, values, *tasks);
        out
    }

    /// A constant, without a gradient.
    pub fn constant(&mut self, rows: usize, cols: usize, numbers: &[f32]) -> Var {
        assert_eq!(numbers.len(), rows * cols, "numbers of {rows}×{cols}");
        let var = self.value(rows, cols);
        self.backend().upload(&mut self.workspace.values, var, numbers);
        var
    }

    /// Log-probability of `targets[r]` under `softmax(logit_scale · x[r]·Wᵀ)` and the entropy of
    /// that distribution, `[n, 1]` each. `logit_scale` is 1/temperature, times the model's own
    /// factor if it has one. With a soft-cap, logits are `logit_scale · cap · tanh(x[r]·Wᵀ / cap)`.
    /// Entropies are zeros unless requested.
    ///
    /// Head, softmax and gather are fused over chunks of the vocabulary. At most
    /// [`crate::MAX_SAVED_LOGITS`] logits are saved for backward; more are recomputed.
    pub fn token_scores(
        &mut self,
        x: Var,
        head: ParamId,
        targets: &[u32],
        logit_scale: f32,
        softcap: Option<f32>,
        entropy: bool,
    ) -> (Var, Var) {
        assert!(softcap.is_none_or(|cap| cap > 0.0), "a soft-cap of {softcap:?}");
        let (rows, cols) = self.shape(x);
        let (vocab, dim) = self.params.layout.matrix_shape(head);
        assert_eq!(self.params.adapter(head), None, "a head has no adapter");
        assert_eq!(cols, dim, "input and head `{}`", self.params.spec(head).name);
        assert_eq!(targets.len(), rows, "targets of rows");
        assert!(targets.iter().all(|&t| (t as usize) < vocab), "targets below {vocab}");
        let targets = self.workspace.indices.take_copy(targets);
        let logp = self.value(rows, 1);
        let entropies = self.value(rows, 1);
        self.apply(Op::TokenScores {
            x,
            head,
            targets,
            scale: logit_scale,
            softcap,
            with_entropy: entropy,
            logp,
            entropy: entropies,
        });
        (logp, entropies)
    }

    /// Inference only: logits `[n, vocab]` to sample from, without the model's own factor and
    /// soft-cap ([`Tape::scale`], [`Tape::softcap`]).
    pub fn logits(&mut self, x: Var, head: ParamId) -> Var {
        assert!(
            self.mode == Mode::Inference,
            "whole logits are for sampling; train with `token_scores`"
        );
        self.linear(x, head, None)
    }

    /// Draws tokens from rows of logits `[n, vocab]`, which stay on the device. Each draw gives
    /// what it would give in a call of its own. `None` if a row drawn from is not finite: it has a
    /// NaN or +∞, or is all −∞.
    pub fn draw_tokens(
        &mut self,
        logits: Var,
        sampling: &Sampling,
        draws: &[Draw<'_>],
    ) -> Option<Vec<Drawn>> {
        let (rows, vocab) = self.shape(logits);
        assert!(sampling.top_k != Some(0), "the most probable token stays: {sampling:?}");
        for &Draw { row, uniform, seen } in draws {
            assert!(row < rows, "row {row} of {rows}");
            assert!(sampling.is_greedy() || (0.0..1.0).contains(&uniform), "{uniform} in [0, 1)");
            if sampling.repetition_penalty != 1.0 {
                let below = seen.into_iter().flatten().all(|&id| (id as usize) < vocab);
                assert!(below, "tokens below {vocab}");
            }
        }
        let device = self.params.device();
        let Workspace { tasks, values, .. } = &mut *self.workspace;
        device.profile().time(Part::Sampling, device.threads_at(*tasks), || {
            device.backend().draw_tokens(logits, sampling, draws, values, *tasks)
        })
    }

    /// The value on the host, row-major (borrowed if the device is the host).
    pub fn read(&self, x: Var) -> Cow<'_, [f32]> {
        self.backend().download(&self.workspace.values, x)
    }

    /// Frees the memory of every value but `keep`; the others must not be used again. For inference
    /// between layers: a training tape keeps all values for its backward.
    pub fn keep_only(&mut self, keep: Var) {
        if self.mode == Mode::Inference {
            self.workspace.free_values(0, keep);
        }
    }

    /// Whether [`Tape::segment`] keeps its input only.
    pub fn recomputes(&self) -> bool {
        self.mode == Mode::Recomputing
    }

    /// `compute(x)`. On a recomputing tape its values are freed, and backward computes them again,
    /// so it must record the same operations on the same numbers each time. It may use parameters
    /// and `x`, but no other value of the tape.
    pub fn segment(
        &mut self,
        x: Var,
        compute: impl Fn(&mut Tape<'_>, Var) -> Var + Send + Sync + 'static,
    ) -> Var {
        if !self.recomputes() {
            return compute(self, x);
        }
        let first = self.workspace.shapes.len();
        self.mode = Mode::Segment;
        let out = compute(self, x);
        self.mode = Mode::Recomputing;
        self.workspace.free_values(first, out);
        // It stays until backward, and may lie in memory of a wider value of the segment before.
        self.backend().fit(&mut self.workspace.values, out);
        let compute = Box::new(compute);
        self.workspace.records.push(Record::Segment(Segment { x, compute, out }));
        out
    }

    /// Runs backward from the seeds `(value, dL/dvalue)` and adds every parameter's gradient to
    /// `grads`. Once the device is asked to stop, it computes nothing more, and the gradients are
    /// unspecified.
    ///
    /// # Panics
    ///
    /// On an inference tape: it has no operations, so all gradients would silently be zero.
    pub fn backward(mut self, seeds: &[(Var, &[f32])], grads: &mut Grads) {
        assert!(
            self.mode != Mode::Inference,
            "an inference tape records nothing and cannot go backward"
        );
        assert!(
            self.params.layout.ranges == grads.layout.ranges,
            "gradients of parameters of different shapes"
        );
        for &(var, seed) in seeds {
            let (rows, cols) = self.shape(var);
            assert_eq!(seed.len(), rows * cols, "seed of a value {rows}×{cols}");
            self.backend().add_grad(&mut self.workspace.values, var, seed);
        }
        while let Some(record) = self.workspace.records.pop() {
            match record {
                Record::Op(op) => self.backward_op(op, grads),
                Record::Segment(segment) => self.replay(segment),
            }
        }
    }

    /// Adds an operation's gradients, if its outputs have one, and frees its outputs.
    fn backward_op(&mut self, op: Op, grads: &mut Grads) {
        let device = self.params.device();
        let Workspace { tasks, indices, shapes, values, .. } = &mut *self.workspace;
        let (backend, outputs) = (device.backend(), op.outputs().into_iter().flatten());
        let wanted = outputs.clone().any(|var| backend.has_grad(values, var));
        let skip = !wanted || device.interrupt().requested();
        if !skip {
            let part = Part::backward(&op);
            device.profile().work(part, || op.backward_flops(shapes, &self.params.layout));
        }
        device.profile().time(Part::backward(&op), device.threads_at(*tasks), || {
            let (params, grads) = (&self.params.on_device, &mut grads.on_device);
            backend.backward(&op, params, grads, values, *tasks, self.dropout, skip);
        });
        // All operations that read these values have been popped.
        outputs.for_each(|var| backend.free(values, var));
        op.recycle(indices);
    }

    /// Records a segment's operations, whose backward is next, and gives its gradient to their
    /// result.
    fn replay(&mut self, Segment { x, compute, out }: Segment) {
        let backend = self.backend();
        if !backend.has_grad(&self.workspace.values, out) {
            return backend.free(&mut self.workspace.values, out);
        }
        self.mode = Mode::Training;
        let again = compute(self, x);
        self.mode = Mode::Recomputing;
        backend.move_grad(&mut self.workspace.values, out, again);
        backend.free(&mut self.workspace.values, out);
    }

    /// A new value with unspecified contents.
    fn value(&mut self, rows: usize, cols: usize) -> Var {
        self.workspace.value(rows, cols)
    }

    fn backend(&self) -> &'a OnDevice {
        self.params.device().backend()
    }

    /// Computes an operation. A tape with a backward records it.
    fn apply(&mut self, op: Op) {
        let device = self.params.device();
        let Workspace { tasks, indices, shapes, values, records, .. } = &mut *self.workspace;
        let part = Part::forward(&op);
        let trains = self.mode != Mode::Inference;
        let keeps = trains && self.mode != Mode::Segment;
        let pass = Pass { trains, keeps, dropout: self.dropout };
        device.profile().work(part, || op.flops(shapes, &self.params.layout));
        device.profile().time(part, device.threads_at(*tasks), || {
            device.backend().forward(&op, &self.params.on_device, values, *tasks, pass);
        });
        if keeps {
            records.push(Record::Op(op));
        } else {
            op.recycle(indices);
        }
    }
}

impl Drop for Tape<'_> {
    fn drop(&mut self) {
        self.workspace.recycle();
    }
}
