//! `crisol pretrain|sft|reason|reward|ppo|dpo`: one phase on the user's own model and data. The
//! command line becomes a recipe of one phase, whose settings, checks and folders are those of
//! every other run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Args;
use crisol_phases::{Recipe, RecipeError, RunSettings};
use crisol_text::{ReadOptions, TextError, data_files};
use toml::{Table, Value};

use super::TemplateFile;
use super::run::{RunFlags, absolute, execute, recorded, show};
use crate::datasets::is_on_hub;
use crate::error::CliError;
use crate::hub::Need;
use crate::model::{Network, check_folder, locate};

pub(super) const PRETRAIN: &str = "\
Examples:
  crisol pretrain --data book.jsonl --out runs/book --set model.layers=6
  crisol pretrain MODEL --data more.jsonl --out runs/more --set optimizer.lr=1e-5

Data: records with `text`, or plain text files. Without MODEL, a new model and tokenizer are
trained. Formats: docs/data.md. Settings: docs/settings.md.";

pub(super) const SFT: &str = "\
Examples:
  crisol sft MODEL --data chats.jsonl --heldout test.jsonl --out runs/tuned
  crisol sft MODEL --data chats.jsonl --out runs/tuned --set optimizer.lr=1e-5 --set epochs=3
  crisol sft MODEL --data hf://datasets/tatsu-lab/alpaca:train[1000..] --out runs/alpaca

Data: conversations (`messages`, ShareGPT, Alpaca, …), `prompt` and `completion`, or `text`.
`crisol data inspect` shows which tokens are trained. Formats: docs/data.md. Settings:
docs/settings.md.";

pub(super) const REASON: &str = "\
Examples:
  crisol reason MODEL --data problems.jsonl --out runs/reason --set steps=200
  crisol reason MODEL --cold-start worked.jsonl --data problems.jsonl --out runs/reason

Data: {\"prompt\": …, \"answer\": …}. Cold start: {\"messages\": …} with solutions inside
<think>…</think>. Formats: docs/data.md. Settings: docs/settings.md.";

pub(super) const REWARD: &str = "\
Example:
  crisol reward MODEL --data pairs.jsonl --heldout pairs.test.jsonl --out runs/reward

Data: {\"prompt\": …, \"chosen\": …, \"rejected\": …}. Formats: docs/data.md. Settings:
docs/settings.md.";

pub(super) const PPO: &str = "\
Example:
  crisol ppo MODEL --reward-model runs/reward/1-reward --data prompts.jsonl --out runs/ppo

Data: {\"prompt\": …}. Formats: docs/data.md. Settings: docs/settings.md.";

pub(super) const DPO: &str = "\
Examples:
  crisol dpo MODEL --data pairs.jsonl --out runs/dpo --set beta=0.05 --set loss=ipo
  crisol dpo MODEL --data pairs.jsonl --replay chats.jsonl --out runs/dpo

Data: {\"prompt\": …, \"chosen\": …, \"rejected\": …}. Formats: docs/data.md. Settings:
docs/settings.md.";

/// The usage of a phase's command. A resumed run has its model, data and settings already.
pub(super) fn usage(kind: &str, model: &str) -> String {
    format!(
        "crisol {kind} [OPTIONS] {model} --data <FILE>... --out <DIR>\n       \
         crisol {kind} --resume --out <DIR>"
    )
}

/// What every phase takes.
#[derive(Debug, Args)]
#[command(mut_arg("seed", |seed| seed.help("Random seed [default: 1]")))]
struct PhaseArgs {
    /// Training data: files, folders, patterns, hub data sets, - for stdin
    #[arg(long, value_name = "FILE", required_unless_present = "resume", num_args = 1..)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    /// Folder of the run: recipe.toml, checkpoint, report
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Change a setting, as in a recipe; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Train an adapter over frozen weights (LoRA); rank 16 unless given
    #[arg(long, value_name = "RANK", num_args = 0..=1, require_equals = true,
          default_missing_value = "16")]
    lora: Option<u32>,
    /// Take prompts that are strings as user messages, not as raw text
    #[arg(long)]
    chat_strings: bool,
    #[command(flatten)]
    template: TemplateFile,
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    flags: RunFlags,
}

/// How data files are read where they do not tell it themselves.
#[derive(Debug, Args)]
pub(super) struct Reading {
    /// Read a field from another column: prompt=question,answer=solution
    #[arg(long, value_name = "NAME=COLUMN", value_delimiter = ',', value_parser = column)]
    columns: Vec<(String, String)>,
    /// Separator of documents, such as \n\n [default: none]
    #[arg(long, value_name = "TEXT", value_parser = unescaped)]
    text_separator: Option<String>,
}

impl Reading {
    pub(super) fn options(&self) -> ReadOptions {
        ReadOptions {
            columns: self.columns.iter().cloned().collect(),
            text_separator: self.text_separator.clone().unwrap_or_default(),
            datasets: BTreeMap::new(),
        }
    }

    fn settings(&self, draft: &mut Draft) {
        let ReadOptions { columns, text_separator, .. } = self.options();
        if !columns.is_empty() {
            let columns = columns.into_iter().map(|(name, column)| (name, column.into()));
            draft.fixed("text.columns", Value::Table(columns.collect()));
        }
        if !text_separator.is_empty() {
            draft.fixed("text.text_separator", text_separator);
        }
    }
}

/// `NAME=COLUMN` as two strings.
fn column(text: &str) -> Result<(String, String), &'static str> {
    let (name, column) =
        text.split_once('=').ok_or("write it as NAME=COLUMN, such as prompt=question")?;
    Ok((name.trim().to_owned(), column.trim().to_owned()))
}

/// A text in which `\n`, `\t` and `\\` stand for what cannot be typed.
#[expect(clippy::unnecessary_wraps, reason = "clap's parsers return a result")]
fn unescaped(text: &str) -> Result<String, std::convert::Infallible> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('\\') | None => out.push('\\'),
                Some(other) => out.extend(['\\', other]),
            },
            c => out.push(c),
        }
    }
    Ok(out)
}

