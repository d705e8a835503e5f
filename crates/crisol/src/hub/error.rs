//! What can go wrong between here and a hub, each with its remedy.

use std::path::PathBuf;

use crisol_hub::HubError;

use super::ModelId;

/// Why a model or data set could not be had from a hub. `page` is its page there, or its name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    #[error(
        "{page}: the hub has no such repository, or does not show it. Check the name (or the path, if \
         a folder here was meant); for a private one set HF_TOKEN \
         to a token that may read it."
    )]
    NoRepository { page: String },
    #[error(
        "{page}: the repository has no revision `{revision}`. Give a branch, a tag or a commit that it lists."
    )]
    NoRevision { page: String, revision: String },
    #[error("{page}: the repository has no file {file} in revision `{revision}`.{hint}")]
    NoFile { page: String, file: String, revision: String, hint: String },
    #[error(
        "{page}: this repository is gated. Accept its licence on that page, and set HF_TOKEN to a token of the account that \
         did{}",
        said(message)
    )]
    Gated { page: String, message: String },
    #[error("{page}: the hub refuses the token{}. Check HF_TOKEN, or log in again.", said(message))]
    BadToken { page: String, message: String },
    #[error("{page}: access is denied{}. Set HF_TOKEN to a token that may read it.", said(message))]
    Denied { page: String, message: String },
    #[error("{url}: the hub answers with status {status}{}. Try again later.", said(message))]
    Status { url: String, status: u16, message: String },
    #[error(
        "cannot reach {url}: {cause}. Check the network (and HF_ENDPOINT, if it is set); with --offline, what is in the \
         cache is used without it."
    )]
    Unreachable { url: String, cause: String },
    #[error(
        "{file}: the download stopped after {received} of {size} bytes: {cause}. What is there is kept; the same command \
         goes on from it."
    )]
    Interrupted { file: String, received: u64, size: u64, cause: String },
    #[error("{url}: this is not what a hub answers: {problem}")]
    Answer { url: String, problem: String },
    #[error(
        "{file}: what arrived is not what the hub describes: its SHA-256 is {actual}, expected {expected}. Nothing of it \
         is kept. Try again; if it stays so, the hub or something on the way to it is broken."
    )]
    Corrupt { file: String, actual: String, expected: String },
    #[error(
        "{id} is not in the cache {}, or not whole, and nothing may be downloaded (--offline or HF_HUB_OFFLINE). With a \
         network: crisol pull {id}", cache.display()
    )]
    Offline { id: ModelId, cache: PathBuf },
    #[error(
        "{name} is not in the cache {}, or not all that is asked of it, and nothing may be downloaded (--offline or \
         HF_HUB_OFFLINE). Once with a network, the same command fetches it.", cache.display()
    )]
    OfflineDataset { name: String, cache: PathBuf },
    #[error("{page}: {problem}")]
    Unusable { page: String, problem: String },
    #[error("{0}")]
    Environment(String),
    #[error(transparent)]
    File(#[from] HubError),
}

/// What the hub said itself, in brackets.
fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" (it says: {message})") }
}
