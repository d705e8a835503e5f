//! `crisol cost` alone: the workshop's table of what pre-training cost, rebuilt from formulas, and
//! how a project's hours are shared.

use std::fmt::Write as _;

use crisol_cost::hardware::{DENSE_MFU, Gpu, MIXTURE_MFU, Mfu};
use crisol_cost::runs::{
    DEEPSEEK_V3_SHARES, GpuHours, OLMO_2_1B_POST_TRAINING, OLMO_2_1B_TOKENS, PUBLIC_RUNS, PublicRun,
};
use crisol_cost::units::{Dollars, FlopsPerToken, Seconds};
use crisol_cost::{known, phases};
use owo_colors::OwoColorize as _;
use serde::Serialize;

use super::plan::Numbers;
use super::{counted, in_dollars};
use crate::console::{colour, print, print_json};
use crate::error::CliError;

/// What `--json` prints.
#[derive(Serialize)]
struct Answer {
    runs: Vec<Run>,
    /// Hours of DeepSeek-V3, by what they were for.
    deepseek_v3: Vec<Part>,
    /// Hours of OLMo-2 1B's pre-training (an estimate), then of its post-training (as reported).
    olmo_2_1b: Vec<Part>,
}

#[derive(Serialize)]
struct Run {
    model: &'static str,
    parameters_total: f64,
    parameters_active: f64,
    tokens: f64,
    gpu: &'static str,
    reported_gpu_hours: f64,
    /// What the reported hours imply.
    implied_mfu: Option<f64>,
    /// By what well-tuned runs of such models reach.
    predicted_gpu_hours: Numbers,
    /// As the workshop's notebook says.
    reported_dollars: Option<f64>,
    /// For the reported hours.
    predicted_dollars: Option<f64>,
    source: &'static str,
}

#[derive(Serialize)]
struct Part {
    name: &'static str,
    gpu_hours: f64,
    share: f64,
}

impl Run {
    fn of(run: &PublicRun) -> Run {
        let shape = run.shape();
        let class = if shape.is_mixture() { MIXTURE_MFU } else { DENSE_MFU };
        Run {
            model: run.model,
            parameters_total: shape.parameters().total(),
            parameters_active: shape.active_parameters().total(),
            tokens: run.tokens.0,
            gpu: run.gpu().title,
            reported_gpu_hours: run.gpu_hours,
            implied_mfu: run.implied_mfu().map(Mfu::share),
            predicted_gpu_hours: Numbers::of(class.invert(|mfu| run.hours_at(mfu)), |hours| hours),
            reported_dollars: run.dollars.map(|dollars| dollars.0),
            predicted_dollars: run.predicted_dollars(run.gpu_hours).map(|dollars| dollars.0),
            source: run.source,
        }
    }
}

fn hours(shares: &[GpuHours]) -> Vec<Part> {
    let all: f64 = shares.iter().map(|share| share.gpu_hours).sum();
    let hours = |share: &GpuHours| Part {
        name: share.name,
        gpu_hours: share.gpu_hours,
        share: share.gpu_hours / all,
    };
    shares.iter().map(hours).collect()
}

/// Hours of OLMo-2 1B's pre-training on H100s, which are not published: by the planner's defaults.
fn olmo_pre_training() -> GpuHours {
    let shape = known::named("olmo-2-1b").expect("a known model").shape;
    let peak = Gpu::named("h100").expect("a known GPU").peak;
    let flops =
        FlopsPerToken(phases::TRAINING * 2.0 * shape.matmul_parameters()) * OLMO_2_1B_TOKENS;
    let time: Seconds = flops / (peak * DENSE_MFU.typical.share());
    GpuHours { name: "pre-training (estimated)", gpu_hours: time.hours() }
}

pub(super) fn run(json: bool) -> Result<(), CliError> {
    let olmo: Vec<GpuHours> =
        std::iter::once(olmo_pre_training()).chain(OLMO_2_1B_POST_TRAINING).collect();
    let answer = Answer {
        runs: PUBLIC_RUNS.iter().map(Run::of).collect(),
        deepseek_v3: hours(&DEEPSEEK_V3_SHARES),
        olmo_2_1b: hours(&olmo),
    };
    if json { print_json(&answer) } else { print(answer.text(colour())) }
}

impl Answer {
    fn text(&self, colour: bool) -> String {
        let mut out =
            String::from("What pre-training cost, by those who did it and by formula\n\n");
        let heading = format!(
            "{:<17} {:>7} {:>7} {:>7}  {:<10} {:>9} {:>6} {:>19} {:>9} {:>9}",
            "model",
            "params",
            "active",
            "tokens",
            "GPU",
            "GPU-hours",
            "MFU",
            "predicted",
            "cost",
            "predicted"
        );
        let _ = writeln!(out, "{}", if colour { heading.dimmed().to_string() } else { heading });
        for run in &self.runs {
            let short = |hours: f64| counted(hours);
            let Numbers { low, high, .. } = run.predicted_gpu_hours;
            let money = |dollars: Option<f64>| {
                dollars.map_or("–".into(), |dollars| in_dollars(Dollars(dollars)))
            };
            let _ = writeln!(
                out,
                "{:<17} {:>7} {:>7} {:>7}  {:<10} {:>9} {:>6} {:>19} {:>9} {:>9}",
                run.model,
                counted(run.parameters_total),
                counted(run.parameters_active),
                counted(run.tokens),
                run.gpu,
                short(run.reported_gpu_hours),
                run.implied_mfu.map_or("–".into(), |mfu| format!("{:.1} %", 100.0 * mfu)),
                format!("{} to {}", short(low), short(high)),
                money(run.reported_dollars),
                money(run.predicted_dollars),
            );
        }
        out += "
MFU is implied by the reported hours: 6 operations per active parameter and token
over the bf16 peak. Predicted hours assume an MFU of 30 to 45 % (dense models) or 20
to 35 % (mixtures of experts). Predicted cost is the reported hours at the workshop's
prices: $1.63 (A100), $2.40 (H100), $2.00 (H800). Llama 4 counts its text part only.

Who gets the hours
";
        for (model, shares) in [("deepseek-v3", &self.deepseek_v3), ("olmo-2-1b", &self.olmo_2_1b)]
        {
            let parts = shares
                .iter()
                .map(|Part { name, gpu_hours, share }| {
                    let percent = if *share < 0.01 {
                        format!("{:.2} %", 100.0 * share)
                    } else {
                        format!("{:.1} %", 100.0 * share)
                    };
                    format!("{name} {percent} ({})", counted(*gpu_hours))
                })
                .collect::<Vec<_>>();
            let _ = writeln!(out, "{model:<12} {}", parts.join(", "));
        }
        out += "
Pre-training takes some 95 % of DeepSeek-V3's hours. Most of the rest extended its
context; post-training took 0.18 %. That is no law: OLMo-2 1B's reinforcement learning
(RLVR) took 1,376 hours, because answers are sampled token by token, while pre-training
a model of that size takes few.

Sources and formulas: docs/cost.md. Your own model: crisol cost MODEL --tokens 2T
";
        out
    }
}
