//! JSON objects one after the other: one on each line (JSONL), several on a line, one over many lines, or the elements of
//! a list. Which of these a file is, its beginning tells; objects are cut out by their braces, one at a time.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::Path;

use memchr::{memchr, memchr3};
use serde_json::{Map, Value};

use super::Row;
use super::format::read_error;
use crate::TextError;

const CHUNK: usize = 1 << 16;
const ONE_OBJECT: &str = "expected JSON objects: one on each line, in UTF-8, or a list of them";

/// How the objects of a file stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layout {
    /// The first object has not ended yet.
    Unknown,
    /// Each on one line: what is wrong with a line ends with it.
    Lines,
    /// Over several lines.
    Loose,
    /// The elements of one list.
    List,
}

/// What ended a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Its last byte.
    Whole,
    /// The end of a line on which it should have ended.
    Line,
    /// The end of the file.
    File,
}

/// The objects of JSON data, as they are read.
pub(crate) struct JsonRows<R> {
    name: String,
    bytes: Bytes<R>,
    layout: Layout,
    /// Objects so far.
    count: usize,
    /// Objects so far that began on this line.
    on_line: (usize, usize),
    ready: VecDeque<Result<Row, TextError>>,
    done: bool,
}

impl<R: Read> JsonRows<R> {
    pub(crate) fn new(name: &str, reader: R) -> Self {
        Self {
            name: name.to_owned(),
            bytes: Bytes::new(reader),
            layout: Layout::Unknown,
            count: 0,
            on_line: (0, 0),
            ready: VecDeque::new(),
            done: false,
        }
    }

    /// Reads until there is a row or the end.
    fn advance(&mut self) -> io::Result<()> {
        self.bytes.skip_space()?;
        let Some(byte) = self.bytes.peek()? else {
            if self.layout == Layout::List {
                self.stop(
                    "the file ends before its list does".to_owned(),
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
                        format!("line {} goes on after the end of the list", self.bytes.line);
                    self.stop(cause, "make the file one list, or one object on each line");
                }
                self.done = true;
                return Ok(());
            }
            (Layout::Loose, byte) if byte != b'{' => {
                let cause = format!("line {} begins with no object", self.bytes.line);
                self.stop(cause, ONE_OBJECT);
                return Ok(());
            }
            _ => {}
        }
        self.object()
    }

    /// Reads one object, or what stands in its place.
    fn object(&mut self) -> io::Result<()> {
        let mut first = Piece { line: self.bytes.line, column: self.bytes.column, text: vec![] };
        let (end, first_line) = self.bytes.value(self.layout, &mut first.text)?;
        if self.layout == Layout::Unknown {
            self.layout = match first_line {
                None => Layout::Lines,
                Some((length, second)) => {
                    // An object over many lines, or a line that is cut off with whole ones below?
                    if is_object(&first.text[second..]) {
                        let text = first.text.split_off(second);
                        let line = first.line + lines(&first.text);
                        first.text.truncate(length);
                        self.layout = Layout::Lines;
                        self.parse(&first, End::Line);
                        self.parse(&Piece { line, column: 0, text }, End::Whole);
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
            (Layout::List | Layout::Loose, End::Whole) => {}
            // Where the next object begins is not known.
            _ => self.done = true,
        }
        Ok(())
    }

    fn parse(&mut self, piece: &Piece, end: End) {
        self.count += 1;
        if self.on_line.0 == piece.line {
            self.on_line.1 += 1;
        } else {
            self.on_line = (piece.line, 1);
        }
        let place = match self.layout {
            Layout::Lines if self.on_line.1 > 1 => {
                format!("{}:{} (object {})", self.name, piece.line, self.on_line.1)
            }
            Layout::Lines => format!("{}:{}", self.name, piece.line),
            _ => format!("{}: record {}", self.name, self.count),
        };
        let row = match piece.parse(self.layout == Layout::Lines, end) {
            Ok(object) => Ok(Row { place, object }),
            Err((cause, remedy)) => {
                Err(TextError::Malformed { place, cause, remedy: remedy.to_owned() })
            }
        };
        self.ready.push_back(row);
    }

    /// What is wrong with the file beyond any object.
    fn stop(&mut self, cause: String, remedy: &str) {
        let place = self.name.clone();
        self.ready.push_back(Err(TextError::Malformed { place, cause, remedy: remedy.to_owned() }));
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

/// The bytes of one value and where it begins.
struct Piece {
    line: usize,
    column: usize,
    text: Vec<u8>,
}

impl Piece {
    fn parse(
        &self,
        one_line: bool,
        end: End,
    ) -> Result<Map<String, Value>, (String, &'static str)> {
        // Where a byte stands; columns are counted from 1.
        let at = |byte: usize| {
            let before = &self.text[..byte.min(self.text.len())];
            let line = before.iter().rposition(|&b| b == b'\n' || b == b'\r');
            let column = match line {
                Some(start) => byte - start,
                None => self.column + byte + 1,
            };
            let line = self.line + lines(before);
            if one_line {
                format!("at column {column}")
            } else {
                format!("at line {line}, column {column}")
            }
        };
        let text = str::from_utf8(&self.text).map_err(|error| {
            let byte = error.valid_up_to();
            let place = if one_line {
                format!("at byte {} of the line", self.column + byte + 1)
            } else {
                at(byte)
            };
            (
                format!("invalid UTF-8 {place}"),
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
                            "{} {} is a lone surrogate, half of a character outside of the first 65,536",
                            &text[byte..(byte + 6).min(text.len())],
                            at(byte)
                        ),
                        "remove it, or write the whole character; Python's errors=\"replace\" does so on writing",
                    ));
                }
                let byte = byte_of(text, error.line(), error.column());
                if let Some((word, byte)) = not_a_number(text, byte) {
                    return Err((
                        format!("{word} {} is not JSON", at(byte)),
                        "write null for a missing value; Python's json.dumps(…, allow_nan=False) finds them",
                    ));
                }
                let cause = match end {
                    End::Line if !one_line => "a string has no end on its line",
                    End::File if !one_line => "the file ends inside of the object",
                    _ => cause,
                };
                Err((format!("not JSON: {cause} {}", at(byte.saturating_sub(1))), ONE_OBJECT))
            }
        }
    }
}

/// The byte at a line and column (from 1, in bytes) of a text, as `serde_json` says them.
fn byte_of(text: &str, line: usize, column: usize) -> usize {
    let start =
        text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    (start + column).min(text.len())
}

/// A word that other programs write for a number that is none, and where it begins: an error is at its first or second
/// byte.
fn not_a_number(text: &str, error: usize) -> Option<(&'static str, usize)> {
    let rest = text.get(error.saturating_sub(2)..)?;
    let at = rest.trim_start_matches([':', ' ', ',', '[']);
    let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| at.starts_with(word))?;
    Some((word, text.len() - at.len()))
}

/// Where the first escape is that is half of a pair without the other half.
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
            // The backslash and what it escapes.
            _ => at += 2,
        }
    }
    None
}

