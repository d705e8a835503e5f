//! Early warning of GRPO without a signal: no right answer in the first steps, and equal rewards
//! within every group.
//!
//! Advantages are zero then, and seldom become anything else later in the phase. A setting is the
//! usual cause, so the note names what the answers lack and the setting to change.

use crisol_objectives::verifier::Verdict;
use serde::{Deserialize, Serialize};

use crate::rollouts::Rollout;
use crate::settings::ReasonSettings;

/// Steps that are examined.
const STEPS: u64 = 3;

/// What the answers of the first steps lacked. It is part of the phase's saved state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct FirstSteps {
    /// Steps examined so far.
    steps: u64,
    answers: usize,
    /// Answers cut off at the token limit.
    cut: usize,
    /// Ended answers without the format.
    formless: usize,
    /// Ended answers in the format whose result is wrong.
    wrong: usize,
    /// Whether an answer was right or a group had different rewards.
    #[serde(rename = "teaches")]
    has_signal: bool,
}

impl FirstSteps {
    /// Examines the answers of step `step` (from 0) of `total`. Returns a note after the last of
    /// the first steps, if none of them had a signal.
    pub(crate) fn examine(
        &mut self,
        step: u64,
        total: u64,
        verdicts: &[Verdict],
        rollouts: &[Rollout],
        zero_spread: &[bool],
        settings: &ReasonSettings,
    ) -> Option<String> {
        let first = STEPS.min(total);
        if step >= first || step != self.steps {
            return None;
        }
        self.steps += 1;
        self.answers += verdicts.len();
        self.has_signal |= zero_spread.contains(&false);
        let needs_format = settings.format_reward != 0.0;
        for (verdict, rollout) in verdicts.iter().zip(rollouts) {
            if !rollout.ended {
                self.cut += 1;
            } else if needs_format && !verdict.format {
                self.formless += 1;
            } else if !verdict.correct {
                self.wrong += 1;
            } else {
                self.has_signal = true;
            }
        }
        (self.steps == first && !self.has_signal)
            .then(|| self.note(settings.rollout.max_new_tokens))
    }

    fn note(&self, limit: usize) -> String {
        let FirstSteps { steps, answers, cut, formless, wrong, .. } = *self;
        let steps =
            if steps == 1 { "first step".to_owned() } else { format!("first {steps} steps") };
        let mut text = format!(
            "none of the {answers} answers of the {steps} was right, so nothing was learnt:"
        );
        let mut causes = Vec::new();
        if cut > 0 {
            causes.push(format!(
                " {cut} were cut at {limit} tokens: raise rollout.max_new_tokens, \
                 or teach shorter answers in the cold start"
            ));
        }
        if formless > 0 {
            causes.push(format!(
                " {formless} lack the form `<think>…</think>` and an answer: \
                 a longer cold start (cold_start.data, cold_start.epochs), \
                 or format_reward = 0, which pays answers without it"
            ));
        }
        if wrong > 0 {
            causes.push(format!(
                " {wrong} end with a wrong answer: easier problems, or a longer cold start; \
                 `crisol data inspect` shows which references are compared as text"
            ));
        }
        text.push_str(&causes.join(";"));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(kinds: &[(bool, bool, bool)]) -> (Vec<Verdict>, Vec<Rollout>) {
        let verdict = |&(_, format, correct): &(bool, bool, bool)| Verdict { format, correct };
        let rollout = |&(ended, ..): &(bool, bool, bool)| Rollout { ended, ..Rollout::default() };
        (kinds.iter().map(verdict).collect(), kinds.iter().map(rollout).collect())
    }

    fn note(
        from: u64,
        kinds: &[(bool, bool, bool)],
        spread: bool,
        settings: &ReasonSettings,
    ) -> Option<String> {
        let mut first = FirstSteps::default();
        let (verdicts, rollouts) = step(kinds);
        let notes = (from..10)
            .map(|step| first.examine(step, 10, &verdicts, &rollouts, &[!spread], settings));
        let notes: Vec<(usize, String)> =
            notes.enumerate().filter_map(|(i, note)| Some((i, note?))).collect();
        assert!(notes.len() <= 1);
        notes.into_iter().next().map(|(i, note)| {
            assert_eq!(i, 2, "noted after the third step");
            note
        })
    }

    const CUT: (bool, bool, bool) = (false, false, false);
    const FORMLESS: (bool, bool, bool) = (true, false, true);
    const WRONG: (bool, bool, bool) = (true, true, false);
    const RIGHT: (bool, bool, bool) = (true, true, true);

    #[test]
    fn the_note_names_what_answers_lack_and_the_setting_to_change() {
        let mut settings = ReasonSettings::default();
        settings.rollout.max_new_tokens = 96;
        let text = note(0, &[CUT, CUT, FORMLESS, WRONG], false, &settings).expect("a note");
        for part in [
            "12 answers",
            "first 3 steps",
            "6 were cut at 96 tokens",
            "3 lack the form",
            "3 end with a wrong",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(
            note(0, &[CUT; 4], false, &settings)
                .expect("a note")
                .contains("rollout.max_new_tokens")
        );
        // No note if there is a signal, or in later steps.
        assert_eq!(note(0, &[CUT, RIGHT], false, &settings), None);
        assert_eq!(note(0, &[CUT, WRONG], true, &settings), None);
        assert_eq!(note(4, &[CUT; 4], false, &settings), None);
        // Without a format reward, a right answer needs no format.
        let answers_only = ReasonSettings { format_reward: 0.0, ..ReasonSettings::default() };
        assert_eq!(note(0, &[FORMLESS], false, &answers_only), None);
        assert!(
            note(0, &[FORMLESS], false, &settings).expect("a note").contains("format_reward = 0")
        );
    }
}
