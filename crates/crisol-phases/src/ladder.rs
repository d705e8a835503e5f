//! A scaling ladder of a recipe: its pre-training with smaller models up to its own, at a constant
//! ratio of tokens to parameters.
//!
//! The work of each rung is exact: tokenizer, documents and batches are those of its run.

use crisol_cost::ModelShape;
use crisol_cost::machine::LocalWork;
use thiserror::Error;

use crate::PhaseError;
use crate::batches::BatchPlan;
use crate::context::stage_purpose;
use crate::cost_shape::cost_shape;
use crate::forecast::lengths::{Length, Lengths, Planned};
use crate::forecast::plan::{Shapes, StageData};
use crate::pretrain::{documents, stage, text_setup, texts};
use crate::recipe::{Recipe, Split};
use crate::settings::{ModelSettings, PhaseSettings, PretrainSettings};

/// One run of a ladder.
#[derive(Clone, Debug, PartialEq)]
pub struct LadderRung {
    /// Its recipe.
    pub recipe: Recipe,
    /// Shape of its model.
    pub shape: ModelShape,
    /// Trained tokens, all epochs together.
    pub tokens: usize,
    /// Operations of training, and of measuring the held-out text before and after.
    pub work: LocalWork,
}

/// Why a recipe has no ladder.
#[derive(Debug, Error)]
pub enum LadderError {
    /// The first phase is not pre-training.
    #[error(
        "the first phase is of kind {kind}; a ladder is of pre-training: \
         put a phase of kind pretrain first"
    )]
    NotPretraining {
        /// Kind of its first phase.
        kind: &'static str,
    },
    /// The recipe starts from a trained model.
    #[error("the recipe starts from {base}; the models of a ladder are new: leave `base` empty")]
    NotNew {
        /// The checkpoint.
        base: String,
    },
    /// The pre-training has no held-out data.
    #[error(
        "the phase {name} has no held-out text, whose loss a ladder is about: \
         name files in `heldout`"
    )]
    NothingHeldOut {
        /// The phase.
        name: String,
    },
    /// Too few models between a twelfth of the recipe's size and that size.
    #[error(
        "only {found} models between a twelfth of the recipe's size and that size have its \
         proportions, and {rungs} rungs were asked for; make model.hidden_size larger"
    )]
    TooFewSizes {
        /// Different sizes.
        found: usize,
        /// Sizes wanted.
        rungs: usize,
    },
    /// The smallest is not much smaller than the largest.
    #[error(
        "compute would grow by a factor of {factor:.1} from the smallest rung to the largest, \
         and a curve needs 8 or more; \
         make model.hidden_size larger or the vocabulary smaller"
    )]
    TooNarrow {
        /// Largest over smallest.
        factor: f64,
    },
    /// The data or the model is wrong.
    #[error(transparent)]
    Phase(#[from] PhaseError),
}

/// Target and minimum of the smallest model's size, as a share of the recipe's.
const TARGET_SHARE: f64 = 0.1;
const MIN_SHARE: f64 = 1.0 / 12.0;
/// Minimum growth of compute over a ladder: a fit needs it (`crisol_cost::fit`).
const MIN_FACTOR: f64 = 8.0;
/// Layers of the smallest models.
const MIN_LAYERS: usize = 2;
/// Maximum ratio of a head's width to the recipe's, or the other way round.
const MAX_HEAD_WIDTH_FACTOR: f64 = 2.0;

