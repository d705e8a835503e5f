//! The GPT-2 block (Radford et al. 2019), with pre-norm and biases everywhere:
//!
//! ```text
//! x = x + c_proj(attention(c_attn(ln_1(x))))      c_attn: [ queries | keys | values ]
//! x = x + c_proj(gelu(c_fc(ln_2(x))))
//! ```
//!
//! Positions are learned vectors, added to the embeddings. Files hold matrices transposed, `[in,
//! out]` (`Conv1D`), and those of the hub name tensors without `transformer.`.

use std::sync::Arc;

use crisol_engine::{ParamSpec, Params, Tape, Var};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Config;
use crate::architectures::{Defaults, Family, Names, OuterNames, Specifics};
use crate::block::{Block, Linear, Norm, NormKind, Pass, Specs, attend, split};
use crate::config::parse_fields;
use crate::gguf::NewKeys;
use crate::layers::FeedForwardShape;

/// The fields of `config.json` that only GPT-2 has.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2 {
    /// Whether scores of attention are divided by the root of the width of a head.
    pub scale_attn_weights: bool,
}

impl Default for Gpt2 {
    fn default() -> Gpt2 {
        Gpt2 { scale_attn_weights: true }
    }
}

/// Fields of `config.json`, by their common names and GPT-2's.
const FIELDS: [(&str, &str); 6] = [
    ("hidden_size", "n_embd"),
    ("num_hidden_layers", "n_layer"),
    ("num_attention_heads", "n_head"),
    ("max_position_embeddings", "n_positions"),
    ("intermediate_size", "n_inner"),
    ("rms_norm_eps", "layer_norm_epsilon"),
];

/// Common fields that GPT-2 does not have.
const ABSENT: [&str; 9] = [
    "num_key_value_heads",
    "head_dim",
    "rope_theta",
    "rope_parameters",
    "rope_scaling",
    "attention_bias",
    "mlp_bias",
    "attention_dropout",
    "layer_types",
];

impl Family for Gpt2 {
    fn names(&self) -> Names {
        Names { class: "GPT2", model_type: "gpt2", gguf: "gpt2" }
    }

