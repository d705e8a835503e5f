//! Adapters over frozen models: what they compute, and their folders.

use std::path::Path;

use crisol_engine::{Device, Params};
use crisol_hub::{
    FloatType, GgmlType, Gguf, GgufTensor, Metadata, Tensor, Tensors, whole, write_gguf,
    write_tensors,
};
use crisol_model::{
    ALL_LINEAR, AdapterConfig, AdapterFiles, Architecture, Checkpoint, GgufAdapter, Head, Model,
    ModelError, ModelFiles, SamplingOptions, generate, scalars, score,
};
use serde_json::{Value, json};

mod common;

use common::{config, text};

const DOCUMENTS: [&[u32]; 3] = [&[5, 17, 3, 99, 42, 8, 120], &[7], &[250, 1, 2, 2, 31]];

/// A model with random weights, large enough that its logits differ.
fn base(architecture: Architecture) -> Checkpoint {
    // llama.cpp has no gpt-oss with a tied head.
    let tied = architecture != Architecture::GptOss;
    let mut config = config(architecture, Head::Language { tied });
    // llama.cpp has one epsilon for all norms of DeepSeek-V3.
    config.rms_norm_eps = 1e-6;
    let (model, mut params) = Model::init(config, &Device::cpu(Some(2)), 5).expect("a valid shape");
    scale(&mut params, 6.0);
    Checkpoint { model, params, text: text() }
}

/// Multiplies every own matrix, and fills those of zeros.
fn scale(params: &mut Params, factor: f32) {
    for id in params.ids() {
        if params.spec(id).shape.len() == 2 {
            let values = params.read(id);
            let larger = values.iter().enumerate().map(|(i, &value)| {
                if value == 0.0 { ((i * 7 + 3) % 11) as f32 * 0.05 - 0.25 } else { factor * value }
            });
            params.write(id, &larger.collect::<Vec<_>>());
        }
    }
}

fn small() -> AdapterConfig {
    AdapterConfig { rank: 3, alpha: 5.0, ..AdapterConfig::default() }
}

fn adapted(architecture: Architecture, config: AdapterConfig) -> Result<Checkpoint, ModelError> {
    base(architecture).adapt(Path::new("base"), config, 9)
}

fn logprobs(Checkpoint { model, params, .. }: &Checkpoint) -> Vec<f32> {
    let documents = DOCUMENTS.map(<[u32]>::to_vec);
    score(model, params, &documents, 1.0).expect("short documents").concat()
}

#[track_caller]
fn assert_close(what: &str, values: &[f32], expected: &[f32]) {
    assert_eq!(values.len(), expected.len(), "{what}");
    for (value, expected) in values.iter().zip(expected) {
        assert!((value - expected).abs() < 2e-4, "{what}: {value} and {expected}");
    }
}

#[test]
fn a_new_adapter_changes_nothing_and_a_merged_one_is_the_same_model() {
    for (architecture, dora) in Architecture::ALL
        .into_iter()
        .flat_map(|architecture| [(architecture, false), (architecture, true)])
    {
        let plain = logprobs(&base(architecture));
        let mut new = adapted(architecture, AdapterConfig { dora, ..small() }).unwrap();
        assert_close("a new adapter", &logprobs(&new), &plain);
        scale(&mut new.params, 1.0);
        let trained = logprobs(&new);
        let moved = trained.iter().zip(&plain).any(|(a, b)| (a - b).abs() > 0.05);
        assert!(moved, "{architecture:?}: {trained:?}");
        // Decoding with a cache goes other ways than scoring: compare both with the merged model.
        let options = SamplingOptions::greedy(6, vec![]);
        let prompts = DOCUMENTS.map(<[u32]>::to_vec);
        let decode = |checkpoint: &Checkpoint| {
            let Checkpoint { model, params, .. } = checkpoint;
            let generated = generate(model, params, &prompts, &options).unwrap();
            generated.into_iter().flat_map(|generated| generated.logprobs).collect::<Vec<f32>>()
        };
        let decoded = decode(&new);
        let merged = new.merged();
        assert!(merged.params.base().is_none() && merged.model.config().adapter.is_none());
        let what = format!("{architecture:?}, DoRA: {dora}");
        assert_close(&format!("{what}: merged"), &logprobs(&merged), &trained);
        assert_close(&format!("{what}: decoded"), &decode(&merged), &decoded);
    }
}

