//! Replay: next-token training on other data with each update of a phase, against forgetting.
//!
//! ```text
//! loss = objective(own batch) + weight · next_token(replayed batch)
//! ```
//!
//! In RLHF it is the pre-training term of Ouyang et al. 2022 (arXiv:2203.02155, equation 2,
//! "PPO-ptx"). GRPO and DPO use the same term.

use crisol_engine::OptimizerConfig;
use crisol_objectives::next_token::{self, NextTokenStats};
use crisol_objectives::{LossAndGrad, Stats, TokenScores};
use crisol_text::TextSetup;
use crisol_train::{Output, Step, Trainer};
use serde::{Deserialize, Serialize};

use crate::PhaseError;
use crate::batch::Batch;
use crate::batches::Batches;
use crate::context::PhaseContext;
use crate::cost_shape::cost_shape;
use crate::examples::{ExampleKind, Source};
use crate::forecast::lengths::Lengths;
use crate::settings::ReplaySettings;
use crate::store::Examples;

/// Documents to replay, in the batches of the updates.
pub(crate) struct Replay {
    examples: Examples,
    /// The documents of each update.
    batches: Batches,
    weight: f64,
}

/// The objective's statistics and the replay's.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct WithReplay<S> {
    pub(crate) objective: S,
    pub(crate) replay: NextTokenStats,
}

impl<S: std::ops::AddAssign> std::ops::AddAssign for WithReplay<S> {
    fn add_assign(&mut self, other: Self) {
        self.objective += other.objective;
        self.replay += other.replay;
    }
}

impl<S: Stats> Stats for WithReplay<S> {
    fn means(&self) -> Vec<(&'static str, f64)> {
        let mut means = self.objective.means();
        means.extend(self.replay.means().into_iter().map(|(_, loss)| ("replay_loss", loss)));
        means
    }
}

impl Replay {
    /// Loads the replay of a phase; empty if the settings name no data.
    pub(crate) fn load(
        ctx: &mut PhaseContext<'_>,
        settings: &ReplaySettings,
        text: &TextSetup,
        context: usize,
    ) -> Result<Replay, PhaseError> {
        let source = Source {
            role: "replay.data",
            note_prefix: "Replay: ",
            files: &settings.data,
            kind: ExampleKind::Supervised,
            masks: 0,
        };
        let examples = source.load(ctx, text, context)?;
        let lengths: Vec<usize> = examples.lengths().map(|length| length.tokens).collect();
        let batches =
            Batches::endless(lengths, settings.tokens, ctx.run.seed, ctx.purpose("replay"));
        Ok(Replay { examples, batches, weight: settings.weight })
    }

    /// Lengths of the documents.
    pub(crate) fn lengths(&self) -> Lengths {
        self.examples.lengths().collect()
    }

