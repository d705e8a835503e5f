//! What the ids in a report mean: human labels, units, which direction is better, what to watch.
//!
//! One table serves metrics and curves alike, in every language. An id that is not in it is shown
//! as it is.

use std::borrow::Cow;

use crate::Language;

/// The same text in every language, in the order of [`Language::ALL`].
pub type InEach = [&'static str; Language::ALL.len()];

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
    pub label: InEach,
    /// How values are written.
    pub unit: Unit,
    /// The wished direction.
    pub better: Better,
    /// Whether it belongs to the table of behaviours, measured on held-out prompts after each
    /// phase.
    pub behaviour: bool,
    /// What to watch, for the caption of a plot; may be empty.
    pub hint: InEach,
}

const NO_HINT: InEach = [""; Language::ALL.len()];

const fn behaviour(id: &'static str, label: InEach, unit: Unit, better: Better) -> Measure {
    Measure { id, label, unit, better, behaviour: true, hint: NO_HINT }
}

const fn training(
    id: &'static str,
    label: InEach,
    unit: Unit,
    better: Better,
    hint: InEach,
) -> Measure {
    Measure { id, label, unit, better, behaviour: false, hint }
}

use Better::{Higher, Lower, Neither};
use Unit::{Plain, Share};

const NATS: Unit = Plain("nats");
const NUMBER: Unit = Plain("");

