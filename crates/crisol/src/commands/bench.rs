//! `crisol bench`: how fast this machine trains and generates, on models of random weights.

mod data;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use crisol_cost::phases::TRAINING;
use crisol_cost::units::Flops;
use crisol_engine::{Device, OptimizerConfig, Params, Profiled, UpdateRule, WeightFormat};
use crisol_model::{Model, SamplingOptions, generate, generate_stream};
use crisol_objectives::next_token;
use crisol_phases::batch::Batch;
use crisol_phases::{PhaseError, RunSettings, cost_shape, machine, peak_memory};
use crisol_text::Example;
use crisol_train::{Output, Trainer, TrainerOptions};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Compute;
use crate::console::{print_json, print_line};
use crate::error::CliError;
use crate::model::{Loaded, ModelArgs, Network};
use crate::shape::Shape;

const EXAMPLES: &str = "\
Examples:
  crisol bench train                           a training step of shape XS
  crisol bench train --shape S --threads 1 --json
  crisol bench train --shape S,T=2048,B=2      S with longer documents
  crisol bench decode --shape S --batch 64     generation, 64 sequences at a time
  crisol bench decode --shape 1B --dtype bf16 --batch 1 --prompt-tokens 512
  crisol bench decode --model MODEL --batch 1  generation with the weights of a model
  crisol bench gemm --shape M                  the GEMMs of shape M
  crisol bench train --shape M --precision bf16
  crisol bench data chats.jsonl --model MODEL  tokenisation of a data file

Shapes: a name, a name with changes, or changes to XS.
  XS  d=128,L=4,H=4,ff=352,V=2048,T=128,B=32
  S   d=256,L=6,H=8,ff=704,V=4096,T=256,B=16
  M   d=768,L=12,H=12,ff=2048,V=32000,T=512,B=2,head=untied
  1B  d=2048,L=16,H=32,kv=8,ff=8192,V=128256,T=2048,B=1
  d: width. L: layers. H: heads. kv: key/value heads (default H). ff: width of the MLP.
  V: vocabulary. T: tokens of a document. B: documents of a batch.

Operations are counted as in published figures: two for each multiply-add, twice as many in the
backward pass as in the forward pass. Attention counts all T*T pairs of tokens, although the causal
mask skips half of them. Peak: the speed of large GEMMs on the same threads.
Machines are noisy: alternate two commands to compare them.";

const JSON: &str = "JSON: docs/json.md";

/// `crisol bench`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Time training steps: forward, backward, clip, AdamW
    #[command(after_help = JSON)]
    Train(TrainArgs),
    /// Time generation of many sequences at a time
    #[command(after_help = JSON)]
    Decode(DecodeArgs),
    /// Time the GEMMs of a training step, one by one
    #[command(after_help = JSON)]
    Gemm(GemmArgs),
    /// Time reading and tokenising a data file
    #[command(after_help = JSON)]
    Data(data::BenchDataArgs),
}

#[derive(Debug, Args)]
struct Common {
    /// Shape: XS, S, M, 1B, or with changes such as S,T=2048
    #[arg(long, default_value = "XS")]
    shape: Shape,
    /// Time to measure, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    #[command(flatten)]
    compute: Compute,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct TrainArgs {
    #[command(flatten)]
    common: Common,
    /// Use documents of 2 to T tokens instead of equal lengths
    #[arg(long)]
    mixed: bool,
    /// Compute the inside of blocks again in backward
    #[arg(long)]
    recompute: bool,
}

#[derive(Debug, Args)]
struct DecodeArgs {
    #[command(flatten)]
    common: Common,
    /// Sequences at a time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..),
    )]
    batch: u16,
    /// Tokens of each prompt
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..=1 << 20),
    )]
    prompt_tokens: u32,
    /// New tokens of each sequence
    #[arg(
        long,
        value_name = "N",
        default_value_t = 128,
        value_parser = clap::value_parser!(u32).range(2..=1 << 20),
    )]
    new_tokens: u32,
    /// Weight format, such as bf16 or q8_0 [default: f32]
    #[arg(long, value_name = "TYPE", conflicts_with = "model", value_parser = weight_format)]
    dtype: Option<WeightFormat>,
    /// Model instead of a shape
    #[arg(long, value_name = "MODEL", conflicts_with = "shape")]
    model: Option<PathBuf>,
    #[command(flatten)]
    network: Network,
}

