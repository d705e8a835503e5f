//! How the phases learned: curves and figures of each, completions sampled while training, and pictures of
//! which tokens are trained.

use std::fmt::Write as _;

use super::{answers, badge, colour, role};
use crate::figures::{duration, percent, plain, prefixed, share};
use crate::markup::Escaped;
use crate::measures::{self, Better, MEASURES, Unit, measure, value_text};
use crate::plot::{Across, Line, chart};
use crate::{Curve, PhaseReport, Report, RolloutSample};

pub(super) fn phases(report: &Report) -> String {
    let mut body = String::new();
    for (place, phase) in report.phases.iter().enumerate() {
        let _ = write!(
            body,
            "<article class=\"phase {}\" id=\"phase-{place}\">\n<h3>{}</h3>\n<p class=\"about\">{}</p>\n<p class=\"facts\">",
            colour(place),
            badge(place, phase),
            role(phase)
        );
        if let Some(parent) = &phase.parent {
            let _ = write!(body, "<span>from {}</span>", Escaped(parent));
        }
        let _ = write!(
            body,
            "<span>{} tokens</span><span>{}</span><span>{}</span>",
            prefixed(phase.tokens as f64, ""),
            prefixed(phase.flops, "FLOP"),
            duration(phase.seconds)
        );
        if phase.expected_seconds > 0.0 {
            let _ = write!(body, "<span>{} expected</span>", duration(phase.expected_seconds));
        }
        if phase.peak_memory_bytes > 0 && phase.expected_memory_bytes > 0 {
            let [peak, expected] = [phase.peak_memory_bytes, phase.expected_memory_bytes]
                .map(|bytes| prefixed(bytes as f64, "B"));
            let _ = write!(body, "<span>{peak} of memory, {expected} expected</span>");
        }
        if phase.sampling_seconds > 0.0 {
            let part = percent(share(phase.sampling_seconds, phase.seconds));
            let _ = write!(body, "<span>{part} of it sampling answers</span>");
        }
        if !phase.checkpoint.is_empty() {
            let _ = write!(body, "<span><code>{}</code></span>", Escaped(&phase.checkpoint));
        }
        body.push_str("</p>\n");
        metrics(&mut body, phase);
        for note in &phase.notes {
            let _ = writeln!(body, "<p class=\"note\">{}</p>", Escaped(note));
        }
        curves(&mut body, &phase.curves);
        body.push_str("</article>\n");
    }
    body
}

/// The figures of a phase that are not in the table of behaviours.
fn metrics(body: &mut String, phase: &PhaseReport) {
    // In the order of the table, then those that it does not know.
    let rank = |id: &str| {
        let place = measure(id).map(|known| MEASURES.iter().position(|row| row.id == known.id));
        (place.flatten().unwrap_or(MEASURES.len()), id.to_owned())
    };
    let in_behaviours = |id: &str| MEASURES.iter().any(|row| row.behaviour && row.id == id);
    let mut figures: Vec<_> = phase.metrics.iter().filter(|(id, _)| !in_behaviours(id)).collect();
    figures.sort_by_key(|(id, _)| rank(id));
    if figures.is_empty() {
        return;
    }
    body.push_str("<dl class=\"figures\">");
    for (id, value) in figures {
        let _ = write!(
            body,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            Escaped(&measures::label(id)),
            Escaped(&value_text(id, *value))
        );
    }
    body.push_str("</dl>\n");
}

