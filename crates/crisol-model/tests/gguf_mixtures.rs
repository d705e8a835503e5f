//! GGUF files of mixtures of experts: round trips, inference in the file's format, and refusal of
//! what llama.cpp computes differently. (With llama.cpp: `tests/golden/check_gguf_mixtures.py`.)

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use crisol_engine::{Device, Params, Tape, WeightFormat, Workspace};
use crisol_hub::{
    FloatType, GgmlType, Gguf, GgufTensor, Metadata, Tensors, Value, whole, write_gguf,
};
use crisol_model::{
    Architecture, Checkpoint, Config, DeepseekV3, GptOss, Head, Llama4, Mixtral, Model, ModelError,
    ModelFiles, PastKeyValues, Qwen3Moe, RopeScaling, SamplingOptions, Specifics, generate,
    load_model, load_model_for_inference,
};
use crisol_text::{EMBEDDED_TOKENS, TextSetup, Tokenizer};
use serde_json::json;
use tempfile::TempDir;

const VOCAB: usize = 300;
const SHARD: u64 = 16 << 10;

fn device() -> Device {
    Device::cpu(Some(1))
}

fn temp_dir() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// With the values that llama.cpp hard-codes.
fn llama4() -> Config {
    let rotates: Vec<bool> = (1..=5).map(|layer| layer % 4 != 0).collect();
    let shape = Llama4 {
        intermediate_size_mlp: 64,
        moe_layers: vec![false, true, false, true, false],
        num_local_experts: 3,
        num_experts_per_tok: 2,
        chunked_layers: rotates.clone(),
        rope_layers: rotates,
        attention_chunk_size: 8192,
        use_qk_norm: true,
        attn_temperature_tuning: true,
        floor_scale: 8192,
        attn_scale: 0.1,
    };
    Config {
        num_key_value_heads: 1,
        max_position_embeddings: 16_384,
        specifics: Specifics::Llama4(shape),
        ..Config::new(Architecture::Llama4, VOCAB, 32, 5, 2, 96)
    }
}

fn deepseek() -> Config {
    let shape = DeepseekV3 {
        q_lora_rank: Some(12),
        kv_lora_rank: 32,
        qk_nope_head_dim: 32,
        qk_rope_head_dim: 6,
        v_head_dim: 5,
        first_k_dense_replace: 1,
        n_routed_experts: 6,
        num_experts_per_tok: 2,
        n_shared_experts: 2,
        moe_intermediate_size: 32,
        n_group: 3,
        topk_group: 2,
        ..DeepseekV3::default()
    };
    Config {
        head_dim: 6,
        rms_norm_eps: 1e-6,
        specifics: Specifics::DeepseekV3(shape),
        ..Config::new(Architecture::DeepseekV3, VOCAB, 32, 2, 3, 48)
    }
}

fn qwen3_moe() -> Config {
    let shape = Qwen3Moe {
        num_experts: 4,
        num_experts_per_tok: 2,
        moe_intermediate_size: 32,
        norm_topk_prob: true,
        ..Qwen3Moe::default()
    };
    Config {
        specifics: Specifics::Qwen3Moe(shape),
        ..Config::new(Architecture::Qwen3Moe, VOCAB, 32, 2, 2, 48)
    }
}

fn mixtral() -> Config {
    let shape = Mixtral { num_local_experts: 3, num_experts_per_tok: 2 };
    Config {
        specifics: Specifics::Mixtral(shape),
        ..Config::new(Architecture::Mixtral, VOCAB, 32, 2, 2, 32)
    }
}

fn gpt_oss() -> Config {
    let shape = GptOss { num_local_experts: 3, num_experts_per_tok: 2, swiglu_limit: 7.0 };
    Config {
        head: Head::Language { tied: false },
        num_key_value_heads: 1,
        attention_bias: true,
        windows: vec![Some(6), None],
        specifics: Specifics::GptOss(shape),
        ..Config::new(Architecture::GptOss, VOCAB, 32, 2, 2, 64)
    }
}

fn with_llama4(change: impl FnOnce(&mut Llama4)) -> Config {
    let mut config = llama4();
    let Specifics::Llama4(shape) = &mut config.specifics else { unreachable!() };
    change(shape);
    config
}

