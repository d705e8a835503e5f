//! The tables: what was measured after each phase, on its own held-out data, and what each phase
//! cost.

use std::fmt::Write as _;

use super::answers::Column;
use super::{badge, fold};
use crate::figures::{NONE, share};
use crate::markup::Escaped;
use crate::measures::{Better, MEASURES, Measure, Unit};
use crate::terminal::before_and_after;
use crate::{Language, PhaseReport, Report, changes};

pub(super) fn behaviours(report: &Report, columns: &[Column], language: Language) -> String {
    let texts = &language.texts().tables;
    let measured = |phase: &PhaseReport, measure: &Measure| phase.metrics.contains_key(measure.id);
    let rows: Vec<&Measure> = MEASURES
        .iter()
        .filter(|measure| {
            measure.behaviour && report.phases.iter().any(|phase| measured(phase, measure))
        })
        .collect();
    let phases: Vec<(usize, &PhaseReport)> = report
        .phases
        .iter()
        .enumerate()
        .filter(|(_, phase)| rows.iter().any(|measure| measured(phase, measure)))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    // A phone shows the column that was picked.
    let picked = |phase: &PhaseReport| {
        let at = columns.iter().position(|column| column.key.as_ref() == Some(&phase.name));
        at.map_or(String::new(), |at| format!("of of-{at}"))
    };
    let mut body = format!(
        "<p class=\"about\">{}</p>\n\
         <div class=\"scroll\" tabindex=\"0\"><table class=\"behaviours{}\">\n\
         <thead><tr><th scope=\"col\">{}</th>",
        texts.behaviours,
        if phases.len() == 1 { " narrow" } else { "" },
        texts.measure
    );
    for (index, phase) in &phases {
        let picked = picked(phase);
        let _ = write!(body, "<th scope=\"col\" class=\"{picked}\">{}</th>", badge(*index, phase));
    }
    body.push_str("</tr></thead>\n<tbody>\n");
    for measure in rows {
        let arrow = |title, arrow| format!("&nbsp;<abbr title=\"{title}\">{arrow}</abbr>");
        let direction = match measure.better {
            Better::Higher => arrow(texts.more_is_better, '↑'),
            Better::Lower => arrow(texts.less_is_better, '↓'),
            Better::Neither => String::new(),
        };
        let label = language.of(measure.label);
        let _ = write!(body, "<tr><th scope=\"row\">{label}{direction}</th>");
        for (_, phase) in &phases {
            let before = changes::before(report, phase, measure.id);
            let value = phase.metrics.get(measure.id).copied();
            body.push_str(&cell(&picked(phase), measure, value, before, language));
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</tbody></table></div>\n");
    body
}

/// Maximum rows of held-out measures that are not folded.
const OPEN_ROWS: usize = 6;

/// What was measured on held-out data before each phase and after it.
pub(super) fn held_out(report: &Report, language: Language) -> String {
    let texts = &language.texts().tables;
    let both = |phase| before_and_after(phase, language);
    let rows: Vec<_> = report.phases.iter().enumerate().flat_map(both).collect();
    if rows.is_empty() {
        return String::new();
    }
    let count = rows.len();
    let mut body = format!(
        "<div class=\"scroll\" tabindex=\"0\"><table class=\"cost\">\n<thead><tr>\
         <th scope=\"col\">{}</th><th scope=\"col\" class=\"words\">{}</th>\
         <th scope=\"col\">{}</th><th scope=\"col\">{}</th></tr></thead>\n<tbody>\n",
        texts.phase, texts.measure, texts.before, texts.after
    );
    for (index, phase, [what, before, after]) in rows {
        let _ = writeln!(
            body,
            "<tr class=\"{}\"><th scope=\"row\">{}</th><td class=\"words\">{}</td>\
             <td>{before}</td><td>{after}</td></tr>",
            super::colour(index),
            badge(index, phase),
            Escaped(&what),
        );
    }
    body.push_str("</tbody></table></div>\n");
    if count <= OPEN_ROWS || report.phases.len() == 1 {
        return body;
    }
    fold("", &(texts.held_out)(count), &body, false)
}

/// One figure of the table of behaviours, with its change and bar.
fn cell(
    class: &str,
    measure: &Measure,
    value: Option<f64>,
    before: Option<f64>,
    language: Language,
) -> String {
    let Some(value) = value.filter(|value| value.is_finite()) else {
        return format!("<td class=\"none {class}\">{NONE}</td>");
    };
    if measure.unit != Unit::Share {
        return format!("<td class=\"{class}\">{}</td>", language.plain(value));
    }
    let mut html = format!("<td class=\"{class}\">{}", language.percent(value));
    let points = before.map_or(0.0, |before| ((value - before) * 100.0).round());
    if points != 0.0 && points.is_finite() {
        let sign = if points > 0.0 { '+' } else { '−' };
        let _ = write!(html, " <small>{sign}{}</small>", points.abs());
    }
    let value = value.clamp(0.0, 1.0);
    let goodness = match measure.better {
        Better::Higher => Some(value),
        Better::Lower => Some(1.0 - value),
        Better::Neither => None,
    };
    let (class, goodness) = goodness.map_or((" class=\"grey\"", 0.0), |goodness| ("", goodness));
    let _ =
        write!(html, "<i{class} style=\"--v:{value:.3};--g:{:.0}%\"></i></td>", goodness * 100.0);
    html
}

pub(super) fn cost(report: &Report, language: Language) -> String {
    let texts = &language.texts().tables;
    // What a single phase cost stands with its curves: there is nothing to compare it with.
    if report.phases.len() < 2 {
        return String::new();
    }
    let tokens: u64 = report.phases.iter().map(|phase| phase.tokens).sum();
    let flops: f64 = report.phases.iter().map(|phase| phase.flops).sum();
    let seconds: f64 = report.phases.iter().map(|phase| phase.seconds).sum();
    let mut body = format!(
        "<div class=\"scroll\" tabindex=\"0\"><table class=\"cost\">\n<thead><tr>\
         <th scope=\"col\">{}</th><th scope=\"col\">{}</th>\
         <th scope=\"col\" class=\"wide\">{}</th><th scope=\"col\">{}</th>\
         <th scope=\"col\">{}</th><th scope=\"col\" class=\"wide\">{}</th></tr>\
         </thead>\n\
         <tbody>\n",
        texts.phase,
        texts.share_of_compute,
        texts.compute,
        texts.tokens,
        texts.time,
        texts.share_of_time
    );
    for (index, phase) in report.phases.iter().enumerate() {
        let _ = writeln!(
            body,
            "<tr class=\"{}\"><th scope=\"row\">{}</th>{}<td class=\"wide\">{}</td><td>{}</td>\
             <td>{}</td>{}</tr>",
            super::colour(index),
            badge(index, phase),
            share_cell("share", share(phase.flops, flops), language),
            language.prefixed(phase.flops, "FLOP"),
            language.prefixed(phase.tokens as f64, ""),
            language.duration(phase.seconds),
            share_cell("share wide", share(phase.seconds, seconds), language),
        );
    }
    let _ = write!(
        body,
        "</tbody>\n<tfoot><tr><th scope=\"row\">{}</th><td></td><td class=\"wide\">{}</td>\
         <td>{}</td><td>{}</td><td class=\"wide\"></td></tr>",
        texts.all_phases,
        language.prefixed(flops, "FLOP"),
        language.prefixed(tokens as f64, ""),
        language.duration(seconds)
    );
    if report.total_seconds > seconds {
        let _ = write!(
            body,
            "<tr><th scope=\"row\">{}</th><td></td>\
             <td class=\"wide\"></td><td></td><td>{}</td><td class=\"wide\"></td></tr>",
            texts.outside_phases,
            language.duration(report.total_seconds - seconds)
        );
    }
    body.push_str("</tfoot></table></div>\n");

    let pretraining: f64 = report
        .phases
        .iter()
        .filter(|phase| phase.kind == "pretrain")
        .map(|phase| phase.flops)
        .sum();
    let here = share(pretraining, flops);
    if here > 0.0 {
        let split = |whose: &str, here: f64| split(whose, here, language);
        let _ = write!(
            body,
            "<h3>{}</h3>\n<div class=\"splits\">\n{}{}</div>\n",
            texts.pretraining,
            split(texts.this_run, here),
            split(texts.the_workshop, 0.95)
        );
        let sources = format!("<p class=\"about\">{}</p>", texts.sources);
        body.push_str(&fold("", texts.where_from, &sources, false));
    }
    body
}

/// A share with its bar.
fn share_cell(class: &str, part: f64, language: Language) -> String {
    let bar = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
    let part = language.percent(part);
    format!("<td class=\"{class}\"><i style=\"--v:{bar:.4}\"></i><span>{part}</span></td>")
}

/// A bar of two parts: pre-training and the rest.
fn split(whose: &str, pretraining: f64, language: Language) -> String {
    let whole = |part: f64| language.percent((part * 100.0).round() / 100.0);
    let split = language.texts().tables.split;
    let said = split([&whose, &whole(pretraining), &whole(1.0 - pretraining)]);
    format!(
        "<div class=\"split\"><span>{said}</span><i style=\"--v:{pretraining:.4}\"></i></div>\n"
    )
}
