//! Adapters in every phase: the base stays as it is, folders are small and run like models, and
//! neither threads nor a stop change a bit.

use std::path::Path;

use crate::fixture::{Bench, copy_model, read};

/// The base: a finished phase of the shared run.
fn bench() -> Bench {
    let bench = Bench::new("");
    copy_model("2-sft", &bench.path("base"));
    bench
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

const SMALL: [&str; 6] = ["--lora=4", "--set", "shard_tokens=256", "--threads", "2", "--force"];

#[test]
fn every_phase_trains_an_adapter_over_one_base() {
    let bench = bench();
    let before = bytes(&bench.path("base/model.safetensors"));
    let run = |arguments: &[&str]| bench.crisol(&[arguments, &SMALL].concat()).ok();
    run(&["pretrain", "base", "--data", "pretrain.jsonl", "--out", "more"]);
    run(&["sft", "base", "--data", "sft.jsonl", "--heldout", "sft.jsonl", "--out", "sft"]);
    // From here on, the same adapter is trained further.
    let policy = "sft/1-sft";
    run(&["reward", policy, "--data", "votes.jsonl", "--out", "reward"]);
    run(&["dpo", policy, "--data", "votes.jsonl", "--out", "dpo"]);
    let rollouts = ["--set", "steps=2", "--set", "rollout.max_new_tokens=8"];
    let problems = ["reason", policy, "--data", "problems.jsonl", "--out", "reason"];
    run(&[&problems[..], &["--cold-start", "cold.jsonl"], &rollouts].concat());
    let prompts = ["ppo", policy, "--data", "prompts.jsonl", "--out", "ppo"];
    run(&[&prompts[..], &["--reward-model", "reward/1-reward"], &rollouts].concat());

    assert!(bytes(&bench.path("base/model.safetensors")) == before, "the base has changed");
    let mut seen: Vec<Vec<u8>> = vec![];
    for folder in ["more/1-pretrain", policy, "reward/1-reward", "dpo/1-dpo", "reason/1-reason"] {
        let path = bench.path(folder);
        assert!(!path.join("model.safetensors").exists(), "{folder}: a whole model");
        let adapter = bytes(&path.join("adapter_model.safetensors"));
        assert!(adapter.len() < before.len() / 2, "{folder}: {} bytes", adapter.len());
        assert!(!seen.contains(&adapter), "{folder} was not trained");
        seen.push(adapter);
    }
    // An adapter's folder is a model's.
    bench.crisol(&["generate", "ppo/1-ppo", "--chat", "Say coins"]).ok();
    bench.crisol(&["score", policy, "--text", "The sky is blue."]).ok();
    bench.crisol(&["eval", "reward/1-reward", "--data", "votes.jsonl"]).ok();
    let report: serde_json::Value =
        serde_json::from_str(&read(&bench.path("sft/report.json"))).unwrap();
    // The base's size, and how much of it all is trained.
    let [model, trained] =
        ["parameters", "trained_parameters"].map(|key| report["model"][key].as_u64().unwrap());
    let info = |path: &str| bench.crisol(&["info", path, "--json"]).json();
    assert_eq!(info("base")["parameters"]["total"], model);
    assert_eq!(info(policy)["parameters"], trained);
    let page = read(&bench.path("sft/report.html"));
    let full = bench.crisol(&["report", "sft", "--full"]).ok();
    for shown in [bench.crisol(&["report", "sft"]).ok(), full, page] {
        assert!(shown.contains(" parameters (") && shown.contains(" trained)"), "{shown}");
    }
    let phase = &report["phases"][0];
    let after = phase["metrics"]["validation_loss"].as_f64().unwrap();
    assert!(after < phase["before"]["validation_loss"].as_f64().unwrap(), "{phase}");
}

#[test]
fn threads_and_a_resumed_run_give_the_same_adapter() {
    let bench = bench();
    let train = |out: &str, more: &[&str]| {
        let sft = ["sft", "base", "--data", "sft.jsonl", "--out", out, "--lora"];
        let settings = ["batch_tokens=128", "adapter.dropout=0.2", "adapter.dora=true"];
        let settings = settings.into_iter().flat_map(|setting| ["--set", setting]);
        let settings: Vec<&str> = settings.collect();
        bench.crisol(&[&sft[..], &settings, more].concat()).ok();
        bytes(&bench.path(out).join("1-sft/adapter_model.safetensors"))
    };
    let one = train("one", &["--threads", "1"]);
    assert!(train("three", &["--threads", "3"]) == one);
    // Trained again from the recipe that the run wrote.
    bench.crisol(&["run", "one/recipe.toml", "--out", "again"]).ok();
    assert!(bytes(&bench.path("again/1-sft/adapter_model.safetensors")) == one);
}

/// Killed while there is a saved state, in phases with one and with several networks; one of them
/// computes in bf16.
#[cfg(unix)]
#[test]
fn a_killed_run_goes_on_with_the_same_adapter() {
    use crate::resume::{signal, start, wait_for};

    let bench = bench();
    let reward = ["reward", "base", "--data", "votes.jsonl", "--out", "reward", "--lora=4"];
    bench.crisol(&reward).ok();
    let rollouts = ["--set", "steps=6", "--set", "rollout.max_new_tokens=8"];
    let ppo = [&["--reward-model", "reward/1-reward"][..], &rollouts].concat();
    let bf16 = ["--set", "precision=bf16"];
    for (kind, data, more) in [
        ("sft", "sft.jsonl", &[][..]),
        ("dpo", "votes.jsonl", &bf16),
        ("ppo", "prompts.jsonl", &ppo),
    ] {
        let (whole, killed) = (format!("whole-{kind}"), format!("killed-{kind}"));
        let dropout = ["--set", "adapter.dropout=0.2", "--set", "adapter.dora=true"];
        let train = ["--lora=4", "--set", "checkpoint_seconds=0", "--data", data];
        let train = [&train[..], &dropout].concat();
        let train = |out| [&[kind, "base", "--out", out][..], &train, more].concat();
        bench.crisol(&train(&whole)).ok();
        let mut child = start(&bench, &train(&killed));
        wait_for(&bench.path(&killed).join(format!("progress/1-{kind}/state")));
        signal(&child, "KILL");
        child.wait().unwrap();
        bench.crisol(&[kind, "--resume", "--out", &killed]).ok();
        let adapter = format!("1-{kind}/adapter_model.safetensors");
        let [a, b] = [&whole, &killed].map(|run| bytes(&bench.path(run).join(&adapter)));
        assert!(a == b, "{kind}");
    }
}

#[test]
fn a_merged_adapter_is_the_same_model() {
    let bench = bench();
    bench.crisol(&["export", "base", "--to", "gguf", "--dtype", "q8_0", "--out", "q8.gguf"]).ok();
    for base in ["base", "q8.gguf"] {
        let out = format!("tuned-{base}");
        let adapter = format!("{out}/1-sft");
        bench.crisol(&["sft", base, "--data", "sft.jsonl", "--out", &out, "--lora=4"]).ok();
        let merged = format!("merged-{base}");
        let printed = bench.crisol(&["merge", base, &adapter, "--out", &merged]).ok();
        let difference: f64 =
            printed.trim().trim_end_matches(')').rsplit(' ').next().unwrap().parse().unwrap();
        assert!(difference < 1e-4, "{printed}");
        let again = bench.crisol(&["merge", base, &adapter, "--out", &merged]).failed(1);
        assert!(again.contains(&merged), "never overwritten: {again}");
    }
}

#[test]
fn an_adapter_is_put_over_a_model_described_and_exported() {
    let bench = bench();
    let ranks = ["--set", "adapter.ranks={\"down_proj\" = 2}", "--set", "adapter.dropout=0.1"];
    let sft = ["sft", "base", "--data", "sft.jsonl", "--out", "tuned", "--lora=4"];
    bench.crisol(&[&sft[..], &ranks].concat()).ok();
    let adapter = "tuned/1-sft";
    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&bench.crisol(&[arguments, &["--json"]].concat()).ok()).unwrap()
    };
    let score =
        |model: &[&str]| json(&[&["score"], model, &["--text", "The sky is blue."]].concat());
    let over = score(&["base", "--adapter", adapter]);
    assert_eq!(over, score(&[adapter]));
    assert_ne!(over, score(&["base"]));
    bench.crisol(&["generate", "base", "--adapter", adapter, "--prompt", "A"]).ok();
    bench.crisol(&["eval", "base", "--adapter", adapter, "--data", "sft.jsonl"]).ok();
    let error = bench.crisol(&["generate", "base", "--adapter", "base", "--prompt", "A"]).failed(1);
    assert!(error.contains("holds no adapter"), "{error}");
    let twice = ["generate", adapter, "--adapter", adapter, "--prompt", "A"];
    assert!(bench.crisol(&twice).failed(1).contains("an adapter itself"));

    let info = json(&["info", adapter]);
    assert_eq!((&info["rank"], &info["dropout"]), (&4.into(), &0.1.into()));
    assert_eq!(info["rank_pattern"]["down_proj"], 2);
    assert!(info["base"].as_str().unwrap().ends_with("base"), "{info}");
    assert!(info["parameters"].as_u64().unwrap() > 1000, "{info}");
    let text = bench.crisol(&["info", adapter]).ok();
    assert!(text.contains("LoRA of rank 4, alpha 32") && text.contains("down_proj: 2"), "{text}");

    bench.crisol(&["export", adapter, "--to", "gguf", "--out", "adapter.gguf"]).ok();
    let again = ["export", adapter, "--to", "gguf", "--out", "adapter.gguf"];
    assert!(bench.crisol(&again).failed(1).contains("never overwritten"));

    // The file takes the folder's place.
    assert_eq!(score(&["base", "--adapter", "adapter.gguf"]), over);
    bench.crisol(&["merge", "base", "adapter.gguf", "--out", "merged"]).ok();
    let info = json(&["info", "adapter.gguf"]);
    assert_eq!((&info["format"], &info["architecture"]), (&"gguf".into(), &"llama".into()));
    assert_eq!((&info["rank"], &info["base"]), (&4.into(), &serde_json::Value::Null));
    assert!(info["rank_pattern"].as_object().unwrap().contains_key("blk.0.ffn_down"), "{info}");
    let text = bench.crisol(&["info", "adapter.gguf"]).ok();
    assert!(text.contains("not named in the file") && text.contains("attn_q"), "{text}");
    let alone = bench.crisol(&["generate", "adapter.gguf", "--prompt", "A"]).failed(1);
    assert!(alone.contains("--adapter FILE"), "{alone}");
}

