//! `crisol cost MODEL`: one phase of one model on some GPUs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crisol_cost::hardware::{GPUS, Gpu, Mfu, POWER_USAGE_EFFECTIVENESS, Range};
use crisol_cost::memory::{Dtype, Memory, MemoryOptions};
use crisol_cost::phases::{Phase, PhaseOptions};
use crisol_cost::plan::{
    Estimate, Plan, REFERENCE_CONTEXT, Serving, max_served_documents, serving,
};
use crisol_cost::units::{Bytes, Dollars, FlopsPerToken, Joules, Seconds, Tokens};
use crisol_phases::PretrainSettings;
use crisol_report::prefixed;
use serde::Serialize;

use super::{
    HardwareArgs, PlanArgs, Subject, counted, in_bytes, in_dollars, in_hours, in_time, unknown_gpu,
    zero,
};
use crate::console::{named_rows, print, print_json, say};
use crate::error::CliError;

/// Tokens per parameter that pre-training gets if nothing else is said (Hoffmann et al. 2022,
/// arXiv:2203.15556).
const CHINCHILLA: f64 = 20.0;

pub(super) fn run(
    subject: &Subject,
    args: &PlanArgs,
    hardware: &HardwareArgs,
    json: bool,
) -> Result<(), CliError> {
    let known = Gpu::named(&hardware.gpu);
    if known.is_none() {
        say(format_args!("{} (what depends on the GPU is left out)", unknown_gpu(&hardware.gpu)));
    }
    let plan = plan(subject, args, hardware)?;
    let estimate = plan.estimate();
    let memory = memory_rows(&estimate, known.is_some());
    let (bytes, available) = (estimate.memory, known.map(|_| estimate.available));
    let there = known.map_or_else(There::default, |_| There::of(&plan, estimate));
    let gpus = plan.memory.gpus;
    let on = match there.gpu {
        Some(title) if gpus == 1 => format!("one {title}"),
        Some(title) => format!("{gpus} {title}"),
        None => "GPUs of which nothing is known".into(),
    };
    let mut rows = there.rows(&plan);
    rows.extend(memory);
    rows.extend(there.generation_rows(&plan));
    let answer = Answer::of(subject, &plan, &bytes, available, there);
    if json {
        print_json(&answer)
    } else {
        print(answer.text(&plan, &on, args.tokens.is_none(), rows))
    }
}

pub(super) fn plan(
    subject: &Subject,
    args: &PlanArgs,
    hardware: &HardwareArgs,
) -> Result<Plan, CliError> {
    let phase = args.phase;
    let all = subject.shape.parameters().total();
    let tokens = match (args.tokens, phase) {
        (Some(tokens), _) => tokens,
        (None, Phase::Pretrain) => Tokens(CHINCHILLA * all),
        (None, _) => {
            let name = phase.name();
            return Err(CliError::Usage(format!(
                "--phase {name} needs --tokens; give the number of tokens that the phase works \
                 on, such as --tokens 20M"
            )));
        }
    };
    let length =
        args.seq.map_or(subject.context.min(REFERENCE_CONTEXT as usize), |seq| seq as usize);
    let gpus = hardware.gpus as usize;
    let batch = match args.batch {
        Some(batch) => batch as usize,
        None if hardware.cpu => (PretrainSettings::default().batch_tokens / length).max(1),
        None => gpus,
    };
    if !batch.is_multiple_of(gpus) {
        return Err(CliError::Usage(format!(
            "--batch {batch} cannot be shared equally by {gpus} GPUs; give a multiple of {gpus}"
        )));
    }
    // What does not depend on the GPU is said of one that is not known, too; the rest is left out.
    let gpu = *Gpu::named(&hardware.gpu).unwrap_or(&GPUS[0]);
    let plan = Plan {
        shape: subject.shape.clone(),
        phase,
        phase_options: PhaseOptions {
            updates: args.updates,
            reference: f64::from(u8::from(args.kl)),
            old_logprobs: !hardware.cpu,
        },
        tokens,
        gpu,
        mfu: if hardware.cpu { None } else { hardware.mfu_of_gpu()? },
        price: hardware.price.or(gpu.price()),
        memory: MemoryOptions {
            // Crisol trains in f32 on the CPU.
            dtype: if hardware.cpu { Dtype::F32 } else { args.dtype },
            optimizer: args.optimizer,
            recompute: args.recompute,
            zero: zero(args.zero),
            lora_rank: args.lora_rank.map(|rank| rank as usize),
            gpus,
            documents: batch / gpus,
            length,
        },
    };
    plan.check().map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(plan)
}

