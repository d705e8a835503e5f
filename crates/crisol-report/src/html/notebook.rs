//! The page of a replay of the workshop's notebook.

use std::fmt::Write as _;

use super::answers::text;
use super::{Section, colour, page};
use crate::figures::{duration, prefixed};
use crate::markup::Escaped;
use crate::{Demonstration, NotebookModel, NotebookReport};

/// Renders the replay as one self-contained HTML page.
pub fn notebook_html(report: &NotebookReport) -> String {
    let sections = vec![
        Section {
            id: "demonstrations",
            nav: "Demonstrations",
            title: "The notebook's demonstrations",
            body: demonstrations(report),
        },
        Section {
            id: "same",
            nav: "Same prompts",
            title: "The same prompts to all three",
            body: same_prompts(report),
        },
        Section {
            id: "reading",
            nav: "How to read",
            title: "How to read this",
            body: reading(report),
        },
    ];
    let title = "The workshop’s demonstrations, replayed";
    page(title, sections, &header(report, title), &footer(report))
}

fn header(report: &NotebookReport, title: &str) -> String {
    let mut header = format!(
        "<header id=\"top\">\n<h1>{title}</h1>\n<p class=\"lead\">Three models, each after one phase of training: \
         pre-training, instruction fine-tuning, alignment. First each is asked what the workshop’s notebook asks it; then all \
         three are asked the same. Always the most probable token, at most {} of them.</p>\n<dl class=\"tiles\">\n",
        report.max_new_tokens
    );
    for (place, model) in report.models.iter().enumerate() {
        let _ = writeln!(
            header,
            "<div class=\"{}\"><dt>{}</dt><dd>{} parameters</dd><dd class=\"detail\">{}{}</dd></div>",
            colour(place),
            badge(place, model),
            prefixed(model.parameters as f64, ""),
            Escaped(&model.name),
            if model.chat_template { "" } else { "; no chat template" }
        );
    }
    header + "</dl>\n</header>\n"
}

/// The phase of training after which a model has this role.
fn phase(role: &str) -> &str {
    match role {
        "base" => "pre-training",
        "chat" => "instruction fine-tuning",
        "aligned" => "alignment",
        other => other,
    }
}

/// A role's name with its colour.
fn badge(place: usize, model: &NotebookModel) -> String {
    format!("<span class=\"badge {}\">{}</span>", colour(place), Escaped(&model.role))
}

fn demonstrations(report: &NotebookReport) -> String {
    let mut body = String::from(
        "<p class=\"about\">As the notebook has them: prompts differ from phase to phase, so that these answers show what \
         each model does and cannot be compared with one another.</p>\n",
    );
    for (place, model) in report.models.iter().enumerate() {
        let _ = writeln!(
            body,
            "<h3>After {}: {}</h3>",
            Escaped(phase(&model.role)),
            badge(place, model)
        );
        let own =
            report.demonstrations.iter().filter(|demonstration| demonstration.role == model.role);
        for demonstration in own {
            article(&mut body, place, demonstration);
        }
    }
    body
}

fn article(body: &mut String, place: usize, demonstration: &Demonstration) {
    let _ = write!(
        body,
        "<article class=\"prompt\">\n<p class=\"about\">The notebook shows with it: {}</p>\n\
         <blockquote class=\"given\"><small>what the model was given, special tokens included</small>{}</blockquote>\n\
         <div class=\"cards two\">\n",
        Escaped(&demonstration.shows),
        Escaped(if demonstration.given.is_empty() {
            &demonstration.prompt
        } else {
            &demonstration.given
        })
    );
    if demonstration.problem.is_empty() {
        let _ = writeln!(
            body,
            "<div class=\"card {}\"><h4>{} tokens in {}</h4><div class=\"said\">{}</div></div>",
            colour(place),
            demonstration.tokens,
            duration(demonstration.seconds),
            text(&demonstration.answer)
        );
    } else {
        let _ = writeln!(
            body,
            "<div class=\"card {}\"><h4>no answer</h4><div class=\"said\"><p class=\"silence\">{}</p></div></div>",
            colour(place),
            Escaped(&demonstration.problem)
        );
    }
    if let Some(stored) = &demonstration.notebook {
        let _ = writeln!(
            body,
            "<div class=\"card\"><h4>in the notebook: {}</h4><div class=\"said\">{}</div></div>",
            Escaped(&stored.verdict()),
            marked(&stored.answer, stored.differs_at)
        );
    }
    body.push_str("</div>\n</article>\n");
}

