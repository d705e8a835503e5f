//! The saved state of a phase: what a stop or a power cut leaves, and how it is resumed.
//!
//! ```text
//! out/progress/2-sft/state/
//!   state.json           steps, tokens, measures and fingerprint of the inputs: `State`
//!   model.safetensors …  weights and moments of each trainer; weights of a frozen reference
//!   tokenizer.json       a tokenizer that the phase trained
//!   step.json            a step that was stopped between two of its updates
//!   checksums            of all files above; a resumed phase verifies them
//! ```
//!
//! Everything random is a function of seed, purpose and step. Weights, moments and a step number
//! are therefore the whole state, and a resumed phase ends in the same bits.
//!
//! The folder is replaced atomically: a power cut leaves the previous state or the new one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crisol_engine::Params;
use crisol_hub::write_folder_atomically;
use crisol_report::{PromptReport, RolloutSample};
use crisol_train::{
    Checksum, Checksums, TrainError, Trainer, check_checksums, check_file, load_params,
    load_trainer, save_params, save_trainer, write_checksums,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::PhaseError;
use crate::fingerprint::Fingerprint;
use crate::no_signal::FirstSteps;

const STATE: &str = "state";
const STATE_FILE: &str = "state.json";
const TOKENIZER_FILE: &str = "tokenizer.json";
const STEP_FILE: &str = "step.json";

/// Time between saves, in durations of a save. Saving takes less than 1/50 of the run.
const PAUSE_PER_SAVE: u32 = 50;

/// A model in the saved state; the name is that of its files.
#[derive(Debug)]
pub(crate) enum SavedModel<'t> {
    /// Weights in training and their optimizer's moments.
    Trainer(&'static str, &'t mut Trainer),
    /// Weights that do not change during the stage (a reference policy).
    Frozen(&'static str, &'t mut Params),
}

/// Number and cost of the saves of a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SaveStats {
    /// How many times the state was saved.
    pub count: u64,
    /// Bytes written, all saves together.
    pub bytes: u64,
    /// Seconds spent, all saves together.
    pub seconds: f64,
}

/// `state.json`: the progress of a phase, besides weights and moments.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) stage: String,
    pub(crate) stage_steps: u64,
    pub(crate) finished_stages: Vec<String>,
    /// Steps over all stages.
    pub(crate) steps: u64,
    pub(crate) tokens: u64,
    pub(crate) flops: f64,
    /// Wall-clock time of the phase, all attempts together.
    pub(crate) seconds: f64,
    /// Missing in states of earlier versions.
    #[serde(default)]
    pub(crate) sampling_seconds: f64,
    /// Forecast of the stages so far; 0 if the machine was not calibrated.
    #[serde(default)]
    pub(crate) expected_seconds: f64,
    /// Measures of the trained model.
    pub(crate) metrics: BTreeMap<String, f64>,
    /// Measures of the starting model.
    #[serde(default)]
    pub(crate) before: BTreeMap<String, f64>,
    /// Held-out prompts and the starting model's answers.
    #[serde(default)]
    pub(crate) prompts: Vec<PromptReport>,
    pub(crate) rollouts: Vec<RolloutSample>,
    pub(crate) notes: Vec<String>,
    /// Of the phase's inputs.
    pub(crate) fingerprint: Fingerprint,
    /// Checksum of the metrics file up to this step.
    pub(crate) logged: Option<Checksum>,
    /// Updates of each optimizer so far.
    pub(crate) updates: BTreeMap<String, u64>,
    pub(crate) saves: SaveStats,
    /// Missing in states of earlier versions.
    #[serde(default)]
    pub(crate) first_steps: FirstSteps,
}

/// The state folder of a phase that is running, and what of it is not in [`State`].
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    /// Stage of the state on disk, and checksums of its files.
    stage: String,
    sums: Checksums,
    /// JSON of a tokenizer that the phase trained.
    pub(crate) tokenizer: Option<String>,
    /// JSON of a step that was stopped between two of its updates.
    partial_step: Option<String>,
    saved_at: Instant,
    /// Minimum time until the next save.
    pause: Duration,
    /// `checkpoint_seconds` of the recipe.
    min_pause: Duration,
}

