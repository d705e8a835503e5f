//! Settings from outside: hostile values of every setting, the defaults of a base, and forecasts
//! that are too large.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crisol_engine::{Device, Interrupt};
use crisol_phases::{
    Observer, Recipe, RunOptions, SaveStats, StageForecast, available_memory, forecast,
    refuse_too_large,
};
use crisol_report::{Language, PhaseReport};
use toml::{Table, Value};

use crate::fixture::{Bench, checkpoint, copy_model, full_recipe};

const HOSTILE: [&str; 15] = [
    "0",
    "-1",
    "1",
    "100000000",
    "9223372036854775807",
    "1e8",
    "1e300",
    "1e-300",
    "-0.5",
    "nan",
    "inf",
    "\"\"",
    "\"word\"",
    "[]",
    "true",
];

/// Dotted names of all settings.
fn names(table: &Table, prefix: &str, into: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            Value::Table(inner) => names(inner, &format!("{prefix}{key}."), into),
            _ => into.push(format!("{prefix}{key}")),
        }
    }
}

fn set(table: &mut Table, name: &str, value: Value) {
    match name.split_once('.') {
        Some((first, rest)) => set(table[first].as_table_mut().expect("a table"), rest, value),
        None => {
            table.insert(name.to_owned(), value);
        }
    }
}

fn document(run: &Table, phases: &[Table]) -> String {
    let mut whole = run.clone();
    whole.insert("phases".into(), Value::Array(phases.iter().cloned().map(Value::Table).collect()));
    toml::to_string(&whole).expect("a table can be written")
}

/// Stops after a few steps.
struct Brief {
    interrupt: Interrupt,
    steps: u64,
}

impl Observer for Brief {
    fn phase_started(&mut self, _: &str, _: usize, _: usize) {}
    fn stage_started(&mut self, _: &str, _: u64, _: u64) {}
    fn step(&mut self, _: u64, _: u64, _: &[(&str, f64)]) {
        self.steps += 1;
        if self.steps >= 2 {
            self.interrupt.request();
        }
    }
    fn stage_forecast(&mut self, _: &StageForecast) {}
    fn measured(&mut self) {}
    fn memory_forecast(&mut self, _: f64, _: Option<f64>) {}
    fn saved(&mut self, _: &SaveStats) {}
    fn note(&mut self, _: &str) {}
    fn phase_finished(&mut self, _: &PhaseReport) {}
}

/// Two steps of a recipe; an error is as good as a result, a panic is neither.
fn begin(recipe: Recipe, out: &Path) {
    let device = Device::cpu(Some(1));
    let interrupt = device.interrupt().clone();
    let options = RunOptions {
        out,
        resume: false,
        device: &device,
        machine: None,
        created: String::new(),
        language: Language::English,
        reward: None,
    };
    let _ = crisol_phases::run(Some(recipe), &options, &mut Brief { interrupt, steps: 0 });
    let _ = std::fs::remove_dir_all(out);
}

/// Every setting of every kind of phase with every hostile value is refused with its name, or
/// forecast; what is not too large begins to run. Nothing panics, aborts or goes on without end.
#[test]
fn hostile_values_of_every_setting() {
    let bench = Bench::new("");
    let recipe = full_recipe("evaluate = \"none\"\n")
        .replace("data = \".\"", &format!("data = {:?}", bench.path("")));
    let whole: Table = Recipe::parse("tiny.toml", &recipe)
        .expect("the fixture is right")
        .to_toml()
        .parse()
        .unwrap();
    let mut run = whole.clone();
    let Some(Value::Array(phases)) = run.remove("phases") else { panic!("phases") };
    let base = checkpoint("2-sft");
    let began = Instant::now();
    let (mut tried, mut refused, mut too_large, mut valid, mut runs) = (0, 0, 0, 0, 0);
    let mut kinds = Vec::new();
    let mut attempt = |place: &str, text: &str| {
        tried += 1;
        let mut recipe = match Recipe::parse("hostile.toml", text) {
            Ok(recipe) => recipe,
            Err(error) => {
                refused += 1;
                let last = place.rsplit(['.', ' ']).next().unwrap_or_default();
                assert!(error.to_string().contains(last), "{place}: {error}");
                return;
            }
        };
        let Ok(phases) = recipe.resolve().and_then(|_| forecast(&recipe, None, 1)) else { return };
        if refuse_too_large(&recipe, &phases, available_memory(), 1).is_err() {
            too_large += 1;
            return;
        }
        valid += 1;
        // A sample of them is enough. Steps that take longer are somebody's wish; what is tried
        // here are their first.
        if valid % 3 > 0 || phases.iter().any(|phase| phase.flops() / phase.steps.max(1.0) > 5e8) {
            return;
        }
        let before = Instant::now();
        begin(recipe, &bench.path("out"));
        assert!(before.elapsed() < Duration::from_secs(20), "{place} took {:?}", before.elapsed());
        runs += 1;
    };
    for phase in phases {
        let Value::Table(mut phase) = phase else { panic!("a phase is a table") };
        let kind = phase["kind"].as_str().expect("a kind").to_owned();
        if kinds.contains(&kind) {
            continue;
        }
        phase.insert("from".into(), "".into());
        if kind == "ppo" {
            phase.insert("reward_model".into(), checkpoint("4-reward").into());
        }
        let mut run = run.clone();
        if kind != "pretrain" {
            run.insert("base".into(), base.clone().into());
            run.remove("model");
        }
        let mut settings = Vec::new();
        names(&phase, "", &mut settings);
        for name in &settings {
            for value in HOSTILE {
                let value = format!("x = {value}").parse::<Table>().unwrap()["x"].clone();
                let mut hostile = phase.clone();
                set(&mut hostile, name, value.clone());
                attempt(
                    &format!("{kind} {name} = {value}").replace(&format!(" = {value}"), ""),
                    &document(&run, &[hostile]),
                );
            }
        }
        // Settings of the whole run, once with a new model and once with a base.
        if ["pretrain", "sft"].contains(&kind.as_str()) {
            let mut settings = Vec::new();
            names(&run, "", &mut settings);
            for name in
                settings.iter().filter(|name| !["data", "base", "title"].contains(&name.as_str()))
            {
                for value in HOSTILE {
                    let value = format!("x = {value}").parse::<Table>().unwrap()["x"].clone();
                    let mut hostile = run.clone();
                    set(&mut hostile, name, value);
                    attempt(
                        &format!("run {name}"),
                        &document(&hostile, std::slice::from_ref(&phase)),
                    );
                }
            }
        }
        kinds.push(kind);
    }
    let mut said = String::new();
    let _ = write!(
        said,
        "{tried} tried, {refused} refused, {too_large} too large, {runs} begun in {:?}",
        began.elapsed()
    );
    println!("{said}");
    assert_eq!(kinds.len(), 6, "{kinds:?}");
    assert!(tried > 900 && refused > tried / 2 && runs > 50, "{said}");
}

