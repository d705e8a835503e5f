//! The text block of Llama 4 (Meta AI 2025; `modeling_llama4.py` of
//! <https://github.com/huggingface/transformers>). Differences from Llama:
//! - Three of four layers apply RoPE (adjacent pairs), then QK-norm without a weight, and attend
//!   within chunks of the context.
//! - The others have no RoPE and attend to the full context; their queries are scaled up slowly
//!   with the position (`temperature`).
//! - Feed-forward layers can be mixtures of experts plus a shared expert: top-k by logit, the
//!   expert's *input* scaled by the sigmoid of its logit.

use std::sync::Arc;

use crisol_engine::{
    Choice, GatedActivation, ParamId, ParamSpec, Params, RopeStyle, Router, Scoring, Tape, Var,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::architectures::{Defaults, Family, Names, Specifics};
use crate::block::{AttentionWeights, Block, Mlp, Pass, PastKeyValues, Specs, weight};
use crate::config::{MAX_LAYERS, MAX_SIZE, parse_fields};
use crate::gguf::{self, GgufRope, Keys, NewKeys};
use crate::layers::{AttentionShape, FeedForwardShape, Span};
use crate::mixture::{Columns, ExpertNames, FusedExpert, Mixture, WeightApplied};
use crate::{Config, ModelError};

/// The Llama 4 fields of `config.json`, one entry per layer where layers differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Llama4 {
    /// Inner width of dense feed-forward layers; `intermediate_size` is an expert's.
    pub intermediate_size_mlp: usize,
    /// Whether a layer is a mixture of experts.
    pub moe_layers: Vec<bool>,
    /// Routed experts per layer.
    pub num_local_experts: usize,
    /// Experts selected per token.
    pub num_experts_per_tok: usize,
    /// Whether a layer applies RoPE.
    pub rope_layers: Vec<bool>,
    /// Whether a layer uses chunked attention.
    pub chunked_layers: Vec<bool>,
    /// Chunk size in tokens.
    pub attention_chunk_size: usize,
    /// Whether layers with RoPE have QK-norm.
    pub use_qk_norm: bool,
    /// Whether layers without RoPE scale their queries by position.
    pub attn_temperature_tuning: bool,
    /// Positions per step of the scale.
    pub floor_scale: usize,
    /// Growth of the scale per step, on a logarithmic scale.
    pub attn_scale: f32,
}

/// The fields as in the file, with transformers' defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    num_hidden_layers: usize,
    intermediate_size_mlp: usize,
    moe_layers: Option<Vec<usize>>,
    interleave_moe_layer_step: usize,
    num_local_experts: usize,
    num_experts_per_tok: usize,
    no_rope_layers: Option<Vec<u8>>,
    no_rope_layer_interval: usize,
    layer_types: Option<Vec<String>>,
    attention_chunk_size: Option<usize>,
    use_qk_norm: bool,
    attn_temperature_tuning: Value,
    floor_scale: usize,
    attn_scale: f32,
}

impl Default for Fields {
    fn default() -> Fields {
        Fields {
            num_hidden_layers: 0,
            intermediate_size_mlp: 16384,
            moe_layers: None,
            interleave_moe_layer_step: 1,
            num_local_experts: 16,
            num_experts_per_tok: 1,
            no_rope_layers: None,
            no_rope_layer_interval: 4,
            layer_types: None,
            attention_chunk_size: Some(8192),
            use_qk_norm: true,
            attn_temperature_tuning: Value::Bool(true),
            floor_scale: 8192,
            attn_scale: 0.1,
        }
    }
}

