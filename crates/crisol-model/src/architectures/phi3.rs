//! The Phi-3 block (Microsoft 2024, arXiv:2404.14219): Llama's, with one matrix for queries, keys
//! and values, and one for gate and up. Only the first columns of a head rotate. `LongRoPE`
//! stretches the context (Ding et al. 2024, arXiv:2402.13753).
//!
//! ```text
//! qkv_proj(x)       [ queries | keys | values ]
//! gate_up_proj(x)   [ gate | up ]
//! ```

use std::sync::Arc;

use crisol_engine::{GatedActivation, ParamId, ParamSpec, Params, Tape, Var};
use serde::Deserialize;
use serde_json::{Value, json};

use super::mistral::{one_window, read_window};
use crate::architectures::{Defaults, Family, Names, Specifics};
use crate::block::{Block, Linear, Pass, Specs, attend, split, weight};
use crate::config::parse_fields;
use crate::gguf::{self, GgufRope, Keys, NewKeys};
use crate::rope::{RopeFields, RopeScaling};
use crate::{Config, ModelError};

/// The fields of `config.json` that only Phi-3 has.
#[derive(Clone, Debug, PartialEq)]
pub struct Phi3 {
    /// Share of a head's columns that rotate.
    pub partial_rotary_factor: f64,
}

impl Default for Phi3 {
    fn default() -> Phi3 {
        Phi3 { partial_rotary_factor: 1.0 }
    }
}

impl Phi3 {
    /// The share that gives so many columns of a head, rounded down.
    fn rotating(columns: usize, head_dim: usize) -> Phi3 {
        let share = |columns: f64| Phi3 { partial_rotary_factor: columns / head_dim as f64 };
        let exact = share(columns as f64);
        if exact.columns(head_dim) == columns { exact } else { share(columns as f64 + 0.5) }
    }

    fn columns(&self, head_dim: usize) -> usize {
        (head_dim as f64 * self.partial_rotary_factor) as usize
    }
}

/// `original_max_position_embeddings` by default.
const ORIGINAL: usize = 4096;

impl Family for Phi3 {
    fn names(&self) -> Names {
        Names { class: "Phi3", model_type: "phi3", gguf: "phi3" }
    }

    fn defaults(&self) -> Defaults {
        Defaults { rms_norm_eps: 1e-5, max_position_embeddings: 4096, ..Defaults::default() }
    }

    fn common_fields(&self, json: &mut Value) {
        if json["original_max_position_embeddings"].is_null() {
            json["original_max_position_embeddings"] = json!(ORIGINAL);
        }
        // The older names, as in transformers.
        for object in ["rope_scaling", "rope_parameters"] {
            for field in ["rope_type", "type"] {
                if let Some(kind) = json[object].get_mut(field)
                    && (kind == "su" || kind == "yarn")
                {
                    *kind = json!("longrope");
                }
            }
        }
    }

    fn own_fields(&self, json: &mut Value) {
        json["partial_rotary_factor"] = json!(self.partial_rotary_factor);
        for object in ["rope_scaling", "rope_parameters"] {
            if let Some(rope) = json.get_mut(object).and_then(Value::as_object_mut) {
                rope.insert("partial_rotary_factor".into(), json!(self.partial_rotary_factor));
            }
        }
    }

    fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Fields {
            resid_pdrop: Option<f64>,
            embd_pdrop: Option<f64>,
        }
        let fields: Fields = parse_fields(text)?;
        for (name, rate) in [("resid_pdrop", fields.resid_pdrop), ("embd_pdrop", fields.embd_pdrop)]
        {
            if let Some(rate) = rate.filter(|&rate| rate != 0.0) {
                return Err(format!("{name} is {rate}; only 0 is supported"));
            }
        }
        let partial_rotary_factor =
            parse_fields::<RopeFields>(text)?.partial_rotary_factor()?.unwrap_or(1.0);
        config.specifics = Specifics::Phi3(Phi3 { partial_rotary_factor });
        read_window(text, config, None)
    }

    fn to_json(&self, config: &Config) -> Value {
        let original = match config.rope_scaling {
            RopeScaling::LongRope { original_max_position_embeddings, .. } => {
                original_max_position_embeddings
            }
            _ => ORIGINAL,
        };
        json!({
            "sliding_window": config.window(0),
            "original_max_position_embeddings": original,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
        })
    }

    fn problem(&self, config: &Config) -> Option<String> {
        let (share, rotated) = (self.partial_rotary_factor, self.rotated(config));
        if !(share > 0.0 && share <= 1.0 && rotated > 0) {
            return Some(format!(
                "partial_rotary_factor is {share}, not a share of the {} columns of a head",
                config.head_dim
            ));
        }
        one_window(config)
    }

    fn has_attention_bias(&self) -> bool {
        false
    }

    fn rope_kinds(&self) -> &'static [&'static str] {
        &["default", "longrope"]
    }

    fn rotates_partly(&self) -> bool {
        true
    }

    fn rotated(&self, config: &Config) -> usize {
        self.columns(config.head_dim)
    }

    fn specs(&self, config: &Config, _: usize, prefix: String) -> Vec<ParamSpec> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let mut specs = Specs::new(prefix, Some(config.num_hidden_layers));
        specs.norm("input_layernorm", hidden);
        specs.linear("self_attn.qkv_proj", config.q_dim() + 2 * config.kv_dim(), hidden, false);
        specs.residual_linear("self_attn.o_proj", hidden, config.q_dim(), false);
        specs.norm("post_attention_layernorm", hidden);
        specs.linear("mlp.gate_up_proj", 2 * inner, hidden, false);
        specs.residual_linear("mlp.down_proj", hidden, inner, false);
        specs.list
    }

    fn bind(&self, _: &Config, params: &Params, _: usize, prefix: &str) -> Arc<dyn Block> {
        let linear = |name| Linear::bind(params, prefix, name);
        Arc::new(Phi3Block {
            input_norm: weight(params, prefix, "input_layernorm"),
            qkv: linear("self_attn.qkv_proj"),
            output: linear("self_attn.o_proj"),
            post_attention_norm: weight(params, prefix, "post_attention_layernorm"),
            gate_up: linear("mlp.gate_up_proj"),
            down: linear("mlp.down_proj"),
        })
    }

    fn read_gguf(&self, keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
        keys.expect_unset("expert_count")?;
        // llama.cpp ignores windows, which are shorter than the context in the first models only.
        config.set_window(keys.optional_size(WINDOW)?.filter(|&size| size > 0));
        let rotated = keys.optional_size("rope.dimension_count")?;
        gguf::read_heads(keys, config)?;
        if let Some(rotated) = rotated {
            config.specifics = Specifics::Phi3(Phi3::rotating(rotated, config.head_dim));
        }
        Ok(())
    }

    fn write_gguf(&self, keys: &mut NewKeys<'_>, config: &Config) -> Result<(), String> {
        if config.q_dim() != config.hidden_size {
            return Err(format!(
                "its {} heads of {} are not its hidden size, {}, as llama.cpp wants for Phi3",
                config.num_attention_heads, config.head_dim, config.hidden_size
            ));
        }
        gguf::write_dense(keys, config)?;
        keys.put_sizes(&[
            ("rope.dimension_count", self.rotated(config)),
            (WINDOW, config.window(0).unwrap_or(0)),
        ]);
        Ok(())
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("self_attn.qkv_proj", "attn_qkv"), ("gate_up_proj", "ffn_up")]
    }

    fn gguf_rope(&self) -> GgufRope {
        GgufRope::LongRope
    }
}

/// The key of the window's size.
const WINDOW: &str = "attention.sliding_window";

/// Parameters of one block.
#[derive(Debug)]
struct Phi3Block {
    input_norm: ParamId,
    qkv: Linear,
    output: Linear,
    post_attention_norm: ParamId,
    gate_up: Linear,
    down: Linear,
}

impl Block for Phi3Block {
    fn forward(&self, tape: &mut Tape<'_>, pass: &mut Pass<'_>, layer: usize, x: Var) -> Var {
        let config = Arc::clone(&pass.config);
        let (eps, inner) = (config.rms_norm_eps, config.intermediate_size);
        let (q_dim, kv_dim) = (config.q_dim(), config.kv_dim());
        let normed = tape.rms_norm(x, self.input_norm, eps);
        let qkv = self.qkv.forward(tape, normed);
        let [q, k, v] = split(tape, qkv, [q_dim, kv_dim, kv_dim]);
        let (q, k) = (pass.rotate(tape, layer, q), pass.rotate(tape, layer, k));
        let mixed = attend(tape, pass, layer, config.attention(layer), (q, k, v));
        let output = self.output.forward(tape, mixed);
        let x = tape.add(x, output);
        let normed = tape.rms_norm(x, self.post_attention_norm, eps);
        let gate_up = self.gate_up.forward(tape, normed);
        let [gate, up] = split(tape, gate_up, [inner, inner]);
        let gated = tape.gated(gate, up, GatedActivation::Silu);
        let output = self.down.forward(tape, gated);
        tape.add(x, output)
    }
}
