//! Compute-optimal model sizes: the scaling laws of Hoffmann et al. 2022 ("Chinchilla",
//! arXiv:2203.15556), and the cost of deviating from the optimum.
//!
//! ```text
//! C = 6 · N · D          L(N, D) = E + A / N^α + B / D^β
//! ```

use crate::units::{Flops, Tokens};

/// Training FLOPs per parameter and token.
const TRAINING: f64 = 6.0;
/// Inference FLOPs per parameter and token.
const INFERENCE: f64 = 2.0;

/// Parameters and training tokens of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// Parameters.
    pub parameters: f64,
    /// Training tokens.
    pub tokens: Tokens,
}

impl Size {
    /// Training FLOPs: 6·N·D.
    pub fn flops(self) -> Flops {
        Flops(TRAINING * self.parameters * self.tokens.0)
    }

    /// The size with this many parameters that uses the whole budget.
    pub fn within(budget: Flops, parameters: f64) -> Size {
        Size { parameters, tokens: Tokens(budget.0 / (TRAINING * parameters)) }
    }
}

/// A law for the optimal size at a compute budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Law {
    /// A power law through a published point: 10⁹ parameters are optimal at `budget`.
    Power {
        /// Its name.
        name: &'static str,
        /// Budget in FLOPs at which 10⁹ parameters are optimal.
        budget: f64,
        /// Exponent of the optimal parameters in the budget.
        exponent: f64,
    },
    /// A fitted loss L(N, D) = E + A/N^α + B/D^β.
    Loss {
        /// Its name.
        name: &'static str,
        /// The fit.
        fit: LossFit,
    },
}

/// L(N, D) = E + A/N^α + B/D^β, in nats per token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossFit {
    /// E: the irreducible loss.
    pub irreducible: f64,
    /// A.
    pub a: f64,
    /// α.
    pub alpha: f64,
    /// B.
    pub b: f64,
    /// β.
    pub beta: f64,
}

/// Approach 3 as published, with the precision of the paper's source.
pub const HOFFMANN: LossFit =
    LossFit { irreducible: 1.6934, a: 406.4, alpha: 0.3392, b: 410.7, beta: 0.2849 };
/// A new fit of the same experiments (Besiroglu et al. 2024, arXiv:2404.10102), which agrees with
/// approaches 1 and 2.
pub const BESIROGLU: LossFit =
    LossFit { irreducible: 1.8172, a: 482.01, alpha: 0.3478, b: 2085.43, beta: 0.3658 };

/// The paper's three approaches (Tables 2, 3 and A3) and the later fit.
pub const LAWS: [Law; 4] = [
    Law::Power {
        name: "approach 1 (envelope of training curves)",
        budget: 1.21e20,
        exponent: 0.50,
    },
    Law::Power { name: "approach 2 (IsoFLOP profiles)", budget: 1.20e20, exponent: 0.49 },
    Law::Loss { name: "approach 3 (parametric fit)", fit: HOFFMANN },
    Law::Loss { name: "approach 3 fitted again (Besiroglu et al.)", fit: BESIROGLU },
];

impl Law {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Law::Power { name, .. } | Law::Loss { name, .. } => name,
        }
    }

    /// The optimal size for a budget.
    pub fn optimum(self, budget: Flops) -> Size {
        match self {
            Law::Power { budget: anchor, exponent, .. } => {
                Size::within(budget, 1e9 * (budget.0 / anchor).powf(exponent))
            }
            Law::Loss { fit, .. } => fit.optimum(budget),
        }
    }
}

impl LossFit {
    /// The loss of a size.
    pub fn loss(&self, size: Size) -> f64 {
        self.irreducible
            + self.a * size.parameters.powf(-self.alpha)
            + self.b * size.tokens.0.powf(-self.beta)
    }

    /// The optimal size for a budget (equation 4 of the paper).
    pub fn optimum(&self, budget: Flops) -> Size {
        let sum = self.alpha + self.beta;
        let g = (self.alpha * self.a / (self.beta * self.b)).powf(1.0 / sum);
        Size::within(budget, g * (budget.0 / TRAINING).powf(self.beta / sum))
    }

    /// Tokens after which a model of this size reaches a loss; `None` if it never does.
    pub fn tokens_for(&self, parameters: f64, loss: f64) -> Option<Tokens> {
        let rest = loss - self.irreducible - self.a * parameters.powf(-self.alpha);
        (rest > 0.0).then(|| Tokens((self.b / rest).powf(1.0 / self.beta)))
    }
}

