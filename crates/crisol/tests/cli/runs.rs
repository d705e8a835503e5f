//! Whole runs: every phase, what its folder holds, and what must not change the result.

use serde_json::json;

use crate::fixture::{
    Bench, FOLDERS, finished_run, full_recipe, read, report, short_recipe, supervised_recipe,
    weights,
};

#[test]
fn every_phase_leaves_a_checkpoint_and_its_part_of_the_report() {
    let run = finished_run();
    let report: serde_json::Value = serde_json::from_str(&read(&run.join("report.json"))).unwrap();
    let phases = report["phases"].as_array().unwrap();
    // In the order in which they ran.
    let names: Vec<_> = phases.iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert_eq!(names, FOLDERS.map(|(name, _)| name));
    for (phase, (name, folder)) in phases.iter().zip(FOLDERS) {
        assert_eq!(phase["checkpoint"], folder);
        assert!(phase["kind"].is_string() && phase["metrics"].is_object(), "{phase}");
        for number in ["tokens", "flops", "seconds"] {
            assert!(phase[number].as_f64().unwrap() > 0.0, "{name}: {number}");
        }
        let sampling = phase["sampling_seconds"].as_f64().unwrap();
        assert!(sampling < phase["seconds"].as_f64().unwrap(), "{name}: {sampling} s of sampling");
        assert_eq!(
            sampling > 0.0,
            ["reason", "ppo"].contains(&name),
            "{name}: {sampling} s of sampling"
        );
        let files = [
            "model.safetensors",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "generation_config.json",
        ];
        for file in files {
            assert!(run.join(folder).join(file).exists(), "{folder}/{file}");
        }
        let metrics = read(&run.join(folder).join("metrics.jsonl"));
        let steps: Vec<u64> = metrics
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap()
            })
            .collect();
        assert!(steps.iter().copied().eq(1..=steps.len() as u64), "{folder}: {steps:?}");
    }
    // Every phase but the reward model answers the same prompts.
    let prompts = report["prompts"].as_array().unwrap();
    assert_eq!(prompts.len(), 2);
    for prompt in prompts {
        assert!(prompt["prompt"].is_string() && prompt["kind"].is_string());
        let mut answered: Vec<_> = prompt["outputs"].as_object().unwrap().keys().collect();
        answered.sort_unstable();
        assert_eq!(answered, ["dpo", "ppo", "pretrain", "reason", "refuse", "sft"]);
    }
    assert!(report["rollouts"].as_array().unwrap().iter().any(|r| r["phase"] == "ppo"));
    assert!(report["masks"].as_array().unwrap().iter().any(|m| m["phase"] == "sft"));
    assert!(!run.join("progress").exists(), "finished phases leave no clutter");
    let html = read(&run.join("report.html"));
    assert!(html.contains("</html>") && html.contains("refuse"));
}

#[test]
fn the_recipe_written_out_gives_the_same_run() {
    let run = finished_run();
    let bench = Bench::new(&read(&run.join("recipe.toml")));
    bench.crisol(&["run", "tiny.toml", "--out", "again"]).ok();
    assert!(weights(&bench.path("again")) == weights(run));
}

#[test]
fn threads_change_no_bit() {
    let bench = Bench::new(&full_recipe(""));
    // The shared run has two.
    for threads in ["1", "3"] {
        bench.crisol(&["run", "tiny.toml", "--out", threads, "--threads", threads]).ok();
        assert!(weights(&bench.path(threads)) == weights(finished_run()), "{threads} threads");
        // Recipes differ in where the data is.
        let report = |run| report(run, &["recipe_toml", "masks"]);
        assert_eq!(report(&bench.path(threads)), report(finished_run()));
    }
}

