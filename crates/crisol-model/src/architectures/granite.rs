//! The Granite block (IBM 2024): Llama's with factors on embeddings, scores of attention, what a
//! layer adds to the residual stream, and logits, as after muP (Yang et al. 2022,
//! arXiv:2203.03466):
//!
//! ```text
//! x = x + residual_multiplier · attention(norm(x))
//! x = x + residual_multiplier · mlp(norm(x))
//! ```

use std::sync::Arc;

use crisol_engine::{ParamId, ParamSpec, Params, Tape, Var};
use serde::Deserialize;
use serde_json::{Value, json};

use super::llama;
use crate::architectures::{Family, Names, Specifics};
use crate::block::{AttentionWeights, Block, Mlp, Pass, weight};
use crate::config::{parse_fields, refuse_windows, shortest};
use crate::gguf::{self, GgufRope, Keys, NewKeys, TensorMapping};
use crate::{Config, ModelError};

/// The fields of `config.json` that only Granite has.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Granite {
    /// Factor on the embeddings.
    pub embedding_multiplier: f32,
    /// Divisor of the logits.
    pub logits_scaling: f32,
    /// Factor on what a layer adds to the residual stream.
    pub residual_multiplier: f32,
    /// Factor on the scores of attention, instead of one over the root of the width of a head.
    pub attention_multiplier: f32,
}

impl Default for Granite {
    fn default() -> Granite {
        Granite {
            embedding_multiplier: 1.0,
            logits_scaling: 1.0,
            residual_multiplier: 1.0,
            attention_multiplier: 1.0,
        }
    }
}

impl Granite {
    /// The factors with their names in `config.json` and the ends of their keys in GGUF files.
    fn factors(&self) -> [(&'static str, &'static str, f32); 4] {
        [
            ("embedding_multiplier", "embedding_scale", self.embedding_multiplier),
            ("logits_scaling", "logit_scale", self.logits_scaling),
            ("residual_multiplier", "residual_scale", self.residual_multiplier),
            ("attention_multiplier", "attention.scale", self.attention_multiplier),
        ]
    }
}

impl Family for Granite {
    fn names(&self) -> Names {
        Names { class: "Granite", model_type: "granite", gguf: "granite" }
    }

    fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        config.specifics = Specifics::Granite(parse_fields(text)?);
        refuse_windows(text)
    }

    fn to_json(&self, _: &Config) -> Value {
        self.factors().iter().map(|(name, _, factor)| (*name, json!(shortest(*factor)))).collect()
    }

    fn problem(&self, _: &Config) -> Option<String> {
        // llama.cpp takes 0 for "not given".
        let wrong = |factor: f32| !(factor.is_finite() && factor > 0.0);
        let mut factors = self.factors().into_iter();
        let (name, _, factor) = factors.find(|(_, _, factor)| wrong(*factor))?;
        Some(format!("{name} is {factor}, not a positive number"))
    }

    fn has_mlp_bias(&self) -> bool {
        true
    }

    fn embedding_scale(&self, _: &Config) -> Option<f32> {
        Some(self.embedding_multiplier)
    }

    fn logit_scale(&self) -> Option<f32> {
        Some(self.logits_scaling.recip())
    }

    fn attention_scale(&self, _: &Config) -> f32 {
        self.attention_multiplier
    }

    fn specs(&self, config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
        llama::specs(config, prefix, config.attention_bias, config.attention_bias)
    }

    fn bind(&self, _: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
        Arc::new(GraniteBlock {
            residual_multiplier: self.residual_multiplier,
            input_norm: weight(params, prefix, "input_layernorm"),
            attention: AttentionWeights::bind(params, prefix),
            post_attention_norm: weight(params, prefix, "post_attention_layernorm"),
            mlp: Mlp::bind(params, prefix, "mlp."),
        })
    }

    fn read_gguf(&self, keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
        gguf::read_dense(keys, config)?;
        if keys.flag("rope.scaling.finetuned")? == Some(false) {
            let cause = "false: it does not rotate, which is not supported";
            return Err(keys.refuse("rope.scaling.finetuned", cause));
        }
        let factor = |rest, default| Ok::<_, ModelError>(keys.number(rest)?.unwrap_or(default));
        config.specifics = Specifics::Granite(Granite {
            embedding_multiplier: factor("embedding_scale", 1.0)?,
            logits_scaling: factor("logit_scale", 1.0)?,
            residual_multiplier: factor("residual_scale", 1.0)?,
            attention_multiplier: factor(
                "attention.scale",
                (config.head_dim as f32).sqrt().recip(),
            )?,
        });
        Ok(())
    }

    fn write_gguf(&self, keys: &mut NewKeys<'_>, config: &Config) -> Result<(), String> {
        for (_, key, factor) in self.factors() {
            keys.put(key, factor);
        }
        gguf::write_dense(keys, config)
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

    fn has_gguf_attention_bias(&self) -> bool {
        true
    }
}

/// Parameters of one block.
#[derive(Debug)]
struct GraniteBlock {
    residual_multiplier: f32,
    input_norm: ParamId,
    attention: AttentionWeights,
    post_attention_norm: ParamId,
    mlp: Mlp,
}

impl Block for GraniteBlock {
    fn forward(&self, tape: &mut Tape<'_>, pass: &mut Pass<'_>, layer: usize, x: Var) -> Var {
        let (eps, factor) = (pass.config.rms_norm_eps, self.residual_multiplier);
        let normed = tape.rms_norm(x, self.input_norm, eps);
        let qkv = self.attention.project(tape, normed);
        let mixed = self.attention.attend(tape, pass, layer, qkv);
        let mixed = tape.scale(mixed, factor);
        let x = tape.add(x, mixed);
        let normed = tape.rms_norm(x, self.post_attention_norm, eps);
        let inner = self.mlp.forward(tape, normed);
        let inner = tape.scale(inner, factor);
        tape.add(x, inner)
    }
}
