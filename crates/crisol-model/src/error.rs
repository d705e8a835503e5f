//! What can go wrong with a model, each with its remedy.

use std::path::PathBuf;

use crisol_hub::HubError;
use crisol_text::TextError;

/// A problem with a model, its files or what it is asked to do.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A `config.json` that cannot be used.
    #[error("{file}: {cause}", file = file.display())]
    ConfigFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A shape that no model can have.
    #[error("the model's shape is impossible: {0}")]
    Shape(String),
    /// A file or folder.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Tokenizer or chat template of a checkpoint.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A model that the format of llama.cpp has no place for, or not this program's writer.
    #[error("this model cannot be written as a GGUF file: {cause}. Keep it as a folder.")]
    NotInGguf {
        /// What is in the way.
        cause: String,
    },
    /// A token that the model does not have.
    #[error(
        "token id {id} is outside of the model's vocabulary of {vocab} tokens. \
         Was the text encoded with another model's tokenizer?"
    )]
    UnknownToken {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A sequence that does not fit.
    #[error(
        "a sequence of {length} tokens is longer than the model's context of {limit} \
         (max_position_embeddings). Shorten it."
    )]
    TooLong {
        /// Tokens of the sequence.
        length: usize,
        /// Most tokens the model can take.
        limit: usize,
    },
    /// A prompt or sequence without tokens.
    #[error("sequence {index} (counting from 0) has no tokens; there is nothing to go on from")]
    EmptySequence {
        /// Which one.
        index: usize,
    },
    /// A language model was asked for a scalar or the other way round.
    #[error("this model has {has}, but {needs} is needed")]
    WrongHead {
        /// What it has.
        has: &'static str,
        /// What was asked for.
        needs: &'static str,
    },
    /// Sampling options that make no sense.
    #[error("{option} is {value}; it must be {allowed}")]
    Sampling {
        /// Name of the option.
        option: &'static str,
        /// The value given.
        value: f64,
        /// The values that make sense.
        allowed: &'static str,
    },
    /// A stop string without characters.
    #[error("a stop string is empty; every answer would end before it begins")]
    EmptyStop,
    /// Somebody asked the device to stop.
    #[error("stopped on request")]
    Stopped,
    /// The model gives no usable probabilities.
    #[error(
        "the model's logits are not finite (NaN or infinity): its weights are broken, e.g. by diverged training"
    )]
    NotFinite,
}
