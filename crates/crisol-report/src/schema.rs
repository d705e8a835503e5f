//! The types of `report.json`. Its fields and units are documented for users in `docs/report.md`.
//!
//! Two rules keep old and odd files readable: every field has a default, so a report written by an
//! older version loads; and a number that is not finite is written as `null` and read back as NaN,
//! because JSON has no NaN and a phase that diverged must still get its report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use crate::ReflectReport;

/// Everything known about one run: what was asked, what each phase did, and what it cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Version of Crisol that wrote the report.
    pub crisol: String,
    /// Title of the run, shown at the top.
    pub title: String,
    /// When the run was started or last resumed, as the caller wants it shown (`2026-11-03 14:20
    /// UTC`).
    pub created: String,
    /// Seed of the run.
    pub seed: u64,
    /// Threads the run used.
    pub threads: usize,
    /// The machine, in words (processor, cores).
    pub machine: String,
    /// Shape of the trained model.
    pub model: ModelSummary,
    /// The whole recipe with all defaults written out, as TOML.
    pub recipe_toml: String,
    /// The phases in the order in which they ran.
    pub phases: Vec<PhaseReport>,
    /// The same prompts, answered after every phase; of phases with data of the user's, prompts of
    /// their held-out data, answered before the phase and after it.
    pub prompts: Vec<PromptReport>,
    /// Completions sampled while training with rewards (GRPO, PPO).
    pub rollouts: Vec<RolloutSample>,
    /// Examples of which tokens are trained and which are only read.
    pub masks: Vec<MaskPicture>,
    /// Wall-clock time of the whole run in seconds, evaluation included.
    #[serde(deserialize_with = "number")]
    pub total_seconds: f64,
    /// Largest resident memory of the process in bytes; 0 where unknown.
    pub peak_memory_bytes: u64,
    /// What `crisol reflect` measured; absent in other runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reflect: Option<ReflectReport>,
}

/// Shape of the trained model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelSummary {
    /// Architecture family, as in `config.json` (`llama`, `olmo2`).
    pub architecture: String,
    /// Parameters, a tied matrix counted once; those of an adapter are not counted.
    pub parameters: u64,
    /// Those that are trained: all, or an adapter's; 0 in older reports.
    pub trained_parameters: u64,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Longest document in tokens.
    pub context: usize,
}

/// What one phase did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PhaseReport {
    /// Name of the phase within the run, unique (`sft`, `refuse`).
    pub name: String,
    /// What kind of phase it is: `pretrain`, `sft`, `reason`, `reward`, `ppo` or `dpo`.
    pub kind: String,
    /// Folder of the phase's checkpoint, relative to the report.
    pub checkpoint: String,
    /// Name of the phase whose checkpoint this one started from; `None` for a fresh model.
    pub parent: Option<String>,
    /// Name of the phase whose reward model scored its answers (PPO); `None` where no phase did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward_model: Option<String>,
    /// Tokens processed by training steps, sampled rollouts included.
    pub tokens: u64,
    /// Floating-point operations, estimated from the model's shape.
    #[serde(deserialize_with = "number")]
    pub flops: f64,
    /// Wall-clock seconds.
    #[serde(deserialize_with = "number")]
    pub seconds: f64,
    /// Those of them in which answers were sampled to learn from; 0 where a phase learns from given
    /// text only.
    #[serde(deserialize_with = "number")]
    pub sampling_seconds: f64,
    /// Forecast of `seconds`; 0 where the machine had not been measured.
    #[serde(deserialize_with = "number")]
    pub expected_seconds: f64,
    /// Forecast of its memory in bytes, in a process of its own.
    pub expected_memory_bytes: u64,
    /// Largest resident memory of the process until its end, in bytes; phases before it count too.
    pub peak_memory_bytes: u64,
    /// Measures by id (see [`crate::measures`]); shares are fractions from 0 to 1.
    #[serde(deserialize_with = "numbers")]
    pub metrics: BTreeMap<String, f64>,
    /// Those of them that were measured on held-out data also before the first step, as they were
    /// then.
    #[serde(deserialize_with = "numbers")]
    pub before: BTreeMap<String, f64>,
    /// What was logged while training.
    pub curves: Vec<Curve>,
    /// Remarks for the reader, one sentence each.
    pub notes: Vec<String>,
}

