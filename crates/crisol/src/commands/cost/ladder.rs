//! `crisol cost ladder`: recipes of small runs, and what their losses say of larger ones.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use crisol_cost::fit::{LadderFit, Prediction, Rung};
use crisol_cost::units::{Flops, Seconds};
use crisol_hub::{HubError, json_error};
use crisol_phases::{LadderRung, Recipe, ladder};
use crisol_report::{
    LadderReport, MeasuredRung, ModelSummary, PhaseReport, PredictedLoss, Report, ladder_html,
    prefixed,
};
use owo_colors::OwoColorize as _;
use serde::{Deserialize, Serialize};

use super::{counted, flops, in_time};
use crate::calibration::Calibration;
use crate::clock;
use crate::commands::Threads;
use crate::commands::run::load;
use crate::console::{colour, harmless, print, print_json, print_line, say, shell_word};
use crate::datasets::find_all;
use crate::error::CliError;
use crate::language::language;
use crate::model::Network;

pub(super) const EXAMPLES: &str = "\
Examples:
  crisol cost ladder --write runs/ladder --recipe my.toml
  crisol cost ladder runs/ladder/rung-1 runs/ladder/rung-2 runs/ladder/rung-3 \\
    runs/ladder/rung-4 --to 1e16

A ladder is several pre-trainings of different sizes with equal tokens per parameter. --write
makes its recipes: the largest is the recipe's own model, the smallest has about a tenth of its
parameters. Given the finished runs, the command fits L(C) = E + A*C^-alpha to their held-out
losses and predicts larger runs with a 90 % interval (docs/cost.md). It needs four runs, and a
factor of 8 in compute from the smallest to the largest.

JSON: docs/json.md";

/// `crisol cost ladder`.
#[derive(Debug, Args)]
pub(crate) struct LadderArgs {
    /// Folders of finished runs, or of their pre-training phases
    #[arg(value_name = "RUN", required_unless_present = "write")]
    runs: Vec<PathBuf>,
    /// Write the recipes of a ladder into this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["runs", "to", "out"])]
    write: Option<PathBuf>,
    /// Recipe whose pre-training is scaled [default: the embedded one]
    #[arg(long, value_name = "FILE", requires = "write")]
    recipe: Option<PathBuf>,
    /// Number of runs
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        requires = "write",
        value_parser = clap::value_parser!(u8).range(4..=12),
    )]
    rungs: u8,
    #[command(flatten)]
    threads: Threads,
    /// Predict the loss at FLOPS operations too, such as 1e16
    #[arg(long, value_name = "FLOPS", allow_hyphen_values = true, value_parser = flops)]
    to: Option<Flops>,
    /// Page with the curve
    #[arg(long, value_name = "FILE", default_value = "ladder.html")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Multiples of the largest run whose loss is predicted.
const FURTHER: [f64; 3] = [4.0, 16.0, 64.0];
/// Points of the curve that are drawn.
const DRAWN: u32 = 36;
/// Tokens for each parameter may differ by this factor before it is said.
const SAME_RATIO: f64 = 1.2;

impl LadderArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        match &self.write {
            Some(folder) => self.write(folder),
            None => self.fit(),
        }
    }

    fn write(&self, folder: &Path) -> Result<(), CliError> {
        // Before any text is encoded.
        let threads = self.threads.device()?.threads();
        let (name, recipe) = match &self.recipe {
            Some(path) => {
                // HF_HUB_OFFLINE says so where nothing is to be fetched.
                let network = Network { offline: false };
                let mut recipe = load(path, network)?;
                find_all(&mut recipe, network)?;
                (path.display().to_string(), recipe)
            }
            None => ("the embedded recipe".to_owned(), Recipe::embedded()),
        };
        let files: Vec<PathBuf> =
            (1..=self.rungs).map(|rung| folder.join(format!("rung-{rung}.toml"))).collect();
        if let Some(file) = files.iter().find(|file| file.exists()) {
            let problem = "exists and is never overwritten; choose another folder with --write";
            return Err(CliError::Place { path: file.clone(), problem: problem.into() });
        }
        let rungs = ladder(&recipe, self.rungs.into())
            .map_err(|source| CliError::Ladder { recipe: name, source: Box::new(source) })?;
        fs::create_dir_all(folder).map_err(|e| HubError::io("create", folder, e))?;
        for (file, rung) in files.iter().zip(&rungs) {
            crisol_hub::write_file_atomically(file, rung.recipe.to_toml().as_bytes())?;
        }
        let machine = Calibration::load(threads).map(|calibration| calibration.rates());
        let planned = files.iter().zip(&rungs).map(|(file, rung)| Planned {
            recipe: file.display().to_string(),
            parameters: rung.shape.parameters().total(),
            tokens: rung.tokens,
            flops: rung.work.training.0,
            seconds: machine
                .as_ref()
                .and_then(|m| m.time(&rung.shape, &rung.work))
                .map(|time| time.0),
        });
        let planned = Plan { rungs: planned.collect() };
        if self.json { print_json(&planned) } else { print(planned.text(&rungs, folder)) }
    }

    fn fit(&self) -> Result<(), CliError> {
        let mut runs =
            self.runs.iter().map(|run| Measured::read(run)).collect::<Result<Vec<_>, _>>()?;
        runs.sort_by(|a, b| a.phase.flops.total_cmp(&b.phase.flops));
        check_vocabularies(&runs)?;
        let rungs: Vec<Rung> =
            runs.iter().map(|run| Rung { flops: Flops(run.phase.flops), loss: run.loss }).collect();
        let fit = LadderFit::new(&rungs).map_err(|problem| CliError::Usage(problem.to_string()))?;
        warn_of_ratios(&runs);
        let report = report(&fit, &runs, self.to);
        crisol_hub::write_file_atomically(&self.out, ladder_html(&report, language()).as_bytes())?;
        if self.json {
            return print_json(&report);
        }
        print(text(&report))?;
        print_line(format_args!("\nThe curve: {}", self.out.display()))
    }
}

