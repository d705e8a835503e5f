//! Forecast of a whole run, before any of it: every phase's work, by a sample of its data that is encoded with the model's
//! own tokenizer and chat template.

use std::path::Path;

use crisol_cost::ModelShape;
use crisol_cost::machine::{LocalWork, Machine};
use crisol_cost::phases::TRAINING;
use crisol_model::load_text;
use crisol_text::{
    Body, Encoded, Message, Record, Strings, TextError, TextOptions, TextSetup, Turns,
    encode_records,
};
use crisol_train::derived_seed;

use crate::data::DataSource;
use crate::examples::Kind;
use crate::expectation::{self, Documents, ExpectedStage, Length, Rollouts, answer, replay};
use crate::recipe::{Phase, Recipe};
use crate::settings::{OptimizerSettings, PhaseSettings, SftSettings};
use crate::{PhaseError, estimate, pretrain, reason};

/// What one phase will take.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedPhase {
    /// Its name.
    pub name: String,
    /// Optimizer steps, or rollouts with their updates, at most.
    pub steps: f64,
    /// Its stages, in order.
    pub stages: Vec<ExpectedStage>,
    /// Bytes of memory at most, in a process of its own.
    pub memory: f64,
}

impl ExpectedPhase {
    /// Floating-point operations, as a report counts them: without measuring.
    pub fn flops(&self) -> f64 {
        self.stages.iter().map(|stage| stage.flops).sum()
    }

    /// Seconds on a machine that was measured.
    pub fn seconds(&self) -> Option<f64> {
        self.stages.iter().map(|stage| stage.seconds).sum()
    }
}

/// A run of more steps is taken for a mistake.
const MAX_STEPS: f64 = 1e6;

/// Refuses a run of which a phase takes more steps than anybody waits for, or more than the bytes of memory that there are.
pub fn refuse_too_large(phases: &[ExpectedPhase], memory: Option<u64>) -> Result<(), PhaseError> {
    let bytes = |bytes: f64| crisol_report::prefixed(bytes, "B").replace('\u{a0}', " ");
    for ExpectedPhase { name, steps, memory: wanted, .. } in phases {
        let forecast = match memory.map(|memory| memory as f64) {
            _ if *steps > MAX_STEPS => {
                format!(
                    "phase {name} would take about {steps:.0} steps, and more than {MAX_STEPS:.0} are most likely a slip"
                )
            }
            Some(memory) if *wanted > memory => {
                format!(
                    "phase {name} would take about {} of memory, and {} are free here",
                    bytes(*wanted),
                    bytes(memory)
                )
            }
            _ => continue,
        };
        return Err(PhaseError::TooLarge { forecast });
    }
    Ok(())
}

/// What every phase of a recipe will take, once its defaults are settled ([`Recipe::resolve`]).
pub fn expected(
    recipe: &Recipe,
    machine: Option<&Machine>,
    threads: usize,
) -> Result<Vec<ExpectedPhase>, PhaseError> {
    let data = recipe.run.data_source();
    let config = recipe.model_config()?;
    let shape = config.cost_shape();
    let sample =
        Sample { data: &data, text: text_of(recipe, &data)?, context: config.longest_document() };
    let expect = |phase: &Phase| -> Result<ExpectedPhase, PhaseError> {
        let (steps, stages) = sample.forecast(&phase.settings, &shape, recipe)?;
        let stage = |(name, work): StageWork| ExpectedStage::of(name, &shape, &work, machine);
        Ok(ExpectedPhase {
            name: phase.name.clone(),
            steps,
            stages: stages.into_iter().map(stage).collect(),
            memory: estimate::memory(&phase.settings, &recipe.run, &config, &data, threads)
                .total()
                .0,
        })
    };
    recipe.phases.iter().map(expect).collect()
}

/// The tokenizer and template of the run's model. A new model's tokenizer is trained on the beginning of its text.
fn text_of(recipe: &Recipe, data: &DataSource) -> Result<TextSetup, PhaseError> {
    let mut text = match (recipe.run.base.as_str(), &recipe.phases[0].settings) {
        ("", PhaseSettings::Pretrain(settings)) => {
            let files: Vec<String> =
                settings.data.iter().filter(|file| data.has(file)).cloned().collect();
            let mut texts = Vec::new();
            let mut read = 0;
            for record in data.read(&files) {
                if let Body::Text { text } = record?.body {
                    let text = beginning(text, LEARNED_FROM - read);
                    read += text.len();
                    texts.push(text);
                }
                if read >= LEARNED_FROM {
                    break;
                }
            }
            pretrain::text_setup(&recipe.run.model, texts.iter())?
        }
        (base, _) => load_text(Path::new(base))?.1,
    };
    text.set_options(recipe.run.text.encoding());
    Ok(text)
}

