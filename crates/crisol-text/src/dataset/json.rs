//! JSON objects: one per line (JSONL), several per line, over several lines, or as one list.
//!
//! The layout is detected from the start of the file. Objects are delimited by their braces and
//! parsed one at a time, so that each has its own error.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::Path;

use memchr::{memchr, memchr3};
use serde_json::{Map, Value};

use super::Row;
use super::format::read_error;
use crate::TextError;

const BUFFER_BYTES: usize = 1 << 16;
const ONE_OBJECT: &str = "write one JSON object a line, in UTF-8, or a JSON list of objects";

/// The layout of the objects in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layout {
    /// The first object has not ended yet.
    Unknown,
    /// Each object is on one line, so an error ends with its line.
    Lines,
    /// Objects over several lines.
    Loose,
    /// The elements of one list.
    List,
}

/// What ended a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Its closing brace or last byte.
    Complete,
    /// The end of a line, before the value was complete.
    Line,
    /// The end of the file.
    File,
}

/// An iterator over the objects of JSON data.
pub(crate) struct JsonRows<R> {
    name: String,
    bytes: ByteReader<R>,
    layout: Layout,
    /// Objects so far.
    count: usize,
    /// A line, and the number of objects so far that start on it.
    on_line: (usize, usize),
    ready: VecDeque<Result<Row, TextError>>,
    done: bool,
}

impl<R: Read> JsonRows<R> {
    pub(crate) fn new(name: &str, reader: R) -> Self {
        Self {
            name: name.to_owned(),
            bytes: ByteReader::new(reader),
            layout: Layout::Unknown,
            count: 0,
            on_line: (0, 0),
            ready: VecDeque::new(),
            done: false,
        }
    }

    /// Reads the next object or separator.
    fn advance(&mut self) -> io::Result<()> {
        self.bytes.skip_space()?;
        let Some(byte) = self.bytes.peek()? else {
            if self.layout == Layout::List {
                self.stop(
                    "the file ends inside its list".to_owned(),
                    "fetch or write the file again",
                );
            }
            self.done = true;
            return Ok(());
        };
        match (self.layout, byte) {
            (Layout::Unknown, b'[') => {
                self.layout = Layout::List;
                self.bytes.bump();
                return Ok(());
            }
            (Layout::List, b',') if self.count > 0 => {
                self.bytes.bump();
                return Ok(());
            }
            (Layout::List, b']') => {
                self.bytes.bump();
                self.bytes.skip_space()?;
                if self.bytes.peek()?.is_some() {
                    let cause =
                        format!("line {} continues after the end of the list", self.bytes.line);
                    self.stop(cause, "make the file one list, or one object on each line");
                }
                self.done = true;
                return Ok(());
            }
            (Layout::Loose, byte) if byte != b'{' => {
                let cause = format!("line {} does not begin with an object", self.bytes.line);
                self.stop(cause, ONE_OBJECT);
                return Ok(());
            }
            _ => {}
        }
        self.read_object()
    }

    /// Reads one object, or the malformed text in its place.
    fn read_object(&mut self) -> io::Result<()> {
        let mut first =
            ValueText { line: self.bytes.line, column: self.bytes.column, text: vec![] };
        let (end, first_line) = self.bytes.read_value(self.layout, &mut first.text)?;
        if self.layout == Layout::Unknown {
            self.layout = match first_line {
                None => Layout::Lines,
                Some((length, second)) => {
                    // Either an object over many lines, or a truncated line above complete ones.
                    if is_object(&first.text[second..]) {
                        let text = first.text.split_off(second);
                        let line = first.line + count_lines(&first.text);
                        first.text.truncate(length);
                        self.layout = Layout::Lines;
                        self.parse(&first, End::Line);
                        self.parse(&ValueText { line, column: 0, text }, End::Complete);
                        return Ok(());
                    }
                    Layout::Loose
                }
            };
        }
        self.parse(&first, end);
        match (self.layout, end) {
            (Layout::Lines, _) => {
                if self.ready.back().is_some_and(Result::is_err) {
                    self.bytes.skip_line()?;
                }
            }
            (Layout::List | Layout::Loose, End::Complete) => {}
            // The start of the next object is unknown.
            _ => self.done = true,
        }
        Ok(())
    }

