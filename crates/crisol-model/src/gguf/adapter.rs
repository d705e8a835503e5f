//! Writes low-rank adapters as GGUF files, as llama.cpp's `convert_lora_to_gguf.py` does: for each
//! base tensor, `NAME.lora_a` `[rank, in]` and `NAME.lora_b` `[out, rank]`.
//!
//! llama.cpp multiplies every update by one alpha / rank. B takes the rest where scales differ.

use std::borrow::Cow;
use std::path::Path;

use crisol_engine::{Init, ParamSpec, Role};
use crisol_hub::{
    GgmlType, GgufTensor, HubError, Metadata, Values, write_file_atomically_with, write_gguf,
};

use super::tensor_mapping::TensorMapping;
use super::write::{gguf_dtype, interleave_rows};
use crate::adapter::{AdapterConfig, AdapterModule};
use crate::weights::check_finite;
use crate::{Config, ModelError};

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
            let values: Values<'_> = Box::new(values);
            let dtype = gguf_dtype(dtype, &tensor, &shape);
            let (name, shape) = (format!("{tensor}.{gguf_part}"), [&stacked[..], &shape].concat());
            all.push(GgufTensor { name, shape, dtype, values });
        }
    }
    Ok(write_file_atomically_with(file, |file| write_gguf(file, &metadata, &all))?)
}
