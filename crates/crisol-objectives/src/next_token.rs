//! Next-token prediction: cross-entropy of the trained tokens, in pre-training and fine-tuning.
//!
//! ```text
//! L = -1/N · Σ_t log π(x_t | x_<t)        N: trained tokens of the whole batch
//! ```
//!
//! The two differ in which tokens are trained, which packing has decided. Every scored token has
//! the same weight. (A mean of per-document or per-micro-batch means would give tokens of short
//! documents more weight, and would depend on the split into micro-batches.)

use crate::{BatchSize, LossAndGrad, Stats, TokenScores, sums};

sums! {
    /// Sums of the next-token objective.
    pub struct NextTokenStats {
        /// Negative log-likelihood in nats.
        pub nll: f64,
        /// Trained tokens.
        pub tokens: usize,
    }
}

impl Stats for NextTokenStats {
    fn means(&self) -> Vec<(&'static str, f64)> {
        if self.tokens == 0 {
            return Vec::new();
        }
        vec![("loss", self.nll / self.tokens as f64)]
    }
}

/// Cross-entropy over the scored tokens of a shard; uses `logp`.
pub fn loss(scores: &TokenScores, batch: BatchSize) -> LossAndGrad<NextTokenStats> {
    let n = batch.tokens as f64;
    let nll = -scores.logp.iter().map(|&logp| f64::from(logp)).sum::<f64>();
    LossAndGrad {
        loss: nll / n,
        dlogp: vec![(-1.0 / n) as f32; scores.logp.len()],
        dentropy: Vec::new(),
        dvalue: Vec::new(),
        stats: NextTokenStats { nll, tokens: scores.logp.len() },
    }
}
