//! The loop of a stage that trains one model on batches of data. (Stages that sample their data: `on_policy.rs`.)

use crisol_engine::OptimizerConfig;
use crisol_train::{Step, Trainer};

use crate::PhaseError;
use crate::context::{PhaseContext, Saved, update_rule};
use crate::settings::OptimizerSettings;

/// What a step reports.
pub(crate) struct Made {
    pub(crate) loss: f64,
    pub(crate) grad_norm: f64,
    /// Tokens of its batch.
    pub(crate) tokens: usize,
    /// Metrics besides loss, gradient norm and learning rate.
    pub(crate) metrics: Vec<(&'static str, f64)>,
}

impl Made {
    pub(crate) fn new<S>(step: &Step<S>, tokens: usize, metrics: Vec<(&'static str, f64)>) -> Made {
        Made { loss: step.loss, grad_norm: step.grad_norm, tokens, metrics }
    }
}

/// Makes the steps from `first` (from 0) to the last of `total`, logging and saving as due. The trainer is saved as
/// `name`.
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
    ) -> Result<Made, PhaseError>,
) -> Result<(), PhaseError> {
    for number in first..total {
        let config = update_rule(optimizer, number, total);
        let made = step(ctx, trainer, number, &config)
            .map_err(|error| ctx.stopped(error, &mut [Saved::Trainer(name, trainer)]))?;
        let mut metrics =
            vec![("loss", made.loss), ("grad_norm", made.grad_norm), ("lr", f64::from(config.lr))];
        metrics.extend(made.metrics);
        let saved = &mut [Saved::Trainer(name, trainer)];
        ctx.end_step(number + 1, total, made.tokens as u64, &metrics, saved)?;
    }
    Ok(())
}
