//! What the ids in a report mean: human labels, units, which direction is better, what to watch.
//!
//! One table serves metrics and curves alike. An id that is not in it is shown as it is.

use std::borrow::Cow;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A fraction from 0 to 1, written in per cent.
    Share,
    /// A number with a unit's name, which may be empty.
    Plain(&'static str),
}

/// Which direction a reader should wish for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Neither: it describes.
    Neither,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Id in `metrics` or name of a curve.
    pub id: &'static str,
    /// What a reader sees.
    pub label: &'static str,
    /// How values are written.
    pub unit: Unit,
    /// The wished direction.
    pub better: Better,
    /// Whether it belongs to the table of behaviours, measured on held-out prompts after each
    /// phase.
    pub behaviour: bool,
    /// What to watch, for the caption of a plot; may be empty.
    pub hint: &'static str,
}

const fn behaviour(id: &'static str, label: &'static str, unit: Unit, better: Better) -> Measure {
    Measure { id, label, unit, better, behaviour: true, hint: "" }
}

const fn training(
    id: &'static str,
    label: &'static str,
    unit: Unit,
    better: Better,
    hint: &'static str,
) -> Measure {
    Measure { id, label, unit, better, behaviour: false, hint }
}

use Better::{Higher, Lower, Neither};
use Unit::{Plain, Share};

const NATS: Unit = Plain("nats");
const NUMBER: Unit = Plain("");

