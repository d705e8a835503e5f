//! A checkpoint's folder, loaded to train and to run: `config.json`, `model.safetensors.index.json`
//! (may be empty) and a file of weights, with NULs between.

#![no_main]

use crisol_engine::Device;
use crisol_fuzz::{checkpoint_folder, use_model};
use crisol_model::{load_model, load_model_for_inference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: crisol_fuzz::quiet_panics(), |data: &[u8]| {
    let Some(folder) = checkpoint_folder(data) else { return };
    let device = Device::cpu(Some(1));
    let trained = load_model(folder.path(), &device);
    let inferred = load_model_for_inference(folder.path(), &device);
    assert_eq!(trained.is_ok(), inferred.is_ok());
    for (model, params) in [trained, inferred].into_iter().flatten() {
        use_model(&model, &params);
    }
});
