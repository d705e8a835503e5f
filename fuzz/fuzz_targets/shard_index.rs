//! `model.safetensors.index.json`, beside one file that it may list.

#![no_main]

use crisol_hub::Tensors;
use libfuzzer_sys::fuzz_target;

const SHARD: &[u8] = include_bytes!("../seeds/safetensors/three_types.safetensors");

fuzz_target!(|data: &[u8]| {
    let folder =
        crisol_fuzz::folder(&[("model.safetensors.index.json", data), ("a.safetensors", SHARD)]);
    if let Ok(tensors) = Tensors::open_folder(folder.path()) {
        assert!(tensors.names().count() > 0);
    }
});
