//! Preference pairs, for the reward model and DPO: a prompt with a chosen and a rejected answer. A
//! pair is two examples, the chosen one first.

use crisol_text::{Example, TextSetup};

use crate::PhaseError;
use crate::batches::BatchPlan;
use crate::context::PhaseContext;
use crate::examples::{ExampleKind, Source};
use crate::store::Examples;

/// Pairs of data files.
pub(crate) struct Pairs {
    /// Chosen, rejected, chosen, ….
    pub(crate) examples: Examples,
}

impl Pairs {
    /// Loads the pairs of the setting `role`. Notes on them begin with `note_prefix`.
    pub(crate) fn load(
        ctx: &mut PhaseContext<'_>,
        (role, note_prefix): (&str, &str),
        files: &[String],
        text: &TextSetup,
        context: usize,
    ) -> Result<Pairs, PhaseError> {
        let source = Source { role, note_prefix, files, kind: ExampleKind::Preference, masks: 0 };
        Ok(Pairs { examples: source.load(ctx, text, context)? })
    }

    /// Number of pairs.
    pub(crate) fn len(&self) -> usize {
        self.examples.len() / 2
    }

    /// Whether there are no pairs.
    pub(crate) fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// Batches of `batch_pairs` pairs.
    pub(crate) fn plan(
        &self,
        ctx: &PhaseContext<'_>,
        epochs: f64,
        batch_pairs: usize,
    ) -> BatchPlan {
        let purpose = ctx.purpose("order");
        BatchPlan::new(vec![1; self.len()], epochs, batch_pairs, ctx.run.seed, purpose)
    }

    /// Some pairs.
    pub(crate) fn get(&self, pairs: &[usize]) -> Result<Vec<[Example; 2]>, PhaseError> {
        let pair = |&i: &usize| Ok([self.examples.get(2 * i)?, self.examples.get(2 * i + 1)?]);
        pairs.iter().map(pair).collect()
    }
}
