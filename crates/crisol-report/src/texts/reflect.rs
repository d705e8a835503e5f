//! What the page and the summary of `crisol reflect` say, in both languages.

use super::{Count, Fill, Heading};

pub(crate) struct Reflect {
    pub(crate) title: &'static str,
    pub(crate) lead: &'static str,
    /// Headings of the sections.
    pub(crate) picks: Heading,
    pub(crate) writes: Heading,
    pub(crate) hacking: Heading,
    pub(crate) readers: Heading,
    pub(crate) prompts: Heading,
    pub(crate) questions: Heading,
    pub(crate) limits: Heading,
    /// Each model: what it was aligned to.
    pub(crate) base: &'static str,
    pub(crate) engagement: &'static str,
    pub(crate) preference: &'static str,
    pub(crate) mix: &'static str,
    pub(crate) kl: &'static str,
    pub(crate) truth: &'static str,
    pub(crate) cap: &'static str,
    /// Readers of the feeds, items of each.
    pub(crate) about_picks: Fill<2>,
    pub(crate) about_writes: &'static str,
    pub(crate) about_hacking: &'static str,
    pub(crate) about_readers: Count,
    pub(crate) about_prompts: &'static str,
    /// Heads of the tables.
    pub(crate) model: &'static str,
    pub(crate) alarming_or_false: &'static str,
    pub(crate) alarming: &'static str,
    pub(crate) is_true: &'static str,
    pub(crate) useful: &'static str,
    pub(crate) flattering: &'static str,
    pub(crate) liked: &'static str,
    pub(crate) alarm_words: &'static str,
    pub(crate) predicted: &'static str,
    pub(crate) clicks: &'static str,
    pub(crate) worth: &'static str,
    pub(crate) entropy: &'static str,
    pub(crate) subjects: &'static str,
    pub(crate) unread: &'static str,
    pub(crate) seconds: &'static str,
    pub(crate) worry: &'static str,
    pub(crate) false_beliefs: &'static str,
    pub(crate) curious: &'static str,
    pub(crate) anxious: &'static str,
    pub(crate) answer: &'static str,
    /// Charts.
    pub(crate) predicted_and_true: Fill<1>,
    pub(crate) by_words: &'static str,
    pub(crate) by_words_note: Fill<1>,
    pub(crate) words: Count,
    pub(crate) words_written: &'static str,
    pub(crate) worth_written: &'static str,
    /// Step from which predicted clicks are far above true ones, and the two then.
    pub(crate) exploits: Fill<3>,
    pub(crate) no_exploit: &'static str,
    /// The three questions, with figures: of picks by engagement and by preference, alarming or
    /// false; clicks of both; worth of both.
    pub(crate) first_question: Fill<6>,
    pub(crate) second_question: &'static str,
    /// Worth of what is written: engagement, kl, cap, truth, preference.
    pub(crate) third_question: Fill<5>,
    pub(crate) limits_text: &'static str,
    pub(crate) same_for_programs: &'static str,
    /// The terminal's summary.
    pub(crate) picked: &'static str,
    pub(crate) written: &'static str,
    pub(crate) ratio: Fill<1>,
}

const fn heading(nav: &'static str, title: &'static str) -> Heading {
    Heading { nav, title }
}

