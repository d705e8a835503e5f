//! Checkpoint folders in the layout of transformers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crisol_engine::{Device, ParamId, ParamSpec, Params, WeightFormat};
use crisol_hub::{
    Dtype, Elements, FloatType, GgmlType, HubError, Mapped, Tensor, Tensors, Values, by_rows,
    dequantise, whole, write_folder_atomically, write_weights,
};
use crisol_text::{TextError, TextSetup};

use crate::adapter;
use crate::mixture::FusedExpert;
use crate::model::specs;
use crate::weights::{Bytes, FileMatrix, Purpose, WeightSource, check_params, load_params};
use crate::{Config, Head, Model, ModelError};

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
    /// Loads a checkpoint folder or a GGUF file for training, with weights in f32.
    pub fn load(folder: &Path, device: &Device) -> Result<Checkpoint, ModelError> {
        let checkpoint = Checkpoint::load_for(Purpose::Training, folder, device)?;
        if let Some(base) = checkpoint.params.base() {
            let named = checkpoint.model.config().adapter.as_ref();
            check_params(named.map_or(folder, |adapted| &adapted.base), base)?;
        }
        check_params(folder, &checkpoint.params)?;
        Ok(checkpoint)
    }

    /// Loads a checkpoint for inference: large matrices keep the file's weight format.
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
        let folder = &crisol_hub::resolve_folder(folder)?;
        if adapter::is_adapter(folder) {
            return Checkpoint::load_adapter(folder, device);
        }
        let (model, params) = load_model_for(purpose, folder, device)?;
        let mut text = TextSetup::load(folder)?;
        check_vocab(&mut text, model.config(), &folder.join("config.json"))?;
        Ok(Checkpoint { model, params, text })
    }

    /// Number of the model's weights; those of an adapter over it are not counted.
    pub fn parameters(&self) -> usize {
        self.params.base().map_or_else(|| self.params.count(), |base| base.count())
    }

    /// Writes a checkpoint folder atomically.
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        self.save_as(folder, FloatType::F32)
    }

    /// As [`Checkpoint::save`], with weights rounded to `dtype`.
    pub fn save_as(&self, folder: &Path, dtype: FloatType) -> Result<(), ModelError> {
        let Checkpoint { model, params, text } = self;
        write_folder_atomically(folder, |folder| write_model(folder, model, params, text, dtype))
    }
}

/// Checks that the tokenizer has no more tokens than the model. `file` is named in errors.
pub(crate) fn check_vocab(
    text: &mut TextSetup,
    config: &Config,
    file: &Path,
) -> Result<(), ModelError> {
    let refused =
        |e: TextError| ModelError::ConfigFile { file: file.to_path_buf(), cause: e.to_string() };
    text.check_embedding_rows(config.vocab_size).map_err(refused)
}

/// The weights of a checkpoint folder, checked against its config.json but not read.
#[derive(Debug)]
pub(crate) struct OpenedWeights {
    pub(crate) config: Config,
    pub(crate) tensors: Tensors,
    /// The parameters.
    pub(crate) specs: Vec<ParamSpec>,
    /// The tensor that holds each parameter.
    pub(crate) file_tensors: Vec<FileTensor>,
}

/// Opens the weights of a checkpoint folder and checks names and shapes.
pub(crate) fn open_weights(folder: &Path) -> Result<OpenedWeights, ModelError> {
    adapter::refuse(folder)?;
    let mut config = Config::load(folder)?;
    let mut tensors = Tensors::open_folder(folder)?;
    if let Some(block) = Config::fp8_block(folder)? {
        tensors = tensors.with_block_size(block);
    }
    let names = TensorNames::of(&config, &tensors);
    if has_untied_head(&config, &tensors, names)? {
        config.head = Head::Language { tied: false };
    }
    // Checked before any allocation, since absurd sizes in config.json cannot match the weights.
    // With experts, even the list of parameter names can be huge.
    let len = |name| tensors.shape(name).map_or(0, |shape| shape.iter().product());
    let available: usize = tensors.names().map(len).fold(0, usize::saturating_add);
    if config.routed_weights() > available {
        let cause = format!(
            "its experts need {} weights, but the weight files hold only {available}",
            config.routed_weights()
        );
        return Err(ModelError::ConfigFile { file: folder.join("config.json"), cause });
    }
    let specs = specs(&config);
    let tied = config.head == Head::Language { tied: true };
    // Some checkpoints also store the tied head; older ones store RoPE frequencies. DeepSeek-V3
    // appends layers for multi-token prediction, which the model does not use.
    let ignored = |name: &str| {
        (tied && name == "lm_head.weight")
            || name.ends_with("rotary_emb.inv_freq")
            || config.family().ignores_tensor(name)
            || config.family().is_mtp_tensor(&config, name)
    };
    let file_tensors: Vec<FileTensor> =
        specs.iter().map(|spec| FileTensor::in_files(&config, spec, names, &tensors)).collect();
    let expected: Vec<_> = file_tensors.iter().flat_map(FileTensor::tensors).collect();
    let expected = expected.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
    tensors
        .check_shapes(expected, |name| names.parameter(name).is_none_or(|name| ignored(&name)))?;
    Ok(OpenedWeights { config, tensors, specs, file_tensors })
}

