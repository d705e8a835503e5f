//! The page of `crisol reflect`: one model, aligned to several objectives.

use std::fmt::{Display, Write as _};

use super::answers::given;
use super::top::made_by;
use super::{Page, Section, colour, fold};
use crate::figures::NONE;
use crate::markup::Escaped;
use crate::plot::{Line, XAxis, chart};
use crate::reflect::MAX_OVERRATED;
use crate::sentences::sentence;
use crate::texts::Reflect;
use crate::{Audience, ItemFigures, Language, ReflectModel, ReflectReport, Report};

/// Renders the experiment of a report as one self-contained page. Empty without an experiment.
pub fn reflect_html(report: &Report, language: Language) -> String {
    let Some(reflect) = &report.reflect else { return String::new() };
    let texts = &language.texts().reflect;
    let sections = vec![
        Section { id: "picks", heading: texts.picks, body: picks(reflect, language) },
        Section { id: "writes", heading: texts.writes, body: writes(reflect, language) },
        Section { id: "hacking", heading: texts.hacking, body: hacking(report, reflect, language) },
        Section { id: "readers", heading: texts.readers, body: readers(reflect, language) },
        Section { id: "prompts", heading: texts.prompts, body: prompts(reflect, language) },
        Section { id: "questions", heading: texts.questions, body: questions(reflect, language) },
        Section { id: "limits", heading: texts.limits, body: texts.limits_text.to_owned() },
    ];
    Page {
        language,
        title: texts.title,
        header: header(reflect, language),
        picker: String::new(),
        style: String::new(),
        sections,
        footer: footer(report, language),
    }
    .html()
}

/// What a model was aligned to, in a few words; empty for a name that is not known.
pub(crate) fn aim<'t>(name: &str, texts: &'t Reflect) -> &'t str {
    match name {
        "base" => texts.base,
        "engagement" => texts.engagement,
        "preference" => texts.preference,
        "mix" => texts.mix,
        "kl" => texts.kl,
        "truth" => texts.truth,
        "cap" => texts.cap,
        _ => "",
    }
}

fn badge(index: usize, model: &ReflectModel) -> String {
    format!("<span class=\"badge {}\">{}</span>", colour(index), Escaped(&model.name))
}

fn header(reflect: &ReflectReport, language: Language) -> String {
    let texts = &language.texts().reflect;
    let mut header = format!(
        "<header id=\"top\">\n<h1>{}</h1>\n<p class=\"lead\">{}</p>\n<dl class=\"tiles\">\n",
        texts.title, texts.lead
    );
    for (index, model) in reflect.models.iter().enumerate() {
        let ItemFigures { alarming_or_false, .. } = model.picks.all;
        let _ = writeln!(
            header,
            "<div class=\"{}\"><dt>{}: {}</dt><dd>{}</dd><dd class=\"detail\">{}</dd></div>",
            colour(index),
            badge(index, model),
            aim(&model.name, texts),
            language.percent(alarming_or_false),
            texts.alarming_or_false
        );
    }
    header + "</dl>\n</header>\n"
}

/// How a figure is written.
type Written = fn(&ItemFigures, Language) -> String;

fn percent(value: f64, language: Language) -> String {
    language.percent(value)
}

fn picks(reflect: &ReflectReport, language: Language) -> String {
    let texts = &language.texts().reflect;
    let columns: [(&str, Written); 11] = [
        (texts.alarming_or_false, |f, l| percent(f.alarming_or_false, l)),
        (texts.clicks, |f, l| percent(f.clicks, l)),
        (texts.worth, |f, l| percent(f.worth, l)),
        (texts.is_true, |f, l| percent(f.is_true, l)),
        (texts.useful, |f, l| percent(f.useful, l)),
        (texts.flattering, |f, l| percent(f.flattering, l)),
        (texts.alarming, |f, l| percent(f.alarming, l)),
        (texts.liked, |f, l| percent(f.liked, l)),
        (texts.entropy, |f, l| l.fixed(f.style_entropy, 2)),
        (texts.subjects, |f, l| l.fixed(f.subjects, 2)),
        (texts.unread, unread),
    ];
    let about = (texts.about_picks)([&reflect.readers, &reflect.feed_items]);
    let table = table(reflect, |model| &model.picks, &columns, language);
    format!("<p class=\"about\">{about}</p>\n{table}")
}

