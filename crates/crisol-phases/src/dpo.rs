//! Phase 4c: direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290). The votes train the policy
//! itself: no reward model, no sampling. The reference is the policy at the start; its log-probs of all answers
//! are computed once, and then it is freed.

use crisol_engine::Params;
use crisol_model::{Checkpoint, Model};
use crisol_objectives::preference::{self, Options};
use crisol_objectives::{BatchSize, Stats};
use crisol_text::{Packed, pack};
use crisol_train::{Trainer, evaluate};

use crate::PhaseError;
use crate::batches::Plan;
use crate::context::{PhaseContext, Saved, update_rule};
use crate::evaluation::PREFERENCE_ACCURACY;
use crate::expectation::{forward, training};
use crate::replay::Replay;
use crate::reward::{Preferences, preferences};
use crate::settings::DpoSettings;
use crate::supervised::{LOGPROBS, logprobs, sum_up, token_count};

/// Pairs whose tokens are in memory at a time while the reference looks at all.
const PAIRS_AT_A_TIME: usize = 1 << 14;

/// Aligns `start` with votes.
pub(crate) fn dpo(
    ctx: &mut PhaseContext<'_>,
    settings: &DpoSettings,
    start: Checkpoint,
) -> Result<Checkpoint, PhaseError> {
    let Checkpoint { model, params, text } = start;
    let context = model.config().longest_document();
    let pairs = preferences(ctx, "data", "", &settings.data, &text, context)?;
    let files = ctx.run.evaluate.files(&settings.heldout);
    let heldout = preferences(ctx, "heldout", "Held out: ", &files, &text, context)?;
    let options = Options {
        loss: settings.loss,
        beta: settings.beta,
        label_smoothing: settings.label_smoothing,
        sft_weight: settings.sft_weight,
    };
    let shape = model.config().cost_shape();
    let shard_tokens = ctx.run.shard_tokens;
    let mut plan = Plan::new(
        vec![1; pairs.len()],
        settings.epochs,
        settings.batch_pairs,
        ctx.run.seed,
        ctx.purpose("order"),
    );
    let total = plan.total();
    let mut replay = Replay::load(ctx, &settings.replay, &text, context, total, &shape)?;
    let mut work =
        training(&shape, &mut plan, settings.optimizer.rule, |i| forward(&shape, pairs.lengths(i)));
    work += replay.expected(&settings.replay);
    // The reference looks at all of them once; at what is held out, before and after and once for the loss.
    work.forward += forward(&shape, pairs.all_lengths());
    work.measuring += forward(&shape, heldout.all_lengths()) * 3.0;
    ctx.expect("dpo", &shape, &work);
    let reference = answer_logps(&model, &params, &pairs, shard_tokens)?;
    let heldout_reference = answer_logps(&model, &params, &heldout, shard_tokens)?;
    if !heldout.is_empty() {
        ctx.measure_before(PREFERENCE_ACCURACY, share_preferred(&heldout_reference));
    }
    let mut trainer = Trainer::new(model, params);
    let first = ctx.begin_stage("dpo", total, &mut [Saved::Trainer("policy", &mut trainer)])?;
    if first == 0 {
        ctx.count_flops(forward(&shape, pairs.all_lengths()));
    }
    for step in first..total {
        let batch = Pairs::pack(&pairs, &reference, plan.batch(step), shard_tokens)?;
        let config = update_rule(&settings.optimizer, step, total);
        let step_done = replay.step(
            &mut trainer,
            step,
            shard_tokens,
            &batch.shards,
            LOGPROBS,
            &config,
            |shard, scores| preference::loss(scores, &batch.reference[shard], &options, batch.size),
        );
        let (done, trained) = step_done
            .map_err(|error| ctx.stopped(error, &mut [Saved::Trainer("policy", &mut trainer)]))?;
        let tokens = trained.replayed + token_count(&batch.shards);
        ctx.count_flops(trained.flops);
        let mut metrics =
            vec![("loss", done.loss), ("grad_norm", done.grad_norm), ("lr", f64::from(config.lr))];
        metrics.extend(done.stats.means());
        ctx.end_step(
            step + 1,
            total,
            tokens as u64,
            &metrics,
            &mut [Saved::Trainer("policy", &mut trainer)],
        )?;
    }
    let Trainer { model, params, .. } = trainer;
    if !heldout.is_empty() {
        let all: Vec<usize> = (0..heldout.len()).collect();
        let batch = Pairs::pack(&heldout, &heldout_reference, &all, shard_tokens)?;
        let parts = evaluate(&model, &params, &batch.shards, LOGPROBS, |shard, scores| {
            preference::loss(scores, &batch.reference[shard], &options, batch.size).stats
        })?;
        for (name, value) in sum_up(parts).means() {
            ctx.measure(&format!("pairs_{name}"), value);
        }
        let logps = answer_logps(&model, &params, &heldout, shard_tokens)?;
        ctx.measure(PREFERENCE_ACCURACY, share_preferred(&logps));
    }
    Ok(Checkpoint { model, params, text })
}

/// The log-probabilities of all answers, chosen and rejected.
fn answer_logps(
    model: &Model,
    params: &Params,
    pairs: &Preferences,
    shard_tokens: usize,
) -> Result<Vec<[f64; 2]>, PhaseError> {
    let mut answers = Vec::with_capacity(pairs.len());
    while answers.len() < pairs.len() {
        let first = answers.len();
        let chunk: Vec<usize> = (first..pairs.len().min(first + PAIRS_AT_A_TIME)).collect();
        let batch = pairs.batch(&chunk)?;
        let logps = logprobs(model, params, batch.as_flattened(), 1.0, shard_tokens)?;
        let sum = |logps: &Vec<f32>| logps.iter().map(|&logp| f64::from(logp)).sum();
        let (both, _) = logps.as_chunks();
        answers.extend(both.iter().map(|[chosen, rejected]| [sum(chosen), sum(rejected)]));
    }
    Ok(answers)
}

/// The share of pairs whose chosen answer is the more probable one. (The accuracy among the votes' statistics is that of
/// the implied reward: how the pair moved against the reference.)
fn share_preferred(logps: &[[f64; 2]]) -> f64 {
    logps.iter().filter(|[chosen, rejected]| chosen > rejected).count() as f64 / logps.len() as f64
}

/// Pairs packed into shards with their reference log-probs, chosen before rejected.
struct Pairs {
    shards: Vec<Packed>,
    reference: Vec<Vec<f64>>,
    size: BatchSize,
}

impl Pairs {
    fn pack(
        pairs: &Preferences,
        reference: &[[f64; 2]],
        chosen: &[usize],
        shard_tokens: usize,
    ) -> Result<Pairs, PhaseError> {
        let examples = pairs.batch(chosen)?;
        let lengths: Vec<usize> = examples
            .iter()
            .map(|[chosen, rejected]| chosen.ids.len() + rejected.ids.len())
            .collect();
        let mut batch =
            Pairs { shards: Vec::new(), reference: Vec::new(), size: BatchSize::default() };
        for shard in pack(&lengths, shard_tokens) {
            let mut packed = Packed::new();
            let mut logps = Vec::new();
            for i in shard {
                packed.push(&examples[i][0]);
                packed.push(&examples[i][1]);
                logps.extend(reference[chosen[i]]);
            }
            batch.size += BatchSize::of(&packed.row_offsets);
            batch.shards.push(packed);
            batch.reference.push(logps);
        }
        Ok(batch)
    }
}
