//! The Llama block (Touvron et al. 2023, arXiv:2302.13971), with pre-norm:
//!
//! ```text
//! x = x + attention(norm(x))
//! x = x + mlp(norm(x))
//! ```

use std::sync::Arc;

use crisol_engine::{ParamId, ParamSpec, Params, Tape, Var};

use crate::Config;
use crate::block::{AttentionWeights, Block, Mlp, Pass, Specs, weight};

/// Parameters of one block.
#[derive(Debug)]
pub(crate) struct Llama {
    input_norm: ParamId,
    attention: AttentionWeights,
    post_attention_norm: ParamId,
    mlp: Mlp,
}

pub(crate) fn specs(config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
    let mut specs = Specs::new(prefix, Some(config.num_hidden_layers));
    specs.norm("input_layernorm", config.hidden_size);
    specs.attention(config);
    specs.norm("post_attention_layernorm", config.hidden_size);
    specs.mlp(config);
    specs.list
}

pub(crate) fn bind(_: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
    Arc::new(Llama {
        input_norm: weight(params, prefix, "input_layernorm"),
        attention: AttentionWeights::bind(params, prefix),
        post_attention_norm: weight(params, prefix, "post_attention_layernorm"),
        mlp: Mlp::bind(params, prefix, "mlp."),
    })
}

impl Block for Llama {
    fn forward(&self, tape: &mut Tape<'_>, pass: &mut Pass<'_>, layer: usize, x: Var) -> Var {
        let eps = pass.config.rms_norm_eps;
        let normed = tape.rms_norm(x, self.input_norm, eps);
        let qkv = self.attention.project(tape, normed);
        let mixed = self.attention.attend(tape, pass, layer, qkv);
        let x = tape.add(x, mixed);
        let normed = tape.rms_norm(x, self.post_attention_norm, eps);
        let inner = self.mlp.forward(tape, normed);
        tape.add(x, inner)
    }
}