impl Llama4 {
    /// Reads the fields of a `config.json`.
    fn parse(text: &str) -> Result<Llama4, String> {
        let fields: Fields = parse_fields(text)?;
        let layers = fields.num_hidden_layers;
        // Checked before lists of this length are allocated.
        if layers > MAX_LAYERS {
            return Err(format!("num_hidden_layers is {layers}, more than {MAX_LAYERS}"));
        }
        if fields.interleave_moe_layer_step == 0 || fields.no_rope_layer_interval == 0 {
            return Err("interleave_moe_layer_step and no_rope_layer_interval must not be 0".into());
        }
        let step = fields.interleave_moe_layer_step;
        let moe_layers = (0..layers).map(|layer| match &fields.moe_layers {
            Some(listed) => listed.contains(&layer),
            None => (layer + 1).is_multiple_of(step),
        });
        let rope_layers: Vec<bool> = match fields.no_rope_layers.filter(|listed| !listed.is_empty())
        {
            // Despite the field's name, 1 means that the layer applies RoPE.
            Some(listed) => listed.iter().map(|&rotates| rotates != 0).collect(),
            None => (0..layers)
                .map(|layer| !(layer + 1).is_multiple_of(fields.no_rope_layer_interval))
                .collect(),
        };
        let chunked_layers = match fields.layer_types {
            None => rope_layers.clone(),
            Some(types) => types
                .iter()
                .map(|kind| match kind.as_str() {
                    "chunked_attention" => Ok(true),
                    "full_attention" => Ok(false),
                    other => Err(format!("layer_types has \"{other}\", which is not supported")),
                })
                .collect::<Result<_, _>>()?,
        };
        let tuning = &fields.attn_temperature_tuning;
        Ok(Llama4 {
            intermediate_size_mlp: fields.intermediate_size_mlp,
            moe_layers: moe_layers.collect(),
            num_local_experts: fields.num_local_experts,
            num_experts_per_tok: fields.num_experts_per_tok,
            rope_layers,
            chunked_layers,
            attention_chunk_size: fields.attention_chunk_size.unwrap_or(usize::MAX),
            use_qk_norm: fields.use_qk_norm,
            // Published configs have a number here.
            attn_temperature_tuning: tuning
                .as_bool()
                .unwrap_or(tuning.as_f64().is_some_and(|n| n != 0.0)),
            floor_scale: fields.floor_scale,
            attn_scale: fields.attn_scale,
        })
    }

    /// The scale of an unrotated query: `attn_scale · ln(1 + ⌊(position + 1) / floor_scale⌋) + 1`.
    fn temperature(&self, position: u32) -> f32 {
        ((position as f32 + 1.0) / self.floor_scale as f32).floor().ln_1p() * self.attn_scale + 1.0
    }
}

