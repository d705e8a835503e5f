//! The page of a replay of the workshop's notebook.

use std::fmt::Write as _;

use super::answers::{Column, cards, given, picker, picker_style, striking, text};
use super::top::made_by;
use super::{Page, Section, colour, fold};
use crate::markup::Escaped;
use crate::sentences::sentence;
use crate::{Demonstration, Language, NotebookModel, NotebookReport, PromptReport};

/// Renders the replay as one self-contained HTML page.
pub fn notebook_html(report: &NotebookReport, language: Language) -> String {
    let texts = &language.texts().notebook;
    let columns = columns(report);
    let shown = striking(&columns, &report.prompts, |_| 0.0);
    let mut hero = String::new();
    let mut others = String::new();
    for (at, prompt) in report.prompts.iter().enumerate() {
        if Some(at) == shown {
            hero = answers(report, &columns, prompt, language);
        } else {
            let summary = format!(
                "<strong>{}</strong> <span class=\"snippet\">{}</span>",
                form(prompt, language),
                Escaped(&prompt.prompt)
            );
            let inside = answers(report, &columns, prompt, language);
            others += &fold("prompt", &summary, &inside, false);
        }
    }
    let sections = vec![
        Section { id: "prompt", heading: texts.prompt, body: hero },
        Section { id: "same", heading: texts.others, body: others },
        Section {
            id: "demonstrations",
            heading: texts.demonstrations,
            body: demonstrations(report, language),
        },
        Section { id: "reading", heading: texts.reading, body: reading(report, language) },
    ];
    Page {
        language,
        title: texts.title,
        header: header(report, language),
        picker: picker(&columns, language.texts().frame.model),
        style: picker_style(&columns),
        sections,
        footer: footer(report, language),
    }
    .html()
}

/// The models, each after the one before it.
fn columns(report: &NotebookReport) -> Vec<Column> {
    let column = |(index, model): (usize, &NotebookModel)| Column {
        key: Some(model.role.clone()),
        colour: colour(index),
        name: model.role.clone(),
        lead: "",
        origin: String::new(),
        from: index.checked_sub(1),
    };
    report.models.iter().enumerate().map(column).collect()
}

fn header(report: &NotebookReport, language: Language) -> String {
    let texts = &language.texts().notebook;
    let mut header = format!(
        "<header id=\"top\">\n<h1>{}</h1>\n<p class=\"lead\">{}</p>\n<dl class=\"tiles\">\n",
        texts.title,
        (texts.lead)([&report.max_new_tokens])
    );
    for (index, model) in report.models.iter().enumerate() {
        let phase = phase(&model.role, language);
        let parameters = language.prefixed(model.parameters as f64, "");
        let _ = writeln!(
            header,
            "<div class=\"{}\"><dt>{}</dt><dd>{}</dd><dd class=\"detail\">{}{}</dd></div>",
            colour(index),
            (texts.after)([&badge(index, model), &Escaped(phase)]),
            (language.texts().top.parameters)([&parameters]),
            Escaped(&model.name),
            if model.chat_template { "" } else { texts.no_template }
        );
    }
    header + "</dl>\n</header>\n"
}

/// The phase of training after which a model has this role.
fn phase(role: &str, language: Language) -> &str {
    let texts = &language.texts().notebook;
    match role {
        "base" => texts.pretraining,
        "chat" => texts.finetuning,
        "aligned" => texts.alignment,
        other => other,
    }
}

/// A role's name with its colour.
fn badge(index: usize, model: &NotebookModel) -> String {
    format!("<span class=\"badge {}\">{}</span>", colour(index), Escaped(&model.role))
}

fn form(prompt: &PromptReport, language: Language) -> &'static str {
    let texts = &language.texts().notebook;
    if prompt.form == "text" { texts.text } else { texts.message }
}

