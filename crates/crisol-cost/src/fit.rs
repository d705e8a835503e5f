//! Fits the losses of a ladder of small runs and extrapolates to larger compute.
//!
//! ```text
//! L(C) = E + A · C^-α
//! ```
//!
//! Models with a constant number of tokens per parameter follow this law (Hoffmann et al. 2022,
//! arXiv:2203.15556: the envelope of equation 2). α is found by grid search; E and A by linear
//! least squares. With few runs E is poorly determined, so a prediction is an interval: the range
//! over all α that fit about as well (profile likelihood), widened by the residuals.

use thiserror::Error;

use crate::units::Flops;

/// One run of a ladder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rung {
    /// Compute of its training.
    pub flops: Flops,
    /// Its loss on held-out text.
    pub loss: f64,
}

/// L(C) = E + A · (C / C₀)^-α, with C₀ the compute of the largest run.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Curve {
    limit: f64,
    scale: f64,
    alpha: f64,
    /// Sum of squared residuals.
    squares: f64,
}

/// A fitted ladder.
#[derive(Clone, Debug, PartialEq)]
pub struct LadderFit {
    reference: f64,
    best: Curve,
    /// All curves that are statistically compatible with the runs.
    plausible: Vec<Curve>,
    /// Standard deviation of the residuals.
    residual_std: f64,
    /// Half-width of a 90 % interval in standard deviations.
    quantile: f64,
}

/// A predicted loss with its 90 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Lower end.
    pub low: f64,
    /// Prediction of the best curve.
    pub expected: f64,
    /// Upper end.
    pub high: f64,
}

/// Why no curve can be fitted.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FitError {
    /// Three parameters need more runs.
    #[error(
        "{found} runs are too few: a curve with a limit, a factor and an exponent needs four \
         or more"
    )]
    TooFew {
        /// Number of runs.
        found: usize,
    },
    /// The range of compute is too narrow.
    #[error(
        "the runs differ by a factor of only {factor:.1} in compute; a curve needs a factor of 8 \
         or more"
    )]
    TooNarrow {
        /// Largest compute over smallest.
        factor: f64,
    },
    /// The loss does not fall with compute.
    #[error(
        "the loss does not fall with compute; runs of a ladder must differ in size and tokens only"
    )]
    NoTrend,
}

const MIN_RUNGS: usize = 4;
const MIN_COMPUTE_RATIO: f64 = 8.0;

/// 95 % quantiles of Student's t distribution for 1, 2, … degrees of freedom.
const QUANTILES: [f64; 10] = [6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812];

impl LadderFit {
    /// Fits the curve.
    pub fn new(rungs: &[Rung]) -> Result<LadderFit, FitError> {
        if rungs.len() < MIN_RUNGS {
            return Err(FitError::TooFew { found: rungs.len() });
        }
        let flops = rungs.iter().map(|rung| rung.flops.0);
        let (least, reference) =
            (flops.clone().fold(f64::INFINITY, f64::min), flops.fold(0.0, f64::max));
        if reference < MIN_COMPUTE_RATIO * least {
            return Err(FitError::TooNarrow { factor: reference / least });
        }
        // Published exponents of compute are 0.05 to 0.2; small runs can be steeper. The grid is
        // fine because runs without noise are compatible with only one of its curves.
        let curves: Vec<Curve> = (1..=2000)
            .filter_map(|i| Curve::through(rungs, reference, f64::from(i) * 0.0005))
            .collect();
        let best = curves
            .iter()
            .min_by(|a, b| a.squares.total_cmp(&b.squares))
            .copied()
            .ok_or(FitError::NoTrend)?;
        let freedom = rungs.len() - 3;
        let quantile = QUANTILES[freedom.min(QUANTILES.len()) - 1];
        let variance = best.squares / freedom as f64;
        // F with one degree of freedom is Student's t squared.
        let limit = best.squares + variance * quantile * quantile;
        let plausible = curves.into_iter().filter(|curve| curve.squares <= limit).collect();
        Ok(LadderFit { reference, best, plausible, residual_std: variance.sqrt(), quantile })
    }

    /// The irreducible loss E of the best curve.
    pub fn limit(&self) -> f64 {
        self.best.limit
    }

