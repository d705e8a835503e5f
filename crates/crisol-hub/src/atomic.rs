//! Files and folders that are replaced in one step: whoever looks finds the old or the new one, whole.
//!
//! A folder `NAME` is filled as `.NAME.writing`, brought to the disk (fsync) and renamed to `.NAME.new`,
//! which is whole by definition. If there is an old `NAME` it steps aside to `.NAME.old`; the new one takes
//! its place and the old one is removed. A process may be killed between any two of these steps:
//! [`whole_folder`] finds the newest whole one at any time, and [`settle_folder`] (run by the next write)
//! finishes what was begun.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::HubError;

/// Marks a folder as written by [`write_folder_atomically`]; no other folder is ever replaced.
const MARKER: &str = ".crisol";

/// Fills a new folder with `fill(temporary_folder)` and puts it in the place of `path`, which may exist if
/// it is empty or was written by this function; everything in it is then replaced. On an error (of `fill`
/// or of the disk) the temporary folder is removed and what was at `path` stays. Parent folders are
/// created.
///
/// One writer at a time per `path`.
pub fn write_folder_atomically<E: From<HubError>>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    settle_folder(path)?;
    refuse_foreign(path)?;
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
        // The first error is the one to report; the next write cleans up again.
        let _ = fs::remove_dir_all(&writing);
        return Err(error);
    }
    rename(&writing, &sibling(path, ".new")?)?;
    sync(parent)?;
    settle_folder(path)?;
    Ok(())
}

/// Finishes or clears away what a killed process left beside `path`. Only for the process that writes there.
pub fn settle_folder(path: &Path) -> Result<(), HubError> {
    let (writing, new, old) =
        (sibling(path, ".writing")?, sibling(path, ".new")?, sibling(path, ".old")?);
    remove_if_there(&writing)?;
    if new.exists() {
        if path.exists() {
            remove_if_there(&old)?;
            rename(path, &old)?;
        }
        rename(&new, path)?;
        sync(parent(path))?;
    } else if old.exists() && !path.exists() {
        rename(&old, path)?;
    }
    remove_if_there(&old)
}

/// Where the newest whole version of the folder `path` is: `path` itself unless a writer was interrupted at
/// the wrong moment. Changes nothing, so it is safe beside a running writer.
pub fn whole_folder(path: &Path) -> Result<PathBuf, HubError> {
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

/// Replaces the file `path` by `contents` in one step. On an error what was there stays.
pub fn write_file_atomically(path: &Path, contents: &[u8]) -> Result<(), HubError> {
    fill_file_atomically(path, |writing| {
        fs::write(writing, contents).map_err(|e| HubError::io("write", path, e))
    })
}

/// Replaces the file `path` in one step by one that `fill(temporary_file)` writes. On an error what was there stays.
pub fn fill_file_atomically(
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

/// A folder that Crisol did not write is not Crisol's to replace: an error if there is one at `path`, unless it is empty.
pub fn refuse_foreign(path: &Path) -> Result<(), HubError> {
    let foreign = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some() && !path.join(MARKER).exists(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => true,
        Err(e) => return Err(HubError::io("read", path, e)),
    };
    if foreign { Err(HubError::NotOurs { path: path.to_owned() }) } else { Ok(()) }
}

/// The hidden neighbour `.NAME<suffix>` of `path`.
fn sibling(path: &Path, suffix: &str) -> Result<PathBuf, HubError> {
    let Some(name) = path.file_name() else {
        let source =
            std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path ends in no name");
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

fn remove_if_there(folder: &Path) -> Result<(), HubError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(HubError::io("remove", folder, e))
        }
        _ => Ok(()),
    }
}

/// Brings every file below `folder`, then the folders themselves, to the disk.
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

/// fsync of a file, or of a folder's list of names (which only Unix can open; elsewhere renames are
/// journalled).
fn sync(path: &Path) -> Result<(), HubError> {
    if cfg!(not(unix)) && path.is_dir() {
        return Ok(());
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| HubError::io("write", path, e))
}
