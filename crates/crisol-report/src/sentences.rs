//! Sentences that `report.json` holds in English: notes of phases, remarks of the notebook, the
//! machine, titles. Programs read them there; a page shows them in its own language.
//!
//! A row of [`SENTENCES`] is a sentence in every language, with `{}` where its parts stand. A part
//! may be a sentence itself. What is in no row is shown as it is, since a report of another version
//! may say more than this one knows.

use std::borrow::Cow;

use crate::Language;
use crate::measures::InEach;

/// The sentences. The parts come in the same order in every language. A row that is a special case
/// of another stands before it.
const SENTENCES: &[InEach] = &[
    // Titles.
    ["From raw text to an aligned model", "Del texto en bruto a un modelo alineado"],
    ["pretrain of {}", "pretrain de {}"],
    ["sft of {}", "sft de {}"],
    ["reason of {}", "reason de {}"],
    ["reward of {}", "reward de {}"],
    ["ppo of {}", "ppo de {}"],
    ["dpo of {}", "dpo de {}"],
    // The machine.
    ["{}, 1 core", "{}, 1 núcleo"],
    ["{}, {} cores", "{}, {} núcleos"],
    // How data was encoded. `Replay: ` or `Held out: ` may precede it.
    [
        "{}Of {} records: {} longer than the context of {} tokens; their ends are cut off \
         (text.too_long = \"skip\" drops them)",
        "{}De {} registros, {} superan el contexto de {} tokens y se les corta el final \
         (text.too_long = \"skip\" los descarta)",
    ],
    [
        "{}Of {} records: {} dropped, too long for the context of {} tokens",
        "{}De {} registros, {} descartados por superar el contexto de {} tokens",
    ],
    [
        "{}Of {} records: {} dropped, because both answers are the same within the context of {} \
         tokens",
        "{}De {} registros, {} descartados porque sus dos respuestas coinciden dentro del contexto \
         de {} tokens",
    ],
    [
        "{}Of {} records: {} assistant turns are separate examples, because the chat template \
         renders them differently once messages follow, or tokens merge (crisol data inspect \
         shows them)",
        "{}De {} registros, {} turnos del asistente son ejemplos aparte, porque la plantilla de \
         chat los escribe de otra manera si les siguen mensajes, o porque se unen tokens (crisol \
         data inspect los muestra)",
    ],
    [
        "{}Of {} records: {} have a string as prompt, which is encoded as raw text, although the \
         model has a chat template (text.strings = \"message\" makes it a user message)",
        "{}De {} registros, {} tienen como prompt un texto, que se codifica tal cual aunque el \
         modelo tiene plantilla de chat (text.strings = \"message\" lo hace mensaje del usuario)",
    ],
    [
        "{}Of {} records: {} answers are empty; the model learns to say nothing (remove them)",
        "{}De {} registros, {} respuestas están vacías; el modelo aprende a no decir nada \
         (quítalas)",
    ],
    [
        "{}Of {} records: {} answers have thoughts that the chat template drops; the thoughts are \
         trained all the same, and later turns do not see them",
        "{}De {} registros, {} respuestas contienen razonamiento que la plantilla de chat omite; \
         se entrena igualmente, y los turnos siguientes no lo ven",
    ],
    [
        "{}Of {} records: {} have a system message, tool result or tools that the chat template \
         leaves out; the model does not see them (crisol data inspect shows them)",
        "{}De {} registros, {} tienen un mensaje de sistema, herramientas o sus resultados que la \
         plantilla de chat omite; el modelo no los ve (crisol data inspect los muestra)",
    ],
    ["Held out: ", "Datos reservados: "],
    ["Replay: ", "Replay: "],
    // Data files.
    [
        "{}: the embedded data set calls this file {} now.",
        "{}: los datos incluidos llaman ahora {} a este archivo.",
    ],
    ["{}: nothing reads the fields {}.", "{}: nada lee los campos {}."],
    [
        "{}: pairs with equal answers, left out: {} (the first: {}).",
        "{}: pares con respuestas iguales, omitidos: {} (el primero: {}).",
    ],
    [
        "No held-out data: what the phase did to data that it was not trained on is not measured; \
         give some with `heldout` (--heldout FILE).",
        "Sin datos reservados no se mide qué hizo la fase con datos que no ha visto; indícalos con \
         `heldout` (--heldout FILE).",
    ],
    [
        "Problems that are strings are taken for the user's messages, because the worked solutions \
         are conversations.",
        "Los problemas que son texto se toman como mensajes del usuario, porque las soluciones \
         desarrolladas son conversaciones.",
    ],
    [
        "The text gives only {} tokens of the {} asked for.",
        "El texto solo da para {} tokens de los {} pedidos.",
    ],
    [
        "1 held-out prompt is longer than the model's context of {} tokens, the first at {}; such \
         a prompt gets an empty answer.",
        "1 prompt reservado supera el contexto del modelo, de {} tokens: el de {}; su respuesta \
         queda vacía.",
    ],
    [
        "{} held-out prompts are longer than the model's context of {} tokens, the first at {}; \
         such a prompt gets an empty answer.",
        "{} prompts reservados superan el contexto del modelo, de {} tokens; el primero, en {}; \
         sus respuestas quedan vacías.",
    ],
    // Settings.
    ["From step {} on: {}.", "Desde el paso {}: {}."],
    ["{} was {} and is now {}", "{} era {} y ahora es {}"],
    ["not set", "nada"],
    [
        "{} {} is {} times the default for {} of {} parameters ({}): what the model knows may be \
         lost; lower it if the loss rises",
        "{} {} es {} veces el valor por defecto para {} de {} parámetros ({}): puede perderse lo \
         que el modelo sabe; bájalo si la pérdida sube",
    ],
    ["a new model", "un modelo nuevo"],
    ["an adapter", "un adaptador"],
    ["full fine-tuning", "el ajuste completo"],
    // Losses that climb.
    [
        "loss {} at step {}, {} times the median of the steps before: if it does not come back, \
         lower {} (now {})",
        "pérdida {} en el paso {}, {} veces la mediana de los pasos anteriores: si no baja, reduce \
         {} (ahora {})",
    ],
    [
        "gradient norm {} at step {}, {} times the median of the steps before: if it does not come \
         back, lower {} (now {})",
        "norma del gradiente {} en el paso {}, {} veces la mediana de los pasos anteriores: si no \
         baja, reduce {} (ahora {})",
    ],
    [
        "the loss ended at {}, above the {} where it began: lower {}, or look at the data with \
         `crisol data inspect`",
        "la pérdida acabó en {}, por encima de {}, donde empezó: reduce {} o mira los datos con \
         `crisol data inspect`",
    ],
    [
        "The loss on held-out data rose from {} to {} nats: lower {} or epochs, or add data.",
        "La pérdida con datos reservados subió de {} a {} nats: reduce {} o epochs, o añade datos.",
    ],
    // GRPO without a signal: a sentence, then what the answers lack.
    [
        "none of the {} answers of the {} was right, so nothing was learnt:{}",
        "ninguna de las {} respuestas {} fue correcta, así que no se aprendió nada:{}",
    ],
    ["first step", "del primer paso"],
    ["first {} steps", "de los {} primeros pasos"],
    [
        " {} were cut at {} tokens: raise rollout.max_new_tokens, or teach shorter answers in the \
         cold start{}",
        " {} se cortaron a los {} tokens: sube rollout.max_new_tokens o enseña respuestas más \
         cortas en el arranque en frío{}",
    ],
    [
        " {} lack the form `<think>…</think>` and an answer: a longer cold start (cold_start.data, \
         cold_start.epochs), or format_reward = 0, which pays answers without it{}",
        " a {} les falta la forma `<think>…</think>` y una respuesta: alarga el arranque en frío \
         (cold_start.data, cold_start.epochs) o usa format_reward = 0, que paga respuestas sin \
         ella{}",
    ],
    [
        " {} end with a wrong answer: easier problems, or a longer cold start; `crisol data \
         inspect` shows which references are compared as text",
        " {} terminan con una respuesta incorrecta: usa problemas más fáciles o alarga el arranque \
         en frío; `crisol data inspect` muestra qué soluciones se comparan como texto",
    ],
    [";{}", ";{}"],
    // Version 0.1 wrote it.
    [
        "{} of {} steps changed nothing: every group of answers earned the same reward",
        "{} de {} pasos no cambiaron nada: todas las respuestas de cada grupo ganaron lo mismo",
    ],
    // The notebook's remarks on its models, and why one gives no answer.
    [
        "it does not follow a chat structure or an order: it continues the text.",
        "no sigue la estructura de un chat ni una orden: continúa el texto.",
    ],
    [
        "it does not refuse to complete a text for being unethical.",
        "no rechaza completar un texto por no ser ético.",
    ],
    [
        "it follows the chat structure, and does not refuse dangerous requests yet.",
        "sigue la estructura de un chat, y aún no rechaza peticiones que son peligrosas.",
    ],
    ["it refuses the request.", "rechaza la petición."],
    [
        "the prompt takes {} tokens, of the {} of the model's context",
        "el prompt ocupa {} tokens, de los {} del contexto del modelo",
    ],
];

