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
}

impl ReadOptions {
    /// Whether all names are ones that shapes know.
    pub fn check(&self) -> Result<(), TextError> {
        match self.columns.keys().find(|name| !NAMES.contains(&name.as_str())) {
            Some(name) => Err(TextError::UnknownTarget { name: name.clone(), known: NAMES.join(", ") }),
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
/// `[…]`, or `-` for standard input.
pub fn records(source: &str, options: &ReadOptions) -> Result<Records, TextError> {
    options.check()?;
    let inputs = sources::inputs(source)?.into();
    Ok(Records { inputs, options: options.clone(), current: None })
}

/// Records as they are read; an error is that of one record, or ends its file.
pub struct Records {
    inputs: VecDeque<Input>,
    options: ReadOptions,
    current: Option<Current>,
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
            if let Some(current) = &mut self.current {
                if let Some(row) = current.rows.next() {
                    current.empty = false;
                    return Some(row.and_then(|row| record(row.place, row.object, &self.options)));
                }
                let Current { name, empty, .. } = self.current.take()?;
                if empty {
                    return Some(Err(TextError::NoRecords { file: name }));
                }
            }
            let input = self.inputs.pop_front()?;
            match format::open(&input, &self.options) {
                Ok(rows) => self.current = Some(Current { name: input.name(), rows, empty: true }),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
