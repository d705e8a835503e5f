//! What a source names: files, folders, patterns, standard input, and data sets that the caller has found files for.

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
    /// What messages call it.
    pub(super) fn name(&self) -> String {
        match self {
            Input::Stdin => "standard input".to_owned(),
            Input::File(path) => path.display().to_string(),
        }
    }
}

/// The files of a source in order; `-` has none that can be opened by a name.
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
    let nothing = |cause: &str| TextError::NoFiles {
        source_name: source.to_owned(),
        cause: cause.to_owned(),
    };
    let files = match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            let mut files = vec![];
            in_folder(path, &mut files)?;
            files.sort();
            if files.is_empty() {
                return Err(nothing("a folder without data files"));
            }
            files
        }
        // A name that exists is taken as it is, whatever characters it has.
        Err(error) if source.contains(['*', '?', '[']) => {
            let paths = glob::glob(source).map_err(|wrong| {
                nothing(&format!("not a file ({error}) and no pattern ({wrong})"))
            })?;
            let mut files: Vec<PathBuf> = paths.flatten().filter(|path| path.is_file()).collect();
            files.sort();
            if files.is_empty() {
                return Err(nothing("a pattern that no file matches"));
            }
            files
        }
        // One that cannot be read is an error when it is opened.
        _ => vec![path.to_owned()],
    };
    Ok(files.into_iter().map(Input::File).collect())
}

/// Data files in a folder and its folders. Hidden ones are none, and links to folders are not followed.
fn in_folder(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), TextError> {
    let read = |source| read_error(folder, source);
    for entry in fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().map_err(read)?.is_dir() {
            in_folder(&path, files)?;
        } else if is_data_file(&path) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}