#[test]
fn forecasts_beyond_the_machine_or_a_million_steps_ask_for_force() {
    let bench = Bench::new("");
    let base = checkpoint("1-pretrain");
    let refused = |arguments: &[&str], expected: &[&str]| {
        let error = bench.crisol(&[arguments, &["--out", "out"]].concat()).failed(1);
        for part in expected {
            assert!(error.contains(part), "{arguments:?}: {error}");
        }
        assert!(!bench.path("out").exists(), "{arguments:?}");
    };
    let wide = [
        "model.hidden_size=65536",
        "model.heads=512",
        "model.kv_heads=512",
        "model.layers=100",
        "model.intermediate_size=262144",
    ];
    let mut arguments = vec!["pretrain", "--data", "pretrain.jsonl"];
    for setting in wide {
        arguments.extend(["--set", setting]);
    }
    refused(&arguments, &["of memory", "are free here", "--force"]);
    let sft =
        ["sft", &base, "--data", "sft.jsonl", "--set", "batch_tokens=1", "--set", "epochs=10000"];
    bench.write("many.jsonl", &bench.read("sft.jsonl").repeat(4));
    let sft = sft.map(|argument| if argument == "sft.jsonl" { "many.jsonl" } else { argument });
    refused(&sft, &["phase sft would take about 1600000 steps", "--force"]);
    let reason = ["reason", &base, "--data", "problems.jsonl", "--set", "steps=100000000"];
    refused(&reason, &["100000000 steps", "--force"]);
}

#[test]
fn what_is_left_out_is_settled_by_the_base_and_written() {
    let bench = Bench::new("");
    let base = checkpoint("1-pretrain");
    let run = |out: &str, more: &[&str]| {
        let sft = ["sft", &base, "--data", "sft.jsonl", "--out", out, "--set", "epochs=0.3"];
        bench.crisol(&[&sft, more].concat())
    };
    let finished = run("left", &[]);
    // The fixture's model is as small as the smallest of the table.
    assert!(finished.stderr.contains("optimizer.lr 4e-4"), "{}", finished.stderr);
    assert!(finished.stderr.contains("defaults for full fine-tuning of"), "{}", finished.stderr);
    assert!(!finished.stderr.contains("times the default"), "{}", finished.stderr);
    finished.ok();
    let recipe: Table = bench.read("left/recipe.toml").parse().unwrap();
    assert_eq!(recipe["phases"][0]["optimizer"]["lr"].as_float(), Some(4e-4));
    assert!(!recipe.contains_key("model"), "the base has a shape of its own");
    let finished = run("far", &["--set", "optimizer.lr=0.02"]);
    assert!(
        finished.stderr.contains("optimizer.lr 0.02 is 50 times the default"),
        "{}",
        finished.stderr
    );
    let shown = finished.ok();
    assert!(shown.contains("Notes") && shown.contains("50 times the default"), "{shown}");
    // What was settled is no other recipe when the run goes on.
    bench.crisol(&["run", "--out", "left", "--resume"]).ok();
}

#[test]
fn a_base_with_a_context_of_one_token_is_refused() {
    let bench = Bench::new("");
    copy_model("1-pretrain", &bench.path("base"));
    let mut config: serde_json::Value =
        serde_json::from_str(&bench.read("base/config.json")).unwrap();
    config["max_position_embeddings"] = 1.into();
    bench.write("base/config.json", &config.to_string());
    for arguments in
        [["pretrain", "base", "--data", "pretrain.jsonl"], ["sft", "base", "--data", "sft.jsonl"]]
    {
        let error = bench.crisol(&[&arguments[..], &["--out", "out"]].concat()).failed(1);
        assert!(error.contains("base") && error.contains("context of 1 token"), "{error}");
    }
}