/// `crisol pretrain`.
#[derive(Debug, Args)]
pub(crate) struct PretrainArgs {
    /// Model to continue training [default: a new one]
    model: Option<PathBuf>,
    #[command(flatten)]
    phase: PhaseArgs,
    /// Held-out text: loss and bits per byte before and after
    #[arg(long, value_name = "FILE", num_args = 1..)]
    heldout: Vec<PathBuf>,
}

/// `crisol sft` and `crisol reward`.
#[derive(Debug, Args)]
pub(crate) struct TuneArgs {
    /// Model to start from; left out with --resume
    #[arg(required_unless_present = "resume")]
    model: Option<PathBuf>,
    #[command(flatten)]
    phase: PhaseArgs,
    /// Held-out data, measured before and after
    #[arg(long, value_name = "FILE", num_args = 1..)]
    heldout: Vec<PathBuf>,
}

/// `crisol reason`.
#[derive(Debug, Args)]
pub(crate) struct ReasonArgs {
    /// Model to start from; left out with --resume
    #[arg(required_unless_present = "resume")]
    model: Option<PathBuf>,
    #[command(flatten)]
    phase: PhaseArgs,
    /// Worked solutions for SFT before GRPO [default: none]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    cold_start: Vec<PathBuf>,
    /// Held-out problems, measured before and after
    #[arg(long, value_name = "FILE", num_args = 1..)]
    heldout: Vec<PathBuf>,
    #[command(flatten)]
    replay: ReplayArgs,
}

/// `crisol ppo`.
#[derive(Debug, Args)]
pub(crate) struct PpoArgs {
    /// Model to start from; left out with --resume
    #[arg(required_unless_present = "resume")]
    model: Option<PathBuf>,
    #[command(flatten)]
    phase: PhaseArgs,
    /// Reward model that scores the answers
    #[arg(long, value_name = "MODEL", required_unless_present = "resume")]
    reward_model: Option<PathBuf>,
    /// Held-out prompts, scored before and after
    #[arg(long, value_name = "FILE", num_args = 1..)]
    heldout: Vec<PathBuf>,
    #[command(flatten)]
    replay: ReplayArgs,
}

