//! Phase 3: learning to think before answering.
//!
//! 1. *Cold start*: a short supervised training on worked solutions inside `<think>…</think>`, so that the
//!    form is there to be sampled.
//! 2. *GRPO* (Shao et al. 2024, arXiv:2402.03300): for every problem a group of answers is sampled, a
//!    verifier pays those that are right and in the right form, and each answer is reinforced by how much
//!    better than its group it did. No value model, no votes: only problems whose answers can be checked.

use crisol_cost::ModelShape;
use crisol_engine::Params;
use crisol_model::Checkpoint;
use crisol_objectives::policy::{KlPenalty, Options, PolicyStats};
use crisol_objectives::verifier::{Verdict, verify};
use crisol_objectives::{BatchSize, Stats, grpo, policy};
use crisol_report::RolloutSample;
use crisol_text::{
    Body, ProblemExample, Record, Strings, TextOptions, TextSetup, Turns, encode_records,
};
use crisol_train::{Output, Trainer};

use crate::PhaseError;
use crate::behaviours::{self, opening, reply_text};
use crate::context::{PhaseContext, Saved, update_rule};
use crate::data::DataSource;
use crate::evaluation::{HELD_OUT_ACCURACY, solved};
use crate::expectation::{Documents, Rollouts, answer, mean};
use crate::replay::{Replay, WithReplay};
use crate::rollouts::{Updating, choose_prompts, sample, updates};
use crate::settings::ReasonSettings;
use crate::sft;
use crate::supervised::{example_flops, logprobs};

/// The first stage's name.
pub(crate) const COLD_START: &str = "cold-start";
/// Where the distance to the reference is no part of the loss, it costs a forward pass and is measured this seldom.
const REFERENCE_KL_INTERVAL: u64 = 8;

/// How often the reference looks at an answer.
pub(crate) fn looks_at_reference(settings: &ReasonSettings) -> f64 {
    if settings.kl_coefficient > 0.0 {
        return 1.0;
    }
    settings.steps.div_ceil(REFERENCE_KL_INTERVAL) as f64 / settings.steps.max(1) as f64
}

/// Trains `start` to reason.
pub(crate) fn reason(
    ctx: &mut PhaseContext<'_>,
    settings: &ReasonSettings,
    mut start: Checkpoint,
) -> Result<Checkpoint, PhaseError> {
    let held_out = ctx.run.evaluate.files(&settings.heldout);
    let limit = settings.rollout.max_new_tokens;
    if !ctx.measured_before(HELD_OUT_ACCURACY) {
        let options = start.text.options().clone();
        take_problems_for_messages(ctx, settings, &mut start)?;
        if let Some(accuracy) = solved(ctx, &start, &held_out, limit)? {
            ctx.measure_before(HELD_OUT_ACCURACY, accuracy);
        }
        start.text.set_options(options);
    }
    let (mut cold, shown) = if settings.cold_start.data.is_empty() {
        (start, Documents::default())
    } else {
        let (cold, shown) = sft::train_stage(ctx, COLD_START, &settings.cold_start, start)?;
        if ctx.in_stage(COLD_START) {
            behaviours::measure_cold_start(ctx, &cold)?;
        }
        (cold, shown)
    };
    take_problems_for_messages(ctx, settings, &mut cold)?;
    let reasoning = reinforce(ctx, settings, cold, &shown)?;
    if let Some(accuracy) = solved(ctx, &reasoning, &held_out, limit)? {
        ctx.measure(HELD_OUT_ACCURACY, accuracy);
    }
    Ok(reasoning)
}

/// A string beside messages is one message: so are problems that are strings where their worked solutions are conversations.
fn take_problems_for_messages(
    ctx: &mut PhaseContext<'_>,
    settings: &ReasonSettings,
    cold: &mut Checkpoint,
) -> Result<(), PhaseError> {
    if takes_problems_for_messages(ctx.data, settings, cold.text.options())? {
        let options = TextOptions { strings: Strings::Message, ..cold.text.options().clone() };
        cold.text.set_options(options);
        ctx.note(
            "Problems that are strings are taken for the user's messages, because the worked solutions are conversations.",
        );
    }
    Ok(())
}

