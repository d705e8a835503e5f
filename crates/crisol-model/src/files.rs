//! A model on the disk, opened but not read: its shape, its tokenizer, how its weights are stored, and other files made of it
//! tensor by tensor, so that no more than one is in memory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crisol_engine::ParamSpec;
use crisol_hub::{
    FloatType, GgmlType, Gguf, HubError, Tensor, Tensors, Values, write_folder_atomically,
};
use crisol_text::TextSetup;

use crate::checkpoint::{FileTensor, Folder, Group, Opened, fit, open_weights, write_files};
use crate::weights::{Source, check_finite, inference_bytes};
use crate::{Config, ModelError, gguf};

/// The files of a model, whose weights are known to fit its shape.
#[derive(Debug)]
pub struct ModelFiles {
    path: PathBuf,
    config: Config,
    specs: Vec<ParamSpec>,
    weights: Weights,
}

#[derive(Debug)]
enum Weights {
    /// Of a checkpoint folder, with where each parameter is.
    Folder(Tensors, Vec<FileTensor>),
    Gguf(Gguf),
}

/// Weights of one element type in a model's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSummary {
    /// Its name there (`BF16`, `Q4_K`, …).
    pub dtype: String,
    /// How many tensors have it.
    pub tensors: usize,
    /// What they take.
    pub bytes: u64,
}

impl ModelFiles {
    /// Opens a checkpoint folder of Crisol or Hugging Face, or a GGUF file. Only headers are read.
    pub fn open(path: &Path) -> Result<ModelFiles, ModelError> {
        if path.is_file() {
            let gguf = Gguf::open(path)?;
            let config = gguf::config(&gguf, path)?;
            let specs = gguf::check(&gguf, path, &config)?;
            return Ok(ModelFiles {
                path: path.to_owned(),
                config,
                specs,
                weights: Weights::Gguf(gguf),
            });
        }
        let path = crisol_hub::whole_folder(path)?;
        let Opened { config, tensors, specs, stored } = open_weights(&path)?;
        Ok(ModelFiles { path, config, specs, weights: Weights::Folder(tensors, stored) })
    }

    /// The shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Tokenizer and chat template, if the model has any.
    pub fn text(&self) -> Result<Option<TextSetup>, ModelError> {
        let text = match &self.weights {
            Weights::Gguf(gguf) if gguf.metadata().get("tokenizer.ggml.model").is_none() => {
                return Ok(None);
            }
            Weights::Gguf(gguf) => gguf::text(gguf, &self.path)?,
            Weights::Folder(..) => {
                let files = ["tokenizer.json", "tokenizer.model"];
                if !files.iter().any(|file| self.path.join(file).exists()) {
                    return Ok(None);
                }
                TextSetup::load(&self.path)?
            }
        };
        Ok(Some(text))
    }