fn with_deepseek(change: impl FnOnce(&mut DeepseekV3)) -> Config {
    let mut config = deepseek();
    let Specifics::DeepseekV3(shape) = &mut config.specifics else { unreachable!() };
    change(shape);
    config
}

fn yarn(attention_factor: Option<f64>, mscale: f64, mscale_all_dim: f64) -> RopeScaling {
    RopeScaling::Yarn {
        factor: 4.0,
        original_max_position_embeddings: 256,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
        attention_factor,
        mscale,
        mscale_all_dim,
    }
}

/// A saved model with a tokenizer; no parameter is constant.
fn saved(dir: &Path, config: Config) -> Result<PathBuf, ModelError> {
    let (model, mut params) = Model::init(config, &device(), 5)?;
    for (index, id) in params.ids().enumerate() {
        let values = params.read(id);
        if values.iter().all(|&value| value == values[0]) {
            let hashed = |i: usize| values[0] + ((i * 7919 + index * 31) % 101) as f32 / 500.0;
            params.write(id, &(0..values.len()).map(hashed).collect::<Vec<_>>());
        }
    }
    let tokenizer = Tokenizer::train(["a small text, a small model"], 280, &EMBEDDED_TOKENS)
        .expect("enough text");
    let text = TextSetup::embedded(tokenizer).expect("it has the embedded tokens");
    let folder = dir.join("saved");
    Checkpoint { model, params, text }.save(&folder)?;
    Ok(folder)
}

fn exported(dir: &Path, config: Config, dtype: GgmlType) -> Result<PathBuf, ModelError> {
    let file = dir.join("model.gguf");
    ModelFiles::open(&saved(dir, config)?)?.export_gguf(&file, dtype)?;
    Ok(file)
}

/// Every parameter's name and values.
fn weights(params: &Params) -> Vec<(String, Vec<f32>)> {
    params.ids().map(|id| (params.spec(id).name.clone(), params.read(id))).collect()
}

/// Folder to GGUF to folder: weights bit by bit, and the shape.
#[test]
fn f32_files_keep_every_bit() -> Result<(), ModelError> {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 128,
    };
    for config in [
        llama4(),
        Config {
            head: Head::Language { tied: false },
            rope_scaling: llama3.clone(),
            ..with_llama4(|shape| shape.moe_layers.fill(true))
        },
        with_llama4(|shape| shape.moe_layers.fill(false)),
        with_llama4(|shape| (shape.num_local_experts, shape.use_qk_norm) = (128, false)),
        deepseek(),
        Config {
            head: Head::Language { tied: false },
            rope_scaling: yarn(None, 1.0, 1.0),
            ..with_deepseek(|shape| {
                shape.q_lora_rank = None;
                (shape.n_group, shape.topk_group, shape.norm_topk_prob) = (1, 1, false);
                shape.routed_scaling_factor = 1.5;
            })
        },
        with_deepseek(|shape| shape.first_k_dense_replace = 2),
        qwen3_moe(),
        Config { head: Head::Language { tied: false }, ..mixtral() },
        Config { rope_scaling: llama3, ..mixtral() },
        gpt_oss(),
        Config {
            rope_scaling: RopeScaling::Yarn {
                factor: 4.0,
                original_max_position_embeddings: 256,
                beta_fast: 32.0,
                beta_slow: 1.0,
                truncate: false,
                attention_factor: None,
                mscale: 0.0,
                mscale_all_dim: 0.0,
            },
            ..gpt_oss()
        },
    ] {
        let dir = temp_dir();
        let file = exported(dir.path(), config, GgmlType::F32)?;
        let before = Checkpoint::load(&dir.path().join("saved"), &device())?;
        let after = Checkpoint::load(&file, &device())?;
        let mut config = after.model.config().clone();
        // Token ids come from the tokenizer, not from the shape.
        config.bos_token_id = before.model.config().bos_token_id;
        assert_eq!(&config, before.model.config());
        assert_eq!(weights(&after.params), weights(&before.params));

        let again = dir.path().join("again");
        let files = ModelFiles::open(&file)?;
        assert_eq!(files.parameters(), ModelFiles::open(&dir.path().join("saved"))?.parameters());
        files.export_folder(&again, FloatType::F32, SHARD)?;
        let names = |folder: &Path| -> Result<Vec<(String, Vec<usize>)>, ModelError> {
            let tensors = Tensors::open_folder(folder)?;
            let shaped =
                |name: &str| (name.to_owned(), tensors.shape(name).expect("listed").to_vec());
            let mut names: Vec<_> = tensors.names().map(shaped).collect();
            names.sort();
            Ok(names)
        };
        assert_eq!(names(&again)?, names(&dir.path().join("saved"))?);
        let again = Checkpoint::load(&again, &device())?;
        assert_eq!(weights(&again.params), weights(&before.params));
        assert_eq!(again.model.config(), after.model.config());
    }
    Ok(())
}

