//! Models from GGUF files, as llama.cpp's `convert_hf_to_gguf.py` writes them: shape, weights, tokenizer and chat template in
//! one file. `gguf/write.rs` writes such files, and `gguf/rope.rs` knows stretched rotary embeddings in them.

mod rope;
pub(crate) mod write;

use std::collections::BTreeSet;
use std::path::Path;

use crisol_engine::{Device, ParamSpec, StoredType};
use crisol_hub::{Gguf, HubError, Metadata};
use crisol_text::{GgufVocab, TextSetup};

use crate::model::specs;
use crate::weights::{Bytes, Purpose, Rows, Source, fill, row_in_pairs};
use crate::{Architecture, Checkpoint, Config, Head, ModelError, RopeScaling};

impl Checkpoint {
    /// Loads a GGUF file.
    pub(crate) fn load_gguf(
        purpose: Purpose,
        file: &Path,
        device: &Device,
    ) -> Result<Checkpoint, ModelError> {
        let gguf = Gguf::open(file)?;
        let config = config(&gguf, file)?;
        let text = text(&gguf, file)?;
        let specs = check(&gguf, file, &config)?;
        let mut source = File { gguf: &gguf, architecture: config.architecture, head_dim: config.head_dim };
        let (model, params) = fill(config, specs, device, purpose, &mut source)?;
        Ok(Checkpoint { model, params, text })
    }
}

/// What llama.cpp calls the architectures.
const ARCHITECTURES: [(&str, Architecture); 3] =
    [("llama", Architecture::Llama), ("olmo2", Architecture::Olmo2), ("qwen3", Architecture::Qwen3)];

/// The tensor with a row for every token.
const EMBEDDING: &str = "token_embd.weight";

fn unusable(file: &Path, cause: String) -> ModelError {
    ModelError::ConfigFile { file: file.to_owned(), cause }
}

/// What a key that need not be there says.
fn optional<T>(
    metadata: &Metadata,
    key: &str,
    read: impl FnOnce(&str) -> Result<T, HubError>,
) -> Result<Option<T>, HubError> {
    metadata.get(key).is_some().then(|| read(key)).transpose()
}

pub(crate) fn config(gguf: &Gguf, file: &Path) -> Result<Config, ModelError> {
    let metadata = gguf.metadata();
    let name = metadata.string("general.architecture")?;
    let Some(&(_, architecture)) = ARCHITECTURES.iter().find(|(theirs, _)| *theirs == name) else {
        let known = ARCHITECTURES.map(|(theirs, _)| theirs).join(", ");
        let cause = format!("architecture {name} is not supported in GGUF files; supported are {known}");
        return Err(unusable(file, cause));
    };
    let key = |rest: &str| format!("{name}.{rest}");
    let size = |rest: &str| metadata.u32(&key(rest)).map(|size| size as usize);
    let optional_size = |rest: &str| {
        optional(metadata, &key(rest), |key| metadata.u32(key)).map(|size| size.map(|size| size as usize))
    };
    for feature in ["expert_count", "attention.sliding_window"] {
        if let Some(number) = optional_size(feature)?.filter(|&number| number > 0) {
            return Err(unusable(file, format!("{} is {number}, which is not supported", key(feature))));
        }
    }
    let heads = size("attention.head_count")?;
    let hidden_size = size("embedding_length")?;
    let embedding = gguf.shape(EMBEDDING).unwrap_or_default();
    let mut config = Config::new(
        architecture,
        embedding.first().copied().unwrap_or(0),
        hidden_size,
        size("block_count")?,
        heads,
        size("feed_forward_length")?,
    );
    config.num_key_value_heads = optional_size("attention.head_count_kv")?.unwrap_or(heads);
    if let Some(head_dim) = optional_size("attention.key_length")? {
        config.head_dim = head_dim;
    }
    for part in ["attention.value_length", "rope.dimension_count"] {
        if let Some(dim) = optional_size(part)?.filter(|&dim| dim != config.head_dim) {
            let cause = format!("{} is {dim}, not the {} of keys", key(part), config.head_dim);
            return Err(unusable(file, cause));
        }
    }
    config.max_position_embeddings = size("context_length")?;
    config.rms_norm_eps = metadata.f32(&key("attention.layer_norm_rms_epsilon"))?;
    if let Some(theta) = optional(metadata, &key("rope.freq_base"), |key| metadata.f32(key))? {
        // The f32 of a decimal number that a config.json has.
        config.rope_theta = f64::from(theta);
    }
    config.rope_scaling =
        rope::read(metadata, key, config.max_position_embeddings)?.map_err(|cause| unusable(file, cause))?;
    if gguf.shape(rope::DIVISORS).is_some() {
        let divisors = gguf.read(rope::DIVISORS)?;
        let scaling = if divisors.len() == config.head_dim / 2 && config.rope_scaling == RopeScaling::None {
            rope::from_divisors(&divisors, config.rope_theta)
        } else {
            None
        };
        config.rope_scaling = scaling.ok_or_else(|| {
            let cause = "are not what Llama 3 divides its frequencies by, which alone is supported";
            unusable(file, format!("the numbers in {} {cause}", rope::DIVISORS))
        })?;
    }
    config.head = Head::Language { tied: gguf.shape("output.weight").is_none() };
    config.attention_bias = gguf.shape("blk.0.attn_q.bias").is_some();
    config.mlp_bias = gguf.shape("blk.0.ffn_up.bias").is_some();
    let token =
        |name: &str| optional(metadata, &format!("tokenizer.ggml.{name}_token_id"), |key| metadata.u32(key));
    config.bos_token_id = token("bos")?;
    config.eos_token_id = token("eos")?.into_iter().collect();
    config.pad_token_id = token("padding")?;
    config.validate().map_err(|error| unusable(file, error.to_string()))?;
    Ok(config)
}

