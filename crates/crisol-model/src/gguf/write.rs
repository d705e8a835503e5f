//! Writes GGUF files as llama.cpp's `convert_hf_to_gguf.py` does.

use std::borrow::Cow;
use std::path::Path;

use crisol_engine::{ParamSpec, WeightFormat};
use crisol_hub::{
    Array, GgmlType, GgufTensor, HubError, Metadata, whole, write_file_atomically_with, write_gguf,
};
use crisol_text::{GgufVocab, TextSetup};

use super::keys::NewKeys;
use super::norm_eps;
use super::rope;
use super::tensor_mapping::TensorMapping;
use crate::weights::WeightSource;
use crate::{Config, Head, ModelError};

/// The file type number (`llama_ftype` in `llama.h`) of the prevalent tensor type.
fn file_type(dtype: GgmlType) -> u32 {
    match dtype {
        GgmlType::F16 => 1,
        GgmlType::Q8_0 => 7,
        GgmlType::BF16 => 32,
        _ => 0,
    }
}

/// Version of the quantisation formats (`GGML_QNT_VERSION` in `ggml.h`).
const QUANTISATION_VERSION: u32 = 2;

/// `LLAMA_MAX_EXPERTS` in `llama-hparams.h`.
const MAX_EXPERTS: usize = 1024;

/// Checks the values of a parameter before they are written.
type Check<'a> = dyn Fn(&ParamSpec, &[f32]) -> Result<(), HubError> + 'a;

/// Writes a GGUF file atomically. `source` opens the parameters described by `specs`.
pub(crate) fn write<'a>(
    file: &Path,
    config: &Config,
    text: Option<&TextSetup>,
    name: &str,
    specs: &'a [ParamSpec],
    source: &'a dyn Fn() -> Box<dyn WeightSource + 'a>,
    check: &'a Check<'a>,
    dtype: GgmlType,
) -> Result<(), ModelError> {
    let refused = |cause: String| ModelError::NotInGguf { cause };
    let family = config.family();
    let architecture = family.names().gguf;
    if config.head == Head::Scalar {
        return Err(refused(
            "it has a scalar head (reward or value model), and llama.cpp has none".into(),
        ));
    }
    if config.attention_bias && !family.has_gguf_attention_bias() {
        let class = family.names().class;
        return Err(refused(format!(
            "its attention has biases, and llama.cpp has none in {class} models"
        )));
    }
    if let Some((experts, _)) =
        config.routed_experts().filter(|&(experts, _)| experts > MAX_EXPERTS)
    {
        return Err(refused(format!(
            "it has {experts} experts, and llama.cpp supports at most {MAX_EXPERTS}"
        )));
    }
    let text = text.ok_or_else(|| refused("it has no tokenizer, and GGUF requires one".into()))?;
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", architecture);
    metadata.insert("general.type", "model");
    metadata.insert("general.name", name);
    metadata.insert("general.file_type", file_type(dtype));
    metadata.insert("general.quantization_version", QUANTISATION_VERSION);
    let mut keys = NewKeys { metadata: &mut metadata, architecture };
    keys.put_sizes(&[
        ("vocab_size", config.vocab_size),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("block_count", config.num_hidden_layers),
        ("attention.head_count", config.num_attention_heads),
    ]);
    family.write_gguf(&mut keys, config).map_err(refused)?;
    keys.put(norm_eps(family), config.rms_norm_eps);
    if family.rotated(config) > 0 {
        keys.put("rope.freq_base", config.rope_theta as f32);
    }
    let factors = rope::write(&mut keys, config).map_err(refused)?;
    put_vocab(&mut metadata, text.to_gguf(config.vocab_size)?);

    let opened = source();
    let mut all = Vec::new();
    for (name, factors) in factors {
        let shape = vec![factors.len()];
        let values = whole(move || Ok(Cow::Owned(factors.clone())));
        all.push(GgufTensor { name: name.into(), shape, dtype: GgmlType::F32, values });
    }
    for (index, spec) in specs.iter().enumerate() {
        let mapping = TensorMapping::for_export(config, spec);
        // Builds each tensor of the mapping, in order, from the parameter's values.
        let builders: Vec<BuildTensor> = match mapping {
            TensorMapping::Whole { interleaved_head_dim: None, .. } => {
                vec![Box::new(|values| values)]
            }
            TensorMapping::Whole { interleaved_head_dim: Some(head_dim), .. } => {
                let rows = spec.shape[0];
                vec![Box::new(move |values| interleave_rows(&values, head_dim, rows))]
            }
            TensorMapping::PlusOne { .. } => {
                vec![Box::new(|values| values.into_iter().map(|weight| 1.0 + weight).collect())]
            }
            // The first expert writes the tensor of all experts, which are adjacent in `specs`.
            TensorMapping::Expert { expert: 0, .. } => vec![Box::new(|values| values)],
            TensorMapping::Expert { .. } => continue,
            TensorMapping::Latent { expansion, .. } => vec![
                Box::new(move |values| expansion.keys(&values)),
                Box::new(move |values| expansion.values(&values)),
            ],
        };
        let count = if let TensorMapping::Expert { experts, .. } = mapping { experts } else { 1 };
        for ((name, shape), build) in mapping.tensors(&spec.shape).into_iter().zip(builders) {
            let values = move || {
                let mut source = source();
                let mut values = Vec::new();
                for (index, spec) in specs.iter().enumerate().skip(index).take(count) {
                    let mut own = source.values(index, spec)?;
                    check(spec, &own)?;
                    values.append(&mut own);
                }
                Ok(Cow::Owned(build(values)))
            };
            // Experts in MXFP4 stay as they are, as in llama.cpp's converter.
            let dtype = match opened.format(index, &specs[index])? {
                Some(WeightFormat::Mxfp4) => GgmlType::MXFP4,
                _ => gguf_dtype(dtype, &name, &shape),
            };
            all.push(GgufTensor { name, dtype, shape, values: whole(values) });
        }
    }
    Ok(write_file_atomically_with(file, |file| write_gguf(file, &metadata, &all))?)
}