/// Tensor names and shapes as in llama.cpp.
#[test]
fn tensors_have_the_names_and_shapes_of_llama_cpp() -> Result<(), ModelError> {
    let dir = temp_dir();
    let file = exported(dir.path(), deepseek(), GgmlType::Q8_0)?;
    let gguf = Gguf::open(&file)?;
    let folder = Tensors::open_folder(&dir.path().join("saved"))?;
    for (name, shape, dtype) in [
        ("blk.0.ffn_gate.weight", &[48, 32][..], GgmlType::Q8_0),
        ("blk.0.attn_q_a.weight", &[12, 32], GgmlType::Q8_0),
        ("blk.0.attn_q_b.weight", &[3 * 38, 12], GgmlType::F16),
        ("blk.0.attn_kv_a_mqa.weight", &[38, 32], GgmlType::Q8_0),
        ("blk.0.attn_k_b.weight", &[3, 32, 32], GgmlType::Q8_0),
        ("blk.0.attn_v_b.weight", &[3, 5, 32], GgmlType::Q8_0),
        ("blk.1.ffn_gate_inp.weight", &[6, 32], GgmlType::F32),
        ("blk.1.exp_probs_b.bias", &[6], GgmlType::F32),
        ("blk.1.ffn_up_exps.weight", &[6, 32, 32], GgmlType::Q8_0),
        ("blk.1.ffn_down_exps.weight", &[6, 32, 32], GgmlType::Q8_0),
        ("blk.1.ffn_down_shexp.weight", &[32, 64], GgmlType::Q8_0),
    ] {
        assert_eq!((gguf.shape(name), gguf.dtype(name)), (Some(shape), Some(dtype)), "{name}");
    }
    // Third head, latent element 9, key element 3.
    let file = exported(&dir.path().join("floats"), deepseek(), GgmlType::F32)?;
    let gguf = Gguf::open(&file)?;
    let all = folder.read("model.layers.1.self_attn.kv_b_proj.weight", &[3 * 37, 32])?;
    assert_eq!(
        gguf.read("blk.1.attn_k_b.weight")?[(2 * 32 + 8) * 32 + 2].to_bits(),
        all[(2 * 37 + 2) * 32 + 8].to_bits()
    );
    assert_eq!(
        gguf.read("blk.1.attn_v_b.weight")?[(2 * 5 + 4) * 32 + 8].to_bits(),
        all[(2 * 37 + 32 + 4) * 32 + 8].to_bits()
    );
    // The fifth expert.
    let expert = folder.read("model.layers.1.mlp.experts.4.up_proj.weight", &[32, 32])?;
    assert_eq!(gguf.read_rows("blk.1.ffn_up_exps.weight", 4 * 32..5 * 32)?, expert);
    Ok(())
}

/// Logits of two documents, and generated tokens.
fn answers(checkpoint: &Checkpoint) -> Result<(Vec<f32>, Vec<Vec<u32>>), ModelError> {
    let Checkpoint { model, params, .. } = checkpoint;
    let ids: Vec<u32> = (1..=14).collect();
    let mut workspace = Workspace::new(params.device());
    let mut tape = Tape::inference(params, &mut workspace);
    let hidden = model.hidden(&mut tape, &ids, &[0, 5, 14], PastKeyValues::None)?;
    let logits = model.logits(&mut tape, hidden, &(0..14).collect::<Vec<u32>>())?;
    let logits = tape.read(logits).into_owned();
    drop(tape);
    let generated =
        generate(model, params, &[ids[..5].to_vec()], &SamplingOptions::greedy(8, Vec::new()))?;
    Ok((logits, generated.into_iter().map(|generated| generated.ids).collect()))
}