/// In llama.cpp's files too, the merged weights are the base's and the update.
#[test]
fn a_gguf_adapter_over_the_base_is_the_merged_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let device = Device::cpu(Some(1));
    // The small Llama 4 has its experts in layers where llama.cpp has none.
    for architecture in Architecture::ALL.into_iter().filter(|&one| one != Architecture::Llama4) {
        let [model, adapter, merged] =
            ["model", "adapter", "merged"].map(|name| path(&format!("{architecture:?}-{name}")));
        base(architecture).save(&model).unwrap();
        let (targets, of_rank, of_alpha): (&[&str], _, _) = match architecture {
            Architecture::DeepseekV3 => {
                (&["o_proj", "down_proj", "up_proj"], "o_proj", "down_proj")
            }
            Architecture::Phi3 => (&["qkv_proj", "o_proj", "down_proj"], "o_proj", "down_proj"),
            Architecture::Gpt2 => (&["c_attn", "c_proj", "c_fc"], "attn.c_proj", "mlp.c_proj"),
            Architecture::Mixtral => (&["q_proj", "k_proj", "o_proj", "w2", "w3"], "o_proj", "w2"),
            _ => (&["q_proj", "k_proj", "o_proj", "down_proj", "up_proj"], "o_proj", "down_proj"),
        };
        let config = AdapterConfig {
            targets: targets.iter().map(|&name| name.into()).collect(),
            rslora: true,
            rank_pattern: [(of_rank.to_owned(), 2)].into(),
            alpha_pattern: [(of_alpha.to_owned(), 3.0)].into(),
            ..small()
        };
        let start = Checkpoint::load_for_inference(&model, &device).unwrap();
        let mut trained = start.adapt(&model, config, 9).unwrap();
        scale(&mut trained.params, 1.0);
        trained.save(&adapter).unwrap();
        trained.merged().save(&merged).unwrap();
        let gguf = |folder: &Path| {
            let file = folder.with_extension("gguf");
            match AdapterFiles::open(folder).unwrap() {
                Some(adapter) => adapter.export_gguf(&file, GgmlType::F32).unwrap(),
                None => {
                    ModelFiles::open(folder).unwrap().export_gguf(&file, GgmlType::F32).unwrap();
                }
            }
            Gguf::open(&file).unwrap()
        };
        let [model, adapter, merged] = [gguf(&model), gguf(&adapter), gguf(&merged)];
        let text = |gguf: &Gguf, key: &str| gguf.metadata().string(key).unwrap().to_owned();
        assert_eq!(text(&adapter, "general.type"), "adapter");
        assert_eq!(text(&adapter, "adapter.type"), "lora");
        let key = "general.architecture";
        assert_eq!(text(&adapter, key), text(&model, key));
        let alpha = 5.0 * 3f64.sqrt();
        let stored = adapter.metadata().f32("adapter.lora.alpha").unwrap();
        assert!((f64::from(stored) - alpha).abs() < 1e-6, "{stored}");
        let mut updated = 0;
        for name in merged.names() {
            let mut values = model.read(name).unwrap();
            if let Some(shape) = adapter.shape(&format!("{name}.lora_b")) {
                let (rank, a) =
                    (shape[shape.len() - 1], adapter.read(&format!("{name}.lora_a")).unwrap());
                let b = adapter.read(&format!("{name}.lora_b")).unwrap();
                let [rows, cols] = merged.shape(name).unwrap()[shape.len() - 2..] else { panic!() };
                let experts = values.len() / (rows * cols);
                for (at, value) in values.iter_mut().enumerate() {
                    let (expert, row, col) = (at / (rows * cols), at / cols % rows, at % cols);
                    let update = (0..rank).map(|k| {
                        b[(expert * rows + row) * rank + k] * a[(expert * rank + k) * cols + col]
                    });
                    *value += alpha as f32 / rank as f32 * update.sum::<f32>();
                }
                updated += experts;
            }
            assert_close(
                &format!("{architecture:?}: {name}"),
                &values,
                &merged.read(name).unwrap(),
            );
        }
        assert_eq!(updated, trained_modules(&path(&format!("{architecture:?}-adapter"))));
    }
}

