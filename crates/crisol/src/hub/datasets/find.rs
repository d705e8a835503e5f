//! From a data set's name to its files in the cache.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crisol_hub::HubError;
use crisol_text::{DataSet, ReadOptions, count_rows};

use super::card::{self, Config};
use super::name::DatasetName;
use super::select::{Selection, choose, has_data};
use crate::console::say;
use crate::hub::cache::{Cache, is_commit};
use crate::hub::client::Client;
use crate::hub::download::{download, is_there};
use crate::hub::id::{Repo, plain_path};
use crate::hub::transfer::bytes;
use crate::hub::{PullError, environment};

/// Where the hub keeps a data set as Parquet files that it has made itself.
const CONVERTED: &str = "refs/convert/parquet";
const CARD: &str = "README.md";

/// Bytes that a data file has at most.
const MAX_OF_DATA: u64 = 1 << 40;
const MAX_OF_CARD: u64 = 8 << 20;

/// What a name was found to be.
pub(crate) struct Found {
    /// The same data, with commit, config and split.
    pub(crate) name: DatasetName,
    pub(crate) set: DataSet,
}

/// Finds a data set's files, and fetches those that are not in the cache. Files behind the last row that is asked for are
/// left out.
pub(crate) fn find(
    name: &DatasetName,
    reading: &ReadOptions,
    offline: bool,
) -> Result<Found, PullError> {
    let offline = offline || environment::offline();
    let mut repository = Repository::open(&name.repo, offline)?;
    if !has_data(&repository.files) && name.repo.has_default_revision() {
        // A data set that a program makes; the hub has run it.
        let converted = Repo { revision: CONVERTED.to_owned(), ..name.repo.clone() };
        match Repository::open(&converted, offline) {
            Ok(found) => repository = found,
            // Then the error is that there are no files.
            Err(PullError::NoRevision { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let card = repository.card(offline)?;
    let unusable = |problem| PullError::Unusable { page: repository.repo.to_string(), problem };
    let Selection { config, split, files } =
        choose(name, &card, &repository.files).map_err(unusable)?;
    let mut set = DataSet { files: vec![], rows: name.rows };
    let mut rows = 0;
    for file in &files {
        let path = repository.file(file, MAX_OF_DATA, offline)?;
        if let Some(end) = name.rows.end {
            // What cannot be read is an error when it is.
            rows += count_rows(&path, reading, end - rows).unwrap_or(0);
        }
        set.files.push(path);
        if name.rows.end.is_some_and(|end| rows >= end) {
            break;
        }
    }
    let repo = Repo { revision: repository.commit.clone(), ..name.repo.clone() };
    let name = DatasetName { repo, config: Some(config), split: Some(split), rows: name.rows };
    Ok(Found { name, set })
}

/// A repository at one commit, and its part of the cache.
struct Repository {
    repo: Repo,
    commit: String,
    files: BTreeSet<String>,
    cache: Cache,
    client: Option<Client>,
}

impl Repository {
    /// As the hub has it now; a commit never changes, so that the cache knows as well.
    fn open(repo: &Repo, offline: bool) -> Result<Repository, PullError> {
        let cache = Cache::of(repo)?;
        let known = cache.commit(&repo.revision).filter(|_| offline || is_commit(&repo.revision));
        let listed = known.and_then(|commit| Some((cache.listing(&commit)?, commit)));
        if let Some((files, commit)) = listed {
            return Ok(Repository { repo: repo.clone(), commit, files, cache, client: None });
        }
        if offline {
            return Err(PullError::OfflineDataset {
                name: repo.to_string(),
                cache: environment::cache()?,
            });
        }
        let client = Client::new()?;
        say(format_args!("Looking for {repo} at {}", client.endpoint()));
        let found = client.repository(repo)?;
        cache.set_listing(&found.commit, &found.files)?;
        cache.set_commit(&repo.revision, &found.commit)?;
        let (commit, files) = (found.commit, found.files);
        Ok(Repository { repo: repo.clone(), commit, files, cache, client: Some(client) })
    }

    /// The configs that its card lists.
    fn card(&mut self, offline: bool) -> Result<Vec<Config>, PullError> {
        if !self.files.contains(CARD) {
            return Ok(vec![]);
        }
        let path = self.file(CARD, MAX_OF_CARD, offline)?;
        let text = std::fs::read(&path).map_err(|e| HubError::io("read", &path, e))?;
        card::configs(&String::from_utf8_lossy(&text)).map_err(|problem| PullError::Unusable {
            page: self.repo.to_string(),
            problem: format!(
                "its README.md lists configs in a way that is not read: {problem}. Fetch its files and name them"
            ),
        })
    }

    /// A file in the cache, fetched if it is not there.
    fn file(&mut self, name: &str, most: u64, offline: bool) -> Result<PathBuf, PullError> {
        let path = self.cache.snapshot(&self.commit).join(name);
        let page = self.repo.to_string();
        if !plain_path(name) {
            let problem = format!("a file is called {name:?}, which is no name on every system");
            return Err(PullError::Unusable { page, problem });
        }
        // Links are followed: one whose file is gone is no file.
        if path.is_file() {
            return Ok(path);
        }
        if offline {
            return Err(PullError::OfflineDataset { name: page, cache: environment::cache()? });
        }
        if self.client.is_none() {
            self.client = Some(Client::new()?);
        }
        let client = self.client.as_ref().expect("it was just made");
        let remote = client.describe(&self.repo, &self.commit, name)?;
        if remote.size > most {
            let problem =
                format!("{name} is said to have {} bytes, which no such file has", remote.size);
            return Err(PullError::Unusable { page, problem });
        }
        if !is_there(&self.cache, &remote) {
            say(format_args!(
                "Fetching {name} of {page} at commit {}: {}",
                self.commit,
                bytes(remote.size)
            ));
            download(client, &self.repo, &self.commit, &self.cache, &remote)?;
        }
        self.cache.link(&self.commit, name, &remote.etag)?;
        Ok(path)
    }
}
