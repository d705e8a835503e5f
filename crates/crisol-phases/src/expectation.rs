//! What a phase will take, before it starts: operations from the lengths of its documents, time from what this machine was measured
//! to do.
//!
//! Lengths are exact where a phase has read its data; before a run they are those of a sample of it. How long sampled answers
//! will be is never known beforehand, and is judged by the answers that the model has learned from.

use crisol_cost::ModelShape;
use crisol_cost::machine::{LocalWork, Machine};
use crisol_cost::phases::TRAINING;
use crisol_cost::units::Flops;
use crisol_engine::Rule;
use crisol_text::{Example, pack};

use crate::batches::Plan;
use crate::settings::{ReplaySettings, RolloutSettings};

/// What a stage of a phase will take.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedStage {
    /// Its name.
    pub name: String,
    /// Floating-point operations, as a report counts them: without measuring.
    pub flops: f64,
    /// Seconds on a machine that was measured.
    pub seconds: Option<f64>,
    /// Its share of a run's time in relation to other stages.
    pub weight: f64,
}

impl ExpectedStage {
    /// Work of a model of this shape.
    pub(crate) fn of(
        name: &str,
        shape: &ModelShape,
        work: &LocalWork,
        machine: Option<&Machine>,
    ) -> ExpectedStage {
        let seconds =
            machine.and_then(|machine| machine.time(shape, work)).map(|seconds| seconds.0);
        let weight = seconds.unwrap_or(work.weight());
        ExpectedStage { name: name.to_owned(), flops: work.counted().0, seconds, weight }
    }
}

/// A document's tokens, and how many of them are asked what follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Length {
    pub(crate) tokens: usize,
    pub(crate) rows: usize,
}

impl Length {
    pub(crate) fn of(example: &Example) -> Length {
        let rows = example.trained.iter().skip(1).filter(|trained| **trained).count();
        Length { tokens: example.ids.len(), rows }
    }

    /// The same where only the last token is asked, as reward models are.
    pub(crate) fn judged(self) -> Length {
        Length { rows: 1, ..self }
    }
}

/// Operations of a forward pass of documents, each by itself.
pub(crate) fn forward(shape: &ModelShape, lengths: impl IntoIterator<Item = Length>) -> Flops {
    lengths.into_iter().map(|length| shape.document_flops(length.tokens, length.rows)).sum()
}

/// What the optimizer itself computes in so many steps.
pub(crate) fn optimizer(shape: &ModelShape, rule: Rule, steps: usize) -> Flops {
    match rule {
        Rule::AdamW => Flops(0.0),
        Rule::Muon => shape.muon_flops() * steps as f64,
    }
}

/// Training as planned; `forward` is a document's forward pass.
pub(crate) fn training(
    shape: &ModelShape,
    plan: &mut Plan,
    rule: Rule,
    forward: impl Fn(usize) -> Flops,
) -> LocalWork {
    let (whole_epochs, further) = plan.met();
    let all: Flops = (0..plan.documents()).map(&forward).sum();
    let further: Flops = further.into_iter().map(forward).sum();
    LocalWork {
        training: (all * whole_epochs as f64 + further) * TRAINING,
        optimizer: optimizer(shape, rule, plan.total() as usize),
        ..LocalWork::default()
    }
}

/// Lengths of documents, each of which may stand for several: a sample of them stands for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Documents(Vec<(Length, f64)>);

impl FromIterator<Length> for Documents {
    fn from_iter<I: IntoIterator<Item = Length>>(lengths: I) -> Documents {
        Documents(lengths.into_iter().map(|length| (length, 1.0)).collect())
    }
}

impl FromIterator<(Length, f64)> for Documents {
    fn from_iter<I: IntoIterator<Item = (Length, f64)>>(lengths: I) -> Documents {
        Documents(lengths.into_iter().collect())
    }
}

impl Documents {
    /// How many there are.
    pub(crate) fn count(&self) -> f64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Operations of a forward pass of all of them.
    pub(crate) fn forward(&self, shape: &ModelShape) -> Flops {
        self.0.iter().map(|(length, count)| forward(shape, [*length]) * *count).sum()
    }

    /// The same where only the last tokens are asked, as reward models are.
    pub(crate) fn judged(&self) -> Documents {
        self.0.iter().map(|(length, count)| (length.judged(), *count)).collect()
    }

    /// How many batches of so many tokens they are.
    pub(crate) fn batches(&self, tokens: usize) -> f64 {
        let lengths: Vec<usize> = self.0.iter().map(|(length, _)| length.tokens).collect();
        pack(&lengths, tokens).len() as f64 * self.count() / lengths.len().max(1) as f64
    }

    /// Tokens of one of them on average; 0 of none.
    pub(crate) fn mean_tokens(&self) -> usize {
        mean(self.0.iter().map(|(length, count)| (length.tokens, *count))).unwrap_or(0)
    }

    /// Trained tokens on average of those of which a part is trained, if there are any.
    fn mean_answer(&self) -> Option<usize> {
        let answers = self.0.iter().filter(|(length, _)| length.rows < length.tokens - 1);
        mean(answers.map(|(length, count)| (length.rows, *count)))
    }
}