/// Builds a tensor from the values of its parameters.
type BuildTensor = Box<dyn Fn(Vec<f32>) -> Vec<f32>>;

/// The type of a tensor in the file. As in llama.cpp's converter, vectors, routers and learned
/// positions are f32, and rows that do not fill whole blocks are f16.
pub(super) fn gguf_dtype(dtype: GgmlType, name: &str, shape: &[usize]) -> GgmlType {
    match shape {
        [_] => GgmlType::F32,
        _ if [".bias", "ffn_gate_inp.weight", "position_embd.weight"]
            .iter()
            .any(|end| name.ends_with(end)) =>
        {
            GgmlType::F32
        }
        [.., row] if row.is_multiple_of(dtype.block_len()) => dtype,
        _ => GgmlType::F16,
    }
}

/// Reorders rows of Llama's queries or keys for GGUF: the inverse of
/// [`crate::weights::interleaved_row`].
pub(super) fn interleave_rows(values: &[f32], dim: usize, rows: usize) -> Vec<f32> {
    let width = values.len() / rows;
    let row = |row: usize| {
        let (head, in_head) = (row / dim * dim, row % dim);
        let (pair, half) = (in_head / 2, in_head % 2);
        let from = (head + half * (dim / 2) + pair) * width;
        &values[from..from + width]
    };
    (0..rows).flat_map(row).copied().collect()
}

fn put_vocab(metadata: &mut Metadata, vocab: GgufVocab) {
    let mut put = |rest: &str, value: crisol_hub::Value| {
        metadata.insert(format!("tokenizer.ggml.{rest}"), value);
    };
    put("model", vocab.model.into());
    // The converter's value for vocabularies without pre-tokenization.
    put("pre", vocab.pre.unwrap_or_else(|| "default".into()).into());
    put("tokens", vocab.tokens.into());
    if !vocab.scores.is_empty() {
        put("scores", vocab.scores.into());
    }
    put("token_type", Array::I32(vocab.token_types).into());
    if !vocab.merges.is_empty() {
        put("merges", vocab.merges.into());
    }
    for (rest, id) in [
        ("bos_token_id", vocab.bos),
        ("eos_token_id", vocab.eos),
        ("unknown_token_id", vocab.unk),
        ("padding_token_id", vocab.pad),
        ("eot_token_id", vocab.eot),
        ("eom_token_id", vocab.eom),
    ] {
        if let Some(id) = id {
            put(rest, id.into());
        }
    }
    for (rest, flag) in [
        ("add_bos_token", vocab.add_bos),
        ("add_eos_token", vocab.add_eos),
        ("add_space_prefix", vocab.add_space_prefix),
    ] {
        if let Some(flag) = flag {
            put(rest, flag.into());
        }
    }
    if let Some(template) = vocab.chat_template {
        metadata.insert("tokenizer.chat_template", template);
    }
}
