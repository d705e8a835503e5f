//! `crisol data`: what of a file would be trained, and the embedded data set as files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use crisol_hub::HubError;
use crisol_model::load_text;
use crisol_phases::Recipe;
use crisol_text::inspect::{InspectedRecord, Inspection, Problem, Sequence, Span, Totals, inspect};
use crisol_text::{
    Body, EMBEDDED_TOKENS, Message, Record, StringFormat, TextError, TextOptions, TextSetup,
    Tokenizer, Turns,
};
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::TemplateArguments;
use super::phase::Reading;
use crate::console::{colour, harmless, print, print_json, print_line, say, shell_word};
use crate::datasets::{self, is_on_hub};
use crate::error::CliError;
use crate::hub::Need;
use crate::model::{Network, check_folder, locate};
use crate::references::References;

const INSPECT: &str = "\
Examples:
  crisol data inspect chats.jsonl --model MODEL
  crisol data inspect pairs.csv.gz --limit 20
  crisol data inspect maths.parquet --columns prompt=problem,answer=result
  crisol data inspect 'books/*.txt' --text-separator '\\n\\n\\n'
  crisol data inspect hf://datasets/openai/gsm8k/main:train[..100]
  crisol data inspect chats.jsonl --json > report.json

Trained tokens are green; without colours they stand between ⟦ and ⟧. Exit code 1: a record
cannot be trained on. Formats and shapes of records: docs/data.md.

JSON: docs/json.md";

const EXPORT: &str = "\
Example:
  crisol data export my-world && crisol run my-world/recipe.toml

Writes the embedded data set as JSONL files, and recipe.toml, which trains on them.";

/// `crisol data`.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Print what is trained: tokens, masks, problems
    #[command(after_help = INSPECT)]
    Inspect(InspectArgs),
    /// Write the embedded data set and its recipe into a folder
    #[command(after_help = EXPORT)]
    Export(ExportArgs),
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// Data: a file, folder, pattern or hub data set, or - for stdin
    file: PathBuf,
    #[command(flatten)]
    reading: Reading,
    /// Model for tokenizer, template and context [default: Crisol's]
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    arguments: TemplateArguments,
    /// Take prompts that are strings as user messages, not as raw text
    #[arg(long)]
    chat_strings: bool,
    /// Print the first N records; all records are checked
    #[arg(long, value_name = "N", default_value_t = 5)]
    limit: usize,
    /// Report sequences over N tokens [default: the context of --model]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..),
    )]
    context: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// Folder; other files in it are never overwritten
    dir: PathBuf,
}

impl DataArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        match self.command {
            DataCommand::Inspect(args) => args.run(),
            DataCommand::Export(args) => args.run(),
        }
    }
}

impl InspectArgs {
    fn run(self) -> Result<(), CliError> {
        crisol_text::start_text_threads(None)?;
        let mut options = self.reading.options();
        let source = self.file.to_string_lossy();
        if is_on_hub(&source) {
            let (name, set) = datasets::find(&source, &options, self.network)?;
            say(format_args!("Reading {name}"));
            options.datasets.insert(source.clone().into_owned(), set);
        }
        let mut records = crisol_text::records(&source, &options)?;
        let mut begun = vec![];
        let (mut setup, tokenizer, context) = if let Some(folder) = &self.model {
            let folder = check_folder(&locate(folder, Need::Text, self.network)?)?;
            let (config, text) = load_text(&folder)?;
            (text, format!("of {}", folder.display()), Some(config.max_document_len()))
        } else {
            begun = beginning(&mut records);
            (own_setup(&begun)?, "trained on this file's text; template: Crisol's".to_owned(), None)
        };
        self.arguments.give(&mut setup)?;
        if self.chat_strings {
            setup.set_options(TextOptions {
                strings: StringFormat::Message,
                ..setup.options().clone()
            });
        }
        let context = self.context.or(context);
        let (mut references, mut unused) =
            (References::default(), BTreeMap::<String, usize>::new());
        // A file that is not there or empty is nothing to inspect.
        let mut failed = None;
        let records = begun.into_iter().chain(records).map_while(|record| match record {
            Err(
                error @ (TextError::Read { .. }
                | TextError::NoRecords { .. }
                | TextError::RowsOutOfRange { .. }),
            ) => {
                failed = Some(error);
                None
            }
            record => Some(record),
        });
        let inspection =
            inspect(&setup, records, context.unwrap_or(usize::MAX), self.limit, |record| {
                references.add(record);
                for field in &record.unused {
                    *unused.entry(field.clone()).or_default() += 1;
                }
            });
        if let Some(error) = failed {
            return Err(error.into());
        }
        let view = View {
            file: &self.file,
            tokenizer,
            context,
            limit: self.limit,
            references,
            inspection: &inspection,
            unused: &unused,
        };
        if self.json {
            print_json(&view.json())?;
        } else {
            print(view.text(colour()))?;
        }
        let errors = inspection.records.iter().flat_map(|record| &record.problems).any(is_error);
        let left_out = inspection
            .records
            .iter()
            .filter(|record| record.problems.iter().any(is_left_out))
            .count();
        let nothing_left = left_out == inspection.totals.records;
        if errors || nothing_left { Err(CliError::BadData) } else { Ok(()) }
    }
}