/// One logged series. Curves of a phase named `PLOT/LINE` share one plot, beside a curve named
/// `PLOT`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Curve {
    /// Id of the series (`loss`, `kl`, `reward/format`; see [`crate::measures`]).
    pub name: String,
    /// Unit of the values (`nats`, `tokens`, `share` for fractions of 1), empty for plain numbers.
    pub unit: String,
    /// Pairs of training step and value.
    #[serde(deserialize_with = "points")]
    pub points: Vec<(f64, f64)>,
}

/// One prompt and how each phase's model goes on from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptReport {
    /// What the model was given: the document's beginning, or the user's message.
    pub prompt: String,
    /// What the prompt demonstrates (`question-list`, `harmful`, `lookalike`, `problem`, …).
    pub kind: String,
    /// `text` (the model continues a document) or `chat` (the prompt is the user's turn of a
    /// conversation).
    pub form: String,
    /// The answer of the run's starting model, measured before the first step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The model's text after each phase, by phase name (in a comparison, by model name).
    pub outputs: BTreeMap<String, String>,
}

/// One completion sampled while training, with what it earned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RolloutSample {
    /// Name of the phase that sampled it.
    pub phase: String,
    /// Training step at which it was sampled.
    pub step: u64,
    /// The user's message.
    pub prompt: String,
    /// The sampled completion.
    pub completion: String,
    /// Total reward.
    #[serde(deserialize_with = "number")]
    pub reward: f64,
    /// The reward's parts by name (`format`, `accuracy`, `kl`).
    #[serde(deserialize_with = "numbers")]
    pub parts: BTreeMap<String, f64>,
}

/// One training example as the loss sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MaskPicture {
    /// Name of the phase that trains on it.
    pub phase: String,
    /// What the example is, in a few words.
    pub title: String,
    /// Pieces of the rendered example in order, and whether their tokens are trained.
    pub spans: Vec<(String, bool)>,
}

/// What can go wrong with a report's file.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file cannot be read.
    #[error(
        "cannot read {}: {cause}; give a run's folder that holds a report.json",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: std::io::Error,
    },
    /// The file is not a report.
    #[error(
        "{}, line {}, column {}: not a Crisol report ({}); \
         write it again with `crisol report RUN_DIR`",
        path.display(), cause.line(), cause.column(),
        cause.to_string().split(" at line ").next().unwrap_or_default()
    )]
    Parse {
        /// The file.
        path: PathBuf,
        /// The JSON parser's error.
        cause: serde_json::Error,
    },
}

impl Report {
    /// The report as indented JSON; numbers that are not finite become `null`.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self)
            .expect("plain data with string keys always serialises");
        json.push('\n');
        json
    }

    /// Reads a `report.json`.
    pub fn load(path: &Path) -> Result<Self, ReportError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| ReportError::Read { path: path.into(), cause })?;
        serde_json::from_str(&text).map_err(|cause| ReportError::Parse { path: path.into(), cause })
    }
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let map = BTreeMap::<String, Option<f64>>::deserialize(from)?;
    Ok(map.into_iter().map(|(key, value)| (key, value.unwrap_or(f64::NAN))).collect())
}

fn points<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(f64, f64)>, D::Error> {
    let pairs = Vec::<(Option<f64>, Option<f64>)>::deserialize(from)?;
    let nan = |value: Option<f64>| value.unwrap_or(f64::NAN);
    Ok(pairs.into_iter().map(|(step, value)| (nan(step), nan(value))).collect())
}
