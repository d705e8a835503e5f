//! The Jinja environment of chat templates, as in transformers: its filters, functions and methods.
//!
//! Lists, mappings and floats are written as in Python by `{{ … }}`, `string` and `tojson`; the
//! operator `~` and the filter `join` write them as minijinja does.
//!
//! Templates are untrusted: fuel bounds their time and memory, `bounds.rs` and `namespaces.rs` the
//! values, `workers.rs` the stack.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, filters};
use minijinja_contrib::pycompat::unknown_method_callback;

use crate::TextError;
use crate::bounds::{self, insert_filters};
use crate::namespaces::namespace_used_as_value;
use crate::python_text::{self, BYTES_PER_FUEL, charge};
use crate::workers::{self, Failure};

/// Longest source of a template in bytes. Published templates have at most some 20,000.
const MAX_SOURCE_BYTES: usize = 1 << 16;
/// Fuel of one rendering: instructions, or [`BYTES_PER_FUEL`] times as many bytes. It lasts a
/// fraction of a second. Published templates need some hundred instructions per message.
const FUEL: u64 = 400_000;
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
    environment.add_filter("tojson", python_text::to_json);
    environment.add_filter("string", python_text::string);
    environment.set_formatter(python_text::format);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    // In minijinja, none is iterable.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    // In Jinja, strings and mappings are sequences too.
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    environment
}

/// The filter `int`. What is no number becomes the default, 0, and not an error as in minijinja.
fn int(
    state: &State,
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    options: Kwargs,
) -> Result<Value, Error> {
    let default = default_of(default, &options, 0.into())?;
    filters::int(state, &trimmed(value), Some(default), base, options)
}

/// The filter `float`, with 0.0 as default.
fn float(
    state: &State,
    value: &Value,
    default: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let default = default_of(default, &options, 0.0.into())?;
    filters::float(state, &trimmed(value), Some(default), options)
}

/// The default of a filter: given by position, by name, or `otherwise`.
fn default_of(given: Option<Value>, options: &Kwargs, otherwise: Value) -> Result<Value, Error> {
    let named: Option<Value> = options.get("default")?;
    Ok(given.or(named).unwrap_or(otherwise))
}

/// A text without the white space around it, which Python's numbers may have.
fn trimmed(value: &Value) -> Value {
    value.as_str().map_or_else(|| value.clone(), |text| text.trim().into())
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