/// `crisol dpo`.
#[derive(Debug, Args)]
pub(crate) struct DpoArgs {
    #[command(flatten)]
    tune: TuneArgs,
    #[command(flatten)]
    replay: ReplayArgs,
}

/// What the phases that only look at answers take against forgetting.
#[derive(Debug, Args)]
struct ReplayArgs {
    /// Data of earlier phases, mixed into each update [default: none]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    replay: Vec<PathBuf>,
}

impl PretrainArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let phase = [("heldout", files(&self.heldout)?)];
        self.phase.run("pretrain", self.model.as_deref(), phase)
    }
}

impl TuneArgs {
    /// `kind`: `sft` or `reward`.
    pub(crate) fn run(self, kind: &str) -> Result<(), CliError> {
        let phase = [("heldout", files(&self.heldout)?)];
        self.phase.run(kind, self.model.as_deref(), phase)
    }
}

impl ReasonArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let phase = [
            ("cold_start.data", files(&self.cold_start)?),
            ("heldout", files(&self.heldout)?),
            ("replay.data", files(&self.replay.replay)?),
        ];
        self.phase.run("reason", self.model.as_deref(), phase)
    }
}

impl PpoArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let reward_model = match &self.reward_model {
            Some(given) => {
                let folder = locate(given, Need::Whole, self.phase.network)?;
                check_folder(&folder)?;
                absolute(&folder)?
            }
            // Of a run that is resumed.
            None => String::new(),
        };
        let phase = [
            ("reward_model", Value::from(reward_model)),
            ("heldout", files(&self.heldout)?),
            ("replay.data", files(&self.replay.replay)?),
        ];
        self.phase.run("ppo", self.model.as_deref(), phase)
    }
}

impl DpoArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let TuneArgs { model, phase, heldout } = self.tune;
        let settings =
            [("heldout", files(&heldout)?), ("replay.data", files(&self.replay.replay)?)];
        phase.run("dpo", model.as_deref(), settings)
    }
}

