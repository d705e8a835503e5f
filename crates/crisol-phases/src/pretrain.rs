//! Phase 1: pre-training. The next token of raw text, every token a target; the one phase that may start from
//! nothing, and the one in which what the model knows comes into it.

use crisol_model::{Checkpoint, Model};
use crisol_text::{Body, EMBEDDED_TOKENS, Example, Record, TextSetup, Tokenizer};
use crisol_train::{Trainer, derived_seed};

use crate::PhaseError;
use crate::context::Context;
use crate::settings::{ModelSettings, PretrainSettings};
use crate::supervised::{heldout_loss, train_next_token};

/// Pre-trains `start`, or a new model with a tokenizer trained on the same text.
pub(crate) fn pretrain(
    ctx: &mut Context<'_>,
    settings: &PretrainSettings,
    start: Option<Checkpoint>,
) -> Result<Checkpoint, PhaseError> {
    let texts = texts(&ctx.records(&settings.data)?)?;
    let start = match start {
        Some(checkpoint) => checkpoint,
        None => new_model(ctx, &texts)?,
    };
    let Checkpoint { model, params, text } = start;
    let context = model.config().longest_document();
    let documents = documents(&text, &texts, context)?;
    let heldout_texts = self::texts(&ctx.records(&settings.heldout)?)?;
    let heldout = self::documents(&text, &heldout_texts, context)?;
    let mut trainer = Trainer::new(model, params);
    train_next_token(
        ctx,
        "pretrain",
        &mut trainer,
        &documents,
        &heldout,
        settings.epochs,
        settings.batch_tokens,
        &settings.optimizer,
    )?;
    let Trainer { model, params, .. } = trainer;
    if !heldout.is_empty() {
        let bytes: usize = heldout_texts.iter().map(String::len).sum();
        let (loss, tokens) = heldout_loss(&model, &params, &heldout, ctx.run.shard_tokens)?;
        ctx.measure("validation_loss", loss);
        // The end-of-text token is predicted too but is no byte of the text: its cost is counted, not its length.
        ctx.measure("bits_per_byte", loss * tokens as f64 / std::f64::consts::LN_2 / bytes as f64);
    }
    Ok(Checkpoint { model, params, text })
}

/// What records of raw text hold.
pub(crate) fn texts(records: &[Record]) -> Result<Vec<String>, PhaseError> {
    records
        .iter()
        .map(|record| match &record.body {
            Body::Text { text } => Ok(text.clone()),
            other => Err(PhaseError::WrongRecord {
                place: record.place.clone(),
                found: other.shape(),
                wanted: "raw text: {\"text\": …}",
            }),
        })
        .collect()
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
fn new_model(ctx: &mut Context<'_>, texts: &[String]) -> Result<Checkpoint, PhaseError> {
    let shape = &ctx.run.model;
    let text = match ctx.trained_tokenizer() {
        Some(json) => TextSetup::embedded(Tokenizer::from_bytes(json.as_bytes())?)?,
        None => text_setup(shape, texts)?,
    };
    ctx.keep_tokenizer(text.tokenizer.to_json());
    let vocab_size = text.tokenizer.vocab_size();
    if vocab_size < shape.vocab_size {
        ctx.note(format!("The text gives only {vocab_size} tokens of the {} asked for.", shape.vocab_size));
    }
    let seed = derived_seed(ctx.run.seed, "model/init", 0);
    let mut config = shape.config(text.tokenizer.vocab_size())?;
    config.eos_token_id.clone_from(&text.stop_ids);
    let (model, params) = Model::init(config, ctx.device, seed)?;
    Ok(Checkpoint { model, params, text })
}

/// The tokenizer of a new model, trained on the text.
pub(crate) fn text_setup(shape: &ModelSettings, texts: &[String]) -> Result<TextSetup, PhaseError> {
    Ok(TextSetup::embedded(Tokenizer::train(texts, shape.vocab_size, &EMBEDDED_TOKENS)?)?)
}
