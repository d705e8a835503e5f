//! Fetches a model from the hub or from its cache.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crisol_text::TOKENIZER_FILES;
use serde::Serialize;

use super::cache::Cache;
use super::client::{Client, RemoteFile};
use super::download_file::{download, is_cached};
use super::download_progress::bytes;
use super::id::is_gguf;
use super::selection::{MAX_INDEX_BYTES, Selection, choose, is_part_of_gguf, list_names, shards};
use super::{ModelId, Need, PullError, environment};
use crate::console::say;

/// Maximum size of a weight file in bytes; hubs accept 500 GB.
const MAX_WEIGHTS_BYTES: u64 = 1 << 40;
/// Maximum size of other files in bytes; the largest tokenizers have 35 million.
const MAX_TEXT_BYTES: u64 = 1 << 28;

/// A model in the cache.
#[derive(Debug, Serialize)]
pub(crate) struct Pulled {
    repository: String,
    /// The commit.
    revision: String,
    folder: PathBuf,
    files: Vec<PulledFile>,
    /// The GGUF file, if the name selects one.
    #[serde(skip)]
    file: Option<String>,
}

#[derive(Debug, Serialize)]
struct PulledFile {
    name: String,
    bytes: u64,
    /// Whether it was cached before.
    cached: bool,
}

impl Pulled {
    /// The path for commands that take a model: the folder, or the GGUF file in it.
    pub(crate) fn path(&self) -> PathBuf {
        self.file.as_ref().map_or_else(|| self.folder.clone(), |file| self.folder.join(file))
    }

    fn has_tokenizer(&self) -> bool {
        let tokenizer = |file: &PulledFile| TOKENIZER_FILES.contains(&file.name.as_str());
        self.file.is_some() || self.files.iter().any(tokenizer)
    }
}

/// The model from the cache if it is complete there, else from the hub.
pub(crate) fn model(id: &ModelId, need: Need, offline: bool) -> Result<Pulled, PullError> {
    match cached(id, need) {
        // Python may have cached a part. A model without tokenizer may be complete, but only the
        // hub knows.
        Ok(found) if found.has_tokenizer() => Ok(found),
        found if offline || environment::offline() => found,
        _ => fetch(id, need),
    }
}

/// The model at the hub's current commit.
pub(crate) fn latest(id: &ModelId, offline: bool) -> Result<Pulled, PullError> {
    if offline || environment::offline() { cached(id, Need::Whole) } else { fetch(id, Need::Whole) }
}

/// The model in the cache.
fn cached(id: &ModelId, need: Need) -> Result<Pulled, PullError> {
    let cache = Cache::new(&id.repo)?;
    cached_snapshot(&cache, id, need).map_or_else(
        || Err(PullError::Offline { id: id.clone(), cache: environment::cache()? }),
        Ok,
    )
}

/// The cached snapshot of a revision, if it has all files of the model.
fn cached_snapshot(cache: &Cache, id: &ModelId, need: Need) -> Option<Pulled> {
    let commit = cache.commit(&id.repo.revision)?;
    let folder = cache.snapshot(&commit);
    let names = cache.files(&commit);
    let Selection { mut files, index } = choose(id, need, &names).ok()?;
    if let Some(index) = index {
        files.extend(shards(&folder.join(index), &names).ok()?);
    }
    let file = |name: String| {
        let bytes = folder.join(&name).metadata().ok()?.len();
        Some(PulledFile { name, bytes, cached: true })
    };
    let files = files.into_iter().map(file).collect::<Option<_>>()?;
    let (repository, file) = (id.repo.name.clone(), id.file.clone());
    Some(Pulled { repository, revision: commit, folder, files, file })
}

