//! Phase 4b: reinforcement learning from human feedback (Ouyang et al. 2022, arXiv:2203.02155) with PPO (Schulman et al.
//! 2017, arXiv:1707.06347). Details are those of Huang et al. 2024, arXiv:2403.17031. Each step:
//!
//! - samples an answer to each of some prompts;
//! - scores it with the reward model; each token pays a KL penalty for leaving the reference;
//! - estimates advantages by GAE from the value model's predictions;
//! - trains the policy on the clipped loss, and the value model on the returns.

use std::ops::AddAssign;
use std::path::Path;

use crisol_cost::phases::{Phase, PhaseOptions};
use crisol_engine::Params;
use crisol_model::{Checkpoint, Model};
use crisol_objectives::Stats;
use crisol_objectives::policy::PolicyStats;
use crisol_objectives::ppo::{self, Options, RewardOptions, ValueStats};
use crisol_text::{Record, TextSetup, encode_records};
use crisol_train::{Output, Trainer};
use serde::{Deserialize, Serialize};

use crate::PhaseError;
use crate::context::{PhaseContext, Saved};
use crate::evaluation::{HELD_OUT_REWARD, mean_reward};
use crate::forecast::plan::{Shapes, StagePlan};
use crate::on_policy::{self, Moment, OnPolicy, Sampled, Updated};
use crate::replay::{Replay, WithReplay};
use crate::rollouts::{Minibatch, Rollout, choose_prompts, examples, keep_samples, sample};
use crate::settings::PpoSettings;

/// The stage as data.
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
    let Checkpoint { model, params, text } = start;
    let context = model.config().max_document_len();
    let records = ctx.records(&settings.data)?;
    let encoded = encode_records(&records, |record| text.rollout_prompt(record, context))?;
    ctx.note_data("", &encoded.summary, context);
    let prompts: Vec<Vec<u32>> = encoded.examples;
    let reward = Checkpoint::load(reward_model, ctx.device)?;
    if reward.text.tokenizer.to_json() != text.tokenizer.to_json() {
        return Err(PhaseError::OtherTokenizer { folder: reward_model.to_path_buf() });
    }
    let reward = (&reward.model, &reward.params);
    let heldout = ctx.run.evaluate.files(&settings.heldout);
    if !heldout.is_empty() && !ctx.measured_before(HELD_OUT_REWARD) {
        let mean = mean_reward(ctx, &heldout, (&model, &params, &text), reward, &settings.rollout)?;
        ctx.measure_before(HELD_OUT_REWARD, mean);
    }
    let replay = Replay::load(ctx, &settings.replay, &text, context)?;
    // The value model starts from the reward model: it already knows what is worth what.
    let (value_model, value_params) = reward.0.scalar_from(reward.1, 0);

    let (policy_shape, scalar) = (model.config().cost_shape(), value_model.config().cost_shape());
    let shapes = Shapes { policy: &policy_shape, scalar: &scalar };
    let (rollout, steps, tokens) =
        (&settings.rollout, settings.steps, prompts.iter().map(Vec::len));
    let learned = replay.lengths();
    on_policy::forecast(ctx, &plan(settings), shapes, rollout, steps, tokens, &learned, &replay);

    let mut rlhf = Rlhf {
        settings,
        text: &text,
        prompts: &prompts,
        records: encoded.records.iter().map(|&i| &records[i]).collect(),
        reward,
        reference: params.duplicate(),
        policy: Trainer::new(model, params),
        value: Trainer::new(value_model, value_params),
        replay,
        logit_scale: (1.0 / settings.rollout.temperature) as f32,
    };
    on_policy::train(ctx, "ppo", &mut rlhf, rollout, &settings.optimizer, steps)?;
    let Trainer { model, params, .. } = rlhf.policy;
    if !heldout.is_empty() {
        let mean = mean_reward(ctx, &heldout, (&model, &params, &text), reward, &settings.rollout)?;
        ctx.measure(HELD_OUT_REWARD, mean);
    }
    Ok(Checkpoint { model, params, text })
}

struct Rlhf<'a> {
    settings: &'a PpoSettings,
    text: &'a TextSetup,
    prompts: &'a [Vec<u32>],
    /// Those of the prompts.
    records: Vec<&'a Record>,
    reward: (&'a Model, &'a Params),
    policy: Trainer,
    value: Trainer,
    /// The policy's weights at the start.
    reference: Params,
    replay: Replay,
    logit_scale: f32,
}

/// Sums over the updates of a step.
#[derive(Default, Serialize, Deserialize)]
struct Sums {
    policy: WithReplay<PolicyStats>,
    value: ValueStats,
    value_loss: f64,
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Sums) {
        self.policy += other.policy;
        self.value += other.value;
        self.value_loss += other.value_loss;
    }
}

