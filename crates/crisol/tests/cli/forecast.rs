//! What is said before a run, beside what the run then does.

use std::path::Path;

use crisol_engine::Device;
use crisol_phases::{Observer, Recipe, RunOptions, SaveStats, StageForecast, forecast};
use crisol_report::{Language, PhaseReport};

use crate::fixture::{Bench, full_recipe};

/// Share by which said operations may be wrong.
const TOLERANCE: f64 = 0.05;

/// Keeps what phases say of their stages' operations once they have read their data.
#[derive(Default)]
struct Said(Vec<f64>);

impl Observer for Said {
    fn phase_started(&mut self, _: &str, _: usize, _: usize) {
        self.0.push(0.0);
    }
    fn stage_started(&mut self, _: &str, _: u64, _: u64) {}
    fn step(&mut self, _: u64, _: u64, _: &[(&str, f64)]) {}
    fn stage_forecast(&mut self, stage: &StageForecast) {
        *self.0.last_mut().expect("phases start before their stages") += stage.flops;
    }
    fn measured(&mut self) {}
    fn memory_forecast(&mut self, _: f64, _: Option<f64>) {}
    fn saved(&mut self, _: &SaveStats) {}
    fn note(&mut self, _: &str) {}
    fn phase_finished(&mut self, _: &PhaseReport) {}
}

/// The operations of each phase are those that its report counts, before the run and before the
/// phase.
#[track_caller]
fn check(recipe: Recipe, out: &Path) {
    let forecast = forecast(&recipe, None, 1).expect("the recipe is right");
    let mut said = Said::default();
    let device = Device::cpu(Some(1));
    let options = RunOptions {
        out,
        resume: false,
        device: &device,
        machine: None,
        created: String::new(),
        language: Language::English,
        reward: None,
    };
    let report = crisol_phases::run(Some(recipe), &options, &mut said).expect("the run is right");
    assert_eq!(forecast.len(), report.phases.len());
    assert_eq!(said.0.len(), report.phases.len());
    for ((phase, before_run), before_phase) in report.phases.iter().zip(forecast).zip(said.0) {
        for (when, flops) in [("run", before_run.flops()), ("phase", before_phase)] {
            let ratio = flops / phase.flops;
            assert!(
                (ratio - 1.0).abs() < TOLERANCE,
                "{}: {ratio:.3} before the {when}",
                phase.name
            );
        }
    }
}

fn recipe(bench: &Bench, text: &str) -> Recipe {
    // Answers are short beside their prompts, because their lengths are not known before; all of
    // them are trained.
    let text = text
        .replace("data = \".\"", &format!("data = \"{}\"", bench.path("").display()))
        .replace(
            "rollout.max_new_tokens = 12",
            "rollout.max_new_tokens = 2\nskip_zero_spread = false",
        )
        .replace("rollout.max_new_tokens = 8", "rollout.max_new_tokens = 2");
    let mut recipe = Recipe::parse("tiny.toml", &text).expect("the fixture is right");
    recipe.resolve().expect("its model is right");
    recipe
}

/// Of a new model, whose tokenizer is yet to be trained.
#[test]
fn operations_of_a_new_model_are_those_that_are_counted() {
    let bench = Bench::new("");
    check(recipe(&bench, &full_recipe("evaluate = \"none\"\n")), &bench.path("out"));
}

/// Templates that write much more than the messages say.
#[test]
fn operations_of_a_base_count_what_its_template_adds() {
    let bench = Bench::new(&full_recipe("").replace("context = 64", "context = 512"));
    let pretrain =
        ["pretrain", "--data", "pretrain.jsonl", "--out", "base", "--set", "model.context=512"];
    let shape = [
        "hidden_size=32",
        "layers=2",
        "heads=2",
        "kv_heads=1",
        "intermediate_size=64",
        "vocab_size=300",
    ];
    let shape = shape.map(|setting| ["--set".to_owned(), format!("model.{setting}")]).concat();
    let shape: Vec<&str> = shape.iter().map(String::as_str).collect();
    bench.crisol(&[&pretrain[..], &shape].concat()).ok();
    let base = bench.path("base/1-pretrain");
    let config: serde_json::Value =
        serde_json::from_str(&bench.read("base/1-pretrain/tokenizer_config.json")).expect("JSON");
    let template = config["chat_template"].as_str().expect("a template");
    let wordy = format!(
        "Ana and Ben are asked by Carl. The sky is blue. Dora has apples, pears and coins.\n{template}"
    );
    std::fs::write(base.join("chat_template.jinja"), wordy).expect("the folder is writable");
    let text = full_recipe("evaluate = \"none\"\n");
    let (run, phases) =
        (text.find("[model]").expect("a model"), text.find("[[phases]]\nkind = \"sft\""));
    let text = format!(
        "base = \"{}\"\n{}{}",
        base.display(),
        &text[..run],
        &text[phases.expect("an SFT")..]
    );
    check(recipe(&bench, &text), &bench.path("out"));
}
