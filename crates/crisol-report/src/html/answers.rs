//! The central part: the same prompts, answered after every phase.
//!
//! One prompt is shown at the top of the page, the others fold. On a phone one answer is shown at a
//! time: a reader picks the phase, and every prompt and the table of behaviours follow. That takes
//! no script: the style sheet shows the answers of the checked button.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::path::origin;
use crate::markup::{Escaped, Segment, segments};
use crate::measures::{MEASURES, measure, value_text};
use crate::{Language, PhaseReport, PromptReport, Report, changes};

/// What a kind of prompt is, and what to compare in its answers. It never says what the answers
/// are: that is measured.
pub(crate) fn kind(id: &str, language: Language) -> (&str, &'static str) {
    let texts = &language.texts().kinds;
    let [name, question] = match id {
        "question-list" => texts.question_list,
        "document" => texts.document,
        "fact" => texts.fact,
        "harmful" => texts.harmful,
        "lookalike" => texts.lookalike,
        "problem" => texts.problem,
        "short-problem" => texts.short_problem,
        "unknown" => texts.unknown,
        "held-out" => texts.held_out,
        other => return (other, ""),
    };
    (name, question)
}

/// What the model was given, in a few words.
pub(crate) fn form(id: &str, language: Language) -> &str {
    let texts = &language.texts().kinds;
    match id {
        "chat" => texts.user_says,
        "text" => texts.document_begins,
        other => other,
    }
}

/// The measure of a kind of prompt, over its held-out prompts.
fn measured_by(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "question-list" => "list_continued",
        "fact" => "facts_accuracy",
        "harmful" => "harmful_refused",
        "lookalike" => "lookalike_refused",
        "problem" => "problems_accuracy",
        "short-problem" => "short_problems_accuracy",
        "unknown" => "unknown_admitted",
        _ => return None,
    })
}

/// One of the models whose answers are set side by side.
pub(super) struct Column {
    /// Its name in [`PromptReport::outputs`]; none for what the run began with.
    pub(super) key: Option<String>,
    /// Class of its colour; empty for none.
    pub(super) colour: String,
    /// What is written on its button, and of it in a sentence.
    pub(super) name: String,
    /// What precedes the name over an answer (`after`).
    pub(super) lead: &'static str,
    /// What follows the name over an answer (`from sft`).
    pub(super) origin: String,
    /// The column of the model that it was trained from.
    pub(super) from: Option<usize>,
}

impl Column {
    fn answer<'a>(&self, prompt: &'a PromptReport) -> Option<&'a str> {
        match &self.key {
            Some(key) => prompt.outputs.get(key).map(String::as_str),
            None => prompt.before.as_deref(),
        }
    }
}

/// The columns of a report: the phases that answer prompts or have measured behaviours.
pub(super) fn columns(report: &Report, language: Language) -> Vec<Column> {
    let texts = &language.texts().answers;
    let mut columns = Vec::new();
    if report.prompts.iter().any(|prompt| prompt.before.is_some()) {
        columns.push(Column {
            key: None,
            colour: String::new(),
            name: texts.before_training.into(),
            lead: "",
            origin: String::new(),
            from: None,
        });
    }
    let began_with = (!columns.is_empty()).then_some(0);
    let answers =
        |phase: &PhaseReport| report.prompts.iter().any(|p| p.outputs.contains_key(&phase.name));
    let behaves = |phase: &PhaseReport| {
        MEASURES.iter().any(|row| row.behaviour && phase.metrics.contains_key(row.id))
    };
    for (index, phase) in report.phases.iter().enumerate() {
        if !answers(phase) && !behaves(phase) {
            continue;
        }
        let parent = phase.parent.as_ref();
        let from = columns.iter().position(|column| column.key.as_ref() == parent);
        columns.push(Column {
            key: Some(phase.name.clone()),
            colour: super::colour(index),
            name: phase.name.clone(),
            lead: texts.after,
            origin: origin(report, index, language),
            from: if parent.is_some() { from } else { began_with },
        });
    }
    columns
}

/// Maximum columns without a picker: their answers are stacked.
const UNPICKED: usize = 2;

/// The buttons with which a phone chooses the column that is shown.
pub(super) fn picker(columns: &[Column], legend: &str) -> String {
    if columns.len() <= UNPICKED {
        return String::new();
    }
    let mut html = format!("<fieldset class=\"picker\"><legend class=\"unseen\">{legend}</legend>");
    for (i, column) in columns.iter().enumerate() {
        let checked = if i + 1 == columns.len() { " checked" } else { "" };
        let _ = write!(
            html,
            "<input type=\"radio\" name=\"pick\" id=\"pick-{i}\"{checked}>\
             <label class=\"{}\" for=\"pick-{i}\">{}</label>",
            column.colour,
            Escaped(&column.name)
        );
    }
    html.push_str("</fieldset>\n");
    html
}

