//! The layers that the blocks of all architectures share: projections, attention, gated MLP.
//!
//! Rows are tokens; several documents are packed into one batch of `rows`.
//!
//! ```text
//!            ┌─ q_proj ─► q [rows, heads · head_dim]    ─┐
//! x ─────────┼─ k_proj ─► k [rows, kv_heads · head_dim] ─┼─ RoPE, attention ─ o_proj ─► y
//! [rows,     └─ v_proj ─► v [rows, kv_heads · head_dim] ─┘                     [rows, hidden]
//!  hidden]
//!
//! MLP:  y = down_proj(silu(gate_proj(x)) ⊙ up_proj(x))      hidden ─► inner ─► hidden
//! ```

use std::sync::Arc;

use crisol_engine::{
    Attention, GatedActivation, HeadSlice, Init, KvCache, ParamId, ParamSpec, Params, Role, Rope,
    Tape, Var,
};

use crate::Config;

/// Standard deviation of initial weights, as in GPT-2 (Radford et al. 2019), Llama and OLMo-2.
const INIT_STD: f32 = 0.02;

/// Where the keys and values of earlier tokens come from.
#[derive(Debug)]
pub enum PastKeyValues<'a> {
    /// No earlier tokens: every document is complete (training, evaluation).
    None,
    /// Document `i` continues slot `slots[i]` of `cache`: prefill and decode, inference only.
    Cached {
        /// Earlier keys and values; new ones are appended.
        cache: &'a mut KvCache,
        /// One slot per document.
        slots: &'a [usize],
    },
}

/// One block of a model: the ids of its parameters, and its forward pass.
pub(crate) trait Block: std::fmt::Debug + Send + Sync {
    /// Maps the residual stream `[rows, hidden]` to the residual stream after the block.
    fn forward(&self, tape: &mut Tape<'_>, pass: &mut Pass<'_>, layer: usize, x: Var) -> Var;
}

/// The inputs that all blocks of a forward pass share.
pub(crate) struct Pass<'c> {
    pub(crate) config: Arc<Config>,
    pub(crate) rope: Rope,
    /// Of layers with a window, if they rotate otherwise.
    pub(crate) local_rope: Option<Rope>,
    /// Document `i` is rows `offsets[i]..offsets[i + 1]`.
    pub(crate) offsets: Arc<[u32]>,
    /// Position of each row within its document.
    pub(crate) positions: Arc<[u32]>,
    /// Row of `rope`'s tables for each row.
    pub(crate) rope_rows: Arc<[u32]>,
    pub(crate) past: PastKeyValues<'c>,
}

impl Pass<'_> {
    /// Rotates the heads of queries or keys by their positions, if the layer does.
    pub(crate) fn rotate(&self, tape: &mut Tape<'_>, layer: usize, x: Var) -> Var {
        if !self.config.family().rotates(layer) {
            return x;
        }
        let (rope, rows) = match self.config.window(layer).and(self.local_rope.as_ref()) {
            Some(local) => (local, &self.positions),
            None => (&self.rope, &self.rope_rows),
        };
        tape.rope(x, rope, self.config.head_dim, rows)
    }

    /// The same inputs without earlier tokens, to keep for a block that is computed again.
    pub(crate) fn without_past(&self) -> Pass<'static> {
        Pass {
            config: Arc::clone(&self.config),
            rope: self.rope.clone(),
            local_rope: self.local_rope.clone(),
            offsets: Arc::clone(&self.offsets),
            positions: Arc::clone(&self.positions),
            rope_rows: Arc::clone(&self.rope_rows),
            past: PastKeyValues::None,
        }
    }
}

/// Collects the parameter specs of a block under a common name prefix.
pub(crate) struct Specs {
    prefix: String,
    pub(crate) list: Vec<ParamSpec>,
    /// Standard deviation of matrices that write into the residual stream.
    residual_std: f32,
}

impl Specs {
    /// With `residual_layers` blocks, projections into the residual stream start smaller by
    /// 1/sqrt(2 · blocks), which keeps its variance independent of depth (GPT-2, section 2.3).
    pub(crate) fn new(prefix: String, residual_layers: Option<usize>) -> Specs {
        let shrink = residual_layers.map_or(1.0, |layers| (2.0 * layers as f32).sqrt().recip());
        Specs { prefix, list: Vec::new(), residual_std: INIT_STD * shrink }
    }

