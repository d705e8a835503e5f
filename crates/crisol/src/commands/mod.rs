//! The command line: what there is, and what several commands share.

mod bench;
mod chat;
mod compare;
mod completions;
mod cost;
mod data;
mod eval;
mod export;
mod generate;
#[cfg(test)]
mod help;
mod info;
mod man;
mod merge;
mod notebook;
mod phase;
mod pull;
mod reflect;
mod report;
mod run;
mod score;

use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand};
use crisol_engine::{Device, Precision};
use crisol_hub::{HubError, json_error};
use crisol_model::SamplingOptions;
use crisol_phases::PhaseSettings;
use crisol_report::Language;
use crisol_text::{TextOptions, TextSetup, start_text_threads};
use serde_json::Value;

use crate::clock;
use crate::console::say;
use crate::error::CliError;
use crate::language;
use crate::texts::texts;

const EXAMPLES: &str = "\
Examples:
  crisol run                            all phases on the embedded data, about ten minutes
  crisol run my.toml --out runs/mine    your own recipe
  crisol chat runs/crisol-world/5-ppo   chat with the result
  crisol sft MODEL --data chats.jsonl --out runs/tuned
  crisol data inspect chats.jsonl --model MODEL
  crisol generate allenai/OLMo-2-0425-1B --prompt \"The sky is\"

MODEL is one of
  a checkpoint folder of Crisol or Hugging Face (config.json with safetensors or
  pytorch_model.bin; Llama, Mistral, Qwen, Gemma, Phi, OLMo, GPT-2, gpt-oss, ...),
  a GGUF file,
  a model on a Hugging Face hub: ORG/NAME[@REVISION][:FILE.gguf]. It is fetched once
  (`crisol pull --help`).";

/// What `--version` prints after the name; `-V` prints the first line alone.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("CRISOL_COMMIT"),
    "\ntarget: ",
    env!("CRISOL_TARGET"),
    "\nfeatures: ",
    env!("CRISOL_FEATURES"),
);

/// Trains a language model through every phase and shows what each phase did.
#[derive(Debug, Parser)]
#[command(
    name = "crisol",
    version,
    long_version = LONG_VERSION,
    after_help = EXAMPLES,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// Language of reports and chats: en, es [default: that of LANG]
    #[arg(
        long,
        value_name = "LANG",
        global = true,
        display_order = 900,
        value_parser = language::parse,
    )]
    lang: Option<Language>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a recipe: all phases, then the report
    Run(run::RunArgs),
    /// Pre-train on raw text: a new model, or a given one
    #[command(after_help = phase::PRETRAIN, override_usage = phase::usage("pretrain", "[MODEL]"))]
    Pretrain(phase::PretrainArgs),
    /// Fine-tune on conversations (SFT)
    #[command(after_help = phase::SFT, override_usage = phase::usage("sft", "<MODEL>"))]
    Sft(phase::TuneArgs),
    /// Train reasoning on problems with verifiable answers (GRPO)
    #[command(after_help = phase::REASON, override_usage = phase::usage("reason", "<MODEL>"))]
    Reason(phase::ReasonArgs),
    /// Train a reward model on preference pairs
    #[command(after_help = phase::REWARD, override_usage = phase::usage("reward", "<MODEL>"))]
    Reward(phase::TuneArgs),
    /// Align against a reward model (PPO)
    #[command(
        after_help = phase::PPO,
        override_usage = phase::usage("ppo", "<MODEL> --reward-model <MODEL>"),
    )]
    Ppo(phase::PpoArgs),
    /// Align on preference pairs (DPO)
    #[command(after_help = phase::DPO, override_usage = phase::usage("dpo", "<MODEL>"))]
    Dpo(phase::DpoArgs),
    /// Continue a text or answer one message
    Generate(generate::GenerateArgs),
    /// Chat with a model
    Chat(chat::ChatArgs),
    /// Answer prompts with several models, side by side
    Compare(compare::CompareArgs),
    /// Replay the workshop's notebook on three models
    Notebook(notebook::NotebookArgs),
    /// Align one model to clicks and to what readers value, and compare
    Reflect(reflect::ReflectArgs),
    /// Measure a model on data: loss, pairs ranked right, problems solved
    Eval(eval::EvalArgs),
    /// Print the log-probability of each token of a text
    Score(score::ScoreArgs),
    /// Fetch a model from a Hugging Face hub
    Pull(pull::PullArgs),
    /// Print the size, shape and tokenizer of a model
    Info(info::InfoArgs),
    /// Export a model for transformers or llama.cpp
    Export(export::ExportArgs),
    /// Merge an adapter into its base model
    Merge(merge::MergeArgs),
    /// Write the report of a run again and print its summary
    Report(report::ReportArgs),
    /// Inspect training data, or export the embedded data set
    Data(data::DataArgs),
    /// Estimate compute, memory, time and money of training
    Cost(cost::CostArgs),
    /// Measure training and generation speed of this machine
    Bench(bench::BenchArgs),
    /// Print a shell completion script
    Completions(completions::CompletionsArgs),
    /// Write manual pages
    // For archives of releases; users have `--help`.
    #[command(hide = true)]
    Man(man::ManArgs),
}

