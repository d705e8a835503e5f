//! Learning-rate schedules: constant, WSD and cosine, each after a linear warm-up.

use serde::{Deserialize, Serialize};

/// Learning rate over the steps of a phase, as a factor on the peak rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Warm-up, then constant.
    Constant,
    /// Warm-up, stable, then linear decay to zero over the last `decay` share of the steps (WSD; Hu
    /// et al. 2024, arXiv:2404.06395; linear form of Hägele et al. 2024, arXiv:2405.18392).
    Wsd,
    /// Warm-up, then half a cosine down to a tenth of the peak (Loshchilov & Hutter 2017,
    /// arXiv:1608.03983; floor of Hoffmann et al. 2022, arXiv:2203.15556).
    Cosine,
}

impl Schedule {
    /// The factor on the peak learning rate at `step` (from 0) of `total`, with `warmup` steps of
    /// linear warm-up. WSD decays over the last `decay` share of the steps.
    pub fn factor(self, step: u64, total: u64, warmup: u64, decay: f64) -> f64 {
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        // The last step still learns: the schedule would reach zero one step later.
        let left = total.saturating_sub(step) as f64;
        match self {
            Schedule::Constant => 1.0,
            Schedule::Wsd => {
                let decay_steps = (total as f64 * decay).max(1.0);
                (left / decay_steps).min(1.0)
            }
            Schedule::Cosine => {
                let span = total.saturating_sub(warmup).max(1) as f64;
                let done = 1.0 - left / span;
                0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_is_linear_and_reaches_the_peak() {
        for schedule in [Schedule::Constant, Schedule::Wsd, Schedule::Cosine] {
            let factors: Vec<f64> = (0..4).map(|s| schedule.factor(s, 100, 4, 0.2)).collect();
            assert_eq!(factors, [0.25, 0.5, 0.75, 1.0]);
        }
    }

    #[test]
    fn wsd_is_stable_then_decays_linearly_towards_zero() {
        let f = |s| Schedule::Wsd.factor(s, 100, 0, 0.2);
        assert_eq!(f(50), 1.0);
        assert_eq!(f(80), 1.0);
        assert!((f(90) - 0.5).abs() < 1e-12);
        assert!((f(99) - 0.05).abs() < 1e-12);
    }

    #[test]
    fn cosine_ends_near_its_floor() {
        let f = |s| Schedule::Cosine.factor(s, 1000, 100, 0.0);
        assert_eq!(f(100), 1.0);
        assert!((f(550) - 0.55).abs() < 1e-9);
        assert!((0.1..0.101).contains(&f(999)));
    }
}