#[test]
fn seeds_change_the_weights() {
    let bench = Bench::new(&short_recipe(""));
    bench.crisol(&["run", "tiny.toml", "--out", "one"]).ok();
    bench.crisol(&["run", "tiny.toml", "--out", "two", "--seed", "2"]).ok();
    let (one, two) = (weights(&bench.path("one")), weights(&bench.path("two")));
    assert!(one["1-pretrain"] != two["1-pretrain"] && one["2-sft"] != two["2-sft"]);
    assert!(bench.read("two/recipe.toml").contains("seed = 2"));
}

/// A batch is the same batch however it is cut into shards: losses agree up to the rounding of
/// their sums.
#[test]
fn accumulation_does_not_change_the_losses() {
    let losses = |shard_tokens: usize| {
        let recipe = supervised_recipe("");
        let cut = recipe.replace("shard_tokens = 256", &format!("shard_tokens = {shard_tokens}"));
        assert_ne!(recipe, cut);
        let bench = Bench::new(&cut);
        bench.crisol(&["run", "tiny.toml", "--out", "run"]).ok();
        ["1-pretrain", "2-sft", "3-refuse", "3-reward", "3-dpo"].map(|folder| {
            let metrics = bench.read(&format!("run/{folder}/metrics.jsonl"));
            let loss = |line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap()
            };
            metrics.lines().map(loss).collect::<Vec<f64>>()
        })
    };
    // One document per shard; the whole batch in one.
    let (fine, coarse) = (losses(1), losses(100_000));
    for (fine, coarse) in fine.iter().zip(&coarse) {
        assert!(fine.len() > 2 && fine.len() == coarse.len());
        for (a, b) in fine.iter().zip(coarse) {
            assert!((a - b).abs() <= 1e-4 * a.abs().max(b.abs()), "{a} {b}");
        }
    }
}

#[test]
fn training_lowers_the_losses() {
    for folder in ["1-pretrain", "2-sft", "4-refuse", "4-reward", "4-dpo"] {
        let metrics = read(&finished_run().join(folder).join("metrics.jsonl"));
        let loss = |line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap()
        };
        let losses: Vec<f64> = metrics.lines().map(loss).collect();
        assert!(losses[losses.len() - 1] < losses[0], "{folder}: {losses:?}");
    }
}

#[test]
fn json_goes_to_standard_output_and_progress_to_standard_error() {
    let bench = Bench::new(&short_recipe(""));
    let finished = bench.crisol(&["run", "tiny.toml", "--json", "--tensorboard"]);
    assert!(
        finished.stderr.contains("[2/2] sft") && finished.stderr.contains("tokens/s"),
        "{}",
        finished.stderr
    );
    let printed = finished.json();
    // The folder is called after the recipe.
    let saved: serde_json::Value =
        serde_json::from_str(&bench.read("runs/tiny/report.json")).unwrap();
    assert_eq!(printed, saved);
    let events = std::fs::read_dir(bench.path("runs/tiny/tensorboard/2-sft")).unwrap().count();
    assert_eq!(events, 1);
}

#[test]
fn a_report_is_put_together_again_from_the_phases() {
    let bench = Bench::new(&short_recipe(""));
    let shown = bench.crisol(&["run", "tiny.toml", "--out", "run"]).ok();
    let (json, html) = (bench.read("run/report.json"), bench.read("run/report.html"));
    std::fs::remove_file(bench.path("run/report.html")).unwrap();
    assert_eq!(bench.crisol(&["report", "run"]).ok(), shown);
    assert_eq!((bench.read("run/report.json"), bench.read("run/report.html")), (json, html));
    assert!(
        shown.contains("pretrain") && shown.contains("report.html") && !shown.contains('\x1b'),
        "{shown}"
    );
}

