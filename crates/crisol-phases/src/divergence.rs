//! Detects a supervised stage whose loss or gradient norm climbs, while it happens.
//!
//! A series climbs when the median of its last 3 values exceeds the median of a window before them:
//!
//! ```text
//! median(recent) > median(window) + 8 σ    σ = 1.4826 · MAD(window), at least 5 % of the median
//! median(recent) > factor · median(window) factor = 1.3 (loss), 3 (gradient norm)
//! ```
//!
//! Medians ignore single spikes, which are common and harmless. The monitor is a function of the
//! stage's metrics, so a resumed stage gets the remarks of an uninterrupted one.

use std::collections::VecDeque;

use crate::on_policy::REWARD;
use crate::ranges::short;
use crate::steps::{GRAD_NORM, LOSS, LR};

/// Values of the window.
const WINDOW: usize = 50;
/// Values of the window that a comparison needs.
const MIN_WINDOW: usize = 10;
/// Last values, whose median is compared: two of three must be high.
const RECENT: usize = 3;
/// Deviations of the window that make a climb.
const DEVIATIONS: f64 = 8.0;
/// Minimum noise of a window, as a share of its median.
const MIN_NOISE: f64 = 0.05;
/// Metric, its name in remarks, and the minimum factor of a climb.
const SERIES: [(&str, &str, f64); 2] = [(LOSS, "loss", 1.3), (GRAD_NORM, "gradient norm", 3.0)];
/// Standard deviation of a normal distribution over its median absolute deviation.
const SIGMA_PER_MAD: f64 = 1.4826;

/// The metrics of a stage so far.
#[derive(Debug, Default)]
pub(crate) struct DivergenceMonitor {
    series: [Series; 2],
    losses: Vec<f64>,
}

impl DivergenceMonitor {
    /// Adds the metrics of step `step` (from 1) of `total` and returns remarks on them. `optimizer`
    /// is the recipe's name of the stage's optimizer. Stages with a reward are not monitored: the
    /// loss of a policy gradient is no measure of progress.
    pub(crate) fn step(
        &mut self,
        step: u64,
        total: u64,
        metrics: &[(&str, f64)],
        optimizer: &str,
    ) -> Vec<String> {
        let find = |wanted: &str| {
            metrics.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value)
        };
        if find(REWARD).is_some() {
            return Vec::new();
        }
        let lr = find(LR).unwrap_or_default();
        let mut remarks = Vec::new();
        for ((id, name, factor), series) in SERIES.into_iter().zip(&mut self.series) {
            let Some(value) = find(id) else { continue };
            if let Some((now, before)) = series.push(value, factor) {
                remarks.push(format!(
                    "{name} {now:.3} at step {step}, {:.1} times the median of the steps before: \
                     if it does not come back, lower {optimizer}.lr (now {})",
                    now / before,
                    short_rate(lr)
                ));
            }
        }
        if let Some(loss) = find(LOSS) {
            self.losses.push(loss);
        }
        if step == total {
            remarks.extend(self.net_rise().map(|(began, ended)| {
                format!(
                    "the loss ended at {ended:.3}, above the {began:.3} where it began: \
                     lower {optimizer}.lr, or look at the data with `crisol data inspect`"
                )
            }));
        }
        remarks
    }

    /// Median losses of the first and the last tenth, if the last is clearly higher.
    fn net_rise(&self) -> Option<(f64, f64)> {
        let losses = &self.losses;
        let tenth = (losses.len() / 10).max(RECENT);
        if losses.len() < MIN_WINDOW {
            return None;
        }
        let began = median(losses[..tenth].iter().copied());
        let ended = median(losses[losses.len() - tenth..].iter().copied());
        // A difference of two steps has the noise of both: √2 times that of one.
        let differences = losses.windows(2).map(|pair| (pair[1] - pair[0]).abs());
        let noise = SIGMA_PER_MAD * median(differences) / std::f64::consts::SQRT_2;
        (ended > began + 3.0 * noise && ended > (1.0 + MIN_NOISE) * began).then_some((began, ended))
    }
}

/// One metric of a stage.
#[derive(Debug, Default)]
struct Series {
    window: VecDeque<f64>,
    recent: VecDeque<f64>,
    climbing: bool,
}

impl Series {
    /// Adds a value. Returns the medians (recent, window) at the start of a climb.
    fn push(&mut self, value: f64, factor: f64) -> Option<(f64, f64)> {
        push_bounded(&mut self.recent, value, RECENT);
        let mut climb = None;
        if self.window.len() >= MIN_WINDOW && self.recent.len() == RECENT {
            let before = median(self.window.iter().copied());
            let now = median(self.recent.iter().copied());
            let noise = noise(&self.window, before);
            if !self.climbing && now > before + DEVIATIONS * noise && now > factor * before {
                self.climbing = true;
                climb = Some((now, before));
            } else if self.climbing && now < before + DEVIATIONS / 2.0 * noise {
                self.climbing = false;
            }
        }
        // The window stays as it was before a climb until the climb is over.
        if !self.climbing {
            push_bounded(&mut self.window, value, WINDOW);
        }
        climb
    }
}