/// Every known measure. Behaviours are shown in this order.
pub const MEASURES: &[Measure] = &[
    behaviour("bits_per_byte", "bits per byte of held-out text", Plain("bits"), Lower),
    behaviour("list_continued", "question lists continued", Share, Neither),
    behaviour("cloze_accuracy", "facts completed in a sentence", Share, Higher),
    behaviour("facts_accuracy", "facts answered in chat", Share, Higher),
    behaviour("ended_by_itself", "answers that end by themselves", Share, Higher),
    behaviour("cold_start_accuracy", "problems solved after the cold start", Share, Higher),
    behaviour("problems_accuracy", "problems solved", Share, Higher),
    behaviour("format_accuracy", "problems answered in the asked format", Share, Higher),
    behaviour("harmful_complied", "harmful requests complied with", Share, Lower),
    behaviour("harmful_refused", "harmful requests refused", Share, Higher),
    behaviour("lookalike_refused", "harmless look-alikes refused", Share, Lower),
    behaviour("ordinary_refused", "ordinary questions refused", Share, Lower),
    behaviour("reward_accuracy", "held-out preference pairs ranked right", Share, Higher),
    behaviour("pairs_accuracy", "held-out pairs ranked right against the reference", Share, Higher),
    training(
        "loss",
        "training loss",
        NATS,
        Lower,
        "Should fall quickly, then flatten; noise is normal.",
    ),
    training(
        "policy_loss",
        "policy loss",
        NUMBER,
        Neither,
        "Advantages average to about zero, and so does this loss: read the reward.",
    ),
    training(
        "validation_loss",
        "held-out loss",
        NATS,
        Lower,
        "Rising while the training loss falls means the phase memorises.",
    ),
    training(
        "preference_accuracy",
        "held-out pairs whose chosen answer is more probable",
        Share,
        Higher,
        "",
    ),
    training("heldout_accuracy", "held-out problems solved", Share, Higher, ""),
    training("heldout_reward", "reward of answers to held-out prompts", NUMBER, Higher, ""),
    training("nll", "loss of the preference pairs", NATS, Lower, "0.69 is a coin toss."),
    training("accuracy", "accuracy", Share, Higher, ""),
    training("format", "asked format", Share, Higher, ""),
    training("perplexity", "perplexity", NUMBER, Lower, ""),
    training(
        "margin",
        "margin between chosen and rejected",
        NUMBER,
        Higher,
        "Should grow; without bound it means overfitting to the pairs.",
    ),
    training("logp", "log-prob of the answers", NATS, Neither, "The gap counts; both may fall."),
    training("chosen_logp", "log-prob of the chosen answers", NATS, Neither, ""),
    training("rejected_logp", "log-prob of the rejected answers", NATS, Neither, ""),
    training("answer_reward", "reward of the answers", NUMBER, Neither, "The two should part."),
    training("chosen_reward", "reward of the chosen answers", NUMBER, Neither, ""),
    training("rejected_reward", "reward of the rejected answers", NUMBER, Neither, ""),
    training("chosen_nll", "loss of the chosen answers", NATS, Lower, ""),
    training(
        "replay_loss",
        "loss of replayed text",
        NATS,
        Lower,
        "Rising means that earlier abilities go.",
    ),
    training(
        "reward",
        "reward",
        NUMBER,
        Higher,
        "Read the parts apart. A reward that climbs while answers get worse is reward hacking.",
    ),
    training(
        "zero_spread",
        "groups without spread",
        Share,
        Neither,
        "All answers of such a group earned the same, so it teaches nothing. \
         Grows as the task is mastered.",
    ),
    training(
        "entropy",
        "entropy of the policy",
        NATS,
        Neither,
        "A slow fall is healthy; a fall to zero early means that exploration has ended.",
    ),
    training("kl", "KL to the reference", NATS, Lower, ""),
    training(
        "kl_reference",
        "KL to the reference",
        NATS,
        Lower,
        "How far the policy has moved from where it started.",
    ),
    training(
        "kl_old",
        "KL to the policy that sampled",
        NATS,
        Lower,
        "Near zero: the samples are fresh. Large values mean stale samples or too large steps.",
    ),
    training(
        "ratio",
        "importance ratio",
        NUMBER,
        Neither,
        "Stays near 1 as long as the samples are fresh.",
    ),
    training(
        "clip_fraction",
        "clipped tokens",
        Share,
        Lower,
        "Above some 20 % the steps are too large for their samples.",
    ),
    training("clip_fraction_low", "tokens clipped below", Share, Lower, ""),
    training("clip_fraction_high", "tokens clipped above", Share, Lower, ""),
    training(
        "response_length",
        "response length",
        Plain("tokens"),
        Neither,
        "A jump to the limit means that answers no longer end.",
    ),
    training("ended", "answers that end by themselves", Share, Higher, ""),
    training("value_loss", "value loss", NUMBER, Lower, ""),
    training(
        "value",
        "value and return",
        NUMBER,
        Neither,
        "The value model's guess should follow the return.",
    ),
    training("return", "return", NUMBER, Neither, ""),
    training("value_error", "squared error of the value", NUMBER, Lower, ""),
    training("value_clip_fraction", "clipped values", Share, Lower, ""),
    training(
        "explained_variance",
        "variance explained by the value model",
        NUMBER,
        Higher,
        "1 is perfect; below 0 the value model is worse than a constant.",
    ),
    training("lr", "learning rate", NUMBER, Neither, ""),
    training(
        "grad_norm",
        "gradient norm",
        NUMBER,
        Neither,
        "Before clipping. Spikes come with loss spikes.",
    ),
];

/// Curves that are drawn together: name, the plot they share, and what they are called in it.
const SHARED_PLOTS: &[(&str, &str, &str)] = &[
    ("chosen_logp", "logp", "chosen"),
    ("rejected_logp", "logp", "rejected"),
    ("chosen_reward", "answer_reward", "chosen"),
    ("rejected_reward", "answer_reward", "rejected"),
    ("clip_fraction_low", "clip_fraction", "below"),
    ("clip_fraction_high", "clip_fraction", "above"),
    ("value", "value", "value"),
    ("return", "value", "return"),
];

/// The plot in which a curve is drawn and its name there. Curves named `PLOT/LINE` share `PLOT`.
pub(crate) fn plot_and_line(curve: &str) -> (&str, Cow<'_, str>) {
    if let Some((_, plot, line)) = SHARED_PLOTS.iter().find(|(name, _, _)| *name == curve) {
        return (plot, Cow::Borrowed(line));
    }
    match curve.split_once('/') {
        Some((plot, line)) => (plot, label(line)),
        None => (curve, label(curve)),
    }
}