    fn matrix(&mut self, name: &str, out: usize, inner: usize, std: f32, bias: bool) {
        let name = format!("{}{name}", self.prefix);
        if bias {
            let name = format!("{name}.bias");
            self.list.push(ParamSpec {
                name,
                shape: vec![out],
                init: Init::Zeros,
                role: Role::Vector,
            });
        }
        let (name, shape) = (format!("{name}.weight"), vec![out, inner]);
        self.list.push(ParamSpec { name, shape, init: Init::Normal(std), role: Role::Hidden });
    }

    pub(crate) fn linear(&mut self, name: &str, out: usize, inner: usize, bias: bool) {
        self.matrix(name, out, inner, INIT_STD, bias);
    }

    /// An embedding table or an output head, `[rows, cols]`.
    pub(crate) fn table(&mut self, name: &str, rows: usize, cols: usize) {
        let (name, shape) = (format!("{}{name}.weight", self.prefix), vec![rows, cols]);
        self.list.push(ParamSpec { name, shape, init: Init::Normal(INIT_STD), role: Role::Table });
    }

    pub(crate) fn residual_linear(&mut self, name: &str, out: usize, inner: usize, bias: bool) {
        self.matrix(name, out, inner, self.residual_std, bias);
    }

    pub(crate) fn norm(&mut self, name: &str, dim: usize) {
        let name = format!("{}{name}.weight", self.prefix);
        self.list.push(ParamSpec { name, shape: vec![dim], init: Init::Ones, role: Role::Vector });
    }

    /// A norm of a kind.
    pub(crate) fn norm_of(&mut self, kind: NormKind, name: &str, dim: usize) {
        match kind {
            NormKind::Rms => self.norm(name, dim),
            NormKind::RmsPlusOne => self.vector(&format!("{name}.weight"), dim),
            NormKind::Layer => {
                self.vector(&format!("{name}.bias"), dim);
                self.norm(name, dim);
            }
        }
    }

    pub(crate) fn attention(&mut self, config: &Config) {
        self.attention_with(config, config.attention_bias, config.attention_bias);
    }

    /// Attention with or without biases of queries, keys and values, and of the output.
    pub(crate) fn attention_with(&mut self, config: &Config, qkv_bias: bool, output_bias: bool) {
        let (hidden, q, kv) = (config.hidden_size, config.q_dim(), config.kv_dim());
        self.linear("self_attn.q_proj", q, hidden, qkv_bias);
        self.linear("self_attn.k_proj", kv, hidden, qkv_bias);
        self.linear("self_attn.v_proj", kv, hidden, qkv_bias);
        self.residual_linear("self_attn.o_proj", hidden, q, output_bias);
    }

    pub(crate) fn mlp(&mut self, config: &Config) {
        self.gated("mlp.", config.hidden_size, config.intermediate_size, config.mlp_bias);
    }

    /// A gated feed-forward layer: `hidden` to `inner` and back.
    pub(crate) fn gated(&mut self, name: &str, hidden: usize, inner: usize, bias: bool) {
        self.linear(&format!("{name}gate_proj"), inner, hidden, bias);
        self.linear(&format!("{name}up_proj"), inner, hidden, bias);
        self.residual_linear(&format!("{name}down_proj"), hidden, inner, bias);
    }

    /// A vector of zeros; `name` is used without a suffix.
    pub(crate) fn vector(&mut self, name: &str, dim: usize) {
        let name = format!("{}{name}", self.prefix);
        self.list.push(ParamSpec { name, shape: vec![dim], init: Init::Zeros, role: Role::Vector });
    }
}

/// The id of parameter `{prefix}{name}.weight`.
pub(crate) fn weight(params: &Params, prefix: &str, name: &str) -> ParamId {
    let name = format!("{prefix}{name}.weight");
    params.id(&name).unwrap_or_else(|| {
        panic!("the parameters were not made from this model's specs: no {name}")
    })
}

/// A linear layer, with a bias if its parameters have one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    pub(crate) weight: ParamId,
    pub(crate) bias: Option<ParamId>,
}

impl Linear {
    pub(crate) fn bind(params: &Params, prefix: &str, name: &str) -> Linear {
        Linear {
            weight: weight(params, prefix, name),
            bias: params.id(&format!("{prefix}{name}.bias")),
        }
    }

    pub(crate) fn forward(self, tape: &mut Tape<'_>, x: Var) -> Var {
        tape.linear(x, self.weight, self.bias)
    }
}

/// Weights of an attention layer.
#[derive(Debug)]
pub(crate) struct AttentionWeights {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    /// Logits of query heads, if the parameters have any (gpt-oss).
    sinks: Option<ParamId>,
}

