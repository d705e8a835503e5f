//! The reward model: a scalar per answer such that the chosen one of a pair scores higher.
//!
//! ```text
//! L = mean over pairs of  -log σ(r_w - r_l) + c · (r_w + r_l)²
//! ```
//!
//! The first term is the likelihood of the votes under Bradley & Terry (1952), as in Ouyang et al. 2022,
//! arXiv:2203.02155. It fixes only differences of rewards; the second, optional one (Eisenstein et al.
//! 2023, arXiv:2312.09244; TRL suggests c = 0.01) pins their mean at zero, so that rewards of different models
//! and of different moments of training can be compared.

use crate::{BatchSize, LossAndGrad, Stats, TokenScores, sigmoid, softplus, sums};

sums! {
    /// Sums over the pairs a reward model is trained or tested on.
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
/// Sequence `2i` is the chosen and `2i + 1` the rejected answer of pair `i`. `centring` is the penalty's
/// coefficient `c`; 0 leaves it out.
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
