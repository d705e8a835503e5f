//! Recipes: short TOML files that describe a run.
//!
//! | step | file | what it does |
//! |---|---|---|
//! | 1 | `recipe.rs` | parses the TOML ([`Recipe::parse`]) |
//! | 2 | `reader.rs` | overlays the given settings on the defaults; checks keys and types |
//! | | `ranges.rs` | says which values a setting may have, for step 2 |
//! | 3 | `recipe.rs` | checks the model's shape and the phases together |
//! | 4 | `defaults.rs` | fills in what depends on model size and data ([`Recipe::resolve`]) |
//!
//! The settings themselves, with meaning and constant defaults, are in `settings.rs`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crisol_engine::Precision;
use crisol_text::DatasetFiles;
use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::data::DataSource;
use crate::ranges;
use crate::reader::{Reader, nearest, remove_dotted};
use crate::settings::{
    AdapterSettings, ModelSettings, PhaseSettings, PpoSettings, PrecisionName, TextSettings,
};

/// A run: its settings and its phases.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Everything but the phases.
    pub run: RunSettings,
    /// The phases, in order.
    pub phases: Vec<Phase>,
}

/// Settings of all phases.
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
    /// Tokens per shard. The shards of a batch run in parallel. It is a setting because it decides
    /// the order of sums.
    pub shard_tokens: usize,
    /// Activations that backward computes again instead of keeping them: `none`, or `block`, the
    /// inside of every block. Less memory, more time, the same bits.
    pub recompute: Recompute,
    /// In what precision matrices are multiplied, in every phase: `f32` or `bf16`.
    #[serde(with = "PrecisionName")]
    pub precision: Precision,
    /// Minimum seconds between saves of a running phase. Slow saves are made less often.
    pub checkpoint_seconds: u64,
    /// Split of the held-out files that each phase is evaluated on: `test`, `dev` (for choosing
    /// settings) or `none`.
    pub evaluate: Split,
    /// Also write TensorBoard event files.
    pub tensorboard: bool,
    /// How records are read and become tokens.
    pub text: TextSettings,
    /// An adapter that is trained in place of a base's weights.
    pub adapter: AdapterSettings,
    /// Shape of a new model.
    pub model: ModelSettings,
    /// Files of the data sets that phases name (`hf://…`), found before the run. Not written to
    /// TOML.
    #[serde(skip)]
    pub datasets: BTreeMap<String, DatasetFiles>,
}

impl Default for RunSettings {
    fn default() -> Self {
        RunSettings {
            title: "From raw text to an aligned model".into(),
            seed: 1,
            data: "world".into(),
            base: String::new(),
            shard_tokens: 512,
            recompute: Recompute::None,
            precision: Precision::F32,
            checkpoint_seconds: 30,
            evaluate: Split::Test,
            tensorboard: false,
            text: TextSettings::default(),
            adapter: AdapterSettings::default(),
            model: ModelSettings::default(),
            datasets: BTreeMap::new(),
        }
    }
}

impl RunSettings {
    /// The source of the data files.
    pub(crate) fn data_source(&self) -> DataSource {
        DataSource::open(&self.data).with_options(self.text.read_options(&self.datasets))
    }
}

/// Activations that backward computes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// None: all are kept.
    None,
    /// Those inside every block: only its input is kept.
    Block,
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
    /// The file of a measure's prompts: `harmful` → `harmful.test.jsonl`. `None` for
    /// [`Split::None`].
    pub(crate) fn file(self, measure: &str) -> Option<String> {
        self.name().map(|split| format!("{measure}.{split}.jsonl"))
    }

    /// The files of a phase's `heldout`, with `{split}` replaced by the name of this split.
    /// [`Split::None`] leaves out the names that contain `{split}`.
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
    /// Name. Its folder is called after its depth and its name: `2-sft` ([`Recipe::folder`]).
    pub name: String,
    /// The phase it starts from; empty = the base model.
    pub from: String,
    /// Its kind and settings.
    pub settings: PhaseSettings,
    /// Dotted names of settings that the recipe leaves to size-dependent defaults. Empty after
    /// [`Recipe::resolve`].
    pub(crate) unresolved: Vec<&'static str>,
}

