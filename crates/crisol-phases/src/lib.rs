//! The phases of training a language model, one file each, and the run that executes them.
//!
//! | file | phase |
//! |---|---|
//! | `pretrain.rs` | next token of raw text |
//! | `sft.rs` | conversations; also refusals |
//! | `reason.rs`, `grpo.rs` | cold start, then GRPO |
//! | `reward.rs` | reward model on preference pairs |
//! | `ppo.rs` | RLHF against the reward model |
//! | `dpo.rs` | preference pairs, without a reward model |
//!
//! A phase is a function from a checkpoint to a checkpoint. Stages that train on data share the
//! loop of `steps.rs`; stages that sample their data (GRPO, PPO) share that of `on_policy.rs`.
//!
//! | question | file |
//! |---|---|
//! | how does a recipe become settings? | `recipe.rs` |
//! | what runs, in which order? | `run.rs` |
//! | what does a phase log and when does it stop? | `context.rs` |
//! | where is the resume state? | `state.rs` |
//! | which answers of GRPO are rewarded? | `answer_reward.rs`, `verdicts.rs` |
//! | what would a run take? | `forecast.rs` |
//! | what can the model do? | `behaviours.rs`, `evaluation.rs` |

mod answer_reward;
pub mod batch;
mod batches;
mod behaviours;
pub mod classifiers;
mod context;
mod cost_shape;
mod data;
mod defaults;
mod divergence;
mod dpo;
mod evaluation;
mod examples;
mod fingerprint;
mod finished;
pub mod forecast;
mod grpo;
mod ladder;
mod machine;
mod no_signal;
mod observer;
mod on_policy;
mod owner;
mod pairs;
mod passes;
mod ppo;
mod pretrain;
mod prompts;
mod ranges;
mod reader;
mod reason;
mod recipe;
mod replay;
mod reward;
mod rollouts;
mod run;
mod run_folder;
mod settings;
mod sft;
mod state;
mod steps;
mod store;
mod supervised;
mod verdicts;

use std::path::{Path, PathBuf};

pub use answer_reward::{AnswerReward, SampledAnswer, Score};
pub use behaviours::answers;
pub use cost_shape::cost_shape;
pub use data::DataSource;
pub use evaluation::{Evaluation, EvaluationOptions, Measure, evaluate};
pub use examples::{Preprocessed, preprocess};
pub use finished::{assemble_report, save_report};
pub use forecast::{PhaseForecast, StageForecast, forecast, refuse_too_large};
pub use ladder::{LadderError, LadderRung, ladder};
pub use machine::{available_memory, machine, peak_memory};
pub use observer::Observer;
pub use owner::Owner;
pub use recipe::{Phase, Recipe, RecipeError, Recompute, RunSettings, Split};
pub use run::{RunOptions, run};
pub use run_folder::holds_work;
pub use settings::{
    AdapterSettings, DpoSettings, ModelSettings, OptimizerSettings, PhaseSettings, PpoSettings,
    PretrainSettings, ReasonSettings, RewardSettings, RolloutSettings, SftSettings, TextSettings,
};
pub use state::SaveStats;