#[test]
fn what_an_adapter_cannot_do_is_explained() {
    let bench = bench();
    let sft = |more: &[&str]| {
        let sft = ["sft", "base", "--data", "sft.jsonl", "--out", "none"];
        bench.crisol(&[&sft[..], more].concat()).failed(1)
    };
    assert!(sft(&["--lora=1000"]).contains("choose a rank between 1 and"));
    let unknown = sft(&["--lora", "--set", "adapter.targets=[\"query\"]"]);
    assert!(unknown.contains("no module is named \"query\"") && unknown.contains("q_proj"));
    let without_effect = sft(&["--lora", "--set", "adapter.ranks={\"query\" = 2}"]);
    assert!(without_effect.contains("\"query\""), "{without_effect}");
    let new = ["pretrain", "--data", "pretrain.jsonl", "--out", "none", "--lora"];
    let error = bench.crisol(&new).failed(2);
    assert!(error.contains("adapter.rank"), "{error}");
    bench.crisol(&["sft", "base", "--data", "sft.jsonl", "--out", "tuned", "--lora"]).ok();
    let error = bench.crisol(&["export", "tuned/1-sft", "--to", "hf"]).failed(1);
    assert!(error.contains("crisol merge BASE ADAPTER"), "{error}");
    // Over another model, and without its base.
    copy_model("1-pretrain", &bench.path("other"));
    let merge = ["merge", "other", "tuned/1-sft", "--out", "merged"];
    assert!(bench.crisol(&merge).failed(1).contains("other weights"));
    std::fs::remove_dir_all(bench.path("base")).unwrap();
    let error = bench.crisol(&["generate", "tuned/1-sft", "--prompt", "A"]).failed(1);
    assert!(error.contains("its base model") && error.contains("is not here"), "{error}");
}
