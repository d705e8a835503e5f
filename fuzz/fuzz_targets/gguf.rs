//! A GGUF file: every tensor read or refused, and the model that it may hold loaded to train and to
//! run.

#![no_main]

use crisol_engine::Device;
use crisol_fuzz::{folder, use_model};
use crisol_hub::Gguf;
use crisol_model::Checkpoint;
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
    let trained = Checkpoint::load(&file, &device);
    let inferred = Checkpoint::load_for_inference(&file, &device);
    assert_eq!(trained.is_ok(), inferred.is_ok());
    for checkpoint in [trained, inferred].into_iter().flatten() {
        use_model(&checkpoint.model, &checkpoint.params);
        let _ = checkpoint.text.tokenizer.encode_with_special_tokens("the 12 ünï 🦀");
    }
});
