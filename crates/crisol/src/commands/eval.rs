//! `crisol eval`: how good a model is on data of any shape.

use std::path::PathBuf;

use clap::Args;
use crisol_model::ModelFiles;
use crisol_phases::{DataSource, Evaluation, EvaluationOptions, Measured, RunSettings, evaluate};
use crisol_report::measures::{label, value_text};
use crisol_text::{StringFormat, TextOptions};
use serde_json::{Value, json};

use super::phase::Reading;
use super::{TemplateArguments, Threads};
use crate::console::{print_json, print_line, say};
use crate::datasets::{self, is_on_hub};
use crate::error::CliError;
use crate::hub::Need;
use crate::model::{Network, check_folder, load, locate};
use crate::progress::bar_or_lines;

const EXAMPLES: &str = "\
Examples:
  crisol eval runs/tuned/1-sft --data test.jsonl
  crisol eval MODEL --data 'hf://datasets/openai/gsm8k/main:test[..200]' --max-new-tokens 400
  crisol eval runs/reward/1-reward --data pairs.test.jsonl --json

Measures, by the shape of a record (docs/data.md):
  text, conversation, completion   loss (nats per trained token), perplexity; text: bits per byte
  preference pair                  share ranked right, by score or log-probability
  problem                          share solved (greedy), share in the form <think>…</think>
Standard errors are clustered by record.

JSON: docs/json.md";

/// `crisol eval`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EvalArgs {
    /// Model: a folder, a GGUF file, or ORG/NAME on a hub
    model: PathBuf,
    /// Data: files, folders, patterns, hub data sets, - for stdin
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    arguments: TemplateArguments,
    /// Take prompts that are strings as user messages, not as raw text
    #[arg(long)]
    chat_strings: bool,
    /// Measure the first N records only [default: all]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..),
    )]
    limit: Option<usize>,
    /// Most new tokens of an answer to a problem
    #[arg(
        long,
        value_name = "N",
        default_value_t = 512,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000),
    )]
    max_new_tokens: usize,
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    threads: Threads,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl EvalArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let mut reading = self.reading.options();
        let files: Vec<String> =
            self.data.iter().map(|file| file.to_string_lossy().into_owned()).collect();
        for file in files.iter().filter(|file| is_on_hub(file)) {
            let (name, set) = datasets::find(file, &reading, self.network)?;
            say(format_args!("Reading {name}"));
            reading.datasets.insert(file.clone(), set);
        }
        let mut checkpoint = load(&self.model, self.network, &self.threads.device()?)?;
        self.arguments.give(&mut checkpoint.text)?;
        if self.chat_strings {
            let options =
                TextOptions { strings: StringFormat::Message, ..checkpoint.text.options().clone() };
            checkpoint.text.set_options(options);
        }
        let data = DataSource::open("").reading(reading);
        let options = EvaluationOptions {
            limit: self.limit,
            max_new_tokens: self.max_new_tokens,
            shard_tokens: RunSettings::default().shard_tokens,
        };
        let (bar, _) = bar_or_lines();
        let evaluation = evaluate(&checkpoint, &data, &files, &options, |records| {
            bar.set_message(format!("{records} records measured"));
            bar.tick();
        });
        bar.finish_and_clear();
        let evaluation = evaluation?;
        if evaluation.measures.iter().any(|measured| !measured.value.is_finite()) {
            // The weights are the reason more often than not; then the error names the tensor.
            ModelFiles::open(&check_folder(&locate(&self.model, Need::Whole, self.network)?)?)?
                .check_finite()?;
            return Err(CliError::NotFinite);
        }
        if self.json {
            print_json(&json(&self.model, &files, &evaluation))
        } else {
            table(&evaluation)
        }
    }
}

fn json(model: &std::path::Path, files: &[String], evaluation: &Evaluation) -> Value {
    let measured = |Measured { shape, id, value, standard_error, records, of }: &Measured| {
        json!({
            "shape": shape,
            "id": id,
            "value": value,
            "standard_error": standard_error,
            "records": records,
            "of": of,
        })
    };
    json!({
        "model": model.to_string_lossy(),
        "data": files,
        "measures": evaluation.measures.iter().map(measured).collect::<Vec<_>>(),
        "notes": evaluation.notes,
    })
}

fn table(evaluation: &Evaluation) -> Result<(), CliError> {
    for note in &evaluation.notes {
        say(note);
    }
    let row = |measured: &Measured| {
        let value = value_text(measured.id, measured.value);
        let error = measured
            .standard_error
            .map_or("–".to_owned(), |error| value_text(measured.id, error));
        [
            measured.shape.to_owned(),
            label(measured.id).into_owned(),
            value,
            error,
            measured.records.to_string(),
        ]
    };
    let head = ["records of", "measure", "value", "standard error", "records"].map(str::to_owned);
    let rows: Vec<[String; 5]> =
        std::iter::once(head).chain(evaluation.measures.iter().map(row)).collect();
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    for row in &rows {
        let [shape, measure, value, error, records] = row;
        let [a, b, c, d, e] = widths;
        print_line(format!("{shape:<a$}  {measure:<b$}  {value:>c$}  {error:>d$}  {records:>e$}"))?;
    }
    Ok(())
}
