//! What is said about input that cannot be used. Nothing panics, and nothing that was there is
//! lost.

use crate::fixture::{Bench, checkpoint, copy_model, finished_run, short_recipe, weights};

#[test]
fn data_that_cannot_be_trained_on() {
    let bench = Bench::new("");
    let base = checkpoint("1-pretrain");
    let good = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    let silent = r#"{"messages": [{"role": "user", "content": "a"}]}"#;
    let long = format!(
        r#"{{"messages": [{{"role": "user", "content": "{}"}}, {{"role": "assistant", "content": "b"}}]}}"#,
        "a b c ".repeat(40)
    );
    let cases: [(&str, String, &[&str]); 8] = [
        ("empty", String::new(), &["empty.jsonl: no records"]),
        ("blank", "\n \n".into(), &["blank.jsonl: no records"]),
        ("malformed", format!("{good}\n{{\"messages\": [\n"), &["malformed.jsonl:2", "not JSON"]),
        ("latin", format!("{good}\n\n[1]\n"), &["latin.jsonl:3", "not an object"]),
        ("silent", format!("{good}\n{silent}\n"), &["silent.jsonl:2", "no token is trained"]),
        ("keys", format!("{good}\n{{\"question\": \"a\"}}\n"), &["keys.jsonl:2", "`question`"]),
        (
            "kind",
            "{\"prompt\": \"a\", \"answer\": \"b\"}\n".into(),
            &["kind.jsonl:1", "messages or prompt/completion"],
        ),
        ("long", format!("{long}\n"), &["long.jsonl:1", "none is left to train on", "too long"]),
    ];
    for (name, contents, expected) in cases {
        let file = format!("{name}.jsonl");
        bench.write(&file, &contents);
        let error = bench.crisol(&["sft", &base, "--data", &file, "--out", "out"]).failed(1);
        for part in expected {
            assert!(error.contains(part), "{name}: {error}");
        }
    }
    // None of these stands in the way of a next attempt in the same folder.
    bench
        .crisol(&["sft", &base, "--data", "sft.jsonl", "--out", "out", "--set", "epochs=0.1"])
        .ok();
}

#[test]
fn recipes_that_cannot_be_run() {
    let recipe = short_recipe("");
    let cases: [(&str, &str, &[&str]); 9] = [
        ("vocab_size", "vocab_sise", &["tiny.toml, line", "did you mean `vocab_size`?"]),
        ("batch_tokens = 512", "batch_token = 512", &["did you mean `batch_tokens`?"]),
        ("\"pretrain\"", "\"pretrian\"", &["did you mean `pretrain`?"]),
        ("layers = 2", "layers = \"two\"", &["`model.layers`", "integer"]),
        ("hidden_size = 32", "hidden_size = 33", &["model.hidden_size (33)", "multiple"]),
        ("layers = 2", "layers = ", &["not valid TOML"]),
        ("vocab_size = 300", "vocab_size = 100", &["vocabulary of 100"]),
        ("\"sft.jsonl\"\nh", "\"nowhere.jsonl\"\nh", &["nowhere.jsonl"]),
        ("data = \".\"", "data = \".\"\nbase = \"nowhere\"", &["nowhere"]),
    ];
    for (from, to, expected) in cases {
        let wrong = recipe.replace(from, to);
        assert_ne!(wrong, recipe, "{from}");
        let error = Bench::new(&wrong).crisol(&["run", "tiny.toml"]).failed(1);
        for part in expected {
            assert!(error.contains(part), "{from} → {to}: {error}");
        }
    }
    let error = Bench::new("").crisol(&["run", "missing.toml"]).failed(1);
    assert!(error.contains("missing.toml"), "{error}");
}

