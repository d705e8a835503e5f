//! Text in, token ids with a loss mask out: everything between a file of the user's and the tensors that
//! the model trains on.
//!
//! - [`Tokenizer`]: byte-level BPE, trained here or read from a `tokenizer.json`, a sentencepiece `tokenizer.model` or the
//!   [`GgufVocab`] of a GGUF file;
//! - [`ChatTemplate`]: a Jinja template that turns messages into text, and conversations into examples;
//! - [`records()`]: the [`Record`]s of data files, in the formats and shapes that the field uses;
//! - [`TextSetup`]: the tokenizer, template and stop tokens of one model folder, which makes the ids of prompts
//!   and turns records into [`Example`]s, with a [`Summary`] of what became of them;
//! - [`Packed`]: examples laid back to back for one training step;
//! - [`inspect`]: what of a file will be trained, and what is wrong with it.

mod bounds;
mod chunks;
mod dataset;
mod error;
mod examples;
mod folder;
mod gguf_vocab;
mod guard;
pub mod inspect;
mod jinja;
mod message;
mod namespaces;
mod options;
mod packing;
mod protobuf;
mod records;
mod sentencepiece;
mod shapes;
mod stop;
mod tags;
mod template;
mod tokenizer;
mod turns;
mod word_cache;
mod words;
mod workers;

pub use chunks::encode_chunks;
pub use dataset::{
    DataSet, Extent, ReadOptions, Records, RowRange, count_rows, data_files, extent, records,
};
pub use error::TextError;
pub use examples::{Encoded, Example, PreferenceExample, ProblemExample, encode_records};
pub use folder::TextSetup;
pub use gguf_vocab::GgufVocab;
pub use guard::panic_becomes_error;
pub use message::Message;
pub use options::{Strings, Summary, TextOptions, TooLong};
pub use packing::{Packed, pack};
pub use records::{Body, Record, Turns, parse_jsonl, parse_jsonl_lines};
pub use stop::StopStream;
pub use template::ChatTemplate;
pub use tokenizer::{
    EMBEDDED_TOKENS, END_OF_TEXT, END_OF_TURN, NamedToken, TokenStream, Tokenizer,
};
pub use workers::start_text_threads;