/// The mean of some numbers, each of which stands for several.
pub(crate) fn mean(numbers: impl Iterator<Item = (usize, f64)>) -> Option<usize> {
    let (sum, count) = numbers
        .fold((0.0, 0.0), |(sum, all), (number, count)| (sum + number as f64 * count, all + count));
    (count > 0.0).then(|| (sum / count).round() as usize)
}

/// Documents that are replayed beside so many updates.
pub(crate) fn replay(
    shape: &ModelShape,
    settings: &ReplaySettings,
    documents: &Documents,
    updates: usize,
) -> LocalWork {
    let batches = documents.batches(settings.tokens);
    if batches == 0.0 {
        return LocalWork::default();
    }
    LocalWork {
        training: documents.forward(shape) * (TRAINING * updates as f64 / batches),
        ..LocalWork::default()
    }
}

/// Tokens of a typical answer: those that the model was shown, if there are any; else half of what it may say.
pub(crate) fn answer(shown: &Documents, settings: &RolloutSettings) -> usize {
    shown.mean_answer().unwrap_or(settings.max_new_tokens / 2).clamp(1, settings.max_new_tokens)
}

/// Sampled answers of all steps of a phase, and what is made of them.
pub(crate) struct Rollouts<'a> {
    pub(crate) shape: &'a ModelShape,
    /// Of the reward and the value model.
    pub(crate) scalar: Option<&'a ModelShape>,
    pub(crate) settings: &'a RolloutSettings,
    pub(crate) steps: usize,
    /// Tokens of a typical prompt and of a typical answer.
    pub(crate) prompt: usize,
    pub(crate) answer: usize,
    /// Passes of the reference over each answer.
    pub(crate) reference: f64,
}

impl Rollouts<'_> {
    /// Updates of the policy.
    pub(crate) fn updates(&self) -> usize {
        self.steps * self.settings.epochs * self.settings.minibatches
    }

    /// Sampling, looking back, and training.
    pub(crate) fn work(&self, rule: Rule) -> LocalWork {
        let documents = (self.steps * self.settings.prompts * self.settings.group_size) as f64;
        let length = Length { tokens: self.prompt + self.answer, rows: self.answer };
        let once = |shape| forward(shape, [length]) * documents;
        let epochs = self.settings.epochs as f64;
        let mut work = LocalWork {
            sampling: once(self.shape),
            forward: once(self.shape) * self.reference,
            training: once(self.shape) * (TRAINING * epochs),
            optimizer: optimizer(self.shape, rule, self.updates()),
            ..LocalWork::default()
        };
        if let Some(scalar) = self.scalar {
            // The judge and the old values; then the value model learns.
            work.forward += once(scalar) * 2.0;
            work.training += once(scalar) * (TRAINING * epochs);
        }
        work
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crisol_model::{Architecture, Config};

    fn shape() -> ModelShape {
        Config::new(Architecture::Llama, 50, 16, 2, 2, 24).cost_shape()
    }

    #[test]
    fn answers_are_judged_by_those_shown() {
        let settings = crate::ReasonSettings::default().rollout;
        assert_eq!(answer(&Documents::default(), &settings), settings.max_new_tokens / 2);
        let text = Length { tokens: 50, rows: 49 };
        let shown = [Length { tokens: 30, rows: 10 }, Length { tokens: 40, rows: 20 }, text];
        assert_eq!(answer(&shown.into_iter().collect(), &settings), 15);
        let long = [Length { tokens: 9000, rows: 8000 }].into_iter().collect();
        assert_eq!(answer(&long, &settings), settings.max_new_tokens);
    }

    /// Batches are of whole documents: three of these in each.
    #[test]
    fn replay_is_as_many_batches_as_there_are_updates() {
        let settings = ReplaySettings { data: vec![], tokens: 100, weight: 1.0 };
        let lengths = [Length { tokens: 30, rows: 30 }; 6];
        let once = forward(&shape(), lengths) * TRAINING;
        let documents: Documents = lengths.into_iter().collect();
        assert_eq!(replay(&shape(), &settings, &documents, 7).training, once * 3.5);
        assert_eq!(replay(&shape(), &settings, &Documents::default(), 7), LocalWork::default());
    }

    /// A sample stands for all.
    #[test]
    fn a_sample_has_the_work_and_the_batches_of_all() {
        let length = |i: usize| Length { tokens: 20 + i % 7, rows: 5 + i % 3 };
        let all: Documents = (0..2100).map(length).collect();
        let some: Documents = (0..2100).step_by(10).map(|i| (length(i), 10.0)).collect();
        let close = |a: f64, b: f64| (a / b - 1.0).abs() < 0.01;
        assert!(close(all.forward(&shape()).0, some.forward(&shape()).0));
        assert!(
            close(all.batches(128), some.batches(128)),
            "{} {}",
            all.batches(128),
            some.batches(128)
        );
        assert_eq!((all.count(), all.mean_tokens()), (some.count(), some.mean_tokens()));
    }
}
