//! A model's shape, from and to Hugging Face's `config.json`.
//!
//! Only what Crisol computes exactly is accepted. Other architectures, activations or attention
//! windows are refused by name. Fields that transformers ignores for the class are ignored here
//! too.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use crisol_engine::Attention;
use crisol_hub::{FloatType, HubError, json_error};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::architectures::{Architecture, Defaults, Family, Specifics};
use crate::rope::{RopeFields, RopeScaling};
use crate::{Adapted, ModelError, adapter};

/// The output layer on top of the final hidden states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Logits over the vocabulary.
    Language {
        /// Whether the output matrix is the embedding table.
        tied: bool,
    },
    /// One number per position: a reward or a value (`score.weight`, transformers' sequence
    /// classification with one label).
    Scalar,
}

/// The shape of a model: the fields that all architectures have, with their names in `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Output head.
    pub head: Head,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads (grouped-query attention, arXiv:2305.13245); divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Maximum sequence length in tokens.
    pub max_position_embeddings: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Context extension by RoPE scaling.
    pub rope_scaling: RopeScaling,
    /// Architecture, with the fields that it alone has.
    pub specifics: Specifics,
    /// Of each layer, how many tokens a query sees; `None`: all before it. Empty: of no layer.
    pub windows: Vec<Option<usize>>,
    /// Epsilon of every norm.
    pub rms_norm_eps: f32,
    /// Whether the four attention projections have a bias.
    pub attention_bias: bool,
    /// Whether the feed-forward projections have a bias, where the architecture allows one.
    pub mlp_bias: bool,
    /// Token that starts a document, if any.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_token_id: Vec<u32>,
    /// Padding token; Crisol never pads.
    pub pad_token_id: Option<u32>,
    /// The adapter over the model, if it has one; not in `config.json`.
    pub adapter: Option<Adapted>,
}

/// Maximum of any size in a config. Several times the largest published value, and small enough
/// that a product of three cannot overflow.
pub(crate) const MAX_SIZE: usize = 1 << 20;

/// Bounds what a corrupt config can allocate before its weights are checked.
pub(crate) const MAX_LAYERS: usize = 4096;

/// Maximum number of experts over all layers, several times the largest published value.
const MAX_EXPERTS: usize = 1 << 18;

/// Angles are f32 and positions u32; the longest published context is ten million. Not an
/// allocation: RoPE tables grow with the documents.
const MAX_POSITIONS: usize = 1 << 28;

impl Config {
    /// A language model with a tied head, no grouped-query attention and a context of 1024 tokens.
    /// Change the fields for anything else. Llama 4 and DeepSeek-V3 need `specifics` that fit.
    pub fn new(
        architecture: Architecture,
        vocab_size: usize,
        hidden_size: usize,
        num_hidden_layers: usize,
        num_attention_heads: usize,
        intermediate_size: usize,
    ) -> Config {
        Config {
            head: Head::Language { tied: true },
            vocab_size,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: num_attention_heads,
            head_dim: hidden_size / num_attention_heads.max(1),
            max_position_embeddings: 1024,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
            specifics: Specifics::new(architecture),
            windows: Vec::new(),
            rms_norm_eps: 1e-5,
            attention_bias: false,
            mlp_bias: false,
            bos_token_id: None,
            eos_token_id: Vec::new(),
            pad_token_id: None,
            adapter: None,
        }
    }

    /// Reads `folder/config.json`.
    pub fn load(folder: &Path) -> Result<Config, ModelError> {
        if adapter::is_adapter(folder) {
            return adapter::config_of(folder);
        }
        Config::load_file(&folder.join("config.json"))
    }

    /// Reads a `config.json` under any name.
    pub fn load_file(file: &Path) -> Result<Config, ModelError> {
        let text = fs::read_to_string(file).map_err(|e| HubError::io("read", file, e))?;
        Config::parse(&text)
            .map_err(|cause| ModelError::ConfigFile { file: file.to_owned(), cause })
    }

