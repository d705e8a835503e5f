//! `crisol run`: a recipe from beginning to end. The commands of single phases run through
//! [`execute`] too.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use crisol_engine::Device;
use crisol_phases::{
    AnswerReward, PhaseError, PhaseForecast, PhaseSettings, Recipe, RunOptions, RunSettings,
};
use crisol_report::{Next, PhaseReport, Report};
use crisol_train::TrainError;

use super::Threads;
use crate::calibration::Calibration;
use crate::console::{print, shell_word};
use crate::datasets::find_all;
use crate::error::CliError;
use crate::hub::{ModelId, Need};
use crate::language::language;
use crate::model::{Network, locate};
use crate::progress::{Progress, duration, memory, operations};
use crate::texts::texts;
use crate::{clock, console, ctrl_c};

const EXAMPLES: &str = "\
Examples:
  crisol run                              the embedded recipe and data, into runs/crisol-world
  crisol run my.toml --out runs/mine --seed 3
  crisol run --resume --out runs/mine     resume after a stop or crash

`crisol data export DIR` writes a recipe with every setting. Paths in a recipe are relative to
its folder. Data may be hf://datasets/ORG/NAME, and the base a model on a hub.

The folder of a run holds recipe.toml (every default written out), a checkpoint per phase,
report.html and report.json. One process writes to it at a time. A resumed run keeps its data,
models and settings. Editable in its recipe.toml: optimizer settings of the phase under way, and
all settings of phases that have not begun.

JSON: docs/json.md";

/// The recipe's name and folder where none is given.
const DEFAULT_NAME: &str = "crisol-world";

/// `crisol run`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// Recipe (TOML) [default: the embedded one; with --resume, the run's own]
    recipe: Option<PathBuf>,
    /// Folder of the run [default: runs/NAME, or runs/NAME-seedN if N is not 1]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    flags: RunFlags,
    #[command(flatten)]
    network: Network,
    /// Print report.json instead of the summary
    #[arg(long)]
    json: bool,
}

/// What all commands that train have in common.
#[derive(Debug, Args)]
pub(crate) struct RunFlags {
    // Recipes are TOML, whose whole numbers are signed.
    /// Random seed [default: `seed` of the recipe, else 1]
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64),
    )]
    seed: Option<u64>,
    #[command(flatten)]
    threads: Threads,
    /// Resume the run in the folder; the result has the same bits
    #[arg(long)]
    pub(super) resume: bool,
    /// Write TensorBoard event files too
    #[arg(long)]
    tensorboard: bool,
    /// Start even if the forecast exceeds free memory or a million steps
    #[arg(long)]
    force: bool,
}

impl RunFlags {
    /// The seed of the command line.
    pub(super) fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// The device of a run.
    pub(super) fn device(&self) -> Result<Device, CliError> {
        self.threads.device()
    }

    /// Lays what the command line says over a recipe.
    fn apply(&self, recipe: &mut Recipe) {
        recipe.run.seed = self.seed.unwrap_or(recipe.run.seed);
        recipe.run.tensorboard |= self.tensorboard;
    }
}

impl RunArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let given = self.recipe.as_deref().map(|path| load(path, self.network)).transpose()?;
        let out = self.out.unwrap_or_else(|| {
            let mut name = match &self.recipe {
                Some(path) => path.file_stem().unwrap_or(path.as_os_str()).to_owned(),
                None => DEFAULT_NAME.into(),
            };
            let seed = self.flags.seed.or(given.as_ref().map(|recipe| recipe.run.seed));
            // So that runs that differ in their seeds alone do not meet.
            if let Some(seed) = seed.filter(|seed| *seed != RunSettings::default().seed) {
                name.push(format!("-seed{seed}"));
            }
            Path::new("runs").join(name)
        });
        let recipe = match given {
            None if self.flags.resume => recorded(&out)?,
            None => Some(Recipe::embedded()),
            given => given,
        };
        let report = execute(recipe, &out, &self.flags, self.network)?;
        if self.json { print(report.to_json()) } else { show(&report, &out) }
    }
}

/// The recipe of the run in a folder. Where there is none, [`execute`] says what is missing.
pub(super) fn recorded(out: &Path) -> Result<Option<Recipe>, CliError> {
    let file = out.join("recipe.toml");
    Ok(if file.exists() { Some(Recipe::load(&file)?) } else { None })
}

/// Shows the summary of a run, which ends with what to do next.
pub(super) fn show(report: &Report, folder: &Path) -> Result<(), CliError> {
    print(crisol_report::summary(report, &next_steps(report, folder), console::layout()))
}

