//! The `SmolLM3` block (Bakouch et al. 2025): Llama's, where queries and keys of some layers do not
//! rotate (`NoPE`; Yang et al. 2025, arXiv:2501.18795). Those layers may have a window.

use std::sync::Arc;

use crisol_engine::{ParamSpec, Params};
use serde::Deserialize;
use serde_json::{Value, json};

use super::llama;
use crate::Config;
use crate::architectures::{Defaults, Family, Names, Specifics};
use crate::block::Block;
use crate::config::{parse_fields, read_windows};
use crate::gguf::{self, NewKeys, TensorMapping};

/// The fields of `config.json` that only `SmolLM3` has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SmolLm3 {
    /// Which layers rotate queries and keys (`no_rope_layers`, where 1 means that they do). Empty:
    /// all but every fourth.
    pub rope_layers: Vec<bool>,
}

/// One layer in so many does not rotate, by default and in llama.cpp.
const INTERVAL: usize = 4;

/// Whether a layer rotates if every `interval`th does not.
fn rotates_by_interval(layer: usize, interval: usize) -> bool {
    !(layer + 1).is_multiple_of(interval)
}

impl SmolLm3 {
    /// Whether the layers that rotate are those of the default.
    fn is_regular(&self) -> bool {
        self.rope_layers.is_empty()
    }
}

impl Family for SmolLm3 {
    fn names(&self) -> Names {
        Names { class: "SmolLM3", model_type: "smollm3", gguf: "smollm3" }
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            max_position_embeddings: 32768,
            kv_heads: Some(4),
            rope_theta: 2_000_000.0,
            tied: true,
            ..Defaults::default()
        }
    }

    fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Fields {
            no_rope_layers: Option<Vec<u8>>,
            no_rope_layer_interval: Option<usize>,
            use_sliding_window: Option<bool>,
            sliding_window: Option<usize>,
        }
        let fields: Fields = parse_fields(text)?;
        let interval = fields.no_rope_layer_interval.unwrap_or(INTERVAL);
        if interval == 0 {
            return Err("no_rope_layer_interval is 0, not a positive number".into());
        }
        let layers = config.num_hidden_layers;
        let regular = |interval| move |layer| rotates_by_interval(layer, interval);
        let rope_layers: Vec<bool> = match fields.no_rope_layers {
            Some(listed) if listed.len() < layers => {
                return Err(format!(
                    "no_rope_layers has {} entries for {layers} layers",
                    listed.len()
                ));
            }
            Some(listed) => listed[..layers].iter().map(|&rotates| rotates != 0).collect(),
            // Their number is not checked yet.
            None if interval == INTERVAL => Vec::new(),
            None => (0..layers.min(crate::config::MAX_LAYERS)).map(regular(interval)).collect(),
        };
        let rotates = |layer: usize| {
            rope_layers.get(layer).copied().unwrap_or_else(|| rotates_by_interval(layer, INTERVAL))
        };
        let windowed = fields.use_sliding_window == Some(true);
        read_windows(text, config, fields.sliding_window, |layer| windowed && !rotates(layer))?;
        let is_regular =
            rope_layers.iter().copied().eq((0..rope_layers.len()).map(regular(INTERVAL)));
        let rope_layers = if is_regular { Vec::new() } else { rope_layers };
        config.specifics = Specifics::SmolLm3(SmolLm3 { rope_layers });
        Ok(())
    }

    fn to_json(&self, config: &Config) -> Value {
        let rope_layers = (0..config.num_hidden_layers).map(|layer| u8::from(self.rotates(layer)));
        json!({
            "no_rope_layers": rope_layers.collect::<Vec<u8>>(),
            "use_sliding_window": !config.windows.is_empty(),
        })
    }

    fn problem(&self, config: &Config) -> Option<String> {
        let (listed, layers) = (self.rope_layers.len(), config.num_hidden_layers);
        (!self.is_regular() && listed != layers)
            .then(|| format!("no_rope_layers has {listed} entries for {layers} layers"))
    }

    fn has_mlp_bias(&self) -> bool {
        true
    }

    fn rotates(&self, layer: usize) -> bool {
        let listed = self.rope_layers.get(layer).copied();
        listed.unwrap_or_else(|| rotates_by_interval(layer, INTERVAL))
    }

    fn specs(&self, config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
        llama::specs(config, prefix, config.attention_bias, config.attention_bias)
    }

    fn bind(&self, _: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
        llama::bind(params, prefix)
    }

    fn write_gguf(&self, keys: &mut NewKeys<'_>, config: &Config) -> Result<(), String> {
        if !self.is_regular() {
            return Err(format!(
                "llama.cpp rotates all layers of SmolLM3 but every {INTERVAL}th, and this model \
                 others"
            ));
        }
        if config.mlp_bias {
            return Err("its MLP has biases, and llama.cpp has none in SmolLM3 models".into());
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
}
