//! Models from GGUF files, as llama.cpp's `convert_hf_to_gguf.py` writes them: one file with shape,
//! weights, tokenizer and chat template.
//!
//! | file | subject |
//! |---|---|
//! | `gguf/keys.rs` | metadata keys of the architecture |
//! | `gguf/tensor_mapping.rs` | tensor names and layouts |
//! | `gguf/rope.rs` | RoPE scaling |
//! | `gguf/write.rs` | export |
//! | `gguf/adapter.rs` | adapters, read and written |
//!
//! What differs between architectures is in their own files.

pub(crate) mod adapter;
mod keys;
mod rope;
mod tensor_mapping;
pub(crate) mod write;

use std::collections::BTreeSet;
use std::path::Path;

use crisol_engine::{Device, ParamSpec, WeightFormat};
use crisol_hub::{Gguf, HubError, Metadata};
use crisol_text::{GgufVocab, TextSetup};

use crate::architectures::Family;
use crate::block::NormKind;
use crate::model::specs;
use crate::weights::{FileMatrix, Purpose, WeightSource, load_params};
use crate::{Architecture, Checkpoint, Config, Head, ModelError, RopeScaling, Specifics};
pub use adapter::GgufAdapter;
pub(crate) use keys::{Keys, NewKeys};
use keys::{optional, unusable};
pub(crate) use rope::GgufRope;
pub(crate) use tensor_mapping::{Expansion, TensorMapping};

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
        let mut source = File { gguf: &gguf, config: &config };
        let (model, params) = load_params(config.clone(), specs, device, purpose, &mut source)?;
        Ok(Checkpoint { model, params, text })
    }
}

/// The embedding table, `[vocab, hidden]`.
const EMBEDDING: &str = "token_embd.weight";

pub(crate) fn config(gguf: &Gguf, file: &Path) -> Result<Config, ModelError> {
    // The metadata has the f32 of a decimal number in config.json.
    let metadata = gguf.metadata();
    if adapter::is_adapter(metadata) {
        return Err(ModelError::Adapter {
            file: file.to_owned(),
            cause: "the file holds an adapter, and a whole model is needed".into(),
            remedy: "Give its base with --adapter FILE, or merge both \
                     (crisol merge BASE ADAPTER --out DIR)",
        });
    }
    let name = metadata.string("general.architecture")?;
    let (architecture, keys) = architecture(metadata, file, name)?;
    let heads = keys.size("attention.head_count")?;
    let embedding = gguf.shape(EMBEDDING).unwrap_or_default();
    let mut config = Config::new(
        architecture,
        embedding.first().copied().unwrap_or(0),
        keys.size("embedding_length")?,
        keys.size("block_count")?,
        heads,
        keys.size("feed_forward_length")?,
    );
    config.max_position_embeddings = keys.size("context_length")?;
    let specifics = config.specifics.clone();
    let family = specifics.family();
    config.rms_norm_eps = metadata.f32(&keys.name(norm_eps(family)))?;
    if let Some(theta) = keys.number("rope.freq_base")? {
        config.rope_theta = f64::from(theta);
    }
    config.attention_bias =
        family.has_attention_bias() && gguf.shape("blk.0.attn_q.bias").is_some();
    config.mlp_bias = family.has_mlp_bias() && gguf.shape("blk.0.ffn_up.bias").is_some();
    config.rope_scaling = rope::read(&keys, family.gguf_rope(), config.max_position_embeddings)?;
    family.read_gguf(&keys, &mut config)?;
    if family.gguf_rope() == GgufRope::LongRope {
        config.rope_scaling = rope::read_long(gguf, &keys, config.max_position_embeddings)?;
    }
    if gguf.shape(rope::DIVISORS).is_some() {
        let divisors = gguf.read(rope::DIVISORS)?;
        let fits = divisors.len() == family.rotated(&config) / 2
            && config.rope_scaling == RopeScaling::None;
        let scaling = if fits && family.gguf_rope() != GgufRope::ScoreTemperatures {
            rope::from_divisors(&divisors, config.rope_theta)
        } else {
            None
        };
        config.rope_scaling = scaling.ok_or_else(|| {
            let cause = "are not Llama 3 frequency divisors; others are not supported";
            unusable(file, format!("the numbers in {} {cause}", rope::DIVISORS))
        })?;
    }
    config.head = Head::Language { tied: gguf.shape("output.weight").is_none() };
    let token = |name: &str| {
        optional(metadata, &format!("tokenizer.ggml.{name}_token_id"), |key| metadata.u32(key))
    };
    config.bos_token_id = token("bos")?;
    config.eos_token_id = token("eos")?.into_iter().collect();
    config.pad_token_id = token("padding")?;
    config.validate().map_err(|error| unusable(file, error.to_string()))?;
    Ok(config)
}

/// The architecture that a file names, and its keys.
fn architecture<'a>(
    metadata: &'a Metadata,
    file: &'a Path,
    name: &str,
) -> Result<(Architecture, Keys<'a>), ModelError> {
    for architecture in Architecture::ALL {
        let keys = Keys { metadata, file, architecture: architecture.names().gguf };
        if keys.architecture == name && Specifics::new(architecture).family().is_gguf(&keys)? {
            return Ok((architecture, keys));
        }
    }
    let mut known = Architecture::ALL.map(|architecture| architecture.names().gguf).to_vec();
    known.sort_unstable();
    known.dedup();
    let cause = format!(
        "architecture {name} is not supported in GGUF files; supported are {}",
        known.join(", ")
    );
    Err(unusable(file, cause))
}

/// The key of the norms' epsilon.
fn norm_eps(family: &dyn Family) -> &'static str {
    match family.norm() {
        NormKind::Rms | NormKind::RmsPlusOne => "attention.layer_norm_rms_epsilon",
        NormKind::Layer => "attention.layer_norm_epsilon",
    }
}

