//! From data files to token ids with a loss mask.
//!
//! ```text
//! data files ──► records ──► examples ─────────► packed shards
//! dataset/       shapes.rs   examples.rs,        packing.rs
//!                            turns.rs (chat)
//! ```
//!
//! - [`Tokenizer`]: byte-level BPE, trained here or read from a `tokenizer.json`, a sentencepiece
//!   `tokenizer.model`, Mistral's `tekken.json` or the [`GgufVocab`] of a GGUF file;
//! - [`ChatTemplate`]: a Jinja template that renders messages and encodes conversations;
//! - [`records()`]: the [`Record`]s of data files, in all supported formats and shapes;
//! - [`TextSetup`]: tokenizer, chat template and stop tokens of one model folder. It encodes
//!   prompts, and records as [`Example`]s with an [`EncodingSummary`];
//! - [`Packed`]: examples concatenated for one training step;
//! - [`inspect`]: which tokens of a file are trained, and what is wrong with its records.

mod adapt;
mod bounds;
mod chunks;
mod dataset;
mod dropped_text;
mod error;
mod examples;
mod folder;
mod gguf_vocab;
pub mod inspect;
mod jinja;
mod message;
mod namespaces;
mod options;
mod packing;
mod panics;
mod protobuf;
mod python_text;
mod records;
mod sentencepiece;
mod shapes;
mod stop;
mod tags;
mod tekken;
mod template;
mod tokenizer;
mod turns;
mod word_cache;
mod workers;

pub use chunks::encode_chunks;
pub use dataset::{
    DatasetFiles, ReadOptions, Records, RowRange, SourceSize, count_rows, data_files, records,
    source_size,
};
pub use error::TextError;
pub use examples::{Encoded, Example, PreferenceExample, ProblemExample, encode_records};
pub use folder::{TOKENIZER_FILES, TextSetup};
pub use gguf_vocab::GgufVocab;
pub use message::Message;
pub use options::{EncodingSummary, OverlongPolicy, StringFormat, TextOptions};
pub use packing::{Packed, pack};
pub use panics::panic_is_caught;
pub use records::{Body, Record, Turns, jsonl_records, parse_jsonl};
pub use stop::StopStream;
pub use template::ChatTemplate;
pub use tokenizer::{
    AddedToken, EMBEDDED_TOKENS, END_OF_TEXT, END_OF_TURN, TokenStream, Tokenizer,
};
pub use workers::start_text_threads;
