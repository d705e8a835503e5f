//! What the program says to a student beside the report: in chats, after a run, in a replay of the
//! notebook. One struct, one value a language: the compiler finds what a language lacks. What the
//! report says is in `crisol-report`.

use std::fmt::Display;

use crate::language::language;

/// A text with places to fill.
type Fill<const N: usize> = for<'a> fn([&'a dyn Display; N]) -> String;

pub(crate) struct Texts {
    pub(crate) chat: Chat,
    pub(crate) header: Header,
    pub(crate) next: Next,
    pub(crate) notebook: Notebook,
}

/// What `crisol chat` says while it goes on.
pub(crate) struct Chat {
    pub(crate) help: &'static str,
    pub(crate) forgotten: &'static str,
    /// A command that there is not.
    pub(crate) unknown: Fill<1>,
    pub(crate) how_to_leave: &'static str,
    /// The template's error.
    pub(crate) no_system: Fill<1>,
    pub(crate) system_dropped: &'static str,
    pub(crate) with_system: &'static str,
    pub(crate) without_system: &'static str,
    pub(crate) cut_by_length: &'static str,
    pub(crate) cut_by_context: &'static str,
    pub(crate) stopped: &'static str,
    /// Context, messages.
    pub(crate) oldest_forgotten: Fill<2>,
    /// Tokens of the message, context.
    pub(crate) too_long: Fill<2>,
    /// Options that the model's makers suggest.
    pub(crate) suggested: Fill<1>,
}

/// What `crisol chat` says first: names of rows, and what stands in them.
pub(crate) struct Header {
    pub(crate) model: &'static str,
    pub(crate) phases: &'static str,
    pub(crate) trained: &'static str,
    pub(crate) for_text: &'static str,
    pub(crate) to_try: &'static str,
    pub(crate) help: &'static str,
    pub(crate) how_to_get_help: &'static str,
    /// Name, class, parameters.
    pub(crate) shape: Fill<3>,
    pub(crate) pretrain: &'static str,
    pub(crate) sft: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) ppo: &'static str,
    pub(crate) dpo: &'static str,
    pub(crate) elsewhere: &'static str,
    /// Questions for a model that belongs to no run.
    pub(crate) questions: [&'static str; 3],
}

/// What a next step is for.
pub(crate) struct Next {
    pub(crate) generate: &'static str,
    pub(crate) chat: &'static str,
    pub(crate) eval: &'static str,
    pub(crate) report: &'static str,
    pub(crate) full: &'static str,
}

/// What `crisol notebook` prints.
pub(crate) struct Notebook {
    pub(crate) pretraining: &'static str,
    pub(crate) finetuning: &'static str,
    pub(crate) alignment: &'static str,
    /// Phase, model.
    pub(crate) after: Fill<2>,
    /// The notebook's model, and its remark.
    pub(crate) says: Fill<2>,
    pub(crate) no_template: &'static str,
    pub(crate) is_refusal: &'static str,
    pub(crate) is_no_refusal: &'static str,
    pub(crate) same_prompts: &'static str,
    pub(crate) whole_report: Fill<1>,
}

/// The texts of this process's language.
pub(crate) fn texts() -> &'static Texts {
    language().of([&ENGLISH, &SPANISH])
}

static ENGLISH: Texts = Texts {
    chat: Chat {
        help: "\
/reset        forget the conversation
/system TEXT  begin anew with TEXT as the system message; without TEXT, with none
/help         list these commands
/quit         leave, as Ctrl-D does
Ctrl-C        stop the answer",
        forgotten: "(the conversation is forgotten)",
        unknown: |[command]| format!("there is no {command}; /help lists the commands"),
        how_to_leave: "(Ctrl-D or /quit leaves)",
        no_system: |[error]| format!("the chat template takes no system message: {error}"),
        system_dropped: "the chat template leaves out system messages; nothing changed",
        with_system: "(a new conversation with this system message)",
        without_system: "(a new conversation without system message)",
        cut_by_length: "(cut off: --max-new-tokens)",
        cut_by_context: "(cut off: the context is full)",
        stopped: "(stopped)",
        oldest_forgotten: |[context, messages]| {
            format!(
                "(the context of {context} tokens is full: the oldest {messages} messages are \
                 forgotten)"
            )
        },
        too_long: |[tokens, context]| {
            format!(
                "(that message takes {tokens} of the context's {context} tokens, which leaves no \
                 room for an answer; the conversation begins anew)"
            )
        },
        suggested: |[options]| {
            format!(
                "(the model's generation_config.json suggests {options}; without these options, \
                 the most probable token is taken)"
            )
        },
    },
    header: Header {
        model: "model",
        phases: "phases",
        trained: "trained",
        for_text: "for text",
        to_try: "try",
        help: "help",
        how_to_get_help: "/help lists the commands, Ctrl-D leaves",
        shape: |[name, class, parameters]| format!("{name} ({class}, {parameters} parameters)"),
        pretrain: "on raw text. A base model continues text; it does not chat.",
        sft: "on conversations (SFT). It answers messages.",
        reason: "on problems with verifiable answers (GRPO). It thinks, then answers.",
        ppo: "against a reward model (PPO). It answers messages.",
        dpo: "on preference pairs (DPO). It answers messages.",
        elsewhere: "elsewhere. Base models continue text; models tuned on conversations answer.",
        questions: [
            "What is the capital of France?",
            "Anna has 12 apples and buys 7 more. How many does she have?",
            "Write two sentences about the sea.",
        ],
    },
    next: Next {
        generate: "let it continue a text",
        chat: "talk to it",
        eval: "measure it on pairs",
        report: "read the report",
        full: "print all of it",
    },
    notebook: Notebook {
        pretraining: "pre-training",
        finetuning: "instruction fine-tuning",
        alignment: "alignment",
        after: |[phase, model]| format!("After {phase}: {model}"),
        says: |[model, remark]| format!("The notebook says of {model}: {remark}"),
        no_template: "(The model has no chat template: the message is given as plain text.)",
        is_refusal: "(Here: a refusal.)",
        is_no_refusal: "(Here: no refusal.)",
        same_prompts: "The same prompts to all three",
        whole_report: |[path]| format!("The whole report: {path}"),
    },
};

