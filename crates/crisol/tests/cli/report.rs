//! The report of a finished run, as a reader sees it.

use std::collections::BTreeSet;

use crisol_report::Report;
use crisol_report::measures::measure;

use crate::fixture::{finished_run, read};

/// Every id that the phases write has a row in the table of measures: no reader meets a raw name.
#[test]
fn every_id_of_a_run_has_a_label() {
    let report = Report::load(&finished_run().join("report.json")).unwrap();
    let mut ids: BTreeSet<&str> = BTreeSet::new();
    for phase in &report.phases {
        ids.extend(phase.metrics.keys().chain(phase.before.keys()).map(String::as_str));
        ids.extend(phase.curves.iter().map(|curve| curve.name.as_str()));
    }
    ids.extend(report.rollouts.iter().flat_map(|sample| sample.parts.keys()).map(String::as_str));
    for expected in ["validation_loss", "reward/format", "zero_spread", "return", "kl", "lr"] {
        assert!(ids.contains(expected), "{expected} is not in the run: what else is missing?");
    }
    for id in ids {
        let whole = id.split('/').next().unwrap_or(id);
        assert!(measure(whole).is_some(), "{id} has no label in crisol-report's measures.rs");
    }
}

/// The picture shows where PPO's reward model comes from, and the stages of the reasoning phase are
/// apart.
#[test]
fn the_page_shows_how_the_phases_depend_on_one_another() {
    let page = read(&finished_run().join("report.html"));
    assert_eq!(page.matches("class=\"scores\"").count(), 1);
    assert!(page.contains("scored by reward"));
    assert!(page.contains("Cold start: steps 1 to ") && page.contains("GRPO: steps "));
}
