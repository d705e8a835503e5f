//! Rule-based rewards: whether an answer to a problem is right, and in the reasoning format.

use crisol_objectives::verifier::{Verdict, verify};

use crate::behaviours::{opening, reply_text};
use crate::on_policy::{Sampled, Stage};
use crate::settings::ReasonSettings;

/// Verifies sampled answers. `answers`: the right answer to each prompt of the stage.
///
/// An answer that was cut off is neither right nor in format: its last number may be incomplete.
pub(crate) fn verdicts(stage: &Stage<'_>, answers: &[String], sampled: &Sampled) -> Vec<Verdict> {
    let group = sampled.rollouts.len() / sampled.prompts.len();
    let groups = sampled.prompts.iter().zip(sampled.rollouts.chunks(group));
    let mut verdicts = Vec::with_capacity(sampled.rollouts.len());
    for (&i, rollouts) in groups {
        let opening = opening(&stage.text, &stage.prompts[i], &stage.records[i]);
        for rollout in rollouts {
            let turn = format!("{opening}{}", reply_text(&stage.text, &rollout.completion));
            let Verdict { format, correct } = verify(&turn, &answers[i]);
            verdicts.push(Verdict {
                format: format && rollout.ended,
                correct: correct && rollout.ended,
            });
        }
    }
    verdicts
}

/// Reward of the format and of the right answer. The format has its own reward, so that it survives
/// problems that are too hard. An answer counts only in the format, unless that has no reward.
pub(crate) fn reward(verdict: Verdict, settings: &ReasonSettings) -> f32 {
    let format = if verdict.format { settings.format_reward } else { 0.0 };
    let in_format = verdict.format || settings.format_reward == 0.0;
    let accuracy = if in_format && verdict.correct { settings.accuracy_reward } else { 0.0 };
    (format + accuracy) as f32
}

/// Share of items for which something holds.
pub(crate) fn share<T>(items: &[T], holds: impl Fn(&T) -> bool) -> f64 {
    items.iter().filter(|item| holds(item)).count() as f64 / items.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_required_only_if_it_is_rewarded() {
        let rewards = |format_reward: f64, format: bool, correct: bool| {
            let settings = ReasonSettings { format_reward, ..ReasonSettings::default() };
            reward(Verdict { format, correct }, &settings)
        };
        assert_eq!([rewards(0.1, true, true), rewards(0.1, true, false)], [1.1, 0.1]);
        assert_eq!([rewards(0.1, false, true), rewards(0.1, false, false)], [0.0, 0.0]);
        assert_eq!([rewards(0.0, true, true), rewards(0.0, false, true)], [1.0, 1.0]);
        assert_eq!([rewards(0.0, true, false), rewards(0.0, false, false)], [0.0, 0.0]);
    }
}
