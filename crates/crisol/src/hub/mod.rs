//! Models and data sets on a Hugging Face hub, downloaded once into the cache of Python's
//! `huggingface_hub`.
//!
//! Without the feature `hub`, names are parsed and the error says how to build with it.

mod datasets;
mod id;

#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download_file;
#[cfg(feature = "hub")]
mod download_model;
#[cfg(feature = "hub")]
mod download_progress;
#[cfg(feature = "hub")]
mod environment;
#[cfg(feature = "hub")]
mod error;
#[cfg(feature = "hub")]
mod selection;

#[cfg(feature = "hub")]
pub(crate) use datasets::find;
pub(crate) use datasets::{DatasetName, SCHEME};
#[cfg(feature = "hub")]
pub(crate) use download_model::{latest, model};
#[cfg(feature = "hub")]
pub(crate) use error::PullError;
pub(crate) use id::ModelId;

/// The part of a model that a command needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Need {
    /// Weights, config and tokenizer.
    Whole,
    /// Config and tokenizer.
    Text,
}