impl StateFolder {
    /// Opens the state folder in a phase's progress folder. Returns the state that an interrupted
    /// attempt left, after verifying the checksums; `None` if there is none.
    pub(crate) fn open(
        progress: &Path,
        checkpoint_seconds: u64,
    ) -> Result<(StateFolder, Option<State>), PhaseError> {
        std::fs::create_dir_all(progress).map_err(|e| PhaseError::io(progress, e))?;
        let path = progress.join(STATE);
        crisol_hub::recover_folder(&path)?;
        let min_pause = Duration::from_secs(checkpoint_seconds);
        let mut folder = StateFolder {
            path,
            stage: String::new(),
            sums: Checksums::new(),
            tokenizer: None,
            partial_step: None,
            saved_at: Instant::now(),
            pause: min_pause,
            min_pause,
        };
        if !folder.path.exists() {
            return Ok((folder, None));
        }
        folder.sums = check_checksums(&folder.path)?;
        let state = read_state(&folder.path)?;
        folder.tokenizer = folder.read_listed(TOKENIZER_FILE)?;
        folder.partial_step = folder.read_listed(STEP_FILE)?;
        folder.stage.clone_from(&state.stage);
        Ok((folder, Some(state)))
    }

    /// The text of a file, if the checksums list it.
    fn read_listed(&self, name: &str) -> Result<Option<String>, PhaseError> {
        let file = self.path.join(name);
        let text = || std::fs::read_to_string(&file).map_err(|e| PhaseError::io(&file, e));
        self.sums.contains_key(name).then(text).transpose()
    }

