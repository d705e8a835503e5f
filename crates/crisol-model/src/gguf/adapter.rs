//! Low-rank adapters in GGUF files, as llama.cpp's `convert_lora_to_gguf.py` writes them: for each
//! base tensor, `NAME.lora_a` `[rank, in]` and `NAME.lora_b` `[out, rank]`.
//!
//! llama.cpp multiplies every update by one alpha / rank. In a file that Crisol writes, B takes the
//! rest where scales differ.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crisol_engine::{Init, ParamSpec, Role};
use crisol_hub::{
    GgmlType, Gguf, GgufTensor, HubError, Metadata, whole, write_file_atomically_with, write_gguf,
};

use super::keys::optional;
use super::tensor_mapping::TensorMapping;
use super::write::{gguf_dtype, interleave_rows};
use crate::adapter::{AdapterConfig, AdapterModule};
use crate::files::{WeightSummary, summary};
use crate::model::specs;
use crate::weights::check_finite;
use crate::{Config, ModelError};

/// Whether a file's metadata are those of an adapter.
pub(crate) fn is_adapter(metadata: &Metadata) -> bool {
    metadata.string("general.type").is_ok_and(|kind| kind == "adapter")
}

/// An adapter in a GGUF file. It names its base's architecture, but neither base nor shape.
#[derive(Debug)]
pub struct GgufAdapter {
    file: PathBuf,
    gguf: Gguf,
    architecture: String,
    /// 0 for scales of 1.
    alpha: f64,
    /// Ranks by the base's tensor, `blk.0.attn_q.weight`.
    ranks: BTreeMap<String, usize>,
}

/// A or B of a module, with its place in the file.
pub(crate) struct AdapterPart {
    pub(crate) spec: ParamSpec,
    mapping: TensorMapping,
}

impl GgufAdapter {
    /// Opens an adapter's GGUF file; `None` if the file holds a model or if this is a folder. Only
    /// the header is read. What llama.cpp's converter does not write is an error, and so are
    /// activated adapters (aLoRA).
    pub fn open(file: &Path) -> Result<Option<GgufAdapter>, ModelError> {
        if !file.is_file() {
            return Ok(None);
        }
        let gguf = Gguf::open(file)?;
        let metadata = gguf.metadata();
        if !is_adapter(metadata) {
            return Ok(None);
        }
        let unusable = |cause: String| refused(file, cause, "Take the file from its source");
        let kind = metadata.string("adapter.type")?;
        if kind != "lora" {
            return Err(unusable(format!("adapter.type is {kind:?}; only \"lora\" is supported")));
        }
        if metadata.get("adapter.alora.invocation_tokens").is_some() {
            return Err(refused(
                file,
                "it works from a certain token on (aLoRA), which is not supported".into(),
                "Take an adapter without adapter.alora.invocation_tokens",
            ));
        }
        let architecture = metadata.string("general.architecture")?.to_owned();
        let alpha = optional(metadata, "adapter.lora.alpha", |key| metadata.f32(key))?;
        let alpha = alpha.map_or(0.0, f64::from);
        if !alpha.is_finite() {
            return Err(unusable(format!("adapter.lora.alpha is {alpha}")));
        }
        let mut ranks = BTreeMap::new();
        for name in gguf.names() {
            let parts = [(".lora_a", ".lora_b"), (".lora_b", ".lora_a")];
            let pair = parts.iter().find_map(|(own, other)| {
                let tensor = name.strip_suffix(own)?;
                Some((tensor, gguf.shape(&format!("{tensor}{other}"))))
            });
            let (tensor, rank) = match (pair, gguf.shape(name)) {
                (None, _) => return Err(unusable(format!("{name} is neither lora_a nor lora_b"))),
                (Some((_, None)), _) => {
                    return Err(unusable(format!("it has {name} without the other of the pair")));
                }
                (Some((tensor, _)), Some(&[.., rank, _])) if name.ends_with('a') => (tensor, rank),
                (Some((tensor, _)), Some(&[_, .., rank])) => (tensor, rank),
                _ => return Err(unusable(format!("{name} is no matrix"))),
            };
            if rank == 0 || *ranks.entry(tensor.to_owned()).or_insert(rank) != rank {
                return Err(unusable(format!("lora_a and lora_b of {tensor} have no common rank")));
            }
        }
        if ranks.is_empty() {
            return Err(unusable("it has no weights".into()));
        }
        let file = file.to_owned();
        Ok(Some(GgufAdapter { file, gguf, architecture, alpha, ranks }))
    }