fn is_object(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<Map<String, Value>>(text).is_ok()
}

/// How many line ends there are; `\r\n` is one.
fn lines(text: &[u8]) -> usize {
    let mut previous = 0;
    let mut count = 0;
    for &byte in text {
        count += usize::from(byte == b'\r' || (byte == b'\n' && previous != b'\r'));
        previous = byte;
    }
    count
}

/// Bytes with their place.
struct Bytes<R> {
    reader: R,
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    /// From 1.
    line: usize,
    /// Bytes before on this line.
    column: usize,
    after_return: bool,
}

impl<R: Read> Bytes<R> {
    fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: vec![0; CHUNK],
            at: 0,
            filled: 0,
            line: 1,
            column: 0,
            after_return: false,
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.at == self.filled {
            self.at = 0;
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
        Ok(Some(self.buffer[self.at]))
    }

    /// Goes past the byte that was peeked at.
    fn bump(&mut self) {
        let byte = self.buffer[self.at];
        self.at += 1;
        let line_end = byte == b'\r' || byte == b'\n';
        if byte == b'\r' || (byte == b'\n' && !self.after_return) {
            self.line += 1;
        }
        self.after_return = byte == b'\r';
        self.column = if line_end { 0 } else { self.column + 1 };
    }

    /// Goes past the bytes of a string that mean nothing but themselves, as far as they are in the buffer; says whether there
    /// were any.
    fn copy_plain(&mut self, text: &mut Vec<u8>) -> bool {
        let ahead = &self.buffer[self.at..self.filled];
        let ahead = &ahead[..memchr3(b'"', b'\\', b'\n', ahead).unwrap_or(ahead.len())];
        let ahead = &ahead[..memchr(b'\r', ahead).unwrap_or(ahead.len())];
        text.extend_from_slice(ahead);
        self.at += ahead.len();
        self.column += ahead.len();
        self.after_return &= ahead.is_empty();
        !ahead.is_empty()
    }

    fn skip_space(&mut self) -> io::Result<()> {
        // A byte order mark is three bytes at the very beginning.
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

    /// Reads one value into `text` and says what ended it; of one over several lines in an unknown layout also how long its
    /// first line is and where the second that is not blank begins.
    fn value(
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
                    // A blank line is none.
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
                return Ok((End::Whole, None));
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
                        return Ok((End::Whole, first_line));
                    }
                }
                _ => {}
            }
        }
        Ok((End::File, first_line))
    }
}
