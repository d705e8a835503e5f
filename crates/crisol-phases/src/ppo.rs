//! Phase 4b: reinforcement learning from human feedback (Ouyang et al. 2022, arXiv:2203.02155) with
//! PPO (Schulman et al. 2017, arXiv:1707.06347), in the details of Huang et al. 2024
//! (arXiv:2403.17031). Each step:
//!
//! - samples an answer to each of some prompts;
//! - scores it with the reward model; each token pays a KL penalty for leaving the reference;
//! - estimates advantages by GAE from the value model's predictions;
//! - trains the policy on the clipped loss, and the value model on the returns.

use std::path::Path;

use crisol_cost::phases::{Phase, PhaseOptions};
use crisol_model::Checkpoint;
use crisol_objectives::policy::PolicyStats;
use crisol_objectives::ppo::{self, Options, RewardOptions};
use crisol_objectives::{BatchSize, LossAndGrad, TokenScores};
use crisol_train::{Output, Trainer};

use crate::PhaseError;
use crate::context::PhaseContext;
use crate::cost_shape::cost_shape;
use crate::evaluation::{HELD_OUT_REWARD, mean_reward};
use crate::forecast::plan::StagePlan;
use crate::on_policy::{Algorithm, Position, Sampled, Stage, StageSettings, Updates};
use crate::rollouts::{Minibatch, PolicyTerms, Rollout, examples, offsets, tokens};
use crate::settings::PpoSettings;

/// Describes the stage, for forecasts.
pub(crate) fn plan(settings: &PpoSettings) -> StagePlan<'_> {
    let updates = settings.rollout.epochs as u32;
    StagePlan {
        name: "ppo",
        phase: Phase::Ppo,
        options: PhaseOptions { updates, old_logprobs: false, ..PhaseOptions::default() },
        rule: settings.optimizer.rule,
        heldout_passes: 0.0,
        replay: Some(&settings.replay),
    }
}

/// Aligns `start` with the reward model in the checkpoint folder `reward_model`.
pub(crate) fn ppo(
    ctx: &mut PhaseContext<'_>,
    settings: &PpoSettings,
    start: Checkpoint,
    reward_model: &Path,
) -> Result<Checkpoint, PhaseError> {
    let context = start.model.config().max_document_len();
    let encode = |record: &_| start.text.rollout_prompt(record, context);
    let (prompts, records) = ctx.encode("", &settings.data, context, encode)?;
    let reward = Checkpoint::load_beside(&start, reward_model, ctx.device)?;
    if reward.text.tokenizer.to_json() != start.text.tokenizer.to_json() {
        return Err(PhaseError::OtherTokenizer { folder: reward_model.to_path_buf() });
    }
    let heldout = ctx.run.evaluate.files(&settings.heldout);
    if !heldout.is_empty() && !ctx.measured_before(HELD_OUT_REWARD) {
        let mean = mean_reward(ctx, &heldout, &start, &reward, &settings.rollout)?;
        ctx.measure_before(HELD_OUT_REWARD, mean);
    }
    let stage_settings = StageSettings {
        rollout: &settings.rollout,
        optimizer: &settings.optimizer,
        replay: &settings.replay,
        steps: settings.steps,
    };
    let stage = Stage::new(ctx, start, prompts, records, stage_settings)?;
    // The value model starts from the reward model.
    let (value_model, value_params) = reward.model.scalar_from(&reward.params, 0);
    let scalar = cost_shape(value_model.config());
    stage.forecast(ctx, &plan(settings), &stage.replay_lengths(), Some(&scalar));

    let value = ctx.trainer(value_model, value_params, &settings.value_optimizer);
    let options = Options {
        clip: settings.clip,
        value_clip: settings.value_clip,
        entropy_bonus: settings.entropy_coefficient,
    };
    let trained =
        stage.train(ctx, "ppo", &mut Ppo { settings, reward: &reward, value, options })?;
    if !heldout.is_empty() {
        let mean = mean_reward(ctx, &heldout, &trained, &reward, &settings.rollout)?;
        ctx.measure(HELD_OUT_REWARD, mean);
    }
    Ok(trained)
}

