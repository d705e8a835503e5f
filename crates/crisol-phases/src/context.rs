//! What a running phase holds besides its model: where it logs, saves and resumes, and who watches.
//!
//! A phase is a sequence of *stages* (most have one), a stage a number of steps. After each step the phase
//! calls [`PhaseContext::end_step`], which logs, saves when it is time to, and stops when asked to. Everything
//! random is a function of seed, purpose and step, so weights, moments and a step number are all the state
//! there is, and a resumed phase ends in the same bits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crisol_cost::machine::Machine;
use crisol_cost::units::{Bytes, Flops};
use crisol_engine::{Device, OptimizerConfig, Params};
use crisol_hub::write_folder_atomically;
use crisol_report::{Curve, MaskPicture, PromptReport, RolloutSample};
use crisol_text::EncodingSummary;
use crisol_train::{
    Checksum, Checksums, EventWriter, MetricsWriter, TrainError, Trainer, check_checksums,
    check_file, load_params, load_trainer, read_metrics, save_params, save_trainer,
    write_checksums,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::PhaseError;
use crate::data::DataSource;
use crate::fingerprint::{Fingerprint, Stage};
use crate::forecast::StageForecast;
use crate::forecast::plan::{Shapes, StageData, StagePlan};
use crate::reason::COLD_START;
use crate::recipe::RunSettings;
use crate::settings::OptimizerSettings;
use crate::unpaid::FirstSteps;
use crate::watch::Watch;

/// Somebody who watches a run (a progress bar, a log).
pub trait Observer {
    /// A phase begins: `position` of `count`.
    fn phase_started(&mut self, name: &str, position: usize, count: usize);
    /// A stage of a phase begins, or goes on after `done` of `total` steps.
    fn stage_started(&mut self, stage: &str, done: u64, total: u64);
    /// A step was made; `tokens` is what it processed.
    fn step(&mut self, step: u64, tokens: u64, metrics: &[(&str, f64)]);
    /// The forecast of a stage that begins soon, now that its data is read.
    fn stage_forecast(&mut self, stage: &StageForecast);
    /// The starting model was measured, before a stage's first step.
    fn measured(&mut self);
    /// Peak memory of a phase in a process of its own, in bytes; and until its first update, if that may never come.
    fn memory_forecast(&mut self, bytes: f64, before_updates: Option<f64>);
    /// The state of a phase was saved: so many times by now, bytes and seconds of all of them.
    fn saved(&mut self, saves: &Saves);
    /// Something worth a line.
    fn note(&mut self, text: &str);
    /// A phase is complete and saved.
    fn phase_finished(&mut self, report: &crisol_report::PhaseReport);
}

/// What is saved along with a running phase.
#[derive(Debug)]
pub(crate) enum Saved<'t> {
    /// A model in training.
    Trainer(&'static str, &'t mut Trainer),
    /// Weights that do not change during the stage (a reference policy).
    Frozen(&'static str, &'t mut Params),
}

/// How often the state of a phase was saved, and what that took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saves {
    /// How many times.
    pub count: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Seconds spent on it.
    pub seconds: f64,
}

/// How far a phase is, besides weights and moments.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    stage: String,
    stage_steps: u64,
    finished_stages: Vec<String>,
    /// Steps over all stages.
    steps: u64,
    tokens: u64,
    flops: f64,
    seconds: f64,
    /// Not in states of earlier versions.
    #[serde(default)]
    sampling_seconds: f64,
    /// What the stages so far were expected to take; 0 if the machine was not measured.
    #[serde(default)]
    expected_seconds: f64,
    metrics: BTreeMap<String, f64>,
    /// What was measured before the first step.
    #[serde(default)]
    before: BTreeMap<String, f64>,
    /// Held-out prompts, and what was said to them before the first step.
    #[serde(default)]
    prompts: Vec<PromptReport>,
    rollouts: Vec<RolloutSample>,
    notes: Vec<String>,
    /// What the phase depends on.
    fingerprint: Fingerprint,
    /// Of the metrics so far.
    logged: Option<Checksum>,
    /// Updates that each optimizer has made.
    updates: BTreeMap<String, u64>,
    saves: Saves,
    /// Not in states of earlier versions.
    #[serde(default)]
    first_steps: FirstSteps,
}

