//! Checkpoints: folders that transformers loads as they are.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use crisol_engine::{Device, Params};
use crisol_hub::{HubError, Tensor, Tensors, write_folder_atomically, write_tensors};
use crisol_text::TextSetup;

use crate::model::specs;
use crate::{Architecture, Config, Head, Model, ModelError};

/// A model with its weights, tokenizer and chat template.
#[derive(Debug)]
pub struct Checkpoint {
    /// Shape and forward pass.
    pub model: Model,
    /// Weights.
    pub params: Params,
    /// Tokenizer and chat template.
    pub text: TextSetup,
}

impl Checkpoint {
    /// Loads a checkpoint folder of Crisol or Hugging Face, or a GGUF file.
    pub fn load(folder: &Path, device: &Device) -> Result<Checkpoint, ModelError> {
        if folder.is_file() {
            return Checkpoint::load_gguf(folder, device);
        }
        let folder = &crisol_hub::whole_folder(folder)?;
        let (model, params) = load_model(folder, device)?;
        let text = TextSetup::load(folder)?;
        let (tokenizer, vocab) = (text.tokenizer.vocab_size(), model.config().vocab_size);
        if tokenizer > vocab {
            let cause = format!("vocab_size is {vocab}, but the tokenizer beside it has {tokenizer} tokens");
            return Err(ModelError::ConfigFile { file: folder.join("config.json"), cause });
        }
        Ok(Checkpoint { model, params, text })
    }

    /// Writes the folder as a whole or not at all.
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        save_checkpoint(folder, &self.model, &self.params, &self.text, |_| Ok(()))
    }
}

/// Loads shape and weights of a checkpoint folder, without its tokenizer.
pub fn load_model(folder: &Path, device: &Device) -> Result<(Model, Params), ModelError> {
    let config = Config::load(folder)?;
    let mut tensors = Tensors::open_folder(folder)?;
    if let Some(block) = Config::fp8_block(folder)? {
        tensors = tensors.with_block_size(block);
    }
    // Before any memory is taken: a config.json with absurd sizes does not match the weights.
    let specs = specs(&config);
    let tied = config.head == Head::Language { tied: true };
    // Some checkpoints store the tied head again; older ones store what can be computed; DeepSeek-V3's hold a layer behind the last
    // one that predicts a second token and is no part of the model.
    let ignored = |name: &str| {
        (tied && name == "lm_head.weight")
            || name.ends_with("rotary_emb.inv_freq")
            || predicts_second_token(&config, name)
    };
    tensors.expect(specs.iter().map(|spec| (spec.name.as_str(), spec.shape.as_slice())), ignored)?;
    let (model, mut params) = Model::zeros(config, device)?;
    for (id, spec) in params.ids().zip(&specs) {
        params.write(id, &tensors.read(&spec.name, &spec.shape)?);
    }
    Ok((model, params))
}

/// Whether a tensor belongs to a layer for multi-token prediction, behind those of the model.
fn predicts_second_token(config: &Config, name: &str) -> bool {
    let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
    let behind = layer
        .and_then(|layer| layer.parse().ok())
        .is_some_and(|layer: usize| layer >= config.num_hidden_layers);
    config.architecture == Architecture::DeepseekV3 && behind
}

/// What loading a checkpoint folder leaves out, for people to know.
pub fn left_out(folder: &Path) -> Result<Vec<String>, ModelError> {
    if folder.is_file() {
        return Ok(Vec::new());
    }
    let config = Config::load(folder)?;
    let tensors = Tensors::open_folder(folder)?;
    let count = tensors.names().filter(|name| predicts_second_token(&config, name)).count();
    let note = format!("the layers that predict a second token are left out (tensors: {count})");
    Ok(if count > 0 { vec![note] } else { Vec::new() })
}

/// Writes a checkpoint folder as a whole or not at all: what transformers needs, and what `extra(folder)`
/// adds (training state, metrics) to the same folder.
pub fn save_checkpoint<E: From<ModelError> + From<HubError>>(
    folder: &Path,
    model: &Model,
    params: &Params,
    text: &TextSetup,
    extra: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    write_folder_atomically(folder, |folder| {
        write_model(folder, model, params, text)?;
        extra(folder)
    })
}

fn write_model(folder: &Path, model: &Model, params: &Params, text: &TextSetup) -> Result<(), ModelError> {
    let config = Config { eos_token_id: vec![text.eos], ..model.config().clone() };
    let path = folder.join("config.json");
    fs::write(&path, format!("{:#}\n", config.to_json())).map_err(|e| HubError::io("write", &path, e))?;
    let tensors: Vec<Tensor<'_>> = params
        .ids()
        .map(|id| {
            let spec = params.spec(id);
            let values = Box::new(move || Cow::Owned(params.read(id)));
            Tensor { name: spec.name.clone(), shape: spec.shape.clone(), values }
        })
        .collect();
    write_tensors(&folder.join("model.safetensors"), &tensors)?;
    text.save(folder)?;
    Ok(())
}
