//! `crisol cost --budget`: how large a model to train for how long.

use std::fmt::Write as _;

use crisol_cost::hardware::{DENSE_MFU, Gpu};
use crisol_cost::scaling::{Alternative, BESIROGLU, LAWS, Size, alternatives};
use crisol_cost::units::{Dollars, Flops, Seconds};
use owo_colors::OwoColorize as _;
use serde::Serialize;

use super::{BudgetArgs, HardwareArgs, counted, in_dollars, in_hours, unknown_gpu};
use crate::console::{colour, print, print_json};
use crate::error::CliError;

/// Fractions and multiples of the best size that are shown.
const FACTORS: [f64; 6] = [2.0, 1.0, 0.5, 0.25, 0.125, 0.0625];

/// What `--json` prints.
#[derive(Serialize)]
struct Answer {
    flops: f64,
    gpu: &'static str,
    mfu: f64,
    gpu_hours: f64,
    dollars: Option<f64>,
    optima: Vec<Optimum>,
    alternatives: Vec<Other>,
}

#[derive(Serialize)]
struct Optimum {
    law: &'static str,
    parameters: f64,
    tokens: f64,
}

#[derive(Serialize)]
struct Other {
    parameters: f64,
    tokens: f64,
    /// In nats a token, by the fit of Besiroglu et al.
    loss: f64,
    loss_above_best: f64,
    /// Over the best size's.
    inference_flops: f64,
    /// Over this budget; null where this size never gets there.
    budget_for_best_loss: Option<f64>,
    /// Tokens of inference; null where it never does.
    pays_after_tokens: Option<f64>,
}

pub(super) fn run(
    budget: &BudgetArgs,
    hardware: &HardwareArgs,
    json: bool,
) -> Result<(), CliError> {
    let gpu =
        Gpu::named(&hardware.gpu).ok_or_else(|| CliError::Usage(unknown_gpu(&hardware.gpu)))?;
    let mfu = hardware.mfu_of_gpu()?.unwrap_or(DENSE_MFU.typical);
    let price = hardware.price.or(gpu.price());
    let time = match (budget.budget, budget.gpu_hours, budget.money) {
        (Some(flops), ..) => flops / (gpu.peak * mfu.share()),
        (_, Some(time), _) => time,
        (.., Some(money)) => {
            let price = price.ok_or_else(|| {
                let title = gpu.title;
                CliError::Usage(format!(
                    "no price of a {title} is known. Give --price in dollars per GPU hour, such as \
                     --price 2.5"
                ))
            })?;
            money / price
        }
        (None, None, None) => unreachable!("called with one of them"),
    };
    let flops: Flops = budget.budget.unwrap_or(gpu.peak * mfu.share() * time);
    let answer = Answer {
        flops: flops.0,
        gpu: gpu.title,
        mfu: mfu.share(),
        gpu_hours: time.hours(),
        dollars: price.map(|price| (price * time).0),
        optima: LAWS
            .iter()
            .map(|law| {
                let Size { parameters, tokens } = law.optimum(flops);
                Optimum { law: law.name(), parameters, tokens: tokens.0 }
            })
            .collect(),
        alternatives: alternatives(&BESIROGLU, flops, &FACTORS).iter().map(Other::of).collect(),
    };
    if json { print_json(&answer) } else { print(answer.text(gpu, time, colour())) }
}

impl Other {
    fn of(alternative: &Alternative) -> Other {
        Other {
            parameters: alternative.size.parameters,
            tokens: alternative.size.tokens.0,
            loss: alternative.loss,
            loss_above_best: alternative.loss_above,
            inference_flops: alternative.inference,
            budget_for_best_loss: alternative.budget_for_same_loss,
            pays_after_tokens: alternative.pays_after.map(|tokens| tokens.0),
        }
    }
}

impl Answer {
    fn text(&self, gpu: &Gpu, time: Seconds, colour: bool) -> String {
        let money = self
            .dollars
            .map_or(String::new(), |dollars| format!(", {}", in_dollars(Dollars(dollars))));
        let mut out = format!(
            "{:.2e} FLOP: {} of a {} at {:.0} % of its peak{money}\n\n",
            self.flops,
            in_hours(time),
            gpu.title,
            100.0 * self.mfu
        );
        let dimmed = |line: String| if colour { line.dimmed().to_string() } else { line };
        let heading = format!(
            "{:<46} {:>10} {:>8} {:>16}",
            "the best model for it", "parameters", "tokens", "tokens/parameter"
        );
        let _ = writeln!(out, "{}", dimmed(heading));
        for Optimum { law, parameters, tokens } in &self.optima {
            let ratio = tokens / parameters;
            let _ = writeln!(
                out,
                "{law:<46} {:>10} {:>8} {ratio:>16.1}",
                counted(*parameters),
                counted(*tokens)
            );
        }
        let heading = format!(
            "{:>10} {:>8} {:>6} {:>7} {:>10} {:>22} {:>22}",
            "parameters",
            "tokens",
            "loss",
            "above",
            "inference",
            "budget for best loss",
            "pays after generating"
        );
        let _ = write!(
            out,
            "\nOther sizes for the same budget, by the last law\n{}\n",
            dimmed(heading)
        );
        for other in &self.alternatives {
            let _ = writeln!(
                out,
                "{:>10} {:>8} {:>6.3} {:>+7.3} {:>9.2}× {:>22} {:>22}",
                counted(other.parameters),
                counted(other.tokens),
                other.loss,
                other.loss_above_best,
                other.inference_flops,
                other.budget_for_best_loss.map_or("never".into(), |factor| format!("{factor:.2}×")),
                match other.pays_after_tokens {
                    Some(0.0) => "–".into(),
                    Some(tokens) => format!("{} tokens", counted(tokens)),
                    None => "never".into(),
                },
            );
        }
        out += "
Loss: nats a token of Chinchilla's data; compare differences only. A smaller model
is worse for the same budget and cheaper in use. Trained for longer (\"budget for
best loss\") it reaches the best loss, and pays off after the tokens of the last
column. Approaches 1 to 3: Hoffmann et al. 2022, arXiv:2203.15556; refitted by
Besiroglu et al. 2024, arXiv:2404.10102.
";
        out
    }
}
