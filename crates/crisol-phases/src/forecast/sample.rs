//! A sample of a run's data, encoded with the tokenizer and chat template that its phases will use.

use std::path::Path;

use crisol_cost::ModelShape;
use crisol_cost::machine::LocalWork;
use crisol_model::load_text;
use crisol_text::{Body, Encoded, Message, Record, TextError, TextSetup, Turns, encode_records};
use crisol_train::derived_seed;

use super::lengths::{Length, Lengths};
use super::plan::{Shapes, StageData, StagePlan, answers, rollout_updates};
use crate::data::DataSource;
use crate::examples::ExampleKind;
use crate::recipe::{Recipe, Recompute, RunSettings, Split};
use crate::settings::{PhaseSettings, ReplaySettings, RolloutSettings};
use crate::supervised::NextToken;
use crate::{PhaseError, dpo, grpo, ppo, pretrain, reason, reward, sft};

/// Share of GRPO's groups whose answers all earn the same, so that nothing is trained on them: the
/// middle of what is healthy (docs/phases.md).
const ZERO_SPREAD: f64 = 0.3;

/// Tokenizer and template of the run's model. A new model's tokenizer is trained on the beginning
/// of its text.
fn text_of(recipe: &Recipe, data: &DataSource) -> Result<TextSetup, PhaseError> {
    let mut text = match (recipe.run.base.as_str(), &recipe.phases[0].settings) {
        ("", PhaseSettings::Pretrain(settings)) => {
            let files: Vec<String> =
                settings.data.iter().filter(|file| data.has(file)).cloned().collect();
            let mut texts = Vec::new();
            let mut read = 0;
            for record in data.read(&files) {
                if let Body::Text { text } = record?.body {
                    let text = beginning(text, TOKENIZER_BYTES - read);
                    read += text.len();
                    texts.push(text);
                }
                if read >= TOKENIZER_BYTES {
                    break;
                }
            }
            pretrain::text_setup(&recipe.run.model, texts.iter())?
        }
        (base, _) => load_text(Path::new(base))?.1,
    };
    recipe.run.text.give(&mut text)?;
    Ok(text)
}

/// Bytes of text that a new model's tokenizer is trained on for the forecast.
const TOKENIZER_BYTES: usize = 1 << 20;
/// Records and bytes of a file that are encoded, about. They are drawn at random; smaller files are
/// encoded completely.
const SAMPLE_RECORDS: usize = 1000;
const SAMPLE_BYTES: usize = 1 << 20;
/// Maximum bytes of a record of raw text that are encoded.
const MAX_RECORD_BYTES: usize = 1 << 18;
/// Maximum bytes of a file that are read. They stand for the rest.
const MAX_READ_BYTES: usize = 64 << 20;

/// At most `bytes` bytes of the text.
fn beginning(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

/// Bytes of the text of a record.
fn bytes(record: &Record) -> usize {
    let content =
        |messages: &[Message]| messages.iter().map(|message| message.content.len()).sum::<usize>();
    let turns = |turns: &Turns| match turns {
        Turns::Plain(text) => text.len(),
        Turns::Chat(messages) => content(messages),
    };
    match &record.body {
        Body::Text { text } => text.len(),
        Body::Chat { messages } => content(messages),
        Body::Completion { prompt, completion } | Body::Rated { prompt, completion, .. } => {
            turns(prompt) + turns(completion)
        }
        Body::Preference { prompt, chosen, rejected } => {
            turns(prompt) + turns(chosen) + turns(rejected)
        }
        Body::Problem { prompt, .. } | Body::Prompt { prompt } => turns(prompt),
    }
}

/// Samples and encodes a run's data.
pub(super) struct Sample<'a> {
    data: &'a DataSource,
    evaluate: Split,
    recompute: Recompute,
    text: TextSetup,
    context: usize,
}

/// Steps of a phase, and the work of each of its stages.
pub(super) struct Forecasted {
    pub(super) steps: f64,
    pub(super) stages: Vec<(&'static str, LocalWork)>,
}

impl Forecasted {
    fn one(name: &'static str, steps: f64, work: LocalWork) -> Forecasted {
        Forecasted { steps, stages: vec![(name, work)] }
    }
}

impl<'a> Sample<'a> {
    pub(super) fn new(
        recipe: &Recipe,
        data: &'a DataSource,
        context: usize,
    ) -> Result<Sample<'a>, PhaseError> {
        let RunSettings { evaluate, recompute, .. } = recipe.run;
        Ok(Sample { data, evaluate, recompute, text: text_of(recipe, data)?, context })
    }