fn weight_format(text: &str) -> Result<WeightFormat, String> {
    let names = || WeightFormat::ALL.map(|kind| kind.name().to_lowercase()).join(", ");
    WeightFormat::from_name(text).ok_or_else(|| format!("one of {} is needed", names()))
}

#[derive(Debug, Args)]
struct GemmArgs {
    #[command(flatten)]
    common: Common,
}

/// Longest measurement that makes sense, an hour.
const LONGEST: f64 = 3600.0;

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|s| *s > 0.0 && *s <= LONGEST);
    number.ok_or(format!("a number of seconds above 0 and up to {LONGEST} is needed"))
}

/// `count` token ids without a pattern, from number `start` on.
fn ids(vocab: usize, start: usize, count: usize) -> Vec<u32> {
    // Knuth's multiplicative hash (The Art of Computer Programming, volume 3, section 6.4).
    let id = |i: usize| (i as u32).wrapping_mul(2_654_435_761) as usize % vocab;
    (start..start + count).map(|i| id(i) as u32).collect()
}

impl BenchArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        match self.what {
            What::Train(args) => train(&args),
            What::Decode(args) => decode(&args),
            What::Gemm(args) => gemm(&args),
            What::Data(args) => args.run(),
        }
    }
}

/// Steps before the clock starts: memory is allocated in the first.
const WARM_UP: usize = 2;
const MIN_STEPS: usize = 3;

/// What a training step took.
#[derive(Serialize)]
struct Training {
    machine: String,
    threads: usize,
    precision: &'static str,
    shape: Shape,
    mixed: bool,
    recompute: bool,
    steps: usize,
    tokens_per_second: f64,
    gflops: f64,
    peak_gflops: f64,
    peak_fraction: f64,
    peak_memory_bytes: u64,
    per_op: Map<String, Value>,
}

/// Training steps that were made and timed.
pub(super) struct Steps {
    /// Seconds of the middle one.
    pub(super) seconds: f64,
    /// Operations of each.
    pub(super) flops: Flops,
    count: usize,
    per_op: Vec<Profiled>,
}

/// Makes training steps with AdamW on a batch of documents of random tokens, for about so many
/// seconds.
pub(super) fn training_steps(
    shape: &Shape,
    lengths: &[usize],
    options: TrainerOptions,
    device: &Device,
    seconds: f64,
) -> Result<Steps, CliError> {
    let (model, params) = shape.model(device)?;
    let cost = cost_shape(model.config());
    let mut trainer = Trainer::new(model, params, options);
    let batch =
        Batch::of_documents(&documents(shape, lengths), RunSettings::default().shard_tokens);
    let config = OptimizerConfig {
        rule: UpdateRule::AdamW,
        lr: 1e-4,
        table_factor: 1.0,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        max_grad_norm: Some(1.0),
    };
    let output = Output::TokenScores { logit_scale: 1.0, entropy: false };
    let mut step = || {
        let step = trainer
            .step(&batch.shards, output, &config, |_, scores| next_token::loss(scores, batch.size));
        step.map_err(PhaseError::from)
    };
    for _ in 0..WARM_UP {
        step()?;
    }
    device.start_profile();
    let mut times = Vec::new();
    while times.len() < MIN_STEPS || times.iter().sum::<f64>() < seconds {
        let start = Instant::now();
        step()?;
        times.push(start.elapsed().as_secs_f64());
    }
    let mut per_op = device.stop_profile();
    per_op.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let flops =
        lengths.iter().map(|&length| cost.document_flops(length, length)).sum::<Flops>() * TRAINING;
    Ok(Steps { count: times.len(), seconds: median(&mut times), flops, per_op })
}

