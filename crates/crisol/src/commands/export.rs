//! `crisol export`: a model as a folder for transformers or as a GGUF file for llama.cpp.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use crisol_cost::units;
use crisol_hub::{FloatType, GgmlType, HubError};
use crisol_model::{AdapterFiles, ModelFiles, SHARD_BYTES};

use crate::console::print_line;
use crate::error::CliError;
use crate::hub::Need;
use crate::model::{Network, check_folder, locate, say_what_is_left_out};

const EXAMPLES: &str = "\
Examples:
  crisol export runs/crisol-world/2-sft --to gguf --dtype q8_0
  crisol export MODEL.gguf --to hf --dtype bf16 --out my-model
  crisol export MODEL --to hf --max-shard-size 500MB
  crisol export MODEL --to hf --add-special-tokens '<|user|>,<|end|>' --out my-model
  crisol export runs/tuned/1-sft --to gguf --out adapter.gguf    an adapter, for llama.cpp's --lora

Prints the path of what was written. One tensor at a time is in memory. Weights are rounded to
nearest, ties to even; overflow is an error. Quantised models become f32 by default. In GGUF
files vectors are f32, and with q8_0, matrices whose rows are no multiple of 32 are f16.
Rows of added tokens start as the mean of the others.";

/// `crisol export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExportArgs {
    /// Model: a folder, a GGUF file, or ORG/NAME on a hub
    model: PathBuf,
    #[command(flatten)]
    network: Network,
    /// hf (a folder for transformers) or gguf (a file for llama.cpp)
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    to: Format,
    /// f32, bf16, f16 or q8_0 (gguf) [default: as most weights]
    #[arg(long, value_name = "TYPE", hide_possible_values = true)]
    dtype: Option<Dtype>,
    /// Path to write; never overwritten [default: NAME-DTYPE here]
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Largest file of weights, such as 500MB [default: 5GB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_shard_size: Option<u64>,
    /// Special tokens to add, separated by commas
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    add_special_tokens: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Hf,
    Gguf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Dtype {
    F32,
    F16,
    Bf16,
    // 8 bits, and a scale for every 32 weights.
    #[value(name = "q8_0")]
    Q8,
}

impl Dtype {
    fn of(dtype: FloatType) -> Dtype {
        match dtype {
            FloatType::F32 => Dtype::F32,
            FloatType::F16 => Dtype::F16,
            FloatType::BF16 => Dtype::Bf16,
        }
    }

    fn name(self) -> String {
        self.to_possible_value().expect("no value is hidden").get_name().to_owned()
    }

    /// Writes the model into a folder.
    fn export_folder(
        self,
        model: &ModelFiles,
        out: &Path,
        shard_bytes: u64,
    ) -> Result<(), CliError> {
        let dtype = match self {
            Dtype::F32 => FloatType::F32,
            Dtype::F16 => FloatType::F16,
            Dtype::Bf16 => FloatType::BF16,
            Dtype::Q8 => {
                let choices = "choose --dtype f32, f16 or bf16, or --to gguf";
                return Err(CliError::Usage(format!(
                    "transformers' folders have no q8_0; {choices}"
                )));
            }
        };
        Ok(model.export_folder(out, dtype, shard_bytes)?)
    }

    /// Writes the model as a GGUF file.
    fn export_gguf(self, model: &ModelFiles, out: &Path) -> Result<(), CliError> {
        Ok(model.export_gguf(out, self.ggml_type())?)
    }

    fn ggml_type(self) -> GgmlType {
        match self {
            Dtype::F32 => GgmlType::F32,
            Dtype::F16 => GgmlType::F16,
            Dtype::Bf16 => GgmlType::BF16,
            Dtype::Q8 => GgmlType::Q8_0,
        }
    }
}

impl ExportArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let path = check_folder(&locate(&self.model, Need::Whole, self.network)?)?;
        if let (Format::Gguf, Some(adapter)) = (self.to, AdapterFiles::open(&path)?) {
            return self.export_adapter(&adapter);
        }
        let mut model = ModelFiles::open(&path)?;
        if !self.add_special_tokens.is_empty() {
            model.add_special_tokens(self.add_special_tokens)?;
        }
        let dtype = self.dtype.unwrap_or_else(|| Dtype::of(model.float_type()));
        let out = self.out.unwrap_or_else(|| default_name(&self.model, self.to, dtype));
        refuse_existing(&out)?;
        say_what_is_left_out(&path)?;
        match (self.to, self.max_shard_size) {
            (Format::Hf, size) => dtype.export_folder(&model, &out, size.unwrap_or(SHARD_BYTES))?,
            (Format::Gguf, None) => dtype.export_gguf(&model, &out)?,
            (Format::Gguf, Some(_)) => {
                return Err(CliError::Usage(
                    "--max-shard-size is for --to hf; a GGUF file is one file".into(),
                ));
            }
        }
        print_line(out.display())
    }

    /// Writes an adapter as a GGUF file.
    fn export_adapter(self, adapter: &AdapterFiles) -> Result<(), CliError> {
        if !self.add_special_tokens.is_empty() {
            return Err(CliError::Usage(
                "an adapter has no tokens of its own; add them to its base, and train it anew"
                    .into(),
            ));
        }
        let dtype = self.dtype.unwrap_or(Dtype::F32);
        let out = self.out.unwrap_or_else(|| default_name(&self.model, self.to, dtype));
        refuse_existing(&out)?;
        adapter.export_gguf(&out, dtype.ggml_type())?;
        print_line(out.display())
    }
}

/// As files of models are named: `2-sft-bf16`, `2-sft-Q8_0.gguf`.
fn default_name(model: &Path, to: Format, dtype: Dtype) -> PathBuf {
    // `.` and `..` have a name too.
    let whole = model.canonicalize().unwrap_or_else(|_| model.to_owned());
    let name = if whole.is_file() { whole.file_stem() } else { whole.file_name() };
    let name = name.unwrap_or_default().to_string_lossy();
    match to {
        Format::Hf => format!("{name}-{}", dtype.name()).into(),
        Format::Gguf => format!("{name}-{}.gguf", dtype.name().to_uppercase()).into(),
    }
}

pub(super) fn refuse_existing(out: &Path) -> Result<(), CliError> {
    let empty = |folder: &Path| -> Result<bool, HubError> {
        let mut entries = std::fs::read_dir(folder).map_err(|e| HubError::io("read", folder, e))?;
        Ok(entries.next().is_none())
    };
    if if out.is_dir() { empty(out)? } else { !out.exists() } {
        return Ok(());
    }
    let problem = "exists and is never overwritten; choose another --out, or remove it".into();
    Err(CliError::Place { path: out.to_owned(), problem })
}

/// Bytes, as transformers reads them: `5GB` is 5 · 10^9.
fn size(text: &str) -> Result<u64, units::QuantityError> {
    units::bytes(text).map(|bytes| bytes.0 as u64)
}