    /// Loads weights and moments of a stage of `total` steps, and checks them against `state`.
    pub(crate) fn restore(
        &self,
        state: &State,
        total: u64,
        models: &mut [SavedModel<'_>],
    ) -> Result<(), PhaseError> {
        let damaged =
            |cause: String| TrainError::DamagedState { file: self.path.join(STATE_FILE), cause };
        if state.stage_steps > total {
            let cause = format!("it is after step {} of {total}", state.stage_steps);
            return Err(damaged(cause).into());
        }
        for model in models {
            match model {
                SavedModel::Trainer(name, trainer) => {
                    load_trainer(&self.path, name, trainer)?;
                    let (loaded, recorded) = (trainer.optimizer.steps(), state.updates.get(*name));
                    if recorded != Some(&loaded) {
                        let cause =
                            format!("{name} has made {loaded} updates, but it says {recorded:?}");
                        return Err(damaged(cause).into());
                    }
                }
                SavedModel::Frozen(name, params) => load_params(&self.path, name, params)?,
            }
        }
        Ok(())
    }

    /// Whether the next save is due.
    pub(crate) fn is_due(&self) -> bool {
        self.saved_at.elapsed() >= self.pause
    }

    /// Replaces the folder atomically. Counts the save in `state.saves`.
    pub(crate) fn save(
        &mut self,
        state: &mut State,
        models: &mut [SavedModel<'_>],
    ) -> Result<(), PhaseError> {
        let began = Instant::now();
        // Frozen weights are on disk already if the saved state is of this stage.
        let same_stage = self.stage == state.stage;
        let mut sums = Checksums::new();
        write_folder_atomically(&self.path, |dir| -> Result<(), PhaseError> {
            let mut linked = Checksums::new();
            for model in models {
                match model {
                    SavedModel::Trainer(name, trainer) => save_trainer(dir, name, trainer)?,
                    SavedModel::Frozen(name, params) => {
                        let file = format!("{name}.safetensors");
                        let known = self.sums.get(&file).filter(|_| same_stage);
                        match known.filter(|_| {
                            std::fs::hard_link(self.path.join(&file), dir.join(&file)).is_ok()
                        }) {
                            Some(sum) => drop(linked.insert(file, sum.clone())),
                            None => save_params(dir, name, params)?,
                        }
                    }
                }
            }
            let write = |name: &str, text: &str| {
                std::fs::write(dir.join(name), text).map_err(|e| PhaseError::io(dir, e))
            };
            if let Some(tokenizer) = &self.tokenizer {
                write(TOKENIZER_FILE, tokenizer)?;
            }
            if let Some(step) = &self.partial_step {
                write(STEP_FILE, step)?;
            }
            let json = serde_json::to_string_pretty(state)
                .map_err(|cause| PhaseError::BrokenState { file: dir.join(STATE_FILE), cause })?;
            write(STATE_FILE, &json)?;
            sums = write_checksums(dir, &linked)?;
            let written = sums.iter().filter(|(name, _)| !linked.contains_key(*name));
            state.saves.bytes += written.map(|(_, sum)| sum.bytes).sum::<u64>();
            Ok(())
        })?;
        self.sums = sums;
        self.stage.clone_from(&state.stage);
        self.saved_at = Instant::now();
        let duration = began.elapsed();
        state.saves.count += 1;
        state.saves.seconds += duration.as_secs_f64();
        self.pause = pause_after(duration, self.min_pause);
        Ok(())
    }

    /// Adds a step that was stopped between two of its updates to what is saved.
    pub(crate) fn set_partial_step(&mut self, step: &impl Serialize) -> Result<(), PhaseError> {
        let json = serde_json::to_string(step).map_err(|cause| self.broken(STEP_FILE, cause))?;
        self.partial_step = Some(json);
        Ok(())
    }

    /// Takes the step that a resumed stage goes on within, if it was stopped within one.
    pub(crate) fn take_partial_step<S: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<S>, PhaseError> {
        let Some(json) = self.partial_step.take() else { return Ok(None) };
        serde_json::from_str(&json).map(Some).map_err(|cause| self.broken(STEP_FILE, cause))
    }

    /// Whether a step was stopped between two of its updates.
    pub(crate) fn has_partial_step(&self) -> bool {
        self.partial_step.is_some()
    }

    fn broken(&self, file: &str, cause: serde_json::Error) -> PhaseError {
        PhaseError::BrokenState { file: self.path.join(file), cause }
    }
}

/// Minimum time between the end of a save and the next one.
fn pause_after(save: Duration, min_pause: Duration) -> Duration {
    save.saturating_mul(PAUSE_PER_SAVE).max(min_pause)
}

/// Updates of each optimizer so far.
pub(crate) fn update_counts(models: &[SavedModel<'_>]) -> BTreeMap<String, u64> {
    let counts = models.iter().filter_map(|model| match model {
        SavedModel::Trainer(name, trainer) => Some(((*name).to_owned(), trainer.optimizer.steps())),
        SavedModel::Frozen(..) => None,
    });
    counts.collect()
}

/// The fingerprint of an unfinished phase; `None` if it has saved nothing yet.
pub(crate) fn saved_fingerprint(progress: &Path) -> Result<Option<Fingerprint>, PhaseError> {
    let folder = crisol_hub::resolve_folder(&progress.join(STATE))?;
    if !folder.exists() {
        return Ok(None);
    }
    check_file(&folder, STATE_FILE)?;
    Ok(Some(read_state(&folder)?.fingerprint))
}

fn read_state(folder: &Path) -> Result<State, PhaseError> {
    let file = folder.join(STATE_FILE);
    let text = std::fs::read_to_string(&file).map_err(|e| PhaseError::io(&file, e))?;
    serde_json::from_str(&text).map_err(|cause| PhaseError::BrokenState { file, cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saves_take_at_most_two_percent_of_the_time() {
        for (milliseconds, minimum) in [(1, 30), (1, 0), (600, 30), (281_000, 30), (40_000, 3600)] {
            let save = Duration::from_millis(milliseconds);
            let pause = pause_after(save, Duration::from_secs(minimum));
            assert!(
                save.as_secs_f64() <= 0.02 * (save + pause).as_secs_f64(),
                "{save:?} {pause:?}"
            );
            assert!(pause >= Duration::from_secs(minimum));
        }
        let minimum = Duration::from_secs(30);
        assert_eq!(pause_after(Duration::from_millis(1), minimum), minimum);
    }
}