/// A stored answer, what differs from the given one marked.
fn marked(answer: &str, differs_at: Option<usize>) -> String {
    let at =
        differs_at.and_then(|at| answer.char_indices().nth(at)).map_or(answer.len(), |(at, _)| at);
    let (same, other) = answer.split_at(at);
    let other =
        if other.is_empty() { String::new() } else { format!("<mark>{}</mark>", Escaped(other)) };
    format!("<p>{}{other}</p>", Escaped(same))
}

fn same_prompts(report: &NotebookReport) -> String {
    let mut body = String::from(
        "<p class=\"about\">Texts are given to each model to be continued, and once more as a message where it has a chat \
         template. Requests are messages, and plain text for a model without one.</p>\n",
    );
    for prompt in &report.prompts {
        let _ = write!(
            body,
            "<article class=\"prompt\">\n<blockquote class=\"given\"><small>{}</small>{}</blockquote>\n\
             <div class=\"cards\" tabindex=\"0\" role=\"group\" aria-label=\"Answers of each model\">\n",
            if prompt.form == "text" { "a text to continue" } else { "a message to answer" },
            Escaped(&prompt.prompt)
        );
        for (place, model) in report.models.iter().enumerate() {
            if let Some(output) = prompt.outputs.get(&model.role) {
                let plain = if prompt.form == "chat" && !model.chat_template {
                    ", as plain text"
                } else {
                    ""
                };
                let _ = writeln!(
                    body,
                    "<div class=\"card {}\"><h4>{}{plain}</h4><div class=\"said\">{}</div></div>",
                    colour(place),
                    badge(place, model),
                    text(output)
                );
            }
        }
        body.push_str("</div>\n</article>\n");
    }
    body
}

fn reading(report: &NotebookReport) -> String {
    let mut body = String::from(
        "<ul>\n<li>A base model continues: a question brings more questions, and any text is completed. Instruction \
         fine-tuning teaches to answer, also what should not be answered. Alignment teaches to refuse that.</li>\n\
         <li>Answers are cut where the tokens end, as in the notebook.</li>\n\
         <li>The notebook’s stored answers were computed on a GPU by torch 2.8 and transformers 4.56, in bfloat16 or float32; \
         this program computes in float32 on the CPU. Where two tokens are almost equally probable, rounding decides, and all \
         that follows may differ: a difference late in a text is no error, one in the first words is a reason to look \
         closer.</li>\n",
    );
    let others: Vec<&NotebookModel> =
        report.models.iter().filter(|model| !report.is_compared(&model.role)).collect();
    if !others.is_empty() {
        body.push_str(
            "<li>Not the notebook’s own models, and so not compared with its stored answers: ",
        );
        let list: Vec<String> = others
            .iter()
            .map(|model| {
                format!("{} (in the notebook: {})", Escaped(&model.name), Escaped(&model.notebook))
            })
            .collect();
        let _ = writeln!(body, "{}.</li>", list.join(", "));
    }
    body + "</ul>\n"
}

fn footer(report: &NotebookReport) -> String {
    let mut footer = format!(
        "<footer>\n<p>Made by Crisol {} on {}",
        Escaped(&report.crisol),
        Escaped(&report.created)
    );
    if !report.machine.is_empty() {
        let _ = write!(footer, ", {}", Escaped(&report.machine));
    }
    footer
        + ". The same for programs: <code>report.json</code>.</p>\n<p>Prompts and stored answers: Menta, M. (2025). LLM \
           Workshop. GitHub. <a href=\"https://github.com/mkmenta/llm-workshop\">https://github.com/mkmenta/llm-workshop</a> \
           (<a href=\"https://creativecommons.org/licenses/by/4.0/\">CC BY 4.0</a>).</p>\n</footer>\n"
}
