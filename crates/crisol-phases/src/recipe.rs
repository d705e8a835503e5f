//! Recipes: short TOML files that say what a run does.
//!
//! A recipe is laid over the defaults of [`crate::settings`]; what it does not name keeps its default. Keys
//! that do not exist and values of the wrong type are errors with their line and the nearest right key.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::settings::{ModelSettings, PhaseSettings};

/// What a run does.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Everything but the phases.
    pub run: RunSettings,
    /// The phases, in order.
    pub phases: Vec<Phase>,
}

/// The part of a recipe that holds for all phases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSettings {
    /// Title of the report.
    pub title: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Where data files are looked up: `world` (embedded) or a folder.
    pub data: String,
    /// Checkpoint folder that the first phase starts from; empty = train a new model.
    pub base: String,
    /// Tokens per shard: a step's batch is cut into pieces of about this size, which are what
    /// runs in parallel. Part of the recipe because it decides the order of sums.
    pub shard_tokens: usize,
    /// Least seconds between checkpoints of a running phase. Where they take long, more pass: see `context.rs`.
    pub checkpoint_seconds: u64,
    /// Which held-out files measure what the model does after each phase, where the data has them: those of the
    /// `test` split, or of `dev` while settings are being chosen; `none` measures nothing.
    pub evaluate: Split,
    /// Also write TensorBoard event files.
    pub tensorboard: bool,
    /// Shape of a new model.
    pub model: ModelSettings,
}

impl Default for RunSettings {
    fn default() -> Self {
        RunSettings {
            title: "From raw text to an aligned model".into(),
            seed: 1,
            data: "world".into(),
            base: String::new(),
            shard_tokens: 512,
            checkpoint_seconds: 30,
            evaluate: Split::Test,
            tensorboard: false,
            model: ModelSettings::default(),
        }
    }
}

/// A split of the held-out files, as in their names (`facts.test.jsonl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For choosing settings.
    Dev,
    /// For reporting.
    Test,
    /// No measurement.
    None,
}

impl Split {
    /// The file that holds a measure's prompts, if there is to be one: `harmful` → `harmful.test.jsonl`.
    pub(crate) fn file(self, measure: &str) -> Option<String> {
        self.name().map(|split| format!("{measure}.{split}.jsonl"))
    }

    /// The files that a phase's `heldout` names, in which `{split}` stands for this split. Where nothing is measured, a name
    /// with it stands for no file.
    pub(crate) fn files(self, names: &[String]) -> Vec<String> {
        let named = |name: &String| match self.name() {
            Some(split) => Some(name.replace("{split}", split)),
            None => Some(name.clone()).filter(|name| !name.contains("{split}")),
        };
        names.iter().filter_map(named).collect()
    }

    fn name(self) -> Option<&'static str> {
        match self {
            Split::Dev => Some("dev"),
            Split::Test => Some("test"),
            Split::None => None,
        }
    }
}

/// One phase of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Name, also of its folder (`2-sft` is the folder of the second phase, `sft`).
    pub name: String,
    /// The phase it starts from; empty = the base model.
    pub from: String,
    /// What it does.
    pub settings: PhaseSettings,
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file could not be read.
    #[error("cannot read the recipe {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{file} is not valid TOML: {message}")]
    Syntax {
        /// The file.
        file: String,
        /// The parser's words, with the place.
        message: String,
    },
    /// A key or a value is wrong.
    #[error("{file}, line {line}: {message}")]
    Entry {
        /// The file.
        file: String,
        /// Line number, from 1.
        line: usize,
        /// Cause and remedy.
        message: String,
    },
    /// The recipe as a whole does not make sense.
    #[error("{file}: {message}")]
    Whole {
        /// The file.
        file: String,
        /// Cause and remedy.
        message: String,
    },
}

impl Recipe {
    /// The embedded run: pretrain → sft → reason → {refuse, reward → ppo, dpo}.
    pub fn embedded() -> Recipe {
        const EMBEDDED: &str = include_str!("embedded.toml");
        // A test parses it, so this cannot fail at run time.
        Recipe::parse("embedded.toml", EMBEDDED).unwrap_or_else(|e| unreachable!("{e}"))
    }

