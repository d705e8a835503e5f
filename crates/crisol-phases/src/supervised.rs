//! Next-token training on documents, which pre-training, SFT and the cold start share: they differ in their
//! documents and masks, nothing else.

use crisol_cost::ModelShape;
use crisol_cost::machine::LocalWork;
use crisol_cost::phases::TRAINING;
use crisol_cost::units::Flops;
use crisol_engine::Params;
use crisol_model::Model;
use crisol_objectives::{BatchSize, Stats, next_token};
use crisol_text::{Example, Packed, pack};
use crisol_train::{Output, Trainer, evaluate};

use crate::PhaseError;
use crate::batches::Plan;
use crate::context::{HELD_OUT_LOSS, PhaseContext, Saved, update_rule};
use crate::expectation::{Length, forward, training};
use crate::settings::OptimizerSettings;
use crate::store::Examples;

/// Log-probs alone, at temperature 1.
pub(crate) const LOGPROBS: Output = Output::TokenScores { logit_scale: 1.0, entropy: false };

/// Packs the given documents into shards of about `shard_tokens`.
pub fn shards<'e>(
    examples: impl IntoIterator<Item = &'e Example>,
    shard_tokens: usize,
) -> Vec<Packed> {
    let examples: Vec<&Example> = examples.into_iter().collect();
    let lengths: Vec<usize> = examples.iter().map(|e| e.ids.len()).collect();
    pack(&lengths, shard_tokens)
        .into_iter()
        .map(|documents| {
            let mut packed = Packed::new();
            for i in documents {
                packed.push(examples[i]);
            }
            packed
        })
        .collect()
}

/// How many documents and scored tokens the shards hold together.
pub fn batch_size(shards: &[Packed]) -> BatchSize {
    shards.iter().map(|s| BatchSize::of(&s.row_offsets)).sum()
}

/// How many tokens the shards hold together, prompts included.
pub(crate) fn token_count(shards: &[Packed]) -> usize {
    shards.iter().map(|s| s.ids.len()).sum()
}

/// Floating-point operations of a forward pass of the shards.
pub(crate) fn forward_flops(shape: &ModelShape, shards: &[Packed]) -> Flops {
    let documents = shards.iter().flat_map(|s| s.offsets.windows(2).zip(s.row_offsets.windows(2)));
    let count = |bounds: &[u32]| (bounds[1] - bounds[0]) as usize;
    forward(
        shape,
        documents.map(|(tokens, rows)| Length { tokens: count(tokens), rows: count(rows) }),
    )
}

/// And of a training step on them.
pub(crate) fn training_flops(shape: &ModelShape, shards: &[Packed]) -> Flops {
    forward_flops(shape, shards) * TRAINING
}

/// Floating-point operations of a forward pass of examples, each by itself.
pub(crate) fn example_flops<'e>(
    shape: &ModelShape,
    examples: impl IntoIterator<Item = &'e Example>,
) -> Flops {
    forward(shape, examples.into_iter().map(Length::of))
}

/// The statistics of all shards together.
pub(crate) fn sum_up<S: Stats>(parts: Vec<S>) -> S {
    parts.into_iter().fold(S::default(), |mut sum, part| {
        sum += part;
        sum
    })
}

/// Trains on the examples as one stage of the phase. What is held out is looked at afterwards, which takes time too.
pub(crate) fn train_next_token(
    ctx: &mut PhaseContext<'_>,
    stage: &str,
    trainer: &mut Trainer,
    examples: &Examples,
    heldout: &[Example],
    epochs: f64,
    batch_tokens: usize,
    optimizer: &OptimizerSettings,
) -> Result<(), PhaseError> {
    let lengths: Vec<usize> = examples.lengths().map(|length| length.tokens).collect();
    let purpose = ctx.purpose(stage);
    let mut plan = Plan::new(lengths, epochs, batch_tokens, ctx.run.seed, purpose);
    let total = plan.total();
    let shape = trainer.model.config().cost_shape();
    let work = LocalWork {
        // Before and after.
        measuring: example_flops(&shape, heldout) * 2.0,
        ..training(&shape, &mut plan, optimizer.rule, |i| forward(&shape, [examples.length(i)]))
    };
    ctx.expect(stage, &shape, &work);
    let first = ctx.begin_stage(stage, total, &mut [Saved::Trainer("model", trainer)])?;
    if first == 0 && !heldout.is_empty() {
        let (loss, _) =
            heldout_loss(&trainer.model, &trainer.params, heldout, ctx.run.shard_tokens)?;
        ctx.measure_before(HELD_OUT_LOSS, loss);
    }
    for step in first..total {
        let shards = shards(&examples.batch(plan.batch(step))?, ctx.run.shard_tokens);
        let (size, tokens) = (batch_size(&shards), token_count(&shards));
        let config = update_rule(optimizer, step, total);
        let done = trainer
            .step(&shards, LOGPROBS, &config, |_, scores| next_token::loss(scores, size))
            .map_err(|error| ctx.stopped(error, &mut [Saved::Trainer("model", trainer)]))?;
        ctx.count_flops(training_flops(&shape, &shards));
        let metrics =
            [("loss", done.loss), ("grad_norm", done.grad_norm), ("lr", f64::from(config.lr))];
        ctx.end_step(
            step + 1,
            total,
            tokens as u64,
            &metrics,
            &mut [Saved::Trainer("model", trainer)],
        )?;
    }
    Ok(())
}

/// Mean negative log-likelihood per trained token, in nats, of documents that are not trained on, and how many tokens
/// that is.
pub(crate) fn heldout_loss(
    model: &Model,
    params: &Params,
    examples: &[Example],
    shard_tokens: usize,
) -> Result<(f64, usize), PhaseError> {
    let shards = shards(examples, shard_tokens);
    let size = batch_size(&shards);
    let losses = evaluate(model, params, &shards, LOGPROBS, |_, scores| {
        next_token::loss(scores, size).loss
    })?;
    Ok((losses.iter().sum(), size.tokens))
}

/// Log-probs of the trained tokens of each example under frozen weights.
pub(crate) fn logprobs<'e>(
    model: &Model,
    params: &Params,
    examples: impl IntoIterator<Item = &'e Example>,
    logit_scale: f32,
    shard_tokens: usize,
) -> Result<Vec<Vec<f32>>, PhaseError> {
    let shards = shards(examples, shard_tokens);
    let output = Output::TokenScores { logit_scale, entropy: false };
    let parts = evaluate(model, params, &shards, output, |_, scores| {
        per_document(scores.logp, scores.offsets)
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// What a scalar-head model says at the rows that predict the trained tokens of each example.
pub(crate) fn values<'e>(
    model: &Model,
    params: &Params,
    examples: impl IntoIterator<Item = &'e Example>,
    shard_tokens: usize,
) -> Result<Vec<Vec<f32>>, PhaseError> {
    let shards = shards(examples, shard_tokens);
    let parts = evaluate(model, params, &shards, Output::Scalar, |_, scores| {
        per_document(scores.value, scores.offsets)
    })?;
    Ok(parts.into_iter().flatten().collect())
}

fn per_document(numbers: &[f32], offsets: &[u32]) -> Vec<Vec<f32>> {
    offsets.windows(2).map(|r| numbers[r[0] as usize..r[1] as usize].to_vec()).collect()
}