/// See the module's text.
pub(crate) struct PhaseContext<'a> {
    /// Settings of the whole run.
    pub(crate) run: &'a RunSettings,
    /// Where the work is done.
    pub(crate) device: &'a Device,
    /// Where data files are.
    pub(crate) data: &'a DataSource,
    /// The phase's name.
    pub(crate) name: String,
    /// What the report shows of the loss mask.
    pub(crate) masks: Vec<MaskPicture>,
    observer: &'a mut dyn Observer,
    /// What this machine was measured to do.
    machine: Option<&'a Machine>,
    /// Forecast of the stage that begins next, in seconds.
    forecast: Option<f64>,
    progress: PathBuf,
    metrics: MetricsWriter,
    state: State,
    watch: Watch,
    /// The state between steps: what is saved when a step is given up.
    settled: State,
    /// Steps of the stage.
    total: u64,
    resumed: bool,
    /// The stage of the saved state, and the checksums of its files.
    saved_stage: String,
    sums: Checksums,
    /// Of a tokenizer that the phase trained.
    tokenizer: Option<String>,
    /// What the step that was stopped needs to go on, as JSON.
    under_way: Option<String>,
    began: Instant,
    saved_at: Instant,
    /// Time that must pass until the next save.
    pause: Duration,
}

/// The purpose of a random stream of a phase.
pub(crate) fn stage_purpose(phase: &str, what: &str) -> String {
    format!("{phase}/{what}")
}

const STATE: &str = "state";
/// What supervised phases measure on held-out data, before their first step and after their last.
pub(crate) const HELD_OUT_LOSS: &str = "validation_loss";
const STATE_FILE: &str = "state.json";
const TOKENIZER_FILE: &str = "tokenizer.json";
/// Of a step that was stopped between its updates.
const STEP_FILE: &str = "step.json";
/// Saving takes at most one part in so many of the time.
const PARTS_OF_TIME: u32 = 50;