    /// Rows and columns of the blocks that share a scale in FP8 weights, if `config.json` has them.
    pub(crate) fn fp8_block(folder: &Path) -> Result<Option<[NonZeroUsize; 2]>, ModelError> {
        let file = folder.join("config.json");
        let text = fs::read_to_string(&file).map_err(|e| HubError::io("read", &file, e))?;
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        let block = &json["quantization_config"]["weight_block_size"];
        if block.is_null() {
            return Ok(None);
        }
        let size =
            |index: usize| block[index].as_u64().and_then(|size| NonZeroUsize::new(size as usize));
        if let (Some(rows), Some(cols)) = (size(0), size(1)) {
            return Ok(Some([rows, cols]));
        }
        let cause = format!("weight_block_size is {block}, not two positive numbers");
        Err(ModelError::ConfigFile { file, cause })
    }

    /// Checks the shape; [`crate::Model`] accepts valid configs only.
    pub fn validate(&self) -> Result<(), ModelError> {
        self.problem().map_or(Ok(()), |cause| Err(ModelError::Shape(cause)))
    }

    fn problem(&self) -> Option<String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
        ];
        for (name, size) in sizes {
            if size == 0 {
                return Some(format!("{name} is 0"));
            }
            if size > MAX_SIZE {
                return Some(format!(
                    "{name} is {size}, more than any real model has ({MAX_SIZE})"
                ));
            }
        }
        if self.num_hidden_layers > MAX_LAYERS {
            return Some(format!(
                "num_hidden_layers is {}, more than {MAX_LAYERS}",
                self.num_hidden_layers
            ));
        }
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(kv_heads) {
            return Some(format!(
                "num_key_value_heads ({kv_heads}) does not divide num_attention_heads ({heads})"
            ));
        }
        let positions = self.max_position_embeddings;
        if !(1..=MAX_POSITIONS).contains(&positions) {
            return Some(format!(
                "max_position_embeddings is {positions}, not between 1 and {MAX_POSITIONS}"
            ));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return Some(format!("rope_theta is {}, not a positive number", self.rope_theta));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return Some(format!(
                "rms_norm_eps is {}, not a number of 0 or more",
                self.rms_norm_eps
            ));
        }
        let family = self.family();
        let rotated = family.rotated(self);
        if !rotated.is_multiple_of(2) {
            let (what, width) =
                ("rotary embeddings rotate pairs and need an even number", self.head_dim);
            return Some(if rotated == width {
                format!("head_dim is {width}, but {what}")
            } else {
                format!("{rotated} of the {width} columns of a head rotate, but {what}")
            });
        }
        if self.mlp_bias && !family.has_mlp_bias() {
            return Some(format!(
                "mlp_bias is true, but {} has no MLP biases",
                family.names().class
            ));
        }
        if let Some((experts, _)) = family.experts()
            && experts.saturating_mul(self.num_hidden_layers) > MAX_EXPERTS
        {
            return Some(format!(
                "{experts} experts in each of {} layers are more than {MAX_EXPERTS}",
                self.num_hidden_layers
            ));
        }
        if self.windows.contains(&Some(0)) {
            return Some("sliding_window is 0, not a positive number".into());
        }
        family.problem(self).or_else(|| self.rope_scaling.problem(rotated))
    }

    fn parse(text: &str) -> Result<Config, String> {
        let text = &language_model_config(text).map_err(|e| json_error(&e))?;
        let text = &with_common_fields(text)?;
        let mut config = parse_fields::<ConfigFields>(text)?.into_config(&parse_fields(text)?)?;
        Specifics::new(config.architecture()).family().read(text, &mut config)?;
        config.problem().map_or(Ok(config), Err)
    }

    /// The `config.json` for transformers, with weights of type `dtype`. Version 4 reads
    /// `rope_theta` and `torch_dtype`, version 5 `rope_parameters` and `dtype`.
    pub fn to_json(&self, dtype: FloatType) -> Value {
        let tied = self.head == Head::Language { tied: true };
        let dtype = match dtype {
            FloatType::F32 => "float32",
            FloatType::F16 => "float16",
            FloatType::BF16 => "bfloat16",
        };
        let rope = self.rope_parameters();
        let eos = match self.eos_token_id.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        let mut json = json!({
            "architectures": [self.class()],
            "model_type": self.family().names().model_type,
            "dtype": dtype,
            "torch_dtype": dtype,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            "rope_theta": self.rope_theta,
            "rope_parameters": rope,
            "rms_norm_eps": shortest(self.rms_norm_eps),
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "attention_dropout": 0.0,
            "tie_word_embeddings": tied,
            "initializer_range": 0.02,
            "use_cache": true,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "pad_token_id": self.pad_token_id,
        });
        let (activation, names) = self.family().activation();
        json[activation] = json!(names[0]);
        if let Some(size) = self.windows.iter().flatten().next() {
            json["sliding_window"] = json!(size);
            json["layer_types"] = json!(layer_types(self));
        }
        if self.rope_scaling != RopeScaling::None {
            json["rope_scaling"] = json["rope_parameters"].clone();
        }
        if let (Value::Object(json), Value::Object(own)) = (&mut json, self.family().to_json(self))
        {
            json.extend(own);
        }
        self.family().own_fields(&mut json);
        if self.head == Head::Scalar {
            json["id2label"] = json!({ "0": "LABEL_0" });
            json["label2id"] = json!({ "LABEL_0": 0 });
        }
        json
    }

    /// Maximum document length in tokens, including RoPE extrapolation.
    pub fn max_document_len(&self) -> usize {
        self.rope_scaling.max_document_len(self.max_position_embeddings)
    }

    /// The architecture.
    pub fn architecture(&self) -> Architecture {
        self.specifics.architecture()
    }

    pub(crate) fn family(&self) -> &dyn Family {
        self.specifics.family()
    }

    /// The transformers class that `config.json` names.
    pub fn class(&self) -> String {
        self.architecture().task_class(self.head != Head::Scalar)
    }

    /// `rope_parameters` of `config.json`.
    pub fn rope_parameters(&self) -> Value {
        self.rope_scaling.to_json(self.rope_theta)
    }

    /// Gives all layers a window, or none.
    pub(crate) fn set_window(&mut self, size: Option<usize>) {
        let layers = self.num_hidden_layers.min(MAX_LAYERS);
        self.windows = size.map_or_else(Vec::new, |size| vec![Some(size); layers]);
    }

    /// How many tokens a query of the layer sees; `None`: all before it.
    pub(crate) fn window(&self, layer: usize) -> Option<usize> {
        self.windows.get(layer).copied().flatten()
    }

    /// A layer's attention, with equal widths of queries, keys and values.
    pub(crate) fn attention(&self, layer: usize) -> Attention {
        let (dim, family) = (self.head_dim, self.family());
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        Attention {
            window: self.window(layer),
            softcap: family.attention_cap(),
            ..Attention::new(heads, kv_heads, dim, dim, family.attention_scale(self))
        }
    }

    pub(crate) fn q_dim(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    pub(crate) fn kv_dim(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }
}