/// A ladder of a recipe's first phase, the smallest model first. The last is the recipe's own.
pub fn ladder(base: &Recipe, rungs: usize) -> Result<Vec<LadderRung>, LadderError> {
    // A recipe has at least one phase.
    let phase = &base.phases[0];
    let PhaseSettings::Pretrain(settings) = &phase.settings else {
        return Err(LadderError::NotPretraining { kind: phase.settings.kind() });
    };
    if !base.run.base.is_empty() {
        return Err(LadderError::NotNew { base: base.run.base.clone() });
    }
    if settings.heldout.is_empty() {
        return Err(LadderError::NothingHeldOut { name: phase.name.clone() });
    }
    let base = &base.clone().resolved()?;
    let PhaseSettings::Pretrain(settings) = &base.phases[0].settings else {
        unreachable!("settling a phase does not change its kind")
    };
    let data = base.run.data_source();
    let train = texts(&data.all_records(&settings.data)?)?;
    let text = text_setup(&base.run.model, train.iter()).map_err(PhaseError::from)?;
    let context = base.run.model.context;
    let train = documents(&text, &train, context)?;
    let heldout = documents(&text, &texts(&data.all_records(&settings.heldout)?)?, context)?;

    let size = |model: &ModelSettings| -> Result<f64, PhaseError> {
        Ok(cost_shape(&model.config(text.tokenizer.vocab_size())?).parameters().total())
    };
    let whole = size(&base.run.model)?;
    let models = choose(&base.run.model, rungs, size)?;
    let lengths: Vec<usize> = train.iter().map(|document| document.ids.len()).collect();
    let purpose = stage_purpose(&phase.name, "pretrain");
    let mut ladder = Vec::with_capacity(rungs);
    for (rung, (model, parameters)) in models.into_iter().enumerate() {
        let settings =
            PretrainSettings { epochs: settings.epochs * parameters / whole, ..settings.clone() };
        let shape = cost_shape(&model.config(text.tokenizer.vocab_size())?);
        let PretrainSettings { epochs, batch_tokens, .. } = settings;
        let mut plan =
            BatchPlan::new(lengths.clone(), epochs, batch_tokens, base.run.seed, purpose.clone());
        let (whole_epochs, partial) = plan.visits();
        let once: usize = lengths.iter().sum();
        let tokens =
            whole_epochs as usize * once + partial.iter().map(|&i| lengths[i]).sum::<usize>();
        let data = StageData {
            all: &(),
            trained: &Planned::new(&mut plan, 1, |i| Length::of(&train[i])),
            heldout: &heldout.as_slice(),
            replay: &Lengths::default(),
            updates: plan.total() as usize,
        };
        let shapes = Shapes { policy: &shape, scalar: &shape };
        let work = stage(&settings).plan().work(shapes, &data);
        let mut recipe = base.clone();
        recipe.run.title = format!("Rung {} of {rungs} of a ladder", rung + 1);
        recipe.run.model = model;
        recipe.run.evaluate = Split::None;
        recipe.phases.truncate(1);
        recipe.phases[0].settings = PhaseSettings::Pretrain(settings);
        ladder.push(LadderRung { recipe, shape, tokens, work });
    }
    let factor = ladder[rungs - 1].work.training.0 / ladder[0].work.training.0;
    if factor < MIN_FACTOR {
        return Err(LadderError::TooNarrow { factor });
    }
    Ok(ladder)
}

/// Models of the base's proportions, with their parameters: as even a ladder as widths allow, from
/// a tenth of the base's size up to the base.
fn choose(
    base: &ModelSettings,
    rungs: usize,
    size: impl Fn(&ModelSettings) -> Result<f64, PhaseError>,
) -> Result<Vec<(ModelSettings, f64)>, LadderError> {
    let whole = size(base)?;
    let mut found = 0;
    // Multiples of the SIMD width are fastest, but a narrow base has few of them.
    for step in [8, 4, 2] {
        let mut models = Vec::new();
        for width in (step..base.hidden_size).step_by(step) {
            if let Some(model) = narrowed(base, width) {
                let size = size(&model)?;
                if (MIN_SHARE * whole..whole).contains(&size) {
                    models.push((model, size));
                }
            }
        }
        models.push((base.clone(), whole));
        found = models.len();
        if found >= rungs {
            return Ok(choose_evenly(models, rungs));
        }
    }
    Err(LadderError::TooFewSizes { found, rungs })
}

/// The base scaled to another width, with layers, heads and feed-forward width in proportion.
/// `None` if no number of heads fits.
fn narrowed(base: &ModelSettings, width: usize) -> Option<ModelSettings> {
    let share = width as f64 / base.hidden_size as f64;
    let scaled = |count: usize| (count as f64 * share).round() as usize;
    // Query heads per key/value head stay as they are.
    let queries = base.heads / base.kv_heads;
    let wanted = (base.hidden_size / base.heads) as f64;
    let far = |heads: usize| ((width / heads) as f64 / wanted).ln().abs();
    let heads = (queries..=base.heads)
        .step_by(queries)
        .filter(|heads| {
            width.is_multiple_of(2 * heads) && far(*heads) <= MAX_HEAD_WIDTH_FACTOR.ln()
        })
        .min_by(|a, b| far(*a).total_cmp(&far(*b)))?;
    Some(ModelSettings {
        hidden_size: width,
        layers: scaled(base.layers).max(MIN_LAYERS.min(base.layers)),
        heads,
        kv_heads: heads / queries,
        intermediate_size: scaled(base.intermediate_size).max(1),
        ..base.clone()
    })
}

