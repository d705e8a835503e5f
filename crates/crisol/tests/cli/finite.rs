//! Weights that are NaN or infinite: every command that uses them says so, names the tensor, and
//! fails.

use crate::fixture::{Bench, checkpoint, copy_model};

/// A copy of the tiny run's model with `value` in the tensor `name`, from `copy`'s second value on.
fn broken_model(bench: &Bench, copy: &str, name: &str, value: f32) {
    copy_model("2-sft", &bench.path(copy));
    let file = bench.path(copy).join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    assert_eq!(json[name]["dtype"], "F32", "{name}");
    let start = header + json[name]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[start + 4..start + 8].copy_from_slice(&value.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
}

/// Kind: weights without a meaning, whatever is done with them.
#[test]
fn weights_that_are_not_finite_are_refused_by_name() {
    let bench = Bench::new("");
    let norm = "model.layers.1.input_layernorm.weight";
    for (copy, value, said) in [("nan", f32::NAN, "NaN"), ("inf", f32::INFINITY, "inf")] {
        broken_model(&bench, copy, norm, value);
        for command in [
            &["score", copy, "--text", "Ana has 2"][..],
            &["export", copy, "--to", "hf", "--out", "exported"],
            &["export", copy, "--to", "hf", "--dtype", "bf16", "--out", "exported"],
            &["export", copy, "--to", "gguf", "--out", "exported.gguf"],
            &["export", copy, "--to", "gguf", "--dtype", "q8_0", "--out", "exported.gguf"],
            &["sft", copy, "--data", "sft.jsonl", "--out", "tuned"],
        ] {
            let error = bench.crisol(command).failed(1);
            assert!(error.contains(norm) && error.contains(said), "{command:?}: {error}");
            let last = error.rsplit("error: ").next().unwrap_or_default();
            assert!(!last.contains("optimizer.lr"), "{command:?}: {error}");
        }
        assert!(!bench.path("exported").exists() && !bench.path("exported.gguf").exists());
    }
    let fine = checkpoint("2-sft");
    bench.crisol(&["score", &fine, "--text", "Ana has 2"]).ok();
}
