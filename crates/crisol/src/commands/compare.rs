//! `crisol compare`: the same prompts to several models, side by side.

use std::path::PathBuf;

use clap::Args;
use crisol_report::PromptReport;
use crisol_text::ReadOptions;

use super::{Stops, TemplateFile, Threads};
use crate::console::{self, print, print_json, say};
use crate::error::CliError;
use crate::model::{Network, check_speaks, load};

const EXAMPLES: &str = "\
Example:
  crisol compare runs/crisol-world/1-pretrain runs/crisol-world/2-sft --prompts prompts.jsonl

prompts.jsonl holds one {\"prompt\": …} a line. With \"form\": \"chat\", the default, the prompt is a
user's message, or raw text if the model has no chat template. With \"form\": \"text\" it is raw text.

JSON: docs/json.md";

/// `crisol compare`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompareArgs {
    /// Models, in the order of the columns
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// Prompts: a data file with `prompt`
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    template: TemplateFile,
    #[command(flatten)]
    stops: Stops,
    #[command(flatten)]
    threads: Threads,
    /// Print JSON instead of columns
    #[arg(long)]
    json: bool,
}

impl CompareArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let records =
            crisol_text::records(&self.prompts.to_string_lossy(), &ReadOptions::default())?
                .collect::<Result<Vec<_>, _>>()?;
        let names: Vec<String> =
            self.models.iter().map(|dir| dir.to_string_lossy().into_owned()).collect();
        if let Some(twice) =
            names.iter().enumerate().find_map(|(i, name)| names[..i].contains(name).then_some(name))
        {
            return Err(CliError::Usage(format!("{twice} is given twice; leave one out")));
        }
        let device = self.threads.device()?;
        let mut prompts: Vec<PromptReport> = Vec::new();
        // One model in memory at a time.
        for (name, folder) in names.iter().zip(&self.models) {
            say(format_args!("asking {name}"));
            let mut checkpoint = load(folder, self.network, &device)?;
            self.template.give(&mut checkpoint.text)?;
            check_speaks(folder, &checkpoint.model)?;
            let chat = checkpoint.text.template.is_some();
            let answers =
                crisol_phases::answers(&checkpoint, name, &records, chat, &self.stops.stops)?;
            if prompts.is_empty() {
                prompts = answers;
            } else {
                prompts
                    .iter_mut()
                    .zip(answers)
                    .for_each(|(prompt, answer)| prompt.outputs.extend(answer.outputs));
            }
        }
        if self.json {
            print_json(&prompts)
        } else {
            print(crisol_report::comparison(&names, &prompts, console::layout()))
        }
    }
}
