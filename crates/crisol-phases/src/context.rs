//! What a running phase holds besides its model: where it logs, saves and resumes, and who watches.
//!
//! A phase is a sequence of *stages* (most have one), a stage a number of steps. After each step the phase
//! calls [`Context::end_step`], which logs, saves when it is time to, and stops when asked to. Everything
//! random is a function of seed, purpose and step, so weights, moments and a step number are all the state
//! there is, and a resumed phase ends in the same bits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crisol_cost::ModelShape;
use crisol_cost::machine::{LocalWork, Machine};
use crisol_cost::units::{Bytes, Flops, Seconds};
use crisol_engine::{Device, OptimizerConfig, Params};
use crisol_hub::write_folder_atomically;
use crisol_report::{Curve, MaskPicture, RolloutSample};
use crisol_train::{
    EventWriter, Interrupt, MetricsWriter, Trainer, load_params, load_trainer, read_metrics, save_params,
    save_trainer,
};
use serde::{Deserialize, Serialize};

use crate::PhaseError;
use crate::data::DataSource;
use crate::recipe::RunSettings;
use crate::settings::OptimizerSettings;
use crate::unpaid::FirstSteps;

/// Somebody who watches a run (a progress bar, a log).
pub trait Observer {
    /// A phase begins: `position` of `count`.
    fn phase_started(&mut self, name: &str, position: usize, count: usize);
    /// A stage of a phase begins, or goes on after `done` of `total` steps.
    fn stage_started(&mut self, stage: &str, done: u64, total: u64);
    /// A step was made; `tokens` is what it processed.
    fn step(&mut self, step: u64, tokens: u64, metrics: &[(&str, f64)]);
    /// How long a stage that begins soon will take, in seconds, by what this machine was measured to do.
    fn expected(&mut self, stage: &str, seconds: f64);
    /// How much memory a phase takes at most, in bytes, in a process of its own.
    fn expected_memory(&mut self, bytes: f64);
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
    rollouts: Vec<RolloutSample>,
    notes: Vec<String>,
    /// Not in states of earlier versions.
    #[serde(default)]
    first_steps: FirstSteps,
}

/// See the module's text.
pub(crate) struct Context<'a> {
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
    /// What the stage that begins next will take.
    expected: Option<Seconds>,
    interrupt: Interrupt,
    progress: PathBuf,
    metrics: MetricsWriter,
    state: State,
    resumed: bool,
    began: Instant,
    saved_at: Instant,
}

/// The purpose of a random stream of a phase.
pub(crate) fn stage_purpose(phase: &str, what: &str) -> String {
    format!("{phase}/{what}")
}

const STATE_FILE: &str = "state.json";

