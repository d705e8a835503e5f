//! What `crisol-cost` says that the engine takes on the CPU, beside what processes took.

use crisol_cost::engine::{EngineOptions, GenerationBatch, inference, training};
use crisol_cost::memory::Memory;
use crisol_cost::phases::Phase;
use crisol_cost::units::Bytes;
use crisol_cost::{Attention, Block, FeedForward, Head, ModelShape};
use crisol_engine::Precision;
use crisol_phases::forecast::memory;
use crisol_phases::{DataSource, Recipe};
use serde_json::Value;

use crate::fixture::Bench;

/// Share by which a prediction may be wrong.
const TOLERANCE: f64 = 0.15;
/// What the dev profile's larger code adds to the program that predictions count. Peaks of
/// `crisol bench gemm --seconds 0.01 --threads 1`: 19.6 MB, and 14.1 MB with `--release`.
const DEV_PROFILE: f64 = if cfg!(debug_assertions) { 5.5e6 } else { 0.0 };

#[track_caller]
fn check(what: &str, predicted: Memory, measured: &Value) {
    let measured = measured.as_u64().expect("a number of bytes") as f64;
    assert!(measured > 0.0, "{what}: the peak memory of the process is not known");
    let expected = predicted.total().0 + DEV_PROFILE;
    let ratio = expected / measured;
    assert!(
        (ratio - 1.0).abs() < TOLERANCE,
        "{what}: {:.1} MB predicted, {:.1} MB measured ({ratio:.2}); {predicted:#?}",
        expected * 1e-6,
        measured * 1e-6
    );
}

/// Llama with as many heads of keys and values as of queries.
fn llama([hidden, layers, heads, inner, vocab]: [usize; 5], head: Head) -> ModelShape {
    let attention =
        Attention::Grouped { heads, kv_heads: heads, head_dim: hidden / heads, span: None };
    let block =
        Block { attention, feed_forward: FeedForward::Dense { inner }, vectors: 2 * hidden };
    ModelShape {
        hidden,
        vocab,
        head,
        blocks: vec![(layers, block)],
        positions: 0,
        last_norm: hidden,
        adapter: 0,
    }
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "peak memory is read from /proc")]
fn training_steps_and_generation_take_what_is_predicted() {
    let bench = Bench::new("");
    let peak = |arguments: &[&str]| {
        let always = ["--seconds", "0.1", "--json"];
        bench.crisol(&[&["bench"], arguments, &always].concat()).json()["peak_memory_bytes"].clone()
    };
    let xs = llama([128, 4, 4, 352, 2048], Head::Tied);
    let wide = llama([64, 2, 4, 176, 16_000], Head::Untied);
    // Tokens of a shard and shards of a batch, which has shards of 512 tokens unless a document is
    // longer.
    let cases = [
        ("XS,B=8", "1", &xs, 512, 2),
        ("XS,B=16", "2", &xs, 512, 4),
        ("XS,T=1024,B=2", "2", &xs, 1024, 2),
        ("d=64,L=2,H=4,ff=176,V=16000,T=128,B=8,head=untied", "2", &wide, 512, 2),
    ];
    for (name, threads, shape, shard_tokens, shards) in cases {
        let options = EngineOptions {
            limits: memory::limits(Precision::F32),
            threads: threads.parse().unwrap(),
            shard_tokens,
            shards,
            uneven: false,
            sampling: None,
            measured: None,
            base: Bytes(0.0),
            recompute_blocks: false,
            moment_bytes: 4.0,
            program: memory::PROGRAM,
        };
        let measured = peak(&["train", "--shape", name, "--threads", threads]);
        check(name, training(shape, Phase::Pretrain, &options), &measured);
    }
    let (chunks, slots) = crisol_model::generation_concurrency(64, 2);
    let sequences = GenerationBatch { chunks, slots, prompt_tokens: slots * 16, length: 16 + 100 };
    let predicted =
        inference(&xs, None, sequences, &memory::limits(Precision::F32), memory::PROGRAM);
    let decode =
        ["decode", "--shape", "XS", "--batch", "64", "--new-tokens", "100", "--threads", "2"];
    check("decode", predicted, &peak(&decode));
}