fn train(args: &TrainArgs) -> Result<(), CliError> {
    let Common { shape, seconds, compute, json } = &args.common;
    let device = compute.device()?;
    let lengths = if args.mixed { mixed_lengths(shape) } else { vec![shape.tokens; shape.batch] };
    let tokens: usize = lengths.iter().sum();
    let options = TrainerOptions { recompute_blocks: args.recompute, ..TrainerOptions::default() };
    let Steps { seconds, flops, count: steps, per_op } =
        training_steps(shape, &lengths, options, &device, *seconds)?;
    let peak_memory_bytes = peak_memory();
    let tokens_per_second = tokens as f64 / seconds;
    let gflops = flops.0 / seconds * 1e-9;
    let peak_gflops = device.gemm_rate(PEAK_PRODUCT, PEAK_TIME) * 1e-9;
    let result = Training {
        machine: machine(),
        threads: device.threads(),
        precision: device.precision().name(),
        shape: shape.clone(),
        mixed: args.mixed,
        recompute: args.recompute,
        steps,
        tokens_per_second,
        gflops,
        peak_gflops,
        peak_fraction: gflops / peak_gflops,
        peak_memory_bytes,
        per_op: by_name(&per_op, steps),
    };
    if *json {
        return print_json(&result);
    }
    print_line(format_args!(
        "{} on {} threads in {}, median of {steps} steps",
        result.machine, result.threads, result.precision
    ))?;
    print_line(format_args!(
        "{tokens_per_second:.0} tokens/s, {gflops:.1} GFLOP/s ({:.0} % of the {peak_gflops:.0} \
         that large products reach), at most {:.0} MB",
        100.0 * result.peak_fraction,
        peak_memory_bytes as f64 * 1e-6
    ))?;
    print_parts(&per_op, steps)
}

/// A product large enough to show what the machine can do, and small enough to stay in its caches.
pub(super) const PEAK_PRODUCT: [usize; 3] = [512, 512, 512];
const PEAK_TIME: Duration = Duration::from_secs(1);

/// Lengths from 2 to T in equal steps and out of order, as many tokens as a batch of equal lengths.
pub(super) fn mixed_lengths(shape: &Shape) -> Vec<usize> {
    let mut rest = shape.batch * shape.tokens;
    let mut lengths = Vec::new();
    // Multiples of the golden ratio fill an interval evenly.
    for i in 1.. {
        if rest == 0 {
            break;
        }
        let share = (f64::from(i) * 0.618_033_988_749_895).fract();
        let length = (2 + (share * (shape.tokens - 1) as f64) as usize).min(rest);
        // A single token predicts nothing, so none is left over.
        let length = match rest - length {
            1 if length < shape.tokens => length + 1,
            1 => length - 1,
            _ => length,
        };
        lengths.push(length);
        rest -= length;
    }
    lengths
}

fn documents(shape: &Shape, lengths: &[usize]) -> Vec<Example> {
    let mut start = 0;
    let document = |&length: &usize| {
        start += length;
        Example { ids: ids(shape.vocab, start, length), trained: vec![true; length] }
    };
    lengths.iter().map(document).collect()
}

/// What generation took.
#[derive(Serialize)]
struct Decoding {
    machine: String,
    threads: usize,
    precision: &'static str,
    /// Of random weights, or what was loaded.
    shape: Option<Shape>,
    model: Option<PathBuf>,
    batch: usize,
    prompt_tokens: usize,
    new_tokens: usize,
    runs: usize,
    /// From the start of a prompt to the first new token, for all sequences together.
    seconds_to_first_token: f64,
    prompt_tokens_per_second: f64,
    /// Its operations per second, as a share of what large matrix products reach.
    prompt_peak_fraction: f64,
    /// New tokens after the first.
    tokens_per_second: f64,
    /// Bytes of weights that are read for a token of one sequence; null for several, or where
    /// experts are chosen.
    bytes_per_token: Option<usize>,
    bytes_per_second: Option<f64>,
    /// What all threads together read from memory.
    memory_bytes_per_second: f64,
    memory_fraction: Option<f64>,
    peak_memory_bytes: u64,
    /// Seconds of threads by operation, for each step of generation.
    per_op: Map<String, Value>,
}

/// Generation that was timed.
pub(super) struct Generation {
    /// To the first new token of all prompts.
    pub(super) seconds_to_first_token: f64,
    /// And from there to the last.
    pub(super) rest: f64,
    runs: usize,
    /// Of that rest.
    per_op: Vec<Profiled>,
}

