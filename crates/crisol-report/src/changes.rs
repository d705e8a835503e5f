//! What a phase changed, read off the behaviours before and after it.

use std::collections::BTreeMap;

use crate::measures::{Better, MEASURES, Measure, Unit};
use crate::{PhaseReport, Report};

/// A behaviour after a phase, and before it where it was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) measure: &'static Measure,
    pub(crate) before: Option<f64>,
    pub(crate) after: f64,
}

/// Minimum change that is reported: five percentage points.
const MIN_CHANGE: f64 = 0.05;

impl Change {
    /// Size of the change; without a value before, the value itself.
    fn size(&self) -> f64 {
        (self.after - self.before.unwrap_or(0.0)).abs()
    }

    /// Whether it is reported: a change of five points. Without a value before, a high value of a
    /// measure that should not be low.
    fn matters(&self) -> bool {
        match self.before {
            Some(_) => self.size() >= MIN_CHANGE,
            None => self.size() >= 0.5 && self.measure.better != Better::Lower,
        }
    }
}

/// A measure before a phase: as it was measured before the first step, else its last known value on
/// the way from the first phase to this one. A reward model has no behaviours, so PPO is compared
/// with the model before it.
pub(crate) fn before(report: &Report, phase: &PhaseReport, id: &str) -> Option<f64> {
    let finite = |metrics: &BTreeMap<String, f64>| {
        metrics.get(id).copied().filter(|value| value.is_finite())
    };
    if let Some(value) = finite(&phase.before) {
        return Some(value);
    }
    let mut parent = phase.parent.as_ref();
    // A report edited by hand may have a circle of parents; no honest path is longer than this.
    for _ in 0..report.phases.len() {
        let ancestor = report.phases.iter().find(|other| Some(&other.name) == parent)?;
        if let Some(value) = finite(&ancestor.metrics) {
            return Some(value);
        }
        parent = ancestor.parent.as_ref();
    }
    None
}

/// The largest changes of a phase that matter, largest first, at most `count`. Values with nothing
/// to compare them with come last. Parts of a measure (`facts_accuracy/later`) are left out: they
/// mostly change as the whole does.
pub(crate) fn largest(report: &Report, phase: &PhaseReport, count: usize) -> Vec<Change> {
    let change = |measure: &'static Measure| {
        let after = *phase.metrics.get(measure.id).filter(|value| value.is_finite())?;
        Some(Change { measure, before: before(report, phase, measure.id), after })
    };
    let mut changes: Vec<Change> = MEASURES
        .iter()
        .filter(|measure| measure.behaviour && measure.unit == Unit::Share)
        .filter(|measure| !measure.id.contains('/'))
        .filter_map(change)
        .filter(Change::matters)
        .collect();
    // A stable sort: equal changes stay in the order of the table.
    changes.sort_by(|a, b| {
        b.before.is_some().cmp(&a.before.is_some()).then(b.size().total_cmp(&a.size()))
    });
    changes.truncate(count);
    changes
}

/// The phase that raised a measure most, with the value before and after it. `None` if no rise
/// reaches the minimum.
pub(crate) fn greatest_rise<'a>(
    report: &'a Report,
    id: &str,
) -> Option<(&'a PhaseReport, f64, f64)> {
    report
        .phases
        .iter()
        .filter_map(|phase| Some((phase, before(report, phase, id)?, *phase.metrics.get(id)?)))
        .filter(|(_, before, after)| after - before >= MIN_CHANGE)
        .max_by(|a, b| (a.2 - a.1).total_cmp(&(b.2 - b.1)))
}

/// The first phase after which a measure is known, with its value.
pub(crate) fn first_known<'a>(report: &'a Report, id: &str) -> Option<(&'a PhaseReport, f64)> {
    let known = |phase: &'a PhaseReport| {
        phase.metrics.get(id).filter(|value| value.is_finite()).map(|&value| (phase, value))
    };
    report.phases.iter().find_map(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_first_and_against_the_parent() {
        let phase = |name: &str, parent: Option<&str>, metrics: &[(&str, f64)]| PhaseReport {
            name: name.into(),
            parent: parent.map(Into::into),
            metrics: metrics.iter().map(|(id, value)| ((*id).into(), *value)).collect(),
            ..PhaseReport::default()
        };
        let report = Report {
            phases: vec![
                phase(
                    "a",
                    None,
                    &[
                        ("facts_accuracy/later", 0.1),
                        ("facts_accuracy", 0.1),
                        ("list_continued", 0.98),
                        ("harmful_complied", 0.9),
                    ],
                ),
                phase("x", Some("a"), &[("reward_accuracy", 0.5)]),
                phase(
                    "b",
                    Some("a"),
                    &[
                        ("facts_accuracy", 0.9),
                        ("list_continued", 0.0),
                        ("harmful_complied", 0.92),
                        ("facts_accuracy/later", 0.9),
                        ("custom", 1.0),
                    ],
                ),
                phase("y", Some("x"), &[("facts_accuracy", 0.7), ("ended_by_itself", 1.0)]),
                phase("loop", Some("loop"), &[("facts_accuracy", 0.7)]),
            ],
            ..Report::default()
        };
        let ids = |phase: usize, count| {
            let changes = largest(&report, &report.phases[phase], count);
            changes.iter().map(|change| change.measure.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(2, 9), ["list_continued", "facts_accuracy"]);
        assert_eq!(ids(2, 1), ["list_continued"]);
        assert_eq!(ids(0, 9), ["list_continued"]);
        // Through x, which did not measure facts, back to a. What cannot be compared comes last.
        assert_eq!(ids(3, 9), ["facts_accuracy", "ended_by_itself"]);
        assert_eq!(before(&report, &report.phases[3], "facts_accuracy"), Some(0.1));
        assert_eq!(before(&report, &report.phases[4], "list_continued"), None);

        // What was measured before the first step is nearer than any other phase.
        let measured = PhaseReport {
            before: [("facts_accuracy".to_owned(), 0.3)].into(),
            ..report.phases[3].clone()
        };
        assert_eq!(before(&report, &measured, "facts_accuracy"), Some(0.3));

        let (phase, from, to) = greatest_rise(&report, "facts_accuracy").unwrap();
        assert_eq!((phase.name.as_str(), from, to), ("b", 0.1, 0.9));
        assert!(greatest_rise(&report, "list_continued").is_none());
        assert!(
            greatest_rise(&report, "harmful_complied").is_none(),
            "two points are below the minimum"
        );
        let (phase, value) = first_known(&report, "harmful_complied").unwrap();
        assert_eq!((phase.name.as_str(), value), ("a", 0.9));
    }
}
