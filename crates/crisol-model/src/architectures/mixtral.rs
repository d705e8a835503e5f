//! The Mixtral block (Jiang et al. 2024, arXiv:2401.04088): Mistral's with a mixture of experts in
//! every layer, and a softmax router over the chosen experts.

use std::sync::Arc;

use crisol_engine::{GatedActivation, ParamSpec, Params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{llama, mistral};
use crate::architectures::{Defaults, Family, Names, Specifics};
use crate::block::{Block, Linear, Specs};
use crate::config::parse_fields;
use crate::gguf::{self, GgufRope, Keys, NewKeys, TensorMapping};
use crate::layers::FeedForwardShape;
use crate::mixture::{ExpertNames, FeedForward, Mixture, SoftmaxMixture, experts_problem};
use crate::{Config, ModelError};

/// The fields of `config.json` that Mixtral alone has, with transformers' defaults.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Mixtral {
    /// Routed experts per layer.
    pub num_local_experts: usize,
    /// Experts selected per token.
    pub num_experts_per_tok: usize,
}

impl Default for Mixtral {
    fn default() -> Mixtral {
        Mixtral { num_local_experts: 8, num_experts_per_tok: 2 }
    }
}

const EXPERTS: ExpertNames =
    ExpertNames { prefix: "block_sparse_moe.experts.", gate: "w1", up: "w3", down: "w2" };

impl Mixtral {
    /// Reads a GGUF file whose architecture is Llama's, with experts.
    pub(super) fn of_gguf(keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
        keys.expect_unset("attention.sliding_window")?;
        keys.expect_unset("expert_shared_feed_forward_length")?;
        keys.expect_plain_expert_weights()?;
        gguf::read_attention(keys, config)?;
        // Mixtral has no biases: a file with some has surplus tensors.
        config.attention_bias = false;
        config.specifics = Specifics::Mixtral(Mixtral {
            num_local_experts: keys.size("expert_count")?,
            num_experts_per_tok: keys.size("expert_used_count")?,
        });
        Ok(())
    }
}

impl Family for Mixtral {
    /// As of Mistral, llama.cpp's converter writes Llama's architecture.
    fn names(&self) -> Names {
        Names { class: "Mixtral", model_type: "mixtral", gguf: "llama" }
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            rms_norm_eps: 1e-5,
            max_position_embeddings: 131_072,
            kv_heads: Some(8),
            rope_theta: 1_000_000.0,
            ..Defaults::default()
        }
    }

    /// transformers knows the number of experts by two names.
    fn common_fields(&self, json: &mut Value) {
        let experts = json["num_experts"].take();
        if !experts.is_null() {
            json["num_local_experts"] = experts;
        }
    }

    fn has_attention_bias(&self) -> bool {
        false
    }

    fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        config.specifics = Specifics::Mixtral(parse_fields(text)?);
        mistral::read_window(text, config, None)
    }

    fn to_json(&self, config: &Config) -> Value {
        let mut json = json!(self);
        json["sliding_window"] = json!(config.window(0));
        json
    }

    fn problem(&self, config: &Config) -> Option<String> {
        experts_problem(
            ("num_local_experts", self.num_local_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
        )
        .or_else(|| mistral::one_window(config))
    }

    fn specs(&self, config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let mut specs = Specs::new(prefix, Some(config.num_hidden_layers));
        specs.norm("input_layernorm", hidden);
        specs.attention(config);
        specs.norm("post_attention_layernorm", hidden);
        specs.linear("block_sparse_moe.gate", self.num_local_experts, hidden, false);
        Mixture::specs(&mut specs, EXPERTS, self.num_local_experts, hidden, inner, false);
        specs.list
    }

    fn bind(&self, _: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
        let (count, activation) = (self.num_local_experts, GatedActivation::Silu);
        let mixture = SoftmaxMixture {
            router: Linear::bind(params, prefix, "block_sparse_moe.gate"),
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

    fn write_gguf(&self, keys: &mut NewKeys<'_>, config: &Config) -> Result<(), String> {
        gguf::write_dense(keys, config)?;
        keys.put_sizes(&[
            ("expert_count", self.num_local_experts),
            ("expert_used_count", self.num_experts_per_tok),
        ]);
        Ok(())
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("gate", "ffn_gate_inp"), ("w1", "ffn_gate"), ("w3", "ffn_up"), ("w2", "ffn_down")]
    }

    fn gguf_mapping(
        &self,
        config: &Config,
        spec: &ParamSpec,
        tensor: &str,
    ) -> Option<TensorMapping> {
        llama::gguf_mapping(config, spec, tensor)
    }

    fn gguf_rope(&self) -> GgufRope {
        GgufRope::KeysOrDivisors
    }
}
