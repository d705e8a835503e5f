//! `crisol score`: how probable a model finds a text, token by token.

use std::fmt::Write as _;

use clap::Args;
use crisol_text::{TextSetup, Turns};
use serde::Serialize;

use super::{Compute, token_id};
use crate::console::{harmless, print_json, print_line};
use crate::error::CliError;
use crate::model::ModelArgs;

const EXAMPLES: &str = "\
Examples:
  crisol score runs/crisol-world/1-pretrain --text \"The capital of France is Paris.\"
  crisol score MODEL --ids 1,2,3 --json

Log-probabilities are in nats. The first token has none: nothing precedes it.

JSON: docs/json.md";

/// `crisol score`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ScoreArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    given: Given,
    #[command(flatten)]
    compute: Compute,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Given {
    /// Text to score
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    text: Option<String>,
    /// Token ids to score
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = token_id)]
    ids: Option<Vec<u32>>,
}

#[derive(Serialize)]
struct Score {
    ids: Vec<u32>,
    logprobs: Vec<Option<f32>>,
    total: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bits_per_byte: Option<f64>,
}

impl ScoreArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let loaded = self.model.load_for_ids(&self.compute.device()?)?;
        let ids = match (&self.given.text, self.given.ids, &loaded.text) {
            (Some(text), _, Some(setup)) => setup.prompt_ids(&Turns::Plain(text.clone()))?,
            (Some(_), _, None) => {
                return Err(CliError::Usage(
                    "the model has no tokenizer.json to read text with; give token --ids".into(),
                ));
            }
            (None, ids, _) => ids.unwrap_or_default(),
        };
        if ids.is_empty() {
            return Err(CliError::Usage(
                "there is no token to score: the text is empty; give a longer one".into(),
            ));
        }
        let scores = crisol_model::score(&loaded.model, &loaded.params, &[&ids], 1.0)?;
        if scores.iter().flatten().any(|logprob| !logprob.is_finite()) {
            return Err(self.model.why_not_finite()?);
        }
        let logprobs: Vec<Option<f32>> =
            std::iter::once(None).chain(scores.into_iter().flatten().map(Some)).collect();
        let total: f64 = logprobs.iter().flatten().map(|&logprob| f64::from(logprob)).sum();
        let bits_per_byte =
            self.given.text.map(|text| -total / std::f64::consts::LN_2 / text.len() as f64);
        let score = Score { ids, logprobs, total, bits_per_byte };
        if self.json { print_json(&score) } else { table(&score, loaded.text.as_ref()) }
    }
}

fn table(score: &Score, text: Option<&TextSetup>) -> Result<(), CliError> {
    print_line("     id   log-prob  probability  token")?;
    for (&id, logprob) in score.ids.iter().zip(&score.logprobs) {
        let token = text.map_or(String::new(), |text| text.tokenizer.decode(&[id], false));
        // Quotes show spaces and line ends.
        let token = if token.is_empty() { token } else { format!("{:?}", harmless(&token)) };
        print_line(match logprob {
            Some(logprob) => format!("{id:>7} {logprob:>10.4} {:>12.6}  {token}", logprob.exp()),
            None => format!("{id:>7} {:>10} {:>12}  {token}", "–", "–"),
        })?;
    }
    let mut sum = format!("total {:.4} nats", score.total);
    if let Some(bits) = score.bits_per_byte {
        let _ = write!(sum, ", {bits:.4} bits per byte");
    }
    print_line(sum)
}
