//! Phase 4b: reinforcement learning from human feedback (Ouyang et al. 2022, arXiv:2203.02155) with PPO (Schulman
//! et al. 2017, arXiv:1707.06347). The policy answers prompts, the reward model scores the answers, a value model
//! learns what score to expect, and the policy moves towards what scored better than expected, held back by a
//! KL penalty to where it started. The order of steps is that of Huang et al. 2024, arXiv:2403.17031.

use std::path::Path;

use crisol_cost::ModelShape;
use crisol_engine::Params;
use crisol_model::{Checkpoint, Model, SamplingOptions, generate};
use crisol_objectives::Stats;
use crisol_objectives::policy::PolicyStats;
use crisol_objectives::ppo::{self, Options, RewardOptions, ValueStats};
use crisol_report::RolloutSample;
use crisol_text::{Packed, Record, TextSetup, encode_records, pack};
use crisol_train::{Output, Trainer, evaluate};
use serde::{Deserialize, Serialize};

use crate::PhaseError;
use crate::behaviours::{prompt_text, reply_text};
use crate::context::{PhaseContext, Saved, update_rule};
use crate::evaluation::HELD_OUT_REWARD;
use crate::expectation::{Rollouts, answer, mean};
use crate::replay::{Replay, WithReplay};
use crate::rollouts::{Rollout, Updating, choose_prompts, sample, updates};
use crate::settings::PpoSettings;
use crate::supervised::{example_flops, logprobs, training_flops, values};

