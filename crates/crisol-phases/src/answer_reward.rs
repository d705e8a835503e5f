//! What GRPO rewards: the verifier's judgement of an answer, or a reward that the caller of a run
//! brings along.

use std::fmt::Debug;

use crisol_model::Checkpoint;
use crisol_objectives::verifier::Verdict;

use crate::PhaseError;
use crate::behaviours::reply_text;
use crate::context::PhaseContext;
use crate::on_policy::{Sampled, Stage};
use crate::rollouts::Rollout;
use crate::settings::ReasonSettings;
use crate::verdicts::{reward, verdicts};

/// The reward of one answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// What the answer earns.
    pub reward: f32,
    /// Figures to log beside it, by name. The metric `reward/NAME` of a step is the mean over the
    /// answers that have it.
    pub parts: Vec<(&'static str, f64)>,
}

/// An answer that was sampled in GRPO.
#[derive(Clone, Copy, Debug)]
pub struct SampledAnswer<'a> {
    /// The `answer` of the prompt's record.
    pub reference: &'a str,
    /// The sampled text, without special tokens.
    pub text: &'a str,
    /// Whether it ended by itself; else it was cut off.
    pub ended: bool,
}

/// A reward in place of the verifier's, for every `reason` phase of a run
/// ([`RunOptions::reward`](crate::RunOptions::reward)).
pub trait AnswerReward: Debug + Sync {
    /// Its name: a phase is resumed with the reward that it began with.
    fn name(&self) -> &'static str;

    /// A phase begins or is resumed, with this starting model.
    fn begin(&self, phase: &str, start: &Checkpoint) -> Result<(), PhaseError>;

    /// Scores an answer. The result must depend on nothing but the arguments and what
    /// [`Self::begin`] made of the starting model: a resumed run scores again.
    fn score(&self, phase: &str, answer: SampledAnswer<'_>) -> Score;
}

/// Scores the answers of a step.
pub(crate) trait StepReward: Sync {
    fn score(&mut self, stage: &Stage<'_>, sampled: &Sampled) -> Vec<Score>;

    /// A remark on the step just scored.
    fn remark(
        &self,
        _ctx: &mut PhaseContext<'_>,
        _sampled: &Sampled,
        _zero_spread: &[bool],
    ) -> Option<String> {
        None
    }
}

/// Rewards the right format and the right answer.
pub(crate) struct Verifier<'a> {
    settings: &'a ReasonSettings,
    /// The right answer to each prompt.
    answers: Vec<String>,
    /// Of the step just scored.
    verdicts: Vec<Verdict>,
}

impl<'a> Verifier<'a> {
    pub(crate) fn new(settings: &'a ReasonSettings, answers: Vec<String>) -> Verifier<'a> {
        Verifier { settings, answers, verdicts: Vec::new() }
    }
}

impl StepReward for Verifier<'_> {
    fn score(&mut self, stage: &Stage<'_>, sampled: &Sampled) -> Vec<Score> {
        self.verdicts = verdicts(stage, &self.answers, sampled);
        let score = |verdict: &Verdict| {
            let parts = [("accuracy", verdict.correct), ("format", verdict.format)];
            Score {
                reward: reward(*verdict, self.settings),
                parts: parts.map(|(name, is)| (name, f64::from(u8::from(is)))).to_vec(),
            }
        };
        self.verdicts.iter().map(score).collect()
    }

    fn remark(
        &self,
        ctx: &mut PhaseContext<'_>,
        sampled: &Sampled,
        zero_spread: &[bool],
    ) -> Option<String> {
        let Sampled { step, total, rollouts, .. } = sampled;
        let first_steps = ctx.first_steps();
        first_steps.examine(*step, *total, &self.verdicts, rollouts, zero_spread, self.settings)
    }
}

/// The reward that the run's caller gave.
pub(crate) struct Given<'a> {
    pub(crate) reward: &'a dyn AnswerReward,
    pub(crate) phase: String,
    /// The `answer` of each prompt.
    pub(crate) answers: Vec<String>,
}

impl StepReward for Given<'_> {
    fn score(&mut self, stage: &Stage<'_>, sampled: &Sampled) -> Vec<Score> {
        let group = sampled.rollouts.len() / sampled.prompts.len();
        let score = |(i, rollout): (usize, &Rollout)| {
            let reference = &self.answers[sampled.prompts[i / group]];
            let text = &reply_text(&stage.text, &rollout.completion);
            let answer = SampledAnswer { reference, text, ended: rollout.ended };
            self.reward.score(&self.phase, answer)
        };
        sampled.rollouts.iter().enumerate().map(score).collect()
    }
}