/// What `--json` prints of recipes.
#[derive(Serialize)]
struct Plan {
    rungs: Vec<Planned>,
}

#[derive(Serialize)]
struct Planned {
    recipe: String,
    parameters: f64,
    tokens: usize,
    flops: f64,
    seconds: Option<f64>,
}

impl Plan {
    fn text(&self, rungs: &[LadderRung], folder: &Path) -> String {
        let mut out = heading(&format!(
            "{:<6} {:>24} {:>10} {:>8} {:>16} {:>12} {:>9}",
            "rung", "model", "parameters", "tokens", "tokens/parameter", "compute", "time"
        ));
        let mut commands = String::new();
        let mut fit = String::from("crisol cost ladder");
        for (place, (planned, rung)) in self.rungs.iter().zip(rungs).enumerate() {
            let Planned { recipe, parameters, tokens, flops, seconds } = planned;
            let model = &rung.recipe.run.model;
            let _ = writeln!(
                out,
                "{:<6} {:>24} {:>10} {:>8} {:>16.1} {:>12} {:>9}",
                place + 1,
                format!("{} layers of width {}", model.layers, model.hidden_size),
                counted(*parameters),
                counted(*tokens as f64),
                *tokens as f64 / parameters,
                compute(*flops),
                seconds.map_or("–".into(), |seconds| in_time(Seconds(seconds))),
            );
            let run = shell_word(&folder.join(format!("rung-{}", place + 1)).to_string_lossy());
            let _ = writeln!(commands, "  crisol run {} --out {run}", shell_word(recipe));
            let _ = write!(fit, " {run}");
        }
        if self.rungs.iter().any(|rung| rung.seconds.is_none()) {
            out += "Times are known after: crisol cost --calibrate\n";
        }
        let page = shell_word(&folder.join("ladder.html").to_string_lossy());
        let _ = write!(out, "\nRun them, then fit the curve:\n{commands}  {fit} --out {page}\n");
        out
    }
}

/// What a finished run says of its pre-training.
struct Measured {
    folder: String,
    model: ModelSummary,
    phase: PhaseReport,
    /// On held-out text.
    loss: f64,
}

/// A phase's own file, as far as it matters here.
#[derive(Deserialize)]
struct PhaseFile {
    report: PhaseReport,
    model: ModelSummary,
}

impl Measured {
    /// Reads a run's `report.json`, or a phase's `phase.json`.
    fn read(folder: &Path) -> Result<Measured, CliError> {
        let wrong =
            |path: &Path, problem: String| CliError::Place { path: path.to_owned(), problem };
        let file = folder.join("phase.json");
        let (model, phases) = if file.exists() {
            let text = fs::read_to_string(&file).map_err(|e| HubError::io("read", &file, e))?;
            let PhaseFile { report, model } = serde_json::from_str(&text).map_err(|e| {
                wrong(
                    &file,
                    format!(
                        "not the record of a finished phase: {}; give the folder of a finished run",
                        json_error(&e)
                    ),
                )
            })?;
            (model, vec![report])
        } else {
            let Report { model, phases, .. } = Report::load(&folder.join("report.json"))?;
            (model, phases)
        };
        let phase = phases.into_iter().find(|phase| phase.kind == "pretrain").ok_or_else(|| {
            wrong(
                folder,
                "no phase of kind pretrain is finished in it; a ladder is of pre-training".into(),
            )
        })?;
        let loss = phase.metrics.get("validation_loss").copied().filter(|loss| loss.is_finite());
        let loss = loss.ok_or_else(|| {
            let problem =
                "its pre-training has no loss on held-out text (validation_loss); name files in \
                 `heldout`";
            wrong(folder, problem.into())
        })?;
        if !(phase.flops.is_finite() && phase.flops > 0.0)
            || phase.tokens == 0
            || model.parameters == 0
        {
            let problem =
                "its report does not say how many operations, tokens and parameters it took";
            return Err(wrong(folder, problem.into()));
        }
        Ok(Measured { folder: folder.display().to_string(), model, phase, loss })
    }

