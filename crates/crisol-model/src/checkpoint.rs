//! Checkpoints: folders that transformers loads as they are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crisol_engine::{Device, ParamId, ParamSpec, Params, WeightFormat};
use crisol_hub::{
    Dtype, Elements, FloatType, HubError, Mapped, Tensor, Tensors, write_folder_atomically,
    write_weights,
};
use crisol_text::{TextError, TextSetup};

use crate::config::Specifics;
use crate::mixture::Fused;
use crate::model::specs;
use crate::weights::{Bytes, Purpose, Rows, Source, check_params, fill};
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
    /// Loads a checkpoint folder of Crisol or Hugging Face, or a GGUF file, with weights in f32 to train.
    pub fn load(folder: &Path, device: &Device) -> Result<Checkpoint, ModelError> {
        let checkpoint = Checkpoint::load_for(Purpose::Training, folder, device)?;
        check_params(folder, &checkpoint.params)?;
        Ok(checkpoint)
    }

    /// The same for inference only: large matrices stay as they are stored, in half precision or quantised.
    pub fn load_for_inference(folder: &Path, device: &Device) -> Result<Checkpoint, ModelError> {
        Checkpoint::load_for(Purpose::Inference, folder, device)
    }

    fn load_for(
        purpose: Purpose,
        folder: &Path,
        device: &Device,
    ) -> Result<Checkpoint, ModelError> {
        if folder.is_file() {
            return Checkpoint::load_gguf(purpose, folder, device);
        }
        let folder = &crisol_hub::whole_folder(folder)?;
        let (model, params) = load_model_for(purpose, folder, device)?;
        let mut text = TextSetup::load(folder)?;
        fit(&mut text, model.config(), &folder.join("config.json"))?;
        Ok(Checkpoint { model, params, text })
    }

    /// Writes the folder as a whole or not at all.
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        save_checkpoint(folder, &self.model, &self.params, &self.text, |_| Ok(()))
    }
}

/// Makes sure that the model knows the tokens of its tokenizer. `file` names it in errors.
pub(crate) fn fit(text: &mut TextSetup, config: &Config, file: &Path) -> Result<(), ModelError> {
    let refused =
        |e: TextError| ModelError::ConfigFile { file: file.to_path_buf(), cause: e.to_string() };
    text.fit(config.vocab_size).map_err(refused)
}

/// The weights of a checkpoint folder: found to be those of its config.json, but not read.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) config: Config,
    pub(crate) tensors: Tensors,
    /// The parameters, and where each of them is.
    pub(crate) specs: Vec<ParamSpec>,
    pub(crate) stored: Vec<FileTensor>,
}

/// Opens the weights of a checkpoint folder.
pub(crate) fn open_weights(folder: &Path) -> Result<Opened, ModelError> {
    let mut config = Config::load(folder)?;
    let mut tensors = Tensors::open_folder(folder)?;
    if let Some(block) = Config::fp8_block(folder)? {
        tensors = tensors.with_block_size(block);
    }
    // In a model of text and images, the part for text.
    let prefix = if is_multimodal(&tensors) { LANGUAGE_MODEL_PREFIX } else { "" };
    if has_head_of_its_own(&config, &tensors, prefix)? {
        config.head = Head::Language { tied: false };
    }
    // Before any memory is taken: a config.json with absurd sizes does not match the weights. Where there are experts, names alone
    // may be many.
    let values = |name| tensors.shape(name).map_or(0, |shape| shape.iter().product());
    let stored: usize = tensors.names().map(values).fold(0, usize::saturating_add);
    if config.routed_weights() > stored {
        let cause = format!(
            "its experts have {} weights, but those beside it are {stored} in all",
            config.routed_weights()
        );
        return Err(ModelError::ConfigFile { file: folder.join("config.json"), cause });
    }
    let specs = specs(&config);
    let tied = config.head == Head::Language { tied: true };
    // Some checkpoints store the tied head again; older ones store what can be computed; DeepSeek-V3's hold a layer behind the last
    // one that predicts a second token and is no part of the model.
    let ignored = |name: &str| {
        (tied && name == "lm_head.weight")
            || name.ends_with("rotary_emb.inv_freq")
            || predicts_second_token(&config, name)
    };
    let stored: Vec<FileTensor> =
        specs.iter().map(|spec| FileTensor::of(&config, spec, prefix)).collect();
    let expected = stored.iter().map(|stored| (stored.name.as_str(), stored.shape.as_slice()));
    tensors.expect(expected, |name| match name.strip_prefix(prefix) {
        Some(name) => ignored(name),
        None => true,
    })?;
    Ok(Opened { config, tensors, specs, stored })
}

/// Loads shape and weights of a checkpoint folder, without its tokenizer, to train.
pub fn load_model(folder: &Path, device: &Device) -> Result<(Model, Params), ModelError> {
    load_model_for(Purpose::Training, folder, device)
}

