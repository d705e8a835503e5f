//! Lengths of the documents that a phase works on: all that is needed to know its operations.

use crisol_cost::ModelShape;
use crisol_cost::units::Flops;
use crisol_text::{Example, pack};

use crate::batches::BatchPlan;
use crate::store::Examples;

/// A document's tokens, and the rows of logits that are computed for it.
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
}

/// Operations of a forward pass of documents, each by itself.
pub(crate) fn forward(shape: &ModelShape, lengths: impl IntoIterator<Item = Length>) -> Flops {
    lengths.into_iter().map(|length| shape.document_flops(length.tokens, length.rows)).sum()
}

/// Documents that a pass goes over.
pub(crate) trait Documents {
    /// Operations of a forward pass of all of them.
    fn forward(&self, shape: &ModelShape) -> Flops;
}

/// No documents.
impl Documents for () {
    fn forward(&self, _: &ModelShape) -> Flops {
        Flops(0.0)
    }
}

impl Documents for Examples {
    fn forward(&self, shape: &ModelShape) -> Flops {
        forward(shape, self.lengths())
    }
}

impl Documents for &[Example] {
    fn forward(&self, shape: &ModelShape) -> Flops {
        forward(shape, self.iter().map(Length::of))
    }
}

/// Examples as often as a plan of batches trains them. An item of the plan is `group` examples.
pub(crate) struct Planned<'e> {
    length: Box<dyn Fn(usize) -> Length + 'e>,
    count: usize,
    group: usize,
    epochs: u64,
    /// Items of the last, partial epoch.
    partial: Vec<usize>,
}

impl<'e> Planned<'e> {
    /// `length`: of the example with this number.
    pub(crate) fn new(
        plan: &mut BatchPlan,
        group: usize,
        length: impl Fn(usize) -> Length + 'e,
    ) -> Planned<'e> {
        let (epochs, partial) = plan.visits();
        Planned { length: Box::new(length), count: plan.documents(), group, epochs, partial }
    }
}

impl Documents for Planned<'_> {
    fn forward(&self, shape: &ModelShape) -> Flops {
        let item = |i: usize| (i * self.group..(i + 1) * self.group).map(&self.length);
        let all = forward(shape, (0..self.count).flat_map(item));
        all * self.epochs as f64 + forward(shape, self.partial.iter().copied().flat_map(item))
    }
}

/// A sample of lengths. Each stands for `count` documents.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lengths(Vec<(Length, f64)>);

impl FromIterator<Length> for Lengths {
    fn from_iter<I: IntoIterator<Item = Length>>(lengths: I) -> Lengths {
        Lengths(lengths.into_iter().map(|length| (length, 1.0)).collect())
    }
}

impl FromIterator<(Length, f64)> for Lengths {
    fn from_iter<I: IntoIterator<Item = (Length, f64)>>(lengths: I) -> Lengths {
        Lengths(lengths.into_iter().collect())
    }
}

impl Documents for Lengths {
    fn forward(&self, shape: &ModelShape) -> Flops {
        self.0.iter().map(|(length, count)| forward(shape, [*length]) * *count).sum()
    }
}

impl Lengths {
    /// How many documents there are.
    pub(crate) fn count(&self) -> f64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// These documents `epochs` times.
    pub(crate) fn repeated(&self, epochs: f64) -> Lengths {
        self.0.iter().map(|&(length, count)| (length, count * epochs)).collect()
    }

    /// How many batches of `tokens` tokens they fill.
    pub(crate) fn batches(&self, tokens: usize) -> f64 {
        let lengths: Vec<usize> = self.0.iter().map(|(length, _)| length.tokens).collect();
        // By tokens, not by documents: files are sampled at different rates.
        let sampled: usize = lengths.iter().sum();
        let all: f64 = self.0.iter().map(|(length, count)| length.tokens as f64 * count).sum();
        pack(&lengths, tokens).len() as f64 * all / sampled.max(1) as f64
    }

    /// Mean tokens of a document; 0 without documents.
    pub(crate) fn mean_tokens(&self) -> usize {
        mean(self.0.iter().map(|(length, count)| (length.tokens, *count))).unwrap_or(0)
    }

    /// Mean trained tokens of the documents that have a prompt.
    pub(crate) fn mean_answer(&self) -> Option<usize> {
        let answers = self.0.iter().filter(|(length, _)| length.rows < length.tokens - 1);
        mean(answers.map(|(length, count)| (length.rows, *count)))
    }
}

/// The weighted mean of `(number, weight)`; none without weight.
fn mean(numbers: impl Iterator<Item = (usize, f64)>) -> Option<usize> {
    let (sum, count) = numbers
        .fold((0.0, 0.0), |(sum, all), (number, count)| (sum + number as f64 * count, all + count));
    (count > 0.0).then(|| (sum / count).round() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost_shape::cost_shape;
    use crisol_model::{Architecture, Config};

    #[test]
    fn a_sample_has_the_work_and_the_batches_of_all() {
        let shape = cost_shape(&Config::new(Architecture::Llama, 50, 16, 2, 2, 24));
        let length = |i: usize| Length { tokens: 20 + i % 7, rows: 5 + i % 3 };
        let all: Lengths = (0..2100).map(length).collect();
        let some: Lengths = (0..2100).step_by(10).map(|i| (length(i), 10.0)).collect();
        let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 0.01, "{a} {b}");
        close(all.forward(&shape).0, some.forward(&shape).0);
        close(all.batches(128), some.batches(128));
        assert_eq!((all.count(), all.mean_tokens()), (some.count(), some.mean_tokens()));
    }

    /// Long documents of a small file, all of them, beside a tenth of a large file's short ones.
    #[test]
    fn files_sampled_at_different_rates_fill_the_batches_of_all() {
        let length = |tokens| Length { tokens, rows: tokens - 1 };
        let short = |i: usize| length(10 + i % 7);
        let long = |i: usize| length(50 + i % 9);
        let all: Lengths = (0..2100).map(short).chain((0..210).map(long)).collect();
        let sampled = (0..2100).step_by(10).map(|i| (short(i), 10.0));
        let some: Lengths = sampled.chain((0..210).map(|i| (long(i), 1.0))).collect();
        let ratio = some.batches(512) / all.batches(512);
        assert!((ratio - 1.0).abs() < 0.05, "{ratio}");
    }

    #[test]
    fn planned_documents_are_those_of_the_batches() {
        let shape = cost_shape(&Config::new(Architecture::Llama, 50, 16, 2, 2, 24));
        let example =
            |i: usize| Example { ids: vec![1; 2 + i % 9], trained: vec![true; 2 + i % 9] };
        let examples: Vec<Example> = (0..40).map(example).collect();
        for (group, epochs) in [(1, 0.3), (1, 2.0), (2, 1.7)] {
            let mut plan = BatchPlan::new(vec![1; 40 / group], epochs, 3, 1, "order".into());
            let mut counted = Flops(0.0);
            for step in 0..plan.total() {
                for &item in plan.batch(step) {
                    let pair = &examples[item * group..(item + 1) * group];
                    counted += pair.forward(&shape);
                }
            }
            let planned =
                Planned::new(&mut plan, group, |i| Length::of(&examples[i])).forward(&shape);
            assert!((planned / counted - 1.0).abs() < 1e-12, "{group} {epochs}");
        }
    }
}
