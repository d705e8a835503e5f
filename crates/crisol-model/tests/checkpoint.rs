//! Checkpoint folders: saving and loading is bit-exact, and unusable folders are explained.

use std::fs;
use std::path::Path;

use crisol_engine::{Device, Params};
use crisol_hub::{FloatType, Tensor, Tensors, whole, write_tensors};
use crisol_model::{
    Architecture, Checkpoint, Config, Head, Model, ModelError, load_model, save_checkpoint,
    skipped_tensors,
};
use tempfile::TempDir;

mod common;

use common::{VOCAB, config, text};

fn checkpoint(architecture: Architecture, head: Head) -> Checkpoint {
    let config = config(architecture, head);
    let (model, params) = Model::init(config, &Device::cpu(Some(1)), 5).expect("a valid shape");
    Checkpoint { model, params, text: text() }
}

fn load(folder: &Path) -> Result<Checkpoint, ModelError> {
    Checkpoint::load(folder, &Device::cpu(Some(1)))
}

/// Every parameter's name and values.
fn weights(params: &Params) -> Vec<(String, Vec<f32>)> {
    params.ids().map(|id| (params.spec(id).name.clone(), params.read(id))).collect()
}

fn saved() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = checkpoint(Architecture::Llama, Head::Language { tied: true });
    checkpoint.save(folder.path()).expect("an empty folder");
    folder
}

#[test]
fn saving_and_loading_is_bit_exact() -> Result<(), ModelError> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for architecture in Architecture::ALL {
        for head in [Head::Language { tied: true }, Head::Language { tied: false }, Head::Scalar] {
            let folder = dir.path().join("model");
            let original = checkpoint(architecture, head);
            original.save(&folder)?;
            let loaded = load(&folder)?;
            assert_eq!(weights(&loaded.params), weights(&original.params));
            let expected =
                Config { eos_token_id: vec![original.text.eos], ..original.model.config().clone() };
            assert_eq!(*loaded.model.config(), expected);
            assert_eq!(loaded.text.stop_ids, original.text.stop_ids);
            let names: Vec<_> =
                weights(&original.params).into_iter().map(|(name, _)| name).collect();
            assert_eq!(
                names.contains(&"lm_head.weight".into()),
                head == Head::Language { tied: false }
            );
        }
    }
    Ok(())
}

/// transformers does not tie such a head either, whatever the config says.
#[test]
fn a_head_that_differs_from_the_embedding_is_untied() -> Result<(), ModelError> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("model");
    let original = checkpoint(Architecture::Llama, Head::Language { tied: false });
    let tie = || {
        let path = folder.join("config.json");
        let text = fs::read_to_string(&path).expect("saved");
        fs::write(
            &path,
            text.replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true"),
        )
    };
    original.save(&folder)?;
    tie().expect("the folder can be written");
    let loaded = load(&folder)?;
    assert_eq!(loaded.model.config().head, Head::Language { tied: false });
    assert_eq!(weights(&loaded.params), weights(&original.params));

    // Many files of tied models store the table twice.
    let mut same = original;
    let [table, head] =
        ["model.embed_tokens.weight", "lm_head.weight"].map(|name| same.params.id(name));
    let (table, head) = (table.expect("every model has it"), head.expect("it is not tied"));
    same.params.write(head, &same.params.read(table));
    same.save(&folder)?;
    tie().expect("the folder can be written");
    let loaded = load(&folder)?;
    assert_eq!(loaded.model.config().head, Head::Language { tied: true });
    Ok(())
}

/// Llama 4 and Gemma 3 are published as multimodal models: other names of tensors, and a nested
/// config. In transformers 5, modules have names that differ from those.
#[test]
fn the_language_model_of_a_multimodal_checkpoint_is_loaded() -> Result<(), ModelError> {
    let published = |name: &str| format!("language_model.{name}");
    let modules = |name: &str| match name.strip_prefix("model.") {
        Some(rest) => format!("model.language_model.{rest}"),
        None => name.to_owned(),
    };
    let [llama4, gemma3] = ["Llama4ForConditionalGeneration", "Gemma3ForConditionalGeneration"];
    loads_within(Architecture::Llama4, llama4, &published)?;
    loads_within(Architecture::Gemma3, gemma3, &published)?;
    loads_within(Architecture::Gemma3, gemma3, &modules)
}

fn loads_within(
    architecture: Architecture,
    class: &str,
    renamed: &dyn Fn(&str) -> String,
) -> Result<(), ModelError> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let original = checkpoint(architecture, Head::Language { tied: false });
    original.save(dir.path())?;
    let file = dir.path().join("model.safetensors");
    let plain = Tensors::open(&file)?;
    let mut tensors = Vec::new();
    for name in plain.names() {
        let shape = plain.shape(name).expect("a name of the file").to_vec();
        let values = plain.read(name, &shape)?;
        let name = renamed(name);
        let values = whole(move || Ok(values.clone().into()));
        tensors.push(Tensor { name, shape, dtype: FloatType::F32, values });
    }
    let name = "vision_model.class_embedding".into();
    let values = whole(|| Ok(vec![0.0; 3].into()));
    tensors.push(Tensor { name, shape: vec![3], dtype: FloatType::F32, values });
    let both = dir.path().join("both.safetensors");
    write_tensors(&both, &tensors)?;
    fs::rename(&both, &file).expect("both are in the folder");
    let config = fs::read_to_string(dir.path().join("config.json")).expect("just saved");
    let config = format!(
        r#"{{"architectures": ["{class}"], "text_config": {config}, "vision_config": {{}}}}"#
    );
    fs::write(dir.path().join("config.json"), config).expect("a file to write");

    let loaded = load(dir.path())?;
    assert_eq!(weights(&loaded.params), weights(&original.params));
    assert_eq!(skipped_tensors(dir.path())?, ["the image encoder is left out (tensors: 1)"]);
    Ok(())
}

