//! Phase 4c: direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290). Preference
//! pairs train the policy directly, without a reward model and without sampling.
//!
//! 1. The reference is the policy at the start. Its log-probs of all answers are computed once,
//!    then it is freed.
//! 2. Each step trains on a batch of pairs, with the loss below or another of
//!    `crisol-objectives/src/preference.rs`:
//!
//! ```text
//! −log σ(β·[(log π(chosen) − log π_ref(chosen)) − (log π(rejected) − log π_ref(rejected))])
//! ```

use crisol_cost::phases::{Phase, PhaseOptions};
use crisol_engine::{Params, Precision};
use crisol_model::{Checkpoint, Model};
use crisol_objectives::Stats;
use crisol_objectives::preference::{self, Options};
use crisol_text::Example;
use crisol_train::Trainer;

use crate::PhaseError;
use crate::batch::{Batch, Rows};
use crate::context::PhaseContext;
use crate::cost_shape::cost_shape;
use crate::evaluation::PREFERENCE_ACCURACY;
use crate::forecast::lengths::{Documents, Planned};
use crate::forecast::plan::{Shapes, StageData, StagePlan};
use crate::pairs::Pairs;
use crate::passes::{LOGPROBS, logprobs, statistics};
use crate::replay::Replay;
use crate::settings::DpoSettings;
use crate::state::SavedModel;
use crate::steps::{self, StepResult};

/// Pairs whose tokens are in memory at a time while the reference's log-probs are computed.
const PAIRS_IN_MEMORY: usize = 1 << 14;

/// Describes the stage, for forecasts. Held-out log-probs are measured before and after, and once
/// for the loss.
pub(crate) fn plan(settings: &DpoSettings) -> StagePlan<'_> {
    StagePlan {
        name: "dpo",
        phase: Phase::Dpo,
        options: PhaseOptions::default(),
        rule: settings.optimizer.rule,
        heldout_passes: 3.0,
        replay: Some(&settings.replay),
    }
}

/// Aligns `start` with preference pairs.
pub(crate) fn dpo(
    ctx: &mut PhaseContext<'_>,
    settings: &DpoSettings,
    start: Checkpoint,
) -> Result<Checkpoint, PhaseError> {
    let Checkpoint { model, params, text } = start;
    let context = model.config().max_document_len();
    let shard_tokens = ctx.run.shard_tokens;
    let pairs = Pairs::load(ctx, ("data", ""), &settings.data, &text, context)?;
    let files = ctx.run.evaluate.files(&settings.heldout);
    let heldout = Pairs::load(ctx, ("heldout", "Held out: "), &files, &text, context)?;
    let mut batches = pairs.plan(ctx, settings.epochs, settings.batch_pairs);
    let mut replay = Replay::load(ctx, &settings.replay, &text, context)?;
    let total = batches.total();
    let data = StageData {
        all: &pairs.examples,
        trained: &Planned::new(&mut batches, 2, |i| pairs.examples.length(i)),
        heldout: &heldout.examples,
        replay: &replay.lengths(),
        updates: total as usize,
    };
    let shape = cost_shape(model.config());
    ctx.forecast(&plan(settings), Shapes { policy: &shape, scalar: &shape }, &data);

    let reference = answer_logprobs(&model, &params, &pairs, shard_tokens)?;
    let heldout_logprobs = |model: &Model, params: &Params| {
        answer_logprobs(model, &params.in_precision(Precision::F32), &heldout, shard_tokens)
    };
    let heldout_reference = heldout_logprobs(&model, &params)?;
    if !heldout.is_empty() {
        ctx.measure_before(PREFERENCE_ACCURACY, share_preferred(&heldout_reference));
    }
    let options = Options {
        loss: settings.loss,
        beta: settings.beta,
        label_smoothing: settings.label_smoothing,
        sft_weight: settings.sft_weight,
    };
    let mut policy = ctx.trainer(model, params, &settings.optimizer);
    let first = ctx.begin_stage("dpo", total, &mut [SavedModel::Trainer("policy", &mut policy)])?;
    if first == 0 {
        ctx.count_flops(pairs.examples.forward(&shape));
    }
    steps::train(
        ctx,
        ("policy", &mut policy),
        &settings.optimizer,
        first,
        total,
        |ctx, policy, step, config| {
            let chosen = batches.batch(step);
            let (batch, reference) = pack(&pairs, &reference, chosen, shard_tokens)?;
            let (done, replayed) =
                replay.step(ctx, policy, step, &batch, LOGPROBS, config, |shard, scores| {
                    preference::loss(scores, &reference[shard], &options, batch.size)
                })?;
            Ok(StepResult::new(&done, batch.tokens() + replayed, done.stats.means()))
        },
    )?;
    let Trainer { model, params, .. } = policy;

    if !heldout.is_empty() {
        let all: Vec<usize> = (0..heldout.len()).collect();
        let (batch, reference) = pack(&heldout, &heldout_reference, &all, shard_tokens)?;
        let stats = statistics(&model, &params, &batch, LOGPROBS, |shard, scores| {
            preference::loss(scores, &reference[shard], &options, batch.size)
        })?;
        for (name, value) in stats.means() {
            ctx.measure(&format!("pairs_{name}"), value);
        }
        let logprobs = heldout_logprobs(&model, &params)?;
        ctx.measure(PREFERENCE_ACCURACY, share_preferred(&logprobs));
    }
    Ok(Checkpoint { model, params, text })
}

/// The log-probabilities of both answers of every pair: `[chosen, rejected]`.
fn answer_logprobs(
    model: &Model,
    params: &Params,
    pairs: &Pairs,
    shard_tokens: usize,
) -> Result<Vec<[f64; 2]>, PhaseError> {
    let all: Vec<usize> = (0..pairs.len()).collect();
    let mut answers = Vec::with_capacity(pairs.len());
    for chunk in all.chunks(PAIRS_IN_MEMORY) {
        let examples = pairs.get(chunk)?;
        let tokens = logprobs(model, params, examples.as_flattened(), 1.0, shard_tokens)?;
        let sum = |tokens: &Vec<f32>| tokens.iter().map(|&logp| f64::from(logp)).sum();
        let (both, _) = tokens.as_chunks();
        answers.extend(both.iter().map(|[chosen, rejected]| [sum(chosen), sum(rejected)]));
    }
    Ok(answers)
}

/// Share of pairs whose chosen answer is more probable than the rejected one. (The accuracy in the
/// loss's statistics is that of the implicit reward, relative to the reference.)
fn share_preferred(logprobs: &[[f64; 2]]) -> f64 {
    let preferred = logprobs.iter().filter(|[chosen, rejected]| chosen > rejected).count();
    preferred as f64 / logprobs.len() as f64
}

/// Packs some pairs. Returns the reference's log-probs of their answers too, by shard.
fn pack(
    pairs: &Pairs,
    reference: &[[f64; 2]],
    chosen: &[usize],
    shard_tokens: usize,
) -> Result<(Batch, Vec<Vec<f64>>), PhaseError> {
    let examples = pairs.get(chosen)?;
    let examples: Vec<[&Example; 2]> = examples.iter().map(<[Example; 2]>::each_ref).collect();
    let batch = Batch::new(&examples, Rows::Trained, shard_tokens);
    let of_shard =
        |members: &Vec<usize>| members.iter().flat_map(|&i| reference[chosen[i]]).collect();
    let reference = batch.members.iter().map(of_shard).collect();
    Ok((batch, reference))
}
