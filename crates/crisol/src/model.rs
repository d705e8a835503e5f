//! Opening the model that a command names: a checkpoint folder, a GGUF file, or a name on a hub.

use std::path::{Path, PathBuf};

use clap::Args;
use crisol_engine::{Device, Params};
use crisol_model::{
    Checkpoint, Head, Model, ModelFiles, load_config, load_model_for_inference, skipped_tensors,
    with_adapter,
};
use crisol_text::{TOKENIZER_FILES, TextSetup};

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

/// The model that a command runs.
#[derive(Clone, Debug, Args)]
pub(crate) struct ModelArgs {
    /// Model: a folder, a GGUF file, or ORG/NAME on a hub
    pub(crate) model: PathBuf,
    /// Put this adapter over the model: a folder or a GGUF file
    #[arg(long, value_name = "PATH")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) network: Network,
}

impl ModelArgs {
    /// A model without an adapter over it.
    pub(crate) fn new(model: &Path, network: Network) -> ModelArgs {
        ModelArgs { model: model.to_owned(), adapter: None, network }
    }

    /// Where the model's files are.
    pub(crate) fn folder(&self) -> Result<PathBuf, CliError> {
        check_folder(&locate(&self.model, Need::Whole, self.network)?)
    }

    /// Where the adapter's files are, if there is one over the model.
    fn adapter(&self) -> Result<Option<PathBuf>, CliError> {
        self.adapter.as_deref().map(check_folder).transpose()
    }

    /// Loads the model with its tokenizer, to run it.
    pub(crate) fn load(&self, device: &Device) -> Result<Checkpoint, CliError> {
        let (folder, adapter) = (self.folder()?, self.adapter()?);
        say_what_is_left_out(&folder)?;
        let checkpoint = Checkpoint::load_for_inference(&folder, device)?;
        Ok(match adapter {
            Some(adapter) => checkpoint.with_adapter(&folder, &adapter)?,
            None => checkpoint,
        })
    }

    /// Loads the model to run it, with its tokenizer where it has one.
    pub(crate) fn load_for_ids(&self, device: &Device) -> Result<Loaded, CliError> {
        let (folder, adapter) = (self.folder()?, self.adapter()?);
        // A GGUF file has its tokenizer in it.
        if folder.is_file() || has_tokenizer(&folder) {
            let Checkpoint { model, params, text } = self.load(device)?;
            return Ok(Loaded { model, params, text: Some(text) });
        }
        say_what_is_left_out(&folder)?;
        let (mut model, mut params) = load_model_for_inference(&folder, device)?;
        if let Some(adapter) = adapter {
            (model, params) = with_adapter(&model, params, &folder, &adapter)?;
        }
        Ok(Loaded { model, params, text: None })
    }

    /// Why outputs are not finite: the weights more often than not, and then the tensor is named.
    pub(crate) fn why_not_finite(&self) -> Result<CliError, CliError> {
        let folder = self.folder()?;
        let base = load_config(&folder)?.adapter.map_or(folder, |adapted| adapted.base);
        ModelFiles::open(&base)?.check_finite()?;
        Ok(CliError::NotFinite)
    }
}

fn has_tokenizer(folder: &Path) -> bool {
    TOKENIZER_FILES.iter().any(|file| folder.join(file).exists())
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
    ModelArgs::new(model, network).load(device)
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
    if !is_checkpoint(&whole) {
        let checkpoints = checkpoints_below(&whole);
        return Err(wrong(if checkpoints.is_empty() {
            "not a checkpoint: it has no config.json; give the folder of a model".into()
        } else {
            format!("not a checkpoint itself; give one of those in it: {}", checkpoints.join(", "))
        }));
    }
    Ok(whole)
}

/// Whether a folder is a model's, or an adapter's as PEFT writes it.
fn is_checkpoint(folder: &Path) -> bool {
    ["config.json", "adapter_config.json"].iter().any(|file| folder.join(file).exists())
}

/// The names of the checkpoints in a run's folder.
fn checkpoints_below(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| is_checkpoint(&entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}