/// Each phase is a process of its own: one that runs several keeps some of what the earlier ones
/// took.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "peak memory is read from /proc")]
fn phases_take_what_is_predicted() {
    let bench = Bench::new("");
    let run = |arguments: &[&str]| {
        let kind = arguments[0];
        let has = |argument: &str| arguments.contains(&argument);
        let lora = has("--lora");
        let suffix = match (lora, has("recompute=block")) {
            (true, _) => "-lora",
            (_, true) => "-frugal",
            _ => "",
        };
        let out = &format!("{kind}{suffix}");
        let common = ["--out", out, "--threads", "2", "--set", "shard_tokens=256"];
        bench.crisol(&[arguments, &common].concat()).ok();
        let recipe = Recipe::load(&bench.path(&format!("{out}/recipe.toml"))).unwrap();
        // With the adapter, of the phase's own model.
        let model = if lora { &format!("{out}/1-{kind}") } else { "pretrain/1-pretrain" };
        let config = crisol_model::Config::load(&bench.path(model)).unwrap();
        let data = DataSource::open(bench.path(".").to_str().unwrap());
        let predicted = memory::memory(&recipe.phases[0].settings, &recipe.run, &config, &data, 2);
        let report: Value =
            serde_json::from_str(&bench.read(&format!("{out}/report.json"))).unwrap();
        check(out, predicted, &report["peak_memory_bytes"]);
    };
    let mut pretrain = vec!["pretrain", "--data", "pretrain.jsonl", "--set", "batch_tokens=512"];
    for setting in [
        "model.hidden_size=192",
        "model.layers=4",
        "model.heads=4",
        "model.kv_heads=2",
        "model.intermediate_size=512",
        "model.context=64",
        "model.vocab_size=300",
    ] {
        pretrain.extend(["--set", setting]);
    }
    run(&pretrain);
    run(&["sft", "pretrain/1-pretrain", "--data", "sft.jsonl", "--set", "batch_tokens=256"]);
    let chat = "sft/1-sft";
    let again = ["sft", chat, "--data", "sft.jsonl", "--set", "batch_tokens=256"];
    run(&[&again[..], &["--lora"]].concat());
    let frugal = ["--set", "recompute=block", "--set", "optimizer.moments=bf16"];
    run(&[&again[..], &frugal].concat());
    let small =
        ["--set", "rollout.prompts=8", "--set", "rollout.max_new_tokens=12", "--set", "steps=2"];
    let reason = ["reason", chat, "--cold-start", "cold.jsonl", "--data", "problems.jsonl"];
    run(&[&reason[..], &small, &["--set", "skip_zero_spread=false"]].concat());
    // Answers that are all wrong: nothing is trained.
    bench.write(
        "impossible.jsonl",
        &"{\"prompt\": \"Say coins\", \"answer\": \"-77\"}\n".repeat(35),
    );
    let out = [
        "--out",
        "unpaid",
        "--threads",
        "2",
        "--set",
        "shard_tokens=256",
        "--set",
        "format_reward=0",
    ];
    bench
        .crisol(&[&["reason", chat, "--data", "impossible.jsonl"][..], &small, &out].concat())
        .ok();
    let recipe = Recipe::load(&bench.path("unpaid/recipe.toml")).unwrap();
    let config = crisol_model::Config::load(&bench.path("pretrain/1-pretrain")).unwrap();
    let data = DataSource::open(bench.path(".").to_str().unwrap());
    let settings = &recipe.phases[0].settings;
    let predicted =
        memory::memory_before_updates(settings, &recipe.run, &config, &data, 2).unwrap();
    let report: Value = serde_json::from_str(&bench.read("unpaid/report.json")).unwrap();
    check("reason without updates", predicted, &report["peak_memory_bytes"]);
    run(&["reward", chat, "--data", "votes.jsonl", "--heldout", "votes.jsonl"]);
    let ppo = ["ppo", chat, "--reward-model", "reward/1-reward", "--data", "prompts.jsonl"];
    run(&[&ppo[..], &small].concat());
    run(&["dpo", chat, "--data", "votes.jsonl"]);
}
