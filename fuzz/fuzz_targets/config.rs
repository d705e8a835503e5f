//! A `config.json`: beside the weights of a tiny model that it may fit, and as the shape of a new
//! model.

#![no_main]

use crisol_engine::Device;
use crisol_hub::FloatType;
use crisol_model::{Config, Model, load_model, scalars};
use libfuzzer_sys::fuzz_target;

const WEIGHTS: &[u8] = include_bytes!("../../tests/golden/llama-scalar/model.safetensors");

/// A longer context is valid, but its rotary tables are slow to fill.
const POSITIONS: usize = 1 << 12;

/// What the number of parameters is a product of; only models of up to `LARGEST` and `LAYERS` are
/// made.
const SIZES: [&str; 20] = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "intermediate_size_mlp",
    "moe_intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "q_lora_rank",
    "kv_lora_rank",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "n_shared_experts",
    "n_embd",
    "n_head",
    "n_inner",
];
const LARGEST: u64 = 24;
const LAYERS: usize = 3;

fuzz_target!(|data: &[u8]| {
    let folder = crisol_fuzz::folder(&[("config.json", data), ("model.safetensors", WEIGHTS)]);
    let Ok(config) = Config::load(folder.path()) else { return };
    let json = config.to_json(FloatType::F32);
    let again = crisol_fuzz::folder(&[("config.json", json.to_string().as_bytes())]);
    assert_eq!(Config::load(again.path()).expect("what is written is read back"), config);
    if config.max_position_embeddings > POSITIONS {
        return;
    }
    let device = Device::cpu(Some(1));
    if let Ok((model, params)) = load_model(folder.path(), &device) {
        let _ = scalars(&model, &params, &[[0, 1, 2], [63, 64, 65]]);
    }
    let small = SIZES.iter().all(|size| json[size].as_u64().is_none_or(|size| size <= LARGEST));
    if small && config.num_hidden_layers <= LAYERS {
        let (model, params) =
            Model::init(config, &device, 1).expect("a config that is read is valid");
        crisol_fuzz::use_model(&model, &params);
    }
});
