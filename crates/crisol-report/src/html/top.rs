//! The top of the report: the model and the results of its training, in a few sentences.

use std::fmt::Write as _;

use crate::markup::Escaped;
use crate::measures::label;
use crate::sentences::sentence;
use crate::terminal::before_and_after;
use crate::{Language, Report, changes};

pub(super) fn header(report: &Report, title: &str, language: Language) -> String {
    let texts = &language.texts().top;
    let mut html = format!(
        "<header id=\"top\">\n<h1>{}</h1>\n<p class=\"lead\">{}</p>\n<p class=\"facts\">",
        Escaped(title),
        Escaped(&summary(report, language))
    );
    let tokens: u64 = report.phases.iter().map(|phase| phase.tokens).sum();
    let flops: f64 = report.phases.iter().map(|phase| phase.flops).sum();
    let model = &report.model;
    let mut facts = vec![
        language.parameters(model),
        (texts.shape)([&model.layers, &model.hidden, &model.heads]),
        (texts.sizes)([&model.vocab, &model.context]),
        (texts.tokens)([&language.prefixed(tokens as f64, "")]),
        language.prefixed(flops, "FLOP"),
    ];
    if report.peak_memory_bytes > 0 {
        facts.push((texts.memory)([&language.prefixed(report.peak_memory_bytes as f64, "B")]));
    }
    facts.push((texts.threads)(report.threads));
    facts.push((texts.seed)([&report.seed]));
    for fact in facts {
        let _ = write!(html, "<span>{}</span>", Escaped(&fact));
    }
    html + "</p>\n</header>\n"
}

/// The run in a few sentences.
fn summary(report: &Report, language: Language) -> String {
    let texts = &language.texts().top;
    let phases = match report.phases.as_slice() {
        [phase] => (texts.one_phase)([&phase.name]),
        phases => (texts.phases)(phases.len()),
    };
    let parameters = language.parameters(&report.model);
    let mut text = (texts.went_through)([&parameters, &phases]);
    if report.total_seconds > 0.0 {
        text += &(texts.took)([&language.duration(report.total_seconds)]);
    }
    if !report.machine.is_empty() {
        text += &(texts.on_machine)([&sentence(&report.machine, language)]);
    }
    text.push('.');
    if let [phase] = report.phases.as_slice()
        && let Some((_, _, [what, before, after])) = before_and_after((0, phase), language).next()
    {
        text += &(texts.went_from)([&what, &before, &after]);
    }
    let rises: Vec<String> = ["facts_accuracy", "problems_accuracy", "harmful_refused"]
        .into_iter()
        .filter_map(|id| {
            let what = label(id, language);
            if let Some((phase, before, after)) = changes::greatest_rise(report, id) {
                let (before, after) = (language.percent(before), language.percent(after));
                return Some((texts.rose)([&what, &before, &after, &phase.name]));
            }
            let (phase, value) = changes::first_known(report, id)?;
            Some((texts.known)([&what, &language.percent(value), &phase.name]))
        })
        .collect();
    if !rises.is_empty() {
        text += &(texts.on_held_out)([&rises.join("; ")]);
    }
    let refused = report.phases.iter().filter_map(|phase| phase.metrics.get("lookalike_refused"));
    match refused.copied().filter(|share| share.is_finite()).reduce(f64::max) {
        Some(worst) if worst > 0.0 => text += &(texts.most_refused)([&language.percent(worst)]),
        Some(_) => text += texts.none_refused,
        None => {}
    }
    text
}

pub(super) fn footer(report: &Report, language: Language) -> String {
    let texts = &language.texts().top;
    let mut html = format!("<footer>\n<p>{}", made_by(&report.crisol, &report.created, language));
    let _ = writeln!(html, "{}</p>", (texts.same_figures)([&report.seed]));
    let _ = writeln!(
        html,
        "<p>{} <a href=\"https://github.com/mkmenta/llm-workshop\">{}</a> \
         (<a href=\"https://creativecommons.org/licenses/by/4.0/\">CC BY 4.0</a>).</p>\n\
         </footer>",
        texts.follows, texts.workshop
    );
    html
}

/// Which version made a report, and when.
pub(super) fn made_by(version: &str, created: &str, language: Language) -> String {
    let texts = &language.texts().frame;
    let mut text = texts.made_by.to_owned();
    if !version.is_empty() {
        let _ = write!(text, " {}", Escaped(version));
    }
    if !created.is_empty() {
        text += &(texts.made_on)([&Escaped(&(texts.date)(created))]);
    }
    text
}