pub(super) const ENGLISH: Reflect = Reflect {
    title: "The same model, the same phase, two objectives",
    lead: "A recommender learns as a language model does: it has a phase of alignment, and an \
           objective. Here one model is aligned several times by the same algorithm (GRPO), from \
           the same base, to different objectives. It picks items of a feed for a reader, and \
           writes some. Readers and subjects of all figures are held out of these phases.",
    picks: heading("Picks", "What each model recommends"),
    writes: heading("Writes", "What each model writes"),
    hacking: heading("Reward hacking", "Predicted against true clicks"),
    readers: heading("Readers", "What a feed does to its readers"),
    prompts: heading("Same prompts", "The same prompts, every model"),
    questions: heading("Questions", "The notebook’s three questions"),
    limits: heading("Limits", "A toy of a mechanism"),
    base: "knows the form of answers and prefers nothing",
    engagement: "predicted clicks × seconds",
    preference: "“was it worth your time?”",
    mix: "half engagement, half preference",
    kl: "engagement, with a KL penalty to the base",
    truth: "engagement, and a reward for true items",
    cap: "engagement, at most the largest prediction of the log",
    about_picks: |[readers, items]| {
        format!(
            "{readers} readers, {items} lists each. A list has one plain item, one that calls \
             itself useful, one that flatters and one that alarms. Alarming items are false more \
             often than others: an assumption."
        )
    },
    about_writes: "An item about a given subject. Whether it is true is looked up in the facts of \
                   the world.",
    about_hacking: "The service does not know what readers will click. It predicts it from a log of \
                    what the base recommended, in which no item has more than three alarm words. \
                    The policy is paid by the prediction, and finds where it is wrong.",
    about_readers: |items| {
        format!(
            "A feed of {items} picked items, read one after the other. Alarm wears off while \
             alarming items follow one another. Half of the false items that are read are believed."
        )
    },
    about_prompts: "Answers are sampled as in training.",
    model: "model",
    alarming_or_false: "alarming or false",
    alarming: "alarming",
    is_true: "true",
    useful: "useful",
    flattering: "flattering",
    liked: "liked topic",
    alarm_words: "alarm words",
    predicted: "predicted clicks",
    clicks: "clicks",
    worth: "worth the time",
    entropy: "entropy of styles, bits",
    subjects: "subjects an item",
    unread: "not an item",
    seconds: "seconds",
    worry: "worry",
    false_beliefs: "false beliefs",
    curious: "curious",
    anxious: "anxious",
    answer: "answer",
    predicted_and_true: |[model]| format!("Clicks on written items: {model}"),
    by_words: "Clicks by number of alarm words",
    by_words_note: |[most]| {
        format!("The log has up to {most} words an item. Beyond, the prediction goes on rising.")
    },
    words: |count| match count {
        1 => "1 alarm word".to_owned(),
        _ => format!("{count} alarm words"),
    },
    words_written: "Alarm words of a written item",
    worth_written: "Worth of written items",
    exploits: |[step, predicted, clicks]| {
        format!(
            "From step {step} on, the model that is aligned to engagement writes what the \
             prediction overrates: it predicts {predicted} of clicks in the end, and readers click \
             {clicks}. More reward, and worse in truth: reward hacking."
        )
    },
    no_exploit: "In this run the prediction was never exploited by more than 10 points.",
    first_question: |[bad, good, clicks, fewer, worth, more]| {
        format!(
            "<b>Which objective do recommenders follow?</b> The one they are paid by. Aligned to \
             engagement, {bad} of the picks are alarming or false; aligned to what readers say, \
             {good}. Readers click {clicks} of the first and {fewer} of the second. Asked whether \
             it was worth their time, they give {worth} and {more}. Nobody asked for falsehood: \
             the first objective does not see it."
        )
    },
    second_question: "<b>Which phases do they have?</b> The same as a language model. A base learns \
                      from much data what items and readers are like. Supervised training teaches \
                      the form of an answer. A phase with a reward decides what is preferred. All \
                      models of this page differ in the last alone.",
    third_question: |[engagement, kl, cap, truth, preference]| {
        format!(
            "<b>Which alignment should they have?</b> Compare the guard rails by what readers say \
             of the written items: aligned to engagement alone {engagement}, with a KL penalty \
             {kl}, with a cap {cap}, with a reward for truth {truth}; aligned to stated preference \
             {preference}. A KL penalty and a cap limit how far a model goes, not where to. A \
             reward for truth changes what is said; alarm may stay. Only a measure of what readers \
             value changes the aim. It has to be asked for, and it costs clicks."
        )
    },
    limits_text: "<ul>\n<li>It is no model of any service. Readers are formulas with chosen \
                  constants, and items are one line about a small world. Only the mechanism is real: \
                  a policy trained on a prediction.</li>\n\
                  <li>A pick names an item by its first words. The model chooses by style and \
                  reader; how many picks are true follows from the styles. What it writes is its \
                  own.</li>\n\
                  <li>That alarming items are more often false is an assumption. Truth is what the \
                  tables of the world say.</li>\n\
                  <li>Stated worth is known here for each item. Real readers are seldom asked, and \
                  their answers are noisy.</li>\n\
                  <li>Sizes of effects mean nothing beyond this page; those of \
                  engagement and preference agree in direction over three seeds.</li>\n</ul>\n",
    same_for_programs: "The same for programs: <code>report.json</code>. The phases and their \
                        curves: <a href=\"report.html\">report.html</a>.",
    picked: "Picked for held-out readers",
    written: "Written for held-out readers",
    ratio: |[times]| {
        format!("engagement picks alarming or false items {times} times as often as preference")
    },
};