    /// Reads a recipe file.
    pub fn load(path: &Path) -> Result<Recipe, RecipeError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| RecipeError::Read { path: path.display().to_string(), source })?;
        Recipe::parse(&path.display().to_string(), &text)
    }

    /// Parses a recipe; `file` is its name for messages.
    pub fn parse(file: &str, text: &str) -> Result<Recipe, RecipeError> {
        let document = DeTable::parse(text)
            .map_err(|e| RecipeError::Syntax { file: file.into(), message: e.to_string() })?;
        let reader = Reader { file, text };
        let mut run = DeTable::new();
        let mut phases = Vec::new();
        for (key, value) in document.into_inner() {
            if key.get_ref() == "phases" {
                let at = value.span().start;
                let DeValue::Array(list) = value.into_inner() else {
                    return Err(reader.entry(at, "`phases` is a list: write each phase as [[phases]]".into()));
                };
                for phase in list {
                    phases.push(reader.phase(phase, phases.last().map(|p: &Phase| p.name.as_str()))?);
                }
            } else {
                run.insert(key, value);
            }
        }
        let run: RunSettings = reader.overlay(&RunSettings::default(), run, "", &["phases"])?;
        let recipe = Recipe { run, phases };
        recipe.check().map_err(|message| RecipeError::Whole { file: file.into(), message })?;
        Ok(recipe)
    }

    /// The recipe as TOML with every default written out. Parsing it gives the same recipe.
    pub fn to_toml(&self) -> String {
        let mut out = String::from("# Every setting of this run, defaults included.\n");
        out += &to_toml_string(&self.run);
        for phase in &self.phases {
            let mut table = Table::new();
            table.insert("kind".into(), phase.settings.kind().into());
            table.insert("name".into(), phase.name.clone().into());
            table.insert("from".into(), phase.from.clone().into());
            table.extend(settings_table(&phase.settings));
            // Sub-tables of a phase must be headed [phases.x]; nesting does that for us.
            let nested = Table::from_iter([("phases".to_owned(), Value::Array(vec![Value::Table(table)]))]);
            let _ = write!(out, "\n{}", to_toml_string(&nested));
        }
        out
    }

    /// Folder name of a phase: its position and its name. Branches of one parent share a number.
    pub fn folder(&self, name: &str) -> String {
        format!("{}-{name}", self.depth(name))
    }

    /// How many phases lie on the way from the base to this one, itself included. A phase that needs a reward
    /// model comes after it.
    fn depth(&self, name: &str) -> usize {
        let mut depths = BTreeMap::new();
        // What a phase starts from comes before it.
        for phase in &self.phases {
            let of = |name: &str| depths.get(name).copied().unwrap_or(0);
            let judge = match &phase.settings {
                PhaseSettings::Ppo(ppo) => of(&ppo.reward_model),
                _ => 0,
            };
            depths.insert(phase.name.as_str(), 1 + of(&phase.from).max(judge));
        }
        depths.get(name).copied().unwrap_or(0)
    }

    fn check(&self) -> Result<(), String> {
        if self.phases.is_empty() {
            return Err("a recipe needs at least one phase: add [[phases]] with kind = \"pretrain\"".into());
        }
        let run = &self.run;
        check_numbers("", &table_of(run))?;
        if run.shard_tokens == 0 {
            return Err("shard_tokens must be at least 1".into());
        }
        let model = &run.model;
        if model.heads == 0
            || !model.hidden_size.is_multiple_of(model.heads)
            || !(model.hidden_size / model.heads).is_multiple_of(2)
        {
            return Err(format!(
                "model.hidden_size ({}) must be a multiple of 2 × model.heads ({})",
                model.hidden_size, model.heads
            ));
        }
        if model.kv_heads == 0 || !model.heads.is_multiple_of(model.kv_heads) {
            return Err(format!(
                "model.kv_heads ({}) must divide model.heads ({})",
                model.kv_heads, model.heads
            ));
        }
        for (i, phase) in self.phases.iter().enumerate() {
            let at = |message: String| format!("phase {} ({}): {message}", i + 1, phase.name);
            let valid = !phase.name.is_empty()
                && phase.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
            if !valid {
                return Err(at(format!(
                    "the name {:?} is also a folder name: use letters, digits, - and _",
                    phase.name
                )));
            }
            if self.phases[..i].iter().any(|p| p.name == phase.name) {
                return Err(at("another phase has this name: give one of them `name = \"…\"`".into()));
            }
            let known = |name: &str| self.phases[..i].iter().any(|p| p.name == name);
            if !phase.from.is_empty() && !known(&phase.from) {
                return Err(at(format!("`from = {:?}` names no earlier phase{}", phase.from, {
                    nearest(&phase.from, self.phases[..i].iter().map(|p| p.name.as_str()))
                })));
            }
            if phase.from.is_empty() && run.base.is_empty() && phase.settings.kind() != "pretrain" {
                return Err(at(format!(
                    "{} needs a model to start from: put a pretrain phase before it or set `base` to a checkpoint folder",
                    phase.settings.kind()
                )));
            }
            if let PhaseSettings::Ppo(ppo) = &phase.settings {
                let judge = &ppo.reward_model;
                let usable = match self.phases.iter().position(|p| p.name == *judge) {
                    Some(at) => at < i && self.phases[at].settings.kind() == "reward",
                    None => Path::new(judge).join("config.json").is_file(),
                };
                if !usable {
                    return Err(at(format!(
                        "`reward_model = {judge:?}` is neither an earlier phase of kind reward nor a checkpoint folder"
                    )));
                }
            }
            check_settings(&phase.settings).map_err(at)?;
        }
        Ok(())
    }
}