/// Generates from `batch` prompts of random tokens at a time, for about so many seconds.
pub(super) fn generation(
    model: &Model,
    params: &Params,
    batch: usize,
    [prompt_tokens, new_tokens]: [usize; 2],
    seconds: f64,
) -> Result<Generation, CliError> {
    let device = params.device();
    let vocab = model.config().vocab_size;
    let prompts: Vec<Vec<u32>> =
        (0..batch).map(|i| ids(vocab, i * prompt_tokens, prompt_tokens)).collect();
    let options = |max_new_tokens| SamplingOptions { max_new_tokens, ..SamplingOptions::default() };
    let run = |max_new_tokens| -> Result<f64, CliError> {
        let start = Instant::now();
        match &prompts[..] {
            [prompt] => {
                generate_stream(model, params, prompt, &options(max_new_tokens), |_| {
                    ControlFlow::Continue(())
                })?;
            }
            prompts => {
                generate(model, params, prompts, &options(max_new_tokens))?;
            }
        }
        Ok(start.elapsed().as_secs_f64())
    };
    run(2)?;
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    while first.len() < MIN_STEPS || first.iter().chain(&rest).sum::<f64>() < seconds {
        first.push(run(1)?);
        rest.push(run(new_tokens)? - first[first.len() - 1]);
    }
    let runs = first.len();
    let profile = |max_new_tokens| -> Result<_, CliError> {
        device.start_profile();
        run(max_new_tokens)?;
        Ok(device.stop_profile())
    };
    let (of_prompts, of_all) = (profile(1)?, profile(new_tokens)?);
    let of_prompt =
        |name| of_prompts.iter().find(|part| part.name == name).map_or(0.0, |part| part.seconds);
    let rest_of = |part: &Profiled| Profiled {
        seconds: (part.seconds - of_prompt(part.name)).max(0.0),
        ..*part
    };
    let mut per_op: Vec<Profiled> = of_all.iter().map(rest_of).collect();
    per_op.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(Generation {
        seconds_to_first_token: median(&mut first),
        rest: median(&mut rest),
        runs,
        per_op,
    })
}

fn decode(args: &DecodeArgs) -> Result<(), CliError> {
    let Common { shape, seconds, compute, json } = &args.common;
    let device = compute.device()?;
    let batch = usize::from(args.batch);
    let (prompt_tokens, new_tokens) = (args.prompt_tokens as usize, args.new_tokens as usize);
    let (model, params) = if let Some(path) = &args.model {
        let Loaded { model, params, .. } =
            ModelArgs::new(path, args.network).load_for_ids(&device)?;
        (model, params)
    } else {
        let mut config = shape.config();
        config.max_position_embeddings =
            config.max_position_embeddings.max(prompt_tokens + new_tokens);
        match args.dtype {
            None => Model::init(config, &device, 0)?,
            Some(dtype) => Model::with_random_weights(config, &device, dtype)?,
        }
    };
    let (limit, length) = (model.config().max_document_len(), prompt_tokens + new_tokens);
    if length > limit {
        return Err(CliError::Usage(format!(
            "{prompt_tokens} + {new_tokens} tokens are more than the model's context of {limit}; \
             lower --prompt-tokens or --new-tokens"
        )));
    }
    let Generation { seconds_to_first_token, rest, runs, per_op } =
        generation(&model, &params, batch, [prompt_tokens, new_tokens], *seconds)?;
    let tokens_per_second = (batch * (new_tokens - 1)) as f64 / rest;
    let bytes_per_token = (batch == 1).then(|| model.bytes_per_token(&params)).flatten();
    let bytes_per_second = bytes_per_token.map(|bytes| bytes as f64 * tokens_per_second);
    let peak_memory_bytes = peak_memory();
    let memory_bytes_per_second = device.read_bandwidth(PEAK_TIME);
    let prompt_tokens_per_second = (batch * prompt_tokens) as f64 / seconds_to_first_token;
    // Of a prompt, only the last token's logits are computed.
    let flops =
        cost_shape(model.config()).document_flops(prompt_tokens, 1).0 / prompt_tokens as f64;
    let peak = device.gemm_rate(PEAK_PRODUCT, PEAK_TIME);
    let result = Decoding {
        machine: machine(),
        threads: device.threads(),
        precision: device.precision().name(),
        shape: args.model.is_none().then(|| shape.clone()),
        model: args.model.clone(),
        batch,
        prompt_tokens,
        new_tokens,
        runs,
        seconds_to_first_token,
        prompt_tokens_per_second,
        prompt_peak_fraction: prompt_tokens_per_second * flops / peak,
        tokens_per_second,
        bytes_per_token,
        bytes_per_second,
        memory_bytes_per_second,
        memory_fraction: bytes_per_second.map(|rate| rate / memory_bytes_per_second),
        peak_memory_bytes,
        per_op: by_name(&per_op, new_tokens - 1),
    };
    if *json {
        return print_json(&result);
    }
    print_line(format_args!(
        "{} on {} threads in {}, median of {runs} runs",
        result.machine, result.threads, result.precision
    ))?;
    print_line(format_args!(
        "prompts: {prompt_tokens_per_second:.0} tokens/s, {:.0} % of the {:.0} GFLOP/s that large \
         products reach, {:.3} s to the first new token ({batch} x {prompt_tokens} tokens)",
        100.0 * result.prompt_peak_fraction,
        peak * 1e-9,
        result.seconds_to_first_token
    ))?;
    print_line(format_args!(
        "generation: {tokens_per_second:.1} tokens/s ({batch} x {new_tokens} new tokens), at most \
         {:.0} MB",
        peak_memory_bytes as f64 * 1e-6
    ))?;
    if let (Some(rate), Some(fraction)) = (bytes_per_second, result.memory_fraction) {
        print_line(format_args!(
            "weights: {:.1} GB/s, {:.0} % of the {:.1} GB/s that memory is read with",
            rate * 1e-9,
            100.0 * fraction,
            memory_bytes_per_second * 1e-9
        ))?;
    }
    print_parts(&per_op, new_tokens - 1)
}

