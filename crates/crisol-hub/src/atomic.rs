//! Atomic replacement of files and folders: readers find the old or the new version, complete.
//!
//! A folder `NAME` goes through these steps. A process can be killed between any two of them.
//!
//! ```text
//! 1. fill .NAME.writing, fsync
//! 2. .NAME.writing ─► .NAME.new      complete from here on
//! 3. NAME          ─► .NAME.old      if there was one
//! 4. .NAME.new     ─► NAME
//! 5. remove .NAME.old
//! ```
//!
//! [`resolve_folder`] finds the newest complete version at any time. [`recover_folder`], run by the
//! next write, completes interrupted steps.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::HubError;

/// The file that marks a folder of [`write_folder_atomically`]; no other folder is replaced.
const MARKER: &str = ".crisol";

/// Replaces the folder `path` with a new one, filled by `fill(temporary_folder)`.
///
/// `path` must not exist, be empty, or come from this function. Missing parents are created. On an
/// error the temporary folder is removed and `path` is unchanged. One writer at a time per `path`.
pub fn write_folder_atomically<E: From<HubError>>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    recover_folder(path)?;
    check_replaceable(path)?;
    let parent = parent(path);
    fs::create_dir_all(parent).map_err(|e| HubError::io("create", parent, e))?;
    let writing = sibling(path, ".writing")?;
    fs::create_dir(&writing).map_err(|e| HubError::io("create", &writing, e))?;
    let filled = fill(&writing).and_then(|()| {
        let marker = writing.join(MARKER);
        fs::write(&marker, "Written by Crisol, which may replace this folder as a whole.\n")
            .map_err(|e| HubError::io("write", &marker, e))?;
        sync_tree(&writing)?;
        Ok(())
    });
    if let Err(error) = filled {
        // Report the first error; the next write cleans up again.
        let _ = fs::remove_dir_all(&writing);
        return Err(error);
    }
    rename(&writing, &sibling(path, ".new")?)?;
    sync(parent)?;
    recover_folder(path)?;
    Ok(())
}

/// Completes or removes what a killed writer left next to `path`. For the writer of `path` only.
pub fn recover_folder(path: &Path) -> Result<(), HubError> {
    let (writing, new, old) =
        (sibling(path, ".writing")?, sibling(path, ".new")?, sibling(path, ".old")?);
    remove_if_exists(&writing)?;
    if new.exists() {
        if path.exists() {
            remove_if_exists(&old)?;
            rename(path, &old)?;
        }
        rename(&new, path)?;
        sync(parent(path))?;
    } else if old.exists() && !path.exists() {
        rename(&old, path)?;
    }
    remove_if_exists(&old)
}

/// The newest complete version of folder `path`: `path` itself unless a writer was interrupted.
/// Changes nothing, so readers can call it while a writer runs.
pub fn resolve_folder(path: &Path) -> Result<PathBuf, HubError> {
    if path.exists() {
        return Ok(path.to_owned());
    }
    for suffix in [".new", ".old"] {
        let candidate = sibling(path, suffix)?;
        if candidate.exists() {
            return Ok(candidate);
        }
    }
    Ok(path.to_owned())
}

/// Replaces the file `path` by `contents`. On an error the old file is unchanged.
pub fn write_file_atomically(path: &Path, contents: &[u8]) -> Result<(), HubError> {
    write_file_atomically_with(path, |writing| {
        fs::write(writing, contents).map_err(|e| HubError::io("write", path, e))
    })
}

/// Replaces the file `path` by one that `fill(temporary_file)` writes. On an error the old file is
/// unchanged.
pub fn write_file_atomically_with(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), HubError>,
) -> Result<(), HubError> {
    let writing = sibling(path, ".writing")?;
    let written =
        fill(&writing).and_then(|()| sync(&writing)).and_then(|()| rename(&writing, path));
    if written.is_err() {
        let _ = fs::remove_file(&writing);
    }
    written?;
    sync(parent(path))
}

/// Errors if there is a non-empty folder at `path` that Crisol did not write.
pub fn check_replaceable(path: &Path) -> Result<(), HubError> {
    let foreign = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some() && !path.join(MARKER).exists(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => true,
        Err(e) => return Err(HubError::io("read", path, e)),
    };
    if foreign { Err(HubError::ForeignFolder { path: path.to_owned() }) } else { Ok(()) }
}

/// The hidden sibling `.NAME<suffix>` of `path`.
fn sibling(path: &Path, suffix: &str) -> Result<PathBuf, HubError> {
    let Some(name) = path.file_name() else {
        let source =
            std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path has no file name");
        return Err(HubError::io("write", path, source));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(suffix);
    Ok(path.with_file_name(hidden))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), HubError> {
    fs::rename(from, to).map_err(|e| HubError::io("rename", from, e))
}

fn remove_if_exists(folder: &Path) -> Result<(), HubError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(HubError::io("remove", folder, e))
        }
        _ => Ok(()),
    }
}

/// fsync of every file below `folder`, then of the folders.
fn sync_tree(folder: &Path) -> Result<(), HubError> {
    let failed = |e| HubError::io("read", folder, e);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if entry.file_type().map_err(failed)?.is_dir() {
            sync_tree(&path)?;
        } else {
            sync(&path)?;
        }
    }
    sync(folder)
}

/// fsync of a file or a folder. Only Unix can open folders; elsewhere renames are journalled.
fn sync(path: &Path) -> Result<(), HubError> {
    if cfg!(not(unix)) && path.is_dir() {
        return Ok(());
    }
    // Windows flushes only what is open for writing.
    let file = File::options().read(true).write(cfg!(windows)).open(path);
    file.and_then(|file| file.sync_all()).map_err(|e| HubError::io("write", path, e))
}
