//! GGUF metadata of Llama 4 (`llama4`), as in `conversion/llama.py` and `llama4.cpp` of llama.cpp.
//! llama.cpp hard-codes several fields of `config.json`.

use crisol_hub::Metadata;

use super::keys::Keys;
use crate::config::{MAX_LAYERS, Specifics};
use crate::llama4::Shape;
use crate::{Config, ModelError};

/// Every fourth layer has no RoPE and attends to the full context (`n_no_rope_layer_step`).
const ROPE_PERIOD: usize = 4;
/// Attention chunk size in tokens.
const CHUNK: usize = 8192;
/// `floor_scale` and `attn_scale` of the query temperature.
const TEMPERATURE: (usize, f32) = (8192, 0.1);
/// llama.cpp disables QK-norm for this number of experts (Maverick).
const EXPERTS_WITHOUT_NORM: usize = 128;

/// Reads the fields of [`Shape`].
pub(super) fn read(keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
    // llama.cpp reads no other value.
    if keys.optional_size("attention.sliding_window")? == Some(0) {
        return Err(keys.refuse(
            "attention.sliding_window",
            "0 (no layer has chunks), which is not supported",
        ));
    }
    for rest in ["attention.sliding_window_pattern", "rope.freq_base_swa"] {
        if keys.metadata.get(&keys.name(rest)).is_some() {
            return Err(keys.refuse(rest, "given, which is not supported"));
        }
    }
    let layers = config.num_hidden_layers;
    // Checked before lists of this length are allocated.
    if layers > MAX_LAYERS {
        return Err(keys.refuse("block_count", &format!("{layers}, more than {MAX_LAYERS}")));
    }
    let step = keys.size("interleave_moe_layer_step")?;
    let experts = keys.size("expert_count")?;
    let shape = Shape {
        intermediate_size_mlp: config.intermediate_size,
        moe_layers: moe_layers(layers, step),
        num_local_experts: experts,
        num_experts_per_tok: keys.size("expert_used_count")?,
        rope_layers: rope_layers(layers),
        chunked_layers: rope_layers(layers),
        attention_chunk_size: CHUNK,
        use_qk_norm: experts != EXPERTS_WITHOUT_NORM,
        attn_temperature_tuning: true,
        floor_scale: TEMPERATURE.0,
        attn_scale: TEMPERATURE.1,
    };
    config.intermediate_size = keys.size("expert_feed_forward_length")?;
    config.specifics = Specifics::Llama4(shape);
    Ok(())
}

/// Writes the fields. Errors where llama.cpp would compute something else.
pub(super) fn write(
    metadata: &mut Metadata,
    key: impl Fn(&str) -> String,
    config: &Config,
    shape: &Shape,
) -> Result<(), String> {
    let (layers, positions) = (config.num_hidden_layers, config.max_position_embeddings);
    // A step above the number of layers means no mixture.
    let Some(step) = (1..=layers + 1).find(|&step| moe_layers(layers, step) == shape.moe_layers)
    else {
        return Err(
            "llama.cpp supports mixtures of experts in every n-th layer only, not moe_layers"
                .into(),
        );
    };
    if shape.rope_layers != rope_layers(layers) {
        return Err(format!(
            "llama.cpp applies RoPE in three of {ROPE_PERIOD} layers, unlike no_rope_layers"
        ));
    }
    // A context within one chunk has no chunks.
    let chunks = |chunked: &[bool], size: usize| -> Vec<Option<usize>> {
        chunked
            .iter()
            .map(|&chunked| Some(size).filter(|&size| chunked && size < positions))
            .collect()
    };
    if chunks(&shape.chunked_layers, shape.attention_chunk_size)
        != chunks(&rope_layers(layers), CHUNK)
    {
        return Err(format!(
            "llama.cpp uses chunks of {CHUNK} tokens in three of {ROPE_PERIOD} layers, \
             unlike layer_types and attention_chunk_size"
        ));
    }
    // Up to position `floor` the temperature is 1.
    let temperature = |(floor, scale): (usize, f32)| {
        Some((floor, scale.to_bits())).filter(|_| floor <= positions)
    };
    let tuned = shape.attn_temperature_tuning.then_some((shape.floor_scale, shape.attn_scale));
    if layers >= ROPE_PERIOD && tuned.and_then(temperature) != temperature(TEMPERATURE) {
        return Err(format!(
            "llama.cpp scales unrotated queries with floor_scale {} and attn_scale {}, \
             unlike attn_temperature_tuning, floor_scale and attn_scale here",
            TEMPERATURE.0, TEMPERATURE.1
        ));
    }
    if shape.use_qk_norm == (shape.num_local_experts == EXPERTS_WITHOUT_NORM) {
        return Err(format!(
            "llama.cpp norms queries and keys unless there are {EXPERTS_WITHOUT_NORM} experts, \
             but use_qk_norm is {} with {}",
            shape.use_qk_norm, shape.num_local_experts
        ));
    }
    for (rest, size) in [
        ("attention.head_count_kv", config.num_key_value_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
        ("feed_forward_length", shape.intermediate_size_mlp),
        ("expert_feed_forward_length", config.intermediate_size),
        ("interleave_moe_layer_step", step),
        ("expert_count", shape.num_local_experts),
        ("expert_used_count", shape.num_experts_per_tok),
    ] {
        metadata.insert(key(rest), size as u32);
    }
    Ok(())
}

/// Whether each layer is a mixture: every `step`-th one (0: none).
fn moe_layers(layers: usize, step: usize) -> Vec<bool> {
    (1..=layers).map(|layer| step > 0 && layer.is_multiple_of(step)).collect()
}

/// Whether each layer applies RoPE; the same layers use chunked attention.
fn rope_layers(layers: usize) -> Vec<bool> {
    (1..=layers).map(|layer| !layer.is_multiple_of(ROPE_PERIOD)).collect()
}
