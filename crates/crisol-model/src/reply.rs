//! Generation as text, with stop strings.

use std::ops::ControlFlow;

use crisol_engine::Params;
use crisol_text::{StopStream, TextSetup};

use crate::generate::generate_with_callback;
use crate::{Conversation, Generated, Model, ModelError, SamplingOptions, StopReason, generate};

/// The answer to one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The text without special tokens, up to a stop string.
    pub text: String,
    /// The tokens, including those of the stop string.
    pub generated: Generated,
}

/// Answers every prompt as [`generate`] does, up to the first of `stops` in its text. A stop string
/// that is a special token acts like one of `options.stop_ids`.
pub fn replies(
    model: &Model,
    params: &Params,
    text: &TextSetup,
    prompts: &[Vec<u32>],
    options: &SamplingOptions,
    stops: &[String],
) -> Result<Vec<Reply>, ModelError> {
    let options = &with_special_stops(text, options, stops)?;
    if stops.is_empty() {
        let reply = |generated: Generated| Reply {
            text: text.tokenizer.decode(generated.content(), true),
            generated,
        };
        return Ok(generate(model, params, prompts, options)?.into_iter().map(reply).collect());
    }
    let generated = generate_with_callback(model, params, prompts, options, |sequences| {
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
            let so_far: String = generated.content().iter().map(|&id| stream.push(id)).collect();
            Reply::new(so_far, stream, generated)
        })
        .collect())
}

/// Answers one prompt as [`replies`] does and passes the text to `receiver` piece by piece, once
/// per token and at the end. The receiver can end the answer.
pub fn stream_reply(
    model: &Model,
    params: &Params,
    text: &TextSetup,
    prompt: &[u32],
    options: &SamplingOptions,
    stops: &[String],
    receiver: impl FnMut(&str) -> ControlFlow<()> + Send,
) -> Result<Reply, ModelError> {
    reply_in_conversation(
        &mut Conversation::default(),
        model,
        params,
        text,
        prompt,
        options,
        stops,
        receiver,
    )
}

/// Like [`stream_reply`], within a conversation whose KV cache is kept.
pub fn reply_in_conversation(
    conversation: &mut Conversation,
    model: &Model,
    params: &Params,
    text: &TextSetup,
    prompt: &[u32],
    options: &SamplingOptions,
    stops: &[String],
    mut receiver: impl FnMut(&str) -> ControlFlow<()> + Send,
) -> Result<Reply, ModelError> {
    let options = &with_special_stops(text, options, stops)?;
    let mut stream = text.tokenizer.stream_until(stops);
    let mut so_far = String::new();
    let generated = conversation.generate(model, params, prompt, options, |id| {
        let new = if options.stop_ids.contains(&id) { String::new() } else { stream.push(id) };
        so_far += &new;
        let wanted = receiver(&new);
        if stream.stopped() { ControlFlow::Break(()) } else { wanted }
    })?;
    let shown = so_far.len();
    let reply = Reply::new(so_far, stream, generated);
    // The last piece; the receiver's answer no longer matters.
    let _ = receiver(&reply.text[shown..]);
    Ok(reply)
}

impl Reply {
    /// Combines the text so far with the text that its stream holds back.
    fn new(mut text: String, stream: StopStream<'_>, mut generated: Generated) -> Reply {
        let (rest, stopped) = stream.finish();
        text += &rest;
        if stopped {
            generated.stopped_by = StopReason::StopString;
        }
        Reply { text, generated }
    }
}

/// Adds special tokens among the stop strings to `stop_ids`, since decoded text omits them.
fn with_special_stops(
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