/// A size other than the optimal one, and its consequences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alternative {
    /// The size, for the same budget.
    pub size: Size,
    /// Its loss.
    pub loss: f64,
    /// Its loss above the optimal loss.
    pub loss_above: f64,
    /// Its inference FLOPs per token relative to the optimal size.
    pub inference: f64,
    /// Budget relative to the optimum's at which this size reaches the optimal loss; `None` if it
    /// never does.
    pub budget_for_same_loss: Option<f64>,
    /// Inference tokens after which longer training of this size pays off; `None` if it never does,
    /// 0 for the optimum.
    pub pays_after: Option<Tokens>,
}

/// Fractions and multiples of the optimal size at the same budget.
pub fn alternatives(fit: &LossFit, budget: Flops, factors: &[f64]) -> Vec<Alternative> {
    let best = fit.optimum(budget);
    let least = fit.loss(best);
    factors
        .iter()
        .map(|factor| {
            let parameters = best.parameters * factor;
            let size = Size::within(budget, parameters);
            let loss = fit.loss(size);
            let same = fit
                .tokens_for(parameters, least)
                .map(|tokens| Size { parameters, tokens }.flops() / budget);
            let saved = INFERENCE * (best.parameters - parameters);
            let pays_after = same.and_then(|same| {
                let extra = (same - 1.0).max(0.0) * budget.0;
                if *factor == 1.0 {
                    Some(Tokens(0.0))
                } else {
                    (saved > 0.0).then(|| Tokens(extra / saved))
                }
            });
            Alternative {
                size,
                loss,
                loss_above: loss - least,
                inference: *factor,
                budget_for_same_loss: same,
                pays_after,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tables 3 and A3 of the paper: budget, parameters and tokens by approach.
    #[test]
    fn the_papers_tables() {
        let published = [
            (0, 1.92e19, 0.4e9, 8.0e9),
            (0, 1.23e22, 10e9, 205.1e9),
            (0, 5.76e23, 67e9, 1.5e12),
            (0, 3.85e24, 175e9, 3.7e12),
            (1, 1.84e19, 0.4e9, 7.7e9),
            (1, 1.32e22, 10e9, 219.5e9),
            (1, 6.88e23, 67e9, 1.7e12),
            (2, 2.21e19, 0.4e9, 9.2e9),
            (2, 1.62e20, 1e9, 27.1e9),
            (2, 2.46e22, 10e9, 410.1e9),
            (2, 1.71e24, 67e9, 4.1e12),
        ];
        for (approach, budget, parameters, tokens) in published {
            let size = LAWS[approach].optimum(Flops(budget));
            // Tables and exponents are rounded.
            let off = |is: f64, said: f64| (is / said - 1.0).abs();
            assert!(off(size.parameters, parameters) < 0.1, "{approach} at {budget}: {size:?}");
            assert!(off(size.tokens.0, tokens) < 0.13, "{approach} at {budget}: {size:?}");
        }
    }

    #[test]
    fn twenty_tokens_a_parameter() {
        let size = LAWS[0].optimum(Flops(1e21));
        assert!((19.0..22.0).contains(&(size.tokens.0 / size.parameters)), "{size:?}");
    }

    #[test]
    fn a_smaller_model_pays_for_itself() {
        let table = alternatives(&BESIROGLU, Flops(1e21), &[0.02, 0.25, 0.5, 1.0, 2.0]);
        // The smallest model never reaches the loss.
        assert_eq!(table[0].budget_for_same_loss, None);
        let half = table[2];
        assert!(
            half.budget_for_same_loss.unwrap() > 1.0 && half.pays_after.unwrap().0 > 1e9,
            "{half:?}"
        );
        assert!(table[1].budget_for_same_loss > half.budget_for_same_loss);
        assert_eq!((table[3].loss_above, table[3].pays_after), (0.0, Some(Tokens(0.0))));
        assert_eq!(table[4].pays_after, None);
    }

    proptest! {
        #[test]
        fn the_optimum_is_one(budget in 17.0..27.0_f64, factor in 0.2..5.0_f64) {
            for fit in [HOFFMANN, BESIROGLU] {
                let budget = Flops(10f64.powf(budget));
                let best = fit.optimum(budget);
                prop_assert!((best.flops() / budget - 1.0).abs() < 1e-9);
                let other = Size::within(budget, best.parameters * factor);
                prop_assert!(fit.loss(other) >= fit.loss(best) - 1e-12);
                let tokens = fit.tokens_for(best.parameters, fit.loss(best));
                let tokens = tokens.expect("it has this loss");
                prop_assert!((tokens / best.tokens - 1.0).abs() < 1e-6);
            }
        }

        #[test]
        fn more_budget_is_a_larger_model_and_more_tokens(
            budget in 17.0..26.0_f64,
            more in 1.01..100.0_f64,
        ) {
            for law in LAWS {
                let small = law.optimum(Flops(10f64.powf(budget)));
                let large = law.optimum(Flops(10f64.powf(budget) * more));
                prop_assert!(large.parameters > small.parameters && large.tokens > small.tokens);
            }
        }
    }
}