/// The records from which a tokenizer is trained: some megabytes of text.
fn beginning(
    records: &mut impl Iterator<Item = Result<Record, TextError>>,
) -> Vec<Result<Record, TextError>> {
    const ENOUGH_BYTES: usize = 4 << 20;
    let (mut begun, mut bytes) = (vec![], 0);
    while bytes <= ENOUGH_BYTES {
        let Some(record) = records.next() else { break };
        if let Ok(record) = &record {
            bytes += texts(&record.body).iter().map(|text| text.len()).sum::<usize>();
        }
        begun.push(record);
    }
    begun
}

/// Crisol's template with a tokenizer of the default size, trained on the beginning of the file:
/// what `crisol run` would do with it. Its token counts are those of a small vocabulary.
fn own_setup(beginning: &[Result<Record, TextError>]) -> Result<TextSetup, CliError> {
    let texts = beginning.iter().flatten().flat_map(|record| texts(&record.body));
    let texts: Vec<&str> = texts.collect();
    let vocabulary = crisol_phases::ModelSettings::default().vocab_size;
    Ok(TextSetup::embedded(Tokenizer::train(texts, vocabulary, &EMBEDDED_TOKENS)?)?)
}

fn texts(body: &Body) -> Vec<&str> {
    fn said(messages: &[Message]) -> Vec<&str> {
        messages.iter().map(|message| message.content.as_str()).collect()
    }
    fn of(turns: &Turns) -> Vec<&str> {
        match turns {
            Turns::Plain(text) => vec![text],
            Turns::Chat(messages) => said(messages),
        }
    }
    match body {
        Body::Text { text } => vec![text],
        Body::Chat { messages } => said(messages),
        Body::Prompt { prompt } | Body::Problem { prompt, .. } => of(prompt),
        Body::Completion { prompt, completion } | Body::Rated { prompt, completion, .. } => {
            [prompt, completion].into_iter().flat_map(of).collect()
        }
        Body::Preference { prompt, chosen, rejected } => {
            [prompt, chosen, rejected].into_iter().flat_map(of).collect()
        }
    }
}

/// Whether training leaves the record out.
fn is_left_out(problem: &Problem) -> bool {
    matches!(problem, Problem::Error(TextError::EqualAnswers { .. }))
}

/// Whether training refuses the record; other problems only deserve a look.
fn is_error(problem: &Problem) -> bool {
    match problem {
        Problem::Error(_) | Problem::NoTrainedTokens => !is_left_out(problem),
        Problem::TooLong { context, prompt, .. } => prompt >= context,
        Problem::SpecialInContent { .. }
        | Problem::DroppedThought { .. }
        | Problem::DroppedContext { .. }
        | Problem::EmptyAnswer
        | Problem::Duplicate { .. }
        | Problem::EqualAnswers
        | Problem::SplitTurns { .. } => false,
    }
}