/// Tokenizer and chat template.
pub(crate) fn text(gguf: &Gguf, file: &Path) -> Result<TextSetup, ModelError> {
    let vocab = vocab(gguf.metadata(), file)?;
    let rows = gguf.shape(EMBEDDING).and_then(|shape| shape.first()).copied().unwrap_or(0);
    if vocab.tokens.len() > rows {
        let cause = format!("its tokenizer has {} tokens, but the model {rows}", vocab.tokens.len());
        return Err(unusable(file, cause));
    }
    Ok(TextSetup::from_gguf(&vocab, &file.display().to_string())?)
}

fn vocab(metadata: &Metadata, file: &Path) -> Result<GgufVocab, ModelError> {
    let key = |rest: &str| format!("tokenizer.ggml.{rest}");
    if metadata.get(&key("model")).is_none() {
        return Err(unusable(file, "it has no tokenizer (tokenizer.ggml.model)".into()));
    }
    let string = |key: &str| optional(metadata, key, |key| metadata.string(key).map(str::to_owned));
    let id = |rest: &str| optional(metadata, &key(rest), |key| metadata.u32(key));
    let flag = |rest: &str| optional(metadata, &key(rest), |key| metadata.bool(key));
    let strings =
        |rest: &str| optional(metadata, &key(rest), |key| metadata.strings(key).map(<[String]>::to_vec));
    let names = optional(metadata, "tokenizer.chat_templates", |key| metadata.strings(key))?;
    // Each once, so that a name that is there a thousand times does not take a thousand templates' memory.
    let names: BTreeSet<&String> = names.into_iter().flatten().collect();
    let named = names.into_iter().filter_map(|name| {
        let source = string(&format!("tokenizer.chat_template.{name}")).transpose()?;
        Some(source.map(|source| (name.clone(), source)))
    });
    Ok(GgufVocab {
        named_chat_templates: named.collect::<Result<_, _>>()?,
        model: metadata.string(&key("model"))?.to_owned(),
        pre: string(&key("pre"))?,
        tokens: metadata.strings(&key("tokens"))?.to_vec(),
        scores: optional(metadata, &key("scores"), |key| metadata.f32s(key).map(<[f32]>::to_vec))?
            .unwrap_or_default(),
        token_types: optional(metadata, &key("token_type"), |key| metadata.i32s(key).map(<[i32]>::to_vec))?
            .unwrap_or_default(),
        merges: strings("merges")?.unwrap_or_default(),
        bos: id("bos_token_id")?,
        eos: id("eos_token_id")?,
        unk: id("unknown_token_id")?,
        pad: id("padding_token_id")?,
        eot: id("eot_token_id")?,
        eom: id("eom_token_id")?,
        add_bos: flag("add_bos_token")?,
        add_eos: flag("add_eos_token")?,
        add_space_prefix: flag("add_space_prefix")?,
        chat_template: string("tokenizer.chat_template")?,
    })
}