/// The rules that make the picker work. A browser that does not know `:has` shows every column.
pub(super) fn picker_style(columns: &[Column]) -> String {
    if columns.len() <= UNPICKED {
        return String::new();
    }
    let rules: Vec<String> = (0..columns.len())
        .map(|i| format!(":root:has(#pick-{i}:checked) .of:not(.of-{i})"))
        .collect();
    format!(
        "@supports selector(:has(*)) {{ @media screen and (max-width: 48rem) {{\n\
         .picker {{ display: flex; }}\n.absent {{ display: block; }}\n{} {{ display: none; }}\n\
         }} }}\n",
        rules.join(",\n")
    )
}

/// The prompt to show first: of the kind whose measure changes most from each model to those that
/// were trained from it (`change_of_kind`), the one whose answers change most in words.
pub(super) fn striking(
    columns: &[Column],
    prompts: &[PromptReport],
    change_of_kind: impl Fn(&str) -> f64,
) -> Option<usize> {
    let change = |prompt: &PromptReport| -> f64 {
        let before = |column: &Column| {
            // The nearest model on the way that answers this prompt.
            let mut from = column.from;
            while let Some(at) = from {
                if let Some(answer) = columns[at].answer(prompt) {
                    return Some(answer);
                }
                from = columns[at].from;
            }
            None
        };
        let of = |column: &Column| {
            let (after, before) = (column.answer(prompt)?, before(column)?);
            Some(distance(before, after))
        };
        columns.iter().filter_map(of).sum()
    };
    let mut best: Option<(usize, [f64; 2])> = None;
    for (at, prompt) in prompts.iter().enumerate() {
        let changes = [change_of_kind(&prompt.kind), change(prompt)];
        if best.is_none_or(|(_, most)| changes > most) {
            best = Some((at, changes));
        }
    }
    best.map(|(at, _)| at)
}

/// The prompt of a report to show first.
fn first(report: &Report, columns: &[Column]) -> Option<usize> {
    let change_of_kind = |kind: &str| -> f64 {
        let Some(id) = measured_by(kind) else { return 0.0 };
        let change = |phase: &PhaseReport| {
            let after = phase.metrics.get(id).filter(|value| value.is_finite())?;
            Some((after - changes::before(report, phase, id)?).abs())
        };
        report.phases.iter().filter_map(change).sum()
    };
    striking(columns, &report.prompts, change_of_kind)
}

/// The prompt that a summary shows: the one at the top of the page.
pub(crate) fn shown_first(report: &Report) -> Option<&PromptReport> {
    first(report, &columns(report, Language::default())).map(|at| &report.prompts[at])
}

/// How much two texts differ in words: 0 for the same set of words, 1 for none in common.
fn distance(a: &str, b: &str) -> f64 {
    let words = |text| str::split_whitespace(text).collect::<BTreeSet<_>>();
    let (a, b) = (words(a), words(b));
    let all = a.union(&b).count();
    if all == 0 { 0.0 } else { 1.0 - a.intersection(&b).count() as f64 / all as f64 }
}

/// The prompt at the top of the page.
pub(super) fn hero(report: &Report, columns: &[Column], language: Language) -> String {
    let Some(at) = first(report, columns) else { return String::new() };
    let prompt = &report.prompts[at];
    let (title, question) = kind(&prompt.kind, language);
    let title = Escaped(title);
    let mut body = format!("<p class=\"about\"><strong>{title}.</strong> {question}</p>\n");
    body.push_str(&answered(report, columns, prompt, language));
    body
}

/// A prompt, its answers, and what was measured of its kind.
fn answered(
    report: &Report,
    columns: &[Column],
    prompt: &PromptReport,
    language: Language,
) -> String {
    let mut body = String::new();
    given(&mut body, form(&prompt.form, language), &prompt.prompt);
    cards(&mut body, columns, prompt, |_| "", language);
    body.push_str(&measured(report, &prompt.kind, language));
    body.push_str(&thinking(columns, prompt, language));
    body
}

/// The other prompts, folded.
pub(super) fn others(report: &Report, columns: &[Column], language: Language) -> String {
    let shown = first(report, columns);
    let mut body = String::new();
    for (at, prompt) in report.prompts.iter().enumerate() {
        if Some(at) == shown {
            continue;
        }
        let (title, question) = kind(&prompt.kind, language);
        let inside = format!("<p class=\"about\">{question}</p>\n")
            + &answered(report, columns, prompt, language);
        let summary = format!(
            "<strong>{}</strong> <span class=\"snippet\">{}</span>",
            Escaped(title),
            Escaped(&prompt.prompt)
        );
        body.push_str(&super::fold("prompt", &summary, &inside, false));
    }
    body
}

