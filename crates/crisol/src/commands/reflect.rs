//! `crisol reflect`: the workshop's question about recommenders, as an experiment. The same model
//! is aligned by the same phase to several objectives; then all are measured on held-out readers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use crisol_phases::{Owner, PhaseError};
use crisol_reflect::{Experiment, Scale, Split};
use crisol_report::Report;

use super::run::{Caller, RunFlags, absolute, execute_for};
use crate::clock;
use crate::console::{layout, print, print_line, say, shell_word};
use crate::error::CliError;
use crate::hub::Need;
use crate::language::language;
use crate::model::{Network, check_folder, locate};
use crate::texts::texts;

const EXAMPLES: &str = "\
Examples:
  crisol reflect                                  the model of `crisol run`, into runs/reflect
  crisol reflect runs/mine/2-sft --out runs/feed --seed 2
  crisol reflect --lang es

Takes some two minutes on two cores. A copy of the model is aligned to predicted clicks and
seconds, one to what readers say an item was worth, one to both, three to clicks with a guard rail.
What the figures are of, readers and subjects, never earned a reward. --out gets reflect.html,
report.json and a checkpoint per objective; Ctrl-C saves, --resume goes on.

What it means, and its limits: docs/reflect.md. JSON: docs/json.md";

/// The model that `crisol run` leaves where nothing else is said.
const DEFAULT_MODEL: &str = "runs/crisol-world/3-reason";

/// `crisol reflect`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReflectArgs {
    /// Folder 2-sft or 3-reason of a run
    #[arg(default_value = DEFAULT_MODEL)]
    model: PathBuf,
    /// Folder of the results [default: runs/reflect, or runs/reflect-seedN]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Steps of GRPO for each objective
    #[arg(long, value_name = "N", default_value_t = Scale::default().steps)]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    steps: usize,
    /// Conversations that teach the base the form of answers
    #[arg(long, value_name = "N", default_value_t = Scale::default().examples)]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    examples: usize,
    /// Held-out split to measure on: test, or dev to choose settings
    #[arg(long, value_name = "SPLIT", default_value = "test", value_parser = split)]
    split: Split,
    #[command(flatten)]
    flags: RunFlags,
    #[command(flatten)]
    network: Network,
    /// Print report.json instead of the summary
    #[arg(long)]
    json: bool,
}

fn split(text: &str) -> Result<Split, &'static str> {
    match text {
        "dev" => Ok(Split::Dev),
        "test" => Ok(Split::Test),
        _ => Err("dev or test is needed"),
    }
}

impl ReflectArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let seed = self.flags.seed().unwrap_or(1);
        let out = self.out.clone().unwrap_or_else(|| match seed {
            1 => "runs/reflect".into(),
            seed => format!("runs/reflect-seed{seed}").into(),
        });
        if self.model == Path::new(DEFAULT_MODEL) && !self.model.exists() {
            return Err(CliError::Place {
                path: self.model,
                problem: "there is no such model yet; train it with `crisol run` (some ten \
                          minutes), or name the 2-sft or 3-reason folder of a run"
                    .into(),
            });
        }
        let model = check_folder(&locate(&self.model, Need::Whole, self.network)?)?;
        if !self.flags.resume && crisol_phases::holds_work(&out)? {
            return Err(PhaseError::RunExists { out }.into());
        }
        let scale = Scale { steps: self.steps, examples: self.examples, ..Scale::default() };
        let experiment = Experiment::new(&out, seed, scale);
        experiment.write_data(self.flags.resume)?;
        let recipe = experiment.recipe(&absolute(&model)?, &absolute(&out)?, scale)?;
        let device = self.flags.device()?;
        let caller = Caller { resume: self.command(seed), reward: Some(experiment.reward()) };
        let given = Some(recipe.clone());
        let mut report = execute_for(&caller, given, &out, &self.flags, self.network, &device)?;
        let begin = |model: &str| say(format_args!("measuring {model}"));
        report.reflect = Some(experiment.measure(&recipe, self.split, &device, begin)?);
        save(&report, &out)?;
        if self.json { print(report.to_json()) } else { show(&report, &out) }
    }

    /// The command that resumes the experiment.
    fn command(&self, seed: u64) -> String {
        let mut command = format!("crisol reflect {}", shell_word(&self.model.to_string_lossy()));
        if seed != 1 {
            let _ = write!(command, " --seed {seed}");
        }
        let default = Scale::default();
        if self.steps != default.steps {
            let _ = write!(command, " --steps {}", self.steps);
        }
        if self.examples != default.examples {
            let _ = write!(command, " --examples {}", self.examples);
        }
        command + " --resume"
    }
}

/// The experiment's page.
pub(super) const PAGE: &str = "reflect.html";

/// Writes the report of the run, and the experiment's page.
fn save(report: &Report, out: &Path) -> Result<(), CliError> {
    let _owner = Owner::take(out, &clock::now())?;
    crisol_phases::save_report(report, out, language())?;
    save_page(report, out)
}

/// Writes the experiment's page, if the report has an experiment.
pub(super) fn save_page(report: &Report, out: &Path) -> Result<(), CliError> {
    if report.reflect.is_some() {
        let page = crisol_report::reflect_html(report, language());
        crisol_hub::write_file_atomically(&out.join(PAGE), page.as_bytes())?;
    }
    Ok(())
}

fn show(report: &Report, out: &Path) -> Result<(), CliError> {
    if let Some(reflect) = &report.reflect {
        print(crisol_report::reflect_summary(reflect, layout()))?;
    }
    print_line(format_args!("\n{}", (texts().notebook.whole_report)([&out.join(PAGE).display()])))
}
