//! GRPO: group relative policy optimisation (Shao et al. 2024, arXiv:2402.03300). Each step:
//!
//! - samples a group of answers to each of some problems;
//! - verifies them and rewards a right answer and the right format;
//! - computes advantages within each group: `A = (r − mean r) / std r`;
//! - trains on the clipped policy loss, token by token.
//!
//! There is no value model and no reward model. Differences from the paper, by default: no KL
//! penalty, and groups with equal rewards are skipped (DAPO, arXiv:2503.14476).

use crisol_cost::phases::{Phase, PhaseOptions};
use crisol_engine::Params;
use crisol_model::Checkpoint;
use crisol_objectives::policy::{self, KlPenalty, Options, PolicyStats};
use crisol_objectives::verifier::{Verdict, verify};
use crisol_objectives::{Stats, grpo};
use crisol_text::{ProblemExample, Record, TextSetup, encode_records};
use crisol_train::{Output, Trainer};

use crate::PhaseError;
use crate::behaviours::{opening, reply_text};
use crate::context::PhaseContext;
use crate::forecast::lengths::Lengths;
use crate::forecast::plan::{Shapes, StagePlan};
use crate::on_policy::{self, OnPolicy, Position, Sampled, Updated};
use crate::replay::{Replay, WithReplay};
use crate::rollouts::{
    Minibatch, Rollout, choose_prompts, examples, mean, report_rollouts, sample,
};
use crate::settings::ReasonSettings;
use crate::state::SavedModel;

/// Steps between KL measurements when KL is not part of the loss. Each is a forward pass of the
/// reference.
const REFERENCE_KL_INTERVAL: u64 = 8;

/// The stage as data.
pub(crate) fn plan(settings: &ReasonSettings) -> StagePlan<'_> {
    let measured = settings.steps.div_ceil(REFERENCE_KL_INTERVAL) as f64;
    let options = PhaseOptions {
        updates: settings.rollout.epochs as u32,
        reference: match settings.kl_coefficient {
            0.0 => measured / settings.steps.max(1) as f64,
            _ => 1.0,
        },
        old_logprobs: false,
    };
    StagePlan {
        name: "grpo",
        phase: Phase::Grpo,
        options,
        rule: settings.optimizer.rule,
        heldout_passes: 0.0,
        replay: Some(&settings.replay),
    }
}

/// Reinforces right answers. `learned`: lengths of the worked solutions of the cold start.
pub(crate) fn grpo(
    ctx: &mut PhaseContext<'_>,
    settings: &ReasonSettings,
    start: Checkpoint,
    learned: &Lengths,
) -> Result<Checkpoint, PhaseError> {
    let Checkpoint { model, params, text } = start;
    let context = model.config().max_document_len();
    let records = ctx.records(&settings.data)?;
    let encoded = encode_records(&records, |record| text.problem(record, context))?;
    ctx.note_encoding("", &encoded.summary, context);
    let problems: Vec<ProblemExample> = encoded.examples;
    let replay = Replay::load(ctx, &settings.replay, &text, context)?;

    let shape = model.config().cost_shape();
    let shapes = Shapes { policy: &shape, scalar: &shape };
    let prompts = problems.iter().map(|problem| problem.prompt.len());
    let (rollout, steps) = (&settings.rollout, settings.steps);
    on_policy::forecast(ctx, &plan(settings), shapes, rollout, steps, prompts, learned, &replay);

    let kl = KlPenalty { estimator: settings.kl_estimator, coefficient: settings.kl_coefficient };
    let mut grpo = Grpo {
        settings,
        text: &text,
        problems: &problems,
        records: encoded.records.iter().map(|&i| &records[i]).collect(),
        reference: params.duplicate(),
        policy: Trainer::new(model, params),
        replay,
        logit_scale: (1.0 / settings.rollout.temperature) as f32,
        options: Options {
            clip_low: settings.clip_low,
            clip_high: settings.clip_high,
            ratio_level: settings.ratio,
            normalisation: settings.normalisation,
            max_length: settings.rollout.max_new_tokens,
            kl: (settings.kl_coefficient > 0.0).then_some(kl),
            entropy_bonus: settings.entropy_coefficient,
        },
    };
    on_policy::train(ctx, "grpo", &mut grpo, rollout, &settings.optimizer, steps)?;
    let Trainer { model, params, .. } = grpo.policy;
    Ok(Checkpoint { model, params, text })
}

struct Grpo<'a> {
    settings: &'a ReasonSettings,
    text: &'a TextSetup,
    problems: &'a [ProblemExample],
    /// Records of the problems.
    records: Vec<&'a Record>,
    policy: Trainer,
    /// The policy's weights at the start.
    reference: Params,
    replay: Replay,
    logit_scale: f32,
    options: Options,
}

