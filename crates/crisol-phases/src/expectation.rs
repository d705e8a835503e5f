//! What a phase will take, before it starts: operations from the lengths of its documents, time from what this machine was measured
//! to do.
//!
//! Lengths are exact where a phase has read its data. Before a run they are judged by the texts' characters; how long sampled
//! answers will be is never known beforehand, and is judged by the answers that the model has learned from.

use crisol_cost::ModelShape;
use crisol_cost::machine::LocalWork;
use crisol_cost::phases::TRAINING;
use crisol_cost::units::Flops;
use crisol_engine::Rule;
use crisol_text::Example;

use crate::batches::Plan;
use crate::settings::{ReplaySettings, RolloutSettings};

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

/// Documents that are replayed beside so many updates.
pub(crate) fn replay(
    shape: &ModelShape,
    settings: &ReplaySettings,
    lengths: &[Length],
    updates: usize,
) -> LocalWork {
    let tokens: usize = lengths.iter().map(|length| length.tokens).sum();
    if tokens == 0 {
        return LocalWork::default();
    }
    let passes = (settings.tokens * updates) as f64 / tokens as f64;
    LocalWork {
        training: forward(shape, lengths.iter().copied()) * TRAINING * passes,
        ..LocalWork::default()
    }
}

/// The mean of some counts; 0 of none.
pub(crate) fn mean(counts: impl ExactSizeIterator<Item = usize>) -> usize {
    let number = counts.len().max(1);
    counts.sum::<usize>() / number
}

/// Tokens of a typical answer: those that the model was shown, if there are any; else half of what it may say.
pub(crate) fn answer(shown: &[Length], settings: &RolloutSettings) -> usize {
    let answers: Vec<usize> =
        shown.iter().filter(|length| length.rows < length.tokens - 1).map(|length| length.rows).collect();
    let typical = match answers.len() {
        0 => settings.max_new_tokens / 2,
        count => answers.iter().sum::<usize>() / count,
    };
    typical.clamp(1, settings.max_new_tokens)
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
        assert_eq!(answer(&[], &settings), settings.max_new_tokens / 2);
        let text = Length { tokens: 50, rows: 49 };
        let shown = [Length { tokens: 30, rows: 10 }, Length { tokens: 40, rows: 20 }, text];
        assert_eq!(answer(&shown, &settings), 15);
        assert_eq!(answer(&[Length { tokens: 9000, rows: 8000 }], &settings), settings.max_new_tokens);
    }

    #[test]
    fn replay_is_as_many_tokens_as_asked_for() {
        let settings = ReplaySettings { data: vec![], tokens: 100, weight: 1.0 };
        let lengths = [Length { tokens: 25, rows: 25 }; 4];
        let once = forward(&shape(), lengths) * TRAINING;
        assert_eq!(replay(&shape(), &settings, &lengths, 7).training, once * 7.0);
        assert_eq!(replay(&shape(), &settings, &[], 7), LocalWork::default());
    }
}
