//! Decoder-only language models with the shapes and files of Hugging Face transformers: those of
//! [`Architecture`].
//!
//! - [`Config`]: the shape, from and to `config.json`.
//! - [`Model`]: the forward pass on a tape.
//! - [`Checkpoint`]: model, weights and tokenizer, in a folder that transformers loads.
//! - [`AdapterConfig`]: a low-rank adapter over a frozen checkpoint, in a folder that PEFT loads.
//! - [`ModelFiles`]: a checkpoint folder or GGUF file, inspected or converted without loading it.
//! - [`generate`], [`generate_stream`]: new tokens; [`replies`], [`stream_reply`]: their text.
//! - [`score`]: log-probabilities of a text; [`scalars`]: rewards or values.

mod adapter;
mod architectures;
mod block;
mod checkpoint;
mod config;
mod error;
mod files;
mod generate;
mod gguf;
mod layers;
mod mixture;
mod model;
mod reply;
mod rope;
mod sample;
mod score;
mod weights;

pub use adapter::{ALL_LINEAR, Adapted, AdapterConfig, AdapterFiles, AdapterModule, with_adapter};
pub use architectures::*;
pub use block::PastKeyValues;
pub use checkpoint::{
    Checkpoint, SHARD_BYTES, load_model, load_model_for_inference, read_by_rows, save_checkpoint,
    skipped_tensors,
};
pub use config::{Config, Head};
pub use error::ModelError;
pub use files::{ModelFiles, WeightSummary, load_config, load_text};
pub use generate::{
    Conversation, Generated, PREFILL_TOKENS, StopReason, generate, generate_stream,
    generation_concurrency,
};
pub use gguf::GgufAdapter;
pub use layers::{AttentionShape, FeedForwardShape, LayerShape, Span};
pub use model::Model;
pub use reply::{Reply, replies, reply_in_conversation, stream_reply};
pub use rope::RopeScaling;
pub use sample::SamplingOptions;
pub use score::{scalars, score};
