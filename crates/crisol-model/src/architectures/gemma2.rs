//! The Gemma 2 block (Gemma Team 2024, arXiv:2408.00118). Differences from Llama:
//! - Norms before and after attention and feed-forward, with the factors 1 + weight.
//! - `GeGLU` instead of `SwiGLU`; embeddings are scaled by the root of their width.
//! - Soft-caps of attention scores and of logits; the scale of queries is a field.
//! - Every second layer has a window.
//!
//! ```text
//! x = x + norm(attention(norm(x)))
//! x = x + norm(mlp(norm(x)))
//! ```

use std::sync::Arc;

use crisol_engine::{GatedActivation, ParamSpec, Params, Tape, Var};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::architectures::{Defaults, Family, Names, Specifics};
use crate::block::{AttentionWeights, Block, Mlp, Norm, NormKind, Pass, Specs};
use crate::config::{MAX_LAYERS, parse_fields, read_windows};
use crate::gguf::{self, Keys, NewKeys};
use crate::{Config, ModelError};

/// The Gemma 2 fields of `config.json`, by default transformers'.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Gemma2 {
    /// Queries are divided by the root of this.
    pub query_pre_attn_scalar: usize,
    /// Soft-cap of attention scores.
    pub attn_logit_softcapping: Option<f32>,
    /// Soft-cap of logits.
    pub final_logit_softcapping: Option<f32>,
}

impl Default for Gemma2 {
    fn default() -> Gemma2 {
        Gemma2 {
            query_pre_attn_scalar: 256,
            attn_logit_softcapping: Some(50.0),
            final_logit_softcapping: Some(30.0),
        }
    }
}

/// One layer in so many attends to the full context.
const PERIOD: usize = 2;

/// Layers of the 27B model, for which llama.cpp scales queries by hidden size / heads.
const LAYERS_OF_27B: usize = 46;

impl Family for Gemma2 {
    fn names(&self) -> Names {
        Names { class: "Gemma2", model_type: "gemma2", gguf: "gemma2" }
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            max_position_embeddings: 8192,
            kv_heads: Some(4),
            head_dim: Some(256),
            tied: true,
            ..Defaults::default()
        }
    }

    fn common_fields(&self, json: &mut Value) {
        fill_defaults(json, 256_000);
    }

    fn activation(&self) -> (&'static str, &'static [&'static str]) {
        ACTIVATION
    }

    fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        config.specifics = Specifics::Gemma2(parse_fields(text)?);
        read_layers(text, config, PERIOD)
    }

    fn to_json(&self, config: &Config) -> Value {
        json!({
            "query_pre_attn_scalar": self.query_pre_attn_scalar,
            "attn_logit_softcapping": self.attn_logit_softcapping,
            "final_logit_softcapping": self.final_logit_softcapping,
            "sliding_window": window(config),
            "layer_types": layer_types(config),
        })
    }

    fn problem(&self, config: &Config) -> Option<String> {
        problem(
            config,
            self.query_pre_attn_scalar,
            &[
                ("attn_logit_softcapping", self.attn_logit_softcapping),
                ("final_logit_softcapping", self.final_logit_softcapping),
            ],
        )
    }

    fn norm(&self) -> NormKind {
        NormKind::RmsPlusOne
    }

    fn embedding_scale(&self, config: &Config) -> Option<f32> {
        embedding_scale(config)
    }

    fn logit_cap(&self) -> Option<f32> {
        self.final_logit_softcapping
    }

    fn attention_scale(&self, _: &Config) -> f32 {
        attention_scale(self.query_pre_attn_scalar)
    }

    fn attention_cap(&self) -> Option<f32> {
        self.attn_logit_softcapping
    }

    fn specs(&self, config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
        specs(config, prefix, false)
    }

    fn bind(&self, config: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
        bind(config, params, prefix, false)
    }

    fn read_gguf(&self, keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
        keys.expect_unset("expert_count")?;
        gguf::read_attention(keys, config)?;
        if keys.number("rope.freq_base_swa")?.is_some() {
            return Err(keys.refuse("rope.freq_base_swa", "given, which is not supported"));
        }
        let size = keys.optional_size("attention.sliding_window")?.unwrap_or(WINDOW);
        read_gguf_windows(keys, config, size, PERIOD)?;
        let cap = |rest, default| Ok::<_, ModelError>(keys.number(rest)?.or(default));
        config.specifics = Specifics::Gemma2(Gemma2 {
            query_pre_attn_scalar: gguf_scalar(config, LAYERS_OF_27B),
            attn_logit_softcapping: cap("attn_logit_softcapping", self.attn_logit_softcapping)?,
            final_logit_softcapping: cap("final_logit_softcapping", self.final_logit_softcapping)?,
        });
        Ok(())
    }

    fn write_gguf(&self, keys: &mut NewKeys<'_>, config: &Config) -> Result<(), String> {
        check_gguf_scalar(config, self.query_pre_attn_scalar, LAYERS_OF_27B)?;
        for (rest, cap) in [
            ("attn_logit_softcapping", self.attn_logit_softcapping),
            ("final_logit_softcapping", self.final_logit_softcapping),
        ] {
            keys.put(rest, cap.ok_or(format!("{rest} is null, and llama.cpp needs a number"))?);
        }
        keys.put_sizes(&[
            ("feed_forward_length", config.intermediate_size),
            ("attention.sliding_window", window(config)),
        ]);
        write_gguf_period(keys, config, PERIOD)?;
        gguf::write_attention(keys, config);
        Ok(())
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &GGUF_PARTS
    }
}

