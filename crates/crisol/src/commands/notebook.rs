//! `crisol notebook`: the demonstrations of the workshop's notebook with models of the three
//! phases, then the same prompts to all three.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use crisol_hub::HubError;
use crisol_model::{Checkpoint, SamplingOptions, stream_reply};
use crisol_phases::classifiers;
use crisol_report::{
    Demonstration, NotebookModel, NotebookReport, PromptReport, StoredAnswer, sentence,
};
use crisol_text::{Message, TextSetup, Turns};
use serde::Deserialize;

use super::{TemplateFile, Threads};
use crate::clock;
use crate::console::{for_stdout, layout, print, print_line, say};
use crate::error::CliError;
use crate::hub::Need;
use crate::language::language;
use crate::model::{Network, check_folder, load, locate};
use crate::texts::texts;

const EXAMPLES: &str = "\
Examples:
  crisol notebook                              the notebook's own models
  crisol notebook --run runs/crisol-world      the phases of a run
  crisol notebook --base BASE --chat TUNED --aligned ALIGNED --out runs/mine-notebook

The notebook is 2-llm_training.ipynb of https://github.com/mkmenta/llm-workshop (Mikel Menta,
CC BY 4.0). Its five demonstrations are replayed: the most probable token each time, 100 tokens.
Where a model is the notebook's own (by its name), each answer is compared with the stored one.
Then the same prompts go to all three models, because the notebook's differ from phase to phase.
--out gets report.html and report.json.

JSON: docs/json.md";

/// The notebook's prompts and stored answers.
const NOTEBOOK: &str = include_str!("notebook.json");

/// The phases of a run that align, the last of the path first.
const ALIGNED: [&str; 3] = ["ppo", "dpo", "refuse"];

/// `crisol notebook`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct NotebookArgs {
    /// Base model [default: allenai/OLMo-2-0425-1B]
    #[arg(long, value_name = "MODEL", conflicts_with = "run")]
    base: Option<PathBuf>,
    /// Model after SFT [default: TinyLlama/TinyLlama-1.1B-Chat-v1.0]
    #[arg(long, value_name = "MODEL", conflicts_with = "run")]
    chat: Option<PathBuf>,
    /// Aligned model [default: allenai/OLMo-2-0425-1B-DPO]
    #[arg(long, value_name = "MODEL", conflicts_with = "run")]
    aligned: Option<PathBuf>,
    /// Take the models of a run: after pretrain, sft, and ppo, dpo or refuse
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Folder of the report
    #[arg(long, value_name = "DIR", default_value = "runs/notebook")]
    out: PathBuf,
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    template: TemplateFile,
    #[command(flatten)]
    threads: Threads,
    /// Print report.json instead of the answers
    #[arg(long)]
    json: bool,
}

/// The notebook, as `notebook.json` has it.
#[derive(Debug, Deserialize)]
struct Notebook {
    /// The model of each role.
    models: BTreeMap<String, String>,
    demonstrations: Vec<Stored>,
}

/// A demonstration as the notebook has it.
#[derive(Debug, Deserialize)]
struct Stored {
    cell: usize,
    role: String,
    shows: String,
    form: Form,
    prompt: String,
    answer: String,
}

/// How a prompt is put to a model.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Form {
    /// As a text to continue.
    Text,
    /// As a message to answer, in the chat template.
    Chat,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Form::Text => "text",
            Form::Chat => "chat",
        }
    }
}

/// The roles in the notebook's order.
const ROLES: [&str; 3] = ["base", "chat", "aligned"];

/// New tokens of an answer, as in the notebook.
const NEW_TOKENS: usize = 100;

