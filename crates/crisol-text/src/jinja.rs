//! The Jinja environment of chat templates, as in transformers: its filters, functions and methods.
//!
//! Templates are untrusted: fuel bounds their time and memory, `bounds.rs` and `namespaces.rs` the
//! values, `workers.rs` the stack.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, filters};
use minijinja_contrib::pycompat::unknown_method_callback;

use crate::TextError;
use crate::bounds::{self, MAX_DEPTH, insert_filters};
use crate::namespaces::namespace_used_as_value;
use crate::workers::{self, Failure};

/// Longest source of a template in bytes. Published templates have at most some 20,000.
const MAX_SOURCE_BYTES: usize = 1 << 16;
/// Fuel of one rendering: instructions, or [`BYTES_PER_FUEL`] times as many bytes. It lasts a
/// fraction of a second. Published templates need some hundred instructions per message.
const FUEL: u64 = 400_000;
/// Bytes of text that cost one unit of fuel.
const BYTES_PER_FUEL: usize = 64;
/// Bytes of conversation that add one unit of fuel: a template reads and writes each a few times.
const INPUT_BYTES_PER_FUEL: usize = 4;

/// Compiled templates.
#[derive(Debug, Clone)]
pub(crate) struct Compiled {
    environment: Arc<Environment<'static>>,
    /// Whether a rendering timed out. Then no other is tried.
    timed_out: Arc<AtomicBool>,
}

impl Compiled {
    /// Compiles templates by name.
    pub(crate) fn new(sources: impl Iterator<Item = (String, String)>) -> Result<Self, TextError> {
        let sources: Vec<_> = sources.collect();
        if let Some((_, source)) =
            sources.iter().find(|(_, source)| source.len() > MAX_SOURCE_BYTES)
        {
            let length = source.len();
            return Err(TextError::Template(format!(
                "it has {length} bytes, more than the limit of {MAX_SOURCE_BYTES}; shorten it"
            )));
        }
        if let Some(name) = sources.iter().find_map(|(_, source)| namespace_used_as_value(source)) {
            return Err(TextError::Template(format!(
                "its namespace {name} is used as a value, so it could contain itself; use its \
                 attributes only ({name}.x)"
            )));
        }
        let sources: Result<Vec<_>, String> = sources
            .into_iter()
            .map(|(name, source)| Ok((name, insert_filters(&source)?)))
            .collect();
        let sources = sources.map_err(TextError::Template)?;
        let timed_out = Arc::default();
        let environment = on_worker(&timed_out, move || {
            let mut environment = environment();
            for (name, source) in sources {
                environment.add_template_owned(name, source)?;
            }
            Ok(environment)
        })?;
        Ok(Self { environment: Arc::new(environment), timed_out })
    }

    /// Renders the template `name`. `input_bytes` is about the size of its variables.
    pub(crate) fn render(
        &self,
        name: &str,
        variables: BTreeMap<String, Value>,
        input_bytes: usize,
    ) -> Result<String, TextError> {
        let (environment, name) = (Arc::clone(&self.environment), name.to_owned());
        let fuel = FUEL + (input_bytes / INPUT_BYTES_PER_FUEL) as u64;
        on_worker(&self.timed_out, move || {
            with_thread_copy(&environment, |environment| {
                environment.set_fuel(Some(fuel));
                environment.get_template(&name)?.render(Value::from(variables))
            })
        })
    }
}

/// Runs `work` with this thread's copy of an environment. Copying it for every rendering is slow.
fn with_thread_copy<T>(
    environment: &Arc<Environment<'static>>,
    work: impl FnOnce(&mut Environment<'static>) -> T,
) -> T {
    type Copy = (Arc<Environment<'static>>, Environment<'static>);
    thread_local!(static OWN: Cell<Option<Copy>> = const { Cell::new(None) });
    let cached = OWN.take().filter(|(original, _)| Arc::ptr_eq(original, environment));
    let (original, mut own) =
        cached.unwrap_or_else(|| (Arc::clone(environment), Environment::clone(environment)));
    let result = work(&mut own);
    OWN.set(Some((original, own)));
    result
}

/// Runs `work` on a thread with enough stack for any accepted template.
fn on_worker<T: Send + 'static>(
    timed_out: &AtomicBool,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, TextError> {
    let error = |cause: &str| TextError::Template(cause.to_owned());
    if timed_out.load(Ordering::Relaxed) {
        return Err(error(&Failure::TimedOut.to_string()));
    }
    match workers::run(move || work().map_err(|e| e.to_string())) {
        Ok(done) => done.map_err(|cause| error(&cause)),
        Err(failure) => {
            timed_out.store(matches!(failure, Failure::TimedOut), Ordering::Relaxed);
            Err(error(&failure.to_string()))
        }
    }
}

/// The environment, without templates.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the standard delimiters are valid"));
    environment.set_unknown_method_callback(call_method);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_filter(bounds::FILTER, bounds::check_value);
    environment.add_filter("batch", |state: &State, value, count, fill: Option<Value>| {
        bounds::check_value(state, filters::batch(state, value, count, fill)?)
    });
    environment.add_filter("slice", |state: &State, value, count, fill: Option<Value>| {
        bounds::check_value(state, filters::slice(state, value, count, fill)?)
    });
    environment.add_filter("groupby", group_by);
    // minijinja has it, Jinja does not.
    environment.remove_filter("zip");
    environment.add_filter("tojson", to_json);
    // In Jinja, strings and mappings are sequences too.
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    environment
}

