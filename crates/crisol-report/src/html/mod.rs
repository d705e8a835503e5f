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
mod tables;
mod top;
mod training;

use std::fmt::Write as _;

use crate::markup::Escaped;
use crate::{PhaseReport, Report};

pub(crate) use answers::{form, kind, shown_first};
pub use ladder::ladder_html;
pub use notebook::notebook_html;

/// Renders the whole report as one self-contained HTML page.
pub fn html(report: &Report) -> String {
    let columns = answers::columns(report);
    let one = report.phases.len() == 1;
    let sections = vec![
        Section { id: "phases", nav: "Phases", title: "", body: path::section(report) },
        Section {
            id: "prompt",
            nav: "One prompt",
            title: if one {
                "One prompt, before and after"
            } else {
                "One prompt, after every phase"
            },
            body: answers::hero(report, &columns),
        },
        Section {
            id: "behaviours",
            nav: "Behaviours",
            title: "Behaviours, measured",
            body: tables::behaviours(report, &columns),
        },
        Section {
            id: "held-out",
            nav: "Held out",
            title: "Held-out data, before and after",
            body: tables::held_out(report),
        },
        Section {
            id: "answers",
            nav: "More prompts",
            title: if one {
                "More prompts, before and after"
            } else {
                "More prompts, after every phase"
            },
            body: answers::others(report, &columns),
        },
        Section {
            id: "training",
            nav: "Training",
            title: if one { "How it learned" } else { "How each phase learned" },
            body: training::phases(report),
        },
        Section {
            id: "rollouts",
            nav: "Rollouts",
            title: "Sampled while training",
            body: training::rollouts(report),
        },
        Section {
            id: "masks",
            nav: "Masks",
            title: "What is trained on",
            body: training::masks(report),
        },
        Section { id: "cost", nav: "Cost", title: "What it cost", body: tables::cost(report) },
        Section { id: "recipe", nav: "Recipe", title: "The recipe", body: recipe(report) },
    ];
    let title = if report.title.is_empty() { "Crisol report" } else { &report.title };
    Page {
        title,
        header: top::header(report, title),
        picker: answers::picker(&columns, "Phase"),
        style: answers::picker_style(&columns),
        sections,
        footer: top::footer(report),
    }
    .html()
}

/// A self-contained page. Everything but the title is HTML, or style.
struct Page<'a> {
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
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" \
             content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{} · Crisol</title>\n\
             <style>\n{}{}</style>\n</head>\n<body>\n",
            Escaped(self.title),
            include_str!("page.css"),
            self.style
        );
        bar(&mut page, &self.sections);
        let _ = write!(page, "<main>\n{}{}", self.header, self.picker);
        for Section { id, title, body, .. } in &self.sections {
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
    nav: &'static str,
    /// The heading; empty for none.
    title: &'static str,
    body: String,
}

/// The bar on top: where to go, whether everything is unfolded, and which colours. None of it needs
/// a script: the style sheet looks at which button is checked.
fn bar(page: &mut String, sections: &[Section]) {
    page.push_str("<div class=\"bar\"><a class=\"brand\" href=\"#top\">");
    page.push_str(include_str!("mark.svg").trim_end());
    page.push_str("Crisol</a><nav aria-label=\"Sections\">");
    for Section { id, nav, .. } in sections {
        let _ = write!(page, "<a href=\"#{id}\">{nav}</a>");
    }
    page.push_str(
        "</nav><span class=\"theme all\"><input type=\"checkbox\" id=\"unfold\">\
         <label for=\"unfold\">Unfold all</label></span>\
         <fieldset class=\"theme\"><legend class=\"unseen\">Colours</legend>",
    );
    for (id, label, checked) in
        [("auto", "Auto", " checked"), ("light", "Light", ""), ("dark", "Dark", "")]
    {
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
fn role(phase: &PhaseReport) -> &'static str {
    match phase.kind.as_str() {
        "pretrain" => "Pre-training: next-token prediction on raw text.",
        "sft" => "Supervised fine-tuning: the loss is on the answers; prompts are read.",
        "reason" if training::reinforced_from(phase).is_some() => {
            "Reasoning: worked solutions first (cold start), then a reward for answers that a \
             verifier finds right (GRPO)."
        }
        "reason" => "Reasoning: a reward for answers that a verifier finds right (GRPO).",
        "reward" => "Reward model: learns from preference pairs to score answers. It writes none.",
        "ppo" => "RLHF: reinforces answers that a reward model scores high (PPO).",
        "dpo" => "Learns from preference pairs directly, without a reward model (DPO).",
        _ => "",
    }
}

/// The style sheet's colour of a phase, by its place in the run.
fn colour(place: usize) -> String {
    format!("c{}", place % 8)
}

/// A phase's name with its colour.
fn badge(place: usize, phase: &PhaseReport) -> String {
    format!("<span class=\"badge {}\">{}</span>", colour(place), Escaped(&phase.name))
}

fn recipe(report: &Report) -> String {
    if report.recipe_toml.is_empty() {
        return String::new();
    }
    let text = format!("<pre>{}</pre>", Escaped(&report.recipe_toml));
    fold("", "The whole recipe, all defaults written out", &text, false)
}