/// Maximum answers of a rollout step.
const MAX_ANSWERS: usize = 1_048_576;

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
        let document = DeTable::parse(text).map_err(|e| syntax_error(file, text, &e))?;
        let reader = Reader { file, text };
        let mut run = DeTable::new();
        let mut phases = Vec::new();
        for (key, value) in document.into_inner() {
            if key.get_ref() == "phases" {
                let at = value.span().start;
                let DeValue::Array(list) = value.into_inner() else {
                    return Err(reader.error_at(
                        at,
                        "`phases` is a list: write each phase as [[phases]]".into(),
                    ));
                };
                for phase in list {
                    let previous = phases.last().map(|phase: &Phase| phase.name.as_str());
                    phases.push(reader.phase(phase, previous)?);
                }
            } else {
                run.insert(key, value);
            }
        }
        // The first key under [model]; a run with a base may have none.
        let shape_setting = run.get("model").and_then(|model| {
            let (key, _) = model.get_ref().as_table()?.iter().next()?;
            Some((key.span().start, key.get_ref().to_string()))
        });
        let default = RunSettings::default();
        let (run, _) = reader.overlay(&default, run, &["phases"], ranges::RUN)?;
        if !run.base.is_empty()
            && let Some((at, key)) = shape_setting
        {
            return Err(reader.error_at(
                at,
                format!(
                    "`model.{key}` shapes a new model, but this run starts from {}: leave it out",
                    run.base
                ),
            ));
        }
        let recipe = Recipe { run, phases };
        recipe.check().map_err(|message| RecipeError::Whole { file: file.into(), message })?;
        Ok(recipe)
    }

    /// Checks what the ranges of single settings cannot: the model's shape, and the phases
    /// together.
    fn check(&self) -> Result<(), String> {
        if self.phases.is_empty() {
            return Err(
                "a recipe needs at least one phase: add [[phases]] with kind = \"pretrain\"".into(),
            );
        }
        check_shape(&self.run.model)?;
        if self.run.adapter.rank > 0 && self.run.base.is_empty() {
            return Err("`adapter.rank` puts an adapter over a base, and this run trains a new \
                        model: set `base` to a checkpoint folder, or rank to 0"
                .into());
        }
        if !self.run.text.chat_template.is_empty() && self.run.base.is_empty() {
            return Err("`text.chat_template` stands in place of a base's template, and this run \
                        trains a new model, which has Crisol's: set `base`, or leave it out"
                .into());
        }
        for (i, phase) in self.phases.iter().enumerate() {
            self.check_links(phase, &self.phases[..i])
                .and_then(|()| check_rollout(&phase.settings))
                .map_err(|cause| format!("phase {} ({}): {cause}", i + 1, phase.name))?;
        }
        Ok(())
    }

    /// Checks a phase's name, and the phases before it that it names.
    fn check_links(&self, phase: &Phase, earlier: &[Phase]) -> Result<(), String> {
        let Phase { name, from, settings, .. } = phase;
        let valid = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if !valid {
            return Err(format!(
                "the name {name:?} is also a folder name: use letters, digits, - and _"
            ));
        }
        if earlier.iter().any(|phase| phase.name == *name) {
            return Err("another phase has this name: give one of them `name = \"…\"`".into());
        }
        if !from.is_empty() && !earlier.iter().any(|phase| phase.name == *from) {
            let hint = nearest(from, earlier.iter().map(|phase| phase.name.as_str()));
            return Err(format!(
                "`from = {from:?}` names no earlier phase{hint}; phases start from one above them"
            ));
        }
        if from.is_empty() && self.run.base.is_empty() && settings.kind() != "pretrain" {
            return Err(format!(
                "{} needs a model to start from: \
                 put a pretrain phase before it or set `base` to a checkpoint folder",
                settings.kind()
            ));
        }
        if let PhaseSettings::Ppo(PpoSettings { reward_model, .. }) = settings {
            // The name of a phase is never taken for that of a folder.
            let usable = if self.phases.iter().any(|phase| phase.name == *reward_model) {
                let named = earlier.iter().find(|phase| phase.name == *reward_model);
                named.is_some_and(|phase| phase.settings.kind() == "reward")
            } else {
                Path::new(reward_model).join("config.json").is_file()
            };
            if !usable {
                return Err(format!(
                    "`reward_model = {reward_model:?}` is neither an earlier phase of kind reward \
                     nor a checkpoint folder"
                ));
            }
        }
        Ok(())
    }

    /// The recipe as TOML. Parsing it gives the same recipe.
    ///
    /// Defaults are written out, except those that [`Recipe::resolve`] has yet to find.
    pub fn to_toml(&self) -> String {
        let mut out = String::from("# Every setting of this run, defaults included.\n");
        let mut run = table_of(&self.run);
        if !self.run.base.is_empty() {
            // The base has its own shape.
            run.remove("model");
        }
        out += &to_toml_string(&run);
        for phase in &self.phases {
            let mut settings = table_of(&phase.settings);
            let mut table = Table::new();
            table.extend(settings.remove_entry("kind"));
            table.insert("name".into(), phase.name.clone().into());
            table.insert("from".into(), phase.from.clone().into());
            table.extend(settings);
            for name in &phase.unresolved {
                remove_dotted(&mut table, name);
            }
            // Nested, so that sub-tables of a phase get the heading [phases.x].
            let nested =
                Table::from_iter([("phases".to_owned(), Value::Array(vec![Value::Table(table)]))]);
            let _ = write!(out, "\n{}", to_toml_string(&nested));
        }
        out
    }

    /// Folder name of a phase: its depth and its name, as `2-sft`. Branches from one phase have the
    /// same depth: `4-refuse`, `4-dpo`.
    pub fn folder(&self, name: &str) -> String {
        format!("{}-{name}", self.depth(name))
    }

    /// Depth of a phase: 1 for a phase that starts from the base or from nothing, else one more
    /// than the deepest phase that it needs (its starting model, its reward model).
    fn depth(&self, name: &str) -> usize {
        let mut depths = BTreeMap::new();
        // A phase comes after those that it names, so their depths are known.
        for phase in &self.phases {
            let known = |name: &str| depths.get(name).copied().unwrap_or(0);
            let reward_model = match &phase.settings {
                PhaseSettings::Ppo(ppo) => known(&ppo.reward_model),
                _ => 0,
            };
            depths.insert(phase.name.as_str(), 1 + known(&phase.from).max(reward_model));
        }
        depths.get(name).copied().unwrap_or(0)
    }
}

