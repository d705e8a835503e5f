//! An adapter on disk, opened but not loaded: what it is, and its export for llama.cpp.

use std::fs;
use std::path::{Path, PathBuf};

use crisol_hub::{GgmlType, HubError, Tensors, resolve_folder};

use super::{Adapted, CONFIG_FILE, MAGNITUDE, PREFIX, SCORE, WEIGHTS_FILE, config_of, is_adapter};
use crate::files::{WeightSummary, summary};
use crate::model::specs;
use crate::{Config, Head, ModelError, gguf};

/// The files of an adapter. Only headers are read on opening.
#[derive(Debug)]
pub struct AdapterFiles {
    folder: PathBuf,
    config: Config,
    adapted: Adapted,
    tensors: Tensors,
    modules: Vec<AdapterModule>,
}

/// A linear layer with an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterModule {
    /// Name of the layer, `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// Rows of the layer's weight.
    pub rows: usize,
    /// Columns of the layer's weight.
    pub cols: usize,
    /// Rank of the update.
    pub rank: usize,
}

impl AdapterFiles {
    /// Opens an adapter's folder; `None` if it holds none. The base is needed only for a folder
    /// without `config.json`.
    pub fn open(folder: &Path) -> Result<Option<AdapterFiles>, ModelError> {
        let folder = resolve_folder(folder)?;
        if !is_adapter(&folder) {
            return Ok(None);
        }
        let config = config_of(&folder)?;
        let Some(adapted) = config.adapter.clone() else { return Ok(None) };
        let tensors = Tensors::open(&folder.join(WEIGHTS_FILE))?;
        let shape = |name: &str| tensors.shape(&format!("{PREFIX}{name}"));
        let refused = |cause: String| ModelError::Adapter {
            file: folder.join(CONFIG_FILE),
            cause,
            remedy: "Use it with its own base",
        };
        let mut modules = Vec::new();
        let mut known = 0;
        for spec in specs(&config) {
            known += usize::from(shape(&spec.name).is_some());
            let (Some(module), &[rows, cols]) =
                (spec.name.strip_suffix(".weight"), &spec.shape[..])
            else {
                continue;
            };
            let [a, b] = ["A", "B"].map(|part| shape(&format!("{module}.lora_{part}.weight")));
            match (a, b) {
                (None, None) => {}
                (Some(&[rank, in_dim]), Some(&[out, of_b]))
                    if (in_dim, out, of_b) == (cols, rows, rank) && rank > 0 =>
                {
                    modules.push(AdapterModule { name: module.to_owned(), rows, cols, rank });
                    known += 2 + usize::from(shape(&format!("{module}{MAGNITUDE}")).is_some());
                }
                _ => {
                    let cause = format!(
                        "lora_A and lora_B of {module} are no pair for a weight of {rows}×{cols}"
                    );
                    return Err(refused(cause));
                }
            }
        }
        known += usize::from(config.head != Head::Scalar && shape(SCORE).is_some());
        if known < tensors.names().count() {
            return Err(refused("it has tensors that belong to no weight of the base".into()));
        }
        Ok(Some(AdapterFiles { folder, config, adapted, tensors, modules }))
    }

    /// The base's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Rank, scale, targets and base.
    pub fn adapted(&self) -> &Adapted {
        &self.adapted
    }

    /// The layers with an adapter, in the order of the model.
    pub fn modules(&self) -> &[AdapterModule] {
        &self.modules
    }

    /// Names of the tensors that replace the base's, or are in addition to them (a scalar head).
    pub fn whole(&self) -> Vec<&str> {
        let own = self.tensors.names().filter_map(|name| name.strip_prefix(PREFIX));
        own.filter(|name| !name.contains(".lora_")).collect()
    }

    /// Number of trained parameters.
    pub fn parameters(&self) -> u64 {
        let shapes = self.tensors.names().filter_map(|name| self.tensors.shape(name));
        shapes.map(|shape| shape.iter().product::<usize>() as u64).sum()
    }

    /// Tensors by element type, largest total first.
    pub fn weight_summary(&self) -> Vec<WeightSummary> {
        summary(self.tensors.names().filter_map(|name| self.tensors.dtype_and_bytes(name)))
    }

    /// Writes a GGUF file for llama.cpp (`--lora`), atomically, with matrices as `dtype`.
    pub fn export_gguf(&self, file: &Path, dtype: GgmlType) -> Result<(), ModelError> {
        let refused = |cause: String| ModelError::Adapter {
            file: self.folder.join(CONFIG_FILE),
            cause: format!("this adapter cannot be written as a GGUF file: {cause}"),
            remedy: "Merge it into its base (crisol merge BASE ADAPTER --out DIR) and export that",
        };
        if self.adapted.config.dora {
            return Err(refused("its norms (DoRA) have no place in llama.cpp".into()));
        }
        if let Some(name) = self.whole().first() {
            return Err(refused(format!(
                "it has {name} as a whole, and llama.cpp takes A and B only"
            )));
        }
        if self.modules.is_empty() {
            return Err(refused("it has no weights".into()));
        }
        let parent = file.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(parent).map_err(|e| HubError::io("create", parent, e))?;
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy();
        let read =
            |name: &str, shape: &[usize]| self.tensors.read(&format!("{PREFIX}{name}"), shape);
        let Adapted { config: adapter, .. } = &self.adapted;
        let modules = &self.modules;
        gguf::adapter::write(file, &self.config, &name, adapter, modules, &read, dtype, refused)
    }
}
