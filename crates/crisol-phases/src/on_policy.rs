//! Reinforcement learning on the policy's own answers: what GRPO and PPO share.
//!
//! ```text
//! for each step:
//!     sample answers to some prompts
//!     reward them, estimate the advantage of each token     Algorithm::estimate_advantages
//!     for each minibatch of epochs × minibatches:
//!         one optimizer step of the policy                  Algorithm::policy_loss
//!         one of the value model, if there is one           Algorithm::update_value
//! ```
//!
//! A stop during sampling discards the step. A stop between two optimizer steps saves the rollouts
//! with the weights ([`StepState`]), and a resumed stage continues with the next one.

use std::ops::AddAssign;

use crisol_cost::ModelShape;
use crisol_engine::Params;
use crisol_model::Checkpoint;
use crisol_objectives::policy::PolicyStats;
use crisol_objectives::ppo::ValueStats;
use crisol_objectives::{BatchSize, LossAndGrad, Stats, TokenScores};
use crisol_text::{Record, TextSetup};
use crisol_train::{Output, Trainer};
use serde::{Deserialize, Serialize};

use crate::PhaseError;
use crate::context::PhaseContext;
use crate::cost_shape::cost_shape;
use crate::forecast::lengths::{Length, Lengths};
use crate::forecast::plan::{Shapes, StageData, StagePlan, answers, rollout_updates};
use crate::replay::{Replay, WithReplay};
use crate::rollouts::{self, Minibatch, PolicyTerms, Rollout, choose_prompts, mean, minibatches};
use crate::settings::{OptimizerSettings, ReplaySettings, RolloutSettings};
use crate::state::SavedModel;
use crate::steps::{GRAD_NORM, LOSS, LR};

/// Name of the mean reward of a step. The divergence monitor recognises these stages by it.
pub(crate) const REWARD: &str = "reward";

/// What an algorithm adds to the loop.
pub(crate) trait Algorithm: Sync {
    /// Rewards the sampled answers and estimates the advantages of their tokens.
    fn estimate_advantages(
        &mut self,
        ctx: &mut PhaseContext<'_>,
        stage: &Stage<'_>,
        sampled: &mut Sampled,
    ) -> Result<(), PhaseError>;

    /// The policy's loss on a shard of a minibatch.
    fn policy_loss(
        &self,
        scores: &TokenScores<'_>,
        terms: &PolicyTerms,
        size: BatchSize,
    ) -> LossAndGrad<PolicyStats>;

    /// The value model. Its saved files are called `value`.
    fn value_model(&mut self) -> Option<&mut Trainer> {
        None
    }

    /// One optimizer step of the value model on a minibatch.
    fn update_value(
        &mut self,
        _ctx: &mut PhaseContext<'_>,
        _minibatch: &Minibatch<'_>,
        _at: Position,
    ) -> Result<Updates, PhaseError> {
        Ok(Updates::default())
    }
}

/// Position of an update in its stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// From 0.
    pub(crate) step: u64,
    /// Steps of the stage.
    pub(crate) total: u64,
    /// Number of the minibatch within the stage, from 0.
    minibatch: u64,
}

/// What was sampled in a step.
pub(crate) struct Sampled {
    pub(crate) step: u64,
    pub(crate) total: u64,
    /// Indices of the step's prompts.
    pub(crate) prompts: Vec<usize>,
    /// Their answers; those to a prompt are adjacent.
    pub(crate) rollouts: Vec<Rollout>,
    /// The algorithm's own metrics.
    pub(crate) metrics: Vec<(String, f64)>,
}

/// Sums over updates.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Updates {
    /// Of the policy.
    pub(crate) loss: f64,
    pub(crate) grad_norm: f64,
    pub(crate) policy: WithReplay<PolicyStats>,
    pub(crate) value_loss: f64,
    pub(crate) value: ValueStats,
    /// Tokens of minibatches and replay, prompts included.
    pub(crate) tokens: usize,
}

impl AddAssign for Updates {
    fn add_assign(&mut self, other: Updates) {
        let Updates { loss, grad_norm, policy, value_loss, value, tokens } = other;
        self.loss += loss;
        self.grad_norm += grad_norm;
        self.policy += policy;
        self.value_loss += value_loss;
        self.value += value;
        self.tokens += tokens;
    }
}

/// A step in progress, saved if a stop comes between two of its optimizer steps.
#[derive(Default, Serialize, Deserialize)]
struct StepState {
    /// Rollouts that are trained on.
    rollouts: Vec<Rollout>,
    /// Number of sampled rollouts, skipped ones included, and of their tokens with prompts.
    sampled: usize,
    sampled_tokens: usize,
    /// Metrics of the samples.
    metrics: Vec<(String, f64)>,
    /// Optimizer steps so far, of all models, and the sums over them.
    made: usize,
    updates: Updates,
}

