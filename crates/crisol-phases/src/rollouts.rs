//! Rollouts: answers sampled from the policy in training, and their minibatches. GRPO and PPO share
//! this file.

use crisol_model::{Generated, SamplingOptions, StopReason, generate};
use crisol_objectives::BatchSize;
use crisol_report::RolloutSample;
use crisol_text::{Example, Record, TextSetup};
use crisol_train::{Trainer, derived_seed, permutation};
use serde::{Deserialize, Serialize};

use crate::PhaseError;
use crate::batch::Batch;
use crate::behaviours::{prompt_text, reply_text};
use crate::context::PhaseContext;
use crate::settings::RolloutSettings;

/// A sampled answer and the inputs of its update. Vectors have one entry per token of the answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Rollout {
    /// Prompt and answer; the answer is trained.
    pub(crate) example: Example,
    /// The answer's tokens.
    pub(crate) completion: Vec<u32>,
    /// Whether it ended with a stop token.
    pub(crate) ended: bool,
    /// Log-probs under the sampling policy.
    pub(crate) old_logp: Vec<f32>,
    /// Log-probs under the reference.
    pub(crate) reference_logp: Vec<f32>,
    pub(crate) advantages: Vec<f32>,
    /// Values at the time of sampling (PPO).
    pub(crate) old_values: Vec<f32>,
    /// Returns (PPO).
    pub(crate) returns: Vec<f32>,
    /// Whether it is not trained on (GRPO: all rewards of its group are equal).
    #[serde(skip)]
    pub(crate) skipped: bool,
    /// Reward of the answer, and its parts for the report.
    #[serde(skip)]
    pub(crate) reward: f32,
    #[serde(skip)]
    pub(crate) reward_parts: Vec<(&'static str, f64)>,
}

impl Rollout {
    fn new(prompt: Vec<u32>, generated: Generated) -> Rollout {
        let mut trained = vec![false; prompt.len()];
        trained.resize(prompt.len() + generated.ids.len(), true);
        let mut ids = prompt;
        ids.extend(&generated.ids);
        Rollout {
            example: Example { ids, trained },
            ended: generated.stopped_by == StopReason::StopToken,
            completion: generated.ids,
            old_logp: generated.logprobs,
            ..Rollout::default()
        }
    }
}

/// The examples of rollouts.
pub(crate) fn examples(rollouts: &[Rollout]) -> Vec<&Example> {
    rollouts.iter().map(|rollout| &rollout.example).collect()
}

/// A field of all rollouts, one after another: `[tokens]`.
pub(crate) fn tokens(rollouts: &[Rollout], field: fn(&Rollout) -> &[f32]) -> Vec<f32> {
    rollouts.iter().flat_map(field).copied().collect()
}

/// Where each rollout begins in [`tokens`], and where the last one ends.
pub(crate) fn offsets(rollouts: &[Rollout]) -> Vec<u32> {
    let mut offsets = vec![0];
    for rollout in rollouts {
        offsets.push(offsets[offsets.len() - 1] + rollout.completion.len() as u32);
    }
    offsets
}

/// A mean over rollouts.
pub(crate) fn mean(rollouts: &[Rollout], value: impl Fn(&Rollout) -> f64) -> f64 {
    rollouts.iter().map(value).sum::<f64>() / rollouts.len() as f64
}

/// The prompts of rollout step `step`: passes over all of them, each shuffled anew, cut in order.
pub(crate) fn choose_prompts(
    ctx: &PhaseContext<'_>,
    available: usize,
    wanted: usize,
    step: u64,
) -> Vec<usize> {
    let purpose = ctx.purpose("prompts");
    let mut chosen = Vec::with_capacity(wanted);
    let mut position = step as usize * wanted;
    while chosen.len() < wanted {
        let (epoch, within) = (position / available, position % available);
        let order = permutation(ctx.run.seed, &purpose, epoch as u64, available);
        let take = (available - within).min(wanted - chosen.len());
        chosen.extend_from_slice(&order[within..within + take]);
        position += take;
    }
    chosen
}

/// Samples `group_size` answers to every prompt. The answers to a prompt are adjacent.
pub(crate) fn sample(
    ctx: &mut PhaseContext<'_>,
    policy: &Trainer,
    prompts: &[&[u32]],
    settings: &RolloutSettings,
    stop_ids: &[u32],
    step: u64,
) -> Result<Vec<Rollout>, PhaseError> {
    let repeated: Vec<Vec<u32>> =
        prompts.iter().flat_map(|p| std::iter::repeat_n(p.to_vec(), settings.group_size)).collect();
    let options = SamplingOptions {
        max_new_tokens: settings.max_new_tokens,
        temperature: settings.temperature as f32,
        seed: derived_seed(ctx.run.seed, &ctx.purpose("sampling"), step),
        stop_ids: stop_ids.to_vec(),
        ..SamplingOptions::default()
    };
    let generated =
        ctx.time_sampling(|| generate(&policy.model, &policy.params, &repeated, &options))?;
    let rollouts: Vec<Rollout> =
        repeated.into_iter().zip(generated).map(|(prompt, g)| Rollout::new(prompt, g)).collect();
    ctx.count_forward(&policy.model, &examples(&rollouts));
    Ok(rollouts)
}