impl PhaseArgs {
    fn run<const N: usize>(
        self,
        kind: &str,
        base: Option<&Path>,
        phase: [(&'static str, Value); N],
    ) -> Result<(), CliError> {
        if self.flags.resume && self.data.is_empty() {
            return self.resume(kind, base, &phase);
        }
        if base.is_none() && kind != "pretrain" {
            return Err(CliError::Usage(format!(
                "crisol {kind} --data needs a model to start from: crisol {kind} MODEL --data …"
            )));
        }
        let mut draft = Draft::default();
        // Files are named by their whole paths, but the default would be the embedded data set.
        draft.run.push(Entry { line: "data = \".\"".into(), option: None });
        if let Some(base) = base {
            let folder = locate(base, Need::Whole, self.network)?;
            check_folder(&folder)?;
            draft.fixed("base", absolute(&folder)?);
        }
        draft.fixed("title", title(kind, base));
        // There are no test files of Crisol's beside the user's data.
        draft.fixed("evaluate", "none");
        draft.fixed("kind", kind);
        draft.fixed("data", files(&self.data)?);
        if let Some(rank) = self.lora {
            draft.fixed("adapter.rank", i64::from(rank));
        }
        if let Some(file) = &self.template.chat_template {
            draft.fixed("text.chat_template", absolute(file)?);
        }
        if self.chat_strings {
            draft.fixed("text.strings", "message");
        }
        for (key, value) in phase {
            draft.fixed(key, value);
        }
        self.reading.settings(&mut draft);
        for (key, value) in self.set {
            draft.set(&key, &value)?;
        }
        let recipe = draft.recipe()?;
        let report = execute(Some(recipe), &self.out, &self.flags, self.network)?;
        show(&report, &self.out)
    }
}

impl PhaseArgs {
    /// Goes on with the run in the folder, whose recipe says all that is not said again.
    fn resume(
        self,
        kind: &str,
        base: Option<&Path>,
        phase: &[(&str, Value)],
    ) -> Result<(), CliError> {
        let is_empty = |value: &Value| match value {
            Value::Array(files) => files.is_empty(),
            value => value.as_str() == Some(""),
        };
        if base.is_some() || !self.set.is_empty() || !phase.iter().all(|(_, value)| is_empty(value))
        {
            return Err(CliError::Usage(
                "with --resume give either the whole command line again, or --out and --threads \
                 alone: the folder's recipe.toml has the rest"
                    .to_owned(),
            ));
        }
        let recipe = recorded(&self.out)?;
        if let Some(other) =
            recipe.iter().flat_map(|r| &r.phases).find(|p| p.settings.kind() != kind)
        {
            let problem = format!(
                "it holds a run of {}; go on with `crisol run --resume`",
                other.settings.kind()
            );
            return Err(CliError::Place { path: self.out, problem });
        }
        let report = execute(recipe, &self.out, &self.flags, self.network)?;
        show(&report, &self.out)
    }
}

fn title(kind: &str, base: Option<&Path>) -> String {
    match base.and_then(Path::file_name) {
        Some(name) => format!("{kind} of {}", name.to_string_lossy()),
        None => format!("{kind} of a new model"),
    }
}

/// Files, folders and patterns as a recipe names them, after making sure that they can be opened.
/// Data sets on a hub are found when the recipe is whole.
fn files(paths: &[PathBuf]) -> Result<Value, CliError> {
    let file = |path: &PathBuf| -> Result<Value, CliError> {
        if let Some(name) = path.to_str().filter(|name| is_on_hub(name)) {
            return Ok(name.into());
        }
        for path in data_files(&path.to_string_lossy(), &ReadOptions::default())? {
            File::open(&path).map_err(|source| TextError::Read { path, source })?;
        }
        Ok(if path == "-" { "-".into() } else { absolute(path)?.into() })
    };
    Ok(Value::Array(paths.iter().map(file).collect::<Result<_, _>>()?))
}

/// `KEY=VALUE` as two strings.
fn setting(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    let key = key.trim();
    let part = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if !key.split('.').all(part) {
        return Err("the key is a setting's name as in a recipe, such as epochs or optimizer.lr");
    }
    Ok((key.to_owned(), value.trim().to_owned()))
}

/// A recipe of one phase as it grows: one setting a line, so that an error's line says which one it
/// is.
#[derive(Default)]
struct Draft {
    run: Vec<Entry>,
    phase: Vec<Entry>,
    keys: BTreeSet<String>,
}

struct Entry {
    line: String,
    /// The option as the user wrote it, where the setting comes from `--set`.
    option: Option<String>,
}

impl Draft {
    /// A setting that another option gives.
    fn fixed(&mut self, key: &str, value: impl Into<Value>) {
        self.push(key, &value.into(), None);
    }

    /// A setting from `--set`.
    fn set(&mut self, key: &str, value: &str) -> Result<(), CliError> {
        let option = format!("--set {key}={value}");
        if self.keys.contains(key) {
            return Err(CliError::Usage(format!(
                "{option}: `{key}` is given twice on the command line; leave one out"
            )));
        }
        self.push(key, &parse_value(value), Some(option));
        Ok(())
    }

    fn push(&mut self, key: &str, value: &Value, option: Option<String>) {
        let entry = Entry { line: format!("{key} = {value}"), option };
        if belongs_to_run(key) {
            self.run.push(entry);
        } else {
            self.phase.push(entry);
        }
        self.keys.insert(key.to_owned());
    }

    fn recipe(self) -> Result<Recipe, CliError> {
        let heading = Entry { line: "[[phases]]".into(), option: None };
        let entries: Vec<Entry> = self.run.into_iter().chain([heading]).chain(self.phase).collect();
        let lines: Vec<&str> = entries.iter().map(|entry| entry.line.as_str()).collect();
        Recipe::parse("the command line", &lines.join("\n")).map_err(|error| match error {
            RecipeError::Entry { line, message, .. } => {
                let option = entries.get(line - 1).and_then(|entry| entry.option.as_deref());
                CliError::Usage(format!("{}: {message}", option.unwrap_or("the command line")))
            }
            RecipeError::Whole { message, .. } => CliError::Usage(message),
            other @ RecipeError::Read { .. } => other.into(),
        })
    }
}

/// Whether a setting is one of the whole run. `data` is both and meant for the phase.
fn belongs_to_run(key: &str) -> bool {
    let run = Table::try_from(RunSettings::default())
        .expect("run settings are plain numbers, strings and tables");
    let first = key.split('.').next().unwrap_or_default();
    first != "data" && run.contains_key(first)
}

/// A value as TOML has it; what is no TOML is a word or path that needs no quotes here.
fn parse_value(text: &str) -> Value {
    let toml = || toml::from_str::<Table>(&format!("value = {text}")).ok()?.remove("value");
    // A value that brings lines of its own is not one value.
    let value = if text.contains('\n') { None } else { toml() };
    value.unwrap_or_else(|| text.parse::<f64>().map_or_else(|_| text.into(), Value::Float))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(sets: &[&str]) -> Result<Recipe, String> {
        let mut draft = Draft::default();
        draft.fixed("base", "/base");
        draft.fixed("kind", "dpo");
        draft.fixed("data", Value::Array(vec!["/votes \"a\".jsonl".into()]));
        for set in sets {
            let (key, value) = setting(set)?;
            draft.set(&key, &value).map_err(|e| e.to_string())?;
        }
        draft.recipe().map_err(|e| e.to_string())
    }

    #[test]
    fn settings_reach_the_run_and_the_phase() {
        let sets =
            ["shard_tokens=64", "beta = .5", "optimizer.schedule=cosine", "loss=ipo", "heldout=[]"];
        let recipe = draft(&sets).unwrap();
        assert_eq!((recipe.run.base.as_str(), recipe.run.shard_tokens), ("/base", 64));
        let crisol_phases::PhaseSettings::Dpo(dpo) = &recipe.phases[0].settings else {
            panic!("kind")
        };
        assert_eq!(
            (dpo.data.as_slice(), dpo.heldout.len()),
            (&["/votes \"a\".jsonl".to_owned()][..], 0)
        );
        assert_eq!((dpo.beta, dpo.loss.to_string().as_str()), (0.5, "ipo"));
        assert_eq!(dpo.optimizer.schedule, crisol_train::Schedule::Cosine);
    }

    #[test]
    fn errors_name_the_option() {
        let error = draft(&["beta=1", "optimizer.learning=1"]).unwrap_err();
        assert!(error.starts_with("--set optimizer.learning=1: there is no setting"), "{error}");
        let error = draft(&["betta=1"]).unwrap_err();
        assert!(error.contains("did you mean `beta`"), "{error}");
        assert!(draft(&["beta=high"]).unwrap_err().starts_with("--set beta=high: "));
        let error = draft(&["beta=-1"]).unwrap_err();
        assert!(
            error.starts_with("--set beta=-1: `beta` is -1") && error.contains("to 1000"),
            "{error}"
        );
        let error = draft(&["lr=1e-3"]).unwrap_err();
        assert!(error.contains("did you mean `optimizer.lr`?"), "{error}");
        let error = draft(&["model.context=64"]).unwrap_err();
        assert!(
            error.starts_with("--set model.context=64: ") && error.contains("shapes a new model"),
            "{error}"
        );
        assert!(draft(&["base=x"]).unwrap_err().contains("twice"));
        assert!(draft(&["beta=1", "beta=2"]).unwrap_err().contains("twice"));
        assert!(draft(&["beta"]).unwrap_err().contains("KEY=VALUE"));
        assert!(draft(&["a b=1"]).is_err() && draft(&["x.=1"]).is_err());
    }
}
