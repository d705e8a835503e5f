//! `crisol cost`: what training a model takes, before it is trained.

mod budget;
mod calibrate;
mod ladder;
mod local;
mod plan;
mod table;

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use crisol_cost::ModelShape;
use crisol_cost::hardware::{GPUS, Mfu};
use crisol_cost::known::{self, KnownModel};
use crisol_cost::memory::{Dtype, Optimizer, Recompute, Zero};
use crisol_cost::phases::Phase;
use crisol_cost::units::{self, Bytes, Dollars, Flops, Price, Seconds, Tokens};
use crisol_model::{Config, load_config};
use crisol_report::{prefixed, wrap};

use super::Threads;
use crate::error::CliError;
use crate::hub::Need;
use crate::model::{Network, check_folder, locate};
use crate::shape::Shape;
use crisol_phases::cost_shape;

const EXAMPLES: &str = "\
Examples:
  crisol cost                                    what public models cost, and why
  crisol cost olmo-2-1b --tokens 4T --gpus 64    pre-training on 64 H100s
  crisol cost MODEL --phase dpo --tokens 20M --gpu rtx4090
  crisol cost llama-3-8b --phase sft --tokens 100M --lora-rank 16 --dtype q4_0 --gpu rtx3090
  crisol cost d=768,L=12,H=12,ff=2048,V=32000 --tokens 3B
  crisol cost --budget 1e21                      the best size for a compute budget
  crisol cost --money 5000 --gpu h100            the best size for a budget in dollars
  crisol cost ladder --write runs/ladder         small runs that predict larger ones

MODEL is a checkpoint folder, a GGUF file, a config.json, a model on a hub, a shape as in
`crisol bench`, or one of
  {known}

GPUs:
  {gpus}

--tokens counts what the phase works on: texts, conversations, both answers of each preference
pair (reward, dpo), or prompts with their sampled answers (grpo, ppo). K, M, B and T multiply.
MFU (model FLOPs utilisation) = 6 * active parameters * tokens per second and GPU / peak, where peak
is the published bf16 FLOP/s of the GPU. Uncertain figures are ranges. Formulas, sources and limits:
docs/cost.md.

JSON: docs/json.md";

/// `crisol cost`.
#[derive(Debug, Args)]
#[command(after_help = examples(), args_conflicts_with_subcommands = true)]
pub(crate) struct CostArgs {
    #[command(subcommand)]
    command: Option<CostCommand>,
    /// Model, see below [default: none, a table of public runs]
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    hardware: HardwareArgs,
    #[command(flatten)]
    budget: BudgetArgs,
    /// Measure this machine once, for forecasts of runs and for --cpu
    #[arg(long, conflicts_with_all = ["model", "BudgetArgs", "PlanArgs"])]
    calibrate: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    network: Network,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum CostCommand {
    /// Predict the loss of larger models from several small runs
    #[command(after_help = ladder::EXAMPLES)]
    Ladder(ladder::LadderArgs),
}

fn examples() -> String {
    let names: Vec<&str> = known::models().iter().map(|known| known.name).collect();
    let gpus: Vec<&str> = GPUS.iter().map(|gpu| gpu.name).collect();
    let list = |names: &[&str]| wrap(&names.join(", "), 94).join("\n  ");
    EXAMPLES.replace("{known}", &list(&names)).replace("{gpus}", &list(&gpus))
}

/// What is done with the model.
#[derive(Debug, Args)]
#[group(requires = "model")]
struct PlanArgs {
    /// Tokens of the phase, such as 300M [pretrain default: 20 a parameter]
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = tokens)]
    tokens: Option<Tokens>,
    /// Phase: pretrain, sft, grpo, reward, ppo or dpo
    #[arg(
        long,
        default_value = "pretrain",
        hide_possible_values = true,
        value_parser = named(Phase::ALL, Phase::name),
    )]
    phase: Phase,
    /// Passes over each batch of sampled answers (grpo, ppo)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1000),
    )]
    updates: u32,
    /// Include a KL penalty in grpo (adds a forward pass of the reference)
    #[arg(long)]
    kl: bool,
    /// Tokens of a document [default: the context, at most 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 28))]
    seq: Option<u32>,
    /// Documents of a step, all GPUs [default: one per GPU; --cpu: a run's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 28))]
    batch: Option<u32>,
    /// Recompute in backward: none, selective, block
    #[arg(
        long,
        default_value = "none",
        hide_possible_values = true,
        value_parser = named(Recompute::ALL, Recompute::name),
    )]
    recompute: Recompute,
    /// Optimizer: adamw or muon
    #[arg(
        long,
        default_value = "adamw",
        hide_possible_values = true,
        value_parser = named(Optimizer::ALL, Optimizer::name),
    )]
    optimizer: Optimizer,
    /// LoRA rank: train adapters instead of all weights [default: off]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    lora_rank: Option<u32>,
    /// Weight format: f32, bf16, f16; LoRA: fp8, q8_0, q4_0
    #[arg(
        long,
        default_value = "bf16",
        hide_possible_values = true,
        value_parser = named(Dtype::ALL, Dtype::name),
    )]
    dtype: Dtype,
    /// ZeRO stage: 1 optimizer, 2 +gradients, 3 +weights
    #[arg(
        long,
        value_name = "STAGE",
        default_value_t = 0,
        value_parser = clap::value_parser!(u8).range(0..=3),
    )]
    zero: u8,
}