impl Cli {
    /// Reads the command line, and exits with a message if it is wrong.
    pub(crate) fn from_command_line() -> Cli {
        Cli::try_parse().unwrap_or_else(|mut error| {
            name_commands(&mut error);
            error.exit()
        })
    }

    pub(crate) fn run(self) -> Result<(), CliError> {
        language::choose(self.lang);
        match self.command {
            Command::Run(args) => args.run(),
            Command::Pretrain(args) => args.run(),
            Command::Sft(args) => args.run("sft"),
            Command::Reason(args) => args.run(),
            Command::Reward(args) => args.run("reward"),
            Command::Ppo(args) => args.run(),
            Command::Dpo(args) => args.run(),
            Command::Generate(args) => args.run(),
            Command::Chat(args) => args.run(),
            Command::Compare(args) => args.run(),
            Command::Notebook(args) => args.run(),
            Command::Reflect(args) => args.run(),
            Command::Eval(args) => args.run(),
            Command::Score(args) => args.run(),
            Command::Pull(args) => args.run(),
            Command::Merge(args) => args.run(),
            Command::Info(args) => args.run(),
            Command::Export(args) => args.run(),
            Command::Report(args) => args.run(),
            Command::Data(args) => args.run(),
            Command::Cost(args) => args.run(),
            Command::Bench(args) => args.run(),
            Command::Completions(args) => args.run(),
            Command::Man(args) => args.run(),
        }
    }
}

/// Adds the phases to the error about an unknown command, and drops far-fetched suggestions: clap
/// finds `reason` similar to `trian`.
fn name_commands(error: &mut clap::Error) {
    let first = std::env::args_os().nth(1).unwrap_or_default();
    let given = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(given)) if **given == *first => given.clone(),
        // An unknown command of a command, such as `crisol data`.
        _ => return,
    };
    if let Some(ContextValue::Strings(mut names)) = error.remove(ContextKind::SuggestedSubcommand) {
        names.retain(|name| name.contains(&given) || name.chars().next() == given.chars().next());
        if !names.is_empty() {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(names));
        }
    }
    let phases = PhaseSettings::KINDS.join(", ");
    let tip = format!("the phases are {phases}; 'crisol --help' lists all commands");
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
}

/// On how many threads to work.
#[derive(Clone, Copy, Debug, Args)]
struct Threads {
    /// Threads; results do not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
}

impl Threads {
    fn device(self) -> Result<Device, CliError> {
        // Text is encoded on as many.
        start_text_threads(self.threads)?;
        Ok(Device::start_cpu(self.threads)?)
    }
}

/// How a model is computed.
#[derive(Clone, Copy, Debug, Args)]
struct Compute {
    #[command(flatten)]
    threads: Threads,
    /// Multiply matrices in: f32, bf16
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = precision)]
    precision: Precision,
}

impl Compute {
    fn device(self) -> Result<Device, CliError> {
        Ok(self.threads.device()?.with_precision(self.precision))
    }
}

fn precision(text: &str) -> Result<Precision, &'static str> {
    let mut all = [Precision::F32, Precision::Bf16].into_iter();
    all.find(|precision| precision.name() == text).ok_or("f32 or bf16 is needed")
}

/// More threads than any machine has cores would only cost memory.
const MAX_THREADS: usize = 1024;

fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=MAX_THREADS).contains(n));
    number.ok_or(format!(
        "a whole number from 1 to {MAX_THREADS} is needed; leave it out for one per core"
    ))
}

/// Texts that end an answer.
#[derive(Clone, Debug, Args)]
struct Stops {
    /// Stop before TEXT; repeatable
    #[arg(
        long = "stop",
        value_name = "TEXT",
        allow_hyphen_values = true,
        value_parser = clap::builder::NonEmptyStringValueParser::new(),
    )]
    stops: Vec<String>,
}

/// What a chat template writes beside the conversation.
#[derive(Clone, Debug, Args)]
struct Written {
    /// Tools that the model may call: a JSON list of JSON schemas
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
    #[command(flatten)]
    arguments: TemplateArguments,
}

/// A chat template in place of a model's own.
#[derive(Clone, Debug, Args)]
struct TemplateFile {
    /// Chat template in place of the model's (Jinja or JSON)
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
}

impl TemplateFile {
    fn give(&self, text: &mut TextSetup) -> Result<(), CliError> {
        Ok(self.chat_template.as_deref().map_or(Ok(()), |file| text.set_template(file))?)
    }
}

/// A chat template and its variables.
#[derive(Clone, Debug, Args)]
struct TemplateArguments {
    #[command(flatten)]
    template: TemplateFile,
    /// Set a variable of the chat template (JSON or string); repeatable
    #[arg(long = "template-arg", value_name = "NAME=VALUE", value_parser = template_argument)]
    arguments: Vec<(String, Value)>,
}

