//! The OLMo-3 block (Olmo Team 2025): OLMo-2's, with windows in three of four layers. Scaling of
//! rotary embeddings is that of the others; layers with a window rotate without.

use std::sync::Arc;

use crisol_engine::{ParamSpec, Params};
use crisol_hub::Array;
use serde::Deserialize;
use serde_json::{Value, json};

use super::olmo2;
use crate::architectures::{Defaults, Family, Names, Specifics};
use crate::block::Block;
use crate::config::{MAX_LAYERS, layer_types, parse_fields, read_windows};
use crate::gguf::{self, Keys, NewKeys};
use crate::{Config, ModelError};

/// The fields of `config.json` that only OLMo-3 has.
#[derive(Clone, Debug, PartialEq)]
pub struct Olmo3 {
    /// RoPE base of layers with a window.
    pub sliding_rope_theta: f64,
}

const THETA: f64 = 500_000.0;

/// One layer in so many has no window, by default.
const PERIOD: usize = 4;

impl Default for Olmo3 {
    fn default() -> Olmo3 {
        Olmo3 { sliding_rope_theta: THETA }
    }
}

/// The names of the two kinds of layers in `rope_parameters`.
const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

impl Family for Olmo3 {
    fn names(&self) -> Names {
        Names { class: "Olmo3", model_type: "olmo3", gguf: "olmo2" }
    }

    fn defaults(&self) -> Defaults {
        Defaults { rms_norm_eps: 1e-5, rope_theta: THETA, ..Defaults::default() }
    }

    /// The rotary embeddings of full layers become the common ones.
    fn common_fields(&self, json: &mut Value) {
        let nested = |name: &str| json["rope_parameters"][name].as_object().cloned();
        let (full, sliding) = (nested(FULL), nested(SLIDING));
        if json["rope_parameters"].is_object() && full.is_none() && sliding.is_none() {
            // Refused by `read`.
            return;
        }
        let mut full = full.unwrap_or_default();
        if let Some(scaling) = json["rope_scaling"].as_object() {
            full.extend(scaling.clone());
        }
        json["sliding_rope"] = json!(sliding.unwrap_or_default());
        json["rope_scaling"] = Value::Null;
        json["rope_parameters"] = json!(full);
    }

    fn own_fields(&self, json: &mut Value) {
        let full = json["rope_parameters"].take();
        let sliding = json!({ "rope_type": "default", "rope_theta": self.sliding_rope_theta });
        json["rope_parameters"] = json!({ FULL: full, SLIDING: sliding });
    }

    fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(default = "size")]
            sliding_window: Option<usize>,
            sliding_rope: Option<SlidingRope>,
        }
        #[derive(Deserialize)]
        struct SlidingRope {
            rope_type: Option<String>,
            rope_theta: Option<f64>,
        }
        #[expect(clippy::unnecessary_wraps, reason = "serde wants the field's type")]
        fn size() -> Option<usize> {
            Some(4096)
        }
        let fields: Fields = parse_fields(text)?;
        let sliding = fields.sliding_rope.ok_or_else(|| {
            format!("rope_parameters has neither {FULL} nor {SLIDING}, as OLMo-3's have")
        })?;
        if let Some(kind) = sliding.rope_type.filter(|kind| kind != "default") {
            return Err(format!(
                "rope_parameters asks for {kind} in layers of {SLIDING}; only default is supported"
            ));
        }
        // Without a base of their own they have the default, as in transformers 5.23: `rope_theta`
        // outside of `rope_parameters` is that of full layers.
        let sliding_rope_theta = sliding.rope_theta.unwrap_or(THETA);
        config.specifics = Specifics::Olmo3(Olmo3 { sliding_rope_theta });
        read_windows(text, config, fields.sliding_window, |layer| {
            !(layer + 1).is_multiple_of(PERIOD)
        })
    }

    fn to_json(&self, config: &Config) -> Value {
        // Also without any window, or the default would be read.
        json!({ "layer_types": layer_types(config) })
    }

    fn problem(&self, _: &Config) -> Option<String> {
        let theta = self.sliding_rope_theta;
        (!(theta.is_finite() && theta > 0.0))
            .then(|| format!("rope_theta of {SLIDING} is {theta}, not a positive number"))
    }

    fn local_rope_theta(&self, _: &Config) -> Option<f64> {
        Some(self.sliding_rope_theta)
    }

    fn specs(&self, config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
        olmo2::specs(config, prefix)
    }

    fn bind(&self, _: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
        olmo2::bind(params, prefix)
    }

    /// A window is what tells OLMo-3 from OLMo-2.
    fn is_gguf(&self, keys: &Keys<'_>) -> Result<bool, ModelError> {
        Ok(keys.optional_size(WINDOW)?.is_some_and(|size| size > 0))
    }

    fn read_gguf(&self, keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
        keys.expect_unset("expert_count")?;
        let layers = config.num_hidden_layers;
        let window = keys.optional_size(WINDOW)?;
        let local = match keys.flags(WINDOWED_LAYERS)? {
            Some(listed) if listed.len() != layers => {
                let cause = format!("a list of {}, and there are {layers} layers", listed.len());
                return Err(keys.refuse(WINDOWED_LAYERS, &cause));
            }
            Some(listed) => listed,
            None => (1..=layers.min(MAX_LAYERS)).map(|n| !n.is_multiple_of(PERIOD)).collect(),
        };
        config.windows = local.into_iter().map(|local| window.filter(|_| local)).collect();
        // llama.cpp has one base for all layers.
        config.specifics = Specifics::Olmo3(Olmo3 { sliding_rope_theta: config.rope_theta });
        gguf::read_attention(keys, config)
    }

    fn write_gguf(&self, keys: &mut NewKeys<'_>, config: &Config) -> Result<(), String> {
        let Some(window) = config.windows.iter().flatten().next() else {
            return Err("no layer has a window, and llama.cpp takes that for OLMo-2".into());
        };
        if self.sliding_rope_theta != config.rope_theta {
            return Err(format!(
                "rope_theta is {} in layers with a window and {} in others, and llama.cpp has one",
                self.sliding_rope_theta, config.rope_theta
            ));
        }
        let local = config.windows.iter().map(Option::is_some).collect();
        keys.put_sizes(&[("feed_forward_length", config.intermediate_size), (WINDOW, *window)]);
        keys.put(WINDOWED_LAYERS, Array::Bool(local));
        gguf::write_attention(keys, config);
        Ok(())
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        olmo2::GGUF_PARTS
    }
}

/// The keys of the window's size and of which layers have one.
const WINDOW: &str = "attention.sliding_window";
const WINDOWED_LAYERS: &str = "attention.sliding_window_pattern";
