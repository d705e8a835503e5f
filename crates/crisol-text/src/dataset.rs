//! Data files as they are found: JSON in lines, lists or loose objects, tables (CSV, TSV, Parquet) and plain text, each
//! also compressed, alone, in folders or by patterns.
//!
//! ```text
//! source ──► files ──► bytes ──► rows ──────────────► records
//! name,      sources   format    json, table, text,   shapes.rs
//! folder, *            (gz, zst) parquet
//! ```
//!
//! Only what is being read is in memory: the longest record, one page of each column of a Parquet file.

mod extent;
mod format;
mod json;
#[cfg(feature = "parquet")]
mod parquet;
mod sources;
mod table;
mod text;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::TextError;
use crate::records::Record;
use crate::shapes::{NAMES, record};
pub use extent::{Extent, extent};
pub(crate) use json::JsonRows;
use sources::Input;
pub use sources::data_files;

/// How data files are read where they do not tell it themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadOptions {
    /// What columns mean: the names that shapes know to the names in the files (`prompt` to `question`).
    pub columns: BTreeMap<String, String>,
    /// What separates the documents of a plain text file; where it is empty, each file is one document.
    pub text_separator: String,
    /// Names that stand for other files than paths do, and for which rows of them: data sets of a hub.
    pub datasets: BTreeMap<String, DataSet>,
}

/// Files that were found for a name, and the part of their rows that it means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DataSet {
    /// The files, in order.
    pub files: Vec<PathBuf>,
    /// Rows over all files, counted from 0.
    pub rows: RowRange,
}

/// A half-open range of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowRange {
    /// The first row.
    pub start: usize,
    /// The row behind the last; `None` means all that there are.
    pub end: Option<usize>,
}

impl ReadOptions {
    /// Whether all names are ones that shapes know.
    pub fn check(&self) -> Result<(), TextError> {
        match self.columns.keys().find(|name| !NAMES.contains(&name.as_str())) {
            Some(name) => {
                Err(TextError::UnknownTarget { name: name.clone(), known: NAMES.join(", ") })
            }
            None => Ok(()),
        }
    }
}

/// One object of a data file.
pub(crate) struct Row {
    /// Where it stands.
    pub(crate) place: String,
    /// Its fields.
    pub(crate) object: Map<String, Value>,
}

/// The rows of one file, in order.
type Rows = Box<dyn Iterator<Item = Result<Row, TextError>> + Send>;

/// The records of a source, file after file: a file, a folder (all data files in it, sorted), a pattern with `*`, `?` or
/// `[…]`, `-` for standard input, or a data set of the options.
pub fn records(source: &str, options: &ReadOptions) -> Result<Records, TextError> {
    options.check()?;
    let inputs = sources::inputs(source, options)?.into();
    let rows = options.datasets.get(source).map(|set| set.rows).unwrap_or_default();
    Ok(Records {
        inputs,
        options: options.clone(),
        current: None,
        source: source.to_owned(),
        row: 0,
        rows,
    })
}

/// How many rows a file has, counted up to `most`.
pub fn count_rows(path: &Path, options: &ReadOptions, most: usize) -> Result<usize, TextError> {
    let input = Input::File(path.to_owned());
    if let Some(rows) = extent::of_header(&input) {
        return Ok(rows);
    }
    format::open(&input, options)?.take(most).try_fold(0, |count, row| row.map(|_| count + 1))
}

/// Records as they are read; an error is that of one record, or ends its file.
pub struct Records {
    inputs: VecDeque<Input>,
    options: ReadOptions,
    current: Option<Current>,
    source: String,
    /// The row that comes next, over all files.
    row: usize,
    rows: RowRange,
}

struct Current {
    name: String,
    rows: Rows,
    empty: bool,
}

impl Iterator for Records {
    type Item = Result<Record, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.rows.end.is_some_and(|end| self.row >= end) {
                return None;
            }
            if let Some(current) = &mut self.current {
                if let Some(row) = current.rows.next() {
                    current.empty = false;
                    self.row += 1;
                    // A row that cannot be read is an error wherever it is: others could not be counted behind it.
                    if self.row <= self.rows.start && row.is_ok() {
                        continue;
                    }
                    return Some(row.and_then(|row| record(row.place, row.object, &self.options)));
                }
                let Current { name, empty, .. } = self.current.take()?;
                if empty {
                    return Some(Err(TextError::NoRecords { file: name }));
                }
            }
            let Some(input) = self.inputs.pop_front() else {
                let behind = self.row > 0 && self.row <= self.rows.start;
                // Said once.
                let rows = std::mem::replace(&mut self.row, 0);
                let RowRange { start, .. } = std::mem::take(&mut self.rows);
                return behind.then(|| {
                    Err(TextError::FewerRows { source_name: self.source.clone(), rows, start })
                });
            };
            if self.row < self.rows.start
                && let Some(rows) = extent::of_header(&input)
                && self.row + rows <= self.rows.start
            {
                self.row += rows;
                continue;
            }
            match format::open(&input, &self.options) {
                Ok(rows) => self.current = Some(Current { name: input.name(), rows, empty: true }),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