/// Attention needs an even head width, and whole groups of query heads for each key/value head.
fn check_shape(model: &ModelSettings) -> Result<(), String> {
    let ModelSettings { hidden_size, heads, kv_heads, .. } = *model;
    if heads == 0 || !hidden_size.is_multiple_of(heads) || !(hidden_size / heads).is_multiple_of(2)
    {
        return Err(format!(
            "model.hidden_size ({hidden_size}) must be a multiple of 2 × model.heads ({heads})"
        ));
    }
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(format!("model.kv_heads ({kv_heads}) must divide model.heads ({heads})"));
    }
    Ok(())
}

/// Limits the answers of a rollout step.
fn check_rollout(settings: &PhaseSettings) -> Result<(), String> {
    let rollout = match settings {
        PhaseSettings::Reason(reason) if reason.rollout.group_size < 2 => {
            return Err("rollout.group_size must be at least 2: \
                        an advantage is a comparison within the group"
                .into());
        }
        PhaseSettings::Reason(reason) => &reason.rollout,
        PhaseSettings::Ppo(ppo) => &ppo.rollout,
        _ => return Ok(()),
    };
    let answers = rollout.prompts.saturating_mul(rollout.group_size);
    if answers > MAX_ANSWERS {
        return Err(format!(
            "rollout.prompts × rollout.group_size are {answers} answers a step, \
             more than {MAX_ANSWERS}; lower one of them"
        ));
    }
    Ok(())
}

