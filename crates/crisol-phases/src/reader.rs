//! Reads the tables of a recipe: step 2 of the table in `recipe.rs`.
//!
//! What is given is overlaid on the defaults. The defaults say which keys exist and of which type
//! their values are, so every error names the line of the offending key or value.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::defaults;
use crate::ranges::{self, Allowed, Ranges};
use crate::recipe::{Phase, RecipeError, table_of};
use crate::settings::PhaseSettings;

/// Reads one recipe.
pub(crate) struct Reader<'t> {
    /// Its name, for errors.
    pub(crate) file: &'t str,
    /// Its text, for line numbers.
    pub(crate) text: &'t str,
}

/// A setting that a recipe gives.
struct Given {
    /// Dotted name.
    name: String,
    value: Value,
    /// Byte offset in the text.
    offset: usize,
}

impl Reader<'_> {
    /// Reads a table of `[[phases]]`. `previous` is the phase before it, the default of `from`.
    pub(crate) fn phase(
        &self,
        value: toml::Spanned<DeValue<'_>>,
        previous: Option<&str>,
    ) -> Result<Phase, RecipeError> {
        let start = value.span().start;
        let DeValue::Table(mut table) = value.into_inner() else {
            return Err(
                self.error_at(start, "each phase is a table: write it as [[phases]]".into())
            );
        };
        let mut take = |key: &str| -> Result<Option<(usize, String)>, RecipeError> {
            let Some(value) = table.remove(key) else { return Ok(None) };
            let at = value.span().start;
            match value.into_inner() {
                DeValue::String(s) => Ok(Some((at, s.into_owned()))),
                _ => {
                    Err(self.error_at(at, format!("`{key}` must be a string: put it into quotes")))
                }
            }
        };
        let name = take("name")?;
        let from = take("from")?;
        let (at, kind) = take("kind")?.ok_or_else(|| {
            let kinds = PhaseSettings::KINDS.join(", ");
            self.error_at(start, format!("a phase needs `kind`, one of: {kinds}"))
        })?;
        let default = PhaseSettings::default_of(&kind).ok_or_else(|| {
            let kinds = PhaseSettings::KINDS;
            let hint = nearest(&kind, kinds.into_iter());
            self.error_at(
                at,
                format!("there is no phase kind {kind:?}{hint} (kinds: {})", kinds.join(", ")),
            )
        })?;
        let (settings, given) =
            self.overlay(&default, table, &["name", "from"], ranges::of_kind(&kind))?;
        Ok(Phase {
            unresolved: defaults::resolved_names(&kind)
                .filter(|name| !given.contains(*name))
                .collect(),
            name: name.map_or(kind, |(_, n)| n),
            from: from.map_or(previous.unwrap_or_default().to_owned(), |(_, f)| f),
            settings,
        })
    }

    /// Overlays `given` on `default`. Returns the names of the given settings too.
    ///
    /// Keys must exist in the default; `other_keys` exist too, and are handled elsewhere. Values
    /// must have the default's type and be in their range.
    pub(crate) fn overlay<T: Serialize + DeserializeOwned>(
        &self,
        default: &T,
        given: DeTable<'_>,
        other_keys: &[&str],
        ranges: Ranges,
    ) -> Result<(T, BTreeSet<String>), RecipeError> {
        let start = given.iter().map(|(key, _)| key.span().start).min().unwrap_or(0);
        let mut table = table_of(default);
        let all_names = dotted_names(&table);
        let mut settings = Vec::new();
        self.merge(&mut table, given, "", other_keys, ranges, &all_names, &mut settings)?;
        // Serde finds what the types of TOML cannot: unknown options, lists of something else.
        let overlaid = T::deserialize(Value::Table(table)).map_err(|e| {
            let fails_alone = |given: &&Given| {
                let mut alone = table_of(default);
                set_dotted(&mut alone, &given.name, given.value.clone());
                T::deserialize(Value::Table(alone)).is_err()
            };
            match settings.iter().find(fails_alone) {
                Some(Given { name, offset, .. }) => {
                    self.error_at(*offset, format!("`{name}`: {}", in_words(e.message())))
                }
                None => self.error_at(start, in_words(e.message())),
            }
        })?;
        Ok((overlaid, settings.into_iter().map(|given| given.name).collect()))
    }

    /// Merges `given` into `table` and appends each setting to `settings`. `prefix` is the dotted
    /// name of the table; `all_names` are those of the whole default, for suggestions.
    fn merge(
        &self,
        table: &mut Table,
        given: DeTable<'_>,
        prefix: &str,
        other_keys: &[&str],
        ranges: Ranges,
        all_names: &[String],
        settings: &mut Vec<Given>,
    ) -> Result<(), RecipeError> {
        for (key, value) in given {
            let offset = key.span().start;
            let key = key.get_ref().to_string();
            let name = format!("{prefix}{key}");
            let Some(slot) = table.get_mut(&key) else {
                let known: Vec<&str> =
                    table.keys().map(String::as_str).chain(other_keys.iter().copied()).collect();
                let hint = in_other_table(&key, all_names)
                    .unwrap_or_else(|| nearest(&key, known.iter().copied()));
                return Err(self.error_at(
                    offset,
                    format!(
                        "there is no setting `{name}`{hint} (settings here: {})",
                        known.join(", ")
                    ),
                ));
            };
            let allowed = ranges::allowed(ranges, &key);
            match (slot, value.into_inner()) {
                (Value::Table(inner), DeValue::Table(given))
                    if matches!(allowed, Some(Allowed::Free)) =>
                {
                    let Some(Value::Table(free)) = without_spans(DeValue::Table(given)) else {
                        let message =
                            format!("`{name}` holds a number that does not fit into 64 bits");
                        return Err(self.error_at(offset, message));
                    };
                    *inner = free;
                    let value = Value::Table(inner.clone());
                    settings.push(Given { name, value, offset });
                }
                (Value::Table(inner), DeValue::Table(given)) => {
                    let ranges =
                        if let Some(Allowed::Table(ranges)) = allowed { ranges } else { &[] };
                    let prefix = format!("{name}.");
                    self.merge(inner, given, &prefix, &[], ranges, all_names, settings)?;
                }
                (slot, value) => {
                    let wanted = slot.type_str();
                    let value = without_spans(value).ok_or_else(|| {
                        self.error_at(
                            offset,
                            format!("`{name}` is a number that does not fit into 64 bits"),
                        )
                    })?;
                    *slot = match (&*slot, value) {
                        // An integer may stand for a float, and one file for a list.
                        (Value::Float(_), Value::Integer(i)) => Value::Float(i as f64),
                        (Value::Array(_), Value::String(s)) => Value::Array(vec![s.into()]),
                        (slot, value) if slot.same_type(&value) => value,
                        (_, value) => {
                            let given = value.type_str();
                            let range = match allowed {
                                Some(Allowed::Number(range)) => format!(": {range}"),
                                _ => String::new(),
                            };
                            return Err(self.error_at(
                                offset,
                                format!("`{name}` must be of type {wanted}, not {given}{range}"),
                            ));
                        }
                    };
                    if let Some(cause) = allowed.and_then(|allowed| out_of_range(slot, allowed)) {
                        return Err(self.error_at(offset, format!("`{name}` {cause}")));
                    }
                    settings.push(Given { name, value: slot.clone(), offset });
                }
            }
        }
        Ok(())
    }

    /// An error at a byte offset of the text.
    pub(crate) fn error_at(&self, offset: usize, message: String) -> RecipeError {
        let line = 1 + self.text[..offset.min(self.text.len())].matches('\n').count();
        RecipeError::Entry { file: self.file.into(), line, message }
    }
}

