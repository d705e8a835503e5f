//! The passes of each phase of training: which networks a token goes through, forward only or
//! forward and backward.
//!
//! This table is the one description of a phase's work. The cost planner, the forecast of a run and
//! the memory estimate read it.
//!
//! | phase | passes over a token |
//! |---|---|
//! | pretrain, sft | train the policy |
//! | reward | train the reward model |
//! | dpo | reference forward, train the policy |
//! | grpo | sample, (old log-probs), (reference forward), train the policy |
//! | ppo | sample, (old log-probs), reference, reward and value forward, train policy and values |

use crate::{ModelShape, Parts};

/// A phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Next token of raw text.
    Pretrain,
    /// Next token of answers; a token of a prompt costs as much as one of an answer.
    Sft,
    /// Bradley-Terry on two answers; tokens are those of both.
    Reward,
    /// Two answers and a frozen reference; tokens are those of both.
    Dpo,
    /// Answers are sampled and reinforced; tokens are those of the samples.
    Grpo,
    /// The same with a reward and a value model.
    Ppo,
}

/// A network that a phase runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The model that is trained.
    Policy,
    /// The policy before the phase, frozen.
    Reference,
    /// The reward model, with a scalar head; frozen but in its own phase.
    Reward,
    /// The value model, which predicts the reward; with a scalar head.
    Value,
}

/// How a network is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Token by token: bound by the bandwidth of memory.
    Generate,
    /// All tokens at once.
    Forward,
    /// Forward and backward.
    Train,
}

/// One of the passes that each token goes through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pass {
    /// What it is for.
    pub name: &'static str,
    /// Which network.
    pub network: Network,
    /// How.
    pub kind: Kind,
    /// How often.
    pub times: f64,
}

/// What the recipe and the trainer decide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhaseOptions {
    /// Training passes over each batch of samples (GRPO, PPO).
    pub updates: u32,
    /// Forward passes of GRPO's reference over each sample: 1 with a KL penalty, 0 without.
    pub reference: f64,
    /// Whether the log-probs of the sampling policy are computed again before training, as TRL and
    /// verl do. Crisol keeps those of the sampler.
    pub old_logprobs: bool,
}

impl Default for PhaseOptions {
    fn default() -> PhaseOptions {
        PhaseOptions { updates: 1, reference: 0.0, old_logprobs: true }
    }
}

impl Phase {
    /// All of them, in the order in which a model goes through them.
    pub const ALL: [Phase; 6] =
        [Phase::Pretrain, Phase::Sft, Phase::Grpo, Phase::Reward, Phase::Ppo, Phase::Dpo];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Pretrain => "pretrain",
            Phase::Sft => "sft",
            Phase::Reward => "reward",
            Phase::Dpo => "dpo",
            Phase::Grpo => "grpo",
            Phase::Ppo => "ppo",
        }
    }

    /// Whether a part of the weights may be trained by low-rank adapters.
    pub fn may_use_adapters(self) -> bool {
        self != Phase::Pretrain
    }

    /// What each of its tokens goes through (Shao et al. 2024, arXiv:2402.03300; Ouyang et al.
    /// 2022, arXiv:2203.02155; Rafailov et al. 2023, arXiv:2305.18290).
    pub fn passes(self, options: PhaseOptions) -> Vec<Pass> {
        let pass = |name, network, kind| Pass { name, network, kind, times: 1.0 };
        let updates = f64::from(options.updates);
        let train = |network, name, times| Pass { name, network, kind: Kind::Train, times };
        let sampling = pass("sampling", Network::Policy, Kind::Generate);
        let old = pass("old log-probabilities", Network::Policy, Kind::Forward);
        let reference = pass("reference log-probabilities", Network::Reference, Kind::Forward);
        match self {
            Phase::Pretrain | Phase::Sft => vec![train(Network::Policy, "training", 1.0)],
            Phase::Reward => vec![train(Network::Reward, "training", 1.0)],
            Phase::Dpo => vec![reference, train(Network::Policy, "training", 1.0)],
            Phase::Grpo => {
                // With one update, the policy that samples is the policy that is trained.
                let old = Some(old).filter(|_| options.old_logprobs && options.updates > 1);
                let reference = (options.reference > 0.0)
                    .then_some(Pass { times: options.reference, ..reference });
                [Some(sampling), old, reference, Some(train(Network::Policy, "training", updates))]
                    .into_iter()
                    .flatten()
                    .collect()
            }
            Phase::Ppo => [Some(sampling), Some(old).filter(|_| options.old_logprobs)]
                .into_iter()
                .flatten()
                .chain([
                    reference,
                    pass("reward", Network::Reward, Kind::Forward),
                    pass("values", Network::Value, Kind::Forward),
                    train(Network::Policy, "training", updates),
                    train(Network::Value, "training of the value model", updates),
                ])
                .collect(),
        }
    }
}