/// Reads the keys of an architecture with dense layers that attend to the full context.
pub(crate) fn read_dense(keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
    keys.expect_unset("expert_count")?;
    keys.expect_unset("attention.sliding_window")?;
    read_attention(keys, config)
}

/// Reads head counts and widths; queries, keys and values have one width, and all of it rotates.
pub(crate) fn read_attention(keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
    read_heads(keys, config)?;
    keys.expect_size("rope.dimension_count", config.head_dim, "the width of keys")
}

/// Reads head counts and widths; queries, keys and values have one width.
pub(crate) fn read_heads(keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
    if let Some(heads) = keys.optional_size("attention.head_count_kv")? {
        config.num_key_value_heads = heads;
    }
    if let Some(head_dim) = keys.optional_size("attention.key_length")? {
        config.head_dim = head_dim;
    }
    keys.expect_size("attention.value_length", config.head_dim, "the width of keys")
}

/// Writes what [`read_dense`] reads, and the width of the feed-forward layers. An error if a window
/// is shorter than the context: llama.cpp would ignore it.
pub(crate) fn write_dense(keys: &mut NewKeys<'_>, config: &Config) -> Result<(), String> {
    let context = config.max_position_embeddings;
    if let Some(window) = config.windows.iter().flatten().find(|&&window| window < context) {
        return Err(format!(
            "its attention has windows of {window} tokens in a context of {context}, and \
             llama.cpp has none in this architecture; with max_position_embeddings {window} in \
             config.json it is exported for texts up to that length"
        ));
    }
    keys.put_sizes(&[("feed_forward_length", config.intermediate_size)]);
    write_attention(keys, config);
    Ok(())
}

/// Writes what [`read_attention`] reads.
pub(crate) fn write_attention(keys: &mut NewKeys<'_>, config: &Config) {
    keys.put_sizes(&[
        ("attention.head_count_kv", config.num_key_value_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
    ]);
}

/// Reads tokenizer and chat template.
pub(crate) fn text(gguf: &Gguf, file: &Path) -> Result<TextSetup, ModelError> {
    let vocab = vocab(gguf.metadata(), file)?;
    let rows = gguf.shape(EMBEDDING).and_then(|shape| shape.first()).copied().unwrap_or(0);
    if vocab.tokens.len() > rows {
        let cause =
            format!("its tokenizer has {} tokens, but the model {rows}", vocab.tokens.len());
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
    let strings = |rest: &str| {
        optional(metadata, &key(rest), |key| metadata.strings(key).map(<[String]>::to_vec))
    };
    let names = optional(metadata, "tokenizer.chat_templates", |key| metadata.strings(key))?;
    // A set, so that a name repeated a thousand times does not copy its template as often.
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
        token_types: optional(metadata, &key("token_type"), |key| {
            metadata.i32s(key).map(<[i32]>::to_vec)
        })?
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

/// Checks that the file's tensors match the config. Returns the specs of the parameters.
pub(crate) fn check(
    gguf: &Gguf,
    file: &Path,
    config: &Config,
) -> Result<Vec<ParamSpec>, ModelError> {
    // Checked before any allocation: with experts, even the list of parameter names can be huge.
    let len = |name| gguf.shape(name).map_or(0, |shape| shape.iter().product());
    let available: usize = gguf.names().map(len).fold(0, usize::saturating_add);
    if config.routed_weights() > available {
        let cause = format!(
            "its experts need {} weights, but the file holds only {available}",
            config.routed_weights()
        );
        return Err(unusable(file, cause));
    }
    let specs = specs(config);
    let mut surplus: BTreeSet<&str> = gguf.names().collect();
    // Read as part of the config.
    surplus.remove(rope::DIVISORS);
    if config.family().gguf_rope() == GgufRope::LongRope {
        surplus.remove(rope::SHORT_FACTORS);
        surplus.remove(rope::LONG_FACTORS);
    }
    for spec in &specs {
        for (name, expected) in TensorMapping::in_file(gguf, config, spec).tensors(&spec.shape) {
            let Some(found) = gguf.shape(&name) else {
                return Err(HubError::MissingTensor {
                    file: file.to_owned(),
                    tensor: name,
                    more: 0,
                }
                .into());
            };
            if found != expected {
                let (file, found) = (file.to_owned(), found.to_vec());
                return Err(HubError::WrongShape { file, tensor: name, found, expected }.into());
            }
            surplus.remove(name.as_str());
        }
    }
    if let Some(tensor) = surplus.first() {
        let (tensor, more) = ((*tensor).to_owned(), surplus.len() - 1);
        return Err(HubError::SurplusTensor { file: file.to_owned(), tensor, more }.into());
    }
    Ok(specs)
}

/// Reads parameters from the tensors of a GGUF file.
pub(crate) struct File<'a> {
    pub(crate) gguf: &'a Gguf,
    pub(crate) config: &'a Config,
}

impl WeightSource for File<'_> {
    fn values(&mut self, _: usize, spec: &ParamSpec) -> Result<Vec<f32>, HubError> {
        TensorMapping::in_file(self.gguf, self.config, spec).read(self.gguf, &spec.shape)
    }

    fn matrix(&self, _: usize, spec: &ParamSpec) -> Result<Option<FileMatrix<'_>>, HubError> {
        TensorMapping::in_file(self.gguf, self.config, spec).matrix(self.gguf, &spec.shape)
    }

    fn format(&self, _: usize, spec: &ParamSpec) -> Result<Option<WeightFormat>, HubError> {
        // `None`: converted to f32.
        Ok(TensorMapping::in_file(self.gguf, self.config, spec).weight_format(self.gguf))
    }
}
