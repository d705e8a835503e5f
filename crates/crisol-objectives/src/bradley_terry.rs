//! The reward model: a scalar per answer; the chosen answer of a pair scores higher.
//!
//! ```text
//! L = mean over pairs of  -log σ(r_w - r_l) + c · (r_w + r_l)²
//! ```
//!
//! The first term is the negative log-likelihood of the preferences (Bradley & Terry 1952), as in
//! Ouyang et al. 2022, arXiv:2203.02155. It determines only differences of rewards. The optional
//! second term (Eisenstein et al. 2023, arXiv:2312.09244; TRL suggests c = 0.01) centres them at
//! zero, which makes rewards of different models comparable.

use crate::{BatchSize, LossAndGrad, Stats, TokenScores, sigmoid, softplus, sums};

sums! {
    /// Sums over the pairs of a reward model.
    pub struct RewardStats {
        /// Pairs.
        pub pairs: usize,
        /// Pairs in which the chosen answer has the higher reward; a tie is not correct.
        pub correct: usize,
        /// -log σ(margin).
        pub nll: f64,
        /// Reward of the chosen answers.
        pub chosen_reward: f64,
        /// Reward of the rejected answers.
        pub rejected_reward: f64,
    }
}

impl Stats for RewardStats {
    fn means(&self) -> Vec<(&'static str, f64)> {
        if self.pairs == 0 {
            return Vec::new();
        }
        let n = self.pairs as f64;
        vec![
            ("accuracy", self.correct as f64 / n),
            ("nll", self.nll / n),
            ("margin", (self.chosen_reward - self.rejected_reward) / n),
            ("chosen_reward", self.chosen_reward / n),
            ("rejected_reward", self.rejected_reward / n),
        ]
    }
}

/// The Bradley-Terry loss of a shard; uses `value`, of which every sequence has exactly one.
///
/// Sequence `2i` is the chosen and `2i + 1` the rejected answer of pair `i`. `centring` is the
/// coefficient `c`; 0 disables the penalty.
pub fn loss(scores: &TokenScores, centring: f64, batch: BatchSize) -> LossAndGrad<RewardStats> {
    let size = scores.size();
    assert_eq!(size.tokens, size.sequences, "one scored row per sequence");
    assert_eq!(size.sequences, scores.value.len(), "one value per sequence");
    assert_eq!(scores.value.len() % 2, 0, "sequences come in pairs: chosen, rejected");
    let weight = 2.0 / batch.sequences as f64;

    let mut loss = 0.0;
    let mut dvalue = Vec::with_capacity(scores.value.len());
    let mut stats = RewardStats::default();
    for pair in scores.value.chunks_exact(2) {
        let (chosen_reward, rejected_reward) = (f64::from(pair[0]), f64::from(pair[1]));
        let margin = chosen_reward - rejected_reward;
        let sum = chosen_reward + rejected_reward;
        let nll = softplus(-margin);

        loss += weight * (nll + centring * sum * sum);
        let (dmargin, dsum) = (-sigmoid(-margin), 2.0 * centring * sum);
        dvalue.push((weight * (dsum + dmargin)) as f32);
        dvalue.push((weight * (dsum - dmargin)) as f32);

        stats += RewardStats {
            pairs: 1,
            correct: usize::from(margin > 0.0),
            nll,
            chosen_reward,
            rejected_reward,
        };
    }
    LossAndGrad { loss, dlogp: Vec::new(), dentropy: Vec::new(), dvalue, stats }
}
