//! Phase 4a: the reward model. It reads a prompt with an answer and says one number; votes teach it that the chosen
//! answer's number is the larger (Bradley-Terry; Ouyang et al. 2022, arXiv:2203.02155). It is the judge that
//! RLHF trains against.

use std::collections::BTreeMap;

use crisol_model::Checkpoint;
use crisol_objectives::Stats;
use crisol_objectives::bradley_terry::{self, RewardStats};
use crisol_text::{Packed, PreferenceExample, TextSetup, encode_records, pack};
use crisol_train::{Output, Trainer, derived_seed, evaluate};

use crate::PhaseError;
use crate::batches::Plan;
use crate::context::{Context, Saved, update_rule};
use crate::expectation::{Length, forward, training};
use crate::settings::RewardSettings;
use crate::supervised::{batch_size, sum_up, token_count, training_flops};

/// Trains a reward model from the weights of `start`.
pub(crate) fn reward(
    ctx: &mut Context<'_>,
    settings: &RewardSettings,
    start: Checkpoint,
) -> Result<Checkpoint, PhaseError> {
    let Checkpoint { model, params, text } = start;
    let (model, params) = model.scalar_from(&params, derived_seed(ctx.run.seed, &ctx.purpose("head"), 0));
    let context = model.config().longest_document();
    let pairs = preferences(ctx, "", &settings.data, &text, context)?;
    let mut plan = Plan::new(
        vec![1; pairs.len()],
        settings.epochs,
        settings.batch_pairs,
        ctx.run.seed,
        ctx.purpose("order"),
    );
    let shape = model.config().cost_shape();
    let mut trainer = Trainer::new(model, params);
    let total = plan.total();
    let work = training(&shape, &mut plan, settings.optimizer.rule, |i| {
        let both = [&pairs[i].chosen, &pairs[i].rejected];
        forward(&shape, both.map(|example| Length::judged(&example.ids)))
    });
    ctx.expect("reward", &shape, &work);
    let first = ctx.begin_stage("reward", total, &mut [Saved::Trainer("model", &mut trainer)])?;
    for step in first..total {
        let batch: Vec<&PreferenceExample> = plan.batch(step).iter().map(|&i| &pairs[i]).collect();
        let shards = pair_shards(&batch, ctx.run.shard_tokens);
        let (size, tokens) = (batch_size(&shards), token_count(&shards));
        let config = update_rule(&settings.optimizer, step, total);
        let done = trainer
            .step(&shards, Output::Scalar, &config, |_, scores| {
                bradley_terry::loss(scores, settings.centring, size)
            })
            .map_err(|error| ctx.stopped(error, &mut [Saved::Trainer("model", &mut trainer)]))?;
        ctx.count_flops(training_flops(&shape, &shards));
        let mut metrics =
            vec![("loss", done.loss), ("grad_norm", done.grad_norm), ("lr", f64::from(config.lr))];
        metrics.extend(done.stats.means());
        ctx.end_step(step + 1, total, tokens as u64, &metrics, &mut [Saved::Trainer("model", &mut trainer)])?;
    }
    let Trainer { model, params, .. } = trainer;
    let trained = Checkpoint { model, params, text };
    let heldout = ctx.run.evaluate.files(&settings.heldout);
    if !heldout.is_empty() {
        measure_heldout(ctx, settings, &heldout, &trained)?;
    }
    Ok(trained)
}

/// How the model judges held-out votes: all of them, and each kind by itself where the votes name kinds.
fn measure_heldout(
    ctx: &mut Context<'_>,
    settings: &RewardSettings,
    heldout: &[String],
    judge: &Checkpoint,
) -> Result<(), PhaseError> {
    let context = judge.model.config().longest_document();
    let records = ctx.records(heldout)?;
    let pairs = encode_records(&records, |record| judge.text.preference(record, context))?;
    ctx.note_data("Held out: ", &pairs.summary, context);
    let judged = |pairs: &[&PreferenceExample]| -> Result<RewardStats, PhaseError> {
        let shards = pair_shards(pairs, ctx.run.shard_tokens);
        let size = batch_size(&shards);
        let parts = evaluate(&judge.model, &judge.params, &shards, Output::Scalar, |_, scores| {
            bradley_terry::loss(scores, settings.centring, size).stats
        })?;
        Ok(sum_up(parts))
    };
    let mut by_kind: BTreeMap<&str, Vec<&PreferenceExample>> = BTreeMap::new();
    for (&record, pair) in pairs.records.iter().zip(&pairs.examples) {
        if let Some(kind) = records[record].kind() {
            by_kind.entry(kind).or_default().push(pair);
        }
    }
    let mut measured = Vec::new();
    for (name, value) in judged(&pairs.examples.iter().collect::<Vec<_>>())?.means() {
        let name = if name == "accuracy" { "reward_accuracy".into() } else { format!("votes_{name}") };
        measured.push((name, value));
    }
    for (kind, pairs) in by_kind {
        for (_, value) in judged(&pairs)?.means().into_iter().filter(|(name, _)| *name == "accuracy") {
            measured.push((format!("reward_accuracy/{kind}"), value));
        }
    }
    for (name, value) in measured {
        ctx.measure(&name, value);
    }
    Ok(())
}

/// The preference pairs of some files, which notes call `what`.
pub(crate) fn preferences(
    ctx: &mut Context<'_>,
    what: &str,
    files: &[String],
    text: &TextSetup,
    context: usize,
) -> Result<Vec<PreferenceExample>, PhaseError> {
    let records = ctx.records(files)?;
    let pairs = encode_records(&records, |record| text.preference(record, context))?;
    ctx.note_data(what, &pairs.summary, context);
    Ok(pairs.examples)
}

/// Packs pairs into shards of their last tokens, chosen before rejected.
fn pair_shards(pairs: &[&PreferenceExample], shard_tokens: usize) -> Vec<Packed> {
    let lengths: Vec<usize> = pairs.iter().map(|p| p.chosen.ids.len() + p.rejected.ids.len()).collect();
    pack(&lengths, shard_tokens)
        .into_iter()
        .map(|shard| {
            let mut packed = Packed::new();
            for i in shard {
                packed.push_last(&pairs[i].chosen.ids);
                packed.push_last(&pairs[i].rejected.ids);
            }
            packed
        })
        .collect()
}
