//! CSV and TSV tables with a header row. An empty cell is an absent value.

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use csv::{ByteRecord, ReaderBuilder};
use memchr::memchr_iter;
use serde_json::Map;

use super::format::read_error;
use super::{Row, Rows};
use crate::TextError;

/// Longest header line in bytes.
const MAX_HEADER_BYTES: usize = 1 << 16;

/// The delimiter of the cells: comma, tab or semicolon, whichever the header has most of.
pub(super) fn delimiter(header: &[u8]) -> u8 {
    let count = |delimiter: u8| memchr_iter(delimiter, header).count();
    // `max_by_key` returns the last maximum, so reversing prefers the comma.
    let candidates = [b',', b'\t', b';'];
    candidates.into_iter().rev().max_by_key(|&d| count(d)).unwrap_or(b',')
}

pub(super) fn rows(name: &str, bytes: impl BufRead + Send + 'static) -> Rows {
    let name = name.to_owned();
    let mut state = None;
    let mut record = 0;
    let mut failed = false;
    let odd_quotes = Arc::new(AtomicBool::new(false));
    let mut spans_lines = false;
    let mut bytes = QuoteParity { reader: bytes, odd: Arc::clone(&odd_quotes) };
    // The delimiter is detected from the header, before the CSV reader starts.
    let opening = (|| {
        let mut header = vec![];
        let mut byte = [0];
        while header.len() < MAX_HEADER_BYTES
            && !header.ends_with(b"\n")
            && bytes.read(&mut byte)? == 1
        {
            header.extend(byte);
        }
        let header = header.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(&header).to_vec();
        io::Result::Ok((delimiter(&header), io::Cursor::new(header).chain(bytes)))
    })();
    let mut opening = Some(opening);
    Box::new(std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let malformed = |location: String, cause: String, remedy: &str| {
            Some(Err(TextError::Malformed { location, cause, remedy: remedy.to_owned() }))
        };
        if let Some(opening) = opening.take() {
            let opened = opening.map_err(csv::Error::from).and_then(|(delimiter, bytes)| {
                let mut reader = ReaderBuilder::new().delimiter(delimiter).from_reader(bytes);
                let header = reader.byte_headers()?.clone();
                Ok((reader, header))
            });
            match opened {
                Ok((reader, header)) => match column_names(&header) {
                    Ok(header) => state = Some((reader, header)),
                    Err(cause) => {
                        failed = true;
                        return malformed(
                            name.clone(),
                            cause,
                            "give each column its own name in the first line",
                        );
                    }
                },
                Err(error) => {
                    failed = true;
                    return Some(Err(unreadable(&name, error)));
                }
            }
        }
        let (reader, header) = state.as_mut()?;
        let mut cells = ByteRecord::new();
        record += 1;
        let location = format!("{name}: record {record}");
        match reader.read_byte_record(&mut cells) {
            Ok(true) => spans_lines = cells.iter().any(|cell| cell.contains(&b'\n')),
            // An unclosed quote swallows all rows to the end of the file.
            Ok(false) if spans_lines && odd_quotes.load(Ordering::Relaxed) => {
                failed = true;
                let location = format!("{name}: record {}", record - 1);
                return malformed(
                    location,
                    "a quote is not closed in the last record".to_owned(),
                    "close or double it",
                );
            }
            Ok(false) => return None,
            Err(error) => {
                if let csv::ErrorKind::UnequalLengths { len, expected_len, .. } = error.kind() {
                    let cause = format!("has {len} cells, and the header {expected_len}");
                    let remedy = "put cells with delimiters, quotes or line breaks into quotes";
                    return malformed(location, cause, remedy);
                }
                failed = true;
                return Some(Err(unreadable(&name, error)));
            }
        }
        let mut object = Map::new();
        for (column, cell) in header.iter().zip(&cells) {
            match str::from_utf8(cell) {
                Ok("") => {}
                Ok(text) => drop(object.insert(column.clone(), text.into())),
                Err(_) => {
                    let cause = format!("the cell of `{column}` is not UTF-8");
                    return malformed(location, cause, "save the file as UTF-8");
                }
            }
        }
        Some(Ok(Row { location, object }))
    }))
}

/// The names of the columns; they must differ.
fn column_names(header: &ByteRecord) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = vec![];
    for (i, name) in header.iter().enumerate() {
        let name = str::from_utf8(name).map_err(|_| "the header is not UTF-8".to_owned())?.trim();
        // pandas writes an index column without a name.
        let name = if name.is_empty() { format!("column {}", i + 1) } else { name.to_owned() };
        if names.contains(&name) {
            return Err(format!("the header names `{name}` twice"));
        }
        names.push(name);
    }
    Ok(names)
}

fn unreadable(name: &str, error: csv::Error) -> TextError {
    let source = match error.into_kind() {
        csv::ErrorKind::Io(source) => source,
        other => io::Error::other(format!("{other:?}")),
    };
    read_error(Path::new(name), source)
}

/// A reader that tracks whether the number of quotes so far is odd.
struct QuoteParity<R> {
    reader: R,
    odd: Arc<AtomicBool>,
}

impl<R: Read> Read for QuoteParity<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.reader.read(buffer)?;
        let quotes = memchr_iter(b'"', &buffer[..bytes]).count();
        self.odd.fetch_xor(quotes % 2 == 1, Ordering::Relaxed);
        Ok(bytes)
    }
}