/// Every tensor comes back with its bits, also reordered queries and keys and stacked experts.
#[test]
fn a_written_gguf_adapter_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for architecture in Architecture::ALL {
        let [adapter, file] =
            ["adapter", "gguf"].map(|name| path(&format!("{architecture:?}{name}")));
        let targets: &[&str] = match architecture {
            Architecture::DeepseekV3 => &["o_proj", "down_proj", "up_proj", "gate_proj"],
            Architecture::Phi3 => &["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
            Architecture::Gpt2 => &["c_attn", "c_proj", "c_fc"],
            Architecture::Mixtral => &["q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3"],
            _ => &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        };
        let output = match architecture {
            Architecture::Gpt2 => "h.1.attn.c_proj",
            _ => "layers.1.self_attn.o_proj",
        };
        let config = AdapterConfig {
            targets: targets.iter().map(|&name| name.into()).collect(),
            rank_pattern: [(output.to_owned(), 2)].into(),
            ..small()
        };
        let mut trained = adapted(architecture, config).unwrap();
        scale(&mut trained.params, 1.0);
        trained.save(&adapter).unwrap();
        let files = AdapterFiles::open(&adapter).unwrap().unwrap();
        files.export_gguf(&file, GgmlType::F32).unwrap();

        let opened = GgufAdapter::open(&file).unwrap().unwrap();
        assert_eq!(opened.parameters(), files.parameters());
        assert_eq!((opened.config().rank, opened.config().alpha), (3, 5.0));
        assert_eq!(opened.config().rank_pattern, [("blk.1.attn_output".to_owned(), 2)].into());
        let read = base(architecture).with_adapter(Path::new("base"), &file).unwrap();
        assert_eq!(read.params.ids().count(), trained.params.ids().count());
        for id in trained.params.ids() {
            let name = &trained.params.spec(id).name;
            let own = read.params.id(name).unwrap_or_else(|| panic!("{architecture:?}: {name}"));
            assert!(read.params.read(own) == trained.params.read(id), "{architecture:?}: {name}");
        }
        assert_eq!(logprobs(&read), logprobs(&trained), "{architecture:?}");
        let merged = logprobs(&trained.merged());
        assert_close(&format!("{architecture:?}"), &logprobs(&read.merged()), &merged);
    }
}

/// Writes a GGUF file of an adapter: its keys, and names and shapes of its tensors.
fn write_adapter(file: &Path, keys: &[(&str, &str)], alpha: f32, tensors: &[(&str, &[usize])]) {
    let mut metadata = Metadata::new();
    for (key, value) in [("general.type", "adapter"), ("adapter.type", "lora")].iter().chain(keys) {
        metadata.insert(*key, *value);
    }
    metadata.insert("adapter.lora.alpha", alpha);
    let tensor = |&(name, shape): &(&str, &[usize])| {
        let count = shape.iter().product();
        let values = move || Ok((0..count).map(|i| (i % 7) as f32 * 0.1 - 0.2).collect());
        let (name, shape) = (name.to_owned(), shape.to_vec());
        GgufTensor { name, shape, dtype: GgmlType::F32, values: whole(values) }
    };
    write_gguf(file, &metadata, &tensors.iter().map(tensor).collect::<Vec<_>>()).unwrap();
}

const LLAMA: [(&str, &str); 1] = [("general.architecture", "llama")];
/// An adapter of rank 2 of the small model's first `o_proj`.
const PAIR: [(&str, &[usize]); 2] =
    [("blk.0.attn_output.weight.lora_a", &[2, 16]), ("blk.0.attn_output.weight.lora_b", &[16, 2])];