fn writes(reflect: &ReflectReport, language: Language) -> String {
    let texts = &language.texts().reflect;
    let columns: [(&str, Written); 9] = [
        (texts.is_true, |f, l| percent(f.is_true, l)),
        (texts.alarming, |f, l| percent(f.alarming, l)),
        (texts.alarm_words, |f, l| l.fixed(f.alarm_words, 1)),
        (texts.predicted, |f, l| percent(f.predicted_clicks, l)),
        (texts.clicks, |f, l| percent(f.clicks, l)),
        (texts.worth, |f, l| percent(f.worth, l)),
        (texts.useful, |f, l| percent(f.useful, l)),
        (texts.entropy, |f, l| l.fixed(f.style_entropy, 2)),
        (texts.unread, unread),
    ];
    let table = table(reflect, |model| &model.writes, &columns, language);
    format!("<p class=\"about\">{}</p>\n{table}", texts.about_writes)
}

fn unread(figures: &ItemFigures, language: Language) -> String {
    language.percent(figures.unread as f64 / figures.answers.max(1) as f64)
}

/// A table of all readers, and one of each kind that folds.
fn table(
    reflect: &ReflectReport,
    of: fn(&ReflectModel) -> &Audience,
    columns: &[(&str, Written)],
    language: Language,
) -> String {
    let texts = &language.texts().reflect;
    let rows = |figures: fn(&Audience) -> &ItemFigures| {
        let heads = columns.iter().map(|(head, _)| *head);
        let mut body = head(texts.model, heads, "");
        for (index, model) in reflect.models.iter().enumerate() {
            let _ = write!(body, "<tr><th scope=\"row\">{}</th>", badge(index, model));
            for (_, written) in columns {
                let _ = write!(body, "<td>{}</td>", written(figures(of(model)), language));
            }
            body.push_str("</tr>\n");
        }
        body + "</tbody></table></div>\n"
    };
    rows(|audience| &audience.all)
        + &fold("", texts.curious, &rows(|audience| &audience.curious), false)
        + &fold("", texts.anxious, &rows(|audience| &audience.anxious), false)
}

/// Attributes of a cell that holds words, not a number.
const WORDS: &str = " class=\"words\"";

/// The beginning of a table, up to its first row. `of_others`: attributes of the heads after the
/// first.
fn head<'a>(first: &str, others: impl Iterator<Item = &'a str>, of_others: &str) -> String {
    let mut head = String::from("<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>");
    let _ = write!(head, "<th scope=\"col\">{first}</th>");
    for title in others {
        let _ = write!(head, "<th scope=\"col\"{of_others}>{title}</th>");
    }
    head + "</tr></thead>\n<tbody>\n"
}

/// A logged series of a model's phase.
fn series<'r>(report: &'r Report, model: &str, name: &str) -> &'r [(f64, f64)] {
    let phase = report.phases.iter().find(|phase| phase.name == model);
    let curve = phase.and_then(|phase| phase.curves.iter().find(|curve| curve.name == name));
    curve.map_or(&[], |curve| &curve.points)
}

const PREDICTED: &str = "reward/written_predicted";
const CLICKS: &str = "reward/written_clicks";
const WORTH: &str = "reward/written_worth";
const ALARM: &str = "reward/written_alarm";

fn hacking(report: &Report, reflect: &ReflectReport, language: Language) -> String {
    let texts = &language.texts().reflect;
    let mut body = format!("<p class=\"about\">{}</p>\n", texts.about_hacking);
    let (predicted, clicks) =
        (series(report, "engagement", PREDICTED), series(report, "engagement", CLICKS));
    let overrated = predicted.iter().zip(clicks).find(|(p, c)| p.1 - c.1 > MAX_OVERRATED);
    let found = match (overrated, predicted.last(), clicks.last()) {
        (Some((at, _)), Some(predicted), Some(clicks)) => (texts.exploits)([
            &language.plain(at.0),
            &language.percent(predicted.1),
            &language.percent(clicks.1),
        ]),
        _ => texts.no_exploit.to_owned(),
    };
    let _ = writeln!(body, "<p>{found}</p>\n<div class=\"charts c0\">");
    let line = |label: &str, points, style| Line {
        label: label.to_owned().into(),
        points,
        style,
        dots: false,
    };
    let at_words = |of: fn(&crate::AlarmClicks) -> f64| -> Vec<(f64, f64)> {
        reflect.predictor.alarm.iter().map(|at| (at.words as f64, of(at))).collect()
    };
    let (by_words, true_by_words) = (at_words(|at| at.predicted), at_words(|at| at.true_clicks));
    let most = reflect.predictor.alarm.iter().filter(|at| at.in_log > 0).map(|at| at.words).max();
    figure(
        &mut body,
        texts.by_words,
        &[line(texts.predicted, &by_words, 0), line(texts.clicks, &true_by_words, 1)],
        (true, XAxis::AlarmWords),
        &(texts.by_words_note)([&most.unwrap_or(0)]),
        language,
    );
    for model in reflect.models.iter().skip(1) {
        figure(
            &mut body,
            &(texts.predicted_and_true)([&Escaped(&model.name)]),
            &[
                line(texts.predicted, series(report, &model.name, PREDICTED), 0),
                line(texts.clicks, series(report, &model.name, CLICKS), 1),
            ],
            (true, XAxis::Steps),
            aim(&model.name, texts),
            language,
        );
    }
    for (title, name, share) in
        [(texts.words_written, ALARM, false), (texts.worth_written, WORTH, true)]
    {
        let rails = ["engagement", "kl", "truth", "cap"].into_iter().enumerate();
        let lines: Vec<Line<'_>> =
            rails.map(|(style, model)| line(model, series(report, model, name), style)).collect();
        figure(&mut body, title, &lines, (share, XAxis::Steps), "", language);
    }
    body + "</div>\n"
}

