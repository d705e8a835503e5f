//! What a run prints at its end: at most 40 lines, so that it fits on a screen.
//!
//! ```text
//! title, size, time
//! one row a phase: time, share of the compute, what changed most
//! one prompt and its answer after every phase
//! notes, as many as fit
//! what to do next
//! ```
//!
//! [`terminal`](super::terminal) prints everything.

use owo_colors::Style;
use unicode_width::UnicodeWidthStr as _;

use super::{Layout, Page, all_notes, clip, colour, pad, styled, wrap};
use crate::changes::{Change, largest};
use crate::figures::share;
use crate::html::{form, kind, shown_first, title};
use crate::markup::{segments, without_controls};
use crate::measures::{label, value_text};
use crate::{Language, PhaseReport, PromptReport, Report};

/// Maximum lines of a summary.
pub(super) const MAX_LINES: usize = 40;
/// Maximum lines of the phases.
const MAX_PHASE_LINES: usize = 15;
/// Maximum lines of the prompt, and of its answers.
const MAX_PROMPT_LINES: usize = 2;
const MAX_ANSWER_LINES: usize = 8;
/// Measures of a run of one phase, and of each phase of a longer run.
const MEASURES_ALONE: usize = 8;
const MEASURES_EACH: usize = 2;
/// Columns of a phase's name.
const NAME: usize = 12;
/// Columns of the page from which a phase's row has its time.
const TIME_FROM: usize = 72;

/// A next step: what it is for, and the command or file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// What for, in a few words.
    pub purpose: &'static str,
    /// A command that can be pasted, or a path. It is never cut or wrapped.
    pub command: String,
}

/// Renders a summary of at most 40 lines that ends with the next steps.
pub fn summary(report: &Report, next: &[Next], layout: Layout) -> String {
    let mut page = Page::new(layout);
    head(&mut page, report);
    if let [phase] = &report.phases[..] {
        one_phase(&mut page, report, phase);
    } else {
        phases(&mut page, report);
    }
    if let Some(prompt) = shown_first(report) {
        answers(&mut page, report, prompt);
    }
    let ahead = next_steps(next, layout);
    let lines_left = MAX_LINES.saturating_sub(page.text.lines().count() + ahead.lines().count());
    notes(&mut page, report, lines_left);
    page.text + &ahead
}

/// The title and the run's size, in two lines.
fn head(page: &mut Page, report: &Report) {
    let language = page.language;
    let (top, texts) = (&language.texts().top, &language.texts().terminal);
    let title = clip_words(&flat(&title(report, language)), page.width);
    page.line(&page.paint(&title, Style::new().bold()));
    let flops = report.phases.iter().map(|phase| phase.flops).sum();
    let mut facts = vec![
        language.parameters(&report.model),
        language.duration(report.total_seconds),
        language.prefixed(flops, "FLOP"),
    ];
    if report.peak_memory_bytes > 0 {
        let peak = language.prefixed(report.peak_memory_bytes as f64, "B");
        facts.push((texts.peak_memory)([&peak]));
    }
    facts.push((top.seed)([&report.seed]));
    let facts = clip_words(&facts.join(" · "), page.width);
    page.line(&page.paint(&facts, Style::new().dimmed()));
}

/// What changed most in a phase, largest first: behaviours, then measures on its own held-out data.
/// Each has a label and its figures, `before → after` where both are known.
pub fn largest_changes(
    report: &Report,
    phase: &PhaseReport,
    count: usize,
    language: Language,
) -> Vec<[String; 2]> {
    let figures = |Change { measure, before, after }: Change| {
        let value = |value: f64| value_text(measure.id, value, language);
        let figures = match before {
            Some(before) => arrow(&value(before), &value(after)),
            None => value(after),
        };
        [language.of(measure.label).to_owned(), figures]
    };
    let mut rows: Vec<[String; 2]> =
        largest(report, phase, count).into_iter().map(figures).collect();
    let known: Vec<String> = rows.iter().map(|[label, _]| label.clone()).collect();
    let held_out = phase.before.iter().filter_map(|(id, before)| {
        let after = phase.metrics.get(id)?;
        // Parts of a measure (`reward_accuracy/fact`) are for the long form.
        let part = id.split_once('/').is_some_and(|(all, _)| phase.before.contains_key(all));
        let what = flat(&label(id, language));
        let redundant = part || known.contains(&what);
        let [before, after] = [*before, *after].map(|value| value_text(id, value, language));
        (!redundant).then(|| [what, arrow(&before, &after)])
    });
    rows.extend(held_out);
    rows.truncate(count);
    rows
}

