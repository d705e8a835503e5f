//! `crisol merge`: a base and its adapter as one model.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use crisol_engine::Device;
use crisol_hub::FloatType;
use crisol_model::{Checkpoint, Head, scalars, score};

use crate::console::print_line;
use crate::error::CliError;
use crate::hub::Need;
use crate::model::{Network, check_folder, locate};

use super::Threads;
use super::export::refuse_existing;

const EXAMPLES: &str = "\
Examples:
  crisol merge SmolLM2-135M-Instruct runs/tuned/1-sft --out merged
  crisol merge model.Q4_1.gguf runs/tuned/1-sft --out merged --dtype bf16

The merged weights are not quantised, also those of a quantised base. Prints by how much the
log-probabilities of a text differ between the adapter over its base and the merged model.";

/// A text whose log-probabilities are compared.
const PROBE: &str = "The capital of France is Paris. Two and three make five, and water is wet.";

/// `crisol merge`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MergeArgs {
    /// Base model: a folder, a GGUF file, or ORG/NAME on a hub
    base: PathBuf,
    /// Adapter: a folder or a GGUF file
    adapter: PathBuf,
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    threads: Threads,
    /// Folder to write; never overwritten
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Element type: f32, bf16, f16
    #[arg(long, value_name = "TYPE", hide_possible_values = true, default_value = "f32")]
    dtype: Dtype,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Dtype {
    F32,
    Bf16,
    F16,
}

impl MergeArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let base = check_folder(&locate(&self.base, Need::Whole, self.network)?)?;
        let adapter = check_folder(&self.adapter)?;
        refuse_existing(&self.out)?;
        let device = self.threads.device()?;
        let start = Checkpoint::load_for_inference(&base, &device)?;
        let adapted = start.with_adapter(&base, &adapter)?;
        let before = probe(&adapted)?;
        let dtype = match self.dtype {
            Dtype::F32 => FloatType::F32,
            Dtype::Bf16 => FloatType::BF16,
            Dtype::F16 => FloatType::F16,
        };
        adapted.merged().save_as(&self.out, dtype)?;
        let after = probe(&reload(&self.out, &device)?)?;
        let differences = before.iter().zip(&after).map(|(a, b)| (a - b).abs());
        print_line(format_args!(
            "{} (largest difference of a log-probability: {:.1e})",
            self.out.display(),
            differences.fold(0.0, f32::max)
        ))
    }
}

fn reload(folder: &Path, device: &Device) -> Result<Checkpoint, CliError> {
    Ok(Checkpoint::load_for_inference(folder, device)?)
}

/// Log-probabilities of a text, or its scores by a reward model.
fn probe(checkpoint: &Checkpoint) -> Result<Vec<f32>, CliError> {
    let Checkpoint { model, params, text } = checkpoint;
    let mut ids = text.tokenizer.encode(PROBE)?;
    ids.truncate(model.config().max_document_len());
    Ok(match model.config().head {
        Head::Language { .. } => score(model, params, &[ids], 1.0)?.concat(),
        Head::Scalar => scalars(model, params, &[ids])?.concat(),
    })
}