/// The config of the language model within a text-and-image config.
fn language_model_config(text: &str) -> Result<String, serde_json::Error> {
    let json: Value = serde_json::from_str(text)?;
    let class = json["architectures"][0].as_str().unwrap_or_default();
    let Some(architecture) =
        Architecture::from_multimodal_class(class).filter(|_| json["text_config"].is_object())
    else {
        return Ok(text.to_owned());
    };
    let mut part = json["text_config"].clone();
    part["architectures"] = json!([architecture.task_class(true)]);
    if !json["quantization_config"].is_null() {
        part["quantization_config"] = json["quantization_config"].clone();
    }
    Ok(part.to_string())
}

/// The text with common names for the fields of its architecture.
fn with_common_fields(text: &str) -> Result<String, String> {
    let mut json: Value = serde_json::from_str(text).map_err(|e| json_error(&e))?;
    let class = json["architectures"][0].as_str().unwrap_or_default();
    let Some((architecture, _)) = Architecture::from_class(class) else {
        return Ok(text.to_owned());
    };
    let specifics = Specifics::new(architecture);
    let family = specifics.family();
    family.common_fields(&mut json);
    let (field, known) = family.activation();
    match json.get(field).and_then(Value::as_str) {
        Some(other) if !known.contains(&other) => {
            let known = known.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>();
            Err(format!("{field} is \"{other}\"; only {} is supported", known.join(", ")))
        }
        _ => Ok(json.to_string()),
    }
}