/// Whether that is so.
pub(crate) fn takes_problems_for_messages(
    data: &DataSource,
    settings: &ReasonSettings,
    options: &TextOptions,
) -> Result<bool, PhaseError> {
    let is_chat = |body: &Body| match body {
        Body::Chat { .. } => true,
        Body::Problem { prompt, .. } | Body::Completion { prompt, .. } => {
            matches!(prompt, Turns::Chat(_))
        }
        _ => false,
    };
    let any = |files: &[String], wanted: bool| -> Result<bool, PhaseError> {
        let first =
            |file: &String| data.first_record(file).map(|first| first.map(|r| is_chat(&r.body)));
        let found: Vec<Option<bool>> = files.iter().map(first).collect::<Result<_, _>>()?;
        Ok(found.contains(&Some(wanted)))
    };
    Ok(options.strings == Strings::Text
        && any(&settings.cold_start.data, true)?
        && any(&settings.data, false)?)
}

/// `shown`: lengths of the worked solutions, which tell how long answers will be.
fn reinforce(
    ctx: &mut PhaseContext<'_>,
    settings: &ReasonSettings,
    start: Checkpoint,
    shown: &Documents,
) -> Result<Checkpoint, PhaseError> {
    let Checkpoint { model, params, text } = start;
    let context = model.config().longest_document();
    let records = ctx.records(&settings.data)?;
    let encoded = encode_records(&records, |record| text.problem(record, context))?;
    ctx.note_data("", &encoded.summary, context);
    let problems: Vec<ProblemExample> = encoded.examples;
    let records: Vec<&Record> = encoded.records.iter().map(|&i| &records[i]).collect();
    let options = Options {
        clip_low: settings.clip_low,
        clip_high: settings.clip_high,
        ratio_level: settings.ratio,
        normalisation: settings.normalisation,
        max_length: settings.rollout.max_new_tokens,
        kl: (settings.kl_coefficient > 0.0).then_some(KlPenalty {
            estimator: settings.kl_estimator,
            coefficient: settings.kl_coefficient,
        }),
        entropy_bonus: settings.entropy_coefficient,
    };
    let logit_scale = (1.0 / settings.rollout.temperature) as f32;
    let output = Output::TokenScores { logit_scale, entropy: true };

    let shape = model.config().cost_shape();
    let mut reference: Params = params.duplicate();
    let mut policy = Trainer::new(model, params);
    let total = settings.steps;
    let updates_per_step = (settings.rollout.epochs * settings.rollout.minibatches) as u64;
    let updates_in_all = total * updates_per_step;
    let mut replay = Replay::load(ctx, &settings.replay, &text, context, updates_in_all, &shape)?;
    let rollouts = Rollouts {
        shape: &shape,
        scalar: None,
        settings: &settings.rollout,
        steps: total as usize,
        prompt: mean(
            problems.iter().map(|problem| problem.prompt.len()).map(|tokens| (tokens, 1.0)),
        )
        .unwrap_or(0),
        answer: answer(shown, &settings.rollout),
        reference: looks_at_reference(settings),
    };
    let mut work = rollouts.work(settings.optimizer.rule);
    work += replay.expected(&settings.replay);
    ctx.expect("grpo", &shape, &work);
    macro_rules! saved {
        () => {
            &mut [Saved::Trainer("policy", &mut policy), Saved::Frozen("reference", &mut reference)]
        };
    }
    let grpo = Grpo {
        settings,
        text: &text,
        problems: &problems,
        records: &records,
        shape: &shape,
        logit_scale,
    };
    let first = ctx.begin_stage("grpo", total, saved!())?;
    for step in first..total {
        let under_way: Option<Updating<WithReplay<PolicyStats>>> = ctx.step_under_way()?;
        let mut updating = match under_way {
            Some(updating) => updating,
            None => grpo
                .answer(ctx, &policy, &reference, step, total)
                .map_err(|error| ctx.stopped(error, saved!()))?,
        };
        let config = update_rule(&settings.optimizer, step, total);
        let rollouts = std::mem::take(&mut updating.rollouts);
        for (i, update) in updates(ctx, &rollouts, &settings.rollout, step).into_iter().enumerate()
        {
            if i < updating.made {
                continue;
            }
            // A mean over answers counts those that were skipped too, which would add zeros: skipping must not make the
            // steps larger. A mean over tokens is one over the tokens that are left, as in DAPO (arXiv:2503.14476).
            let count = updating.sampled as f64;
            let sequences =
                (update.size.sequences as f64 * count / rollouts.len() as f64).round() as usize;
            let size = BatchSize { sequences, ..update.size };
            let index = step * updates_per_step + i as u64;
            let step_done = replay.step(
                &mut policy,
                index,
                ctx.run.shard_tokens,
                &update.shards,
                output,
                &config,
                |shard, scores| {
                    let old = update.gather(shard, |r| &r.old_logp);
                    let reference = update.gather(shard, |r| &r.reference_logp);
                    let advantages = update.gather(shard, |r| &r.advantages);
                    policy::loss(scores, &old, &reference, &advantages, &options, size)
                },
            );
            let (done, worked) = match step_done {
                Ok(done) => done,
                Err(error) => {
                    updating.rollouts.clone_from(&rollouts);
                    return Err(ctx.stopped_within(error, &updating, saved!()));
                }
            };
            updating.stats += done.stats;
            updating.loss += done.loss;
            updating.grad_norm += done.grad_norm;
            updating.tokens += update.tokens() + worked.replayed;
            ctx.count_flops(worked.flops);
            updating.made += 1;
            ctx.updated();
        }
        let mut metrics = Vec::new();
        if updating.made > 0 {
            let made = updating.made as f64;
            metrics
                .extend([("loss", updating.loss / made), ("grad_norm", updating.grad_norm / made)]);
        }
        metrics.push(("lr", f64::from(config.lr)));
        metrics.extend(updating.stats.means());
        ctx.end_step(
            step + 1,
            total,
            updating.tokens as u64,
            &updating.all_metrics(metrics),
            saved!(),
        )?;
    }
    let Trainer { model, params, .. } = policy;
    Ok(Checkpoint { model, params, text })
}