/// Checks of ranges that types do not express.
fn check_settings(settings: &PhaseSettings) -> Result<(), String> {
    let table = settings_table(settings);
    check_numbers("", &table)?;
    if let PhaseSettings::Reason(reason) = settings
        && reason.rollout.group_size < 2
    {
        return Err(
            "rollout.group_size must be at least 2: an advantage is a comparison within the group".into()
        );
    }
    Ok(())
}

/// Counts and rates must be positive; everything must be finite.
fn check_numbers(prefix: &str, table: &Table) -> Result<(), String> {
    const POSITIVE: [&str; 15] = [
        "lr",
        "epochs",
        "batch_tokens",
        "batch_pairs",
        "steps",
        "prompts",
        "group_size",
        "max_new_tokens",
        "temperature",
        "minibatches",
        "beta",
        "clip",
        "clip_low",
        "clip_high",
        "eps",
    ];
    for (key, value) in table {
        let name = format!("{prefix}{key}");
        let number = match value {
            Value::Table(inner) => {
                check_numbers(&format!("{name}."), inner)?;
                continue;
            }
            Value::Integer(i) => *i as f64,
            Value::Float(f) => *f,
            _ => continue,
        };
        if !number.is_finite() || (POSITIVE.contains(&key.as_str()) && number <= 0.0) {
            return Err(format!("{name} = {number} makes no sense: it must be a positive number"));
        }
        if number < 0.0 {
            return Err(format!("{name} = {number} makes no sense: it must not be negative"));
        }
        if key == "label_smoothing" && number >= 0.5 {
            return Err(format!(
                "{name} = {number} makes no sense: at 0.5 the votes say nothing, above it the opposite"
            ));
        }
        let share = ["warmup", "decay", "beta1", "beta2", "gamma", "lambda", "label_smoothing"];
        if share.contains(&key.as_str()) && number > 1.0 {
            return Err(format!("{name} = {number} makes no sense: it is a share between 0 and 1"));
        }
    }
    Ok(())
}

/// A phase's settings as a recipe has them.
pub(crate) fn settings_table(settings: &PhaseSettings) -> Table {
    match settings {
        PhaseSettings::Pretrain(s) => table_of(s),
        PhaseSettings::Sft(s) => table_of(s),
        PhaseSettings::Reason(s) => table_of(s),
        PhaseSettings::Reward(s) => table_of(s),
        PhaseSettings::Ppo(s) => table_of(s),
        PhaseSettings::Dpo(s) => table_of(s),
    }
}

/// Settings as a recipe has them.
pub(crate) fn table_of(value: &impl Serialize) -> Table {
    Table::try_from(value)
        .unwrap_or_else(|e| unreachable!("settings are plain numbers, strings and tables: {e}"))
}

fn to_toml_string(value: &impl Serialize) -> String {
    toml::to_string(value)
        .unwrap_or_else(|e| unreachable!("settings are plain numbers, strings and tables: {e}"))
}

/// `; did you mean …?`, or nothing where nothing is near: at most one slip in three letters.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|k| (strsim::damerau_levenshtein(word, k), k))
        .min_by_key(|(slips, _)| *slips)
        .filter(|(slips, _)| *slips <= word.len().div_ceil(3))
        .map_or(String::new(), |(_, k)| format!("; did you mean `{k}`?"))
}

struct Reader<'t> {
    file: &'t str,
    text: &'t str,
}