/// Seconds by name, for each of so many steps.
fn by_name(parts: &[Profiled], steps: usize) -> Map<String, Value> {
    parts.iter().map(|part| (part.name.to_owned(), json!(part.seconds / steps as f64))).collect()
}

fn print_parts(parts: &[Profiled], steps: usize) -> Result<(), CliError> {
    let total: f64 = parts.iter().map(|part| part.seconds).sum();
    for Profiled { name, seconds, flops } in parts {
        let milliseconds = 1e3 * seconds / steps as f64;
        let rate = if *flops > 0.0 {
            format!("{:>9.1} GFLOP/s a thread", flops / seconds * 1e-9)
        } else {
            String::new()
        };
        print_line(format_args!(
            "{name:<28} {milliseconds:>9.3} ms {:>5.1} %{rate}",
            100.0 * seconds / total
        ))?;
    }
    Ok(())
}

fn gemm(args: &GemmArgs) -> Result<(), CliError> {
    let Common { shape, seconds, compute, json } = &args.common;
    let device = compute.device()?;
    let rows = RunSettings::default().shard_tokens.min(shape.batch * shape.tokens);
    let Shape { d, ff, vocab, .. } = *shape;
    let products = [
        ("large", PEAK_PRODUCT),
        ("projection", [rows, d, d]),
        ("projection's weight gradient", [d, rows, d]),
        ("MLP in", [rows, d, ff]),
        ("MLP out", [rows, ff, d]),
        ("MLP's weight gradient", [ff, rows, d]),
        ("head", [rows, d, vocab]),
    ];
    let time = Duration::from_secs_f64(seconds / products.len() as f64);
    let rates: Vec<(&str, [usize; 3], f64)> = products
        .into_iter()
        .map(|(name, sizes)| (name, sizes, device.gemm_rate(sizes, time) * 1e-9))
        .collect();
    if *json {
        let products: Vec<Value> = rates
            .iter()
            .map(|(name, [rows, inner, cols], gflops)| {
                json!({
                    "name": name,
                    "rows": rows,
                    "inner": inner,
                    "cols": cols,
                    "gflops": gflops,
                })
            })
            .collect();
        return print_json(&json!({
            "machine": machine(),
            "threads": device.threads(),
            "precision": device.precision().name(),
            "shape": shape,
            "products": products,
        }));
    }
    print_line(format_args!(
        "{} on {} threads in {}",
        machine(),
        device.threads(),
        device.precision().name()
    ))?;
    for (name, [rows, inner, cols], gflops) in rates {
        print_line(format_args!(
            "{name:<30} {rows:>5} x {inner:>5} x {cols:>5} {gflops:>8.1} GFLOP/s"
        ))?;
    }
    Ok(())
}

/// The middle of the times (the upper one of two).
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::{M, S, XS};

    #[test]
    fn mixed_documents_are_as_many_tokens_and_each_predicts_one() {
        for shape in [XS, S, M, Shape { tokens: 2, batch: 1, ..XS }] {
            let lengths = mixed_lengths(&shape);
            assert_eq!(lengths.iter().sum::<usize>(), shape.batch * shape.tokens);
            assert!(lengths.iter().all(|&n| n >= 2 && n <= shape.tokens), "{lengths:?}");
        }
    }
}
