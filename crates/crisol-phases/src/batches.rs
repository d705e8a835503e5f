//! The documents of each step.
//!
//! Every epoch is a new shuffle, cut in order into batches of about `batch_tokens`. A fraction of
//! an epoch is its beginning. Only the current epoch is in memory.

use crisol_text::pack;
use crisol_train::permutation;

/// Batches of documents, by the number of their step.
pub(crate) struct Batches {
    /// Tokens of each document; 1 if a batch is a number of documents.
    lengths: Vec<usize>,
    batch_tokens: usize,
    seed: u64,
    purpose: String,
    /// Steps up to the end of each epoch drawn so far.
    ends: Vec<u64>,
    /// The current epoch and its batches.
    epoch: Option<(usize, Vec<Vec<usize>>)>,
}

impl Batches {
    /// Batches of any number of epochs.
    pub(crate) fn endless(
        lengths: Vec<usize>,
        batch_tokens: usize,
        seed: u64,
        purpose: String,
    ) -> Batches {
        Batches { lengths, batch_tokens, seed, purpose, ends: Vec::new(), epoch: None }
    }

    fn draw(&self, epoch: usize) -> Vec<Vec<usize>> {
        let order = permutation(self.seed, &self.purpose, epoch as u64, self.lengths.len());
        let shuffled: Vec<usize> = order.iter().map(|&i| self.lengths[i]).collect();
        let cut = pack(&shuffled, self.batch_tokens);
        cut.into_iter().map(|batch| batch.into_iter().map(|i| order[i]).collect()).collect()
    }

    /// Documents of a step; empty if there are no documents.
    pub(crate) fn batch(&mut self, step: u64) -> &[usize] {
        if self.lengths.is_empty() {
            return &[];
        }
        let mut epoch = self.ends.partition_point(|end| *end <= step);
        while epoch == self.ends.len() {
            let batches = self.draw(epoch);
            let before = self.ends.last().copied().unwrap_or(0);
            self.ends.push(before + batches.len() as u64);
            self.epoch = Some((epoch, batches));
            epoch = self.ends.partition_point(|end| *end <= step);
        }
        let first = if epoch == 0 { 0 } else { self.ends[epoch - 1] };
        let held = self.epoch.take().filter(|(held, _)| *held == epoch);
        let held = held.unwrap_or_else(|| (epoch, self.draw(epoch)));
        let (_, batches) = self.epoch.insert(held);
        &batches[(step - first) as usize]
    }
}

/// Batches of a fixed number of epochs.
pub(crate) struct BatchPlan {
    batches: Batches,
    /// Complete passes over all documents.
    whole_epochs: u64,
    /// Steps of the partial epoch after them.
    partial_steps: u64,
    total: u64,
}

impl BatchPlan {
    /// Shuffles every epoch once, to count its steps.
    pub(crate) fn new(
        lengths: Vec<usize>,
        epochs: f64,
        batch_tokens: usize,
        seed: u64,
        purpose: String,
    ) -> BatchPlan {
        let mut batches = Batches::endless(lengths, batch_tokens, seed, purpose);
        let (mut whole_epochs, mut partial_steps, mut total) = (0, 0, 0);
        for epoch in 0..epochs.ceil() as u64 {
            let cut = batches.draw(epoch as usize);
            let share = (epochs - epoch as f64).min(1.0);
            let wanted = ((cut.len() as f64 * share).round() as usize).max(usize::from(epoch == 0));
            let steps = wanted.min(cut.len()) as u64;
            if steps == cut.len() as u64 {
                whole_epochs += 1;
            } else {
                partial_steps = steps;
            }
            batches.ends.push(total + cut.len() as u64);
            total += steps;
        }
        BatchPlan { batches, whole_epochs, partial_steps, total }
    }

    /// Number of documents.
    pub(crate) fn documents(&self) -> usize {
        self.batches.lengths.len()
    }

    /// Number of steps.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Documents of a step.
    pub(crate) fn batch(&mut self, step: u64) -> &[usize] {
        self.batches.batch(step)
    }

    /// Visits of every document (the complete epochs), and documents of the partial epoch.
    pub(crate) fn visits(&mut self) -> (u64, Vec<usize>) {
        let first = self.total - self.partial_steps;
        let partial = (first..self.total).flat_map(|step| self.batch(step).to_vec()).collect();
        (self.whole_epochs, partial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crisol_train::derived_seed;

    /// All batches as a list: the plain twin.
    fn all_batches(
        lengths: &[usize],
        epochs: f64,
        batch_tokens: usize,
        seed: u64,
        purpose: &str,
    ) -> Vec<Vec<usize>> {
        let mut batches = Vec::new();
        for epoch in 0..epochs.ceil() as u64 {
            let order = permutation(seed, purpose, epoch, lengths.len());
            let shuffled: Vec<usize> = order.iter().map(|&i| lengths[i]).collect();
            let cut = pack(&shuffled, batch_tokens);
            let share = (epochs - epoch as f64).min(1.0);
            let wanted = ((cut.len() as f64 * share).round() as usize).max(usize::from(epoch == 0));
            let documents = cut.into_iter().take(wanted);
            batches.extend(
                documents.map(|batch| batch.into_iter().map(|i| order[i]).collect::<Vec<_>>()),
            );
        }
        batches
    }

    fn lengths(number: usize) -> Vec<usize> {
        (0..number).map(|i| 1 + derived_seed(7, "lengths", i as u64) as usize % 60).collect()
    }

    #[test]
    fn batches_agree_with_the_list_in_any_order() {
        for number in [0, 1, 2, 37, 200] {
            let lengths = lengths(number);
            for epochs in [0.001, 0.5, 0.99, 1.0, 1.5, 2.0, 6.3] {
                for batch_tokens in [1, 16, 64, 10_000] {
                    let stored = all_batches(&lengths, epochs, batch_tokens, 3, "x");
                    let mut plan =
                        BatchPlan::new(lengths.clone(), epochs, batch_tokens, 3, "x".into());
                    assert_eq!(plan.total(), stored.len() as u64);
                    let forwards = 0..stored.len();
                    for step in forwards.clone().chain(forwards.rev()) {
                        assert_eq!(
                            plan.batch(step as u64),
                            stored[step],
                            "{number}, {epochs}, step {step}"
                        );
                    }
                    let (whole, partial) = plan.visits();
                    let mut visits = vec![whole; number];
                    for i in partial {
                        visits[i] += 1;
                    }
                    let mut wanted = vec![0; number];
                    for &i in stored.iter().flatten() {
                        wanted[i] += 1;
                    }
                    assert_eq!(visits, wanted);
                }
            }
        }
    }

    #[test]
    fn endless_batches_begin_as_planned_ones_and_go_on() {
        let lengths = lengths(50);
        let planned = all_batches(&lengths, 9.0, 64, 1, "x");
        let mut endless = Batches::endless(lengths, 64, 1, "x".into());
        // The last step first, as after a resume.
        assert_eq!(endless.batch(planned.len() as u64 - 1), planned[planned.len() - 1]);
        for (step, batch) in planned.iter().enumerate() {
            assert_eq!(endless.batch(step as u64), batch);
        }
        assert!(!endless.batch(10_000).is_empty());
        assert_eq!(
            endless.epoch.map(|(_, batches)| batches.len() < 60),
            Some(true),
            "one epoch is held"
        );
    }

    #[test]
    fn an_epoch_trains_every_document_once() {
        let mut plan = BatchPlan::new(lengths(100), 1.0, 64, 1, "x".into());
        let mut seen: Vec<usize> =
            (0..plan.total()).flat_map(|step| plan.batch(step).to_vec()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }
}