/// The plots of a phase.
fn curves(body: &mut String, curves: &[Curve]) {
    if curves.is_empty() {
        return;
    }
    body.push_str("<div class=\"charts\">\n");
    let mut groups: Vec<(&str, Vec<&Curve>)> = Vec::new();
    for curve in curves {
        let (plot, _) = measures::plot_and_line(&curve.name);
        match groups.iter_mut().find(|(name, _)| *name == plot) {
            Some((_, members)) => members.push(curve),
            None => groups.push((plot, vec![curve])),
        }
    }
    let unpaid = curves.iter().any(|curve| curve.name == "reward" && is_zero(curve));
    for (group, members) in groups {
        let known = measure(group);
        let unit = match known.map(|measure| measure.unit) {
            _ if !members[0].unit.is_empty() => members[0].unit.as_str(),
            Some(Unit::Plain(unit)) => unit,
            Some(Unit::Share) => "share",
            None => "",
        };
        let lines: Vec<Line<'_>> = members
            .iter()
            .enumerate()
            .map(|(place, curve)| Line {
                label: measures::plot_and_line(&curve.name).1,
                points: &curve.points,
                style: place % 4,
                dots: false,
            })
            .collect();
        let title = measures::label(group);
        let _ = write!(body, "<figure><figcaption><strong>{}</strong>", Escaped(&title));
        if !unit.is_empty() && unit != "share" {
            let _ = write!(body, " <small>{}</small>", Escaped(unit));
        }
        if lines.len() > 1 {
            body.push_str("<span class=\"legend\">");
            for line in &lines {
                let _ =
                    write!(body, "<span class=\"l{}\">{}</span>", line.style, Escaped(&line.label));
            }
            body.push_str("</span>");
        }
        let _ =
            write!(body, "</figcaption>{}", chart(&title, &lines, unit == "share", Across::Steps));
        let hint = match known {
            Some(known)
                if known.better == Better::Higher && members.iter().all(|curve| is_zero(curve)) =>
            {
                "0 throughout."
            }
            Some(known) if known.id == "zero_spread" && unpaid => {
                "Nothing was ever earned, so no group teaches anything: see the notes of the phase."
            }
            Some(known) => known.hint,
            None => "",
        };
        if !hint.is_empty() {
            let _ = write!(body, "<p>{hint}</p>");
        }
        body.push_str("</figure>\n");
    }
    body.push_str("</div>\n");
}

/// Whether a curve never leaves 0.
fn is_zero(curve: &Curve) -> bool {
    curve.points.iter().all(|(_, value)| *value == 0.0)
}

pub(super) fn rollouts(report: &Report) -> String {
    /// Samples of a phase that are shown before a click.
    const OPEN: usize = 6;
    let mut body = String::new();
    if report.rollouts.is_empty() {
        return body;
    }
    body.push_str(
        "<p class=\"about\">What the model wrote while it was trained by reward, and what it earned.</p>\n",
    );
    let mut phases: Vec<&str> =
        report.rollouts.iter().map(|sample| sample.phase.as_str()).collect();
    // Phases ask for their samples one after the other, so equal names are neighbours.
    phases.dedup();
    for name in phases {
        let place = report.phases.iter().position(|phase| phase.name == name);
        let class = place.map_or(String::new(), colour);
        let samples: Vec<&RolloutSample> =
            report.rollouts.iter().filter(|sample| sample.phase == name).collect();
        let _ = write!(
            body,
            "<h3><span class=\"badge {class}\">{}</span></h3>\n<div class=\"samples\">\n",
            Escaped(name)
        );
        for sample in samples.iter().take(OPEN) {
            rollout(&mut body, sample);
        }
        body.push_str("</div>\n");
        if samples.len() > OPEN {
            let _ = writeln!(
                body,
                "<details><summary>{} more</summary><div class=\"samples\">",
                samples.len() - OPEN
            );
            for sample in &samples[OPEN..] {
                rollout(&mut body, sample);
            }
            body.push_str("</div></details>\n");
        }
    }
    body
}

fn rollout(body: &mut String, sample: &RolloutSample) {
    let _ = write!(
        body,
        "<div class=\"sample\"><p class=\"facts\"><span>step {}</span><span class=\"reward\">reward {}</span>",
        sample.step,
        plain(sample.reward)
    );
    for (part, value) in &sample.parts {
        let _ = write!(body, "<span>{} {}</span>", Escaped(&measures::label(part)), plain(*value));
    }
    let _ = writeln!(
        body,
        "</p><blockquote class=\"given\">{}</blockquote><div class=\"said\">{}</div></div>",
        Escaped(&sample.prompt),
        answers::text(&sample.completion)
    );
}

pub(super) fn masks(report: &Report) -> String {
    let mut body = String::new();
    if report.masks.is_empty() {
        return body;
    }
    body.push_str(
        "<p class=\"about\">Training examples as the loss sees them. Only the \
         <mark>marked tokens</mark> are trained; the others are read but not learnt. This mask is most of the \
         difference between pre-training and fine-tuning.</p>\n<div class=\"masks\">\n",
    );
    for mask in &report.masks {
        let place = report.phases.iter().position(|phase| phase.name == mask.phase);
        let _ = write!(
            body,
            "<figure class=\"mask\"><figcaption><span class=\"badge {}\">{}</span> {}</figcaption><pre>",
            place.map_or(String::new(), colour),
            Escaped(&mask.phase),
            Escaped(&mask.title)
        );
        for (text, trained) in &mask.spans {
            let _ = if *trained {
                write!(body, "<mark>{}</mark>", Escaped(text))
            } else {
                write!(body, "{}", Escaped(text))
            };
        }
        body.push_str("</pre></figure>\n");
    }
    body.push_str("</div>\n");
    body
}