impl NotebookArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let notebook: Notebook =
            serde_json::from_str(NOTEBOOK).expect("the embedded file is as it was written");
        let models = self.models(&notebook)?;
        // Before the first of them works for minutes.
        for model in &models {
            check_folder(&locate(model, Need::Whole, self.network)?)?;
        }
        let device = self.threads.device()?;
        let mut report = NotebookReport {
            crisol: env!("CARGO_PKG_VERSION").to_owned(),
            created: clock::now(),
            machine: crisol_phases::machine(),
            max_new_tokens: NEW_TOKENS,
            prompts: prompts(&notebook),
            ..NotebookReport::default()
        };
        // One model in memory at a time; one in several roles is loaded once.
        let mut loaded: Option<(&Path, Checkpoint)> = None;
        let texts = &texts().notebook;
        let phases = [texts.pretraining, texts.finetuning, texts.alignment];
        for ((role, phase), path) in ROLES.into_iter().zip(phases).zip(&models) {
            if loaded.as_ref().is_none_or(|(held, _)| held != path) {
                drop(loaded.take());
                say(format_args!("loading {}", path.display()));
                let mut checkpoint = load(path, self.network, &device)?;
                self.template.give(&mut checkpoint.text)?;
                loaded = Some((path, checkpoint));
            }
            let (_, checkpoint) = loaded.as_ref().expect("it was just loaded");
            let of_notebook = &notebook.models[role];
            report.models.push(described(role, path, of_notebook, checkpoint));
            let asked = Asked { checkpoint, shown: !self.json };
            let after = (texts.after)([&phase, &path.display()]);
            asked.show(&format!("\n== {after} ==\n"))?;
            let own = notebook.demonstrations.iter().filter(|stored| stored.role == role);
            for stored in own {
                report.demonstrations.push(asked.demonstrate(stored, path, of_notebook)?);
            }
            say("asking what all models are asked");
            asked.answer_all(role, &mut report.prompts)?;
        }
        save(&report, &self.out)?;
        if self.json {
            return print(report.to_json());
        }
        print_line(format_args!("\n== {} ==", texts.same_prompts))?;
        let columns: Vec<String> = ROLES.map(str::to_owned).to_vec();
        print(crisol_report::comparison(&columns, &report.prompts, layout()))?;
        let page = self.out.join("report.html");
        print_line(format_args!("\n{}", (texts.whole_report)([&page.display()])))
    }

    /// The three models, in the order of the roles.
    fn models(&self, notebook: &Notebook) -> Result<Vec<PathBuf>, CliError> {
        if let Some(run) = &self.run {
            let phase = |names: &[&str]| {
                let found = names.iter().find_map(|name| phase_folder(run, name));
                found.ok_or_else(|| CliError::Place {
                    path: run.clone(),
                    problem: format!(
                        "no finished phase {} in it; give the folder of a run with all phases, or \
                         three models by --base, --chat and --aligned",
                        names.join(", ")
                    ),
                })
            };
            return Ok(vec![phase(&["pretrain"])?, phase(&["sft"])?, phase(&ALIGNED)?]);
        }
        let given = [&self.base, &self.chat, &self.aligned];
        let model = |(given, role): (&Option<PathBuf>, &str)| {
            given.clone().unwrap_or_else(|| PathBuf::from(&notebook.models[role]))
        };
        Ok(given.into_iter().zip(ROLES).map(model).collect())
    }
}

/// The folder of a run's phase: a number and its name.
fn phase_folder(run: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(run).ok()?.flatten();
    let is_phase = |path: &PathBuf| {
        let folder = path
            .file_name()
            .and_then(|folder| folder.to_str())
            .and_then(|folder| folder.split_once('-'));
        folder.is_some_and(|(number, rest)| number.parse::<u32>().is_ok() && rest == name)
    };
    entries.map(|entry| entry.path()).find(is_phase)
}

/// Whether a model is the notebook's, by the last part of its name.
fn is_named(model: &Path, of_notebook: &str) -> bool {
    model.file_name() == Path::new(of_notebook).file_name()
}

fn described(role: &str, path: &Path, of_notebook: &str, checkpoint: &Checkpoint) -> NotebookModel {
    NotebookModel {
        role: role.to_owned(),
        name: path.to_string_lossy().into_owned(),
        notebook: of_notebook.to_owned(),
        architecture: format!("{:?}", checkpoint.model.config().architecture()).to_lowercase(),
        parameters: checkpoint.parameters() as u64,
        chat_template: checkpoint.text.template.is_some(),
    }
}

/// What all three models are asked: the notebook's texts, each as a text and as a message, and its
/// requests.
fn prompts(notebook: &Notebook) -> Vec<PromptReport> {
    let report = |prompt: &str, form: Form| PromptReport {
        prompt: prompt.to_owned(),
        form: form.name().to_owned(),
        ..PromptReport::default()
    };
    let forms =
        |form| if form == Form::Text { &[Form::Text, Form::Chat][..] } else { &[Form::Chat] };
    notebook
        .demonstrations
        .iter()
        .flat_map(|stored| forms(stored.form).iter().map(|&form| report(&stored.prompt, form)))
        .collect()
}

/// A model that is asked.
struct Asked<'a> {
    checkpoint: &'a Checkpoint,
    /// Whether prompts and answers go to standard output as they come.
    shown: bool,
}

