//! Plain text: one document per file, or several with a separator between them.
//!
//! All line ends become `\n`. A very long file without a separator is split at line ends, to bound
//! the memory.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use memchr::memchr_iter;
use serde_json::Map;

use super::format::read_error;
use super::{Row, Rows};
use crate::TextError;

/// Without a separator, a document ends with the line that reaches this many bytes. The longest
/// books have a fifth of it.
const MAX_DOCUMENT_BYTES: usize = 16 << 20;

/// What ended a document.
#[derive(PartialEq)]
enum End {
    Separator,
    /// A line end, after [`MAX_DOCUMENT_BYTES`].
    Line,
    File,
}

pub(super) fn rows(name: &str, bytes: impl BufRead + Send + 'static, separator: &str) -> Rows {
    let (name, separator) = (name.to_owned(), separator.as_bytes().to_vec());
    let mut lines = BufReader::new(LineEnds { reader: bytes, after_return: false });
    let mut record = 0;
    let mut line = 1;
    let mut failed = false;
    Box::new(std::iter::from_fn(move || {
        while !failed {
            let mut document = vec![];
            let end = match read_document(&mut lines, &separator, &mut document) {
                Ok(end) => end,
                // A decompressor would repeat its error without end.
                Err(source) => {
                    failed = true;
                    return Some(Err(read_error(Path::new(&name), source)));
                }
            };
            if document.is_empty() && end == End::File {
                return None;
            }
            let first_line = line;
            line += memchr_iter(b'\n', &document).count();
            if end == End::Separator {
                line += memchr_iter(b'\n', &separator).count();
            }
            let text = match str::from_utf8(&document) {
                Ok(text) => text.strip_prefix('\u{FEFF}').unwrap_or(text),
                Err(error) => {
                    let before = &document[..error.valid_up_to()];
                    let line = first_line + memchr_iter(b'\n', before).count();
                    return Some(Err(TextError::Malformed {
                        location: format!("{name}:{line}"),
                        cause: "not UTF-8".to_owned(),
                        remedy:
                            "save it as UTF-8, such as with iconv -f LATIN1 -t UTF-8 FILE > NEW"
                                .to_owned(),
                    }));
                }
            };
            if text.trim().is_empty() {
                continue;
            }
            record += 1;
            let object = Map::from_iter([("text".to_owned(), text.into())]);
            return Some(Ok(Row { location: format!("{name}: record {record}"), object }));
        }
        None
    }))
}

/// Reads the next document, without its separator, and says what ended it.
fn read_document(
    lines: &mut impl BufRead,
    separator: &[u8],
    document: &mut Vec<u8>,
) -> io::Result<End> {
    let last = separator.last().copied().unwrap_or(b'\n');
    while lines.read_until(last, document)? > 0 {
        if !separator.is_empty() && document.ends_with(separator) {
            document.truncate(document.len() - separator.len());
            return Ok(End::Separator);
        }
        if separator.is_empty() && document.len() >= MAX_DOCUMENT_BYTES {
            return Ok(End::Line);
        }
    }
    Ok(End::File)
}

/// A reader that turns `\r\n` and a lone `\r` into `\n`.
struct LineEnds<R> {
    reader: R,
    after_return: bool,
}

impl<R: BufRead> Read for LineEnds<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let bytes = self.reader.fill_buf()?;
            if bytes.is_empty() || buffer.is_empty() {
                return Ok(0);
            }
            let taken = bytes.len().min(buffer.len());
            let mut written = 0;
            for &byte in &bytes[..taken] {
                if byte == b'\n' && self.after_return {
                    self.after_return = false;
                    continue;
                }
                self.after_return = byte == b'\r';
                buffer[written] = if self.after_return { b'\n' } else { byte };
                written += 1;
            }
            self.reader.consume(taken);
            if written > 0 {
                return Ok(written);
            }
        }
    }
}