/// Loads config and weights of a checkpoint folder for training, without its tokenizer.
pub fn load_model(folder: &Path, device: &Device) -> Result<(Model, Params), ModelError> {
    load_model_for(Purpose::Training, folder, device)
}

/// Loads config and weights for inference, see [`Checkpoint::load_for_inference`].
pub fn load_model_for_inference(
    folder: &Path,
    device: &Device,
) -> Result<(Model, Params), ModelError> {
    if adapter::is_adapter(folder) {
        return adapter::load_model(folder, device);
    }
    load_model_for(Purpose::Inference, folder, device)
}

fn load_model_for(
    purpose: Purpose,
    folder: &Path,
    device: &Device,
) -> Result<(Model, Params), ModelError> {
    let OpenedWeights { config, tensors, specs, file_tensors } = open_weights(folder)?;
    let mut source = Folder::new(&tensors, &file_tensors);
    load_params(config, specs, device, purpose, &mut source)
}

/// Reads parameters from the tensors of a checkpoint folder.
pub(crate) struct Folder<'a> {
    tensors: &'a Tensors,
    file_tensors: &'a [FileTensor],
    /// The last fused tensor read, by name: it holds the weights of all experts of a layer.
    last: (&'a str, Vec<f32>),
}

impl<'a> Folder<'a> {
    /// `file_tensors`: the tensor that holds each parameter.
    pub(crate) fn new(tensors: &'a Tensors, file_tensors: &'a [FileTensor]) -> Folder<'a> {
        Folder { tensors, file_tensors, last: ("", Vec::new()) }
    }
}

impl WeightSource for Folder<'_> {
    fn values(&mut self, index: usize, spec: &ParamSpec) -> Result<Vec<f32>, HubError> {
        let FileTensor { name, shape, fused, transposed, mxfp4 } = &self.file_tensors[index];
        if let (true, Some(fused)) = (mxfp4, fused) {
            let rows = self.file_tensors[index].mxfp4_rows(self.tensors, fused, spec)?;
            return Ok(dequantise(GgmlType::MXFP4, &rows).expect("a type that is read"));
        }
        let read = |tensors: &Tensors| -> Result<Vec<f32>, HubError> {
            let values = tensors.read(name, shape)?;
            if let Some(Elements { bytes, .. }) = tensors.mapped(name, shape)? {
                bytes.release(0..bytes.len());
            }
            Ok(values)
        };
        if *transposed {
            return Ok(transpose(&read(self.tensors)?, shape[1]));
        }
        let Some(fused) = fused else { return read(self.tensors) };
        if self.last.0 != name {
            self.last = (name, read(self.tensors)?);
        }
        Ok(fused.extract(&self.last.1, spec.shape[0]))
    }

    fn matrix(&self, index: usize, spec: &ParamSpec) -> Result<Option<FileMatrix<'_>>, HubError> {
        let FileTensor { name, shape, fused, transposed, mxfp4 } = &self.file_tensors[index];
        if let (true, Some(fused)) = (mxfp4, fused) {
            let rows = self.file_tensors[index].mxfp4_rows(self.tensors, fused, spec)?;
            let (format, bytes) = (WeightFormat::Mxfp4, Bytes::Gathered(rows));
            return Ok(Some(FileMatrix { format, bytes, interleaved_head_dim: None }));
        }
        let Some((format, mapped)) = self.file_tensors[index].for_inference(self.tensors)? else {
            return Ok(None);
        };
        let bytes = match (fused, format) {
            (None, WeightFormat::F32) if *transposed => {
                Bytes::Gathered(transpose(mapped.as_chunks::<4>().0, shape[1]).into_flattened())
            }
            (None, _) if *transposed => {
                Bytes::Gathered(transpose(mapped.as_chunks::<2>().0, shape[1]).into_flattened())
            }
            (None, WeightFormat::F8E4M3) => {
                Bytes::Scaled(mapped, self.tensors.scales(name, shape)?)
            }
            (None, _) => Bytes::Mapped(mapped),
            (Some(fused), WeightFormat::F32) => Bytes::Gathered(
                fused.extract(mapped.as_chunks::<4>().0, spec.shape[0]).into_flattened(),
            ),
            (Some(fused), _) => Bytes::Gathered(
                fused.extract(mapped.as_chunks::<2>().0, spec.shape[0]).into_flattened(),
            ),
        };
        Ok(Some(FileMatrix { format, bytes, interleaved_head_dim: None }))
    }

    fn format(&self, index: usize, _: &ParamSpec) -> Result<Option<WeightFormat>, HubError> {
        self.file_tensors[index].weight_format(self.tensors)
    }
}

