//! Names and layouts of parameters in GGUF files (llama.cpp's `tensor_mapping.py`).
//!
//! | parameter | in GGUF |
//! |---|---|
//! | Llama's `q_proj`, `k_proj` | rows reordered for adjacent RoPE pairs |
//! | experts of a layer | one tensor `[experts, out, in]` |
//! | DeepSeek's `kv_b_proj` | two tensors, keys transposed (one tensor before May 2025) |
//! | norms with factors 1 + weight | the factors |
//! | all others | the same matrix under another name |

use std::ops::Range;

use crisol_engine::{ParamSpec, WeightFormat};
use crisol_hub::{Gguf, HubError};

use crate::Config;
use crate::architectures::Family;
use crate::block::NormKind;
use crate::weights::{Bytes, FileMatrix, interleaved_row};

/// The tensors that hold one parameter.
#[derive(Clone)]
pub(crate) enum TensorMapping {
    Whole {
        tensor: String,
        /// Head width, if rows are reordered (see [`interleaved_row`]).
        interleaved_head_dim: Option<usize>,
    },
    /// The weight of a norm, as the factors 1 + weight.
    PlusOne { tensor: String },
    /// One expert of a tensor `[experts, out, in]`.
    Expert { tensor: String, expert: usize, experts: usize },
    /// `kv_b_proj`: per head, transposed rows of the key and rows of the value.
    Latent { keys: String, values: String, expansion: Expansion },
}

impl TensorMapping {
    /// The tensors to which a parameter is written.
    pub(super) fn for_export(config: &Config, spec: &ParamSpec) -> TensorMapping {
        let family = config.family();
        if let Some((start, rest)) = spec.name.split_once(".experts.")
            && let Some((expert, part)) = rest.split_once('.')
            && let (Ok(expert), Some((experts, _))) = (expert.parse(), config.routed_experts())
        {
            let name = format!("{start}.experts.{part}");
            return TensorMapping::Expert { tensor: gguf_name(&name, family), expert, experts };
        }
        let tensor = gguf_name(&spec.name, family);
        if family.norm() == NormKind::RmsPlusOne && spec.name.ends_with("norm.weight") {
            return TensorMapping::PlusOne { tensor };
        }
        family
            .gguf_mapping(config, spec, &tensor)
            .unwrap_or(TensorMapping::Whole { tensor, interleaved_head_dim: None })
    }

    /// The tensors of a given file that hold a parameter.
    pub(super) fn in_file(gguf: &Gguf, config: &Config, spec: &ParamSpec) -> TensorMapping {
        match TensorMapping::for_export(config, spec) {
            TensorMapping::Latent { keys, .. } if gguf.shape(&keys).is_none() => {
                let tensor = gguf_name(&spec.name, config.family());
                if gguf.shape(&tensor).is_some() {
                    TensorMapping::Whole { tensor, interleaved_head_dim: None }
                } else {
                    TensorMapping::for_export(config, spec)
                }
            }
            mapping => mapping,
        }
    }

    /// Where A or B of the parameter's adapter is. Of a reordered matrix, B's rows are reordered.
    pub(super) fn of_adapter(self, part: &str) -> TensorMapping {
        let name = |tensor: String| format!("{tensor}.lora_{}", part.to_lowercase());
        match self {
            TensorMapping::Whole { tensor, interleaved_head_dim } => TensorMapping::Whole {
                tensor: name(tensor),
                interleaved_head_dim: interleaved_head_dim.filter(|_| part == "B"),
            },
            TensorMapping::Expert { tensor, expert, experts } => {
                TensorMapping::Expert { tensor: name(tensor), expert, experts }
            }
            TensorMapping::PlusOne { .. } | TensorMapping::Latent { .. } => self,
        }
    }

    /// Names and shapes of the tensors that hold a parameter of this shape.
    pub(super) fn tensors(self, shape: &[usize]) -> Vec<(String, Vec<usize>)> {
        match self {
            TensorMapping::Whole { tensor, .. } | TensorMapping::PlusOne { tensor } => {
                vec![(tensor, shape.to_vec())]
            }
            TensorMapping::Expert { tensor, experts, .. } => {
                vec![(tensor, [&[experts], shape].concat())]
            }
            TensorMapping::Latent {
                keys,
                values,
                expansion: Expansion { heads, key, value, rank },
            } => {
                vec![(keys, vec![heads, rank, key]), (values, vec![heads, value, rank])]
            }
        }
    }