/// Experts in the file's format give the logits of f32 experts. `kv_b_proj` stays in float formats
/// and is converted to f32 from quantised ones.
#[test]
fn experts_in_file_format_give_the_logits_of_f32() -> Result<(), ModelError> {
    for config in [llama4(), deepseek()] {
        for dtype in [GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0] {
            let dir = temp_dir();
            let file = exported(dir.path(), config.clone(), dtype)?;
            let in_f32 = Checkpoint::load(&file, &device())?;
            let inference = Checkpoint::load_for_inference(&file, &device())?;
            let params = &inference.params;
            let (mut experts, mut expansions) = (0, 0);
            for id in params.ids() {
                let name = &params.spec(id).name;
                let in_file_format = params.quantised(id).is_some();
                if name.contains(".experts.") {
                    assert!(in_file_format, "{name} as {dtype}");
                    experts += 1;
                }
                if name.ends_with("kv_b_proj.weight") {
                    assert_eq!(in_file_format, dtype != GgmlType::Q8_0, "{name} as {dtype}");
                    expansions += 1;
                }
                assert_eq!(params.read(id), in_f32.params.read(id), "{name} as {dtype}");
            }
            // Llama 4: two layers of three experts. DeepSeek: one of six, two latent attentions.
            let latent = config.architecture() == Architecture::DeepseekV3;
            assert_eq!((experts, expansions), (3 * 6, if latent { 2 } else { 0 }), "{dtype}");
            let ((expected, expected_ids), (logits, ids)) =
                (answers(&in_f32)?, answers(&inference)?);
            assert_eq!(logits.len(), expected.len());
            let size = expected.iter().fold(0.0f32, |size, x| size.max(x.abs()));
            for (a, b) in logits.iter().zip(&expected) {
                assert!((a - b).abs() <= 1e-5 * size, "{dtype}: {a}, not {b}");
            }
            assert_eq!(ids, expected_ids, "{dtype}");
        }
    }
    Ok(())
}

