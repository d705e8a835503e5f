//! Phase 3: learning to think before answering.
//!
//! 1. *Cold start*: a short supervised training on worked solutions inside `<think>…</think>`, so that the form is there
//!    to be sampled.
//! 2. *GRPO* (`grpo.rs`): reinforcement learning on problems whose answers can be verified.

use crisol_model::Checkpoint;
use crisol_text::{Body, StringFormat, TextOptions, TextSetup, Turns};

use crate::PhaseError;
use crate::behaviours;
use crate::context::PhaseContext;
use crate::data::DataSource;
use crate::evaluation::{HELD_OUT_ACCURACY, solved};
use crate::forecast::lengths::Sampled;
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
        note_strings(ctx, settings, &mut start)?;
        if let Some(accuracy) = solved(ctx, &start, &heldout, limit)? {
            ctx.measure_before(HELD_OUT_ACCURACY, accuracy);
        }
        start.text.set_options(options);
    }
    let (mut cold, learned) = if settings.cold_start.data.is_empty() {
        (start, Sampled::default())
    } else {
        let (cold, learned) = sft::train_stage(ctx, COLD_START, &settings.cold_start, start)?;
        if ctx.in_stage(COLD_START) {
            behaviours::measure_cold_start(ctx, &cold)?;
        }
        (cold, learned)
    };
    note_strings(ctx, settings, &mut cold)?;
    let trained = grpo(ctx, settings, cold, &learned)?;
    if let Some(accuracy) = solved(ctx, &trained, &heldout, limit)? {
        ctx.measure(HELD_OUT_ACCURACY, accuracy);
    }
    Ok(trained)
}

/// As [`take_strings_for_messages`], with a note.
fn note_strings(
    ctx: &mut PhaseContext<'_>,
    settings: &ReasonSettings,
    model: &mut Checkpoint,
) -> Result<(), PhaseError> {
    if take_strings_for_messages(ctx.data, settings, &mut model.text)? {
        ctx.note(
            "Problems that are strings are taken for the user's messages, because the worked \
             solutions are conversations.",
        );
    }
    Ok(())
}

/// Where worked solutions are conversations, problems that are strings are taken for messages. Returns whether they are.
pub(crate) fn take_strings_for_messages(
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
    let any = |files: &[String], wanted: bool| -> Result<bool, PhaseError> {
        for file in files {
            let first = data.first_record(file)?;
            if first.is_some_and(|record| is_chat(&record.body) == wanted) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let takes = text.options().strings == StringFormat::Text
        && any(&settings.cold_start.data, true)?
        && any(&settings.data, false)?;
    if takes {
        text.set_options(TextOptions { strings: StringFormat::Message, ..text.options().clone() });
    }
    Ok(takes)
}
