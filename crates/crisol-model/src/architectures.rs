//! The architectures, one file each in `architectures/`, and what such a file provides: [`Family`].
//!
//! A new architecture is its file, its `mod` line and its line in the registry.

mod deepseek_v3;
mod ernie4_5;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_oss;
mod granite;
mod llama;
mod llama4;
mod mistral;
mod mixtral;
mod olmo2;
mod olmo3;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod smollm3;

use std::sync::Arc;

use crisol_engine::{ParamSpec, Params, RopeStyle};
use serde_json::{Value, json};

use crate::block::{Block, NormKind};
use crate::config::refuse_windows;
use crate::gguf::{self, GgufRope, Keys, NewKeys, TensorMapping};
use crate::layers::{AttentionShape, FeedForwardShape, Span};
use crate::mixture::FusedExpert;
use crate::{Config, ModelError};

/// Defines the enums that have one variant an architecture.
macro_rules! registry {
    ($($(#[$doc:meta])* $file:ident::$name:ident,)*) => {
        $(pub use $file::$name;)*

        /// The name of an architecture.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Architecture {
            $($(#[$doc])* $name,)*
        }

        /// The fields of `config.json` that only one architecture has.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Specifics {
            $($(#[$doc])* $name($name),)*
        }

        impl Architecture {
            /// All architectures.
            pub const ALL: [Architecture; [$(stringify!($name)),*].len()] =
                [$(Architecture::$name),*];
        }

        impl Specifics {
            /// transformers' defaults. Llama 4's fields by layer are missing.
            pub fn new(architecture: Architecture) -> Specifics {
                match architecture {
                    $(Architecture::$name => Specifics::$name($name::default()),)*
                }
            }

            /// The architecture that has these fields.
            pub fn architecture(&self) -> Architecture {
                match self {
                    $(Specifics::$name(_) => Architecture::$name,)*
                }
            }

            pub(crate) fn family(&self) -> &dyn Family {
                match self {
                    $(Specifics::$name(own) => own,)*
                }
            }
        }
    };
}

registry! {
    /// Pre-norm blocks (Touvron et al. 2023, arXiv:2302.13971).
    llama::Llama,
    /// Post-norm blocks with QK-norm (Walsh et al. 2025, arXiv:2501.00656).
    olmo2::Olmo2,
    /// Pre-norm blocks with biases of queries, keys, values (Yang et al. 2024, arXiv:2407.10671).
    qwen2::Qwen2,
    /// Pre-norm blocks with windows (Jiang et al. 2023, arXiv:2310.06825).
    mistral::Mistral,
    /// Pre-norm blocks with QK-norm in each head (Yang et al. 2025, arXiv:2505.09388).
    qwen3::Qwen3,
    /// Norms before and after, soft-caps, windows in every second layer (Gemma Team 2024,
    /// arXiv:2408.00118).
    gemma2::Gemma2,
    /// Gemma 2's with QK-norm and two RoPE bases (Gemma Team 2025, arXiv:2503.19786).
    gemma3::Gemma3,
    /// Pre-norm blocks, some of which do not rotate (Bakouch et al. 2025).
    smollm3::SmolLm3,
    /// Pre-norm blocks with four factors (IBM 2024).
    granite::Granite,
    /// Pre-norm blocks with neighbouring elements as rotated pairs (Baidu 2025).
    ernie4_5::Ernie4_5,
    /// OLMo-2's blocks with windows (Olmo Team 2025).
    olmo3::Olmo3,
    /// Fused projections, partial rotation, `LongRoPE` (Microsoft 2024, arXiv:2404.14219).
    phi3::Phi3,
    /// Learned positions, `LayerNorm`, an MLP without a gate (Radford et al. 2019).
    gpt2::Gpt2,
    /// Qwen3's blocks with mixtures of experts (Yang et al. 2025, arXiv:2505.09388).
    qwen3_moe::Qwen3Moe,
    /// Mistral's blocks with mixtures of experts (Jiang et al. 2024, arXiv:2401.04088).
    mixtral::Mixtral,
    /// Attention sinks and mixtures of experts with biases (OpenAI 2025, arXiv:2508.10925).
    gpt_oss::GptOss,
    /// Chunked attention and mixtures of experts (Meta AI 2025).
    llama4::Llama4,
    /// Latent attention and mixtures of experts (DeepSeek-AI 2024, arXiv:2412.19437).
    deepseek_v3::DeepseekV3,
}

/// An architecture's names elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    /// What the names of its classes in transformers start with.
    pub(crate) class: &'static str,
    /// `model_type` in `config.json`.
    pub(crate) model_type: &'static str,
    /// `general.architecture` in GGUF files.
    pub(crate) gguf: &'static str,
}

/// transformers' defaults of common fields.
pub(crate) struct Defaults {
    pub(crate) rms_norm_eps: f32,
    pub(crate) max_position_embeddings: usize,
    /// `None`: as many as query heads.
    pub(crate) kv_heads: Option<usize>,
    /// `None`: hidden size / heads.
    pub(crate) head_dim: Option<usize>,
    pub(crate) rope_theta: f64,
    /// Whether the head is the embedding table.
    pub(crate) tied: bool,
    /// Whether the attention has biases.
    pub(crate) attention_bias: bool,
}

impl Default for Defaults {
    /// Llama's.
    fn default() -> Defaults {
        Defaults {
            rms_norm_eps: 1e-6,
            max_position_embeddings: 2048,
            kv_heads: None,
            head_dim: None,
            rope_theta: 10_000.0,
            tied: false,
            attention_bias: false,
        }
    }
}

/// Names of the parameters outside of the layers, and what the names of layers start with.
#[derive(Clone, Copy)]
pub(crate) struct OuterNames {
    pub(crate) embedding: &'static str,
    /// Table of learned positions.
    pub(crate) positions: Option<&'static str>,
    pub(crate) layers: &'static str,
    pub(crate) norm: &'static str,
}

impl OuterNames {
    pub(crate) fn layer(self, layer: usize) -> String {
        format!("{}{layer}.", self.layers)
    }
}

/// What the file of an architecture provides. `self` has the fields of `config.json` that no other
/// architecture has, by default those of transformers; `config` has the common ones. What a method
/// does by default is Llama's, or that of most.
pub(crate) trait Family {
    fn names(&self) -> Names;

    /// Class in transformers with a scalar head.
    fn scalar_class(&self) -> String {
        format!("{}{SCALAR}", self.names().class)
    }

    /// The class in transformers of the language model.
    fn language_class(&self) -> String {
        format!("{}ForCausalLM", self.names().class)
    }

    // config.json

    fn defaults(&self) -> Defaults {
        Defaults::default()
    }

    /// Gives the fields of a `config.json` the common names.
    fn common_fields(&self, _json: &mut Value) {}

    /// The field that names the activation, the names of those that are computed, and which it is
    /// by default.
    fn activation(&self) -> (&'static str, &'static [&'static str]) {
        ("hidden_act", &["silu"])
    }

    /// Reads the own fields of a `config.json` into `config.specifics`, and refuses what is not
    /// computed exactly. The common fields are read, but not checked.
    fn read(&self, text: &str, _config: &mut Config) -> Result<(), String> {
        refuse_windows(text)
    }

    /// Gives the common fields of a written `config.json` the names that [`Self::common_fields`]
    /// reads.
    fn own_fields(&self, _json: &mut Value) {}

    /// The own fields, added to the common ones in `config.json`.
    fn to_json(&self, _config: &Config) -> Value {
        json!({})
    }

    /// What is wrong with the own fields, or with the common ones for this architecture.
    fn problem(&self, _config: &Config) -> Option<String> {
        None
    }

    /// Whether `attention_bias` gives all four projections a bias.
    fn has_attention_bias(&self) -> bool {
        true
    }

    /// Whether feed-forward layers can have biases.
    fn has_mlp_bias(&self) -> bool {
        false
    }

    /// Class of the text-and-image models whose language model (`text_config`) this is.
    fn multimodal_class(&self) -> Option<&'static str> {
        None
    }

    // The network

    fn outer_names(&self) -> OuterNames {
        OuterNames {
            embedding: "model.embed_tokens",
            positions: None,
            layers: "model.layers.",
            norm: "model.norm",
        }
    }

    fn norm(&self) -> NormKind {
        NormKind::Rms
    }

    /// Factor on the embeddings.
    fn embedding_scale(&self, _config: &Config) -> Option<f32> {
        None
    }

    /// Factor on the logits.
    fn logit_scale(&self) -> Option<f32> {
        None
    }

    /// Soft-cap of the logits.
    fn logit_cap(&self) -> Option<f32> {
        None
    }

    /// Factor on the scores of attention.
    fn attention_scale(&self, config: &Config) -> f32 {
        (config.head_dim as f32).sqrt().recip()
    }

    /// Soft-cap of the scores of attention.
    fn attention_cap(&self) -> Option<f32> {
        None
    }

    /// The scalings of rotary embeddings that are computed, by their names in `config.json`.
    fn rope_kinds(&self) -> &'static [&'static str] {
        &["default", "linear", "dynamic", "llama3", "yarn"]
    }

    /// Whether `partial_rotary_factor` is read.
    fn rotates_partly(&self) -> bool {
        false
    }

    /// Columns of a head that rotate, the first ones.
    fn rotated(&self, config: &Config) -> usize {
        config.head_dim
    }

    /// Whether queries and keys of a layer rotate.
    fn rotates(&self, _layer: usize) -> bool {
        true
    }

    /// RoPE base of layers with a window, which have no scaling then; `None`: as the others.
    fn local_rope_theta(&self, _config: &Config) -> Option<f64> {
        None
    }

    /// The parameters of a layer, with names below `prefix`, in the order of the forward pass.
    fn specs(&self, config: &Config, layer: usize, prefix: String) -> Vec<ParamSpec>;

    /// The block of a layer, bound to the parameters of [`Self::specs`].
    fn bind(&self, config: &Config, params: &Params, layer: usize, prefix: &str) -> Arc<dyn Block>;

    /// Which elements of a head form a rotated pair.
    fn rope_style(&self) -> RopeStyle {
        RopeStyle::Halves
    }

    // What a layer costs, and what it keeps in the KV cache

    fn attention(&self, config: &Config, layer: usize) -> AttentionShape {
        AttentionShape::grouped(config, config.window(layer).map(Span::Window))
    }

    fn feed_forward(&self, config: &Config, _layer: usize) -> FeedForwardShape {
        FeedForwardShape::Dense { inner: config.intermediate_size }
    }

    /// Routed experts per layer and selected experts per token.
    fn experts(&self) -> Option<(usize, usize)> {
        None
    }

    // Checkpoint folders

    /// Where a parameter is, if it is an expert's in a fused tensor.
    fn fused_expert(&self, _spec: &ParamSpec) -> Option<FusedExpert> {
        None
    }

    /// What the names of parameters start with, but those of some files do not.
    fn optional_prefix(&self) -> &'static str {
        ""
    }

    /// Whether a file holds the matrix transposed, `[in, out]`.
    fn is_transposed(&self, _spec: &ParamSpec) -> bool {
        false
    }

    /// Whether a tensor of some files is no parameter.
    fn ignores_tensor(&self, _tensor: &str) -> bool {
        false
    }

    /// Whether a tensor belongs to a multi-token-prediction layer, which is not loaded.
    fn is_mtp_tensor(&self, _config: &Config, _tensor: &str) -> bool {
        false
    }

    // GGUF files, as llama.cpp reads them

    /// Whether a file with this architecture's name is not one of another that has the same name.
    fn is_gguf(&self, _keys: &Keys<'_>) -> Result<bool, ModelError> {
        Ok(true)
    }

    /// Reads metadata into `config.specifics`, and attention and feed-forward sizes into the common
    /// fields. Refuses what is not computed exactly.
    fn read_gguf(&self, keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
        gguf::read_dense(keys, config)
    }

    /// Writes what [`Self::read_gguf`] reads. Errors where llama.cpp would compute something else.
    fn write_gguf(&self, keys: &mut NewKeys<'_>, config: &Config) -> Result<(), String> {
        gguf::write_dense(keys, config)
    }

    /// Names of a layer's parts here and in GGUF files, where the common table has none or another.
    /// Part or whole parameter, without `model.layers.N.`.
    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The layout of a parameter that is not the whole of `tensor` as it stands.
    fn gguf_mapping(
        &self,
        _config: &Config,
        _spec: &ParamSpec,
        _tensor: &str,
    ) -> Option<TensorMapping> {
        None
    }

    fn gguf_rope(&self) -> GgufRope {
        GgufRope::Keys
    }

    /// Whether llama.cpp applies an adapter of this module.
    fn has_gguf_adapter(&self, _module: &str) -> bool {
        true
    }

    /// Whether llama.cpp reads biases of the attention.
    fn has_gguf_attention_bias(&self) -> bool {
        false
    }
}

const SCALAR: &str = "ForSequenceClassification";

impl Architecture {
    pub(crate) fn names(self) -> Names {
        Specifics::new(self).family().names()
    }

    /// What the names of its classes in transformers start with.
    pub fn class(self) -> &'static str {
        self.names().class
    }

    /// The transformers class with a language head, or with a scalar one.
    pub(crate) fn task_class(self, language: bool) -> String {
        let specifics = Specifics::new(self);
        let family = specifics.family();
        if language { family.language_class() } else { family.scalar_class() }
    }

    /// The architecture of a transformers class, and whether it has a language head.
    pub(crate) fn from_class(class: &str) -> Option<(Architecture, bool)> {
        let all = Architecture::ALL.into_iter();
        let mut tasks = all.flat_map(|architecture| [(architecture, true), (architecture, false)]);
        tasks.find(|(architecture, language)| architecture.task_class(*language) == class)
    }

    /// The architecture of a class with a language head.
    pub fn from_causal_lm_class(class: &str) -> Option<Architecture> {
        Architecture::from_class(class)
            .filter(|&(_, language)| language)
            .map(|(architecture, _)| architecture)
    }

    /// The architecture of the language model within a text-and-image model.
    pub(crate) fn from_multimodal_class(class: &str) -> Option<Architecture> {
        let multimodal =
            |architecture: &Architecture| Specifics::new(*architecture).family().multimodal_class();
        Architecture::ALL.into_iter().find(|of| multimodal(of) == Some(class))
    }

    /// The classes that Crisol has, for error messages.
    pub(crate) fn supported() -> String {
        let classes = Architecture::ALL.map(|architecture| architecture.task_class(true));
        format!("{} (reward models: …{SCALAR} with one label)", classes.join(", "))
    }
}
