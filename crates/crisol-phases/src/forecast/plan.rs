//! The plan of a stage: which passes it makes, over which documents, how often.
//!
//! A phase describes its stage once, as a [`StagePlan`]. The passes are those of the table in
//! [`crisol_cost::phases`], which the cost planner reads too. The forecast before a run applies the
//! plan to the lengths of a sample of the data, the phase itself to those of all data.

use crisol_cost::ModelShape;
use crisol_cost::machine::{LocalWork, Machine};
use crisol_cost::phases::{Kind, Network, Phase, PhaseOptions};
use crisol_cost::units::Flops;
use crisol_engine::UpdateRule;

use super::lengths::{Documents, Length, Lengths};
use crate::settings::{ReplaySettings, RolloutSettings};

/// What a stage does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StagePlan<'s> {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its passes.
    pub(crate) phase: Phase,
    pub(crate) options: PhaseOptions,
    /// The optimizer of the policy.
    pub(crate) rule: UpdateRule,
    /// Forward passes over the held-out documents, before and after training.
    pub(crate) heldout_passes: f64,
    /// What is replayed.
    pub(crate) replay: Option<&'s ReplaySettings>,
}

/// The documents of a stage.
pub(crate) struct StageData<'a> {
    /// Documents of sampling and of forward passes, each once.
    pub(crate) all: &'a dyn Documents,
    /// Trained documents, once per epoch. The epochs of PPO and GRPO are in [`PhaseOptions`].
    pub(crate) trained: &'a dyn Documents,
    pub(crate) heldout: &'a dyn Documents,
    pub(crate) replay: &'a Lengths,
    /// Updates of the policy.
    pub(crate) updates: usize,
}

/// Shapes of a stage's networks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shapes<'a> {
    pub(crate) policy: &'a ModelShape,
    /// Of the reward and the value model.
    pub(crate) scalar: &'a ModelShape,
}

impl StagePlan<'_> {
    /// The operations of the stage.
    pub(crate) fn work(&self, shapes: Shapes<'_>, data: &StageData<'_>) -> LocalWork {
        let shape = |network| match network {
            Network::Policy | Network::Reference => shapes.policy,
            Network::Reward | Network::Value => shapes.scalar,
        };
        let mut work = LocalWork::default();
        let passes = self.phase.passes(self.options);
        for pass in &passes {
            let documents = if pass.kind == Kind::Train { data.trained } else { data.all };
            let flops = documents.forward(shape(pass.network)) * pass.times;
            match pass.kind {
                Kind::Generate => work.sampling += flops,
                Kind::Forward => work.forward += flops,
                Kind::Train => work.training += flops * shape(pass.network).training_factor(),
            }
        }
        // The first network that a phase trains is the one that it is about.
        if let Some(pass) = passes.iter().find(|pass| pass.kind == Kind::Train) {
            let trained = shape(pass.network);
            work.measuring = data.heldout.forward(trained) * self.heldout_passes;
            work.optimizer = match self.rule {
                UpdateRule::AdamW => Flops(0.0),
                UpdateRule::Muon => trained.muon_flops() * data.updates as f64,
            };
        }
        if let Some(settings) = self.replay {
            work.training += replayed(shapes.policy, settings, data.replay, data.updates);
        }
        work
    }
}

/// Operations of the replay in `updates` updates.
fn replayed(
    shape: &ModelShape,
    settings: &ReplaySettings,
    documents: &Lengths,
    updates: usize,
) -> Flops {
    match documents.batches(settings.tokens) {
        0.0 => Flops(0.0),
        batches => documents.forward(shape) * (shape.training_factor() * updates as f64 / batches),
    }
}

/// Answers sampled in `steps` steps. Their length is estimated as that of the answers that the
/// model was trained on, if any, else as half the limit.
pub(crate) fn answers(
    settings: &RolloutSettings,
    steps: u64,
    prompt_tokens: usize,
    learned: &Lengths,
) -> Lengths {
    let limit = settings.max_new_tokens;
    let rows = learned.mean_answer().unwrap_or(limit / 2).clamp(1, limit);
    let count = steps as f64 * (settings.prompts * settings.group_size) as f64;
    [(Length { tokens: prompt_tokens + rows, rows }, count)].into_iter().collect()
}

