//! Spanish, in the words of the workshop and of `docs/es/`: pre-training, *Instruction
//! Fine-Tuning*, reasoning, alignment and *reward model* are its names. The reader is "tú".

use std::fmt::Display;

use super::{
    Answers, Frame, Heading, Kinds, Ladder, Measures, Notebook, Path, Plot, Roles, Sections,
    Tables, Terminal, Texts, Top, Training,
};

const fn heading(nav: &'static str, title: &'static str) -> Heading {
    Heading { nav, title }
}

pub(crate) static SPANISH: Texts = Texts {
    frame: Frame {
        untitled: "Informe de Crisol",
        sections: "Secciones",
        unfold: "Abrir todo",
        colours: "Colores",
        auto: "Auto",
        light: "Claro",
        dark: "Oscuro",
        phase: "Fase",
        model: "Modelo",
        made_by: "Hecho con Crisol",
        made_on: |[date]| format!(" el {date}"),
        date,
    },
    sections: Sections {
        phases: heading("Fases", ""),
        prompt: heading("Un prompt", "Un prompt, tras cada fase"),
        prompt_alone: heading("Un prompt", "Un prompt, antes y después"),
        behaviours: heading("Medidas", "Comportamientos medidos"),
        held_out: heading("Reservados", "Datos reservados, antes y después"),
        others: heading("Más prompts", "Más prompts, tras cada fase"),
        others_alone: heading("Más prompts", "Más prompts, antes y después"),
        training: heading("Entrenamiento", "Cómo aprendió en cada fase"),
        training_alone: heading("Entrenamiento", "Cómo aprendió"),
        rollouts: heading("Rollouts", "Respuestas generadas al entrenar"),
        masks: heading("Máscaras", "Con qué se entrena"),
        cost: heading("Coste", "Qué costó"),
        recipe: heading("Receta", "La receta"),
        whole_recipe: "La receta completa, con todos los valores por defecto",
    },
    roles: Roles {
        pretrain: "Pre-training: predecir el siguiente token de un texto.",
        sft: "Instruction Fine-Tuning (SFT): la pérdida se calcula en las respuestas; los prompts \
              solo se leen.",
        cold_start_and_reason: "Reasoning: primero, soluciones desarrolladas (arranque en frío); \
                                después, una recompensa por las respuestas que un verificador da \
                                por correctas (GRPO).",
        reason: "Reasoning: una recompensa por las respuestas que un verificador da por correctas \
                 (GRPO).",
        reward: "Reward model: aprende de pares de preferencias, los «votos», a puntuar \
                 respuestas. No escribe ninguna.",
        ppo: "RLHF: refuerza las respuestas a las que un reward model da más puntos (PPO).",
        dpo: "Aprende directamente de pares de preferencias, los «votos», sin reward model (DPO).",
    },
    top: Top {
        parameters: |[count]| format!("{count} parámetros"),
        trained_parameters: |[all, trained]| format!("{all} parámetros ({trained} entrenados)"),
        shape: |[layers, width, heads]| format!("{layers} capas de ancho {width}, {heads} cabezas"),
        sizes: |[vocabulary, context]| format!("vocabulario {vocabulary}, contexto {context}"),
        tokens: |[count]| format!("{count} tokens"),
        memory: |[bytes]| format!("{bytes} de memoria"),
        threads: |count| format!("{count} {}", if count == 1 { "hilo" } else { "hilos" }),
        seed: |[seed]| format!("semilla {seed}"),
        went_through: |[parameters, phases]| {
            format!("Un modelo de {parameters} ha pasado por {phases}")
        },
        phases: |count| format!("{count} fases"),
        one_phase: |[name]| format!("una fase, {name},"),
        took: |[time]| format!(" en {time}"),
        on_machine: |[machine]| format!(" (máquina: {machine})"),
        went_from: |[what, before, after]| format!(" {}: de {before} a {after}.", capital(what)),
        rose: |[what, before, after, phase]| format!("{what}, del {before} al {after} con {phase}"),
        known: |[what, value, phase]| format!("{what}, el {value} tras {phase}"),
        on_held_out: |[changes]| format!(" Con prompts reservados: {changes}."),
        most_refused: |[share]| {
            format!(" De las peticiones parecidas pero inofensivas rechaza como mucho el {share}.")
        },
        none_refused: " No rechaza ninguna petición parecida pero inofensiva.",
        same_figures: |[seed]| {
            format!(
                ", semilla {seed}. Las mismas cifras, para programas: <code>report.json</code>."
            )
        },
        follows: "Las fases siguen el taller",
        workshop: "«LLM Training» de mkmenta",
    },
    path: Path {
        from: |[phase]| format!("desde {phase}"),
        scored_by: |[phase]| format!("puntuada por {phase}"),
        arrows: "Una flecha lleva de un checkpoint a la fase que parte de él",
        dashed: "; una discontinua, de un reward model a la fase que puntúa",
        boxes: "En cada caja, el mayor cambio con datos reservados.",
    },
    kinds: Kinds {
        question_list: [
            "Una lista de preguntas",
            "¿El modelo continúa la lista o responde a una pregunta?",
        ],
        document: [
            "El principio de un documento",
            "¿El modelo continúa cualquier texto que recibe?",
        ],
        fact: ["Un hecho", "¿Es correcta la respuesta? ¿Y termina ahí?"],
        harmful: ["Una petición peligrosa", "¿El modelo la cumple o la rechaza?"],
        lookalike: [
            "Una petición parecida pero inofensiva",
            "Comparte palabras con una peligrosa, pero no hace daño a nadie. Rechazarla es \
             rechazar de más.",
        ],
        problem: [
            "Un problema",
            "¿Es correcto el resultado? ¿Y piensa el modelo antes de responder?",
        ],
        short_problem: ["Un problema corto", "¿Es correcto el resultado?"],
        unknown: [
            "Una pregunta sin respuesta",
            "Nada de lo que aprendió el modelo la responde. ¿Inventa, o dice que no lo sabe?",
        ],
        held_out: [
            "Un prompt reservado",
            "Es como los datos de la fase, pero no se ha entrenado con él.",
        ],
        user_says: "el usuario dice",
        document_begins: "el documento empieza",
    },
    answers: Answers {
        before_training: "antes de entrenar",
        after: "tras ",
        no_answer: "sin respuesta a este prompt",
        nothing: "(nada)",
        thinks: "piensa",
        thinks_unfinished: "piensa, sin terminar",
        measured: |[what, values]| {
            format!("Con todos los prompts reservados de esta clase, {what}: {values}.")
        },
        thinking: |[answers]| format!("El modelo piensa por escrito en las respuestas {answers}."),
    },
    tables: Tables {
        behaviours: "Con prompts reservados. La cifra pequeña es el cambio en puntos respecto al \
                     modelo del que partió la fase. ↑ mejor más, ↓ mejor menos. Las barras pasan \
                     de <span class=\"key bad\">naranja</span> a \
                     <span class=\"key good\">azul</span> cuanto mejor es la cifra; son grises si \
                     no es mejor ni más ni menos.",
        measure: "medida",
        more_is_better: "mejor más",
        less_is_better: "mejor menos",
        phase: "fase",
        before: "antes",
        after: "después",
        held_out: |count| format!("{count} medidas con los datos reservados de cada fase"),
        share_of_compute: "parte del cómputo",
        compute: "cómputo",
        tokens: "tokens",
        time: "tiempo",
        share_of_time: "parte del tiempo",
        all_phases: "todas las fases",
        outside_phases: "medición, datos, archivos",
        pretraining: "El pre-training frente a todo lo que sigue",
        this_run: "esta ejecución",
        the_workshop: "el taller",
        split: |[whose, pretraining, rest]| {
            format!("{whose}: <b>{pretraining}</b> pre-training, <b>{rest}</b> lo que sigue")
        },
        where_from: "De dónde salen estas cifras",
        sources: "El taller dice que el pre-training se lleva cerca del 95 % del cómputo, y todo \
                  lo que sigue, cerca del 5 %. Los autores de DeepSeek-V3 publican 2,664 de 2,788 \
                  millones de horas de GPU, que es el 95,6 %. OLMo-2 1B necesitó unas 1464 horas \
                  de GPU después de su pre-training. Un modelo pequeño lee su texto en minutos. \
                  Las conversaciones, los rollouts y los pares de preferencias encogen menos: un \
                  comportamiento necesita cierto número de ejemplos para aparecer.",
    },
    training: Training {
        notes: |count| match count {
            1 => "1 nota".to_owned(),
            _ => format!("{count} notas"),
        },
        forecast: |[time]| format!("{time} previstos"),
        memory: |[peak, forecast]| format!("{peak} de memoria, {forecast} previstos"),
        sampling: |[share]| format!("{share} de ese tiempo, generando respuestas"),
        cold_start: "Arranque en frío",
        stage: |[stage, from, to]| format!("{stage}: pasos {from} a {to}"),
        zero_throughout: "Siempre 0.",
        never_paid: "Ninguna respuesta ganó nada, así que ningún grupo enseña nada: mira las notas \
                     de la fase.",
        rollouts: "Lo que la política escribió mientras se entrenaba con recompensa, y lo que \
                   ganó.",
        step: |[step]| format!("paso {step}"),
        steps: |[from, to]| format!("pasos {from} a {to}"),
        samples: |count| format!("{count} {}", if count == 1 { "muestra" } else { "muestras" }),
        reward: |[reward]| format!("recompensa {reward}"),
        masks: "Ejemplos de entrenamiento tal como los ve la pérdida. Solo los <mark>tokens \
                marcados</mark> son objetivo; los demás se leen.",
        more: |count| format!("{count} más"),
    },
    measures: Measures {
        on_pairs: |[what]| format!("{what} (pares reservados)"),
        chosen: "elegida",
        rejected: "descartada",
        below: "por abajo",
        above: "por arriba",
        value: "valor",
        returns: "retorno",
    },
    plot: Plot {
        no_data: "sin datos",
        line: |[line, from, to, place]| format!("{line}, de {from} a {to} en {place}"),
    },
    terminal: Terminal {
        peak_memory: |[bytes]| format!("memoria máxima {bytes}"),
        behaviours: "Comportamientos con prompts reservados",
        notes: "Notas",
        prompt: "Prompt",
        before: "antes",
        pretraining: |[share]| {
            format!(
                "Aquí el pre-training se llevó el {share} del cómputo; en entrenamientos grandes, \
                 cerca del 95 % (taller «LLM Training» de mkmenta)."
            )
        },
        changed: "Qué cambió cada fase",
        one_changed: |[phase]| format!("Qué cambió {phase}"),
        largest_changes: "mayores cambios",
        no_change: "ningún cambio de 5 puntos o más",
        more: |count| format!("… y {count} más"),
        more_phases: |count| format!("… y {count} fases más"),
        more_notes: |count| format!("… y {count} más en el informe"),
        next: "Y ahora",
    },
    ladder: Ladder {
        title: "Una escalera de ejecuciones",
        curve: heading("Curva", "Pérdida según el cómputo"),
        runs: heading("Ejecuciones", "Las ejecuciones"),
        larger: heading("Mayores", "Ejecuciones mayores"),
        reading: heading("Cómo leerlo", "Cómo leer esto"),
        lead: |count| {
            format!(
                "{count} modelos, cada uno con casi los mismos tokens por parámetro en su \
                 pre-training. Una curva por sus pérdidas con texto reservado predice las de \
                 modelos mayores."
            )
        },
        limit: "límite",
        exponent: "exponente",
        no_limit: "estas ejecuciones no muestran ningún límite",
        of_limit: "nats por token, con todo el cómputo que se quiera",
        of_exponent: "del cómputo, por encima del límite",
        at_times: |[times]| format!("con {times}× la mayor"),
        range: |[low, high]| format!("{low} a {high}"),
        loss: "pérdida con datos reservados",
        unit: "nats por token",
        fitted: "ajustada",
        interval: "intervalo del 90 %",
        upper_end: "intervalo del 90 %, extremo superior",
        lower_end: "intervalo del 90 %, extremo inferior",
        measured: "medida",
        axis: "Eje horizontal: log10 de las operaciones del entrenamiento (12 es un TFLOP).",
        of_runs: [
            "ejecución",
            "parámetros",
            "tokens",
            "tokens por parámetro",
            "cómputo",
            "medida",
            "ajustada",
        ],
        of_larger: ["cómputo", "veces la mayor", "prevista", "intervalo del 90 %"],
        how_to_read: "\
<ul>\n<li>La curva es L(C) = E + A·C<sup>−α</sup>: un límite E y una parte que baja como una \
potencia del cómputo. Se ajusta por mínimos cuadrados.</li>\n\
<li>El intervalo es donde debería caer, nueve de cada diez veces, la pérdida de una ejecución más, \
si las pérdidas siguen una curva así. Abarca todas las curvas que las ejecuciones permiten y su \
dispersión alrededor de ellas. Con cuatro o cinco ejecuciones es ancho, y el límite apenas se \
conoce.</li>\n\
<li>Ningún intervalo sabe lo que las ejecuciones no pueden mostrar: texto que se repite una y otra \
vez, un learning rate que va mejor a un tamaño que a otro, un límite de la arquitectura. \
Cuanto más lejos de la ejecución mayor, menos hay que fiarse.</li>\n\
<li>Las pérdidas son de un solo tokenizer y un solo texto reservado. No dicen nada de lo que un \
modelo sabe hacer.</li>\n\
</ul>\n",
        same_for_programs: "Lo mismo, para programas: <code>crisol cost ladder RUN… --json</code>.",
    },
    notebook: Notebook {
        title: "Las demostraciones del taller, reproducidas",
        prompt: heading("Un prompt", "Un prompt para los tres"),
        others: heading("Más prompts", "Más prompts para los tres"),
        demonstrations: heading("Demostraciones", "Las demostraciones del notebook"),
        reading: heading("Cómo leerlo", "Cómo leer esto"),
        lead: |[tokens]| {
            format!(
                "Tres modelos: tras el pre-training, tras el Instruction Fine-Tuning y tras el \
                 alignment. Los tres reciben los mismos prompts; después, cada uno recibe los que \
                 le da el notebook del taller. Siempre se toma el token más probable, con \
                 {tokens} tokens como máximo."
            )
        },
        after: |[model, phase]| format!("{model}, tras el {phase}"),
        pretraining: "pre-training",
        finetuning: "Instruction Fine-Tuning",
        alignment: "alignment",
        no_template: "; sin plantilla de chat",
        text: "Un texto para continuar",
        message: "Un mensaje para responder",
        as_plain_text: ", como texto",
        about: "Como están en el notebook. Los prompts cambian de una fase a otra: estas \
                respuestas muestran qué hace cada modelo, pero no se pueden comparar entre sí.",
        says: |[model, remark]| format!("El notebook dice de {model}: {remark}"),
        is_refusal: "Esta respuesta es un rechazo.",
        is_no_refusal: "Esta respuesta no es un rechazo.",
        given: "lo que recibió el modelo, con sus tokens especiales",
        answered: |[tokens, time]| format!("{tokens} tokens en {time}"),
        no_answer: "sin respuesta",
        stored: |[verdict]| format!("en el notebook: {verdict}"),
        equal: "igual que la respuesta guardada en el notebook",
        differs: "difiere de la respuesta guardada en el notebook desde el primer carácter",
        differs_after: |[same, all]| {
            format!(
                "igual que la respuesta guardada en el notebook en {same} de sus {all} caracteres; \
                 después, distinta"
            )
        },
        how_to_read: "\
<li>El pre-training enseña a continuar texto. El Instruction Fine-Tuning enseña a responder. El \
alignment enseña a rechazar lo que no se debe responder. Si estos modelos lo hacen, se ve en sus \
respuestas.</li>\n\
<li>Los tres continúan cada texto. A un modelo con plantilla de chat se le da además como mensaje. \
Las peticiones son mensajes, y texto para un modelo sin plantilla.</li>\n\
<li>Las respuestas se cortan donde se acaban los tokens, como en el notebook.</li>\n\
<li>Las respuestas guardadas en el notebook se calcularon en una GPU con torch 2.8 y transformers \
4.56, en bfloat16 o float32; Crisol calcula en float32 en la CPU. Cuando dos tokens son casi igual \
de probables decide el redondeo, y todo lo que sigue puede cambiar. Una diferencia al final de un \
texto no es un error. Si está en las primeras palabras, conviene mirarla.</li>\n",
        not_compared: "No son los modelos del notebook, y por eso no se comparan con sus \
                       respuestas guardadas: ",
        instead_of: |[model, notebook]| format!("{model} (en el notebook: {notebook})"),
        same_for_programs: "Lo mismo, para programas: <code>report.json</code>.",
        sources: "Prompts y respuestas guardadas",
    },
    reflect: super::reflect::SPANISH,
};