#[test]
fn a_gguf_adapter_has_the_scale_of_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let read = |alpha: f32| {
        let file = folder.path().join(format!("{alpha}.gguf"));
        write_adapter(&file, &LLAMA, alpha, &PAIR);
        logprobs(&base(Architecture::Llama).with_adapter(Path::new("base"), &file).unwrap())
    };
    // Without alpha, the scale is 1, as with the alpha of the rank.
    assert_eq!(read(0.0), read(2.0));
    assert_ne!(read(2.0), read(4.0));
}

#[test]
fn unusable_gguf_adapters_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.gguf");
    let error = |architecture, keys: &[(&str, &str)], alpha, tensors: &[(&str, &[usize])]| {
        write_adapter(&file, keys, alpha, tensors);
        let read = base(architecture).with_adapter(Path::new("base"), &file);
        read.expect_err("it is unusable").to_string()
    };
    let llama = |tensors: &[(&str, &[usize])]| error(Architecture::Llama, &LLAMA, 4.0, tensors);
    let other = error(Architecture::Qwen3, &LLAMA, 4.0, &PAIR);
    assert!(other.contains("for llama, and the base is qwen3"), "{other}");
    let infinite = error(Architecture::Llama, &LLAMA, f32::INFINITY, &PAIR);
    assert!(infinite.contains("alpha is inf"), "{infinite}");
    let lokr = [LLAMA[0], ("adapter.type", "lokr")];
    let lokr = error(Architecture::Llama, &lokr, 4.0, &PAIR);
    assert!(lokr.contains("\"lokr\""), "{lokr}");
    let activated = [LLAMA[0], ("adapter.alora.invocation_tokens", "…")];
    let activated = error(Architecture::Llama, &activated, 4.0, &PAIR);
    assert!(activated.contains("aLoRA"), "{activated}");

    assert!(llama(&[]).contains("no weights"));
    assert!(llama(&PAIR[..1]).contains("lora_a without the other"));
    assert!(llama(&PAIR[1..]).contains("lora_b without the other"));
    let norm = llama(&[PAIR[0], PAIR[1], ("blk.0.attn_norm.weight", &[16])]);
    assert!(norm.contains("attn_norm.weight is neither"), "{norm}");
    let ranks = llama(&[PAIR[0], (PAIR[1].0, &[16, 3])]);
    assert!(ranks.contains("no common rank"), "{ranks}");
    let vector = llama(&[(PAIR[0].0, &[16]), (PAIR[1].0, &[16])]);
    assert!(vector.contains("is no matrix"), "{vector}");
    let shape = llama(&[PAIR[0], (PAIR[1].0, &[20, 2])]);
    assert!(shape.contains("lora_b is [20, 2], and the base needs [16, 2]"), "{shape}");
    let deep =
        [("blk.9.attn_q.weight.lora_a", &[2, 16][..]), ("blk.9.attn_q.weight.lora_b", &[16, 2])];
    assert!(llama(&deep).contains("blk.9.attn_q.weight, which is no linear layer"));
    let table =
        [("token_embd.weight.lora_a", &[2, 16][..]), ("token_embd.weight.lora_b", &[300, 2])];
    assert!(llama(&table).contains("an embedding table or a head"));

    // A model in the place of an adapter, and an adapter in that of a model.
    let model = folder.path().join("model.gguf");
    base(Architecture::Llama).save(&folder.path().join("model")).unwrap();
    let files = ModelFiles::open(&folder.path().join("model")).unwrap();
    files.export_gguf(&model, GgmlType::F32).unwrap();
    assert!(GgufAdapter::open(&model).unwrap().is_none());
    let swapped = base(Architecture::Llama).with_adapter(Path::new("base"), &model).unwrap_err();
    assert!(swapped.to_string().contains("holds a whole model"), "{swapped}");
    write_adapter(&file, &LLAMA, 4.0, &PAIR);
    let swapped = Checkpoint::load(&file, &Device::cpu(Some(1))).unwrap_err().to_string();
    assert!(swapped.contains("--adapter FILE"), "{swapped}");
}

fn trained_modules(adapter: &Path) -> usize {
    AdapterFiles::open(adapter).unwrap().unwrap().modules().len()
}