/// The filter `groupby`. It nests lists without an assignment, so fuel is charged here, also for
/// sorting.
fn group_by(
    state: &State,
    value: Value,
    attribute: Option<&str>,
    options: Kwargs,
) -> Result<Value, Error> {
    let value = bounds::check_value(state, value)?;
    let items = value.len().unwrap_or(0);
    state.consume_fuel(items as u64 * u64::from(items.max(1).ilog2()))?;
    bounds::check_value(state, filters::groupby(value, attribute, options)?)
}

/// The function `strftime_now`, for a fixed time.
pub(crate) fn strftime_at(time: DateTime) -> Value {
    Value::from_function(move |format: &str| {
        // A width in a directive could produce a text of any length.
        if format.len() > 200 || format.contains(|c: char| c.is_ascii_digit()) {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "strftime_now: the format is too long or has a width",
            ));
        }
        jiff::fmt::strtime::format(format, time)
            .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
    })
}

/// Python's methods. Fuel for those with long results is charged before they run.
fn call_method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let ("count", Some(length)) = (method, value.len()) {
        charge(state, length.saturating_mul(BYTES_PER_FUEL))?;
    }
    if let Some(text) = value.as_str() {
        let argument = |i: usize| args.get(i).and_then(|argument| argument.as_str());
        match (method, argument(0), argument(1)) {
            ("replace", Some(old), Some(new)) => {
                charge(state, text.len() + text.matches(old).count().saturating_mul(new.len()))?;
            }
            ("join", None, None) if args.len() == 1 => {
                for item in args[0].try_iter()? {
                    charge(state, BYTES_PER_FUEL + text.len() + item.as_str().map_or(0, str::len))?;
                }
            }
            ("format", ..) if text.contains(|c: char| c.is_ascii_digit()) => {
                let wide = "a width in a format string is not supported";
                return Err(Error::new(ErrorKind::InvalidOperation, wide));
            }
            ("removeprefix", Some(part), None) => {
                return Ok(Value::from(text.strip_prefix(part).unwrap_or(text)));
            }
            ("removesuffix", Some(part), None) => {
                return Ok(Value::from(text.strip_suffix(part).unwrap_or(text)));
            }
            ("partition", Some(part), None) if !part.is_empty() => {
                let (before, after) = text.split_once(part).unwrap_or((text, ""));
                let found = if before.len() == text.len() { "" } else { part };
                return Ok([before, found, after].into_iter().map(Value::from).collect());
            }
            ("rsplit", Some(part), None) if !part.is_empty() && args.len() == 2 => {
                let splits = usize::try_from(args[1].clone()).unwrap_or(usize::MAX - 1);
                let mut parts: Vec<&str> = text.rsplitn(splits.saturating_add(1), part).collect();
                parts.reverse();
                return Ok(parts.into_iter().map(Value::from).collect());
            }
            _ => {}
        }
    }
    unknown_method_callback(state, value, method, args)
}

/// Charges fuel for `bytes` of text.
fn charge(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / BYTES_PER_FUEL) as u64)
}

/// The filter `tojson`: Python's `json.dumps`, as in transformers. Jinja's own escapes for HTML.
#[expect(clippy::needless_pass_by_value, reason = "minijinja passes options by value")]
fn to_json(state: &State, value: &Value, options: Kwargs) -> Result<String, Error> {
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
    let mut json = JsonWriter {
        state,
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

/// Writes a value as JSON.
struct JsonWriter<'a, 'v, 'e> {
    state: &'a State<'v, 'e>,
    item_separator: String,
    key_separator: String,
    indent: Option<String>,
    ascii: bool,
    sorted: bool,
    out: String,
    /// Bytes of `out` for which fuel is charged.
    charged: usize,
}

impl JsonWriter<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        // Each value costs at least one unit of fuel.
        charge(self.state, BYTES_PER_FUEL + self.out.len() - self.charged)?;
        self.charged = self.out.len();
        let error =
            |cause: &str| Error::new(ErrorKind::InvalidOperation, format!("tojson: {cause}"));
        if depth > MAX_DEPTH {
            return Err(error("lists and objects are nested too deeply"));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => {
                let _ = write!(self.out, "{value}");
            }
            ValueKind::Number => self.out.push_str(&python_float(f64::try_from(value.clone())?)),
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
}

/// A float as Python writes it: the shortest digits that round-trip, with an exponent below 1e-4
/// and from 1e16 on.
fn python_float(number: f64) -> String {
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