impl<'a> Context<'a> {
    /// Opens the progress folder of a phase, which holds what an interrupted attempt left.
    pub(crate) fn open(
        run: &'a RunSettings,
        device: &'a Device,
        data: &'a DataSource,
        name: &str,
        progress: &Path,
        tensorboard: Option<&Path>,
        machine: Option<&'a Machine>,
        interrupt: Interrupt,
        observer: &'a mut dyn Observer,
    ) -> Result<Context<'a>, PhaseError> {
        std::fs::create_dir_all(progress).map_err(|e| PhaseError::io(progress, e))?;
        crisol_hub::settle_folder(&progress.join("state"))?;
        let file = progress.join("state").join(STATE_FILE);
        let resumed = file.exists();
        let state: State = if resumed {
            let text = std::fs::read_to_string(&file).map_err(|e| PhaseError::io(&file, e))?;
            serde_json::from_str(&text)
                .map_err(|e| PhaseError::BrokenState { file: file.clone(), source: e })?
        } else {
            State::default()
        };
        let events = tensorboard.map(EventWriter::create).transpose()?;
        let metrics = MetricsWriter::open(&progress.join("metrics.jsonl"), state.steps, events)?;
        let now = Instant::now();
        // Time spent before an interruption counts too.
        let began = Duration::try_from_secs_f64(state.seconds)
            .ok()
            .and_then(|spent| now.checked_sub(spent))
            .unwrap_or(now);
        Ok(Context {
            run,
            device,
            data,
            name: name.to_owned(),
            masks: Vec::new(),
            observer,
            machine,
            expected: None,
            interrupt,
            progress: progress.to_path_buf(),
            metrics,
            state,
            resumed,
            began,
            saved_at: now,
        })
    }

    /// The purpose of a random stream of this phase.
    pub(crate) fn purpose(&self, what: &str) -> String {
        stage_purpose(&self.name, what)
    }

    /// Says what the stage that begins next will take, if this machine was measured. (Of one that goes on, the steps that are left
    /// soon say it better.)
    pub(crate) fn expect(&mut self, stage: &str, shape: &ModelShape, work: &LocalWork) {
        self.expected = self.machine.and_then(|machine| machine.time(shape, work));
        if let Some(seconds) = self.expected.filter(|_| !self.resumed) {
            self.observer.expected(stage, seconds.0);
        }
    }

    /// Says how much memory the phase takes.
    pub(crate) fn expect_memory(&mut self, bytes: Bytes) {
        self.observer.expected_memory(bytes.0);
    }

    /// Begins a stage of `total` steps: restores what was saved in it and returns the number of steps that are
    /// already made (all of them if a later stage had begun; its own `begin_stage` restores the weights then).
    pub(crate) fn begin_stage(
        &mut self,
        stage: &str,
        total: u64,
        saved: &mut [Saved<'_>],
    ) -> Result<u64, PhaseError> {
        let expected = self.expected.take();
        if self.resumed && self.state.stage == stage {
            let folder = self.progress.join("state");
            for item in saved {
                match item {
                    Saved::Trainer(name, trainer) => load_trainer(&folder, name, trainer)?,
                    Saved::Frozen(name, params) => load_params(&folder, name, params)?,
                }
            }
            self.resumed = false;
            self.observer.stage_started(stage, self.state.stage_steps, total);
            return Ok(self.state.stage_steps);
        }
        if self.resumed && self.state.finished_stages.iter().any(|s| s == stage) {
            return Ok(total);
        }
        // A state of another stage that is not finished belongs to another recipe; `run` has compared recipes.
        self.resumed = false;
        if !self.state.stage.is_empty() {
            self.state.finished_stages.push(std::mem::take(&mut self.state.stage));
        }
        stage.clone_into(&mut self.state.stage);
        self.state.stage_steps = 0;
        self.state.expected_seconds += expected.map_or(0.0, |seconds| seconds.0);
        self.observer.stage_started(stage, 0, total);
        Ok(0)
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
        self.state.stage_steps = done;
        self.state.steps = self.state.steps.saturating_add(1);
        self.state.tokens = self.state.tokens.saturating_add(tokens);
        self.metrics.log(self.state.steps, metrics)?;
        self.observer.step(done, tokens, metrics);
        let stop = self.interrupt.requested();
        let due = self.saved_at.elapsed().as_secs() >= self.run.checkpoint_seconds;
        if stop || due || done == total {
            self.save(saved)?;
        }
        if stop {
            Err(PhaseError::Interrupted { phase: self.name.clone(), step: done, total })
        } else {
            Ok(())
        }
    }

    fn save(&mut self, saved: &mut [Saved<'_>]) -> Result<(), PhaseError> {
        self.state.seconds = self.began.elapsed().as_secs_f64();
        let folder = self.progress.join("state");
        write_folder_atomically(&folder, |dir| -> Result<(), PhaseError> {
            for item in saved {
                match item {
                    Saved::Trainer(name, trainer) => save_trainer(dir, name, trainer)?,
                    Saved::Frozen(name, params) => save_params(dir, name, params)?,
                }
            }
            let json = serde_json::to_string_pretty(&self.state)
                .map_err(|e| PhaseError::BrokenState { file: dir.join(STATE_FILE), source: e })?;
            std::fs::write(dir.join(STATE_FILE), json).map_err(|e| PhaseError::io(dir, e))
        })?;
        self.saved_at = Instant::now();
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

    /// Tells the observer and the report something.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.observer.note(&text);
        self.state.notes.push(text);
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
            rollouts: self.state.rollouts,
            notes: self.state.notes,
            masks: self.masks,
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
    pub(crate) rollouts: Vec<RolloutSample>,
    pub(crate) notes: Vec<String>,
    pub(crate) masks: Vec<MaskPicture>,
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
