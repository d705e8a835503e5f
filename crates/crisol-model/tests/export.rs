//! Export without loading: the written files have the model's values, rounded to the requested
//! type.

use std::fs;
use std::path::{Path, PathBuf};

use crisol_engine::{Device, Params};
use crisol_hub::{FloatType, GgmlType, Gguf, Tensors};
use crisol_model::{
    Architecture, Checkpoint, Config, Gemma3, Gpt2, Granite, Head, Model, ModelError, ModelFiles,
    Phi3, RopeScaling, SmolLm3, Specifics, load_model,
};
use crisol_text::{EMBEDDED_TOKENS, Message, TextSetup, Tokenizer};
use tempfile::TempDir;

const VOCAB: usize = 300;
const SHARD: u64 = 16 << 10;

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")).join(name)
}

fn temp_dir() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn device() -> Device {
    Device::cpu(Some(1))
}

/// Every parameter's name and values.
fn weights(params: &Params) -> Vec<(String, Vec<f32>)> {
    params.ids().map(|id| (params.spec(id).name.clone(), params.read(id))).collect()
}

fn text() -> TextSetup {
    let tokenizer = Tokenizer::train(["a small text, a small model"], 280, &EMBEDDED_TOKENS)
        .expect("enough text");
    TextSetup::embedded(tokenizer).expect("it has the embedded tokens")
}

/// A saved model with a tokenizer; the model has more tokens than the tokenizer.
fn saved(dir: &Path, config: Config) -> Result<PathBuf, ModelError> {
    let (model, params) = Model::init(config, &device(), 5)?;
    let folder = dir.join("saved");
    Checkpoint { model, params, text: text() }.save(&folder)?;
    Ok(folder)
}

fn config(architecture: Architecture) -> Config {
    Config { num_key_value_heads: 1, ..Config::new(architecture, VOCAB, 32, 2, 2, 48) }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it exists");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Rounds to `bits` fraction bits, to nearest even, in f64. The golden weights are far from the
/// limits of the exponent.
fn rounded(value: f32, bits: i32) -> f32 {
    if value == 0.0 {
        return value;
    }
    let unit = 2f64.powi(f64::from(value.abs()).log2().floor() as i32 - bits);
    ((f64::from(value) / unit).round_ties_even() * unit) as f32
}

#[test]
fn exported_folders_of_every_architecture_keep_their_values() -> Result<(), ModelError> {
    let folders = fs::read_dir(golden("")).expect("the folder of golden models");
    let mut names: Vec<String> = folders
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.join("golden.safetensors").exists())
        .map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    names.sort();
    for name in &names {
        let dir = temp_dir();
        let files = ModelFiles::open(&golden(name))?;
        let (model, params) = load_model(&golden(name), &device())?;
        for (dtype, bits) in [(FloatType::F32, 23), (FloatType::BF16, 7)] {
            let folder = dir.path().join(dtype.to_string());
            files.export_folder(&folder, dtype, SHARD)?;
            let (written, values) = load_model(&folder, &device())?;
            assert_eq!(written.config(), model.config(), "{name}");
            let (original, written) = (weights(&params), weights(&values));
            assert_eq!(original.len(), written.len(), "{name} as {dtype}");
            for ((name, value), (written_name, written)) in original.into_iter().zip(written) {
                assert_eq!(name, written_name);
                let bits = if name.ends_with("e_score_correction_bias") { 23 } else { bits };
                let expected: Vec<f32> = value.iter().map(|&value| rounded(value, bits)).collect();
                assert_eq!(written, expected, "{name} as {dtype}");
            }
            let config = fs::read_to_string(folder.join("config.json")).expect("just written");
            let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
            let named = if dtype == FloatType::F32 { "float32" } else { "bfloat16" };
            assert_eq!((&config["dtype"], &config["torch_dtype"]), (&named.into(), &named.into()));
            assert!(config.get("quantization_config").is_none());
        }
        assert_eq!(
            ModelFiles::open(&dir.path().join("BF16"))?.float_type(),
            FloatType::BF16,
            "{name}"
        );
    }
    Ok(())
}

