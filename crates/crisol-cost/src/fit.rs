//! A curve through the losses of a ladder of small runs, and what it says of larger ones.
//!
//! The losses of models that get the same number of tokens for each parameter fall as a power of compute towards a limit,
//! L(C) = E + A·C^-α (Hoffmann et al. 2022, arXiv:2203.15556: the envelope of equation 2). α is searched on a grid; E and A are
//! then a linear least-squares problem. With few runs the limit is hardly known, so a prediction is an interval: it spans the
//! predictions of all α with which the curve is not significantly worse (a profile likelihood), each with the scatter about it.

use thiserror::Error;

use crate::units::Flops;

/// One run of a ladder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rung {
    /// Operations of its training.
    pub flops: Flops,
    /// Its loss on held-out text.
    pub loss: f64,
}

/// L(C) = E + A·(C / C₀)^-α, where C₀ is the largest run's.
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
    /// All curves that the runs allow.
    plausible: Vec<Curve>,
    /// Standard deviation of a run about the curve.
    scatter: f64,
    /// How many of them a 90 % interval reaches out.
    quantile: f64,
}

/// A loss that is expected, with a 90 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Lower end.
    pub low: f64,
    /// By the best curve.
    pub expected: f64,
    /// Upper end.
    pub high: f64,
}

/// Why there is no curve.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FitError {
    /// A curve of three numbers needs more runs.
    #[error(
        "{found} runs are too few: a curve with a limit, a factor and an exponent needs four or more"
    )]
    TooFew {
        /// How many there are.
        found: usize,
    },
    /// All have nearly the same compute.
    #[error(
        "the runs differ by a factor of {factor:.1} in compute only; a curve needs a factor of 8 or more"
    )]
    TooNarrow {
        /// Largest over smallest.
        factor: f64,
    },
    /// More compute did not help.
    #[error(
        "the loss does not fall with compute; runs of a ladder must differ in size and tokens only"
    )]
    NoTrend,
}

const FEWEST: usize = 4;
const MIN_FACTOR: f64 = 8.0;

/// 95 % quantiles of Student's distribution for 1, 2, … degrees of freedom.
const QUANTILES: [f64; 10] = [6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812];

impl LadderFit {
    /// Fits the curve.
    pub fn new(rungs: &[Rung]) -> Result<LadderFit, FitError> {
        if rungs.len() < FEWEST {
            return Err(FitError::TooFew { found: rungs.len() });
        }
        let flops = rungs.iter().map(|rung| rung.flops.0);
        let (least, reference) =
            (flops.clone().fold(f64::INFINITY, f64::min), flops.fold(0.0, f64::max));
        if reference < MIN_FACTOR * least {
            return Err(FitError::TooNarrow { factor: reference / least });
        }
        // Published exponents of compute are 0.05 to 0.2; small runs may fall faster. Runs without any scatter leave nothing but the best
        // of these, so they are close to one another.
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
        Ok(LadderFit { reference, best, plausible, scatter: variance.sqrt(), quantile })
    }

    /// The loss that no compute gets below, as far as the best curve knows.
    pub fn limit(&self) -> f64 {
        self.best.limit
    }

    /// The exponent of compute.
    pub fn exponent(&self) -> f64 {
        self.best.alpha
    }

    /// The loss at a budget.
    pub fn predict(&self, budget: Flops) -> Prediction {
        let at = |curve: &Curve| curve.at(budget.0 / self.reference);
        let (low, high) = self
            .plausible
            .iter()
            .map(at)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), loss| {
                (low.min(loss), high.max(loss))
            });
        let reach = self.quantile * self.scatter;
        Prediction { low: low - reach, expected: at(&self.best), high: high + reach }
    }
}

impl Curve {
    /// The curve of this exponent with the least squares; none if it would rise or end below zero.
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
    fn too_little_is_said_to_be_too_little() {
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
                prop_assert!((expected - rung.loss).abs() < 0.02 && low <= rung.loss && rung.loss <= high);
            }
            let truth = limit + scale * 1e4f64.powf(-alpha);
            let Prediction { low, high, .. } = fit.predict(Flops(1e16));
            prop_assert!(low <= truth + 1e-3 && truth <= high + 1e-3, "{} of {}..{}", truth, low, high);
        }
    }
}
