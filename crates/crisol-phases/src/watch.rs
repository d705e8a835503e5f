//! Watching a supervised stage for a loss or a gradient norm that climbs, to say so while it happens.
//!
//! A figure climbs where the median of its last steps is far above the median of a window before them, measured in the
//! window's own noise (the median absolute deviation). Medians ignore single spikes, which are common and harmless. All is a
//! function of the stage's metrics, so a resumed stage is watched as an uninterrupted one.

use std::collections::VecDeque;

use crate::ranges::short;

/// Steps that a figure is compared with.
const WINDOW: usize = 50;
/// Steps that are needed before anything is said.
const FEWEST: usize = 10;
/// Steps whose median is compared: more than half of them must be high.
const RECENT: usize = 3;
/// How many deviations of the window a climb is.
const DEVIATIONS: f64 = 8.0;
/// A window without noise has this share of its median as noise.
const MIN_NOISE: f64 = 0.05;
/// How many times its median a figure must be. Gradient norms vary more than losses.
const FACTORS: [(&str, &str, f64); 2] =
    [("loss", "loss", 1.3), ("grad_norm", "gradient norm", 3.0)];

/// Of a normal distribution, the standard deviation over the median absolute deviation.
const TO_DEVIATION: f64 = 1.4826;

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn noise(values: &VecDeque<f64>, middle: f64) -> f64 {
    let deviation = TO_DEVIATION * median(values.iter().map(|value| (value - middle).abs()));
    deviation.max(MIN_NOISE * middle.abs())
}

/// One figure of a stage.
#[derive(Debug, Default)]
struct Figure {
    window: VecDeque<f64>,
    recent: VecDeque<f64>,
    climbing: bool,
}

impl Figure {
    /// Takes the next value; the recent median and the window's where a climb begins.
    fn next(&mut self, value: f64, factor: f64) -> Option<(f64, f64)> {
        push(&mut self.recent, value, RECENT);
        let mut climb = None;
        if self.window.len() >= FEWEST && self.recent.len() == RECENT {
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
        // A climb is measured against what was before it, for as long as it lasts.
        if !self.climbing {
            push(&mut self.window, value, WINDOW);
        }
        climb
    }
}

fn push(values: &mut VecDeque<f64>, value: f64, most: usize) {
    if values.len() == most {
        values.pop_front();
    }
    values.push_back(value);
}

/// A stage's figures so far.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    figures: [Figure; 2],
    losses: Vec<f64>,
}

impl Watch {
    /// Takes the metrics of step `step` of `total`; what is to be said of them. `optimizer` is the name of the stage's
    /// optimizer in a recipe. The loss of a policy gradient says nothing, and is not watched.
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
        if find("reward").is_some() {
            return Vec::new();
        }
        let lr = find("lr").unwrap_or_default();
        let mut said = Vec::new();
        for ((id, name, factor), figure) in FACTORS.into_iter().zip(&mut self.figures) {
            let Some(value) = find(id) else { continue };
            if let Some((now, before)) = figure.next(value, factor) {
                said.push(format!(
                    "{name} {now:.3} at step {step}, {:.1} times the median of the steps before: if it does not come \
                     back, lower {optimizer}.lr (now {})",
                    now / before,
                    short_rate(lr)
                ));
            }
        }
        if let Some(loss) = find("loss") {
            self.losses.push(loss);
        }
        if step == total {
            said.extend(self.ended_higher().map(|(began, ended)| {
                format!(
                    "the loss ended at {ended:.3}, above the {began:.3} where it began: lower {optimizer}.lr, or look at the \
                     data with `crisol data inspect`"
                )
            }));
        }
        said
    }

    /// The losses of the first and the last steps, where the last are clearly higher.
    fn ended_higher(&self) -> Option<(f64, f64)> {
        let losses = &self.losses;
        let some = (losses.len() / 10).max(RECENT);
        if losses.len() < FEWEST {
            return None;
        }
        let began = median(losses[..some].iter().copied());
        let ended = median(losses[losses.len() - some..].iter().copied());
        // From step to step, the noise of both is in it.
        let steps = losses.windows(2).map(|pair| (pair[1] - pair[0]).abs());
        let noise = TO_DEVIATION * median(steps) / std::f64::consts::SQRT_2;
        (ended > began + 3.0 * noise && ended > (1.0 + MIN_NOISE) * began).then_some((began, ended))
    }
}

/// A rate as f32 holds it, to two digits.
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

    fn watched(total: u64, at: impl Fn(u64) -> [f64; 2]) -> Vec<String> {
        let mut watch = Watch::default();
        let step = |step: u64| {
            let [loss, grad_norm] = at(step);
            let metrics = [("loss", loss), ("grad_norm", grad_norm), ("lr", f64::from(2e-5_f32))];
            watch.step(step, total, &metrics, "optimizer")
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
    fn healthy_curves_are_met_with_silence() {
        for curve in 0..150 {
            let total = [8, 30, 120, 400][curve as usize % 4];
            let noise = [0.02, 0.15, 0.3][curve as usize % 3];
            assert_eq!(
                watched(total, healthy(curve, noise)),
                Vec::<String>::new(),
                "curve {curve}"
            );
        }
    }

    #[test]
    fn a_spike_of_a_step_is_no_climb() {
        let said =
            watched(100, |step| if step % 20 == 0 { [9.0, 50.0] } else { healthy(1, 0.1)(step) });
        assert_eq!(said, Vec::<String>::new());
    }

    #[test]
    fn a_climb_is_said_once_while_it_happens_with_the_setting_to_change() {
        let said = watched(300, |step| {
            let [loss, norm] = healthy(2, 0.1)(step);
            if (160..190).contains(&step) { [loss * 2.0, norm * 20.0] } else { [loss, norm] }
        });
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("loss ") && said[1].starts_with("gradient norm "), "{said:?}");
        for line in said {
            assert!(
                line.contains("at step 161") && line.contains("lower optimizer.lr (now 2e-5)"),
                "{line}"
            );
        }
    }

    #[test]
    fn short_stages_are_watched_too() {
        let said = watched(30, |step| if step < 12 { [1.4, 2.0] } else { [1.4, 43.0] });
        assert!(said.len() == 1 && said[0].contains("43.000 at step 13, 21.5 times"), "{said:?}");
    }

    #[test]
    fn a_loss_that_ends_above_its_beginning_is_said_at_the_end() {
        let said = watched(40, |step| [1.0 + step as f64 / 100.0, 1.0]);
        assert!(said.len() == 1 && said[0].contains("the loss ended at 1.39"), "{said:?}");
        assert!(watched(40, |_| [1.0, 1.0]).is_empty());
    }

    #[test]
    fn policy_gradients_are_not_watched() {
        let mut watch = Watch::default();
        for step in 1..=40 {
            let loss = if step > 20 { 9.0 } else { 0.1 };
            assert!(
                watch.step(step, 40, &[("reward", 0.1), ("loss", loss)], "optimizer").is_empty()
            );
        }
    }
}
