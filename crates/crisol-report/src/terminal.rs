//! The report for a terminal. [`summary`] fits on a screen. [`terminal`] prints everything:
//! behaviours, held-out data, notes, the answers after every phase, the costs.
//!
//! Text from models and users is stripped of control characters first: it cannot move the cursor or
//! change colours. Widths are those of the Unicode standard (wide characters take two columns).

mod reflect;
mod summary;

use std::fmt::Write as _;

use owo_colors::{AnsiColors, OwoColorize as _, Style};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::figures::{NONE, share};
use crate::html::{form, kind, title};
use crate::markup::{Segment, segments, without_controls};
use crate::measures::{Better, MEASURES, Measure, Unit, label, value_text};
use crate::sentences::sentence;
use crate::{Language, PhaseReport, PromptReport, Report};

pub use reflect::reflect_summary;
pub use summary::{Next, largest_changes, summary};

/// How text for a terminal is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Columns of the terminal; at least 40 are used.
    pub width: usize,
    /// Whether to use ANSI colours.
    pub colour: bool,
    /// The language of all that is neither data nor a model's text.
    pub language: Language,
}

/// Columns below which nothing sensible can be laid out.
const NARROWEST: usize = 40;

/// Renders the report for a terminal: behaviours, answers and costs.
pub fn terminal(report: &Report, layout: Layout) -> String {
    let mut page = Page::new(layout);
    let language = layout.language;
    page.paragraph("", &title(report, language), Style::new().bold());
    let (top, texts) = (&language.texts().top, &language.texts().terminal);
    let facts = [
        language.parameters(&report.model),
        language.duration(report.total_seconds),
        (texts.peak_memory)([&language.prefixed(report.peak_memory_bytes as f64, "B")]),
        (top.seed)([&report.seed]),
    ];
    page.paragraph("", &facts.join(" · "), Style::new().dimmed());
    behaviours(&mut page, report);
    held_out(&mut page, report);
    notes(&mut page, report);
    let names: Vec<String> = report.phases.iter().map(|phase| phase.name.clone()).collect();
    answers(&mut page, &names, &report.prompts);
    cost(&mut page, report);
    page.text
}

/// What was worth a line while the phases ran.
fn notes(page: &mut Page, report: &Report) {
    let notes = all_notes(report, page.language);
    if !notes.is_empty() {
        page.heading(page.language.texts().terminal.notes);
    }
    for note in notes {
        page.paragraph("  ", &without_controls(&note), Style::new());
    }
}

/// The notes of all phases, each after its phase's name.
fn all_notes(report: &Report, language: Language) -> Vec<String> {
    let notes = report.phases.iter().flat_map(|phase| phase.notes.iter().map(move |n| (phase, n)));
    notes.map(|(phase, note)| format!("{}: {}", phase.name, sentence(note, language))).collect()
}

/// The answers of several models (`columns`) to the same prompts, side by side.
pub fn comparison(columns: &[String], prompts: &[PromptReport], layout: Layout) -> String {
    let mut page = Page::new(layout);
    answers(&mut page, columns, prompts);
    page.text
}

/// Text that grows line by line within a width.
struct Page {
    text: String,
    width: usize,
    colour: bool,
    language: Language,
}

impl Page {
    fn new(layout: Layout) -> Self {
        let Layout { width, colour, language } = layout;
        Self { text: String::new(), width: width.max(NARROWEST), colour, language }
    }

    fn paint(&self, text: &str, style: Style) -> String {
        if self.colour && !text.is_empty() {
            text.style(style).to_string()
        } else {
            text.to_owned()
        }
    }

    fn line(&mut self, line: &str) {
        // After wrapping, plain spaces replace no-break ones: they are easier to search for.
        self.text.push_str(&line.trim_end().replace('\u{a0}', " "));
        self.text.push('\n');
    }

    /// A heading with a rule to the right edge, after a blank line.
    fn heading(&mut self, title: &str) {
        let title = clip(title, self.width - 4);
        let rule = "─".repeat(self.width - 1 - title.width());
        let line = format!(
            "{} {}",
            self.paint(&title, Style::new().bold()),
            self.paint(&rule, Style::new().dimmed())
        );
        self.line("");
        self.line(&line);
    }

