//! Detects the format of a file from its name, or from its first bytes.
//!
//! Compression and binary formats are always detected from the bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::json::JsonRows;
use super::sources::Input;
use super::{ReadOptions, Rows, table, text};
use crate::TextError;
use crate::shapes::FIELD_NAMES;

/// Bytes at the start of a file from which its format is detected.
const HEAD_BYTES: u64 = 1 << 12;
const COMPRESSED_EXTENSIONS: [&str; 4] = ["gz", "gzip", "zst", "zstd"];
const CONVERT_TO_UTF8: &str = "save it as UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Text,
    Table,
    Parquet,
}

impl Format {
    /// The format by a file's extension, before any `.gz` or `.zst`.
    fn of_name(path: &Path) -> Option<Format> {
        let extension = |path: &Path| path.extension().map(|e| e.to_string_lossy().to_lowercase());
        let mut last = extension(path)?;
        if COMPRESSED_EXTENSIONS.contains(&last.as_str()) {
            last = extension(Path::new(path.file_stem()?))?;
        }
        match last.as_str() {
            "jsonl" | "ndjson" | "json" => Some(Format::Json),
            "txt" | "text" => Some(Format::Text),
            "csv" | "tsv" => Some(Format::Table),
            "parquet" => Some(Format::Parquet),
            _ => None,
        }
    }

    /// The format by the start of a file.
    fn of_content(head: &[u8]) -> Format {
        let head = head.trim_ascii_start();
        let first = head.split(|&b| b == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(first);
        let delimiter = char::from(table::delimiter(first));
        let cells: Vec<&str> =
            line.trim().split(delimiter).map(|cell| cell.trim().trim_matches('"')).collect();
        match head.first() {
            Some(b'{' | b'[') => Format::Json,
            // A table's header names at least one field that a shape knows.
            _ if cells.len() > 1 && cells.iter().any(|cell| FIELD_NAMES.contains(cell)) => {
                Format::Table
            }
            _ => Format::Text,
        }
    }
}

/// Whether the extension is that of a data file.
pub(super) fn is_data_file(path: &Path) -> bool {
    Format::of_name(path).is_some()
}

pub(super) fn read_error(path: &Path, source: io::Error) -> TextError {
    TextError::Read { path: path.to_owned(), source }
}

/// The decompressed bytes of a file, and its format.
pub(super) struct Opened {
    pub(super) format: Format,
    pub(super) bytes: Box<dyn BufRead + Send>,
    pub(super) compressed: bool,
}

/// Opens a file and detects its format. `wrap` may wrap the reader of the raw bytes.
pub(super) fn detect(
    input: &Input,
    wrap: impl FnOnce(Box<dyn Read + Send>) -> Box<dyn Read + Send>,
) -> Result<Opened, TextError> {
    let name = input.name();
    let path = Path::new(&name);
    let read = |source| read_error(path, source);
    let raw: Box<dyn Read + Send> = match input {
        Input::Stdin => Box::new(io::stdin()),
        Input::File(path) => Box::new(File::open(path).map_err(read)?),
    };
    let (head, bytes) = peek(wrap(raw)).map_err(read)?;
    let (compressed, (head, bytes)) = match head.as_slice() {
        [0x1F, 0x8B, ..] => (
            true,
            peek(DecompressionErrors("gzip", flate2::bufread::MultiGzDecoder::new(bytes)))
                .map_err(read)?,
        ),
        [0x28, 0xB5, 0x2F, 0xFD, ..] | [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => {
            let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(read)?;
            (true, peek(DecompressionErrors("zstd", decoder)).map_err(read)?)
        }
        _ => (false, (head, bytes)),
    };
    let by_name = match input {
        Input::Stdin => None,
        Input::File(path) => Format::of_name(path),
    };
    if let Some((cause, remedy)) = unsupported_format(&head) {
        return Err(TextError::Malformed { location: name, cause, remedy: remedy.to_owned() });
    }
    let format = match by_name {
        _ if head.starts_with(b"PAR1") => Format::Parquet,
        // JSON objects are never meant as plain text.
        Some(Format::Text) if is_jsonl(&head) => Format::Json,
        Some(format) => format,
        None => Format::of_content(&head),
    };
    Ok(Opened { format, bytes, compressed })
}

/// The rows of a file.
pub(super) fn open(input: &Input, options: &ReadOptions) -> Result<Rows, TextError> {
    let Opened { format, bytes, compressed, .. } = detect(input, |raw| raw)?;
    if format != Format::Parquet {
        return Ok(rows(format, &input.name(), bytes, options));
    }
    let file = match input {
        Input::File(path) if !compressed => File::open(path),
        // Parquet is read by seeking, so a stream is first copied to a file.
        _ => copy_to_temporary_file(bytes),
    };
    parquet_rows(input.name(), file.map_err(|source| read_error(Path::new(&input.name()), source))?)
}

#[cfg(feature = "parquet")]
fn parquet_rows(name: String, file: File) -> Result<Rows, TextError> {
    Ok(Box::new(super::parquet::rows(name, file)?))
}

#[cfg(not(feature = "parquet"))]
fn parquet_rows(name: String, _file: File) -> Result<Rows, TextError> {
    let cause =
        "is a Parquet file, and this program was built without the feature `parquet`".to_owned();
    Err(TextError::Malformed {
        location: name,
        cause,
        remedy: "build it with the feature, or convert the file".into(),
    })
}

/// The rows of a format that is read sequentially.
pub(super) fn rows(
    format: Format,
    name: &str,
    bytes: impl BufRead + Send + 'static,
    options: &ReadOptions,
) -> Rows {
    match format {
        Format::Text => text::rows(name, bytes, &options.text_separator),
        Format::Table => table::rows(name, bytes),
        Format::Json | Format::Parquet => Box::new(JsonRows::new(name, bytes)),
    }
}

fn copy_to_temporary_file(mut bytes: Box<dyn BufRead + Send>) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut bytes, &mut file)?;
    Ok(file)
}