/// Bytes of text that a new model's tokenizer is trained on for the forecast.
const LEARNED_FROM: usize = 1 << 20;
/// About so many records of a file are encoded, drawn at random, and so many bytes of them; smaller files are encoded whole.
const RECORDS: usize = 1000;
const BYTES: usize = 1 << 20;
/// Bytes of a record of raw text that are encoded: all of it is alike.
const BYTES_OF_RECORD: usize = 1 << 18;
/// Bytes of a file that are read for the forecast. The rest is taken to be like them.
const READ: usize = 64 << 20;

/// The text up to so many bytes.
fn beginning(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

/// Bytes of the text of a record.
fn bytes(record: &Record) -> usize {
    let said =
        |messages: &[Message]| messages.iter().map(|message| message.content.len()).sum::<usize>();
    let turns = |turns: &Turns| match turns {
        Turns::Plain(text) => text.len(),
        Turns::Chat(messages) => said(messages),
    };
    match &record.body {
        Body::Text { text } => text.len(),
        Body::Chat { messages } => said(messages),
        Body::Completion { prompt, completion } | Body::Rated { prompt, completion, .. } => {
            turns(prompt) + turns(completion)
        }
        Body::Preference { prompt, chosen, rejected } => {
            turns(prompt) + turns(chosen) + turns(rejected)
        }
        Body::Problem { prompt, .. } | Body::Prompt { prompt } => turns(prompt),
    }
}

/// A stage's name and its work.
type StageWork = (&'static str, LocalWork);

/// A run's data, of which a sample is encoded as its phases will do it.
struct Sample<'a> {
    data: &'a DataSource,
    text: TextSetup,
    context: usize,
}

impl Sample<'_> {
    /// The lengths of what `encode` makes of the records of some files.
    fn documents<T: Send>(
        &self,
        files: &[String],
        encode: impl Fn(&Record) -> Result<Encoded<T>, TextError> + Sync,
        length: impl Fn(&T) -> Length,
    ) -> Result<Documents, PhaseError> {
        let (mut drawn, mut counts) = (Vec::new(), Vec::new());
        // What is missing is an error once it is needed, and a pipe can be read only then.
        for file in files.iter().filter(|file| self.data.has(file)) {
            let size = self.data.size(file);
            let one_of =
                size.records.div_ceil(RECORDS).max(size.bytes.div_ceil(BYTES)).max(1) as u64;
            let (first, mut records, mut all, mut encoded) = (drawn.len(), 0_u64, 0, 0);
            for record in self.data.read(std::slice::from_ref(file)) {
                let mut record = record?;
                all += bytes(&record);
                if records == 0 || derived_seed(0, file, records).is_multiple_of(one_of) {
                    if let Body::Text { text } = &mut record.body {
                        *text = beginning(std::mem::take(text), BYTES_OF_RECORD);
                    }
                    encoded += bytes(&record);
                    drawn.push(record);
                }
                records += 1;
                if all >= READ {
                    break;
                }
            }
            let beyond =
                if all < READ { 1.0 } else { (size.records as f64 / records as f64).max(1.0) };
            let count = beyond * all.max(1) as f64 / encoded.max(1) as f64;
            counts.resize(drawn.len(), if first == drawn.len() { 1.0 } else { count });
        }
        let encoded = match encode_records(&drawn, encode) {
            // Others may be left.
            Err(TextError::NothingLeft { .. }) => return Ok(Documents::default()),
            encoded => encoded?,
        };
        let counts = encoded.records.iter().map(|&record| counts[record]);
        Ok(encoded.examples.iter().map(length).zip(counts).collect())
    }

    /// Examples of training data.
    fn examples(&self, kind: Kind, files: &[String]) -> Result<Documents, PhaseError> {
        self.documents(files, |record| kind.encode(&self.text, record, self.context), Length::of)
    }

    /// Conversations, completions and raw text.
    fn supervised(&self, files: &[String]) -> Result<Documents, PhaseError> {
        self.examples(Kind::Supervised, files)
    }

    /// Both answers of preference pairs.
    fn pairs(&self, files: &[String]) -> Result<Documents, PhaseError> {
        self.examples(Kind::Preference, files)
    }

    /// Prompts that are to be answered.
    fn prompts(&self, files: &[String], text: &TextSetup) -> Result<Documents, PhaseError> {
        let length = |prompt: &Vec<u32>| Length { tokens: prompt.len(), rows: 0 };
        self.documents(files, |record| text.rollout_prompt(record, self.context), length)
    }

    /// Training on documents and measuring held-out ones before and after; and its steps.
    fn next_token(
        &self,
        shape: &ModelShape,
        files: [&[String]; 2],
        epochs: f64,
        batch_tokens: usize,
        optimizer: &OptimizerSettings,
    ) -> Result<(f64, LocalWork, Documents), PhaseError> {
        let documents = self.supervised(files[0])?;
        let steps = documents.batches(batch_tokens) * epochs;
        let work = LocalWork {
            training: documents.forward(shape) * (TRAINING * epochs),
            optimizer: expectation::optimizer(shape, optimizer.rule, steps.ceil() as usize),
            measuring: self.supervised(files[1])?.forward(shape) * 2.0,
            ..LocalWork::default()
        };
        Ok((steps, work, documents))
    }

    /// Steps of all stages of a phase, and the stages' work.
    fn forecast(
        &self,
        settings: &PhaseSettings,
        shape: &ModelShape,
        recipe: &Recipe,
    ) -> Result<(f64, Vec<StageWork>), PhaseError> {
        let scalar = shape.scalar();
        let sft = |s: &SftSettings| {
            self.next_token(shape, [&s.data, &s.heldout], s.epochs, s.batch_tokens, &s.optimizer)
        };
        let heldout = |files: &[String]| self.pairs(&recipe.run.evaluate.files(files));
        Ok(match settings {
            PhaseSettings::Pretrain(s) => {
                let files = [s.data.as_slice(), &s.heldout];
                let (steps, work, _) =
                    self.next_token(shape, files, s.epochs, s.batch_tokens, &s.optimizer)?;
                (steps, vec![("pretrain", work)])
            }
            PhaseSettings::Sft(s) => {
                let (steps, work, _) = sft(s)?;
                (steps, vec![("sft", work)])
            }
            PhaseSettings::Reward(s) => {
                let pairs = self.pairs(&s.data)?;
                let work = LocalWork {
                    training: pairs.judged().forward(&scalar) * (TRAINING * s.epochs),
                    // All of them, and each kind by itself, before and after.
                    measuring: heldout(&s.heldout)?.judged().forward(&scalar) * 4.0,
                    ..LocalWork::default()
                };
                let steps = pairs.count() / 2.0 * s.epochs / s.batch_pairs as f64;
                (steps, vec![("reward", work)])
            }
            PhaseSettings::Dpo(s) => {
                let pairs = self.pairs(&s.data)?;
                let steps = pairs.count() / 2.0 * s.epochs / s.batch_pairs as f64;
                let mut work =
                    replay(shape, &s.replay, &self.supervised(&s.replay.data)?, steps as usize);
                // The reference looks at all pairs once.
                work.forward += pairs.forward(shape);
                work.training += pairs.forward(shape) * (TRAINING * s.epochs);
                // By its log-probs before and after, and once for the loss.
                work.measuring += heldout(&s.heldout)?.forward(shape) * 3.0;
                (steps, vec![("dpo", work)])
            }
            PhaseSettings::Reason(s) => {
                let (cold_steps, cold, shown) = sft(&s.cold_start)?;
                let mut text = self.text.clone();
                if reason::takes_problems_for_messages(self.data, s, text.options())? {
                    text.set_options(TextOptions {
                        strings: Strings::Message,
                        ..text.options().clone()
                    });
                }
                let rollouts = Rollouts {
                    shape,
                    scalar: None,
                    settings: &s.rollout,
                    steps: s.steps as usize,
                    prompt: self.prompts(&s.data, &text)?.mean_tokens(),
                    answer: answer(&shown, &s.rollout),
                    reference: reason::looks_at_reference(s),
                };
                let mut work = rollouts.work(s.optimizer.rule);
                work +=
                    replay(shape, &s.replay, &self.supervised(&s.replay.data)?, rollouts.updates());
                let cold =
                    Some((reason::COLD_START, cold)).filter(|_| !s.cold_start.data.is_empty());
                (s.steps as f64 + cold_steps, cold.into_iter().chain([("grpo", work)]).collect())
            }
            PhaseSettings::Ppo(s) => {
                let replayed = self.supervised(&s.replay.data)?;
                let rollouts = Rollouts {
                    shape,
                    scalar: Some(&scalar),
                    settings: &s.rollout,
                    steps: s.steps as usize,
                    prompt: self.prompts(&s.data, &self.text)?.mean_tokens(),
                    answer: answer(&replayed, &s.rollout),
                    reference: 1.0,
                };
                let mut work = rollouts.work(s.optimizer.rule);
                work += replay(shape, &s.replay, &replayed, rollouts.updates());
                (s.steps as f64, vec![("ppo", work)])
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use crisol_text::{EMBEDDED_TOKENS, Tokenizer};

    use super::*;

    #[test]
    fn impossible_models_are_refused_before_anything_grows_with_them() {
        let mut recipe = Recipe::embedded();
        recipe.run.model.layers = 1_000_000_000;
        assert!(matches!(expected(&recipe, None, 1), Err(PhaseError::Model(_))));
    }

    #[test]
    fn what_is_too_large_is_refused_with_forecast_and_limit() {
        let phase =
            |steps, memory| ExpectedPhase { name: "sft".into(), steps, stages: vec![], memory };
        assert!(refuse_too_large(&[phase(1e6, 1e9)], Some(1 << 30)).is_ok());
        assert!(refuse_too_large(&[phase(1.0, 1e15)], None).is_ok());
        let refused = |phases: &[ExpectedPhase]| {
            refuse_too_large(phases, Some(8_000_000_000)).unwrap_err().to_string()
        };
        let steps = refused(&[phase(1.0, 1e9), phase(2e6, 1e9)]);
        assert!(
            steps.contains("sft would take about 2000000 steps") && steps.contains("--force"),
            "{steps}"
        );
        let memory = refused(&[phase(1.0, 347e9)]);
        assert!(memory.contains("347 GB") && memory.contains("8 GB are free"), "{memory}");
    }

    /// Files whose records are of several kinds by turns, some of them books, and some long and few.
    #[test]
    fn a_sample_of_a_large_file_stands_for_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let chat = |i: usize| {
            let answer = "one hello ".repeat(if i.is_multiple_of(2) { 2 } else { 3 + i % 60 });
            let turn =
                |role: &str, content: &str| serde_json::json!({"role": role, "content": content});
            serde_json::json!({"messages": [turn("user", "number?"), turn("assistant", &answer)]})
                .to_string()
                + "\n"
        };
        let texts = |words: usize| {
            serde_json::json!({"text": "a number hello ".repeat(words)}).to_string() + "\n"
        };
        std::fs::write(folder.path().join("chats.jsonl"), (0..9000).map(chat).collect::<String>())
            .unwrap();
        std::fs::write(folder.path().join("books.jsonl"), texts(90_000) + &texts(50_000)).unwrap();
        std::fs::write(folder.path().join("long.jsonl"), texts(800).repeat(300)).unwrap();
        let tokenizer = Tokenizer::train(["hello a number one"], 280, &EMBEDDED_TOKENS).unwrap();
        let data = DataSource::open(folder.path().to_str().unwrap());
        let sample =
            Sample { data: &data, text: TextSetup::embedded(tokenizer).unwrap(), context: 256 };
        let shape = Recipe::embedded().model_config().unwrap().cost_shape();
        for file in ["chats.jsonl", "books.jsonl", "long.jsonl"] {
            let files = [file.to_owned()];
            let records = data.all_records(&files).unwrap();
            let encode =
                |record: &Record| Kind::Supervised.encode(&sample.text, record, sample.context);
            let all: Documents =
                encode_records(&records, encode).unwrap().examples.iter().map(Length::of).collect();
            let some = sample.supervised(&files).unwrap();
            let close = |a: f64, b: f64| (a / b - 1.0).abs() < 0.03;
            assert!(close(some.forward(&shape).0, all.forward(&shape).0), "{file}");
            assert!(
                close(some.count(), all.count()),
                "{file}: {} of {}",
                some.count(),
                all.count()
            );
        }
    }

    #[test]
    fn every_phase_of_the_embedded_run_is_foreseen() {
        let recipe = Recipe::embedded();
        let expected = expected(&recipe, None, 2).expect("the embedded data is there");
        assert_eq!(expected.len(), recipe.phases.len());
        for phase in &expected {
            assert!(phase.flops() > 1e11 && phase.seconds().is_none(), "{phase:?}");
        }
        // Pre-training is most of it.
        let all: f64 = expected.iter().map(ExpectedPhase::flops).sum();
        assert!(expected[0].flops() > 0.25 * all, "{expected:?}");
    }
}