/// Folder to GGUF to Crisol: weights bit by bit, shape, tokenizer and template.
#[test]
fn f32_gguf_files_keep_every_bit() -> Result<(), ModelError> {
    let yarn = |attention_factor| RopeScaling::Yarn {
        factor: 4.0,
        original_max_position_embeddings: 256,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
        attention_factor,
        mscale: 0.0,
        mscale_all_dim: 0.0,
    };
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 128,
    };
    let untied = Head::Language { tied: false };
    let llama = || config(Architecture::Llama);
    // Widths of heads are 16; norms start at 0.
    let gemma3 = Gemma3 {
        query_pre_attn_scalar: 16,
        final_logit_softcapping: Some(12.5),
        rope_local_base_freq: 300.0,
    };
    for config in [
        Config {
            specifics: Specifics::Gemma3(gemma3),
            windows: vec![Some(5), None],
            rope_scaling: RopeScaling::Linear { factor: 8.0 },
            ..config(Architecture::Gemma3)
        },
        Config { attention_bias: true, mlp_bias: true, ..llama() },
        Config { head: untied, head_dim: 12, rope_theta: 5e5, rms_norm_eps: 1e-6, ..llama() },
        Config { rope_scaling: RopeScaling::Linear { factor: 2.5 }, ..llama() },
        Config { rope_scaling: llama3, ..llama() },
        Config { rope_scaling: yarn(None), ..llama() },
        Config { head: untied, ..config(Architecture::Olmo2) },
        Config { rope_scaling: yarn(Some(1.5)), ..config(Architecture::Qwen3) },
        Config { head: untied, ..config(Architecture::SmolLm3) },
        Config {
            attention_bias: true,
            specifics: Specifics::Granite(Granite {
                embedding_multiplier: 12.0,
                logits_scaling: 8.0,
                residual_multiplier: 0.22,
                attention_multiplier: 0.015_625,
            }),
            ..config(Architecture::Granite)
        },
        Config {
            rope_scaling: yarn(None),
            rope_theta: 5e5,
            windows: vec![None, Some(100)],
            ..config(Architecture::Olmo3)
        },
        Config { windows: vec![Some(1024); 2], ..config(Architecture::Phi3) },
        Config {
            rope_scaling: RopeScaling::LongRope {
                short_factor: vec![1.0, 1.25, 1.5, 2.0],
                long_factor: vec![1.1, 2.0, 4.0, 8.0],
                original_max_position_embeddings: 256,
                factor: 4.0,
                attention_factor: None,
            },
            specifics: Specifics::Phi3(Phi3 { partial_rotary_factor: 0.5 }),
            ..config(Architecture::Phi3)
        },
        Config { num_key_value_heads: 2, ..config(Architecture::Gpt2) },
        Config { num_key_value_heads: 2, head: untied, ..config(Architecture::Gpt2) },
    ] {
        let dir = temp_dir();
        let folder = saved(dir.path(), config)?;
        let file = dir.path().join("model.gguf");
        ModelFiles::open(&folder)?.export_gguf(&file, GgmlType::F32)?;
        let (before, after) =
            (Checkpoint::load(&folder, &device())?, Checkpoint::load(&file, &device())?);
        let mut config = after.model.config().clone();
        // Token ids come from the tokenizer, not from the shape.
        config.bos_token_id = before.model.config().bos_token_id;
        if let RopeScaling::Yarn { attention_factor: Some(factor), .. } = &mut config.rope_scaling {
            // GGUF has an f32 relative to the default that follows from the factor.
            assert!((*factor - 1.5).abs() < 1e-6, "{factor}");
            *factor = 1.5;
        }
        assert_eq!(&config, before.model.config());
        assert_eq!(weights(&after.params), weights(&before.params));
        assert_eq!(
            (after.text.eos, &after.text.stop_ids),
            (before.text.eos, &before.text.stop_ids)
        );
        let turns =
            [Message::user("a small <|end|> 1234"), Message::assistant("model \u{e9}\n\n ")];
        assert_eq!(after.text.chat(&turns)?, before.text.chat(&turns)?);
        assert_eq!(
            after.text.tokenizer.encode_with_special_tokens("a text")?,
            before.text.tokenizer.encode_with_special_tokens("a text")?
        );

        // And back to a folder.
        let again = dir.path().join("again");
        ModelFiles::open(&file)?.export_folder(&again, FloatType::F32, SHARD)?;
        let again = Checkpoint::load(&again, &device())?;
        assert_eq!(weights(&again.params), weights(&before.params));
        assert_eq!(again.model.config(), after.model.config());
        assert_eq!(again.text.chat(&turns)?, before.text.chat(&turns)?);
    }
    Ok(())
}

