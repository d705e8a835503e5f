//! Replay: next-token training on other data beside each update of a phase, against forgetting. In RLHF it is the
//! pre-training term of Ouyang et al. 2022 (arXiv:2203.02155, equation 2, "PPO-ptx"); GRPO and DPO take it the same
//! way.

use crisol_cost::ModelShape;
use crisol_cost::machine::LocalWork;
use crisol_cost::units::Flops;
use crisol_engine::OptimizerConfig;
use crisol_objectives::next_token::{self, NextTokenStats};
use crisol_objectives::{LossAndGrad, Stats, TokenScores};
use crisol_text::{Packed, TextSetup};
use crisol_train::{Output, Step, Trainer};
use serde::{Deserialize, Serialize};

use crate::PhaseError;
use crate::batches::Batches;
use crate::context::PhaseContext;
use crate::examples::{Kind, Source};
use crate::expectation::{self, Documents};
use crate::settings::ReplaySettings;
use crate::store::Examples;
use crate::supervised::{batch_size, shards, token_count, training_flops};

/// What is replayed.
pub(crate) struct Replay {
    examples: Examples,
    /// The documents of each update.
    batches: Batches,
    updates: u64,
    weight: f64,
    /// Of the model that is trained.
    shape: ModelShape,
}

/// What a step with replay worked on.
#[derive(Clone, Copy, Default)]
pub(crate) struct Trained {
    /// Tokens that were replayed.
    pub(crate) replayed: usize,
    /// Operations of the whole step.
    pub(crate) flops: Flops,
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
    /// Replay for `updates` optimizer steps of the phase; nothing in them if the settings name no data.
    pub(crate) fn load(
        ctx: &mut PhaseContext<'_>,
        settings: &ReplaySettings,
        text: &TextSetup,
        context: usize,
        updates: u64,
        shape: &ModelShape,
    ) -> Result<Replay, PhaseError> {
        let source = Source {
            role: "replay.data",
            what: "Replay: ",
            files: &settings.data,
            kind: Kind::Supervised,
            pictures: 0,
        };
        let examples = source.load(ctx, text, context)?;
        let lengths: Vec<usize> = examples.lengths().map(|length| length.tokens).collect();
        let batches =
            Batches::endless(lengths, settings.tokens, ctx.run.seed, ctx.purpose("replay"));
        Ok(Replay { examples, batches, updates, weight: settings.weight, shape: shape.clone() })
    }

    /// What it adds to the phase's work.
    pub(crate) fn expected(&self, settings: &ReplaySettings) -> LocalWork {
        expectation::replay(&self.shape, settings, &self.lengths(), self.updates as usize)
    }

    /// Lengths of what is replayed.
    pub(crate) fn lengths(&self) -> Documents {
        self.examples.lengths().collect()
    }

    /// One optimizer step on the phase's own `shards` and the replay of update number `update`. The step's loss is the
    /// phase's own.
    pub(crate) fn step<S: Stats + Send>(
        &mut self,
        trainer: &mut Trainer,
        update: u64,
        shard_tokens: usize,
        own: &[Packed],
        output: Output,
        config: &OptimizerConfig,
        objective: impl Fn(usize, &TokenScores<'_>) -> LossAndGrad<S> + Sync,
    ) -> Result<(Step<WithReplay<S>>, Trained), PhaseError> {
        let first = own.len();
        let replayed = shards(&self.examples.batch(self.batches.batch(update))?, shard_tokens);
        let size = batch_size(&replayed);
        let all = [own, &replayed].concat();
        let trained =
            Trained { replayed: token_count(&replayed), flops: training_flops(&self.shape, &all) };
        // What is replayed is imitated, not sampled: at temperature 1, whatever the phase samples at.
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
        Ok((step, trained))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervised::LOGPROBS;
    use crisol_engine::{Device, Rule};
    use crisol_model::{Architecture, Config, Model};
    use crisol_objectives::policy::PolicyStats;
    use crisol_text::Example;

    const SHARD_TOKENS: usize = 16;

    fn trainer() -> Trainer {
        let mut config = Config::new(Architecture::Llama, 50, 16, 1, 2, 24);
        config.max_position_embeddings = 32;
        let (model, params) = Model::init(config, &Device::cpu(Some(1)), 5).expect("a valid shape");
        Trainer::new(model, params)
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
            rule: Rule::AdamW,
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

    /// One step with `scale` times the next-token objective as the phase's own, and the replay of `weight`.
    fn step(scale: f64, weight: f64) -> (Vec<f32>, f64) {
        step_at(LOGPROBS, scale, weight)
    }

    fn step_at(output: Output, scale: f64, weight: f64) -> (Vec<f32>, f64) {
        let mut trainer = trainer();
        let shape = trainer.model.config().cost_shape();
        let batches = Batches::endless(vec![9; 4], 4 * 9, 1, "replay".into());
        let examples = Examples::in_memory(&documents(20));
        let mut replay = Replay { examples, batches, updates: 1, weight, shape };
        let own = shards(&documents(3), SHARD_TOKENS);
        let size = batch_size(&own);
        let (done, trained) = replay
            .step(&mut trainer, 0, SHARD_TOKENS, &own, output, &adamw(), |_, scores| {
                let own = next_token::loss(scores, size);
                LossAndGrad {
                    loss: scale * own.loss,
                    dlogp: own.dlogp.iter().map(|d| d * scale as f32).collect(),
                    dentropy: own.dentropy,
                    dvalue: own.dvalue,
                    stats: PolicyStats::default(),
                }
            })
            .expect("the step is finite");
        assert_eq!(trained.replayed, 4 * 9);
        (weights(&trainer), done.loss)
    }

    fn plain_step(examples: &[Example]) -> (Vec<f32>, f64) {
        let mut trainer = trainer();
        let shards = shards(examples, SHARD_TOKENS);
        let size = batch_size(&shards);
        let done = trainer
            .step(&shards, LOGPROBS, &adamw(), |_, scores| next_token::loss(scores, size))
            .expect("the step is finite");
        (weights(&trainer), done.loss)
    }

    fn close(a: &[f32], b: &[f32]) -> bool {
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
        // The loss that is reported is the phase's own.
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
            "the phase's own shards feel it"
        );
    }

    /// Both together are the mean over all documents, if they weigh the same.
    #[test]
    fn gradients_add_up() {
        let both: Vec<Example> = documents(3).into_iter().chain(documents(20)).collect();
        let (together, _) = plain_step(&both);
        assert!(close(&step(0.5, 0.5).0, &together));
    }
}