/// Two figures that no line end parts.
fn arrow(before: &str, after: &str) -> String {
    format!("{before} → {after}").replace(' ', "\u{a0}")
}

/// The measures of a run of one phase, one a line.
fn one_phase(page: &mut Page, report: &Report, phase: &PhaseReport) {
    let rows = largest_changes(report, phase, MEASURES_ALONE, page.language);
    if rows.is_empty() {
        return;
    }
    page.heading(&(page.language.texts().terminal.one_changed)([&flat(&phase.name)]));
    let figures = rows.iter().map(|[_, figures]| figures.width()).max().unwrap_or(0);
    let label = rows.iter().map(|[label, _]| label.width()).max().unwrap_or(0);
    let label = label.min(page.width.saturating_sub(figures + 4).max(12));
    for [what, value] in &rows {
        page.line(&format!("  {}  {value}", pad(&clip(what, label), label)));
    }
}

/// One row a phase, in at most [`MAX_PHASE_LINES`] lines.
fn phases(page: &mut Page, report: &Report) {
    if report.phases.is_empty() {
        return;
    }
    let (texts, tables) = (&page.language.texts().terminal, &page.language.texts().tables);
    page.heading(texts.changed);
    let time = if page.width < TIME_FROM { "" } else { &format!("{:>13}", tables.time) };
    let (phase, compute) = (pad(tables.phase, NAME), tables.compute);
    let head = format!("{phase}{time}{compute:>9}  {}", texts.largest_changes);
    page.line(&page.paint(&clip(&head, page.width), Style::new().dimmed()));
    let flops: f64 = report.phases.iter().map(|phase| phase.flops).sum();
    let rows = |measures: usize, lines: usize| -> Vec<String> {
        let row = |(index, phase)| phase_row(page, report, index, phase, flops, measures, lines);
        report.phases.iter().enumerate().flat_map(row).collect()
    };
    let mut lines = rows(MEASURES_EACH, usize::MAX);
    for most in [usize::MAX, 1] {
        if lines.len() > MAX_PHASE_LINES {
            lines = rows(1, most);
        }
    }
    let more = lines.len().saturating_sub(MAX_PHASE_LINES);
    if more > 0 {
        lines.truncate(MAX_PHASE_LINES - 1);
        lines.push((texts.more_phases)(more + 1));
    }
    for line in lines {
        page.line(&line);
    }
}

/// A phase's row: its name, time, share of the compute, and as many of its changes as asked for.
fn phase_row(
    page: &Page,
    report: &Report,
    index: usize,
    phase: &PhaseReport,
    flops: f64,
    measures: usize,
    lines: usize,
) -> Vec<String> {
    let language = page.language;
    let name = clip(&flat(&phase.name), NAME);
    let mut facts = format!("{:>9}  ", language.percent(share(phase.flops, flops)));
    if page.width >= TIME_FROM {
        facts = format!("{:>13}{facts}", language.duration(phase.seconds));
    }
    let indent = NAME + facts.width();
    let changes = largest_changes(report, phase, measures, language);
    let changes: Vec<String> =
        changes.iter().map(|[label, figures]| format!("{label} {figures}")).collect();
    let text = match changes.len() {
        0 => language.texts().terminal.no_change.to_owned(),
        _ => changes.join(", "),
    };
    let mut wrapped = wrap(&text, page.width.saturating_sub(indent).max(NAME));
    if wrapped.len() > lines {
        wrapped = vec![clip_words(&text, page.width.saturating_sub(indent).max(NAME))];
    }
    let first = format!(
        "{}{}{facts}",
        page.paint(&name, colour(index)),
        " ".repeat(NAME - name.width().min(NAME))
    );
    let starts = std::iter::once(first).chain(std::iter::repeat(" ".repeat(indent)));
    starts.zip(wrapped).map(|(start, line)| start + &line).collect()
}