// What Gemma 2 and 3 share.

/// Default of `sliding_window`.
const WINDOW: usize = 4096;

/// Field and name of the activation.
pub(super) const ACTIVATION: (&str, &[&str]) = ("hidden_activation", &["gelu_pytorch_tanh"]);

pub(super) const GGUF_PARTS: [(&str, &str); 2] = [
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
];

/// Adds the common fields that published configs leave to transformers' defaults.
pub(super) fn fill_defaults(json: &mut Value, vocab_size: usize) {
    let defaults = json!({
        "vocab_size": vocab_size,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    });
    if let (Value::Object(json), Value::Object(defaults)) = (json, defaults) {
        for (field, default) in defaults {
            json.entry(field).or_insert(default);
        }
    }
}

/// Reads which layers have windows: those of `layer_types`, or all but every `period`-th.
pub(super) fn read_layers(text: &str, config: &mut Config, period: usize) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(default = "window")]
        sliding_window: Option<usize>,
        layer_types: Option<IgnoredAny>,
        #[serde(default)]
        use_bidirectional_attention: Value,
    }
    #[expect(clippy::unnecessary_wraps, reason = "serde wants the field's type")]
    fn window() -> Option<usize> {
        Some(WINDOW)
    }
    let fields: Fields = parse_fields(text)?;
    if !matches!(fields.use_bidirectional_attention, Value::Null | Value::Bool(false)) {
        return Err(format!(
            "use_bidirectional_attention is {}; only false is supported",
            fields.use_bidirectional_attention
        ));
    }
    if fields.sliding_window.is_none() && fields.layer_types.is_none() {
        return Err("sliding_window is null, but some layers have a window".into());
    }
    read_windows(text, config, fields.sliding_window, |layer| is_local(layer, period))
}

/// Whether a layer has a window; with period 0 all have one.
fn is_local(layer: usize, period: usize) -> bool {
    period == 0 || !(layer + 1).is_multiple_of(period)
}

/// The window of all layers that have one.
pub(super) fn window(config: &Config) -> usize {
    config.windows.iter().flatten().next().copied().unwrap_or(WINDOW)
}

/// `layer_types` of `config.json`.
pub(super) fn layer_types(config: &Config) -> Value {
    let kind = |layer| match config.window(layer) {
        Some(_) => "sliding_attention",
        None => "full_attention",
    };
    (0..config.num_hidden_layers).map(kind).collect()
}

/// The smallest period with which every layer but each period's last has a window.
pub(super) fn period(config: &Config) -> Option<usize> {
    let layers = config.num_hidden_layers;
    let fits = |&period: &usize| {
        (0..layers).all(|layer| config.window(layer).is_some() == is_local(layer, period))
    };
    (1..=layers + 1).find(fits)
}

/// What is wrong with the fields.
pub(super) fn problem(
    config: &Config,
    query_pre_attn_scalar: usize,
    caps: &[(&str, Option<f32>)],
) -> Option<String> {
    if query_pre_attn_scalar == 0 {
        return Some("query_pre_attn_scalar is 0, not a positive number".into());
    }
    for &(name, cap) in caps {
        if let Some(cap) = cap.filter(|&cap| !(cap.is_finite() && cap > 0.0)) {
            return Some(format!("{name} is {cap}, not a positive number"));
        }
    }
    let size = window(config);
    config.windows.iter().flatten().find(|&&other| other != size).map(|other| {
        format!("its layers have windows of {size} and {other} tokens; they have one size only")
    })
}

/// Factor on the embeddings, rounded as in transformers.
#[expect(clippy::unnecessary_wraps, reason = "the hook's type")]
pub(super) fn embedding_scale(config: &Config) -> Option<f32> {
    Some((config.hidden_size as f64).sqrt() as f32)
}

/// Factor on the scores of attention.
pub(super) fn attention_scale(query_pre_attn_scalar: usize) -> f32 {
    (query_pre_attn_scalar as f64).powf(-0.5) as f32
}

