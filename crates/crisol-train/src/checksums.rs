//! Checksums of the files of a saved state, to find damaged or exchanged files before training on
//! them.
//!
//! A state folder has a file `checksums`, written last: one line per file with BLAKE3 checksum,
//! size and name; the last line is the checksum of the lines above.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::TrainError;

const FILE: &str = "checksums";

/// Size and checksum of a file, or of its first bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// Size in bytes.
    pub bytes: u64,
    /// BLAKE3, in hexadecimal.
    pub blake3: String,
}

impl Checksum {
    /// The checksum of a whole file.
    pub fn of_file(path: &Path) -> Result<Checksum, TrainError> {
        let failed = |source| TrainError::Io { path: path.to_path_buf(), source };
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path).map_err(failed)?).map_err(failed)?;
        Ok(Checksum::of(&hasher))
    }

    pub(crate) fn of(hasher: &blake3::Hasher) -> Checksum {
        Checksum { bytes: hasher.count(), blake3: hasher.finalize().to_string() }
    }
}

/// Checksums of a folder's files by name.
pub type Checksums = BTreeMap<String, Checksum>;

/// Computes the checksums of all files of a folder, writes them into it and returns them. `known`
/// ones are not recomputed.
pub fn write_checksums(folder: &Path, known: &Checksums) -> Result<Checksums, TrainError> {
    let failed = |source| TrainError::Io { path: folder.to_path_buf(), source };
    let mut sums = Checksums::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let sum = match known.get(&name) {
            Some(sum) => sum.clone(),
            None => Checksum::of_file(&entry.path())?,
        };
        sums.insert(name, sum);
    }
    let mut text = String::new();
    for (name, sum) in &sums {
        let _ = writeln!(text, "{} {} {name}", sum.blake3, sum.bytes);
    }
    let last = blake3::hash(text.as_bytes());
    let _ = writeln!(text, "{last}");
    let path = folder.join(FILE);
    std::fs::write(&path, text).map_err(|source| TrainError::Io { path, source })?;
    Ok(sums)
}

/// Checks a folder's files against its checksums and returns these; fails at the first file that
/// differs.
pub fn check_checksums(folder: &Path) -> Result<Checksums, TrainError> {
    check(folder, None)
}

/// [`check_checksums`] for one file of the folder.
pub fn check_file(folder: &Path, name: &str) -> Result<(), TrainError> {
    check(folder, Some(name)).map(drop)
}

fn check(folder: &Path, only: Option<&str>) -> Result<Checksums, TrainError> {
    let path = folder.join(FILE);
    let damaged =
        |file: &Path, cause: String| TrainError::DamagedState { file: file.to_path_buf(), cause };
    let text = std::fs::read(&path).map_err(|e| damaged(&path, e.to_string()))?;
    let sums =
        parse(&text).ok_or_else(|| damaged(&path, "its last line is not its checksum".into()))?;
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    for (name, sum) in sums.iter().filter(|(name, _)| wanted(name)) {
        let file = folder.join(name);
        let bytes = std::fs::metadata(&file).map_err(|e| damaged(&file, e.to_string()))?.len();
        if bytes != sum.bytes {
            return Err(damaged(
                &file,
                format!("it has {bytes} bytes, but {} were saved", sum.bytes),
            ));
        }
        if Checksum::of_file(&file)? != *sum {
            return Err(damaged(&file, "its checksum is not that of what was saved".into()));
        }
    }
    Ok(sums)
}

fn parse(text: &[u8]) -> Option<Checksums> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let (lines, last) = text.rsplit_once('\n')?;
    let lines = format!("{lines}\n");
    if blake3::hash(lines.as_bytes()).to_string() != last {
        return None;
    }
    let entry = |line: &str| {
        let (blake3, rest) = line.split_once(' ')?;
        let (bytes, name) = rest.split_once(' ')?;
        Some((name.to_owned(), Checksum { bytes: bytes.parse().ok()?, blake3: blake3.to_owned() }))
    };
    lines.lines().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flipped bit in any file, and in the list, is found.
    #[test]
    fn any_changed_byte_and_any_missing_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["policy.safetensors", "state.json", FILE];
        for name in &files[..2] {
            std::fs::write(dir.path().join(name), name.repeat(3)).unwrap();
        }
        let written = write_checksums(dir.path(), &Checksums::new()).unwrap();
        assert_eq!(check_checksums(dir.path()).unwrap(), written);
        for name in files {
            let path = dir.path().join(name);
            let whole = std::fs::read(&path).unwrap();
            let is_found = |what: &str| {
                let error = check_checksums(dir.path()).unwrap_err().to_string();
                assert!(error.contains(name), "{name}, {what}: {error}");
            };
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                std::fs::write(&path, bytes).unwrap();
                is_found(&format!("byte {at}"));
            }
            std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
            is_found("cut");
            std::fs::remove_file(&path).unwrap();
            is_found("removed");
            std::fs::write(&path, &whole).unwrap();
        }
        assert_eq!(check_checksums(dir.path()).unwrap(), written);
    }
}
