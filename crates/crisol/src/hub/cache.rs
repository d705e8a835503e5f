//! The cache of Python's `huggingface_hub`, in the same layout:
//!
//! ```text
//! models--ORG--NAME/          datasets--ORG--NAME/
//!   blobs/ETAG                file contents; ETAG.incomplete during a download
//!   snapshots/COMMIT/FILE     links to blobs
//!   refs/REVISION             the commit of a branch or tag
//!   crisol-listings/          Crisol's own: all file names of a data set at a commit
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crisol_hub::HubError;

use super::id::{Repo, RepoKind};
use super::{PullError, environment};

/// The lock for links and references; blobs have their own locks.
const LINKS_AND_REFS: &str = "snapshots-and-refs";

/// The cache of one repository.
pub(super) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub(super) fn new(repo: &Repo) -> Result<Cache, PullError> {
        let cache = environment::cache()?;
        let kind = match repo.kind {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        };
        let name = format!("{kind}--{}", repo.name.replace('/', "--"));
        Ok(Cache { folder: cache.join(&name), locks: cache.join(".locks").join(name) })
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// The cached commit of a revision.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.reference(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Files of a snapshot by their names in the repository, down to one level of folders.
    pub(super) fn files(&self, commit: &str) -> BTreeSet<String> {
        let snapshot = self.snapshot(commit);
        let mut files = BTreeSet::new();
        let mut folders = vec![String::new()];
        while let Some(prefix) = folders.pop() {
            for entry in fs::read_dir(snapshot.join(&prefix)).into_iter().flatten().flatten() {
                let Ok(name) = entry.file_name().into_string() else { continue };
                // Follows links: a dangling link is not a file.
                match entry.path().metadata() {
                    Ok(metadata) if metadata.is_file() => {
                        files.insert(format!("{prefix}{name}"));
                    }
                    Ok(metadata) if metadata.is_dir() && prefix.is_empty() => {
                        folders.push(format!("{name}/"));
                    }
                    _ => {}
                }
            }
        }
        files
    }

    /// All file names of a data set at a commit, as the hub listed them; the snapshot can be
    /// partial.
    pub(super) fn listing(&self, commit: &str) -> Option<BTreeSet<String>> {
        serde_json::from_slice(&fs::read(self.listing_file(commit)).ok()?).ok()
    }

    pub(super) fn set_listing(
        &self,
        commit: &str,
        files: &BTreeSet<String>,
    ) -> Result<(), PullError> {
        let path = self.listing_file(commit);
        let _lock = self.lock(LINKS_AND_REFS)?;
        create_parent(&path)?;
        let json = serde_json::to_vec(files).expect("a list of strings is JSON");
        Ok(crisol_hub::write_file_atomically(&path, &json)?)
    }

    /// Outside of the files that Python manages.
    fn listing_file(&self, commit: &str) -> PathBuf {
        self.folder.join("crisol-listings").join(format!("{commit}.json"))
    }

    /// Locks a blob or [`LINKS_AND_REFS`] against other processes until dropped. Compatible with
    /// Python's locks for blobs.
    pub(super) fn lock(&self, name: &str) -> Result<File, PullError> {
        let path = self.locks.join(format!("{name}.lock"));
        create_parent(&path)?;
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|e| HubError::io("create", &path, e))?;
        file.lock().map_err(|e| HubError::io("lock", &path, e))?;
        Ok(file)
    }

    /// Links a blob into a snapshot.
    pub(super) fn link(&self, commit: &str, name: &str, etag: &str) -> Result<(), PullError> {
        let link = self.snapshot(commit).join(name);
        let up = "../".repeat(2 + name.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        let _lock = self.lock(LINKS_AND_REFS)?;
        if fs::read_link(&link).is_ok_and(|old| old == target) {
            return Ok(());
        }
        create_parent(&link)?;
        match fs::remove_file(&link) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(HubError::io("replace", &link, e).into());
            }
            _ => {}
        }
        create_link(&target, &self.blob(etag), &link)
            .map_err(|e| HubError::io("create", &link, e))?;
        Ok(())
    }

    /// Records the commit of a revision.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), PullError> {
        if !is_commit(revision) {
            let path = self.reference(revision);
            let _lock = self.lock(LINKS_AND_REFS)?;
            create_parent(&path)?;
            crisol_hub::write_file_atomically(&path, commit.as_bytes())?;
        }
        Ok(())
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }
}

/// Whether the text is a full commit hash.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

pub(super) fn create_parent(path: &Path) -> Result<(), PullError> {
    let parent = path.parent().expect("paths in the cache lie below its folder");
    Ok(fs::create_dir_all(parent).map_err(|e| HubError::io("create", parent, e))?)
}

#[cfg(unix)]
fn create_link(target: &Path, _blob: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Symbolic links need privileges on other systems; hard links do not.
#[cfg(not(unix))]
fn create_link(_target: &Path, blob: &Path, link: &Path) -> std::io::Result<()> {
    fs::hard_link(blob, link)
}
