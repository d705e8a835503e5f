//! `crisol generate`: what a model says after a text, a message or token ids.

use std::ops::ControlFlow;
use std::time::Instant;

use clap::Args;
use crisol_model::{Generated, StopReason, generate_stream, stream_reply};
use crisol_text::{Message, Turns};
use serde::Serialize;

use super::{Compute, Sampling, Written, token_id};
use crate::console::{for_stdout, print, print_json, print_line, say};
use crate::error::CliError;
use crate::model::{Loaded, ModelArgs, check_speaks};

const EXAMPLES: &str = "\
Examples:
  crisol generate runs/crisol-world/1-pretrain --prompt \"The capital of France is\"
  crisol generate runs/crisol-world/2-sft --chat \"What is the capital of France?\"
  crisol generate MODEL --prompt \"Once upon\" --temperature 0.8 --top-p 0.95 --seed 7
  crisol generate MODEL --prompt \"Q: Who was Homer? A:\" --stop Q:
  crisol generate MODEL --chat \"2 plus 2?\" --template-arg enable_thinking=false
  crisol generate MODEL --ids 1,2,3 --max-new-tokens 16 --json

A text gets the tokenizer's beginning-of-text token, if it has one. Special tokens written in a
text count as such. Generation stops at the end tokens of the model's folder (eos_token_id,
eos_token) and at the end of an assistant's turn. Sampling settings of generation_config.json
are printed, not applied.

JSON: docs/json.md";

/// `crisol generate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    given: Given,
    #[command(flatten)]
    written: Written,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    compute: Compute,
    /// Print one JSON object instead of the text
    #[arg(long)]
    json: bool,
}

/// Exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Given {
    /// Text to continue
    #[arg(long = "prompt", value_name = "TEXT", allow_hyphen_values = true)]
    text: Option<String>,
    /// Message to answer, in the model's chat template
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    chat: Option<String>,
    /// Token ids to continue
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = token_id)]
    ids: Option<Vec<u32>>,
}

#[derive(Serialize)]
struct Output<'a> {
    prompt_ids: &'a [u32],
    ids: &'a [u32],
    text: Option<&'a str>,
    stopped_by: &'static str,
    timing: Timing,
}

/// What differs from run to run.
#[derive(Serialize)]
struct Timing {
    seconds_to_load: f64,
    /// From the prompt's start; null if there is no new token.
    seconds_to_first_token: Option<f64>,
    /// New tokens after the first; null if there are none.
    tokens_per_second: Option<f64>,
}

/// When things happened.
struct Times {
    seconds_to_load: f64,
    start: Instant,
    first_token: Option<Instant>,
}

impl Times {
    fn token(&mut self) {
        self.first_token.get_or_insert_with(Instant::now);
    }
}

impl GenerateArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let start = Instant::now();
        let mut loaded = self.model.load_for_ids(&self.compute.device()?)?;
        check_speaks(&self.model.model, &loaded.model)?;
        if let Some(text) = &mut loaded.text {
            self.written.give(text)?;
        }
        let prompt = self.given.encode(&loaded)?;
        let stop_ids = match &loaded.text {
            Some(text) => text.stop_ids.clone(),
            None => loaded.model.config().eos_token_id.clone(),
        };
        let options = self.sampling.options(stop_ids);
        let stops = &self.sampling.stops.stops;
        let Loaded { model, params, text } = &loaded;
        let mut times = Times {
            seconds_to_load: start.elapsed().as_secs_f64(),
            start: Instant::now(),
            first_token: None,
        };
        let Some(text) = text else {
            if !self.json {
                return Err(CliError::Usage(
                    "the model has no tokenizer.json to turn tokens into text with; ask for --json"
                        .into(),
                ));
            }
            if !stops.is_empty() {
                return Err(CliError::Usage(
                    "the model has no tokenizer.json, which --stop needs; leave --stop out".into(),
                ));
            }
            let generated = generate_stream(model, params, &prompt, &options, |_| {
                times.token();
                ControlFlow::Continue(())
            })?;
            return output(&prompt, &generated, None, &times);
        };
        self.sampling.say_what_is_suggested(text);
        let mut printed = Ok(());
        let reply = stream_reply(model, params, text, &prompt, &options, stops, |new| {
            times.token();
            if !self.json {
                printed = print(for_stdout(new));
            }
            if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        printed?;
        if self.json {
            return output(&prompt, &reply.generated, Some(&reply.text), &times);
        }
        print_line("")?;
        if reply.generated.stopped_by == StopReason::Context {
            say(format_args!(
                "(the model's context of {} tokens is full)",
                model.config().max_document_len()
            ));
        }
        Ok(())
    }
}

fn output(
    prompt: &[u32],
    generated: &Generated,
    text: Option<&str>,
    times: &Times,
) -> Result<(), CliError> {
    let after_first = times.first_token.map(|first| first.elapsed().as_secs_f64());
    let others = generated.ids.len().saturating_sub(1);
    print_json(&Output {
        prompt_ids: prompt,
        ids: &generated.ids,
        text,
        stopped_by: match generated.stopped_by {
            StopReason::StopToken => "stop_token",
            StopReason::StopString => "stop_string",
            StopReason::Length => "length",
            StopReason::Context => "context",
            StopReason::Receiver => "receiver",
        },
        timing: Timing {
            seconds_to_load: times.seconds_to_load,
            seconds_to_first_token: times
                .first_token
                .map(|first| (first - times.start).as_secs_f64()),
            tokens_per_second: after_first
                .filter(|_| others > 0)
                .map(|seconds| others as f64 / seconds),
        },
    })
}

impl Given {
    fn encode(&self, loaded: &Loaded) -> Result<Vec<u32>, CliError> {
        if let Some(ids) = &self.ids {
            return Ok(ids.clone());
        }
        let text = loaded.text.as_ref().ok_or_else(|| {
            CliError::Usage(
                "the model has no tokenizer.json to read text with; give token --ids".into(),
            )
        })?;
        Ok(match (&self.text, &self.chat) {
            (Some(prompt), _) => text.prompt_ids(&Turns::Plain(prompt.clone()))?,
            (None, chat) => text.prompt_ids(&Turns::Chat(vec![Message::user(
                chat.as_deref().unwrap_or_default(),
            )]))?,
        })
    }
}