impl Family for Llama4 {
    fn names(&self) -> Names {
        Names { class: "Llama4", model_type: "llama4_text", gguf: "llama4" }
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            rms_norm_eps: 1e-5,
            max_position_embeddings: 131_072,
            head_dim: Some(128),
            rope_theta: 500_000.0,
            ..Defaults::default()
        }
    }

    fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        config.specifics = Specifics::Llama4(Llama4::parse(text)?);
        Ok(())
    }

    fn to_json(&self, _: &Config) -> Value {
        let moe: Vec<usize> =
            (0..self.moe_layers.len()).filter(|&layer| self.moe_layers[layer]).collect();
        let types = |&chunked: &bool| if chunked { "chunked_attention" } else { "full_attention" };
        let rope_layers: Vec<u8> = self.rope_layers.iter().map(|&rope| u8::from(rope)).collect();
        let chunk = (self.attention_chunk_size < usize::MAX).then_some(self.attention_chunk_size);
        json!({
            "intermediate_size_mlp": self.intermediate_size_mlp,
            "moe_layers": moe,
            "num_local_experts": self.num_local_experts,
            "num_experts_per_tok": self.num_experts_per_tok,
            "no_rope_layers": rope_layers,
            "layer_types": self.chunked_layers.iter().map(types).collect::<Vec<_>>(),
            "attention_chunk_size": chunk,
            "use_qk_norm": self.use_qk_norm,
            "attn_temperature_tuning": self.attn_temperature_tuning,
            "floor_scale": self.floor_scale,
            "attn_scale": self.attn_scale,
        })
    }

    fn problem(&self, config: &Config) -> Option<String> {
        if *self == Llama4::default() {
            return Some("a Llama4 config needs its expert sizes and layer types".into());
        }
        let layers = config.num_hidden_layers;
        for (name, list) in [
            ("moe_layers", &self.moe_layers),
            ("no_rope_layers", &self.rope_layers),
            ("layer_types", &self.chunked_layers),
        ] {
            if list.len() != layers {
                return Some(format!("{name} lists {} layers of {layers}", list.len()));
            }
        }
        let sizes = [
            ("intermediate_size_mlp", self.intermediate_size_mlp),
            ("num_local_experts", self.num_local_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
        ];
        for (name, size) in sizes {
            if size == 0 || size > MAX_SIZE {
                return Some(format!("{name} is {size}, not between 1 and {MAX_SIZE}"));
            }
        }
        if self.attention_chunk_size == 0 {
            return Some("attention_chunk_size is 0, not a positive number".into());
        }
        if self.num_experts_per_tok > self.num_local_experts {
            return Some(format!(
                "num_experts_per_tok ({}) is more than num_local_experts ({})",
                self.num_experts_per_tok, self.num_local_experts
            ));
        }
        if self.floor_scale == 0 {
            return Some("floor_scale is 0, not a positive number".into());
        }
        (!self.attn_scale.is_finite())
            .then(|| format!("attn_scale is {}, not a finite number", self.attn_scale))
    }

    fn multimodal_class(&self) -> Option<&'static str> {
        Some("Llama4ForConditionalGeneration")
    }

    fn specs(&self, config: &Config, layer: usize, prefix: String) -> Vec<ParamSpec> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let mut specs = Specs::new(prefix, Some(config.num_hidden_layers));
        specs.norm("input_layernorm", hidden);
        specs.attention(config);
        specs.norm("post_attention_layernorm", hidden);
        if self.moe_layers[layer] {
            specs.linear("feed_forward.router", self.num_local_experts, hidden, false);
            Mixture::specs(&mut specs, EXPERTS, self.num_local_experts, hidden, inner, false);
            specs.gated(SHARED, hidden, inner, false);
        } else {
            specs.gated("feed_forward.", hidden, self.intermediate_size_mlp, false);
        }
        specs.list
    }

    fn bind(&self, _: &Config, params: &Params, layer: usize, prefix: &str) -> Arc<dyn Block> {
        Arc::new(Llama4Block {
            own: self.clone(),
            input_norm: weight(params, prefix, "input_layernorm"),
            attention: AttentionWeights::bind(params, prefix),
            post_attention_norm: weight(params, prefix, "post_attention_layernorm"),
            feed_forward: if self.moe_layers[layer] {
                FeedForward::Mixture {
                    router: weight(params, prefix, "feed_forward.router"),
                    experts: Mixture::bind(
                        params,
                        prefix,
                        EXPERTS,
                        self.num_local_experts,
                        GatedActivation::Silu,
                    ),
                    shared: Mlp::bind(params, prefix, SHARED),
                }
            } else {
                FeedForward::Dense(Mlp::bind(params, prefix, "feed_forward."))
            },
        })
    }

    fn rope_style(&self) -> RopeStyle {
        RopeStyle::Interleaved
    }

    fn attention(&self, config: &Config, layer: usize) -> AttentionShape {
        let chunk = self.chunked_layers[layer].then_some(self.attention_chunk_size);
        AttentionShape::grouped(config, chunk.map(Span::Chunk))
    }

    fn feed_forward(&self, config: &Config, layer: usize) -> FeedForwardShape {
        if !self.moe_layers[layer] {
            return FeedForwardShape::Dense { inner: self.intermediate_size_mlp };
        }
        FeedForwardShape::Mixture {
            experts: self.num_local_experts,
            per_token: self.num_experts_per_tok,
            inner: config.intermediate_size,
            shared: config.intermediate_size,
        }
    }

    fn experts(&self) -> Option<(usize, usize)> {
        Some((self.num_local_experts, self.num_experts_per_tok))
    }

    fn fused_expert(&self, spec: &ParamSpec) -> Option<FusedExpert> {
        FusedExpert::new(&spec.name, &spec.shape, self.num_local_experts, Columns::Concatenated)
    }

    fn read_gguf(&self, keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
        gguf::read_attention(keys, config)?;
        // llama.cpp reads no other value.
        if keys.optional_size("attention.sliding_window")? == Some(0) {
            return Err(keys.refuse(
                "attention.sliding_window",
                "0 (no layer has chunks), which is not supported",
            ));
        }
        for rest in ["attention.sliding_window_pattern", "rope.freq_base_swa"] {
            if keys.metadata.get(&keys.name(rest)).is_some() {
                return Err(keys.refuse(rest, "given, which is not supported"));
            }
        }
        let layers = config.num_hidden_layers;
        // Checked before lists of this length are allocated.
        if layers > MAX_LAYERS {
            return Err(keys.refuse("block_count", &format!("{layers}, more than {MAX_LAYERS}")));
        }
        let step = keys.size("interleave_moe_layer_step")?;
        let experts = keys.size("expert_count")?;
        let own = Llama4 {
            intermediate_size_mlp: config.intermediate_size,
            moe_layers: moe_layers(layers, step),
            num_local_experts: experts,
            num_experts_per_tok: keys.size("expert_used_count")?,
            rope_layers: rope_layers(layers),
            chunked_layers: rope_layers(layers),
            attention_chunk_size: CHUNK,
            use_qk_norm: experts != EXPERTS_WITHOUT_NORM,
            attn_temperature_tuning: true,
            floor_scale: TEMPERATURE.0,
            attn_scale: TEMPERATURE.1,
        };
        config.intermediate_size = keys.size("expert_feed_forward_length")?;
        config.specifics = Specifics::Llama4(own);
        Ok(())
    }

    fn write_gguf(&self, keys: &mut NewKeys<'_>, config: &Config) -> Result<(), String> {
        let (layers, positions) = (config.num_hidden_layers, config.max_position_embeddings);
        // A step above the number of layers means no mixture.
        let Some(step) = (1..=layers + 1).find(|&step| moe_layers(layers, step) == self.moe_layers)
        else {
            return Err(
                "llama.cpp supports mixtures of experts in every n-th layer only, not moe_layers"
                    .into(),
            );
        };
        if self.rope_layers != rope_layers(layers) {
            return Err(format!(
                "llama.cpp applies RoPE in three of {ROPE_PERIOD} layers, unlike no_rope_layers"
            ));
        }
        // A context within one chunk has no chunks.
        let chunks = |chunked: &[bool], size: usize| -> Vec<Option<usize>> {
            chunked
                .iter()
                .map(|&chunked| Some(size).filter(|&size| chunked && size < positions))
                .collect()
        };
        if chunks(&self.chunked_layers, self.attention_chunk_size)
            != chunks(&rope_layers(layers), CHUNK)
        {
            return Err(format!(
                "llama.cpp uses chunks of {CHUNK} tokens in three of {ROPE_PERIOD} layers, \
                 unlike layer_types and attention_chunk_size"
            ));
        }
        // Up to position `floor` the temperature is 1.
        let temperature = |(floor, scale): (usize, f32)| {
            Some((floor, scale.to_bits())).filter(|_| floor <= positions)
        };
        let tuned = self.attn_temperature_tuning.then_some((self.floor_scale, self.attn_scale));
        if layers >= ROPE_PERIOD && tuned.and_then(temperature) != temperature(TEMPERATURE) {
            return Err(format!(
                "llama.cpp scales unrotated queries with floor_scale {} and attn_scale {}, \
                 unlike attn_temperature_tuning, floor_scale and attn_scale here",
                TEMPERATURE.0, TEMPERATURE.1
            ));
        }
        if self.use_qk_norm == (self.num_local_experts == EXPERTS_WITHOUT_NORM) {
            return Err(format!(
                "llama.cpp norms queries and keys unless there are {EXPERTS_WITHOUT_NORM} experts, \
                 but use_qk_norm is {} with {}",
                self.use_qk_norm, self.num_local_experts
            ));
        }
        gguf::write_attention(keys, config);
        keys.put_sizes(&[
            ("feed_forward_length", self.intermediate_size_mlp),
            ("expert_feed_forward_length", config.intermediate_size),
            ("interleave_moe_layer_step", step),
            ("expert_count", self.num_local_experts),
            ("expert_used_count", self.num_experts_per_tok),
        ]);
        Ok(())
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("router", "ffn_gate_inp")]
    }

    fn gguf_rope(&self) -> GgufRope {
        GgufRope::KeysOrDivisors
    }
}