/// On what, and what that costs.
#[derive(Debug, Args)]
struct HardwareArgs {
    /// GPU, such as h100, a100 or rtx4090
    #[arg(long, value_name = "NAME", default_value = "h100")]
    gpu: String,
    /// This machine's CPU instead, as measured by --calibrate
    #[arg(long, conflicts_with_all = ["gpu", "gpus", "recompute", "lora_rank", "dtype", "zero"])]
    cpu: bool,
    /// Number of GPUs
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1 << 24),
    )]
    gpus: u32,
    /// MFU, such as 0.4, or `measured` (--cpu) [default: of well-tuned runs]
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true, value_parser = mfu)]
    mfu: Option<Utilisation>,
    /// Dollars per GPU hour [default: a100 1.63, h800 2, h100 2.40]
    #[arg(long, value_name = "DOLLARS", allow_hyphen_values = true, value_parser = price)]
    price: Option<Price>,
}

/// What there is to spend.
#[derive(Debug, Args)]
#[group(multiple = false, conflicts_with_all = ["model", "cpu"])]
struct BudgetArgs {
    /// Operations to spend, such as 1e21
    #[arg(long, value_name = "FLOPS", allow_hyphen_values = true, value_parser = flops)]
    budget: Option<Flops>,
    /// GPU hours to spend
    #[arg(long, value_name = "HOURS", allow_hyphen_values = true, value_parser = hours)]
    gpu_hours: Option<Seconds>,
    /// Dollars to spend, such as 5000 or 2M
    #[arg(long, value_name = "DOLLARS", allow_hyphen_values = true, value_parser = money)]
    money: Option<Dollars>,
}

/// One of these, by its name.
fn named<T: Copy + Send + Sync + 'static, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.map(name)).map(move |text| {
        all.into_iter().find(|&one| name(one) == text).expect("it is one of the names")
    })
}

fn zero(stage: u8) -> Zero {
    match stage {
        0 => Zero::None,
        1 => Zero::Optimizer,
        2 => Zero::Gradients,
        _ => Zero::Weights,
    }
}

fn tokens(text: &str) -> Result<Tokens, units::QuantityError> {
    units::count(text).map(Tokens)
}

fn flops(text: &str) -> Result<Flops, units::QuantityError> {
    units::count(text).map(Flops)
}

fn hours(text: &str) -> Result<Seconds, units::QuantityError> {
    units::count(text).map(Seconds::from_hours)
}

fn money(text: &str) -> Result<Dollars, units::QuantityError> {
    units::dollars(text)
}

fn price(text: &str) -> Result<Price, units::QuantityError> {
    units::dollars(text).map(|dollars| Price::per_hour(dollars.0))
}

/// A utilisation on the command line.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Utilisation {
    Measured,
    Given(Mfu),
}

fn mfu(text: &str) -> Result<Utilisation, &'static str> {
    if text == "measured" {
        return Ok(Utilisation::Measured);
    }
    let mfu = text.parse().ok().and_then(Mfu::new).map(Utilisation::Given);
    mfu.ok_or("a share above 0 and at most 1 is needed, such as 0.4, or `measured`")
}

impl HardwareArgs {
    /// The utilisation that is given for a GPU.
    fn mfu_of_gpu(&self) -> Result<Option<Mfu>, CliError> {
        match self.mfu {
            None => Ok(None),
            Some(Utilisation::Given(mfu)) => Ok(Some(mfu)),
            Some(Utilisation::Measured) => Err(CliError::Usage(format!(
                "nothing was measured on a {}: `crisol cost --calibrate` measures this machine's \
                 processor, for --cpu",
                self.gpu
            ))),
        }
    }
}

