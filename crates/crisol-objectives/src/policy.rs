//! The clipped policy loss that GRPO and PPO share.
//!
//! With the importance ratio `r_t = π(x_t) / π_old(x_t)` to the policy of the rollout and an
//! advantage `A_t` (PPO, Schulman et al. 2017, arXiv:1707.06347, eq. 7; separate clip bounds as in
//! DAPO, Yu et al. 2025, arXiv:2503.14476, eq. 8):
//!
//! ```text
//! L = Σ_t w_t · ( -min(r_t A_t, clip(r_t, 1-ε_low, 1+ε_high) A_t) + c_kl KL_t - c_ent H_t )
//! ```
//!
//! The minimum makes clipping one-sided: a ratio above `1+ε_high` loses its gradient only if the
//! advantage is positive, one below `1-ε_low` only if it is negative. At the first update of a
//! rollout `r = 1`, nothing is clipped, and the gradient is the policy gradient `-w_t A_t`.
//!
//! The ratio is each token's, or the sequence's, `exp(mean_t log r_t)`, shared by its tokens (GSPO,
//! Zheng et al. 2025, arXiv:2507.18071, eq. 7). The weights `w_t` define the mean:
//!
//! | normalisation | `w_t` | from |
//! |---|---|---|
//! | `token` | 1 / tokens of the batch | DAPO: equal weight per token |
//! | `sequence` | 1 / (sequences · \|`y_i`\|) | GRPO: equal weight per answer |
//! | `constant` | 1 / (sequences · longest answer allowed) | Dr. GRPO: no length bias |
//!
//! `sequence` gives tokens of long answers less weight, so long wrong answers are penalised less
//! per token; `constant` (Liu et al. 2025, arXiv:2503.20783) removes that.

use crate::kl::KlEstimator;
use crate::{BatchSize, LossAndGrad, Stats, TokenScores, named, sequences, sums};

named! {
    /// Scope of an importance ratio.
    pub enum RatioLevel ("ratio level") {
        /// Every token has its own ratio.
        Token = "token",
        /// A sequence's tokens share the geometric mean of their ratios.
        Sequence = "sequence",
    }
}

named! {
    /// What the loss is a mean over.
    pub enum Normalisation ("normalisation") {
        /// All tokens of the batch.
        Token = "token",
        /// The tokens of each sequence, then the sequences.
        Sequence = "sequence",
        /// Sequences times the longest answer allowed.
        Constant = "constant",
    }
}

/// A KL penalty inside the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlPenalty {
    /// Which estimator.
    pub estimator: KlEstimator,
    /// Its weight, often called β.
    pub coefficient: f64,
}

/// Options of the clipped policy loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// `ε_low`: ratios below `1 - clip_low` are clipped where the advantage is negative.
    pub clip_low: f64,
    /// `ε_high`: ratios above `1 + clip_high` are clipped where the advantage is positive.
    pub clip_high: f64,
    /// Token or sequence ratios.
    pub ratio_level: RatioLevel,
    /// What the loss is a mean over.
    pub normalisation: Normalisation,
    /// The longest answer allowed, in tokens; used by [`Normalisation::Constant`] only.
    pub max_length: usize,
    /// KL to the reference inside the loss, if any.
    pub kl: Option<KlPenalty>,
    /// Weight of the entropy that is subtracted from the loss; 0 leaves it out.
    pub entropy_bonus: f64,
}

impl Default for Options {
    /// DAPO's: clipping wider above than below, token ratios and mean, no KL term.
    fn default() -> Self {
        Self {
            clip_low: 0.2,
            clip_high: 0.28,
            ratio_level: RatioLevel::Token,
            normalisation: Normalisation::Token,
            max_length: 0,
            kl: None,
            entropy_bonus: 0.0,
        }
    }
}

sums! {
    /// Sums over the tokens of a policy update.
    pub struct PolicyStats {
        /// Tokens.
        pub tokens: usize,
        /// Importance ratio, of the token or of its sequence as the options say.
        pub ratio: f64,
        /// Tokens without gradient because their ratio fell below the lower bound.
        pub clipped_low: usize,
        /// Tokens without gradient because their ratio rose above the upper bound.
        pub clipped_high: usize,
        /// Tokens with a reference log-prob.
        pub reference_tokens: usize,
        /// KL(policy‖reference), by the low-variance estimator whatever the loss uses.
        pub kl_reference: f64,
        /// KL(policy of the rollout‖policy), by the low-variance estimator.
        pub kl_old: f64,
        /// Tokens with an entropy.
        pub entropy_tokens: usize,
        /// Entropy in nats.
        pub entropy: f64,
    }
}