/// The same for inference only, see [`Checkpoint::load_for_inference`].
pub fn load_model_for_inference(
    folder: &Path,
    device: &Device,
) -> Result<(Model, Params), ModelError> {
    load_model_for(Purpose::Inference, folder, device)
}

fn load_model_for(
    purpose: Purpose,
    folder: &Path,
    device: &Device,
) -> Result<(Model, Params), ModelError> {
    let Opened { config, tensors, specs, stored } = open_weights(folder)?;
    let mut source = Folder::new(&tensors, &stored);
    fill(config, specs, device, purpose, &mut source)
}

/// The tensors of a folder as parameters.
pub(crate) struct Folder<'a> {
    tensors: &'a Tensors,
    stored: &'a [FileTensor],
    /// The tensor of all experts is read once for all of them.
    last: (&'a str, Vec<f32>),
}

impl<'a> Folder<'a> {
    /// `stored`: where each parameter is.
    pub(crate) fn new(tensors: &'a Tensors, stored: &'a [FileTensor]) -> Folder<'a> {
        Folder { tensors, stored, last: ("", Vec::new()) }
    }
}

impl Source for Folder<'_> {
    fn values(&mut self, index: usize, spec: &ParamSpec) -> Result<Vec<f32>, HubError> {
        let FileTensor { name, shape, fused } = &self.stored[index];
        let read = |tensors: &Tensors| -> Result<Vec<f32>, HubError> {
            let values = tensors.read(name, shape)?;
            if let Some(Elements { bytes, .. }) = tensors.mapped(name, shape)? {
                bytes.release(0..bytes.len());
            }
            Ok(values)
        };
        let Some(fused) = fused else { return read(self.tensors) };
        if self.last.0 != name {
            self.last = (name, read(self.tensors)?);
        }
        Ok(fused.take(&self.last.1, spec.shape[0]))
    }

    fn stored(&self, index: usize, spec: &ParamSpec) -> Result<Option<Rows<'_>>, HubError> {
        let FileTensor { name, shape, fused } = &self.stored[index];
        let Some((kind, mapped)) = self.stored[index].for_inference(self.tensors)? else {
            return Ok(None);
        };
        let bytes = match (fused, kind) {
            (None, WeightFormat::F8E4M3) => {
                Bytes::Scaled(mapped, self.tensors.scales(name, shape)?)
            }
            (None, _) => Bytes::Mapped(mapped),
            (Some(fused), WeightFormat::F32) => Bytes::Gathered(
                fused.take(mapped.as_chunks::<4>().0, spec.shape[0]).into_flattened(),
            ),
            (Some(fused), _) => Bytes::Gathered(
                fused.take(mapped.as_chunks::<2>().0, spec.shape[0]).into_flattened(),
            ),
        };
        Ok(Some(Rows { kind, bytes, head_in_pairs: None }))
    }
}

/// Whether a head that is tied by `config.json` is in the files and is another matrix than the embedding table. As in transformers,
/// the files are right then.
fn has_head_of_its_own(
    config: &Config,
    tensors: &Tensors,
    prefix: &str,
) -> Result<bool, ModelError> {
    let shape = [config.vocab_size, config.hidden_size];
    let [head, table] =
        ["lm_head.weight", "model.embed_tokens.weight"].map(|name| format!("{prefix}{name}"));
    let tied = config.head == Head::Language { tied: true };
    if !tied || [&head, &table].iter().any(|name| tensors.shape(name) != Some(&shape)) {
        return Ok(false);
    }
    if let (Some(head), Some(table)) =
        (tensors.mapped(&head, &shape)?, tensors.mapped(&table, &shape)?)
        && head.dtype == table.dtype
        && [head.block, table.block] == [None; 2]
    {
        return Ok(head.bytes[..] != table.bytes[..]);
    }
    Ok(tensors.read(&head, &shape)? != tensors.read(&table, &shape)?)
}

/// What names of the part for text begin with in models of text and images.
const LANGUAGE_MODEL_PREFIX: &str = "language_model.";

fn is_multimodal(tensors: &Tensors) -> bool {
    tensors.names().any(|name| name.starts_with(LANGUAGE_MODEL_PREFIX))
}

/// Where a parameter is in the files.
#[derive(Clone, Debug)]
pub(crate) struct FileTensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    fused: Option<Fused>,
}

impl FileTensor {
    pub(crate) fn of(config: &Config, spec: &ParamSpec, prefix: &str) -> FileTensor {
        let fused = match &config.specifics {
            Specifics::Llama4(shape) => Fused::of(&spec.name, &spec.shape, shape.num_local_experts),
            _ => None,
        };
        let (name, shape) = match &fused {
            None => (&spec.name, spec.shape.clone()),
            Some(fused) => (&fused.tensor, fused.shape.to_vec()),
        };
        FileTensor { name: format!("{prefix}{name}"), shape, fused }
    }

