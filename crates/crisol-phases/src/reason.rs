//! Phase 3: learning to think before answering.
//!
//! 1. *Cold start*: a short supervised training on worked solutions in `<think>…</think>`, so that
//!    GRPO samples answers in this format.
//! 2. *GRPO* (`grpo.rs`): reinforcement learning on problems whose answers can be verified.
//!
//! The accuracy on held-out problems is measured before the first stage and after the last; the
//! behaviours of the whole run (`behaviours.rs`) between them, too.

use crisol_model::Checkpoint;
use crisol_text::{Body, StringFormat, TextOptions, TextSetup, Turns};

use crate::PhaseError;
use crate::behaviours;
use crate::context::PhaseContext;
use crate::data::DataSource;
use crate::evaluation::{HELD_OUT_ACCURACY, solved};
use crate::forecast::lengths::Lengths;
use crate::grpo::grpo;
use crate::settings::ReasonSettings;
use crate::sft;

/// The first stage's name.
pub(crate) const COLD_START: &str = "cold-start";

/// Trains `start` to reason.
pub(crate) fn reason(
    ctx: &mut PhaseContext<'_>,
    settings: &ReasonSettings,
    mut start: Checkpoint,
) -> Result<Checkpoint, PhaseError> {
    let heldout = ctx.run.evaluate.files(&settings.heldout);
    let limit = settings.rollout.max_new_tokens;
    if !ctx.measured_before(HELD_OUT_ACCURACY) {
        let options = start.text.options().clone();
        note_strings_as_messages(ctx, settings, &mut start)?;
        if let Some(accuracy) = solved(ctx, &start, &heldout, limit)? {
            ctx.measure_before(HELD_OUT_ACCURACY, accuracy);
        }
        // The cold start reads its own data with the options of the recipe.
        start.text.set_options(options);
    }
    let (mut cold, solution_lengths) = if settings.cold_start.data.is_empty() {
        (start, Lengths::default())
    } else {
        let (cold, lengths) = sft::train_stage(ctx, COLD_START, &settings.cold_start, start)?;
        // A phase that resumes in GRPO skips the cold start. Then `cold` still has the weights of
        // `start`, and `grpo` loads the saved ones.
        if ctx.in_stage(COLD_START) {
            behaviours::measure_cold_start(ctx, &cold)?;
        }
        (cold, lengths)
    };
    note_strings_as_messages(ctx, settings, &mut cold)?;
    let trained = grpo(ctx, settings, cold, &solution_lengths)?;
    if let Some(accuracy) = solved(ctx, &trained, &heldout, limit)? {
        ctx.measure(HELD_OUT_ACCURACY, accuracy);
    }
    Ok(trained)
}

/// [`read_strings_as_messages`], with a note where it applies.
fn note_strings_as_messages(
    ctx: &mut PhaseContext<'_>,
    settings: &ReasonSettings,
    model: &mut Checkpoint,
) -> Result<(), PhaseError> {
    if read_strings_as_messages(ctx.data, settings, &mut model.text)? {
        ctx.note(
            "Problems that are strings are taken for the user's messages, because the worked \
             solutions are conversations.",
        );
    }
    Ok(())
}

/// Sets `text` to read a problem that is a plain string as a user's message, if the worked
/// solutions are conversations. Otherwise GRPO would put the problems to the model without the
/// chat template that it has learnt. Returns whether it did.
///
/// The first record of each file decides: a file has one shape.
pub(crate) fn read_strings_as_messages(
    data: &DataSource,
    settings: &ReasonSettings,
    text: &mut TextSetup,
) -> Result<bool, PhaseError> {
    let is_chat = |body: &Body| match body {
        Body::Chat { .. } => true,
        Body::Problem { prompt, .. } | Body::Completion { prompt, .. } => {
            matches!(prompt, Turns::Chat(_))
        }
        _ => false,
    };
    // Whether a file is of conversations, or of something else.
    let any_file = |files: &[String], chat: bool| -> Result<bool, PhaseError> {
        for file in files {
            let first = data.first_record(file)?;
            if first.is_some_and(|record| is_chat(&record.body) == chat) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let applies = text.options().strings == StringFormat::Text
        && any_file(&settings.cold_start.data, true)?
        && any_file(&settings.data, false)?;
    if applies {
        text.set_options(TextOptions { strings: StringFormat::Message, ..text.options().clone() });
    }
    Ok(applies)
}