impl Stats for PolicyStats {
    fn means(&self) -> Vec<(&'static str, f64)> {
        if self.tokens == 0 {
            return Vec::new();
        }
        let n = self.tokens as f64;
        let mut means = vec![
            ("ratio", self.ratio / n),
            ("clip_fraction_low", self.clipped_low as f64 / n),
            ("clip_fraction_high", self.clipped_high as f64 / n),
            ("kl_old", self.kl_old / n),
        ];
        if self.reference_tokens > 0 {
            means.push(("kl_reference", self.kl_reference / self.reference_tokens as f64));
        }
        if self.entropy_tokens > 0 {
            means.push(("entropy", self.entropy / self.entropy_tokens as f64));
        }
        means
    }
}

/// The clipped policy loss of a shard; uses `logp`, and `entropy` where it is given.
///
/// `old_logp` (of the rollout's policy), `advantages`: `[tokens]`. `reference_logp`: `[tokens]`, or
/// empty without a KL penalty; given without one, its KL is only measured. With
/// [`RatioLevel::Sequence`] the tokens of a sequence share one advantage.
pub fn loss(
    scores: &TokenScores,
    old_logp: &[f32],
    reference_logp: &[f32],
    advantages: &[f32],
    options: &Options,
    batch: BatchSize,
) -> LossAndGrad<PolicyStats> {
    let tokens = scores.logp.len();
    assert_eq!(tokens, old_logp.len(), "one old log-prob per token");
    assert_eq!(tokens, advantages.len(), "one advantage per token");
    assert!(
        reference_logp.len() == tokens || options.kl.is_none(),
        "a KL penalty needs reference log-probs"
    );
    assert!(
        scores.entropy.len() == tokens || options.entropy_bonus == 0.0,
        "an entropy bonus needs entropies"
    );
    assert!(
        options.normalisation != Normalisation::Constant || options.max_length > 0,
        "constant normalisation needs the longest answer allowed"
    );
    let diff = |a: &[f32], b: &[f32], t: usize| f64::from(a[t]) - f64::from(b[t]);

    let mut loss = 0.0;
    let mut dlogp = vec![0.0; tokens];
    let mut dentropy = vec![0.0; if options.entropy_bonus == 0.0 { 0 } else { tokens }];
    let mut stats = PolicyStats::default();
    for range in sequences(scores.offsets) {
        assert!(
            options.ratio_level == RatioLevel::Token
                || advantages[range.clone()].windows(2).all(|w| w[0] == w[1]),
            "where the ratio is the sequence's, its tokens share one advantage"
        );
        let weight = token_weight(options, batch, range.len());
        let mean_log_ratio =
            range.clone().map(|t| diff(scores.logp, old_logp, t)).sum::<f64>() / range.len() as f64;
        for t in range.clone() {
            let token_log_ratio = diff(scores.logp, old_logp, t);
            let advantage = f64::from(advantages[t]);
            // A sequence ratio has 1/n of each token's derivative for all its n tokens. They share
            // one advantage, so the sum is again the token's own derivative.
            let ratio = match options.ratio_level {
                RatioLevel::Token => token_log_ratio,
                RatioLevel::Sequence => mean_log_ratio,
            }
            .exp();
            let clipped_low = advantage < 0.0 && ratio < 1.0 - options.clip_low;
            let clipped_high = advantage > 0.0 && ratio > 1.0 + options.clip_high;
            let clipped_ratio = ratio.clamp(1.0 - options.clip_low, 1.0 + options.clip_high);

            let mut token_loss = -(ratio * advantage).min(clipped_ratio * advantage);
            let mut d = if clipped_low || clipped_high { 0.0 } else { -ratio * advantage };
            if !reference_logp.is_empty() {
                let delta = diff(scores.logp, reference_logp, t);
                if let Some(kl) = options.kl {
                    token_loss += kl.coefficient * kl.estimator.value(delta);
                    d += kl.coefficient * kl.estimator.derivative(delta);
                }
                stats.reference_tokens += 1;
                stats.kl_reference += KlEstimator::LowVariance.value(delta);
            }
            if !scores.entropy.is_empty() {
                let entropy = f64::from(scores.entropy[t]);
                token_loss -= options.entropy_bonus * entropy;
                stats.entropy_tokens += 1;
                stats.entropy += entropy;
            }
            if let Some(d) = dentropy.get_mut(t) {
                *d = (-weight * options.entropy_bonus) as f32;
            }
            loss += weight * token_loss;
            dlogp[t] = (weight * d) as f32;

            stats.tokens += 1;
            stats.ratio += ratio;
            stats.clipped_low += usize::from(clipped_low);
            stats.clipped_high += usize::from(clipped_high);
            // The old policy drew the samples, so the estimator's log-ratio is old over new.
            stats.kl_old += KlEstimator::LowVariance.value(-token_log_ratio);
        }
    }
    LossAndGrad { loss, dlogp, dentropy, dvalue: Vec::new(), stats }
}

fn token_weight(options: &Options, batch: BatchSize, sequence_len: usize) -> f64 {
    let parts = match options.normalisation {
        Normalisation::Token => batch.tokens,
        Normalisation::Sequence => batch.sequences * sequence_len,
        Normalisation::Constant => batch.sequences * options.max_length,
    };
    1.0 / parts as f64
}
