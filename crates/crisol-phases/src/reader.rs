//! Reading a recipe's tables: what is given is laid over the defaults, each key and value checked where it stands.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::defaults;
use crate::ranges::{self, Allowed, Ranges};
use crate::recipe::{Phase, RecipeError, table_of};
use crate::settings::PhaseSettings;

/// `; did you mean …?`, or nothing where nothing is near: at most one slip in three letters.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|k| (strsim::damerau_levenshtein(word, k), k))
        .min_by_key(|(slips, _)| *slips)
        .filter(|(slips, _)| *slips <= word.len().div_ceil(3))
        .map_or(String::new(), |(_, k)| format!("; did you mean `{k}`?"))
}

/// Reads one recipe.
pub(crate) struct Reader<'t> {
    pub(crate) file: &'t str,
    pub(crate) text: &'t str,
}

/// What was given: the name, value and place of each setting.
type Given = Vec<(String, Value, usize)>;

impl Reader<'_> {
    pub(crate) fn entry(&self, at: usize, message: String) -> RecipeError {
        let line = 1 + self.text[..at.min(self.text.len())].matches('\n').count();
        RecipeError::Entry { file: self.file.into(), line, message }
    }

    pub(crate) fn phase(
        &self,
        value: toml::Spanned<DeValue<'_>>,
        previous: Option<&str>,
    ) -> Result<Phase, RecipeError> {
        let start = value.span().start;
        let DeValue::Table(mut table) = value.into_inner() else {
            return Err(self.entry(start, "each phase is a table: write it as [[phases]]".into()));
        };
        let mut take = |key: &str| -> Result<Option<(usize, String)>, RecipeError> {
            let Some(value) = table.remove(key) else { return Ok(None) };
            let at = value.span().start;
            match value.into_inner() {
                DeValue::String(s) => Ok(Some((at, s.into_owned()))),
                _ => Err(self.entry(at, format!("`{key}` must be a string"))),
            }
        };
        let name = take("name")?;
        let from = take("from")?;
        let (at, kind) = take("kind")?.ok_or_else(|| {
            let kinds = PhaseSettings::KINDS.join(", ");
            self.entry(start, format!("a phase needs `kind`, one of: {kinds}"))
        })?;
        let default = PhaseSettings::default_of(&kind).ok_or_else(|| {
            let kinds = PhaseSettings::KINDS;
            let hint = nearest(&kind, kinds.into_iter());
            self.entry(
                at,
                format!("there is no phase kind {kind:?}{hint} (kinds: {})", kinds.join(", ")),
            )
        })?;
        let also = ["kind", "name", "from"];
        let ranges = ranges::of_kind(&kind);
        let mut names = BTreeSet::new();
        let settings = match default {
            PhaseSettings::Pretrain(d) => {
                PhaseSettings::Pretrain(self.overlay(&d, table, &also, ranges, &mut names)?)
            }
            PhaseSettings::Sft(d) => {
                PhaseSettings::Sft(self.overlay(&d, table, &also, ranges, &mut names)?)
            }
            PhaseSettings::Reason(d) => {
                PhaseSettings::Reason(self.overlay(&d, table, &also, ranges, &mut names)?)
            }
            PhaseSettings::Reward(d) => {
                PhaseSettings::Reward(self.overlay(&d, table, &also, ranges, &mut names)?)
            }
            PhaseSettings::Ppo(d) => {
                PhaseSettings::Ppo(self.overlay(&d, table, &also, ranges, &mut names)?)
            }
            PhaseSettings::Dpo(d) => {
                PhaseSettings::Dpo(self.overlay(&d, table, &also, ranges, &mut names)?)
            }
        };
        Ok(Phase {
            left_out: defaults::by_size(&kind).filter(|name| !names.contains(*name)).collect(),
            name: name.map_or(kind, |(_, n)| n),
            from: from.map_or(previous.unwrap_or_default().to_owned(), |(_, f)| f),
            settings,
        })
    }

    /// Lays `given` over `default`, and adds the names of what is given to `names`. Keys must exist in the default (or in
    /// `also`, which only helps suggestions); values must have its type and be in their range.
    pub(crate) fn overlay<T: Serialize + DeserializeOwned>(
        &self,
        default: &T,
        given: DeTable<'_>,
        also: &[&str],
        ranges: Ranges,
        names: &mut BTreeSet<String>,
    ) -> Result<T, RecipeError> {
        let start = given.iter().map(|(key, _)| key.span().start).min().unwrap_or(0);
        let mut table = table_of(default);
        let everything = flat_names(&table);
        let mut found = Given::default();
        self.merge(&mut table, given, "", also, ranges, &everything, &mut found)?;
        names.extend(found.iter().map(|(name, ..)| name.clone()));
        // What is left for serde to find are words that are not among an option's values, and lists of other things.
        T::deserialize(Value::Table(table)).map_err(|e| {
            let wrong = |(name, value, _): &&(String, Value, usize)| {
                let mut alone = table_of(default);
                put(&mut alone, name, value.clone());
                T::deserialize(Value::Table(alone)).is_err()
            };
            match found.iter().find(wrong) {
                Some((name, _, at)) => self.entry(*at, format!("`{name}`: {}", e.message())),
                None => self.entry(start, e.message().to_owned()),
            }
        })
    }

    fn merge(
        &self,
        base: &mut Table,
        given: DeTable<'_>,
        prefix: &str,
        also: &[&str],
        ranges: Ranges,
        everything: &[String],
        found: &mut Given,
    ) -> Result<(), RecipeError> {
        for (key, value) in given {
            let at = key.span().start;
            let key = key.get_ref().to_string();
            let name = format!("{prefix}{key}");
            let Some(slot) = base.get_mut(&key) else {
                let list: Vec<&str> =
                    base.keys().map(String::as_str).chain(also.iter().copied()).collect();
                let hint = elsewhere(&key, everything)
                    .unwrap_or_else(|| nearest(&key, list.iter().copied()));
                return Err(self.entry(
                    at,
                    format!(
                        "there is no setting `{name}`{hint} (settings here: {})",
                        list.join(", ")
                    ),
                ));
            };
            let allowed = ranges::allowed(ranges, &key);
            match (slot, value.into_inner()) {
                (Value::Table(inner), DeValue::Table(table))
                    if matches!(allowed, Some(Allowed::Free)) =>
                {
                    let Some(Value::Table(free)) = plain(DeValue::Table(table)) else {
                        return Err(
                            self.entry(at, format!("`{name}` holds a number that does not fit"))
                        );
                    };
                    *inner = free;
                    found.push((name, Value::Table(inner.clone()), at));
                }
                (Value::Table(inner), DeValue::Table(table)) => {
                    let ranges =
                        if let Some(Allowed::Table(ranges)) = allowed { ranges } else { &[] };
                    self.merge(inner, table, &format!("{name}."), &[], ranges, everything, found)?;
                }
                (slot, value) => {
                    let wanted = slot.type_str();
                    let value = plain(value).ok_or_else(|| {
                        self.entry(at, format!("`{name}` is not a number that fits"))
                    })?;
                    *slot = match (&*slot, value) {
                        // A whole number is fine where a number is wanted, one file where a list is.
                        (Value::Float(_), Value::Integer(i)) => Value::Float(i as f64),
                        (Value::Array(_), Value::String(s)) => Value::Array(vec![s.into()]),
                        (slot, value) if slot.same_type(&value) => value,
                        (_, value) => {
                            let given = value.type_str();
                            let range = match allowed {
                                Some(Allowed::Number(range)) => format!(": {range}"),
                                _ => String::new(),
                            };
                            return Err(self.entry(
                                at,
                                format!("`{name}` must be of type {wanted}, not {given}{range}"),
                            ));
                        }
                    };
                    if let Some(wrong) = allowed.and_then(|allowed| outside(slot, allowed)) {
                        return Err(self.entry(at, format!("`{name}` {wrong}")));
                    }
                    found.push((name, slot.clone(), at));
                }
            }
        }
        Ok(())
    }
}