/// An error of serde without its terms: `` unknown variant `a`, expected `b` or `c` ``.
fn in_words(message: &str) -> String {
    if let Some((given, known)) =
        message.strip_prefix("unknown variant ").and_then(|rest| rest.split_once(", expected "))
    {
        let known = known.strip_prefix("one of ").unwrap_or(known);
        return format!("{given} is no option; use one of: {known}");
    }
    match message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected ")) {
        Some((given, wanted)) => format!("found {given}, expected {wanted}"),
        None => message.to_owned(),
    }
}

/// Why a value is not among the allowed ones.
fn out_of_range(value: &Value, allowed: Allowed) -> Option<String> {
    let number = match (value, allowed) {
        (Value::Array(files), Allowed::Files) => {
            let named = |file: &Value| file.as_str().is_none_or(|name| !name.is_empty());
            let valid = !files.is_empty() && files.iter().all(named);
            return (!valid)
                .then(|| "must name at least one file, or there is nothing to train on".into());
        }
        (Value::Integer(i), _) => *i as f64,
        (Value::Float(f), _) => *f,
        _ => return None,
    };
    match allowed {
        Allowed::Number(range) if !range.holds(number) => {
            Some(format!("is {}, but it must be {range}", ranges::short(number)))
        }
        _ => None,
    }
}

