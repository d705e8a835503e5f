//! Tables of strings: CSV and TSV with a header row. An empty cell is an absent value.

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

/// Bytes of a header line at most.
const HEADER: usize = 1 << 16;

/// What separates cells: the likeliest of a header line's characters.
pub(super) fn delimiter(header: &[u8]) -> u8 {
    let count = |delimiter: u8| memchr_iter(delimiter, header).count();
    // The first of the most frequent; a comma where there is none.
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
    let mut bytes = Quotes { reader: bytes, odd: Arc::clone(&odd_quotes) };
    // The header says the delimiter, so that it is read before the table is.
    let opening = (|| {
        let mut header = vec![];
        let mut byte = [0];
        while header.len() < HEADER && !header.ends_with(b"\n") && bytes.read(&mut byte)? == 1 {
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
        let wrong = |place: String, cause: String, remedy: &str| {
            Some(Err(TextError::Malformed { place, cause, remedy: remedy.to_owned() }))
        };
        if let Some(opening) = opening.take() {
            let opened = opening.map_err(csv::Error::from).and_then(|(delimiter, bytes)| {
                let mut reader = ReaderBuilder::new().delimiter(delimiter).from_reader(bytes);
                let header = reader.byte_headers()?.clone();
                Ok((reader, header))
            });
            match opened {
                Ok((reader, header)) => match names(&header) {
                    Ok(header) => state = Some((reader, header)),
                    Err(cause) => {
                        failed = true;
                        return wrong(
                            name.clone(),
                            cause,
                            "give each column a name of its own in the first line",
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
        let place = format!("{name}: record {record}");
        match reader.read_byte_record(&mut cells) {
            Ok(true) => spans_lines = cells.iter().any(|cell| cell.contains(&b'\n')),
            // A quote that is not closed takes in all rows to the end.
            Ok(false) if spans_lines && odd_quotes.load(Ordering::Relaxed) => {
                failed = true;
                let place = format!("{name}: record {}", record - 1);
                return wrong(
                    place,
                    "a quote is not closed in the last record".to_owned(),
                    "close or double it",
                );
            }
            Ok(false) => return None,
            Err(error) => {
                if let csv::ErrorKind::UnequalLengths { len, expected_len, .. } = error.kind() {
                    let cause = format!("has {len} cells, and the header {expected_len}");
                    let remedy = "put cells with delimiters, quotes or line breaks into quotes";
                    return wrong(place, cause, remedy);
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
                    return wrong(place, cause, "save the file as UTF-8");
                }
            }
        }
        Some(Ok(Row { place, object }))
    }))
}

/// The columns' names.
fn names(header: &ByteRecord) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = vec![];
    for (i, name) in header.iter().enumerate() {
        let name = str::from_utf8(name).map_err(|_| "the header is not UTF-8".to_owned())?.trim();
        // Tables of pandas begin with a column of numbers without a name.
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

/// Bytes, with a note whether the quotes among them are in pairs.
struct Quotes<R> {
    reader: R,
    odd: Arc<AtomicBool>,
}

impl<R: Read> Read for Quotes<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.reader.read(buffer)?;
        let quotes = memchr_iter(b'"', &buffer[..bytes]).count();
        self.odd.fetch_xor(quotes % 2 == 1, Ordering::Relaxed);
        Ok(bytes)
    }
}