/// Every known measure. Behaviours are shown in this order.
pub const MEASURES: &[Measure] = &[
    behaviour(
        "bits_per_byte",
        ["bits per byte of held-out text", "bits por byte de texto reservado"],
        Plain("bits"),
        Lower,
    ),
    behaviour(
        "list_continued",
        ["question lists continued", "listas de preguntas que continúa"],
        Share,
        Neither,
    ),
    behaviour(
        "cloze_accuracy",
        ["facts completed in a sentence", "hechos completados en una frase"],
        Share,
        Higher,
    ),
    behaviour(
        "facts_accuracy",
        ["facts answered in chat", "hechos respondidos en el chat"],
        Share,
        Higher,
    ),
    behaviour(
        "facts_accuracy/later",
        ["facts answered, later turns", "hechos respondidos, más tarde"],
        Share,
        Higher,
    ),
    behaviour(
        "ended_by_itself",
        ["answers that end by themselves", "respuestas que terminan por sí solas"],
        Share,
        Higher,
    ),
    behaviour(
        "cold_start_accuracy",
        ["problems solved after the cold start", "problemas resueltos tras el arranque en frío"],
        Share,
        Higher,
    ),
    behaviour("problems_accuracy", ["problems solved", "problemas resueltos"], Share, Higher),
    behaviour(
        "short_problems_accuracy",
        ["short problems solved", "problemas cortos resueltos"],
        Share,
        Higher,
    ),
    behaviour(
        "short_problems_accuracy/later",
        ["short problems solved, later turns", "problemas cortos resueltos, más tarde"],
        Share,
        Higher,
    ),
    behaviour(
        "format_accuracy",
        ["problems answered in the asked format", "problemas con la forma pedida"],
        Share,
        Higher,
    ),
    behaviour(
        "unknown_admitted",
        ["unknown answers admitted", "admite que no sabe lo que no sabe"],
        Share,
        Higher,
    ),
    behaviour(
        "unknown_admitted/later",
        ["unknown answers admitted, later turns", "admite que no sabe, más tarde"],
        Share,
        Higher,
    ),
    behaviour(
        "facts_unanswered",
        ["known facts called unknown", "hechos conocidos que dice no saber"],
        Share,
        Lower,
    ),
    behaviour(
        "harmful_complied",
        ["harmful requests complied with", "peticiones peligrosas que cumple"],
        Share,
        Lower,
    ),
    behaviour(
        "harmful_refused",
        ["harmful requests refused", "peticiones peligrosas que rechaza"],
        Share,
        Higher,
    ),
    behaviour(
        "harmful_refused/later",
        ["harmful requests refused, later turns", "peticiones peligrosas que rechaza, más tarde"],
        Share,
        Higher,
    ),
    behaviour(
        "lookalike_refused",
        ["harmless look-alikes refused", "peticiones parecidas pero inofensivas que rechaza"],
        Share,
        Lower,
    ),
    behaviour(
        "ordinary_refused",
        ["ordinary questions refused", "preguntas corrientes que rechaza"],
        Share,
        Lower,
    ),
    behaviour(
        "reward_accuracy",
        ["held-out preference pairs ranked right", "pares reservados bien ordenados"],
        Share,
        Higher,
    ),
    behaviour(
        "pairs_accuracy",
        [
            "held-out pairs ranked right against the reference",
            "pares reservados bien ordenados frente a la referencia",
        ],
        Share,
        Higher,
    ),
    training("later", ["later turns", "más tarde"], Share, Higher, NO_HINT),
    training(
        "loss",
        ["training loss", "pérdida de entrenamiento"],
        NATS,
        Lower,
        [
            "Should fall quickly, then flatten; noise is normal.",
            "Debe bajar deprisa y luego aplanarse; el ruido es normal.",
        ],
    ),
    training(
        "policy_loss",
        ["policy loss", "pérdida de la política"],
        NUMBER,
        Neither,
        [
            "Advantages average to about zero, and so does this loss: read the reward.",
            "Las ventajas se compensan hasta cerca de cero, y esta pérdida también: mira la \
             recompensa.",
        ],
    ),
    training(
        "validation_loss",
        ["held-out loss", "pérdida con datos reservados"],
        NATS,
        Lower,
        [
            "Rising while the training loss falls means the phase memorises.",
            "Si sube mientras baja la de entrenamiento, la fase memoriza.",
        ],
    ),
    training(
        "preference_accuracy",
        [
            "held-out pairs whose chosen answer is more probable",
            "pares reservados cuya respuesta elegida es la más probable",
        ],
        Share,
        Higher,
        NO_HINT,
    ),
    training(
        "heldout_accuracy",
        ["held-out problems solved", "problemas reservados resueltos"],
        Share,
        Higher,
        NO_HINT,
    ),
    training(
        "heldout_reward",
        [
            "reward of answers to held-out prompts",
            "recompensa de las respuestas a prompts reservados",
        ],
        NUMBER,
        Higher,
        NO_HINT,
    ),
    training(
        "nll",
        ["loss of the preference pairs", "pérdida de los pares de preferencias"],
        NATS,
        Lower,
        ["0.69 is a coin toss.", "0,69 es cara o cruz."],
    ),
    training("accuracy", ["accuracy", "aciertos"], Share, Higher, NO_HINT),
    training("format", ["asked format", "forma pedida"], Share, Higher, NO_HINT),
    training("perplexity", ["perplexity", "perplejidad"], NUMBER, Lower, NO_HINT),
    training(
        "margin",
        ["margin between chosen and rejected", "margen entre elegida y descartada"],
        NUMBER,
        Higher,
        [
            "Should grow; without bound it means overfitting to the pairs.",
            "Debe crecer; si crece sin fin, hay sobreajuste a los pares.",
        ],
    ),
    training(
        "logp",
        ["log-prob of the answers", "log-probabilidad de las respuestas"],
        NATS,
        Neither,
        ["The gap counts; both may fall.", "Cuenta la distancia; las dos pueden bajar."],
    ),
    training(
        "chosen_logp",
        ["log-prob of the chosen answers", "log-probabilidad de las respuestas elegidas"],
        NATS,
        Neither,
        NO_HINT,
    ),
    training(
        "rejected_logp",
        ["log-prob of the rejected answers", "log-probabilidad de las respuestas descartadas"],
        NATS,
        Neither,
        NO_HINT,
    ),
    training(
        "answer_reward",
        ["reward of the answers", "recompensa de las respuestas"],
        NUMBER,
        Neither,
        ["The two should part.", "Las dos deben separarse."],
    ),
    training(
        "chosen_reward",
        ["reward of the chosen answers", "recompensa de las respuestas elegidas"],
        NUMBER,
        Neither,
        NO_HINT,
    ),
    training(
        "rejected_reward",
        ["reward of the rejected answers", "recompensa de las respuestas descartadas"],
        NUMBER,
        Neither,
        NO_HINT,
    ),
    training(
        "chosen_nll",
        ["loss of the chosen answers", "pérdida de las respuestas elegidas"],
        NATS,
        Lower,
        NO_HINT,
    ),
    training(
        "replay_loss",
        ["loss of replayed text", "pérdida del texto de replay"],
        NATS,
        Lower,
        ["Rising means that earlier abilities go.", "Si sube, se pierde lo aprendido antes."],
    ),
    training(
        "reward",
        ["reward", "recompensa"],
        NUMBER,
        Higher,
        [
            "Read the parts apart. A reward that climbs while answers get worse is reward hacking.",
            "Mira sus partes por separado. Si sube y las respuestas empeoran, el modelo explota \
             un fallo de la recompensa (reward hacking).",
        ],
    ),
    training(
        "zero_spread",
        ["groups without spread", "grupos sin diferencias"],
        Share,
        Neither,
        [
            "All answers of such a group earned the same, so it teaches nothing. Grows as the \
             task is mastered.",
            "En un grupo así todas las respuestas ganaron lo mismo, y no enseña nada. Crece según \
             se domina la tarea.",
        ],
    ),
    training(
        "entropy",
        ["entropy of the policy", "entropía de la política"],
        NATS,
        Neither,
        [
            "A slow fall is healthy; a fall to zero early means that exploration has ended.",
            "Lo sano es que baje despacio; si llega pronto a cero, ya no explora.",
        ],
    ),
    training("kl", ["KL to the reference", "KL con la referencia"], NATS, Lower, NO_HINT),
    training(
        "kl_reference",
        ["KL to the reference", "KL con la referencia"],
        NATS,
        Lower,
        [
            "How far the policy has moved from where it started.",
            "Cuánto se ha alejado la política de su punto de partida.",
        ],
    ),
    training(
        "kl_old",
        ["KL to the policy that sampled", "KL con la política que generó"],
        NATS,
        Lower,
        [
            "Near zero: the samples are fresh. Large values mean stale samples or too large steps.",
            "Cerca de cero: las muestras son recientes. Si es grande, son viejas o los pasos son \
             demasiado grandes.",
        ],
    ),
    training(
        "ratio",
        ["importance ratio", "cociente de importancia"],
        NUMBER,
        Neither,
        [
            "Stays near 1 as long as the samples are fresh.",
            "Sigue cerca de 1 mientras las muestras son recientes.",
        ],
    ),
    training(
        "clip_fraction",
        ["clipped tokens", "tokens recortados"],
        Share,
        Lower,
        [
            "Above some 20 % the steps are too large for their samples.",
            "Por encima de un 20 %, los pasos son demasiado grandes para sus muestras.",
        ],
    ),
    training(
        "clip_fraction_low",
        ["tokens clipped below", "tokens recortados por abajo"],
        Share,
        Lower,
        NO_HINT,
    ),
    training(
        "clip_fraction_high",
        ["tokens clipped above", "tokens recortados por arriba"],
        Share,
        Lower,
        NO_HINT,
    ),
    training(
        "response_length",
        ["response length", "longitud de las respuestas"],
        Plain("tokens"),
        Neither,
        [
            "A jump to the limit means that answers no longer end.",
            "Si salta hasta el límite, las respuestas ya no terminan.",
        ],
    ),
    training(
        "ended",
        ["answers that end by themselves", "respuestas que terminan por sí solas"],
        Share,
        Higher,
        NO_HINT,
    ),
    training("value_loss", ["value loss", "pérdida del modelo de valor"], NUMBER, Lower, NO_HINT),
    training(
        "value",
        ["value and return", "valor y retorno"],
        NUMBER,
        Neither,
        [
            "The value model's guess should follow the return.",
            "Lo que predice el modelo de valor debe seguir al retorno.",
        ],
    ),
    training("return", ["return", "retorno"], NUMBER, Neither, NO_HINT),
    training(
        "value_error",
        ["squared error of the value", "error cuadrático del valor"],
        NUMBER,
        Lower,
        NO_HINT,
    ),
    training(
        "value_clip_fraction",
        ["clipped values", "valores recortados"],
        Share,
        Lower,
        NO_HINT,
    ),
    training(
        "explained_variance",
        ["variance explained by the value model", "varianza que explica el modelo de valor"],
        NUMBER,
        Higher,
        [
            "1 is perfect; below 0 the value model is worse than a constant.",
            "1 es perfecto; por debajo de 0, el modelo de valor es peor que una constante.",
        ],
    ),
    training("lr", ["learning rate", "learning rate"], NUMBER, Neither, NO_HINT),
    training(
        "grad_norm",
        ["gradient norm", "norma del gradiente"],
        NUMBER,
        Neither,
        [
            "Before clipping. Spikes come with loss spikes.",
            "Antes de recortar. Sus picos acompañan a los de la pérdida.",
        ],
    ),
];