    /// Type and elements, if inference can use them as they are.
    pub(crate) fn for_inference<'a>(
        &self,
        tensors: &'a Tensors,
    ) -> Result<Option<(WeightFormat, Mapped<'a>)>, HubError> {
        let Some(Elements { dtype, bytes, block }) = tensors.mapped(&self.name, &self.shape)?
        else {
            return Ok(None);
        };
        let kind = match dtype {
            Dtype::F32 => WeightFormat::F32,
            Dtype::F16 => WeightFormat::F16,
            Dtype::BF16 => WeightFormat::Bf16,
            Dtype::F8_E4M3 if self.fused.is_none() => {
                // A row's block there has one scale if it lies in one block of the file.
                let (columns, _) = WeightFormat::F8E4M3.block();
                if block.is_some_and(|[_, across]| !across.is_multiple_of(columns)) {
                    return Ok(None);
                }
                WeightFormat::F8E4M3
            }
            _ => return Ok(None),
        };
        Ok(Some((kind, bytes)))
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
    let prefix = if is_multimodal(&tensors) { LANGUAGE_MODEL_PREFIX } else { "" };
    let other = tensors.names().filter(|name| !name.starts_with(prefix)).count();
    let second = tensors.names().filter(|name| predicts_second_token(&config, name)).count();
    let notes =
        [("the part for images is", other), ("the layers that predict a second token are", second)];
    let note = |(what, count): (&str, usize)| {
        (count > 0).then(|| format!("{what} left out (tensors: {count})"))
    };
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

fn write_model(
    folder: &Path,
    model: &Model,
    params: &Params,
    text: &TextSetup,
) -> Result<(), ModelError> {
    let ids: Vec<ParamId> = params.ids().collect();
    let config = model.config();
    let tensor = |group: Group| {
        let FileTensor { name, shape, .. } = group.stored.clone();
        let read = |index: usize| Ok(params.read(ids[index]));
        let values = move || Ok(Cow::Owned(group.values(config, params.specs(), read)?));
        Tensor { name, shape, dtype: FloatType::F32, values: Box::new(values) }
    };
    let tensors: Vec<Tensor<'_>> =
        Group::all(config, params.specs()).into_iter().map(tensor).collect();
    write_files(folder, config, Some(text), FloatType::F32, &tensors, SHARD_BYTES)
}

/// The parameters that are written as one tensor: one, or a layer's experts where they are fused.
pub(crate) struct Group {
    pub(crate) stored: FileTensor,
    members: Vec<usize>,
}

impl Group {
    /// All of a model, by its parameters' specs.
    pub(crate) fn all(config: &Config, specs: &[ParamSpec]) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut places = HashMap::new();
        for (index, spec) in specs.iter().enumerate() {
            let stored = FileTensor::of(config, spec, "");
            let place = *places.entry(stored.name.clone()).or_insert(groups.len());
            if place == groups.len() {
                groups.push(Group { stored, members: Vec::new() });
            }
            groups[place].members.push(index);
        }
        groups
    }

    /// The first parameter's index.
    pub(crate) fn first(&self) -> usize {
        self.members[0]
    }

    /// The tensor's values, put together of its parameters'.
    pub(crate) fn values(
        &self,
        config: &Config,
        specs: &[ParamSpec],
        mut read: impl FnMut(usize) -> Result<Vec<f32>, HubError>,
    ) -> Result<Vec<f32>, HubError> {
        if self.stored.fused.is_none() {
            return read(self.members[0]);
        }
        let mut all = vec![0.0; self.stored.shape.iter().product()];
        for &index in &self.members {
            let spec = &specs[index];
            if let Some(fused) = FileTensor::of(config, spec, "").fused {
                fused.put(&mut all, &read(index)?, spec.shape[0]);
            }
        }
        Ok(all)
    }
}

/// The largest file of weights, as transformers has it.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// Writes what transformers loads, but for weights without a tokenizer: `config.json`, which names `dtype`, weights in files
/// of up to `shard_bytes`, tokenizer and chat template.
pub(crate) fn write_files(
    folder: &Path,
    config: &Config,
    text: Option<&TextSetup>,
    dtype: FloatType,
    tensors: &[Tensor<'_>],
    shard_bytes: u64,
) -> Result<(), ModelError> {
    let mut config = config.clone();
    if let Some(text) = text {
        config.eos_token_id = vec![text.eos];
        text.save(folder)?;
    }
    let path = folder.join("config.json");
    fs::write(&path, format!("{:#}\n", config.to_json(dtype)))
        .map_err(|e| HubError::io("write", &path, e))?;
    Ok(write_weights(folder, tensors, shard_bytes)?)
}
