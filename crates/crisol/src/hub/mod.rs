//! Models and data sets by their names on a Hugging Face hub: fetched once into the cache that Python's `huggingface_hub` uses too.
//!
//! Built without the feature `hub`, names are understood and answered with how to build it in.

mod datasets;
mod id;

#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod environment;
#[cfg(feature = "hub")]
mod error;
#[cfg(feature = "hub")]
mod pull;
#[cfg(feature = "hub")]
mod selection;
#[cfg(feature = "hub")]
mod transfer;

#[cfg(feature = "hub")]
pub(crate) use datasets::find;
pub(crate) use datasets::{DatasetName, SCHEME};
#[cfg(feature = "hub")]
pub(crate) use error::PullError;
pub(crate) use id::ModelId;
#[cfg(feature = "hub")]
pub(crate) use pull::{latest, model};

/// Which part of a model is needed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Need {
    /// All of it.
    Whole,
    /// Configuration and tokenizer.
    Text,
}
