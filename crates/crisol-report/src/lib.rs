//! The report of a run: what every phase did to the model, side by side.
//!
//! [`Report`] is the content of `report.json`; [`html`] renders it to one self-contained page,
//! [`terminal`] to text for a terminal, [`summary`] to a screen of it. [`comparison`] sets several
//! models side by side in the same way. [`NotebookReport`] and [`notebook_html`] are for a replay
//! of the workshop's notebook, [`LadderReport`] and [`ladder_html`] for a ladder of runs,
//! [`ReflectReport`] and [`reflect_html`] for objectives side by side. Each is written in a
//! [`Language`].

mod changes;
mod figures;
mod html;
mod ladder;
mod language;
mod markup;
pub mod measures;
mod notebook;
mod plot;
mod reflect;
mod schema;
mod sentences;
mod terminal;
mod texts;
mod tree;

pub use figures::prefixed;
pub use html::{html, ladder_html, notebook_html, reflect_html};
pub use ladder::{LadderReport, MeasuredRung, PredictedLoss};
pub use language::Language;
pub use notebook::{Demonstration, NotebookModel, NotebookReport, StoredAnswer};
pub use reflect::{
    AlarmClicks, Audience, ClickPredictor, FeatureWeight, FeedFigures, ItemFigures, ReflectModel,
    ReflectPrompt, ReflectReport,
};
pub use schema::{
    Curve, MaskPicture, ModelSummary, PhaseReport, PromptReport, Report, ReportError, RolloutSample,
};
pub use sentences::{is_known, sentence};
pub use terminal::{
    Layout, Next, comparison, largest_changes, reflect_summary, summary, terminal, wrap,
};
