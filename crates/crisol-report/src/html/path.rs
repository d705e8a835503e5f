//! The picture of the phases: a row for each branch, a column for each step on the way.
//!
//! ```text
//! pretrain → sft → reason ┬→ refuse
//!                         ├→ reward ⇢ ppo     ⇢ scores the answers of
//!                         └→ dpo
//! ```
//!
//! Boxes are cells of a CSS grid. Arrows are one drawing behind them, in the grid's own units. A
//! narrow page shows the boxes as a list, indented, without the drawing.

use std::fmt::Write as _;

use super::{colour, role};
use crate::changes;
use crate::markup::Escaped;
use crate::measures::value_text;
use crate::terminal::before_and_after;
use crate::tree::{Node, tree};
use crate::{Language, PhaseReport, Report};

/// Height of a box, and the gaps between boxes, in sixteenths of a rem.
const BOX_HEIGHT: f64 = 60.0;
const ROW_GAP: f64 = 14.0;
const COLUMN_GAP: f64 = 36.0;
/// Width of a box. With many columns boxes are narrower, so that the picture fits the page.
const WIDEST_BOX: f64 = 205.0;
const NARROWEST_BOX: f64 = 120.0;
const PAGE: f64 = 1170.0;

/// The cell of a phase's box.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Cell {
    row: usize,
    column: usize,
}

/// Where the boxes and arrows are.
struct Picture {
    cells: Vec<Cell>,
    rows: usize,
    columns: usize,
    box_width: f64,
}

impl Picture {
    fn of(report: &Report) -> Self {
        let phases = &report.phases;
        // PPO is drawn beside the reward model that scores its answers.
        let beside: Vec<PhaseReport> = phases
            .iter()
            .enumerate()
            .map(|(index, phase)| PhaseReport {
                name: phase.name.clone(),
                parent: scorer(phases, index)
                    .map(|scorer| phases[scorer].name.clone())
                    .or_else(|| phase.parent.clone()),
                ..PhaseReport::default()
            })
            .collect();
        let mut cells = vec![Cell::default(); phases.len()];
        let mut rows = 0;
        for node in tree(&beside) {
            rows = place_node(&node, Cell { row: rows, column: 0 }, &mut cells);
        }
        // Every phase is right of the one that it starts from.
        for at in 0..phases.len() {
            let after = [parent(phases, at), scorer(phases, at)].into_iter().flatten();
            if let Some(column) = after.map(|before| cells[before].column + 1).max() {
                cells[at].column = column;
            }
        }
        let columns = cells.iter().map(|cell| cell.column + 1).max().unwrap_or(0);
        let width = (PAGE + COLUMN_GAP) / columns.max(1) as f64 - COLUMN_GAP;
        Self { cells, rows, columns, box_width: width.clamp(NARROWEST_BOX, WIDEST_BOX) }
    }

    fn left(&self, index: usize) -> f64 {
        self.cells[index].column as f64 * (self.box_width + COLUMN_GAP)
    }

    fn right(&self, index: usize) -> f64 {
        self.left(index) + self.box_width
    }

    fn top(&self, index: usize) -> f64 {
        self.cells[index].row as f64 * (BOX_HEIGHT + ROW_GAP)
    }

    fn middle(&self, index: usize) -> f64 {
        self.top(index) + BOX_HEIGHT / 2.0
    }

    /// The arrow from a phase to one that starts from it.
    fn line(&self, from: usize, to: usize, scored: bool) -> String {
        let (x, y) = (self.right(from), self.middle(from));
        let (end, mut at) = (self.left(to), self.middle(to));
        let spine = x + COLUMN_GAP / 2.0;
        let way = if self.cells[to].column > self.cells[from].column + 1 {
            // Below the boxes that stand in between, and into the box below another arrow.
            at += if scored { 14.0 } else { 0.0 };
            let under = self.top(to) + BOX_HEIGHT + ROW_GAP / 2.0;
            let rise = end - COLUMN_GAP / 2.0;
            format!("M{x:.0} {y:.0}H{spine:.0}V{under:.0}H{rise:.0}V{at:.0}")
        } else {
            format!("M{x:.0} {y:.0}H{spine:.0}V{at:.0}")
        };
        format!("{way}H{end:.0}{}", head(end, at))
    }