impl Asked<'_> {
    fn show(&self, text: &str) -> Result<(), CliError> {
        if self.shown { print(for_stdout(text)) } else { Ok(()) }
    }

    /// Replays one demonstration, on a model that may be the notebook's own.
    fn demonstrate(
        &self,
        stored: &Stored,
        model: &Path,
        of_notebook: &str,
    ) -> Result<Demonstration, CliError> {
        let text = &self.checkpoint.text;
        let prompt = prompt(text, &stored.prompt, stored.form)?;
        let mut demonstration = Demonstration {
            cell: stored.cell,
            role: stored.role.clone(),
            shows: stored.shows.clone(),
            form: stored.form.name().to_owned(),
            prompt: stored.prompt.clone(),
            given: text.tokenizer.decode(&prompt, false),
            ..Demonstration::default()
        };
        let texts = &texts().notebook;
        let remark = sentence(&stored.shows, language());
        self.show(&format!("\n-- {}\n", (texts.says)([&of_notebook, &remark])))?;
        if stored.form == Form::Chat && text.template.is_none() {
            self.show(&format!("   {}\n", texts.no_template))?;
        }
        self.show(&format!("\n{}", demonstration.given))?;
        if let Some(problem) = self.no_room(&prompt) {
            self.show(&format!("\n({})\n", sentence(&problem, language())))?;
            demonstration.problem = problem;
            return Ok(demonstration);
        }
        let began = Instant::now();
        (demonstration.answer, demonstration.tokens) = self.answer(&prompt, self.shown)?;
        demonstration.seconds = began.elapsed().as_secs_f64();
        self.show("\n")?;
        // The notebook speaks of its own model. What this one did is seen in its answer.
        if stored.shows.contains("refuse") {
            let refused = classifiers::is_refusal(&demonstration.answer);
            let found = if refused { texts.is_refusal } else { texts.is_no_refusal };
            self.show(&format!("\n   {found}\n"))?;
            demonstration.refused = Some(refused);
        }
        if is_named(model, of_notebook) {
            let stored = StoredAnswer::compare(&stored.answer, &demonstration.answer);
            self.show(&format!("\n   ({})\n", stored.verdict(language())))?;
            demonstration.notebook = Some(stored);
        }
        Ok(demonstration)
    }

    /// Answers the prompts that all models are asked, under a role.
    fn answer_all(&self, role: &str, prompts: &mut [PromptReport]) -> Result<(), CliError> {
        let text = &self.checkpoint.text;
        let texts: Vec<String> = prompts
            .iter()
            .filter(|prompt| prompt.form == "text")
            .map(|prompt| prompt.prompt.clone())
            .collect();
        for report in prompts {
            let form = if report.form == "text" { Form::Text } else { Form::Chat };
            // It would be the same text again.
            if form == Form::Chat && text.template.is_none() && texts.contains(&report.prompt) {
                continue;
            }
            let prompt = prompt(text, &report.prompt, form)?;
            if self.no_room(&prompt).is_none() {
                report.outputs.insert(role.to_owned(), self.answer(&prompt, false)?.0);
            }
        }
        Ok(())
    }

    /// Why a prompt cannot be answered.
    fn no_room(&self, prompt: &[u32]) -> Option<String> {
        let context = self.checkpoint.model.config().max_document_len();
        (prompt.len() >= context).then(|| {
            format!(
                "the prompt takes {} tokens, of the {context} of the model's context",
                prompt.len()
            )
        })
    }

    /// The answer and its number of tokens.
    fn answer(&self, prompt: &[u32], shown: bool) -> Result<(String, usize), CliError> {
        let Checkpoint { model, params, text } = self.checkpoint;
        let options = SamplingOptions::greedy(NEW_TOKENS, text.stop_ids.clone());
        let mut printed = Ok(());
        let reply = stream_reply(model, params, text, prompt, &options, &[], |new| {
            if shown {
                printed = print(for_stdout(new));
            }
            if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        printed?;
        Ok((reply.text, reply.generated.ids.len()))
    }
}

/// The tokens of a prompt as the notebook makes them: a text, or what the chat template writes.
/// Tokenizers that put a beginning-of-text token before every text put it here too, but never a
/// second one. A message for a model without a template is a text.
fn prompt(text: &TextSetup, prompt: &str, form: Form) -> Result<Vec<u32>, CliError> {
    if form != Form::Chat || text.template.is_none() {
        return Ok(text.prompt_ids(&Turns::Plain(prompt.to_owned()))?);
    }
    let mut ids = text.prompt_ids(&Turns::Chat(vec![Message::user(prompt)]))?;
    if let Some(bos) = text.tokenizer.prepended_token().filter(|bos| ids.first() != Some(bos)) {
        ids.insert(0, bos);
    }
    Ok(ids)
}

fn save(report: &NotebookReport, out: &Path) -> Result<(), CliError> {
    std::fs::create_dir_all(out).map_err(|e| HubError::io("create", out, e))?;
    crisol_hub::write_file_atomically(&out.join("report.json"), report.to_json().as_bytes())?;
    crisol_hub::write_file_atomically(
        &out.join("report.html"),
        crisol_report::notebook_html(report, language()).as_bytes(),
    )?;
    Ok(())
}