/// What was measured over all prompts of a kind, in a sentence; empty where nothing was.
fn measured(report: &Report, kind: &str, language: Language) -> String {
    let Some(id) = measured_by(kind) else { return String::new() };
    let values: Vec<String> = report
        .phases
        .iter()
        .filter_map(|phase| {
            let value = phase.metrics.get(id).copied().filter(|value| value.is_finite())?;
            let figure = value_text(id, value, language);
            Some(format!("{} <b>{}</b>", Escaped(&phase.name), Escaped(&figure)))
        })
        .collect();
    let Some(row) = measure(id).filter(|_| !values.is_empty()) else { return String::new() };
    let measured = language.texts().answers.measured;
    let said = measured([&language.of(row.label), &values.join(", ")]);
    format!("<p class=\"about\">{said}</p>\n")
}

/// Which of the answers hold thinking; empty where none does.
fn thinking(columns: &[Column], prompt: &PromptReport, language: Language) -> String {
    let thinks = |column: &&Column| {
        let answer = column.answer(prompt).unwrap_or_default();
        segments(answer).iter().any(|segment| matches!(segment, Segment::Thinking(..)))
    };
    let names: Vec<String> = columns
        .iter()
        .filter(thinks)
        .map(|column| format!("{}{}", column.lead, Escaped(&column.name)))
        .collect();
    if names.is_empty() {
        return String::new();
    }
    let said = (language.texts().answers.thinking)([&names.join(", ")]);
    format!("<p class=\"about\">{said}</p>\n")
}

/// What a model is given.
pub(super) fn given(body: &mut String, form: &str, prompt: &str) {
    let _ = writeln!(
        body,
        "<blockquote class=\"given\"><small>{}</small>{}</blockquote>",
        Escaped(form),
        Escaped(prompt)
    );
}

/// The answers to a prompt side by side. `remark`: text after a column's name.
pub(super) fn cards(
    body: &mut String,
    columns: &[Column],
    prompt: &PromptReport,
    remark: impl Fn(&Column) -> &'static str,
    language: Language,
) {
    let answers = columns.iter().filter(|column| column.answer(prompt).is_some()).count();
    let _ = writeln!(body, "<div class=\"cards n{answers}\">");
    for (i, column) in columns.iter().enumerate() {
        let Column { colour, name, lead, origin, .. } = column;
        let (class, text) = match column.answer(prompt) {
            Some(answer) => ("card", text(answer, language)),
            None if columns.len() > UNPICKED => {
                let said = language.texts().answers.no_answer;
                ("card absent", format!("<p class=\"silence\">{said}</p>"))
            }
            None => continue,
        };
        let _ = writeln!(
            body,
            "<div class=\"{class} of of-{i} {colour}\"><h4>{lead}<span class=\"badge\">{}</span>{} \
             <small>{}</small></h4><div class=\"output\" tabindex=\"0\">{text}</div></div>",
            Escaped(name),
            remark(column),
            Escaped(origin)
        );
    }
    body.push_str("</div>\n");
}

/// A model's text with its thinking set off.
pub(super) fn text(output: &str, language: Language) -> String {
    let texts = &language.texts().answers;
    let segments = segments(output);
    if segments.is_empty() {
        return format!("<p class=\"silence\">{}</p>", texts.nothing);
    }
    let mut html = String::new();
    for segment in segments {
        let _ = match segment {
            Segment::Text(text) => write!(html, "<p>{}</p>", Escaped(text)),
            Segment::Thinking(text, closed) => write!(
                html,
                "<p class=\"thought\"><small>{}</small>{}</p>",
                if closed { texts.thinks } else { texts.thinks_unfinished },
                Escaped(text)
            ),
        };
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, from: Option<usize>) -> Column {
        Column {
            key: Some(name.into()),
            colour: String::new(),
            name: name.into(),
            lead: "",
            origin: String::new(),
            from,
        }
    }

    #[test]
    fn the_most_striking_prompt_changes_along_the_way() {
        let columns =
            [column("a", None), column("b", Some(0)), column("r", Some(1)), column("c", Some(2))];
        let prompt = |answers: [&str; 3]| PromptReport {
            outputs: ["a", "b", "c"]
                .iter()
                .zip(answers)
                .map(|(name, answer)| ((*name).to_owned(), answer.to_owned()))
                .collect(),
            ..PromptReport::default()
        };
        let (once, never) = (prompt(["x y", "u v", "u v"]), prompt(["x", "x", "x"]));
        // `r` answers nothing: `c` is compared with `b`.
        let twice = prompt(["x y", "u v", "x y"]);
        let prompts = [never.clone(), once, twice];
        assert_eq!(striking(&columns, &prompts, |_| 0.0), Some(2));
        assert_eq!(striking(&columns, &[never], |_| 0.0), Some(0));
        assert_eq!(striking(&columns, &[], |_| 0.0), None);
        // What was measured over many prompts counts before the words of one.
        let mut measured = prompts;
        measured[1].kind = "harmful".into();
        let change = |kind: &str| if kind == "harmful" { 0.5 } else { 0.0 };
        assert_eq!(striking(&columns, &measured, change), Some(1));
    }
}