/// A sentence of `report.json` in a language.
pub fn sentence(text: &str, language: Language) -> Cow<'_, str> {
    if language == Language::English {
        return Cow::Borrowed(text);
    }
    let known = SENTENCES.iter().find_map(|row| Some((row, parts(row[0], text)?)));
    let Some((row, parts)) = known else { return Cow::Borrowed(text) };
    let mut said = String::new();
    let mut parts = parts.into_iter();
    for (at, fixed) in language.of(*row).split("{}").enumerate() {
        if at > 0 {
            said += &part(parts.next().unwrap_or_default(), language);
        }
        said += fixed;
    }
    Cow::Owned(said)
}

/// A part of a sentence: a number, or text that may be a sentence.
fn part(text: &str, language: Language) -> Cow<'_, str> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_number { Cow::Owned(language.localised(text)) } else { sentence(text, language) }
}

/// Whether a sentence can be said in every language.
pub fn is_known(text: &str) -> bool {
    SENTENCES.iter().any(|row| parts(row[0], text).is_some())
}

/// What stands in `text` at each `{}` of a pattern; `None` where it does not fit the pattern.
fn parts<'t>(pattern: &str, text: &'t str) -> Option<Vec<&'t str>> {
    let (first, fixed) = pattern.split_once("{}").unwrap_or((pattern, ""));
    let mut rest = text.strip_prefix(first)?;
    let mut parts = Vec::new();
    if first.len() == pattern.len() {
        return rest.is_empty().then_some(parts);
    }
    let mut fixed = fixed.split("{}").peekable();
    while let Some(next) = fixed.next() {
        // The last part goes on to where the end of the pattern stands.
        let is_last = fixed.peek().is_none();
        let at = if is_last { rest.strip_suffix(next)?.len() } else { rest.find(next)? };
        parts.push(&rest[..at]);
        rest = &rest[at + next.len()..];
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spanish(text: &str) -> String {
        sentence(text, Language::Spanish).into_owned()
    }

    #[test]
    fn rows_have_the_same_parts_and_none_hides_another() {
        for (at, row) in SENTENCES.iter().enumerate() {
            let counts = row.map(|text| text.matches("{}").count());
            assert!(counts.iter().all(|count| *count == counts[0]), "{row:?}");
            let found = SENTENCES.iter().position(|other| parts(other[0], row[0]).is_some());
            assert_eq!(found, Some(at), "{row:?}");
        }
    }

    #[test]
    fn parts_are_put_in_and_are_sentences_themselves() {
        assert_eq!(spanish("x, 16 cores"), "x, 16 núcleos");
        assert_eq!(spanish("sft of a new model"), "sft de un modelo nuevo");
        assert_eq!(
            spanish("Held out: Of 1234 records: 3 dropped, too long for the context of 64 tokens"),
            "Datos reservados: De 1234 registros, 3 descartados por superar el contexto de 64 \
             tokens"
        );
        assert_eq!(
            spanish(
                "none of the 12 answers of the first 3 steps was right, so nothing was learnt: 6 \
                 were cut at 96 tokens: raise rollout.max_new_tokens, or teach shorter answers in \
                 the cold start; 3 end with a wrong answer: easier problems, or a longer cold \
                 start; `crisol data inspect` shows which references are compared as text"
            ),
            "ninguna de las 12 respuestas de los 3 primeros pasos fue correcta, así que no se \
             aprendió nada: 6 se cortaron a los 96 tokens: sube rollout.max_new_tokens o enseña \
             respuestas más cortas en el arranque en frío; 3 terminan con una respuesta \
             incorrecta: usa problemas más fáciles o alarga el arranque en frío; `crisol data \
             inspect` muestra qué soluciones se comparan como texto"
        );
        assert_eq!(
            spanish(
                "The loss on held-out data rose from 1.250 to 2.000 nats: lower optimizer.lr \
                     or epochs, or add data."
            ),
            "La pérdida con datos reservados subió de 1,250 a 2,000 nats: reduce optimizer.lr o \
             epochs, o añade datos."
        );
    }

    #[test]
    fn other_text_stays() {
        for text in ["", "A title of the user's", "loss of all", "From step 3 on"] {
            assert_eq!(spanish(text), text);
            assert!(!is_known(text), "{text}");
        }
        assert_eq!(sentence("x, 16 cores", Language::English), "x, 16 cores");
    }
}
