//! What a running phase calls: it logs steps and measures, notes remarks, and stops when asked to.
//!
//! A phase is a sequence of *stages* (most have one), a stage a number of steps:
//!
//! ```text
//! forecast → begin_stage → step, end_step, step, end_step, … → into_record
//! ```
//!
//! [`PhaseContext::end_step`] logs the step, saves the state when a save is due, and stops on
//! request. The state itself, and how a phase resumes from it, is in `state.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crisol_cost::machine::Machine;
use crisol_cost::units::{Bytes, Flops};
use crisol_engine::{Device, Params};
use crisol_model::Model;
use crisol_report::{Curve, MaskPicture, PromptReport, RolloutSample};
use crisol_text::{Encoded, EncodingSummary, Record, TextError, encode_records};
use crisol_train::{EventWriter, MetricsWriter, Trainer, TrainerOptions, read_metrics};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::PhaseError;
use crate::answer_reward::AnswerReward;
use crate::data::DataSource;
use crate::divergence::DivergenceMonitor;
use crate::fingerprint::{Fingerprint, PhaseStatus};
use crate::forecast::StageForecast;
use crate::forecast::plan::{Shapes, StageData, StagePlan};
use crate::no_signal::FirstSteps;
use crate::observer::Observer;
use crate::reason::COLD_START;
use crate::recipe::{Recompute, RunSettings};
use crate::settings::OptimizerSettings;
use crate::state::{SaveStats, SavedModel, State, StateFolder, update_counts};

/// Held-out loss of supervised phases, measured before their first step and after their last.
pub(crate) const HELD_OUT_LOSS: &str = "validation_loss";

/// A running phase, except its models.
pub(crate) struct PhaseContext<'a> {
    /// Settings of the whole run.
    pub(crate) run: &'a RunSettings,
    /// Device of all models.
    pub(crate) device: &'a Device,
    /// Source of the data files.
    pub(crate) data: &'a DataSource,
    /// The phase's name.
    pub(crate) name: String,
    /// Loss masks for the report.
    pub(crate) masks: Vec<MaskPicture>,
    /// The reward of GRPO in place of the verifier's.
    pub(crate) reward: Option<&'a dyn AnswerReward>,
    observer: &'a mut dyn Observer,
    /// Calibrated rates of this machine.
    machine: Option<&'a Machine>,
    /// Forecast of the stage that begins next, in seconds.
    forecast: Option<f64>,
    progress: PathBuf,
    metrics: MetricsWriter,
    monitor: DivergenceMonitor,
    state: State,
    /// The state after the last whole step: what is saved when a step is given up.
    last_step: State,
    folder: StateFolder,
    /// Steps of the stage.
    total: u64,
    /// Whether the stage to resume is still ahead.
    resuming: bool,
    /// When the phase began. Time before an interruption counts too.
    began: Instant,
}

/// The purpose of a random stream of a phase.
pub(crate) fn stage_purpose(phase: &str, what: &str) -> String {
    format!("{phase}/{what}")
}

