//! `crisol cost MODEL --cpu`: a phase on this machine, by what was measured on it.

use crisol_cost::engine::{self, EngineOptions, GenerationBatch};
use crisol_cost::machine::{LocalWork, Machine, MeasuredRate};
use crisol_cost::memory::{Memory, MemoryOptions, Optimizer};
use crisol_cost::phases::Phase;
use crisol_cost::plan::Plan;
use crisol_cost::units::{Bytes, Dollars, Seconds};
use crisol_engine::Precision;
use crisol_model::{PREFILL_TOKENS, generation_concurrency};
use crisol_phases::RunSettings;
use crisol_phases::forecast::memory;
use crisol_report::prefixed;

use super::plan::{Answer, Numbers, There, parts_of, plan, range};
use super::{HardwareArgs, PlanArgs, Subject, Utilisation, counted, in_bytes, in_dollars, in_time};
use crate::calibration::Calibration;
use crate::commands::Threads;
use crate::console::{print, print_json, say};
use crate::error::CliError;

/// How far a prediction may be off, either way: machines are noisy, and a model's rate is read
/// between others'.
const UNCERTAIN: f64 = 1.25;

/// Share of the machine's memory that a run may take.
const USABLE: f64 = 0.9;

pub(super) fn run(
    subject: &Subject,
    args: &PlanArgs,
    hardware: &HardwareArgs,
    threads: Threads,
    json: bool,
) -> Result<(), CliError> {
    let plan = plan(subject, args, hardware)?;
    let threads = threads.device()?.threads();
    let calibration = Calibration::load(threads);
    if calibration.is_none() {
        say(format_args!(
            "this machine was not measured with {threads} threads, and nothing is guessed; \
             `crisol cost --calibrate` measures it once"
        ));
    }
    let memory = memory(&plan, threads);
    let available = machine_memory().map(|bytes| bytes * USABLE);
    let there = There {
        gpus: 0,
        fits: available.map(|available| memory.total() <= available),
        ..calibration
            .as_ref()
            .map_or_else(There::default, |calibration| there(&plan, hardware, calibration))
    };
    let rows = rows(&there, &memory, available, calibration.as_ref(), &plan);
    let answer = Answer::of(subject, &plan, &memory, available, there);
    let on = format!("this machine's processor with {threads} threads");
    if json {
        print_json(&answer)
    } else {
        print(answer.text(&plan, &on, args.tokens.is_none(), rows))
    }
}

/// What the engine takes: a batch is what documents are given, cut into shards as in a run.
fn memory(plan: &Plan, threads: usize) -> Memory {
    let MemoryOptions { documents, length, .. } = plan.memory;
    let shard_tokens = length.max(RunSettings::default().shard_tokens.min(documents * length));
    let sampling = matches!(plan.phase, Phase::Grpo | Phase::Ppo).then(|| {
        let (chunks, slots) = generation_concurrency(documents, threads);
        GenerationBatch { chunks, slots, prompt_tokens: PREFILL_TOKENS.min(slots * length), length }
    });
    let options = EngineOptions {
        limits: memory::limits(Precision::F32),
        threads,
        shard_tokens,
        shards: (documents * length).div_ceil(shard_tokens),
        uneven: false,
        sampling,
        measured: None,
        base: Bytes(0.0),
        recompute_blocks: false,
        moment_bytes: 4.0,
        program: memory::PROGRAM,
    };
    engine::training(&plan.shape, plan.phase, &options)
}

/// Memory of this machine; none where the system does not say.
fn machine_memory() -> Option<Bytes> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: f64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Bytes(kibibytes * 1024.0))
}

fn work(plan: &Plan) -> LocalWork {
    let length = plan.memory.length as f64;
    let mut work = LocalWork::of(plan.phase, plan.phase_options, &plan.shape, plan.tokens, length);
    if plan.memory.optimizer == Optimizer::Muon {
        let steps = plan.tokens.0 / (length * plan.memory.documents as f64);
        work.optimizer = plan.shape.muon_flops() * steps;
    }
    work
}

/// Rates at a utilisation of what large products reach.
fn at_utilisation(machine: &Machine, share: f64) -> Machine {
    let rate = machine.gemm_rate * share;
    let training =
        machine.training.iter().map(|measured| MeasuredRate { rate, ..*measured }).collect();
    Machine { training, ..machine.clone() }
}

fn there(plan: &Plan, hardware: &HardwareArgs, calibration: &Calibration) -> There {
    let mut machine = calibration.rates();
    if let Some(Utilisation::Given(mfu)) = hardware.mfu {
        machine = at_utilisation(&machine, mfu.share());
    }
    let Some(time) = machine.time(&plan.shape, &work(plan)) else { return There::default() };
    let around =
        |typical: f64| Numbers { low: typical / UNCERTAIN, typical, high: typical * UNCERTAIN };
    There {
        mfu: machine.utilisation(&plan.shape).map(around),
        wall_seconds: Some(around(time.0)),
        tokens_per_second: Some(around((plan.tokens / time).0)),
        money: hardware.price.map(|price| around((price * time).0)),
        ..There::default()
    }
}

fn rows(
    there: &There,
    memory: &Memory,
    available: Option<Bytes>,
    calibration: Option<&Calibration>,
    plan: &Plan,
) -> Vec<(&'static str, String)> {
    let (Some(calibration), Some(time), Some(rate)) =
        (calibration, there.wall_seconds, there.tokens_per_second)
    else {
        return [("time", "unknown".to_owned())]
            .into_iter()
            .chain(memory_rows(memory, available))
            .collect();
    };
    let mut rows = vec![
        (
            "wall time",
            format!(
                "{}, {} tokens/s",
                range(time, |seconds| in_time(Seconds(seconds))),
                range(rate, counted)
            ),
        ),
        (
            "measured",
            format!(
                "{}, {}: large products at {}{}",
                calibration.machine,
                calibration.measured,
                prefixed(calibration.products, "FLOP/s"),
                there.mfu.map_or(String::new(), |mfu| format!(
                    ", training of such a model at {:.0} % of that",
                    100.0 * mfu.typical
                )),
            ),
        ),
    ];
    if let Some(money) = there.money {
        rows.push(("money", range(money, |dollars| in_dollars(Dollars(dollars)))));
    }
    rows.extend(memory_rows(memory, available));
    let read = plan.shape.read_parameters(1.0) * plan.memory.dtype.weight_bytes();
    rows.push((
        "generation",
        format!(
            "at most {} tokens/s of one document in f32, by what memory can be read",
            counted(calibration.bandwidth / read)
        ),
    ));
    rows
}

fn memory_rows(memory: &Memory, available: Option<Bytes>) -> Vec<(&'static str, String)> {
    let total = memory.total();
    let mut rows = vec![("memory", format!("{}: {}", in_bytes(total), parts_of(memory)))];
    if let Some(available) = available {
        let fits = if total <= available { "yes" } else { "NO" };
        rows.push(("fits", format!("{fits}: this machine has {} for it", in_bytes(available))));
    }
    rows
}
