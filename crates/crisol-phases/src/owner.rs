//! Ownership of a run's folder: one process at a time writes into it, and only where it replaces
//! nothing of the user's.
//!
//! A process locks `run.lock` while it works on the run. The system releases the lock when the
//! process ends. The file stays and marks the folder as a run's: removing it would let two
//! processes lock different files of the same name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::PhaseError;
use crate::recipe::Recipe;

const LOCK_FILE: &str = "run.lock";
/// First line of the file. The second names the owner.
const HEADING: &str =
    "A run of Crisol. This file is locked while a process works on it; it may stay here.\n";
pub(crate) const RECIPE_FILE: &str = "recipe.toml";
pub(crate) const REPORTS: [&str; 2] = ["report.json", "report.html"];
pub(crate) const PROGRESS: &str = "progress";
pub(crate) const TENSORBOARD: &str = "tensorboard";

/// The right to write into a run's folder, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Owner {
    /// Locked while it is open.
    _file: File,
}

impl Owner {
    /// Creates the folder and locks it. The error names the owner. `since` is the current time, for
    /// that error.
    pub fn take(out: &Path, since: &str) -> Result<Owner, PhaseError> {
        std::fs::create_dir_all(out).map_err(|e| PhaseError::io(out, e))?;
        let path = out.join(LOCK_FILE);
        let failed = |e| PhaseError::io(&path, e);
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(PhaseError::InUse { out: out.to_path_buf(), owner: owner_in(file) });
            }
            // On a file system without locks, train without one.
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        let text = format!("{HEADING}process {} on {} since {since}\n", std::process::id(), host());
        // Overwritten, then truncated: a process killed in between leaves the heading intact.
        file.write_all(text.as_bytes())
            .and_then(|()| file.set_len(text.len() as u64))
            .map_err(failed)?;
        Ok(Owner { _file: file })
    }
}

fn owner_in(mut file: File) -> String {
    let mut text = String::new();
    // Windows cannot read locked files; the owner stays unnamed.
    let _ = file.read_to_string(&mut text);
    let owner = text.strip_prefix(HEADING).and_then(|rest| rest.lines().next());
    owner.unwrap_or("another process").to_owned()
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name =
        name.or_else(|_| std::env::var("HOSTNAME")).or_else(|_| std::env::var("COMPUTERNAME"));
    name.map_or_else(|_| "this machine".into(), |name| name.trim().to_owned())
}

/// Whether Crisol has run something into this folder.
pub(crate) fn is_run(out: &Path) -> bool {
    match std::fs::read_to_string(out.join(LOCK_FILE)) {
        // Empty: the process was killed right after it created the file.
        Ok(text) => text.is_empty() || text.starts_with(HEADING),
        Err(e) => cfg!(windows) && e.raw_os_error() == Some(LOCK_VIOLATION),
    }
}

/// What Windows says of a read from a locked file: only an owner locks it.
const LOCK_VIOLATION: i32 = 33;

/// Refuses a folder that holds something of the user's under a name that the run would write. The
/// files of a `resumed` run are its own, even without a lock file (earlier versions wrote none).
pub(crate) fn check_replaceable(
    recipe: &Recipe,
    out: &Path,
    resumed: bool,
) -> Result<(), PhaseError> {
    let folders: Vec<PathBuf> =
        recipe.phases.iter().map(|phase| out.join(recipe.folder(&phase.name))).collect();
    if !resumed && !is_run(out) {
        let names = [LOCK_FILE, RECIPE_FILE, PROGRESS, TENSORBOARD].into_iter().chain(REPORTS);
        let written = names.map(|name| out.join(name)).chain(folders.iter().cloned());
        for path in written {
            if path.symlink_metadata().is_ok() {
                return Err(PhaseError::NotOurs { path });
            }
        }
    }
    for folder in folders {
        crisol_hub::check_replaceable(&folder)?;
    }
    Ok(())
}

/// A recipe under a line with its checksum, which tells edited recipes from written ones.
pub(crate) fn with_checksum(recipe: &str) -> String {
    format!("{CHECKSUM}{}\n{recipe}", blake3::hash(recipe.as_bytes()))
}

/// Whether a recipe is as [`with_checksum`] wrote it. An edited one is the user's.
pub(crate) fn is_unedited(text: &str) -> bool {
    let written = text.split_once('\n').map(|(_, recipe)| with_checksum(recipe));
    written.is_some_and(|written| written == text)
}

const CHECKSUM: &str = "# Written by Crisol; it may be edited. Checksum: ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_and_the_second_learns_who() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("new/run");
        let first = Owner::take(&out, "noon").unwrap();
        let error = Owner::take(&out, "later").unwrap_err().to_string();
        let process = format!("process {} on ", std::process::id());
        if cfg!(unix) {
            assert!(error.contains(&process) && error.contains("since noon"), "{error}");
        }
        assert!(is_run(&out));
        drop(first);
        // A longer text was here before.
        let _second = Owner::take(&out, "x").unwrap();
        assert!(
            is_run(&out)
                && std::fs::read_to_string(out.join(LOCK_FILE)).unwrap().ends_with("since x\n")
        );
    }

    #[test]
    fn whatever_the_user_has_under_a_name_of_the_runs_is_left_alone() {
        let recipe = Recipe::embedded();
        for name in [
            "recipe.toml",
            "report.html",
            "report.json",
            "progress",
            "1-pretrain",
            "run.lock",
            "tensorboard",
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
            check_replaceable(&recipe, dir.path(), false).unwrap();
            std::fs::write(dir.path().join(name), "mine").unwrap();
            let error = check_replaceable(&recipe, dir.path(), false).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        // Also in a run's folder.
        let dir = tempfile::tempdir().unwrap();
        let _owner = Owner::take(dir.path(), "").unwrap();
        std::fs::create_dir(dir.path().join("2-sft")).unwrap();
        check_replaceable(&recipe, dir.path(), false).unwrap();
        std::fs::write(dir.path().join("2-sft/mine"), "").unwrap();
        assert!(
            check_replaceable(&recipe, dir.path(), false)
                .unwrap_err()
                .to_string()
                .contains("2-sft")
        );
    }

    #[test]
    fn an_edited_recipe_is_told_from_a_written_one() {
        let written = with_checksum("seed = 1\n");
        assert!(is_unedited(&written) && !is_unedited(&written.replace("seed = 1", "seed = 2")));
        assert!(
            !is_unedited(&format!("{written}# mine\n"))
                && !is_unedited("seed = 1\n")
                && !is_unedited("")
        );
    }
}
