//! The loop of a stage that trains one model on batches of data. For stages that sample their data,
//! see `on_policy.rs`.

use crisol_engine::OptimizerConfig;
use crisol_train::{Step, Trainer};

use crate::PhaseError;
use crate::context::PhaseContext;
use crate::settings::OptimizerSettings;
use crate::state::SavedModel;

/// Names of the metrics of every stage. The divergence monitor reads them.
pub(crate) const LOSS: &str = "loss";
pub(crate) const GRAD_NORM: &str = "grad_norm";
pub(crate) const LR: &str = "lr";

/// Metrics of a step.
pub(crate) struct StepResult {
    pub(crate) loss: f64,
    pub(crate) grad_norm: f64,
    /// Tokens of its batch.
    pub(crate) tokens: usize,
    /// Metrics besides loss, gradient norm and learning rate.
    pub(crate) metrics: Vec<(&'static str, f64)>,
}

impl StepResult {
    pub(crate) fn new<S>(
        step: &Step<S>,
        tokens: usize,
        metrics: Vec<(&'static str, f64)>,
    ) -> StepResult {
        StepResult { loss: step.loss, grad_norm: step.grad_norm, tokens, metrics }
    }
}

/// Makes the steps from `first` (from 0) to the last of `total`, and logs and saves them. The
/// trainer's files are called `name`.
pub(crate) fn train(
    ctx: &mut PhaseContext<'_>,
    (name, trainer): (&'static str, &mut Trainer),
    optimizer: &OptimizerSettings,
    first: u64,
    total: u64,
    mut step: impl FnMut(
        &mut PhaseContext<'_>,
        &mut Trainer,
        u64,
        &OptimizerConfig,
    ) -> Result<StepResult, PhaseError>,
) -> Result<(), PhaseError> {
    for number in first..total {
        let config = optimizer.at_step(number, total);
        let made = step(ctx, trainer, number, &config).map_err(|error| {
            ctx.stop_before_update(error, &mut [SavedModel::Trainer(name, trainer)])
        })?;
        let mut metrics =
            vec![(LOSS, made.loss), (GRAD_NORM, made.grad_norm), (LR, f64::from(config.lr))];
        metrics.extend(made.metrics);
        let saved = &mut [SavedModel::Trainer(name, trainer)];
        ctx.end_step(number + 1, total, made.tokens as u64, &metrics, saved)?;
    }
    Ok(())
}