/// `; did you mean …?` for a setting of this name in another table: `lr` is `optimizer.lr`.
fn in_other_table(key: &str, all_names: &[String]) -> Option<String> {
    let named = all_names.iter().filter(|name| name.rsplit('.').next() == Some(key));
    named.min_by_key(|name| name.len()).map(|name| format!("; did you mean `{name}`?"))
}

/// `; did you mean …?` for the nearest known word, at most one edit in three letters away.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|k| (strsim::damerau_levenshtein(word, k), k))
        .min_by_key(|(edits, _)| *edits)
        .filter(|(edits, _)| *edits <= word.len().div_ceil(3))
        .map_or(String::new(), |(_, k)| format!("; did you mean `{k}`?"))
}

/// Dotted names of all settings of a table.
fn dotted_names(table: &Table) -> Vec<String> {
    let names = table.iter().flat_map(|(key, value)| match value {
        Value::Table(inner) => {
            dotted_names(inner).iter().map(|name| format!("{key}.{name}")).collect()
        }
        _ => vec![key.clone()],
    });
    names.collect()
}

/// The setting of a dotted name.
pub(crate) fn get_dotted<'t>(table: &'t Table, name: &str) -> Option<&'t Value> {
    match name.split_once('.') {
        Some((first, rest)) => get_dotted(table.get(first)?.as_table()?, rest),
        None => table.get(name),
    }
}

/// Sets the setting of a dotted name.
pub(crate) fn set_dotted(table: &mut Table, name: &str, value: Value) {
    match name.split_once('.') {
        Some((first, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(first) {
                set_dotted(inner, rest, value);
            }
        }
        None => {
            table.insert(name.to_owned(), value);
        }
    }
}

/// Removes the setting of a dotted name.
pub(crate) fn remove_dotted(table: &mut Table, name: &str) {
    match name.split_once('.') {
        Some((first, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(first) {
                remove_dotted(inner, rest);
            }
        }
        None => {
            table.remove(name);
        }
    }
}

/// A parsed value without its spans; `None` if a number does not fit its type.
fn without_spans(value: DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(s) => Value::String(s.into_owned()),
        DeValue::Integer(i) => Value::Integer(i64::from_str_radix(i.as_str(), i.radix()).ok()?),
        DeValue::Float(f) => Value::Float(f.as_str().parse().ok()?),
        DeValue::Boolean(b) => Value::Boolean(b),
        DeValue::Datetime(d) => Value::Datetime(d),
        DeValue::Array(a) => Value::Array(
            a.into_iter().map(|v| without_spans(v.into_inner())).collect::<Option<Vec<_>>>()?,
        ),
        DeValue::Table(t) => {
            let entries = t
                .into_iter()
                .map(|(k, v)| Some((k.get_ref().to_string(), without_spans(v.into_inner())?)));
            Value::Table(entries.collect::<Option<Table>>()?)
        }
    })
}