/// Adds the first two answers of some steps to the report. `records` are those of the chosen
/// prompts.
pub(crate) fn report(
    ctx: &mut PhaseContext<'_>,
    (step, total): (u64, u64),
    text: &TextSetup,
    records: &[&Record],
    rollouts: &[Rollout],
) {
    if !PhaseContext::reports_rollouts(step, total) {
        return;
    }
    let group = rollouts.len() / records.len();
    for (i, rollout) in rollouts.iter().take(2).enumerate() {
        let parts = rollout.reward_parts.iter().map(|(name, value)| ((*name).to_owned(), *value));
        ctx.report_rollout(RolloutSample {
            prompt: prompt_text(records[i / group]),
            completion: reply_text(text, &rollout.completion),
            reward: f64::from(rollout.reward),
            parts: parts.collect(),
            ..RolloutSample::default()
        });
    }
}

/// The rollouts of one update.
pub(crate) struct Minibatch<'r> {
    pub(crate) batch: Batch,
    /// Sequences and tokens over which the loss is a mean.
    pub(crate) size: BatchSize,
    rollouts: Vec<&'r Rollout>,
}

/// Inputs of the policy's loss, one entry for each trained token.
pub(crate) struct PolicyTerms {
    /// Log-probs under the sampling policy.
    pub(crate) old: Vec<f32>,
    /// Log-probs under the reference; empty if they were not computed.
    pub(crate) reference: Vec<f32>,
    pub(crate) advantages: Vec<f32>,
}

impl<'r> Minibatch<'r> {
    /// `trained` of `sampled` rollouts are trained.
    fn new(
        rollouts: Vec<&'r Rollout>,
        (trained, sampled): (usize, usize),
        shard_tokens: usize,
    ) -> Minibatch<'r> {
        let examples = rollouts.iter().map(|rollout| &rollout.example);
        let batch = Batch::of_documents(examples, shard_tokens);
        // A mean over answers counts skipped ones as zeros, so that skipping does not enlarge the
        // steps. A mean over tokens leaves them out, as in DAPO (arXiv:2503.14476).
        let sequences = batch.size.sequences as f64 * sampled as f64 / trained as f64;
        let size = BatchSize { sequences: sequences.round() as usize, ..batch.size };
        Minibatch { batch, size, rollouts }
    }

    /// The inputs of the policy's loss on one shard.
    pub(crate) fn policy_terms(&self, shard: usize) -> PolicyTerms {
        PolicyTerms {
            old: self.gather(shard, |rollout| &rollout.old_logp),
            reference: self.gather(shard, |rollout| &rollout.reference_logp),
            advantages: self.gather(shard, |rollout| &rollout.advantages),
        }
    }

    /// A field of the rollouts of one shard, one entry for each scored token.
    pub(crate) fn gather(&self, shard: usize, field: impl Fn(&Rollout) -> &[f32]) -> Vec<f32> {
        let members = &self.batch.members[shard];
        members.iter().flat_map(|&i| field(self.rollouts[i]).iter().copied()).collect()
    }
}

/// The minibatches of rollout step `step`: `epochs` passes over the rollouts, each shuffled anew
/// and cut into `minibatches`. `sampled`: how many rollouts there were before some were skipped.
pub(crate) fn minibatches<'r>(
    ctx: &PhaseContext<'_>,
    rollouts: &'r [Rollout],
    sampled: usize,
    settings: &RolloutSettings,
    step: u64,
) -> Vec<Minibatch<'r>> {
    let mut minibatches = Vec::new();
    for epoch in 0..settings.epochs {
        let index = step * settings.epochs as u64 + epoch as u64;
        let order = permutation(ctx.run.seed, &ctx.purpose("minibatches"), index, rollouts.len());
        let size = rollouts.len().div_ceil(settings.minibatches).max(1);
        for chosen in order.chunks(size) {
            let chosen = chosen.iter().map(|&i| &rollouts[i]).collect();
            let counts = (rollouts.len(), sampled);
            minibatches.push(Minibatch::new(chosen, counts, ctx.run.shard_tokens));
        }
    }
    minibatches
}
