//! A run: every phase of a recipe in order, each from its parent's checkpoint, with a report at the
//! end.
//!
//! ```text
//! choose recipe → lock folder → check fingerprints
//! for each unfinished phase: load model → train → measure → save → report
//! ```
//!
//! A phase's folder exists if and only if the phase is complete. An unfinished phase is under
//! `progress/`. So a run can be stopped at any moment, by a key or a power cut, and resumed.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crisol_cost::machine::Machine;
use crisol_cost::units::Bytes;
use crisol_engine::Device;
use crisol_model::Checkpoint;
use crisol_report::{Language, Report};
use crisol_train::derived_seed;

use crate::answer_reward::AnswerReward;
use crate::context::{PhaseContext, PhaseRecord};
use crate::data::DataSource;
use crate::fingerprint::{Fingerprint, Hashes};
use crate::finished::{PHASE_FILE, PhaseFile, assemble_report, save_phase, save_report};
use crate::forecast::{memory, rates};
use crate::machine::machine;
use crate::observer::Observer;
use crate::owner::{self, Owner, PROGRESS, TENSORBOARD};
use crate::recipe::{Phase, Recipe, RunSettings, Split};
use crate::run_folder::{
    check_unchanged, choose_recipe, clear_progress, phase_or_path, starting_folder, write_recipe,
};
use crate::settings::PhaseSettings;
use crate::{PhaseError, behaviours, defaults, dpo, ppo, pretrain, prompts, reason, reward, sft};

/// Where and how a recipe is run.
#[derive(Debug)]
pub struct RunOptions<'a> {
    /// The run's folder.
    pub out: &'a Path,
    /// Continue the run in the folder.
    pub resume: bool,
    /// Device of the run. Its stop request stops the run.
    pub device: &'a Device,
    /// Calibrated rates of the device.
    pub machine: Option<&'a Machine>,
    /// Date and time, as text for the report.
    pub created: String,
    /// Language of `report.html`.
    pub language: Language,
    /// The reward of `reason` phases in place of the verifier's.
    pub reward: Option<&'a dyn AnswerReward>,
}