    /// The parameter's values in Hugging Face's layout.
    pub(super) fn read(&self, gguf: &Gguf, shape: &[usize]) -> Result<Vec<f32>, HubError> {
        let read_and_release = |tensor: &str| -> Result<Vec<f32>, HubError> {
            let values = gguf.read(tensor)?;
            let mapped = gguf.mapped(tensor)?;
            mapped.release(0..mapped.len());
            Ok(values)
        };
        match self {
            TensorMapping::Whole { tensor, interleaved_head_dim: None } => read_and_release(tensor),
            &TensorMapping::Whole { ref tensor, interleaved_head_dim: Some(head_dim) } => {
                let values = read_and_release(tensor)?;
                let width = values.len() / shape[0];
                let row = |row: usize| &values[interleaved_row(row, head_dim) * width..][..width];
                Ok((0..shape[0]).flat_map(row).copied().collect())
            }
            TensorMapping::PlusOne { tensor } => {
                Ok(read_and_release(tensor)?.into_iter().map(|factor| factor - 1.0).collect())
            }
            &TensorMapping::Expert { ref tensor, expert, .. } => {
                let rows = expert_rows(expert, shape);
                let values = gguf.read_rows(tensor, rows.clone())?;
                let mapped = gguf.mapped_rows(tensor, rows)?;
                mapped.release(0..mapped.len());
                Ok(values)
            }
            TensorMapping::Latent { keys, values, expansion } => {
                Ok(expansion.join(&read_and_release(keys)?, &read_and_release(values)?))
            }
        }
    }

    /// The weight format, if inference can use the tensor without conversion.
    pub(super) fn weight_format(&self, gguf: &Gguf) -> Option<WeightFormat> {
        // Unsupported types are refused by the conversion to f32.
        let format = |tensor: &str| WeightFormat::from_name(&gguf.dtype(tensor)?.to_string());
        match self {
            TensorMapping::Whole { tensor, .. } | TensorMapping::Expert { tensor, .. } => {
                format(tensor)
            }
            TensorMapping::PlusOne { .. } => None,
            // Quantisation blocks cannot be transposed.
            TensorMapping::Latent { keys, values, .. } => format(keys).filter(|keys_format| {
                keys_format.block().0 == 1 && format(values) == Some(*keys_format)
            }),
        }
    }

    /// The matrix in the file's weight format, if inference can use it.
    pub(super) fn matrix<'a>(
        &self,
        gguf: &'a Gguf,
        shape: &[usize],
    ) -> Result<Option<FileMatrix<'a>>, HubError> {
        let Some(format) = self.weight_format(gguf) else { return Ok(None) };
        Ok(Some(match self {
            &TensorMapping::Whole { ref tensor, interleaved_head_dim } => FileMatrix {
                format,
                bytes: Bytes::Mapped(gguf.mapped(tensor)?),
                interleaved_head_dim,
            },
            &TensorMapping::Expert { ref tensor, expert, .. } => {
                let bytes = Bytes::Mapped(gguf.mapped_rows(tensor, expert_rows(expert, shape))?);
                FileMatrix { format, bytes, interleaved_head_dim: None }
            }
            // Has no format.
            TensorMapping::PlusOne { .. } => return Ok(None),
            TensorMapping::Latent { keys, values, expansion } => {
                let (keys, values) = (gguf.mapped(keys)?, gguf.mapped(values)?);
                let bytes = match format {
                    WeightFormat::F32 => expansion
                        .join(keys.as_chunks::<4>().0, values.as_chunks::<4>().0)
                        .into_flattened(),
                    _ => expansion
                        .join(keys.as_chunks::<2>().0, values.as_chunks::<2>().0)
                        .into_flattened(),
                };
                for mapped in [keys, values] {
                    mapped.release(0..mapped.len());
                }
                FileMatrix { format, bytes: Bytes::Gathered(bytes), interleaved_head_dim: None }
            }
        }))
    }
}

