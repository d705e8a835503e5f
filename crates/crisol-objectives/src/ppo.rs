//! PPO, proximal policy optimization: token rewards, advantages, policy loss and value loss.
//!
//! One update of RLHF (Ouyang et al. 2022, arXiv:2203.02155), in the order the phase calls it:
//!
//! 1. [`token_rewards`]: the reward model's score at an answer's last token, minus a penalty on the
//!    log-ratio to the reference at every token.
//! 2. [`whiten`] the rewards (their scale only), so that the value model has a scale to learn.
//! 3. [`advantages`]: generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438).
//! 4. [`whiten`] the advantages.
//! 5. [`policy_loss`] and [`value_loss`] (PPO, Schulman et al. 2017, arXiv:1707.06347), repeated.
//!
//! Details that the papers leave open follow Huang et al. 2024, "The N+ Implementation Details of
//! RLHF with PPO", arXiv:2403.17031.

use crate::policy::{self, Normalisation, PolicyStats, RatioLevel};
use crate::{BatchSize, LossAndGrad, Stats, TokenScores, sequences, sums};

/// Options of PPO's two losses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// ε: importance ratios are clipped to `1 ± clip`.
    pub clip: f64,
    /// Values are clipped to the old value `± value_clip`.
    pub value_clip: f64,
    /// Weight of the entropy that is subtracted from the policy loss; 0 leaves it out.
    pub entropy_bonus: f64,
}

impl Default for Options {
    /// As in arXiv:2403.17031.
    fn default() -> Self {
        Self { clip: 0.2, value_clip: 0.2, entropy_bonus: 0.0 }
    }
}

/// Terms of an answer's reward besides its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RewardOptions {
    /// Weight of the log-ratio to the reference in every token's reward.
    pub kl_coefficient: f64,
    /// Subtracted from the score of an answer that was cut off.
    pub missing_end_penalty: f64,
}

impl Default for RewardOptions {
    /// The KL coefficient of arXiv:2403.17031, and a penalty of 1. (There a cut-off answer gets the
    /// score -1; subtracting keeps the order of cut-off answers.)
    fn default() -> Self {
        Self { kl_coefficient: 0.05, missing_end_penalty: 1.0 }
    }
}

/// The reward of every token, `[tokens]`: `-kl_coefficient · (logp - reference_logp)`, plus the
/// sequence's score at its last token, minus the penalty if the sequence was cut off.
///
/// `scores`, `ended`: `[sequences]`; `logp` (of the rollout's policy), `reference_logp`:
/// `[tokens]`. The KL is the plain log-ratio, whose policy gradient as a reward is that of the KL
/// ([`crate::kl`]).
pub fn token_rewards(
    scores: &[f32],
    ended: &[bool],
    logp: &[f32],
    reference_logp: &[f32],
    offsets: &[u32],
    options: &RewardOptions,
) -> Vec<f32> {
    let size = BatchSize::of(offsets);
    assert_eq!(size.sequences, scores.len(), "one score per sequence");
    assert_eq!(size.sequences, ended.len(), "one end per sequence");
    assert_eq!(size.tokens, logp.len(), "one log-prob per token");
    assert_eq!(size.tokens, reference_logp.len(), "one reference log-prob per token");
    let mut rewards: Vec<f64> = logp
        .iter()
        .zip(reference_logp)
        .map(|(&logp, &reference)| {
            -options.kl_coefficient * (f64::from(logp) - f64::from(reference))
        })
        .collect();
    for ((range, &score), &ended) in sequences(offsets).zip(scores).zip(ended) {
        let penalty = if ended { 0.0 } else { options.missing_end_penalty };
        if let Some(last) = rewards[range].last_mut() {
            *last += f64::from(score) - penalty;
        }
    }
    rewards.into_iter().map(|r| r as f32).collect()
}

/// Scales values to unit variance (of the sample, divided by n - 1) and, with `centre`, to zero
/// mean. Rewards keep their mean: subtracting a constant from every token would reward length.
///
/// Whiten the whole rollout, not a shard. All values are scored tokens, so there is no mask.
pub fn whiten(values: &mut [f32], centre: bool) {
    if values.len() < 2 {
        return;
    }
    let n = values.len() as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let scale = 1.0 / (variance + 1e-8).sqrt();
    let kept = if centre { 0.0 } else { mean };
    for x in values {
        *x = ((f64::from(*x) - mean) * scale + kept) as f32;
    }
}

/// Result of [`advantages`], `[tokens]` each.
#[derive(Clone, Debug, PartialEq)]
pub struct Advantages {
    /// Advantage of each token.
    pub advantages: Vec<f32>,
    /// Target of the value model: `advantage + value`.
    pub returns: Vec<f32>,
}

