//! What GGUF files of Llama 4 (`llama4`) have of their own, by `conversion/llama.py` and `llama4.cpp` of llama.cpp. Much of what a
//! `config.json` says is fixed there.

use crisol_hub::Metadata;

use super::keys::Keys;
use crate::config::{MAX_LAYERS, Specifics};
use crate::llama4::Shape;
use crate::{Config, ModelError};

/// Layers up to and with one that does not rotate and sees all of the context.
const PERIOD: usize = 4;
/// Positions of a chunk.
const CHUNK: usize = 8192;
/// Positions over which queries do not grow, and how fast they do after that.
const GROWTH: (usize, f32) = (8192, 0.1);
/// llama.cpp knows by this number of experts that queries and keys are not normed.
const EXPERTS_WITHOUT_NORM: usize = 128;

/// Reads what differs from other architectures.
pub(super) fn read(keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
    // Another number than 0 is not read by llama.cpp.
    if keys.optional_size("attention.sliding_window")? == Some(0) {
        return Err(keys.refuse(
            "attention.sliding_window",
            "0 (no layer sees chunks), which is not supported",
        ));
    }
    for rest in ["attention.sliding_window_pattern", "rope.freq_base_swa"] {
        if keys.metadata.get(&keys.name(rest)).is_some() {
            return Err(keys.refuse(rest, "given, which is not supported"));
        }
    }
    let layers = config.num_hidden_layers;
    // Before lists of that length are made.
    if layers > MAX_LAYERS {
        return Err(keys.refuse("block_count", &format!("{layers}, more than {MAX_LAYERS}")));
    }
    let step = keys.size("interleave_moe_layer_step")?;
    let experts = keys.size("expert_count")?;
    let shape = Shape {
        intermediate_size_mlp: config.intermediate_size,
        moe_layers: mixtures(layers, step),
        num_local_experts: experts,
        num_experts_per_tok: keys.size("expert_used_count")?,
        rope_layers: rotating(layers),
        chunked_layers: rotating(layers),
        attention_chunk_size: CHUNK,
        use_qk_norm: experts != EXPERTS_WITHOUT_NORM,
        attn_temperature_tuning: true,
        floor_scale: GROWTH.0,
        attn_scale: GROWTH.1,
    };
    config.intermediate_size = keys.size("expert_feed_forward_length")?;
    config.specifics = Specifics::Llama4(shape);
    Ok(())
}

/// Writes it; an error is what llama.cpp would compute otherwise.
pub(super) fn write(
    metadata: &mut Metadata,
    key: impl Fn(&str) -> String,
    config: &Config,
    shape: &Shape,
) -> Result<(), String> {
    let (layers, positions) = (config.num_hidden_layers, config.max_position_embeddings);
    // With more than there are layers, none is a mixture.
    let Some(step) = (1..=layers + 1).find(|&step| mixtures(layers, step) == shape.moe_layers)
    else {
        return Err(
            "llama.cpp knows mixtures of experts in every n-th layer only, not in those of moe_layers".into(),
        );
    };
    if shape.rope_layers != rotating(layers) {
        return Err(format!(
            "llama.cpp rotates in three of {PERIOD} layers, not in those of no_rope_layers"
        ));
    }
    // Within a context that is no longer than a chunk, there are none.
    let chunks = |chunked: &[bool], size: usize| -> Vec<Option<usize>> {
        chunked
            .iter()
            .map(|&chunked| Some(size).filter(|&size| chunked && size < positions))
            .collect()
    };
    if chunks(&shape.chunked_layers, shape.attention_chunk_size) != chunks(&rotating(layers), CHUNK)
    {
        return Err(format!(
            "llama.cpp lets three of {PERIOD} layers see chunks of {CHUNK} positions, which is not what layer_types and \
             attention_chunk_size say"
        ));
    }
    // Up to the first position at which queries grow, they do not.
    let growth = |(floor, scale): (usize, f32)| {
        Some((floor, scale.to_bits())).filter(|_| floor <= positions)
    };
    let tuned = shape.attn_temperature_tuning.then_some((shape.floor_scale, shape.attn_scale));
    if layers >= PERIOD && tuned.and_then(growth) != growth(GROWTH) {
        return Err(format!(
            "llama.cpp lets queries that are not rotated grow with floor_scale {} and attn_scale {}, which is not what \
             attn_temperature_tuning and these say",
            GROWTH.0, GROWTH.1
        ));
    }
    if shape.use_qk_norm == (shape.num_local_experts == EXPERTS_WITHOUT_NORM) {
        return Err(format!(
            "llama.cpp norms queries and keys unless there are {EXPERTS_WITHOUT_NORM} experts, but use_qk_norm is {} with {}",
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

/// Whether each layer is a mixture, where every `step`-th is (0: none).
fn mixtures(layers: usize, step: usize) -> Vec<bool> {
    (1..=layers).map(|layer| step > 0 && layer.is_multiple_of(step)).collect()
}

/// Whether each layer rotates, which those do that see chunks.
fn rotating(layers: usize) -> Vec<bool> {
    (1..=layers).map(|layer| !layer.is_multiple_of(PERIOD)).collect()
}
