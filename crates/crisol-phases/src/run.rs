//! A run: every phase of a recipe in order, each from its parent's checkpoint, with a report at the end.
//!
//! A phase's folder exists if and only if the phase is complete; what an unfinished one has so far lies under
//! `progress/`. So a run can be stopped at any moment, by a key or by a power cut, and resumed.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crisol_cost::machine::Machine;
use crisol_engine::Device;
use crisol_model::{Checkpoint, save_checkpoint};
use crisol_report::{MaskPicture, ModelSummary, PhaseReport, PromptReport, Report, RolloutSample};
use serde::{Deserialize, Serialize};

use crate::context::{Observer, PhaseContext, Saves, saved_fingerprint};
use crate::data::DataSource;
use crate::fingerprint::{Fingerprint, Hashes, Stage};
use crate::machine::{machine, peak_memory};
use crate::owner::{self, Owner, PROGRESS, RECIPE_FILE, REPORTS, TENSORBOARD};
use crate::recipe::{Phase, Recipe, Split};
use crate::settings::PhaseSettings;
use crate::{
    PhaseError, behaviours, defaults, dpo, estimate, ppo, pretrain, prompts, reason, reward, sft,
};

/// Where and how a recipe is run.
#[derive(Debug)]
pub struct RunOptions<'a> {
    /// The run's folder.
    pub out: &'a Path,
    /// Continue what is there.
    pub resume: bool,
    /// Where the work is done. Its request to stop is the run's.
    pub device: &'a Device,
    /// What it was measured to do, if it was.
    pub machine: Option<&'a Machine>,
    /// Date and time for the report, as it is to be shown.
    pub created: String,
}

/// What is kept of a finished phase beside its weights, in `phase.json`.
#[derive(Debug, Serialize, Deserialize)]
struct PhaseFile {
    report: PhaseReport,
    model: ModelSummary,
    prompts: Vec<PromptReport>,
    rollouts: Vec<RolloutSample>,
    masks: Vec<MaskPicture>,
    evaluation_seconds: f64,
    peak_memory_bytes: u64,
    /// Not in files of earlier versions.
    #[serde(default)]
    fingerprint: Option<Fingerprint>,
    #[serde(default)]
    saves: Saves,
}

const PHASE_FILE: &str = "phase.json";

