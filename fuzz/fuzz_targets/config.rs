//! A `config.json`, beside the weights of a tiny model that it may fit.

#![no_main]

use crisol_engine::Device;
use crisol_model::{Config, load_model, scalars};
use libfuzzer_sys::fuzz_target;

const WEIGHTS: &[u8] = include_bytes!("../../tests/golden/llama-scalar/model.safetensors");

/// A longer context is valid, but its rotary tables are slow to fill.
const POSITIONS: usize = 1 << 12;

fuzz_target!(|data: &[u8]| {
    let folder = crisol_fuzz::folder(&[("config.json", data), ("model.safetensors", WEIGHTS)]);
    let Ok(config) = Config::load(folder.path()) else { return };
    let written = config.to_json(crisol_hub::FloatType::F32).to_string();
    let again = crisol_fuzz::folder(&[("config.json", written.as_bytes())]);
    assert_eq!(Config::load(again.path()).expect("what is written is read back"), config);
    if config.max_position_embeddings > POSITIONS {
        return;
    }
    if let Ok((model, params)) = load_model(folder.path(), &Device::cpu(Some(1))) {
        let _ = scalars(&model, &params, &[[0, 1, 2], [63, 64, 65]]);
    }
});
