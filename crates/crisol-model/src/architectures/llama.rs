//! The Llama block (Touvron et al. 2023, arXiv:2302.13971), with pre-norm:
//!
//! ```text
//! x = x + attention(norm(x))
//! x = x + mlp(norm(x))
//! ```

use std::sync::Arc;

use crisol_engine::{ParamId, ParamSpec, Params, Tape, Var};

use super::Mixtral;
use crate::architectures::{Family, Names};
use crate::block::{AttentionWeights, Block, Mlp, Pass, Specs, weight};
use crate::gguf::{self, GgufRope, Keys, TensorMapping};
use crate::mixture::FeedForward;
use crate::{Config, ModelError};

/// Llama has no fields of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Llama;

impl Family for Llama {
    fn names(&self) -> Names {
        Names { class: "Llama", model_type: "llama", gguf: "llama" }
    }

    fn has_mlp_bias(&self) -> bool {
        true
    }

    fn specs(&self, config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
        specs(config, prefix, config.attention_bias, config.attention_bias)
    }

    fn bind(&self, _: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
        bind(params, prefix)
    }

    /// llama.cpp has no architecture of Mixtral's name: its converter writes Llama's.
    fn read_gguf(&self, keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
        match keys.optional_size("expert_count")? {
            None | Some(0) => gguf::read_dense(keys, config),
            Some(_) => Mixtral::of_gguf(keys, config),
        }
    }

    fn gguf_mapping(
        &self,
        config: &Config,
        spec: &ParamSpec,
        tensor: &str,
    ) -> Option<TensorMapping> {
        gguf_mapping(config, spec, tensor)
    }

    fn gguf_rope(&self) -> GgufRope {
        GgufRope::KeysOrDivisors
    }

    fn has_gguf_attention_bias(&self) -> bool {
        true
    }
}

/// The parameters of a block, with or without biases of queries, keys and values, and of the
/// attention's output.
pub(super) fn specs(
    config: &Config,
    prefix: String,
    qkv_bias: bool,
    output_bias: bool,
) -> Vec<ParamSpec> {
    let mut specs = Specs::new(prefix, Some(config.num_hidden_layers));
    specs.norm("input_layernorm", config.hidden_size);
    specs.attention_with(config, qkv_bias, output_bias);
    specs.norm("post_attention_layernorm", config.hidden_size);
    specs.mlp(config);
    specs.list
}

pub(super) fn bind(params: &Params, prefix: &str) -> Arc<dyn Block> {
    bind_with(params, prefix, FeedForward::Dense(Mlp::bind(params, prefix, "mlp.")))
}

/// The block with another feed-forward layer.
pub(super) fn bind_with(
    params: &Params,
    prefix: &str,
    feed_forward: FeedForward,
) -> Arc<dyn Block> {
    Arc::new(LlamaBlock {
        input_norm: weight(params, prefix, "input_layernorm"),
        attention: AttentionWeights::bind(params, prefix),
        post_attention_norm: weight(params, prefix, "post_attention_layernorm"),
        feed_forward,
    })
}

/// llama.cpp rotates adjacent elements of a head, so its converter reorders rows.
pub(super) fn gguf_mapping(
    config: &Config,
    spec: &ParamSpec,
    tensor: &str,
) -> Option<TensorMapping> {
    let rotated = ["q_proj", "k_proj"].iter().any(|part| spec.name.contains(part));
    let interleaved_head_dim = Some(config.head_dim);
    rotated.then(|| TensorMapping::Whole { tensor: tensor.to_owned(), interleaved_head_dim })
}

/// Parameters of one block.
#[derive(Debug)]
struct LlamaBlock {
    input_norm: ParamId,
    attention: AttentionWeights,
    post_attention_norm: ParamId,
    feed_forward: FeedForward,
}

impl Block for LlamaBlock {
    fn forward(&self, tape: &mut Tape<'_>, pass: &mut Pass<'_>, layer: usize, x: Var) -> Var {
        let eps = pass.config.rms_norm_eps;
        let normed = tape.rms_norm(x, self.input_norm, eps);
        let qkv = self.attention.project(tape, normed);
        let mixed = self.attention.attend(tape, pass, layer, qkv);
        let x = tape.add(x, mixed);
        let normed = tape.rms_norm(x, self.post_attention_norm, eps);
        let inner = self.feed_forward.forward(tape, normed);
        tape.add(x, inner)
    }
}
