//! What `crisol info` and `crisol export` read: a GGUF file, or a checkpoint's folder as in
//! `checkpoint.rs`.

#![no_main]

use crisol_engine::Device;
use crisol_fuzz::{checkpoint_folder, folder};
use crisol_hub::GgmlType;
use crisol_model::{Checkpoint, ModelFiles, SHARD_BYTES, skipped_tensors, load_model};
use libfuzzer_sys::fuzz_target;

// As in `tokenizer.rs`: a panic of the tokenizers crate that Crisol turns into an error is no find.
fuzz_target!(init: crisol_fuzz::quiet_panics(), |data: &[u8]| {
    let (place, path) = if data.starts_with(b"GGUF") {
        let place = folder(&[("model.gguf", data)]);
        let file = place.path().join("model.gguf");
        (place, file)
    } else {
        let Some(place) = checkpoint_folder(data) else { return };
        let path = place.path().to_owned();
        (place, path)
    };
    let _ = left_out(&path);
    let Ok(files) = ModelFiles::open(&path) else { return };
    let config = files.config();
    let (total, active) = files.parameters();
    assert!(active <= total);
    assert!(files.weight_summary().iter().map(|summary| summary.tensors).sum::<usize>() > 0);
    let _ = (config.class(), config.cached_per_token(), config.max_document_len(), config.rope_parameters());
    let _ = files.text();

    let device = Device::cpu(Some(1));
    let (made, file) = (place.path().join("made"), place.path().join("made.gguf"));
    if files.export_folder(&made, files.float_type(), SHARD_BYTES).is_ok() {
        load_model(&made, &device).expect("what is written is read back");
    }
    if files.export_gguf(&file, GgmlType::Q8_0).is_ok() {
        let again = ModelFiles::open(&file).expect("what is written is read back");
        assert_eq!(again.parameters().0, total);
        if matches!(again.text(), Ok(Some(_))) {
            Checkpoint::load_for_inference(&file, &device).expect("what is written is read back");
        }
    }
});
