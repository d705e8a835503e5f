//! `crisol chat`: a conversation, line by line. On a terminal it prompts; in a pipe it answers each line.

use std::io::{BufRead as _, IsTerminal as _};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use crisol_model::{Checkpoint, Conversation, StopReason, reply_in};
use crisol_text::{Message, TextError, Turns};

use super::{Sampling, Threads, Written};
use crate::console::{ask, for_stdout, print, print_line, say};
use crate::error::{CliError, INTERRUPTED};
use crate::model::{Network, load};

const EXAMPLES: &str = "\
Examples:
  crisol chat runs/crisol-world/5-ppo
  crisol chat MODEL --temperature 0.7 --seed 3
  echo \"What is the capital of France?\" | crisol chat MODEL

Each line is a message. /reset forgets the conversation, /quit or Ctrl-D ends it, Ctrl-C stops a reply.";

const COMMANDS: &str = "/reset forgets the conversation, /quit or Ctrl-D ends it";

/// `crisol chat`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ChatArgs {
    /// The model: a folder, a GGUF file, or ORG/NAME on a hub
    model: PathBuf,
    #[command(flatten)]
    written: Written,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    threads: Threads,
}

impl ChatArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let mut checkpoint = load(&self.model, self.network, &self.threads.device()?)?;
        self.written.give(&mut checkpoint.text)?;
        if checkpoint.text.template.is_none() {
            return Err(TextError::NoTemplate.into());
        }
        self.sampling.say_what_is_suggested(&checkpoint.text);
        let interactive = std::io::stdin().is_terminal();
        if interactive {
            say(COMMANDS);
        }
        let mut chat = Chat {
            checkpoint,
            sampling: self.sampling,
            history: Vec::new(),
            computed: Conversation::default(),
            turn: 0,
            stop: on_ctrl_c(),
        };
        let mut lines = std::io::stdin().lock().lines();
        loop {
            if interactive {
                ask("> ");
            }
            let Some(line) = lines.next().transpose().map_err(CliError::Input)? else { break };
            match line.trim() {
                "" => {}
                "/quit" => return Ok(()),
                "/reset" => {
                    chat.history.clear();
                    say("(the conversation is forgotten)");
                }
                command if command.starts_with('/') => {
                    say(format_args!("there is no {command}: {COMMANDS}"))
                }
                message => chat.answer(message)?,
            }
        }
        if interactive {
            say("");
        }
        Ok(())
    }
}

/// What Ctrl-C means at the moment.
#[derive(Clone)]
struct Stop {
    replying: Arc<AtomicBool>,
    requested: Arc<AtomicBool>,
}

/// Ctrl-C stops the reply that is being written, and ends the program while there is none.
fn on_ctrl_c() -> Stop {
    let stop = Stop { replying: Arc::default(), requested: Arc::default() };
    let Stop { replying, requested } = stop.clone();
    let handler = move || {
        if !replying.load(Ordering::Relaxed) || requested.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
    };
    // Without a handler Ctrl-C ends the program, which is good enough.
    let _ = ctrlc::set_handler(handler);
    stop
}

struct Chat {
    checkpoint: Checkpoint,
    sampling: Sampling,
    history: Vec<Message>,
    /// What of it the model has read.
    computed: Conversation,
    /// Replies so far, so that each has random numbers of its own.
    turn: u64,
    stop: Stop,
}

impl Chat {
    /// Answers a message on standard output and remembers both.
    fn answer(&mut self, message: &str) -> Result<(), CliError> {
        self.history.push(Message::user(message));
        let Some(prompt) = self.fit()? else { return Ok(()) };
        let Checkpoint { model, params, text } = &self.checkpoint;
        let mut options = self.sampling.options(text.stop_ids.clone());
        options.seed = options.seed.wrapping_add(self.turn);
        self.turn += 1;

        let requested = &self.stop.requested;
        requested.store(false, Ordering::Relaxed);
        self.stop.replying.store(true, Ordering::Relaxed);
        let mut printed = Ok(());
        let stops = &self.sampling.stops.stops;
        let reply =
            reply_in(&mut self.computed, model, params, text, &prompt, &options, stops, |new| {
                printed = print(for_stdout(new));
                if printed.is_err() || requested.load(Ordering::Relaxed) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
        self.stop.replying.store(false, Ordering::Relaxed);
        printed?;
        let reply = reply?;
        print_line("")?;
        match reply.generated.stopped_by {
            StopReason::StopToken | StopReason::StopString => {}
            StopReason::Length => say("(cut off: --max-new-tokens)"),
            StopReason::Context => say("(cut off: the context is full)"),
            StopReason::Receiver => say("(stopped)"),
        }
        self.history.push(Message::assistant(&reply.text));
        Ok(())
    }

    /// The prompt for the next reply. The oldest turns are forgotten until a quarter of the context, or as much as a
    /// reply may take, is free; `None` where the last message alone does not fit.
    fn fit(&mut self) -> Result<Option<Vec<u32>>, CliError> {
        let context = self.checkpoint.model.config().longest_document();
        let room = self.sampling.max_new_tokens.min(context / 4).max(1);
        let mut forgotten = 0;
        loop {
            let prompt = self.checkpoint.text.prompt_ids(&Turns::Chat(self.history.clone()))?;
            if prompt.len() + room <= context {
                if forgotten > 0 {
                    say(format_args!(
                        "(the context of {context} tokens is full: the oldest {forgotten} messages are forgotten)"
                    ));
                }
                return Ok(Some(prompt));
            }
            if self.history.len() == 1 {
                self.history.clear();
                say(format_args!(
                    "(that message takes {} of the context's {context} tokens, which leaves no room for an answer; \
                     the conversation begins anew)",
                    prompt.len()
                ));
                return Ok(None);
            }
            // A turn is a message and its reply.
            let turn = 2.min(self.history.len() - 1);
            self.history.drain(..turn);
            forgotten += turn;
        }
    }
}