/// What is shown of an inspected file.
struct View<'a> {
    file: &'a Path,
    tokenizer: String,
    context: Option<usize>,
    limit: usize,
    references: References,
    inspection: &'a Inspection,
    /// In how many records each field stands that nothing reads.
    unused: &'a BTreeMap<String, usize>,
}

impl View<'_> {
    fn shown(&self) -> impl Iterator<Item = &InspectedRecord> {
        self.inspection.records.iter().take(self.limit)
    }

    fn problems(&self) -> impl Iterator<Item = (&InspectedRecord, &Problem)> {
        self.inspection
            .records
            .iter()
            .flat_map(|record| record.problems.iter().map(move |p| (record, p)))
    }

    fn json(&self) -> Value {
        let problem = |(record, problem): (&InspectedRecord, &Problem)| {
            json!({
                "place": record.location,
                "kind": problem.kind(),
                "error": is_error(problem),
                "message": problem.to_string(),
            })
        };
        let span = |Span { text, trained, tokens, .. }: &Span| {
            json!({
                "text": text,
                "trained": trained,
                "tokens": tokens,
            })
        };
        let sequence = |sequence: &Sequence| {
            json!({
                "name": sequence.name,
                "tokens": sequence.tokens,
                "trained": sequence.trained,
                "spans": sequence.spans.iter().map(span).collect::<Vec<_>>(),
            })
        };
        let record = |record: &InspectedRecord| {
            json!({
                "place": record.location,
                "shape": record.shape,
                "sequences": record.sequences.iter().map(sequence).collect::<Vec<_>>(),
            })
        };
        let Totals { records, shapes, tokens, trained, longest, .. } = &self.inspection.totals;
        json!({
            "file": self.file.to_string_lossy(),
            "tokenizer": self.tokenizer,
            "context": self.context,
            "totals": {
                "records": records,
                "shapes": shapes,
                "tokens": tokens,
                "trained": trained,
                "longest": longest,
            },
            "references": self.references.json(),
            "unused": self.unused,
            "problems": self.problems().map(problem).collect::<Vec<_>>(),
            "records": self.shown().map(record).collect::<Vec<_>>(),
        })
    }

    fn text(&self, colour: bool) -> String {
        let mut out = format!("tokenizer {}\n", self.tokenizer);
        for record in self.shown().filter(|record| !record.sequences.is_empty()) {
            for sequence in &record.sequences {
                let Sequence { name, tokens, trained, .. } = sequence;
                let _ = writeln!(
                    out,
                    "\n{} {name}: {tokens} tokens, {trained} trained",
                    record.location
                );
                for span in &sequence.spans {
                    out += &shown_span(span, colour);
                }
                out.push('\n');
            }
        }
        let totals = &self.inspection.totals;
        let shapes: Vec<String> =
            totals.shapes.iter().map(|(shape, count)| format!("{count} {shape}")).collect();
        let _ = writeln!(
            out,
            "\n{}: {} tokens, {} trained, the longest sequence {}",
            shapes.join(", "),
            totals.tokens,
            totals.trained,
            totals.longest
        );
        out += &self.references.text();
        if !self.unused.is_empty() {
            let fields: Vec<String> = self
                .unused
                .iter()
                .map(|(name, count)| format!("{} ({count})", harmless(name)))
                .collect();
            let _ = writeln!(out, "fields that nothing reads: {}", fields.join(", "));
        }
        self.add_problems(&mut out);
        out
    }

    /// Each kind of problem once: how often, what the first says, and where the next are.
    fn add_problems(&self, out: &mut String) {
        const PLACES: usize = 5;
        let mut groups: Vec<(String, Vec<(&InspectedRecord, &Problem)>)> = vec![];
        for (record, problem) in self.problems() {
            let kind = group(record, problem);
            match groups.iter().position(|(other, _)| *other == kind) {
                Some(at) => groups[at].1.push((record, problem)),
                None if groups.len() < MAX_GROUPS => groups.push((kind, vec![(record, problem)])),
                None => {}
            }
        }
        if groups.is_empty() {
            *out += "no problems\n";
            return;
        }
        for (kind, count) in &self.inspection.totals.problems {
            let _ = writeln!(out, "problem: {kind} ({count})");
        }
        for (_, members) in &groups {
            let (first, problem) = members[0];
            let weight = if is_error(problem) { "error" } else { "warning" };
            let (place, message) = placed(first, problem);
            let _ = writeln!(out, "  {weight}: {place}: {}", harmless(&message));
            if members.len() > 1 {
                let more: Vec<String> = members[1..]
                    .iter()
                    .take(PLACES)
                    .map(|(record, problem)| placed(record, problem).0)
                    .collect();
                let rest = members.len() - 1 - more.len();
                let rest = if rest > 0 {
                    format!(" and {rest} more (--json has them all)")
                } else {
                    String::new()
                };
                let _ = writeln!(
                    out,
                    "    likewise ({} in all): {}{rest}",
                    members.len(),
                    harmless(&more.join(", "))
                );
            }
        }
        let shown: usize = groups.iter().map(|(_, members)| members.len()).sum();
        let all = self.problems().count();
        if all > shown {
            let _ = writeln!(out, "  … and {} more (--json has them all)", all - shown);
        }
    }
}