    /// Tokens for each parameter.
    fn ratio(&self) -> f64 {
        self.phase.tokens as f64 / self.model.parameters as f64
    }
}

/// Losses are for each token, and tokens of different vocabularies are not the same.
fn check_vocabularies(runs: &[Measured]) -> Result<(), CliError> {
    let Some((first, other)) = runs
        .iter()
        .find_map(|run| Some((&runs[0], run)).filter(|(a, b)| a.model.vocab != b.model.vocab))
    else {
        return Ok(());
    };
    Err(CliError::Usage(format!(
        "{} has a vocabulary of {} tokens and {} one of {}: their losses for each token cannot be \
         compared; runs of a ladder have the same tokenizer",
        first.folder, first.model.vocab, other.folder, other.model.vocab
    )))
}

fn warn_of_ratios(runs: &[Measured]) {
    let by_ratio = |a: &&Measured, b: &&Measured| a.ratio().total_cmp(&b.ratio());
    let (Some(least), Some(most)) = (runs.iter().min_by(by_ratio), runs.iter().max_by(by_ratio))
    else {
        return;
    };
    if most.ratio() > SAME_RATIO * least.ratio() {
        say(format_args!(
            "warning: {} has {:.1} tokens for each parameter and {} {:.1}: the curve is for runs \
             with as many, so do not trust its predictions",
            least.folder,
            least.ratio(),
            most.folder,
            most.ratio()
        ));
    }
}

fn report(fit: &LadderFit, runs: &[Measured], to: Option<Flops>) -> LadderReport {
    let flops = |run: &Measured| run.phase.flops;
    let (least, largest) = (flops(&runs[0]), flops(&runs[runs.len() - 1]));
    let predict = |flops: f64| {
        let Prediction { low, expected, high } = fit.predict(Flops(flops));
        // No loss is below 0, whatever a wide interval says.
        PredictedLoss { flops, times: flops / largest, low: low.max(0.0), expected, high }
    };
    let mut ahead: Vec<f64> = FURTHER.iter().map(|times| times * largest).collect();
    ahead.extend(to.map(|to| to.0));
    ahead.sort_by(f64::total_cmp);
    let furthest = ahead[ahead.len() - 1];
    let drawn =
        (0..=DRAWN).map(|i| least * (furthest / least).powf(f64::from(i) / f64::from(DRAWN)));
    LadderReport {
        crisol: env!("CARGO_PKG_VERSION").into(),
        created: clock::now(),
        limit: fit.limit(),
        exponent: fit.exponent(),
        rungs: runs
            .iter()
            .map(|run| MeasuredRung {
                run: run.folder.clone(),
                parameters: run.model.parameters,
                tokens: run.phase.tokens,
                flops: flops(run),
                loss: run.loss,
                fitted: predict(flops(run)).expected,
            })
            .collect(),
        predictions: ahead.into_iter().map(predict).collect(),
        curve: drawn.map(predict).collect(),
    }
}

fn text(report: &LadderReport) -> String {
    let width = report.rungs.iter().map(|rung| rung.run.chars().count()).max().unwrap_or(0).max(16);
    let mut out = heading(&format!(
        "{:<width$} {:>10} {:>8} {:>16} {:>12} {:>9} {:>9}",
        "run", "parameters", "tokens", "tokens/parameter", "compute", "measured", "fitted"
    ));
    for MeasuredRung { run, parameters, tokens, flops, loss, fitted } in &report.rungs {
        let (run, parameters, tokens) = (harmless(run), *parameters as f64, *tokens as f64);
        let _ = writeln!(
            out,
            "{run:<width$} {:>10} {:>8} {:>16.1} {:>12} {loss:>9.3} {fitted:>9.3}",
            counted(parameters),
            counted(tokens),
            tokens / parameters,
            compute(*flops),
        );
    }
    let _ = writeln!(
        out,
        "\nlimit {:.3} nats a token{}, exponent of compute {:.3}\n",
        report.limit,
        if report.shows_no_limit() { " (these runs show none)" } else { "" },
        report.exponent
    );
    out += &heading(&format!(
        "{:<16} {:>12} {:>9}   {}",
        "times the largest", "compute", "expected", "90 % interval"
    ));
    for PredictedLoss { flops, times, low, expected, high } in &report.predictions {
        let times = format!("{}×", counted(*times));
        let _ = writeln!(
            out,
            "{times:<16} {:>12} {expected:>9.3}   {low:.3} to {high:.3}",
            compute(*flops)
        );
    }
    out
}

/// Operations, for people.
fn compute(flops: f64) -> String {
    prefixed(flops, "FLOP").replace('\u{a0}', " ")
}

/// The first line of a table.
fn heading(line: &str) -> String {
    if colour() { format!("{}\n", line.dimmed()) } else { format!("{line}\n") }
}
