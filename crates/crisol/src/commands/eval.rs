//! `crisol eval`: how good a model is on data of any shape.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use crisol_phases::{DataSource, Evaluation, EvaluationOptions, Measure, RunSettings, evaluate};
use crisol_report::measures::{label, value_text};
use crisol_report::{Language, wrap};
use crisol_text::{StringFormat, TextOptions};
use serde_json::{Value, json};

use super::phase::Reading;
use super::{Compute, TemplateArguments};
use crate::console::{layout, print, print_json, say, say_wrapped};
use crate::datasets::{self, is_on_hub};
use crate::error::CliError;
use crate::model::ModelArgs;
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
    #[command(flatten)]
    model: ModelArgs,
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
    /// Maximum new tokens of an answer to a problem
    #[arg(
        long,
        value_name = "N",
        default_value_t = 512,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000),
    )]
    max_new_tokens: usize,
    #[command(flatten)]
    compute: Compute,
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
            let (name, set) = datasets::find(file, &reading, self.model.network)?;
            say(format_args!("Reading {name}"));
            reading.datasets.insert(file.clone(), set);
        }
        let mut checkpoint = self.model.load(&self.compute.device()?)?;
        self.arguments.give(&mut checkpoint.text)?;
        if self.chat_strings {
            let options =
                TextOptions { strings: StringFormat::Message, ..checkpoint.text.options().clone() };
            checkpoint.text.set_options(options);
        }
        let data = DataSource::open("").with_options(reading);
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
            return Err(self.model.why_not_finite()?);
        }
        if self.json {
            print_json(&json(&self.model.model, &files, &evaluation))
        } else {
            table(&evaluation)
        }
    }
}

fn json(model: &std::path::Path, files: &[String], evaluation: &Evaluation) -> Value {
    let measured = |Measure { shape, id, value, standard_error, records, count }: &Measure| {
        json!({
            "shape": shape,
            "id": id,
            "value": value,
            "standard_error": standard_error,
            "records": records,
            "of": count,
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
        say_wrapped(note);
    }
    let row = |measured: &Measure| {
        let value = value_text(measured.id, measured.value, Language::English);
        let error = measured
            .standard_error
            .map_or("–".to_owned(), |error| value_text(measured.id, error, Language::English));
        [
            measured.shape.to_owned(),
            label(measured.id, Language::English).into_owned(),
            value,
            error,
            measured.records.to_string(),
        ]
    };
    let head = ["shape", "measure", "value", "std. error", "records"].map(str::to_owned);
    let rows: Vec<[String; 5]> =
        std::iter::once(head).chain(evaluation.measures.iter().map(row)).collect();
    print(columns(&rows, layout().width))
}

/// Rows in columns. The measure's label goes on below itself where a line has no room for it.
fn columns(rows: &[[String; 5]], width: usize) -> String {
    const GAPS: usize = 2 * 4;
    const NARROWEST: usize = 16;
    let widest =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let [a, b, c, d, e] = std::array::from_fn(widest);
    let b = b.min(width.saturating_sub(a + c + d + e + GAPS)).max(NARROWEST);
    let mut out = String::new();
    for [shape, measure, value, error, records] in rows {
        let mut label = wrap(measure, b).into_iter();
        let first = label.next().unwrap_or_default();
        let _ = writeln!(out, "{shape:<a$}  {first:<b$}  {value:>c$}  {error:>d$}  {records:>e$}");
        for rest in label {
            let _ = writeln!(out, "{:<a$}  {rest}", "");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_and_breaks_labels_between_words() {
        let row = |label: &str| ["problem", label, "0.5", "0.01", "200"].map(str::to_owned);
        let rows = [row("held-out preference pairs ranked right by the policy"), row("loss")];
        let wide = columns(&rows, 100);
        assert_eq!(wide.lines().count(), 2, "{wide}");
        let narrow = columns(&rows, 60);
        let lines: Vec<&str> = narrow.lines().collect();
        assert_eq!(lines.len(), 3, "{narrow}");
        assert!(lines.iter().all(|line| line.len() <= 60), "{narrow}");
        assert!(
            narrow.contains("\n         the policy\n") || narrow.contains(" policy\n"),
            "{narrow}"
        );
    }
}
