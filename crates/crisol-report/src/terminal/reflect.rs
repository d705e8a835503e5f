//! What `crisol reflect` prints at its end.

use owo_colors::Style;
use unicode_width::UnicodeWidthStr as _;

use super::{Layout, Page, colour, pad};
use crate::html::aim;
use crate::{ItemFigures, ReflectModel, ReflectReport};

/// Renders the experiment's main figures: a table of what is picked, one of what is written.
pub fn reflect_summary(report: &ReflectReport, layout: Layout) -> String {
    let mut page = Page::new(layout);
    let language = layout.language;
    let texts = &language.texts().reflect;
    page.line(&page.paint(texts.title, Style::new().bold()));
    let percent = |value: f64| language.percent(value);
    table(
        &mut page,
        texts.picked,
        &[texts.alarming_or_false, texts.is_true, texts.clicks, texts.worth],
        report,
        |model| {
            let ItemFigures { alarming_or_false, is_true, clicks, worth, .. } = model.picks.all;
            [alarming_or_false, is_true, clicks, worth].map(percent).to_vec()
        },
    );
    table(
        &mut page,
        texts.written,
        &[texts.alarm_words, texts.is_true, texts.predicted, texts.clicks, texts.worth],
        report,
        |model| {
            let ItemFigures { alarm_words, is_true, predicted_clicks, clicks, worth, .. } =
                model.writes.all;
            let shares = [is_true, predicted_clicks, clicks, worth].map(percent);
            std::iter::once(language.fixed(alarm_words, 1)).chain(shares).collect()
        },
    );
    let picked = |name: &str| report.model(name).map(|model| model.picks.all.alarming_or_false);
    if let (Some(bad), Some(good)) = (picked("engagement"), picked("preference"))
        && good > 0.0
    {
        page.line("");
        page.paragraph("", &(texts.ratio)([&language.fixed(bad / good, 1)]), Style::new());
    }
    page.text
}

/// Models by row. What each is aligned to stands where there is room.
fn table(
    page: &mut Page,
    title: &str,
    heads: &[&str],
    report: &ReflectReport,
    figures: impl Fn(&ReflectModel) -> Vec<String>,
) {
    let texts = &page.language.texts().reflect;
    page.heading(title);
    let name = report.models.iter().map(|model| model.name.width()).max().unwrap_or(0) + 1;
    let longest = heads.iter().map(|head| head.width().max(6));
    let room = page.width.saturating_sub(name + longest.clone().sum::<usize>());
    let gap = (room / heads.len().max(1)).clamp(1, 2);
    let widths: Vec<usize> = longest.map(|width| width + gap).collect();
    let taken = name + widths.iter().sum::<usize>() + 2;
    let cells = |cells: &[String]| -> String {
        let padded = cells.iter().zip(&widths);
        padded.map(|(cell, width)| " ".repeat(width - cell.width()) + cell).collect()
    };
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let line = page.paint(&(" ".repeat(name) + &cells(&heads)), Style::new().dimmed());
    page.line(&line);
    for (index, model) in report.models.iter().enumerate() {
        let mut line = page.paint(&pad(&model.name, name), colour(index)) + &cells(&figures(model));
        let aim = aim(&model.name, texts);
        if taken + aim.width() <= page.width {
            line += "  ";
            line += &page.paint(aim, Style::new().dimmed());
        }
        page.line(&line);
    }
}