/// Updates of the policy in `steps` rollout steps.
pub(crate) fn rollout_updates(settings: &RolloutSettings, steps: u64) -> u64 {
    steps * (settings.epochs * settings.minibatches) as u64
}

/// Forecast of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StageForecast {
    /// The stage's name.
    pub name: String,
    /// Floating-point operations as reports count them: without measuring.
    pub flops: f64,
    /// Seconds on a calibrated machine.
    pub seconds: Option<f64>,
    /// Share of a run's time, relative to other stages.
    pub weight: f64,
}

impl StageForecast {
    /// Forecast of `work` by a model of this shape.
    pub(crate) fn new(
        name: &str,
        shape: &ModelShape,
        work: &LocalWork,
        machine: Option<&Machine>,
    ) -> StageForecast {
        let seconds =
            machine.and_then(|machine| machine.time(shape, work)).map(|seconds| seconds.0);
        let weight = seconds.unwrap_or(work.weight());
        StageForecast { name: name.to_owned(), flops: work.counted().0, seconds, weight }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost_shape::cost_shape;
    use crisol_cost::phases::TRAINING;
    use crisol_model::{Architecture, Config};

    fn shape() -> ModelShape {
        cost_shape(&Config::new(Architecture::Llama, 50, 16, 2, 2, 24))
    }

    #[test]
    fn answers_are_as_long_as_those_learned_from() {
        let settings = crate::ReasonSettings::default().rollout;
        let rows = |learned: &Lengths| answers(&settings, 1, 7, learned).mean_answer().unwrap();
        assert_eq!(rows(&Lengths::default()), settings.max_new_tokens / 2);
        let text = Length { tokens: 50, rows: 49 };
        let learned = [Length { tokens: 30, rows: 10 }, Length { tokens: 40, rows: 20 }, text];
        assert_eq!(rows(&learned.into_iter().collect()), 15);
        let long = [Length { tokens: 9000, rows: 8000 }].into_iter().collect();
        assert_eq!(rows(&long), settings.max_new_tokens);
    }

    /// Batches are of whole documents: three of these in each.
    #[test]
    fn replay_is_as_many_batches_as_there_are_updates() {
        let settings = ReplaySettings { data: vec![], tokens: 100, weight: 1.0 };
        let documents: Lengths = [Length { tokens: 30, rows: 30 }; 6].into_iter().collect();
        let once = documents.forward(&shape()) * TRAINING;
        assert_eq!(replayed(&shape(), &settings, &documents, 7), once * 3.5);
        assert_eq!(replayed(&shape(), &settings, &Lengths::default(), 7), Flops(0.0));
    }

    /// DPO in forward passes of all pairs: reference 1, two epochs of training 6, held-out data 3.
    #[test]
    fn work_is_the_sum_of_the_passes() {
        let plan = StagePlan {
            name: "dpo",
            phase: Phase::Dpo,
            options: PhaseOptions::default(),
            rule: UpdateRule::AdamW,
            heldout_passes: 3.0,
            replay: None,
        };
        let pairs: Lengths = [Length { tokens: 30, rows: 9 }; 4].into_iter().collect();
        let data = StageData {
            all: &pairs,
            trained: &pairs.repeated(2.0),
            heldout: &pairs,
            replay: &Lengths::default(),
            updates: 8,
        };
        let shape = shape();
        let work = plan.work(Shapes { policy: &shape, scalar: &shape }, &data);
        let once = pairs.forward(&shape);
        let wanted = LocalWork {
            forward: once,
            training: once * 2.0 * TRAINING,
            measuring: once * 3.0,
            ..LocalWork::default()
        };
        assert_eq!(work, wanted);
    }
}
