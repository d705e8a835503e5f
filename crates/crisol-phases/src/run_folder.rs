//! A run's folder: its recipe, finished phases and unfinished ones.
//!
//! ```text
//! out/recipe.toml            the run's recipe, with a checksum that tells edited ones
//! out/1-pretrain/            a finished phase: checkpoint, phase.json, metrics.jsonl
//! out/progress/2-sft/        an unfinished one: state/, metrics.jsonl, tokens/
//! out/report.json, .html     of the finished phases
//! ```

use std::path::{Path, PathBuf};

use crate::PhaseError;
use crate::data::DataSource;
use crate::fingerprint::{Fingerprint, Hashes, PhaseStatus};
use crate::finished::{PHASE_FILE, load_phase};
use crate::owner::{self, PROGRESS, RECIPE_FILE};
use crate::recipe::{Phase, Recipe};
use crate::run::RunOptions;
use crate::state::saved_fingerprint;

/// The recipe to run; that of the folder, if a run is resumed. Writes nothing.
pub(crate) fn choose_recipe(
    given: Option<Recipe>,
    options: &RunOptions<'_>,
) -> Result<Recipe, PhaseError> {
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
        // The file has only their names.
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

/// Writes the recipe of a new run into its folder, unless the folder holds another run. The caller
/// owns the folder.
pub(crate) fn write_recipe(recipe: Recipe, options: &RunOptions<'_>) -> Result<Recipe, PhaseError> {
    let out = options.out.to_path_buf();
    if options.resume {
        return Ok(recipe);
    }
    // Checked again under the lock. A failed run that saved nothing does not count.
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

/// Refuses to resume a phase whose inputs or settings have changed.
pub(crate) fn check_unchanged(
    recipe: &Recipe,
    phase: &Phase,
    out: &Path,
    data: &DataSource,
    reward: Option<&str>,
    hashes: &mut Hashes,
) -> Result<(), PhaseError> {
    let folder = recipe.folder(&phase.name);
    let file = out.join(&folder).join(PHASE_FILE);
    let (recorded, stage) = if file.exists() {
        (load_phase(&file)?.fingerprint, PhaseStatus::Finished)
    } else {
        (saved_fingerprint(&out.join(PROGRESS).join(&folder))?, PhaseStatus::Unfinished)
    };
    let Some(recorded) = recorded else { return Ok(()) };
    // A missing parent is trained again first; the phase is checked again after that.
    let gone = !phase.from.is_empty()
        && starting_folder(recipe, phase, out).is_some_and(|from| !from.exists());
    let stage = if gone { PhaseStatus::Finished } else { stage };
    let now = Fingerprint::compute(recipe, phase, out, data, reward, hashes)?;
    now.check(&recorded, &phase.name, stage).map(drop)
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
            let state = crisol_hub::resolve_folder(&entry.join("state"))?;
            if entry.join(PHASE_FILE).exists() || state.exists() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Removes the progress folder of a complete phase. Failing to is no error.
pub(crate) fn clear_progress(recipe: &Recipe, phase: &Phase, out: &Path) {
    let progress = out.join(PROGRESS);
    let _ = std::fs::remove_dir_all(progress.join(recipe.folder(&phase.name)));
    let _ = std::fs::remove_dir(progress);
}

/// Folder of a phase's starting model; `None` for a new model.
pub(crate) fn starting_folder(recipe: &Recipe, phase: &Phase, out: &Path) -> Option<PathBuf> {
    if !phase.from.is_empty() {
        Some(out.join(recipe.folder(&phase.from)))
    } else if !recipe.run.base.is_empty() {
        Some(PathBuf::from(&recipe.run.base))
    } else {
        None
    }
}

/// The folder of the phase `name`, or else the path `name`.
pub(crate) fn phase_or_path(recipe: &Recipe, name: &str, out: &Path) -> PathBuf {
    if recipe.phases.iter().any(|p| p.name == name) {
        out.join(recipe.folder(name))
    } else {
        PathBuf::from(name)
    }
}
