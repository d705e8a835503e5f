//! Phase 2: instruction fine-tuning. The next token again, but of conversations, and only the assistant's tokens are
//! targets. Refusal SFT, the first way to align a model, is this phase on other data.

use crisol_model::Checkpoint;
use crisol_report::MaskPicture;
use crisol_text::inspect::inspect_record;
use crisol_text::{Encoded, Example, Record, TextSetup, encode_records};
use crisol_train::Trainer;

use crate::PhaseError;
use crate::context::Context;
use crate::expectation::Length;
use crate::settings::SftSettings;
use crate::supervised::{heldout_loss, train_next_token};

/// Fine-tunes `start` on conversations.
pub(crate) fn sft(
    ctx: &mut Context<'_>,
    settings: &SftSettings,
    start: Checkpoint,
) -> Result<Checkpoint, PhaseError> {
    Ok(train_stage(ctx, "sft", settings, start)?.0)
}

/// One supervised stage; also the cold start of reasoning. Returns what came out and the lengths of what it was shown.
pub(crate) fn train_stage(
    ctx: &mut Context<'_>,
    stage: &str,
    settings: &SftSettings,
    start: Checkpoint,
) -> Result<(Checkpoint, Vec<Length>), PhaseError> {
    let Checkpoint { model, params, text } = start;
    let context = model.config().longest_document();
    let records = ctx.records(&settings.data)?;
    let examples = examples(&text, &records, context)?;
    ctx.note_data("", &examples.summary, context);
    let examples = examples.examples;
    let heldout = self::examples(&text, &ctx.records(&settings.heldout)?, context)?;
    ctx.note_data("Held out: ", &heldout.summary, context);
    let heldout = heldout.examples;
    picture_masks(ctx, &text, &records, context);
    let mut trainer = Trainer::new(model, params);
    train_next_token(
        ctx,
        stage,
        &mut trainer,
        &examples,
        &heldout,
        settings.epochs,
        settings.batch_tokens,
        &settings.optimizer,
    )?;
    let Trainer { model, params, .. } = trainer;
    if !heldout.is_empty() && ctx.in_stage(stage) {
        let (loss, _) = heldout_loss(&model, &params, &heldout, ctx.run.shard_tokens)?;
        ctx.measure("validation_loss", loss);
    }
    Ok((Checkpoint { model, params, text }, examples.iter().map(Length::of).collect()))
}

/// Conversations and completions, of which the answers are trained, and raw text, all of it trained: a share of the
/// pre-training text keeps a model from forgetting it.
pub(crate) fn examples(
    text: &TextSetup,
    records: &[Record],
    context: usize,
) -> Result<Encoded<Example>, PhaseError> {
    Ok(encode_records(records, |record| text.supervised(record, context))?)
}

/// Shows in the report which tokens of the first records are trained.
fn picture_masks(ctx: &mut Context<'_>, text: &TextSetup, records: &[Record], context: usize) {
    const PICTURES: usize = 3;
    for record in records.iter().take(PICTURES) {
        for sequence in inspect_record(text, record, context).sequences {
            let spans = sequence.spans.into_iter().map(|span| (span.text, span.trained)).collect();
            ctx.masks.push(MaskPicture { phase: ctx.name.clone(), title: record.place.clone(), spans });
        }
    }
}