impl AttentionWeights {
    pub(crate) fn bind(params: &Params, prefix: &str) -> AttentionWeights {
        let linear = |name| Linear::bind(params, prefix, name);
        AttentionWeights {
            q: linear("self_attn.q_proj"),
            k: linear("self_attn.k_proj"),
            v: linear("self_attn.v_proj"),
            o: linear("self_attn.o_proj"),
            sinks: params.id(&format!("{prefix}self_attn.sinks")),
        }
    }

    /// Queries, keys and values of every row.
    pub(crate) fn project(&self, tape: &mut Tape<'_>, x: Var) -> (Var, Var, Var) {
        (self.q.forward(tape, x), self.k.forward(tape, x), self.v.forward(tape, x))
    }

    /// Applies RoPE to queries and keys, attends, and projects back to `[rows, hidden]`.
    pub(crate) fn attend(
        &self,
        tape: &mut Tape<'_>,
        pass: &mut Pass<'_>,
        layer: usize,
        (q, k, v): (Var, Var, Var),
    ) -> Var {
        let (q, k) = (pass.rotate(tape, layer, q), pass.rotate(tape, layer, k));
        let shape = Attention { sinks: self.sinks, ..pass.config.attention(layer) };
        let mixed = attend(tape, pass, layer, shape, (q, k, v));
        self.output(tape, mixed)
    }

    /// The output projection, `[rows, heads · head_dim]` to `[rows, hidden]`.
    pub(crate) fn output(&self, tape: &mut Tape<'_>, mixed: Var) -> Var {
        self.o.forward(tape, mixed)
    }
}

/// Attention to this pass's tokens and earlier ones, `[rows, heads · head_dim]`.
pub(crate) fn attend(
    tape: &mut Tape<'_>,
    pass: &mut Pass<'_>,
    layer: usize,
    shape: Attention,
    (q, k, v): (Var, Var, Var),
) -> Var {
    match &mut pass.past {
        PastKeyValues::None => tape.attention(q, k, v, shape, &pass.offsets),
        PastKeyValues::Cached { cache, slots } => {
            tape.attention_cached(q, k, v, shape, &pass.offsets, cache, slots, layer, None)
        }
    }
}

/// Cuts the columns of `x` into parts of these widths.
pub(crate) fn split<const N: usize>(tape: &mut Tape<'_>, x: Var, widths: [usize; N]) -> [Var; N] {
    let (head_dim, mut first) = (widths.iter().sum(), 0);
    widths.map(|width| {
        let part = HeadSlice { x, heads: 1, head_dim, first, width };
        first += width;
        tape.concat_heads(1, [Some(part), None])
    })
}

/// A kind of norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// `RMSNorm`.
    Rms,
    /// `RMSNorm` with the factors 1 + weight.
    RmsPlusOne,
    /// `LayerNorm` with a bias.
    Layer,
}

/// A norm of any kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    kind: NormKind,
    weight: ParamId,
    bias: Option<ParamId>,
}

impl Norm {
    /// Binds a norm of the architecture's kind.
    pub(crate) fn bind(config: &Config, params: &Params, prefix: &str, name: &str) -> Norm {
        Norm {
            kind: config.family().norm(),
            weight: weight(params, prefix, name),
            bias: params.id(&format!("{prefix}{name}.bias")),
        }
    }

    pub(crate) fn forward(self, tape: &mut Tape<'_>, config: &Config, x: Var) -> Var {
        let eps = config.rms_norm_eps;
        match self.kind {
            NormKind::Rms => tape.rms_norm(x, self.weight, eps),
            NormKind::RmsPlusOne => tape.rms_norm_plus_one(x, self.weight, eps),
            NormKind::Layer => tape.layer_norm(x, self.weight, self.bias, eps),
        }
    }
}

/// Weights of a gated feed-forward layer.
#[derive(Debug)]
pub(crate) struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: GatedActivation,
}

impl Mlp {
    /// Binds `{prefix}{name}gate_proj`, `up_proj` and `down_proj`.
    pub(crate) fn bind(params: &Params, prefix: &str, name: &str) -> Mlp {
        let linear = |part: &str| Linear::bind(params, prefix, &format!("{name}{part}"));
        let activation = GatedActivation::Silu;
        Mlp {
            gate: linear("gate_proj"),
            up: linear("up_proj"),
            down: linear("down_proj"),
            activation,
        }
    }

    /// With another activation than `SwiGLU`'s.
    pub(crate) fn activated(self, activation: GatedActivation) -> Mlp {
        Mlp { activation, ..self }
    }

    pub(crate) fn forward(&self, tape: &mut Tape<'_>, x: Var) -> Var {
        let gate = self.gate.forward(tape, x);
        let up = self.up.forward(tape, x);
        let inner = tape.gated(gate, up, self.activation);
        self.down.forward(tape, inner)
    }
}
