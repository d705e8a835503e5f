//! Checkpoints: folders that transformers loads as they are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crisol_engine::{Device, ParamId, ParamSpec, Params};
use crisol_hub::{HubError, Tensor, Tensors, write_folder_atomically, write_tensors};
use crisol_text::TextSetup;

use crate::config::Specifics;
use crate::mixture::Fused;
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
    // In a model of text and images, the part for text.
    let prefix = if is_multimodal(&tensors) { TEXT_PART } else { "" };
    let stored: Vec<Stored> = specs.iter().map(|spec| Stored::of(&config, spec, prefix)).collect();
    let expected = stored.iter().map(|stored| (stored.name.as_str(), stored.shape.as_slice()));
    tensors.expect(expected, |name| match name.strip_prefix(prefix) {
        Some(name) => ignored(name),
        None => true,
    })?;
    let (model, mut params) = Model::zeros(config, device)?;
    // The tensor of all experts is read once for all of them.
    let mut last: (&str, Vec<f32>) = ("", Vec::new());
    for ((id, spec), stored) in params.ids().zip(&specs).zip(&stored) {
        if last.0 != stored.name {
            last = (&stored.name, tensors.read(&stored.name, &stored.shape)?);
        }
        match &stored.fused {
            None => params.write(id, &last.1),
            Some(fused) => params.write(id, &fused.take(&last.1, spec.shape[0])),
        }
    }
    Ok((model, params))
}

/// What names of the part for text begin with in models of text and images.
const TEXT_PART: &str = "language_model.";

fn is_multimodal(tensors: &Tensors) -> bool {
    tensors.names().any(|name| name.starts_with(TEXT_PART))
}

/// Where a parameter is in the files.
struct Stored {
    name: String,
    shape: Vec<usize>,
    fused: Option<Fused>,
}

impl Stored {
    fn of(config: &Config, spec: &ParamSpec, prefix: &str) -> Stored {
        let fused = match &config.specifics {
            Specifics::Llama4(shape) => Fused::of(&spec.name, &spec.shape, shape.num_local_experts),
            _ => None,
        };
        let (name, shape) = match &fused {
            None => (&spec.name, spec.shape.clone()),
            Some(fused) => (&fused.tensor, fused.shape.to_vec()),
        };
        Stored { name: format!("{prefix}{name}"), shape, fused }
    }
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
    let prefix = if is_multimodal(&tensors) { TEXT_PART } else { "" };
    let other = tensors.names().filter(|name| !name.starts_with(prefix)).count();
    let second = tensors.names().filter(|name| predicts_second_token(&config, name)).count();
    let notes = [("the part for images is", other), ("the layers that predict a second token are", second)];
    let note =
        |(what, count): (&str, usize)| (count > 0).then(|| format!("{what} left out (tensors: {count})"));
    Ok(notes.into_iter().filter_map(note).collect())
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
    // Parameters by the tensor that they are written in: one each, but for fused experts.
    let mut tensors: Vec<(Stored, Vec<ParamId>)> = Vec::new();
    let mut places = HashMap::new();
    for id in params.ids() {
        let stored = Stored::of(model.config(), params.spec(id), "");
        let place = *places.entry(stored.name.clone()).or_insert(tensors.len());
        if place == tensors.len() {
            tensors.push((stored, Vec::new()));
        }
        tensors[place].1.push(id);
    }
    let tensor = |(stored, ids): &(Stored, Vec<ParamId>)| {
        let (config, ids, shape) = (model.config(), ids.clone(), stored.shape.clone());
        let fused = stored.fused.is_some();
        let values = move || {
            if !fused {
                return Cow::Owned(params.read(ids[0]));
            }
            let mut all = vec![0.0; shape.iter().product()];
            for &id in &ids {
                let spec = params.spec(id);
                if let Some(fused) = Stored::of(config, spec, "").fused {
                    fused.put(&mut all, &params.read(id), spec.shape[0]);
                }
            }
            Cow::Owned(all)
        };
        Tensor { name: stored.name.clone(), shape: stored.shape.clone(), values: Box::new(values) }
    };
    let tensors: Vec<Tensor<'_>> = tensors.iter().map(tensor).collect();
    write_tensors(&folder.join("model.safetensors"), &tensors)?;
    text.save(folder)?;
    Ok(())
}
