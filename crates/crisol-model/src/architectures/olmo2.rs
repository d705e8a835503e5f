//! The OLMo-2 block (Walsh et al. 2025, arXiv:2501.00656, section 3.2). Unlike Llama, for
//! stability:
//! - post-norm: each norm is applied to the output that is added to the residual stream;
//! - QK-norm: queries and keys are normed before RoPE, over all heads together.
//!
//! ```text
//! x = x + norm(attention(x))
//! x = x + norm(mlp(x))
//! ```
//!
//! The outputs are normed, so projections into the residual stream need no smaller initial scale.

use std::sync::Arc;

use crisol_engine::{ParamId, ParamSpec, Params, Tape, Var};

use crate::architectures::{Defaults, Family, Names};
use crate::block::{AttentionWeights, Block, Mlp, Pass, Specs, weight};
use crate::gguf::Keys;
use crate::{Config, ModelError};

/// OLMo-2 has no fields of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Olmo2;

impl Family for Olmo2 {
    fn names(&self) -> Names {
        Names { class: "Olmo2", model_type: "olmo2", gguf: "olmo2" }
    }

    fn defaults(&self) -> Defaults {
        Defaults { rms_norm_eps: 1e-5, ..Defaults::default() }
    }

    fn specs(&self, config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
        specs(config, prefix)
    }

    fn bind(&self, _: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
        bind(params, prefix)
    }

    /// Not OLMo-3, which has windows.
    fn is_gguf(&self, keys: &Keys<'_>) -> Result<bool, ModelError> {
        Ok(keys.optional_size("attention.sliding_window")?.is_none_or(|size| size == 0))
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        GGUF_PARTS
    }
}

pub(super) const GGUF_PARTS: &[(&str, &str)] =
    &[("post_attention_layernorm", "post_attention_norm")];

pub(super) fn specs(config: &Config, prefix: String) -> Vec<ParamSpec> {
    let mut specs = Specs::new(prefix, None);
    specs.attention(config);
    specs.norm("self_attn.q_norm", config.q_dim());
    specs.norm("self_attn.k_norm", config.kv_dim());
    specs.norm("post_attention_layernorm", config.hidden_size);
    specs.mlp(config);
    specs.norm("post_feedforward_layernorm", config.hidden_size);
    specs.list
}

pub(super) fn bind(params: &Params, prefix: &str) -> Arc<dyn Block> {
    Arc::new(Olmo2Block {
        attention: AttentionWeights::bind(params, prefix),
        q_norm: weight(params, prefix, "self_attn.q_norm"),
        k_norm: weight(params, prefix, "self_attn.k_norm"),
        post_attention_norm: weight(params, prefix, "post_attention_layernorm"),
        mlp: Mlp::bind(params, prefix, "mlp."),
        post_feedforward_norm: weight(params, prefix, "post_feedforward_layernorm"),
    })
}

/// Parameters of one block.
#[derive(Debug)]
struct Olmo2Block {
    attention: AttentionWeights,
    q_norm: ParamId,
    k_norm: ParamId,
    post_attention_norm: ParamId,
    mlp: Mlp,
    post_feedforward_norm: ParamId,
}

impl Block for Olmo2Block {
    fn forward(&self, tape: &mut Tape<'_>, pass: &mut Pass<'_>, layer: usize, x: Var) -> Var {
        let eps = pass.config.rms_norm_eps;
        let (q, k, v) = self.attention.project(tape, x);
        let q = tape.rms_norm(q, self.q_norm, eps);
        let k = tape.rms_norm(k, self.k_norm, eps);
        let mixed = self.attention.attend(tape, pass, layer, (q, k, v));
        let normed = tape.rms_norm(mixed, self.post_attention_norm, eps);
        let x = tape.add(x, normed);
        let inner = self.mlp.forward(tape, x);
        let normed = tape.rms_norm(inner, self.post_feedforward_norm, eps);
        tape.add(x, normed)
    }
}
