//! The report as one self-contained page: no script, no network, everything inline. The page's content
//! security policy forbids both, so that even a model's most hostile output stays text.

mod answers;
mod ladder;
mod notebook;
mod tables;
mod training;

use std::fmt::Write as _;

use crate::changes;
use crate::figures::{duration, percent, prefixed, share};
use crate::markup::Escaped;
use crate::measures::{label, value_text};
use crate::tree::{Node, tree};
use crate::{PhaseReport, Report};

pub(crate) use answers::{form, kind};
pub use ladder::ladder_html;
pub use notebook::notebook_html;

/// Renders the whole report as one self-contained HTML page.
pub fn html(report: &Report) -> String {
    let sections = vec![
        Section { id: "pipeline", nav: "Phases", title: "The phases", body: pipeline(report) },
        Section {
            id: "answers",
            nav: "Answers",
            title: "Same prompts, every phase",
            body: answers::section(report),
        },
        Section {
            id: "behaviours",
            nav: "Behaviours",
            title: "Behaviours, measured",
            body: tables::behaviours(report),
        },
        Section {
            id: "held-out",
            nav: "Held out",
            title: "Held-out data, before and after",
            body: tables::held_out(report),
        },
        Section {
            id: "masks",
            nav: "Masks",
            title: "What is trained on",
            body: training::masks(report),
        },
        Section {
            id: "training",
            nav: "Training",
            title: "How each phase learned",
            body: training::phases(report),
        },
        Section {
            id: "rollouts",
            nav: "Rollouts",
            title: "Sampled while training",
            body: training::rollouts(report),
        },
        Section { id: "cost", nav: "Cost", title: "What it cost", body: tables::cost(report) },
        Section { id: "recipe", nav: "Recipe", title: "The recipe", body: recipe(report) },
    ];
    let title = if report.title.is_empty() { "Crisol report" } else { &report.title };
    let (mut top, mut bottom) = (String::new(), String::new());
    header(&mut top, report, title);
    footer(&mut bottom, report);
    page(title, sections, &top, &bottom)
}

/// A self-contained page. `header` and `footer` are HTML.
fn page(title: &str, mut sections: Vec<Section>, header: &str, footer: &str) -> String {
    sections.retain(|section| !section.body.is_empty());
    let mut page = String::with_capacity(64 * 1024);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{} · Crisol</title>\n\
         <style>\n{}</style>\n</head>\n<body>\n",
        Escaped(title),
        include_str!("page.css")
    );
    bar(&mut page, &sections);
    page.push_str("<main>\n");
    page.push_str(header);
    for section in &sections {
        let Section { id, title, body, .. } = section;
        let _ = write!(page, "<section id=\"{id}\">\n<h2>{title}</h2>\n{body}</section>\n");
    }
    page.push_str("</main>\n");
    page.push_str(footer);
    page.push_str("</body>\n</html>\n");
    page
}

/// A part of the page; one without a body is left out.
struct Section {
    id: &'static str,
    nav: &'static str,
    title: &'static str,
    body: String,
}

/// The bar on top: where to go, and which colours. The theme needs no script: the style sheet looks at which
/// button is checked.
fn bar(page: &mut String, sections: &[Section]) {
    page.push_str("<div class=\"bar\"><a class=\"brand\" href=\"#top\">");
    page.push_str(include_str!("mark.svg").trim_end());
    page.push_str("Crisol</a><nav aria-label=\"Sections\">");
    for Section { id, nav, .. } in sections {
        let _ = write!(page, "<a href=\"#{id}\">{nav}</a>");
    }
    page.push_str("</nav><fieldset class=\"theme\"><legend class=\"unseen\">Colours</legend>");
    for (id, label, checked) in
        [("auto", "Auto", " checked"), ("light", "Light", ""), ("dark", "Dark", "")]
    {
        let _ = write!(
            page,
            "<input type=\"radio\" name=\"theme\" id=\"theme-{id}\"{checked}><label for=\"theme-{id}\">{label}</label>"
        );
    }
    page.push_str("</fieldset></div>\n");
}

fn header(page: &mut String, report: &Report, title: &str) {
    let _ = write!(page, "<header id=\"top\">\n<h1>{}</h1>\n<p class=\"lead\">", Escaped(title));
    let _ = write!(page, "{}", Escaped(&summary(report)));
    page.push_str("</p>\n<dl class=\"tiles\">\n");
    let tokens: u64 = report.phases.iter().map(|phase| phase.tokens).sum();
    let flops: f64 = report.phases.iter().map(|phase| phase.flops).sum();
    let model = &report.model;
    let shape = format!("{} layers of width {}, {} heads", model.layers, model.hidden, model.heads);
    let vocab = format!("vocabulary {}, context {}", model.vocab, model.context);
    let threads = if report.threads == 1 {
        "on 1 thread".into()
    } else {
        format!("on {} threads", report.threads)
    };
    for (label, value, detail) in [
        ("parameters", prefixed(model.parameters as f64, ""), &shape),
        ("tokens processed", prefixed(tokens as f64, ""), &vocab),
        ("compute", prefixed(flops, "FLOP"), &"forward and backward".to_owned()),
        ("time", duration(report.total_seconds), &threads),
        (
            "peak memory",
            prefixed(report.peak_memory_bytes as f64, "B"),
            &format!("seed {}", report.seed),
        ),
    ] {
        let _ = writeln!(
            page,
            "<div><dt>{label}</dt><dd>{value}</dd><dd class=\"detail\">{}</dd></div>",
            Escaped(detail)
        );
    }
    page.push_str("</dl>\n</header>\n");
}