impl<'a> PhaseContext<'a> {
    /// Opens the progress folder of a phase, with the state of an interrupted attempt.
    pub(crate) fn open(
        run: &'a RunSettings,
        device: &'a Device,
        data: &'a DataSource,
        name: &str,
        progress: &Path,
        tensorboard: Option<&Path>,
        machine: Option<&'a Machine>,
        fingerprint: Fingerprint,
        observer: &'a mut dyn Observer,
    ) -> Result<PhaseContext<'a>, PhaseError> {
        let (folder, saved) = StateFolder::open(progress, run.checkpoint_seconds)?;
        let changes = match &saved {
            Some(saved) => fingerprint.check(&saved.fingerprint, name, PhaseStatus::Unfinished)?,
            None => vec![],
        };
        let resuming = saved.is_some();
        let state = State { fingerprint, ..saved.unwrap_or_default() };
        device.interrupt().set_unsaved(false);
        let events = tensorboard.map(EventWriter::create).transpose()?;
        let metrics =
            MetricsWriter::open(&progress.join("metrics.jsonl"), state.logged.as_ref(), events)?;
        let now = Instant::now();
        let began = Duration::try_from_secs_f64(state.seconds)
            .ok()
            .and_then(|spent| now.checked_sub(spent))
            .unwrap_or(now);
        let mut this = PhaseContext {
            run,
            device,
            data,
            name: name.to_owned(),
            masks: Vec::new(),
            reward: None,
            observer,
            machine,
            forecast: None,
            progress: progress.to_path_buf(),
            metrics,
            monitor: DivergenceMonitor::default(),
            last_step: state.clone(),
            state,
            folder,
            total: 0,
            resuming,
            began,
        };
        for change in changes {
            this.note(format!("From step {} on: {change}.", this.state.steps + 1));
        }
        Ok(this)
    }

    /// A trainer with the memory settings of the run and of this optimizer.
    pub(crate) fn trainer(
        &self,
        model: Model,
        params: Params,
        optimizer: &OptimizerSettings,
    ) -> Trainer {
        let recompute_blocks = self.run.recompute == Recompute::Block;
        let options = TrainerOptions { recompute_blocks, moments: optimizer.moments };
        Trainer::new(model, params, options)
    }

    /// The purpose of a random stream of this phase.
    pub(crate) fn purpose(&self, what: &str) -> String {
        stage_purpose(&self.name, what)
    }

    /// Forecasts the stage that begins next. A resumed stage reports its measured pace instead.
    pub(crate) fn forecast(
        &mut self,
        plan: &StagePlan<'_>,
        shapes: Shapes<'_>,
        data: &StageData<'_>,
    ) {
        let mut work = plan.work(shapes, data);
        if self.run.recompute == Recompute::Block {
            work = work.with_recomputed_blocks(shapes.policy);
        }
        let forecast = StageForecast::new(plan.name, shapes.policy, &work, self.machine);
        self.forecast = forecast.seconds;
        if !self.resuming {
            self.observer.stage_forecast(&forecast);
        }
    }

    /// Forecasts the phase's memory.
    pub(crate) fn forecast_memory(&mut self, bytes: Bytes, before_updates: Option<Bytes>) {
        self.observer.memory_forecast(bytes.0, before_updates.map(|bytes| bytes.0));
    }

    /// Begins a stage of `total` steps and returns the number of steps already made.
    ///
    /// A stage that was interrupted gets its models back. A stage that was finished returns `total`
    /// and restores nothing: the `begin_stage` of the interrupted stage after it does.
    pub(crate) fn begin_stage(
        &mut self,
        stage: &str,
        total: u64,
        models: &mut [SavedModel<'_>],
    ) -> Result<u64, PhaseError> {
        let forecast = self.forecast.take();
        self.total = total;
        self.check_stop()?;
        if self.resuming && self.state.stage == stage {
            self.folder.restore(&self.state, total, models)?;
            self.resuming = false;
            self.replay_monitor(total)?;
            self.observer.stage_started(stage, self.state.stage_steps, total);
            return Ok(self.state.stage_steps);
        }
        if self.resuming && self.state.finished_stages.iter().any(|s| s == stage) {
            return Ok(total);
        }
        // The fingerprints agree, so the saved state cannot be of an unknown stage.
        self.resuming = false;
        if !self.state.stage.is_empty() {
            self.state.finished_stages.push(std::mem::take(&mut self.state.stage));
        }
        stage.clone_into(&mut self.state.stage);
        self.state.stage_steps = 0;
        self.monitor = DivergenceMonitor::default();
        self.state.expected_seconds += forecast.unwrap_or(0.0);
        self.mark_step_end(models);
        self.observer.stage_started(stage, 0, total);
        Ok(0)
    }

    /// Whether `stage` is the current one. A resumed phase passes over its finished stages: their
    /// weights are not loaded, and nothing may be measured on them.
    pub(crate) fn in_stage(&self, stage: &str) -> bool {
        self.state.stage == stage
    }

    /// Ends step `done` (from 1) of `total`: logs it, and saves if a save is due, the stage ends or
    /// a stop is requested. Returns [`PhaseError::Interrupted`] in the last case.
    pub(crate) fn end_step(
        &mut self,
        done: u64,
        total: u64,
        tokens: u64,
        metrics: &[(&str, f64)],
        models: &mut [SavedModel<'_>],
    ) -> Result<(), PhaseError> {
        self.mark_unsaved();
        self.state.stage_steps = done;
        self.state.steps = self.state.steps.saturating_add(1);
        self.state.tokens = self.state.tokens.saturating_add(tokens);
        self.metrics.log(self.state.steps, metrics)?;
        self.observer.step(done, tokens, metrics);
        for remark in self.monitor.step(done, total, metrics, self.optimizer()) {
            self.note(remark);
        }
        self.mark_step_end(models);
        let stop = self.device.interrupt().requested();
        if stop || done == total || self.folder.is_due() {
            self.save(models)?;
        }
        if stop { Err(self.interrupted()) } else { Ok(()) }
    }

    /// Marks the models as changed since the last save: a second Ctrl-C would lose an update.
    pub(crate) fn mark_unsaved(&self) {
        self.device.interrupt().set_unsaved(true);
    }

    fn mark_step_end(&mut self, models: &[SavedModel<'_>]) {
        self.state.updates = update_counts(models);
        self.last_step.clone_from(&self.state);
    }

    /// The recipe's name for the stage's optimizer settings.
    fn optimizer(&self) -> &'static str {
        if self.state.stage == COLD_START { "cold_start.optimizer" } else { "optimizer" }
    }

    /// Feeds the monitor the logged steps of a resumed stage. Its remarks were noted before.
    fn replay_monitor(&mut self, total: u64) -> Result<(), PhaseError> {
        let before = self.state.steps.saturating_sub(self.state.stage_steps);
        let mut steps: BTreeMap<u64, Vec<(String, f64)>> = BTreeMap::new();
        for (step, name, value) in read_metrics(&self.metrics_file())? {
            if step > before {
                steps.entry(step - before).or_default().push((name, value));
            }
        }
        for (step, metrics) in steps {
            let metrics: Vec<(&str, f64)> =
                metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            self.monitor.step(step, total, &metrics, self.optimizer());
        }
        Ok(())
    }

    /// Stops at a point with nothing to save, if a stop is requested.
    pub(crate) fn check_stop(&self) -> Result<(), PhaseError> {
        if self.device.interrupt().requested() { Err(self.interrupted()) } else { Ok(()) }
    }

    /// Gives a step up before its first update: saves the state after the last whole step and
    /// returns [`PhaseError::Interrupted`]. Errors other than a stop are returned as they are.
    pub(crate) fn stop_before_update(
        &mut self,
        error: impl Into<PhaseError>,
        models: &mut [SavedModel<'_>],
    ) -> PhaseError {
        let error = error.into();
        if !error.is_stop() {
            return error;
        }
        self.state.clone_from(&self.last_step);
        let untouched = !models.is_empty() && update_counts(models) == self.state.updates;
        if untouched
            && self.device.interrupt().unsaved()
            && let Err(error) = self.save(models)
        {
            return error;
        }
        self.interrupted()
    }

    /// Stops within a step of several updates. If some were made, `step` is saved too, and a
    /// resumed stage goes on within the step.
    pub(crate) fn stop_between_updates(
        &mut self,
        error: impl Into<PhaseError>,
        step: &impl Serialize,
        models: &mut [SavedModel<'_>],
    ) -> PhaseError {
        let (error, updates) = (error.into(), update_counts(models));
        if !error.is_stop() || updates == self.state.updates {
            return self.stop_before_update(error, models);
        }
        if let Err(error) = self.folder.set_partial_step(step) {
            return error;
        }
        self.state.updates = updates;
        if let Err(error) = self.save(models) { error } else { self.interrupted() }
    }

    /// The step to go on within, if the stage was stopped between two updates of it.
    pub(crate) fn take_partial_step<S: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<S>, PhaseError> {
        self.folder.take_partial_step()
    }

    fn interrupted(&self) -> PhaseError {
        let (done, total) = (self.last_step.stage_steps, self.total);
        let place = if self.folder.has_partial_step() {
            format!("within step {} of {total}; everything is saved", done + 1)
        } else if self.device.interrupt().unsaved() {
            format!("after step {done} of {total}; it goes on from its last save")
        } else {
            format!("after step {done} of {total}; everything is saved")
        };
        PhaseError::Interrupted { phase: self.name.clone(), place }
    }

    fn save(&mut self, models: &mut [SavedModel<'_>]) -> Result<(), PhaseError> {
        self.state.seconds = self.began.elapsed().as_secs_f64();
        self.state.logged = Some(self.metrics.checksum()?);
        self.folder.save(&mut self.state, models)?;
        self.device.interrupt().set_unsaved(false);
        self.observer.saved(&self.state.saves);
        Ok(())
    }

    /// Adds to the phase's floating-point operations.
    pub(crate) fn count_flops(&mut self, flops: Flops) {
        self.state.flops += flops.0;
    }

    /// Runs `f`, which samples answers, and adds its time to the phase's sampling time.
    pub(crate) fn time_sampling<T>(&mut self, f: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = f();
        self.state.sampling_seconds += began.elapsed().as_secs_f64();
        result
    }

    /// Records a measure of the trained model.
    pub(crate) fn measure(&mut self, name: &str, value: f64) {
        self.state.metrics.insert(name.to_owned(), value);
        if name == HELD_OUT_LOSS
            && let Some(&before) = self.state.before.get(name).filter(|before| value > **before)
        {
            let optimizer = self.optimizer();
            self.note(format!(
                "The loss on held-out data rose from {before:.3} to {value:.3} nats: \
                 lower {optimizer}.lr or epochs, or add data."
            ));
        }
    }

    /// Records a measure of the starting model.
    pub(crate) fn measure_before(&mut self, name: &str, value: f64) {
        self.state.before.insert(name.to_owned(), value);
        self.observer.measured();
    }

    /// Whether the starting model has this measure, from this attempt or an interrupted one.
    pub(crate) fn measured_before(&self, name: &str) -> bool {
        self.state.before.contains_key(name)
    }

    /// Records the starting model's answers to held-out prompts, once.
    pub(crate) fn answer_before(
        &mut self,
        answers: impl FnOnce() -> Result<Vec<PromptReport>, PhaseError>,
    ) -> Result<(), PhaseError> {
        if self.state.prompts.is_empty() {
            self.state.prompts = answers()?;
        }
        Ok(())
    }

    /// Whether rollouts of `step` (from 0) of `total` go into the report: those of five steps do.
    pub(crate) fn reports_rollouts(step: u64, total: u64) -> bool {
        (0..=4).any(|quarter| step == quarter * (total - 1) / 4)
    }

    /// Adds a rollout to the report.
    pub(crate) fn report_rollout(&mut self, mut rollout: RolloutSample) {
        rollout.phase.clone_from(&self.name);
        rollout.step = self.state.steps + 1;
        self.state.rollouts.push(rollout);
    }

    /// What the first answers of GRPO lacked.
    pub(crate) fn first_steps(&mut self) -> &mut FirstSteps {
        &mut self.state.first_steps
    }

    /// Adds a line to the report and passes it to the observer. A line is noted once: a resumed
    /// phase repeats the lines of its start. Each is in the table of sentences, for reports in
    /// other languages.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        debug_assert!(crisol_report::is_known(&text), "{text}");
        if !self.state.notes.contains(&text) {
            self.observer.note(&text);
            self.state.notes.push(text);
        }
    }

    /// Notes what an encoding left out; `data` names the data and stands before each line.
    pub(crate) fn note_encoding(&mut self, data: &str, summary: &EncodingSummary, context: usize) {
        for note in summary.notes(context) {
            self.note(format!("{data}{note}"));
        }
    }

    /// The records of files, in order. Fields that no phase reads are noted.
    pub(crate) fn records(&mut self, files: &[String]) -> Result<Vec<Record>, PhaseError> {
        let records = self.data.all_records(files)?;
        for note in self.data.notes(files) {
            self.note(note);
        }
        Ok(records)
    }

    /// Encodes the records of files; returns the record of each example too. `data` names the data
    /// in notes.
    pub(crate) fn encode<T: Send>(
        &mut self,
        data: &str,
        files: &[String],
        context: usize,
        encode: impl Fn(&Record) -> Result<Encoded<T>, TextError> + Sync,
    ) -> Result<(Vec<T>, Vec<Record>), PhaseError> {
        let records = self.records(files)?;
        let Encoded { examples, records: indices, summary } = encode_records(&records, encode)?;
        self.note_encoding(data, &summary, context);
        Ok((examples, indices.into_iter().map(|i| records[i].clone()).collect()))
    }

    /// The tokenizer that an interrupted attempt trained, as JSON.
    pub(crate) fn trained_tokenizer(&self) -> Option<&str> {
        self.folder.tokenizer.as_deref()
    }

    /// Adds a tokenizer that the phase trained to its saved state.
    pub(crate) fn set_trained_tokenizer(&mut self, json: String) {
        self.folder.tokenizer = Some(json);
    }

    /// File for the tokens of a role's data, if they exceed the memory.
    pub(crate) fn tokens_file(&self, role: &str) -> PathBuf {
        self.progress.join("tokens").join(role)
    }

    /// The metrics of the phase so far.
    pub(crate) fn metrics_file(&self) -> PathBuf {
        self.progress.join("metrics.jsonl")
    }

    /// Fingerprint of the phase's inputs.
    pub(crate) fn fingerprint(&self) -> &Fingerprint {
        &self.state.fingerprint
    }

    /// What the phase leaves for its report.
    pub(crate) fn into_record(self) -> Result<PhaseRecord, PhaseError> {
        let mut curves: Vec<Curve> = Vec::new();
        for (step, name, value) in read_metrics(&self.metrics_file())? {
            let point = (step as f64, value);
            match curves.iter_mut().find(|c| c.name == name) {
                Some(curve) => curve.points.push(point),
                None => curves.push(Curve { name, unit: String::new(), points: vec![point] }),
            }
        }
        Ok(PhaseRecord {
            curves,
            tokens: self.state.tokens,
            flops: self.state.flops,
            seconds: self.began.elapsed().as_secs_f64(),
            sampling_seconds: self.state.sampling_seconds,
            expected_seconds: self.state.expected_seconds,
            metrics: self.state.metrics,
            before: self.state.before,
            prompts: self.state.prompts,
            rollouts: self.state.rollouts,
            notes: self.state.notes,
            masks: self.masks,
            saves: self.state.saves,
            fingerprint: self.state.fingerprint,
        })
    }
}

/// What a finished phase leaves for the report. Fields as in [`State`].
#[derive(Debug)]
pub(crate) struct PhaseRecord {
    pub(crate) curves: Vec<Curve>,
    pub(crate) tokens: u64,
    pub(crate) flops: f64,
    pub(crate) seconds: f64,
    pub(crate) sampling_seconds: f64,
    pub(crate) expected_seconds: f64,
    pub(crate) metrics: BTreeMap<String, f64>,
    pub(crate) before: BTreeMap<String, f64>,
    pub(crate) prompts: Vec<PromptReport>,
    pub(crate) rollouts: Vec<RolloutSample>,
    pub(crate) notes: Vec<String>,
    pub(crate) masks: Vec<MaskPicture>,
    pub(crate) saves: SaveStats,
    pub(crate) fingerprint: Fingerprint,
}
