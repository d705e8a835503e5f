//! The gpt-oss block (OpenAI 2025, arXiv:2508.10925, section 2). Differences from Llama:
//! - Attention sinks: each query head has a logit that joins the softmax and has no value. Every
//!   second layer sees a window.
//! - All projections have biases.
//! - Feed-forward layers are mixtures of experts: a router with a bias, softmax over the chosen
//!   experts, a gated activation with limits.
//!
//! Files hold the matrices of a layer's experts in one tensor, `[experts, in, out]`, where the
//! columns of gate and up projections take turns; or in MXFP4, see [`FusedExpert`].

use std::sync::Arc;

use crisol_engine::{GatedActivation, ParamSpec, Params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::llama;
use crate::architectures::{Defaults, Family, Names, Specifics};
use crate::block::{Block, Linear, Specs};
use crate::config::{parse_fields, read_windows};
use crate::gguf::{self, GgufRope, Keys, NewKeys};
use crate::layers::FeedForwardShape;
use crate::mixture::{
    Columns, ExpertNames, FeedForward, FusedExpert, Mixture, SoftmaxMixture, experts_problem,
};
use crate::{Config, Head, ModelError};

/// The gpt-oss fields of `config.json`, with transformers' defaults.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct GptOss {
    /// Routed experts per layer.
    pub num_local_experts: usize,
    /// Experts selected per token.
    pub num_experts_per_tok: usize,
    /// Limit of the gated activation's inputs.
    pub swiglu_limit: f32,
}

impl Default for GptOss {
    fn default() -> GptOss {
        GptOss { num_local_experts: 128, num_experts_per_tok: 4, swiglu_limit: LIMIT }
    }
}

const EXPERTS: ExpertNames = ExpertNames::new("mlp.experts.");

/// `swiglu_limit` of the published models.
const LIMIT: f32 = 7.0;

/// `swiglu_alpha` of [`GatedActivation::ClampedSilu`].
const ALPHA: f32 = 1.702;

/// Whether a layer has a window, without `layer_types`.
fn is_local(layer: usize) -> bool {
    layer.is_multiple_of(2)
}

