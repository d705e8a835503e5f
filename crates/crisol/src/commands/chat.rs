//! `crisol chat`: a conversation, line by line. On a terminal lines are edited; in a pipe each line
//! is answered.

mod header;
mod thinking;

use std::io::{BufRead as _, IsTerminal as _, StdinLock};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use crisol_model::{Checkpoint, Conversation, StopReason, reply_in_conversation};
use crisol_text::{Message, TextError, Turns};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use self::thinking::Dimmer;
use super::{Compute, Sampling, Written};
use crate::console::{ask, colour, for_stdout, print, print_line, say};
use crate::error::{CliError, INTERRUPTED};
use crate::model::{ModelArgs, check_speaks};
use crate::texts::texts;

const EXAMPLES: &str = "\
Examples:
  crisol chat runs/crisol-world/5-ppo
  crisol chat MODEL --adapter runs/tuned/1-sft
  crisol chat MODEL --temperature 0.7 --seed 3
  echo \"What is the capital of France?\" | crisol chat MODEL

Each line is a message. /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.";

/// `crisol chat`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    written: Written,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    compute: Compute,
}

impl ChatArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let folder = self.model.folder()?;
        let mut checkpoint = self.model.load(&self.compute.device()?)?;
        check_speaks(&self.model.model, &checkpoint.model)?;
        self.written.give(&mut checkpoint.text)?;
        if checkpoint.text.template.is_none() {
            return Err(TextError::NoTemplate.into());
        }
        let mut lines = Lines::open()?;
        let interactive = lines.are_typed();
        if interactive {
            header::show(&self.model.model, &folder, &checkpoint);
        }
        self.sampling.say_what_is_suggested(&checkpoint.text);
        let texts = &texts().chat;
        let mut chat = Chat {
            checkpoint,
            sampling: self.sampling,
            system: None,
            history: Vec::new(),
            computed: Conversation::default(),
            turn: 0,
            dim_thinking: interactive && colour(),
            stop: on_ctrl_c(),
        };
        while let Some(line) = lines.next()? {
            let line = line.trim();
            let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            match command {
                "" => {}
                "/quit" => return Ok(()),
                "/help" => say(texts.help),
                "/reset" => {
                    chat.history.clear();
                    say(texts.forgotten);
                }
                "/system" => chat.set_system(rest.trim()),
                _ if command.starts_with('/') => say((texts.unknown)([&command])),
                _ => chat.answer(line)?,
            }
        }
        if interactive {
            say("");
        }
        Ok(())
    }
}

/// Where messages come from.
enum Lines {
    /// A terminal, with line editing and a history.
    Edited(Box<DefaultEditor>),
    /// Typed, while standard output goes elsewhere.
    Typed(StdinLock<'static>),
    /// A pipe or file.
    Piped(StdinLock<'static>),
}

impl Lines {
    fn open() -> Result<Lines, CliError> {
        let stdin = std::io::stdin();
        Ok(match (stdin.is_terminal(), std::io::stdout().is_terminal()) {
            (true, true) => Lines::Edited(Box::new(DefaultEditor::new().map_err(input)?)),
            (true, false) => Lines::Typed(stdin.lock()),
            (false, _) => Lines::Piped(stdin.lock()),
        })
    }

    fn are_typed(&self) -> bool {
        !matches!(self, Lines::Piped(_))
    }

    /// The next line; none at the end.
    fn next(&mut self) -> Result<Option<String>, CliError> {
        let stdin = match self {
            Lines::Edited(editor) => return edited(editor),
            Lines::Typed(stdin) => {
                ask("> ");
                stdin
            }
            Lines::Piped(stdin) => stdin,
        };
        let mut line = String::new();
        let read = stdin.read_line(&mut line).map_err(CliError::Input)?;
        Ok((read > 0).then_some(line))
    }
}

/// A line of the editor. Ctrl-C empties it.
fn edited(editor: &mut DefaultEditor) -> Result<Option<String>, CliError> {
    loop {
        match editor.readline("> ") {
            Ok(line) => {
                editor.add_history_entry(&line).map_err(input)?;
                return Ok(Some(line));
            }
            Err(ReadlineError::Interrupted) => say(texts().chat.how_to_leave),
            Err(ReadlineError::Eof) => return Ok(None),
            Err(error) => return Err(input(error)),
        }
    }
}

fn input(error: ReadlineError) -> CliError {
    CliError::Input(match error {
        ReadlineError::Io(error) => error,
        error => std::io::Error::other(error),
    })
}

/// What Ctrl-C means at the moment.
#[derive(Clone)]
struct Stop {
    replying: Arc<AtomicBool>,
    requested: Arc<AtomicBool>,
}

/// Ctrl-C stops the answer that is being written. While there is none, it ends the program; the
/// line editor reads Ctrl-C as a key and raises no signal.
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
    system: Option<Message>,
    history: Vec<Message>,
    /// What of it the model has read.
    computed: Conversation,
    /// Answers so far: each has random numbers of its own.
    turn: u64,
    dim_thinking: bool,
    stop: Stop,
}

impl Chat {
    /// Begins anew with a system message, or without one if the text is empty.
    fn set_system(&mut self, text: &str) {
        let texts = &texts().chat;
        let system = (!text.is_empty()).then(|| Message::new("system", text));
        if let Some(system) = &system {
            let ids = |messages| self.checkpoint.text.prompt_ids(&Turns::Chat(messages));
            let user = Message::user("x");
            match (ids(vec![system.clone(), user.clone()]), ids(vec![user])) {
                (Err(error), _) => {
                    say((texts.no_system)([&error]));
                    return;
                }
                (Ok(with), Ok(without)) if with == without => {
                    say(texts.system_dropped);
                    return;
                }
                _ => {}
            }
        }
        say(match &system {
            Some(_) => texts.with_system,
            None => texts.without_system,
        });
        self.system = system;
        self.history.clear();
    }

