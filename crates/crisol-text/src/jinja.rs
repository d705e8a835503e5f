//! Jinja as transformers sets it up for chat templates: the environment that compiles them, with the filters, functions and
//! methods that templates call, and bounds on what a hostile one may burn.

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
use crate::bounds::{self, DEEPEST, bounded};
use crate::namespaces::held_namespace;
use crate::workers::{self, Failure};

/// Longest source of a template in bytes. Those in the field have some 20,000 at most.
const LONGEST_SOURCE: usize = 1 << 16;
/// Bounds what a hostile template can burn: about this many instructions or [`UNIT`] times as many bytes, which takes a
/// fraction of a second. Templates in the field need some hundred instructions per message.
const FUEL: u64 = 400_000;
/// Bytes of text that cost as much as an instruction.
const UNIT: usize = 64;
/// Bytes of conversation that give one more unit of fuel: each is read and written a few times.
const INPUT_PER_FUEL: usize = 4;
/// Templates that are compiled.
#[derive(Debug, Clone)]
pub(crate) struct Compiled {
    environment: Arc<Environment<'static>>,
    /// Whether it was not waited for once, and need not be tried again.
    given_up: Arc<AtomicBool>,
}

impl Compiled {
    /// Compiles templates by name.
    pub(crate) fn new(sources: impl Iterator<Item = (String, String)>) -> Result<Self, TextError> {
        let sources: Vec<_> = sources.collect();
        if let Some((_, source)) = sources.iter().find(|(_, source)| source.len() > LONGEST_SOURCE)
        {
            let length = source.len();
            return Err(TextError::Template(format!(
                "it has {length} bytes, where {LONGEST_SOURCE} is the most"
            )));
        }
        if let Some(name) = sources.iter().find_map(|(_, source)| held_namespace(source)) {
            return Err(TextError::Template(format!(
                "its namespace {name} is used as a value, so that it could come to hold itself; use its attributes only ({name}.x)"
            )));
        }
        let sources: Result<Vec<_>, String> =
            sources.into_iter().map(|(name, source)| Ok((name, bounded(&source)?))).collect();
        let sources = sources.map_err(TextError::Template)?;
        let given_up = Arc::default();
        let environment = on_worker(&given_up, move || {
            let mut environment = environment();
            for (name, source) in sources {
                environment.add_template_owned(name, source)?;
            }
            Ok(environment)
        })?;
        Ok(Self { environment: Arc::new(environment), given_up })
    }

    /// What a template writes. `input` is about how many bytes its variables have.
    pub(crate) fn render(
        &self,
        name: &str,
        variables: BTreeMap<String, Value>,
        input: usize,
    ) -> Result<String, TextError> {
        let (environment, name) = (Arc::clone(&self.environment), name.to_owned());
        let fuel = FUEL + (input / INPUT_PER_FUEL) as u64;
        on_worker(&self.given_up, move || {
            with_own(&environment, |environment| {
                environment.set_fuel(Some(fuel));
                environment.get_template(&name)?.render(Value::from(variables))
            })
        })
    }
}

/// Works with this thread's copy of an environment. It is made once for many renderings: an environment has some hundred entries.
fn with_own<T>(
    environment: &Arc<Environment<'static>>,
    work: impl FnOnce(&mut Environment<'static>) -> T,
) -> T {
    type Copy = (Arc<Environment<'static>>, Environment<'static>);
    thread_local!(static OWN: Cell<Option<Copy>> = const { Cell::new(None) });
    let kept = OWN.take().filter(|(original, _)| Arc::ptr_eq(original, environment));
    let (original, mut own) =
        kept.unwrap_or_else(|| (Arc::clone(environment), Environment::clone(environment)));
    let result = work(&mut own);
    OWN.set(Some((original, own)));
    result
}

/// Does a template's work on a thread whose stack is known to bear it.
fn on_worker<T: Send + 'static>(
    given_up: &AtomicBool,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, TextError> {
    let failed = |cause: &str| TextError::Template(cause.to_owned());
    if given_up.load(Ordering::Relaxed) {
        return Err(failed(&Failure::NotDone.to_string()));
    }
    match workers::run(move || work().map_err(|e| e.to_string())) {
        Ok(done) => done.map_err(|cause| failed(&cause)),
        Err(failure) => {
            given_up.store(matches!(failure, Failure::NotDone), Ordering::Relaxed);
            Err(failed(&failure.to_string()))
        }
    }
}

/// An environment without templates.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the standard delimiters are valid"));
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_filter(bounds::FILTER, bounds::check);
    environment.add_filter("batch", |state: &State, value, count, fill: Option<Value>| {
        bounds::check(state, filters::batch(state, value, count, fill)?)
    });
    environment.add_filter("slice", |state: &State, value, count, fill: Option<Value>| {
        bounds::check(state, filters::slice(state, value, count, fill)?)
    });
    environment.add_filter("groupby", group_by);
    // Jinja has no such filter.
    environment.remove_filter("zip");
    environment.add_filter("tojson", to_json);
    // For Jinja, whatever has a length and items is a sequence.
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    environment
}