/// Kinds of problem that are listed.
const MAX_GROUPS: usize = 20;

/// A problem's place and what it says without it. Errors of the readers say the place themselves.
fn placed(record: &InspectedRecord, problem: &Problem) -> (String, String) {
    let message = problem.to_string();
    let place = match problem {
        Problem::Error(error) if record.location.is_empty() => {
            error.location().unwrap_or_default().to_owned()
        }
        _ => record.location.clone(),
    };
    let rest = message
        .strip_prefix(&place)
        .and_then(|rest| rest.strip_prefix(": "))
        .unwrap_or(&message)
        .to_owned();
    (place, rest)
}

/// Problems are alike where they say the same but for names and numbers.
fn group(record: &InspectedRecord, problem: &Problem) -> String {
    let (_, message) = placed(record, problem);
    let mut like = String::from(problem.kind());
    let mut quoted = false;
    for c in message.chars() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted || c.is_ascii_digit() => {}
            _ => like.push(c),
        }
    }
    match problem {
        // Where it was first is another place each time.
        Problem::Duplicate { .. } | Problem::SpecialInContent { .. } => problem.kind().to_owned(),
        _ => like,
    }
}

fn shown_span(span: &Span, colour: bool) -> String {
    let text = harmless(&span.text);
    match (span.trained, colour) {
        (false, _) => text,
        (true, true) => text.green().to_string(),
        (true, false) => format!("⟦{text}⟧"),
    }
}

impl ExportArgs {
    fn run(self) -> Result<(), CliError> {
        let mut recipe = Recipe::embedded();
        ".".clone_into(&mut recipe.run.data);
        let recipe = recipe.to_toml();
        let data = crisol_world::dataset();
        let files = data
            .iter()
            .map(|file| (file.name.as_str(), file.jsonl.as_str()))
            .chain([("recipe.toml", recipe.as_str())]);
        let files: Vec<(PathBuf, &str)> =
            files.map(|(name, text)| (self.dir.join(name), text)).collect();
        // All is checked before anything is written.
        for (path, text) in &files {
            if path.exists()
                && std::fs::read(path).map_err(|e| HubError::io("read", path, e))?
                    != text.as_bytes()
            {
                let problem = "exists with other contents and is never overwritten; choose another \
                               folder";
                return Err(CliError::Place { path: path.clone(), problem: problem.into() });
            }
        }
        std::fs::create_dir_all(&self.dir).map_err(|e| HubError::io("create", &self.dir, e))?;
        for (path, text) in &files {
            crisol_hub::write_file_atomically(path, text.as_bytes())?;
        }
        for file in &data {
            print_line(format_args!("{:<28} {}", file.name, file.purpose))?;
        }
        let recipe = self.dir.join("recipe.toml");
        say(format_args!(
            "Train on them with: crisol run {}",
            shell_word(&recipe.to_string_lossy())
        ));
        Ok(())
    }
}
