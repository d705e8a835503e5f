//! Where data files come from: the embedded world or a folder of the user's. Both give the same JSONL and go
//! through the same readers.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use crisol_text::{Record, parse_jsonl, read_jsonl};
use crisol_world::DataFile;

use crate::PhaseError;

/// How much a data file holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    pub(crate) bytes: usize,
    pub(crate) records: usize,
    /// Bytes of the longest record.
    pub(crate) longest: usize,
}

impl Size {
    fn of(lines: impl Iterator<Item = usize>) -> Size {
        lines.fold(Size::default(), |size, bytes| size.with(Size { bytes, records: 1, longest: bytes }))
    }

    /// Bytes of a record on average.
    pub(crate) fn mean(self) -> usize {
        self.bytes / self.records.max(1)
    }

    /// Of both files together.
    pub(crate) fn with(self, other: Size) -> Size {
        Size {
            bytes: self.bytes + other.bytes,
            records: self.records + other.records,
            longest: self.longest.max(other.longest),
        }
    }
}

/// A place to look up data files by name.
#[derive(Debug)]
pub enum DataSource {
    /// The embedded data set.
    World(Vec<DataFile>),
    /// A folder; absolute names are taken as they are.
    Folder(PathBuf),
}

impl DataSource {
    /// The source that a recipe's `data` names.
    pub fn open(name: &str) -> DataSource {
        match name {
            "world" => DataSource::World(crisol_world::dataset()),
            folder => DataSource::Folder(folder.into()),
        }
    }

    /// Whether there is such a file, that may be read more than once: a pipe is none.
    pub fn has(&self, file: &str) -> bool {
        match self {
            DataSource::World(files) => files.iter().any(|f| f.name == file),
            DataSource::Folder(folder) => folder.join(file).is_file(),
        }
    }

    /// The records of one file.
    pub fn records(&self, file: &str) -> Result<Vec<Record>, PhaseError> {
        match self {
            DataSource::World(files) => {
                let found = files.iter().find(|f| f.name == file).ok_or_else(|| PhaseError::NoSuchData {
                    file: file.into(),
                    known: files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", "),
                })?;
                Ok(parse_jsonl(file, &found.jsonl)?)
            }
            DataSource::Folder(folder) => Ok(read_jsonl(folder.join(file))?),
        }
    }

    /// How much one file holds; nothing if there is none, which is an error once it is needed, or if it is a pipe.
    pub(crate) fn size(&self, file: &str) -> Size {
        match self {
            DataSource::World(files) => files
                .iter()
                .find(|f| f.name == file)
                .map_or(Size::default(), |found| Size::of(found.jsonl.lines().map(str::len))),
            DataSource::Folder(folder) => {
                let opened = self.has(file).then(|| File::open(folder.join(file)).ok()).flatten();
                let lines = opened.into_iter().flat_map(|file| BufReader::new(file).split(b'\n'));
                Size::of(lines.map_while(Result::ok).map(|line| line.len()))
            }
        }
    }

    /// The records of several files, in order.
    pub fn all_records(&self, files: &[String]) -> Result<Vec<Record>, PhaseError> {
        let mut all = Vec::new();
        for file in files {
            all.extend(self.records(file)?);
        }
        Ok(all)
    }
}
