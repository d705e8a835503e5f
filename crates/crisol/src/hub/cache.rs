//! The cache of Python's `huggingface_hub`, shared with it: `models--ORG--NAME` (or `datasets--ORG--NAME`) holds the files under their ETags
//! (`blobs`), a folder for each commit with links to them (`snapshots`), and the commit of each branch and tag
//! (`refs`).
//!
//! A file is whole in `blobs`, or absent: what is not whole yet has `.incomplete` at the end of its name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crisol_hub::HubError;

use super::id::{Kind, Repo};
use super::{PullError, environment};

/// The lock for what is not a blob: links and references.
const FOLDERS: &str = "snapshots-and-refs";

/// Where one repository is kept.
pub(super) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub(super) fn of(repo: &Repo) -> Result<Cache, PullError> {
        let cache = environment::cache()?;
        let kind = match repo.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
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

    /// The commit that a revision was when it was downloaded.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.reference(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// The files of a snapshot, by their names in the repository; those in folders of folders are no part of a model.
    pub(super) fn files(&self, commit: &str) -> BTreeSet<String> {
        let snapshot = self.snapshot(commit);
        let mut files = BTreeSet::new();
        let mut folders = vec![String::new()];
        while let Some(prefix) = folders.pop() {
            for entry in fs::read_dir(snapshot.join(&prefix)).into_iter().flatten().flatten() {
                let Ok(name) = entry.file_name().into_string() else { continue };
                // Links are followed: one whose file is gone is no file.
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

    /// The names of all files that a data set has at a commit, as the hub listed them. Its snapshot may have a part of them.
    pub(super) fn listing(&self, commit: &str) -> Option<BTreeSet<String>> {
        serde_json::from_slice(&fs::read(self.listing_file(commit)).ok()?).ok()
    }

    pub(super) fn set_listing(
        &self,
        commit: &str,
        files: &BTreeSet<String>,
    ) -> Result<(), PullError> {
        let path = self.listing_file(commit);
        let _lock = self.lock(FOLDERS)?;
        create_parent(&path)?;
        let json = serde_json::to_vec(files).expect("a list of strings is JSON");
        Ok(crisol_hub::write_file_atomically(&path, &json)?)
    }

    /// Beside what Python keeps there.
    fn listing_file(&self, commit: &str) -> PathBuf {
        self.folder.join("crisol-listings").join(format!("{commit}.json"))
    }

    /// Makes sure that one process at a time writes a blob, or [`FOLDERS`]; held until dropped. Python has the same
    /// locks for blobs.
    pub(super) fn lock(&self, name: &str) -> Result<File, PullError> {
        let path = self.locks.join(format!("{name}.lock"));
        create_parent(&path)?;
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|e| HubError::io("create", &path, e))?;
        file.lock().map_err(|e| HubError::io("lock", &path, e))?;
        Ok(file)
    }

    /// Shows a blob as a file of a snapshot.
    pub(super) fn link(&self, commit: &str, name: &str, etag: &str) -> Result<(), PullError> {
        let link = self.snapshot(commit).join(name);
        let up = "../".repeat(2 + name.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        let _lock = self.lock(FOLDERS)?;
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
        show(&target, &self.blob(etag), &link).map_err(|e| HubError::io("create", &link, e))?;
        Ok(())
    }

    /// Remembers which commit a revision is now.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), PullError> {
        if !is_commit(revision) {
            let path = self.reference(revision);
            let _lock = self.lock(FOLDERS)?;
            create_parent(&path)?;
            crisol_hub::write_file_atomically(&path, commit.as_bytes())?;
        }
        Ok(())
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }
}

/// Whether this is a whole commit hash.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

pub(super) fn create_parent(path: &Path) -> Result<(), PullError> {
    let parent = path.parent().expect("paths in the cache lie below its folder");
    Ok(fs::create_dir_all(parent).map_err(|e| HubError::io("create", parent, e))?)
}

#[cfg(unix)]
fn show(target: &Path, _blob: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Links need rights that not everybody has elsewhere; a second name for the file needs none.
#[cfg(not(unix))]
fn show(_target: &Path, blob: &Path, link: &Path) -> std::io::Result<()> {
    fs::hard_link(blob, link)
}
