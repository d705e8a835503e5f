//! The ERNIE 4.5 block (Baidu 2025): Llama's with neighbouring elements of a head as rotated pairs,
//! and biases everywhere or nowhere.

use std::sync::Arc;

use crisol_engine::{ParamSpec, Params, RopeStyle};
use serde_json::Value;

use super::llama;
use crate::Config;
use crate::architectures::{Defaults, Family, Names};
use crate::block::Block;

/// ERNIE 4.5 has no fields of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ernie4_5;

/// The field of all biases, and the common ones in its place.
const BIAS: &str = "use_bias";
const BIASES: [&str; 2] = ["attention_bias", "mlp_bias"];

impl Family for Ernie4_5 {
    fn names(&self) -> Names {
        Names { class: "Ernie4_5", model_type: "ernie4_5", gguf: "ernie4_5" }
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            rms_norm_eps: 1e-5,
            max_position_embeddings: 131_072,
            kv_heads: Some(2),
            head_dim: Some(128),
            rope_theta: 500_000.0,
            tied: true,
            attention_bias: false,
        }
    }

    fn common_fields(&self, json: &mut Value) {
        let Some(fields) = json.as_object_mut() else { return };
        let value = fields.shift_remove(BIAS).unwrap_or_default();
        for field in BIASES {
            fields.insert(field.into(), value.clone());
        }
    }

    fn own_fields(&self, json: &mut Value) {
        let Some(fields) = json.as_object_mut() else { return };
        for field in BIASES {
            if let Some(value) = fields.shift_remove(field) {
                fields.insert(BIAS.into(), value);
            }
        }
    }

    fn problem(&self, config: &Config) -> Option<String> {
        (config.attention_bias != config.mlp_bias)
            .then(|| "biases of attention and MLP have one field, use_bias".into())
    }

    fn has_mlp_bias(&self) -> bool {
        true
    }

    fn rope_style(&self) -> RopeStyle {
        RopeStyle::Interleaved
    }

    fn specs(&self, config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
        llama::specs(config, prefix, config.attention_bias, config.attention_bias)
    }

    fn bind(&self, _: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
        llama::bind(params, prefix)
    }
}
