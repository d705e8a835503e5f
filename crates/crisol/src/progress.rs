//! What is shown while a run is under way: a bar on a terminal, a line now and then elsewhere.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use crisol_phases::{Observer, PhaseForecast, SaveStats, StageForecast};
use crisol_report::{Language, PhaseReport, Report, largest_changes, prefixed};
use indicatif::{ProgressBar, ProgressStyle};

use crate::console::{say, say_wrapped};

/// Time between lines where there is no terminal.
pub(crate) const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Measures that are shown of a finished phase. The summary and the report have the others.
const CHANGES: usize = 3;

/// Shows a run on standard error.
pub(crate) struct Progress {
    /// Hidden where standard error is no terminal.
    bar: ProgressBar,
    lines: bool,
    /// Shown when the first phase begins.
    heading: Option<String>,
    phase: String,
    stage: Stage,
    whole: Whole,
    saves: SaveStats,
    /// The phases that this process has finished, to say what the next one changed.
    finished: Report,
    shown: Instant,
}

/// The forecast of a whole run, and how fast this machine has been at what it has done of it.
#[derive(Default)]
struct Whole {
    /// The stages of all phases, in order; none where nothing was forecast.
    stages: Vec<ForecastStage>,
    /// Of the phases that this process has done.
    weight: f64,
    seconds: f64,
}

struct ForecastStage {
    phase: String,
    name: String,
    weight: f64,
}

impl Whole {
    fn of(phases: &[PhaseForecast]) -> Whole {
        let stages = phases.iter().flat_map(|phase| {
            phase.stages.iter().map(|stage| ForecastStage {
                phase: phase.name.clone(),
                name: stage.name.clone(),
                weight: stage.weight,
            })
        });
        Whole { stages: stages.collect(), ..Whole::default() }
    }

    fn position(&self, phase: &str, stage: &str) -> Option<usize> {
        self.stages.iter().position(|at| at.phase == phase && at.name == stage)
    }

    /// Now that its data is read, more is known of a stage.
    fn correct(&mut self, phase: &str, stage: &StageForecast) {
        if let Some(at) = self.position(phase, &stage.name) {
            self.stages[at].weight = stage.weight;
        }
    }

    /// A phase is done.
    fn done(&mut self, phase: &str, seconds: f64) {
        self.weight +=
            self.stages.iter().filter(|at| at.phase == phase).map(|at| at.weight).sum::<f64>();
        self.seconds += seconds;
    }

    /// Seconds until the run ends, while a stage of so many seconds has `left` left. None in the
    /// last stage, whose own time says it.
    fn left(&self, phase: &str, stage: &str, stage_seconds: f64, left: f64) -> Option<f64> {
        let at = self.position(phase, stage)?;
        let later: f64 = self.stages[at + 1..].iter().map(|stage| stage.weight).sum();
        let rate = (self.seconds + stage_seconds) / (self.weight + self.stages[at].weight);
        Some(left + later * rate).filter(|seconds| later > 0.0 && seconds.is_finite())
    }
}

/// How a stage is getting on, counted from when this process took it up.
struct Stage {
    name: String,
    first: u64,
    total: u64,
    tokens: u64,
    began: Instant,
}

impl Progress {
    /// `phases`: those of the run, where they were forecast.
    pub(crate) fn new(heading: String, phases: &[PhaseForecast]) -> Progress {
        let (bar, lines) = bar_or_lines();
        let now = Instant::now();
        let stage = Stage { name: String::new(), first: 0, total: 0, tokens: 0, began: now };
        Progress {
            bar,
            lines,
            heading: Some(heading),
            phase: String::new(),
            stage,
            whole: Whole::of(phases),
            saves: SaveStats::default(),
            finished: Report::default(),
            shown: now,
        }
    }

    /// A line above the bar.
    fn line(&self, text: &str) {
        self.bar.suspend(|| say_wrapped(text));
    }

    /// A bar without length while something is prepared or measured.
    fn wait(&self, what: &str) {
        self.bar.set_style(style("{spinner} {prefix}  {msg}"));
        self.bar.set_prefix(self.phase.clone());
        self.bar.set_message(what.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(120));
    }

    /// Takes the bar away; what comes next on the terminal starts on a clean line.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Progress {
    fn phase_started(&mut self, name: &str, position: usize, count: usize) {
        name.clone_into(&mut self.phase);
        self.saves = SaveStats::default();
        if let Some(heading) = self.heading.take() {
            self.line(&heading);
        }
        self.line(&format!("[{position}/{count}] {name}"));
        self.wait("reading data");
    }