/// Runs a recipe (`None`: the one that the folder holds, or the embedded one) and returns its report, which is also
/// written to `report.json` and `report.html` in the run's folder.
pub fn run(
    recipe: Option<Recipe>,
    options: &RunOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<Report, PhaseError> {
    let recipe = choose_recipe(recipe, options)?;
    owner::refuse_foreign(&recipe, options.out, options.resume)?;
    // Until the run ends.
    let _owner = Owner::take(options.out, &options.created)?;
    let recipe = settle_recipe(recipe, options)?;
    let data = recipe.run.data_source();
    for phase in &recipe.phases {
        // A run that was killed may have left a finished phase under its temporary name.
        crisol_hub::settle_folder(&options.out.join(recipe.folder(&phase.name)))?;
    }
    let mut hashes = Hashes::default();
    for phase in &recipe.phases {
        check_unchanged(&recipe, phase, options.out, &data, &mut hashes)?;
    }
    for (i, phase) in recipe.phases.iter().enumerate() {
        let folder = options.out.join(recipe.folder(&phase.name));
        if folder.join(PHASE_FILE).exists() {
            // What it starts from may have been trained again just now.
            check_unchanged(&recipe, phase, options.out, &data, &mut hashes)?;
            clear_progress(&recipe, phase, options.out);
            continue;
        }
        observer.phase_started(&phase.name, i + 1, recipe.phases.len());
        let fingerprint = Fingerprint::of(&recipe, phase, options.out, &data, &mut hashes)?;
        run_phase(&recipe, phase, &folder, &data, fingerprint, options, observer)?;
        write_report(&recipe, options)?;
    }
    write_report(&recipe, options)
}

/// The recipe to run, without writing anything: the one in the folder where a run is resumed.
fn choose_recipe(given: Option<Recipe>, options: &RunOptions<'_>) -> Result<Recipe, PhaseError> {
    let out = options.out.to_path_buf();
    let given = given.map(Recipe::resolved).transpose()?;
    if !options.resume {
        if holds_work(&out)? {
            return Err(PhaseError::RunExists { out });
        }
        return Ok(given.unwrap_or_else(Recipe::embedded));
    }
    let file = out.join(RECIPE_FILE);
    if !file.exists() || !(owner::is_run(&out) || holds_work(&out)?) {
        return Err(PhaseError::NothingToResume { out });
    }
    let mut recorded = Recipe::load(&file)?;
    if let Some(given) = &given {
        // A recipe's file has their names alone.
        recorded.run.datasets.clone_from(&given.run.datasets);
    }
    let recorded = recorded.resolved()?;
    if let Some(given) = given.filter(|given| *given != recorded) {
        let (given, recorded) = (given.to_toml(), recorded.to_toml());
        let differs = given.lines().zip(recorded.lines()).find(|(a, b)| a != b);
        let difference =
            differs.map_or("the phases".into(), |(a, b)| format!("{a:?} here, {b:?} there"));
        return Err(PhaseError::OtherRecipe { out, difference });
    }
    Ok(recorded)
}

/// Writes the recipe of a new run into its folder, after making sure that the folder holds no other run. Only for its owner.
fn settle_recipe(recipe: Recipe, options: &RunOptions<'_>) -> Result<Recipe, PhaseError> {
    let out = options.out.to_path_buf();
    if options.resume {
        return Ok(recipe);
    }
    // Once more, now that nobody else writes here. A run that failed before it saved anything is no reason to ask for another folder.
    if holds_work(&out)? {
        return Err(PhaseError::RunExists { out });
    }
    let path = out.join(RECIPE_FILE);
    if path.exists() {
        let text = std::fs::read_to_string(&path).map_err(|e| PhaseError::io(&path, e))?;
        if !owner::is_unedited(&text) {
            return Err(PhaseError::RecipeEdited { path });
        }
    }
    crisol_hub::write_file_atomically(&path, owner::with_checksum(&recipe.to_toml()).as_bytes())?;
    Ok(recipe)
}

/// Refuses to go on where what a phase began with is not what it would go on with.
fn check_unchanged(
    recipe: &Recipe,
    phase: &Phase,
    out: &Path,
    data: &DataSource,
    hashes: &mut Hashes,
) -> Result<(), PhaseError> {
    let folder = recipe.folder(&phase.name);
    let file = out.join(&folder).join(PHASE_FILE);
    let (recorded, stage) = if file.exists() {
        (load_phase(&file)?.fingerprint, Stage::Finished)
    } else {
        (saved_fingerprint(&out.join(PROGRESS).join(&folder))?, Stage::Unfinished)
    };
    let Some(recorded) = recorded else { return Ok(()) };
    // A phase that it starts from and that is gone is trained again first, and compared then.
    let gone = !phase.from.is_empty()
        && starting_folder(recipe, phase, out).is_some_and(|from| !from.exists());
    let stage = if gone { Stage::Finished } else { stage };
    Fingerprint::of(recipe, phase, out, data, hashes)?.check(&recorded, &phase.name, stage)?;
    Ok(())
}

fn load_phase(path: &Path) -> Result<PhaseFile, PhaseError> {
    let text = std::fs::read_to_string(path).map_err(|e| PhaseError::io(path, e))?;
    serde_json::from_str(&text)
        .map_err(|source| PhaseError::BrokenState { file: path.to_path_buf(), source })
}

/// Whether a run's folder holds a finished phase or the state of an unfinished one.
pub fn holds_work(out: &Path) -> Result<bool, PhaseError> {
    let failed = |e| PhaseError::io(out, e);
    for folder in [out.to_owned(), out.join(PROGRESS)] {
        if !folder.exists() {
            continue;
        }
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?.path();
            let state = crisol_hub::whole_folder(&entry.join("state"))?;
            if entry.join(PHASE_FILE).exists() || state.exists() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn run_phase(
    recipe: &Recipe,
    phase: &Phase,
    folder: &Path,
    data: &DataSource,
    fingerprint: Fingerprint,
    options: &RunOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<(), PhaseError> {
    let folder_name = recipe.folder(&phase.name);
    let progress = options.out.join(PROGRESS).join(&folder_name);
    let tensorboard =
        recipe.run.tensorboard.then(|| options.out.join(TENSORBOARD).join(&folder_name));
    let mut ctx = PhaseContext::open(
        &recipe.run,
        options.device,
        data,
        &phase.name,
        &progress,
        tensorboard.as_deref(),
        options.machine,
        fingerprint,
        observer,
    )?;
    let start = match starting_folder(recipe, phase, options.out) {
        Some(parent) => {
            let mut start = Checkpoint::load(&parent, options.device)?;
            start.text.set_options(recipe.run.text.encoding());
            Some(start)
        }
        None => None,
    };
    let needed = |start: Option<Checkpoint>| {
        // `Recipe::check` has made sure of it.
        start.unwrap_or_else(|| unreachable!("only pretrain may start from nothing"))
    };
    let config = match &start {
        Some(checkpoint) => checkpoint.model.config().clone(),
        None => recipe.run.model.config(recipe.run.model.vocab_size)?,
    };
    for remark in defaults::far_off(phase, &recipe.run.base, &config) {
        ctx.note(remark);
    }
    let threads = options.device.threads();
    let expected_memory =
        estimate::memory(&phase.settings, &recipe.run, &config, data, threads).total();
    let before_updates =
        estimate::memory_before_updates(&phase.settings, &recipe.run, &config, data, threads);
    ctx.expect_memory(expected_memory, before_updates.map(|memory| memory.total()));
    prompts::answer_before(&mut ctx, phase, start.as_ref())
        .map_err(|error| ctx.stopped(error, &mut []))?;
    let trained = match &phase.settings {
        PhaseSettings::Pretrain(settings) => pretrain::pretrain(&mut ctx, settings, start),
        PhaseSettings::Sft(settings) => sft::sft(&mut ctx, settings, needed(start)),
        PhaseSettings::Reason(settings) => reason::reason(&mut ctx, settings, needed(start)),
        PhaseSettings::Reward(settings) => reward::reward(&mut ctx, settings, needed(start)),
        PhaseSettings::Dpo(settings) => dpo::dpo(&mut ctx, settings, needed(start)),
        PhaseSettings::Ppo(settings) => {
            let judge = phase_or_path(recipe, &settings.reward_model, options.out);
            ppo::ppo(&mut ctx, settings, needed(start), &judge)
        }
    }
    .map_err(|error| ctx.stopped(error, &mut []))?;
    let metrics_file = ctx.metrics_file();
    let mut record = ctx.into_record()?;

    let began = Instant::now();
    let stopped = |error: PhaseError| {
        if !error.is_stop() {
            return error;
        }
        let place = "while measuring it; everything is saved".into();
        PhaseError::Interrupted { phase: phase.name.clone(), place }
    };
    let mut prompts = record.prompts;
    let evaluate = recipe.run.evaluate;
    prompts::add(
        &mut prompts,
        prompts::answers_after(data, evaluate, phase, &trained).map_err(stopped)?,
    );
    if evaluate != Split::None && phase.settings.speaks() {
        let chat = phase.settings.chats(&trained);
        let measured =
            behaviours::measure(data, evaluate, &phase.name, &trained, chat).map_err(stopped)?;
        record.metrics.extend(measured.metrics);
        prompts::add(&mut prompts, measured.prompts);
    }
    let config = trained.model.config();
    let file = PhaseFile {
        report: PhaseReport {
            name: phase.name.clone(),
            kind: phase.settings.kind().to_owned(),
            checkpoint: folder_name,
            parent: (!phase.from.is_empty()).then(|| phase.from.clone()),
            reward_model: match &phase.settings {
                PhaseSettings::Ppo(ppo) => Some(ppo.reward_model.clone()),
                _ => None,
            },
            tokens: record.tokens,
            flops: record.flops,
            seconds: record.seconds,
            sampling_seconds: record.sampling_seconds,
            expected_seconds: record.expected_seconds,
            expected_memory_bytes: expected_memory.0 as u64,
            peak_memory_bytes: peak_memory(),
            metrics: record.metrics,
            before: record.before,
            curves: record.curves,
            notes: record.notes,
        },
        model: ModelSummary {
            architecture: format!("{:?}", config.architecture).to_lowercase(),
            parameters: trained.params.count() as u64,
            hidden: config.hidden_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            vocab: config.vocab_size,
            context: config.max_position_embeddings,
        },
        prompts,
        rollouts: record.rollouts,
        masks: record.masks,
        evaluation_seconds: began.elapsed().as_secs_f64(),
        peak_memory_bytes: peak_memory(),
        fingerprint: Some(record.fingerprint),
        saves: record.saves,
    };
    save_checkpoint(
        folder,
        &trained.model,
        &trained.params,
        &trained.text,
        |dir| -> Result<(), PhaseError> {
            let json = serde_json::to_string(&file)
                .map_err(|source| PhaseError::BrokenState { file: dir.join(PHASE_FILE), source })?;
            std::fs::write(dir.join(PHASE_FILE), json).map_err(|e| PhaseError::io(dir, e))?;
            std::fs::copy(&metrics_file, dir.join("metrics.jsonl"))
                .map_err(|e| PhaseError::io(&metrics_file, e))?;
            Ok(())
        },
    )?;
    clear_progress(recipe, phase, options.out);
    observer.phase_finished(&file.report);
    Ok(())
}

/// Once a phase is complete, what is left of its progress is clutter, and no error if it stays.
fn clear_progress(recipe: &Recipe, phase: &Phase, out: &Path) {
    let progress = out.join(PROGRESS);
    let _ = std::fs::remove_dir_all(progress.join(recipe.folder(&phase.name)));
    let _ = std::fs::remove_dir(progress);
}

/// The folder of the model that a phase starts from; `None` if it starts from nothing.
pub(crate) fn starting_folder(recipe: &Recipe, phase: &Phase, out: &Path) -> Option<PathBuf> {
    if !phase.from.is_empty() {
        Some(out.join(recipe.folder(&phase.from)))
    } else if !recipe.run.base.is_empty() {
        Some(PathBuf::from(&recipe.run.base))
    } else {
        None
    }
}

/// A phase's folder where `name` is a phase, else a path.
pub(crate) fn phase_or_path(recipe: &Recipe, name: &str, out: &Path) -> PathBuf {
    if recipe.phases.iter().any(|p| p.name == name) {
        out.join(recipe.folder(name))
    } else {
        PathBuf::from(name)
    }
}

fn write_report(recipe: &Recipe, options: &RunOptions<'_>) -> Result<Report, PhaseError> {
    let mut report = assemble_report(recipe, options.out)?;
    report.threads = options.device.threads();
    report.machine = machine();
    report.created.clone_from(&options.created);
    save_report(&report, options.out)?;
    Ok(report)
}

/// Writes `report.json` and `report.html` into a run's folder.
pub fn save_report(report: &Report, out: &Path) -> Result<(), PhaseError> {
    crisol_hub::write_file_atomically(&out.join(REPORTS[0]), report.to_json().as_bytes())?;
    let html = crisol_report::html(report);
    crisol_hub::write_file_atomically(&out.join(REPORTS[1]), html.as_bytes())?;
    Ok(())
}

/// Puts together the report of a run's folder from its finished phases.
pub fn assemble_report(recipe: &Recipe, out: &Path) -> Result<Report, PhaseError> {
    let mut report = Report {
        crisol: env!("CARGO_PKG_VERSION").into(),
        title: recipe.run.title.clone(),
        seed: recipe.run.seed,
        recipe_toml: recipe.to_toml(),
        ..Report::default()
    };
    for phase in &recipe.phases {
        let path =
            crisol_hub::whole_folder(&out.join(recipe.folder(&phase.name)))?.join(PHASE_FILE);
        if !path.exists() {
            continue;
        }
        let file = load_phase(&path)?;
        if report.phases.is_empty() {
            report.model = file.model;
        }
        report.total_seconds += file.report.seconds + file.evaluation_seconds;
        report.peak_memory_bytes = report.peak_memory_bytes.max(file.peak_memory_bytes);
        report.phases.push(file.report);
        report.rollouts.extend(file.rollouts);
        report.masks.extend(file.masks);
        prompts::add(&mut report.prompts, file.prompts);
    }
    Ok(report)
}
