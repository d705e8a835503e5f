//! A model on disk, opened but not loaded: shape, tokenizer, weight formats, and export.
//!
//! Only headers are read on opening. Export converts one tensor at a time, so at most one is in
//! memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crisol_engine::{ParamSpec, WeightFormat};
use crisol_hub::{
    FloatType, GgmlType, Gguf, HubError, Tensor, Tensors, Values, whole, write_folder_atomically,
};
use crisol_text::{TOKENIZER_FILES, TextSetup};

use crate::checkpoint::{
    FileTensor, Folder, OpenedWeights, TensorGroup, check_vocab, open_weights, write_files,
};
use crate::model::specs;
use crate::weights::{FileMatrix, WeightSource, check_finite, inference_bytes};
use crate::{Config, Head, ModelError, adapter, gguf};

/// The files of a model; its tensors match its shape.
#[derive(Debug)]
pub struct ModelFiles {
    path: PathBuf,
    config: Config,
    specs: Vec<ParamSpec>,
    weights: Weights,
    /// Special tokens that an export adds.
    added_tokens: Vec<String>,
}

#[derive(Debug)]
enum Weights {
    /// A checkpoint folder, and the tensor that holds each parameter.
    Folder(Tensors, Vec<FileTensor>),
    Gguf(Gguf),
}

/// Number and size of the tensors with one element type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSummary {
    /// Name of the element type (`BF16`, `Q4_K`, …).
    pub dtype: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Their total size in bytes.
    pub bytes: u64,
}