    /// Lengths of the documents that `encode` makes of a sample of files.
    fn documents<T: Send>(
        &self,
        files: &[String],
        encode: impl Fn(&Record) -> Result<Encoded<T>, TextError> + Sync,
        length: impl Fn(&T) -> Length,
    ) -> Result<Lengths, PhaseError> {
        let (mut drawn, mut counts) = (Vec::new(), Vec::new());
        // Missing files are an error of the phase, and a pipe can be read only there.
        for file in files.iter().filter(|file| self.data.has(file)) {
            let size = self.data.size(file);
            let one_of =
                size.records.div_ceil(SAMPLE_RECORDS).max(size.bytes.div_ceil(SAMPLE_BYTES)).max(1)
                    as u64;
            let (first, mut records, mut all, mut encoded) = (drawn.len(), 0_u64, 0, 0);
            for record in self.data.read(std::slice::from_ref(file)) {
                let mut record = record?;
                all += bytes(&record);
                if records == 0 || derived_seed(0, file, records).is_multiple_of(one_of) {
                    if let Body::Text { text } = &mut record.body {
                        *text = beginning(std::mem::take(text), MAX_RECORD_BYTES);
                    }
                    encoded += bytes(&record);
                    drawn.push(record);
                }
                records += 1;
                if all >= MAX_READ_BYTES {
                    break;
                }
            }
            let beyond = if all < MAX_READ_BYTES {
                1.0
            } else {
                (size.records as f64 / records as f64).max(1.0)
            };
            let count = beyond * all.max(1) as f64 / encoded.max(1) as f64;
            counts.resize(drawn.len(), if first == drawn.len() { 1.0 } else { count });
        }
        let encoded = match encode_records(&drawn, encode) {
            // The whole data may have examples.
            Err(TextError::NoExamplesLeft { .. }) => return Ok(Lengths::default()),
            encoded => encoded?,
        };
        let counts = encoded.records.iter().map(|&record| counts[record]);
        Ok(encoded.examples.iter().map(length).zip(counts).collect())
    }

    /// Conversations, completions and raw text.
    fn supervised(&self, files: &[String]) -> Result<Lengths, PhaseError> {
        self.examples(ExampleKind::Supervised, files)
    }

    fn examples(&self, kind: ExampleKind, files: &[String]) -> Result<Lengths, PhaseError> {
        self.documents(files, |record| kind.encode(&self.text, record, self.context), Length::of)
    }

    /// A supervised stage: its steps, its work and its documents.
    fn next_token(
        &self,
        stage: &NextToken<'_>,
        shape: &ModelShape,
        heldout: &[String],
    ) -> Result<(f64, LocalWork, Lengths), PhaseError> {
        let documents = self.supervised(stage.data)?;
        let steps = documents.batches(stage.batch_tokens) * stage.epochs;
        let data = StageData {
            all: &documents,
            trained: &documents.repeated(stage.epochs),
            heldout: &self.supervised(heldout)?,
            replay: &Lengths::default(),
            updates: steps.ceil() as usize,
        };
        let work = stage.plan().work(Shapes { policy: shape, scalar: shape }, &data);
        Ok((steps, work, documents))
    }

    /// A stage on preference pairs.
    fn preferences(
        &self,
        plan: &StagePlan<'_>,
        shapes: Shapes<'_>,
        [data, heldout]: [&[String]; 2],
        epochs: f64,
        batch_pairs: usize,
    ) -> Result<Forecasted, PhaseError> {
        let pairs = self.examples(ExampleKind::Preference, data)?;
        let steps = pairs.count() / 2.0 * epochs / batch_pairs as f64;
        let data = StageData {
            all: &pairs,
            trained: &pairs.repeated(epochs),
            heldout: &self.examples(ExampleKind::Preference, &self.evaluate.files(heldout))?,
            replay: &self.replay(plan.replay)?,
            updates: steps as usize,
        };
        Ok(Forecasted::one(plan.name, steps, plan.work(shapes, &data)))
    }