/// What precedes a measure that was taken on held-out preference pairs (`pairs_margin`). Version
/// 0.1 wrote `votes_`.
const ON_PAIRS: [&str; 2] = ["pairs_", "votes_"];

/// The table's row for an id.
///
/// A measure taken on held-out preference pairs is the same measure. `WHOLE/PART` is measured as
/// the part is where the table has it (`reward/accuracy`), else as the whole is
/// (`reward_accuracy/KIND`).
pub fn measure(id: &str) -> Option<&'static Measure> {
    let row = |id: &str| MEASURES.iter().find(|measure| measure.id == id);
    let on_pairs = || row(ON_PAIRS.iter().find_map(|prefix| id.strip_prefix(prefix))?);
    let in_parts = || id.split_once('/').and_then(|(whole, part)| row(part).or_else(|| row(whole)));
    row(id).or_else(on_pairs).or_else(in_parts)
}

/// The label of an id, or the id itself where it is unknown.
pub fn label(id: &str) -> Cow<'_, str> {
    match measure(id) {
        Some(measure) if measure.id == id => Cow::Borrowed(measure.label),
        Some(measure) => match id.split_once('/') {
            Some((whole, part)) => Cow::Owned(format!("{}: {}", label(whole), label(part))),
            None => Cow::Owned(format!("{} (held-out pairs)", measure.label)),
        },
        None => Cow::Borrowed(id),
    }
}

/// A metric's value as text, in its measure's unit where the id is known.
pub fn value_text(id: &str, value: f64) -> String {
    match measure(id).map(|measure| measure.unit) {
        Some(Unit::Share) => crate::figures::percent(value),
        Some(Unit::Plain(unit)) if !unit.is_empty() && value.is_finite() => {
            format!("{} {unit}", crate::figures::plain(value))
        }
        _ => crate::figures::plain(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_labelled() {
        let ids: std::collections::BTreeSet<_> =
            MEASURES.iter().map(|measure| measure.id).collect();
        assert_eq!(ids.len(), MEASURES.len());
        assert!(MEASURES.iter().all(|measure| !measure.label.is_empty()));
    }

    #[test]
    fn curves_that_belong_together_share_a_plot() {
        assert_eq!(plot_and_line("chosen_logp"), ("logp", "chosen".into()));
        assert_eq!(plot_and_line("reward"), ("reward", "reward".into()));
        assert_eq!(plot_and_line("reward/accuracy"), ("reward", "accuracy".into()));
        assert_eq!(plot_and_line("mine"), ("mine", "mine".into()));
        assert!(SHARED_PLOTS.iter().all(|(_, plot, _)| measure(plot).is_some()));
    }

    #[test]
    fn parts_are_labelled_and_written_as_what_they_are_of() {
        assert_eq!(
            label("reward_accuracy/over-long"),
            "held-out preference pairs ranked right: over-long"
        );
        assert_eq!(value_text("reward_accuracy/over-long", 0.5), "50\u{a0}%");
        assert_eq!(label("reward/format"), "reward: asked format");
        assert_eq!(value_text("reward/format", 0.5), "50\u{a0}%");
    }

    #[test]
    fn unknown_ids_are_shown_as_they_are() {
        assert_eq!(label("my_own_metric"), "my_own_metric");
        for id in ["pairs_margin", "votes_margin"] {
            assert_eq!(label(id), "margin between chosen and rejected (held-out pairs)");
        }
        assert_eq!(label("pairs_of_no_kind"), "pairs_of_no_kind");
        assert_eq!(label("mine/part"), "mine/part");
        assert_eq!(value_text("my_own_metric", 0.5), "0.5");
        assert_eq!(value_text("facts_accuracy", 0.5), "50\u{a0}%");
        assert_eq!(value_text("entropy", f64::NAN), "–");
    }
}