    /// The format of the weights: `gguf`, `safetensors` or `pytorch`.
    pub fn format(&self) -> &'static str {
        match &self.weights {
            Weights::Gguf(_) => "gguf",
            Weights::Folder(tensors, _) => tensors.format(),
        }
    }

    /// What is in the files, by element type, most bytes first; also what loading leaves out.
    pub fn stored(&self) -> Vec<WeightSummary> {
        let mut types: BTreeMap<String, WeightSummary> = BTreeMap::new();
        let mut add = |(dtype, bytes): (String, usize)| {
            let stored =
                types.entry(dtype.clone()).or_insert(WeightSummary { dtype, tensors: 0, bytes: 0 });
            stored.tensors += 1;
            stored.bytes += bytes as u64;
        };
        match &self.weights {
            Weights::Gguf(gguf) => {
                gguf.names().filter_map(|name| gguf.stored(name)).for_each(&mut add)
            }
            Weights::Folder(tensors, _) => {
                tensors.names().filter_map(|name| tensors.stored(name)).for_each(&mut add);
            }
        }
        let mut types: Vec<WeightSummary> = types.into_values().collect();
        types.sort_by_key(|stored| std::cmp::Reverse(stored.bytes));
        types
    }

    /// Bytes that the weights take in inference: matrices as they are stored where that is possible, the rest in f32.
    pub fn inference_bytes(&self) -> Result<u64, ModelError> {
        let mut bytes = 0;
        for (index, spec) in self.specs.iter().enumerate() {
            let kind = match &self.weights {
                Weights::Gguf(gguf) => gguf::weight_format(gguf, &self.config, spec),
                Weights::Folder(tensors, stored) => {
                    stored[index].for_inference(tensors)?.map(|(kind, _)| kind)
                }
            };
            bytes += inference_bytes(spec, kind) as u64;
        }
        Ok(bytes)
    }

    /// The type of most weights in the files if it is one of these, else F32, in which nothing is lost.
    pub fn float_type(&self) -> FloatType {
        match self.stored().first().map(|stored| stored.dtype.as_str()) {
            Some("F16") => FloatType::F16,
            Some("BF16") => FloatType::BF16,
            _ => FloatType::F32,
        }
    }

    /// Parameters in all, and those that take part in a token's forward pass: of routed experts only the chosen ones.
    pub fn parameters(&self) -> (u64, u64) {
        let count = |spec: &ParamSpec| spec.shape.iter().product::<usize>() as u64;
        let all: u64 = self.specs.iter().map(count).sum();
        let Some((experts, chosen)) = self.config.routed_experts() else { return (all, all) };
        let routed: u64 =
            self.specs.iter().filter(|spec| spec.name.contains(".experts.")).map(count).sum();
        (all, all - routed + routed / experts as u64 * chosen as u64)
    }

    /// Writes a folder that transformers loads, as a whole or not at all, with weights of this type in files of up to
    /// `shard_bytes`.
    pub fn export_folder(
        &self,
        folder: &Path,
        dtype: FloatType,
        shard_bytes: u64,
    ) -> Result<(), ModelError> {
        let text = self.checked_text()?;
        let tensor = |group: Group| {
            let FileTensor { name, shape, .. } = group.stored.clone();
            let dtype = stored_as(dtype, &name);
            Tensor { name, shape, dtype, values: self.folder_values(group) }
        };
        let tensors: Vec<Tensor<'_>> =
            Group::all(&self.config, &self.specs).into_iter().map(tensor).collect();
        write_folder_atomically(folder, |folder| {
            write_files(folder, &self.config, text.as_ref(), dtype, &tensors, shard_bytes)
        })
    }

    /// Writes a GGUF file, as a whole or not at all, with matrices of this type: F32, F16, BF16 or `Q8_0`.
    pub fn export_gguf(&self, file: &Path, dtype: GgmlType) -> Result<(), ModelError> {
        let text = self.checked_text()?;
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy();
        // As for a folder, its parents too.
        let parent = file.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(parent).map_err(|e| HubError::io("create", parent, e))?;
        let source = || self.source();
        let whole = |spec: &ParamSpec, values: &[f32]| check_finite(&self.path, &spec.name, values);
        gguf::write::write(
            file,
            &self.config,
            text.as_ref(),
            &name,
            &self.specs,
            &source,
            &whole,
            dtype,
        )
    }

    /// Reads every weight, one tensor at a time; an error names the first that is NaN or infinite.
    pub fn check_finite(&self) -> Result<(), ModelError> {
        let mut source = self.source();
        for (index, spec) in self.specs.iter().enumerate() {
            check_finite(&self.path, &spec.name, &source.values(index, spec)?)?;
        }
        Ok(())
    }

    /// The tokenizer, which must be the model's.
    fn checked_text(&self) -> Result<Option<TextSetup>, ModelError> {
        let mut text = self.text()?;
        if let Some(text) = &mut text {
            fit(text, &self.config, &self.path)?;
        }
        Ok(text)
    }

    /// What parameters are read from, in Hugging Face's order.
    fn source(&self) -> Box<dyn Source + '_> {
        match &self.weights {
            Weights::Gguf(gguf) => Box::new(gguf::File { gguf, config: &self.config }),
            Weights::Folder(tensors, stored) => Box::new(Folder::new(tensors, stored)),
        }
    }

    /// Reads a tensor of a folder.
    fn folder_values(&self, group: Group) -> Values<'_> {
        match &self.weights {
            // As they are there, fused experts too.
            Weights::Folder(tensors, stored) => {
                let FileTensor { name, shape, .. } = &stored[group.first()];
                Box::new(move || {
                    let values = tensors.read(name, shape)?;
                    check_finite(&self.path, name, &values)?;
                    Ok(Cow::Owned(values))
                })
            }
            Weights::Gguf(_) => Box::new(move || {
                let mut source = self.source();
                let read = |index: usize| {
                    let values = source.values(index, &self.specs[index])?;
                    check_finite(&self.path, &self.specs[index].name, &values)?;
                    Ok(values)
                };
                group.values(&self.config, &self.specs, read).map(Cow::Owned)
            }),
        }
    }
}

/// Shape of a checkpoint folder, whose weights and tokenizer need not be there, or of a GGUF file.
pub fn load_config(path: &Path) -> Result<Config, ModelError> {
    if path.is_file() {
        return gguf::config(&Gguf::open(path)?, path);
    }
    Config::load(&crisol_hub::whole_folder(path)?)
}

/// Shape and tokenizer of a checkpoint folder, whose weights need not be there, or of a GGUF file.
pub fn load_text(path: &Path) -> Result<(Config, TextSetup), ModelError> {
    let text =
        if path.is_file() { gguf::text(&Gguf::open(path)?, path)? } else { TextSetup::load(path)? };
    Ok((load_config(path)?, text))
}

/// What decides on a token's experts stays as exact as it was, as in transformers (`_keep_in_fp32_modules_strict`).
fn stored_as(dtype: FloatType, name: &str) -> FloatType {
    if name.ends_with("e_score_correction_bias") { FloatType::F32 } else { dtype }
}
