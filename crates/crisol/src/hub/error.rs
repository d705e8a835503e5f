//! Errors of access to a hub, each with a remedy.

use std::path::PathBuf;

use crisol_hub::HubError;

use super::ModelId;

/// Why a model or data set is not available. `page`: its web page or its name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    #[error(
        "{page}: the hub has no such repository, or hides it. Check the name (or the path, if a \
         local folder was meant); for a private one set HF_TOKEN to a token with read access."
    )]
    NoRepository { page: String },
    #[error(
        "{page}: the repository has no revision `{revision}`. \
         Give an existing branch, tag or commit."
    )]
    NoRevision { page: String, revision: String },
    #[error("{page}: the repository has no file {file} in revision `{revision}`.{hint}")]
    NoFile { page: String, file: String, revision: String, hint: String },
    #[error(
        "{page}: this repository is gated. Accept its licence on that page, and set HF_TOKEN to a \
         token of the same account{}",
        hub_message(message)
    )]
    Gated { page: String, message: String },
    #[error(
        "{page}: the hub refuses the token{}. Check HF_TOKEN, or log in again.",
        hub_message(message)
    )]
    BadToken { page: String, message: String },
    #[error(
        "{page}: access is denied{}. Set HF_TOKEN to a token with read access.",
        hub_message(message)
    )]
    Denied { page: String, message: String },
    #[error(
        "{url}: the hub answers with status {status}{}. Try again later.",
        hub_message(message)
    )]
    Status { url: String, status: u16, message: String },
    #[error(
        "cannot reach {url}: {cause}. Check the network (and HF_ENDPOINT, if it is set). \
         --offline uses what is in the cache."
    )]
    Unreachable { url: String, cause: String },
    #[error(
        "{file}: the download stopped after {received} of {size} bytes: {cause}. \
         Run the same command again to resume it."
    )]
    Interrupted { file: String, received: u64, size: u64, cause: String },
    #[error("{url}: this is not what a hub answers: {problem}. Check HF_ENDPOINT.")]
    UnexpectedResponse { url: String, problem: String },
    #[error(
        "{file}: the download is corrupt and was deleted: its SHA-256 is {actual}, expected \
         {expected}. Try again; if it persists, the hub or a proxy is broken."
    )]
    Corrupt { file: String, actual: String, expected: String },
    #[error(
        "{id} is not in the cache {}, or incomplete, and downloads are off (--offline or \
         HF_HUB_OFFLINE). With a network: crisol pull {id}",
        cache.display()
    )]
    Offline { id: ModelId, cache: PathBuf },
    #[error(
        "{name} is not in the cache {}, or incomplete, and downloads are off (--offline or \
         HF_HUB_OFFLINE). Run the same command once with a network.",
        cache.display()
    )]
    OfflineDataset { name: String, cache: PathBuf },
    #[error("{page}: {problem}")]
    Unusable { page: String, problem: String },
    #[error("{0}")]
    Environment(String),
    #[error(transparent)]
    File(#[from] HubError),
}

/// The hub's own message, in brackets.
fn hub_message(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" (it says: {message})") }
}