/// Aligns `start` against the reward model in the checkpoint folder `reward_model`.
pub(crate) fn ppo(
    ctx: &mut PhaseContext<'_>,
    settings: &PpoSettings,
    start: Checkpoint,
    reward_model: &Path,
) -> Result<Checkpoint, PhaseError> {
    let Checkpoint { model, params, text } = start;
    let context = model.config().longest_document();
    let records = ctx.records(&settings.data)?;
    let encoded = encode_records(&records, |record| text.rollout_prompt(record, context))?;
    ctx.note_data("", &encoded.summary, context);
    let prompts: Vec<Vec<u32>> = encoded.examples;
    let records: Vec<&Record> = encoded.records.iter().map(|&i| &records[i]).collect();
    let judge = Checkpoint::load(reward_model, ctx.device)?;
    if judge.text.tokenizer.to_json() != text.tokenizer.to_json() {
        return Err(PhaseError::OtherTokenizer { folder: reward_model.to_path_buf() });
    }
    let Checkpoint { model: judge, params: judge_params, .. } = judge;
    // The value model starts from the reward model: it already knows what is worth what.
    let (value_model, value_params) = judge.scalar_from(&judge_params, 0);

    let options = Options {
        clip: settings.clip,
        value_clip: settings.value_clip,
        entropy_bonus: settings.entropy_coefficient,
    };
    let held_out = ctx.run.evaluate.files(&settings.heldout);
    let reward_of = |ctx: &mut PhaseContext<'_>, model: &Model, params: &Params| {
        heldout_reward(ctx, settings, &held_out, (model, params, &text), (&judge, &judge_params))
    };
    if !held_out.is_empty() && !ctx.measured_before(HELD_OUT_REWARD) {
        let reward = reward_of(ctx, &model, &params)?;
        ctx.measure_before(HELD_OUT_REWARD, reward);
    }
    let reward_options = RewardOptions {
        kl_coefficient: settings.kl_coefficient,
        missing_end_penalty: settings.missing_end_penalty,
    };
    let logit_scale = (1.0 / settings.rollout.temperature) as f32;
    let output = Output::TokenScores { logit_scale, entropy: true };
    let (shape, scalar_shape) = (model.config().cost_shape(), value_model.config().cost_shape());
    let shard_tokens = ctx.run.shard_tokens;

    let mut reference: Params = params.duplicate();
    let mut policy = Trainer::new(model, params);
    let mut value = Trainer::new(value_model, value_params);
    let total = settings.steps;
    let updates_per_step = (settings.rollout.epochs * settings.rollout.minibatches) as u64;
    let updates_in_all = total * updates_per_step;
    let mut replay = Replay::load(ctx, &settings.replay, &text, context, updates_in_all, &shape)?;
    let rollouts = Rollouts {
        shape: &shape,
        scalar: Some(&scalar_shape),
        settings: &settings.rollout,
        steps: total as usize,
        prompt: mean(prompts.iter().map(Vec::len).map(|tokens| (tokens, 1.0))).unwrap_or(0),
        answer: answer(&replay.lengths(), &settings.rollout),
        reference: 1.0,
    };
    let mut work = rollouts.work(settings.optimizer.rule);
    work += replay.expected(&settings.replay);
    ctx.expect("ppo", &shape, &work);
    macro_rules! saved {
        () => {
            &mut [
                Saved::Trainer("policy", &mut policy),
                Saved::Trainer("value", &mut value),
                Saved::Frozen("reference", &mut reference),
            ]
        };
    }
    let rlhf = Rlhf {
        settings,
        text: &text,
        prompts: &prompts,
        records: &records,
        judge: &judge,
        judge_params: &judge_params,
        shape: &shape,
        scalar_shape: &scalar_shape,
        reward_options,
        logit_scale,
    };
    let first = ctx.begin_stage("ppo", total, saved!())?;
    for step in first..total {
        let under_way: Option<Updating<Sums>> = ctx.step_under_way()?;
        let mut updating = match under_way {
            Some(updating) => updating,
            None => rlhf
                .answer(ctx, &policy, &value, &reference, step, total)
                .map_err(|error| ctx.stopped(error, saved!()))?,
        };
        let config = update_rule(&settings.optimizer, step, total);
        let value_config = update_rule(&settings.value_optimizer, step, total);
        let rollouts = std::mem::take(&mut updating.rollouts);
        for (i, update) in updates(ctx, &rollouts, &settings.rollout, step).into_iter().enumerate()
        {
            // The policy is updated, then the value model. A stop may come after either.
            if updating.made == 2 * i {
                let policy_done = replay.step(
                    &mut policy,
                    step * updates_per_step + i as u64,
                    shard_tokens,
                    &update.shards,
                    output,
                    &config,
                    |shard, scores| {
                        let old = update.gather(shard, |r| &r.old_logp);
                        let reference = update.gather(shard, |r| &r.reference_logp);
                        let advantages = update.gather(shard, |r| &r.advantages);
                        ppo::policy_loss(
                            scores,
                            &old,
                            &reference,
                            &advantages,
                            &options,
                            update.size,
                        )
                    },
                );
                let (of_policy, worked) = match policy_done {
                    Ok(done) => done,
                    Err(error) => {
                        updating.rollouts.clone_from(&rollouts);
                        return Err(ctx.stopped_within(error, &updating, saved!()));
                    }
                };
                updating.stats.policy += of_policy.stats;
                updating.loss += of_policy.loss;
                updating.grad_norm += of_policy.grad_norm;
                updating.tokens += update.tokens() + worked.replayed;
                ctx.count_flops(worked.flops);
                updating.made += 1;
                ctx.updated();
            }
            if updating.made == 2 * i + 1 {
                let value_done =
                    value.step(&update.shards, Output::Scalar, &value_config, |shard, scores| {
                        let old = update.gather(shard, |r| &r.old_values);
                        let returns = update.gather(shard, |r| &r.returns);
                        ppo::value_loss(scores, &old, &returns, &options, update.size)
                    });
                let of_value = match value_done {
                    Ok(done) => done,
                    Err(error) => {
                        updating.rollouts.clone_from(&rollouts);
                        return Err(ctx.stopped_within(error, &updating, saved!()));
                    }
                };
                updating.stats.value += of_value.stats;
                updating.stats.value_loss += of_value.loss;
                ctx.count_flops(training_flops(&scalar_shape, &update.shards));
                updating.made += 1;
            }
        }
        let made = (updating.made / 2) as f64;
        let Sums { policy: policy_stats, value: value_stats, value_loss } = &updating.stats;
        let mut metrics = vec![("loss", updating.loss / made), ("value_loss", value_loss / made)];
        metrics.extend([("grad_norm", updating.grad_norm / made), ("lr", f64::from(config.lr))]);
        metrics.extend(policy_stats.means());
        metrics.extend(value_stats.means());
        ctx.end_step(
            step + 1,
            total,
            updating.tokens as u64,
            &updating.all_metrics(metrics),
            saved!(),
        )?;
    }
    let Trainer { model, params, .. } = policy;
    if !held_out.is_empty() {
        let reward = reward_of(ctx, &model, &params)?;
        ctx.measure(HELD_OUT_REWARD, reward);
    }
    Ok(Checkpoint { model, params, text })
}