#[test]
fn what_llama_cpp_cannot_represent_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let [model, adapter] = ["model", "adapter"].map(|name| folder.path().join(name));
    let device = Device::cpu(Some(1));
    base(Architecture::DeepseekV3).save(&model).unwrap();
    let refused = |config: AdapterConfig| {
        let start = Checkpoint::load_for_inference(&model, &device).unwrap();
        start.adapt(&model, config, 9).unwrap().save(&adapter).unwrap();
        let files = AdapterFiles::open(&adapter).unwrap().unwrap();
        let error = files.export_gguf(&folder.path().join("a.gguf"), GgmlType::F32).unwrap_err();
        error.to_string()
    };
    let targets = |target: &str| AdapterConfig { targets: vec![target.into()], ..small() };
    assert!(refused(targets("kv_b_proj")).contains("kv_b_proj of DeepseekV3 without"));
    assert!(refused(targets("q_a_proj")).contains("q_a_proj of DeepseekV3 without"));
    assert!(refused(AdapterConfig { dora: true, ..targets("o_proj") }).contains("DoRA"));
    let one = refused(targets("experts.0.up_proj"));
    assert!(one.contains("only some experts"), "{one}");
    let other = refused(targets("experts.1.up_proj"));
    assert!(other.contains("without expert 0"), "{other}");
    assert!(!folder.path().join("a.gguf").exists());
}

#[test]
fn an_adapter_folder_is_loaded_with_its_base_or_over_a_given_one() {
    let folder = tempfile::tempdir().unwrap();
    let [model, adapter] = ["model", "adapter"].map(|name| folder.path().join(name));
    let device = Device::cpu(Some(1));
    base(Architecture::Llama).save(&model).unwrap();
    let config = AdapterConfig {
        targets: vec!["q_proj".into(), "mlp.down_proj".into()],
        rank_pattern: [("layers.1.mlp.down_proj".to_owned(), 2)].into(),
        rslora: true,
        ..small()
    };
    let start = Checkpoint::load_for_inference(&model, &device).unwrap();
    let mut trained = start.adapt(&model, config, 9).unwrap();
    scale(&mut trained.params, 2.0);
    assert_eq!(trained.params.ids().count(), 2 * 4);
    trained.save(&adapter).unwrap();

    let expected = logprobs(&trained);
    let loaded = Checkpoint::load(&adapter, &device).unwrap();
    assert_eq!(logprobs(&loaded), expected);
    assert_eq!(loaded.model.config().adapter, trained.model.config().adapter);
    // In another place, the base is given.
    let moved = folder.path().join("moved");
    std::fs::rename(&model, &moved).unwrap();
    let error = Checkpoint::load(&adapter, &device).unwrap_err().to_string();
    assert!(error.contains("is not here") && error.contains("crisol merge"), "{error}");
    let given = Checkpoint::load_for_inference(&moved, &device).unwrap();
    let loaded = given.with_adapter(&moved, &adapter).unwrap();
    assert_eq!(logprobs(&loaded), expected);
    // Beside another model over the same base, the base is in memory once.
    std::fs::rename(&moved, &model).unwrap();
    let beside = Checkpoint::load_beside(&trained, &adapter, &device).unwrap();
    let shared =
        |checkpoint: &Checkpoint| std::sync::Arc::as_ptr(checkpoint.params.base().unwrap());
    assert_eq!(shared(&beside), shared(&trained));
    assert_eq!(logprobs(&beside), expected);
}