/// What can go wrong in a run.
#[derive(Debug, thiserror::Error)]
pub enum PhaseError {
    /// The recipe cannot be used.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A data file or tokenizer is wrong.
    #[error(transparent)]
    Text(#[from] crisol_text::TextError),
    /// A model is wrong or was used wrongly.
    #[error(transparent)]
    Model(#[from] crisol_model::ModelError),
    /// A file is wrong or could not be written.
    #[error(transparent)]
    Hub(#[from] crisol_hub::HubError),
    /// Training went wrong.
    #[error(transparent)]
    Train(#[from] crisol_train::TrainError),
    /// The report could not be written.
    #[error(transparent)]
    Report(#[from] crisol_report::ReportError),
    /// Reading or writing a file failed.
    #[error(
        "cannot use {}: {source}; \
         check the path, its permissions and the space left on the disk",
        path.display()
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The data has no such file.
    #[error("the embedded data set has no file {file:?}; it has: {known}")]
    NoSuchData {
        /// The file asked for.
        file: String,
        /// The files there are.
        known: String,
    },
    /// A record has the wrong shape for its phase.
    #[error(
        "{place}: this record holds {found}, but the phase needs {wanted}; convert or remove the \
         record"
    )]
    WrongRecord {
        /// File and line.
        place: String,
        /// What it holds.
        found: &'static str,
        /// What is needed.
        wanted: &'static str,
    },
    /// The data has nothing that a model can be measured on.
    #[error("{place}: it holds {shape}, of which nothing is measured; {wanted}")]
    NothingToMeasure {
        /// File and line of the first record.
        place: String,
        /// What it holds.
        shape: &'static str,
        /// What is needed.
        wanted: &'static str,
    },
    /// A prompt to answer does not fit into the model's context.
    #[error(
        "{location}: this prompt has {tokens} tokens and the model's context {context}; \
         shorten or remove it"
    )]
    PromptTooLong {
        /// `file:line`.
        location: String,
        /// Tokens in the prompt.
        tokens: usize,
        /// Tokens in the context.
        context: usize,
    },
    /// The reward model reads other tokens than the policy writes.
    #[error(
        "the reward model in {} has another tokenizer than the policy; \
         train one from the same base",
        folder.display()
    )]
    OtherTokenizer {
        /// The reward model's folder.
        folder: PathBuf,
    },
    /// The recipe's architecture does not exist.
    #[error(
        "model.architecture is {name:?}; \
         a new model can be LlamaForCausalLM, Olmo2ForCausalLM or Qwen3ForCausalLM"
    )]
    UnknownArchitecture {
        /// What the recipe says.
        name: String,
    },
    /// The base's context is shorter than two tokens.
    #[error(
        "the model in {base} has a context of 1 token, which leaves nothing to predict; \
         start from another model"
    )]
    NoContext {
        /// The base.
        base: String,
    },
    /// A run exceeds the memory of this machine, or a million steps.
    #[error("{forecast}; make the run smaller, or start it all the same with --force")]
    TooLarge {
        /// What was forecast, and the limit.
        forecast: String,
    },
    /// The state of an interrupted phase cannot be read.
    #[error(
        "{} is damaged ({}); delete its folder to start the phase again",
        file.display(),
        crisol_hub::json_error(cause)
    )]
    BrokenState {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: serde_json::Error,
    },
    /// The output folder is in use.
    #[error(
        "{} already holds a run; \
         continue it with --resume, or choose another folder with --out",
        out.display()
    )]
    RunExists {
        /// The folder.
        out: PathBuf,
    },
    /// The folder's run has an owner.
    #[error(
        "{} is in use by another run of crisol ({owner}): \
         wait until it ends, stop it, or choose another folder with --out",
        out.display()
    )]
    InUse {
        /// The folder.
        out: PathBuf,
        /// Process, machine and since when.
        owner: String,
    },
    /// The run would replace a file that Crisol did not write.
    #[error(
        "{} was not written by Crisol, and the run would replace it; it is left as it is. \
         Choose another folder with --out, or move the file away", path.display()
    )]
    NotOurs {
        /// The file or folder.
        path: PathBuf,
    },
    /// The recipe in the folder was edited, and the run has not begun.
    #[error(
        "{} was edited and the run would replace it; it is left as it is. \
         Run it as it is with --resume and without naming a recipe, \
         or choose another folder with --out",
        path.display()
    )]
    RecipeEdited {
        /// The file.
        path: PathBuf,
    },
    /// The inputs of a phase have changed since it began.
    #[error(
        "phase {phase} cannot be resumed: {what}. \
         Restore what it was, or start a new run in another folder with --out \
         (of an unfinished phase, settings of its optimizer may be edited in recipe.toml)"
    )]
    Changed {
        /// The phase.
        phase: String,
        /// What changed.
        what: String,
    },
    /// There is nothing to resume.
    #[error("{} holds no run to resume; leave out --resume to start one", out.display())]
    NothingToResume {
        /// The folder.
        out: PathBuf,
    },
    /// The folder's run was made by another recipe.
    #[error(
        "{} holds a run of another recipe (first difference: {difference}); \
         resume without naming a recipe or seed, or choose another folder with --out",
        out.display()
    )]
    OtherRecipe {
        /// The folder.
        out: PathBuf,
        /// The first line that differs.
        difference: String,
    },
    /// Somebody asked to stop.
    #[error("interrupted in phase {phase} {place}")]
    Interrupted {
        /// Phase.
        phase: String,
        /// Where in it, and what of it is saved.
        place: String,
    },
}

impl PhaseError {
    /// Whether this is a stop on request, not a failure.
    pub(crate) fn is_stop(&self) -> bool {
        match self {
            PhaseError::Train(error) => error.is_stop(),
            PhaseError::Model(error) => matches!(error, crisol_model::ModelError::Stopped),
            _ => false,
        }
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> PhaseError {
        PhaseError::Io { path: path.to_path_buf(), source }
    }
}
