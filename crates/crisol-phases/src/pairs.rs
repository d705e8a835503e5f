//! Preference pairs, which the reward model and DPO train on: a prompt with a chosen and a rejected answer. Each is two
//! examples, the chosen one first.

use crisol_text::{Example, TextSetup};

use crate::PhaseError;
use crate::batches::Plan;
use crate::context::PhaseContext;
use crate::examples::{Kind, Source};
use crate::store::Examples;

/// Pairs of data files.
pub(crate) struct Pairs {
    /// Chosen, rejected, chosen, ….
    pub(crate) examples: Examples,
}

impl Pairs {
    /// The pairs of the files of a setting called `role`. Notes about them begin with `what`.
    pub(crate) fn load(
        ctx: &mut PhaseContext<'_>,
        (role, what): (&str, &str),
        files: &[String],
        text: &TextSetup,
        context: usize,
    ) -> Result<Pairs, PhaseError> {
        let source = Source { role, what, files, kind: Kind::Preference, pictures: 0 };
        Ok(Pairs { examples: source.load(ctx, text, context)? })
    }

    /// How many pairs there are.
    pub(crate) fn len(&self) -> usize {
        self.examples.len() / 2
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// Batches of `batch_pairs` pairs.
    pub(crate) fn plan(&self, ctx: &PhaseContext<'_>, epochs: f64, batch_pairs: usize) -> Plan {
        let purpose = ctx.purpose("order");
        Plan::new(vec![1; self.len()], epochs, batch_pairs, ctx.run.seed, purpose)
    }

    /// Some pairs.
    pub(crate) fn get(&self, pairs: &[usize]) -> Result<Vec<[Example; 2]>, PhaseError> {
        let pair = |&i: &usize| Ok([self.examples.get(2 * i)?, self.examples.get(2 * i + 1)?]);
        pairs.iter().map(pair).collect()
    }
}
