//! The tables: what was measured after each phase, on its own held-out data, and what each phase
//! cost.

use std::fmt::Write as _;

use super::answers::Column;
use super::{badge, fold};
use crate::figures::{NONE, duration, percent, plain, prefixed, share};
use crate::markup::Escaped;
use crate::measures::{Better, MEASURES, Measure, Unit};
use crate::terminal::before_and_after;
use crate::{PhaseReport, Report, changes};

pub(super) fn behaviours(report: &Report, columns: &[Column]) -> String {
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
    let mut body = String::from(
        "<p class=\"about\">On held-out prompts. The small figure is the change in points against \
         the model that a phase started from. ↑ more is better, ↓ less is better. Bars turn from \
         <span class=\"key bad\">orange</span> to <span class=\"key good\">blue</span> as a figure \
         gets better, and are grey where neither is.</p>\n\
         <div class=\"scroll\" tabindex=\"0\"><table class=\"behaviours",
    );
    body.push_str(if phases.len() == 1 { " narrow" } else { "" });
    body.push_str("\">\n<thead><tr><th scope=\"col\">measure</th>");
    for (place, phase) in &phases {
        let picked = picked(phase);
        let _ = write!(body, "<th scope=\"col\" class=\"{picked}\">{}</th>", badge(*place, phase));
    }
    body.push_str("</tr></thead>\n<tbody>\n");
    for measure in rows {
        let direction = match measure.better {
            Better::Higher => "&nbsp;<abbr title=\"more is better\">↑</abbr>",
            Better::Lower => "&nbsp;<abbr title=\"less is better\">↓</abbr>",
            Better::Neither => "",
        };
        let _ = write!(body, "<tr><th scope=\"row\">{}{direction}</th>", measure.label);
        for (_, phase) in &phases {
            let before = changes::before(report, phase, measure.id);
            let value = phase.metrics.get(measure.id).copied();
            body.push_str(&cell(&picked(phase), measure, value, before));
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</tbody></table></div>\n");
    body
}

/// Up to so many rows of held-out measures stand open.
const OPEN_ROWS: usize = 6;

/// What was measured on held-out data before each phase and after it.
pub(super) fn held_out(report: &Report) -> String {
    let rows: Vec<_> = report.phases.iter().enumerate().flat_map(before_and_after).collect();
    if rows.is_empty() {
        return String::new();
    }
    let count = rows.len();
    let mut body = String::from(
        "<div class=\"scroll\" tabindex=\"0\"><table class=\"cost\">\n<thead><tr>\
         <th scope=\"col\">phase</th><th scope=\"col\" class=\"words\">measure</th>\
         <th scope=\"col\">before</th><th scope=\"col\">after</th></tr></thead>\n<tbody>\n",
    );
    for (place, phase, [what, before, after]) in rows {
        let _ = writeln!(
            body,
            "<tr class=\"{}\"><th scope=\"row\">{}</th><td class=\"words\">{}</td>\
             <td>{before}</td><td>{after}</td></tr>",
            super::colour(place),
            badge(place, phase),
            Escaped(&what),
        );
    }
    body.push_str("</tbody></table></div>\n");
    if count <= OPEN_ROWS || report.phases.len() == 1 {
        return body;
    }
    fold("", &format!("{count} measures of the phases' own held-out data"), &body, false)
}

/// One figure of the table of behaviours, with its change and bar.
fn cell(class: &str, measure: &Measure, value: Option<f64>, before: Option<f64>) -> String {
    let Some(value) = value.filter(|value| value.is_finite()) else {
        return format!("<td class=\"none {class}\">{NONE}</td>");
    };
    if measure.unit != Unit::Share {
        return format!("<td class=\"{class}\">{}</td>", plain(value));
    }
    let mut html = format!("<td class=\"{class}\">{}", percent(value));
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

pub(super) fn cost(report: &Report) -> String {
    // What a single phase cost stands with its curves: there is nothing to compare it with.
    if report.phases.len() < 2 {
        return String::new();
    }
    let tokens: u64 = report.phases.iter().map(|phase| phase.tokens).sum();
    let flops: f64 = report.phases.iter().map(|phase| phase.flops).sum();
    let seconds: f64 = report.phases.iter().map(|phase| phase.seconds).sum();
    let mut body = String::from(
        "<div class=\"scroll\" tabindex=\"0\"><table class=\"cost\">\n<thead><tr>\
         <th scope=\"col\">phase</th><th scope=\"col\">share of compute</th>\
         <th scope=\"col\" class=\"wide\">compute</th><th scope=\"col\">tokens</th>\
         <th scope=\"col\">time</th><th scope=\"col\" class=\"wide\">share of time</th></tr>\
         </thead>\n\
         <tbody>\n",
    );
    for (place, phase) in report.phases.iter().enumerate() {
        let _ = writeln!(
            body,
            "<tr class=\"{}\"><th scope=\"row\">{}</th>{}<td class=\"wide\">{}</td><td>{}</td>\
             <td>{}</td>{}</tr>",
            super::colour(place),
            badge(place, phase),
            share_cell("share", share(phase.flops, flops)),
            prefixed(phase.flops, "FLOP"),
            prefixed(phase.tokens as f64, ""),
            duration(phase.seconds),
            share_cell("share wide", share(phase.seconds, seconds)),
        );
    }
    let _ = write!(
        body,
        "</tbody>\n<tfoot><tr><th scope=\"row\">all phases</th><td></td><td class=\"wide\">{}</td>\
         <td>{}</td><td>{}</td><td class=\"wide\"></td></tr>",
        prefixed(flops, "FLOP"),
        prefixed(tokens as f64, ""),
        duration(seconds)
    );
    if report.total_seconds > seconds {
        let _ = write!(
            body,
            "<tr><th scope=\"row\">evaluation, data, files</th><td></td>\
             <td class=\"wide\"></td><td></td><td>{}</td><td class=\"wide\"></td></tr>",
            duration(report.total_seconds - seconds)
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
        body.push_str(
            "<h3>Pre-training against everything after it</h3>\n<div class=\"splits\">\n",
        );
        split(&mut body, "this run", here);
        split(&mut body, "the workshop", 0.95);
        body.push_str("</div>\n");
        body.push_str(&fold("", "Where these figures are from", SHARES, false));
    }
    body
}

const SHARES: &str = "\
<p class=\"about\">The workshop says that pre-training takes about 95 % of the compute, and \
everything after it about 5 %. DeepSeek-V3's authors publish 2.664 of 2.788 million GPU-hours, \
which is 95.6 %. OLMo-2 1B took about 1,464 GPU-hours after its pre-training. A small model reads \
its text in minutes. Conversations, rollouts and preference pairs shrink less: a behaviour needs \
some number of examples before it shows.</p>";

/// A share with its bar.
fn share_cell(class: &str, part: f64) -> String {
    let bar = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
    let part = percent(part);
    format!("<td class=\"{class}\"><i style=\"--v:{bar:.4}\"></i><span>{part}</span></td>")
}

/// A bar of two parts: pre-training and the rest.
fn split(body: &mut String, label: &str, pretraining: f64) {
    let whole = |part: f64| percent((part * 100.0).round() / 100.0);
    let _ = writeln!(
        body,
        "<div class=\"split\"><span>{label}: <b>{}</b> pre-training, <b>{}</b> after it</span>\
         <i style=\"--v:{pretraining:.4}\"></i></div>",
        whole(pretraining),
        whole(1.0 - pretraining)
    );
}
