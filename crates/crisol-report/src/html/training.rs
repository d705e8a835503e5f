//! How the phases learned: curves and figures of each, completions sampled while training, and
//! pictures of which tokens are trained.

use std::fmt::Write as _;

use super::{answers, badge, colour, fold, role};
use crate::figures::share;
use crate::markup::Escaped;
use crate::measures::{self, Better, MEASURES, Unit, measure, value_text};
use crate::plot::{Line, XAxis, chart};
use crate::sentences::sentence;
use crate::{Curve, Language, MaskPicture, PhaseReport, Report, RolloutSample};

pub(super) fn phases(report: &Report, language: Language) -> String {
    let texts = &language.texts().training;
    let mut body = String::new();
    for (index, phase) in report.phases.iter().enumerate() {
        let role = role(phase, language);
        let mut inside = format!("<p class=\"about\" id=\"phase-{index}\">{role}</p>\n");
        facts(&mut inside, report, phase, language);
        metrics(&mut inside, phase, language);
        for note in &phase.notes {
            let _ =
                writeln!(inside, "<p class=\"note\">{}</p>", Escaped(&sentence(note, language)));
        }
        for (title, curves) in stages(phase, language) {
            if !title.is_empty() {
                let _ = writeln!(inside, "<h4 class=\"stage\">{title}</h4>");
            }
            charts(&mut inside, &curves, language);
        }
        let mut summary = badge(index, phase);
        let notes = match phase.notes.len() {
            0 => String::new(),
            count => format!(" · {}", (texts.notes)(count)),
        };
        let _ = write!(
            summary,
            " <span class=\"snippet\">{} · {}{notes}</span>",
            language.duration(phase.seconds),
            tokens(phase, language)
        );
        let class = format!("phase {}", colour(index));
        body.push_str(&fold(&class, &summary, &inside, report.phases.len() == 1));
    }
    body
}

/// Tokens that a phase processed.
fn tokens(phase: &PhaseReport, language: Language) -> String {
    (language.texts().top.tokens)([&language.prefixed(phase.tokens as f64, "")])
}

/// A phase's starting point, time and compute.
fn facts(body: &mut String, report: &Report, phase: &PhaseReport, language: Language) {
    let (texts, path) = (&language.texts().training, &language.texts().path);
    let mut facts = Vec::new();
    facts.extend(phase.parent.as_ref().map(|parent| (path.from)([&Escaped(parent)])));
    let scorer = phase.reward_model.as_ref();
    let scorer = scorer.filter(|name| report.phases.iter().any(|phase| phase.name == **name));
    facts.extend(scorer.map(|scorer| (path.scored_by)([&Escaped(scorer)])));
    facts.push(tokens(phase, language));
    facts.push(language.prefixed(phase.flops, "FLOP"));
    facts.push(language.duration(phase.seconds));
    if phase.expected_seconds > 0.0 {
        facts.push((texts.forecast)([&language.duration(phase.expected_seconds)]));
    }
    if phase.peak_memory_bytes > 0 && phase.expected_memory_bytes > 0 {
        let [peak, expected] = [phase.peak_memory_bytes, phase.expected_memory_bytes]
            .map(|bytes| language.prefixed(bytes as f64, "B"));
        facts.push((texts.memory)([&peak, &expected]));
    }
    if phase.sampling_seconds > 0.0 {
        let part = language.percent(share(phase.sampling_seconds, phase.seconds));
        facts.push((texts.sampling)([&part]));
    }
    if !phase.checkpoint.is_empty() {
        facts.push(format!("<code>{}</code>", Escaped(&phase.checkpoint)));
    }
    body.push_str("<p class=\"facts\">");
    for fact in facts {
        let _ = write!(body, "<span>{fact}</span>");
    }
    body.push_str("</p>\n");
}

