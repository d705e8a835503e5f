//! The page of a ladder of runs.

use std::fmt::Write as _;

use super::{Page, Section};
use crate::figures::prefixed;
use crate::markup::Escaped;
use crate::plot::{Across, Line, chart};
use crate::{LadderReport, PredictedLoss};

/// Renders a fitted ladder as one self-contained HTML page.
pub fn ladder_html(report: &LadderReport) -> String {
    let sections = vec![
        Section { id: "curve", nav: "Curve", title: "Loss by compute", body: plot(report) },
        Section { id: "runs", nav: "Runs", title: "The runs", body: runs(report) },
        Section { id: "larger", nav: "Larger runs", title: "Larger runs", body: larger(report) },
        Section {
            id: "reading",
            nav: "How to read",
            title: "How to read this",
            body: READING.into(),
        },
    ];
    let title = "A ladder of runs";
    Page {
        title,
        header: header(report, title),
        picker: String::new(),
        style: String::new(),
        sections,
        footer: footer(report),
    }
    .html()
}

/// A loss as tables have it.
fn loss(value: f64) -> String {
    format!("{value:.3}")
}

fn header(report: &LadderReport, title: &str) -> String {
    let LadderReport { limit, exponent, rungs, predictions, .. } = report;
    let mut header = format!(
        "<header id=\"top\">\n<h1>{title}</h1>\n<p class=\"lead\">{} models, each pre-trained on \
         about as many tokens a parameter. A curve through their losses on held-out text predicts \
         those of larger models.</p>\n<dl class=\"tiles\">\n",
        rungs.len()
    );
    let mut tile = |label: &str, value: &str, detail: &str| {
        let _ = writeln!(
            header,
            "<div><dt>{label}</dt><dd>{value}</dd><dd class=\"detail\">{detail}</dd></div>"
        );
    };
    let of_limit = if report.shows_no_limit() {
        "these runs show no limit"
    } else {
        "nats a token, however much compute"
    };
    tile("limit", &loss(*limit), of_limit);
    tile("exponent", &loss(*exponent), "of compute, above the limit");
    for PredictedLoss { times, low, expected, high, .. } in predictions {
        let interval = format!("{} to {}", loss(*low), loss(*high));
        tile(&format!("at {}× the largest", prefixed(*times, "")), &loss(*expected), &interval);
    }
    header + "</dl>\n</header>\n"
}

fn plot(report: &LadderReport) -> String {
    let at = |of: fn(&PredictedLoss) -> f64| -> Vec<(f64, f64)> {
        report.curve.iter().map(|point| (point.flops.log10(), of(point))).collect()
    };
    let measured: Vec<(f64, f64)> =
        report.rungs.iter().map(|rung| (rung.flops.log10(), rung.loss)).collect();
    let (fitted, low, high) = (at(|p| p.expected), at(|p| p.low), at(|p| p.high));
    let lines = [
        Line { label: "fitted".into(), points: &fitted, style: 0, dots: false },
        Line { label: "90 % interval, upper end".into(), points: &high, style: 1, dots: false },
        Line { label: "90 % interval, lower end".into(), points: &low, style: 1, dots: false },
        Line { label: "measured".into(), points: &measured, style: 3, dots: true },
    ];
    let legend = [("l0", "fitted"), ("l1", "90 % interval"), ("l3 dots", "measured")]
        .map(|(class, label)| format!("<span class=\"{class}\">{label}</span>"));
    format!(
        "<div class=\"charts wide c0\"><figure><figcaption><strong>held-out loss</strong> \
         <small>nats a token</small><span class=\"legend\">{}</span></figcaption>{}\
         <p>Across: log10 of the operations of training (12 is a TFLOP).</p></figure></div>\n",
        legend.concat(),
        chart("held-out loss", &lines, false, Across::LogFlops)
    )
}

fn runs(report: &LadderReport) -> String {
    let mut body = table(&[
        "run",
        "parameters",
        "tokens",
        "tokens a parameter",
        "compute",
        "measured",
        "fitted",
    ]);
    for rung in &report.rungs {
        let _ = writeln!(
            body,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{:.1}</td><td>{}</td>\
             <td>{}</td><td>{}</td></tr>",
            Escaped(&rung.run),
            prefixed(rung.parameters as f64, ""),
            prefixed(rung.tokens as f64, ""),
            rung.tokens as f64 / rung.parameters as f64,
            prefixed(rung.flops, "FLOP"),
            loss(rung.loss),
            loss(rung.fitted)
        );
    }
    body + "</tbody></table></div>\n"
}

fn larger(report: &LadderReport) -> String {
    let mut body = table(&["compute", "times the largest", "expected", "90 % interval"]);
    for PredictedLoss { flops, times, low, expected, high } in &report.predictions {
        let _ = writeln!(
            body,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{} to {}</td></tr>",
            prefixed(*flops, "FLOP"),
            prefixed(*times, ""),
            loss(*expected),
            loss(*low),
            loss(*high)
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

const READING: &str = "\
<ul>\n<li>The curve is L(C) = E + A·C<sup>−α</sup>: a limit E, and a part that falls as a power of \
compute. It is fitted by least squares.</li>\n\
<li>The interval is where the loss of a single further run should lie nine times in ten, if losses \
follow such a curve. It spans all curves that the runs allow, and their scatter about them. With \
four or five runs it is wide, and the limit is hardly known.</li>\n\
<li>No interval knows what the runs cannot show: text that is met again and again, a learning rate \
that suits one size better than another, a limit of the architecture. The further from the largest \
run, the less it should be believed.</li>\n\
<li>Losses are of one tokenizer and one held-out text. They say nothing of what a model can \
do.</li>\n\
</ul>\n";

fn footer(report: &LadderReport) -> String {
    format!(
        "<footer>\n<p>Made by Crisol {} on {}. The same for programs: \
         <code>crisol cost ladder RUN… --json</code>.</p>\n</footer>\n",
        Escaped(&report.crisol),
        Escaped(&report.created)
    )
}
