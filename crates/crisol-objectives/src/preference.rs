//! Direct alignment on preference pairs: DPO and its kin.
//!
//! All of them see a pair only through `h`, how much more the policy prefers the chosen answer
//! `y_w` to the rejected `y_l` than the reference does. Log-probabilities are summed over an
//! answer's tokens.
//!
//! ```text
//! h = [log π(y_w|x) - log π_ref(y_w|x)] - [log π(y_l|x) - log π_ref(y_l|x)]
//!
//! sigmoid   ℓ(h) = -log σ(β h)           DPO, Rafailov et al. 2023, arXiv:2305.18290, eq. 7
//! ipo       ℓ(h) = (h - 1/(2β))²         IPO, Azar et al. 2023, arXiv:2310.12036, eq. 17 (τ is β)
//! hinge     ℓ(h) = max(0, 1 - β h)       SLiC-HF, Zhao et al. 2023, arXiv:2305.10425, in the
//!                                        form of RSO, Liu et al. 2023, arXiv:2309.06657
//!
//! L = mean over pairs of  (1-ε) ℓ(h) + ε ℓ(-h) + α · -log π(y_w|x) / |y_w|
//! ```
//!
//! `ε` is the probability of a wrong label (conservative DPO: Mitchell 2023, "A note on DPO with
//! noisy preferences & relationship to IPO"), applied to every `ℓ`. With IPO it moves the optimum
//! to `h = (1-2ε)/(2β) = (p - 1/2)/β`, the paper's for a preference probability `p = 1-ε`. `α` adds
//! the negative log-likelihood of the chosen answer per token (Pang et al. 2024, arXiv:2404.19733),
//! because DPO tends to lower both log-probabilities.
//!
//! IPO is the paper's, on *sums* of log-probabilities. TRL averages over an answer's tokens, so its
//! `β` aims at a gap of `1/(2β)` per token and is not comparable.

use crate::{
    BatchSize, LossAndGrad, Stats, TokenScores, named, sequences, sigmoid, softplus, sums,
};

named! {
    /// How a pair's preference gap becomes a loss.
    pub enum PreferenceLoss ("preference loss") {
        /// DPO: logistic regression on the gap.
        Sigmoid = "sigmoid",
        /// IPO: the gap shall be `1/(2β)`, no more.
        Ipo = "ipo",
        /// `SLiC`: the gap shall be at least `1/β`.
        Hinge = "hinge",
    }
}

/// Options of the preference losses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Which loss.
    pub loss: PreferenceLoss,
    /// β: the strength of the tie to the reference; larger keeps closer.
    pub beta: f64,
    /// ε: probability that a label is wrong, in `0..0.5`.
    pub label_smoothing: f64,
    /// α: weight of the chosen answer's negative log-likelihood per token; 0 leaves it out.
    pub sft_weight: f64,
}

impl Default for Options {
    /// The DPO paper's setting (its appendix B: β = 0.1).
    fn default() -> Self {
        Self { loss: PreferenceLoss::Sigmoid, beta: 0.1, label_smoothing: 0.0, sft_weight: 0.0 }
    }
}

sums! {
    /// Sums over preference pairs.
    pub struct PreferenceStats {
        /// Pairs.
        pub pairs: usize,
        /// Pairs whose margin is positive.
        pub correct: usize,
        /// Log-prob of the chosen answers.
        pub chosen_logp: f64,
        /// Log-prob of the rejected answers.
        pub rejected_logp: f64,
        /// Implicit reward, β times the log-ratio to the reference, of the chosen answers.
        pub chosen_reward: f64,
        /// Implicit reward of the rejected answers.
        pub rejected_reward: f64,
        /// Negative log-likelihood per token of the chosen answers.
        pub chosen_nll: f64,
    }
}

impl Stats for PreferenceStats {
    fn means(&self) -> Vec<(&'static str, f64)> {
        if self.pairs == 0 {
            return Vec::new();
        }
        let n = self.pairs as f64;
        vec![
            ("accuracy", self.correct as f64 / n),
            ("margin", (self.chosen_reward - self.rejected_reward) / n),
            ("chosen_reward", self.chosen_reward / n),
            ("rejected_reward", self.rejected_reward / n),
            ("chosen_logp", self.chosen_logp / n),
            ("rejected_logp", self.rejected_logp / n),
            ("chosen_nll", self.chosen_nll / n),
        ]
    }
}

/// The log-prob of every whole sequence, `[sequences]`: what the reference is asked for, once.
pub fn sequence_logp(scores: &TokenScores) -> Vec<f64> {
    sequences(scores.offsets)
        .map(|tokens| scores.logp[tokens].iter().map(|&x| f64::from(x)).sum())
        .collect()
}

/// ℓ(h) and its derivative.
fn pair_loss(loss: PreferenceLoss, beta: f64, h: f64) -> (f64, f64) {
    match loss {
        PreferenceLoss::Sigmoid => (softplus(-beta * h), -beta * sigmoid(-beta * h)),
        PreferenceLoss::Ipo => {
            let miss = h - 1.0 / (2.0 * beta);
            (miss * miss, 2.0 * miss)
        }
        PreferenceLoss::Hinge if beta * h >= 1.0 => (0.0, 0.0),
        PreferenceLoss::Hinge => (1.0 - beta * h, -beta),
    }
}

/// The preference loss of a shard; uses `logp`.
///
/// Sequence `2i` is the chosen and `2i + 1` the rejected answer of pair `i`; `reference_logp` holds
/// [`sequence_logp`] of the reference model for the same sequences.
pub fn loss(
    scores: &TokenScores,
    reference_logp: &[f64],
    options: &Options,
    batch: BatchSize,
) -> LossAndGrad<PreferenceStats> {
    let logp = sequence_logp(scores);
    assert_eq!(logp.len(), reference_logp.len(), "one reference log-prob per sequence");
    assert_eq!(logp.len() % 2, 0, "sequences come in pairs: chosen, rejected");
    let weight = 2.0 / batch.sequences as f64;
    let ranges: Vec<_> = sequences(scores.offsets).collect();

    let mut loss = 0.0;
    let mut dlogp = vec![0.0; scores.logp.len()];
    let mut stats = PreferenceStats::default();
    for chosen in (0..logp.len()).step_by(2) {
        let rejected = chosen + 1;
        let chosen_reward = options.beta * (logp[chosen] - reference_logp[chosen]);
        let rejected_reward = options.beta * (logp[rejected] - reference_logp[rejected]);
        let h =
            (logp[chosen] - reference_logp[chosen]) - (logp[rejected] - reference_logp[rejected]);

        let (right, dright) = pair_loss(options.loss, options.beta, h);
        let (wrong, dwrong) = pair_loss(options.loss, options.beta, -h);
        let e = options.label_smoothing;
        let dh = (1.0 - e) * dright - e * dwrong;
        let chosen_len = ranges[chosen].len().max(1) as f64;
        let chosen_nll = -logp[chosen] / chosen_len;

        loss += weight * ((1.0 - e) * right + e * wrong + options.sft_weight * chosen_nll);
        dlogp[ranges[chosen].clone()]
            .fill((weight * (dh - options.sft_weight / chosen_len)) as f32);
        dlogp[ranges[rejected].clone()].fill((-weight * dh) as f32);

        stats += PreferenceStats {
            pairs: 1,
            correct: usize::from(h > 0.0),
            chosen_logp: logp[chosen],
            rejected_logp: logp[rejected],
            chosen_reward,
            rejected_reward,
            chosen_nll,
        };
    }
    LossAndGrad { loss, dlogp, dentropy: Vec::new(), dvalue: Vec::new(), stats }
}