#[test]
fn a_scalar_model_over_a_base_has_its_own_head_and_adapters() {
    let folder = tempfile::tempdir().unwrap();
    let [model, adapter] = ["model", "adapter"].map(|name| folder.path().join(name));
    let device = Device::cpu(Some(1));
    base(Architecture::Qwen3).save(&model).unwrap();
    let start = Checkpoint::load_for_inference(&model, &device).unwrap();
    let mut policy = start.adapt(&model, small(), 9).unwrap();
    scale(&mut policy.params, 1.0);
    let (value, params) = policy.model.scalar_from(&policy.params, 3);
    assert!(std::sync::Arc::ptr_eq(params.base().unwrap(), policy.params.base().unwrap()));
    let documents = DOCUMENTS.map(<[u32]>::to_vec);
    let expected = scalars(&value, &params, &documents).unwrap();
    let merged = Checkpoint { model: value, params, text: text() };
    merged.save(&adapter).unwrap();
    let loaded = Checkpoint::load(&adapter, &device).unwrap();
    assert_eq!(loaded.model.config().head, Head::Scalar);
    assert_eq!(scalars(&loaded.model, &loaded.params, &documents).unwrap(), expected);
    // The same trunk as the merged policy's.
    let (twin, twin_params) = {
        let merged = policy.merged();
        merged.model.scalar_from(&merged.params, 3)
    };
    let mut twin_params = twin_params;
    let head = |params: &Params| params.read(params.id("score.weight").unwrap());
    let id = twin_params.id("score.weight").unwrap();
    twin_params.write(id, &head(&loaded.params));
    let twin = scalars(&twin, &twin_params, &documents).unwrap();
    assert_close("values", &expected.concat(), &twin.concat());
}

#[test]
fn impossible_settings_are_explained() {
    let error =
        |config: AdapterConfig| adapted(Architecture::Llama, config).unwrap_err().to_string();
    let targets = |target: &str| AdapterConfig { targets: vec![target.into()], ..small() };
    let unknown = error(targets("query"));
    assert!(unknown.contains("no module is named \"query\"") && unknown.contains("q_proj"));
    assert!(error(AdapterConfig { targets: vec![], ..small() }).contains("no targets"));
    assert!(error(AdapterConfig { rank: 0, ..small() }).contains("rank 0"));
    assert!(error(AdapterConfig { rank: 17, ..small() }).contains("between 1 and"));
    assert!(error(targets("embed_tokens")).contains("embedding table"));
    let rank_pattern = [("v_proj".to_owned(), 2)].into();
    let without_effect = AdapterConfig { rank_pattern, ..targets("q_proj") };
    assert!(error(without_effect).contains("no module with an adapter is named \"v_proj\""));
    assert!(adapted(Architecture::Llama, targets(ALL_LINEAR)).is_ok());
}