/// Operations of a token of training for one of its forward pass: backward multiplies twice as
/// much.
pub const TRAINING: f64 = 3.0;

impl Pass {
    /// The network's shape, if the policy has this one.
    pub fn shape(&self, policy: &ModelShape) -> ModelShape {
        match self.network {
            Network::Policy | Network::Reference => policy.clone(),
            Network::Reward | Network::Value => policy.scalar(),
        }
    }

    /// Operations of one of the phase's tokens in a document of `length` tokens, forward and
    /// backward, by part. With `adapters` frozen matrices need no gradient of their own: backward
    /// multiplies once, not twice, but for attention, which has no weights; what the adapters
    /// themselves take is left out. Recomputed activations do not count.
    pub fn flops(&self, policy: &ModelShape, length: f64, adapters: bool) -> (Parts, Parts) {
        let forward = self.shape(policy).forward_flops(length).map(|flops| self.times * flops);
        if self.kind != Kind::Train {
            return (forward, Parts::default());
        }
        let both = forward.map(|flops| (TRAINING - 1.0) * flops);
        let backward = if adapters { Parts { attention: both.attention, ..forward } } else { both };
        (forward, backward)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attention, Block, FeedForward, Head};

    /// Operations a token in units of N, without attention.
    fn in_units_of_n(phase: Phase, options: PhaseOptions) -> f64 {
        // With one head and one token in the vocabulary all networks have the same matrices.
        let attention = Attention::Grouped { heads: 2, kv_heads: 1, head_dim: 4, span: None };
        let block =
            Block { attention, feed_forward: FeedForward::Dense { inner: 16 }, vectors: 16 };
        let shape = ModelShape {
            hidden: 8,
            vocab: 1,
            head: Head::Untied,
            blocks: vec![(2, block)],
            positions: 0,
            last_norm: 8,
            adapter: 0,
        };
        let of = |pass: &Pass| {
            let (forward, backward) = pass.flops(&shape, 1.0, false);
            forward.total() - forward.attention + backward.total() - backward.attention
        };
        phase.passes(options).iter().map(of).sum::<f64>() / shape.matmul_parameters()
    }

    #[test]
    fn passes_add_up_to_the_published_counts() {
        let plain = PhaseOptions::default();
        assert_eq!(in_units_of_n(Phase::Pretrain, plain), 6.0);
        assert_eq!(in_units_of_n(Phase::Sft, plain), 6.0);
        assert_eq!(in_units_of_n(Phase::Reward, plain), 6.0);
        assert_eq!(in_units_of_n(Phase::Dpo, plain), 8.0);
        assert_eq!(in_units_of_n(Phase::Grpo, plain), 8.0);
        assert_eq!(
            in_units_of_n(Phase::Grpo, PhaseOptions { updates: 3, reference: 1.0, ..plain }),
            2.0 + 18.0 + 2.0 + 2.0
        );
        assert_eq!(
            in_units_of_n(Phase::Ppo, PhaseOptions { updates: 4, ..plain }),
            10.0 + 4.0 * 12.0
        );
        // Crisol's own: the sampler's log-probs are kept.
        let own = PhaseOptions { updates: 3, reference: 0.125, old_logprobs: false };
        assert_eq!(in_units_of_n(Phase::Grpo, own), 2.0 + 18.0 + 0.25);
        assert_eq!(in_units_of_n(Phase::Ppo, own), 8.0 + 3.0 * 12.0);
    }
}