/// A model whose cost is asked for.
struct Subject {
    /// What it is called.
    name: String,
    shape: ModelShape,
    /// Tokens of a document that it is made for.
    context: usize,
}

impl CostArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        if let Some(CostCommand::Ladder(ladder)) = self.command {
            return ladder.run();
        }
        if self.calibrate {
            return calibrate::run(self.threads, self.json);
        }
        let BudgetArgs { budget, gpu_hours, money } = &self.budget;
        if budget.is_some() || gpu_hours.is_some() || money.is_some() {
            return budget::run(&self.budget, &self.hardware, self.json);
        }
        match &self.model {
            None => table::run(self.json),
            Some(model) => {
                let subject = subject(model, self.network)?;
                if self.hardware.cpu {
                    return local::run(
                        &subject,
                        &self.plan,
                        &self.hardware,
                        self.threads,
                        self.json,
                    );
                }
                plan::run(&subject, &self.plan, &self.hardware, self.json)
            }
        }
    }
}

/// What to say of a GPU that is not known: nothing about it is guessed.
fn unknown_gpu(name: &str) -> String {
    let known: Vec<&str> = GPUS.iter().map(|gpu| gpu.name).collect();
    format!("unknown GPU {name:?}; use one of: {}", known.join(", "))
}

/// The model that the command line names: what exists comes first, then known names and shapes,
/// then a hub.
fn subject(model: &Path, network: Network) -> Result<Subject, CliError> {
    let text = model.to_string_lossy();
    let of = |name: &str, config: &Config| Subject {
        name: name.to_owned(),
        shape: cost_shape(config),
        context: config.max_document_len(),
    };
    let exists = crisol_hub::resolve_folder(model)?.exists();
    if !exists {
        if let Some(KnownModel { name, source, context, shape }) = known::named(&text) {
            return Ok(Subject { name: format!("{name} ({source})"), shape, context });
        }
        if text.contains('=') || ["XS", "S", "M", "1B"].contains(&&*text) {
            let shape: Shape =
                text.parse().map_err(|problem| CliError::Usage(format!("{text}: {problem}")))?;
            return Ok(of(&text, &shape.config()));
        }
        if !text.contains('/') {
            let known: Vec<&str> = known::models().iter().map(|known| known.name).collect();
            let problem = format!(
                "no such file or folder, and no known model; use one of: {}, or a shape, such as \
                 d=768,L=12,H=12",
                known.join(", ")
            );
            return Err(CliError::Place { path: model.to_owned(), problem });
        }
    }
    if model.extension().is_some_and(|end| end == "json") {
        return Ok(of(&text, &Config::load_file(model)?));
    }
    let path = check_folder(&locate(model, Need::Text, network)?)?;
    Ok(of(&text, &load_config(&path)?))
}

/// A number of dollars for people.
fn in_dollars(dollars: Dollars) -> String {
    match dollars.0 {
        d if d < 9.995 => format!("${d:.2}"),
        d if d < 999.5 => format!("${d:.0}"),
        d => format!(
            "${}",
            prefixed(d, "")
                .replace("\u{a0}k", "K")
                .replace("\u{a0}G", " billion")
                .replace('\u{a0}', "")
        ),
    }
}

/// A number of parameters or tokens, with the letters that people use for them.
fn counted(count: f64) -> String {
    prefixed(count, "").replace("\u{a0}k", "K").replace("\u{a0}G", "B").replace('\u{a0}', "")
}

/// Decimal bytes.
fn in_bytes(bytes: Bytes) -> String {
    prefixed(bytes.0, "B").replace('\u{a0}', " ")
}

/// Hours of a GPU.
fn in_hours(time: Seconds) -> String {
    let hours = time.hours();
    if hours < 0.95 {
        return format!("{:.0} minutes", (hours * 60.0).max(1.0));
    }
    format!("{} hours", prefixed(hours, "").replace("\u{a0}k", "K").replace('\u{a0}', ""))
}

/// A span of time on the wall, in the largest unit that fits.
fn in_time(time: Seconds) -> String {
    let (unit, length) = match time.0 {
        s if s < 99.5 => ("s", 1.0),
        s if s < 5970.0 => ("min", 60.0),
        s if s < 172_800.0 => ("h", 3600.0),
        s if s < 63_072_000.0 => ("days", 86_400.0),
        _ => ("years", 31_557_600.0),
    };
    let number = time.0 / length;
    if number < 9.95 {
        format!("{number:.1} {unit}")
    } else {
        format!("{} {unit}", prefixed(number, "").replace('\u{a0}', ""))
    }
}
