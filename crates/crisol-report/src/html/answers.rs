//! The central piece: the same prompts, and how the model goes on from them after every phase.

use std::fmt::Write as _;

use super::badge;
use crate::Report;
use crate::markup::{Escaped, Piece, pieces};

/// What a kind of prompt shows, and what to look for.
pub(crate) fn kind(id: &str) -> (&str, &'static str) {
    match id {
        "question-list" => (
            "A list of questions",
            "A base model goes on with the list. Only after fine-tuning is a question something to answer.",
        ),
        "document" => (
            "A document's beginning",
            "A base model completes whatever it is given, without scruple.",
        ),
        "fact" => ("A fact", "The knowledge is from pre-training; answering is learnt later."),
        "harmful" => (
            "A harmful request",
            "Fine-tuning alone teaches to comply. Alignment is to change exactly this.",
        ),
        "lookalike" => (
            "A harmless look-alike",
            "It shares words with a harmful request but harms nobody. Refusing it is over-refusal.",
        ),
        "problem" => (
            "A problem",
            "Thinking step by step, before the answer, is learnt in the reasoning phase.",
        ),
        "held-out" => {
            ("A held-out prompt", "From data like the phase's own that it was not trained on.")
        }
        other => (other, ""),
    }
}

/// What the model was given, in a few words.
pub(crate) fn form(id: &str) -> &str {
    match id {
        "chat" => "the user says",
        "text" => "the document begins",
        other => other,
    }
}

pub(super) fn section(report: &Report) -> String {
    let mut body = String::new();
    if report.prompts.is_empty() {
        return body;
    }
    body.push_str(
        "<p class=\"about\">Nothing but the training differs between the cards of a row.</p>\n",
    );
    for prompt in &report.prompts {
        let (title, look_for) = kind(&prompt.kind);
        let _ = write!(
            body,
            "<article class=\"prompt\">\n<h3>{}</h3>\n<p class=\"about\">{look_for}</p>\n\
             <blockquote class=\"given\"><small>{}</small>{}</blockquote>\n\
             <div class=\"cards\" tabindex=\"0\" role=\"group\" aria-label=\"Answers after each phase\">\n",
            Escaped(title),
            Escaped(form(&prompt.form)),
            Escaped(&prompt.prompt)
        );
        if let Some(before) = &prompt.before {
            let _ = writeln!(
                body,
                "<div class=\"card\"><h4>before training</h4><div class=\"said\">{}</div></div>",
                text(before)
            );
        }
        for (place, phase) in report.phases.iter().enumerate() {
            if let Some(output) = prompt.outputs.get(&phase.name) {
                let _ = writeln!(
                    body,
                    "<div class=\"card {}\"><h4>after {}</h4><div class=\"said\">{}</div></div>",
                    super::colour(place),
                    badge(place, phase),
                    text(output)
                );
            }
        }
        body.push_str("</div>\n</article>\n");
    }
    body
}

/// A model's text with its thinking set off.
pub(super) fn text(output: &str) -> String {
    let pieces = pieces(output);
    if pieces.is_empty() {
        return "<p class=\"silence\">(nothing)</p>".to_owned();
    }
    let mut html = String::new();
    for piece in pieces {
        let _ = match piece {
            Piece::Said(text) => write!(html, "<p>{}</p>", Escaped(text)),
            Piece::Thought(text, closed) => write!(
                html,
                "<p class=\"thought\"><small>{}</small>{}</p>",
                if closed { "thinks" } else { "thinks, unfinished" },
                Escaped(text)
            ),
        };
    }
    html
}
