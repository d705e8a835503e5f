//! Phase 1: pre-training. Next-token training on raw text, in which every token is a target. The
//! only phase that may start from a new model.

use crisol_model::{Checkpoint, Model};
use crisol_text::{Body, EMBEDDED_TOKENS, Example, Record, TextError, TextSetup, Tokenizer};
use crisol_train::{Trainer, derived_seed};

use crate::PhaseError;
use crate::context::{HELD_OUT_LOSS, PhaseContext};
use crate::examples::{ExampleKind, Source};
use crate::settings::{ModelSettings, PretrainSettings};
use crate::supervised::{NextToken, heldout_loss};

/// Pre-trains `start`, or a new model with a tokenizer trained on the same text.
pub(crate) fn pretrain(
    ctx: &mut PhaseContext<'_>,
    settings: &PretrainSettings,
    start: Option<Checkpoint>,
) -> Result<Checkpoint, PhaseError> {
    let data = ctx.data;
    // A new model's data is read twice: to train its tokenizer, then to encode it. The records of a
    // pipe are therefore held in memory.
    let twice = start.is_none() && ctx.trained_tokenizer().is_none();
    let held = if twice && !settings.data.iter().all(|file| data.has(file)) {
        Some(data.all_records(&settings.data)?)
    } else {
        None
    };
    let start = match (start, &held) {
        (Some(checkpoint), _) => checkpoint,
        (None, Some(records)) => {
            new_model(ctx, records.iter().map(|record| Ok(text_of(record)?.to_owned())))?
        }
        (None, None) => new_model(
            ctx,
            data.read(&settings.data).map(|record| Ok(text_of(&record?)?.to_owned())),
        )?,
    };
    let Checkpoint { model, params, text } = start;
    let context = model.config().max_document_len();
    let source = Source {
        role: "data",
        note_prefix: "",
        files: &settings.data,
        kind: ExampleKind::Text,
        masks: 0,
    };
    let documents = match held {
        Some(records) => source.load_from(ctx, &text, context, records)?,
        None => source.load(ctx, &text, context)?,
    };
    let heldout_texts = texts(&ctx.records(&settings.heldout)?)?;
    let heldout = self::documents(&text, &heldout_texts, context)?;
    let mut trainer = ctx.trainer(model, params, &settings.optimizer);
    stage(settings).train(ctx, &mut trainer, &documents, &heldout)?;
    let Trainer { model, params, .. } = trainer;
    if !heldout.is_empty() {
        let bytes: usize = heldout_texts.iter().map(String::len).sum();
        let (loss, tokens) = heldout_loss(&model, &params, &heldout, ctx.run.shard_tokens)?;
        ctx.measure(HELD_OUT_LOSS, loss);
        // The end-of-text token counts in nats, but has no bytes.
        ctx.measure("bits_per_byte", loss * tokens as f64 / std::f64::consts::LN_2 / bytes as f64);
    }
    Ok(Checkpoint { model, params, text })
}

/// Describes the stage, for forecasts.
pub(crate) fn stage(settings: &PretrainSettings) -> NextToken<'_> {
    let PretrainSettings { data, epochs, batch_tokens, optimizer, .. } = settings;
    NextToken { name: "pretrain", data, epochs: *epochs, batch_tokens: *batch_tokens, optimizer }
}

/// The texts of records of raw text.
pub(crate) fn texts(records: &[Record]) -> Result<Vec<String>, PhaseError> {
    records.iter().map(|record| Ok(text_of(record)?.to_owned())).collect()
}

/// The raw text of a record; other records are an error.
pub(crate) fn text_of(record: &Record) -> Result<&str, PhaseError> {
    match &record.body {
        Body::Text { text } => Ok(text),
        other => Err(PhaseError::WrongRecord {
            place: record.location.clone(),
            found: other.shape(),
            wanted: "raw text: {\"text\": …}",
        }),
    }
}

/// Texts as documents of at most a context.
pub(crate) fn documents(
    text: &TextSetup,
    texts: &[String],
    context: usize,
) -> Result<Vec<Example>, PhaseError> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    Ok(text.text_documents(&texts, context)?)
}

/// A model of the recipe's shape with random weights, and a tokenizer trained on the text.
fn new_model(
    ctx: &mut PhaseContext<'_>,
    texts: impl Iterator<Item = Result<String, PhaseError>> + Send,
) -> Result<Checkpoint, PhaseError> {
    let shape = &ctx.run.model;
    let text = if let Some(json) = ctx.trained_tokenizer() {
        TextSetup::embedded(Tokenizer::from_bytes(json.as_bytes())?)?
    } else {
        let mut error = None;
        let interrupt = ctx.device.interrupt();
        let texts = texts.map_while(|text| match text {
            _ if interrupt.requested() => None,
            Ok(text) => Some(text),
            Err(e) => {
                error = Some(e);
                None
            }
        });
        let trained = text_setup(shape, texts);
        ctx.check_stop()?;
        match error {
            Some(error) => return Err(error),
            None => trained?,
        }
    };
    ctx.set_trained_tokenizer(text.tokenizer.to_json());
    let vocab_size = text.tokenizer.vocab_size();
    if vocab_size < shape.vocab_size {
        ctx.note(format!(
            "The text gives only {vocab_size} tokens of the {} asked for.",
            shape.vocab_size
        ));
    }
    let seed = derived_seed(ctx.run.seed, "model/init", 0);
    let mut config = shape.config(text.tokenizer.vocab_size())?;
    config.eos_token_id.clone_from(&text.stop_ids);
    let (model, params) = Model::init(config, ctx.device, seed)?;
    Ok(Checkpoint { model, params, text })
}

/// The tokenizer of a new model, trained on the text.
pub(crate) fn text_setup(
    shape: &ModelSettings,
    texts: impl Iterator<Item = impl AsRef<str> + Send> + Send,
) -> Result<TextSetup, TextError> {
    TextSetup::embedded(Tokenizer::train(texts, shape.vocab_size, &EMBEDDED_TOKENS)?)
}
