//! The page of a replay of the workshop's notebook.

use std::fmt::Write as _;

use super::answers::{Column, cards, given, picker, picker_style, striking, text};
use super::{Page, Section, colour, fold};
use crate::figures::{duration, prefixed};
use crate::markup::Escaped;
use crate::{Demonstration, NotebookModel, NotebookReport, PromptReport};

/// Renders the replay as one self-contained HTML page.
pub fn notebook_html(report: &NotebookReport) -> String {
    let columns = columns(report);
    let shown = striking(&columns, &report.prompts, |_| 0.0);
    let mut hero = String::new();
    let mut others = String::new();
    for (at, prompt) in report.prompts.iter().enumerate() {
        if Some(at) == shown {
            hero = answers(report, &columns, prompt);
        } else {
            let summary = format!(
                "<strong>{}</strong> <span class=\"snippet\">{}</span>",
                form(prompt),
                Escaped(&prompt.prompt)
            );
            others += &fold("prompt", &summary, &answers(report, &columns, prompt), false);
        }
    }
    let sections = vec![
        Section { id: "prompt", nav: "One prompt", title: "One prompt to all three", body: hero },
        Section {
            id: "same",
            nav: "More prompts",
            title: "More prompts to all three",
            body: others,
        },
        Section {
            id: "demonstrations",
            nav: "Demonstrations",
            title: "The notebook's demonstrations",
            body: demonstrations(report),
        },
        Section {
            id: "reading",
            nav: "How to read",
            title: "How to read this",
            body: reading(report),
        },
    ];
    let title = "The workshop’s demonstrations, replayed";
    Page {
        title,
        header: header(report, title),
        picker: picker(&columns, "Model"),
        style: picker_style(&columns),
        sections,
        footer: footer(report),
    }
    .html()
}

/// The models, each after the one before it.
fn columns(report: &NotebookReport) -> Vec<Column> {
    let column = |(place, model): (usize, &NotebookModel)| Column {
        key: Some(model.role.clone()),
        colour: colour(place),
        name: model.role.clone(),
        lead: "",
        origin: String::new(),
        from: place.checked_sub(1),
    };
    report.models.iter().enumerate().map(column).collect()
}

fn header(report: &NotebookReport, title: &str) -> String {
    let mut header = format!(
        "<header id=\"top\">\n<h1>{title}</h1>\n<p class=\"lead\">Three models: after \
         pre-training, after instruction fine-tuning, after alignment. All three are asked the \
         same; then each is asked what the workshop’s notebook asks it. Always the most probable \
         token, at most {} of them.</p>\n<dl class=\"tiles\">\n",
        report.max_new_tokens
    );
    for (place, model) in report.models.iter().enumerate() {
        let _ = writeln!(
            header,
            "<div class=\"{}\"><dt>{}, after {}</dt><dd>{} parameters</dd>\
             <dd class=\"detail\">{}{}</dd></div>",
            colour(place),
            badge(place, model),
            Escaped(phase(&model.role)),
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

fn form(prompt: &PromptReport) -> &'static str {
    if prompt.form == "text" { "A text to continue" } else { "A message to answer" }
}

/// A prompt and the answers of all models.
fn answers(report: &NotebookReport, columns: &[Column], prompt: &PromptReport) -> String {
    let mut body = String::new();
    given(&mut body, form(prompt), &prompt.prompt);
    let as_text = |column: &Column| {
        let model = report.models.iter().find(|model| Some(&model.role) == column.key.as_ref());
        let template = model.is_some_and(|model| model.chat_template);
        if prompt.form == "chat" && !template { ", as plain text" } else { "" }
    };
    cards(&mut body, columns, prompt, as_text);
    body
}

fn demonstrations(report: &NotebookReport) -> String {
    let mut body = String::from(
        "<p class=\"about\">As the notebook has them. Prompts differ from phase to phase: these \
         answers show what each model does and cannot be compared with one another.</p>\n",
    );
    for (place, model) in report.models.iter().enumerate() {
        let own = report.demonstrations.iter().filter(|shown| shown.role == model.role);
        for demonstration in own {
            let summary = format!(
                "{} <span class=\"snippet\">{}</span>",
                badge(place, model),
                Escaped(&demonstration.prompt)
            );
            body += &fold("prompt", &summary, &inside(place, model, demonstration), false);
        }
    }
    body
}

/// A demonstration: what the notebook says of its own model, what was given, and what this model
/// did.
fn inside(place: usize, model: &NotebookModel, demonstration: &Demonstration) -> String {
    let mut body = format!(
        "<p class=\"about\">The notebook says of {}: {}{}</p>\n",
        Escaped(&model.notebook),
        Escaped(&demonstration.shows),
        match demonstration.refused {
            Some(true) => " <b>This answer is a refusal.</b>",
            Some(false) => " <b>This answer is no refusal.</b>",
            None => "",
        }
    );
    given(
        &mut body,
        "what the model was given, special tokens included",
        if demonstration.given.is_empty() { &demonstration.prompt } else { &demonstration.given },
    );
    body.push_str("<div class=\"cards n2\">\n");
    let (head, said) = if demonstration.problem.is_empty() {
        let (tokens, took) = (demonstration.tokens, duration(demonstration.seconds));
        (format!("{tokens} tokens in {took}"), text(&demonstration.answer))
    } else {
        let problem = Escaped(&demonstration.problem);
        ("no answer".to_owned(), format!("<p class=\"silence\">{problem}</p>"))
    };
    let _ = writeln!(
        body,
        "<div class=\"card {}\"><h4>{head}</h4><div class=\"said\">{said}</div></div>",
        colour(place)
    );
    if let Some(stored) = &demonstration.notebook {
        let _ = writeln!(
            body,
            "<div class=\"card\"><h4>in the notebook: {}</h4><div class=\"said\">{}</div></div>",
            Escaped(&stored.verdict()),
            marked(&stored.answer, stored.differs_at)
        );
    }
    body + "</div>\n"
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

fn reading(report: &NotebookReport) -> String {
    let mut body = String::from(
        "<ul>\n<li>Pre-training trains to continue text. Instruction fine-tuning trains to answer. \
         Alignment trains to refuse what should not be answered. Whether these models do so \
         is in their answers.</li>\n\
         <li>A text is continued by each model. It is given once more as a message where a model \
         has a chat template. Requests are messages, and plain text for a model without a \
         template.</li>\n\
         <li>Answers are cut where the tokens end, as in the notebook.</li>\n\
         <li>The notebook’s stored answers were computed on a GPU by torch 2.8 and transformers \
         4.56, in bfloat16 or float32; Crisol computes in float32 on the CPU. Where two tokens are \
         almost equally probable, rounding decides, and all that follows may differ. A difference \
         late in a text is no error. One in the first words is a reason to look closer.</li>\n",
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
        + ". The same for programs: <code>report.json</code>.</p>\n\
           <p>Prompts and stored answers: Menta, M. (2025). LLM Workshop. GitHub. \
           <a href=\"https://github.com/mkmenta/llm-workshop\">\
           https://github.com/mkmenta/llm-workshop</a> \
           (<a href=\"https://creativecommons.org/licenses/by/4.0/\">CC BY 4.0</a>).</p>\n\
            </footer>\n"
}