/// Loads a GGUF file of this model after changes of its metadata and tensors.
fn changed(
    config: Config,
    change: impl FnOnce(&mut Metadata, &mut Vec<GgufTensor<'_>>),
) -> Result<Checkpoint, ModelError> {
    let dir = temp_dir();
    let gguf = Gguf::open(&exported(dir.path(), config, GgmlType::F32)?)?;
    let tensor = |name: &str| GgufTensor {
        name: name.to_owned(),
        shape: gguf.shape(name).expect("listed").to_vec(),
        dtype: GgmlType::F32,
        values: {
            let values = gguf.read(name).expect("readable");
            whole(move || Ok(Cow::Owned(values.clone())))
        },
    };
    let (mut metadata, mut tensors) = (gguf.metadata().clone(), gguf.names().map(tensor).collect());
    change(&mut metadata, &mut tensors);
    let file = dir.path().join("changed.gguf");
    write_gguf(&file, &metadata, &tensors)?;
    Checkpoint::load(&file, &device())
}

/// Files from before llama.cpp split `kv_b_proj`: one tensor, keys and values per head.
#[test]
fn files_with_unsplit_kv_b_proj_are_read() -> Result<(), ModelError> {
    let dir = temp_dir();
    let folder = saved(dir.path(), deepseek())?;
    let before = Checkpoint::load(&folder, &device())?;
    let plain = Tensors::open_folder(&folder)?;
    let read = changed(deepseek(), |metadata, tensors| {
        for (key, size) in [
            ("key_length_mla", 0u32),
            ("value_length_mla", 0),
            ("key_length", 38),
            ("value_length", 5),
            ("head_count_kv", 3),
        ] {
            metadata.insert(format!("deepseek2.attention.{key}"), size);
        }
        tensors.retain(|tensor| {
            !tensor.name.contains("_b.weight") || tensor.name.contains("attn_q_b")
        });
        for layer in 0..2 {
            let name = format!("model.layers.{layer}.self_attn.kv_b_proj.weight");
            let values = plain.read(&name, &[3 * 37, 32]).expect("there");
            tensors.push(GgufTensor {
                name: format!("blk.{layer}.attn_kv_b.weight"),
                shape: vec![3 * 37, 32],
                dtype: GgmlType::F32,
                values: whole(move || Ok(Cow::Owned(values.clone()))),
            });
        }
    })?;
    assert_eq!(read.model.config().specifics, before.model.config().specifics);
    assert_eq!(weights(&read.params), weights(&before.params));
    Ok(())
}

#[test]
fn unsupported_files_are_refused_by_name() {
    let refused = |config: Config, key: &str, value: Option<Value>, named: &str| {
        let key = match config.architecture() {
            Architecture::Llama4 => format!("llama4.{key}"),
            _ => format!("deepseek2.{key}"),
        };
        let error = changed(config, |metadata, _| match value {
            Some(value) => drop(metadata.insert(key, value)),
            None => *metadata = without(metadata, &key),
        });
        let error = error.expect_err("must be refused").to_string();
        assert!(
            error.contains(named) && error.contains("changed.gguf"),
            "{error} does not name {named}"
        );
    };
    let given = |number: u32| Some(Value::U32(number));
    refused(llama4(), "attention.sliding_window", given(0), "sliding_window");
    refused(llama4(), "attention.sliding_window_pattern", given(2), "sliding_window_pattern");
    refused(llama4(), "rope.freq_base_swa", Some(Value::F32(1e4)), "freq_base_swa");
    refused(llama4(), "attention.value_length", given(3), "value_length");
    refused(llama4(), "interleave_moe_layer_step", None, "interleave_moe_layer_step");
    refused(llama4(), "interleave_moe_layer_step", given(3), "blk.1.ffn_gate.weight");
    refused(llama4(), "expert_used_count", given(4), "num_experts_per_tok");
    refused(llama4(), "expert_count", given(2), "blk.1.ffn_gate_inp.weight");
    refused(deepseek(), "expert_gating_func", None, "softmax");
    refused(deepseek(), "expert_gating_func", given(1), "expert_gating_func is 1");
    refused(deepseek(), "attention.layer_norm_rms_epsilon", Some(Value::F32(1e-5)), "0.000001");
    refused(deepseek(), "nextn_predict_layers", given(1), "nextn_predict_layers");
    refused(deepseek(), "attention.temperature_scale", Some(Value::F32(0.1)), "temperature_scale");
    refused(deepseek(), "rope.scaling.factor", Some(Value::F32(2.0)), "only yarn");
    refused(deepseek(), "attention.head_count_kv", given(3), "head_count_kv");
    refused(deepseek(), "attention.key_length", given(9), "key_length is 9, not 38");
    refused(deepseek(), "attention.key_length_mla", given(6), "qk_nope_head_dim");
    refused(deepseek(), "expert_group_used_count", given(4), "topk_group");
    refused(deepseek(), "expert_shared_count", given(0), "n_shared_experts");
    // Sizes beyond the file's, refused before allocation.
    refused(llama4(), "block_count", given(u32::MAX), "block_count is 4294967295");
    refused(llama4(), "expert_count", given(u32::MAX), "4294967295 experts");
    refused(llama4(), "expert_count", given(50_000), "its experts need");
    refused(deepseek(), "expert_count", given(99_999), "its experts need");
    refused(deepseek(), "expert_feed_forward_length", given(1 << 20), "its experts need");
    refused(deepseek(), "block_count", given(4096), "its experts need");
    refused(deepseek(), "attention.kv_lora_rank", given(u32::MAX), "key_length");
}

fn without(metadata: &Metadata, key: &str) -> Metadata {
    let mut rest = Metadata::new();
    for (other, value) in metadata.iter().filter(|&(other, _)| other != key) {
        rest.insert(other, value.clone());
    }
    rest
}

#[test]
fn models_that_llama_cpp_computes_differently_are_not_written() -> Result<(), ModelError> {
    let linear = RopeScaling::Linear { factor: 2.0 };
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 128,
    };
    for (config, named) in [
        (
            with_llama4(|shape| shape.moe_layers = vec![true, false, false, true, false]),
            "moe_layers",
        ),
        (with_llama4(|shape| shape.rope_layers[3] = true), "no_rope_layers"),
        (with_llama4(|shape| shape.chunked_layers[1] = false), "layer_types"),
        (with_llama4(|shape| shape.attention_chunk_size = 4096), "attention_chunk_size"),
        (with_llama4(|shape| shape.attn_temperature_tuning = false), "attn_temperature_tuning"),
        (with_llama4(|shape| shape.floor_scale = 4096), "floor_scale"),
        (with_llama4(|shape| shape.attn_scale = 0.2), "attn_scale"),
        (with_llama4(|shape| shape.use_qk_norm = false), "use_qk_norm"),
        (with_llama4(|shape| shape.num_local_experts = 128), "use_qk_norm"),
        (with_llama4(|shape| shape.num_local_experts = 1025), "1025 experts"),
        (Config { attention_bias: true, ..llama4() }, "biases"),
        (Config { attention_bias: true, ..deepseek() }, "biases"),
        (Config { rms_norm_eps: 1e-5, ..deepseek() }, "rms_norm_eps"),
        (with_deepseek(|shape| shape.rope_interleave = false), "rope_interleave"),
        (with_deepseek(|shape| shape.routed_scaling_factor = 0.0), "routed_scaling_factor"),
        (Config { num_hidden_layers: 27, ..deepseek() }, "q_lora_rank"),
        (Config { rope_scaling: linear, ..deepseek() }, "linear"),
        (Config { rope_scaling: llama3, ..deepseek() }, "llama3"),
        (Config { rope_scaling: yarn(Some(0.0), 0.0, 0.0), ..deepseek() }, "scale rotated queries"),
    ] {
        let dir = temp_dir();
        let error =
            exported(dir.path(), config, GgmlType::F32).expect_err("must be refused").to_string();
        assert!(error.contains(named) && error.contains("GGUF"), "{error} does not name {named}");
    }
    // Differences that no position of the context can show are allowed: unused chunks, temperatures
    // of 1, and a selection among all groups.
    let short = |config: Config| Config { max_position_embeddings: 512, ..config };
    let other = with_llama4(|shape| {
        (shape.attention_chunk_size, shape.floor_scale) = (512, 1000);
        shape.chunked_layers = vec![false; 5];
    });
    let ungrouped = with_deepseek(|shape| (shape.n_group, shape.topk_group) = (3, 3));
    for config in
        [short(other), short(with_llama4(|shape| shape.attn_temperature_tuning = false)), ungrouped]
    {
        let dir = temp_dir();
        let file = exported(dir.path(), config, GgmlType::F32)?;
        let before = Checkpoint::load(&dir.path().join("saved"), &device())?;
        assert_eq!(answers(&before)?, answers(&Checkpoint::load(&file, &device())?)?);
    }
    Ok(())
}

