//! Where a model's parameters are in GGUF files. llama.cpp has names of its own, keeps the rows of Llama's queries and keys in
//! another order, the matrices of all experts of a layer in one tensor, and DeepSeek's expansion of the latent vector in two
//! tensors (in one, as Hugging Face, in files from before May 2025).

use std::ops::Range;

use crisol_engine::{ParamSpec, WeightFormat};
use crisol_hub::{Gguf, HubError};

use super::EMBEDDING;
use crate::config::Specifics;
use crate::weights::{Bytes, Rows, row_in_pairs};
use crate::{Architecture, Config};

pub(super) enum Place {
    Whole {
        tensor: String,
        /// Scalars of a head whose rows are in another order (see [`row_in_pairs`]).
        head_in_pairs: Option<usize>,
    },
    /// One of the matrices in a tensor.
    Expert { tensor: String, expert: usize, experts: usize },
    /// `kv_b_proj`: of every head, rows for its key, which are transposed here, and rows for its value.
    Latent { keys: String, values: String, expansion: Expansion },
}

impl Place {
    /// Where a parameter is written.
    pub(super) fn of(config: &Config, spec: &ParamSpec) -> Place {
        let tensor = name_in_file(&spec.name, config.architecture);
        if let Some((start, rest)) = spec.name.split_once(".experts.")
            && let Some((expert, part)) = rest.split_once('.')
            && let (Ok(expert), Some((experts, _))) = (expert.parse(), config.routed_experts())
        {
            let name = format!("{start}.experts.{part}");
            return Place::Expert {
                tensor: name_in_file(&name, config.architecture),
                expert,
                experts,
            };
        }
        if let Specifics::DeepseekV3(shape) = &config.specifics
            && let Some(prefix) = tensor.strip_suffix("attn_kv_b.weight")
        {
            let expansion = Expansion {
                heads: config.num_attention_heads,
                key: shape.qk_nope_head_dim,
                value: shape.v_head_dim,
                rank: shape.kv_lora_rank,
            };
            let [keys, values] =
                ["attn_k_b", "attn_v_b"].map(|part| format!("{prefix}{part}.weight"));
            return Place::Latent { keys, values, expansion };
        }
        let rotated = ["q_proj", "k_proj"].iter().any(|part| spec.name.contains(part));
        let in_pairs = config.architecture == Architecture::Llama && rotated;
        Place::Whole { tensor, head_in_pairs: in_pairs.then_some(config.head_dim) }
    }

    /// Where it is in this file.
    pub(super) fn in_file(gguf: &Gguf, config: &Config, spec: &ParamSpec) -> Place {
        match Place::of(config, spec) {
            Place::Latent { keys, .. } if gguf.shape(&keys).is_none() => {
                let tensor = name_in_file(&spec.name, config.architecture);
                if gguf.shape(&tensor).is_some() {
                    Place::Whole { tensor, head_in_pairs: None }
                } else {
                    Place::of(config, spec)
                }
            }
            place => place,
        }
    }

    /// The tensors that a parameter of this shape is in, and their shapes.
    pub(super) fn tensors(self, shape: &[usize]) -> Vec<(String, Vec<usize>)> {
        match self {
            Place::Whole { tensor, .. } => vec![(tensor, shape.to_vec())],
            Place::Expert { tensor, experts, .. } => vec![(tensor, [&[experts], shape].concat())],
            Place::Latent { keys, values, expansion: Expansion { heads, key, value, rank } } => {
                vec![(keys, vec![heads, rank, key]), (values, vec![heads, value, rank])]
            }
        }
    }

    /// The parameter's values, in the order of Hugging Face's files.
    pub(super) fn read(&self, gguf: &Gguf, shape: &[usize]) -> Result<Vec<f32>, HubError> {
        let whole = |tensor: &str| -> Result<Vec<f32>, HubError> {
            let values = gguf.read(tensor)?;
            let mapped = gguf.mapped(tensor)?;
            mapped.release(0..mapped.len());
            Ok(values)
        };
        match self {
            Place::Whole { tensor, head_in_pairs: None } => whole(tensor),
            &Place::Whole { ref tensor, head_in_pairs: Some(head_dim) } => {
                let values = whole(tensor)?;
                let width = values.len() / shape[0];
                let row = |row: usize| &values[row_in_pairs(row, head_dim) * width..][..width];
                Ok((0..shape[0]).flat_map(row).copied().collect())
            }
            &Place::Expert { ref tensor, expert, .. } => {
                let rows = rows_of(expert, shape);
                let values = gguf.read_rows(tensor, rows.clone())?;
                let mapped = gguf.mapped_rows(tensor, rows)?;
                mapped.release(0..mapped.len());
                Ok(values)
            }
            Place::Latent { keys, values, expansion } => {
                Ok(expansion.join(&whole(keys)?, &whole(values)?))
            }
        }
    }