#[test]
fn command_lines_that_make_no_sense() {
    let bench = Bench::new("");
    let model = checkpoint("1-pretrain");
    let sft = ["sft", &model, "--data", "sft.jsonl", "--out", "out"];
    let cases: [(&[&str], &str); 12] = [
        (&["run", "--threads", "0"], "--threads"),
        (&["run", "--threads", "1000000"], "1 to 1024"),
        (&["run", "--seed", "-1"], "--seed"),
        (&["generate", &model], "--prompt"),
        (&["generate", &model, "--prompt", "a", "--chat", "b"], "cannot be used with"),
        (&["generate", &model, "--ids", "1,x"], "whole numbers separated by commas"),
        (&["generate", &model, "--prompt", "a", "--temperature", "-1"], "positive"),
        (&["generate", &model, "--prompt", "a", "--top-p", "1.5"], "at most 1"),
        (&["score", &model, "--text", ""], "empty"),
        (&["compare", &model, &model, "--prompts", "demos.jsonl"], "twice"),
        (&[&sft[..], &["--set", "lr"]].concat(), "KEY=VALUE"),
        (
            &[&sft[..], &["--set", "optimizer.lrr=1"]].concat(),
            "--set optimizer.lrr=1: there is no setting",
        ),
    ];
    for (arguments, expected) in cases {
        let error = bench.crisol(arguments).failed(2);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    assert!(!bench.path("out").exists() && !bench.path("runs").exists());
}

#[test]
fn folders_that_are_no_checkpoints() {
    let bench = Bench::new("");
    let generate = |folder: &str| bench.crisol(&["generate", folder, "--prompt", "x"]).failed(1);
    assert!(generate("nowhere").contains("no such folder"));
    assert!(generate(".").contains("no config.json"));
    let run = finished_run().to_str().unwrap();
    assert!(generate(run).contains("1-pretrain, 2-sft"), "{}", generate(run));
    assert!(bench.crisol(&["report", "."]).failed(1).contains("no recipe.toml"));

    copy_model("1-pretrain", &bench.path("broken"));
    let weights = bench.path("broken/model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    for length in [0, 5, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&weights, &bytes[..length]).unwrap();
        let error = generate("broken");
        assert!(
            error.contains("model.safetensors") && error.contains("again"),
            "{length}: {error}"
        );
    }
    std::fs::remove_file(&weights).unwrap();
    assert!(generate("broken").contains("no weights"), "{}", generate("broken"));
    std::fs::write(&weights, &bytes).unwrap();
    bench.write("broken/tokenizer.json", "{}");
    assert!(generate("broken").contains("tokenizer.json"));
    bench.write("broken/config.json", "{\"architectures\": [\"GPT2LMHeadModel\"]}");
    assert!(generate("broken").contains("config.json"));
}

#[test]
fn a_template_that_never_ends_a_turn() {
    let bench = Bench::new("");
    copy_model("1-pretrain", &bench.path("base"));
    let config = bench.read("base/tokenizer_config.json");
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["chat_template"] =
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}".into();
    bench.write("base/tokenizer_config.json", &config.to_string());
    let error = bench.crisol(&["sft", "base", "--data", "sft.jsonl", "--out", "out"]).failed(1);
    assert!(error.contains("end-of-turn") && error.contains("sft.jsonl:1"), "{error}");
}

/// Diverging stops the run with a diagnosis, keeps what was good, and the run goes on with a better
/// setting.
#[test]
fn a_diverging_phase_keeps_the_phases_before_it() {
    // Each step makes the weights 99 times as large.
    let wild = "epochs = 6\noptimizer.lr = 10\noptimizer.weight_decay = 10\noptimizer.warmup = 0\n";
    let recipe = short_recipe("") + wild;
    let bench = Bench::new(&recipe);
    let error = bench.crisol(&["run", "tiny.toml", "--out", "run"]).failed(1);
    assert!(error.contains("diverged at step") && error.contains("optimizer.lr"), "{error}");
    assert!(error.contains("Change run/recipe.toml"), "{error}");
    assert!(weights(&bench.path("run"))["1-pretrain"] == weights(finished_run())["1-pretrain"]);
    assert!(!bench.path("run/2-sft").exists());
    bench.crisol(&["generate", "run/1-pretrain", "--prompt", "The"]).ok();

    let written = bench.read("run/recipe.toml");
    let tamed = written.replace("lr = 10.0", "lr = 0.001");
    assert_ne!(tamed, written);
    bench.write("run/recipe.toml", &tamed);
    bench.crisol(&["run", "--resume", "--out", "run"]).ok();
    assert!(bench.path("run/2-sft/model.safetensors").exists());
}
