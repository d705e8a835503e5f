//! Resolves a source to files: a path, folder, glob pattern, standard input or named data set.

use std::fs;
use std::path::{Path, PathBuf};

use crate::TextError;
use crate::dataset::ReadOptions;
use crate::dataset::format::{is_data_file, read_error};

/// One file of a source.
pub(super) enum Input {
    Stdin,
    File(PathBuf),
}

impl Input {
    /// The name in messages.
    pub(super) fn name(&self) -> String {
        match self {
            Input::Stdin => "standard input".to_owned(),
            Input::File(path) => path.display().to_string(),
        }
    }
}

/// The files of a source, in order. Standard input (`-`) has none.
pub fn data_files(source: &str, options: &ReadOptions) -> Result<Vec<PathBuf>, TextError> {
    let file = |input| match input {
        Input::File(path) => Some(path),
        Input::Stdin => None,
    };
    Ok(inputs(source, options)?.into_iter().filter_map(file).collect())
}

pub(super) fn inputs(source: &str, options: &ReadOptions) -> Result<Vec<Input>, TextError> {
    if let Some(set) = options.datasets.get(source) {
        return Ok(set.files.iter().cloned().map(Input::File).collect());
    }
    let path = Path::new(source);
    if source == "-" {
        return Ok(vec![Input::Stdin]);
    }
    let no_files = |cause: &str| TextError::NoFiles {
        source_name: source.to_owned(),
        cause: cause.to_owned(),
    };
    let files = match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            let mut files = vec![];
            collect_data_files(path, &mut files)?;
            files.sort();
            if files.is_empty() {
                return Err(no_files("a folder without data files"));
            }
            files
        }
        // Only a path that does not exist is read as a pattern.
        Err(error) if source.contains(['*', '?', '[']) => {
            let paths = glob::glob(source).map_err(|wrong| {
                no_files(&format!("not a file ({error}) and not a valid pattern ({wrong})"))
            })?;
            let mut files: Vec<PathBuf> = paths.flatten().filter(|path| path.is_file()).collect();
            files.sort();
            if files.is_empty() {
                return Err(no_files("no file matches this pattern"));
            }
            files
        }
        // A path that cannot be read is an error on opening.
        _ => vec![path.to_owned()],
    };
    Ok(files.into_iter().map(Input::File).collect())
}

/// Collects the data files of a folder, recursively. Skips hidden files and links to folders.
fn collect_data_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), TextError> {
    let read = |source| read_error(folder, source);
    for entry in fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().map_err(read)?.is_dir() {
            collect_data_files(&path, files)?;
        } else if is_data_file(&path) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}
