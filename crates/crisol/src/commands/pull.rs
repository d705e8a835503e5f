//! `crisol pull`: a model from a Hugging Face hub.

use clap::Args;

use crate::error::CliError;
use crate::hub::ModelId;
use crate::model::Network;

const EXAMPLES: &str = "\
Examples:
  crisol pull allenai/OLMo-2-0425-1B
  crisol pull allenai/OLMo-2-0425-1B@stage1-step140000-tokens294B
  crisol pull bartowski/SmolLM2-135M-Instruct-GGUF:SmolLM2-135M-Instruct-Q8_0.gguf

Fetches configuration, tokenizer, chat template and weights (safetensors, else PyTorch's), never
code, and prints the folder. The cache is that of huggingface_hub and transformers (HF_HUB_CACHE,
HF_HOME). An interrupted download resumes. Other commands fetch a missing model by themselves.

Private and gated models need HF_TOKEN, or the token of `hf auth login`. HF_ENDPOINT names
another hub.

JSON: docs/json.md";

/// `crisol pull`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PullArgs {
    /// ORG/NAME[@REVISION][:FILE.gguf]; REVISION is a branch, tag or commit
    model: ModelId,
    #[command(flatten)]
    network: Network,
    /// Print one JSON object instead of the folder
    #[arg(long)]
    json: bool,
}

impl PullArgs {
    #[cfg(feature = "hub")]
    pub(crate) fn run(self) -> Result<(), CliError> {
        let pulled = crate::hub::latest(&self.model, self.network.offline)?;
        if self.json {
            crate::console::print_json(&pulled)
        } else {
            crate::console::print_line(pulled.path().display())
        }
    }

    #[cfg(not(feature = "hub"))]
    pub(crate) fn run(self) -> Result<(), CliError> {
        Err(CliError::NoHub(self.model.to_string()))
    }
}