    /// Wrapped text, each line after `indent`.
    fn paragraph(&mut self, indent: &str, text: &str, style: Style) {
        for line in wrap(text, self.width - indent.width()) {
            let line = format!("{indent}{}", self.paint(&line, style));
            self.line(&line);
        }
    }
}

/// The colour of a column by its index, as in the HTML report.
fn colour(index: usize) -> Style {
    const COLOURS: [AnsiColors; 6] = [
        AnsiColors::Blue,
        AnsiColors::Cyan,
        AnsiColors::Magenta,
        AnsiColors::Yellow,
        AnsiColors::Green,
        AnsiColors::Red,
    ];
    Style::new().color(COLOURS[index % COLOURS.len()]).bold()
}

fn behaviours(page: &mut Page, report: &Report) {
    let rows: Vec<&Measure> = MEASURES
        .iter()
        .filter(|measure| measure.behaviour)
        .filter(|measure| report.phases.iter().any(|phase| phase.metrics.contains_key(measure.id)))
        .collect();
    if rows.is_empty() {
        return;
    }
    let language = page.language;
    page.heading(language.texts().terminal.behaviours);
    let name_of = |measure: &Measure| language.of(measure.label);
    let columns: Vec<(usize, &PhaseReport, String)> = report
        .phases
        .iter()
        .enumerate()
        .filter(|(_, phase)| rows.iter().any(|measure| phase.metrics.contains_key(measure.id)))
        .map(|(index, phase)| {
            (index, phase, clip(&without_controls(&phase.name).replace('\n', " "), 14))
        })
        .collect();
    let cell = columns.iter().map(|(_, _, name)| name.width()).max().unwrap_or(0).max(7) + 1;
    let longest = rows.iter().map(|measure| name_of(measure).width()).max().unwrap_or(0);
    // Labels give way first, down to 22 columns; then the phases are shown in several blocks.
    let label = longest.min((page.width.saturating_sub(columns.len() * cell)).max(22));
    let per_block = ((page.width - label) / cell).max(1);
    for (number, block) in columns.chunks(per_block).enumerate() {
        if number > 0 {
            page.line("");
        }
        let mut head = " ".repeat(label);
        for (index, _, name) in block {
            head += &" ".repeat(cell - name.width());
            head += &page.paint(name, colour(*index));
        }
        page.line(&head);
        for measure in &rows {
            let mut line = pad(&clip(name_of(measure), label), label);
            for (_, phase, _) in block {
                let (text, style) =
                    figure(measure, phase.metrics.get(measure.id).copied(), language);
                line += &" ".repeat(cell.saturating_sub(text.width()));
                line += &page.paint(&text, style);
            }
            page.line(&line);
        }
    }
}

/// A behaviour's figure: green where it is good, yellow where it is not.
fn figure(measure: &Measure, value: Option<f64>, language: Language) -> (String, Style) {
    let Some(value) = value.filter(|value| value.is_finite()) else {
        return (NONE.to_owned(), Style::new().dimmed());
    };
    if measure.unit != Unit::Share {
        return (language.plain(value), Style::new());
    }
    let goodness = match measure.better {
        Better::Higher => Some(value),
        Better::Lower => Some(1.0 - value),
        Better::Neither => None,
    };
    let style = match goodness {
        Some(goodness) if goodness >= 0.9 => Style::new().green(),
        Some(goodness) if goodness < 0.5 => Style::new().yellow(),
        _ => Style::new(),
    };
    (language.percent(value), style)
}