/// What llama.cpp computes differently in mixtures with a softmax router.
#[test]
fn mixtures_that_llama_cpp_has_not_are_refused_by_name() {
    let qwen = |change: &dyn Fn(&mut Qwen3Moe)| {
        let mut config = qwen3_moe();
        let Specifics::Qwen3Moe(shape) = &mut config.specifics else { unreachable!() };
        change(shape);
        config
    };
    let limit = GptOss { num_local_experts: 3, num_experts_per_tok: 2, swiglu_limit: 6.0 };
    for (config, named) in [
        (qwen(&|shape| shape.mlp_only_layers = vec![1]), "mlp_only_layers"),
        (qwen(&|shape| shape.norm_topk_prob = false), "norm_topk_prob"),
        (Config { windows: vec![Some(4); 2], ..qwen3_moe() }, "windows of 4"),
        (Config { windows: vec![Some(4); 2], ..mixtral() }, "windows of 4"),
        (Config { specifics: Specifics::GptOss(limit), ..gpt_oss() }, "swiglu_limit"),
        (Config { windows: vec![None, Some(6)], ..gpt_oss() }, "layer_types"),
        (Config { head: Head::Language { tied: true }, ..gpt_oss() }, "embedding table"),
        (Config { rope_scaling: yarn(None, 0.0, 0.0), ..gpt_oss() }, "truncate"),
    ] {
        let error = exported(temp_dir().path(), config, GgmlType::F32).expect_err(named);
        assert!(error.to_string().contains(named), "{error}");
    }
}

