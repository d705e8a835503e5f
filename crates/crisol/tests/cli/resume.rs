//! Runs that are stopped and go on: they end in the same bits as runs that are not.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fixture::{Bench, Finished, full_recipe, report, short_recipe, weights};

/// Saves after every step, so that there is much to be interrupted.
pub(crate) const EAGER: &str = "checkpoint_seconds = 0\n";

pub(crate) fn start(bench: &Bench, arguments: &[&str]) -> Child {
    bench
        .command(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(sent.expect("there is a kill command").success());
}

pub(crate) fn wait_for(path: &Path) {
    wait_until(path, || path.exists());
}

pub(crate) fn wait_until(path: &Path, is_there: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_there() {
        assert!(began.elapsed() < Duration::from_mins(1), "{} never came", path.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Both folders hold the same weights and the same report, but for times and the recipe's own path.
fn assert_same(bench: &Bench, a: &str, b: &str) {
    let (a, b) = (bench.path(a), bench.path(b));
    let (of_a, of_b) = (weights(&a), weights(&b));
    assert!(of_a.keys().eq(of_b.keys()), "{:?} {:?}", of_a.keys(), of_b.keys());
    for (phase, weights) in &of_a {
        assert!(*weights == of_b[phase], "the weights of {phase} differ");
    }
    assert_eq!(report(&a, &[]), report(&b, &[]));
    for phase in of_a.keys() {
        let tokenizer = |run: &Path| {
            fs::read(run.join(phase).join("tokenizer.json")).expect("there is a tokenizer")
        };
        assert!(tokenizer(&a) == tokenizer(&b), "the tokenizers of {phase} differ");
    }
    assert!(!b.join("progress").exists(), "finished phases leave no clutter");
}

#[test]
fn killed_at_any_time_and_resumed() {
    let bench = Bench::new(&full_recipe(EAGER));
    let began = Instant::now();
    bench.crisol(&["run", "tiny.toml", "--out", "whole"]).ok();
    let mut whole = began.elapsed();
    for seed in 1..=3u64 {
        let out = format!("killed-{seed}");
        let mut state = seed;
        let mut kills = 0;
        loop {
            let resumed = bench.path(&out).join("recipe.toml").exists();
            let mut arguments = vec!["run", "tiny.toml", "--out", &out];
            if resumed {
                arguments.push("--resume");
            }
            let mut child = start(&bench, &arguments);
            // A linear congruential generator (Knuth's MMIX) is random enough for moments. Later
            // ones come later, so that even a machine that is busier than when `whole` was measured
            // gets to the end.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let random = (state >> 40) as f64 / f64::from(1 << 24);
            let share = (0.05 + 0.4 * random) * (1.0 + f64::from(kills) / 10.0);
            std::thread::sleep(whole.mul_f64(share));
            if child.try_wait().expect("the child can be asked").is_some() {
                let output = child.wait_with_output().expect("the child's output can be read");
                Finished::of(output).ok();
                if kills > 0 {
                    break;
                }
                // The machine was busier when `whole` was measured: once more, killed sooner.
                whole /= 4;
                fs::remove_dir_all(bench.path(&out)).expect("the run's folder can be removed");
                continue;
            }
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
            kills += 1;
            assert!(kills < 50, "the run makes no progress");
        }
        assert_same(&bench, "whole", &out);
    }
}

#[test]
fn interrupted_by_ctrl_c_and_resumed() {
    let bench = Bench::new(&full_recipe(EAGER));
    bench.crisol(&["run", "tiny.toml", "--out", "whole"]).ok();
    for (name, waited_for) in [
        ("INT", "progress/1-pretrain/state"),
        ("TERM", "progress/2-sft/state"),
        ("INT", "progress/3-reason/state"),
    ] {
        let out = waited_for.replace('/', "-");
        let child = start(&bench, &["run", "tiny.toml", "--out", &out, "--threads", "1"]);
        wait_for(&bench.path(&out).join(waited_for));
        signal(&child, name);
        let stopped =
            Finished::of(child.wait_with_output().expect("the child's output can be read"));
        assert_eq!(stopped.code, Some(130), "{stopped:#?}");
        assert!(stopped.stderr.contains("everything is saved"), "{}", stopped.stderr);
        // The message names the command that goes on.
        let (_, command) =
            stopped.stderr.rsplit_once("Go on with: crisol ").expect("a command to go on with");
        let arguments: Vec<&str> = command.split_whitespace().collect();
        assert!(arguments.ends_with(&["--threads", "1"]), "{arguments:?}");
        bench.crisol(&arguments).ok();
        assert_same(&bench, "whole", &out);
    }
}

/// A stop that comes while a step is under way: the step is given up, and what came before it is
/// saved.
#[test]
fn interrupted_between_saves_and_resumed() {
    // Saved at the ends of stages only.
    let recipe = full_recipe("")
        .replace("steps = 4", "steps = 30")
        .replace("heldout = \"pretrain.jsonl\"", "heldout = \"pretrain.jsonl\"\nepochs = 20");
    let bench = Bench::new(&recipe);
    bench.crisol(&["run", "tiny.toml", "--out", "whole"]).ok();
    for (phase, lines) in [("1-pretrain", 3), ("3-reason", 20)] {
        let child = start(&bench, &["run", "tiny.toml", "--out", phase]);
        let metrics = bench.path(phase).join("progress").join(phase).join("metrics.jsonl");
        wait_until(&metrics, || {
            fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() >= lines)
        });
        signal(&child, "INT");
        let stopped =
            Finished::of(child.wait_with_output().expect("the child's output can be read"));
        assert_eq!(stopped.code, Some(130), "{stopped:#?}");
        assert!(stopped.stderr.contains("Go on with: crisol run --resume"), "{}", stopped.stderr);
        if phase == "1-pretrain" {
            // Its steps are one update each, so none is lost.
            assert!(stopped.stderr.contains("everything is saved"), "{}", stopped.stderr);
            let state = bench.path(phase).join("progress/1-pretrain/state");
            assert!(state.join("tokenizer.json").exists() && state.join("checksums").exists());
        }
        bench.crisol(&["run", "--resume", "--out", phase]).ok();
        assert_same(&bench, "whole", phase);
    }
}

/// A stop between two updates of a rollout step: what was sampled and updated is kept, and the step
/// goes on from there.
#[test]
fn interrupted_between_updates_and_resumed() {
    // Nearly all of the time goes into updates.
    let recipe = full_recipe("")
        .replace(
            "rollout.minibatches = 2",
            "rollout.minibatches = 2\nrollout.epochs = 60\nskip_zero_spread = false",
        )
        .replace("rollout.max_new_tokens = 8", "rollout.max_new_tokens = 8\nrollout.epochs = 60");
    let bench = Bench::new(&recipe);
    bench.crisol(&["run", "tiny.toml", "--out", "whole"]).ok();
    let mut within = 0;
    for phase in ["3-reason", "5-ppo"] {
        let (metrics, state) =
            (format!("progress/{phase}/metrics.jsonl"), format!("progress/{phase}/state"));
        let lines = |path: &Path| {
            fs::read_to_string(path).map_or(0, |text| text.matches("response_length").count())
        };
        let mut child = start(&bench, &["run", "tiny.toml", "--out", phase]);
        // More than once, so that a step that went on in its middle is stopped again.
        for steps in [1, 2, 3] {
            let metrics = bench.path(phase).join(&metrics);
            wait_until(&metrics, || lines(&metrics) >= steps);
            std::thread::sleep(Duration::from_millis(20));
            signal(&child, "INT");
            let stopped =
                Finished::of(child.wait_with_output().expect("the child's output can be read"));
            assert_eq!(stopped.code, Some(130), "{stopped:#?}");
            assert!(stopped.stderr.contains("everything is saved"), "{}", stopped.stderr);
            // On a busy machine a stop may come while answers are sampled.
            let stopped_within = stopped.stderr.contains("within step ");
            assert_eq!(bench.path(phase).join(&state).join("step.json").exists(), stopped_within);
            within += usize::from(stopped_within);
            child = start(&bench, &["run", "--resume", "--out", phase]);
        }
        Finished::of(child.wait_with_output().expect("the child's output can be read")).ok();
        assert_same(&bench, "whole", phase);
    }
    assert!(within > 0, "no stop came between two updates");
}

#[test]
fn a_finished_run_resumes_to_itself() {
    let bench = Bench::new(&short_recipe(""));
    let shown = bench.crisol(&["run", "tiny.toml", "--out", "run"]).ok();
    let before = weights(&bench.path("run"));
    assert_eq!(bench.crisol(&["run", "--out", "run", "--resume"]).ok(), shown);
    assert!(weights(&bench.path("run")) == before);
}

#[test]
fn another_recipe_or_seed_is_no_way_to_resume() {
    let bench = Bench::new(&short_recipe(""));
    bench.crisol(&["run", "tiny.toml", "--out", "run"]).ok();
    let error = bench.crisol(&["run", "--out", "run", "--resume", "--seed", "9"]).failed(1);
    assert!(error.contains("seed = 9") && error.contains("seed = 1"), "{error}");
    let error = bench.crisol(&["run", "tiny.toml", "--out", "run"]).failed(1);
    assert!(error.contains("already holds a run") && error.contains("--resume"), "{error}");
    let error = bench.crisol(&["run", "--out", "elsewhere", "--resume"]).failed(1);
    assert!(error.contains("no run to resume"), "{error}");
    assert!(!bench.path("elsewhere").exists());
}

/// A write that fails (here: a limit on the size of files) ends the run with what was there intact.
#[test]
fn a_failed_write_loses_nothing() {
    let bench = Bench::new(&short_recipe(EAGER));
    // The weights take 110 KB; `ulimit -f` counts blocks of 512 or 1024 bytes. The signal that
    // would end the process is ignored, so that the write fails as it does on a full disk.
    let limited = |arguments: &str| {
        let script = format!("trap '' XFSZ; ulimit -f 80; exec \"$0\" run {arguments} --out full");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_crisol")]).current_dir(bench.path(""));
        Finished::of(shell.output().expect("there is a shell")).failed(1)
    };
    let error = limited("tiny.toml");
    assert!(error.contains("cannot write full/progress/1-pretrain"), "{error}");
    // Nothing was saved, so the folder is as good as new.
    bench.crisol(&["run", "tiny.toml", "--out", "full"]).ok();
    let whole = (weights(&bench.path("full")), report(&bench.path("full"), &[]));

    std::fs::remove_dir_all(bench.path("full/2-sft")).expect("the phase's folder can be removed");
    let error = limited("--resume");
    assert!(error.contains("cannot write full/progress/2-sft"), "{error}");
    assert!(error.contains("crisol run --resume --out full"), "{error}");
    assert!(weights(&bench.path("full"))["1-pretrain"] == whole.0["1-pretrain"]);
    bench.crisol(&["run", "--resume", "--out", "full"]).ok();
    assert!((weights(&bench.path("full")), report(&bench.path("full"), &[])) == whole);
}