/// What was measured on held-out data before each phase and after it.
fn held_out(page: &mut Page, report: &Report) {
    let both = |phase| before_and_after(phase, page.language);
    let rows: Vec<_> = report.phases.iter().enumerate().flat_map(both).collect();
    if rows.is_empty() {
        return;
    }
    page.heading(page.language.texts().sections.held_out.title);
    let longest = |text: fn(&[String; 3]) -> &str| {
        rows.iter().map(|(_, _, row)| text(row).width()).max().unwrap_or(0)
    };
    let (before, after) = (longest(|row| &row[1]), longest(|row| &row[2]));
    let names: Vec<String> = rows
        .iter()
        .map(|(_, phase, _)| clip(&without_controls(&phase.name).replace('\n', " "), 14))
        .collect();
    let name = names.iter().map(|name| name.width()).max().unwrap_or(0);
    let label =
        longest(|row| &row[0]).min(page.width.saturating_sub(name + before + after + 9).max(12));
    let mut last = None;
    for ((index, _, [what, was, is]), phase) in rows.iter().zip(&names) {
        let shown = if last.replace(*index) == Some(*index) { "" } else { phase };
        let mut line = page.paint(shown, colour(*index));
        line += &" ".repeat(name - shown.width() + 2);
        line += &pad(&clip(what, label), label + 2);
        line += &" ".repeat(before - was.width());
        let _ = write!(line, "{was} → {}{is}", " ".repeat(after - is.width()));
        page.line(&line);
    }
}

/// A phase's measures on held-out data: what, before, after.
pub(crate) fn before_and_after(
    (index, phase): (usize, &PhaseReport),
    language: Language,
) -> impl Iterator<Item = (usize, &PhaseReport, [String; 3])> {
    let both = move |(id, before): (&String, &f64)| {
        let after = phase.metrics.get(id)?;
        let what = without_controls(&label(id, language)).replace('\n', " ");
        let values = [*before, *after].map(|value| value_text(id, value, language));
        let [before, after] = values;
        Some((index, phase, [what, before, after]))
    };
    phase.before.iter().filter_map(both)
}

/// Every prompt, and the answer of each column that has one.
fn answers(page: &mut Page, columns: &[String], prompts: &[PromptReport]) {
    let language = page.language;
    let texts = &language.texts().terminal;
    let names: Vec<String> = columns
        .iter()
        .map(|name| clip(&without_controls(name).replace('\n', " "), page.width - 4))
        .collect();
    let before = prompts.iter().any(|prompt| prompt.before.is_some());
    let longest = names.iter().map(|name| name.width()).max().unwrap_or(0);
    let longest = longest.max(if before { texts.before.width() } else { 0 });
    // Names that would take more than a quarter of the width stand on a line of their own.
    let beside = longest + 2 <= page.width / 4;
    let indent = if beside { " ".repeat(longest + 2) } else { "  ".to_owned() };
    for prompt in prompts {
        let title = without_controls(kind(&prompt.kind, language).0).replace('\n', " ");
        page.heading(if title.is_empty() { texts.prompt } else { &title });
        let form = without_controls(form(&prompt.form, language));
        if !form.is_empty() {
            page.paragraph("  ", &format!("{form}:"), Style::new().dimmed());
        }
        page.paragraph("  │ ", &without_controls(prompt.prompt.trim_end()), Style::new());
        page.line("");
        let dimmed = Style::new().dimmed();
        let before = prompt.before.iter().map(|output| (texts.before, dimmed, output));
        let after = names.iter().enumerate().filter_map(|(index, name)| {
            Some((name.as_str(), colour(index), prompt.outputs.get(&columns[index])?))
        });
        for (name, style, output) in before.chain(after) {
            let lines = model_text(page, output, page.width - indent.width());
            if beside {
                let name = format!(
                    "{}{}",
                    page.paint(name, style),
                    " ".repeat(longest + 2 - name.width())
                );
                for (number, line) in lines.iter().enumerate() {
                    page.line(&format!("{}{line}", if number == 0 { &name } else { &indent }));
                }
            } else {
                page.line(&page.paint(name, style));
                for line in lines {
                    page.line(&format!("{indent}{line}"));
                }
            }
        }
    }
}

/// A piece of an answer as text, thinking dimmed.
fn styled(segment: Segment<'_>) -> (String, Style) {
    match segment {
        Segment::Text(text) => (text.to_owned(), Style::new()),
        Segment::Thinking(text, true) => (format!("<think>{text}</think>"), Style::new().dimmed()),
        Segment::Thinking(text, false) => (format!("<think>{text}"), Style::new().dimmed()),
    }
}