impl ModelFiles {
    /// Opens a checkpoint folder or a GGUF file. Reads only headers.
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
                added_tokens: Vec::new(),
            });
        }
        let path = crisol_hub::resolve_folder(path)?;
        let OpenedWeights { config, tensors, specs, file_tensors } = open_weights(&path)?;
        let weights = Weights::Folder(tensors, file_tensors);
        Ok(ModelFiles { path, config, specs, weights, added_tokens: Vec::new() })
    }

    /// Adds special tokens to what is exported. Tables get a row for each token that has none: the
    /// mean of the others, which leaves the probabilities of other tokens nearly as they were
    /// (Hewitt 2021, <https://nlp.stanford.edu/~johnhew/vocab-expansion.html>).
    pub fn add_special_tokens(&mut self, tokens: Vec<String>) -> Result<(), ModelError> {
        self.added_tokens = tokens;
        let refused = |cause: &str| ModelError::ConfigFile {
            file: self.path.clone(),
            cause: cause.to_owned(),
        };
        let text = self.text()?.ok_or_else(|| refused("it has no tokenizer to add tokens to"))?;
        let rows = text.tokenizer.vocab_size().max(self.config.vocab_size);
        if rows > self.config.vocab_size && self.config.head == Head::Scalar {
            return Err(refused("it has a scalar head; add tokens to its base, and train it anew"));
        }
        self.config.vocab_size = rows;
        self.specs = specs(&self.config);
        Ok(())
    }

    /// The shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Tokenizer and chat template, if the files include a tokenizer.
    pub fn text(&self) -> Result<Option<TextSetup>, ModelError> {
        let text = match &self.weights {
            Weights::Gguf(gguf) if gguf.metadata().get("tokenizer.ggml.model").is_none() => {
                return Ok(None);
            }
            Weights::Gguf(gguf) => gguf::text(gguf, &self.path)?,
            Weights::Folder(..) => {
                if !TOKENIZER_FILES.iter().any(|file| self.path.join(file).exists()) {
                    return Ok(None);
                }
                TextSetup::load(&self.path)?
            }
        };
        Ok(Some(text.with_special_tokens(&self.added_tokens)?))
    }

    /// The file format: `gguf`, `safetensors` or `pytorch`.
    pub fn format(&self) -> &'static str {
        match &self.weights {
            Weights::Gguf(_) => "gguf",
            Weights::Folder(tensors, _) => tensors.format(),
        }
    }

    /// Tensors by element type, largest total first; includes tensors that loading skips.
    pub fn weight_summary(&self) -> Vec<WeightSummary> {
        match &self.weights {
            Weights::Gguf(gguf) => {
                summary(gguf.names().filter_map(|name| gguf.dtype_and_bytes(name)))
            }
            Weights::Folder(tensors, file_tensors) => {
                let mxfp4: BTreeSet<String> =
                    file_tensors.iter().flat_map(FileTensor::mxfp4_tensors).collect();
                let stored = |name: &str| {
                    let (dtype, bytes) = tensors.dtype_and_bytes(name)?;
                    Some((
                        if mxfp4.contains(name) { GgmlType::MXFP4.to_string() } else { dtype },
                        bytes,
                    ))
                };
                summary(tensors.names().filter_map(stored))
            }
        }
    }

    /// Bytes of the weights in inference: matrices in the file's format where the engine supports
    /// it, everything else in f32.
    pub fn inference_bytes(&self) -> Result<u64, ModelError> {
        let (source, mut bytes) = (self.source(), 0);
        for (index, spec) in self.specs.iter().enumerate() {
            let format = source.format(index, spec)?;
            bytes += inference_bytes(spec, format) as u64;
        }
        Ok(bytes)
    }

    /// The element type of most weights if it is F32, F16 or BF16, else F32, which is lossless.
    pub fn float_type(&self) -> FloatType {
        match self.weight_summary().first().map(|summary| summary.dtype.as_str()) {
            Some("F16") => FloatType::F16,
            Some("BF16") => FloatType::BF16,
            _ => FloatType::F32,
        }
    }

    /// Total parameters, and active parameters per token (of routed experts only the selected
    /// ones).
    pub fn parameters(&self) -> (u64, u64) {
        let count = |spec: &ParamSpec| spec.shape.iter().product::<usize>() as u64;
        let all: u64 = self.specs.iter().map(count).sum();
        let Some((experts, chosen)) = self.config.routed_experts() else { return (all, all) };
        let routed: u64 =
            self.specs.iter().filter(|spec| spec.name.contains(".experts.")).map(count).sum();
        (all, all - routed + routed / experts as u64 * chosen as u64)
    }

    /// Writes a checkpoint folder for transformers, atomically, with weights as `dtype` in files of
    /// at most `shard_bytes` bytes.
    pub fn export_folder(
        &self,
        folder: &Path,
        dtype: FloatType,
        shard_bytes: u64,
    ) -> Result<(), ModelError> {
        let text = self.checked_text()?;
        let tensor = |group: TensorGroup| {
            let FileTensor { name, shape, .. } = group.tensor.clone();
            let dtype = export_dtype(dtype, &name);
            Tensor { name, shape, dtype, values: self.folder_values(group) }
        };
        let tensors: Vec<Tensor<'_>> =
            TensorGroup::all(&self.config, &self.specs).into_iter().map(tensor).collect();
        write_folder_atomically(folder, |folder| {
            write_files(folder, &self.config, text.as_ref(), dtype, &tensors, shard_bytes)
        })
    }

    /// Writes a GGUF file, atomically, with matrices as F32, F16, BF16 or `Q8_0`.
    pub fn export_gguf(&self, file: &Path, dtype: GgmlType) -> Result<(), ModelError> {
        let text = self.checked_text()?;
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy();
        // Missing parent folders are created, as in `export_folder`.
        let parent = file.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(parent).map_err(|e| HubError::io("create", parent, e))?;
        let source = || self.source();
        let check = |spec: &ParamSpec, values: &[f32]| check_finite(&self.path, &spec.name, values);
        gguf::write::write(
            file,
            &self.config,
            text.as_ref(),
            &name,
            &self.specs,
            &source,
            &check,
            dtype,
        )
    }

    /// Reads every weight, one tensor at a time, and refuses NaN and infinity.
    pub fn check_finite(&self) -> Result<(), ModelError> {
        let mut source = self.source();
        for (index, spec) in self.specs.iter().enumerate() {
            check_finite(&self.path, &spec.name, &source.values(index, spec)?)?;
        }
        Ok(())
    }

    /// The tokenizer, checked against the vocabulary size.
    fn checked_text(&self) -> Result<Option<TextSetup>, ModelError> {
        let mut text = self.text()?;
        if let Some(text) = &mut text {
            check_vocab(text, &self.config, &self.path)?;
        }
        Ok(text)
    }

    /// Reads parameters in Hugging Face's layout.
    fn source(&self) -> Box<dyn WeightSource + '_> {
        let source: Box<dyn WeightSource> = match &self.weights {
            Weights::Gguf(gguf) => Box::new(gguf::File { gguf, config: &self.config }),
            Weights::Folder(tensors, file_tensors) => Box::new(Folder::new(tensors, file_tensors)),
        };
        if self.added_tokens.is_empty() { source } else { Box::new(Grown(source)) }
    }

    /// Reads the tensor of a group in a checkpoint folder's layout.
    fn folder_values(&self, group: TensorGroup) -> Values<'_> {
        match &self.weights {
            // Folder to folder: tensors are copied as they are, fused experts included.
            Weights::Folder(tensors, file_tensors) if file_tensors[group.first()].is_whole() => {
                let FileTensor { name, shape, .. } = &file_tensors[group.first()];
                let spec = &self.specs[group.first()];
                whole(move || {
                    let mut values = tensors.read(name, shape)?;
                    check_finite(&self.path, name, &values)?;
                    grow(&mut values, &spec.shape);
                    Ok(Cow::Owned(values))
                })
            }
            _ => whole(move || {
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

/// Appends the mean of a table's rows until it has this shape.
fn grow(values: &mut Vec<f32>, shape: &[usize]) {
    let (len, width) = (shape.iter().product(), shape.last().copied().unwrap_or(1).max(1));
    let rows = values.len() / width;
    if values.len() >= len || rows == 0 {
        return;
    }
    let mut sums = vec![0.0_f64; width];
    for row in values.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let mean: Vec<f32> = sums.iter().map(|sum| (sum / rows as f64) as f32).collect();
    while values.len() < len {
        values.extend_from_slice(&mean);
    }
}

/// Weights whose tables have rows for added tokens.
struct Grown<'a>(Box<dyn WeightSource + 'a>);

impl WeightSource for Grown<'_> {
    fn values(&mut self, index: usize, spec: &ParamSpec) -> Result<Vec<f32>, HubError> {
        let mut values = self.0.values(index, spec)?;
        grow(&mut values, &spec.shape);
        Ok(values)
    }

    fn matrix(&self, index: usize, spec: &ParamSpec) -> Result<Option<FileMatrix<'_>>, HubError> {
        self.0.matrix(index, spec)
    }

    fn format(&self, index: usize, spec: &ParamSpec) -> Result<Option<WeightFormat>, HubError> {
        self.0.format(index, spec)
    }
}