/// What GRPO's steps have in common.
struct Grpo<'a> {
    settings: &'a ReasonSettings,
    text: &'a TextSetup,
    problems: &'a [ProblemExample],
    /// Those that the problems are of.
    records: &'a [&'a Record],
    shape: &'a ModelShape,
    logit_scale: f32,
}

impl Grpo<'_> {
    /// The first half of a step: answers are sampled, verified and compared with their groups.
    fn answer<S: Default>(
        &self,
        ctx: &mut PhaseContext<'_>,
        policy: &Trainer,
        reference: &Params,
        step: u64,
        total: u64,
    ) -> Result<Updating<S>, PhaseError> {
        let &Grpo { settings, text, problems, records, shape, logit_scale } = self;
        let group = settings.rollout.group_size;
        let chosen = choose_prompts(ctx, problems.len(), settings.rollout.prompts, step);
        let prompts: Vec<&[u32]> = chosen.iter().map(|&i| problems[i].prompt.as_slice()).collect();
        let mut rollouts = sample(ctx, policy, &prompts, &settings.rollout, &text.stop_ids, step)?;
        ctx.count_flops(example_flops(shape, rollouts.iter().map(|r| &r.example)));

        let replies: Vec<String> =
            rollouts.iter().map(|r| reply_text(text, &r.completion)).collect();
        let openings: Vec<String> =
            chosen.iter().map(|&i| opening(text, &problems[i].prompt, records[i])).collect();
        let verdicts: Vec<Verdict> = replies
            .iter()
            .enumerate()
            .map(|(i, reply)| {
                // An answer that was cut off is neither: its last number may be half a number.
                let turn = format!("{}{reply}", openings[i / group]);
                let verdict = verify(&turn, &problems[chosen[i / group]].answer);
                let ended = rollouts[i].ended;
                Verdict { format: verdict.format && ended, correct: verdict.correct && ended }
            })
            .collect();
        let rewards: Vec<f32> = verdicts.iter().map(|v| reward(*v, settings)).collect();
        let groups = grpo::group_advantages(&rewards, group, settings.advantage_scaling);
        for (rollout, &advantage) in rollouts.iter_mut().zip(&groups.advantages) {
            rollout.advantages = vec![advantage; rollout.completion.len()];
        }
        let first_steps = ctx.first_steps();
        if let Some(note) =
            first_steps.add(step, total, &verdicts, &rollouts, &groups.zero_spread, settings)
        {
            ctx.note(note);
        }
        keep_samples(ctx, step, total, records, &chosen, &replies, &verdicts, &rewards, group);

        let count = rollouts.len() as f64;
        let mean = |f: &dyn Fn(usize) -> f64| (0..rollouts.len()).map(f).sum::<f64>() / count;
        let metrics = [
            ("reward", mean(&|i| f64::from(rewards[i]))),
            ("reward/accuracy", mean(&|i| f64::from(u8::from(verdicts[i].correct)))),
            ("reward/format", mean(&|i| f64::from(u8::from(verdicts[i].format)))),
            ("response_length", mean(&|i| rollouts[i].completion.len() as f64)),
            ("ended", mean(&|i| f64::from(u8::from(rollouts[i].ended)))),
            (
                "zero_spread",
                groups.zero_spread.iter().filter(|z| **z).count() as f64 / chosen.len() as f64,
            ),
        ];

        let mut updating = Updating::new(&rollouts, &metrics);
        updating.rollouts = if settings.skip_zero_spread {
            let spread = |i: usize| !groups.zero_spread[i / group];
            rollouts.into_iter().enumerate().filter(|(i, _)| spread(*i)).map(|(_, r)| r).collect()
        } else {
            rollouts
        };
        // Also without a penalty: how far the policy has moved is worth watching, now and then.
        if settings.kl_coefficient > 0.0 || step.is_multiple_of(REFERENCE_KL_INTERVAL) {
            let examples = updating.rollouts.iter().map(|r| &r.example);
            let logps =
                logprobs(&policy.model, reference, examples, logit_scale, ctx.run.shard_tokens)?;
            for (rollout, logp) in updating.rollouts.iter_mut().zip(logps) {
                rollout.reference_logp = logp;
            }
            ctx.count_flops(example_flops(shape, updating.rollouts.iter().map(|r| &r.example)));
        }
        Ok(updating)
    }
}