/// A model's text as painted lines, its thinking dimmed.
fn model_text(page: &Page, output: &str, width: usize) -> Vec<String> {
    let output = without_controls(output);
    let mut lines = Vec::new();
    for segment in segments(&output) {
        let (text, style) = styled(segment);
        lines.extend(wrap(&text, width).iter().map(|line| page.paint(line, style)));
    }
    if lines.is_empty() {
        lines.push(page.paint(page.language.texts().answers.nothing, Style::new().dimmed()));
    }
    lines
}

fn cost(page: &mut Page, report: &Report) {
    if report.phases.is_empty() {
        return;
    }
    let language = page.language;
    page.heading(language.texts().sections.cost.title);
    let flops: f64 = report.phases.iter().map(|phase| phase.flops).sum();
    let names: Vec<String> = report
        .phases
        .iter()
        .map(|phase| clip(&without_controls(&phase.name).replace('\n', " "), 14))
        .collect();
    let longest = names.iter().map(|name| name.width()).max().unwrap_or(0);
    for (index, phase) in report.phases.iter().enumerate() {
        let part = share(phase.flops, flops);
        let mut line = page.paint(&names[index], colour(index));
        line += &" ".repeat(longest - names[index].width());
        let _ = write!(line, "{:>8}", language.percent(part));
        // Narrow terminals keep the share, which is the point, and lose the rest from the right.
        let columns = [
            (14, language.duration(phase.seconds)),
            (14, language.prefixed(phase.flops, "FLOP")),
            (16, (language.texts().top.tokens)([&language.prefixed(phase.tokens as f64, "")])),
        ];
        let mut used = longest + 8;
        for (width, text) in columns {
            if used + width > page.width {
                break;
            }
            line += &" ".repeat(width.saturating_sub(text.width()));
            line += &text;
            used += width;
        }
        let bar_width = page.width.saturating_sub(used + 2).min(40);
        if bar_width >= 8 && part.is_finite() {
            let bar = "█".repeat((part * bar_width as f64).round() as usize);
            line += "  ";
            line += &page.paint(&bar, colour(index));
        }
        page.line(&line);
    }
    let pretraining: f64 = report
        .phases
        .iter()
        .filter(|phase| phase.kind == "pretrain")
        .map(|phase| phase.flops)
        .sum();
    let here = share(pretraining, flops);
    if here > 0.0 {
        let text = (language.texts().terminal.pretraining)([&language.percent(here)]);
        page.paragraph("", &text, Style::new().dimmed());
    }
}

/// The text's first columns, with an ellipsis where something was cut off.
fn clip(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut clipped = String::new();
    let mut used = 0;
    for char in text.chars() {
        used += char.width().unwrap_or(0);
        if used >= width {
            break;
        }
        clipped.push(char);
    }
    clipped.push('…');
    clipped
}

fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// Cuts text into lines of at most `width` columns: at its own line ends, else between words, else
/// within a word that is longer than a line.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        let mut used = 0;
        for word in paragraph.split_inclusive(' ') {
            let bare = word.trim_end_matches(' ').width();
            if used > 0 && used + bare > width {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            for char in word.chars() {
                let columns = char.width().unwrap_or(0);
                if used + columns > width {
                    // A space that does not fit is where the line ends anyway.
                    if char == ' ' {
                        continue;
                    }
                    lines.push(std::mem::take(&mut line));
                    used = 0;
                }
                line.push(char);
                used += columns;
            }
        }
        lines.push(line);
    }
    for line in &mut lines {
        line.truncate(line.trim_end().len());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_between_words_and_within_long_ones() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij kl", 4), ["abcd", "efgh", "ij", "kl"]);
        assert_eq!(wrap("a\n\n  b", 10), ["a", "", "  b"]);
        assert_eq!(wrap("日本語テキスト", 6), ["日本語", "テキス", "ト"]);
        assert_eq!(wrap("", 6), [""]);
    }

    #[test]
    fn clips_with_an_ellipsis() {
        assert_eq!(clip("pretrain", 8), "pretrain");
        assert_eq!(clip("pretrain", 6), "pretr…");
        assert_eq!(clip("日本語", 4), "日…");
    }
}
