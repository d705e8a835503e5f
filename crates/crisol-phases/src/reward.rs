//! Phase 4a: the reward model. It reads a prompt with an answer and says one number; votes teach it that the chosen
//! answer's number is the larger (Bradley-Terry; Ouyang et al. 2022, arXiv:2203.02155). It is the judge that
//! RLHF trains against.

use std::collections::BTreeMap;

use crisol_engine::Params;
use crisol_model::{Checkpoint, Model};
use crisol_objectives::Stats;
use crisol_objectives::bradley_terry::{self, RewardStats};
use crisol_text::{Example, Packed, PreferenceExample, TextSetup, encode_records, pack};
use crisol_train::{Output, Trainer, derived_seed, evaluate};

use crate::PhaseError;
use crate::batches::Plan;
use crate::context::{PhaseContext, Saved, update_rule};
use crate::examples::{Kind, Source};
use crate::expectation::{Length, forward, training};
use crate::settings::RewardSettings;
use crate::store::Examples;
use crate::supervised::{batch_size, sum_up, token_count, training_flops};

/// Trains a reward model from the weights of `start`.
pub(crate) fn reward(
    ctx: &mut PhaseContext<'_>,
    settings: &RewardSettings,
    start: Checkpoint,
) -> Result<Checkpoint, PhaseError> {
    let Checkpoint { model, params, text } = start;
    let (model, params) =
        model.scalar_from(&params, derived_seed(ctx.run.seed, &ctx.purpose("head"), 0));
    let context = model.config().longest_document();
    let pairs = preferences(ctx, "data", "", &settings.data, &text, context)?;
    let mut plan = Plan::new(
        vec![1; pairs.len()],
        settings.epochs,
        settings.batch_pairs,
        ctx.run.seed,
        ctx.purpose("order"),
    );
    let shape = model.config().cost_shape();
    let mut trainer = Trainer::new(model, params);
    let total = plan.total();
    let work = training(&shape, &mut plan, settings.optimizer.rule, |i| {
        forward(&shape, pairs.lengths(i).map(Length::judged))
    });
    ctx.expect("reward", &shape, &work);
    let first = ctx.begin_stage("reward", total, &mut [Saved::Trainer("model", &mut trainer)])?;
    let heldout = ctx.run.evaluate.files(&settings.heldout);
    if first == 0 {
        // Of a head that has learned nothing yet, its shares of pairs alone say something.
        let measured =
            measured_heldout(ctx, settings, &heldout, &trainer.model, &trainer.params, &text)?;
        for (name, value) in measured.iter().filter(|(name, _)| name.starts_with("reward_accuracy"))
        {
            ctx.measure_before(name, *value);
        }
    }
    for step in first..total {
        let batch = pairs.batch(plan.batch(step))?;
        let batch: Vec<_> = batch.iter().map(<[crisol_text::Example; 2]>::each_ref).collect();
        let shards = pair_shards(&batch, ctx.run.shard_tokens);
        let (size, tokens) = (batch_size(&shards), token_count(&shards));
        let config = update_rule(&settings.optimizer, step, total);
        let done = trainer
            .step(&shards, Output::Scalar, &config, |_, scores| {
                bradley_terry::loss(scores, settings.centring, size)
            })
            .map_err(|error| ctx.stopped(error, &mut [Saved::Trainer("model", &mut trainer)]))?;
        ctx.count_flops(training_flops(&shape, &shards));
        let mut metrics =
            vec![("loss", done.loss), ("grad_norm", done.grad_norm), ("lr", f64::from(config.lr))];
        metrics.extend(done.stats.means());
        ctx.end_step(
            step + 1,
            total,
            tokens as u64,
            &metrics,
            &mut [Saved::Trainer("model", &mut trainer)],
        )?;
    }
    let Trainer { model, params, .. } = trainer;
    for (name, value) in measured_heldout(ctx, settings, &heldout, &model, &params, &text)? {
        ctx.measure(&name, value);
    }
    Ok(Checkpoint { model, params, text })
}