    /// Answers a message on standard output and remembers both.
    fn answer(&mut self, message: &str) -> Result<(), CliError> {
        self.history.push(Message::user(message));
        let Some(prompt) = self.fit()? else { return Ok(()) };
        let Checkpoint { model, params, text } = &self.checkpoint;
        let mut options = self.sampling.options(text.stop_ids.clone());
        options.seed = options.seed.wrapping_add(self.turn);
        self.turn += 1;

        let mut dimmer = self.dim_thinking.then(|| Dimmer::after(&thinking::end(text, &prompt)));
        let requested = &self.stop.requested;
        requested.store(false, Ordering::Relaxed);
        self.stop.replying.store(true, Ordering::Relaxed);
        let mut printed = Ok(());
        let stops = &self.sampling.stops.stops;
        let reply = reply_in_conversation(
            &mut self.computed,
            model,
            params,
            text,
            &prompt,
            &options,
            stops,
            |new| {
                let shown = for_stdout(new);
                printed = match &mut dimmer {
                    Some(dimmer) => print(dimmer.push(&shown)),
                    None => print(shown),
                };
                if printed.is_err() || requested.load(Ordering::Relaxed) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        );
        self.stop.replying.store(false, Ordering::Relaxed);
        printed?;
        let reply = reply?;
        print_line(dimmer.map_or(String::new(), Dimmer::finish))?;
        let texts = &texts().chat;
        match reply.generated.stopped_by {
            StopReason::StopToken | StopReason::StopString => {}
            StopReason::Length => say(texts.cut_by_length),
            StopReason::Context => say(texts.cut_by_context),
            StopReason::Receiver => say(texts.stopped),
        }
        self.history.push(Message::assistant(&reply.text));
        Ok(())
    }

    /// The prompt for the next answer. The oldest turns are forgotten until a quarter of the
    /// context, or as much as an answer may take, is free; `None` where the last message alone does
    /// not fit.
    fn fit(&mut self) -> Result<Option<Vec<u32>>, CliError> {
        let context = self.checkpoint.model.config().max_document_len();
        let room = self.sampling.max_new_tokens.min(context / 4).max(1);
        let texts = &texts().chat;
        let mut forgotten = 0;
        loop {
            let messages = self.system.iter().chain(&self.history).cloned().collect();
            let prompt = self.checkpoint.text.prompt_ids(&Turns::Chat(messages))?;
            if prompt.len() + room <= context {
                if forgotten > 0 {
                    say((texts.oldest_forgotten)([&context, &forgotten]));
                }
                return Ok(Some(prompt));
            }
            if self.history.len() == 1 {
                self.history.clear();
                say((texts.too_long)([&prompt.len(), &context]));
                return Ok(None);
            }
            // A turn is a message and its answer.
            let turn = 2.min(self.history.len() - 1);
            self.history.drain(..turn);
            forgotten += turn;
        }
    }
}