    fn language_class(&self) -> String {
        "GPT2LMHeadModel".into()
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            rms_norm_eps: 1e-5,
            max_position_embeddings: 1024,
            tied: true,
            ..Defaults::default()
        }
    }

    fn common_fields(&self, json: &mut Value) {
        let Some(fields) = json.as_object_mut() else { return };
        for absent in ABSENT {
            fields.remove(absent);
        }
        for (common, own) in FIELDS {
            if let Some(value) = fields.remove(own) {
                fields.insert(common.into(), value);
            }
        }
        if fields.get("intermediate_size").is_none_or(Value::is_null)
            && let Some(hidden) = fields.get("hidden_size").and_then(Value::as_u64)
        {
            fields.insert("intermediate_size".into(), json!(hidden.saturating_mul(4)));
        }
    }

    fn own_fields(&self, json: &mut Value) {
        let Some(fields) = json.as_object_mut() else { return };
        for absent in ABSENT {
            fields.remove(absent);
        }
        for (common, own) in FIELDS {
            if let Some(value) = fields.remove(common) {
                fields.insert(own.into(), value);
            }
        }
    }

    /// The same function by two names.
    fn activation(&self) -> (&'static str, &'static [&'static str]) {
        ("activation_function", &["gelu_new", "gelu_pytorch_tanh"])
    }

    /// Rates of dropout are not read: nothing is dropped here.
    fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Fields {
            scale_attn_weights: Option<bool>,
            scale_attn_by_inverse_layer_idx: Option<bool>,
            add_cross_attention: Option<bool>,
        }
        let fields: Fields = parse_fields(text)?;
        for (name, given) in [
            ("scale_attn_by_inverse_layer_idx", fields.scale_attn_by_inverse_layer_idx),
            ("add_cross_attention", fields.add_cross_attention),
        ] {
            if given == Some(true) {
                return Err(format!("{name} is true; only false is supported"));
            }
        }
        let scale_attn_weights = fields.scale_attn_weights.unwrap_or(true);
        config.specifics = Specifics::Gpt2(Gpt2 { scale_attn_weights });
        Ok(())
    }

    fn to_json(&self, _: &Config) -> Value {
        json!({
            "scale_attn_weights": self.scale_attn_weights,
            "attn_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
        })
    }

    fn problem(&self, config: &Config) -> Option<String> {
        let (heads, width) = (config.num_attention_heads, config.head_dim);
        if config.num_key_value_heads != heads || heads * width != config.hidden_size {
            return Some(format!(
                "{heads} heads of {width} with {} of keys and values for a hidden size of {}: \
                 GPT-2's heads share the hidden size, and each has keys and values of its own",
                config.num_key_value_heads, config.hidden_size
            ));
        }
        config
            .windows
            .iter()
            .any(Option::is_some)
            .then(|| "GPT-2's attention has no windows".into())
    }

    fn has_attention_bias(&self) -> bool {
        false
    }

    fn rope_kinds(&self) -> &'static [&'static str] {
        &["default"]
    }

    fn rotated(&self, _: &Config) -> usize {
        0
    }

    fn outer_names(&self) -> OuterNames {
        OuterNames {
            embedding: "transformer.wte",
            positions: Some("transformer.wpe"),
            layers: "transformer.h.",
            norm: "transformer.ln_f",
        }
    }

    fn norm(&self) -> NormKind {
        NormKind::Layer
    }

    fn attention_scale(&self, config: &Config) -> f32 {
        if self.scale_attn_weights { (config.head_dim as f32).sqrt().recip() } else { 1.0 }
    }

    fn specs(&self, config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let mut specs = Specs::new(prefix, Some(config.num_hidden_layers));
        specs.norm_of(self.norm(), "ln_1", hidden);
        specs.linear("attn.c_attn", 3 * hidden, hidden, true);
        specs.residual_linear("attn.c_proj", hidden, hidden, true);
        specs.norm_of(self.norm(), "ln_2", hidden);
        specs.linear("mlp.c_fc", inner, hidden, true);
        specs.residual_linear("mlp.c_proj", hidden, inner, true);
        specs.list
    }

    fn bind(&self, config: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
        let linear = |name| Linear::bind(params, prefix, name);
        let norm = |name| Norm::bind(config, params, prefix, name);
        Arc::new(Gpt2Block {
            input_norm: norm("ln_1"),
            qkv: linear("attn.c_attn"),
            output: linear("attn.c_proj"),
            post_attention_norm: norm("ln_2"),
            up: linear("mlp.c_fc"),
            down: linear("mlp.c_proj"),
        })
    }

    fn feed_forward(&self, config: &Config, _: usize) -> FeedForwardShape {
        FeedForwardShape::Ungated { inner: config.intermediate_size }
    }

    fn optional_prefix(&self) -> &'static str {
        "transformer."
    }

    fn ignores_tensor(&self, tensor: &str) -> bool {
        tensor.ends_with(".attn.bias") || tensor.ends_with(".attn.masked_bias")
    }

    fn is_transposed(&self, spec: &ParamSpec) -> bool {
        ["c_attn.weight", "c_proj.weight", "c_fc.weight"].iter().any(|end| spec.name.ends_with(end))
    }

    fn write_gguf(&self, keys: &mut NewKeys<'_>, config: &Config) -> Result<(), String> {
        if !self.scale_attn_weights {
            return Err("scale_attn_weights is false, and llama.cpp scales them".into());
        }
        keys.put_sizes(&[("feed_forward_length", config.intermediate_size)]);
        Ok(())
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("ln_1", "attn_norm"),
            ("attn.c_attn", "attn_qkv"),
            ("attn.c_proj", "attn_output"),
            ("ln_2", "ffn_norm"),
            ("c_fc", "ffn_up"),
            ("c_proj", "ffn_down"),
        ]
    }
}

/// Parameters of one block.
#[derive(Debug)]
struct Gpt2Block {
    input_norm: Norm,
    qkv: Linear,
    output: Linear,
    post_attention_norm: Norm,
    up: Linear,
    down: Linear,
}

impl Block for Gpt2Block {
    fn forward(&self, tape: &mut Tape<'_>, pass: &mut Pass<'_>, layer: usize, x: Var) -> Var {
        let config = Arc::clone(&pass.config);
        let normed = self.input_norm.forward(tape, &config, x);
        let qkv = self.qkv.forward(tape, normed);
        let [q, k, v] = split(tape, qkv, [config.hidden_size; 3]);
        let mixed = attend(tape, pass, layer, config.attention(layer), (q, k, v));
        let output = self.output.forward(tape, mixed);
        let x = tape.add(x, output);
        let normed = self.post_attention_norm.forward(tape, &config, x);
        let inner = self.up.forward(tape, normed);
        let inner = tape.gelu(inner);
        let output = self.down.forward(tape, inner);
        tape.add(x, output)
    }
}