impl TemplateArguments {
    fn give(&self, text: &mut TextSetup) -> Result<(), CliError> {
        self.template.give(text)?;
        let unread =
            |name: &str| !text.template.as_ref().is_some_and(|template| template.mentions(name));
        if let Some((name, _)) = self.arguments.iter().find(|(name, _)| unread(name)) {
            return Err(CliError::Usage(format!(
                "--template-arg {name}: the model's chat template has no such variable; look for \
                 its name in chat_template of tokenizer_config.json"
            )));
        }
        let options = TextOptions {
            arguments: self.arguments.iter().cloned().collect(),
            ..text.options().clone()
        };
        text.set_options(options);
        Ok(())
    }
}

fn template_argument(text: &str) -> Result<(String, Value), &'static str> {
    let (name, value) =
        text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("NAME=VALUE is needed")?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))))
}

impl Written {
    /// Gives the template its variables, the tools, and today's date, for those that write it.
    fn give(&self, text: &mut TextSetup) -> Result<(), CliError> {
        self.arguments.give(text)?;
        let Some(template) = text.template.take() else { return Ok(()) };
        let template = template.with_now(clock::here());
        text.template = Some(match &self.tools {
            Some(file) => template.with_tools(tools(file)?),
            None => template,
        });
        Ok(())
    }
}

/// Reads a file of tools.
fn tools(file: &Path) -> Result<Vec<Value>, CliError> {
    let wrong = |problem: String| CliError::Place { path: file.to_owned(), problem };
    let text = std::fs::read_to_string(file).map_err(|e| HubError::io("read", file, e))?;
    let tools: Vec<Value> = serde_json::from_str(&text).map_err(|e| {
        wrong(format!("{}; write the tools as a JSON list of objects, [{{…}}, …]", json_error(&e)))
    })?;
    match tools.iter().position(|tool| !tool.is_object()) {
        Some(at) => Err(wrong(format!(
            "tool {} of {} is not a JSON object; write each tool as one",
            at + 1,
            tools.len()
        ))),
        None => Ok(tools),
    }
}

/// How tokens are chosen and where they end.
#[derive(Clone, Debug, Args)]
struct Sampling {
    /// Stop after N new tokens
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_new_tokens: usize,
    /// Divide logits by T [default: 0; 1 with top-k, top-p or min-p]
    #[arg(long, value_name = "T", allow_negative_numbers = true, value_parser = temperature)]
    temperature: Option<f32>,
    /// Sample from the K most probable tokens
    #[arg(
        long,
        value_name = "K",
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..),
    )]
    top_k: Option<usize>,
    /// Sample from the fewest tokens with total probability P (nucleus)
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = share)]
    top_p: Option<f32>,
    /// Sample from tokens at least P times as probable as the best
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = share)]
    min_p: Option<f32>,
    /// Penalise tokens seen before by this factor; 1 is off
    #[arg(
        long,
        value_name = "X",
        default_value_t = 1.0,
        allow_negative_numbers = true,
        value_parser = penalty,
    )]
    repetition_penalty: f32,
    /// Random seed of sampling
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    stops: Stops,
}

impl Sampling {
    /// Whether the command line says how tokens are chosen.
    fn is_chosen(&self) -> bool {
        self.is_random() || self.temperature.is_some() || self.repetition_penalty != 1.0
    }

    fn is_random(&self) -> bool {
        self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some()
    }

    /// Says how the model's makers would choose tokens, where the command line leaves it open and
    /// it is not what is done.
    fn say_what_is_suggested(&self, text: &TextSetup) {
        let settings = text.suggested_sampling();
        if !self.is_chosen() && !settings.is_empty() {
            let options: Vec<String> =
                settings.iter().map(|(name, value)| format!("--{name} {value}")).collect();
            say((texts().chat.suggested)([&options.join(" ")]));
        }
    }

    fn options(&self, stop_ids: Vec<u32>) -> SamplingOptions {
        let random = self.is_random();
        SamplingOptions {
            max_new_tokens: self.max_new_tokens,
            temperature: self.temperature.unwrap_or(if random { 1.0 } else { 0.0 }),
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            stop_ids,
        }
    }
}

fn temperature(text: &str) -> Result<f32, &'static str> {
    let number = text.parse().ok().filter(|t: &f32| t.is_finite() && *t >= 0.0);
    number.ok_or("0 (always the most probable token) or a positive number is needed")
}

fn penalty(text: &str) -> Result<f32, &'static str> {
    text.parse()
        .ok()
        .filter(|x: &f32| x.is_finite() && *x > 0.0)
        .ok_or("a positive number is needed; 1 changes nothing")
}

fn share(text: &str) -> Result<f32, &'static str> {
    text.parse()
        .ok()
        .filter(|p| *p > 0.0 && *p <= 1.0)
        .ok_or("a number above 0 and at most 1 is needed")
}

/// One token id of a comma-separated list.
fn token_id(text: &str) -> Result<u32, &'static str> {
    text.trim()
        .parse()
        .map_err(|_| "token ids are whole numbers separated by commas, such as 1,2,3")
}
