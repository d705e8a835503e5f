//! Opening the model that a command names: a checkpoint folder, a GGUF file, or a name on a hub.

use std::path::{Path, PathBuf};

use clap::Args;
use crisol_engine::{Device, Params};
use crisol_model::{Checkpoint, Head, Model, load_model_for_inference, skipped_tensors};
use crisol_text::TextSetup;

use crate::console::say;
use crate::error::CliError;
use crate::hub::{ModelId, Need};

/// Whether models and data sets may be fetched.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Network {
    /// Fetch nothing; use the cache only (as HF_HUB_OFFLINE=1)
    #[arg(long)]
    pub(crate) offline: bool,
}

/// A model whose tokenizer may be missing: token ids are enough to run it.
pub(crate) struct Loaded {
    pub(crate) model: Model,
    pub(crate) params: Params,
    pub(crate) text: Option<TextSetup>,
}

/// Loads a model with its tokenizer, to run it.
pub(crate) fn load(
    model: &Path,
    network: Network,
    device: &Device,
) -> Result<Checkpoint, CliError> {
    load_from(&check_folder(&locate(model, Need::Whole, network)?)?, device)
}

/// Loads the model of a checkpoint, which [`check_folder`] has found, to run it.
pub(crate) fn load_from(checkpoint: &Path, device: &Device) -> Result<Checkpoint, CliError> {
    say_what_is_left_out(checkpoint)?;
    Ok(Checkpoint::load_for_inference(checkpoint, device)?)
}

/// Loads a model to run it, with its tokenizer where it has one.
pub(crate) fn load_for_ids(
    model: &Path,
    network: Network,
    device: &Device,
) -> Result<Loaded, CliError> {
    let whole = check_folder(&locate(model, Need::Whole, network)?)?;
    say_what_is_left_out(&whole)?;
    // A GGUF file has its tokenizer in it.
    if whole.is_file()
        || ["tokenizer.json", "tokenizer.model"].iter().any(|file| whole.join(file).exists())
    {
        let Checkpoint { model, params, text } = Checkpoint::load_for_inference(&whole, device)?;
        return Ok(Loaded { model, params, text: Some(text) });
    }
    let (model, params) = load_model_for_inference(&whole, device)?;
    Ok(Loaded { model, params, text: None })
}

/// Refuses a model that writes no text.
pub(crate) fn check_speaks(path: &Path, model: &Model) -> Result<(), CliError> {
    match model.config().head {
        Head::Language { .. } => Ok(()),
        Head::Scalar => Err(CliError::Place {
            path: path.to_owned(),
            problem: "a reward or value model, which scores text and writes none; give a language \
                      model, or measure this one with `crisol eval`"
                .to_owned(),
        }),
    }
}

pub(crate) fn say_what_is_left_out(folder: &Path) -> Result<(), CliError> {
    for note in skipped_tensors(folder)? {
        say(format_args!("{}: {note}", folder.display()));
    }
    Ok(())
}

/// Where the model is that the command line names: what exists has precedence, then a name on a hub
/// counts.
pub(crate) fn locate(model: &Path, need: Need, network: Network) -> Result<PathBuf, CliError> {
    if !crisol_hub::resolve_folder(model)?.exists()
        && let Some(id) = model.to_str().and_then(|name| name.parse::<ModelId>().ok())
    {
        return from_hub(&id, need, network);
    }
    Ok(model.to_owned())
}

#[cfg(feature = "hub")]
fn from_hub(id: &ModelId, need: Need, network: Network) -> Result<PathBuf, CliError> {
    Ok(crate::hub::model(id, need, network.offline)?.path())
}

#[cfg(not(feature = "hub"))]
fn from_hub(id: &ModelId, _need: Need, _network: Network) -> Result<PathBuf, CliError> {
    Err(CliError::NoHub(id.to_string()))
}

/// Where the checkpoint's files are, after making sure that it is a checkpoint.
pub(crate) fn check_folder(folder: &Path) -> Result<PathBuf, CliError> {
    let wrong = |problem: String| CliError::Place { path: folder.to_owned(), problem };
    if folder.is_file() {
        return Ok(folder.to_owned());
    }
    let whole = crisol_hub::resolve_folder(folder)?;
    if !whole.is_dir() {
        return Err(wrong(
            "no such folder; give a checkpoint's folder, such as runs/crisol-world/2-sft, or the \
             name of a model on a hub, such as allenai/OLMo-2-0425-1B"
                .into(),
        ));
    }
    if !whole.join("config.json").exists() {
        let checkpoints = checkpoints_below(&whole);
        return Err(wrong(if checkpoints.is_empty() {
            "not a checkpoint: it has no config.json; give the folder of a model".into()
        } else {
            format!("not a checkpoint itself; give one of those in it: {}", checkpoints.join(", "))
        }));
    }
    Ok(whole)
}

/// The names of the checkpoints in a run's folder.
fn checkpoints_below(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("config.json").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}