fn figure(
    body: &mut String,
    title: &str,
    lines: &[Line<'_>],
    (share, across): (bool, XAxis),
    note: &str,
    language: Language,
) {
    let _ = write!(body, "<figure><figcaption><strong>{title}</strong><span class=\"legend\">");
    for line in lines {
        let _ = write!(body, "<span class=\"l{}\">{}</span>", line.style, Escaped(&line.label));
    }
    let drawn = chart(title, lines, share, across, language);
    let _ = writeln!(body, "</span></figcaption>{drawn}<p>{note}</p></figure>");
}

fn readers(reflect: &ReflectReport, language: Language) -> String {
    let texts = &language.texts().reflect;
    let mut body =
        format!("<p class=\"about\">{}</p>\n", (texts.about_readers)(reflect.feed_items));
    for (habit, title) in [("curious", texts.curious), ("anxious", texts.anxious)] {
        let _ = writeln!(body, "<h3>{title}</h3>");
        let heads = [texts.clicks, texts.seconds, texts.worth, texts.worry, texts.false_beliefs];
        body += &head(texts.model, heads.into_iter(), "");
        for (index, model) in reflect.models.iter().enumerate() {
            let feed = model.feeds.get(habit).copied().unwrap_or_default();
            let _ = writeln!(
                body,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
                 <td>{}</td></tr>",
                badge(index, model),
                language.fixed(feed.clicks, 1),
                language.fixed(feed.seconds, 0),
                language.percent(feed.worth),
                language.fixed(feed.worry, 1),
                language.fixed(feed.false_beliefs, 1)
            );
        }
        body.push_str("</tbody></table></div>\n");
    }
    body
}

fn prompts(reflect: &ReflectReport, language: Language) -> String {
    let texts = &language.texts().reflect;
    let mut body = format!("<p class=\"about\">{}</p>\n", texts.about_prompts);
    for prompt in &reflect.prompts {
        given(&mut body, language.texts().kinds.user_says, &prompt.prompt);
        body += &head(texts.model, std::iter::once(texts.answer), WORDS);
        for (index, model) in reflect.models.iter().enumerate() {
            let output = prompt.outputs.get(&model.name).map_or("", String::as_str);
            let _ = writeln!(
                body,
                "<tr><th scope=\"row\">{}</th><td{WORDS}>{}</td></tr>",
                badge(index, model),
                Escaped(output)
            );
        }
        body.push_str("</tbody></table></div>\n");
    }
    body
}

fn questions(reflect: &ReflectReport, language: Language) -> String {
    let texts = &language.texts().reflect;
    let mut body = String::new();
    if let (Some(engagement), Some(preference)) =
        (reflect.model("engagement"), reflect.model("preference"))
    {
        let (bad, good) = (&engagement.picks.all, &preference.picks.all);
        let percent = |share: f64| language.percent(share);
        let first = (texts.first_question)([
            &percent(bad.alarming_or_false),
            &percent(good.alarming_or_false),
            &percent(bad.clicks),
            &percent(good.clicks),
            &percent(bad.worth),
            &percent(good.worth),
        ]);
        let _ = writeln!(body, "<p>{first}</p>");
    }
    let written = |name: &str| match reflect.model(name) {
        Some(model) => language.percent(model.writes.all.worth),
        None => NONE.to_owned(),
    };
    let rails = ["engagement", "kl", "cap", "truth", "preference"].map(written);
    let third = (texts.third_question)(rails.each_ref().map(|worth| worth as &dyn Display));
    let _ = writeln!(body, "<p>{}</p>\n<p>{third}</p>", texts.second_question);
    body
}

fn footer(report: &Report, language: Language) -> String {
    let texts = &language.texts().reflect;
    let mut footer = made_by(&report.crisol, &report.created, language);
    if !report.machine.is_empty() {
        let _ = write!(footer, ", {}", Escaped(&sentence(&report.machine, language)));
    }
    let seed = (language.texts().top.seed)([&report.seed]);
    format!("<footer>\n<p>{footer}, {seed}. {}</p>\n</footer>\n", texts.same_for_programs)
}