#[test]
fn extra_files_are_part_of_the_atomic_write() -> Result<(), ModelError> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("model");
    let Checkpoint { model, params, text } = checkpoint(Architecture::Llama, Head::Scalar);
    let save = |state: &'static str, fails: bool| {
        save_checkpoint(&folder, &model, &params, &text, |folder| {
            fs::write(folder.join("state"), state).expect("writable");
            if fails { Err(ModelError::NotFinite) } else { Ok(()) }
        })
    };
    save("first", false)?;
    assert!(matches!(save("second", true), Err(ModelError::NotFinite)));
    assert_eq!(fs::read_to_string(folder.join("state")).expect("still there"), "first");
    save("third", false)?;
    assert_eq!(fs::read_to_string(folder.join("state")).expect("replaced"), "third");
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_weights() {
    let new = |seed| {
        let config = Config::new(Architecture::Llama, VOCAB, 16, 2, 2, 24);
        weights(&Model::init(config, &Device::cpu(Some(1)), seed).expect("a valid shape").1)
    };
    assert_eq!(new(1), new(1));
    assert_ne!(new(1), new(2));
}

#[test]
fn a_truncated_file_is_named() {
    let folder = saved();
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).expect("just saved");
    for length in [0, 5, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).expect("writable");
        let error = load(folder.path()).expect_err("truncated").to_string();
        assert!(error.contains("model.safetensors"), "{error}");
    }
    fs::remove_file(&path).expect("writable");
    let error = load(folder.path()).expect_err("no weights").to_string();
    assert!(error.contains("model.safetensors"), "{error}");
}

/// Changes one entry of config.json.
fn edit(folder: &Path, key: &str, value: impl Into<serde_json::Value>) {
    let path = folder.join("config.json");
    let text = fs::read_to_string(&path).expect("just saved");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("valid");
    json[key] = value.into();
    fs::write(&path, json.to_string()).expect("writable");
}

#[test]
fn weights_of_another_shape_are_refused_before_allocation() {
    for (key, value, named) in [
        ("intermediate_size", 32, "mlp"),
        ("num_hidden_layers", 3, "model.layers.2"),
        ("num_hidden_layers", 1, "model.layers.1"),
        ("vocab_size", 301, "embed_tokens"),
        ("vocab_size", 1 << 20, "embed_tokens"),
    ] {
        let folder = saved();
        edit(folder.path(), key, value);
        let error = load(folder.path()).expect_err(key).to_string();
        assert!(error.contains(named), "{error}");
    }
    let folder = saved();
    edit(folder.path(), "tie_word_embeddings", false);
    let error = load(folder.path()).expect_err("no head").to_string();
    assert!(error.contains("lm_head.weight"), "{error}");
}

/// Checked before parameter names are generated, which could exceed the file's size.
#[test]
fn more_experts_than_the_weight_files_hold_are_refused() {
    for (architecture, key) in [
        (Architecture::Llama4, "num_local_experts"),
        (Architecture::DeepseekV3, "n_routed_experts"),
        (Architecture::Qwen3Moe, "num_experts"),
        (Architecture::Mixtral, "num_local_experts"),
        (Architecture::GptOss, "num_local_experts"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        checkpoint(architecture, Head::Language { tied: true })
            .save(folder.path())
            .expect("writable");
        edit(folder.path(), key, 1 << 17);
        let error = load(folder.path()).expect_err(key).to_string();
        assert!(error.contains("config.json: its experts need"), "{error}");
    }
}

#[test]
fn broken_configs_and_tokenizers_are_named() {
    let folder = saved();
    edit(folder.path(), "hidden_act", "relu");
    let error = load(folder.path()).expect_err("relu").to_string();
    assert!(error.contains("config.json") && error.contains("relu"), "{error}");

    for file in ["config.json", "tokenizer.json"] {
        let folder = saved();
        fs::write(folder.path().join(file), "{").expect("writable");
        let error = load(folder.path()).expect_err(file).to_string();
        assert!(error.contains(file), "{error}");
        fs::remove_file(folder.path().join(file)).expect("writable");
        let error = load(folder.path()).expect_err(file).to_string();
        assert!(error.contains(file), "{error}");
    }
}

#[test]
fn a_tokenizer_with_a_larger_vocabulary_than_the_model_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = Config::new(Architecture::Llama, 100, 16, 1, 2, 24);
    let (model, params) = Model::init(config, &Device::cpu(Some(1)), 5).expect("a valid shape");
    let folder = dir.path().join("model");
    Checkpoint { model, params, text: text() }.save(&folder).expect("nothing in the way");
    let error = load(&folder).expect_err("100 < 278").to_string();
    assert!(error.contains("config.json") && error.contains("278 tokens"), "{error}");
    assert!(error.contains("100 rows"), "{error}");
    // Without the tokenizer the model is fine.
    assert!(load_model(&folder, &Device::cpu(Some(1))).is_ok());
}