/// The step at which a reasoning phase begins to use a reward; `None` where it does from the first.
///
/// Such a phase counts its steps over both stages. Only the second has a reward, at every step:
/// what comes before the first is the cold start.
pub(super) fn reinforced_from(phase: &PhaseReport) -> Option<f64> {
    let first = |curve: &Curve| curve.points.first().map(|point| point.0);
    let rewarded = phase.curves.iter().find(|curve| curve.name == "reward").and_then(first)?;
    let mut starts = phase.curves.iter().filter_map(first);
    (phase.kind == "reason" && starts.any(|start| start < rewarded)).then_some(rewarded)
}

/// A phase's curves by stage, with headings if there are several stages.
fn stages(phase: &PhaseReport, language: Language) -> Vec<(String, Vec<Curve>)> {
    let texts = &language.texts().training;
    let Some(began) = reinforced_from(phase) else {
        return vec![(String::new(), phase.curves.clone())];
    };
    let part = |after: bool| -> Vec<Curve> {
        let within = |(step, _): &(f64, f64)| (*step >= began) == after;
        let cut = |curve: &Curve| Curve {
            points: curve.points.iter().copied().filter(within).collect(),
            ..curve.clone()
        };
        phase.curves.iter().map(cut).filter(|curve| !curve.points.is_empty()).collect()
    };
    let titled = |title: &str, after: bool| {
        let curves = part(after);
        let steps = || curves.iter().flat_map(|curve| &curve.points).map(|point| point.0);
        let (from, to) =
            (steps().fold(f64::INFINITY, f64::min), steps().fold(f64::NEG_INFINITY, f64::max));
        ((texts.stage)([&title, &language.plain(from), &language.plain(to)]), curves)
    };
    vec![titled(texts.cold_start, false), titled("GRPO", true)]
}

/// The figures of a phase that are in no table: of behaviours, or of held-out data before and after
/// it.
fn metrics(body: &mut String, phase: &PhaseReport, language: Language) {
    // In the order of the table, then those that it does not know.
    let rank = |id: &str| {
        let index = measure(id).map(|known| MEASURES.iter().position(|row| row.id == known.id));
        (index.flatten().unwrap_or(MEASURES.len()), id.to_owned())
    };
    let in_table = |id: &str| {
        phase.before.contains_key(id) || MEASURES.iter().any(|row| row.behaviour && row.id == id)
    };
    let mut figures: Vec<_> = phase.metrics.iter().filter(|(id, _)| !in_table(id)).collect();
    figures.sort_by_key(|(id, _)| rank(id));
    if figures.is_empty() {
        return;
    }
    body.push_str("<dl class=\"figures\">");
    for (id, value) in figures {
        let _ = write!(
            body,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            Escaped(&measures::label(id, language)),
            Escaped(&value_text(id, *value, language))
        );
    }
    body.push_str("</dl>\n");
}

