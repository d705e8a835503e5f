//! The Qwen3 block (Yang et al. 2025, arXiv:2505.09388): Llama's with QK-norm. Queries and keys are
//! normed before RoPE, per head, with one weight vector for all heads.

use std::sync::Arc;

use crisol_engine::{ParamId, ParamSpec, Params, Tape, Var};

use super::qwen2::read_later_windows;
use crate::Config;
use crate::architectures::{Defaults, Family, Names};
use crate::block::{AttentionWeights, Block, Mlp, Pass, Specs, weight};
use crate::mixture::FeedForward;

/// Qwen3 has no fields of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Qwen3;

impl Family for Qwen3 {
    fn names(&self) -> Names {
        Names { class: "Qwen3", model_type: "qwen3", gguf: "qwen3" }
    }

    fn defaults(&self) -> Defaults {
        Defaults { max_position_embeddings: 32768, head_dim: Some(128), ..Defaults::default() }
    }

    fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        read_later_windows(text, config)
    }

    fn to_json(&self, config: &Config) -> serde_json::Value {
        serde_json::json!({ "use_sliding_window": !config.windows.is_empty() })
    }

    fn specs(&self, config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
        specs_with(config, prefix, |specs| specs.mlp(config))
    }

    fn bind(&self, _: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
        bind_with(params, prefix, FeedForward::Dense(Mlp::bind(params, prefix, "mlp.")))
    }
}

/// The parameters of a block, whose feed-forward layer `feed_forward` adds.
pub(super) fn specs_with(
    config: &Config,
    prefix: String,
    feed_forward: impl FnOnce(&mut Specs),
) -> Vec<ParamSpec> {
    let mut specs = Specs::new(prefix, Some(config.num_hidden_layers));
    specs.norm("input_layernorm", config.hidden_size);
    specs.attention(config);
    specs.norm("self_attn.q_norm", config.head_dim);
    specs.norm("self_attn.k_norm", config.head_dim);
    specs.norm("post_attention_layernorm", config.hidden_size);
    feed_forward(&mut specs);
    specs.list
}

pub(super) fn bind_with(
    params: &Params,
    prefix: &str,
    feed_forward: FeedForward,
) -> Arc<dyn Block> {
    Arc::new(Qwen3Block {
        input_norm: weight(params, prefix, "input_layernorm"),
        attention: AttentionWeights::bind(params, prefix),
        q_norm: weight(params, prefix, "self_attn.q_norm"),
        k_norm: weight(params, prefix, "self_attn.k_norm"),
        post_attention_norm: weight(params, prefix, "post_attention_layernorm"),
        feed_forward,
    })
}

/// Parameters of one block.
#[derive(Debug)]
struct Qwen3Block {
    input_norm: ParamId,
    attention: AttentionWeights,
    q_norm: ParamId,
    k_norm: ParamId,
    post_attention_norm: ParamId,
    feed_forward: FeedForward,
}

impl Block for Qwen3Block {
    fn forward(&self, tape: &mut Tape<'_>, pass: &mut Pass<'_>, layer: usize, x: Var) -> Var {
        let eps = pass.config.rms_norm_eps;
        let normed = tape.rms_norm(x, self.input_norm, eps);
        let (q, k, v) = self.attention.project(tape, normed);
        let q = tape.rms_norm(q, self.q_norm, eps);
        let k = tape.rms_norm(k, self.k_norm, eps);
        let mixed = self.attention.attend(tape, pass, layer, (q, k, v));
        let x = tape.add(x, mixed);
        let normed = tape.rms_norm(x, self.post_attention_norm, eps);
        let inner = self.feed_forward.forward(tape, normed);
        tape.add(x, inner)
    }
}