/// A prompt and its answers, each cut to one line.
fn answers(page: &mut Page, report: &Report, prompt: &PromptReport) {
    let texts = &page.language.texts().terminal;
    let title = flat(kind(&prompt.kind, page.language).0);
    page.heading(if title.is_empty() { texts.prompt } else { &title });
    let form = flat(form(&prompt.form, page.language));
    let given = flat(prompt.prompt.trim());
    let given = if form.is_empty() { given } else { format!("{form}: {given}") };
    for line in first_lines(&given, page.width, MAX_PROMPT_LINES) {
        page.line(&page.paint(&line, Style::new().dimmed()));
    }
    let before = prompt.before.iter().map(|output| (texts.before.to_owned(), Style::new(), output));
    let after = report.phases.iter().enumerate().filter_map(|(index, phase)| {
        Some((flat(&phase.name), colour(index), prompt.outputs.get(&phase.name)?))
    });
    let rows: Vec<_> = before.chain(after).collect();
    let shown = if rows.len() > MAX_ANSWER_LINES { MAX_ANSWER_LINES - 1 } else { rows.len() };
    for (name, style, output) in &rows[..shown] {
        let name = clip(name, NAME);
        let text = model_text(page, output, page.width - NAME - 1);
        let gap = " ".repeat(NAME + 1 - name.width());
        page.line(&format!("{}{gap}{text}", page.paint(&name, *style)));
    }
    if rows.len() > shown {
        page.line(&(texts.more)(rows.len() - shown));
    }
}

/// A model's text in one line, its thinking dimmed.
fn model_text(page: &Page, output: &str, width: usize) -> String {
    let output = flat(output.trim());
    let mut line = String::new();
    let mut left = width;
    for segment in segments(&output) {
        let (text, style) = styled(segment);
        if !line.is_empty() {
            line.push(' ');
            left = left.saturating_sub(1);
        }
        let clipped = clip_words(&text, left);
        line += &page.paint(&clipped, style);
        left = left.saturating_sub(clipped.width());
        if clipped != text || left < 2 {
            return line;
        }
    }
    if line.is_empty() {
        page.paint(page.language.texts().answers.nothing, Style::new().dimmed())
    } else {
        line
    }
}

/// As many whole notes as fit into `lines_left` lines.
fn notes(page: &mut Page, report: &Report, lines_left: usize) {
    let texts = &page.language.texts().terminal;
    let notes: Vec<Vec<String>> = all_notes(report, page.language)
        .iter()
        .map(|note| first_lines(&flat(note), page.width - 2, 3))
        .collect();
    // A blank line, the heading, and a line for the notes that do not fit.
    let lines_left = lines_left.saturating_sub(3);
    let fits = notes
        .iter()
        .scan(0, |lines, note| {
            *lines += note.len();
            Some(*lines)
        })
        .take_while(|lines| *lines <= lines_left)
        .count();
    if notes.is_empty() || lines_left == 0 {
        return;
    }
    page.heading(texts.notes);
    for line in notes[..fits].iter().flatten() {
        page.line(&format!("  {line}"));
    }
    if fits < notes.len() {
        page.line(&format!("  {}", (texts.more_notes)(notes.len() - fits)));
    }
}

/// The next steps. Long commands get their own lines.
fn next_steps(next: &[Next], layout: Layout) -> String {
    let mut page = Page::new(layout);
    if next.is_empty() {
        return page.text;
    }
    page.heading(layout.language.texts().terminal.next);
    let purposes = next.iter().map(|step| step.purpose.width()).max().unwrap_or(0);
    let widest = next.iter().map(|step| step.command.width()).max().unwrap_or(0);
    let beside = purposes + widest + 4 <= page.width;
    for Next { purpose, command } in next {
        let purpose = page.paint(&pad(purpose, purposes), Style::new().dimmed());
        if beside {
            page.line(&format!("  {purpose}  {command}"));
        } else {
            page.line(&format!("  {purpose}"));
            page.line(&format!("    {command}"));
        }
    }
    page.text
}

