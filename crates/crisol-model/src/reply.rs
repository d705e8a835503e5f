//! Generation as text: what was said, up to a stop string.

use std::ops::ControlFlow;

use crisol_engine::Params;
use crisol_text::{StopStream, TextSetup};

use crate::generate::generate_watched;
use crate::{Conversation, Generated, Model, ModelError, SamplingOptions, StopReason, generate};

/// What was said to one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The text without special tokens, cut before a stop string.
    pub text: String,
    /// The tokens, those of a stop string included.
    pub generated: Generated,
}

/// Answers every prompt as [`generate`] continues it; an answer ends when its text has one of `stops` in it. A stop string
/// that is a special token of the tokenizer ends it like the tokens of `options.stop_ids`.
pub fn replies(
    model: &Model,
    params: &Params,
    text: &TextSetup,
    prompts: &[Vec<u32>],
    options: &SamplingOptions,
    stops: &[String],
) -> Result<Vec<Reply>, ModelError> {
    let options = &with_special(text, options, stops)?;
    if stops.is_empty() {
        let reply = |generated: Generated| Reply {
            text: text.tokenizer.decode(generated.content(), true),
            generated,
        };
        return Ok(generate(model, params, prompts, options)?.into_iter().map(reply).collect());
    }
    let generated = generate_watched(model, params, prompts, options, |sequences| {
        let mut streams: Vec<StopStream<'_>> = vec![text.tokenizer.stream_until(stops); sequences];
        move |sequence: usize, id: u32| {
            if !options.stop_ids.contains(&id) {
                streams[sequence].push(id);
            }
            if streams[sequence].stopped() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
    })?;
    Ok(generated
        .into_iter()
        .map(|generated| {
            let mut stream = text.tokenizer.stream_until(stops);
            let said: String = generated.content().iter().map(|&id| stream.push(id)).collect();
            Reply::new(said, stream, generated)
        })
        .collect())
}

/// Answers one prompt as [`replies`] does and hands out the text as it becomes certain, once for every token and at the end;
/// the receiver may break off.
pub fn stream_reply(
    model: &Model,
    params: &Params,
    text: &TextSetup,
    prompt: &[u32],
    options: &SamplingOptions,
    stops: &[String],
    receiver: impl FnMut(&str) -> ControlFlow<()> + Send,
) -> Result<Reply, ModelError> {
    reply_in(&mut Conversation::default(), model, params, text, prompt, options, stops, receiver)
}

/// As [`stream_reply`], in a conversation whose keys and values are kept.
pub fn reply_in(
    conversation: &mut Conversation,
    model: &Model,
    params: &Params,
    text: &TextSetup,
    prompt: &[u32],
    options: &SamplingOptions,
    stops: &[String],
    mut receiver: impl FnMut(&str) -> ControlFlow<()> + Send,
) -> Result<Reply, ModelError> {
    let options = &with_special(text, options, stops)?;
    let mut stream = text.tokenizer.stream_until(stops);
    let mut said = String::new();
    let generated = conversation.generate(model, params, prompt, options, |id| {
        let new = if options.stop_ids.contains(&id) { String::new() } else { stream.push(id) };
        said += &new;
        let wanted = receiver(&new);
        if stream.stopped() { ControlFlow::Break(()) } else { wanted }
    })?;
    let shown = said.len();
    let reply = Reply::new(said, stream, generated);
    // Whether more is wanted does not matter: nothing comes after it.
    let _ = receiver(&reply.text[shown..]);
    Ok(reply)
}

impl Reply {
    /// What was said, the text that its stream holds back, and the tokens.
    fn new(mut text: String, stream: StopStream<'_>, mut generated: Generated) -> Reply {
        let (rest, stopped) = stream.finish();
        text += &rest;
        if stopped {
            generated.stopped_by = StopReason::StopString;
        }
        Reply { text, generated }
    }
}

/// The options with the special tokens among the stop strings, which no text without special tokens would show.
fn with_special(
    text: &TextSetup,
    options: &SamplingOptions,
    stops: &[String],
) -> Result<SamplingOptions, ModelError> {
    if stops.iter().any(String::is_empty) {
        return Err(ModelError::EmptyStop);
    }
    let ids = stops.iter().filter_map(|stop| text.tokenizer.token_id(stop));
    let mut options = options.clone();
    options.stop_ids.extend(ids.filter(|&id| text.tokenizer.is_special(id)));
    Ok(options)
}