fn push_bounded(values: &mut VecDeque<f64>, value: f64, capacity: usize) {
    if values.len() == capacity {
        values.pop_front();
    }
    values.push_back(value);
}

/// Robust standard deviation around `middle`.
fn noise(values: &VecDeque<f64>, middle: f64) -> f64 {
    let deviation = SIGMA_PER_MAD * median(values.iter().map(|value| (value - middle).abs()));
    deviation.max(MIN_NOISE * middle.abs())
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A learning rate to two digits; metrics hold it as f32.
fn short_rate(lr: f64) -> String {
    short(format!("{lr:.1e}").parse().unwrap_or(lr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crisol_train::derived_seed;

    /// Noise of a curve: uniform numbers by a seed, summed to something near a normal distribution.
    fn normal(curve: u64, step: u64) -> f64 {
        let uniform = |i: u64| derived_seed(curve, "noise", step * 12 + i) as f64 / u64::MAX as f64;
        (0..12).map(uniform).sum::<f64>() - 6.0
    }

    fn monitored(total: u64, at: impl Fn(u64) -> [f64; 2]) -> Vec<String> {
        let mut monitor = DivergenceMonitor::default();
        let step = |step: u64| {
            let [loss, grad_norm] = at(step);
            let metrics = [(LOSS, loss), (GRAD_NORM, grad_norm), (LR, f64::from(2e-5_f32))];
            monitor.step(step, total, &metrics, "optimizer")
        };
        (1..=total).flat_map(step).collect()
    }

    /// A loss that falls, with noise, and a norm that settles after the warm-up.
    fn healthy(curve: u64, noise: f64) -> impl Fn(u64) -> [f64; 2] {
        move |step| {
            let falls = (-(step as f64) / 30.0).exp();
            let noisy =
                |value: f64, by: f64, i: u64| value * (by * normal(curve, 2 * step + i)).exp();
            [noisy(1.5 + 2.0 * falls, noise / 3.0, 0), noisy(0.5 + 3.0 * falls, noise, 1)]
        }
    }

    #[test]
    fn healthy_curves_give_no_remark() {
        for curve in 0..150 {
            let total = [8, 30, 120, 400][curve as usize % 4];
            let noise = [0.02, 0.15, 0.3][curve as usize % 3];
            assert_eq!(
                monitored(total, healthy(curve, noise)),
                Vec::<String>::new(),
                "curve {curve}"
            );
        }
    }

    #[test]
    fn a_spike_of_a_step_is_no_climb() {
        let remarks =
            monitored(100, |step| if step % 20 == 0 { [9.0, 50.0] } else { healthy(1, 0.1)(step) });
        assert_eq!(remarks, Vec::<String>::new());
    }

    #[test]
    fn a_climb_gives_one_remark_with_the_setting_to_lower() {
        let remarks = monitored(300, |step| {
            let [loss, norm] = healthy(2, 0.1)(step);
            if (160..190).contains(&step) { [loss * 2.0, norm * 20.0] } else { [loss, norm] }
        });
        assert_eq!(remarks.len(), 2, "{remarks:?}");
        assert!(
            remarks[0].starts_with("loss ") && remarks[1].starts_with("gradient norm "),
            "{remarks:?}"
        );
        for line in remarks {
            assert!(
                line.contains("at step 161") && line.contains("lower optimizer.lr (now 2e-5)"),
                "{line}"
            );
        }
    }

    #[test]
    fn short_stages_are_monitored() {
        let remarks = monitored(30, |step| if step < 12 { [1.4, 2.0] } else { [1.4, 43.0] });
        assert!(
            remarks.len() == 1 && remarks[0].contains("43.000 at step 13, 21.5 times"),
            "{remarks:?}"
        );
    }

    #[test]
    fn a_net_rise_of_the_loss_gives_a_remark_at_the_end() {
        let remarks = monitored(40, |step| [1.0 + step as f64 / 100.0, 1.0]);
        assert!(remarks.len() == 1 && remarks[0].contains("the loss ended at 1.39"), "{remarks:?}");
        assert!(monitored(40, |_| [1.0, 1.0]).is_empty());
    }

    #[test]
    fn policy_gradient_losses_are_not_monitored() {
        let mut monitor = DivergenceMonitor::default();
        for step in 1..=40 {
            let loss = if step > 20 { 9.0 } else { 0.1 };
            assert!(monitor.step(step, 40, &[(REWARD, 0.1), (LOSS, loss)], "optimizer").is_empty());
        }
    }
}
