//! A model from a hub, or from what the cache has of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::cache::Cache;
use super::client::{Client, Remote};
use super::download::{download, is_there};
use super::id::is_gguf;
use super::selection::{MAX_OF_INDEX, Selection, choose, is_part_of_gguf, shards, some};
use super::transfer::bytes;
use super::{ModelId, Need, PullError, environment};
use crate::console::say;

/// Bytes that a file of weights has at most; hubs take 500 GB.
const MAX_OF_WEIGHTS: u64 = 1 << 40;
/// Bytes that any other file has at most; the largest tokenizers have 35 million.
const MAX_OF_TEXT: u64 = 1 << 28;

/// A model in the cache.
#[derive(Debug, Serialize)]
pub(crate) struct Pulled {
    repository: String,
    /// The commit.
    revision: String,
    folder: PathBuf,
    files: Vec<PulledFile>,
    /// The GGUF file, where it is one.
    #[serde(skip)]
    file: Option<String>,
}

#[derive(Debug, Serialize)]
struct PulledFile {
    name: String,
    bytes: u64,
    /// Whether it was there before.
    cached: bool,
}

impl Pulled {
    /// What a command that takes a model takes: the folder, or the GGUF file in it.
    pub(crate) fn path(&self) -> PathBuf {
        self.file.as_ref().map_or_else(|| self.folder.clone(), |file| self.folder.join(file))
    }

    fn has_tokenizer(&self) -> bool {
        let tokenizer =
            |file: &PulledFile| matches!(file.name.as_str(), "tokenizer.json" | "tokenizer.model");
        self.file.is_some() || self.files.iter().any(tokenizer)
    }
}

/// The model, from the cache if it is whole there, else from the hub.
pub(crate) fn model(id: &ModelId, need: Need, offline: bool) -> Result<Pulled, PullError> {
    match cached(id, need) {
        // Others may have left a part of it; what has no tokenizer may be whole, but the hub knows better.
        Ok(found) if found.has_tokenizer() => Ok(found),
        found if offline || environment::offline() => found,
        _ => fetch(id, need),
    }
}

/// The model as the hub has it now.
pub(crate) fn latest(id: &ModelId, offline: bool) -> Result<Pulled, PullError> {
    if offline || environment::offline() { cached(id, Need::Whole) } else { fetch(id, Need::Whole) }
}

/// The model as the cache has it.
fn cached(id: &ModelId, need: Need) -> Result<Pulled, PullError> {
    let cache = Cache::of(&id.repo)?;
    whole(&cache, id, need).map_or_else(
        || Err(PullError::Offline { id: id.clone(), cache: environment::cache()? }),
        Ok,
    )
}

/// The snapshot of a revision, if all that makes the model is in it.
fn whole(cache: &Cache, id: &ModelId, need: Need) -> Option<Pulled> {
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

/// Fetches what is not in the cache yet of the revision as the hub has it now.
fn fetch(id: &ModelId, need: Need) -> Result<Pulled, PullError> {
    let client = Client::new()?;
    let cache = Cache::of(&id.repo)?;
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
                "{file} is one part of a split GGUF file, which Crisol does not read"
            )));
        }
    }
    let Selection { files, index } = choose(id, need, &repository.files).map_err(unusable)?;
    let describe = |name: &str| {
        let remote = client.describe(&id.repo, commit, name)?;
        let most = match name {
            _ if Some(name) == index => MAX_OF_INDEX,
            _ if is_weights(name) => MAX_OF_WEIGHTS,
            _ => MAX_OF_TEXT,
        };
        if remote.size > most {
            let problem =
                format!("{name} is said to have {} bytes, which no such file has", remote.size);
            return Err(unusable(problem));
        }
        Ok(remote)
    };
    let mut remotes =
        files.iter().map(|name| describe(name)).collect::<Result<Vec<Remote>, _>>()?;

    let mut pulled = Vec::new();
    let mut bring = |remote: &Remote| -> Result<(), PullError> {
        let cached = is_there(&cache, remote);
        if !cached {
            download(&client, &id.repo, commit, &cache, remote)?;
        }
        cache.link(commit, &remote.name, &remote.etag)?;
        pulled.push(PulledFile { name: remote.name.clone(), bytes: remote.size, cached });
        Ok(())
    };
    // An index says which files there are; so it comes first.
    if let Some(at) = index.and_then(|index| remotes.iter().position(|remote| remote.name == index))
    {
        let index = remotes.remove(at);
        bring(&index)?;
        let names = shards(&cache.snapshot(commit).join(&index.name), &repository.files)
            .map_err(unusable)?;
        for name in names {
            remotes.push(describe(&name)?);
        }
    }
    announce(id, commit, &cache, &remotes);
    remotes.iter().try_for_each(bring)?;
    // Last, so that a revision is never a snapshot of which a part is missing.
    cache.set_commit(&id.repo.revision, commit)?;
    Ok(Pulled {
        repository: id.repo.name.clone(),
        revision: commit.clone(),
        folder: cache.snapshot(commit),
        files: pulled,
        file: id.file.clone(),
    })
}

/// The error for a file that the repository does not have.
fn no_file(client: &Client, id: &ModelId, file: &str, files: &BTreeSet<String>) -> PullError {
    let gguf: Vec<&str> = files.iter().map(String::as_str).filter(|name| is_gguf(name)).collect();
    let hint = if gguf.is_empty() {
        " It has no GGUF files.".into()
    } else {
        format!(" It has: {}", some(&gguf))
    };
    PullError::NoFile {
        page: client.page(&id.repo),
        file: file.to_owned(),
        revision: id.repo.revision.clone(),
        hint,
    }
}

/// Says what is going to be fetched, and how large it is.
fn announce(id: &ModelId, commit: &str, cache: &Cache, remotes: &[Remote]) {
    let missing: Vec<&Remote> = remotes.iter().filter(|remote| !is_there(cache, remote)).collect();
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