impl Reader<'_> {
    fn entry(&self, at: usize, message: String) -> RecipeError {
        let line = 1 + self.text[..at.min(self.text.len())].matches('\n').count();
        RecipeError::Entry { file: self.file.into(), line, message }
    }

    fn phase(&self, value: toml::Spanned<DeValue<'_>>, previous: Option<&str>) -> Result<Phase, RecipeError> {
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
            self.entry(at, format!("there is no phase kind {kind:?}{hint} (kinds: {})", kinds.join(", ")))
        })?;
        let also = ["kind", "name", "from"];
        let settings = match default {
            PhaseSettings::Pretrain(d) => PhaseSettings::Pretrain(self.overlay(&d, table, "", &also)?),
            PhaseSettings::Sft(d) => PhaseSettings::Sft(self.overlay(&d, table, "", &also)?),
            PhaseSettings::Reason(d) => PhaseSettings::Reason(self.overlay(&d, table, "", &also)?),
            PhaseSettings::Reward(d) => PhaseSettings::Reward(self.overlay(&d, table, "", &also)?),
            PhaseSettings::Ppo(d) => PhaseSettings::Ppo(self.overlay(&d, table, "", &also)?),
            PhaseSettings::Dpo(d) => PhaseSettings::Dpo(self.overlay(&d, table, "", &also)?),
        };
        Ok(Phase {
            name: name.map_or(kind, |(_, n)| n),
            from: from.map_or(previous.unwrap_or_default().to_owned(), |(_, f)| f),
            settings,
        })
    }

    /// Lays `given` over `default`. Keys must exist in the default (or in `also`, which only helps suggestions),
    /// and values must have its type.
    fn overlay<T: Serialize + DeserializeOwned>(
        &self,
        default: &T,
        given: DeTable<'_>,
        prefix: &str,
        also: &[&str],
    ) -> Result<T, RecipeError> {
        let start = given.iter().map(|(key, _)| key.span().start).min().unwrap_or(0);
        let mut table = table_of(default);
        let mut places = Vec::new();
        self.merge(&mut table, given, prefix, also, &mut places)?;
        // What is left for serde to find are words that are not among an option's values.
        T::deserialize(Value::Table(table)).map_err(|e| {
            let message = e.message().to_owned();
            let at = places
                .iter()
                .find(|(word, _)| {
                    message.contains(&format!("\"{word}\"")) || message.contains(&format!("`{word}`"))
                })
                .map_or(start, |(_, at)| *at);
            self.entry(at, message)
        })
    }

    fn merge(
        &self,
        base: &mut Table,
        given: DeTable<'_>,
        prefix: &str,
        also: &[&str],
        places: &mut Vec<(String, usize)>,
    ) -> Result<(), RecipeError> {
        for (key, value) in given {
            let at = key.span().start;
            let key = key.get_ref().to_string();
            let Some(slot) = base.get_mut(&key) else {
                let list: Vec<&str> = base.keys().map(String::as_str).chain(also.iter().copied()).collect();
                let hint = nearest(&key, list.iter().copied());
                return Err(self.entry(
                    at,
                    format!("there is no setting `{prefix}{key}`{hint} (settings here: {})", list.join(", ")),
                ));
            };
            match (slot, value.into_inner()) {
                (Value::Table(inner), DeValue::Table(table)) => {
                    self.merge(inner, table, &format!("{prefix}{key}."), &[], places)?;
                }
                (slot, value) => {
                    let wanted = slot.type_str();
                    let value = plain(value).ok_or_else(|| {
                        self.entry(at, format!("`{prefix}{key}` is not a number that fits"))
                    })?;
                    if let Value::String(word) = &value {
                        places.push((word.clone(), at));
                    }
                    *slot = match (&*slot, value) {
                        // A whole number is fine where a number is wanted, one file where a list is.
                        (Value::Float(_), Value::Integer(i)) => Value::Float(i as f64),
                        (Value::Array(_), Value::String(s)) => Value::Array(vec![s.into()]),
                        (slot, value) if slot.same_type(&value) => value,
                        (_, value) => {
                            let given = value.type_str();
                            return Err(self.entry(
                                at,
                                format!("`{prefix}{key}` must be of type {wanted}, not {given}"),
                            ));
                        }
                    };
                }
            }
        }
        Ok(())
    }
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
            let entries = t.into_iter().map(|(k, v)| Some((k.get_ref().to_string(), plain(v.into_inner())?)));
            Value::Table(entries.collect::<Option<Table>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Recipe::parse("r.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn the_embedded_recipe_runs_every_phase_and_survives_being_written_out() {
        let recipe = Recipe::embedded();
        let folders: Vec<String> = recipe.phases.iter().map(|p| recipe.folder(&p.name)).collect();
        assert_eq!(folders, ["1-pretrain", "2-sft", "3-reason", "4-refuse", "4-reward", "5-ppo", "4-dpo"]);
        assert_eq!(Recipe::parse("again.toml", &recipe.to_toml()).unwrap(), recipe);
    }

    #[test]
    fn unknown_keys_name_their_line_and_the_nearest_right_one() {
        let message = error("seed = 3\n[[phases]]\nkind = \"pretrain\"\nepoch = 2\n");
        assert!(message.contains("line 4") && message.contains("did you mean `epochs`?"), "{message}");
        let message = error("[[phases]]\nkind = \"pretrain\"\n[phases.optimizer]\nleraning = 1\nlr = 0.1\n");
        assert!(message.contains("line 4") && message.contains("optimizer.leraning"), "{message}");
        let message = error("sed = 3\n[[phases]]\nkind = \"pretrain\"\n");
        assert!(message.contains("line 1") && message.contains("did you mean `seed`?"), "{message}");
    }

    #[test]
    fn held_out_files_follow_the_split_that_is_measured() {
        let names = ["votes.{split}.jsonl".to_owned(), "more.jsonl".to_owned()];
        assert_eq!(Split::Dev.files(&names), ["votes.dev.jsonl", "more.jsonl"]);
        assert_eq!(Split::Test.files(&names), ["votes.test.jsonl", "more.jsonl"]);
        assert_eq!(Split::None.files(&names), ["more.jsonl"]);
        let embedded = Recipe::embedded();
        let votes = embedded.phases.iter().filter_map(|phase| match &phase.settings {
            PhaseSettings::Reward(settings) => Some(&settings.heldout[..]),
            PhaseSettings::Dpo(settings) => Some(&settings.heldout[..]),
            _ => None,
        });
        assert_eq!(votes.collect::<Vec<_>>(), [&names[..1]; 2], "of the reward model and of DPO");
    }

    #[test]
    fn wrong_types_kinds_words_and_ranges_are_named() {
        assert!(error("[[phases]]\nkind = \"pretrian\"\n").contains("did you mean `pretrain`?"));
        assert!(error("[[phases]]\nkind = \"stf\"\n").contains("did you mean `sft`?"));
        let message = error("[[phases]]\nkind = \"pretrain\"\n[[phases]]\nkind = \"dpo\"\nbtea = 1\n");
        assert!(message.contains("did you mean `beta`?"), "{message}");
        let message = error("[[phases]]\nkind = \"pretrain\"\nepochs = \"two\"\n");
        assert!(message.contains("line 3") && message.contains("float"), "{message}");
        let message =
            error("[[phases]]\nkind = \"pretrain\"\n[[phases]]\nkind = \"dpo\"\nloss = \"sigmod\"\n");
        assert!(message.contains("line 5") && message.contains("sigmoid"), "{message}");
        let message = error("[[phases]]\nkind = \"pretrain\"\nepochs = -1\n");
        assert!(message.contains("epochs"), "{message}");
        let message = error("[[phases]]\nkind = \"pretrain\"\n[[phases]]\nkind = \"ppo\"\n");
        assert!(message.contains("neither an earlier phase of kind reward"), "{message}");
        assert!(error("[[phases]]\nkind = \"sft\"\n").contains("needs a model to start from"));
        let message = error("[model]\nrope_theta = nan\n[[phases]]\nkind = \"pretrain\"\n");
        assert!(message.contains("model.rope_theta"), "{message}");
        assert!(error("").contains("at least one phase"));
        assert!(error("seed = [").contains("TOML"));
    }

    #[test]
    fn many_phases_that_start_from_two_others_get_their_folders_at_once() {
        let mut text = String::from("[[phases]]\nkind = \"pretrain\"\nname = \"p0\"\n");
        for i in 1..=40 {
            let before = i - 1;
            let _ = write!(text, "[[phases]]\nkind = \"reward\"\nname = \"r{i}\"\nfrom = \"p{before}\"\n");
            let _ = write!(
                text,
                "[[phases]]\nkind = \"ppo\"\nname = \"p{i}\"\nfrom = \"p{before}\"\nreward_model = \"r{i}\"\n"
            );
        }
        let recipe = Recipe::parse("r.toml", &text).unwrap();
        assert_eq!((recipe.folder("r40"), recipe.folder("p40")), ("80-r40".to_owned(), "81-p40".to_owned()));
    }

    #[test]
    fn whole_numbers_serve_as_floats_and_single_files_as_lists() {
        let recipe =
            Recipe::parse("r.toml", "[[phases]]\nkind = \"pretrain\"\nepochs = 3\ndata = \"a.jsonl\"\n")
                .unwrap();
        let PhaseSettings::Pretrain(settings) = &recipe.phases[0].settings else { panic!("kind") };
        assert_eq!((settings.epochs, settings.data.as_slice()), (3.0, &["a.jsonl".to_owned()][..]));
    }
}