/// Whether the files hold a head that differs from the embedding table although `config.json` ties
/// them. As in transformers, the files then win.
fn has_untied_head(
    config: &Config,
    tensors: &Tensors,
    names: TensorNames,
) -> Result<bool, ModelError> {
    let shape = [config.vocab_size, config.hidden_size];
    let embedding = config.family().outer_names().embedding;
    let [head, table] = ["lm_head", embedding].map(|name| names.tensor(&format!("{name}.weight")));
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

/// How the tensors of a checkpoint folder are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TensorNames {
    /// What parameters' names start with, …
    parameter: &'static str,
    /// … and tensors' names instead.
    tensor: &'static str,
}

impl TensorNames {
    /// Of a language model alone.
    pub(crate) const PLAIN: TensorNames = TensorNames { parameter: "", tensor: "" };
    /// As in published models.
    const WITHIN: TensorNames = TensorNames { parameter: "", tensor: "language_model." };
    /// As in the modules of transformers 5.
    const MODULES: TensorNames =
        TensorNames { parameter: "model.", tensor: "model.language_model." };

    fn of(config: &Config, tensors: &Tensors) -> TensorNames {
        let used = |prefix: &str| tensors.names().any(|name| name.starts_with(prefix));
        let within = [TensorNames::WITHIN, TensorNames::MODULES];
        if let Some(names) = within.into_iter().find(|names| used(names.tensor)) {
            return names;
        }
        let prefix = config.family().optional_prefix();
        if used(prefix) {
            TensorNames::PLAIN
        } else {
            TensorNames { parameter: prefix, tensor: "" }
        }
    }

    /// The tensor of a parameter. The head is outside of `model`.
    fn tensor(self, parameter: &str) -> String {
        match parameter.strip_prefix(self.parameter) {
            Some(rest) => format!("{}{rest}", self.tensor),
            None => parameter.to_owned(),
        }
    }

    /// The parameter of a tensor; `None`: a tensor of the image encoder.
    fn parameter(self, tensor: &str) -> Option<String> {
        if self != TensorNames::WITHIN && tensor.starts_with("lm_head.") {
            return Some(tensor.to_owned());
        }
        tensor.strip_prefix(self.tensor).map(|rest| format!("{}{rest}", self.parameter))
    }
}

/// `[cols, rows]` from `[rows, cols]`.
fn transpose<T: Copy>(values: &[T], cols: usize) -> Vec<T> {
    (0..cols).flat_map(|col| values[col..].iter().step_by(cols).copied()).collect()
}

/// After the name of a tensor in MXFP4.
const BLOCKS: &str = "_blocks";
const SCALES: &str = "_scales";

/// The tensor of a checkpoint folder that holds a parameter.
#[derive(Clone, Debug)]
pub(crate) struct FileTensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    fused: Option<FusedExpert>,
    transposed: bool,
    /// Whether the files have the fused tensor as blocks and scales.
    mxfp4: bool,
}

impl FileTensor {
    pub(crate) fn new(config: &Config, spec: &ParamSpec, names: TensorNames) -> FileTensor {
        let family = config.family();
        let (fused, transposed) = (family.fused_expert(spec), family.is_transposed(spec));
        let (name, mut shape) = match &fused {
            None => (&spec.name, spec.shape.clone()),
            Some(fused) => (&fused.tensor, fused.shape.clone()),
        };
        if transposed {
            shape.reverse();
        }
        FileTensor { name: names.tensor(name), shape, fused, transposed, mxfp4: false }
    }