/// How the model judges held-out votes: all of them, and each kind by itself where the votes name kinds.
fn measured_heldout(
    ctx: &mut PhaseContext<'_>,
    settings: &RewardSettings,
    heldout: &[String],
    model: &Model,
    params: &Params,
    text: &TextSetup,
) -> Result<Vec<(String, f64)>, PhaseError> {
    if heldout.is_empty() {
        return Ok(Vec::new());
    }
    let context = model.config().longest_document();
    let records = ctx.records(heldout)?;
    let pairs = encode_records(&records, |record| text.preference(record, context))?;
    ctx.note_data("Held out: ", &pairs.summary, context);
    let judged = |pairs: &[&PreferenceExample]| -> Result<RewardStats, PhaseError> {
        let pairs: Vec<_> = pairs.iter().map(|pair| [&pair.chosen, &pair.rejected]).collect();
        let shards = pair_shards(&pairs, ctx.run.shard_tokens);
        let size = batch_size(&shards);
        let parts = evaluate(model, params, &shards, Output::Scalar, |_, scores| {
            bradley_terry::loss(scores, settings.centring, size).stats
        })?;
        Ok(sum_up(parts))
    };
    let mut by_kind: BTreeMap<&str, Vec<&PreferenceExample>> = BTreeMap::new();
    for (&record, pair) in pairs.records.iter().zip(&pairs.examples) {
        if let Some(kind) = records[record].kind() {
            by_kind.entry(kind).or_default().push(pair);
        }
    }
    let mut measured = Vec::new();
    for (name, value) in judged(&pairs.examples.iter().collect::<Vec<_>>())?.means() {
        let name =
            if name == "accuracy" { "reward_accuracy".into() } else { format!("pairs_{name}") };
        measured.push((name, value));
    }
    for (kind, pairs) in by_kind {
        for (_, value) in
            judged(&pairs)?.means().into_iter().filter(|(name, _)| *name == "accuracy")
        {
            measured.push((format!("reward_accuracy/{kind}"), value));
        }
    }
    Ok(measured)
}

/// Preference pairs; each is two examples, the chosen answer's and the rejected one's.
pub(crate) struct Preferences(Examples);

impl Preferences {
    /// How many pairs there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len() / 2
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lengths of a pair.
    pub(crate) fn lengths(&self, i: usize) -> [Length; 2] {
        [self.0.length(2 * i), self.0.length(2 * i + 1)]
    }

    /// Lengths of all answers.
    pub(crate) fn all_lengths(&self) -> impl Iterator<Item = Length> {
        self.0.lengths()
    }

    /// Several pairs.
    pub(crate) fn batch(&self, chosen: &[usize]) -> Result<Vec<[Example; 2]>, PhaseError> {
        chosen.iter().map(|&i| Ok([self.0.get(2 * i)?, self.0.get(2 * i + 1)?])).collect()
    }
}

/// The preference pairs of the files of a setting, which notes call `what`.
pub(crate) fn preferences(
    ctx: &mut PhaseContext<'_>,
    role: &str,
    what: &str,
    files: &[String],
    text: &TextSetup,
    context: usize,
) -> Result<Preferences, PhaseError> {
    let source = Source { role, what, files, kind: Kind::Preference, pictures: 0 };
    Ok(Preferences(source.load(ctx, text, context)?))
}

/// Packs pairs into shards of their last tokens, chosen before rejected.
fn pair_shards(pairs: &[[&Example; 2]], shard_tokens: usize) -> Vec<Packed> {
    let lengths: Vec<usize> =
        pairs.iter().map(|[chosen, rejected]| chosen.ids.len() + rejected.ids.len()).collect();
    pack(&lengths, shard_tokens)
        .into_iter()
        .map(|shard| {
            let mut packed = Packed::new();
            for i in shard {
                let [chosen, rejected] = pairs[i];
                packed.push_last(&chosen.ids);
                packed.push_last(&rejected.ids);
            }
            packed
        })
        .collect()
}