/// Generalised advantage estimation, arXiv:1506.02438 eq. 16:
///
/// ```text
/// δ_t = r_t + γ V_{t+1} - V_t         A_t = δ_t + γ λ A_{t+1}
/// ```
///
/// `rewards`, `values`: `[tokens]`; `values[t]` is the value of the state in which token `t` is
/// chosen. The end of an answer is terminal, also of a cut-off one: V and A after the last token
/// are 0. [`RewardOptions::missing_end_penalty`] penalises the cut.
pub fn advantages(
    rewards: &[f32],
    values: &[f32],
    offsets: &[u32],
    gamma: f64,
    lambda: f64,
) -> Advantages {
    let tokens = BatchSize::of(offsets).tokens;
    assert_eq!(tokens, rewards.len(), "one reward per token");
    assert_eq!(tokens, values.len(), "one value per token");
    let mut out = Advantages { advantages: vec![0.0; tokens], returns: vec![0.0; tokens] };
    for range in sequences(offsets) {
        let (mut next_value, mut next_advantage) = (0.0, 0.0);
        for t in range.rev() {
            let value = f64::from(values[t]);
            let delta = f64::from(rewards[t]) + gamma * next_value - value;
            let advantage = delta + gamma * lambda * next_advantage;
            out.advantages[t] = advantage as f32;
            out.returns[t] = (advantage + value) as f32;
            (next_value, next_advantage) = (value, advantage);
        }
    }
    out
}

/// PPO's clipped policy loss of a shard, a mean over the tokens of the batch. Uses `logp`, and
/// `entropy` if given.
///
/// `old_logp`, `advantages`: `[tokens]`. `reference_logp` (`[tokens]` or empty) is only measured;
/// the KL penalty is in the rewards.
pub fn policy_loss(
    scores: &TokenScores,
    old_logp: &[f32],
    reference_logp: &[f32],
    advantages: &[f32],
    options: &Options,
    batch: BatchSize,
) -> LossAndGrad<PolicyStats> {
    let options = policy::Options {
        clip_low: options.clip,
        clip_high: options.clip,
        ratio_level: RatioLevel::Token,
        normalisation: Normalisation::Token,
        entropy_bonus: options.entropy_bonus,
        kl: None,
        ..policy::Options::default()
    };
    policy::loss(scores, old_logp, reference_logp, advantages, &options, batch)
}

sums! {
    /// Sums over the tokens of a value update.
    pub struct ValueStats {
        /// Tokens.
        pub tokens: usize,
        /// Tokens without gradient because their value moved too far from the old one.
        pub clipped: usize,
        /// Predicted value.
        pub value: f64,
        /// Return.
        pub returns: f64,
        /// Return squared.
        pub returns_squared: f64,
        /// Return less value.
        pub error: f64,
        /// Squared return less value.
        pub error_squared: f64,
    }
}

impl Stats for ValueStats {
    fn means(&self) -> Vec<(&'static str, f64)> {
        if self.tokens == 0 {
            return Vec::new();
        }
        let n = self.tokens as f64;
        let variance = |sum: f64, squares: f64| squares / n - (sum / n).powi(2);
        let mut means = vec![
            ("value", self.value / n),
            ("return", self.returns / n),
            ("value_clip_fraction", self.clipped as f64 / n),
            ("value_error", self.error_squared / n),
        ];
        let spread = variance(self.returns, self.returns_squared);
        if spread > 0.0 {
            means.push((
                "explained_variance",
                1.0 - variance(self.error, self.error_squared) / spread,
            ));
        }
        means
    }
}

/// PPO's clipped value loss of a shard, a mean over the tokens of the batch; uses `value`:
///
/// ```text
/// L = 1/N Σ_t ½ max( (V_t - R_t)², (clip(V_t, V_old ± ε) - R_t)² )
/// ```
///
/// `old_values` (when the rollout was made), `returns`: `[tokens]`.
pub fn value_loss(
    scores: &TokenScores,
    old_values: &[f32],
    returns: &[f32],
    options: &Options,
    batch: BatchSize,
) -> LossAndGrad<ValueStats> {
    let tokens = scores.value.len();
    assert_eq!(tokens, old_values.len(), "one old value per token");
    assert_eq!(tokens, returns.len(), "one return per token");
    let weight = 1.0 / batch.tokens as f64;
    let mut loss = 0.0;
    let mut dvalue = Vec::with_capacity(tokens);
    let mut stats = ValueStats::default();
    for ((&value, &old), &target) in scores.value.iter().zip(old_values).zip(returns) {
        let (value, old, target) = (f64::from(value), f64::from(old), f64::from(target));
        let clipped_value = value.clamp(old - options.value_clip, old + options.value_clip);
        let (free, held) = ((value - target).powi(2), (clipped_value - target).powi(2));
        // A clipped value is constant, so it has no gradient.
        let clipped = held > free;
        loss += weight * 0.5 * free.max(held);
        dvalue.push(if clipped { 0.0 } else { (weight * (value - target)) as f32 });
        stats += ValueStats {
            tokens: 1,
            clipped: usize::from(clipped),
            value,
            returns: target,
            returns_squared: target * target,
            error: target - value,
            error_squared: (target - value).powi(2),
        };
    }
    LossAndGrad { loss, dlogp: Vec::new(), dentropy: Vec::new(), dvalue, stats }
}