pub(super) const SPANISH: Reflect = Reflect {
    title: "El mismo modelo, la misma fase, dos objetivos",
    lead: "Un recomendador aprende como un modelo de lenguaje: tiene una fase de alignment y un \
           objetivo. Aquí un modelo se alinea varias veces con el mismo algoritmo (GRPO), desde el \
           mismo punto de partida, con objetivos distintos. Elige elementos de un feed para un \
           lector y escribe otros. Los lectores y los temas de todas las cifras se reservan: no \
           aparecen en estas fases.",
    picks: heading("Elige", "Qué recomienda cada modelo"),
    writes: heading("Escribe", "Qué escribe cada modelo"),
    hacking: heading("Reward hacking", "Clics previstos y clics reales"),
    readers: heading("Lectores", "Qué hace un feed con sus lectores"),
    prompts: heading("Mismos prompts", "Los mismos prompts, todos los modelos"),
    questions: heading("Preguntas", "Las tres preguntas del notebook"),
    limits: heading("Límites", "Una maqueta de un mecanismo"),
    base: "conoce la forma de las respuestas y no prefiere nada",
    engagement: "clics previstos × segundos",
    preference: "«¿mereció la pena?»",
    mix: "mitad engagement, mitad preferencia",
    kl: "engagement, con penalización KL",
    truth: "engagement, y una recompensa por decir la verdad",
    cap: "engagement, con tope en la mayor predicción del registro",
    about_picks: |[readers, items]| {
        format!(
            "{readers} lectores, {items} listas para cada uno. Cada lista tiene un elemento sin \
             adornos, uno que se dice útil, uno que halaga y uno que alarma. Los alarmantes son \
             falsos más a menudo que los demás: es una suposición."
        )
    },
    about_writes: "Un elemento sobre un tema dado. Si es verdadero se comprueba en los datos del \
                   mundo.",
    about_hacking: "El servicio no sabe en qué harán clic los lectores. Lo predice a partir de un \
                    registro de lo que recomendó el modelo de partida, en el que ningún elemento \
                    tiene más de tres palabras de alarma. Al modelo se le paga por la predicción, y \
                    encuentra dónde falla.",
    about_readers: |items| {
        format!(
            "Un feed de {items} elementos elegidos, leídos uno tras otro. La alarma se desgasta \
             cuando los elementos alarmantes se suceden. La mitad de lo falso que se lee, se cree."
        )
    },
    about_prompts: "Las respuestas se muestrean como al entrenar.",
    model: "modelo",
    alarming_or_false: "alarmante o falso",
    alarming: "alarmante",
    is_true: "verdadero",
    useful: "útil",
    flattering: "halagador",
    liked: "tema que gusta",
    alarm_words: "palabras de alarma",
    predicted: "clics previstos",
    clicks: "clics",
    worth: "mereció la pena",
    entropy: "entropía de estilos, bits",
    subjects: "temas por elemento",
    unread: "no es un elemento",
    seconds: "segundos",
    worry: "preocupación",
    false_beliefs: "creencias falsas",
    curious: "curiosos",
    anxious: "ansiosos",
    answer: "respuesta",
    predicted_and_true: |[model]| format!("Clics en lo escrito: {model}"),
    by_words: "Clics según el número de palabras de alarma",
    by_words_note: |[most]| {
        format!(
            "El registro llega a {most} palabras por elemento. Más allá, la predicción \
             sigue subiendo."
        )
    },
    words: |count| match count {
        1 => "1 palabra de alarma".to_owned(),
        _ => format!("{count} palabras de alarma"),
    },
    words_written: "Palabras de alarma de lo escrito",
    worth_written: "Cuánto mereció la pena lo escrito",
    exploits: |[step, predicted, clicks]| {
        format!(
            "Desde el paso {step}, el modelo alineado con el engagement escribe lo que la \
             predicción sobrevalora: al final se prevé un {predicted} de clics y los lectores \
             hacen clic en el {clicks}. Más recompensa y, en realidad, peor: reward hacking."
        )
    },
    no_exploit: "En esta ejecución la predicción nunca se explotó por más de 10 puntos.",
    first_question: |[bad, good, clicks, fewer, worth, more]| {
        format!(
            "<b>¿Qué objetivo siguen los recomendadores?</b> Aquel por el que se les paga. \
             Alineado con el engagement, el {bad} de lo que elige es alarmante o falso; alineado \
             con lo que dicen los lectores, el {good}. Los lectores hacen clic en el {clicks} de lo \
             primero y en el {fewer} de lo segundo. Al preguntarles si mereció la pena, dan {worth} \
             y {more}. Nadie pidió falsedades: el primer objetivo no las ve."
        )
    },
    second_question: "<b>¿Qué fases tienen?</b> Las mismas que un modelo de lenguaje. Con muchos \
                      datos se aprende cómo son los elementos y los lectores. El entrenamiento \
                      supervisado enseña la forma de la respuesta. Una fase con recompensa decide \
                      qué se prefiere. Todos los modelos de esta página difieren solo en la última.",
    third_question: |[engagement, kl, cap, truth, preference]| {
        format!(
            "<b>¿Qué alignment deberían tener?</b> Compara las protecciones por lo que los \
             lectores dicen de lo escrito: solo engagement, {engagement}; con penalización KL, \
             {kl}; con tope, {cap}; con recompensa por la verdad, {truth}; con la preferencia \
             declarada, {preference}. La penalización KL y el tope limitan hasta dónde llega un \
             modelo, no hacia dónde. La recompensa por la verdad cambia lo que se dice; la alarma \
             puede quedarse. Solo medir lo que valoran los lectores cambia la meta. Hay que \
             preguntarlo, y cuesta clics."
        )
    },
    limits_text: "<ul>\n<li>No es un modelo de ningún servicio. Los lectores son fórmulas con \
                  constantes elegidas, y los elementos, una línea sobre un mundo pequeño. Solo el \
                  mecanismo es real: un modelo entrenado con una predicción.</li>\n\
                  <li>Para elegir, el modelo nombra las primeras palabras. Elige por estilo y \
                  lector; cuánto de lo elegido es verdadero depende del estilo. Lo que escribe es \
                  suyo.</li>\n\
                  <li>Que lo alarmante sea falso más a menudo es una suposición. Verdadero es lo \
                  que dicen las tablas del mundo.</li>\n\
                  <li>Aquí se sabe de cada elemento cuánto mereció la pena. A los lectores de \
                  verdad pocas veces se les pregunta, y sus respuestas varían.</li>\n\
                  <li>El tamaño de los efectos no significa nada fuera de esta página; los de \
                  engagement y preferencia coinciden en dirección en tres semillas.</li>\n</ul>\n",
    same_for_programs: "Lo mismo para programas: <code>report.json</code>. Las fases y sus curvas: \
                        <a href=\"report.html\">report.html</a>.",
    picked: "Elegido para lectores no vistos",
    written: "Escrito para lectores no vistos",
    ratio: |[times]| {
        format!(
            "el modelo de engagement elige lo alarmante o falso {times} veces más a menudo que el \
             de preferencia"
        )
    },
};