/// What `--json` prints; `crisol cost --help` says what it means.
#[derive(Serialize)]
pub(super) struct Answer {
    model: String,
    phase: &'static str,
    tokens: f64,
    parameters: Parameters,
    flops: f64,
    flops_counted: f64,
    flops_per_token: PerToken,
    #[serde(flatten)]
    there: There,
    memory: BTreeMap<&'static str, f64>,
}

#[derive(Serialize)]
struct Parameters {
    total: f64,
    active: f64,
    by_part: BTreeMap<&'static str, f64>,
}

#[derive(Serialize)]
struct PerToken {
    forward: f64,
    backward: f64,
    by_part: BTreeMap<&'static str, f64>,
}

/// What depends on the machine; nothing of one that is not known.
#[derive(Default, Serialize)]
pub(super) struct There {
    pub(super) gpu: Option<&'static str>,
    pub(super) gpus: usize,
    pub(super) mfu: Option<Numbers>,
    pub(super) gpu_hours: Option<f64>,
    pub(super) gpu_hours_range: Option<Numbers>,
    pub(super) wall_seconds: Option<Numbers>,
    pub(super) tokens_per_second: Option<Numbers>,
    pub(super) money: Option<Numbers>,
    pub(super) kilowatt_hours: Option<Numbers>,
    pub(super) co2_kg: Option<Numbers>,
    pub(super) fits: Option<bool>,
    pub(super) largest_batch: Option<usize>,
    pub(super) remedies: Vec<Remedy>,
    pub(super) generation: Vec<Generation>,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct Numbers {
    pub(super) low: f64,
    pub(super) typical: f64,
    pub(super) high: f64,
}

impl Numbers {
    pub(super) fn of<T: Copy>(range: Range<T>, number: impl Fn(T) -> f64) -> Numbers {
        Numbers { low: number(range.low), typical: number(range.typical), high: number(range.high) }
    }
}

#[derive(Serialize)]
pub(super) struct Remedy {
    options: String,
    total: f64,
}

#[derive(Serialize)]
pub(super) struct Generation {
    documents: usize,
    tokens_per_second: Numbers,
    dollars_per_million_tokens: Option<Numbers>,
}

impl Answer {
    pub(super) fn of(
        subject: &Subject,
        plan: &Plan,
        memory: &Memory,
        available: Option<Bytes>,
        there: There,
    ) -> Answer {
        let (parameters, active) =
            (plan.shape.parameters(), plan.shape.active_parameters().total());
        let (by_part, work) = (plan.flops_by_part(), plan.work());
        let sum =
            |of: fn(&(&str, FlopsPerToken, FlopsPerToken)) -> f64| by_part.iter().map(of).sum();
        let mut bytes: BTreeMap<_, _> =
            memory.named().into_iter().map(|(name, bytes)| (name, bytes.0)).collect();
        bytes.insert("total", memory.total().0);
        bytes.extend(available.map(|available| ("available", available.0)));
        Answer {
            model: subject.name.clone(),
            phase: plan.phase.name(),
            tokens: plan.tokens.0,
            parameters: Parameters {
                total: parameters.total(),
                active,
                by_part: parameters
                    .named()
                    .into_iter()
                    .filter(|(name, _)| *name != "attention")
                    .collect(),
            },
            flops: work.flops.0,
            flops_counted: work.counted.0,
            flops_per_token: PerToken {
                forward: sum(|(_, forward, _)| forward.0),
                backward: sum(|(_, _, backward)| backward.0),
                by_part: by_part
                    .iter()
                    .map(|(name, forward, backward)| (*name, forward.0 + backward.0))
                    .filter(|(name, _)| !["embedding", "vectors"].contains(name))
                    .collect(),
            },
            there,
            memory: bytes,
        }
    }