impl OnPolicy for Rlhf<'_> {
    type Stats = Sums;
    /// The policy, then the value model.
    const MODELS: usize = 2;

    fn saved(&mut self) -> Vec<Saved<'_>> {
        vec![
            Saved::Trainer("policy", &mut self.policy),
            Saved::Trainer("value", &mut self.value),
            Saved::Frozen("reference", &mut self.reference),
        ]
    }

    fn sample(&mut self, ctx: &mut PhaseContext<'_>, at: Moment) -> Result<Sampled, PhaseError> {
        let &mut Rlhf { settings, text, prompts, ref policy, ref value, logit_scale, .. } = self;
        let chosen = choose_prompts(ctx, prompts.len(), settings.rollout.prompts, at.step);
        let step_prompts: Vec<&[u32]> = chosen.iter().map(|&i| prompts[i].as_slice()).collect();
        let mut rollouts =
            sample(ctx, policy, &step_prompts, &settings.rollout, &text.stop_ids, at.step)?;

        let documents = examples(&rollouts);
        let scores = ctx.scores(self.reward, &documents)?;
        let reference = (&policy.model, &self.reference);
        let reference_logp = ctx.logprobs(reference, &documents, logit_scale)?;
        let old_values = ctx.values((&value.model, &value.params), &documents)?;
        let passes = reference_logp.into_iter().zip(old_values).zip(scores);
        for (rollout, ((reference_logp, old_values), score)) in rollouts.iter_mut().zip(passes) {
            let kl: f32 = rollout.old_logp.iter().zip(&reference_logp).map(|(p, r)| p - r).sum();
            rollout.reference_logp = reference_logp;
            rollout.old_values = old_values;
            rollout.reward = score;
            rollout.reward_parts = vec![("kl", f64::from(kl))];
        }
        estimate_advantages(&mut rollouts, settings);
        let records: Vec<&Record> = chosen.iter().map(|&i| self.records[i]).collect();
        keep_samples(ctx, (at.step, at.total), text, &records, &rollouts);

        Ok(Sampled::new(rollouts, &[]))
    }

    fn update(
        &mut self,
        ctx: &mut PhaseContext<'_>,
        model: usize,
        minibatch: &Minibatch<'_>,
        at: Moment,
    ) -> Result<Updated<Sums>, PhaseError> {
        let Rlhf { settings, policy, value, replay, logit_scale, .. } = self;
        let options = Options {
            clip: settings.clip,
            value_clip: settings.value_clip,
            entropy_bonus: settings.entropy_coefficient,
        };
        let (batch, size) = (&minibatch.batch, minibatch.size);
        if model == 0 {
            let output = Output::TokenScores { logit_scale: *logit_scale, entropy: true };
            let config = at.rule(&settings.optimizer);
            let (done, replayed) = replay.step(
                ctx,
                policy,
                at.minibatch,
                batch,
                output,
                &config,
                |shard, scores| {
                    let [old, reference, advantages] = minibatch.policy_terms(shard);
                    ppo::policy_loss(scores, &old, &reference, &advantages, &options, size)
                },
            )?;
            let updated = Updated::new(done, batch.tokens() + replayed);
            return Ok(updated.map(|policy| Sums { policy, ..Sums::default() }));
        }
        let config = at.rule(&settings.value_optimizer);
        let done = ctx.step(value, batch, Output::Scalar, &config, |shard, scores| {
            let old = minibatch.gather(shard, |rollout| &rollout.old_values);
            let returns = minibatch.gather(shard, |rollout| &rollout.returns);
            ppo::value_loss(scores, &old, &returns, &options, size)
        })?;
        let stats = Sums { value: done.stats, value_loss: done.loss, ..Sums::default() };
        Ok(Updated { loss: 0.0, grad_norm: 0.0, stats, tokens: 0 })
    }

    fn metrics(sums: &Sums, minibatches: f64) -> Vec<(&'static str, f64)> {
        let mut metrics = vec![("value_loss", sums.value_loss / minibatches)];
        metrics.extend(sums.policy.means());
        metrics.extend(sums.value.means());
        metrics
    }
}

/// Token rewards (score at the end, KL penalty at each token), whitened; then advantages by GAE, whitened.
fn estimate_advantages(rollouts: &mut [Rollout], settings: &PpoSettings) {
    let reward_options = RewardOptions {
        kl_coefficient: settings.kl_coefficient,
        missing_end_penalty: settings.missing_end_penalty,
    };
    let mut offsets = vec![0];
    for rollout in rollouts.iter() {
        offsets.push(offsets[offsets.len() - 1] + rollout.completion.len() as u32);
    }
    let flat = |field: fn(&Rollout) -> &[f32]| {
        rollouts.iter().flat_map(|rollout| field(rollout).to_vec()).collect::<Vec<f32>>()
    };
    let scores: Vec<f32> = rollouts.iter().map(|rollout| rollout.reward).collect();
    let ended: Vec<bool> = rollouts.iter().map(|rollout| rollout.ended).collect();
    let (logp, reference) = (flat(|r| &r.old_logp), flat(|r| &r.reference_logp));
    let mut rewards =
        ppo::token_rewards(&scores, &ended, &logp, &reference, &offsets, &reward_options);
    if settings.whiten_rewards {
        ppo::whiten(&mut rewards, false);
    }
    let values = flat(|r| &r.old_values);
    let mut estimated =
        ppo::advantages(&rewards, &values, &offsets, settings.gamma, settings.lambda);
    ppo::whiten(&mut estimated.advantages, true);
    for (rollout, range) in rollouts.iter_mut().zip(offsets.windows(2)) {
        let range = range[0] as usize..range[1] as usize;
        rollout.advantages = estimated.advantages[range.clone()].to_vec();
        rollout.returns = estimated.returns[range].to_vec();
    }
}