    fn parse(&mut self, value: &ValueText, end: End) {
        self.count += 1;
        if self.on_line.0 == value.line {
            self.on_line.1 += 1;
        } else {
            self.on_line = (value.line, 1);
        }
        let location = match self.layout {
            Layout::Lines if self.on_line.1 > 1 => {
                format!("{}:{} (object {})", self.name, value.line, self.on_line.1)
            }
            Layout::Lines => format!("{}:{}", self.name, value.line),
            _ => format!("{}: record {}", self.name, self.count),
        };
        let row = match value.parse(self.layout == Layout::Lines, end) {
            Ok(object) => Ok(Row { location, object }),
            Err((cause, remedy)) => {
                Err(TextError::Malformed { location, cause, remedy: remedy.to_owned() })
            }
        };
        self.ready.push_back(row);
    }

    /// Ends with an error of the file as a whole.
    fn stop(&mut self, cause: String, remedy: &str) {
        let location = self.name.clone();
        self.ready.push_back(Err(TextError::Malformed {
            location,
            cause,
            remedy: remedy.to_owned(),
        }));
        self.done = true;
    }
}

impl<R: Read> Iterator for JsonRows<R> {
    type Item = Result<Row, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.done {
            if let Err(source) = self.advance() {
                self.done = true;
                self.ready.push_back(Err(read_error(Path::new(&self.name), source)));
            }
        }
        self.ready.pop_front()
    }
}

/// The bytes of one value, and where it starts.
struct ValueText {
    line: usize,
    column: usize,
    text: Vec<u8>,
}

impl ValueText {
    fn parse(
        &self,
        one_line: bool,
        end: End,
    ) -> Result<Map<String, Value>, (String, &'static str)> {
        // The position of a byte; columns count from 1.
        let position = |byte: usize| {
            let before = &self.text[..byte.min(self.text.len())];
            let line = before.iter().rposition(|&b| b == b'\n' || b == b'\r');
            let column = match line {
                Some(start) => byte - start,
                None => self.column + byte + 1,
            };
            let line = self.line + count_lines(before);
            if one_line {
                format!("at column {column}")
            } else {
                format!("at line {line}, column {column}")
            }
        };
        let text = str::from_utf8(&self.text).map_err(|error| {
            let byte = error.valid_up_to();
            let position = if one_line {
                format!("at byte {} of the line", self.column + byte + 1)
            } else {
                position(byte)
            };
            (
                format!("invalid UTF-8 {position}"),
                "save the file as UTF-8, such as with iconv -f LATIN1 -t UTF-8",
            )
        })?;
        match serde_json::from_str(text) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(("JSON, but not an object".to_owned(), ONE_OBJECT)),
            Err(error) => {
                let cause = error.to_string();
                let cause = cause.split(" at line ").next().unwrap_or_default();
                if (cause.contains("surrogate") || cause.contains("hex escape"))
                    && let Some(byte) = lone_surrogate(text)
                {
                    return Err((
                        format!(
                            "{} {} is a lone surrogate, half of a character above U+FFFF",
                            &text[byte..(byte + 6).min(text.len())],
                            position(byte)
                        ),
                        "remove it, or write the whole character; \
                         Python's errors=\"replace\" does so on writing",
                    ));
                }
                let byte = byte_offset(text, error.line(), error.column());
                if let Some((word, byte)) = non_finite_number(text, byte) {
                    return Err((
                        format!("{word} {} is not JSON", position(byte)),
                        "write null for a missing value; \
                         Python's json.dumps(…, allow_nan=False) finds them",
                    ));
                }
                let cause = match end {
                    End::Line if !one_line => "a string has no end on its line",
                    End::File if !one_line => "the file ends inside the object",
                    _ => cause,
                };
                Err((format!("not JSON: {cause} {}", position(byte.saturating_sub(1))), ONE_OBJECT))
            }
        }
    }
}

/// The byte offset of a line and column (from 1, in bytes), as `serde_json` reports them.
fn byte_offset(text: &str, line: usize, column: usize) -> usize {
    let start =
        text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    (start + column).min(text.len())
}

/// A non-finite number (`NaN`, …) and its offset, given `serde_json`'s error offset.
///
/// The error is at the first or second byte of the word.
fn non_finite_number(text: &str, error: usize) -> Option<(&'static str, usize)> {
    let rest = text.get(error.saturating_sub(2)..)?;
    let rest = rest.trim_start_matches([':', ' ', ',', '[']);
    let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| rest.starts_with(word))?;
    Some((word, text.len() - rest.len()))
}

/// The offset of the first `\\u` escape that is half of a surrogate pair without the other.
fn lone_surrogate(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let unit = |at: usize| -> Option<u16> {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            at += 1;
            continue;
        }
        match unit(at) {
            Some(0xD800..=0xDBFF) if matches!(unit(at + 6), Some(0xDC00..=0xDFFF)) => at += 12,
            Some(0xD800..=0xDFFF) => return Some(at),
            // The backslash and the escaped character.
            _ => at += 2,
        }
    }
    None
}

