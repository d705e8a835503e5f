//! The Mistral block (Jiang et al. 2023, arXiv:2310.06825): Llama's with sliding-window attention.

use std::sync::Arc;

use crisol_engine::{ParamSpec, Params};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::llama;
use crate::Config;
use crate::architectures::{Defaults, Family, Names};
use crate::block::Block;
use crate::config::parse_fields;
use crate::gguf::{GgufRope, TensorMapping};

/// Mistral has no fields of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mistral;

impl Family for Mistral {
    /// llama.cpp has no architecture of this name: its converter writes Llama's.
    fn names(&self) -> Names {
        Names { class: "Mistral", model_type: "mistral", gguf: "llama" }
    }

    fn defaults(&self) -> Defaults {
        Defaults { max_position_embeddings: 131_072, kv_heads: Some(8), ..Defaults::default() }
    }

    fn has_attention_bias(&self) -> bool {
        false
    }

    fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        read_window(text, config, Some(4096))
    }

    fn to_json(&self, config: &Config) -> Value {
        serde_json::json!({ "sliding_window": config.window(0) })
    }

    fn problem(&self, config: &Config) -> Option<String> {
        one_window(config)
    }

    fn specs(&self, config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
        llama::specs(config, prefix, false, false)
    }

    fn bind(&self, _: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
        llama::bind(params, prefix)
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

/// Reads `sliding_window`, which all layers have; `size`: without the field.
pub(super) fn read_window(
    text: &str,
    config: &mut Config,
    size: Option<usize>,
) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Fields {
        sliding_window: Option<usize>,
    }
    let fields: Fields = parse_fields(text)?;
    // `null` is no window.
    let given = parse_fields::<Map<String, Value>>(text)?.contains_key("sliding_window");
    config.set_window(if given { fields.sliding_window } else { size });
    Ok(())
}

/// `config.json` has one window for all layers.
pub(super) fn one_window(config: &Config) -> Option<String> {
    let differs = config.windows.iter().any(|&window| window != config.windows[0]);
    differs.then(|| format!("{} has the same window in all layers", config.family().names().class))
}