/// `layer_types` of `config.json`.
pub(crate) fn layer_types(config: &Config) -> Vec<&'static str> {
    let kind = |layer| match config.window(layer) {
        Some(_) => "sliding_attention",
        None => "full_attention",
    };
    (0..config.num_hidden_layers).map(kind).collect()
}

/// Reads which layers have windows of `size` tokens: those of `layer_types`, or `by_default`.
pub(crate) fn read_windows(
    text: &str,
    config: &mut Config,
    size: Option<usize>,
    by_default: impl Fn(usize) -> bool,
) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Fields {
        layer_types: Option<Vec<String>>,
    }
    let layers = config.num_hidden_layers;
    let local: Vec<bool> = match parse_fields::<Fields>(text)?.layer_types {
        // Their number is not checked yet.
        None => {
            let local = |layer| size.is_some() && by_default(layer);
            (0..layers.min(MAX_LAYERS)).map(local).collect()
        }
        Some(types) if types.len() != layers => {
            return Err(format!("layer_types has {} entries for {layers} layers", types.len()));
        }
        Some(types) => {
            let local = types.iter().map(|kind| match kind.as_str() {
                "sliding_attention" => Ok(true),
                "full_attention" => Ok(false),
                other => Err(format!(
                    "layer_types has \"{other}\"; only \"full_attention\" and \
                     \"sliding_attention\" are supported"
                )),
            });
            local.collect::<Result<_, _>>()?
        }
    };
    config.windows = Vec::new();
    if local.contains(&true) {
        let size =
            size.ok_or("layer_types has \"sliding_attention\", but there is no sliding_window")?;
        config.windows = local.into_iter().map(|local| local.then_some(size)).collect();
    }
    Ok(())
}

/// Refuses layers that do not attend to the full context.
pub(crate) fn refuse_windows(text: &str) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Fields {
        layer_types: Option<Vec<String>>,
    }
    let fields: Fields = parse_fields(text)?;
    match fields.layer_types.iter().flatten().find(|kind| *kind != "full_attention") {
        None => Ok(()),
        Some(kind) => {
            Err(format!("layer_types has \"{kind}\"; only \"full_attention\" is supported"))
        }
    }
}

/// Deserialises some fields of `config.json`; errors name the field.
pub(crate) fn parse_fields<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(|e| {
        let cause = json_error(e.inner());
        match e.path().to_string().as_str() {
            // The whole text.
            "." => cause,
            field => format!("`{field}`: {cause}"),
        }
    })
}

/// The f64 with the shortest decimal form of an f32: 1e-5 stays 1e-5 in JSON.
pub(crate) fn shortest(x: f32) -> f64 {
    x.to_string().parse().expect("Rust's float formatting can be parsed back")
}

/// The fields of `config.json` that matter here; others are ignored.
#[derive(Deserialize)]
struct ConfigFields {
    #[serde(default)]
    architectures: Option<Vec<String>>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f32>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    attention_dropout: Option<f64>,
    tie_word_embeddings: Option<bool>,
    quantization_config: Option<Value>,
    num_labels: Option<usize>,
    id2label: Option<BTreeMap<String, Value>>,
    bos_token_id: Option<i64>,
    eos_token_id: Option<OneOrMany>,
    pad_token_id: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(i64),
    Many(Vec<i64>),
}