#[test]
fn folders_that_do_not_fit_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let [model, other, adapter] =
        ["model", "other", "adapter"].map(|name| folder.path().join(name));
    let device = Device::cpu(Some(1));
    base(Architecture::Llama).save(&model).unwrap();
    let mut changed = base(Architecture::Llama);
    scale(&mut changed.params, 2.0);
    changed.save(&other).unwrap();
    let start = Checkpoint::load_for_inference(&model, &device).unwrap();
    start.adapt(&model, small(), 9).unwrap().save(&adapter).unwrap();
    let over = |base: &Path| {
        let start = Checkpoint::load_for_inference(base, &device).unwrap();
        start.with_adapter(base, &adapter).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(over(&model), Ok(()));
    assert!(over(&other).unwrap_err().contains("other weights"));

    let file = adapter.join("adapter_config.json");
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let all = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"];
    assert_eq!(written["target_modules"], json!(all));
    assert_eq!((&written["r"], &written["lora_alpha"]), (&json!(3), &json!(5.0)));
    let with = |key: &str, value: Value| {
        let mut config = written.clone();
        config[key] = value;
        std::fs::write(&file, config.to_string()).unwrap();
        over(&model).unwrap_err()
    };
    assert!(with("use_dora", json!(true)).contains("no norms with it"));
    assert!(with("lora_dropout", json!(1)).contains("lora_dropout is 1"));
    assert!(with("lora_alpha", json!(0)).contains("lora_alpha is 0"));
    assert!(with("peft_type", json!("IA3")).contains("peft_type is IA3"));
    assert!(with("bias", json!("all")).contains("bias"));
    assert!(with("lora_bias", json!(true)).contains("lora_bias is set"));
    assert!(with("init_lora_weights", json!("pissa_niter_4")).contains("pissa_niter_4"));
    assert!(with("target_modules", Value::Null).contains("target_modules is null"));
    assert!(with("alpha_pattern", json!({"query": 2})).contains("\"query\""));
    assert!(with("r", json!(0)).contains("r is 0"));
    assert!(with("r", json!("three")).contains("adapter_config.json"));

    // Tensors of another model, and none at all.
    std::fs::write(&file, written.to_string()).unwrap();
    let weights = adapter.join("adapter_model.safetensors");
    let write_all = |tensors: &[(&str, [usize; 2])]| {
        let tensor = |&(name, shape): &(&str, [usize; 2])| {
            let values = move || Ok(vec![0.5; shape[0] * shape[1]].into());
            let (name, shape) = (name.to_owned(), shape.to_vec());
            Tensor { name, shape, dtype: FloatType::F32, values: whole(values) }
        };
        let tensors: Vec<Tensor<'_>> = tensors.iter().map(tensor).collect();
        write_tensors(&weights, &tensors).unwrap();
        over(&model).unwrap_err()
    };
    let write = |name: &str, shape: [usize; 2]| write_all(&[(name, shape)]);
    let prefix = "base_model.model.model.layers.0.self_attn";
    assert!(write("q_proj.lora_A.weight", [3, 16]).contains("belongs to no weight"));
    assert!(write(&format!("{prefix}.w_proj.lora_A.weight"), [3, 16]).contains("no weight"));
    assert!(write(&format!("{prefix}.q_proj.lora_A.weight"), [3, 15]).contains("[3, 15]"));
    assert!(write(&format!("{prefix}.q_proj.lora_A.weight"), [3, 16]).contains("lora_B"));
    let query = |part: &str| format!("{prefix}.q_proj.{part}weight");
    let [a, b, whole] = ["lora_A.", "lora_B.", ""].map(query);
    let both = write_all(&[(&a, [3, 16]), (&b, [16, 3]), (&whole, [16, 16])]);
    assert!(both.contains("and the whole weight too"), "{both}");
    let rank_0 = write_all(&[(&a, [0, 16]), (&b, [16, 0])]);
    assert!(rank_0.contains("rank is at least 1"), "{rank_0}");
    let rank_2 = write_all(&[(&a, [2, 16]), (&b, [16, 2])]);
    assert!(rank_2.contains("has rank 2, and its config 3"), "{rank_2}");
    // A head's adapter would go without effect in training.
    let table = "base_model.model.model.embed_tokens.lora_A.weight";
    assert!(write(table, [3, 16]).contains("embedding table or a head"));
    write_tensors(&weights, &[]).unwrap();
    assert!(over(&model).unwrap_err().contains("no weights"));
    assert!(Tensors::open(&weights).is_ok());
}

#[test]
fn a_broken_base_and_an_adapter_as_the_base_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let [model, adapter] = ["model", "adapter"].map(|name| folder.path().join(name));
    let device = Device::cpu(Some(1));
    base(Architecture::Olmo2).save(&model).unwrap();
    let start = || Checkpoint::load_for_inference(&model, &device).unwrap();
    start().adapt(&model, small(), 9).unwrap().save(&adapter).unwrap();
    let twice = Checkpoint::load_for_inference(&adapter, &device).unwrap();
    let error = twice.with_adapter(&adapter, &adapter).unwrap_err().to_string();
    assert!(error.contains("the base is an adapter itself"), "{error}");
    let error = start().with_adapter(&model, &model).unwrap_err().to_string();
    assert!(error.contains("the folder holds no adapter"), "{error}");

    let mut broken = base(Architecture::Olmo2);
    let name = "model.layers.1.mlp.up_proj.weight";
    let id = broken.params.id(name).unwrap();
    let mut values = broken.params.read(id);
    // Not in the first row, of which the fingerprint is made.
    values[20] = f32::NAN;
    broken.params.write(id, &values);
    std::fs::remove_dir_all(&model).unwrap();
    broken.save(&model).unwrap();
    for error in [
        start().adapt(&model, small(), 9).unwrap_err().to_string(),
        Checkpoint::load(&adapter, &device).unwrap_err().to_string(),
    ] {
        assert!(error.contains(name) && error.contains("NaN"), "{error}");
        assert!(error.contains(&model.display().to_string()), "{error}");
    }
}