/// The plots of a stage.
fn charts(body: &mut String, curves: &[Curve], language: Language) {
    let texts = &language.texts().training;
    if curves.is_empty() {
        return;
    }
    body.push_str("<div class=\"charts\">\n");
    let mut groups: Vec<(&str, Vec<&Curve>)> = Vec::new();
    for curve in curves {
        let (plot, _) = measures::plot_and_line(&curve.name, language);
        match groups.iter_mut().find(|(name, _)| *name == plot) {
            Some((_, members)) => members.push(curve),
            None => groups.push((plot, vec![curve])),
        }
    }
    // What is trained by reward minimises no cross-entropy.
    let rewarded = curves.iter().any(|curve| curve.name == "reward");
    let unpaid = curves.iter().any(|curve| curve.name == "reward" && is_zero(curve));
    for (group, members) in groups {
        let group = if group == "loss" && rewarded { "policy_loss" } else { group };
        let known = measure(group);
        let unit = match known.map(|measure| measure.unit) {
            _ if !members[0].unit.is_empty() => members[0].unit.as_str(),
            Some(Unit::Plain(unit)) => unit,
            Some(Unit::Share) => "share",
            None => "",
        };
        let title = measures::label(group, language);
        let alone = members.len() == 1;
        let lines: Vec<Line<'_>> = members
            .iter()
            .enumerate()
            .map(|(index, curve)| Line {
                label: if alone {
                    title.clone()
                } else {
                    measures::plot_and_line(&curve.name, language).1
                },
                points: &curve.points,
                style: index % 4,
                dots: false,
            })
            .collect();
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
        let drawn = chart(&title, &lines, unit == "share", XAxis::Steps, language);
        let _ = write!(body, "</figcaption>{drawn}");
        let hint = match known {
            Some(known)
                if known.better == Better::Higher && members.iter().all(|curve| is_zero(curve)) =>
            {
                texts.zero_throughout
            }
            Some(known) if known.id == "zero_spread" && unpaid => texts.never_paid,
            Some(known) => language.of(known.hint),
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

pub(super) fn rollouts(report: &Report, language: Language) -> String {
    let texts = &language.texts().training;
    if report.rollouts.is_empty() {
        return String::new();
    }
    let mut body = format!("<p class=\"about\">{}</p>\n", texts.rollouts);
    let mut phases: Vec<&str> =
        report.rollouts.iter().map(|sample| sample.phase.as_str()).collect();
    // Phases ask for their samples one after the other, so equal names are neighbours.
    phases.dedup();
    for name in phases {
        let index = report.phases.iter().position(|phase| phase.name == name);
        let class = index.map_or(String::new(), colour);
        let samples: Vec<&RolloutSample> =
            report.rollouts.iter().filter(|sample| sample.phase == name).collect();
        let mut inside = String::from("<div class=\"samples\">\n");
        for sample in &samples {
            rollout(&mut inside, sample, language);
        }
        inside.push_str("</div>\n");
        let (count, from, to) = (samples.len(), samples[0].step, samples[samples.len() - 1].step);
        let steps = if from == to { (texts.step)([&from]) } else { (texts.steps)([&from, &to]) };
        let summary = format!(
            "<span class=\"badge {class}\">{}</span> \
             <span class=\"snippet\">{steps}, {}</span>",
            Escaped(name),
            (texts.samples)(count)
        );
        body.push_str(&fold("", &summary, &inside, false));
    }
    body
}

fn rollout(body: &mut String, sample: &RolloutSample, language: Language) {
    let texts = &language.texts().training;
    let _ = write!(
        body,
        "<div class=\"sample\"><p class=\"facts\"><span>{}</span>\
         <span class=\"reward\">{}</span>",
        (texts.step)([&sample.step]),
        (texts.reward)([&language.plain(sample.reward)])
    );
    for (part, value) in &sample.parts {
        let (part, value) = (measures::label(part, language), language.plain(*value));
        let _ = write!(body, "<span>{} {value}</span>", Escaped(&part));
    }
    let _ = writeln!(
        body,
        "</p><blockquote class=\"given\">{}</blockquote><div class=\"output\">{}</div></div>",
        Escaped(&sample.prompt),
        answers::text(&sample.completion, language)
    );
}

pub(super) fn masks(report: &Report, language: Language) -> String {
    let texts = &language.texts().training;
    let Some((first, others)) = report.masks.split_first() else { return String::new() };
    let mut body = format!("<p class=\"about\">{}</p>\n<div class=\"masks\">\n", texts.masks);
    mask(&mut body, report, first);
    body.push_str("</div>\n");
    if !others.is_empty() {
        let mut inside = String::from("<div class=\"masks\">\n");
        for other in others {
            mask(&mut inside, report, other);
        }
        inside.push_str("</div>\n");
        body.push_str(&fold("", &(texts.more)(others.len()), &inside, false));
    }
    body
}

fn mask(body: &mut String, report: &Report, mask: &MaskPicture) {
    let index = report.phases.iter().position(|phase| phase.name == mask.phase);
    let _ = write!(
        body,
        "<figure class=\"mask\"><figcaption><span class=\"badge {}\">{}</span> {}\
         </figcaption><pre>",
        index.map_or(String::new(), colour),
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