fn is_object(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<Map<String, Value>>(text).is_ok()
}

/// The number of line ends; `\r\n` is one.
fn count_lines(text: &[u8]) -> usize {
    let mut previous = 0;
    let mut count = 0;
    for &byte in text {
        count += usize::from(byte == b'\r' || (byte == b'\n' && previous != b'\r'));
        previous = byte;
    }
    count
}

/// A buffered reader that tracks line and column.
struct ByteReader<R> {
    reader: R,
    buffer: Vec<u8>,
    position: usize,
    filled: usize,
    /// Current line, from 1.
    line: usize,
    /// Bytes read of the current line.
    column: usize,
    after_return: bool,
}

impl<R: Read> ByteReader<R> {
    fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: vec![0; BUFFER_BYTES],
            position: 0,
            filled: 0,
            line: 1,
            column: 0,
            after_return: false,
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.position == self.filled {
            self.position = 0;
            self.filled = 0;
            self.filled = loop {
                match self.reader.read(&mut self.buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read?,
                }
            };
            if self.filled == 0 {
                return Ok(None);
            }
        }
        Ok(Some(self.buffer[self.position]))
    }

    /// Consumes the byte that [`Self::peek`] returned.
    fn bump(&mut self) {
        let byte = self.buffer[self.position];
        self.position += 1;
        let line_end = byte == b'\r' || byte == b'\n';
        if byte == b'\r' || (byte == b'\n' && !self.after_return) {
            self.line += 1;
        }
        self.after_return = byte == b'\r';
        self.column = if line_end { 0 } else { self.column + 1 };
    }

    /// Copies a string's ordinary bytes, as far as they are buffered. Returns whether there were
    /// any.
    fn copy_plain(&mut self, text: &mut Vec<u8>) -> bool {
        let ahead = &self.buffer[self.position..self.filled];
        let ahead = &ahead[..memchr3(b'"', b'\\', b'\n', ahead).unwrap_or(ahead.len())];
        let ahead = &ahead[..memchr(b'\r', ahead).unwrap_or(ahead.len())];
        text.extend_from_slice(ahead);
        self.position += ahead.len();
        self.column += ahead.len();
        self.after_return &= ahead.is_empty();
        !ahead.is_empty()
    }

    fn skip_space(&mut self) -> io::Result<()> {
        // Also skips a byte order mark, three bytes at the start of the file.
        while let Some(byte) = self.peek()? {
            let mark = self.line == 1 && "\u{FEFF}".as_bytes().get(self.column) == Some(&byte);
            if !byte.is_ascii_whitespace() && !mark {
                break;
            }
            self.bump();
        }
        Ok(())
    }

    fn skip_line(&mut self) -> io::Result<()> {
        while let Some(byte) = self.peek()? {
            if byte == b'\n' || byte == b'\r' {
                break;
            }
            self.bump();
        }
        Ok(())
    }

    /// Reads one value into `text` and returns what ended it.
    ///
    /// If the layout is unknown and the value has several lines, also returns the length of its
    /// first line and the offset of the next non-blank one.
    fn read_value(
        &mut self,
        layout: Layout,
        text: &mut Vec<u8>,
    ) -> io::Result<(End, Option<(usize, usize)>)> {
        let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
        let mut layout = layout;
        let mut first_line: Option<(usize, usize)> = None;
        while let Some(byte) = self.peek()? {
            if in_string && !escaped && self.copy_plain(text) {
                continue;
            }
            let line_end = byte == b'\n' || byte == b'\r';
            if line_end && (in_string || layout == Layout::Lines) {
                return Ok((End::Line, first_line));
            }
            if line_end && layout == Layout::Unknown {
                if depth == 0 {
                    return Ok((End::Line, first_line));
                }
                match first_line {
                    // Skips blank lines.
                    Some((length, second)) if text[second..].trim_ascii().is_empty() => {
                        first_line = Some((length, text.len() + 1));
                    }
                    Some((_, second)) if is_object(&text[second..]) => {
                        return Ok((End::Line, first_line));
                    }
                    Some(_) => {
                        layout = Layout::Loose;
                        first_line = Some((text.len(), text.len()));
                    }
                    None => first_line = Some((text.len(), text.len() + 1)),
                }
            }
            if depth == 0
                && !text.is_empty()
                && layout == Layout::List
                && matches!(byte, b',' | b']')
                && !in_string
            {
                return Ok((End::Complete, None));
            }
            text.push(byte);
            self.bump();
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return Ok((End::Complete, first_line));
                    }
                }
                _ => {}
            }
        }
        Ok((End::File, first_line))
    }
}