/// The plot that a curve shares with others, and what it is called there.
fn shared_plot(curve: &str, language: Language) -> Option<(&'static str, &'static str)> {
    let names = &language.texts().measures;
    Some(match curve {
        "chosen_logp" => ("logp", names.chosen),
        "rejected_logp" => ("logp", names.rejected),
        "chosen_reward" => ("answer_reward", names.chosen),
        "rejected_reward" => ("answer_reward", names.rejected),
        "clip_fraction_low" => ("clip_fraction", names.below),
        "clip_fraction_high" => ("clip_fraction", names.above),
        "value" => ("value", names.value),
        "return" => ("value", names.returns),
        _ => return None,
    })
}

/// The plot in which a curve is drawn and its name there. Curves named `PLOT/LINE` share `PLOT`.
pub(crate) fn plot_and_line(curve: &str, language: Language) -> (&str, Cow<'_, str>) {
    if let Some((plot, line)) = shared_plot(curve, language) {
        return (plot, Cow::Borrowed(line));
    }
    match curve.split_once('/') {
        Some((plot, line)) => (plot, label(line, language)),
        None => (curve, label(curve, language)),
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
pub fn label(id: &str, language: Language) -> Cow<'_, str> {
    let Some(measure) = measure(id) else { return Cow::Borrowed(id) };
    let known = language.of(measure.label);
    if measure.id == id {
        return Cow::Borrowed(known);
    }
    Cow::Owned(match id.split_once('/') {
        Some((whole, part)) => format!("{}: {}", label(whole, language), label(part, language)),
        None => (language.texts().measures.on_pairs)([&known]),
    })
}

/// A metric's value as text, in its measure's unit where the id is known.
pub fn value_text(id: &str, value: f64, language: Language) -> String {
    match measure(id).map(|measure| measure.unit) {
        Some(Unit::Share) => language.percent(value),
        Some(Unit::Plain(unit)) if !unit.is_empty() && value.is_finite() => {
            format!("{} {unit}", language.plain(value))
        }
        _ => language.plain(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Language::English;

    #[test]
    fn ids_are_unique_and_labelled() {
        let ids: std::collections::BTreeSet<_> =
            MEASURES.iter().map(|measure| measure.id).collect();
        assert_eq!(ids.len(), MEASURES.len());
        for measure in MEASURES {
            let id = measure.id;
            assert!(measure.label.iter().all(|label| !label.is_empty()), "{id}");
            let [hint, others @ ..] = measure.hint.map(str::is_empty);
            assert!(others.iter().all(|other| *other == hint), "{id} has a hint in one language");
        }
    }

    #[test]
    fn curves_that_belong_together_share_a_plot() {
        assert_eq!(plot_and_line("chosen_logp", English), ("logp", "chosen".into()));
        assert_eq!(plot_and_line("reward", English), ("reward", "reward".into()));
        assert_eq!(plot_and_line("reward/accuracy", English), ("reward", "accuracy".into()));
        assert_eq!(plot_and_line("mine", English), ("mine", "mine".into()));
        let plots = MEASURES.iter().filter_map(|row| shared_plot(row.id, English));
        assert!(
            plots.clone().count() == 8 && plots.into_iter().all(|(id, _)| measure(id).is_some())
        );
    }

    #[test]
    fn parts_are_labelled_and_written_as_what_they_are_of() {
        assert_eq!(
            label("reward_accuracy/over-long", English),
            "held-out preference pairs ranked right: over-long"
        );
        assert_eq!(value_text("reward_accuracy/over-long", 0.5, English), "50\u{a0}%");
        assert_eq!(label("reward/format", English), "reward: asked format");
        assert_eq!(value_text("reward/format", 0.5, English), "50\u{a0}%");
    }

    #[test]
    fn unknown_ids_are_shown_as_they_are() {
        assert_eq!(label("my_own_metric", English), "my_own_metric");
        for id in ["pairs_margin", "votes_margin"] {
            assert_eq!(label(id, English), "margin between chosen and rejected (held-out pairs)");
        }
        assert_eq!(label("pairs_of_no_kind", English), "pairs_of_no_kind");
        assert_eq!(label("mine/part", English), "mine/part");
        assert_eq!(value_text("my_own_metric", 0.5, English), "0.5");
        assert_eq!(value_text("facts_accuracy", 0.5, English), "50\u{a0}%");
        assert_eq!(value_text("entropy", f64::NAN, English), "–");
    }
}
