//! The Qwen3 block with a mixture of experts (Yang et al. 2025, arXiv:2505.09388, section 2): a
//! softmax router without shared experts. Some layers can be dense.

use std::sync::Arc;

use crisol_engine::{GatedActivation, ParamSpec, Params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::qwen3;
use crate::architectures::{Defaults, Family, Names, Specifics};
use crate::block::{Block, Linear, Mlp};
use crate::config::{MAX_SIZE, parse_fields};
use crate::gguf::{self, Keys, NewKeys};
use crate::layers::FeedForwardShape;
use crate::mixture::{ExpertNames, FeedForward, Mixture, SoftmaxMixture, experts_problem};
use crate::{Config, ModelError};

/// The fields of `config.json` that Qwen3's mixtures alone have, with transformers' defaults.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Qwen3Moe {
    /// Routed experts per layer.
    pub num_experts: usize,
    /// Experts selected per token.
    pub num_experts_per_tok: usize,
    /// Inner width of an expert.
    pub moe_intermediate_size: usize,
    /// Whether the weights of the selected experts are normalised to sum 1.
    pub norm_topk_prob: bool,
    /// Every so many layers, the last is a mixture.
    pub decoder_sparse_step: usize,
    /// Layers that are dense all the same.
    #[serde(deserialize_with = "null_is_empty")]
    pub mlp_only_layers: Vec<usize>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(json: D) -> Result<Vec<usize>, D::Error> {
    Option::deserialize(json).map(Option::unwrap_or_default)
}

impl Default for Qwen3Moe {
    fn default() -> Qwen3Moe {
        Qwen3Moe {
            num_experts: 128,
            num_experts_per_tok: 8,
            moe_intermediate_size: 768,
            norm_topk_prob: false,
            decoder_sparse_step: 1,
            mlp_only_layers: Vec::new(),
        }
    }
}

const EXPERTS: ExpertNames = ExpertNames::new("mlp.experts.");

impl Qwen3Moe {
    fn is_mixture(&self, layer: usize) -> bool {
        (layer + 1).is_multiple_of(self.decoder_sparse_step)
            && !self.mlp_only_layers.contains(&layer)
    }
}

impl Family for Qwen3Moe {
    fn names(&self) -> Names {
        Names { class: "Qwen3Moe", model_type: "qwen3_moe", gguf: "qwen3moe" }
    }

    fn defaults(&self) -> Defaults {
        Defaults { max_position_embeddings: 32768, kv_heads: Some(4), ..Defaults::default() }
    }

    /// transformers 5 writes the number of experts under another name.
    fn common_fields(&self, json: &mut Value) {
        let experts = json["num_local_experts"].take();
        if !experts.is_null() {
            json["num_experts"] = experts;
        }
    }

    fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(default)]
            use_sliding_window: bool,
            #[serde(default = "size")]
            sliding_window: Option<usize>,
        }
        #[expect(clippy::unnecessary_wraps, reason = "serde wants the field's type")]
        fn size() -> Option<usize> {
            Some(4096)
        }
        config.specifics = Specifics::Qwen3Moe(parse_fields(text)?);
        let fields: Fields = parse_fields(text)?;
        config.set_window(fields.sliding_window.filter(|_| fields.use_sliding_window));
        Ok(())
    }

    fn to_json(&self, config: &Config) -> Value {
        let mut json = json!(self);
        json["use_sliding_window"] = json!(!config.windows.is_empty());
        json["sliding_window"] = json!(config.window(0));
        json
    }

    fn problem(&self, config: &Config) -> Option<String> {
        for (name, size) in [
            ("moe_intermediate_size", self.moe_intermediate_size),
            ("decoder_sparse_step", self.decoder_sparse_step),
        ] {
            if size == 0 || size > MAX_SIZE {
                return Some(format!("{name} is {size}, not between 1 and {MAX_SIZE}"));
            }
        }
        experts_problem(
            ("num_experts", self.num_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
        )
        .or_else(|| super::mistral::one_window(config))
    }

    fn specs(&self, config: &Config, layer: usize, prefix: String) -> Vec<ParamSpec> {
        qwen3::specs_with(config, prefix, |specs| {
            if !self.is_mixture(layer) {
                return specs.mlp(config);
            }
            let (hidden, inner) = (config.hidden_size, self.moe_intermediate_size);
            specs.linear("mlp.gate", self.num_experts, hidden, false);
            Mixture::specs(specs, EXPERTS, self.num_experts, hidden, inner, false);
        })
    }

    fn bind(&self, _: &Config, params: &Params, layer: usize, prefix: &str) -> Arc<dyn Block> {
        let feed_forward = if self.is_mixture(layer) {
            let (count, activation) = (self.num_experts, GatedActivation::Silu);
            FeedForward::Mixture(SoftmaxMixture {
                router: Linear::bind(params, prefix, "mlp.gate"),
                experts: Mixture::bind(params, prefix, EXPERTS, count, activation),
                k: self.num_experts_per_tok,
                normalise: self.norm_topk_prob,
            })
        } else {
            FeedForward::Dense(Mlp::bind(params, prefix, "mlp."))
        };
        qwen3::bind_with(params, prefix, feed_forward)
    }

    fn feed_forward(&self, config: &Config, layer: usize) -> FeedForwardShape {
        if !self.is_mixture(layer) {
            return FeedForwardShape::Dense { inner: config.intermediate_size };
        }
        FeedForwardShape::Mixture {
            experts: self.num_experts,
            per_token: self.num_experts_per_tok,
            inner: self.moe_intermediate_size,
            shared: 0,
        }
    }

    fn experts(&self) -> Option<(usize, usize)> {
        Some((self.num_experts, self.num_experts_per_tok))
    }

    fn read_gguf(&self, keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
        keys.expect_unset("attention.sliding_window")?;
        keys.expect_plain_expert_weights()?;
        gguf::read_attention(keys, config)?;
        config.specifics = Specifics::Qwen3Moe(Qwen3Moe {
            num_experts: keys.size("expert_count")?,
            num_experts_per_tok: keys.size("expert_used_count")?,
            moe_intermediate_size: keys.size("expert_feed_forward_length")?,
            norm_topk_prob: true,
            ..Qwen3Moe::default()
        });
        Ok(())
    }

    fn write_gguf(&self, keys: &mut NewKeys<'_>, config: &Config) -> Result<(), String> {
        if let Some(layer) = (0..config.num_hidden_layers).find(|&layer| !self.is_mixture(layer)) {
            return Err(format!(
                "layer {layer} is dense (mlp_only_layers, decoder_sparse_step), and llama.cpp has \
                 mixtures of experts only in Qwen3Moe models"
            ));
        }
        if !self.norm_topk_prob {
            return Err("norm_topk_prob is false, and llama.cpp normalises the experts' weights \
                        of Qwen3Moe models"
                .into());
        }
        gguf::write_dense(keys, config)?;
        keys.put_sizes(&[
            ("expert_feed_forward_length", self.moe_intermediate_size),
            ("expert_count", self.num_experts),
            ("expert_used_count", self.num_experts_per_tok),
        ]);
        Ok(())
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("gate", "ffn_gate_inp")]
    }
}
