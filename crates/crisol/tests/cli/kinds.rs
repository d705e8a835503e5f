//! Every command that takes a model takes every kind of model: folders in one file or in parts, in
//! single and half precision, and GGUF files, quantised or not.

use crate::fixture::{Bench, checkpoint};

/// Writes the tiny run's model as each kind; their names.
fn kinds(bench: &Bench) -> [&'static str; 5] {
    let model = checkpoint("2-sft");
    for (name, options) in [
        ("folder", &["--to", "hf"][..]),
        ("parts", &["--to", "hf", "--max-shard-size", "50KB"]),
        ("half", &["--to", "hf", "--dtype", "bf16"]),
        ("whole.gguf", &["--to", "gguf"]),
        ("quantised.gguf", &["--to", "gguf", "--dtype", "q8_0"]),
    ] {
        bench.crisol(&[&["export", &model, "--out", name], options].concat()).ok();
    }
    ["folder", "parts", "half", "whole.gguf", "quantised.gguf"]
}

#[test]
fn every_phase_starts_from_every_kind_of_model() {
    let bench = Bench::new("");
    for model in kinds(&bench) {
        let train = |command: &str, options: &[&str]| {
            let out = format!("{command}-{model}");
            let fixed = [command, model, "--out", &out, "--threads", "1"];
            bench.crisol(&[&fixed[..], options].concat()).ok();
            assert!(
                bench.path(&format!("{out}/1-{command}/model.safetensors")).exists(),
                "{command} {model}"
            );
        };
        let rollouts =
            ["--set", "steps=1", "--set", "rollout.prompts=2", "--set", "rollout.max_new_tokens=4"];
        train("pretrain", &["--data", "pretrain.jsonl"]);
        train("sft", &["--data", "sft.jsonl", "--heldout", "sft.jsonl"]);
        train("reward", &["--data", "votes.jsonl"]);
        train("dpo", &["--data", "votes.jsonl", "--replay", "sft.jsonl"]);
        let groups =
            [&["--data", "problems.jsonl", "--set", "rollout.group_size=2"][..], &rollouts]
                .concat();
        train("reason", &groups);
        let judge = format!("reward-{model}/1-reward");
        train(
            "ppo",
            &[&["--data", "prompts.jsonl", "--reward-model", &judge][..], &rollouts].concat(),
        );
    }
}

#[test]
fn every_other_command_takes_every_kind_of_model() {
    let bench = Bench::new("");
    for model in kinds(&bench) {
        let exported = format!("again-{model}");
        for command in [
            &["info", model][..],
            &["generate", model, "--chat", "Say coins", "--max-new-tokens", "2"],
            &["chat", model],
            &["score", model, "--text", "Say coins"],
            &["eval", model, "--data", "sft.jsonl", "--limit", "2"],
            &["compare", model, &checkpoint("1-pretrain"), "--prompts", "prompts.jsonl"],
            &["data", "inspect", "sft.jsonl", "--model", model],
            &["cost", model],
            &["export", model, "--to", "hf", "--out", &exported],
        ] {
            bench.crisol(command).ok();
        }
    }
}
