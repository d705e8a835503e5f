//! Callbacks of a run, for progress bars and logs.

use crisol_report::PhaseReport;

use crate::forecast::StageForecast;
use crate::state::SaveStats;

/// Receives the events of a run, in order.
pub trait Observer {
    /// A phase begins: `position` (from 1) of `count`.
    fn phase_started(&mut self, name: &str, position: usize, count: usize);
    /// A stage of a phase begins, or resumes after `done` of `total` steps.
    fn stage_started(&mut self, stage: &str, done: u64, total: u64);
    /// A step ended; `tokens` is what it processed.
    fn step(&mut self, step: u64, tokens: u64, metrics: &[(&str, f64)]);
    /// The forecast of the stage that begins next. Its data has been read.
    fn stage_forecast(&mut self, stage: &StageForecast);
    /// The starting model was evaluated, before a stage's first step.
    fn measured(&mut self);
    /// Forecast of a phase's peak memory in bytes, for a process of its own. `before_updates` is
    /// the peak until the first update, if that update may never come.
    fn memory_forecast(&mut self, bytes: f64, before_updates: Option<f64>);
    /// The phase's state was saved; `saves` counts all saves of the phase so far.
    fn saved(&mut self, saves: &SaveStats);
    /// A line for the user.
    fn note(&mut self, text: &str);
    /// A phase is complete and saved.
    fn phase_finished(&mut self, report: &PhaseReport);
}