// llama.cpp hard-codes several fields of `config.json` (`conversion/llama.py`, `llama4.cpp`).

/// Every fourth layer has no RoPE and attends to the full context (`n_no_rope_layer_step`).
const ROPE_PERIOD: usize = 4;
/// Attention chunk size in tokens.
const CHUNK: usize = 8192;
/// `floor_scale` and `attn_scale` of the query temperature.
const TEMPERATURE: (usize, f32) = (8192, 0.1);
/// llama.cpp disables QK-norm for this number of experts (Maverick).
const EXPERTS_WITHOUT_NORM: usize = 128;

/// Whether each layer is a mixture: every `step`-th one (0: none).
fn moe_layers(layers: usize, step: usize) -> Vec<bool> {
    (1..=layers).map(|layer| step > 0 && layer.is_multiple_of(step)).collect()
}

/// Whether each layer applies RoPE; the same layers use chunked attention.
fn rope_layers(layers: usize) -> Vec<bool> {
    (1..=layers).map(|layer| !layer.is_multiple_of(ROPE_PERIOD)).collect()
}

/// Parameters of one block.
#[derive(Debug)]
struct Llama4Block {
    own: Llama4,
    input_norm: ParamId,
    attention: AttentionWeights,
    post_attention_norm: ParamId,
    feed_forward: FeedForward,
}

