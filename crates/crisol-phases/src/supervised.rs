//! Next-token training on documents, for pre-training, SFT and the cold start of reasoning. They
//! differ only in documents and loss masks.

use crisol_cost::phases::{Phase, PhaseOptions};
use crisol_engine::{Params, Precision};
use crisol_model::Model;
use crisol_objectives::next_token;
use crisol_text::Example;
use crisol_train::{Trainer, evaluate};

use crate::PhaseError;
use crate::batch::Batch;
use crate::batches::BatchPlan;
use crate::context::{HELD_OUT_LOSS, PhaseContext};
use crate::cost_shape::cost_shape;
use crate::forecast::lengths::{Lengths, Planned};
use crate::forecast::plan::{Shapes, StageData, StagePlan};
use crate::passes::LOGPROBS;
use crate::settings::OptimizerSettings;
use crate::state::SavedModel;
use crate::steps::{self, StepResult};
use crate::store::Examples;

/// A stage of next-token training.
pub(crate) struct NextToken<'s> {
    pub(crate) name: &'static str,
    pub(crate) data: &'s [String],
    pub(crate) epochs: f64,
    pub(crate) batch_tokens: usize,
    pub(crate) optimizer: &'s OptimizerSettings,
}

impl NextToken<'_> {
    /// One model is trained; the held-out loss is measured before and after.
    pub(crate) fn plan(&self) -> StagePlan<'static> {
        StagePlan {
            name: self.name,
            phase: Phase::Sft,
            options: PhaseOptions::default(),
            rule: self.optimizer.rule,
            heldout_passes: 2.0,
            replay: None,
        }
    }

    /// Trains on the examples.
    pub(crate) fn train(
        &self,
        ctx: &mut PhaseContext<'_>,
        trainer: &mut Trainer,
        examples: &Examples,
        heldout: &[Example],
    ) -> Result<(), PhaseError> {
        let lengths: Vec<usize> = examples.lengths().map(|length| length.tokens).collect();
        let purpose = ctx.purpose(self.name);
        let mut plan =
            BatchPlan::new(lengths, self.epochs, self.batch_tokens, ctx.run.seed, purpose);
        let total = plan.total();
        let data = StageData {
            all: examples,
            trained: &Planned::new(&mut plan, 1, |i| examples.length(i)),
            heldout: &heldout,
            replay: &Lengths::default(),
            updates: total as usize,
        };
        let shape = cost_shape(trainer.model.config());
        ctx.forecast(&self.plan(), Shapes { policy: &shape, scalar: &shape }, &data);
        let first =
            ctx.begin_stage(self.name, total, &mut [SavedModel::Trainer("model", trainer)])?;
        if first == 0 && !heldout.is_empty() {
            let (loss, _) =
                heldout_loss(&trainer.model, &trainer.params, heldout, ctx.run.shard_tokens)?;
            ctx.measure_before(HELD_OUT_LOSS, loss);
        }
        steps::train(
            ctx,
            ("model", trainer),
            self.optimizer,
            first,
            total,
            |ctx, trainer, step, config| {
                let documents = examples.batch(plan.batch(step))?;
                let batch = Batch::of_documents(&documents, ctx.run.shard_tokens);
                let done = ctx.step(trainer, &batch, LOGPROBS, config, |_, scores| {
                    next_token::loss(scores, batch.size)
                })?;
                Ok(StepResult::new(&done, batch.tokens(), vec![]))
            },
        )
    }
}

/// Mean negative log-likelihood of the trained tokens of held-out documents in nats per token,
/// measured in f32, and the number of tokens.
pub(crate) fn heldout_loss(
    model: &Model,
    params: &Params,
    examples: &[Example],
    shard_tokens: usize,
) -> Result<(f64, usize), PhaseError> {
    let batch = Batch::of_documents(examples, shard_tokens);
    let params = &params.in_precision(Precision::F32);
    let losses = evaluate(model, params, &batch.shards, LOGPROBS, |_, scores| {
        next_token::loss(scores, batch.size).loss
    })?;
    Ok((losses.iter().sum(), batch.size.tokens))
}