/// The form is paid for by itself, so that it survives problems that are too hard; the answer is paid for only in
/// the right form. Where the form is worth nothing it is not asked for.
fn reward(verdict: Verdict, settings: &ReasonSettings) -> f32 {
    let format = if verdict.format { settings.format_reward } else { 0.0 };
    let in_form = verdict.format || settings.format_reward == 0.0;
    let accuracy = if in_form && verdict.correct { settings.accuracy_reward } else { 0.0 };
    (format + accuracy) as f32
}

/// Keeps two answers of the first group at a few moments of the phase.
fn keep_samples(
    ctx: &mut PhaseContext<'_>,
    step: u64,
    total: u64,
    records: &[&Record],
    chosen: &[usize],
    replies: &[String],
    verdicts: &[Verdict],
    rewards: &[f32],
    group: usize,
) {
    if !PhaseContext::wants_samples(step, total) {
        return;
    }
    for i in [0, group / 2] {
        ctx.sample(RolloutSample {
            prompt: behaviours::prompt_text(records[chosen[i / group]]),
            completion: replies[i].clone(),
            reward: f64::from(rewards[i]),
            parts: [
                ("accuracy".to_owned(), f64::from(u8::from(verdicts[i].correct))),
                ("format".to_owned(), f64::from(u8::from(verdicts[i].format))),
            ]
            .into(),
            ..RolloutSample::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_asked_for_only_where_it_is_paid() {
        let pays = |format_reward: f64, format: bool, correct: bool| {
            let settings = ReasonSettings { format_reward, ..ReasonSettings::default() };
            reward(Verdict { format, correct }, &settings)
        };
        assert_eq!([pays(0.1, true, true), pays(0.1, true, false)], [1.1, 0.1]);
        assert_eq!([pays(0.1, false, true), pays(0.1, false, false)], [0.0, 0.0]);
        assert_eq!([pays(0.0, true, true), pays(0.0, false, true)], [1.0, 1.0]);
        assert_eq!([pays(0.0, true, false), pays(0.0, false, false)], [0.0, 0.0]);
    }
}