impl Family for GptOss {
    fn names(&self) -> Names {
        Names { class: "GptOss", model_type: "gpt_oss", gguf: "gpt-oss" }
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            rms_norm_eps: 1e-5,
            max_position_embeddings: 131_072,
            kv_heads: Some(8),
            head_dim: Some(64),
            rope_theta: 150_000.0,
            attention_bias: true,
            ..Defaults::default()
        }
    }

    fn common_fields(&self, json: &mut Value) {
        let experts = json["num_experts"].take();
        if !experts.is_null() {
            json["num_local_experts"] = experts;
        }
        if json["rope_parameters"].is_null() && json["rope_scaling"].is_null() {
            json["rope_scaling"] = json!({
                "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                "truncate": false, "original_max_position_embeddings": 4096,
            });
        }
    }

    fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(default = "size")]
            sliding_window: Option<usize>,
            swiglu_alpha: Option<f32>,
        }
        #[expect(clippy::unnecessary_wraps, reason = "serde wants the field's type")]
        fn size() -> Option<usize> {
            Some(128)
        }
        let fields: Fields = parse_fields(text)?;
        if let Some(alpha) = fields.swiglu_alpha.filter(|alpha| alpha.to_bits() != ALPHA.to_bits())
        {
            return Err(format!("swiglu_alpha is {alpha}; only {ALPHA} is supported"));
        }
        config.specifics = Specifics::GptOss(parse_fields(text)?);
        read_windows(text, config, fields.sliding_window, is_local)
    }

    fn to_json(&self, config: &Config) -> Value {
        let kind = |layer| match config.window(layer) {
            Some(_) => "sliding_attention",
            None => "full_attention",
        };
        let mut json = json!(self);
        json["layer_types"] = (0..config.num_hidden_layers).map(kind).collect();
        json
    }

    fn problem(&self, _: &Config) -> Option<String> {
        let limit = self.swiglu_limit;
        experts_problem(
            ("num_local_experts", self.num_local_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
        )
        .or_else(|| {
            let wrong = !limit.is_finite() || limit <= 0.0;
            wrong.then(|| format!("swiglu_limit is {limit}, not a positive number"))
        })
    }

    fn specs(&self, config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let mut specs = Specs::new(prefix, Some(config.num_hidden_layers));
        specs.norm("input_layernorm", hidden);
        specs.attention(config);
        specs.vector("self_attn.sinks", config.num_attention_heads);
        specs.norm("post_attention_layernorm", hidden);
        specs.linear("mlp.router", self.num_local_experts, hidden, true);
        Mixture::specs(&mut specs, EXPERTS, self.num_local_experts, hidden, inner, true);
        specs.list
    }

    fn bind(&self, _: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
        let activation = GatedActivation::ClampedSilu { limit: self.swiglu_limit };
        let count = self.num_local_experts;
        let mixture = SoftmaxMixture {
            router: Linear::bind(params, prefix, "mlp.router"),
            experts: Mixture::bind(params, prefix, EXPERTS, count, activation),
            k: self.num_experts_per_tok,
            normalise: true,
        };
        llama::bind_with(params, prefix, FeedForward::Mixture(mixture))
    }

    fn feed_forward(&self, config: &Config, _: usize) -> FeedForwardShape {
        FeedForwardShape::Mixture {
            experts: self.num_local_experts,
            per_token: self.num_experts_per_tok,
            inner: config.intermediate_size,
            shared: 0,
        }
    }

    fn experts(&self) -> Option<(usize, usize)> {
        Some((self.num_local_experts, self.num_experts_per_tok))
    }

    fn fused_expert(&self, spec: &ParamSpec) -> Option<FusedExpert> {
        FusedExpert::new(&spec.name, &spec.shape, self.num_local_experts, Columns::Interleaved)
    }

    fn read_gguf(&self, keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
        keys.expect_plain_expert_weights()?;
        keys.expect_size("attention.sliding_window_pattern", 2, "every second layer")?;
        gguf::read_attention(keys, config)?;
        config.intermediate_size = keys.size("expert_feed_forward_length")?;
        let window = keys.size("attention.sliding_window")?;
        let layers = config.num_hidden_layers.min(crate::config::MAX_LAYERS);
        config.windows = (0..layers).map(|layer| is_local(layer).then_some(window)).collect();
        config.specifics = Specifics::GptOss(GptOss {
            num_local_experts: keys.size("expert_count")?,
            num_experts_per_tok: keys.size("expert_used_count")?,
            swiglu_limit: LIMIT,
        });
        Ok(())
    }

    fn write_gguf(&self, keys: &mut NewKeys<'_>, config: &Config) -> Result<(), String> {
        if self.swiglu_limit.to_bits() != LIMIT.to_bits() {
            return Err(format!(
                "swiglu_limit is {}, and llama.cpp computes with {LIMIT}",
                self.swiglu_limit
            ));
        }
        if config.head == (Head::Language { tied: true }) {
            return Err("its head is the embedding table, and llama.cpp has no such gpt-oss \
                        models"
                .into());
        }
        let context = config.max_position_embeddings;
        // A window as long as the context is none.
        let sees = |layer: usize| config.window(layer).unwrap_or(context).min(context);
        let window = sees(0);
        let as_there = |layer: usize| sees(layer) == if is_local(layer) { window } else { context };
        if !(0..config.num_hidden_layers).all(as_there) {
            return Err("llama.cpp has windows in the first of every two layers of gpt-oss \
                        models, unlike layer_types"
                .into());
        }
        gguf::write_attention(keys, config);
        keys.put_sizes(&[
            ("attention.sliding_window", window),
            ("feed_forward_length", config.intermediate_size),
            ("expert_feed_forward_length", config.intermediate_size),
            ("expert_count", self.num_local_experts),
            ("expert_used_count", self.num_experts_per_tok),
        ]);
        Ok(())
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("self_attn.sinks", "attn_sinks.weight"),
            ("post_attention_layernorm", "post_attention_norm"),
            ("router", "ffn_gate_inp"),
        ]
    }

    fn gguf_rope(&self) -> GgufRope {
        GgufRope::KeysUnrounded
    }

    fn has_gguf_attention_bias(&self) -> bool {
        true
    }
}
