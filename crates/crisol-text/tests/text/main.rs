//! Tests of crisol-text through its public interface.

mod examples;
mod fixture;
mod folder;
mod inspect;
mod material;
mod packing;
mod records;
mod templates;
mod tokenizer;
