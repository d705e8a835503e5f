//! Values as Python writes them: `json.dumps` and `str`.

use std::fmt::Write as _;
use std::sync::LazyLock;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, escape_formatter, filters};
use regex_automata::meta::Regex;

use crate::bounds::MAX_DEPTH;

/// Bytes of text that cost one unit of fuel.
pub(crate) const BYTES_PER_FUEL: usize = 64;

/// Charges fuel for `bytes` of text.
pub(crate) fn charge(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / BYTES_PER_FUEL) as u64)
}

/// Writes the value of `{{ … }}`: `str` of Python.
pub(crate) fn format(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match text(state, value)? {
        Some(text) => escape_formatter(out, state, &Value::from(text)),
        None => escape_formatter(out, state, value),
    }
}

/// The filter `string`.
#[expect(clippy::needless_pass_by_value, reason = "minijinja passes values of filters so")]
pub(crate) fn string(state: &State, value: Value) -> Result<Value, Error> {
    Ok(match text(state, &value)? {
        Some(text) => Value::from(text),
        None => filters::string(state, &value)?,
    })
}

/// What `str` makes of lists, mappings and floats, which minijinja writes differently.
fn text(state: &State, value: &Value) -> Result<Option<String>, Error> {
    let differs = match value.kind() {
        ValueKind::Seq | ValueKind::Map => true,
        ValueKind::Number => !value.is_integer(),
        _ => false,
    };
    if !differs {
        return Ok(None);
    }
    let mut repr = Writer {
        state,
        repr: true,
        item_separator: ", ".to_owned(),
        key_separator: ": ".to_owned(),
        indent: None,
        ascii: false,
        sorted: false,
        out: String::new(),
        charged: 0,
    };
    repr.value(value, 0)?;
    Ok(Some(repr.out))
}

/// The filter `tojson`: Python's `json.dumps`, as in transformers. Jinja's own escapes for HTML.
#[expect(clippy::needless_pass_by_value, reason = "minijinja passes options by value")]
pub(crate) fn to_json(state: &State, value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<Value> = options.get("indent")?;
    let indent = indent.filter(|indent| !indent.is_none()).map(|indent| {
        let text = indent.as_str().map(str::to_owned);
        text.unwrap_or_else(|| " ".repeat(usize::try_from(indent).unwrap_or(0).min(64)))
    });
    let separators: Option<Value> = options.get("separators")?;
    let separator = |i: usize, default: &str| -> Result<String, Error> {
        match separators.as_ref().filter(|separators| !separators.is_none()) {
            Some(separators) => {
                Ok(separators.get_item(&Value::from(i))?.as_str().unwrap_or(default).to_owned())
            }
            None => Ok(default.to_owned()),
        }
    };
    let mut json = Writer {
        state,
        repr: false,
        item_separator: separator(0, if indent.is_some() { "," } else { ", " })?,
        key_separator: separator(1, ": ")?,
        indent,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        out: String::new(),
        charged: 0,
    };
    options.assert_all_used()?;
    json.value(value, 0)?;
    Ok(json.out)
}

/// Writes a value as JSON, or as Python's `repr`.
struct Writer<'a, 'v, 'e> {
    state: &'a State<'v, 'e>,
    repr: bool,
    item_separator: String,
    key_separator: String,
    indent: Option<String>,
    ascii: bool,
    sorted: bool,
    out: String,
    /// Bytes of `out` for which fuel is charged.
    charged: usize,
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        // Each value costs at least one unit of fuel.
        charge(self.state, BYTES_PER_FUEL + self.out.len() - self.charged)?;
        self.charged = self.out.len();
        let filter = if self.repr { "string" } else { "tojson" };
        let error =
            |cause: &str| Error::new(ErrorKind::InvalidOperation, format!("{filter}: {cause}"));
        if depth > MAX_DEPTH {
            return Err(error("lists and objects are nested too deeply"));
        }
        match value.kind() {
            ValueKind::None | ValueKind::Bool if self.repr => {
                let _ = write!(self.out, "{value}");
            }
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => {
                let _ = write!(self.out, "{value}");
            }
            ValueKind::Number => {
                let number = f64::try_from(value.clone())?;
                let text = float(number);
                self.out.push_str(match text.as_str() {
                    "Infinity" if self.repr => "inf",
                    "-Infinity" if self.repr => "-inf",
                    "NaN" if self.repr => "nan",
                    text => text,
                });
            }
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let mut any = false;
                self.out.push('[');
                for item in value.try_iter()? {
                    self.begin_item(any, depth);
                    any = true;
                    self.value(&item, depth + 1)?;
                }
                self.end_items(any, depth, ']');
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.out.push('{');
                for (i, key) in keys.iter().enumerate() {
                    self.begin_item(i > 0, depth);
                    match key.kind() {
                        ValueKind::String => self.string(key.as_str().unwrap_or_default()),
                        _ if self.repr => self.value(key, depth + 1)?,
                        ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                            self.out.push('"');
                            self.value(key, depth + 1)?;
                            self.out.push('"');
                        }
                        _ => return Err(error("a key is not a string")),
                    }
                    self.out.push_str(&self.key_separator.clone());
                    self.value(&value.get_item(key)?, depth + 1)?;
                }
                self.end_items(!keys.is_empty(), depth, '}');
            }
            kind => return Err(error(&format!("{kind} cannot be written as JSON"))),
        }
        Ok(())
    }

    fn begin_item(&mut self, any: bool, depth: usize) {
        if any {
            self.out.push_str(&self.item_separator.clone());
        }
        self.new_line(depth + 1);
    }

    fn end_items(&mut self, any: bool, depth: usize, bracket: char) {
        if any {
            self.new_line(depth);
        }
        self.out.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    fn string(&mut self, text: &str) {
        if self.repr {
            return self.quoted(text);
        }
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || self.ascii && !c.is_ascii() => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    /// A string as Python's `repr` quotes it.
    fn quoted(&mut self, text: &str) {
        let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
        self.out.push(quote);
        for c in text.chars() {
            match c {
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                c if c == quote => {
                    self.out.push('\\');
                    self.out.push(c);
                }
                c if is_printable(c) => self.out.push(c),
                c => {
                    let _ = match u32::from(c) {
                        code @ ..0x100 => write!(self.out, "\\x{code:02x}"),
                        code @ ..0x1_0000 => write!(self.out, "\\u{code:04x}"),
                        code => write!(self.out, "\\U{code:08x}"),
                    };
                }
            }
        }
        self.out.push(quote);
    }
}

/// Whether Python's `repr` writes a character as it is: not if it is of the categories Other and
/// Separator, except the space.
fn is_printable(c: char) -> bool {
    static OTHERS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"[\p{C}\p{Z}--\x20]").expect("the pattern is valid"));
    matches!(c, ' '..='~') || !OTHERS.is_match(c.encode_utf8(&mut [0; 4]).as_bytes())
}

/// A float as Python writes it: the shortest digits that round-trip, with an exponent below 1e-4
/// and from 1e16 on.
fn float(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "NaN"
        } else if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').expect("an exponent is always written");
    let exponent: i32 = exponent.parse().expect("an exponent is a whole number");
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    format!("{number:?}")
}
