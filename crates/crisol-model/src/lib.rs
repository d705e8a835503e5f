//! Decoder-only language models from a Hugging Face `config.json`: Llama, OLMo-2, Qwen3, Llama 4 and DeepSeek-V3.
//!
//! - [`Config`]: the shape. [`Model`]: the forward pass over a tape: hidden states, then log-probabilities
//!   of given tokens, a scalar per position, or whole logits.
//! - [`Checkpoint`]: a model with weights and tokenizer, loaded from and saved to a folder that
//!   transformers loads too.
//! - [`ModelFiles`]: such a folder or a GGUF file, looked at or written as the other, without loading it.
//! - [`generate`], [`generate_stream`]: tokens from the same weights; [`replies`], [`stream_reply`]: their text, up to a
//!   stop string. [`score`], [`scalars`]: what the model
//!   says about given text.

mod block;
mod checkpoint;
mod config;
mod cost;
mod deepseek_v3;
mod error;
mod files;
mod generate;
mod gguf;
mod llama;
mod llama4;
mod mixture;
mod model;
mod olmo2;
mod qwen3;
mod reply;
mod rope;
mod sample;
mod score;
mod weights;

pub use block::PastKeyValues;
pub use checkpoint::{
    Checkpoint, SHARD_BYTES, left_out, load_model, load_model_for_inference, save_checkpoint,
};
pub use config::{Architecture, Config, Head, Specifics};
pub use deepseek_v3::Shape as DeepseekV3Shape;
pub use error::ModelError;
pub use files::{ModelFiles, WeightSummary, load_config, load_text};
pub use generate::{
    Conversation, Generated, PREFILL_TOKENS, StopReason, at_once, generate, generate_stream,
};
pub use llama4::Shape as Llama4Shape;
pub use model::Model;
pub use reply::{Reply, replies, reply_in, stream_reply};
pub use rope::RopeScaling;
pub use sample::SamplingOptions;
pub use score::{scalars, score};
