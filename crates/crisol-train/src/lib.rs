//! Training, whatever the objective: the step (forward, objective, backward, optimizer), schedules,
//! state that resumes bit for bit, metrics, and stopping on request.

mod checksums;
mod metrics;
mod random;
mod schedule;
mod tensorboard;
mod trainer;
mod trainer_state;

use std::path::PathBuf;

pub use checksums::{Checksum, Checksums, check_checksums, check_file, write_checksums};
pub use crisol_engine::Interrupt;
pub use metrics::{MetricsWriter, read_metrics};
pub use random::{derived_seed, permutation, random_stream};
pub use schedule::Schedule;
pub use tensorboard::EventWriter;
pub use trainer::{Output, Step, Trainer, TrainerOptions, evaluate};
pub use trainer_state::{load_params, load_trainer, save_params, save_trainer};

/// Errors of training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A file could not be read or written.
    #[error(
        "cannot use {}: {source}; check the path, its permissions and the space left on the disk",
        path.display()
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Hub(#[from] crisol_hub::HubError),
    /// The model rejected its input.
    #[error(transparent)]
    Model(#[from] crisol_model::ModelError),
    /// The loss or the gradient is not finite.
    #[error(
        "training diverged at step {step}: the loss is {loss} and the gradient norm {grad_norm} \
         (learning rate {lr:.1e}). \
         The weights are as they were before this step. {diagnosis} \
         Remedies: lower `optimizer.lr`, more `warmup`, \
         `max_grad_norm = 1`, or look for broken records in the data"
    )]
    Diverged {
        /// Optimizer step, from 1.
        step: u64,
        /// Loss of the step.
        loss: f64,
        /// Norm of its gradient.
        grad_norm: f64,
        /// Learning rate of the step.
        lr: f64,
        /// The cause, as far as it is known.
        diagnosis: String,
    },
    /// A file of a saved state is damaged.
    #[error(
        "{}, part of the saved state of an interrupted phase, is damaged: {cause}. \
         Restore it, or delete the phase's folder under progress/ to start the phase again",
        file.display()
    )]
    DamagedState {
        /// The file.
        file: PathBuf,
        /// How it is damaged.
        cause: String,
    },
    /// A stop was requested. The weights are as before the step.
    #[error("stopped on request")]
    Stopped,
    /// The batch has no trained token.
    #[error(
        "step {step} would train zero tokens: every token of its documents is masked or is the \
         first of its document"
    )]
    NothingToTrain {
        /// Optimizer step, from 1.
        step: u64,
    },
}

impl TrainError {
    /// Whether this is the response to a requested stop, not a failure.
    pub fn is_stop(&self) -> bool {
        matches!(self, TrainError::Stopped | TrainError::Model(crisol_model::ModelError::Stopped))
    }
}