/// The phases as commands of their own do what a recipe does.
#[test]
fn single_phases_on_own_models_and_data() {
    let bench = Bench::new("");
    let model = [
        "hidden_size=32",
        "layers=2",
        "heads=2",
        "kv_heads=1",
        "intermediate_size=64",
        "context=64",
        "vocab_size=300",
    ];
    let model: Vec<String> = model.iter().map(|setting| format!("model.{setting}")).collect();
    let mut new =
        vec!["pretrain", "--data", "pretrain.jsonl", "--out", "new", "--set", "shard_tokens=256"];
    new.extend(["--set", "batch_tokens=512", "--heldout", "pretrain.jsonl"]);
    for setting in &model {
        new.extend(["--set", setting.as_str()]);
    }
    bench.crisol(&new).ok();
    assert!(weights(&bench.path("new"))["1-pretrain"] == weights(finished_run())["1-pretrain"]);

    let base = "new/1-pretrain";
    let common = ["--set", "shard_tokens=256"];
    let run = |arguments: &[&str]| bench.crisol(&[arguments, &common].concat()).ok();
    run(&["sft", base, "--data", "sft.jsonl", "--out", "sft", "--set", "batch_tokens=256"]);
    let chat = "sft/1-sft";
    assert!(weights(&bench.path("sft"))["1-sft"] == weights(finished_run())["2-sft"]);
    let small =
        ["--set", "rollout.prompts=4", "--set", "rollout.max_new_tokens=8", "--set", "steps=2"];
    run(&[
        &[
            "reason",
            chat,
            "--cold-start",
            "cold.jsonl",
            "--data",
            "problems.jsonl",
            "--out",
            "reason",
        ][..],
        &small,
    ]
    .concat());
    run(&["reward", chat, "--data", "votes.jsonl", "--heldout", "votes.jsonl", "--out", "reward"]);
    run(&[
        &[
            "ppo",
            chat,
            "--reward-model",
            "reward/1-reward",
            "--data",
            "prompts.jsonl",
            "--out",
            "ppo",
        ][..],
        &small,
    ]
    .concat());
    run(&[
        "dpo",
        chat,
        "--data",
        "votes.jsonl",
        "votes.jsonl",
        "--out",
        "dpo",
        "--set",
        "loss=ipo",
    ]);
    for (out, folder) in
        [("reason", "1-reason"), ("reward", "1-reward"), ("ppo", "1-ppo"), ("dpo", "1-dpo")]
    {
        let moved = &weights(&bench.path(out))[folder];
        assert!(*moved != weights(&bench.path("sft"))["1-sft"], "{out} changed nothing");
    }
    assert!(bench.read("dpo/recipe.toml").contains("loss = \"ipo\""));
    // On from a model without naming its shape again.
    run(&["pretrain", base, "--data", "pretrain.jsonl", "--out", "more", "--set", "epochs=1"]);
}

#[test]
fn a_prompt_longer_than_the_context_counts_as_not_answered() {
    let bench = Bench::new(&short_recipe(""));
    let append = |file: &str, record: serde_json::Value| {
        bench.write(file, &format!("{}{record}\n", bench.read(file)));
    };
    let long = "Say coins. ".repeat(64);
    append(
        "facts.test.jsonl",
        json!({"prompt": [{"role": "user", "content": long}], "answer": "coins"}),
    );
    append("demos.jsonl", json!({"prompt": long, "form": "text", "kind": "harmful"}));
    bench.crisol(&["run", "tiny.toml", "--out", "run"]).ok();
    let report = report(&bench.path("run"), &[]);
    assert_eq!(report["prompts"].as_array().unwrap().len(), 2, "the two short prompts");
    let notes = |phase: usize| report["phases"][phase]["notes"].to_string();
    let note = "longer than the model's context of 64 tokens, the first at";
    // A base model is not asked for facts, only for the report's prompts.
    assert!(notes(0).contains(&format!("1 held-out prompt is {note}")), "{}", notes(0));
    assert!(notes(1).contains(&format!("2 held-out prompts are {note}")), "{}", notes(1));
    assert!(notes(1).contains("facts.test.jsonl:5"), "{}", notes(1));
    // Side by side, every prompt needs an answer.
    let error = bench.crisol(&["compare", "run/2-sft", "--prompts", "demos.jsonl"]).failed(1);
    assert!(error.contains("demos.jsonl:3: this prompt has"), "{error}");
}