    /// llama.cpp's name of the base's architecture, such as `llama`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Rank, scale and targets, with llama.cpp's names of layers.
    pub fn config(&self) -> AdapterConfig {
        let layers = self.ranks.iter();
        self.config_of(layers.map(|(name, rank)| (name.trim_end_matches(".weight"), *rank)))
    }

    /// Number of tensors of the base with an adapter.
    pub fn tensors(&self) -> usize {
        self.ranks.len()
    }

    /// Number of trained parameters.
    pub fn parameters(&self) -> u64 {
        let shapes = self.gguf.names().filter_map(|name| self.gguf.shape(name));
        shapes.map(|shape| shape.iter().product::<usize>() as u64).sum()
    }

    /// Tensors by element type, largest total first.
    pub fn weight_summary(&self) -> Vec<WeightSummary> {
        summary(self.gguf.names().filter_map(|name| self.gguf.dtype_and_bytes(name)))
    }

    /// The settings that mean these modules with these ranks.
    fn config_of<'a>(&self, modules: impl Iterator<Item = (&'a str, usize)>) -> AdapterConfig {
        let modules: Vec<(&str, usize)> = modules.collect();
        let mut counts = BTreeMap::new();
        for (_, rank) in &modules {
            *counts.entry(*rank).or_insert(0) += 1;
        }
        let most = counts.iter().max_by_key(|(_, count)| **count);
        let rank = most.map_or(1, |(rank, _)| *rank);
        let others = || modules.iter().filter(move |(_, own)| *own != rank);
        let alphas = |(name, own): &(&str, usize)| (String::from(*name), *own as f64);
        let unscaled = self.alpha == 0.0;
        AdapterConfig {
            rank,
            alpha: if unscaled { rank as f64 } else { self.alpha },
            targets: modules
                .iter()
                .map(|(name, _)| crate::adapter::last_part(name).to_owned())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            rank_pattern: others().map(|(name, own)| ((*name).to_owned(), *own)).collect(),
            alpha_pattern: others().filter(|_| unscaled).map(alphas).collect(),
            ..AdapterConfig::default()
        }
    }

    /// The adapter over a base of this shape: its settings, and A and B of each module.
    pub(crate) fn over(
        &self,
        base: &Config,
    ) -> Result<(AdapterConfig, BTreeMap<String, AdapterPart>), ModelError> {
        let refused = |cause: String| refused(&self.file, cause, "Use it with its own base");
        let architecture = base.family().names().gguf;
        if self.architecture != architecture {
            let own = &self.architecture;
            return Err(refused(format!("it is for {own}, and the base is {architecture}")));
        }
        let mut unused: BTreeSet<&String> = self.ranks.keys().collect();
        let mut modules = Vec::new();
        let mut parts = BTreeMap::new();
        for spec in specs(base) {
            let (Some(module), &[rows, cols]) =
                (spec.name.strip_suffix(".weight"), &spec.shape[..])
            else {
                continue;
            };
            let mapping = TensorMapping::for_export(base, &spec);
            let (TensorMapping::Whole { tensor, .. } | TensorMapping::Expert { tensor, .. }) =
                &mapping
            else {
                continue;
            };
            let Some(&rank) = self.ranks.get(tensor) else { continue };
            unused.remove(tensor);
            if spec.role != Role::Hidden {
                return Err(refused(format!(
                    "{tensor} is an embedding table or a head, whose adapters are not supported"
                )));
            }
            modules.push((module.to_owned(), rank));
            for (part, shape) in [("A", [rank, cols]), ("B", [rows, rank])] {
                let mapping = mapping.clone().of_adapter(part);
                for (name, expected) in mapping.clone().tensors(&shape) {
                    let found = self.gguf.shape(&name).unwrap_or_default();
                    if found != expected {
                        return Err(refused(format!(
                            "{name} is {found:?}, and the base needs {expected:?}"
                        )));
                    }
                }
                let name = format!("{module}.lora_{part}.weight");
                let (shape, role) = (shape.to_vec(), Role::Hidden);
                let spec = ParamSpec { name: name.clone(), shape, init: Init::Zeros, role };
                parts.insert(name, AdapterPart { spec, mapping });
            }
        }
        if let Some(tensor) = unused.first() {
            return Err(refused(format!(
                "it adapts {tensor}, which is no linear layer of the base"
            )));
        }
        let modules = modules.iter().map(|(module, rank)| (module.as_str(), *rank));
        Ok((self.config_of(modules), parts))
    }

    /// Reads A or B in PEFT's layout.
    pub(crate) fn read(&self, part: &AdapterPart) -> Result<Vec<f32>, HubError> {
        part.mapping.read(&self.gguf, &part.spec.shape)
    }
}

