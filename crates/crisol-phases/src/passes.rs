//! Passes over documents: forward passes and optimizer steps.
//!
//! The methods of [`PhaseContext`] also count their floating-point operations for the report.

use crisol_engine::{OptimizerConfig, Params, Precision};
use crisol_model::Model;
use crisol_objectives::{LossAndGrad, Stats, TokenScores};
use crisol_text::Example;
use crisol_train::{Output, Step, Trainer, evaluate};

use crate::PhaseError;
use crate::batch::{Batch, Rows};
use crate::context::PhaseContext;
use crate::cost_shape::cost_shape;
use crate::forecast::lengths::{Length, forward};

/// Log-probs alone, at temperature 1.
pub(crate) const LOGPROBS: Output = Output::TokenScores { logit_scale: 1.0, entropy: false };

/// Log-probs of the trained tokens of each example.
pub(crate) fn logprobs<'e>(
    model: &Model,
    params: &Params,
    examples: impl IntoIterator<Item = &'e Example>,
    logit_scale: f32,
    shard_tokens: usize,
) -> Result<Vec<Vec<f32>>, PhaseError> {
    let batch = Batch::of_documents(examples, shard_tokens);
    let output = Output::TokenScores { logit_scale, entropy: false };
    let parts = evaluate(model, params, &batch.shards, output, |_, scores| {
        per_document(scores.logp, scores.offsets)
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// Outputs of a scalar head at the rows that predict the trained tokens of each example.
pub(crate) fn values<'e>(
    model: &Model,
    params: &Params,
    examples: impl IntoIterator<Item = &'e Example>,
    shard_tokens: usize,
) -> Result<Vec<Vec<f32>>, PhaseError> {
    let batch = Batch::of_documents(examples, shard_tokens);
    let parts = evaluate(model, params, &batch.shards, Output::Scalar, |_, scores| {
        per_document(scores.value, scores.offsets)
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// A reward model's score of each example: its output at the last token.
pub(crate) fn scores<'e>(
    model: &Model,
    params: &Params,
    examples: impl IntoIterator<Item = &'e Example>,
    shard_tokens: usize,
) -> Result<Vec<f32>, PhaseError> {
    let groups: Vec<[&Example; 1]> = examples.into_iter().map(|example| [example]).collect();
    let batch = Batch::new(&groups, Rows::Last, shard_tokens);
    let parts =
        evaluate(model, params, &batch.shards, Output::Scalar, |_, scores| scores.value.to_vec())?;
    Ok(parts.concat())
}

fn per_document(numbers: &[f32], offsets: &[u32]) -> Vec<Vec<f32>> {
    offsets.windows(2).map(|r| numbers[r[0] as usize..r[1] as usize].to_vec()).collect()
}

/// Statistics of an objective over all shards, measured in f32.
pub(crate) fn statistics<S: Stats + Send>(
    model: &Model,
    params: &Params,
    batch: &Batch,
    output: Output,
    objective: impl Fn(usize, &TokenScores<'_>) -> LossAndGrad<S> + Sync,
) -> Result<S, PhaseError> {
    let params = &params.in_precision(Precision::F32);
    let parts = evaluate(model, params, &batch.shards, output, |shard, scores| {
        objective(shard, scores).stats
    })?;
    Ok(parts.into_iter().fold(S::default(), |mut sum, part| {
        sum += part;
        sum
    }))
}

impl PhaseContext<'_> {
    /// As [`logprobs`].
    pub(crate) fn logprobs(
        &mut self,
        (model, params): (&Model, &Params),
        examples: &[&Example],
        logit_scale: f32,
    ) -> Result<Vec<Vec<f32>>, PhaseError> {
        self.count_forward(model, examples);
        logprobs(model, params, examples.iter().copied(), logit_scale, self.run.shard_tokens)
    }

    /// As [`values`].
    pub(crate) fn values(
        &mut self,
        (model, params): (&Model, &Params),
        examples: &[&Example],
    ) -> Result<Vec<Vec<f32>>, PhaseError> {
        self.count_forward(model, examples);
        values(model, params, examples.iter().copied(), self.run.shard_tokens)
    }

    /// As [`scores`].
    pub(crate) fn scores(
        &mut self,
        (model, params): (&Model, &Params),
        examples: &[&Example],
    ) -> Result<Vec<f32>, PhaseError> {
        self.count_forward(model, examples);
        scores(model, params, examples.iter().copied(), self.run.shard_tokens)
    }

    /// Counts a forward pass.
    pub(crate) fn count_forward(&mut self, model: &Model, examples: &[&Example]) {
        let shape = cost_shape(model.config());
        self.count_flops(forward(&shape, examples.iter().map(|example| Length::of(example))));
    }

    /// One optimizer step.
    pub(crate) fn step<S: Stats + Send>(
        &mut self,
        trainer: &mut Trainer,
        batch: &Batch,
        output: Output,
        config: &OptimizerConfig,
        objective: impl Fn(usize, &TokenScores<'_>) -> LossAndGrad<S> + Sync,
    ) -> Result<Step<S>, PhaseError> {
        let step = trainer.step(&batch.shards, output, config, objective)?;
        let shape = cost_shape(trainer.model.config());
        self.count_flops(batch.forward_flops(&shape) * shape.training_factor());
        Ok(step)
    }
}