#[derive(Debug)]
enum FeedForward {
    Dense(Mlp),
    Mixture { router: ParamId, experts: Mixture, shared: Mlp },
}

const EXPERTS: ExpertNames = ExpertNames::new("feed_forward.experts.");
const SHARED: &str = "feed_forward.shared_expert.";

impl Block for Llama4Block {
    fn forward(&self, tape: &mut Tape<'_>, pass: &mut Pass<'_>, layer: usize, x: Var) -> Var {
        let eps = pass.config.rms_norm_eps;
        let normed = tape.rms_norm(x, self.input_norm, eps);
        let mixed = self.attend(tape, pass, layer, normed);
        let x = tape.add(x, mixed);
        let normed = tape.rms_norm(x, self.post_attention_norm, eps);
        let inner = match &self.feed_forward {
            FeedForward::Dense(mlp) => mlp.forward(tape, normed),
            FeedForward::Mixture { router, experts, shared } => {
                let logits = tape.linear(normed, *router, None);
                let choice = Choice::largest(self.own.num_experts_per_tok);
                let chosen = tape.choose_experts(logits, &choice);
                let router = Router { scoring: Scoring::Sigmoid, normalise: false, scale: 1.0 };
                let weights = tape.expert_weights(logits, router, &chosen);
                let routed = experts.forward(tape, normed, weights, &chosen, WeightApplied::Input);
                let shared = shared.forward(tape, normed);
                tape.add(shared, routed)
            }
        };
        tape.add(x, inner)
    }
}

impl Llama4Block {
    fn attend(&self, tape: &mut Tape<'_>, pass: &mut Pass<'_>, layer: usize, x: Var) -> Var {
        let config = &pass.config;
        let dim = config.head_dim;
        let (mut q, mut k, v) = self.attention.project(tape, x);
        if self.own.rope_layers[layer] {
            q = tape.rope(q, &pass.rope, dim, &pass.rope_rows);
            k = tape.rope(k, &pass.rope, dim, &pass.rope_rows);
            if self.own.use_qk_norm {
                q = tape.unit_norm(q, dim, config.rms_norm_eps);
                k = tape.unit_norm(k, dim, config.rms_norm_eps);
            }
        } else if self.own.attn_temperature_tuning {
            let factors: Vec<f32> =
                pass.positions.iter().map(|&position| self.own.temperature(position)).collect();
            let factors = tape.constant(pass.positions.len(), 1, &factors);
            q = tape.scale_rows(q, factors, &(0..pass.positions.len() as u32).collect::<Vec<_>>());
        }
        let shape = config.attention(layer);
        let chunk = self.own.chunked_layers[layer].then_some(self.own.attention_chunk_size);
        let mixed = match &mut pass.past {
            PastKeyValues::None => {
                let cut = |bounds: &[u32]| {
                    let step = chunk.unwrap_or(usize::MAX);
                    (bounds[0] as usize..bounds[1] as usize).step_by(step).map(|start| start as u32)
                };
                let end = pass.offsets.last().copied();
                let cuts: Vec<u32> = pass.offsets.windows(2).flat_map(cut).chain(end).collect();
                tape.attention(q, k, v, shape, &cuts)
            }
            PastKeyValues::Cached { cache, slots } => {
                tape.attention_cached(q, k, v, shape, &pass.offsets, cache, slots, layer, chunk)
            }
        };
        self.attention.output(tape, mixed)
    }
}
