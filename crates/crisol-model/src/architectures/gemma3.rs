//! The text model of Gemma 3 (Gemma Team 2025, arXiv:2503.19786). Differences from Gemma 2:
//! - Queries and keys are normed in each head before RoPE; attention scores have no soft-cap.
//! - Five of six layers have a window. They rotate with a base of their own, without scaling.

use std::sync::Arc;

use crisol_engine::{ParamSpec, Params};
use serde::Deserialize;
use serde_json::{Value, json};

use super::gemma2::{self, GGUF_PARTS};
use crate::architectures::{Defaults, Family, Names, Specifics};
use crate::block::{Block, NormKind};
use crate::config::parse_fields;
use crate::gguf::{self, Keys, NewKeys};
use crate::rope::{RopeFields, RopeScaling};
use crate::{Config, ModelError};

/// The Gemma 3 fields of `config.json`, by default transformers'.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Gemma3 {
    /// Queries are divided by the root of this.
    pub query_pre_attn_scalar: usize,
    /// Soft-cap of logits.
    pub final_logit_softcapping: Option<f32>,
    /// RoPE base of layers with a window.
    pub rope_local_base_freq: f64,
}

impl Default for Gemma3 {
    fn default() -> Gemma3 {
        Gemma3 {
            query_pre_attn_scalar: 256,
            final_logit_softcapping: None,
            rope_local_base_freq: LOCAL_THETA,
        }
    }
}

/// Default of `rope_local_base_freq`.
const LOCAL_THETA: f64 = 10_000.0;

/// One layer in so many attends to the full context, by default.
const PERIOD: usize = 6;

/// Layers of the 27B model, for which llama.cpp scales queries by hidden size / heads.
const LAYERS_OF_27B: usize = 62;

impl Family for Gemma3 {
    fn names(&self) -> Names {
        Names { class: "Gemma3", model_type: "gemma3_text", gguf: "gemma3" }
    }