struct Ppo<'a> {
    settings: &'a PpoSettings,
    reward: &'a Checkpoint,
    value: Trainer,
    options: Options,
}

impl Algorithm for Ppo<'_> {
    fn estimate_advantages(
        &mut self,
        ctx: &mut PhaseContext<'_>,
        stage: &Stage<'_>,
        Sampled { rollouts, .. }: &mut Sampled,
    ) -> Result<(), PhaseError> {
        stage.score_by_reference(ctx, rollouts.iter_mut())?;
        let documents = examples(rollouts);
        let scores = ctx.scores((&self.reward.model, &self.reward.params), &documents)?;
        let values = ctx.values((&self.value.model, &self.value.params), &documents)?;
        for ((rollout, score), values) in rollouts.iter_mut().zip(scores).zip(values) {
            let log_ratios = rollout.old_logp.iter().zip(&rollout.reference_logp);
            let kl: f32 = log_ratios.map(|(old, reference)| old - reference).sum();
            rollout.reward = score;
            rollout.reward_parts = vec![("kl", f64::from(kl))];
            rollout.old_values = values;
        }
        estimate(rollouts, self.settings);
        Ok(())
    }

    fn policy_loss(
        &self,
        scores: &TokenScores<'_>,
        PolicyTerms { old, reference, advantages }: &PolicyTerms,
        size: BatchSize,
    ) -> LossAndGrad<PolicyStats> {
        ppo::policy_loss(scores, old, reference, advantages, &self.options, size)
    }

    fn value_model(&mut self) -> Option<&mut Trainer> {
        Some(&mut self.value)
    }

    fn update_value(
        &mut self,
        ctx: &mut PhaseContext<'_>,
        minibatch: &Minibatch<'_>,
        at: Position,
    ) -> Result<Updates, PhaseError> {
        let Ppo { settings, value, options, .. } = self;
        let (batch, size) = (&minibatch.batch, minibatch.size);
        let config = settings.value_optimizer.at_step(at.step, at.total);
        let done = ctx.step(value, batch, Output::Scalar, &config, |shard, scores| {
            let old = minibatch.gather(shard, |rollout| &rollout.old_values);
            let returns = minibatch.gather(shard, |rollout| &rollout.returns);
            ppo::value_loss(scores, &old, &returns, options, size)
        })?;
        Ok(Updates { value_loss: done.loss, value: done.stats, ..Updates::default() })
    }
}

/// Token rewards (score at the end, KL penalty at each token), whitened; then advantages by GAE,
/// whitened.
fn estimate(rollouts: &mut [Rollout], settings: &PpoSettings) {
    let reward_options = RewardOptions {
        kl_coefficient: settings.kl_coefficient,
        missing_end_penalty: settings.missing_end_penalty,
    };
    let offsets = offsets(rollouts);
    let scores: Vec<f32> = rollouts.iter().map(|rollout| rollout.reward).collect();
    let ended: Vec<bool> = rollouts.iter().map(|rollout| rollout.ended).collect();
    let (old, reference) =
        (tokens(rollouts, |r| &r.old_logp), tokens(rollouts, |r| &r.reference_logp));
    let mut rewards =
        ppo::token_rewards(&scores, &ended, &old, &reference, &offsets, &reward_options);
    if settings.whiten_rewards {
        ppo::whiten(&mut rewards, false);
    }
    let values = tokens(rollouts, |r| &r.old_values);
    let mut estimated =
        ppo::advantages(&rewards, &values, &offsets, settings.gamma, settings.lambda);
    ppo::whiten(&mut estimated.advantages, true);
    for (rollout, range) in rollouts.iter_mut().zip(offsets.windows(2)) {
        let range = range[0] as usize..range[1] as usize;
        rollout.advantages = estimated.advantages[range.clone()].to_vec();
        rollout.returns = estimated.returns[range].to_vec();
    }
}