/// Downloads the missing files of the hub's current commit.
fn fetch(id: &ModelId, need: Need) -> Result<Pulled, PullError> {
    let client = Client::new()?;
    let cache = Cache::new(&id.repo)?;
    say(format_args!("Looking for {id} at {}", client.endpoint()));
    let repository = client.repository(&id.repo)?;
    let commit = &repository.commit;
    let unusable = |problem: String| PullError::Unusable { page: client.page(&id.repo), problem };
    if let Some(file) = &id.file {
        if !repository.files.contains(file) {
            return Err(no_file(&client, id, file, &repository.files));
        }
        if is_part_of_gguf(file) {
            return Err(unusable(format!(
                "{file} is one part of a split GGUF file, which Crisol does not read; name a \
                 GGUF file that is whole"
            )));
        }
    }
    let Selection { files, index } = choose(id, need, &repository.files).map_err(unusable)?;
    let describe = |name: &str| {
        let remote = client.describe(&id.repo, commit, name)?;
        let max = match name {
            _ if Some(name) == index => MAX_INDEX_BYTES,
            _ if is_weights(name) => MAX_WEIGHTS_BYTES,
            _ => MAX_TEXT_BYTES,
        };
        if remote.size > max {
            let problem = format!(
                "{name} has {} bytes according to the hub, more than any such file",
                remote.size
            );
            return Err(unusable(problem));
        }
        Ok(remote)
    };
    let mut remotes =
        files.iter().map(|name| describe(name)).collect::<Result<Vec<RemoteFile>, _>>()?;

    let mut pulled = Vec::new();
    let mut fetch_file = |remote: &RemoteFile| -> Result<(), PullError> {
        let cached = is_cached(&cache, remote);
        if !cached {
            download(&client, &id.repo, commit, &cache, remote)?;
        }
        cache.link(commit, &remote.name, &remote.etag)?;
        pulled.push(PulledFile { name: remote.name.clone(), bytes: remote.size, cached });
        Ok(())
    };
    // The index lists the shards, so it is downloaded first.
    if let Some(at) = index.and_then(|index| remotes.iter().position(|remote| remote.name == index))
    {
        let index = remotes.remove(at);
        fetch_file(&index)?;
        let names = shards(&cache.snapshot(commit).join(&index.name), &repository.files)
            .map_err(unusable)?;
        for name in names {
            remotes.push(describe(&name)?);
        }
    }
    announce(id, commit, &cache, &remotes);
    remotes.iter().try_for_each(fetch_file)?;
    // Last, so that a revision never points to an incomplete snapshot.
    cache.set_commit(&id.repo.revision, commit)?;
    Ok(Pulled {
        repository: id.repo.name.clone(),
        revision: commit.clone(),
        folder: cache.snapshot(commit),
        files: pulled,
        file: id.file.clone(),
    })
}

/// The error for a GGUF file that the repository does not have.
fn no_file(client: &Client, id: &ModelId, file: &str, files: &BTreeSet<String>) -> PullError {
    let gguf: Vec<&str> = files.iter().map(String::as_str).filter(|name| is_gguf(name)).collect();
    let hint = if gguf.is_empty() {
        " It has no GGUF files.".into()
    } else {
        format!(" It has: {}", list_names(&gguf))
    };
    PullError::NoFile {
        page: client.page(&id.repo),
        file: file.to_owned(),
        revision: id.repo.revision.clone(),
        hint,
    }
}

/// Prints the number and the size of the missing files.
fn announce(id: &ModelId, commit: &str, cache: &Cache, remotes: &[RemoteFile]) {
    let missing: Vec<&RemoteFile> =
        remotes.iter().filter(|remote| !is_cached(cache, remote)).collect();
    let size = missing.iter().map(|remote| remote.size).sum();
    let files = match missing.len() {
        0 => return say(format_args!("{id} is in the cache already, at commit {commit}")),
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    };
    say(format_args!("Fetching {id} at commit {commit}: {files}, {}", bytes(size)));
}

fn is_weights(name: &str) -> bool {
    let end = Path::new(name).extension();
    end.is_some_and(|end| ["safetensors", "bin", "gguf"].iter().any(|weights| end == *weights))
}