/// Chooses `rungs` of the models, which are sorted by size: from the top, each the nearest to its
/// target on a geometric ladder.
fn choose_evenly(mut models: Vec<(ModelSettings, f64)>, rungs: usize) -> Vec<(ModelSettings, f64)> {
    let whole = models[models.len() - 1].1;
    let smallest = models[0].1.max(TARGET_SHARE * whole);
    let mut chosen = Vec::with_capacity(rungs);
    for rung in (0..rungs).rev() {
        let target = smallest * (whole / smallest).powf(rung as f64 / (rungs - 1) as f64);
        // Enough models must be left for the rungs below.
        let far = |at: &usize| (models[*at].1 / target).ln().abs();
        let at = (rung..models.len()).min_by(|a, b| far(a).total_cmp(&far(b)));
        let at = at.expect("there are as many models as rungs");
        chosen.push(models.swap_remove(at));
        models.truncate(at);
    }
    chosen.reverse();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameters without norms, with a vocabulary of 1,024.
    fn size(model: &ModelSettings) -> f64 {
        let (width, heads) = (model.hidden_size, model.heads + model.kv_heads);
        let attention = 2 * width * (width / model.heads) * heads;
        (1024 * width + model.layers * (attention + 3 * width * model.intermediate_size)) as f64
    }

    #[test]
    fn models_grow_evenly_and_keep_their_proportions() {
        let wide = ModelSettings {
            hidden_size: 768,
            layers: 12,
            heads: 12,
            kv_heads: 4,
            ..Default::default()
        };
        let narrow = ModelSettings {
            hidden_size: 64,
            layers: 2,
            intermediate_size: 176,
            ..Default::default()
        };
        let default = ModelSettings::default();
        for base in [wide, narrow, default] {
            for rungs in 4..=6 {
                let models = choose(&base, rungs, |model| Ok(size(model))).unwrap();
                assert_eq!((models.len(), &models[rungs - 1].0), (rungs, &base));
                for pair in models.windows(2) {
                    let growth = pair[1].1 / pair[0].1;
                    assert!((1.2..2.6).contains(&growth), "{growth}: {pair:?}");
                }
                for (model, _) in &models {
                    assert!(
                        model.hidden_size.is_multiple_of(2 * model.heads) && model.layers >= 2,
                        "{model:?}"
                    );
                    assert_eq!(
                        model.heads * base.kv_heads,
                        model.kv_heads * base.heads,
                        "{model:?}"
                    );
                    let aspect =
                        |m: &ModelSettings| m.intermediate_size as f64 / m.hidden_size as f64;
                    assert!((aspect(model) / aspect(&base) - 1.0).abs() < 0.05, "{model:?}");
                }
                assert!((0.08..0.15).contains(&(models[0].1 / models[rungs - 1].1)), "{models:?}");
            }
        }
    }

    #[test]
    fn recipes_without_a_ladder_are_refused_with_the_cause() {
        let error = |text: &str| {
            ladder(&Recipe::parse("r.toml", text).unwrap(), 5).unwrap_err().to_string()
        };
        let narrow =
            "[model]\nhidden_size = 8\nheads = 2\nkv_heads = 2\n[[phases]]\nkind = \"pretrain\"\n";
        assert!(error(narrow).contains("model.hidden_size larger"), "{}", error(narrow));
        assert!(error("[[phases]]\nkind = \"pretrain\"\nheldout = []\n").contains("held-out"));
        assert!(
            error("base = \"b\"\n[[phases]]\nkind = \"pretrain\"\n").contains("leave `base` empty")
        );
        assert!(error("base = \"b\"\n[[phases]]\nkind = \"sft\"\n").contains("of kind sft"));
    }
}