/// What to do with a finished run.
fn next_steps(report: &Report, folder: &Path) -> Vec<Next> {
    let step = |purpose, command| Next { purpose, command };
    let texts = &texts().next;
    let place = |name: &str| shell_word(&folder.join(name).to_string_lossy());
    // Checkpoints are numbered by their depth in the tree of phases.
    let depth = |phase: &PhaseReport| {
        phase.checkpoint.split('-').next().and_then(|depth| depth.parse::<u32>().ok())
    };
    let speaks = |phase: &&PhaseReport| phase.kind != "reward";
    let last = report.phases.iter().filter(speaks).max_by_key(|phase| depth(phase));
    let first = match (last, report.phases.last()) {
        (Some(base), _) if base.kind == "pretrain" => Some(step(
            texts.generate,
            format!("crisol generate {} --prompt \"The sky is\"", place(&base.checkpoint)),
        )),
        (Some(last), _) => {
            Some(step(texts.chat, format!("crisol chat {}", place(&last.checkpoint))))
        }
        (None, Some(reward)) => {
            Some(step(texts.eval, format!("crisol eval {} --data FILE", place(&reward.checkpoint))))
        }
        (None, None) => None,
    };
    let folder_word = shell_word(&folder.to_string_lossy());
    first
        .into_iter()
        .chain([
            step(texts.report, folder.join("report.html").display().to_string()),
            step(texts.full, format!("crisol report {folder_word} --full")),
        ])
        .collect()
}

/// Loads a recipe. Its paths are relative to its own folder, so that folder and recipe can be moved
/// together. A base that is no path there may be a model on a hub.
pub(super) fn load(path: &Path, network: Network) -> Result<Recipe, CliError> {
    let mut recipe = Recipe::load(path)?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let anchor = |place: &mut String| -> Result<(), CliError> {
        *place = absolute(&folder.join(&*place))?;
        Ok(())
    };
    if recipe.run.data != "world" {
        anchor(&mut recipe.run.data)?;
    }
    if !recipe.run.text.chat_template.is_empty() {
        anchor(&mut recipe.run.text.chat_template)?;
    }
    let base = &mut recipe.run.base;
    if !base.is_empty() {
        let on_hub = base.parse::<ModelId>().is_ok()
            && !crisol_hub::resolve_folder(&folder.join(&*base))?.exists();
        if on_hub {
            *base = absolute(&locate(Path::new(base), Need::Whole, network)?)?;
        } else {
            anchor(base)?;
        }
    }
    let names: Vec<String> = recipe.phases.iter().map(|phase| phase.name.clone()).collect();
    for phase in &mut recipe.phases {
        if let PhaseSettings::Ppo(ppo) = &mut phase.settings
            && !names.contains(&ppo.reward_model)
        {
            anchor(&mut ppo.reward_model)?;
        }
    }
    Ok(recipe)
}

/// A path that means the same from everywhere, as text for a recipe.
pub(super) fn absolute(path: &Path) -> Result<String, CliError> {
    let wrong = |problem: String| CliError::Place { path: path.to_owned(), problem };
    let absolute = std::path::absolute(path).map_err(|e| wrong(e.to_string()))?;
    let text = absolute
        .to_str()
        .ok_or_else(|| wrong("a recipe cannot hold a path that is not UTF-8; rename it".into()))?;
    Ok(text.to_owned())
}

/// Who runs a recipe.
pub(super) struct Caller<'a> {
    /// The command that resumes the run, without the options of its folder and threads.
    pub(super) resume: String,
    /// The reward of GRPO in place of the verifier's.
    pub(super) reward: Option<&'a dyn AnswerReward>,
}

/// Runs a recipe into a folder, with progress on standard error.
pub(super) fn execute(
    recipe: Option<Recipe>,
    out: &Path,
    flags: &RunFlags,
    network: Network,
) -> Result<Report, CliError> {
    let caller = Caller { resume: "crisol run --resume".into(), reward: None };
    let device = flags.device()?;
    execute_for(&caller, recipe, out, flags, network, &device)
}