impl StepState {
    /// The state before the first update.
    fn new(sampled: Sampled) -> StepState {
        let Sampled { mut rollouts, metrics: own, .. } = sampled;
        let common = [
            (REWARD, mean(&rollouts, |rollout| f64::from(rollout.reward))),
            ("response_length", mean(&rollouts, |rollout| rollout.completion.len() as f64)),
            ("ended", mean(&rollouts, |rollout| f64::from(u8::from(rollout.ended)))),
        ];
        let mut metrics = common.map(|(name, value)| (name.to_owned(), value)).to_vec();
        metrics.extend(own);
        let sampled = rollouts.len();
        let sampled_tokens = rollouts.iter().map(|rollout| rollout.example.ids.len()).sum();
        rollouts.retain(|rollout| !rollout.skipped);
        StepState { rollouts, sampled, sampled_tokens, metrics, ..StepState::default() }
    }
}

/// Settings of a stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StageSettings<'s> {
    pub(crate) rollout: &'s RolloutSettings,
    /// The policy's.
    pub(crate) optimizer: &'s OptimizerSettings,
    pub(crate) replay: &'s ReplaySettings,
    pub(crate) steps: u64,
}

/// A stage that trains a policy on its own answers to prompts.
pub(crate) struct Stage<'s> {
    pub(crate) text: TextSetup,
    /// Token ids of the prompts.
    pub(crate) prompts: Vec<Vec<u32>>,
    /// The record of each prompt.
    pub(crate) records: Vec<Record>,
    policy: Trainer,
    /// The policy's weights at the start.
    reference: Params,
    replay: Replay,
    settings: StageSettings<'s>,
}