/// Settings as a TOML table.
pub(crate) fn table_of(value: &impl Serialize) -> Table {
    Table::try_from(value)
        .unwrap_or_else(|e| unreachable!("settings are plain numbers, strings and tables: {e}"))
}

/// An error of the TOML parser, with the line that it is about.
fn syntax_error(file: &str, text: &str, error: &toml::de::Error) -> RecipeError {
    const MAX_CHARS: usize = 60;
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count();
    let mut shown = text.lines().nth(line).unwrap_or_default().trim().to_owned();
    if let Some((end, _)) = shown.char_indices().nth(MAX_CHARS) {
        shown.truncate(end);
        shown.push('…');
    }
    let message = match (shown.as_str(), error.message()) {
        // The end of the file.
        ("", cause) => format!("not valid TOML: {cause}"),
        (shown, cause) => format!("`{shown}` is not valid TOML: {cause}"),
    };
    RecipeError::Entry { file: file.into(), line: line + 1, message }
}

fn to_toml_string(value: &impl Serialize) -> String {
    toml::to_string(value)
        .unwrap_or_else(|e| unreachable!("settings are plain numbers, strings and tables: {e}"))
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file could not be read.
    #[error(
        "cannot read the recipe {path}: {source}; check the path, or write a recipe with `crisol \
         data export DIR`"
    )]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not TOML, or a key or a value is wrong.
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
        assert_eq!(
            folders,
            ["1-pretrain", "2-sft", "3-reason", "4-refuse", "4-reward", "5-ppo", "4-dpo"]
        );
        assert_eq!(Recipe::parse("again.toml", &recipe.to_toml()).unwrap(), recipe);
    }

    /// Every setting is stated, so new defaults do not change the published results.
    #[test]
    fn the_embedded_recipe_states_every_setting_of_its_results() {
        fn contains(place: &str, all: &Table, some: &Table) {
            for (key, value) in some {
                match (&all[key], value) {
                    (Value::Table(all), Value::Table(some)) => {
                        contains(&format!("{place}.{key}"), all, some);
                    }
                    (found, wanted) => assert_eq!(found, wanted, "{place}.{key}"),
                }
            }
        }
        let recipe = Recipe::embedded();
        assert!(
            recipe.phases.iter().all(|phase| phase.unresolved.is_empty()),
            "{:?}",
            recipe.phases
        );
        let [Value::Array(now), Value::Array(published)] =
            [recipe.to_toml().as_str(), include_str!("../tests/embedded.toml")]
                .map(|text| text.parse::<Table>().unwrap().remove("phases").unwrap())
        else {
            panic!("phases are a list")
        };
        assert_eq!((now.len(), published.len()), (7, 7));
        for (now, published) in now.iter().zip(&published) {
            contains(
                &published["name"].to_string(),
                now.as_table().unwrap(),
                published.as_table().unwrap(),
            );
        }
        let run = |text: &str| text.parse::<Table>().unwrap()["model"].clone();
        assert_eq!(run(&recipe.to_toml()), run(include_str!("../tests/embedded.toml")));
    }

    #[test]
    fn values_out_of_range_name_setting_value_range_and_line() {
        for (text, setting, range) in [
            ("optimizer.lr = nan", "`optimizer.lr` is NaN", "1e-12 to 10"),
            ("optimizer.beta2 = 1.0", "`optimizer.beta2` is 1", "0 to 0.999999"),
            ("epochs = 1e300", "`epochs` is 1e300", "above 0 and at most 10000"),
            ("batch_tokens = -1", "`batch_tokens` is -1", "from 1 to"),
            ("batch_tokens = 9223372036854775807", "`batch_tokens` is 9.2", "from 1 to"),
            (
                "batch_tokens = 1e3",
                "`batch_tokens` must be of type integer, not float",
                "from 1 to",
            ),
            ("data = []", "`data` must name at least one file", ""),
            ("data = \"\"", "`data` must name at least one file", ""),
        ] {
            let message = error(&format!("[[phases]]\nkind = \"pretrain\"\n{text}\n"));
            assert!(message.contains(setting) && message.contains(range), "{text}: {message}");
            assert!(message.starts_with("r.toml, line 3"), "{message}");
        }
        let message = error("[model]\ncontext = 1\n[[phases]]\nkind = \"pretrain\"\n");
        assert!(
            message.contains("line 2") && message.contains("`model.context` is 1"),
            "{message}"
        );
        let message = error("base = \"b\"\n[[phases]]\nkind = \"reason\"\nreplay.tokens = 0\n");
        assert!(
            message.contains("line 4") && message.contains("`replay.tokens` is 0"),
            "{message}"
        );
        let rollout = "rollout = { prompts = 65536, group_size = 4096 }";
        let message = error(&format!("base = \"b\"\n[[phases]]\nkind = \"reason\"\n{rollout}\n"));
        assert!(message.contains("268435456 answers a step"), "{message}");
    }

    #[test]
    fn free_tables_take_any_key() {
        let text = "[text]\ntoo_long = \"skip\"\ncolumns = { prompt = \"question\" }\n\
                    arguments = { enable_thinking = false }\n[[phases]]\nkind = \"pretrain\"\n";
        let recipe = Recipe::parse("r.toml", text).unwrap();
        let TextSettings { columns, arguments, .. } = &recipe.run.text;
        assert_eq!(
            (columns["prompt"].as_str(), arguments["enable_thinking"].as_bool()),
            ("question", Some(false))
        );
        assert!(
            error("[text]\ntoo_long = \"cutt\"\n[[phases]]\nkind = \"pretrain\"\n")
                .contains("`text.too_long`")
        );
        let again = recipe.clone().resolved().unwrap();
        assert_eq!(Recipe::parse("again.toml", &again.to_toml()).unwrap(), again);
    }

    #[test]
    fn a_model_shape_with_a_base_is_refused() {
        let message = error("base = \"b\"\n[model]\ncontext = 512\n[[phases]]\nkind = \"sft\"\n");
        assert!(
            message.contains("line 3") && message.contains("`model.context` shapes a new model"),
            "{message}"
        );
        // What a run writes can be read.
        let recipe = Recipe::parse("r.toml", "base = \"b\"\n[[phases]]\nkind = \"sft\"\n").unwrap();
        assert!(Recipe::parse("again.toml", &recipe.to_toml()).is_ok());
    }

    #[test]
    fn what_is_left_out_stays_left_out_when_written() {
        let mut text = String::from("base = \"b\"\n");
        for kind in PhaseSettings::KINDS {
            let _ = write!(text, "[[phases]]\nkind = \"{kind}\"\n");
        }
        let recipe = Recipe::parse("r.toml", &text).unwrap();
        for phase in &recipe.phases {
            assert!(!phase.unresolved.is_empty(), "{}", phase.name);
        }
        assert_eq!(Recipe::parse("again.toml", &recipe.to_toml()).unwrap(), recipe);
    }

    #[test]
    fn a_setting_of_another_table_is_found() {
        for (key, right) in [
            ("lr", "optimizer.lr"),
            ("beta2", "optimizer.beta2"),
            ("temperature", "rollout.temperature"),
        ] {
            let message =
                error(&format!("base = \"b\"\n[[phases]]\nkind = \"reason\"\n{key} = 1\n"));
            assert!(message.contains(&format!("did you mean `{right}`?")), "{message}");
        }
    }

    #[test]
    fn unknown_keys_name_their_line_and_the_nearest_right_one() {
        let message = error("seed = 3\n[[phases]]\nkind = \"pretrain\"\nepoch = 2\n");
        assert!(
            message.contains("line 4") && message.contains("did you mean `epochs`?"),
            "{message}"
        );
        let message =
            error("[[phases]]\nkind = \"pretrain\"\n[phases.optimizer]\nleraning = 1\nlr = 0.1\n");
        assert!(message.contains("line 4") && message.contains("optimizer.leraning"), "{message}");
        let message = error("sed = 3\n[[phases]]\nkind = \"pretrain\"\n");
        assert!(
            message.contains("line 1") && message.contains("did you mean `seed`?"),
            "{message}"
        );
    }

    #[test]
    fn held_out_files_follow_the_split_that_is_measured() {
        let names = ["preferences.{split}.jsonl".to_owned(), "more.jsonl".to_owned()];
        assert_eq!(Split::Dev.files(&names), ["preferences.dev.jsonl", "more.jsonl"]);
        assert_eq!(Split::Test.files(&names), ["preferences.test.jsonl", "more.jsonl"]);
        assert_eq!(Split::None.files(&names), ["more.jsonl"]);
        let embedded = Recipe::embedded();
        let pairs = embedded.phases.iter().filter_map(|phase| match &phase.settings {
            PhaseSettings::Reward(settings) => Some(&settings.heldout[..]),
            PhaseSettings::Dpo(settings) => Some(&settings.heldout[..]),
            _ => None,
        });
        assert_eq!(pairs.collect::<Vec<_>>(), [&names[..1]; 2], "of the reward model and of DPO");
    }

    #[test]
    fn wrong_types_kinds_words_and_ranges_are_named() {
        assert!(error("[[phases]]\nkind = \"pretrian\"\n").contains("did you mean `pretrain`?"));
        assert!(error("[[phases]]\nkind = \"stf\"\n").contains("did you mean `sft`?"));
        let message =
            error("[[phases]]\nkind = \"pretrain\"\n[[phases]]\nkind = \"dpo\"\nbtea = 1\n");
        assert!(message.contains("did you mean `beta`?"), "{message}");
        let message = error("[[phases]]\nkind = \"pretrain\"\nepochs = \"two\"\n");
        assert!(message.contains("line 3") && message.contains("float"), "{message}");
        let message = error(
            "[[phases]]\nkind = \"pretrain\"\n[[phases]]\nkind = \"dpo\"\nloss = \"sigmod\"\n",
        );
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
    fn folder_names_of_many_linked_phases_take_linear_time() {
        let mut text = String::from("[[phases]]\nkind = \"pretrain\"\nname = \"p0\"\n");
        for i in 1..=40 {
            let before = i - 1;
            let _ = write!(
                text,
                "[[phases]]\nkind = \"reward\"\nname = \"r{i}\"\nfrom = \"p{before}\"\n"
            );
            let _ = write!(
                text,
                "[[phases]]\nkind = \"ppo\"\nname = \"p{i}\"\nfrom = \"p{before}\"\nreward_model = \"r{i}\"\n"
            );
        }
        let recipe = Recipe::parse("r.toml", &text).unwrap();
        assert_eq!(
            (recipe.folder("r40"), recipe.folder("p40")),
            ("80-r40".to_owned(), "81-p40".to_owned())
        );
    }

    #[test]
    fn whole_numbers_serve_as_floats_and_single_files_as_lists() {
        let recipe = Recipe::parse(
            "r.toml",
            "[[phases]]\nkind = \"pretrain\"\nepochs = 3\ndata = \"a.jsonl\"\n",
        )
        .unwrap();
        let PhaseSettings::Pretrain(settings) = &recipe.phases[0].settings else { panic!("kind") };
        assert_eq!((settings.epochs, settings.data.as_slice()), (3.0, &["a.jsonl".to_owned()][..]));
    }
}
