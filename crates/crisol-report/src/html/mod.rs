//! The report as one self-contained page: no script, no network, everything inline. The page's
//! content security policy forbids both, so that even a model's most hostile output stays text.
//!
//! The first screen holds the path of the phases and one prompt, answered after every phase. What
//! follows folds: tables stay open, answers and curves open at a click, and on paper everything is
//! open.

mod answers;
mod ladder;
mod notebook;
mod path;
mod reflect;
mod tables;
mod top;
mod training;

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::markup::Escaped;
use crate::sentences::sentence;
use crate::texts::Heading;
use crate::{Language, PhaseReport, Report};

pub(crate) use answers::{form, kind, shown_first};
pub use ladder::ladder_html;
pub use notebook::notebook_html;
pub(crate) use reflect::aim;
pub use reflect::reflect_html;

/// Renders the whole report as one self-contained HTML page.
pub fn html(report: &Report, language: Language) -> String {
    let columns = answers::columns(report, language);
    let one = report.phases.len() == 1;
    let texts = &language.texts().sections;
    let several = |alone: Heading, each: Heading| if one { alone } else { each };
    let sections = vec![
        Section { id: "phases", heading: texts.phases, body: path::section(report, language) },
        Section {
            id: "prompt",
            heading: several(texts.prompt_alone, texts.prompt),
            body: answers::hero(report, &columns, language),
        },
        Section {
            id: "behaviours",
            heading: texts.behaviours,
            body: tables::behaviours(report, &columns, language),
        },
        Section {
            id: "held-out",
            heading: texts.held_out,
            body: tables::held_out(report, language),
        },
        Section {
            id: "answers",
            heading: several(texts.others_alone, texts.others),
            body: answers::others(report, &columns, language),
        },
        Section {
            id: "training",
            heading: several(texts.training_alone, texts.training),
            body: training::phases(report, language),
        },
        Section {
            id: "rollouts",
            heading: texts.rollouts,
            body: training::rollouts(report, language),
        },
        Section { id: "masks", heading: texts.masks, body: training::masks(report, language) },
        Section { id: "cost", heading: texts.cost, body: tables::cost(report, language) },
        Section { id: "recipe", heading: texts.recipe, body: recipe(report, texts.whole_recipe) },
    ];
    let title = title(report, language);
    Page {
        language,
        title: &title,
        header: top::header(report, &title, language),
        picker: answers::picker(&columns, language.texts().frame.phase),
        style: answers::picker_style(&columns),
        sections,
        footer: top::footer(report, language),
    }
    .html()
}

/// The title of a report.
pub(crate) fn title(report: &Report, language: Language) -> Cow<'_, str> {
    match report.title.as_str() {
        "" => Cow::Borrowed(language.texts().frame.untitled),
        title => sentence(title, language),
    }
}

/// A self-contained page. Everything but the title is HTML, or style.
struct Page<'a> {
    language: Language,
    title: &'a str,
    header: String,
    /// Buttons with which a phone chooses a column, and the rules that make them work.
    picker: String,
    style: String,
    sections: Vec<Section>,
    footer: String,
}

impl Page<'_> {
    fn html(mut self) -> String {
        self.sections.retain(|section| !section.body.is_empty());
        let mut page = String::with_capacity(64 * 1024);
        let _ = write!(
            page,
            "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" \
             content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{} · Crisol</title>\n\
             <style>\n{}{}</style>\n</head>\n<body>\n",
            self.language.code(),
            Escaped(self.title),
            include_str!("page.css"),
            self.style
        );
        bar(&mut page, &self.sections, self.language);
        let _ = write!(page, "<main>\n{}{}", self.header, self.picker);
        for Section { id, heading: Heading { title, .. }, body } in &self.sections {
            let _ = writeln!(page, "<section id=\"{id}\">");
            if !title.is_empty() {
                let _ = writeln!(page, "<h2>{title}</h2>");
            }
            let _ = writeln!(page, "{body}</section>");
        }
        let _ = write!(page, "</main>\n{}</body>\n</html>\n", self.footer);
        page
    }
}

/// A part of the page; one without a body is left out.
struct Section {
    id: &'static str,
    /// Its title is empty for none.
    heading: Heading,
    body: String,
}

/// The bar on top: where to go, whether everything is unfolded, and which colours. None of it needs
/// a script: the style sheet shows the answers of the checked button.
fn bar(page: &mut String, sections: &[Section], language: Language) {
    let texts = &language.texts().frame;
    page.push_str("<div class=\"bar\"><a class=\"brand\" href=\"#top\">");
    page.push_str(include_str!("mark.svg").trim_end());
    let _ = write!(page, "Crisol</a><nav aria-label=\"{}\">", texts.sections);
    for Section { id, heading: Heading { nav, .. }, .. } in sections {
        let _ = write!(page, "<a href=\"#{id}\">{nav}</a>");
    }
    let _ = write!(
        page,
        "</nav><span class=\"theme all\"><input type=\"checkbox\" id=\"unfold\">\
         <label for=\"unfold\">{}</label></span>\
         <fieldset class=\"theme\"><legend class=\"unseen\">{}</legend>",
        texts.unfold, texts.colours
    );
    let themes =
        [("auto", texts.auto, " checked"), ("light", texts.light, ""), ("dark", texts.dark, "")];
    for (id, label, checked) in themes {
        let _ = write!(
            page,
            "<input type=\"radio\" name=\"theme\" id=\"theme-{id}\"{checked}>\
             <label for=\"theme-{id}\">{label}</label>"
        );
    }
    page.push_str("</fieldset></div>\n");
}

/// What folds. `summary` and `inside` are HTML.
fn fold(class: &str, summary: &str, inside: &str, open: bool) -> String {
    let open = if open { " open" } else { "" };
    format!(
        "<details class=\"{class}\"{open}><summary>{summary}</summary>\n\
         <div class=\"inside\">{inside}</div></details>\n"
    )
}

/// What a phase trains for, in one line. What it achieved is measured.
fn role(phase: &PhaseReport, language: Language) -> &'static str {
    let texts = &language.texts().roles;
    match phase.kind.as_str() {
        "pretrain" => texts.pretrain,
        "sft" => texts.sft,
        "reason" if training::reinforced_from(phase).is_some() => texts.cold_start_and_reason,
        "reason" => texts.reason,
        "reward" => texts.reward,
        "ppo" => texts.ppo,
        "dpo" => texts.dpo,
        _ => "",
    }
}

/// The style sheet's colour of a phase, by its index in the run.
fn colour(index: usize) -> String {
    format!("c{}", index % 8)
}

/// A phase's name with its colour.
fn badge(index: usize, phase: &PhaseReport) -> String {
    format!("<span class=\"badge {}\">{}</span>", colour(index), Escaped(&phase.name))
}

fn recipe(report: &Report, summary: &str) -> String {
    if report.recipe_toml.is_empty() {
        return String::new();
    }
    let text = format!("<pre>{}</pre>", Escaped(&report.recipe_toml));
    fold("", summary, &text, false)
}