    /// As text. `rows` is what depends on the machine, `on` what that is called.
    pub(super) fn text(
        &self,
        plan: &Plan,
        on: &str,
        supposed: bool,
        rows: Vec<(&'static str, String)>,
    ) -> String {
        let heading = format!(
            "{}: {} on {} tokens{}, in documents of {}, on {on}\n\n",
            self.model,
            self.phase,
            counted(self.tokens),
            if supposed { " (20 per parameter)" } else { "" },
            plan.memory.length,
        );
        let mut all = self.rows(plan);
        all.extend(rows);
        heading + &named_rows(&all)
    }

    /// What does not depend on the machine.
    fn rows(&self, plan: &Plan) -> Vec<(&'static str, String)> {
        let Parameters { total, active, .. } = self.parameters;
        let mut parameters = counted(total);
        if active != total {
            let _ = write!(parameters, ", of which {} take part in each token", counted(active));
        }
        let _ = write!(parameters, ": {}", shares(&plan.shape.parameters().named()));
        let PerToken { forward, backward, .. } = self.flops_per_token;
        let each = |flops: f64| prefixed(flops, "FLOP").replace('\u{a0}', " ");
        let by_part =
            plan.flops_by_part().map(|(name, forward, backward)| (name, forward.0 + backward.0));
        let mut rows = vec![
            ("parameters", parameters),
            (
                "a token takes",
                format!(
                    "{}: forward {}, backward {}; {}",
                    each(forward + backward),
                    each(forward),
                    each(backward),
                    shares(&by_part)
                ),
            ),
            (
                "compute",
                format!(
                    "{:.2e} FLOP, of which utilisations count {:.2e}",
                    self.flops, self.flops_counted
                ),
            ),
        ];
        if plan.phase != Phase::Pretrain {
            let passes: Vec<String> = plan
                .phase
                .passes(plan.phase_options)
                .iter()
                .map(|pass| match pass.times {
                    1.0 => pass.name.into(),
                    times => format!("{} ({times}×)", pass.name),
                })
                .collect();
            rows.push(("passes", passes.join(", ")));
        }
        rows
    }
}

/// Parts with their shares, largest first; what is under half a per cent is left out.
fn shares(parts: &[(&'static str, f64)]) -> String {
    let all: f64 = parts.iter().map(|(_, number)| number).sum();
    let mut parts: Vec<_> = parts.iter().filter(|(_, number)| *number >= 0.005 * all).collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let shown = parts
        .iter()
        .map(|(name, number)| format!("{} {:.0} %", name.replace('_', "-"), 100.0 * number / all));
    shown.collect::<Vec<_>>().join(", ")
}

/// `1.2 to 3.4 hours`, or one number where they look the same.
pub(super) fn range(numbers: Numbers, show: impl Fn(f64) -> String) -> String {
    let (low, high) = (show(numbers.low), show(numbers.high));
    if low == high {
        return low;
    }
    // A unit that both have is said once.
    match (low.split_once(' '), high.split_once(' ')) {
        (Some((number, unit)), Some((_, same))) if unit == same => format!("{number} to {high}"),
        _ => format!("{low} to {high}"),
    }
}

impl There {
    fn of(plan: &Plan, estimate: Estimate) -> There {
        let MemoryOptions { dtype, length, gpus, .. } = plan.memory;
        let one = |documents| serving(&plan.shape, dtype, &plan.gpu, plan.price, documents, length);
        let most = max_served_documents(&plan.shape, dtype, &plan.gpu, length);
        let generation =
            [Some(1), most.filter(|&most| most > 1)].into_iter().flatten().filter_map(one);
        There {
            gpu: Some(plan.gpu.title),
            gpus,
            mfu: Some(Numbers::of(estimate.mfu, Mfu::share)),
            gpu_hours: Some(estimate.gpu_time.typical.hours()),
            gpu_hours_range: Some(Numbers::of(estimate.gpu_time, Seconds::hours)),
            wall_seconds: Some(Numbers::of(estimate.wall_time, |time| time.0)),
            tokens_per_second: Some(Numbers::of(estimate.rate, |rate| rate.0)),
            money: estimate.money.map(|money| Numbers::of(money, |dollars| dollars.0)),
            kilowatt_hours: Some(Numbers::of(estimate.energy, Joules::kilowatt_hours)),
            co2_kg: Some(Numbers::of(estimate.co2, |kilograms| kilograms)),
            fits: Some(estimate.memory.total() <= estimate.available),
            largest_batch: estimate.max_documents,
            remedies: estimate
                .remedies
                .into_iter()
                .map(|remedy| Remedy { options: remedy.options, total: remedy.memory.0 })
                .collect(),
            generation: generation
                .map(|Serving { documents, rate, per_million, .. }| Generation {
                    documents,
                    tokens_per_second: Numbers::of(rate, |rate| rate.0),
                    dollars_per_million_tokens: per_million
                        .map(|money| Numbers::of(money, |dollars| dollars.0)),
                })
                .collect(),
        }
    }

    fn rows(&self, plan: &Plan) -> Vec<(&'static str, String)> {
        let (Some(hours), Some(mfu), Some(wall), Some(rate), Some(energy), Some(co2)) = (
            self.gpu_hours_range,
            self.mfu,
            self.wall_seconds,
            self.tokens_per_second,
            self.kilowatt_hours,
            self.co2_kg,
        ) else {
            return vec![("time", "unknown".into()), ("money", "unknown".into())];
        };
        let share = |share: f64| format!("{:.0} %", 100.0 * share);
        let in_gpu_hours = |hours: f64| in_hours(Seconds::from_hours(hours));
        let mut rows = vec![
            (
                "GPU time",
                format!(
                    "{} of a GPU, at {} of its peak of {} ({} at {})",
                    range(hours, in_gpu_hours),
                    range(Numbers { low: mfu.low, typical: mfu.typical, high: mfu.high }, share),
                    prefixed(plan.gpu.peak.0, "FLOP/s").replace('\u{a0}', " "),
                    in_gpu_hours(hours.typical),
                    share(mfu.typical),
                ),
            ),
            (
                "wall time",
                format!(
                    "{}, {} tokens/s",
                    range(wall, |seconds| in_time(Seconds(seconds))),
                    range(rate, counted)
                ),
            ),
        ];
        let money = match (self.money, plan.price) {
            (Some(money), Some(price)) => format!(
                "{} at ${:.2} an hour of a GPU",
                range(money, |dollars| in_dollars(Dollars(dollars))),
                price.dollars_per_hour()
            ),
            _ => "unknown: give --price".into(),
        };
        rows.push(("money", money));
        rows.push((
            "electricity",
            format!(
                "{}, {} of CO2 (at {:.0} W a GPU, {:.0} % more for the data centre, 0.05 to 0.7 \
                 kg/kWh)",
                range(energy, |hours| prefixed(1e3 * hours, "Wh").replace('\u{a0}', " ")),
                range(co2, |kilograms| prefixed(1e3 * kilograms, "g")
                    .replace("\u{a0}M", " t")
                    .replace("tg", "t")
                    .replace('\u{a0}', " ")),
                plan.gpu.power.0,
                100.0 * (POWER_USAGE_EFFECTIVENESS - 1.0),
            ),
        ));
        rows
    }

    fn generation_rows(&self, plan: &Plan) -> Vec<(&'static str, String)> {
        let row = |generation: &Generation| {
            let Generation { documents, tokens_per_second, dollars_per_million_tokens } =
                generation;
            let documents = match documents {
                1 => "one document".to_owned(),
                _ => format!("{documents} documents"),
            };
            let mut text = format!(
                "{documents} of up to {} tokens at a time: {} tokens/s",
                plan.memory.length,
                range(*tokens_per_second, counted),
            );
            if let Some(money) = dollars_per_million_tokens {
                let money = range(*money, |dollars| in_dollars(Dollars(dollars)));
                let _ = write!(text, ", {money} a million");
            }
            ("generation", text)
        };
        if self.gpu.is_some() && self.generation.is_empty() {
            return vec![("generation", "its weights do not fit on one GPU".into())];
        }
        self.generation.iter().map(row).collect()
    }
}

/// Parts of memory that there are.
pub(super) fn parts_of(memory: &Memory) -> String {
    let parts = memory.named().into_iter().filter(|(_, bytes)| bytes.0 > 0.0);
    let parts =
        parts.map(|(name, bytes)| format!("{} {}", name.replace('_', " "), in_bytes(bytes)));
    parts.collect::<Vec<_>>().join(", ")
}

fn memory_rows(estimate: &Estimate, known: bool) -> Vec<(&'static str, String)> {
    let Estimate { memory, available, max_documents, remedies, .. } = estimate;
    let total = memory.total();
    let mut rows =
        vec![("memory", format!("{} on each GPU: {}", in_bytes(total), parts_of(memory)))];
    if !known {
        return rows;
    }
    if total <= *available {
        let most = max_documents.unwrap_or(1);
        let documents = if most == 1 { "document" } else { "documents" };
        rows.push((
            "fits",
            format!(
                "yes, in the {} that it has for it; {most} {documents} at a time at most",
                in_bytes(*available)
            ),
        ));
        return rows;
    }
    rows.push(("fits", format!("NO: a GPU has {} for it", in_bytes(*available))));
    for remedy in remedies {
        rows.push(("fits with", format!("{} ({})", remedy.options, in_bytes(remedy.memory))));
    }
    if remedies.is_empty() {
        rows.push(("", "none of the options makes it fit".into()));
    }
    rows
}