#[test]
fn gguf_export_rounds_matrices_and_keeps_vectors() -> Result<(), ModelError> {
    let dir = temp_dir();
    let folder = saved(dir.path(), config(Architecture::Llama))?;
    let model = ModelFiles::open(&folder)?;
    let plain = Tensors::open_folder(&folder)?;
    for (dtype, file_type) in [(GgmlType::BF16, 32), (GgmlType::F16, 1), (GgmlType::Q8_0, 7)] {
        let file = dir.path().join("model.gguf");
        model.export_gguf(&file, dtype)?;
        let gguf = Gguf::open(&file)?;
        assert_eq!(gguf.metadata().u32("general.file_type")?, file_type);
        assert_eq!(gguf.dtype("blk.0.attn_norm.weight"), Some(GgmlType::F32));
        assert_eq!(gguf.dtype("token_embd.weight"), Some(dtype));
        // 48 columns are not a multiple of the block length 32.
        let down = if dtype == GgmlType::Q8_0 { GgmlType::F16 } else { dtype };
        assert_eq!(gguf.dtype("blk.1.ffn_down.weight"), Some(down));
        let (read, values) = (
            gguf.read("blk.1.ffn_up.weight")?,
            plain.read("model.layers.1.mlp.up_proj.weight", &[48, 32])?,
        );
        assert_eq!(read.len(), values.len());
        for (read, value) in read.iter().zip(&values) {
            // Weights are below 0.1, and a step of Q8_0 is 1/127 of the largest of 32 values.
            assert!((read - value).abs() < 0.1 / 127.0 / 1.9, "{dtype}: {read} for {value}");
        }
    }
    assert_eq!(names(dir.path()), ["model.gguf", "saved"]);
    Ok(())
}