/// A prompt and the answers of all models.
fn answers(
    report: &NotebookReport,
    columns: &[Column],
    prompt: &PromptReport,
    language: Language,
) -> String {
    let mut body = String::new();
    given(&mut body, form(prompt, language), &prompt.prompt);
    let as_text = |column: &Column| {
        let model = report.models.iter().find(|model| Some(&model.role) == column.key.as_ref());
        let template = model.is_some_and(|model| model.chat_template);
        let is_text = prompt.form == "chat" && !template;
        if is_text { language.texts().notebook.as_plain_text } else { "" }
    };
    cards(&mut body, columns, prompt, as_text, language);
    body
}

fn demonstrations(report: &NotebookReport, language: Language) -> String {
    let mut body = format!("<p class=\"about\">{}</p>\n", language.texts().notebook.about);
    for (index, model) in report.models.iter().enumerate() {
        let own = report.demonstrations.iter().filter(|shown| shown.role == model.role);
        for demonstration in own {
            let summary = format!(
                "{} <span class=\"snippet\">{}</span>",
                badge(index, model),
                Escaped(&demonstration.prompt)
            );
            let inside = inside(index, model, demonstration, language);
            body += &fold("prompt", &summary, &inside, false);
        }
    }
    body
}

/// A demonstration: what the notebook says of its own model, what was given, and what this model
/// did.
fn inside(
    index: usize,
    model: &NotebookModel,
    demonstration: &Demonstration,
    language: Language,
) -> String {
    let texts = &language.texts().notebook;
    let remark = sentence(&demonstration.shows, language);
    let found = demonstration.refused.map_or(String::new(), |refused| {
        let found = if refused { texts.is_refusal } else { texts.is_no_refusal };
        format!(" <b>{found}</b>")
    });
    let said = (texts.says)([&Escaped(&model.notebook), &Escaped(&remark)]);
    let mut body = format!("<p class=\"about\">{said}{found}</p>\n");
    given(
        &mut body,
        texts.given,
        if demonstration.given.is_empty() { &demonstration.prompt } else { &demonstration.given },
    );
    body.push_str("<div class=\"cards n2\">\n");
    let (head, text) = if demonstration.problem.is_empty() {
        let took = language.duration(demonstration.seconds);
        let head = (texts.answered)([&demonstration.tokens, &took]);
        (head, text(&demonstration.answer, language))
    } else {
        let problem = sentence(&demonstration.problem, language);
        let problem = format!("<p class=\"silence\">{}</p>", Escaped(&problem));
        (texts.no_answer.to_owned(), problem)
    };
    let _ = writeln!(
        body,
        "<div class=\"card {}\"><h4>{head}</h4><div class=\"output\">{text}</div></div>",
        colour(index)
    );
    if let Some(stored) = &demonstration.notebook {
        let _ = writeln!(
            body,
            "<div class=\"card\"><h4>{}</h4><div class=\"output\">{}</div></div>",
            (texts.stored)([&Escaped(&stored.verdict(language))]),
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

fn reading(report: &NotebookReport, language: Language) -> String {
    let texts = &language.texts().notebook;
    let mut body = format!("<ul>\n{}", texts.how_to_read);
    let others: Vec<String> = report
        .models
        .iter()
        .filter(|model| !report.is_compared(&model.role))
        .map(|model| (texts.instead_of)([&Escaped(&model.name), &Escaped(&model.notebook)]))
        .collect();
    if !others.is_empty() {
        let _ = writeln!(body, "<li>{}{}.</li>", texts.not_compared, others.join(", "));
    }
    body + "</ul>\n"
}

fn footer(report: &NotebookReport, language: Language) -> String {
    let texts = &language.texts().notebook;
    let mut footer = made_by(&report.crisol, &report.created, language);
    if !report.machine.is_empty() {
        let _ = write!(footer, ", {}", Escaped(&sentence(&report.machine, language)));
    }
    format!(
        "<footer>\n<p>{footer}. {}</p>\n\
         <p>{}: Menta, M. (2025). LLM Workshop. GitHub. \
         <a href=\"https://github.com/mkmenta/llm-workshop\">\
         https://github.com/mkmenta/llm-workshop</a> \
         (<a href=\"https://creativecommons.org/licenses/by/4.0/\">CC BY 4.0</a>).</p>\n\
         </footer>\n",
        texts.same_for_programs, texts.sources
    )
}
