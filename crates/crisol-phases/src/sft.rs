//! Phase 2: instruction fine-tuning. Next-token training on conversations, in which only the
//! assistant's tokens are targets. Refusal SFT, the first way to align a model, is this phase on
//! other data.

use crisol_model::Checkpoint;
use crisol_train::Trainer;

use crate::PhaseError;
use crate::context::{HELD_OUT_LOSS, PhaseContext};
use crate::examples::{ExampleKind, Source};
use crate::forecast::lengths::Lengths;
use crate::reason::COLD_START;
use crate::settings::SftSettings;
use crate::supervised::{NextToken, heldout_loss};

/// Records whose loss mask the report shows.
const MASKS: usize = 3;

/// Fine-tunes `start` on conversations.
pub(crate) fn sft(
    ctx: &mut PhaseContext<'_>,
    settings: &SftSettings,
    start: Checkpoint,
) -> Result<Checkpoint, PhaseError> {
    Ok(train_stage(ctx, "sft", settings, start)?.0)
}

/// Describes the stage, for forecasts.
pub(crate) fn stage<'s>(name: &'static str, settings: &'s SftSettings) -> NextToken<'s> {
    let SftSettings { data, epochs, batch_tokens, optimizer, .. } = settings;
    NextToken { name, data, epochs: *epochs, batch_tokens: *batch_tokens, optimizer }
}

/// One supervised stage, of SFT or the cold start. Returns the model and the lengths of its
/// examples.
pub(crate) fn train_stage(
    ctx: &mut PhaseContext<'_>,
    name: &'static str,
    settings: &SftSettings,
    start: Checkpoint,
) -> Result<(Checkpoint, Lengths), PhaseError> {
    let Checkpoint { model, params, text } = start;
    let context = model.config().max_document_len();
    let setting = if name == COLD_START { "cold_start." } else { "" };
    let [data, held_out] = ["data", "heldout"].map(|role| format!("{setting}{role}"));
    let supervised = |role, note_prefix, files, masks| Source {
        role,
        note_prefix,
        files,
        kind: ExampleKind::Supervised,
        masks,
    };
    let examples = supervised(&data, "", &settings.data, MASKS).load(ctx, &text, context)?;
    let heldout = supervised(&held_out, "Held out: ", &settings.heldout, 0)
        .load(ctx, &text, context)?
        .all()?;
    let mut trainer = ctx.trainer(model, params, &settings.optimizer);
    stage(name, settings).train(ctx, &mut trainer, &examples, &heldout)?;
    let Trainer { model, params, .. } = trainer;
    if !heldout.is_empty() && ctx.in_stage(name) {
        let (loss, _) = heldout_loss(&model, &params, &heldout, ctx.run.shard_tokens)?;
        ctx.measure(HELD_OUT_LOSS, loss);
    }
    Ok((Checkpoint { model, params, text }, examples.lengths().collect()))
}
