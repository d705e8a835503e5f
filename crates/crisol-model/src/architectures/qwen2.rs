//! The Qwen2 block (Yang et al. 2024, arXiv:2407.10671): Llama's with biases of queries, keys and
//! values.

use std::sync::Arc;

use crisol_engine::{ParamSpec, Params};
use serde::Deserialize;

use super::llama;
use crate::Config;
use crate::architectures::{Defaults, Family, Names};
use crate::block::Block;
use crate::config::{parse_fields, read_windows};

/// Qwen2 has no fields of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Qwen2;

impl Family for Qwen2 {
    fn names(&self) -> Names {
        Names { class: "Qwen2", model_type: "qwen2", gguf: "qwen2" }
    }

    fn defaults(&self) -> Defaults {
        Defaults { max_position_embeddings: 32768, kv_heads: Some(32), ..Defaults::default() }
    }

    fn has_attention_bias(&self) -> bool {
        false
    }

    fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        read_later_windows(text, config)
    }

    fn to_json(&self, config: &Config) -> serde_json::Value {
        serde_json::json!({ "use_sliding_window": !config.windows.is_empty() })
    }

    fn specs(&self, config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
        llama::specs(config, prefix, true, false)
    }

    fn bind(&self, _: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
        llama::bind(params, prefix)
    }
}

/// Windows in Qwen's layers from `max_window_layers` on, if `use_sliding_window`.
pub(super) fn read_later_windows(text: &str, config: &mut Config) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Fields {
        use_sliding_window: Option<bool>,
        #[serde(default = "size")]
        sliding_window: Option<usize>,
        max_window_layers: Option<usize>,
    }
    #[expect(clippy::unnecessary_wraps, reason = "serde wants the field's type")]
    fn size() -> Option<usize> {
        Some(4096)
    }
    let fields: Fields = parse_fields(text)?;
    let size = fields.sliding_window.filter(|_| fields.use_sliding_window == Some(true));
    let full = fields.max_window_layers.unwrap_or(28);
    read_windows(text, config, size, |layer| layer >= full)
}