/// Runs a recipe (`None`: that of the folder, or the embedded one). Returns its report, and writes
/// it to `report.json` and `report.html` in the run's folder.
pub fn run(
    recipe: Option<Recipe>,
    options: &RunOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<Report, PhaseError> {
    let recipe = choose_recipe(recipe, options)?;
    owner::check_replaceable(&recipe, options.out, options.resume)?;
    // Holds the lock until the run ends.
    let _owner = Owner::take(options.out, &options.created)?;
    let recipe = write_recipe(recipe, options)?;
    let data = recipe.run.data_source();
    for phase in &recipe.phases {
        // A run that was killed may have left a finished phase under its temporary name.
        crisol_hub::recover_folder(&options.out.join(recipe.folder(&phase.name)))?;
    }
    let mut hashes = Hashes::default();
    let reward = options.reward.map(AnswerReward::name);
    for phase in &recipe.phases {
        check_unchanged(&recipe, phase, options.out, &data, reward, &mut hashes)?;
    }
    for (i, phase) in recipe.phases.iter().enumerate() {
        let folder = options.out.join(recipe.folder(&phase.name));
        if folder.join(PHASE_FILE).exists() {
            // Its starting model may have been trained again in this run.
            check_unchanged(&recipe, phase, options.out, &data, reward, &mut hashes)?;
            clear_progress(&recipe, phase, options.out);
            continue;
        }
        observer.phase_started(&phase.name, i + 1, recipe.phases.len());
        let fingerprint =
            Fingerprint::compute(&recipe, phase, options.out, &data, reward, &mut hashes)?;
        run_phase(&recipe, phase, &data, fingerprint, options, observer)?;
        write_report(&recipe, options)?;
    }
    write_report(&recipe, options)
}

/// Trains one phase and saves it.
fn run_phase(
    recipe: &Recipe,
    phase: &Phase,
    data: &DataSource,
    fingerprint: Fingerprint,
    options: &RunOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<(), PhaseError> {
    let out = options.out;
    let device = &options.device.with_precision(recipe.run.precision);
    let machine = rates(options.machine, recipe.run.precision);
    let name = recipe.folder(&phase.name);
    let tensorboard = recipe.run.tensorboard.then(|| out.join(TENSORBOARD).join(&name));
    let mut ctx = PhaseContext::open(
        &recipe.run,
        device,
        data,
        &phase.name,
        &out.join(PROGRESS).join(&name),
        tensorboard.as_deref(),
        machine.as_ref(),
        fingerprint,
        observer,
    )?;
    ctx.reward = options.reward;
    let mut start = starting_folder(recipe, phase, out)
        .map(|folder| load_start(&folder, &recipe.run, device))
        .transpose()?;
    if let Some(start) = &mut start {
        recipe.run.text.give(&mut start.text)?;
        if let Some(adapted) = &start.model.config().adapter {
            let seed = derived_seed(recipe.run.seed, &format!("{}/dropout", phase.name), 0);
            start.params.set_adapter_dropout(adapted.config.dropout as f32, seed);
        }
    }
    let config = match &start {
        Some(checkpoint) => checkpoint.model.config().clone(),
        None => recipe.run.model.config(recipe.run.model.vocab_size)?,
    };
    for warning in defaults::lr_warnings(phase, &recipe.run.base, &config) {
        ctx.note(warning);
    }
    let (settings, threads) = (&phase.settings, device.threads());
    let peak = memory::memory(settings, &recipe.run, &config, data, threads).total();
    let before_updates =
        memory::memory_before_updates(settings, &recipe.run, &config, data, threads);
    ctx.forecast_memory(peak, before_updates.map(|memory| memory.total()));

    let reward_model = |name: &str| phase_or_path(recipe, name, out);
    let trained = prompts::answer_before(&mut ctx, phase, start.as_ref())
        .and_then(|()| train(&mut ctx, settings, start, reward_model))
        .map_err(|error| ctx.stop_before_update(error, &mut []))?;
    let metrics_file = ctx.metrics_file();
    let file = measure(recipe, phase, data, &trained, ctx.into_record()?, peak, observer)?;
    save_phase(&out.join(&name), &trained, &file, &metrics_file)?;
    clear_progress(recipe, phase, out);
    observer.phase_finished(&file.report);
    Ok(())
}

/// The starting model: with its own weights to train, or frozen under an adapter.
fn load_start(folder: &Path, run: &RunSettings, device: &Device) -> Result<Checkpoint, PhaseError> {
    let Some(adapter) = run.adapter.config() else { return Ok(Checkpoint::load(folder, device)?) };
    let start = Checkpoint::load_for_inference(folder, device)?;
    if start.model.config().adapter.is_some() {
        return Ok(start);
    }
    Ok(start.adapt(folder, adapter, run.seed)?)
}

/// The phase's algorithm, from a checkpoint to a checkpoint.
fn train(
    ctx: &mut PhaseContext<'_>,
    settings: &PhaseSettings,
    start: Option<Checkpoint>,
    reward_model: impl Fn(&str) -> PathBuf,
) -> Result<Checkpoint, PhaseError> {
    match (settings, start) {
        (PhaseSettings::Pretrain(settings), start) => pretrain::pretrain(ctx, settings, start),
        // `Recipe::check` refuses this.
        (_, None) => unreachable!("only pretrain may start from nothing"),
        (PhaseSettings::Sft(settings), Some(start)) => sft::sft(ctx, settings, start),
        (PhaseSettings::Reason(settings), Some(start)) => reason::reason(ctx, settings, start),
        (PhaseSettings::Reward(settings), Some(start)) => reward::reward(ctx, settings, start),
        (PhaseSettings::Dpo(settings), Some(start)) => dpo::dpo(ctx, settings, start),
        (PhaseSettings::Ppo(settings), Some(start)) => {
            ppo::ppo(ctx, settings, start, &reward_model(&settings.reward_model))
        }
    }
}

/// Evaluates the trained model. Returns all that the phase leaves besides its weights.
fn measure(
    recipe: &Recipe,
    phase: &Phase,
    data: &DataSource,
    trained: &Checkpoint,
    mut record: PhaseRecord,
    memory_forecast: Bytes,
    observer: &mut dyn Observer,
) -> Result<PhaseFile, PhaseError> {
    let began = Instant::now();
    let stopped = |error: PhaseError| {
        if !error.is_stop() {
            return error;
        }
        let place = "while measuring it; everything is saved".into();
        PhaseError::Interrupted { phase: phase.name.clone(), place }
    };
    let evaluate = recipe.run.evaluate;
    let answers = prompts::answers_after(data, evaluate, phase, trained).map_err(stopped)?;
    prompts::merge(&mut record.prompts, answers);
    if evaluate != Split::None && phase.settings.trains_language_model() {
        let chat = phase.settings.uses_chat_template(trained);
        let measured =
            behaviours::measure(data, evaluate, &phase.name, trained, chat).map_err(stopped)?;
        record.metrics.extend(measured.metrics);
        prompts::merge(&mut record.prompts, measured.prompts);
        if let Some(note) = measured.note {
            debug_assert!(crisol_report::is_known(&note), "{note}");
            observer.note(&note);
            record.notes.push(note);
        }
    }
    let evaluation_seconds = began.elapsed().as_secs_f64();
    let mut file = PhaseFile::new(recipe, phase, trained, record);
    file.evaluation_seconds = evaluation_seconds;
    file.report.expected_memory_bytes = memory_forecast.0 as u64;
    Ok(file)
}

fn write_report(recipe: &Recipe, options: &RunOptions<'_>) -> Result<Report, PhaseError> {
    let mut report = assemble_report(recipe, options.out)?;
    report.threads = options.device.threads();
    report.machine = machine();
    report.created.clone_from(&options.created);
    save_report(&report, options.out, options.language)?;
    Ok(report)
}
