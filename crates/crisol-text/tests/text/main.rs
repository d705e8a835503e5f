//! Tests of crisol-text through its public interface.

mod examples;
mod fixture;
mod folder;
mod formats;
mod gguf_vocab;
mod golden_templates;
mod inspect;
mod jinja;
mod material;
mod packing;
mod parity;
mod records;
mod sentencepiece;
mod shapes;
mod stock_templates;
mod stop;
mod templates;
mod tokenizer;