/// What the reward model gives the policy's most probable answers to held-out prompts, on average.
fn heldout_reward(
    ctx: &mut PhaseContext<'_>,
    settings: &PpoSettings,
    files: &[String],
    (model, params, text): (&Model, &Params, &TextSetup),
    (judge, judge_params): (&Model, &Params),
) -> Result<f64, PhaseError> {
    let context = model.config().longest_document();
    let records = ctx.records(files)?;
    let prompts = encode_records(&records, |record| text.rollout_prompt(record, context))?;
    ctx.note_data("Held out: ", &prompts.summary, context);
    let greedy = SamplingOptions::greedy(settings.rollout.max_new_tokens, text.stop_ids.clone());
    let mut sum = 0.0;
    for some in prompts.examples.chunks(settings.rollout.prompts) {
        let answers = generate(model, params, some, &greedy)?;
        let whole: Vec<Vec<u32>> = some
            .iter()
            .zip(&answers)
            .map(|(prompt, answer)| [prompt.as_slice(), &answer.ids].concat())
            .collect();
        let scores = score_answers(judge, judge_params, &whole, ctx.run.shard_tokens)?;
        sum += scores.into_iter().map(f64::from).sum::<f64>();
    }
    Ok(sum / prompts.examples.len() as f64)
}

/// Sums over the updates of a step.
#[derive(Default, Serialize, Deserialize)]
struct Sums {
    policy: WithReplay<PolicyStats>,
    value: ValueStats,
    value_loss: f64,
}

/// What PPO's steps have in common.
struct Rlhf<'a> {
    settings: &'a PpoSettings,
    text: &'a TextSetup,
    prompts: &'a [Vec<u32>],
    /// Those that the prompts are of.
    records: &'a [&'a Record],
    judge: &'a Model,
    judge_params: &'a Params,
    shape: &'a ModelShape,
    scalar_shape: &'a ModelShape,
    reward_options: RewardOptions,
    logit_scale: f32,
}