/// As [`execute`], for a caller that brings its reward along.
pub(super) fn execute_for(
    caller: &Caller<'_>,
    recipe: Option<Recipe>,
    out: &Path,
    flags: &RunFlags,
    network: Network,
    device: &Device,
) -> Result<Report, CliError> {
    let mut recipe = recipe.map(|mut recipe| {
        flags.apply(&mut recipe);
        recipe
    });
    recipe.as_mut().map(|recipe| find_all(recipe, network)).transpose()?;
    let settled = recipe.as_mut().map(Recipe::resolve).transpose()?.unwrap_or_default();
    let machine = Calibration::load(device.threads()).map(|calibration| calibration.rates());
    let (folder, go_on) = (out.to_owned(), how_to_go_on(&caller.resume, out, flags.threads));
    let how = go_on.clone();
    ctrl_c::save_and_stop(device.interrupt(), move || {
        if crisol_phases::holds_work(&folder).unwrap_or(false) {
            format!("everything is saved. Go on with: {how}")
        } else {
            "nothing was saved yet, and nothing is lost".to_owned()
        }
    });
    let options = RunOptions {
        out,
        resume: flags.resume,
        device,
        machine: machine.as_ref(),
        created: clock::now(),
        language: language(),
        reward: caller.reward,
    };
    let threads = if device.threads() == 1 {
        "1 thread".into()
    } else {
        format!("{} threads", device.threads())
    };
    let mut heading = format!("Run in {} on {threads}", out.display());
    let forecast = |recipe| crisol_phases::forecast(recipe, machine.as_ref(), device.threads());
    let phases = match &recipe {
        Some(recipe) if !flags.resume => {
            for line in settled {
                let _ = write!(heading, "\n  {line}");
            }
            let phases = forecast(recipe)?;
            if !flags.force {
                let memory = crisol_phases::available_memory();
                crisol_phases::refuse_too_large(recipe, &phases, memory, device.threads())?;
            }
            heading += &forecast_line(&phases);
            phases
        }
        // It was said when the run began; it serves to say what is left. What is wrong with it, the
        // run says.
        Some(recipe) => forecast(recipe).unwrap_or_default(),
        None => vec![],
    };
    let mut progress = Progress::new(heading, &phases);
    let result = crisol_phases::run(recipe, &options, &mut progress);
    progress.clear();
    result.map_err(|source| CliError::Run {
        remedy: remedy(&source, out, &go_on),
        source: Box::new(source),
    })
}

/// The forecast of a run, in one line.
fn forecast_line(phases: &[PhaseForecast]) -> String {
    let most = memory(phases.iter().map(|phase| phase.memory).fold(0.0, f64::max));
    let flops = operations(phases.iter().map(PhaseForecast::flops).sum());
    let memory = if phases.len() > 1 {
        format!("about {most} of memory for the largest phase, if it ran alone")
    } else {
        format!("about {most} of memory")
    };
    let Some(seconds) = phases.iter().map(PhaseForecast::seconds).sum::<Option<f64>>() else {
        return format!(
            "\n  forecast: {flops}; {memory}; time unknown until `crisol cost --calibrate` has \
             measured this machine"
        );
    };
    let each = phases
        .iter()
        .map(|phase| format!("{} {}", phase.name, duration(phase.seconds().unwrap_or_default())));
    let each = if phases.len() > 1 {
        format!(" ({})", each.collect::<Vec<_>>().join(", "))
    } else {
        String::new()
    };
    format!("\n  forecast: {flops}; {} of training{each}; {memory}", duration(seconds))
}

/// How to go on with a run that stopped, as far as the error does not say so itself.
fn remedy(error: &PhaseError, out: &Path, command: &str) -> String {
    match error {
        PhaseError::Recipe(_)
        | PhaseError::RunExists { .. }
        | PhaseError::InUse { .. }
        | PhaseError::NotOurs { .. }
        | PhaseError::RecipeEdited { .. }
        | PhaseError::Changed { .. }
        | PhaseError::NothingToResume { .. }
        | PhaseError::OtherRecipe { .. } => String::new(),
        PhaseError::Interrupted { .. } => format!("\nGo on with: {command}"),
        // The same recipe would diverge at the same step again.
        PhaseError::Train(TrainError::Diverged { .. }) => format!(
            "\nThe phases before and the last checkpoint are kept. Change {} (settings of the \
             optimizer) and go on with: {command}",
            out.join("recipe.toml").display()
        ),
        // Nothing is lost where nothing was saved.
        _ if !crisol_phases::holds_work(out).unwrap_or(false) => String::new(),
        _ => {
            format!("\nWhat was finished is kept. When the cause is removed, go on with: {command}")
        }
    }
}

/// The command that resumes a run.
fn how_to_go_on(resume: &str, out: &Path, threads: Threads) -> String {
    let mut command = format!("{resume} --out {}", shell_word(&out.to_string_lossy()));
    if let Some(threads) = threads.threads {
        let _ = write!(command, " --threads {threads}");
    }
    command
}