    fn stage_started(&mut self, stage: &str, done: u64, total: u64) {
        self.stage =
            Stage { name: stage.to_owned(), first: done, total, tokens: 0, began: Instant::now() };
        self.shown = Instant::now();
        if done > 0 {
            self.line(&format!("  {stage}: going on after step {done} of {total}"));
        }
        // A stage is often the whole phase and then has its name.
        let place = if stage == self.phase { String::new() } else { format!(" {stage}") };
        self.bar.disable_steady_tick();
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message("");
        self.bar.set_prefix(format!("{}{place}", self.phase));
        self.bar.set_style(
            style("  {prefix} [{bar:24}] {pos}/{len}  {wide_msg}").progress_chars("=> "),
        );
    }

    fn step(&mut self, step: u64, tokens: u64, metrics: &[(&str, f64)]) {
        self.stage.tokens += tokens;
        let status = self.stage.status(step, metrics, &self.whole, &self.phase);
        self.bar.set_position(step);
        self.bar.set_message(status.clone());
        let last = step == self.stage.total;
        if self.lines && (last || self.shown.elapsed() >= LINE_INTERVAL) {
            say(format_args!("  {} {step}/{}  {status}", self.stage.name, self.stage.total));
            self.shown = Instant::now();
        }
        if last {
            self.wait("saving and measuring");
        }
    }

    fn stage_forecast(&mut self, stage: &StageForecast) {
        self.whole.correct(&self.phase, stage);
        let StageForecast { name, flops, seconds, .. } = stage;
        let time = seconds.map_or(String::new(), |seconds| format!(", {}", duration(seconds)));
        self.line(&format!("  {name}: about {}{time}", operations(*flops)));
    }

    fn measured(&mut self) {
        // Measuring is no part of the steps, from whose speed the time left is judged.
        self.stage.began = Instant::now();
    }

    fn memory_forecast(&mut self, bytes: f64, before_updates: Option<f64>) {
        let before = before_updates.map_or(String::new(), |bytes| {
            format!(" ({} until a group of answers earns different rewards)", memory(bytes))
        });
        self.line(&format!("  memory: about {}{before}", memory(bytes)));
    }

    fn saved(&mut self, saves: &SaveStats) {
        self.saves = *saves;
    }

    fn note(&mut self, text: &str) {
        self.line(&format!("  note: {text}"));
    }

    fn phase_finished(&mut self, report: &PhaseReport) {
        self.whole.done(&report.name, report.seconds);
        self.finished.phases.push(report.clone());
        self.line(&summary(&self.finished, report, self.saves));
    }
}

impl Stage {
    /// Loss or reward, tokens per second, time left of the stage and of the run.
    fn status(&self, step: u64, metrics: &[(&str, f64)], whole: &Whole, phase: &str) -> String {
        let elapsed = self.began.elapsed().as_secs_f64();
        let mut parts = figures(metrics);
        parts.push(format!("{} tokens/s", short(self.tokens as f64 / elapsed)));
        let made = step - self.first;
        let left = elapsed / made as f64 * (self.total - step) as f64;
        if step < self.total && left.is_finite() {
            parts.push(format!("{} left", duration(left)));
            let all = elapsed / made as f64 * self.total as f64;
            if let Some(run) = whole.left(phase, &self.name, all, left) {
                parts.push(format!("about {} of the run", duration(run)));
            }
        }
        parts.join("  ")
    }
}

/// The figures of a step that fit into a line: what the phase is after.
fn figures(metrics: &[(&str, f64)]) -> Vec<String> {
    let find =
        |wanted: &str| metrics.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    let mut parts = Vec::new();
    for (id, label) in [("reward", "reward"), ("loss", "loss")] {
        // The loss of a policy gradient says nothing about how well it does.
        if parts.is_empty()
            && let Some(value) = find(id)
        {
            parts.push(format!("{label} {value:.3}"));
        }
    }
    if let Some(accuracy) = find("reward/accuracy").or(find("accuracy")) {
        parts.push(format!("accuracy {:.0} %", 100.0 * accuracy));
    }
    parts
}

/// What a phase took and changed most, in two lines.
fn summary(finished: &Report, phase: &PhaseReport, saves: SaveStats) -> String {
    let expected = match phase.expected_seconds {
        0.0 => String::new(),
        seconds => format!(" (forecast {})", duration(seconds)),
    };
    let SaveStats { count, bytes, .. } = saves;
    let saved = match count {
        0 => String::new(),
        1 => format!(", a checkpoint of {}", memory(bytes as f64)),
        _ => format!(", {count} checkpoints ({} written)", memory(bytes as f64)),
    };
    let mut summary = format!(
        "  done in {}{expected}, {} tokens, peak memory {}{saved} → {}",
        duration(phase.seconds),
        short(phase.tokens as f64),
        memory(phase.peak_memory_bytes as f64),
        phase.checkpoint
    );
    let changes: Vec<String> = largest_changes(finished, phase, CHANGES, Language::English)
        .into_iter()
        .map(|[label, figures]| format!("{label} {figures}"))
        .collect();
    if !changes.is_empty() {
        let _ = write!(summary, "\n  {}", changes.join(", ").replace('\u{a0}', " "));
    }
    summary
}