impl Rlhf<'_> {
    /// The first half of a step: answers are sampled and scored, and their advantages estimated.
    fn answer(
        &self,
        ctx: &mut PhaseContext<'_>,
        policy: &Trainer,
        value: &Trainer,
        reference: &Params,
        step: u64,
        total: u64,
    ) -> Result<Updating<Sums>, PhaseError> {
        let &Rlhf { settings, text, prompts, records, .. } = self;
        let shard_tokens = ctx.run.shard_tokens;
        let chosen = choose_prompts(ctx, prompts.len(), settings.rollout.prompts, step);
        let step_prompts: Vec<&[u32]> = chosen.iter().map(|&i| prompts[i].as_slice()).collect();
        let mut rollouts =
            sample(ctx, policy, &step_prompts, &settings.rollout, &text.stop_ids, step)?;
        let examples = || rollouts.iter().map(|r| &r.example);
        let answers: Vec<&[u32]> = rollouts.iter().map(|r| r.example.ids.as_slice()).collect();
        let scores = score_answers(self.judge, self.judge_params, &answers, shard_tokens)?;
        let reference_logp =
            logprobs(&policy.model, reference, examples(), self.logit_scale, shard_tokens)?;
        let old_values = values(&value.model, &value.params, examples(), shard_tokens)?;
        // Sampling and reference, reward and value.
        let once =
            example_flops(self.shape, examples()) + example_flops(self.scalar_shape, examples());
        ctx.count_flops(once * 2.0);
        for ((rollout, reference), values) in
            rollouts.iter_mut().zip(reference_logp).zip(old_values)
        {
            rollout.reference_logp = reference;
            rollout.old_values = values;
        }
        estimate_advantages(&mut rollouts, &scores, &self.reward_options, settings);
        keep_samples(ctx, step, total, records, &chosen, &rollouts, &scores, text, settings);

        let count = rollouts.len() as f64;
        let mean = |f: &dyn Fn(usize) -> f64| (0..rollouts.len()).map(f).sum::<f64>() / count;
        let metrics = [
            ("reward", mean(&|i| f64::from(scores[i]))),
            ("response_length", mean(&|i| rollouts[i].completion.len() as f64)),
            ("ended", mean(&|i| f64::from(u8::from(rollouts[i].ended)))),
        ];
        let updating = Updating::new(&rollouts, &metrics);
        Ok(Updating { rollouts, ..updating })
    }
}

/// The reward model's number for each prompt with its answer.
fn score_answers(
    judge: &Model,
    params: &Params,
    answers: &[impl AsRef<[u32]>],
    shard_tokens: usize,
) -> Result<Vec<f32>, PhaseError> {
    let lengths: Vec<usize> = answers.iter().map(|answer| answer.as_ref().len()).collect();
    let shards: Vec<Packed> = pack(&lengths, shard_tokens)
        .into_iter()
        .map(|shard| {
            let mut packed = Packed::new();
            for i in shard {
                packed.push_last(answers[i].as_ref());
            }
            packed
        })
        .collect();
    let parts =
        evaluate(judge, params, &shards, Output::Scalar, |_, scores| scores.value.to_vec())?;
    Ok(parts.concat())
}

/// Token rewards, whitened; then advantages by GAE, whitened.
fn estimate_advantages(
    rollouts: &mut [Rollout],
    scores: &[f32],
    reward_options: &RewardOptions,
    settings: &PpoSettings,
) {
    let mut offsets = vec![0];
    for rollout in rollouts.iter() {
        offsets.push(offsets[offsets.len() - 1] + rollout.completion.len() as u32);
    }
    let flat = |field: fn(&Rollout) -> &[f32]| {
        rollouts.iter().flat_map(|r| field(r).to_vec()).collect::<Vec<f32>>()
    };
    let ended: Vec<bool> = rollouts.iter().map(|r| r.ended).collect();
    let (logp, reference) = (flat(|r| &r.old_logp), flat(|r| &r.reference_logp));
    let mut rewards =
        ppo::token_rewards(scores, &ended, &logp, &reference, &offsets, reward_options);
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

/// Keeps two answers at a few moments of the phase.
fn keep_samples(
    ctx: &mut PhaseContext<'_>,
    step: u64,
    total: u64,
    records: &[&Record],
    chosen: &[usize],
    rollouts: &[Rollout],
    scores: &[f32],
    text: &TextSetup,
    settings: &PpoSettings,
) {
    if !PhaseContext::wants_samples(step, total) {
        return;
    }
    let group = settings.rollout.group_size;
    for i in 0..rollouts.len().min(2) {
        let rollout = &rollouts[i];
        let kl: f32 =
            rollout.old_logp.iter().zip(&rollout.reference_logp).map(|(p, r)| p - r).sum();
        ctx.sample(RolloutSample {
            prompt: prompt_text(records[chosen[i / group]]),
            completion: reply_text(text, &rollout.completion),
            reward: f64::from(scores[i]),
            parts: [("kl".to_owned(), f64::from(kl))].into(),
            ..RolloutSample::default()
        });
    }
}
