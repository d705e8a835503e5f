//! What a whole run will take, before any of it: every phase's work, judged by the characters of its data.

use crisol_cost::ModelShape;
use crisol_cost::machine::{LocalWork, Machine};
use crisol_cost::phases::TRAINING;
use crisol_model::Config;
use crisol_text::{Body, Message, Record, Turns};

use crate::data::DataSource;
use crate::expectation::{self, Length, Rollouts, answer, forward, mean, replay};
use crate::recipe::{Phase, Recipe};
use crate::settings::{OptimizerSettings, PhaseSettings, SftSettings};
use crate::{PhaseError, estimate, reason};

/// What one phase will take.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedPhase {
    /// Its name.
    pub name: String,
    /// Optimizer steps, or rollouts with their updates, at most.
    pub steps: f64,
    /// Floating-point operations.
    pub flops: f64,
    /// Seconds on a machine that was measured.
    pub seconds: Option<f64>,
    /// Bytes of memory at most, in a process of its own.
    pub memory: f64,
}

/// Characters of English text that a token of a vocabulary stands for: 3.2 for the 2,176 tokens of the embedded run, 4.4 for the
/// 128,256 of Llama 3, and as many more or less for every doubling.
fn characters_per_token(vocab: usize) -> f64 {
    let doublings = (vocab.max(2) as f64 / 2176.0).log2();
    (3.2 + 0.2 * doublings).clamp(1.0, 6.0)
}

/// Tokens of each answer that some files hold: of problems, conversations and completions.
pub(crate) fn answer_tokens(
    data: &DataSource,
    config: &Config,
    files: &[String],
) -> Result<Vec<usize>, PhaseError> {
    let per_token = characters_per_token(config.vocab_size);
    let mut tokens = Vec::new();
    for file in files.iter().filter(|file| data.has(file)) {
        let answer = |record: &Record| match &record.body {
            Body::Problem { answer, .. } => Some(answer.chars().count()),
            Body::Chat { messages } => {
                Some(messages.iter().filter(|message| message.is_assistant()).map(said).sum())
            }
            Body::Completion { completion, .. } => Some(characters(completion)),
            _ => None,
        };
        let characters = data.records(file)?.iter().filter_map(answer).collect::<Vec<usize>>();
        tokens.extend(characters.into_iter().map(|count| (count as f64 / per_token).ceil() as usize));
    }
    Ok(tokens)
}

/// A run of more steps is taken for a mistake.
const MOST_STEPS: f64 = 1e6;

