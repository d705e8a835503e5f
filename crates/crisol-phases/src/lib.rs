//! The phases of training a language model, one file each, and the run that strings them together.
//!
//! | file | phase |
//! |---|---|
//! | `pretrain.rs` | next token of raw text |
//! | `sft.rs` | conversations; also refusals |
//! | `reason.rs` | cold start, then GRPO |
//! | `reward.rs` | reward model on votes |
//! | `ppo.rs` | RLHF against the reward model |
//! | `dpo.rs` | votes, directly |
//!
//! [`Recipe`] says what a run does, [`run`] does it, [`judge`] says what a reply counts as.

mod behaviours;
mod context;
mod data;
mod dpo;
pub mod estimate;
mod expectation;
mod foresight;
pub mod judge;
mod ladder;
mod machine;
mod ppo;
mod pretrain;
mod reason;
mod recipe;
mod replay;
mod reward;
mod rollouts;
mod run;
mod settings;
mod sft;
mod supervised;
mod unpaid;

use std::path::{Path, PathBuf};

pub use behaviours::answers;
pub use context::Observer;
pub use data::DataSource;
pub use foresight::{ExpectedPhase, expected};
pub use ladder::{LadderError, LadderRung, ladder};
pub use machine::{machine, peak_memory};
pub use recipe::{Phase, Recipe, RecipeError, RunSettings, Split};
pub use run::{RunOptions, assemble_report, holds_work, run, save_report};
pub use settings::{
    DpoSettings, ModelSettings, OptimizerSettings, PhaseSettings, PpoSettings, PretrainSettings,
    ReasonSettings, RewardSettings, RolloutSettings, SftSettings,
};
pub use supervised::{batch_size, shards};

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
    #[error("cannot use {}: {source}; check the path, its permissions and the space left on the disk", path.display())]
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
    #[error("{place}: this record holds {found}, but the phase needs {wanted}")]
    WrongRecord {
        /// File and line.
        place: String,
        /// What it holds.
        found: &'static str,
        /// What is needed.
        wanted: &'static str,
    },
    /// The reward model reads other tokens than the policy writes.
    #[error(
        "the reward model in {} has another tokenizer than the policy; train one from the same base", folder.display()
    )]
    OtherTokenizer {
        /// The reward model's folder.
        folder: PathBuf,
    },
    /// The recipe's architecture does not exist.
    #[error(
        "model.architecture is {name:?}; a new model can be LlamaForCausalLM, Olmo2ForCausalLM or Qwen3ForCausalLM"
    )]
    UnknownArchitecture {
        /// What the recipe says.
        name: String,
    },
    /// The state of an interrupted phase cannot be read.
    #[error("{} is damaged ({source}); delete its folder to start the phase again", file.display())]
    BrokenState {
        /// The file.
        file: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The output folder is in use.
    #[error(
        "{} already holds a run; continue it with --resume, or choose another folder with --out", out.display()
    )]
    RunExists {
        /// The folder.
        out: PathBuf,
    },
    /// There is nothing to resume.
    #[error("{} holds no run to resume (no recipe.toml); leave out --resume to start one", out.display())]
    NothingToResume {
        /// The folder.
        out: PathBuf,
    },
    /// The folder's run was made by another recipe.
    #[error(
        "{} holds a run of another recipe (first difference: {difference}); resume without naming a recipe or seed, \
         or choose another folder with --out", out.display()
    )]
    OtherRecipe {
        /// The folder.
        out: PathBuf,
        /// The first line that differs.
        difference: String,
    },
    /// Somebody asked to stop.
    #[error("interrupted in phase {phase} after step {step} of {total}; everything is saved")]
    Interrupted {
        /// Phase.
        phase: String,
        /// Steps made in its stage.
        step: u64,
        /// Steps of the stage.
        total: u64,
    },
}

impl PhaseError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> PhaseError {
        PhaseError::Io { path: path.to_path_buf(), source }
    }
}