/// The filter `groupby`. It puts lists into lists without giving them a name, so that it pays here, and for sorting before.
fn group_by(
    state: &State,
    value: Value,
    attribute: Option<&str>,
    options: Kwargs,
) -> Result<Value, Error> {
    let value = bounds::check(state, value)?;
    let items = value.len().unwrap_or(0);
    state.consume_fuel(items as u64 * u64::from(items.max(1).ilog2()))?;
    bounds::check(state, filters::groupby(value, attribute, options)?)
}

/// The function `strftime_now`, at a moment.
pub(crate) fn strftime_at(moment: DateTime) -> Value {
    Value::from_function(move |format: &str| {
        // Some directives take a width.
        if format.len() > 200 || format.contains(|c: char| c.is_ascii_digit()) {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "strftime_now: the format is too long or has a width",
            ));
        }
        jiff::fmt::strtime::format(format, moment)
            .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
    })
}

/// Python's methods. What may make much of little is paid for before it is made.
fn method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let ("count", Some(length)) = (method, value.len()) {
        charge(state, length.saturating_mul(UNIT))?;
    }
    if let Some(text) = value.as_str() {
        let argument = |i: usize| args.get(i).and_then(|argument| argument.as_str());
        match (method, argument(0), argument(1)) {
            ("replace", Some(old), Some(new)) => {
                charge(state, text.len() + text.matches(old).count().saturating_mul(new.len()))?;
            }
            ("join", None, None) if args.len() == 1 => {
                for item in args[0].try_iter()? {
                    charge(state, UNIT + text.len() + item.as_str().map_or(0, str::len))?;
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

/// Pays for text of so many bytes.
fn charge(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / UNIT) as u64)
}

/// Jinja's `tojson` escapes for HTML; transformers replaces it by Python's plain `json.dumps`.
#[expect(clippy::needless_pass_by_value, reason = "minijinja hands options over by value")]
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
    let mut json = Json {
        state,
        between: separator(0, if indent.is_some() { "," } else { ", " })?,
        colon: separator(1, ": ")?,
        indent,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        out: String::new(),
        paid: 0,
    };
    options.assert_all_used()?;
    json.value(value, 0)?;
    Ok(json.out)
}

/// A value while it is written.
struct Json<'a, 'v, 'e> {
    state: &'a State<'v, 'e>,
    between: String,
    colon: String,
    indent: Option<String>,
    ascii: bool,
    sorted: bool,
    out: String,
    /// Bytes of `out` that are paid for.
    paid: usize,
}

impl Json<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        // A part costs something also where it is written in a few bytes.
        charge(self.state, UNIT + self.out.len() - self.paid)?;
        self.paid = self.out.len();
        let wrong = |what: &str| Error::new(ErrorKind::InvalidOperation, format!("tojson: {what}"));
        if depth > DEEPEST {
            return Err(wrong("lists and objects are too deep within one another"));
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
                        _ => return Err(wrong("a key is no string")),
                    }
                    self.out.push_str(&self.colon.clone());
                    self.value(&value.get_item(key)?, depth + 1)?;
                }
                self.end_items(!keys.is_empty(), depth, '}');
            }
            kind => return Err(wrong(&format!("{kind} cannot be written as JSON"))),
        }
        Ok(())
    }

    fn begin_item(&mut self, any: bool, depth: usize) {
        if any {
            self.out.push_str(&self.between.clone());
        }
        self.line(depth + 1);
    }

    fn end_items(&mut self, any: bool, depth: usize, bracket: char) {
        if any {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
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

/// A number as Python writes it: the shortest digits that give it again, with an exponent below 1e-4 and from 1e16 on.
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