    /// The exponent α of the best curve.
    pub fn exponent(&self) -> f64 {
        self.best.alpha
    }

    /// The predicted loss at a compute budget.
    pub fn predict(&self, budget: Flops) -> Prediction {
        let at = |curve: &Curve| curve.at(budget.0 / self.reference);
        let (low, high) = self
            .plausible
            .iter()
            .map(at)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), loss| {
                (low.min(loss), high.max(loss))
            });
        let margin = self.quantile * self.residual_std;
        Prediction { low: low - margin, expected: at(&self.best), high: high + margin }
    }
}

impl Curve {
    /// The least-squares curve with exponent `alpha`; `None` if it rises or has a negative limit.
    fn through(rungs: &[Rung], reference: f64, alpha: f64) -> Option<Curve> {
        let points: Vec<(f64, f64)> =
            rungs.iter().map(|rung| ((rung.flops.0 / reference).powf(-alpha), rung.loss)).collect();
        let mean = |of: &dyn Fn(&(f64, f64)) -> f64| {
            points.iter().map(of).sum::<f64>() / points.len() as f64
        };
        let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
        let scale = mean(&|p| (p.0 - x) * (p.1 - y)) / mean(&|p| (p.0 - x) * (p.0 - x));
        let limit = y - scale * x;
        let squares = points.iter().map(|p| (p.1 - limit - scale * p.0).powi(2)).sum();
        (scale > 0.0 && limit >= 0.0).then_some(Curve { limit, scale, alpha, squares })
    }

    fn at(&self, budget: f64) -> f64 {
        self.limit + self.scale * budget.powf(-self.alpha)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ladder(limit: f64, scale: f64, alpha: f64, noise: f64) -> Vec<Rung> {
        (0..6)
            .map(|i| {
                let flops = 1e12 * 4f64.powi(i);
                let wobble = if i % 2 == 0 { noise } else { -noise };
                Rung {
                    flops: Flops(flops),
                    loss: limit + scale * (flops / 1e12).powf(-alpha) + wobble,
                }
            })
            .collect()
    }

    #[test]
    fn too_few_or_similar_runs_are_refused() {
        let rungs = ladder(1.0, 2.0, 0.2, 0.0);
        assert_eq!(LadderFit::new(&rungs[..3]), Err(FitError::TooFew { found: 3 }));
        let narrow: Vec<Rung> =
            rungs.iter().map(|rung| Rung { flops: Flops(1e12), ..*rung }).collect();
        assert_eq!(LadderFit::new(&narrow), Err(FitError::TooNarrow { factor: 1.0 }));
        let mut rising = rungs.clone();
        for rung in &mut rising {
            rung.loss = 5.0 - rung.loss;
        }
        assert_eq!(LadderFit::new(&rising), Err(FitError::NoTrend));
    }

    #[test]
    fn noise_makes_the_interval_wider() {
        let width = |noise: f64| {
            let fit = LadderFit::new(&ladder(1.0, 2.0, 0.2, noise)).unwrap();
            let Prediction { low, high, .. } = fit.predict(Flops(1e17));
            high - low
        };
        assert!(width(0.02) > 2.0 * width(0.002), "{} {}", width(0.02), width(0.002));
    }

    proptest! {
        #[test]
        fn a_true_curve_is_found_and_lies_in_the_interval(
            limit in 0.5..2.0_f64,
            scale in 0.5..4.0_f64,
            alpha in 0.05..0.5_f64,
            noise in 0.0..0.005_f64,
        ) {
            let fit = LadderFit::new(&ladder(limit, scale, alpha, noise)).unwrap();
            for rung in ladder(limit, scale, alpha, noise) {
                let Prediction { low, expected, high } = fit.predict(rung.flops);
                prop_assert!((expected - rung.loss).abs() < 0.02);
                prop_assert!(low <= rung.loss && rung.loss <= high);
            }
            let truth = limit + scale * 1e4f64.powf(-alpha);
            let Prediction { low, high, .. } = fit.predict(Flops(1e16));
            prop_assert!(low <= truth + 1e-3, "{} of {}..{}", truth, low, high);
            prop_assert!(truth <= high + 1e-3, "{} of {}..{}", truth, low, high);
        }
    }
}