impl<'s> Stage<'s> {
    /// A stage that trains `start` on prompts and their records.
    pub(crate) fn new(
        ctx: &mut PhaseContext<'_>,
        start: Checkpoint,
        prompts: Vec<Vec<u32>>,
        records: Vec<Record>,
        settings: StageSettings<'s>,
    ) -> Result<Stage<'s>, PhaseError> {
        let Checkpoint { model, params, text } = start;
        let context = model.config().max_document_len();
        let replay = Replay::load(ctx, settings.replay, &text, context)?;
        let reference = params.duplicate();
        let policy = ctx.trainer(model, params, settings.optimizer);
        Ok(Stage { text, prompts, records, policy, reference, replay, settings })
    }

    /// Lengths of the replayed documents.
    pub(crate) fn replay_lengths(&self) -> Lengths {
        self.replay.lengths()
    }

    /// Forecasts the stage. `learned`: lengths of answers that the model was trained on. `scalar`:
    /// shape of the reward and the value model.
    pub(crate) fn forecast(
        &self,
        ctx: &mut PhaseContext<'_>,
        plan: &StagePlan<'_>,
        learned: &Lengths,
        scalar: Option<&ModelShape>,
    ) {
        let StageSettings { rollout, steps, .. } = self.settings;
        let policy = cost_shape(self.policy.model.config());
        let tokens = self.prompts.iter().map(Vec::len);
        let prompts: Lengths = tokens.map(|tokens| Length { tokens, rows: 0 }).collect();
        let answers = answers(rollout, steps, prompts.mean_tokens(), learned);
        let data = StageData {
            all: &answers,
            trained: &answers,
            heldout: &(),
            replay: &self.replay_lengths(),
            updates: rollout_updates(rollout, steps) as usize,
        };
        ctx.forecast(plan, Shapes { policy: &policy, scalar: scalar.unwrap_or(&policy) }, &data);
    }

    /// Trains the policy and returns it.
    pub(crate) fn train(
        mut self,
        ctx: &mut PhaseContext<'_>,
        name: &str,
        algorithm: &mut impl Algorithm,
    ) -> Result<Checkpoint, PhaseError> {
        let StageSettings { rollout: settings, optimizer, steps: total, .. } = self.settings;
        let first = ctx.begin_stage(name, total, &mut self.saved_models(algorithm))?;
        let per_step = (settings.epochs * settings.minibatches) as u64;
        // The policy and the value model take turns.
        let model_count = 1 + usize::from(algorithm.value_model().is_some());
        for step in first..total {
            let mut state: StepState = match ctx.take_partial_step()? {
                Some(state) => state,
                None => match self.sample(ctx, algorithm, step, total) {
                    Ok(sampled) => StepState::new(sampled),
                    Err(error) => {
                        return Err(
                            ctx.stop_before_update(error, &mut self.saved_models(algorithm))
                        );
                    }
                },
            };
            // The minibatches borrow them while the state changes.
            let rollouts = std::mem::take(&mut state.rollouts);
            let minibatches = minibatches(ctx, &rollouts, state.sampled, settings, step);
            for update in state.made..minibatches.len() * model_count {
                let (i, model) = (update / model_count, update % model_count);
                let at = Position { step, total, minibatch: step * per_step + i as u64 };
                let updated = match model {
                    0 => self.update_policy(ctx, algorithm, &minibatches[i], at),
                    _ => algorithm.update_value(ctx, &minibatches[i], at),
                };
                match updated {
                    Ok(updates) => state.updates += updates,
                    Err(error) => {
                        state.rollouts.clone_from(&rollouts);
                        let models = &mut self.saved_models(algorithm);
                        return Err(ctx.stop_between_updates(error, &state, models));
                    }
                }
                state.made += 1;
                ctx.mark_unsaved();
            }
            let StepState { sampled_tokens, metrics, made, updates, .. } = &state;
            let made = (made / model_count) as f64;
            let mut metrics: Vec<(&str, f64)> =
                metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            if made > 0.0 {
                metrics
                    .extend([(LOSS, updates.loss / made), (GRAD_NORM, updates.grad_norm / made)]);
            }
            metrics.push((LR, f64::from(optimizer.at_step(step, total).lr)));
            // With a value model no rollout is skipped, so there are updates.
            if model_count > 1 {
                metrics.push(("value_loss", updates.value_loss / made));
            }
            metrics.extend(updates.policy.means());
            if model_count > 1 {
                metrics.extend(updates.value.means());
            }
            let tokens = (sampled_tokens + updates.tokens) as u64;
            ctx.end_step(step + 1, total, tokens, &metrics, &mut self.saved_models(algorithm))?;
        }
        let Trainer { model, params, .. } = self.policy;
        Ok(Checkpoint { model, params, text: self.text })
    }

    /// Samples answers and estimates their advantages.
    fn sample(
        &mut self,
        ctx: &mut PhaseContext<'_>,
        algorithm: &mut impl Algorithm,
        step: u64,
        total: u64,
    ) -> Result<Sampled, PhaseError> {
        let Stage { text, policy, settings: StageSettings { rollout, .. }, .. } = self;
        let chosen = choose_prompts(ctx, self.prompts.len(), rollout.prompts, step);
        let prompts: Vec<&[u32]> = chosen.iter().map(|&i| self.prompts[i].as_slice()).collect();
        let rollouts = rollouts::sample(ctx, policy, &prompts, rollout, &text.stop_ids, step)?;
        let mut sampled = Sampled { step, total, prompts: chosen, rollouts, metrics: Vec::new() };
        algorithm.estimate_advantages(ctx, self, &mut sampled)?;
        let records: Vec<&Record> = sampled.prompts.iter().map(|&i| &self.records[i]).collect();
        rollouts::report(ctx, (step, total), &self.text, &records, &sampled.rollouts);
        Ok(sampled)
    }

    /// Fills in the log-probs of answers under the reference.
    pub(crate) fn score_by_reference<'r>(
        &self,
        ctx: &mut PhaseContext<'_>,
        rollouts: impl Iterator<Item = &'r mut Rollout>,
    ) -> Result<(), PhaseError> {
        let rollouts: Vec<&mut Rollout> = rollouts.collect();
        let examples: Vec<_> = rollouts.iter().map(|rollout| &rollout.example).collect();
        let reference = (&self.policy.model, &self.reference);
        let logprobs = ctx.logprobs(reference, &examples, self.logit_scale())?;
        for (rollout, logprobs) in rollouts.into_iter().zip(logprobs) {
            rollout.reference_logp = logprobs;
        }
        Ok(())
    }

    fn update_policy(
        &mut self,
        ctx: &mut PhaseContext<'_>,
        algorithm: &impl Algorithm,
        minibatch: &Minibatch<'_>,
        at: Position,
    ) -> Result<Updates, PhaseError> {
        let output = Output::TokenScores { logit_scale: self.logit_scale(), entropy: true };
        let config = self.settings.optimizer.at_step(at.step, at.total);
        let (batch, size) = (&minibatch.batch, minibatch.size);
        let Stage { policy, replay, .. } = self;
        let (done, replayed) =
            replay.step(ctx, policy, at.minibatch, batch, output, &config, |shard, scores| {
                algorithm.policy_loss(scores, &minibatch.policy_terms(shard), size)
            })?;
        Ok(Updates {
            loss: done.loss,
            grad_norm: done.grad_norm,
            policy: done.stats,
            tokens: batch.tokens() + replayed,
            ..Updates::default()
        })
    }

    /// Log-probs are those at the temperature of sampling.
    fn logit_scale(&self) -> f32 {
        (1.0 / self.settings.rollout.temperature) as f32
    }

    fn saved_models<'m>(&'m mut self, algorithm: &'m mut impl Algorithm) -> Vec<SavedModel<'m>> {
        let mut models = vec![SavedModel::Trainer("policy", &mut self.policy)];
        models.extend(algorithm.value_model().map(|value| SavedModel::Trainer("value", value)));
        models.push(SavedModel::Frozen("reference", &mut self.reference));
        models
    }
}