/// What is wrong with a value that is not what it may be.
fn outside(value: &Value, allowed: Allowed) -> Option<String> {
    let number = match (value, allowed) {
        (Value::Array(files), Allowed::Files) => {
            let named = |file: &Value| file.as_str().is_none_or(|name| !name.is_empty());
            let some = !files.is_empty() && files.iter().all(named);
            return (!some)
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

/// Sets what a dotted name stands for.
pub(crate) fn put(table: &mut Table, name: &str, value: Value) {
    match name.split_once('.') {
        Some((first, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(first) {
                put(inner, rest, value);
            }
        }
        None => {
            table.insert(name.to_owned(), value);
        }
    }
}

/// Dotted names of all settings of a table.
fn flat_names(table: &Table) -> Vec<String> {
    let names = table.iter().flat_map(|(key, value)| match value {
        Value::Table(inner) => {
            flat_names(inner).iter().map(|name| format!("{key}.{name}")).collect()
        }
        _ => vec![key.clone()],
    });
    names.collect()
}

/// `; did you mean …?` for a setting of this name in another table: `lr` is `optimizer.lr`.
fn elsewhere(key: &str, everything: &[String]) -> Option<String> {
    let named = everything.iter().filter(|name| name.rsplit('.').next() == Some(key));
    named.min_by_key(|name| name.len()).map(|name| format!("; did you mean `{name}`?"))
}

/// A parsed value without its spans; `None` for numbers out of range.
fn plain(value: DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(s) => Value::String(s.into_owned()),
        DeValue::Integer(i) => Value::Integer(i64::from_str_radix(i.as_str(), i.radix()).ok()?),
        DeValue::Float(f) => Value::Float(f.as_str().parse().ok()?),
        DeValue::Boolean(b) => Value::Boolean(b),
        DeValue::Datetime(d) => Value::Datetime(d),
        DeValue::Array(a) => {
            Value::Array(a.into_iter().map(|v| plain(v.into_inner())).collect::<Option<Vec<_>>>()?)
        }
        DeValue::Table(t) => {
            let entries =
                t.into_iter().map(|(k, v)| Some((k.get_ref().to_string(), plain(v.into_inner())?)));
            Value::Table(entries.collect::<Option<Table>>()?)
        }
    })
}