impl OnPolicy for Grpo<'_> {
    type Stats = WithReplay<PolicyStats>;
    const MODELS: usize = 1;

    fn saved_models(&mut self) -> Vec<SavedModel<'_>> {
        vec![
            SavedModel::Trainer("policy", &mut self.policy),
            SavedModel::Frozen("reference", &mut self.reference),
        ]
    }

    fn sample(&mut self, ctx: &mut PhaseContext<'_>, at: Position) -> Result<Sampled, PhaseError> {
        let &mut Grpo { settings, text, problems, ref policy, logit_scale, .. } = self;
        let chosen = choose_prompts(ctx, problems.len(), settings.rollout.prompts, at.step);
        let prompts: Vec<&[u32]> = chosen.iter().map(|&i| problems[i].prompt.as_slice()).collect();
        let mut rollouts =
            sample(ctx, policy, &prompts, &settings.rollout, &text.stop_ids, at.step)?;

        let verdicts = self.verdicts(&chosen, &rollouts);
        for (rollout, verdict) in rollouts.iter_mut().zip(&verdicts) {
            rollout.reward = reward(*verdict, settings);
            let parts = [("accuracy", verdict.correct), ("format", verdict.format)];
            rollout.reward_parts = parts.map(|(name, is)| (name, f64::from(u8::from(is)))).to_vec();
        }

        let group = settings.rollout.group_size;
        let rewards: Vec<f32> = rollouts.iter().map(|rollout| rollout.reward).collect();
        let groups = grpo::group_advantages(&rewards, group, settings.advantage_scaling);
        for (rollout, &advantage) in rollouts.iter_mut().zip(&groups.advantages) {
            rollout.advantages = vec![advantage; rollout.completion.len()];
        }
        let zero_spread = groups.zero_spread;
        let (step, total) = (at.step, at.total);
        let first_steps = ctx.first_steps();
        if let Some(note) =
            first_steps.add(step, total, &verdicts, &rollouts, &zero_spread, settings)
        {
            ctx.note(note);
        }
        let records: Vec<&Record> = chosen.iter().map(|&i| self.records[i]).collect();
        report_rollouts(ctx, (step, total), text, &records, &rollouts);

        let part = |i: usize| mean(&rollouts, |rollout| rollout.reward_parts[i].1);
        let metrics = [
            ("reward/accuracy", part(0)),
            ("reward/format", part(1)),
            (
                "zero_spread",
                zero_spread.iter().filter(|z| **z).count() as f64 / chosen.len() as f64,
            ),
        ];
        let mut sampled = Sampled::new(rollouts, &metrics);
        if settings.skip_zero_spread {
            let mut skip = zero_spread.iter().flat_map(|&skip| std::iter::repeat_n(skip, group));
            sampled.trained.retain(|_| skip.next() == Some(false));
        }
        // Without a penalty, the KL is still measured at intervals.
        if settings.kl_coefficient > 0.0 || step.is_multiple_of(REFERENCE_KL_INTERVAL) {
            let reference = (&policy.model, &self.reference);
            let logprobs = ctx.logprobs(reference, &examples(&sampled.trained), logit_scale)?;
            for (rollout, logprobs) in sampled.trained.iter_mut().zip(logprobs) {
                rollout.reference_logp = logprobs;
            }
        }
        Ok(sampled)
    }

    fn update(
        &mut self,
        ctx: &mut PhaseContext<'_>,
        _: usize,
        minibatch: &Minibatch<'_>,
        at: Position,
    ) -> Result<Updated<Self::Stats>, PhaseError> {
        let Grpo { settings, policy, replay, logit_scale, options, .. } = self;
        let output = Output::TokenScores { logit_scale: *logit_scale, entropy: true };
        let config = at.optimizer_config(&settings.optimizer);
        let batch = &minibatch.batch;
        let (done, replayed) =
            replay.step(ctx, policy, at.minibatch, batch, output, &config, |shard, scores| {
                let [old, reference, advantages] = minibatch.policy_terms(shard);
                policy::loss(scores, &old, &reference, &advantages, options, minibatch.size)
            })?;
        Ok(Updated::new(done, batch.tokens() + replayed))
    }

    fn metrics(sums: &Self::Stats, _: f64) -> Vec<(&'static str, f64)> {
        sums.means()
    }
}

impl Grpo<'_> {
    /// Verifies rollouts. One that was cut off is neither right nor in format: its last number may
    /// be incomplete.
    fn verdicts(&self, chosen: &[usize], rollouts: &[Rollout]) -> Vec<Verdict> {
        let groups = chosen.iter().zip(rollouts.chunks(self.settings.rollout.group_size));
        let verify_group = |(&i, group): (&usize, &[Rollout])| {
            let ProblemExample { prompt, answer, .. } = &self.problems[i];
            let opening = opening(self.text, prompt, self.records[i]);
            let verify_one = |rollout: &Rollout| {
                let turn = format!("{opening}{}", reply_text(self.text, &rollout.completion));
                let Verdict { format, correct } = verify(&turn, answer);
                Verdict { format: format && rollout.ended, correct: correct && rollout.ended }
            };
            group.iter().map(verify_one).collect::<Vec<_>>()
        };
        groups.flat_map(verify_group).collect()
    }
}

/// Reward of the format and of the right answer. The format has its own reward, so that it survives
/// problems that are too hard. An answer counts only in the format, unless that has no reward.
fn reward(verdict: Verdict, settings: &ReasonSettings) -> f32 {
    let format = if verdict.format { settings.format_reward } else { 0.0 };
    let in_format = verdict.format || settings.format_reward == 0.0;
    let accuracy = if in_format && verdict.correct { settings.accuracy_reward } else { 0.0 };
    (format + accuracy) as f32
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
