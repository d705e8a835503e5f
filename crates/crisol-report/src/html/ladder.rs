//! The page of a ladder of runs.

use std::fmt::Write as _;

use super::top::made_by;
use super::{Page, Section};
use crate::markup::Escaped;
use crate::plot::{Line, XAxis, chart};
use crate::{LadderReport, Language, PredictedLoss};

/// Renders a fitted ladder as one self-contained HTML page.
pub fn ladder_html(report: &LadderReport, language: Language) -> String {
    let texts = &language.texts().ladder;
    let reading = texts.how_to_read.to_owned();
    let sections = vec![
        Section { id: "curve", heading: texts.curve, body: plot(report, language) },
        Section { id: "runs", heading: texts.runs, body: runs(report, language) },
        Section { id: "larger", heading: texts.larger, body: larger(report, language) },
        Section { id: "reading", heading: texts.reading, body: reading },
    ];
    Page {
        language,
        title: texts.title,
        header: header(report, language),
        picker: String::new(),
        style: String::new(),
        sections,
        footer: footer(report, language),
    }
    .html()
}

/// Decimals of a loss.
const DECIMALS: usize = 3;

fn header(report: &LadderReport, language: Language) -> String {
    let texts = &language.texts().ladder;
    let loss = |value: f64| language.fixed(value, DECIMALS);
    let LadderReport { limit, exponent, rungs, predictions, .. } = report;
    let mut header = format!(
        "<header id=\"top\">\n<h1>{}</h1>\n<p class=\"lead\">{}</p>\n<dl class=\"tiles\">\n",
        texts.title,
        (texts.lead)(rungs.len())
    );
    let mut tile = |label: &str, value: &str, detail: &str| {
        let _ = writeln!(
            header,
            "<div><dt>{label}</dt><dd>{value}</dd><dd class=\"detail\">{detail}</dd></div>"
        );
    };
    let of_limit = if report.shows_no_limit() { texts.no_limit } else { texts.of_limit };
    tile(texts.limit, &loss(*limit), of_limit);
    tile(texts.exponent, &loss(*exponent), texts.of_exponent);
    for PredictedLoss { times, low, expected, high, .. } in predictions {
        let interval = (texts.range)([&loss(*low), &loss(*high)]);
        let label = (texts.at_times)([&language.prefixed(*times, "")]);
        tile(&label, &loss(*expected), &interval);
    }
    header + "</dl>\n</header>\n"
}

fn plot(report: &LadderReport, language: Language) -> String {
    let texts = &language.texts().ladder;
    let at = |of: fn(&PredictedLoss) -> f64| -> Vec<(f64, f64)> {
        report.curve.iter().map(|point| (point.flops.log10(), of(point))).collect()
    };
    let measured: Vec<(f64, f64)> =
        report.rungs.iter().map(|rung| (rung.flops.log10(), rung.loss)).collect();
    let (fitted, low, high) = (at(|p| p.expected), at(|p| p.low), at(|p| p.high));
    let lines = [
        Line { label: texts.fitted.into(), points: &fitted, style: 0, dots: false },
        Line { label: texts.upper_end.into(), points: &high, style: 1, dots: false },
        Line { label: texts.lower_end.into(), points: &low, style: 1, dots: false },
        Line { label: texts.measured.into(), points: &measured, style: 3, dots: true },
    ];
    let legend = [("l0", texts.fitted), ("l1", texts.interval), ("l3 dots", texts.measured)]
        .map(|(class, label)| format!("<span class=\"{class}\">{label}</span>"));
    format!(
        "<div class=\"charts wide c0\"><figure><figcaption><strong>{}</strong> \
         <small>{}</small><span class=\"legend\">{}</span></figcaption>{}\
         <p>{}</p></figure></div>\n",
        texts.loss,
        texts.unit,
        legend.concat(),
        chart(texts.loss, &lines, false, XAxis::LogFlops, language),
        texts.axis
    )
}

fn runs(report: &LadderReport, language: Language) -> String {
    let loss = |value: f64| language.fixed(value, DECIMALS);
    let mut body = table(&language.texts().ladder.of_runs);
    for rung in &report.rungs {
        let _ = writeln!(
            body,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}</td></tr>",
            Escaped(&rung.run),
            language.prefixed(rung.parameters as f64, ""),
            language.prefixed(rung.tokens as f64, ""),
            language.fixed(rung.tokens as f64 / rung.parameters as f64, 1),
            language.prefixed(rung.flops, "FLOP"),
            loss(rung.loss),
            loss(rung.fitted)
        );
    }
    body + "</tbody></table></div>\n"
}

fn larger(report: &LadderReport, language: Language) -> String {
    let texts = &language.texts().ladder;
    let loss = |value: f64| language.fixed(value, DECIMALS);
    let mut body = table(&texts.of_larger);
    for PredictedLoss { flops, times, low, expected, high } in &report.predictions {
        let _ = writeln!(
            body,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            language.prefixed(*flops, "FLOP"),
            language.prefixed(*times, ""),
            loss(*expected),
            (texts.range)([&loss(*low), &loss(*high)])
        );
    }
    body + "</tbody></table></div>\n"
}

/// The beginning of a table, up to its first row.
fn table(heads: &[&str]) -> String {
    let heads: Vec<String> =
        heads.iter().map(|head| format!("<th scope=\"col\">{head}</th>")).collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n",
        heads.concat()
    )
}

fn footer(report: &LadderReport, language: Language) -> String {
    format!(
        "<footer>\n<p>{}. {}</p>\n</footer>\n",
        made_by(&report.crisol, &report.created, language),
        language.texts().ladder.same_for_programs
    )
}