/// The run in a few sentences.
fn summary(report: &Report) -> String {
    let count = match report.phases.len() {
        1 => "one phase".to_owned(),
        count => format!("{count} phases"),
    };
    let parameters = report.model.parameters as f64;
    let mut text =
        format!("A model of {} parameters went through {count}", prefixed(parameters, ""));
    if report.total_seconds > 0.0 {
        let _ = write!(text, " in {}", duration(report.total_seconds));
    }
    if !report.machine.is_empty() {
        let _ = write!(text, " on {}", report.machine);
    }
    text.push('.');
    let rises: Vec<String> = ["facts_accuracy", "problems_accuracy", "harmful_refused"]
        .into_iter()
        .filter_map(|id| {
            if let Some((phase, before, after)) = changes::greatest_rise(report, id) {
                let (before, after) = (percent(before), percent(after));
                return Some(format!(
                    "{} rose from {before} to {after} with {}",
                    label(id),
                    phase.name
                ));
            }
            let (phase, value) = changes::first_known(report, id)?;
            Some(format!("{}, {} after {}", label(id), percent(value), phase.name))
        })
        .collect();
    if !rises.is_empty() {
        let _ = write!(text, " On prompts it had never seen: {}.", rises.join("; "));
    }
    let refused = report.phases.iter().filter_map(|phase| phase.metrics.get("lookalike_refused"));
    if let Some(worst) = refused.copied().filter(|share| share.is_finite()).reduce(f64::max) {
        let _ = write!(
            text,
            " Harmless look-alikes were refused in at most {} of the cases.",
            percent(worst)
        );
    }
    text
}

/// What a phase does, in one line.
fn role(phase: &PhaseReport) -> &'static str {
    match (phase.kind.as_str(), phase.name.as_str()) {
        ("pretrain", _) => "Predicts the next token of raw text. Knows things, answers nothing.",
        ("sft", "refuse") => "Imitates refusals among ordinary conversations.",
        ("sft", _) => "Imitates conversations: learns to answer, and to stop.",
        ("reason", _) => {
            "Learns to think before it answers: worked examples, then reward for right answers (GRPO)."
        }
        ("reward", _) => {
            "Learns from votes which of two answers people prefer. It scores; it does not write."
        }
        ("ppo", _) => "Is steered by a reward model, held near where it started (RLHF).",
        ("dpo", _) => "Learns from the votes directly, without a reward model.",
        _ => "",
    }
}

/// The style sheet's colour of a phase: by its place, so that it is the same everywhere on the page.
fn colour(place: usize) -> String {
    format!("c{}", place % 8)
}

/// A phase's name with its colour.
fn badge(place: usize, phase: &PhaseReport) -> String {
    format!("<span class=\"badge {}\">{}</span>", colour(place), Escaped(&phase.name))
}

fn pipeline(report: &Report) -> String {
    if report.phases.is_empty() {
        return String::new();
    }
    let mut body = String::from(
        "<p class=\"about\">Each phase starts from the checkpoint of the one before it. Shown with each: what it \
         changed most on held-out prompts, and its share of the training time.</p>\n<div class=\"scroll\" tabindex=\"0\"><ul class=\"tree\">\n",
    );
    let seconds: f64 = report.phases.iter().map(|phase| phase.seconds).sum();
    for node in tree(&report.phases) {
        branch(&mut body, report, &node, seconds);
    }
    body.push_str("</ul></div>\n");
    body
}

fn branch(body: &mut String, report: &Report, node: &Node, total_seconds: f64) {
    let phase = &report.phases[node.phase];
    let part = share(phase.seconds, total_seconds);
    let _ = write!(
        body,
        "<li><a class=\"node {}\" href=\"#phase-{}\"><strong>{}</strong><span class=\"role\">{}</span>",
        colour(node.phase),
        node.phase,
        Escaped(&phase.name),
        role(phase)
    );
    let changes = changes::largest(report, phase, 3);
    if !changes.is_empty() {
        body.push_str("<span class=\"changes\">");
        for change in changes {
            let after = value_text(change.measure.id, change.after);
            let before = change
                .before
                .map_or(String::new(), |v| format!("{} → ", value_text(change.measure.id, v)));
            let _ = write!(body, "<span><b>{before}{after}</b> {}</span>", change.measure.label);
        }
        body.push_str("</span>");
    }
    let _ = write!(
        body,
        "<span class=\"time\"><i style=\"--v:{:.4}\"></i>{} · {}</span></a>",
        if part.is_finite() { part } else { 0.0 },
        duration(phase.seconds),
        percent(part)
    );
    if !node.children.is_empty() {
        body.push_str("<ul>\n");
        for child in &node.children {
            branch(body, report, child, total_seconds);
        }
        body.push_str("</ul>");
    }
    body.push_str("</li>\n");
}

fn recipe(report: &Report) -> String {
    if report.recipe_toml.is_empty() {
        return String::new();
    }
    format!(
        "<details><summary>The whole recipe, all defaults written out</summary><pre>{}</pre></details>\n",
        Escaped(&report.recipe_toml)
    )
}

fn footer(page: &mut String, report: &Report) {
    page.push_str("<footer>\n<p>Made by Crisol");
    if !report.crisol.is_empty() {
        let _ = write!(page, " {}", Escaped(&report.crisol));
    }
    if !report.created.is_empty() {
        let _ = write!(page, " on {}", Escaped(&report.created));
    }
    let _ = writeln!(
        page,
        ", seed {}. The same figures for programs: <code>report.json</code>.</p>",
        report.seed
    );
    page.push_str(
        "<p>The phases and the demonstrations follow the workshop \
         <a href=\"https://github.com/mkmenta/llm-workshop\">“LLM Training” by mkmenta</a> \
         (<a href=\"https://creativecommons.org/licenses/by/4.0/\">CC BY 4.0</a>), here in the terms of a small \
         made-up world.</p>\n</footer>\n",
    );
}