    /// One optimizer step on the phase's own batch and the replay of update number `update`.
    /// Returns the step and the replayed tokens. The step's loss is the phase's own.
    pub(crate) fn step<S: Stats + Send>(
        &mut self,
        ctx: &mut PhaseContext<'_>,
        trainer: &mut Trainer,
        update: u64,
        own: &Batch,
        output: Output,
        config: &OptimizerConfig,
        objective: impl Fn(usize, &TokenScores<'_>) -> LossAndGrad<S> + Sync,
    ) -> Result<(Step<WithReplay<S>>, usize), PhaseError> {
        let replayed = self.batch(update, ctx.run.shard_tokens)?;
        let step = self.train(trainer, own, &replayed, output, config, objective)?;
        let shape = cost_shape(trainer.model.config());
        for batch in [own, &replayed] {
            ctx.count_flops(batch.forward_flops(&shape) * shape.training_factor());
        }
        Ok((step, replayed.tokens()))
    }

    fn batch(&mut self, update: u64, shard_tokens: usize) -> Result<Batch, PhaseError> {
        let documents = self.examples.batch(self.batches.batch(update))?;
        Ok(Batch::of_documents(&documents, shard_tokens))
    }

    fn train<S: Stats + Send>(
        &self,
        trainer: &mut Trainer,
        own: &Batch,
        replayed: &Batch,
        output: Output,
        config: &OptimizerConfig,
        objective: impl Fn(usize, &TokenScores<'_>) -> LossAndGrad<S> + Sync,
    ) -> Result<Step<WithReplay<S>>, PhaseError> {
        let first = own.shards.len();
        let size = replayed.size;
        let all = [own.shards.as_slice(), &replayed.shards].concat();
        // Replayed text is imitated, not sampled: its logits are not scaled by the temperature.
        let output = |shard| match output {
            Output::TokenScores { entropy, .. } if shard >= first => {
                Output::TokenScores { logit_scale: 1.0, entropy }
            }
            output => output,
        };
        let mut step = trainer.step_with(&all, output, config, |shard, scores| {
            if shard < first {
                let LossAndGrad { loss, dlogp, dentropy, dvalue, stats } = objective(shard, scores);
                let stats = WithReplay { objective: stats, replay: NextTokenStats::default() };
                return LossAndGrad { loss, dlogp, dentropy, dvalue, stats };
            }
            let LossAndGrad { loss, mut dlogp, dentropy, dvalue, stats } =
                next_token::loss(scores, size);
            for d in &mut dlogp {
                *d *= self.weight as f32;
            }
            let stats = WithReplay { objective: S::default(), replay: stats };
            LossAndGrad { loss: loss * self.weight, dlogp, dentropy, dvalue, stats }
        })?;
        if size.tokens > 0 {
            step.loss -= self.weight * step.stats.replay.nll / size.tokens as f64;
        }
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::LOGPROBS;
    use crisol_engine::{Device, UpdateRule};
    use crisol_model::{Architecture, Config, Model};
    use crisol_objectives::policy::PolicyStats;
    use crisol_text::Example;
    use crisol_train::TrainerOptions;

    const SHARD_TOKENS: usize = 16;

    fn trainer() -> Trainer {
        let mut config = Config::new(Architecture::Llama, 50, 16, 1, 2, 24);
        config.max_position_embeddings = 32;
        let (model, params) = Model::init(config, &Device::cpu(Some(1)), 5).expect("a valid shape");
        Trainer::new(model, params, TrainerOptions::default())
    }

    fn documents(first: u32) -> Vec<Example> {
        let document = |i: u32| Example {
            ids: (i..i + 9).map(|t| t * 7 % 50).collect(),
            trained: vec![true; 9],
        };
        (first..first + 4).map(document).collect()
    }

    fn adamw() -> OptimizerConfig {
        OptimizerConfig {
            rule: UpdateRule::AdamW,
            lr: 1e-2,
            table_factor: 1.0,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: None,
        }
    }

    fn weights(trainer: &Trainer) -> Vec<f32> {
        trainer.params.ids().flat_map(|id| trainer.params.read(id)).collect()
    }

    /// One step on `scale` times the next-token objective and `weight` times the replay.
    fn step(scale: f64, weight: f64) -> (Vec<f32>, f64) {
        step_at(LOGPROBS, scale, weight)
    }

    fn step_at(output: Output, scale: f64, weight: f64) -> (Vec<f32>, f64) {
        let mut trainer = trainer();
        let batches = Batches::endless(vec![9; 4], 4 * 9, 1, "replay".into());
        let examples = Examples::in_memory(&documents(20));
        let mut replay = Replay { examples, batches, weight };
        let own = Batch::of_documents(&documents(3), SHARD_TOKENS);
        let replayed = replay.batch(0, SHARD_TOKENS).expect("the documents are in memory");
        let done = replay
            .train(&mut trainer, &own, &replayed, output, &adamw(), |_, scores| {
                let own = next_token::loss(scores, own.size);
                LossAndGrad {
                    loss: scale * own.loss,
                    dlogp: own.dlogp.iter().map(|d| d * scale as f32).collect(),
                    dentropy: own.dentropy,
                    dvalue: own.dvalue,
                    stats: PolicyStats::default(),
                }
            })
            .expect("the step is finite");
        assert_eq!(replayed.tokens(), 4 * 9);
        (weights(&trainer), done.loss)
    }

    fn plain_step(examples: &[Example]) -> (Vec<f32>, f64) {
        let mut trainer = trainer();
        let batch = Batch::of_documents(examples, SHARD_TOKENS);
        let done = trainer
            .step(&batch.shards, LOGPROBS, &adamw(), |_, scores| {
                next_token::loss(scores, batch.size)
            })
            .expect("the step is finite");
        (weights(&trainer), done.loss)
    }

    fn close(a: &[f32], b: &[f32]) -> bool {
        assert!(!a.is_empty() && a.len() == b.len());
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
    }

    #[test]
    fn without_an_objective_replay_is_fine_tuning_and_without_weight_it_is_nothing() {
        let (of_replay, replay_loss) = step(0.0, 1.0);
        let (fine_tuned, _) = plain_step(&documents(20));
        let (own_alone, own_loss) = step(1.0, 0.0);
        let (plain, plain_loss) = plain_step(&documents(3));
        assert!(close(&of_replay, &fine_tuned));
        assert!(close(&own_alone, &plain));
        assert!(!close(&fine_tuned, &plain));
        // The reported loss is the phase's own.
        assert!(replay_loss.abs() < 1e-9 && (own_loss - plain_loss).abs() < 1e-9);
        assert!((step(1.0, 1.0).1 - plain_loss).abs() < 1e-9);
    }

    /// The phase's temperature scales its own logits only.
    #[test]
    fn replay_is_trained_at_temperature_one() {
        let cool = Output::TokenScores { logit_scale: 2.0, entropy: true };
        let (fine_tuned, _) = plain_step(&documents(20));
        assert!(close(&step_at(cool, 0.0, 1.0).0, &fine_tuned));
        assert!(
            !close(&step_at(cool, 1.0, 0.0).0, &step(1.0, 0.0).0),
            "the phase's own shards are scaled"
        );
    }

    /// With equal weights, both together are the mean over all documents.
    #[test]
    fn gradients_add_up() {
        let both: Vec<Example> = documents(3).into_iter().chain(documents(20)).collect();
        let (together, _) = plain_step(&both);
        assert!(close(&step(0.5, 0.5).0, &together));
    }
}