fn peek(mut reader: impl Read + Send + 'static) -> io::Result<(Vec<u8>, Box<dyn BufRead + Send>)> {
    let mut head = vec![];
    reader.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
    let all = Cursor::new(head.clone()).chain(reader);
    Ok((head, Box::new(BufReader::with_capacity(1 << 16, all))))
}

/// Whether the first line is a JSON object, or starts like one and extends beyond the head.
fn is_jsonl(head: &[u8]) -> bool {
    let mut lines = head.split(|&b| b == b'\n');
    let first = lines.next().unwrap_or_default();
    let is_cut_off = lines.next().is_none() && head.len() as u64 == HEAD_BYTES;
    let starts_with_key = || {
        let key = first
            .strip_prefix(b"{")
            .map(<[u8]>::trim_ascii_start)
            .and_then(|rest| rest.strip_prefix(b"\""));
        let key = key.and_then(|rest| rest.splitn(2, |&b| b == b'"').nth(1));
        key.is_some_and(|rest| rest.trim_ascii_start().starts_with(b":"))
    };
    first.starts_with(b"{")
        && (serde_json::from_slice::<Map<String, Value>>(first).is_ok()
            || (is_cut_off && starts_with_key()))
}

/// Cause and remedy, if the bytes are of a known but unsupported format.
fn unsupported_format(head: &[u8]) -> Option<(String, &'static str)> {
    const UNPACK: &str = "unpack it first";
    let (what, remedy) = match head {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] | [0, 0, 0xFE, 0xFF, ..] => {
            ("text in UTF-16 or UTF-32", CONVERT_TO_UTF8)
        }
        [a, 0, b, 0, ..] | [0, a, 0, b, ..] if *a != 0 && *b != 0 => {
            ("text in UTF-16", CONVERT_TO_UTF8)
        }
        [b'P', b'K', 3 | 5, 4 | 6, ..] => ("a zip archive", UNPACK),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => {
            ("compressed with bzip2", "unpack it, or compress it with gzip or zstd")
        }
        [0xFD, b'7', b'z', b'X', b'Z', ..] => {
            ("compressed with xz", "unpack it, or compress it with gzip or zstd")
        }
        [b'7', b'z', 0xBC, 0xAF, ..] => ("a 7z archive", UNPACK),
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => {
            ("an Arrow file", "save it as Parquet: Dataset.to_parquet")
        }
        [b'S', b'Q', b'L', b'i', b't', b'e', ..] => {
            ("an SQLite database", "export its table as CSV")
        }
        [b'%', b'P', b'D', b'F', ..] => ("a PDF document", "convert it to text"),
        [0x89, b'H', b'D', b'F', ..] => ("an HDF5 file", "save it as JSONL or Parquet"),
        _ if head.get(257..262) == Some(b"ustar") => ("a tar archive", UNPACK),
        _ => return None,
    };
    Some((format!("is {what}, which is not supported"), remedy))
}

/// Wraps a decompressor, so that its errors say that the file is damaged.
struct DecompressionErrors<R>(&'static str, R);

impl<R: Read> Read for DecompressionErrors<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let DecompressionErrors(format, reader) = self;
        reader.read(buffer).map_err(|error| {
            let message =
                format!("its {format} data is damaged or cut off ({error}); fetch the file again");
            io::Error::new(error.kind(), message)
        })
    }
}
