//! GGUF files as llama.cpp's `convert_hf_to_gguf.py` writes them.

use std::borrow::Cow;
use std::path::Path;

use crisol_engine::ParamSpec;
use crisol_hub::{
    Array, GgmlType, GgufTensor, HubError, Metadata, Values, fill_file_atomically, write_gguf,
};
use crisol_text::{GgufVocab, TextSetup};

use super::places::Place;
use super::{ARCHITECTURES, deepseek2, llama4, rope};
use crate::config::Specifics;
use crate::weights::Source;
use crate::{Architecture, Config, Head, ModelError};

/// Numbers of file types (`llama_ftype` in `llama.h`), which name what most tensors are stored as.
fn file_type(dtype: GgmlType) -> u32 {
    match dtype {
        GgmlType::F16 => 1,
        GgmlType::Q8_0 => 7,
        GgmlType::BF16 => 32,
        _ => 0,
    }
}

/// Version of the block formats (`GGML_QNT_VERSION` in `ggml.h`).
const QUANTISATION_VERSION: u32 = 2;

/// `LLAMA_MAX_EXPERTS` in `llama-hparams.h`.
const MAX_EXPERTS: usize = 1024;

/// What may refuse the values of a parameter.
type Check<'a> = dyn Fn(&ParamSpec, &[f32]) -> Result<(), HubError> + 'a;

/// Writes a file as a whole or not at all. `source` opens what the model's parameters, `specs`, are read from; `check`
/// may refuse the values of one.
pub(crate) fn write<'a>(
    file: &Path,
    config: &Config,
    text: Option<&TextSetup>,
    name: &str,
    specs: &'a [ParamSpec],
    source: &'a dyn Fn() -> Box<dyn Source + 'a>,
    check: &'a Check<'a>,
    dtype: GgmlType,
) -> Result<(), ModelError> {
    let refused = |cause: String| ModelError::NotInGguf { cause };
    let (architecture, _) = ARCHITECTURES
        .into_iter()
        .find(|(_, ours)| *ours == config.architecture)
        .expect("llama.cpp has a name for every architecture here");
    if config.head == Head::Scalar {
        return Err(refused(
            "it has a scalar head (reward or value model), which llama.cpp has not".into(),
        ));
    }
    if config.attention_bias && config.architecture != Architecture::Llama {
        let class = config.architecture.class();
        return Err(refused(format!(
            "its attention has biases, which llama.cpp has not in {class} models"
        )));
    }
    if let Some((experts, _)) =
        config.routed_experts().filter(|&(experts, _)| experts > MAX_EXPERTS)
    {
        return Err(refused(format!(
            "it has {experts} experts, and llama.cpp takes {MAX_EXPERTS} at most"
        )));
    }
    let text =
        text.ok_or_else(|| refused("it has no tokenizer, which must be in such a file".into()))?;
    let key = |rest: &str| format!("{architecture}.{rest}");
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", architecture);
    metadata.insert("general.type", "model");
    metadata.insert("general.name", name);
    metadata.insert("general.file_type", file_type(dtype));
    metadata.insert("general.quantization_version", QUANTISATION_VERSION);
    let mut put = |sizes: &[(&str, usize)]| {
        for &(rest, size) in sizes {
            metadata.insert(key(rest), size as u32);
        }
    };
    put(&[
        ("vocab_size", config.vocab_size),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("block_count", config.num_hidden_layers),
        ("attention.head_count", config.num_attention_heads),
    ]);
    match &config.specifics {
        Specifics::None => put(&[
            ("feed_forward_length", config.intermediate_size),
            ("attention.head_count_kv", config.num_key_value_heads),
            ("attention.key_length", config.head_dim),
            ("attention.value_length", config.head_dim),
            ("rope.dimension_count", config.head_dim),
        ]),
        Specifics::Llama4(shape) => {
            llama4::write(&mut metadata, key, config, shape).map_err(refused)?
        }
        Specifics::DeepseekV3(shape) => {
            deepseek2::write(&mut metadata, key, config, shape).map_err(refused)?;
        }
    }
    metadata.insert(key("attention.layer_norm_rms_epsilon"), config.rms_norm_eps);
    metadata.insert(key("rope.freq_base"), config.rope_theta as f32);
    // The only ones for which llama.cpp reads the tensor.
    let with_divisors = matches!(config.architecture, Architecture::Llama | Architecture::Llama4);
    let divisors = rope::write(&mut metadata, key, config, with_divisors).map_err(refused)?;
    put_vocab(&mut metadata, text.to_gguf(config.vocab_size)?);

    let mut all = Vec::new();
    if let Some(divisors) = divisors {
        let shape = vec![divisors.len()];
        let values: Values<'_> = Box::new(move || Ok(Cow::Owned(divisors.clone())));
        all.push(GgufTensor { name: rope::DIVISORS.into(), shape, dtype: GgmlType::F32, values });
    }
    for (index, spec) in specs.iter().enumerate() {
        let place = Place::of(config, spec);
        // In the order of the tensors: how each is made of the parameter.
        let parts: Vec<Make> = match place {
            Place::Whole { head_in_pairs: None, .. } => vec![Box::new(|values| values)],
            Place::Whole { head_in_pairs: Some(head_dim), .. } => {
                let rows = spec.shape[0];
                vec![Box::new(move |values| pairs_from_halves(&values, head_dim, rows))]
            }
            // Those of all experts follow one another; the first writes them.
            Place::Expert { expert: 0, .. } => vec![Box::new(|values| values)],
            Place::Expert { .. } => continue,
            Place::Latent { expansion, .. } => vec![
                Box::new(move |values| expansion.keys(&values)),
                Box::new(move |values| expansion.values(&values)),
            ],
        };
        let count = if let Place::Expert { experts, .. } = place { experts } else { 1 };
        for ((name, shape), make) in place.tensors(&spec.shape).into_iter().zip(parts) {
            let values = move || {
                let mut source = source();
                let mut values = Vec::new();
                for (index, spec) in specs.iter().enumerate().skip(index).take(count) {
                    let mut own = source.values(index, spec)?;
                    check(spec, &own)?;
                    values.append(&mut own);
                }
                Ok(Cow::Owned(make(values)))
            };
            let dtype = stored_as(dtype, &name, &shape);
            all.push(GgufTensor { name, dtype, shape, values: Box::new(values) });
        }
    }
    Ok(fill_file_atomically(file, |file| write_gguf(file, &metadata, &all))?)
}

/// A tensor from parameters' values.
type Make = Box<dyn Fn(Vec<f32>) -> Vec<f32>>;

/// Vectors and routers stay f32, and rows that are no whole blocks become halves, as with llama.cpp's converter.
fn stored_as(dtype: GgmlType, name: &str, shape: &[usize]) -> GgmlType {
    match shape {
        [_] => GgmlType::F32,
        _ if name.ends_with("ffn_gate_inp.weight") => GgmlType::F32,
        [.., row] if row.is_multiple_of(dtype.block_len()) => dtype,
        _ => GgmlType::F16,
    }
}

/// The rows of Llama's queries or keys in the order of llama.cpp: the reverse of [`crate::weights::row_in_pairs`].
fn pairs_from_halves(values: &[f32], dim: usize, rows: usize) -> Vec<f32> {
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
    // As the converter writes it for vocabularies that are not split beforehand.
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