/// Checks that the file's tensors are those of the model, and returns what the model's parameters are.
pub(crate) fn check(gguf: &Gguf, file: &Path, config: &Config) -> Result<Vec<ParamSpec>, ModelError> {
    let specs = specs(config);
    let mut surplus: BTreeSet<&str> = gguf.names().collect();
    // Part of the config.
    surplus.remove(rope::DIVISORS);
    for spec in &specs {
        let name = name_in_file(&spec.name, config.architecture);
        let Some(found) = gguf.shape(&name) else {
            return Err(HubError::MissingTensor { file: file.to_owned(), tensor: name, more: 0 }.into());
        };
        if found != spec.shape {
            let (found, expected) = (found.to_vec(), spec.shape.clone());
            return Err(HubError::WrongShape { file: file.to_owned(), tensor: name, found, expected }.into());
        }
        surplus.remove(name.as_str());
    }
    if let Some(tensor) = surplus.first() {
        let (tensor, more) = ((*tensor).to_owned(), surplus.len() - 1);
        return Err(HubError::SurplusTensor { file: file.to_owned(), tensor, more }.into());
    }
    Ok(specs)
}

/// The tensors of a file as parameters.
struct File<'a> {
    gguf: &'a Gguf,
    architecture: Architecture,
    head_dim: usize,
}

impl Source for File<'_> {
    fn values(&mut self, _: usize, spec: &ParamSpec) -> Result<Vec<f32>, ModelError> {
        let values = read(self.gguf, spec, self.architecture, self.head_dim)?;
        let mapped = self.gguf.mapped(&name_in_file(&spec.name, self.architecture))?;
        mapped.release(0..mapped.len());
        Ok(values)
    }

    fn stored(&self, _: usize, spec: &ParamSpec) -> Result<Option<Rows<'_>>, ModelError> {
        let name = name_in_file(&spec.name, self.architecture);
        let Some(kind) = stored_type(self.gguf, spec, self.architecture) else { return Ok(None) };
        let bytes = Bytes::Mapped(self.gguf.mapped(&name)?);
        let head_in_pairs = is_rotated(&spec.name, self.architecture).then_some(self.head_dim);
        Ok(Some(Rows { kind, bytes, head_in_pairs }))
    }
}

/// How a parameter is stored; none for a type that is not supported, as widening says.
pub(crate) fn stored_type(gguf: &Gguf, spec: &ParamSpec, architecture: Architecture) -> Option<StoredType> {
    let dtype = gguf.dtype(&name_in_file(&spec.name, architecture))?;
    StoredType::named(&dtype.to_string())
}

/// A parameter's values, in the order of Hugging Face's files.
pub(crate) fn read(
    gguf: &Gguf,
    spec: &ParamSpec,
    architecture: Architecture,
    head_dim: usize,
) -> Result<Vec<f32>, HubError> {
    let values = gguf.read(&name_in_file(&spec.name, architecture))?;
    if !is_rotated(&spec.name, architecture) {
        return Ok(values);
    }
    let width = values.len() / spec.shape[0];
    let row = |row: usize| &values[row_in_pairs(row, head_dim) * width..][..width];
    Ok((0..spec.shape[0]).flat_map(row).copied().collect())
}

/// Whether llama.cpp keeps a parameter's rows in another order.
fn is_rotated(name: &str, architecture: Architecture) -> bool {
    architecture == Architecture::Llama && ["q_proj", "k_proj"].iter().any(|part| name.contains(part))
}

/// A tensor's name in GGUF files. What follows the attention's norm is Llama's norm before the feed-forward layer, but OLMo-2's norm
/// after the attention.
fn name_in_file(name: &str, architecture: Architecture) -> String {
    let after_attention =
        if architecture == Architecture::Olmo2 { "post_attention_norm" } else { "ffn_norm" };
    let parts = [
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", after_attention),
        ("post_feedforward_layernorm", "post_ffw_norm"),
    ];
    let rest = match name {
        "model.embed_tokens.weight" => return EMBEDDING.into(),
        "model.norm.weight" => return "output_norm.weight".into(),
        "lm_head.weight" => return "output.weight".into(),
        name => name.strip_prefix("model.layers.").unwrap_or(name),
    };
    let (layer, rest) = rest.split_once('.').unwrap_or(("", rest));
    let (part, kind) = rest.rsplit_once('.').unwrap_or((rest, ""));
    let part = parts.iter().find(|(ours, _)| *ours == part).map_or(part, |(_, theirs)| theirs);
    format!("blk.{layer}.{part}.{kind}")
}