static SPANISH: Texts = Texts {
    chat: Chat {
        help: "\
/reset        olvida la conversación
/system TEXTO empieza de nuevo con TEXTO como mensaje de sistema; sin TEXTO, sin ninguno
/help         muestra estos comandos
/quit         sale, igual que Ctrl-D
Ctrl-C        detiene la respuesta",
        forgotten: "(conversación olvidada)",
        unknown: |[command]| format!("no existe {command}; /help muestra los comandos"),
        how_to_leave: "(Ctrl-D o /quit para salir)",
        no_system: |[error]| format!("la plantilla de chat no admite mensajes de sistema: {error}"),
        system_dropped: "la plantilla de chat omite los mensajes de sistema; no ha cambiado nada",
        with_system: "(conversación nueva con este mensaje de sistema)",
        without_system: "(conversación nueva sin mensaje de sistema)",
        cut_by_length: "(cortada: --max-new-tokens)",
        cut_by_context: "(cortada: el contexto está lleno)",
        stopped: "(detenida)",
        oldest_forgotten: |[context, messages]| {
            format!(
                "(el contexto de {context} tokens está lleno: se olvidan los {messages} mensajes \
                 más antiguos)"
            )
        },
        too_long: |[tokens, context]| {
            format!(
                "(el mensaje ocupa {tokens} de los {context} tokens del contexto y no queda sitio \
                 para una respuesta; la conversación empieza de nuevo)"
            )
        },
        suggested: |[options]| {
            format!(
                "(generation_config.json, del modelo, sugiere {options}; sin estas opciones se \
                 toma el token más probable)"
            )
        },
    },
    header: Header {
        model: "modelo",
        phases: "fases",
        trained: "entrenado",
        for_text: "para textos",
        to_try: "prueba",
        help: "ayuda",
        how_to_get_help: "/help muestra los comandos; Ctrl-D para salir",
        shape: |[name, class, parameters]| format!("{name} ({class}, {parameters} parámetros)"),
        pretrain: "con texto. Un modelo base continúa textos; no conversa.",
        sft: "con conversaciones (Instruction Fine-Tuning). Responde mensajes.",
        reason: "con problemas cuya solución se comprueba (GRPO). Piensa y luego responde.",
        ppo: "con un reward model (PPO). Responde mensajes.",
        dpo: "con pares de preferencias, los «votos» (DPO). Responde mensajes.",
        elsewhere: "en otra parte. Un modelo base continúa textos; uno ajustado con conversaciones \
                    responde.",
        questions: [
            "¿Cuál es la capital de Francia?",
            "Ana tiene 12 manzanas y compra 7 más. ¿Cuántas tiene?",
            "Escribe dos frases sobre el mar.",
        ],
    },
    next: Next {
        generate: "que continúe un texto",
        chat: "habla con él",
        eval: "mídelo con pares",
        report: "lee el informe",
        full: "muéstralo todo",
    },
    notebook: Notebook {
        pretraining: "pre-training",
        finetuning: "Instruction Fine-Tuning",
        alignment: "alignment",
        after: |[phase, model]| format!("Tras el {phase}: {model}"),
        says: |[model, remark]| format!("El notebook dice de {model}: {remark}"),
        no_template: "(El modelo no tiene plantilla de chat: el mensaje se da como texto.)",
        is_refusal: "(Aquí: un rechazo.)",
        is_no_refusal: "(Aquí: no es un rechazo.)",
        same_prompts: "Los mismos prompts para los tres",
        whole_report: |[path]| format!("El informe completo: {path}"),
    },
};