    /// A stage of rollouts. `learned` are answers that the model was trained on; `None`: the
    /// replayed ones. Of the answers the share `skipped` is not trained on.
    fn rollouts(
        &self,
        plan: &StagePlan<'_>,
        shapes: Shapes<'_>,
        files: &[String],
        text: &TextSetup,
        settings: &RolloutSettings,
        steps: u64,
        learned: Option<&Lengths>,
        skipped: f64,
    ) -> Result<LocalWork, PhaseError> {
        let length = |prompt: &Vec<u32>| Length { tokens: prompt.len(), rows: 0 };
        let prompts =
            self.documents(files, |record| text.rollout_prompt(record, self.context), length)?;
        let replay = self.replay(plan.replay)?;
        let answers = answers(settings, steps, prompts.mean_tokens(), learned.unwrap_or(&replay));
        let data = StageData {
            all: &answers,
            trained: &answers.repeated(1.0 - skipped),
            heldout: &(),
            replay: &replay,
            updates: rollout_updates(settings, steps) as usize,
        };
        Ok(plan.work(shapes, &data))
    }

    fn replay(&self, settings: Option<&ReplaySettings>) -> Result<Lengths, PhaseError> {
        settings.map_or(Ok(Lengths::default()), |settings| self.supervised(&settings.data))
    }

    /// The forecast of a phase.
    pub(super) fn forecast(
        &self,
        settings: &PhaseSettings,
        shape: &ModelShape,
    ) -> Result<Forecasted, PhaseError> {
        let mut forecasted = self.stages(settings, shape)?;
        if self.recompute == Recompute::Block {
            for (_, work) in &mut forecasted.stages {
                *work = work.with_recomputed_blocks(shape);
            }
        }
        Ok(forecasted)
    }

    fn stages(
        &self,
        settings: &PhaseSettings,
        shape: &ModelShape,
    ) -> Result<Forecasted, PhaseError> {
        let scalar = shape.scalar();
        let shapes = Shapes { policy: shape, scalar: &scalar };
        match settings {
            PhaseSettings::Pretrain(s) => {
                let (steps, work, _) = self.next_token(&pretrain::stage(s), shape, &s.heldout)?;
                Ok(Forecasted::one("pretrain", steps, work))
            }
            PhaseSettings::Sft(s) => {
                let (steps, work, _) = self.next_token(&sft::stage("sft", s), shape, &s.heldout)?;
                Ok(Forecasted::one("sft", steps, work))
            }
            PhaseSettings::Reward(s) => {
                let files = [s.data.as_slice(), &s.heldout];
                self.preferences(&reward::plan(s), shapes, files, s.epochs, s.batch_pairs)
            }
            PhaseSettings::Dpo(s) => {
                let files = [s.data.as_slice(), &s.heldout];
                self.preferences(&dpo::plan(s), shapes, files, s.epochs, s.batch_pairs)
            }
            PhaseSettings::Reason(s) => {
                let mut stages = Vec::new();
                let stage = sft::stage(reason::COLD_START, &s.cold_start);
                let (cold_steps, cold, learned) =
                    self.next_token(&stage, shape, &s.cold_start.heldout)?;
                if !s.cold_start.data.is_empty() {
                    stages.push((reason::COLD_START, cold));
                }
                let mut text = self.text.clone();
                reason::read_strings_as_messages(self.data, s, &mut text)?;
                let plan = grpo::plan(s);
                let learned = Some(&learned);
                let skipped = if s.skip_zero_spread { ZERO_SPREAD } else { 0.0 };
                let work = self.rollouts(
                    &plan, shapes, &s.data, &text, &s.rollout, s.steps, learned, skipped,
                )?;
                stages.push((plan.name, work));
                Ok(Forecasted { steps: s.steps as f64 + cold_steps, stages })
            }
            PhaseSettings::Ppo(s) => {
                let plan = ppo::plan(s);
                let work = self
                    .rollouts(&plan, shapes, &s.data, &self.text, &s.rollout, s.steps, None, 0.0)?;
                Ok(Forecasted::one(plan.name, s.steps as f64, work))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cost_shape::cost_shape;
    use crisol_text::{EMBEDDED_TOKENS, Tokenizer};

    use super::super::lengths::Documents;
    use super::*;

    /// Files of mixed conversations, of two books, and of long texts.
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
        let sample = Sample {
            data: &data,
            evaluate: Split::None,
            recompute: Recompute::None,
            text: TextSetup::embedded(tokenizer).unwrap(),
            context: 256,
        };
        let shape = cost_shape(&Recipe::embedded().model_config().unwrap());
        for file in ["chats.jsonl", "books.jsonl", "long.jsonl"] {
            let files = [file.to_owned()];
            let records = data.all_records(&files).unwrap();
            let encode = |record: &Record| {
                ExampleKind::Supervised.encode(&sample.text, record, sample.context)
            };
            let all: Lengths =
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
}
