//! `crisol generate`: what a model says after a text, a message or token ids.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use crisol_model::{Generated, StopReason, generate_stream};
use crisol_text::{Message, TextSetup};
use serde::Serialize;

use super::{Sampling, Threads, token_id};
use crate::console::{for_stdout, print, print_json, print_line, say};
use crate::error::CliError;
use crate::model::{Loaded, Network, load_for_ids};

const EXAMPLES: &str = "\
Examples:
  crisol generate runs/crisol-world/1-pretrain --prompt \"The capital of France is\"
  crisol generate runs/crisol-world/2-sft --chat \"What is the capital of France?\"
  crisol generate MODEL --prompt \"Once upon\" --temperature 0.8 --top-p 0.95 --seed 7
  crisol generate MODEL --ids 1,2,3 --max-new-tokens 16 --json

A text gets what the model's tokenizer puts around texts (a beginning-of-text token, for many), and special tokens written in it \
count as such. With --json, one \
object: prompt_ids, ids (the new ones, a stop token included), text (null for a model without tokenizer) and stopped_by \
(stop_token, length or context).";

/// `crisol generate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GenerateArgs {
    /// The model: a folder, a GGUF file, or ORG/NAME on a hub
    model: PathBuf,
    #[command(flatten)]
    given: Given,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    threads: Threads,
    /// Print one JSON object instead of the text
    #[arg(long)]
    json: bool,
}

/// Exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Given {
    /// A text to continue
    #[arg(long = "prompt", value_name = "TEXT", allow_hyphen_values = true)]
    text: Option<String>,
    /// A message to answer, in the model's chat template
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
    text: Option<String>,
    stopped_by: &'static str,
}

impl GenerateArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let loaded = load_for_ids(&self.model, self.network, &self.threads.device())?;
        let prompt = self.given.encode(&loaded)?;
        let stop_ids = match &loaded.text {
            Some(text) => text.stop_ids.clone(),
            None => loaded.model.config().eos_token_id.clone(),
        };
        let options = self.sampling.options(stop_ids.clone());
        let Loaded { model, params, text } = &loaded;
        if self.json {
            let generated = generate_stream(model, params, &prompt, &options, |_| ControlFlow::Continue(()))?;
            return print_json(&Output {
                prompt_ids: &prompt,
                ids: &generated.ids,
                text: text.as_ref().map(|text| text.tokenizer.decode(generated.content(), true)),
                stopped_by: stop_name(generated.stopped_by),
            });
        }
        let Some(text) = text else {
            return Err(CliError::Usage(
                "the model has no tokenizer.json to turn tokens into text with; ask for --json".into(),
            ));
        };
        let generated = stream_reply(text, &stop_ids, |receiver| {
            Ok(generate_stream(model, params, &prompt, &options, receiver)?)
        })?;
        print_line("")?;
        if generated.stopped_by == StopReason::Context {
            say(format_args!(
                "(the model's context of {} tokens is full)",
                model.config().longest_document()
            ));
        }
        Ok(())
    }
}

impl Given {
    fn encode(&self, loaded: &Loaded) -> Result<Vec<u32>, CliError> {
        if let Some(ids) = &self.ids {
            return Ok(ids.clone());
        }
        let text = loaded.text.as_ref().ok_or_else(|| {
            CliError::Usage("the model has no tokenizer.json to read text with; give token --ids".into())
        })?;
        Ok(match (&self.text, &self.chat) {
            (Some(prompt), _) => text.encode_plain(prompt)?,
            (None, chat) => text.chat_prompt(&[Message::user(chat.as_deref().unwrap_or_default())])?,
        })
    }
}

/// Runs `generate` and prints the text of its tokens as they come. A stop token is no text.
pub(super) fn stream_reply(
    text: &TextSetup,
    stop_ids: &[u32],
    generate: impl FnOnce(&mut (dyn FnMut(u32) -> ControlFlow<()> + Send)) -> Result<Generated, CliError>,
) -> Result<Generated, CliError> {
    let mut stream = text.tokenizer.stream(true);
    let mut printed = Ok(());
    let generated = generate(&mut |id| {
        if !stop_ids.contains(&id) {
            printed = print(for_stdout(&stream.push(id)));
        }
        if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    printed?;
    print(for_stdout(&stream.finish()))?;
    Ok(generated)
}

fn stop_name(reason: StopReason) -> &'static str {
    match reason {
        StopReason::StopToken => "stop_token",
        StopReason::Length => "length",
        StopReason::Context => "context",
        StopReason::Receiver => "receiver",
    }
}
