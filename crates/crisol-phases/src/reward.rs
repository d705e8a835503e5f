//! Phase 4a: the reward model. It reads a prompt with an answer and returns a scalar score, which
//! PPO maximises. Preference pairs train it (Bradley-Terry; Ouyang et al. 2022, arXiv:2203.02155):
//!
//! ```text
//! loss = −log σ(r(chosen) − r(rejected))
//! ```

use std::collections::BTreeMap;

use crisol_cost::phases::{Phase, PhaseOptions};
use crisol_engine::Params;
use crisol_model::{Checkpoint, Model};
use crisol_objectives::Stats;
use crisol_objectives::bradley_terry::{self, RewardStats};
use crisol_text::{Example, PreferenceExample, TextSetup, encode_records};
use crisol_train::{Output, Trainer, derived_seed};

use crate::PhaseError;
use crate::batch::{Batch, Rows};
use crate::context::PhaseContext;
use crate::cost_shape::cost_shape;
use crate::forecast::lengths::{Lengths, Planned};
use crate::forecast::plan::{Shapes, StageData, StagePlan};
use crate::pairs::Pairs;
use crate::passes::statistics;
use crate::settings::RewardSettings;
use crate::state::SavedModel;
use crate::steps::{self, StepResult};

/// Describes the stage, for forecasts. Held-out pairs are ranked before and after, all of them and
/// by kind.
pub(crate) fn plan(settings: &RewardSettings) -> StagePlan<'static> {
    StagePlan {
        name: "reward",
        phase: Phase::Reward,
        options: PhaseOptions::default(),
        rule: settings.optimizer.rule,
        heldout_passes: 4.0,
        replay: None,
    }
}

/// Trains a reward model from the weights of `start`.
pub(crate) fn reward(
    ctx: &mut PhaseContext<'_>,
    settings: &RewardSettings,
    start: Checkpoint,
) -> Result<Checkpoint, PhaseError> {
    let Checkpoint { model, params, text } = start;
    let head_seed = derived_seed(ctx.run.seed, &ctx.purpose("head"), 0);
    let (model, params) = model.scalar_from(&params, head_seed);
    let context = model.config().max_document_len();
    let pairs = Pairs::load(ctx, ("data", ""), &settings.data, &text, context)?;
    let heldout = ctx.run.evaluate.files(&settings.heldout);
    let mut batches = pairs.plan(ctx, settings.epochs, settings.batch_pairs);
    let total = batches.total();
    let data = StageData {
        all: &pairs.examples,
        trained: &Planned::new(&mut batches, 2, |i| pairs.examples.length(i)),
        heldout: &(),
        replay: &Lengths::default(),
        updates: total as usize,
    };
    let shape = cost_shape(model.config());
    ctx.forecast(&plan(settings), Shapes { policy: &shape, scalar: &shape }, &data);
    let mut trainer = ctx.trainer(model, params, &settings.optimizer);
    let first =
        ctx.begin_stage("reward", total, &mut [SavedModel::Trainer("model", &mut trainer)])?;
    if first == 0 {
        // The scores of an untrained head have no scale, so only accuracies are measured before.
        let (model, params) = (&trainer.model, &trainer.params);
        let measures = measure_heldout(ctx, settings, &heldout, (model, params), &text)?;
        for (name, value) in measures.iter().filter(|(name, _)| name.starts_with(ACCURACY)) {
            ctx.measure_before(name, *value);
        }
    }
    steps::train(
        ctx,
        ("model", &mut trainer),
        &settings.optimizer,
        first,
        total,
        |ctx, trainer, step, config| {
            let examples = pairs.get(batches.batch(step))?;
            let examples: Vec<_> = examples.iter().map(<[Example; 2]>::each_ref).collect();
            let batch = Batch::new(&examples, Rows::Last, ctx.run.shard_tokens);
            let done = ctx.step(trainer, &batch, Output::Scalar, config, |_, scores| {
                bradley_terry::loss(scores, settings.centring, batch.size)
            })?;
            Ok(StepResult::new(&done, batch.tokens(), done.stats.means()))
        },
    )?;
    let Trainer { model, params, .. } = trainer;
    for (name, value) in measure_heldout(ctx, settings, &heldout, (&model, &params), &text)? {
        ctx.measure(&name, value);
    }
    Ok(Checkpoint { model, params, text })
}

/// Share of pairs whose chosen answer scores higher. `reward_accuracy/KIND` is that of one kind of
/// pair.
const ACCURACY: &str = "reward_accuracy";

/// Measures on all held-out pairs, and the accuracy on each kind that the pairs name.
fn measure_heldout(
    ctx: &mut PhaseContext<'_>,
    settings: &RewardSettings,
    files: &[String],
    (model, params): (&Model, &Params),
    text: &TextSetup,
) -> Result<Vec<(String, f64)>, PhaseError> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let context = model.config().max_document_len();
    let records = ctx.records(files)?;
    let pairs = encode_records(&records, |record| text.preference(record, context))?;
    ctx.note_encoding("Held out: ", &pairs.summary, context);
    let shard_tokens = ctx.run.shard_tokens;
    let rank = |pairs: &[&PreferenceExample]| -> Result<RewardStats, PhaseError> {
        let pairs: Vec<_> = pairs.iter().map(|pair| [&pair.chosen, &pair.rejected]).collect();
        let batch = Batch::new(&pairs, Rows::Last, shard_tokens);
        statistics(model, params, &batch, Output::Scalar, |_, scores| {
            bradley_terry::loss(scores, settings.centring, batch.size)
        })
    };
    let mut by_kind: BTreeMap<&str, Vec<&PreferenceExample>> = BTreeMap::new();
    for (&record, pair) in pairs.records.iter().zip(&pairs.examples) {
        if let Some(kind) = records[record].kind() {
            by_kind.entry(kind).or_default().push(pair);
        }
    }
    let mut measures = Vec::new();
    for (name, value) in rank(&pairs.examples.iter().collect::<Vec<_>>())?.means() {
        let name = if name == "accuracy" { ACCURACY.into() } else { format!("pairs_{name}") };
        measures.push((name, value));
    }
    for (kind, pairs) in by_kind {
        let means = rank(&pairs)?.means();
        let accuracy = means.into_iter().filter(|(name, _)| *name == "accuracy");
        measures.extend(accuracy.map(|(_, value)| (format!("{ACCURACY}/{kind}"), value)));
    }
    Ok(measures)
}