/// Floating-point operations.
pub(crate) fn operations(flops: f64) -> String {
    prefixed(flops, "FLOP").replace('\u{a0}', " ")
}

/// Bytes of memory.
pub(crate) fn memory(bytes: f64) -> String {
    prefixed(bytes, "B").replace('\u{a0}', " ")
}

/// A bar, hidden where standard error is no terminal, and whether lines are shown instead.
pub(crate) fn bar_or_lines() -> (ProgressBar, bool) {
    let lines = !std::io::stderr().is_terminal();
    (if lines { ProgressBar::hidden() } else { ProgressBar::new_spinner() }, lines)
}

/// A bar's look.
pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates in this program are valid")
}

/// A count with at most three digits before its unit: `873`, `18.2k`, `1.1M`.
fn short(count: f64) -> String {
    match count {
        c if !c.is_finite() => "–".to_owned(),
        c if c < 1e3 => format!("{c:.0}"),
        c if c < 1e6 => format!("{:.1}k", c / 1e3),
        c if c < 1e9 => format!("{:.1}M", c / 1e6),
        c => format!("{:.1}G", c / 1e9),
    }
}

/// A time in at most two units: `4 min 02 s`.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let seconds = seconds.round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_shows_what_the_phase_is_after() {
        let supervised = figures(&[("loss", 2.3456), ("lr", 0.1), ("accuracy", 0.5)]);
        assert_eq!(supervised, ["loss 2.346", "accuracy 50 %"]);
        let reinforced = figures(&[("reward", 0.7), ("reward/accuracy", 0.61), ("loss", -0.01)]);
        assert_eq!(reinforced, ["reward 0.700", "accuracy 61 %"]);
    }

    #[test]
    fn time_left_is_counted_from_where_this_process_began() {
        let began = Instant::now()
            .checked_sub(Duration::from_secs(100))
            .expect("the machine is up for longer");
        let stage = Stage { name: "sft".into(), first: 90, total: 200, tokens: 500_000, began };
        // 10 steps in 100 s, 100 to go.
        let none = Whole::default();
        let status = stage.status(100, &[], &none, "sft");
        assert_eq!(status, "5.0k tokens/s  16 min 40 s left");
        assert_eq!(stage.status(200, &[], &none, "sft"), "5.0k tokens/s");
    }

    #[test]
    fn a_run_takes_what_is_left_and_the_later_stages_at_the_speed_so_far() {
        let stage = |name: &str, weight| StageForecast {
            name: name.into(),
            flops: 1.0,
            seconds: None,
            weight,
        };
        let phase = |name: &str, stages: &[(&str, f64)]| PhaseForecast {
            name: name.into(),
            steps: 1.0,
            memory: 1.0,
            stages: stages.iter().map(|(name, weight)| stage(name, *weight)).collect(),
        };
        let phases = [phase("a", &[("x", 1.0), ("y", 2.0)]), phase("b", &[("x", 4.0)])];
        let mut whole = Whole::of(&phases);
        // 100 s for one part, 40 of them left; six parts are to come.
        assert_eq!(whole.left("a", "x", 100.0, 40.0), Some(640.0));
        // It is two parts, as its data says.
        whole.correct("a", &stage("x", 2.0));
        assert_eq!(whole.left("a", "x", 100.0, 40.0), Some(340.0));
        assert_eq!(whole.left("a", "y", 100.0, 40.0), Some(240.0));
        whole.correct("b", &stage("x", 1.0));
        assert_eq!(whole.left("a", "y", 100.0, 40.0), Some(90.0));
        // Four parts in 50 s, and this one in 10 s.
        whole.done("a", 50.0);
        whole.stages.push(ForecastStage { phase: "c".into(), name: "x".into(), weight: 2.0 });
        assert_eq!(whole.left("b", "x", 10.0, 5.0), Some(29.0));
        assert_eq!([whole.left("c", "x", 1.0, 1.0), whole.left("d", "x", 1.0, 1.0)], [None; 2]);
    }

    #[test]
    fn counts_and_durations() {
        assert_eq!([short(873.0), short(18_234.0), short(1_100_000.0)], ["873", "18.2k", "1.1M"]);
        assert_eq!(
            [duration(0.42), duration(59.4), duration(61.0)],
            ["0.4 s", "59 s", "1 min 01 s"]
        );
        assert_eq!(duration(7500.0), "2 h 05 min");
    }
}
