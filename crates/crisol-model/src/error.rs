//! Errors of models, their files and their inputs, each with a remedy.

use std::path::PathBuf;

use crisol_hub::HubError;
use crisol_text::TextError;

/// A problem with a model, its files or its input.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A `config.json` or the metadata of a GGUF file is invalid or unsupported.
    #[error("{file}: {cause}. Use a supported model, or correct the file.", file = file.display())]
    ConfigFile {
        /// The file.
        file: PathBuf,
        /// What is wrong, with the field's name.
        cause: String,
    },
    /// A [`crate::Config`] with sizes that no model can have.
    #[error("the model's shape is impossible: {0}")]
    Shape(String),
    /// An adapter folder that is unsupported or does not fit.
    #[error("{file}: {cause}. {remedy}.", file = file.display())]
    Adapter {
        /// The adapter's config.
        file: PathBuf,
        /// What is wrong.
        cause: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Settings of an adapter that the model cannot have.
    #[error("the adapter's settings are impossible: {0}")]
    AdapterSettings(String),
    /// Reading or writing a file failed.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The tokenizer or chat template of a checkpoint is unusable.
    #[error(transparent)]
    Text(#[from] TextError),
    /// GGUF, or llama.cpp's implementation, cannot represent the model.
    #[error("this model cannot be written as a GGUF file: {cause}. Keep it as a folder.")]
    NotInGguf {
        /// The obstacle.
        cause: String,
    },
    /// A token id is not in the vocabulary.
    #[error(
        "token id {id} is outside of the model's vocabulary of {vocab} tokens. \
         Encode the text with this model's own tokenizer."
    )]
    UnknownToken {
        /// The token id.
        id: u32,
        /// Tokens in the vocabulary.
        vocab: usize,
    },
    /// A sequence exceeds the context.
    #[error(
        "a sequence of {length} tokens is longer than the model's context of {limit} \
         (max_position_embeddings). Shorten it."
    )]
    TooLong {
        /// Tokens in the sequence.
        length: usize,
        /// Tokens in the context.
        limit: usize,
    },
    /// A prompt or sequence has no tokens.
    #[error("sequence {index} (counting from 0) is empty; give every sequence at least one token")]
    EmptySequence {
        /// Index of the sequence.
        index: usize,
    },
    /// A language head is needed and the model has a scalar head, or the other way round.
    #[error("this model has {has}, but {needs} is needed; use a model with one")]
    WrongHead {
        /// The head of the model.
        has: &'static str,
        /// The head that the operation needs.
        needs: &'static str,
    },
    /// A sampling option is out of range.
    #[error("{option} is {value}; it must be {allowed}")]
    Sampling {
        /// Name of the option.
        option: &'static str,
        /// The value.
        value: f64,
        /// The valid range.
        allowed: &'static str,
    },
    /// A stop string is empty.
    #[error("a stop string is empty and would end every answer at once; remove it")]
    EmptyStop,
    /// The device's interrupt was requested.
    #[error("stopped on request")]
    Stopped,
    /// The logits contain NaN or infinity.
    #[error(
        "the model's logits are not finite (NaN or infinity): its weights are broken, \
         e.g. by diverged training. Take an earlier checkpoint."
    )]
    NotFinite,
}