/// Sums element types and bytes of tensors by type, largest total first.
pub(crate) fn summary(tensors: impl Iterator<Item = (String, usize)>) -> Vec<WeightSummary> {
    let mut types: BTreeMap<String, WeightSummary> = BTreeMap::new();
    for (dtype, bytes) in tensors {
        let summary =
            types.entry(dtype.clone()).or_insert(WeightSummary { dtype, tensors: 0, bytes: 0 });
        summary.tensors += 1;
        summary.bytes += bytes as u64;
    }
    let mut types: Vec<WeightSummary> = types.into_values().collect();
    types.sort_by_key(|summary| std::cmp::Reverse(summary.bytes));
    types
}

/// The shape of a checkpoint folder or GGUF file. A folder needs neither weights nor tokenizer.
pub fn load_config(path: &Path) -> Result<Config, ModelError> {
    if path.is_file() {
        return gguf::config(&Gguf::open(path)?, path);
    }
    Config::load(&crisol_hub::resolve_folder(path)?)
}

/// Shape and tokenizer of a checkpoint folder or GGUF file. A folder needs no weights.
pub fn load_text(path: &Path) -> Result<(Config, TextSetup), ModelError> {
    let source = if adapter::is_adapter(path) { adapter::text_source(path)? } else { path.into() };
    let text = if source.is_file() {
        gguf::text(&Gguf::open(&source)?, &source)?
    } else {
        TextSetup::load(&source)?
    };
    Ok((load_config(path)?, text))
}

/// The element type of a tensor in an export. The router's correction bias stays f32, as in
/// transformers (`_keep_in_fp32_modules_strict`).
fn export_dtype(dtype: FloatType, name: &str) -> FloatType {
    if name.ends_with("e_score_correction_bias") { FloatType::F32 } else { dtype }
}