/// Experts of gpt-oss in MXFP4: frozen in inference, widened for training, as they are in GGUF.
#[test]
fn mxfp4_experts_stay_as_they_are() -> Result<(), ModelError> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gpt-oss-mxfp4");
    let (_, plain) = load_model(&folder, &device())?;
    let (model, frozen) = load_model_for_inference(&folder, &device())?;
    let mut experts = 0;
    for id in frozen.ids() {
        let name = &frozen.spec(id).name;
        let expert = name.contains(".experts.") && name.ends_with(".weight");
        assert_eq!(frozen.quantised(id) == Some(WeightFormat::Mxfp4), expert, "{name}");
        assert_eq!(frozen.read(id), plain.read(id), "{name}");
        experts += usize::from(expert);
    }
    assert_eq!(experts, 6);

    // Blocks and scales of two fused tensors are bytes in the file. 17 bytes are 32 weights.
    let files = ModelFiles::open(&folder)?;
    let experts = frozen.ids().filter(|&id| frozen.quantised(id) == Some(WeightFormat::Mxfp4));
    let weights_in_experts: usize =
        experts.map(|id| frozen.spec(id).shape.iter().product::<usize>()).sum();
    let stored = files.weight_summary();
    let mxfp4 = stored.iter().find(|summary| summary.dtype == "MXFP4").expect("it is named");
    assert_eq!((mxfp4.tensors, mxfp4.bytes), (4, weights_in_experts as u64 / 32 * 17));
    assert!(stored.iter().all(|summary| summary.dtype != "U8"), "{stored:?}");
    assert_eq!(files.parameters().0, plain.count() as u64);

    // What is written as a folder has floats; the shape loses nothing but the quantisation.
    let dir = temp_dir();
    let again = dir.path().join("again");
    files.export_folder(&again, FloatType::BF16, SHARD)?;
    let (_, written) = load_model(&again, &device())?;
    assert_eq!(weights(&written), weights(&plain));

    // A copy with this test's tokenizer, whose vocabulary is larger.
    let config = Config { vocab_size: VOCAB, windows: vec![Some(6)], ..model.config().clone() };
    let config = match config.specifics.clone() {
        Specifics::GptOss(shape) => {
            Config { specifics: Specifics::GptOss(GptOss { swiglu_limit: 7.0, ..shape }), ..config }
        }
        _ => unreachable!(),
    };
    let saved = saved(dir.path(), config)?;
    let names: Vec<String> = frozen.ids().map(|id| frozen.spec(id).name.clone()).collect();
    let gguf = mxfp4_gguf(dir.path(), &saved, &folder)?;
    let opened = Gguf::open(&gguf)?;
    for part in ["gate", "up", "down"] {
        let name = format!("blk.0.ffn_{part}_exps.weight");
        assert_eq!(opened.dtype(&name), Some(GgmlType::MXFP4), "{name}");
    }
    let loaded = Checkpoint::load_for_inference(&gguf, &device())?;
    for name in names.iter().filter(|name| name.contains(".experts.")) {
        let [a, b] = [&loaded.params, &frozen].map(|params| {
            let id = params.id(name).expect("the same names");
            (params.quantised(id), params.read(id))
        });
        assert_eq!(a, b, "{name}");
    }
    Ok(())
}

/// A GGUF file of a saved gpt-oss whose experts are replaced by those of another folder.
fn mxfp4_gguf(dir: &Path, saved: &Path, experts: &Path) -> Result<PathBuf, ModelError> {
    let (own, other) = (Tensors::open_folder(saved)?, Tensors::open_folder(experts)?);
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (tensors, of_experts) in [(&own, false), (&other, true)] {
        for name in tensors.names().filter(|name| name.contains(".experts.") == of_experts) {
            let shape = tensors.shape(name).expect("listed");
            let part = tensors.mapped(name, shape)?.expect("contiguous");
            let offsets = [data.len(), data.len() + part.bytes.len()];
            let dtype = format!("{:?}", part.dtype);
            let info = json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets });
            header.insert(name.to_owned(), info);
            data.extend_from_slice(&part.bytes);
        }
    }
    let header = serde_json::Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    fs::write(saved.join("model.safetensors"), bytes).expect("writable");
    let file = dir.join("mxfp4.gguf");
    ModelFiles::open(saved)?.export_gguf(&file, GgmlType::F16)?;
    Ok(file)
}