fn refused(file: &Path, cause: String, remedy: &'static str) -> ModelError {
    ModelError::Adapter { file: file.to_owned(), cause, remedy }
}

/// Reads a tensor of an adapter, A or B, by its name and shape.
type Read<'a> = dyn Fn(&str, &[usize]) -> Result<Vec<f32>, HubError> + 'a;

/// Writes the adapter of these modules. `refused`: the error about what llama.cpp cannot represent.
pub(crate) fn write(
    file: &Path,
    config: &Config,
    name: &str,
    adapter: &AdapterConfig,
    modules: &[AdapterModule],
    read: &Read<'_>,
    dtype: GgmlType,
    refused: impl Fn(String) -> ModelError,
) -> Result<(), ModelError> {
    let family = config.family();
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", family.names().gguf);
    metadata.insert("general.type", "adapter");
    metadata.insert("general.name", name);
    metadata.insert("adapter.type", "lora");
    let alpha = adapter.scale("", adapter.rank) * adapter.rank as f64;
    metadata.insert("adapter.lora.alpha", alpha as f32);
    let mut all = Vec::new();
    for (index, module) in modules.iter().enumerate() {
        let spec = ParamSpec {
            name: format!("{}.weight", module.name),
            shape: vec![module.rows, module.cols],
            init: Init::Zeros,
            role: Role::Hidden,
        };
        // The rows of B that one head of rotated queries or keys has.
        let mut head_dim = None;
        // The number of experts in a tensor of all of a layer.
        let mut stacked = vec![];
        let without_adapters = || {
            let (class, name) = (family.names().class, &module.name);
            refused(format!("llama.cpp computes {name} of {class} without adapters"))
        };
        if !family.has_gguf_adapter(&module.name) {
            return Err(without_adapters());
        }
        let (tensor, parts) = match TensorMapping::for_export(config, &spec) {
            TensorMapping::Whole { tensor, interleaved_head_dim } => {
                head_dim = interleaved_head_dim;
                (tensor, std::slice::from_ref(module))
            }
            TensorMapping::Expert { tensor, expert: 0, experts } => {
                let parts = modules.get(index..index + experts);
                let next = |(at, part): (usize, &AdapterModule)| {
                    part.rank == module.rank
                        && part.name
                            == module.name.replace(".experts.0.", &format!(".experts.{at}."))
                };
                match parts.filter(|parts| parts.iter().enumerate().all(next)) {
                    Some(parts) => {
                        stacked = vec![experts];
                        (tensor, parts)
                    }
                    None => {
                        return Err(refused(format!(
                            "only some experts beside {} have an adapter of its rank",
                            module.name
                        )));
                    }
                }
            }
            TensorMapping::Expert { tensor, .. } => {
                if all.iter().all(|done: &GgufTensor<'_>| done.name != format!("{tensor}.lora_a")) {
                    return Err(refused(format!(
                        "{} has an adapter without expert 0",
                        module.name
                    )));
                }
                continue;
            }
            TensorMapping::PlusOne { .. } | TensorMapping::Latent { .. } => {
                return Err(without_adapters());
            }
        };
        for (part, gguf_part) in [("A", "lora_a"), ("B", "lora_b")] {
            let AdapterModule { rows, cols, rank, .. } = *module;
            let shape = if part == "A" { [rank, cols] } else { [rows, rank] };
            let values = move || {
                let mut values = Vec::new();
                for module in parts {
                    let own = format!("{}.lora_{part}.weight", module.name);
                    let mut tensor = read(&own, &shape)?;
                    check_finite(file, &own, &tensor)?;
                    if part == "B" {
                        let own = adapter.scale(&module.name, module.rank) * module.rank as f64;
                        if own != alpha {
                            let factor = (own / alpha) as f32;
                            for value in &mut tensor {
                                *value *= factor;
                            }
                        }
                        if let Some(head_dim) = head_dim {
                            tensor = interleave_rows(&tensor, head_dim, rows);
                        }
                    }
                    values.append(&mut tensor);
                }
                Ok(Cow::Owned(values))
            };
            let values = whole(values);
            let dtype = gguf_dtype(dtype, &tensor, &shape);
            let (name, shape) = (format!("{tensor}.{gguf_part}"), [&stacked[..], &shape].concat());
            all.push(GgufTensor { name, shape, dtype, values });
        }
    }
    Ok(write_file_atomically_with(file, |file| write_gguf(file, &metadata, &all))?)
}
