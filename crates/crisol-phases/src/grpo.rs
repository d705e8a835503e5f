//! GRPO: group relative policy optimisation (Shao et al. 2024, arXiv:2402.03300). Each step:
//!
//! - samples a group of answers to each of some problems;
//! - rewards them (`answer_reward.rs`): the right format and the right answer (`verdicts.rs`), or
//!   what the caller of the run rewards;
//! - computes advantages within each group: `A = (r − mean r) / std r`;
//! - trains on the clipped policy loss, token by token.
//!
//! There is no value model and no reward model. The defaults differ from the paper as those of DAPO
//! (arXiv:2503.14476): no KL penalty, a higher upper clip, a mean over tokens instead of answers,
//! and groups with equal rewards are skipped.

use crisol_cost::phases::{Phase, PhaseOptions};
use crisol_model::Checkpoint;
use crisol_objectives::grpo::group_advantages;
use crisol_objectives::policy::{self, KlPenalty, Options, PolicyStats};
use crisol_objectives::{BatchSize, LossAndGrad, TokenScores};
use crisol_text::ProblemExample;

use crate::PhaseError;
use crate::answer_reward::{Given, StepReward, Verifier};
use crate::context::PhaseContext;
use crate::forecast::lengths::Lengths;
use crate::forecast::plan::StagePlan;
use crate::on_policy::{Algorithm, Sampled, Stage, StageSettings};
use crate::rollouts::{PolicyTerms, Rollout};
use crate::settings::ReasonSettings;
use crate::verdicts::share;

/// Steps between KL measurements when KL is not part of the loss. Each is a forward pass of the
/// reference.
const REFERENCE_KL_INTERVAL: u64 = 8;

/// Describes the stage, for forecasts.
pub(crate) fn plan(settings: &ReasonSettings) -> StagePlan<'_> {
    let measured = settings.steps.div_ceil(REFERENCE_KL_INTERVAL) as f64;
    let options = PhaseOptions {
        updates: settings.rollout.epochs as u32,
        // Passes of the reference for each answer.
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

/// Reinforces right answers. `solution_lengths`: of the cold start.
pub(crate) fn grpo(
    ctx: &mut PhaseContext<'_>,
    settings: &ReasonSettings,
    start: Checkpoint,
    solution_lengths: &Lengths,
) -> Result<Checkpoint, PhaseError> {
    let context = start.model.config().max_document_len();
    let encode = |record: &_| start.text.problem(record, context);
    let (problems, records) = ctx.encode("", &settings.data, context, encode)?;
    let split = |ProblemExample { prompt, answer }| (prompt, answer);
    let (prompts, answers) = problems.into_iter().map(split).unzip();
    if let Some(reward) = ctx.reward {
        reward.begin(&ctx.name, &start)?;
    }
    let stage_settings = StageSettings {
        rollout: &settings.rollout,
        optimizer: &settings.optimizer,
        replay: &settings.replay,
        steps: settings.steps,
    };
    let stage = Stage::new(ctx, start, prompts, records, stage_settings)?;
    stage.forecast(ctx, &plan(settings), solution_lengths, None);

    let kl = KlPenalty { estimator: settings.kl_estimator, coefficient: settings.kl_coefficient };
    let options = Options {
        clip_low: settings.clip_low,
        clip_high: settings.clip_high,
        ratio_level: settings.ratio,
        normalisation: settings.normalisation,
        max_length: settings.rollout.max_new_tokens,
        kl: (settings.kl_coefficient > 0.0).then_some(kl),
        entropy_bonus: settings.entropy_coefficient,
    };
    let reward: Box<dyn StepReward + '_> = match ctx.reward {
        Some(reward) => Box::new(Given { reward, phase: ctx.name.clone(), answers }),
        None => Box::new(Verifier::new(settings, answers)),
    };
    stage.train(ctx, "grpo", &mut Grpo { settings, reward, options })
}

struct Grpo<'a> {
    settings: &'a ReasonSettings,
    reward: Box<dyn StepReward + 'a>,
    options: Options,
}

impl Algorithm for Grpo<'_> {
    fn estimate_advantages(
        &mut self,
        ctx: &mut PhaseContext<'_>,
        stage: &Stage<'_>,
        sampled: &mut Sampled,
    ) -> Result<(), PhaseError> {
        let (settings, group) = (self.settings, self.settings.rollout.group_size);
        let scores = self.reward.score(stage, sampled);
        let Sampled { step, rollouts, .. } = sampled;
        for (rollout, score) in rollouts.iter_mut().zip(scores) {
            rollout.reward = score.reward;
            rollout.reward_parts = score.parts;
        }

        let rewards: Vec<f32> = rollouts.iter().map(|rollout| rollout.reward).collect();
        let groups = group_advantages(&rewards, group, settings.advantage_scaling);
        let zero_spread = &groups.zero_spread;
        for (i, rollout) in rollouts.iter_mut().enumerate() {
            rollout.advantages = vec![groups.advantages[i]; rollout.completion.len()];
            rollout.skipped = settings.skip_zero_spread && zero_spread[i / group];
        }

        // Without a penalty, the KL is still measured at intervals.
        if settings.kl_coefficient > 0.0 || step.is_multiple_of(REFERENCE_KL_INTERVAL) {
            let trained = rollouts.iter_mut().filter(|rollout| !rollout.skipped);
            stage.score_by_reference(ctx, trained)?;
        }

        if let Some(remark) = self.reward.remark(ctx, sampled, zero_spread) {
            ctx.note(remark);
        }
        sampled.metrics = reward_parts(&sampled.rollouts);
        sampled.metrics.push(("zero_spread".into(), share(zero_spread, |is_zero| *is_zero)));
        Ok(())
    }

    fn policy_loss(
        &self,
        scores: &TokenScores<'_>,
        PolicyTerms { old, reference, advantages }: &PolicyTerms,
        size: BatchSize,
    ) -> LossAndGrad<PolicyStats> {
        policy::loss(scores, old, reference, advantages, &self.options, size)
    }
}

/// The means of the rewards' parts, as metrics. A part is a mean over the answers that have it.
fn reward_parts(rollouts: &[Rollout]) -> Vec<(String, f64)> {
    let mut sums: Vec<(&'static str, f64, usize)> = Vec::new();
    for &(name, value) in rollouts.iter().flat_map(|rollout| &rollout.reward_parts) {
        match sums.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, sum, count)) => (*sum, *count) = (*sum + value, *count + 1),
            None => sums.push((name, value, 1)),
        }
    }
    let mean = |(name, sum, count)| (format!("reward/{name}"), sum / count as f64);
    sums.into_iter().map(mean).collect()
}