    /// transformers' `Gemma3ForSequenceClassification` has an image encoder.
    fn scalar_class(&self) -> String {
        "Gemma3TextForSequenceClassification".into()
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            max_position_embeddings: 131_072,
            kv_heads: Some(4),
            head_dim: Some(256),
            rope_theta: 1_000_000.0,
            tied: true,
            ..Defaults::default()
        }
    }

    /// transformers 5 has `rope_parameters` by kind of layer; version 4 has `rope_theta` and
    /// `rope_scaling` for global layers, `rope_local_base_freq` for local ones. Where both are
    /// there, `rope_scaling` is merged into the newer ones, as in transformers, for which `type` is
    /// no `rope_type` then.
    fn common_fields(&self, json: &mut Value) {
        gemma2::fill_defaults(json, 262_208);
        let mut by_kind = json["rope_parameters"].take();
        let mut of = |kind: &str| match by_kind.get_mut(kind).map(Value::take) {
            None | Some(Value::Null) => json!({ "rope_type": "default" }),
            Some(given) => given,
        };
        let (mut global, local) = (of("full_attention"), of("sliding_attention"));
        if let (Value::Object(global), Value::Object(scaling)) =
            (&mut global, json["rope_scaling"].take())
        {
            global.extend(scaling);
        }
        json["rope_parameters"] = global;
        json["local_rope"] =
            json!({ "rope_theta": json["rope_local_base_freq"], "rope_parameters": local });
    }

    fn activation(&self) -> (&'static str, &'static [&'static str]) {
        gemma2::ACTIVATION
    }

    fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Fields {
            local_rope: RopeFields,
            sliding_window_pattern: Option<usize>,
        }
        let fields: Fields = parse_fields(text)?;
        let (rope_local_base_freq, scaling) = RopeScaling::read(
            &fields.local_rope,
            self.rope_kinds(),
            LOCAL_THETA,
            config.max_position_embeddings,
        )?;
        if scaling != RopeScaling::None {
            return Err(
                "rope_parameters has a scaling for sliding_attention; only \"default\" is \
                 supported there"
                    .into(),
            );
        }
        let period = fields.sliding_window_pattern.unwrap_or(PERIOD);
        if period == 0 {
            return Err("sliding_window_pattern is 0, not a positive number".into());
        }
        let own: Gemma3 = parse_fields(text)?;
        config.specifics = Specifics::Gemma3(Gemma3 { rope_local_base_freq, ..own });
        gemma2::read_layers(text, config, period)
    }

    fn to_json(&self, config: &Config) -> Value {
        json!({
            "query_pre_attn_scalar": self.query_pre_attn_scalar,
            "final_logit_softcapping": self.final_logit_softcapping,
            "attn_logit_softcapping": null,
            "rope_local_base_freq": self.rope_local_base_freq,
            "rope_parameters": {
                "full_attention": config.rope_parameters(),
                "sliding_attention": RopeScaling::None.to_json(self.rope_local_base_freq),
            },
            "sliding_window": gemma2::window(config),
            "sliding_window_pattern": gemma2::period(config).unwrap_or(PERIOD),
            "layer_types": gemma2::layer_types(config),
        })
    }

    fn problem(&self, config: &Config) -> Option<String> {
        let theta = self.rope_local_base_freq;
        if !(theta.is_finite() && theta > 0.0) {
            return Some(format!("rope_local_base_freq is {theta}, not a positive number"));
        }
        if matches!(config.rope_scaling, RopeScaling::Yarn { truncate: false, .. }) {
            return Some(
                "truncate is false for yarn; transformers computes Gemma 3 with true only".into(),
            );
        }
        let caps = [("final_logit_softcapping", self.final_logit_softcapping)];
        gemma2::problem(config, self.query_pre_attn_scalar, &caps)
    }

    fn multimodal_class(&self) -> Option<&'static str> {
        Some("Gemma3ForConditionalGeneration")
    }

    fn norm(&self) -> NormKind {
        NormKind::RmsPlusOne
    }

    fn embedding_scale(&self, config: &Config) -> Option<f32> {
        gemma2::embedding_scale(config)
    }

    fn logit_cap(&self) -> Option<f32> {
        self.final_logit_softcapping
    }

    fn attention_scale(&self, _: &Config) -> f32 {
        gemma2::attention_scale(self.query_pre_attn_scalar)
    }

    fn local_rope_theta(&self, _: &Config) -> Option<f64> {
        Some(self.rope_local_base_freq)
    }

    fn specs(&self, config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
        gemma2::specs(config, prefix, true)
    }

    fn bind(&self, config: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
        gemma2::bind(config, params, prefix, true)
    }

    fn read_gguf(&self, keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
        keys.expect_unset("expert_count")?;
        gguf::read_attention(keys, config)?;
        if let Some(size) = keys.optional_size("attention.sliding_window")?.filter(|&size| size > 0)
        {
            gemma2::read_gguf_windows(keys, config, size, PERIOD)?;
        }
        check_gguf_rope(config).map_err(|cause| keys.refuse("rope.scaling.type", &cause))?;
        let local = keys.number("rope.freq_base_swa")?.map_or(LOCAL_THETA, f64::from);
        config.specifics = Specifics::Gemma3(Gemma3 {
            query_pre_attn_scalar: gemma2::gguf_scalar(config, LAYERS_OF_27B),
            final_logit_softcapping: keys
                .number("final_logit_softcapping")?
                .filter(|&cap| cap != 0.0),
            rope_local_base_freq: local,
        });
        Ok(())
    }

    fn write_gguf(&self, keys: &mut NewKeys<'_>, config: &Config) -> Result<(), String> {
        gemma2::check_gguf_scalar(config, self.query_pre_attn_scalar, LAYERS_OF_27B)?;
        check_gguf_rope(config).map_err(|cause| format!("its RoPE scaling is {cause}"))?;
        if let Some(cap) = self.final_logit_softcapping {
            keys.put("final_logit_softcapping", cap);
        }
        if !config.windows.is_empty() {
            keys.put_sizes(&[("attention.sliding_window", gemma2::window(config))]);
            gemma2::write_gguf_period(keys, config, PERIOD)?;
            keys.put("rope.freq_base_swa", self.rope_local_base_freq as f32);
        }
        keys.put_sizes(&[("feed_forward_length", config.intermediate_size)]);
        gguf::write_attention(keys, config);
        Ok(())
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &GGUF_PARTS
    }
}

/// llama.cpp leaves local layers out of linear scaling, but not out of YaRN.
fn check_gguf_rope(config: &Config) -> Result<(), String> {
    if config.windows.is_empty() || !matches!(config.rope_scaling, RopeScaling::Yarn { .. }) {
        return Ok(());
    }
    Err("\"yarn\", which llama.cpp applies to layers with a window too".into())
}