    /// The tensor as given files have it.
    fn in_files(
        config: &Config,
        spec: &ParamSpec,
        names: TensorNames,
        tensors: &Tensors,
    ) -> FileTensor {
        let mut tensor = FileTensor::new(config, spec, names);
        let whole_blocks = tensor.fused.as_ref().is_some_and(FusedExpert::has_whole_blocks);
        let blocks = format!("{}{BLOCKS}", tensor.name);
        tensor.mxfp4 = whole_blocks && tensors.shape(&blocks).is_some();
        tensor
    }

    /// Names and shapes of the tensors in the files.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        match &self.fused {
            Some(fused) if self.mxfp4 => {
                let [blocks, scales] = fused.mxfp4_shapes();
                let name = &self.name;
                vec![(format!("{name}{BLOCKS}"), blocks), (format!("{name}{SCALES}"), scales)]
            }
            _ => vec![(self.name.clone(), self.shape.clone())],
        }
    }

    /// Those of them that hold MXFP4, which the files have as bytes.
    pub(crate) fn mxfp4_tensors(&self) -> Vec<String> {
        let tensors = if self.mxfp4 { self.tensors() } else { Vec::new() };
        tensors.into_iter().map(|(name, _)| name).collect()
    }

    /// The rows of a parameter in MXFP4.
    fn mxfp4_rows(
        &self,
        tensors: &Tensors,
        fused: &FusedExpert,
        spec: &ParamSpec,
    ) -> Result<Vec<u8>, HubError> {
        let mut parts = Vec::new();
        for (name, shape) in self.tensors() {
            let bytes = tensors.mapped(&name, &shape)?.filter(|part| part.dtype == Dtype::U8);
            parts.push(bytes.ok_or_else(|| tensors.unsupported(&name))?.bytes);
        }
        Ok(fused.extract_mxfp4(&parts[0], &parts[1], spec.shape[0]))
    }

    /// Whether an export can copy the tensor from the files.
    pub(crate) fn is_whole(&self) -> bool {
        !self.mxfp4
    }

    /// The format in which inference keeps the parameter; `None`: converted to f32.
    fn weight_format(&self, tensors: &Tensors) -> Result<Option<WeightFormat>, HubError> {
        if self.mxfp4 {
            return Ok(Some(WeightFormat::Mxfp4));
        }
        Ok(self.for_inference(tensors)?.map(|(format, _)| format))
    }

    /// Weight format and bytes, if inference can use them without conversion.
    fn for_inference<'a>(
        &self,
        tensors: &'a Tensors,
    ) -> Result<Option<(WeightFormat, Mapped<'a>)>, HubError> {
        let Some(Elements { dtype, bytes, block }) = tensors.mapped(&self.name, &self.shape)?
        else {
            return Ok(None);
        };
        let format = match dtype {
            Dtype::F32 => WeightFormat::F32,
            Dtype::F16 => WeightFormat::F16,
            Dtype::BF16 => WeightFormat::Bf16,
            Dtype::F8_E4M3 if self.fused.is_none() && !self.transposed => {
                // The engine has one scale per row block, so a row block must not cross a block of
                // the file.
                let (columns, _) = WeightFormat::F8E4M3.block();
                if block.is_some_and(|[_, across]| !across.is_multiple_of(columns)) {
                    return Ok(None);
                }
                WeightFormat::F8E4M3
            }
            _ => return Ok(None),
        };
        Ok(Some((format, bytes)))
    }
}

/// Describes the tensors that loading a checkpoint folder skips, one line each.
pub fn skipped_tensors(folder: &Path) -> Result<Vec<String>, ModelError> {
    if folder.is_file() || adapter::is_adapter(folder) {
        return Ok(Vec::new());
    }
    let config = Config::load(folder)?;
    let tensors = Tensors::open_folder(folder)?;
    let names = TensorNames::of(&config, &tensors);
    let other = tensors.names().filter(|name| names.parameter(name).is_none()).count();
    let second =
        tensors.names().filter(|name| config.family().is_mtp_tensor(&config, name)).count();
    let notes =
        [("the image encoder is", other), ("the multi-token-prediction layers are", second)];
    let note = |(what, count): (&str, usize)| {
        (count > 0).then(|| format!("{what} left out (tensors: {count})"))
    };
    Ok(notes.into_iter().filter_map(note).collect())
}

/// Writes a checkpoint folder atomically: the files that transformers needs, and whatever
/// `extra(folder)` adds (training state, metrics).
pub fn save_checkpoint<E: From<ModelError> + From<HubError>>(
    folder: &Path,
    model: &Model,
    params: &Params,
    text: &TextSetup,
    extra: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    write_folder_atomically(folder, |folder| {
        write_model(folder, model, params, text, FloatType::F32)?;
        extra(folder)
    })
}