/// Rows of one expert in a tensor `[experts, out, in]`, or `[experts, out]` of biases.
fn expert_rows(expert: usize, shape: &[usize]) -> Range<usize> {
    // A bias is one row.
    let rows = if let [rows, _] = *shape { rows } else { 1 };
    expert * rows..(expert + 1) * rows
}

/// Dimensions of `kv_b_proj`; `key` and `value` are widths per head.
#[derive(Clone, Copy)]
pub(crate) struct Expansion {
    pub(crate) heads: usize,
    pub(crate) key: usize,
    pub(crate) value: usize,
    pub(crate) rank: usize,
}

impl Expansion {
    /// `[heads · (key + value), rank]` from keys `[heads, rank, key]` and values `[heads, value,
    /// rank]`.
    fn join<T: Copy>(self, keys: &[T], values: &[T]) -> Vec<T> {
        let Expansion { heads, key, value, rank } = self;
        let mut all = Vec::with_capacity(keys.len() + values.len());
        for head in 0..heads {
            let keys = &keys[head * rank * key..][..rank * key];
            all.extend((0..key).flat_map(|row| (0..rank).map(move |i| keys[i * key + row])));
            all.extend_from_slice(&values[head * value * rank..][..value * rank]);
        }
        all
    }

    /// The inverse of [`Self::join`]: the keys `[heads, rank, key]`.
    pub(super) fn keys(self, all: &[f32]) -> Vec<f32> {
        let Expansion { key, rank, .. } = self;
        let transposed = |head| {
            let keys = &self.rows(all, head)[..key * rank];
            (0..rank).flat_map(move |i| (0..key).map(move |row| keys[row * rank + i]))
        };
        (0..self.heads).flat_map(transposed).collect()
    }

    /// The inverse of [`Self::join`]: the values `[heads, value, rank]`.
    pub(super) fn values(self, all: &[f32]) -> Vec<f32> {
        (0..self.heads)
            .flat_map(|head| &self.rows(all, head)[self.key * self.rank..])
            .copied()
            .collect()
    }

    /// `FileMatrix` of one head.
    fn rows(self, all: &[f32], head: usize) -> &[f32] {
        let size = (self.key + self.value) * self.rank;
        &all[head * size..][..size]
    }
}

/// Layer parts by their name in Hugging Face's files and in GGUF, the same in most architectures;
/// see [`Family::gguf_parts`] for the others.
const PARTS: [(&str, &str); 12] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("gate_proj", "ffn_gate"),
    ("up_proj", "ffn_up"),
    ("down_proj", "ffn_down"),
];

/// The GGUF name of a parameter.
fn gguf_name(name: &str, family: &dyn Family) -> String {
    let outer = family.outer_names();
    let Some(rest) = name.strip_prefix(outer.layers) else {
        let (start, kind) = name.rsplit_once('.').unwrap_or((name, ""));
        let part = match start {
            start if start == outer.embedding => "token_embd",
            start if Some(start) == outer.positions => "position_embd",
            start if start == outer.norm => "output_norm",
            _ => "output",
        };
        return format!("{part}.{kind}");
    };
    let (layer, rest) = rest.split_once('.').unwrap_or(("", rest));
    let named = |part: &str| {
        let mut parts = family.gguf_parts().iter().chain(&PARTS);
        parts.find(|(known, _)| *known == part).map(|(_, gguf)| *gguf)
    };
    if let Some(parameter) = named(rest) {
        return format!("blk.{layer}.{parameter}");
    }
    let (part, kind) = rest.rsplit_once('.').unwrap_or((rest, ""));
    // Dense feed-forward layers and experts.
    let part = ["mlp.", "feed_forward.", "block_sparse_moe."]
        .iter()
        .find_map(|start| part.strip_prefix(start))
        .unwrap_or(part);
    let (part, suffix) = match part.split_once('.') {
        Some(("experts", part)) => (part, "_exps"),
        Some(("shared_expert" | "shared_experts", part)) => (part, "_shexp"),
        _ => (part, ""),
    };
    let gguf_part = named(part).unwrap_or(part);
    format!("blk.{layer}.{gguf_part}{suffix}.{kind}")
}