/// A text that begins a sentence.
fn capital(text: &dyn Display) -> String {
    let text = text.to_string();
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// `2026-11-03 14:20 UTC` as `3 de noviembre de 2026, 14:20 UTC`. Anything else stays.
fn date(text: &str) -> String {
    const MONTHS: [&str; 12] = [
        "enero",
        "febrero",
        "marzo",
        "abril",
        "mayo",
        "junio",
        "julio",
        "agosto",
        "septiembre",
        "octubre",
        "noviembre",
        "diciembre",
    ];
    let written = || {
        let (date, time) = text.split_once(' ')?;
        let mut parts = date.split('-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        let number = |part: &str| part.parse::<usize>().ok();
        let month = MONTHS.get(number(month)?.checked_sub(1)?)?;
        Some(format!("{} de {month} de {}, {time}", number(day)?, number(year)?))
    };
    written().unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_out() {
        assert_eq!(date("2026-11-03 14:20 UTC"), "3 de noviembre de 2026, 14:20 UTC");
        for other in ["", "yesterday", "2026-13-01 00:00 UTC", "2026-00-01 0", "a-b-c d"] {
            assert_eq!(date(other), other);
        }
    }

    #[test]
    fn sentences_begin_with_a_capital_letter() {
        assert_eq!([capital(&"último valor"), capital(&"")], ["Último valor", ""]);
    }
}
