//! The top of the report: the model and the results of its training, in a few sentences.

use std::fmt::Write as _;

use crate::figures::{duration, parameters, percent, prefixed};
use crate::markup::Escaped;
use crate::measures::label;
use crate::terminal::before_and_after;
use crate::{Report, changes};

pub(super) fn header(report: &Report, title: &str) -> String {
    let mut html = format!(
        "<header id=\"top\">\n<h1>{}</h1>\n<p class=\"lead\">{}</p>\n<p class=\"facts\">",
        Escaped(title),
        Escaped(&summary(report))
    );
    let tokens: u64 = report.phases.iter().map(|phase| phase.tokens).sum();
    let flops: f64 = report.phases.iter().map(|phase| phase.flops).sum();
    let model = &report.model;
    let threads = if report.threads == 1 { "thread" } else { "threads" };
    let mut facts = vec![
        parameters(model),
        format!("{} layers of width {}, {} heads", model.layers, model.hidden, model.heads),
        format!("vocabulary {}, context {}", model.vocab, model.context),
        format!("{} tokens", prefixed(tokens as f64, "")),
        prefixed(flops, "FLOP"),
    ];
    if report.peak_memory_bytes > 0 {
        facts.push(format!("{} of memory", prefixed(report.peak_memory_bytes as f64, "B")));
    }
    facts.push(format!("{} {threads}", report.threads));
    facts.push(format!("seed {}", report.seed));
    for fact in facts {
        let _ = write!(html, "<span>{}</span>", Escaped(&fact));
    }
    html + "</p>\n</header>\n"
}

/// The run in a few sentences.
fn summary(report: &Report) -> String {
    let went_through = match report.phases.as_slice() {
        [phase] => format!("one phase, {},", phase.name),
        phases => format!("{} phases", phases.len()),
    };
    let mut text = format!("A model of {} went through {went_through}", parameters(&report.model));
    if report.total_seconds > 0.0 {
        let _ = write!(text, " in {}", duration(report.total_seconds));
    }
    if !report.machine.is_empty() {
        let _ = write!(text, " on {}", report.machine);
    }
    text.push('.');
    if let [phase] = report.phases.as_slice()
        && let Some((_, _, [what, before, after])) = before_and_after((0, phase)).next()
    {
        let _ = write!(text, " The {what} went from {before} to {after}.");
    }
    let rises: Vec<String> = ["facts_accuracy", "problems_accuracy", "harmful_refused"]
        .into_iter()
        .filter_map(|id| {
            if let Some((phase, before, after)) = changes::greatest_rise(report, id) {
                let (before, after) = (percent(before), percent(after));
                let (label, name) = (label(id), &phase.name);
                return Some(format!("{label} rose from {before} to {after} with {name}"));
            }
            let (phase, value) = changes::first_known(report, id)?;
            Some(format!("{}, {} after {}", label(id), percent(value), phase.name))
        })
        .collect();
    if !rises.is_empty() {
        let _ = write!(text, " On held-out prompts: {}.", rises.join("; "));
    }
    let refused = report.phases.iter().filter_map(|phase| phase.metrics.get("lookalike_refused"));
    match refused.copied().filter(|share| share.is_finite()).reduce(f64::max) {
        Some(worst) if worst > 0.0 => {
            let worst = percent(worst);
            let _ = write!(text, " At most {worst} of harmless look-alikes were refused.");
        }
        Some(_) => text.push_str(" No harmless look-alike was refused."),
        None => {}
    }
    text
}

pub(super) fn footer(report: &Report) -> String {
    let mut html = String::from("<footer>\n<p>Made by Crisol");
    if !report.crisol.is_empty() {
        let _ = write!(html, " {}", Escaped(&report.crisol));
    }
    if !report.created.is_empty() {
        let _ = write!(html, " on {}", Escaped(&report.created));
    }
    let _ = writeln!(
        html,
        ", seed {}. The same figures for programs: <code>report.json</code>.</p>",
        report.seed
    );
    html + "<p>The phases follow the workshop \
            <a href=\"https://github.com/mkmenta/llm-workshop\">“LLM Training” by mkmenta</a> \
            (<a href=\"https://creativecommons.org/licenses/by/4.0/\">CC BY 4.0</a>).</p>\n\
            </footer>\n"
}