    /// The arrow from a reward model to the phase whose answers it scores: its line, dashed, and
    /// its head.
    fn scores(&self, from: usize, to: usize) -> (String, String) {
        let (x, y) = (self.right(from), self.middle(from) - 8.0);
        let (end, at) = (self.left(to), self.middle(to) - 8.0);
        let rise = end - COLUMN_GAP / 3.0;
        (format!("M{x:.0} {y:.0}H{rise:.0}V{at:.0}H{end:.0}"), head(end, at))
    }
}

/// An arrow's head, pointing right.
fn head(x: f64, y: f64) -> String {
    format!("M{:.0} {:.0}L{:.0} {y:.0}L{:.0} {:.0}", x - 7.0, y - 4.0, x - 1.0, x - 7.0, y + 4.0)
}

/// Gives a node and all below it their cells. Returns the first row that is free then.
fn place_node(node: &Node, at: Cell, cells: &mut [Cell]) -> usize {
    cells[node.phase] = at;
    let mut row = at.row;
    for child in &node.children {
        row = place_node(child, Cell { row, column: at.column + 1 }, cells);
    }
    row.max(at.row + 1)
}

/// The phase that `phases[index]` starts from.
fn parent(phases: &[PhaseReport], index: usize) -> Option<usize> {
    earlier(phases, index, phases[index].parent.as_ref())
}

/// The phase whose reward model scored the answers of `phases[index]`.
pub(super) fn scorer(phases: &[PhaseReport], index: usize) -> Option<usize> {
    earlier(phases, index, phases[index].reward_model.as_ref())
}

/// An earlier phase by its name. Only those count: a report edited by hand may hold circles.
fn earlier(phases: &[PhaseReport], index: usize, name: Option<&String>) -> Option<usize> {
    phases[..index].iter().position(|phase| Some(&phase.name) == name)
}

pub(super) fn section(report: &Report, language: Language) -> String {
    if report.phases.len() < 2 {
        return String::new();
    }
    let picture = Picture::of(report);
    let width = picture.columns as f64 * (picture.box_width + COLUMN_GAP) - COLUMN_GAP;
    let height = picture.rows as f64 * (BOX_HEIGHT + ROW_GAP);
    let mut body = format!(
        "<div class=\"scroll\" tabindex=\"0\"><div class=\"path\" \
         style=\"--w:{:.4}rem;--h:{:.4}rem\">\n\
         <svg class=\"arrows\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         style=\"width:{:.4}rem;height:{:.4}rem\" aria-hidden=\"true\">",
        picture.box_width / 16.0,
        BOX_HEIGHT / 16.0,
        width / 16.0,
        height / 16.0,
    );
    for to in 0..report.phases.len() {
        let scorer = scorer(&report.phases, to);
        if let Some(from) = parent(&report.phases, to) {
            let _ = write!(body, "<path d=\"{}\"/>", picture.line(from, to, scorer.is_some()));
        }
        if let Some(from) = scorer {
            let (line, head) = picture.scores(from, to);
            let _ = write!(body, "<path class=\"scores\" d=\"{line}\"/><path d=\"{head}\"/>");
        }
    }
    body.push_str("</svg>\n");
    for (index, phase) in report.phases.iter().enumerate() {
        node(&mut body, report, index, phase, picture.cells[index], language);
    }
    body.push_str("</div></div>\n");
    let scored = (0..report.phases.len()).any(|index| scorer(&report.phases, index).is_some());
    let texts = &language.texts().path;
    let _ = writeln!(
        body,
        "<p class=\"about\"><span class=\"of-arrows\">{}{}.</span> {}</p>",
        texts.arrows,
        if scored { texts.dashed } else { "" },
        texts.boxes
    );
    body
}