/// Refuses a run of which a phase takes more steps than anybody waits for, or more than the bytes of memory that there are.
pub fn refuse_too_large(phases: &[ExpectedPhase], memory: Option<u64>) -> Result<(), PhaseError> {
    let bytes = |bytes: f64| crisol_report::prefixed(bytes, "B").replace('\u{a0}', " ");
    for ExpectedPhase { name, steps, memory: wanted, .. } in phases {
        let forecast = match memory.map(|memory| memory as f64) {
            _ if *steps > MOST_STEPS => {
                format!(
                    "phase {name} would take about {steps:.0} steps, and more than {MOST_STEPS:.0} are most likely a slip"
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
    let judge = Judge {
        data: &data,
        per_token: characters_per_token(config.vocab_size),
        context: config.longest_document(),
    };
    let expect = |phase: &Phase| -> Result<ExpectedPhase, PhaseError> {
        let work = judge.work(&phase.settings, &shape, recipe)?;
        Ok(ExpectedPhase {
            name: phase.name.clone(),
            steps: judge.steps(&phase.settings)?,
            flops: work.total().0,
            memory: estimate::memory(&phase.settings, &recipe.run, &config, &data, threads).total().0,
            seconds: machine.and_then(|machine| machine.time(&shape, &work)).map(|seconds| seconds.0),
        })
    };
    recipe.phases.iter().map(expect).collect()
}

/// Lengths of records, judged by their characters.
struct Judge<'a> {
    data: &'a DataSource,
    per_token: f64,
    context: usize,
}

fn characters(turns: &Turns) -> usize {
    match turns {
        Turns::Plain(text) => text.chars().count(),
        Turns::Chat(messages) => messages.iter().map(said).sum(),
    }
}

fn said(message: &Message) -> usize {
    message.content.chars().count()
}

/// Training on documents, so many times.
fn passes(
    shape: &ModelShape,
    lengths: &[Length],
    epochs: f64,
    batch_tokens: usize,
    optimizer: &OptimizerSettings,
) -> LocalWork {
    let tokens: usize = lengths.iter().map(|length| length.tokens).sum();
    let steps = (tokens as f64 * epochs / batch_tokens as f64).ceil() as usize;
    LocalWork {
        training: forward(shape, lengths.iter().copied()) * (TRAINING * epochs),
        optimizer: expectation::optimizer(shape, optimizer.rule, steps),
        ..LocalWork::default()
    }
}

impl Judge<'_> {
    /// A document of so many characters, of which `answer` are the assistant's.
    fn length(&self, all: usize, answer: usize) -> Length {
        let tokens = |characters: usize| ((characters as f64 / self.per_token).ceil() as usize).max(1);
        // Texts longer than the context are cut; the whole is as long.
        let tokens_of_all = tokens(all).min(self.context).max(2);
        Length { tokens: tokens_of_all, rows: tokens(answer).min(tokens_of_all - 1) }
    }

    /// What is trained of a record: two documents of a vote, one of others.
    fn lengths_of(&self, record: &Record) -> Vec<Length> {
        let vote =
            |prompt: usize, answer: &Turns| self.length(prompt + characters(answer), characters(answer));
        match &record.body {
            Body::Text { text } => {
                let all = text.chars().count();
                let whole = (self.context as f64 * self.per_token) as usize;
                let parts = all.div_ceil(whole.max(1)).max(1);
                vec![self.length(all / parts, all / parts); parts]
            }
            Body::Chat { messages } => {
                let answers = messages.iter().filter(|message| message.is_assistant()).map(said).sum();
                vec![self.length(messages.iter().map(said).sum(), answers)]
            }
            Body::Completion { prompt, completion } | Body::Rated { prompt, completion, .. } => {
                vec![vote(characters(prompt), completion)]
            }
            Body::Preference { prompt, chosen, rejected } => {
                [chosen, rejected].map(|answer| vote(characters(prompt), answer)).to_vec()
            }
            Body::Problem { prompt, .. } | Body::Prompt { prompt } => {
                vec![self.length(characters(prompt), 0)]
            }
        }
    }

    fn lengths(&self, files: &[String]) -> Result<Vec<Length>, PhaseError> {
        let mut lengths = Vec::new();
        // What is missing is an error once it is needed, and a pipe can be read only then.
        for file in files.iter().filter(|file| self.data.has(file)) {
            for record in self.data.read(std::slice::from_ref(file)) {
                lengths.extend(self.lengths_of(&record?));
            }
        }
        Ok(lengths)
    }

    /// Steps of all stages.
    fn steps(&self, settings: &PhaseSettings) -> Result<f64, PhaseError> {
        // A document is never cut, so a batch of few tokens is one document.
        let tokens = |files: &[String], epochs: f64, batch_tokens: usize| -> Result<f64, PhaseError> {
            let lengths = self.lengths(files)?;
            let tokens: usize = lengths.iter().map(|length| length.tokens).sum();
            Ok(epochs * (tokens as f64 / batch_tokens as f64).min(lengths.len() as f64))
        };
        let pairs = |files: &[String], epochs: f64, batch_pairs: usize| -> Result<f64, PhaseError> {
            Ok(epochs * self.lengths(files)?.len() as f64 / 2.0 / batch_pairs as f64)
        };
        Ok(match settings {
            PhaseSettings::Pretrain(s) => tokens(&s.data, s.epochs, s.batch_tokens)?,
            PhaseSettings::Sft(s) => tokens(&s.data, s.epochs, s.batch_tokens)?,
            PhaseSettings::Reward(s) => pairs(&s.data, s.epochs, s.batch_pairs)?,
            PhaseSettings::Dpo(s) => pairs(&s.data, s.epochs, s.batch_pairs)?,
            PhaseSettings::Ppo(s) => s.steps as f64,
            PhaseSettings::Reason(s) => {
                let cold = &s.cold_start;
                s.steps as f64 + tokens(&cold.data, cold.epochs, cold.batch_tokens)?
            }
        })
    }

    /// Training on all documents of some files, so many times.
    fn supervised(&self, shape: &ModelShape, settings: &SftSettings) -> Result<LocalWork, PhaseError> {
        let lengths = self.lengths(&settings.data)?;
        Ok(passes(shape, &lengths, settings.epochs, settings.batch_tokens, &settings.optimizer))
    }

    fn work(
        &self,
        settings: &PhaseSettings,
        shape: &ModelShape,
        recipe: &Recipe,
    ) -> Result<LocalWork, PhaseError> {
        let scalar = shape.scalar();
        Ok(match settings {
            PhaseSettings::Pretrain(settings) => {
                let lengths = self.lengths(&settings.data)?;
                let mut work =
                    passes(shape, &lengths, settings.epochs, settings.batch_tokens, &settings.optimizer);
                work.forward = forward(shape, self.lengths(&settings.heldout)?);
                work
            }
            PhaseSettings::Sft(settings) => self.supervised(shape, settings)?,
            PhaseSettings::Reward(settings) => {
                let lengths = self.lengths(&settings.data)?;
                let judged = lengths.iter().map(|length| Length { rows: 1, ..*length });
                let heldout = self.lengths(&recipe.run.evaluate.files(&settings.heldout))?;
                LocalWork {
                    training: forward(&scalar, judged) * (TRAINING * settings.epochs),
                    // All of them, and each kind by itself.
                    forward: forward(&scalar, heldout) * 2.0,
                    ..LocalWork::default()
                }
            }
            PhaseSettings::Dpo(settings) => {
                let lengths = self.lengths(&settings.data)?;
                let once = forward(shape, lengths.iter().copied());
                let updates =
                    (lengths.len() as f64 / 2.0 * settings.epochs / settings.batch_pairs as f64) as usize;
                let mut work =
                    replay(shape, &settings.replay, &self.lengths(&settings.replay.data)?, updates);
                let heldout = forward(shape, self.lengths(&recipe.run.evaluate.files(&settings.heldout))?);
                work.training += once * (TRAINING * settings.epochs);
                work.forward += once + heldout * 2.0;
                work
            }
            PhaseSettings::Reason(settings) => {
                let mut work = self.supervised(shape, &settings.cold_start)?;
                let rollouts = Rollouts {
                    shape,
                    scalar: None,
                    settings: &settings.rollout,
                    steps: settings.steps as usize,
                    prompt: mean(self.lengths(&settings.data)?.iter().map(|length| length.tokens)),
                    answer: answer(&self.lengths(&settings.cold_start.data)?, &settings.rollout),
                    reference: reason::looks_at_reference(settings),
                };
                work += rollouts.work(settings.optimizer.rule);
                let replayed = self.lengths(&settings.replay.data)?;
                work += replay(shape, &settings.replay, &replayed, rollouts.updates());
                work
            }
            PhaseSettings::Ppo(settings) => {
                let replayed = self.lengths(&settings.replay.data)?;
                let rollouts = Rollouts {
                    shape,
                    scalar: Some(&scalar),
                    settings: &settings.rollout,
                    steps: settings.steps as usize,
                    prompt: mean(self.lengths(&settings.data)?.iter().map(|length| length.tokens)),
                    answer: answer(&replayed, &settings.rollout),
                    reference: 1.0,
                };
                let mut work = rollouts.work(settings.optimizer.rule);
                work += replay(shape, &settings.replay, &replayed, rollouts.updates());
                work
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_vocabularies_have_longer_tokens() {
        assert!((characters_per_token(2176) - 3.2).abs() < 1e-9);
        assert!((4.3..4.5).contains(&characters_per_token(128_256)));
        assert!(characters_per_token(1) >= 1.0 && characters_per_token(usize::MAX) <= 6.0);
    }

    #[test]
    fn impossible_models_are_refused_before_anything_grows_with_them() {
        let mut recipe = Recipe::embedded();
        recipe.run.model.layers = 1_000_000_000;
        assert!(matches!(expected(&recipe, None, 1), Err(PhaseError::Model(_))));
    }

    #[test]
    fn what_is_too_large_is_refused_with_forecast_and_limit() {
        let phase =
            |steps, memory| ExpectedPhase { name: "sft".into(), steps, flops: 1.0, seconds: None, memory };
        assert!(refuse_too_large(&[phase(1e6, 1e9)], Some(1 << 30)).is_ok());
        assert!(refuse_too_large(&[phase(1.0, 1e15)], None).is_ok());
        let refused =
            |phases: &[ExpectedPhase]| refuse_too_large(phases, Some(8_000_000_000)).unwrap_err().to_string();
        let steps = refused(&[phase(1.0, 1e9), phase(2e6, 1e9)]);
        assert!(steps.contains("sft would take about 2000000 steps") && steps.contains("--force"), "{steps}");
        let memory = refused(&[phase(1.0, 347e9)]);
        assert!(memory.contains("347 GB") && memory.contains("8 GB are free"), "{memory}");
    }

    #[test]
    fn every_phase_of_the_embedded_run_is_foreseen() {
        let recipe = Recipe::embedded();
        let expected = expected(&recipe, None, 2).expect("the embedded data is there");
        assert_eq!(expected.len(), recipe.phases.len());
        for phase in &expected {
            assert!(phase.flops > 1e11 && phase.seconds.is_none(), "{phase:?}");
        }
        // Pre-training is most of it.
        let all: f64 = expected.iter().map(|phase| phase.flops).sum();
        assert!(expected[0].flops > 0.25 * all, "{expected:?}");
    }
}
