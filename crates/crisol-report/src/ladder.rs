//! What `crisol cost ladder` reports: the losses of several runs, the curve through them, and what
//! it predicts of larger ones.

use serde::Serialize;

/// A fitted ladder, L(C) = limit + factor·C^-exponent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LadderReport {
    /// Version of Crisol that fitted it.
    pub crisol: String,
    /// When, as the caller wants it shown.
    pub created: String,
    /// The loss that no compute gets below, by the best curve.
    pub limit: f64,
    /// The exponent of compute, by the best curve.
    pub exponent: f64,
    /// The runs, least compute first.
    pub rungs: Vec<MeasuredRung>,
    /// What is expected of larger runs.
    pub predictions: Vec<PredictedLoss>,
    /// The curve from the smallest run to the largest prediction, as it is drawn.
    pub curve: Vec<PredictedLoss>,
}

impl LadderReport {
    /// Whether the runs show no limit: the curve's is next to nothing beside their losses.
    pub fn shows_no_limit(&self) -> bool {
        let least = self.rungs.iter().map(|rung| rung.loss).fold(f64::INFINITY, f64::min);
        self.limit < 0.02 * least
    }
}

/// A run of the ladder.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MeasuredRung {
    /// The run's folder, as it was named.
    pub run: String,
    /// Parameters of its model, a tied matrix counted once.
    pub parameters: u64,
    /// Tokens that it was trained on.
    pub tokens: u64,
    /// Operations of its pre-training.
    pub flops: f64,
    /// Its loss on held-out text, in nats a token.
    pub loss: f64,
    /// What the curve says at its compute.
    pub fitted: f64,
}

/// A loss that is expected at some compute, with a 90 % interval for a single run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PredictedLoss {
    /// Operations of training.
    pub flops: f64,
    /// How many times the largest run's they are.
    pub times: f64,
    /// Lower end.
    pub low: f64,
    /// By the best curve.
    pub expected: f64,
    /// Upper end.
    pub high: f64,
}