#[test]
fn a_refused_export_names_the_cause_and_leaves_no_file() -> Result<(), ModelError> {
    let dynamic = RopeScaling::Dynamic { factor: 2.0 };
    let yarn = |beta_fast, truncate| RopeScaling::Yarn {
        factor: 4.0,
        original_max_position_embeddings: 256,
        beta_fast,
        beta_slow: 1.0,
        truncate,
        attention_factor: None,
        mscale: 0.0,
        mscale_all_dim: 0.0,
    };
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 128,
    };
    let gguf = |folder: &Path| {
        let dir = temp_dir();
        let error = ModelFiles::open(folder)
            .expect("whole")
            .export_gguf(&dir.path().join("model.gguf"), GgmlType::F16)
            .expect_err("must be refused");
        assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
        error.to_string()
    };
    for (name, named) in [("llama-scalar", "scalar head"), ("llama", "no tokenizer")] {
        let error = gguf(&golden(name));
        assert!(error.contains("GGUF") && error.contains(named), "{error}");
    }
    for (config, named) in [
        (Config { rope_scaling: yarn(16.0, true), ..config(Architecture::Llama) }, "beta_fast"),
        (Config { rope_scaling: yarn(32.0, false), ..config(Architecture::Llama) }, "truncate"),
        (Config { attention_bias: true, ..config(Architecture::Qwen3) }, "biases"),
        (config(Architecture::Gemma2), "query_pre_attn_scalar is 256"),
        (Config { rope_scaling: dynamic, ..config(Architecture::Llama) }, "dynamic"),
        (Config { rope_scaling: llama3, ..config(Architecture::Qwen3) }, "llama3"),
        (
            Config {
                specifics: Specifics::SmolLm3(SmolLm3 { rope_layers: vec![false, true] }),
                ..config(Architecture::SmolLm3)
            },
            "every 4th",
        ),
        (Config { mlp_bias: true, ..config(Architecture::SmolLm3) }, "MLP has biases"),
        (config(Architecture::Olmo3), "takes that for OLMo-2"),
        (
            Config { windows: vec![Some(9), None], ..config(Architecture::Olmo3) },
            "rope_theta is 500000 in layers with a window",
        ),
        (Config { windows: vec![Some(9); 2], ..config(Architecture::Phi3) }, "windows of 9"),
        (Config { head_dim: 8, ..config(Architecture::Phi3) }, "as llama.cpp wants"),
        (
            Config {
                num_key_value_heads: 2,
                specifics: Specifics::Gpt2(Gpt2 { scale_attn_weights: false }),
                ..config(Architecture::Gpt2)
            },
            "scale_attn_weights",
        ),
    ] {
        let dir = temp_dir();
        let error = gguf(&saved(dir.path(), config)?);
        assert!(error.contains(named) && error.contains("GGUF"), "{error}");
    }

    // A value outside the range of half precision.
    let dir = temp_dir();
    let (model, mut params) = Model::init(config(Architecture::Llama), &device(), 5)?;
    let id = params.id("model.layers.1.mlp.down_proj.weight").expect("a parameter");
    let mut values = params.read(id);
    values[7] = -70_000.0;
    params.write(id, &values);
    let folder = dir.path().join("saved");
    Checkpoint { model, params, text: text() }.save(&folder)?;
    assert!(gguf(&folder).contains("ffn_down"));
    let out = dir.path().join("halves");
    let error = ModelFiles::open(&folder)?
        .export_folder(&out, FloatType::F16, SHARD)
        .expect_err("beyond the range")
        .to_string();
    for part in ["model.layers.1.mlp.down_proj.weight", "-70000", "F16", "BF16"] {
        assert!(error.contains(part), "{error} lacks {part}");
    }
    assert_eq!(names(dir.path()), ["saved"]);
    ModelFiles::open(&folder)?.export_folder(&out, FloatType::BF16, SHARD)?;
    Ok(())
}

#[test]
fn parameters_are_counted_from_headers() -> Result<(), ModelError> {
    for name in ["llama-tied", "olmo2", "qwen3"] {
        let files = ModelFiles::open(&golden(name))?;
        let (_, params) = load_model(&golden(name), &device())?;
        let all: usize = weights(&params).iter().map(|(_, values)| values.len()).sum();
        assert_eq!(files.parameters(), (all as u64, all as u64), "{name}");
        let summary = files.weight_summary();
        let dtype = files.float_type();
        assert_eq!((summary.len(), &summary[0].dtype), (1, &dtype.to_string()), "{name}");
        assert_eq!(summary[0].bytes, (dtype.bytes() * all) as u64, "{name}");
        assert_eq!(summary[0].tensors, params.ids().count());
    }
    for name in ["deepseek-v3", "llama4"] {
        let files = ModelFiles::open(&golden(name))?;
        let (experts, chosen) = files.config().routed_experts().expect("a mixture");
        let (_, params) = load_model(&golden(name), &device())?;
        // Selected experts, by their number in the name.
        let active = |name: &str| {
            let expert = name
                .split_once(".experts.")
                .and_then(|(_, rest)| rest.split('.').next()?.parse().ok());
            expert.is_none_or(|expert: usize| expert < chosen)
        };
        let count = |counts: &dyn Fn(&str) -> bool| -> usize {
            weights(&params)
                .iter()
                .filter(|(name, _)| counts(name))
                .map(|(_, values)| values.len())
                .sum()
        };
        assert!(chosen < experts);
        let (total, active) = (count(&|_| true) as u64, count(&active) as u64);
        assert!(active < total, "{name}: no parameter is named as an expert's");
        assert_eq!(files.parameters(), (total, active), "{name}");
    }
    Ok(())
}