    /// The type in which inference can use it, if it can be as it is stored.
    pub(super) fn weight_format(&self, gguf: &Gguf) -> Option<WeightFormat> {
        // For another type, widening says that it is not supported.
        let kind = |tensor: &str| WeightFormat::named(&gguf.dtype(tensor)?.to_string());
        match self {
            Place::Whole { tensor, .. } | Place::Expert { tensor, .. } => kind(tensor),
            // Transposed blocks are no blocks.
            Place::Latent { keys, values, .. } => kind(keys).filter(|kind_of_keys| {
                kind_of_keys.block().0 == 1 && kind(values) == Some(*kind_of_keys)
            }),
        }
    }

    /// A matrix as it is stored, if inference can use it so.
    pub(super) fn stored<'a>(
        &self,
        gguf: &'a Gguf,
        shape: &[usize],
    ) -> Result<Option<Rows<'a>>, HubError> {
        let Some(kind) = self.weight_format(gguf) else { return Ok(None) };
        Ok(Some(match self {
            &Place::Whole { ref tensor, head_in_pairs } => {
                Rows { kind, bytes: Bytes::Mapped(gguf.mapped(tensor)?), head_in_pairs }
            }
            &Place::Expert { ref tensor, expert, .. } => {
                let bytes = Bytes::Mapped(gguf.mapped_rows(tensor, rows_of(expert, shape))?);
                Rows { kind, bytes, head_in_pairs: None }
            }
            Place::Latent { keys, values, expansion } => {
                let (keys, values) = (gguf.mapped(keys)?, gguf.mapped(values)?);
                let bytes = match kind {
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
                Rows { kind, bytes: Bytes::Gathered(bytes), head_in_pairs: None }
            }
        }))
    }
}

/// The rows of a tensor of all experts that are one's.
fn rows_of(expert: usize, shape: &[usize]) -> Range<usize> {
    expert * shape[0]..(expert + 1) * shape[0]
}

/// The expansion of a latent vector to every head's key and value, in scalars.
#[derive(Clone, Copy)]
pub(super) struct Expansion {
    heads: usize,
    key: usize,
    value: usize,
    rank: usize,
}

impl Expansion {
    /// `[heads · (key + value), rank]` from keys `[heads, rank, key]` and values `[heads, value, rank]`.
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

    /// The keys of that, as they are joined.
    pub(super) fn keys(self, all: &[f32]) -> Vec<f32> {
        let Expansion { key, rank, .. } = self;
        let transposed = |head| {
            let keys = &self.rows(all, head)[..key * rank];
            (0..rank).flat_map(move |i| (0..key).map(move |row| keys[row * rank + i]))
        };
        (0..self.heads).flat_map(transposed).collect()
    }

    /// The values.
    pub(super) fn values(self, all: &[f32]) -> Vec<f32> {
        (0..self.heads)
            .flat_map(|head| &self.rows(all, head)[self.key * self.rank..])
            .copied()
            .collect()
    }

    /// A head's rows.
    fn rows(self, all: &[f32], head: usize) -> &[f32] {
        let size = (self.key + self.value) * self.rank;
        &all[head * size..][..size]
    }
}

/// Our parts of a layer, and llama.cpp's. What follows the attention's norm is Llama's norm before the feed-forward layer, but
/// OLMo-2's norm after the attention.
const PARTS: [(&str, &str); 19] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("self_attn.kv_b_proj", "attn_kv_b"),
    ("input_layernorm", "attn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("router", "ffn_gate_inp"),
    ("gate", "ffn_gate_inp"),
    ("gate_proj", "ffn_gate"),
    ("up_proj", "ffn_up"),
    ("down_proj", "ffn_down"),
];

/// A tensor's name.
fn name_in_file(name: &str, architecture: Architecture) -> String {
    let rest = match name {
        "model.embed_tokens.weight" => return EMBEDDING.into(),
        "model.norm.weight" => return "output_norm.weight".into(),
        "lm_head.weight" => return "output.weight".into(),
        name => name.strip_prefix("model.layers.").unwrap_or(name),
    };
    let (layer, rest) = rest.split_once('.').unwrap_or(("", rest));
    let (part, kind) = rest.rsplit_once('.').unwrap_or((rest, ""));
    if kind == "e_score_correction_bias" {
        return format!("blk.{layer}.exp_probs_b.bias");
    }
    // Feed-forward layers, experts among them.
    let part =
        ["mlp.", "feed_forward."].iter().find_map(|start| part.strip_prefix(start)).unwrap_or(part);
    let (part, whose) = match part.split_once('.') {
        Some(("experts", part)) => (part, "_exps"),
        Some(("shared_expert" | "shared_experts", part)) => (part, "_shexp"),
        _ => (part, ""),
    };
    let theirs = match (part, architecture) {
        ("post_attention_layernorm", Architecture::Olmo2) => "post_attention_norm",
        ("post_attention_layernorm", _) => "ffn_norm",
        _ => PARTS.iter().find(|(ours, _)| *ours == part).map_or(part, |(_, theirs)| theirs),
    };
    format!("blk.{layer}.{theirs}{whose}.{kind}")
}