/// Reads the period of local layers, `default` if there is none, and sets their windows.
pub(super) fn read_gguf_windows(
    keys: &Keys<'_>,
    config: &mut Config,
    size: usize,
    default: usize,
) -> Result<(), ModelError> {
    let period = keys.optional_size("attention.sliding_window_pattern")?.unwrap_or(default);
    // Their number is not checked yet.
    let layers = 0..config.num_hidden_layers.min(MAX_LAYERS);
    config.windows = layers.map(|layer| is_local(layer, period).then_some(size)).collect();
    Ok(())
}

/// Writes the period of local layers if it is not `default`.
pub(super) fn write_gguf_period(
    keys: &mut NewKeys<'_>,
    config: &Config,
    default: usize,
) -> Result<(), String> {
    let is_default = (0..config.num_hidden_layers)
        .all(|layer| config.window(layer).is_some() == is_local(layer, default));
    if !is_default {
        let period = period(config).ok_or(
            "llama.cpp reads layers without a window at regular distances only, and its \
             layer_types are others",
        )?;
        keys.put_sizes(&[("attention.sliding_window_pattern", period)]);
    }
    Ok(())
}

/// The `query_pre_attn_scalar` that llama.cpp takes.
pub(super) fn gguf_scalar(config: &Config, layers_of_27b: usize) -> usize {
    if config.num_hidden_layers == layers_of_27b {
        config.hidden_size / config.num_attention_heads.max(1)
    } else {
        config.head_dim
    }
}

/// An error if llama.cpp would scale queries otherwise.
pub(super) fn check_gguf_scalar(
    config: &Config,
    query_pre_attn_scalar: usize,
    layers_of_27b: usize,
) -> Result<(), String> {
    let taken = gguf_scalar(config, layers_of_27b);
    if query_pre_attn_scalar == taken {
        return Ok(());
    }
    Err(format!(
        "its query_pre_attn_scalar is {query_pre_attn_scalar}, and llama.cpp computes with {taken} \
         for a model of {} layers",
        config.num_hidden_layers
    ))
}

/// The parameters of a block, with or without norms of queries and keys in each head.
pub(super) fn specs(config: &Config, prefix: String, qk_norm: bool) -> Vec<ParamSpec> {
    let (kind, hidden) = (NormKind::RmsPlusOne, config.hidden_size);
    // The outputs are normed, so projections into the residual stream need no smaller initial
    // scale.
    let mut specs = Specs::new(prefix, None);
    specs.norm_of(kind, "input_layernorm", hidden);
    specs.attention(config);
    if qk_norm {
        specs.norm_of(kind, "self_attn.q_norm", config.head_dim);
        specs.norm_of(kind, "self_attn.k_norm", config.head_dim);
    }
    specs.norm_of(kind, "post_attention_layernorm", hidden);
    specs.norm_of(kind, "pre_feedforward_layernorm", hidden);
    specs.mlp(config);
    specs.norm_of(kind, "post_feedforward_layernorm", hidden);
    specs.list
}

pub(super) fn bind(
    config: &Config,
    params: &Params,
    prefix: &str,
    qk_norm: bool,
) -> Arc<dyn Block> {
    let norm = |name: &str| Norm::bind(config, params, prefix, name);
    Arc::new(GemmaBlock {
        input_norm: norm("input_layernorm"),
        attention: AttentionWeights::bind(params, prefix),
        qk_norm: qk_norm.then(|| [norm("self_attn.q_norm"), norm("self_attn.k_norm")]),
        post_attention_norm: norm("post_attention_layernorm"),
        pre_feedforward_norm: norm("pre_feedforward_layernorm"),
        mlp: Mlp::bind(params, prefix, "mlp.").activated(GatedActivation::Gelu),
        post_feedforward_norm: norm("post_feedforward_layernorm"),
    })
}

/// Parameters of one block.
#[derive(Debug)]
struct GemmaBlock {
    input_norm: Norm,
    attention: AttentionWeights,
    /// Of queries and keys, in each head.
    qk_norm: Option<[Norm; 2]>,
    post_attention_norm: Norm,
    pre_feedforward_norm: Norm,
    mlp: Mlp,
    post_feedforward_norm: Norm,
}

impl Block for GemmaBlock {
    fn forward(&self, tape: &mut Tape<'_>, pass: &mut Pass<'_>, layer: usize, x: Var) -> Var {
        let config = Arc::clone(&pass.config);
        let normed = self.input_norm.forward(tape, &config, x);
        let (mut q, mut k, v) = self.attention.project(tape, normed);
        if let Some([q_norm, k_norm]) = self.qk_norm {
            q = q_norm.forward(tape, &config, q);
            k = k_norm.forward(tape, &config, k);
        }
        let mixed = self.attention.attend(tape, pass, layer, (q, k, v));
        let normed = self.post_attention_norm.forward(tape, &config, mixed);
        let x = tape.add(x, normed);
        let normed = self.pre_feedforward_norm.forward(tape, &config, x);
        let inner = self.mlp.forward(tape, normed);
        let normed = self.post_feedforward_norm.forward(tape, &config, inner);
        tape.add(x, normed)
    }
}