/// Text without control characters and line ends.
fn flat(text: &str) -> String {
    let words = without_controls(text);
    words.split(['\n', ' ']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The first `count` lines of a wrapped text, with an ellipsis if it is longer.
fn first_lines(text: &str, width: usize, count: usize) -> Vec<String> {
    let mut lines = wrap(text, width);
    if lines.len() > count {
        let rest = lines.split_off(count - 1).join(" ");
        lines.push(clip_words(&rest, width));
    }
    lines
}

/// The text's first words that fit, with an ellipsis where something was left out.
fn clip_words(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let lines = wrap(text, width.saturating_sub(2).max(1));
    let first = lines.first().map_or("", |line| line.as_str());
    // A word that is wider than a line is cut inside.
    if first.is_empty() { clip(text, width) } else { format!("{first} …") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(index: usize, text: &str) -> PhaseReport {
        PhaseReport {
            name: format!("phase-{index}"),
            flops: 1e12,
            seconds: 3723.0,
            metrics: [
                ("validation_loss".into(), 0.5),
                ("harmful_refused".into(), 0.9),
                ("reward_accuracy/x".into(), 0.3),
            ]
            .into(),
            before: [
                ("validation_loss".into(), 1.0),
                ("reward_accuracy".into(), 0.1),
                ("reward_accuracy/x".into(), 0.2),
            ]
            .into(),
            notes: vec![text.repeat(7), "short".into()],
            ..PhaseReport::default()
        }
    }

    /// A run of `count` phases with long texts.
    fn long(count: usize) -> Report {
        let text = "Lorem ipsum dolor sit amet, consectetur adipiscing elit. ".repeat(9);
        let phases: Vec<PhaseReport> = (0..count).map(|index| phase(index, &text)).collect();
        let outputs = phases.iter().map(|phase| (phase.name.clone(), text.clone())).collect();
        let prompt = PromptReport {
            prompt: text.clone(),
            kind: "harmful".into(),
            form: "chat".into(),
            before: Some("<think>".to_owned() + &text),
            outputs,
        };
        Report { title: text, phases, prompts: vec![prompt], ..Report::default() }
    }

    fn next() -> Vec<Next> {
        let step = |purpose, command: &str| Next { purpose, command: command.to_owned() };
        vec![
            step("talk to it", "crisol chat runs/x/5-ppo"),
            step("read the report", "runs/x/report.html"),
            step("everything here", "crisol report runs/x --full"),
        ]
    }

    fn plain(width: usize, language: Language) -> Layout {
        Layout { width, colour: false, language }
    }

    #[test]
    fn every_run_fits_a_screen_and_ends_with_the_next_steps() {
        let widths = [40, 80, 100, 200].into_iter();
        let layouts: Vec<Layout> =
            widths.flat_map(|width| Language::ALL.map(|l| plain(width, l))).collect();
        for count in [0, 1, 2, 7, 8, 15, 16, 17, 60] {
            for layout in &layouts {
                let width = layout.width;
                let text = summary(&long(count), &next(), *layout);
                let lines: Vec<&str> = text.lines().collect();
                assert!(
                    lines.len() <= MAX_LINES,
                    "{count} phases, {width}: {}\n{text}",
                    lines.len()
                );
                let wide = lines.iter().find(|line| line.width() > width);
                assert!(wide.is_none(), "{count} phases, {width}: {wide:?}");
                assert!(text.trim_end().ends_with("crisol report runs/x --full"), "{text}");
            }
        }
    }

    #[test]
    fn no_word_is_cut() {
        let report = long(7);
        let mut known: Vec<String> = [&report.title, "Lorem amet, <think>Lorem"]
            .iter()
            .flat_map(|text| text.split(' ').map(str::to_owned))
            .collect();
        known.dedup();
        let text = summary(&report, &next(), plain(80, Language::English));
        let latin = text.lines().filter(|line| line.contains("orem") || line.contains("ipsum"));
        for word in latin.flat_map(|line| line.split_whitespace()) {
            let ours = ["user", "says:", "the", "…", "before"].contains(&word)
                || word.starts_with("phase-");
            assert!(ours || known.contains(&word.to_owned()), "{word}\n{text}");
        }
        assert!(text.contains("ipsum"));
    }

    /// Where two changes a phase are too many lines, one stays, with its figures.
    #[test]
    fn figures_are_cut_last() {
        let mut report = long(7);
        for phase in &mut report.phases {
            phase.metrics.insert("lookalike_refused".into(), 0.9);
            phase.before = [("lookalike_refused".into(), 0.1)].into();
        }
        let text = summary(&report, &next(), plain(80, Language::Spanish));
        assert_eq!(text.matches("10 % → 90 %").count(), 7, "{text}");
        assert!(!text.contains("que rechaza …"), "{text}");
    }

    #[test]
    fn the_summary_shows_what_is_in_the_report() {
        let text = summary(&long(2), &next(), plain(80, Language::English));
        assert!(text.contains("phase-1") && text.contains("harmful requests refused 90 %"));
        assert!(text.contains("held-out loss") && !text.contains("ranked right"), "{text}");
        assert!(text.contains("1 h 2 min") && text.contains("50 %"), "{text}");
        assert!(text.contains("phase-0: Lorem") && text.contains("the user says: Lorem"));
    }
}
