//! A GGUF file: every tensor read or refused. The model that it may hold is loaded to train and to
//! run, an adapter over a small Llama.

#![no_main]

use std::path::Path;

use crisol_engine::Device;
use crisol_fuzz::{folder, use_model};
use crisol_hub::{Gguf, HubError};
use crisol_model::{
    Architecture, Checkpoint, Config, GgufAdapter, Model, ModelError, with_adapter,
};
use libfuzzer_sys::fuzz_target;

// As in `tokenizer.rs`: a panic of the tokenizers crate that Crisol turns into an error is no find.
fuzz_target!(init: crisol_fuzz::quiet_panics(), |data: &[u8]| {
    let folder = folder(&[("model.gguf", data)]);
    let file = folder.path().join("model.gguf");
    let Ok(gguf) = Gguf::open(&file) else { return };
    for name in gguf.names() {
        let shape = gguf.shape(name).expect("a listed tensor has a shape");
        let mapped = gguf.mapped(name).expect("a listed tensor has its place");
        assert_eq!(&mapped[..], gguf.bytes(name).expect("a listed tensor has its place"));
        mapped.release(0..mapped.len());
        if let Ok(values) = gguf.read(name) {
            assert_eq!(values.len(), shape.iter().product::<usize>());
        }
    }
    let device = Device::cpu(Some(1));
    if let Ok(Some(adapter)) = GgufAdapter::open(&file) {
        assert!(adapter.parameters() > 0 && adapter.config().rank > 0);
        // That of the seed `adapter-llama`.
        let config = Config::new(Architecture::Llama, 20, 8, 2, 2, 12);
        let (model, params) = Model::init(config, &device, 1).expect("a valid shape");
        if let Ok((model, params)) = with_adapter(&model, params, Path::new("base"), &file) {
            use_model(&model, &params);
        }
    }
    let trained = Checkpoint::load(&file, &device);
    let inferred = Checkpoint::load_for_inference(&file, &device);
    // Training alone refuses weights that are NaN or infinite.
    let not_finite = matches!(trained, Err(ModelError::Hub(HubError::NotFinite { .. })));
    assert!(not_finite || trained.is_ok() == inferred.is_ok());
    for checkpoint in [trained, inferred].into_iter().flatten() {
        use_model(&checkpoint.model, &checkpoint.params);
        let _ = checkpoint.text.tokenizer.encode_with_special_tokens("the 12 ünï 🦀");
    }
});
