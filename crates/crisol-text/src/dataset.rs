//! Data files: JSON (lines, lists or loose objects), tables (CSV, TSV, Parquet) and plain text.
//!
//! Each may be compressed, and named by a path, a folder or a glob pattern.
//!
//! ```text
//! source ──► files ──► bytes ──► rows ──────────────► records
//! path,      sources   format    json, table, text,   shapes.rs
//! folder, *            (gz, zst) parquet
//! ```
//!
//! Memory holds one record at a time; of a Parquet file, one page per column.

mod format;
mod json;
#[cfg(feature = "parquet")]
mod parquet;
mod size;
mod sources;
mod table;
mod text;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::TextError;
use crate::records::Record;
use crate::shapes::{FIELD_NAMES, to_record};
pub(crate) use json::JsonRows;
pub use size::{SourceSize, source_size};
use sources::Input;
pub use sources::data_files;

/// How to read data files, where they do not say it themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadOptions {
    /// Column names: from the field that a shape knows (`prompt`) to the column of the file.
    pub columns: BTreeMap<String, String>,
    /// Separator of the documents of a text file. Empty: each file is one document.
    pub text_separator: String,
    /// Names of hub data sets, with the local files and the rows that they stand for.
    pub datasets: BTreeMap<String, DatasetFiles>,
}

/// The local files of a data set, and the range of rows to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatasetFiles {
    /// The files, in order.
    pub files: Vec<PathBuf>,
    /// Rows to read, counted from 0 over all files.
    pub rows: RowRange,
}

/// A half-open range of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowRange {
    /// The first row.
    pub start: usize,
    /// One past the last row; `None` reads to the end.
    pub end: Option<usize>,
}

impl ReadOptions {
    /// An error if `columns` maps a field that no shape knows.
    pub fn check(&self) -> Result<(), TextError> {
        match self.columns.keys().find(|name| !FIELD_NAMES.contains(&name.as_str())) {
            Some(name) => {
                Err(TextError::UnknownTarget { name: name.clone(), known: FIELD_NAMES.join(", ") })
            }
            None => Ok(()),
        }
    }
}

/// One object of a data file, before its shape is known.
pub(crate) struct Row {
    /// `file:line` or `file: record N`.
    pub(crate) location: String,
    /// Its fields.
    pub(crate) object: Map<String, Value>,
}

/// The rows of one file, in order.
type Rows = Box<dyn Iterator<Item = Result<Row, TextError>> + Send>;

/// The records of a source, file after file.
///
/// A source is a file, a folder (its data files, sorted), a pattern with `*`, `?` or `[…]`, `-`
/// for standard input, or a data set named in `options`.
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

/// The number of rows of a file, counted up to `max` unless its header gives it.
pub fn count_rows(path: &Path, options: &ReadOptions, max: usize) -> Result<usize, TextError> {
    let input = Input::File(path.to_owned());
    if let Some(rows) = size::rows_in_header(&input) {
        return Ok(rows);
    }
    format::open(&input, options)?.take(max).try_fold(0, |count, row| row.map(|_| count + 1))
}

/// The records of a source. An error concerns one record, or ends its file.
pub struct Records {
    inputs: VecDeque<Input>,
    options: ReadOptions,
    current: Option<Current>,
    source: String,
    /// Index of the next row, over all files.
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
                    // An unreadable row before the range is an error: rows after it cannot be
                    // counted.
                    if self.row <= self.rows.start && row.is_ok() {
                        continue;
                    }
                    return Some(
                        row.and_then(|row| to_record(row.location, row.object, &self.options)),
                    );
                }
                let Current { name, empty, .. } = self.current.take()?;
                if empty {
                    return Some(Err(TextError::NoRecords { file: name }));
                }
            }
            let Some(input) = self.inputs.pop_front() else {
                let out_of_range = self.row > 0 && self.row <= self.rows.start;
                // Resets the range, so that the error is returned once.
                let rows = std::mem::replace(&mut self.row, 0);
                let RowRange { start, .. } = std::mem::take(&mut self.rows);
                return out_of_range.then(|| {
                    Err(TextError::RowsOutOfRange { source_name: self.source.clone(), rows, start })
                });
            };
            if self.row < self.rows.start
                && let Some(rows) = size::rows_in_header(&input)
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
