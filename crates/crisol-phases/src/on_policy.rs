//! The loop of a stage that samples its data: GRPO and PPO.
//!
//! ```text
//! for each step:
//!     sample answers to some prompts, estimate their advantages      OnPolicy::sample
//!     for each minibatch of epochs x minibatches:
//!         for each model that is trained:
//!             one optimizer step                                     OnPolicy::update
//! ```
//!
//! A stop while answers are sampled gives the step up. A stop between two optimizer steps saves the rollouts with the
//! weights ([`StepState`]), and a resumed stage goes on with the next one.

use std::ops::AddAssign;

use crisol_engine::OptimizerConfig;
use crisol_train::Step;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::PhaseError;
use crate::context::{PhaseContext, Saved, update_rule};
use crate::forecast::lengths::{Length, Sampled as Lengths};
use crate::forecast::plan::{Shapes, StageData, StagePlan, answers, rollout_updates};
use crate::replay::Replay;
use crate::rollouts::{Minibatch, Rollout, mean, minibatches};
use crate::settings::{OptimizerSettings, RolloutSettings};

/// An algorithm that trains on its own answers.
pub(crate) trait OnPolicy {
    /// Statistics of updates, summed over a step.
    type Stats: Default + AddAssign + Serialize + DeserializeOwned;
    /// Models that are trained: optimizer steps of each minibatch.
    const MODELS: usize;

    /// What a save holds.
    fn saved(&mut self) -> Vec<Saved<'_>>;