/// Where a phase comes from: `from sft, scored by reward`.
pub(super) fn origin(report: &Report, index: usize, language: Language) -> String {
    let texts = &language.texts().path;
    let scorer = scorer(&report.phases, index);
    let from = report.phases[index].parent.as_ref().map(|parent| (texts.from)([parent]));
    let scored = scorer.map(|scorer| (texts.scored_by)([&report.phases[scorer].name]));
    from.into_iter().chain(scored).collect::<Vec<_>>().join(", ")
}

fn node(
    body: &mut String,
    report: &Report,
    index: usize,
    phase: &PhaseReport,
    cell: Cell,
    language: Language,
) {
    let (figures, what) = highlight(report, phase, language);
    let _ = writeln!(
        body,
        "<a class=\"node {}\" href=\"#phase-{index}\" style=\"grid-area:{}/{};--depth:{}\" \
         title=\"{}\"><strong>{}</strong><small class=\"origin\">{}</small><b>{}</b>\
         <span>{}</span></a>",
        colour(index),
        cell.row + 1,
        cell.column + 1,
        cell.column,
        Escaped(role(phase, language)),
        Escaped(&phase.name),
        Escaped(&origin(report, index, language)),
        Escaped(&figures),
        Escaped(&what)
    );
}

/// Figures of a phase for its box, and what they measure; its kind if nothing was measured.
fn highlight(report: &Report, phase: &PhaseReport, language: Language) -> (String, String) {
    if let Some(change) = changes::largest(report, phase, 1).first() {
        let [before, after] = [change.before, Some(change.after)]
            .map(|value| value.map(|value| value_text(change.measure.id, value, language)));
        let what = language.of(change.measure.label);
        return (arrow(before, &after.unwrap_or_default()), what.to_owned());
    }
    if let Some((_, _, [what, before, after])) = before_and_after((0, phase), language).next() {
        return (arrow(Some(before), &after), what);
    }
    (String::new(), phase.kind.clone())
}

/// `6.9 → 1.6 nats`: the unit once.
fn arrow(before: Option<String>, after: &str) -> String {
    let number = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    before.map_or(String::new(), |before| number(&before) + " → ") + after
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(name: &str, parent: &str, reward_model: &str) -> PhaseReport {
        let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        PhaseReport {
            name: name.into(),
            parent: some(parent),
            reward_model: some(reward_model),
            ..PhaseReport::default()
        }
    }

    fn cells(phases: &[PhaseReport]) -> Vec<(usize, usize)> {
        let report = Report { phases: phases.to_vec(), ..Report::default() };
        Picture::of(&report).cells.iter().map(|cell| (cell.row, cell.column)).collect()
    }

    #[test]
    fn ppo_stands_behind_its_reward_model() {
        let phases = [
            phase("sft", "", ""),
            phase("refuse", "sft", ""),
            phase("reward", "sft", ""),
            phase("ppo", "sft", "reward"),
            phase("dpo", "sft", ""),
        ];
        assert_eq!(cells(&phases), [(0, 0), (0, 1), (1, 1), (1, 2), (2, 1)]);
        let page =
            section(&Report { phases: phases.to_vec(), ..Report::default() }, Language::English);
        assert_eq!(page.matches("class=\"scores\"").count(), 1);
        // Four start from sft, PPO too; one more is the head of the dashed arrow.
        assert_eq!(page.matches("<path d=\"M").count(), 4 + 1);
    }

    #[test]
    fn no_two_boxes_share_a_cell() {
        let mut phases = vec![phase("a", "", "")];
        for (i, of) in ["a", "b0", "a", "b2", "b3", "gone"].into_iter().enumerate() {
            phases.push(phase(&format!("b{i}"), of, ""));
        }
        phases.push(phase("r", "b1", ""));
        phases.push(phase("s", "a", ""));
        phases.push(phase("p", "b3", "r"));
        phases.push(phase("q", "p", "s"));
        phases.push(phase("loop", "loop", "loop"));
        let cells = cells(&phases);
        let different: std::collections::BTreeSet<_> = cells.iter().collect();
        assert_eq!(different.len(), cells.len(), "{cells:?}");
    }
}
