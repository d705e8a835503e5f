//! Rollouts: completions sampled from the policy in training, and the updates made from them. GRPO and PPO share
//! this; they differ in where advantages come from.

use crisol_model::{Generated, SamplingOptions, StopReason, generate};
use crisol_objectives::BatchSize;
use crisol_text::{Example, Packed, pack};
use crisol_train::{Trainer, derived_seed, permutation};
use serde::{Deserialize, Serialize};

use crate::PhaseError;
use crate::context::PhaseContext;
use crate::settings::RolloutSettings;
use crate::supervised::{batch_size, token_count};

/// One sampled completion with what its update needs; vectors have one entry per completion token.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Rollout {
    /// Prompt and completion, the completion trained.
    pub(crate) example: Example,
    /// The completion's tokens.
    pub(crate) completion: Vec<u32>,
    /// Whether it ended with a stop token.
    pub(crate) ended: bool,
    /// Log-probs at the time of sampling.
    pub(crate) old_logp: Vec<f32>,
    /// Log-probs under the reference policy.
    pub(crate) reference_logp: Vec<f32>,
    /// Advantages.
    pub(crate) advantages: Vec<f32>,
    /// Values at the time of sampling (PPO).
    pub(crate) old_values: Vec<f32>,
    /// Returns (PPO).
    pub(crate) returns: Vec<f32>,
}

/// A rollout step while it updates weights. After a stop between two updates it is all that is needed to go on with the next.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Updating<S> {
    /// What is trained.
    pub(crate) rollouts: Vec<Rollout>,
    /// Completions that were sampled, also those that are not trained.
    pub(crate) sampled: usize,
    /// Measures of the samples.
    pub(crate) metrics: Vec<(String, f64)>,
    /// Tokens of the samples, and of all updates so far.
    pub(crate) tokens: usize,
    /// Optimizer steps so far, of all models.
    pub(crate) made: usize,
    /// Sums over the updates so far.
    pub(crate) stats: S,
    pub(crate) loss: f64,
    pub(crate) grad_norm: f64,
}

impl<S: Default> Updating<S> {
    /// Before the first update.
    pub(crate) fn new(sampled: &[Rollout], metrics: &[(&str, f64)]) -> Updating<S> {
        Updating {
            sampled: sampled.len(),
            tokens: sampled.iter().map(|r| r.example.ids.len()).sum(),
            metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            ..Updating::default()
        }
    }
}

impl<S> Updating<S> {
    /// Measures of the samples, and those of the updates.
    pub(crate) fn all_metrics<'m>(&'m self, updates: Vec<(&'m str, f64)>) -> Vec<(&'m str, f64)> {
        let samples = self.metrics.iter().map(|(name, value)| (name.as_str(), *value));
        samples.chain(updates).collect()
    }
}

/// The prompts of rollout step `step`: an endless sequence of shuffled passes over `available`, cut in order.
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

/// Samples `group_size` completions of every prompt; groups are adjacent.
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
        ctx.sampling(|| generate(&policy.model, &policy.params, &repeated, &options))?;
    Ok(repeated.into_iter().zip(generated).map(|(prompt, g)| Rollout::new(prompt, g)).collect())
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

/// One optimizer step's worth of rollouts, packed into shards.
pub(crate) struct Update<'r> {
    pub(crate) shards: Vec<Packed>,
    pub(crate) size: BatchSize,
    members: Vec<Vec<&'r Rollout>>,
}

impl<'r> Update<'r> {
    pub(crate) fn new(rollouts: &[&'r Rollout], shard_tokens: usize) -> Update<'r> {
        let lengths: Vec<usize> = rollouts.iter().map(|r| r.example.ids.len()).collect();
        let members: Vec<Vec<&Rollout>> = pack(&lengths, shard_tokens)
            .into_iter()
            .map(|shard| shard.into_iter().map(|i| rollouts[i]).collect())
            .collect();
        let shards: Vec<Packed> = members
            .iter()
            .map(|shard| {
                let mut packed = Packed::new();
                for rollout in shard {
                    packed.push(&rollout.example);
                }
                packed
            })
            .collect();
        let size = batch_size(&shards);
        Update { shards, size, members }
    }

    /// A field of the rollouts of one shard, one entry per scored token.
    pub(crate) fn gather(&self, shard: usize, field: impl Fn(&Rollout) -> &[f32]) -> Vec<f32> {
        self.members[shard].iter().flat_map(|r| field(r).iter().copied()).collect()
    }

    /// Tokens, prompts included.
    pub(crate) fn tokens(&self) -> usize {
        token_count(&self.shards)
    }
}

/// Cuts rollouts into the updates of one rollout step: `epochs` passes, each shuffled anew and cut into `minibatches`.
pub(crate) fn updates<'r>(
    ctx: &PhaseContext<'_>,
    rollouts: &'r [Rollout],
    settings: &RolloutSettings,
    step: u64,
) -> Vec<Update<'r>> {
    let mut updates = Vec::new();
    for epoch in 0..settings.epochs {
        let index = step * settings.epochs as u64 + epoch as u64;
        let order = permutation(ctx.run.seed, &ctx.purpose("minibatches"), index, rollouts.len());
        let size = rollouts.len().div_ceil(settings.minibatches).max(1);
        for chunk in order.chunks(size) {
            updates.push(Update::new(
                &chunk.iter().map(|&i| &rollouts[i]).collect::<Vec<_>>(),
                ctx.run.shard_tokens,
            ));
        }
    }
    updates
}
