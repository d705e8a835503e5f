//! The environment variables of Python's `huggingface_hub`, with the same meaning.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use super::PullError;

/// Hugging Face's own hub.
const ENDPOINT: &str = "https://huggingface.co";

/// Whether `HF_HUB_OFFLINE` forbids network access.
pub(super) fn offline() -> bool {
    let value = env::var("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_uppercase();
    ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
}

/// The hub's URL without a trailing slash.
pub(super) fn endpoint() -> Result<String, PullError> {
    let endpoint = env::var("HF_ENDPOINT").ok().filter(|value| !value.is_empty());
    let endpoint = endpoint.unwrap_or_else(|| ENDPOINT.to_owned());
    let endpoint = endpoint.trim_end_matches('/');
    let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    if host.is_none_or(|host| {
        host.is_empty() || host.contains(|c: char| c.is_whitespace() || "?#@".contains(c))
    }) {
        return Err(PullError::Environment(format!(
            "HF_ENDPOINT={endpoint}: give the address of a hub, such as {ENDPOINT}, or unset it"
        )));
    }
    Ok(endpoint.to_owned())
}

/// The cache folder: `HF_HUB_CACHE`, `hub` in `HF_HOME`, or `~/.cache/huggingface/hub`.
pub(super) fn cache() -> Result<PathBuf, PullError> {
    match path("HF_HUB_CACHE") {
        Some(cache) => Ok(cache),
        None => Ok(home()?.join("hub")),
    }
}

/// The access token: `HF_TOKEN`, or the token file of `hf auth login`.
pub(super) fn token() -> Result<Option<String>, PullError> {
    let in_file = || {
        std::fs::read_to_string(path("HF_TOKEN_PATH").or_else(|| Some(home().ok()?.join("token")))?)
            .ok()
    };
    let token = env::var("HF_TOKEN").ok().filter(|token| !token.trim().is_empty()).or_else(in_file);
    let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
    if token.as_ref().is_some_and(|token| !token.chars().all(|c| c.is_ascii_graphic())) {
        return Err(PullError::Environment(
            "the token in HF_TOKEN or in its file has invalid characters".into(),
        ));
    }
    Ok(token)
}

/// A file of trusted certificates, for networks that inspect TLS: `SSL_CERT_FILE`, as in OpenSSL
/// and Python.
pub(super) fn certificates() -> Option<PathBuf> {
    path("SSL_CERT_FILE")
}

fn home() -> Result<PathBuf, PullError> {
    if let Some(home) = path("HF_HOME") {
        return Ok(home);
    }
    let caches = path("XDG_CACHE_HOME").or_else(|| Some(env::home_dir()?.join(".cache")));
    let caches = caches.ok_or_else(|| {
        PullError::Environment(
            "there is no home folder for the model cache; set HF_HOME to a folder".into(),
        )
    })?;
    Ok(caches.join("huggingface"))
}

/// The path in a variable; a leading `~/` is the home folder, as in Python.
fn path(variable: &str) -> Option<PathBuf> {
    let value: OsString = env::var_os(variable).filter(|value| !value.is_empty())?;
    let below_home = value.to_str().and_then(|value| value.strip_prefix("~/"));
    match below_home {
        Some(rest) => Some(env::home_dir()?.join(rest)),
        None => Some(PathBuf::from(value)),
    }
}