fn write_model(
    folder: &Path,
    model: &Model,
    params: &Params,
    text: &TextSetup,
    dtype: FloatType,
) -> Result<(), ModelError> {
    let ids: Vec<ParamId> = params.ids().collect();
    let config = model.config();
    if let Some(adapted) = &config.adapter {
        return adapter::write(folder, model, adapted, params, text);
    }
    let tensor = |group: TensorGroup| {
        let FileTensor { name, shape, .. } = group.tensor.clone();
        let values = if let Some(index) = group.parameter() {
            read_by_rows(params, ids[index])
        } else {
            let read = |index: usize| Ok(params.read(ids[index]));
            whole(move || Ok(Cow::Owned(group.values(config, params.specs(), read)?)))
        };
        Tensor { name, shape, dtype, values }
    };
    let tensors: Vec<Tensor<'_>> =
        TensorGroup::all(config, params.specs()).into_iter().map(tensor).collect();
    write_files(folder, config, Some(text), dtype, &tensors, SHARD_BYTES)
}

/// The values of a parameter, for a tensor that has them as they are.
pub fn read_by_rows(params: &Params, id: ParamId) -> Values<'_> {
    let spec = params.spec(id);
    by_rows(spec.rows(), spec.row_len(), move |rows| params.read_rows(id, rows))
}

/// The parameters that are written as one tensor: one, or all experts of a layer if fused.
pub(crate) struct TensorGroup {
    pub(crate) tensor: FileTensor,
    members: Vec<usize>,
}

impl TensorGroup {
    /// The groups of a model, in the order of its parameters' specs.
    pub(crate) fn all(config: &Config, specs: &[ParamSpec]) -> Vec<TensorGroup> {
        let mut groups: Vec<TensorGroup> = Vec::new();
        let mut positions = HashMap::new();
        for (index, spec) in specs.iter().enumerate() {
            let tensor = FileTensor::new(config, spec, TensorNames::PLAIN);
            let position = *positions.entry(tensor.name.clone()).or_insert(groups.len());
            if position == groups.len() {
                groups.push(TensorGroup { tensor, members: Vec::new() });
            }
            groups[position].members.push(index);
        }
        groups
    }

    /// Index of the first parameter.
    pub(crate) fn first(&self) -> usize {
        self.members[0]
    }

    /// The parameter, if the tensor has its values as they are.
    fn parameter(&self) -> Option<usize> {
        (!self.tensor.transposed && self.tensor.fused.is_none()).then(|| self.first())
    }

    /// The tensor's values, assembled from its parameters.
    pub(crate) fn values(
        &self,
        config: &Config,
        specs: &[ParamSpec],
        mut read: impl FnMut(usize) -> Result<Vec<f32>, HubError>,
    ) -> Result<Vec<f32>, HubError> {
        if let Some(index) = self.parameter() {
            return read(index);
        }
        if self.tensor.transposed {
            return Ok(transpose(&read(self.first())?, self.tensor.shape[0]));
        }
        let mut all = vec![0.0; self.tensor.shape.iter().product()];
        for &index in &self.members {
            let spec = &specs[index];
            if let Some(fused) = FileTensor::new(config, spec, TensorNames::PLAIN).fused {
                fused.insert(&mut all, &read(index)?, spec.shape[0]);
            }
        }
        Ok(all)
    }
}

/// Maximum size of a weight file in bytes, transformers' default.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// Writes the files that transformers loads: `config.json` with `dtype`, weights in files of at
/// most `shard_bytes` bytes, and the tokenizer if there is one.
pub(crate) fn write_files(
    folder: &Path,
    config: &Config,
    text: Option<&TextSetup>,
    dtype: FloatType,
    tensors: &[Tensor<'_>],
    shard_bytes: u64,
) -> Result<(), ModelError> {
    write_config(folder, config, text, dtype)?;
    Ok(write_weights(folder, tensors, shard_bytes)?)
}

/// Writes `config.json` with `dtype`, and the tokenizer if there is one.
pub(crate) fn write_config(
    folder: &Path,
    config: &Config,
    text: Option<&TextSetup>,
    dtype: FloatType,
) -> Result<(), ModelError> {
    let mut config = config.clone();
    if let Some(text) = text {
        config.eos_token_id = vec![text.eos];
        text.save(folder)?;
    }
    let path = folder.join("config.json");
    let json = format!("{:#}\n", config.to_json(dtype));
    Ok(fs::write(&path, json).map_err(|e| HubError::io("write", &path, e))?)
}