impl ConfigFields {
    fn into_config(self, rope: &RopeFields) -> Result<Config, String> {
        let class = self.architectures.as_deref().unwrap_or_default().first();
        let class = class.ok_or_else(|| {
            format!("it names no architecture; supported are {}", Architecture::supported())
        })?;
        let (architecture, language) = Architecture::from_class(class).ok_or_else(|| {
            let supported = Architecture::supported();
            format!("architecture {class} is not supported; supported are {supported}")
        })?;
        let specifics = Specifics::new(architecture);
        let default: Defaults = specifics.family().defaults();
        let biased = specifics.family().has_attention_bias();
        let tied = self.tie_word_embeddings.unwrap_or(default.tied);
        let head = if language { Head::Language { tied } } else { Head::Scalar };
        if head == Head::Scalar {
            // transformers writes id2label and derives num_labels from it. The default is two
            // labels.
            let labels = self.id2label.as_ref().map(BTreeMap::len).or(self.num_labels).unwrap_or(2);
            if labels != 1 {
                return Err(format!(
                    "{class} has {labels} labels; reward and value models have one"
                ));
            }
        }
        if let Some(dropout) = self.attention_dropout.filter(|&dropout| dropout != 0.0) {
            return Err(format!("attention_dropout is {dropout}; only 0 is supported"));
        }
        if let Some(quantisation) = &self.quantization_config {
            let method = quantisation.get("quant_method").unwrap_or(&Value::Null);
            if !["fp8", "mxfp4"].iter().any(|known| method == known) {
                return Err(format!(
                    "its quantization_config has quant_method {method}; only \"fp8\" \
                     (DeepSeek-V3's) and \"mxfp4\" (gpt-oss's) are supported"
                ));
            }
        }
        let max_position_embeddings =
            self.max_position_embeddings.unwrap_or(default.max_position_embeddings);
        let family = specifics.family();
        let (rope_theta, rope_scaling) = RopeScaling::read(
            rope,
            family.rope_kinds(),
            default.rope_theta,
            max_position_embeddings,
        )?;
        if let Some(part) = rope.partial_rotary_factor()?.filter(|&part| part != 1.0)
            && !family.rotates_partly()
        {
            return Err(format!("partial_rotary_factor is {part}; only 1 is supported"));
        }
        // Some configs write -1 for none.
        let token = |id: i64| u32::try_from(id).ok();
        let heads = self.num_attention_heads;
        let head_dim = match self.head_dim.or(default.head_dim) {
            Some(dim) => dim,
            None if heads == 0 || !self.hidden_size.is_multiple_of(heads) => {
                return Err(format!(
                    "num_attention_heads ({heads}) does not divide hidden_size ({})",
                    self.hidden_size
                ));
            }
            None => self.hidden_size / heads,
        };
        Ok(Config {
            head,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: self.num_key_value_heads.or(default.kv_heads).unwrap_or(heads),
            head_dim,
            max_position_embeddings,
            rope_theta,
            rope_scaling,
            specifics,
            windows: Vec::new(),
            rms_norm_eps: self.rms_norm_eps.unwrap_or(default.rms_norm_eps),
            attention_bias: biased && self.attention_bias.unwrap_or(default.attention_bias),
            mlp_bias: self.mlp_bias.unwrap_or(false),
            bos_token_id: self.bos_token_id.and_then(token),
            eos_token_id: match self.eos_token_id {
                None => Vec::new(),
                Some(OneOrMany::One(id)) => token(id).into_iter().collect(),
                Some(OneOrMany::Many(ids)) => ids.into_iter().filter_map(token).collect(),
            },
            pad_token_id: self.pad_token_id.and_then(token),
            adapter: None,
        })
    }
}

#[cfg(test)]
mod tests;
