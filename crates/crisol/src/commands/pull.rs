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
  crisol generate allenai/OLMo-2-0425-1B --prompt \"The sky is\"     fetches it too, unless it is there

Fetched are the configuration, the tokenizer, the chat template and the weights (safetensors, or PyTorch's where there are none), never \
code. They go into the cache that Python's huggingface_hub and transformers use (HF_HUB_CACHE, HF_HOME), and what those \
have fetched is not fetched again. A stopped download goes on where it stopped. The folder is printed; with --json, \
one object: repository, revision (the commit), folder, and files, each with name, bytes and cached (whether it was \
there before).

Private and gated models need HF_TOKEN, or the token that `hf auth login` saves. HF_ENDPOINT names another hub.";

/// `crisol pull`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PullArgs {
    /// ORG/NAME, with @REVISION for a branch, tag or commit, and with :FILE.gguf for a GGUF file
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