    /// Samples answers and estimates their advantages.
    fn sample(&mut self, ctx: &mut PhaseContext<'_>, at: Moment) -> Result<Sampled, PhaseError>;

    /// One optimizer step of model number `model` on a minibatch.
    fn update(
        &mut self,
        ctx: &mut PhaseContext<'_>,
        model: usize,
        minibatch: &Minibatch<'_>,
        at: Moment,
    ) -> Result<Updated<Self::Stats>, PhaseError>;

    /// Metrics of a step, from the sums over its `minibatches`.
    fn metrics(sums: &Self::Stats, minibatches: f64) -> Vec<(&'static str, f64)>;
}

/// A step of a stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// From 0.
    pub(crate) step: u64,
    /// Steps of the stage.
    pub(crate) total: u64,
    /// Number of the minibatch within the stage, from 0.
    pub(crate) minibatch: u64,
}

impl Moment {
    /// The optimizer's settings at this step.
    pub(crate) fn rule(&self, settings: &OptimizerSettings) -> OptimizerConfig {
        update_rule(settings, self.step, self.total)
    }
}

/// What was sampled in a step.
pub(crate) struct Sampled {
    /// Rollouts that are trained on.
    pub(crate) trained: Vec<Rollout>,
    /// All sampled rollouts and their tokens, prompts included.
    pub(crate) count: usize,
    pub(crate) tokens: usize,
    /// Metrics of the samples.
    pub(crate) metrics: Vec<(&'static str, f64)>,
}

impl Sampled {
    /// All rollouts are trained on. `metrics` come after those that every algorithm has.
    pub(crate) fn new(rollouts: Vec<Rollout>, metrics: &[(&'static str, f64)]) -> Sampled {
        let tokens = rollouts.iter().map(|Rollout { example, .. }| example.ids.len()).sum();
        let mut all = vec![
            ("reward", mean(&rollouts, |rollout| f64::from(rollout.reward))),
            ("response_length", mean(&rollouts, |rollout| rollout.completion.len() as f64)),
            ("ended", mean(&rollouts, |rollout| f64::from(u8::from(rollout.ended)))),
        ];
        all.extend(metrics);
        Sampled { count: rollouts.len(), tokens, trained: rollouts, metrics: all }
    }
}

/// What an optimizer step did.
pub(crate) struct Updated<S> {
    /// Loss and gradient norm of the policy; 0 for another model.
    pub(crate) loss: f64,
    pub(crate) grad_norm: f64,
    pub(crate) stats: S,
    /// Tokens of the minibatch with its replay, prompts included; 0 where they were counted for another model.
    pub(crate) tokens: usize,
}

impl<S> Updated<S> {
    /// A step of the policy.
    pub(crate) fn new(step: Step<S>, tokens: usize) -> Updated<S> {
        let Step { loss, grad_norm, stats } = step;
        Updated { loss, grad_norm, stats, tokens }
    }

    /// With other statistics.
    pub(crate) fn map<T>(self, f: impl FnOnce(S) -> T) -> Updated<T> {
        let Updated { loss, grad_norm, stats, tokens } = self;
        Updated { loss, grad_norm, stats: f(stats), tokens }
    }
}

/// A step while it updates weights: all that is needed to go on after a stop between two optimizer steps.
#[derive(Debug, Default, Serialize, Deserialize)]
struct StepState<S> {
    /// Rollouts that are trained on.
    rollouts: Vec<Rollout>,
    /// Number of rollouts that were sampled.
    sampled: usize,
    /// Metrics of the samples.
    metrics: Vec<(String, f64)>,
    /// Tokens of the samples, and of all updates so far.
    tokens: usize,
    /// Optimizer steps so far, of all models.
    made: usize,
    /// Sums over the updates so far.
    stats: S,
    loss: f64,
    grad_norm: f64,
}

impl<S: Default + AddAssign> StepState<S> {
    fn new(sampled: Sampled) -> StepState<S> {
        let metrics = sampled.metrics.into_iter();
        StepState {
            rollouts: sampled.trained,
            sampled: sampled.count,
            tokens: sampled.tokens,
            metrics: metrics.map(|(name, value)| (name.to_owned(), value)).collect(),
            ..StepState::default()
        }
    }

    fn add(&mut self, updated: Updated<S>) {
        self.made += 1;
        self.loss += updated.loss;
        self.grad_norm += updated.grad_norm;
        self.stats += updated.stats;
        self.tokens += updated.tokens;
    }
}

/// Forecasts a stage of `steps` steps. `prompts`: tokens of all prompts; `learned`: answers that the model has learned
/// from.
pub(crate) fn forecast(
    ctx: &mut PhaseContext<'_>,
    plan: &StagePlan<'_>,
    shapes: Shapes<'_>,
    settings: &RolloutSettings,
    steps: u64,
    prompts: impl Iterator<Item = usize>,
    learned: &Lengths,
    replay: &Replay,
) {
    let prompts: Lengths = prompts.map(|tokens| Length { tokens, rows: 0 }).collect();
    let answers = answers(settings, steps, prompts.mean_tokens(), learned);
    let data = StageData {
        all: &answers,
        trained: &answers,
        heldout: &(),
        replay: &replay.lengths(),
        updates: rollout_updates(settings, steps) as usize,
    };
    ctx.forecast(plan, shapes, &data);
}

/// Trains in `total` steps. `optimizer` is the policy's.
pub(crate) fn train<A: OnPolicy>(
    ctx: &mut PhaseContext<'_>,
    stage: &str,
    algorithm: &mut A,
    settings: &RolloutSettings,
    optimizer: &OptimizerSettings,
    total: u64,
) -> Result<(), PhaseError> {
    let first = ctx.begin_stage(stage, total, &mut algorithm.saved())?;
    let per_step = (settings.epochs * settings.minibatches) as u64;
    for step in first..total {
        let at = |i: usize| Moment { step, total, minibatch: step * per_step + i as u64 };
        let mut state: StepState<A::Stats> = match ctx.step_under_way()? {
            Some(state) => state,
            None => match algorithm.sample(ctx, at(0)) {
                Ok(sampled) => StepState::new(sampled),
                Err(error) => return Err(ctx.stopped(error, &mut algorithm.saved())),
            },
        };
        let rollouts = std::mem::take(&mut state.rollouts);
        let minibatches = minibatches(ctx, &rollouts, state.sampled, settings, step);
        for update in state.made..minibatches.len() * A::MODELS {
            let (i, model) = (update / A::MODELS, update % A::MODELS);
            match algorithm.update(ctx, model, &minibatches[i], at(i)) {
                Ok(updated) => state.add(updated),
                Err(error) => {
                    state.rollouts.clone_from(&rollouts);
                    return Err(ctx.stopped_within(error, &state, &mut algorithm.saved()));
                }
            }
            ctx.updated();
        }
        let made = (state.made / A::MODELS) as f64;
        let mut metrics: Vec<(&str, f64)> =
            state.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        if made > 0.0 {
            metrics.extend([("loss", state.loss / made), ("grad_norm", state.grad_norm / made)]);
        }
        metrics.push(("lr", f64::from(at(0).rule(optimizer).lr)));
        metrics.extend(A::metrics(&state.stats, made));
        ctx.end_step(step + 1, total, state.tokens as u64, &metrics, &mut algorithm.saved())?;
    }
    Ok(())
}