impl<'a> PhaseContext<'a> {
    /// Opens the progress folder of a phase, which holds what an interrupted attempt left.
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
        std::fs::create_dir_all(progress).map_err(|e| PhaseError::io(progress, e))?;
        let folder = progress.join(STATE);
        crisol_hub::recover_folder(&folder)?;
        let resumed = folder.exists();
        let (mut state, mut sums, mut tokenizer, mut under_way) =
            (State::default(), Checksums::new(), None, None);
        if resumed {
            sums = check_checksums(&folder)?;
            state = read_state(&folder)?;
            let read = |name: &str| -> Result<Option<String>, PhaseError> {
                let file = folder.join(name);
                let text = || std::fs::read_to_string(&file).map_err(|e| PhaseError::io(&file, e));
                sums.contains_key(name).then(text).transpose()
            };
            (tokenizer, under_way) = (read(TOKENIZER_FILE)?, read(STEP_FILE)?);
        }
        let edited = if resumed {
            fingerprint.check(&state.fingerprint, name, Stage::Unfinished)?
        } else {
            vec![]
        };
        state.fingerprint = fingerprint;
        let saved_stage = state.stage.clone();
        device.interrupt().set_unsaved(false);
        let events = tensorboard.map(EventWriter::create).transpose()?;
        let metrics =
            MetricsWriter::open(&progress.join("metrics.jsonl"), state.logged.as_ref(), events)?;
        let now = Instant::now();
        // Time spent before an interruption counts too.
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
            observer,
            machine,
            forecast: None,
            progress: progress.to_path_buf(),
            metrics,
            settled: state.clone(),
            state,
            watch: Watch::default(),
            total: 0,
            resumed,
            saved_stage,
            sums,
            tokenizer,
            under_way,
            began,
            saved_at: now,
            pause: Duration::from_secs(run.checkpoint_seconds),
        };
        for change in edited {
            this.note(format!("From step {} on: {change}.", this.state.steps + 1));
        }
        Ok(this)
    }

    /// The tokenizer that the phase trained before it was interrupted, as JSON. It is not trained again.
    pub(crate) fn trained_tokenizer(&self) -> Option<&str> {
        self.tokenizer.as_deref()
    }

    /// Keeps a tokenizer that the phase trained with its state.
    pub(crate) fn keep_tokenizer(&mut self, json: String) {
        self.tokenizer = Some(json);
    }

    /// The purpose of a random stream of this phase.
    pub(crate) fn purpose(&self, what: &str) -> String {
        stage_purpose(&self.name, what)
    }

    /// Forecasts the stage that begins next. (The pace of a resumed stage soon tells more.)
    pub(crate) fn forecast(
        &mut self,
        plan: &StagePlan<'_>,
        shapes: Shapes<'_>,
        data: &StageData<'_>,
    ) {
        let work = plan.work(shapes, data);
        let forecast = StageForecast::new(plan.name, shapes.policy, &work, self.machine);
        self.forecast = forecast.seconds;
        if !self.resumed {
            self.observer.stage_forecast(&forecast);
        }
    }

    /// Forecasts the phase's memory.
    pub(crate) fn forecast_memory(&mut self, bytes: Bytes, before_updates: Option<Bytes>) {
        self.observer.memory_forecast(bytes.0, before_updates.map(|bytes| bytes.0));
    }

    /// Begins a stage of `total` steps: restores what was saved in it and returns the number of steps that are
    /// already made (all of them if a later stage had begun; its own `begin_stage` restores the weights then).
    pub(crate) fn begin_stage(
        &mut self,
        stage: &str,
        total: u64,
        saved: &mut [Saved<'_>],
    ) -> Result<u64, PhaseError> {
        let forecast = self.forecast.take();
        self.total = total;
        self.check_stop()?;
        if self.resumed && self.state.stage == stage {
            self.restore(total, saved)?;
            self.resumed = false;
            self.watch_again(total)?;
            self.observer.stage_started(stage, self.state.stage_steps, total);
            return Ok(self.state.stage_steps);
        }
        if self.resumed && self.state.finished_stages.iter().any(|s| s == stage) {
            return Ok(total);
        }
        // A state of another stage that is not finished belongs to other settings; its fingerprint was compared.
        self.resumed = false;
        if !self.state.stage.is_empty() {
            self.state.finished_stages.push(std::mem::take(&mut self.state.stage));
        }
        stage.clone_into(&mut self.state.stage);
        self.state.stage_steps = 0;
        self.watch = Watch::default();
        self.state.expected_seconds += forecast.unwrap_or(0.0);
        self.settle(saved);
        self.observer.stage_started(stage, 0, total);
        Ok(0)
    }

    /// Weights and moments as they were saved.
    fn restore(&mut self, total: u64, saved: &mut [Saved<'_>]) -> Result<(), PhaseError> {
        let folder = self.progress.join(STATE);
        let wrong =
            |cause: String| TrainError::DamagedState { file: folder.join(STATE_FILE), cause };
        if self.state.stage_steps > total {
            return Err(
                wrong(format!("it is after step {} of {total}", self.state.stage_steps)).into()
            );
        }
        for item in &mut *saved {
            match item {
                Saved::Trainer(name, trainer) => {
                    load_trainer(&folder, name, trainer)?;
                    let (made, counted) =
                        (trainer.optimizer.steps(), self.state.updates.get(*name));
                    if counted != Some(&made) {
                        let cause =
                            format!("{name} has made {made} updates, but it says {counted:?}");
                        return Err(wrong(cause).into());
                    }
                }
                Saved::Frozen(name, params) => load_params(&folder, name, params)?,
            }
        }
        Ok(())
    }

    /// Notes the state between two steps.
    fn settle(&mut self, saved: &[Saved<'_>]) {
        self.state.updates = updates(saved);
        self.settled.clone_from(&self.state);
    }

    /// Whether `stage` is the one at hand. It is not when a resumed phase passes over it; then the weights are not the
    /// stage's, and nothing may be measured on them.
    pub(crate) fn in_stage(&self, stage: &str) -> bool {
        self.state.stage == stage
    }

    /// Ends step number `done` (from 1) of `total`: logs, saves at intervals and at the stage's end, and returns
    /// [`PhaseError::Interrupted`] after saving if somebody asked to stop.
    pub(crate) fn end_step(
        &mut self,
        done: u64,
        total: u64,
        tokens: u64,
        metrics: &[(&str, f64)],
        saved: &mut [Saved<'_>],
    ) -> Result<(), PhaseError> {
        self.device.interrupt().set_unsaved(true);
        self.state.stage_steps = done;
        self.state.steps = self.state.steps.saturating_add(1);
        self.state.tokens = self.state.tokens.saturating_add(tokens);
        self.metrics.log(self.state.steps, metrics)?;
        self.observer.step(done, tokens, metrics);
        for remark in self.watch.step(done, total, metrics, self.optimizer()) {
            self.note(remark);
        }
        self.settle(saved);
        let stop = self.device.interrupt().requested();
        if stop || done == total || self.saved_at.elapsed() >= self.pause {
            self.save(saved)?;
        }
        if stop { Err(self.interrupted()) } else { Ok(()) }
    }

    /// The name in a recipe of what the stage's learning rate belongs to.
    fn optimizer(&self) -> &'static str {
        if self.state.stage == COLD_START { "cold_start.optimizer" } else { "optimizer" }
    }

    /// Shows the watch what a resumed stage did before; it has said then what was to be said.
    fn watch_again(&mut self, total: u64) -> Result<(), PhaseError> {
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
            self.watch.step(step, total, &metrics, self.optimizer());
        }
        Ok(())
    }

    /// As [`Self::stopped`] where the step may have updated weights already: then `step` is saved too, with which a resumed
    /// run goes on after those updates.
    pub(crate) fn stopped_within(
        &mut self,
        error: impl Into<PhaseError>,
        step: &impl Serialize,
        saved: &mut [Saved<'_>],
    ) -> PhaseError {
        let (error, made) = (error.into(), updates(saved));
        if !error.is_stop() || made == self.state.updates {
            return self.stopped(error, saved);
        }
        match serde_json::to_string(step) {
            Ok(json) => self.under_way = Some(json),
            Err(source) => {
                return PhaseError::BrokenState { file: self.progress.join(STATE), source };
            }
        }
        self.state.updates = made;
        if let Err(error) = self.save(saved) { error } else { self.interrupted() }
    }

    /// A step has updated weights, and goes on: to end now would lose that.
    pub(crate) fn updated(&self) {
        self.device.interrupt().set_unsaved(true);
    }

    /// The step that was stopped between its updates, if the stage goes on in the middle of one.
    pub(crate) fn step_under_way<S: DeserializeOwned>(&mut self) -> Result<Option<S>, PhaseError> {
        let Some(json) = self.under_way.take() else { return Ok(None) };
        serde_json::from_str(&json).map(Some).map_err(|source| {
            let file = self.progress.join(STATE).join(STEP_FILE);
            PhaseError::BrokenState { file, source }
        })
    }

    /// Makes [`PhaseError::Interrupted`] of an error by which a step was given up because somebody asked to stop, after saving the
    /// state before the step. Other errors stay as they are.
    pub(crate) fn stopped(
        &mut self,
        error: impl Into<PhaseError>,
        saved: &mut [Saved<'_>],
    ) -> PhaseError {
        let error = error.into();
        if !error.is_stop() {
            return error;
        }
        self.state.clone_from(&self.settled);
        let untouched = !saved.is_empty() && updates(saved) == self.state.updates;
        if untouched
            && self.device.interrupt().unsaved()
            && let Err(error) = self.save(saved)
        {
            return error;
        }
        self.interrupted()
    }

    fn interrupted(&self) -> PhaseError {
        let (done, total) = (self.settled.stage_steps, self.total);
        let place = if self.under_way.is_some() {
            format!("within step {} of {total}; everything is saved", done + 1)
        } else if self.device.interrupt().unsaved() {
            format!("after step {done} of {total}; it goes on from its last save")
        } else {
            format!("after step {done} of {total}; everything is saved")
        };
        PhaseError::Interrupted { phase: self.name.clone(), place }
    }

    /// Saves the state between steps.
    fn save(&mut self, saved: &mut [Saved<'_>]) -> Result<(), PhaseError> {
        let began = Instant::now();
        self.state.seconds = self.began.elapsed().as_secs_f64();
        self.state.logged = Some(self.metrics.checksum()?);
        let folder = self.progress.join(STATE);
        // Weights that do not change in a stage are in the state already if it is of this stage.
        let same_stage = self.saved_stage == self.state.stage;
        let mut sums = Checksums::new();
        write_folder_atomically(&folder, |dir| -> Result<(), PhaseError> {
            let mut linked = Checksums::new();
            for item in saved {
                match item {
                    Saved::Trainer(name, trainer) => save_trainer(dir, name, trainer)?,
                    Saved::Frozen(name, params) => {
                        let file = format!("{name}.safetensors");
                        let known = self.sums.get(&file).filter(|_| same_stage);
                        match known.filter(|_| {
                            std::fs::hard_link(folder.join(&file), dir.join(&file)).is_ok()
                        }) {
                            Some(sum) => drop(linked.insert(file, sum.clone())),
                            None => save_params(dir, name, params)?,
                        }
                    }
                }
            }
            let write = |name: &str, text: &str| {
                std::fs::write(dir.join(name), text).map_err(|e| PhaseError::io(dir, e))
            };
            if let Some(tokenizer) = &self.tokenizer {
                write(TOKENIZER_FILE, tokenizer)?;
            }
            if let Some(step) = &self.under_way {
                write(STEP_FILE, step)?;
            }
            let json = serde_json::to_string_pretty(&self.state)
                .map_err(|e| PhaseError::BrokenState { file: dir.join(STATE_FILE), source: e })?;
            write(STATE_FILE, &json)?;
            sums = write_checksums(dir, &linked)?;
            let written = sums.iter().filter(|(name, _)| !linked.contains_key(*name));
            self.state.saves.bytes += written.map(|(_, sum)| sum.bytes).sum::<u64>();
            Ok(())
        })?;
        self.sums = sums;
        self.saved_stage.clone_from(&self.state.stage);
        self.device.interrupt().set_unsaved(false);
        self.saved_at = Instant::now();
        let took = began.elapsed();
        self.state.saves.count += 1;
        self.state.saves.seconds += took.as_secs_f64();
        self.pause = pause_after(took, self.run.checkpoint_seconds);
        self.observer.saved(&self.state.saves);
        Ok(())
    }

    /// Counts floating-point operations.
    pub(crate) fn count_flops(&mut self, flops: Flops) {
        self.state.flops += flops.0;
    }

    /// Runs what samples answers, and counts its time.
    pub(crate) fn sampling<T>(&mut self, f: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = f();
        self.state.sampling_seconds += began.elapsed().as_secs_f64();
        result
    }

    /// Records a measure of the phase for its report.
    pub(crate) fn measure(&mut self, name: &str, value: f64) {
        self.state.metrics.insert(name.to_owned(), value);
        if name == HELD_OUT_LOSS
            && let Some(&before) = self.state.before.get(name).filter(|before| value > **before)
        {
            let optimizer = self.optimizer();
            self.note(format!(
                "The loss on held-out data rose from {before:.3} to {value:.3} nats: lower {optimizer}.lr or epochs, or add \
                 data."
            ));
        }
    }

    /// Records a measure of the model that the phase starts from.
    pub(crate) fn measure_before(&mut self, name: &str, value: f64) {
        self.state.before.insert(name.to_owned(), value);
        self.observer.measured();
    }

    /// Whether that was done, by this process or before the phase was interrupted.
    pub(crate) fn measured_before(&self, name: &str) -> bool {
        self.state.before.contains_key(name)
    }

    /// Keeps what the model that the phase starts from says to held-out prompts. A phase that goes on has kept it before.
    pub(crate) fn answer_before(
        &mut self,
        answers: impl FnOnce() -> Result<Vec<PromptReport>, PhaseError>,
    ) -> Result<(), PhaseError> {
        if self.state.prompts.is_empty() {
            self.state.prompts = answers()?;
        }
        Ok(())
    }

    /// Whether completions sampled at `step` of `total` are kept for the report: at five moments of a stage.
    pub(crate) fn wants_samples(step: u64, total: u64) -> bool {
        (0..=4).any(|quarter| step == quarter * (total - 1) / 4)
    }

    /// Keeps a sampled completion for the report.
    pub(crate) fn sample(&mut self, mut sample: RolloutSample) {
        sample.phase.clone_from(&self.name);
        sample.step = self.state.steps + 1;
        self.state.rollouts.push(sample);
    }

    /// What the first answers of GRPO lacked.
    pub(crate) fn first_steps(&mut self) -> &mut FirstSteps {
        &mut self.state.first_steps
    }

    /// Tells the observer and the report something, once: a resumed phase has told it before.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        // A phase that goes on says again what it said at its start.
        if !self.state.notes.contains(&text) {
            self.observer.note(&text);
            self.state.notes.push(text);
        }
    }

    /// The records of some files, in order. What the files hold and nothing reads is said.
    pub(crate) fn records(
        &mut self,
        files: &[String],
    ) -> Result<Vec<crisol_text::Record>, PhaseError> {
        let records = self.data.all_records(files)?;
        for note in self.data.notes(files) {
            self.note(note);
        }
        Ok(records)
    }

    /// Stops between pieces of work that leave nothing to save, if somebody asked to.
    pub(crate) fn check_stop(&self) -> Result<(), PhaseError> {
        if self.device.interrupt().requested() { Err(self.interrupted()) } else { Ok(()) }
    }

    /// Where the tokens of a role's files are kept if they are too many for the memory.
    pub(crate) fn tokens_file(&self, role: &str) -> PathBuf {
        self.progress.join("tokens").join(role)
    }

    /// What the phase depends on.
    pub(crate) fn fingerprint(&self) -> &Fingerprint {
        &self.state.fingerprint
    }

    /// Says what became of records, where it is worth a line; `what` they are stands before.
    pub(crate) fn note_data(&mut self, what: &str, summary: &EncodingSummary, context: usize) {
        for note in summary.notes(context) {
            self.note(format!("{what}{note}"));
        }
    }

    /// What the phase leaves for its report.
    pub(crate) fn into_record(self) -> Result<Record, PhaseError> {
        let mut curves: Vec<Curve> = Vec::new();
        for (step, name, value) in read_metrics(&self.metrics_file())? {
            let point = (step as f64, value);
            match curves.iter_mut().find(|c| c.name == name) {
                Some(curve) => curve.points.push(point),
                None => curves.push(Curve { name, unit: String::new(), points: vec![point] }),
            }
        }
        Ok(Record {
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

    /// The file that holds the metrics of the phase so far.
    pub(crate) fn metrics_file(&self) -> PathBuf {
        self.progress.join("metrics.jsonl")
    }
}

/// What a finished phase leaves for the report.
#[derive(Debug)]
pub(crate) struct Record {
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
    pub(crate) saves: Saves,
    pub(crate) fingerprint: Fingerprint,
}

/// The fingerprint of a phase that is under way, from its progress folder; `None` if nothing is saved of it.
pub(crate) fn saved_fingerprint(progress: &Path) -> Result<Option<Fingerprint>, PhaseError> {
    let folder = crisol_hub::resolve_folder(&progress.join(STATE))?;
    if !folder.exists() {
        return Ok(None);
    }
    check_file(&folder, STATE_FILE)?;
    Ok(Some(read_state(&folder)?.fingerprint))
}

fn read_state(folder: &Path) -> Result<State, PhaseError> {
    let file = folder.join(STATE_FILE);
    let text = std::fs::read_to_string(&file).map_err(|e| PhaseError::io(&file, e))?;
    serde_json::from_str(&text).map_err(|source| PhaseError::BrokenState { file, source })
}

/// Time between the end of a save and the next one.
fn pause_after(save: Duration, checkpoint_seconds: u64) -> Duration {
    save.saturating_mul(PARTS_OF_TIME).max(Duration::from_secs(checkpoint_seconds))
}

/// Updates that each optimizer has made.
fn updates(saved: &[Saved<'_>]) -> BTreeMap<String, u64> {
    let steps = saved.iter().filter_map(|item| match item {
        Saved::Trainer(name, trainer) => Some(((*name).to_owned(), trainer.optimizer.steps())),
        Saved::Frozen(..) => None,
    });
    steps.collect()
}

/// The optimizer's settings for one step.
pub(crate) fn update_rule(settings: &OptimizerSettings, step: u64, total: u64) -> OptimizerConfig {
    let warmup = (settings.warmup * total as f64).ceil() as u64;
    let factor = settings.schedule.factor(step, total, warmup, settings.decay);
    OptimizerConfig {
        rule: settings.rule,
        lr: (settings.lr * factor) as f32,
        table_factor: settings.table_factor as f32,
        beta1: settings.beta1 as f32,
        beta2: settings.beta2 as f32,
        eps: settings.eps as f32,
        weight_decay: settings.weight_decay as f32,
        max_grad_norm: (settings.max_grad_norm > 0.0).then_some(settings.max_grad_norm as f32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saves_take_at_most_two_percent_of_the_time() {
        for (milliseconds, least) in [(1, 30), (1, 0), (600, 30), (281_000, 30), (40_000, 3600)] {
            let save = Duration::from_millis(milliseconds);
            let pause = pause_after(save, least);
            assert!(
                save.as_secs_f64() <= 0.02 * (save + pause).as_secs_f64(),
                "{save:?} {pause:?}"
            );
            assert!(pause >= Duration::from_secs(least));
        }
        assert_eq!(pause_after(Duration::from_millis(1), 30), Duration::from_secs(30));
    }
}
