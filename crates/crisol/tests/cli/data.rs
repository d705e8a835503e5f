//! `crisol data` and `crisol completions`.

use crate::fixture::{Bench, checkpoint};

#[test]
fn inspect_shows_what_is_trained() {
    let bench = Bench::new("");
    let model = checkpoint("1-pretrain");
    bench.write(
        "turns.jsonl",
        r#"{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "1."}, {"role": "user", "content": "Two?"}, {"role": "assistant", "content": "2."}]}"#
            .replace('\n', " ")
            .as_str(),
    );
    let text = bench.crisol(&["data", "inspect", "turns.jsonl", "--model", &model]).ok();
    let expected = "<|system|>Be kind.<|end|><|user|>One?<|end|><|assistant|>⟦1.<|end|>⟧\
                    <|user|>Two?<|end|><|assistant|>⟦2.<|end|>⟧";
    assert!(text.contains(expected), "{text}");
    let coloured = bench
        .command(&["data", "inspect", "turns.jsonl"])
        .env("CLICOLOR_FORCE", "1")
        .output()
        .unwrap();
    let coloured = String::from_utf8(coloured.stdout).unwrap();
    assert!(coloured.contains("<|assistant|>\x1b[32m1.<|end|>\x1b[39m<|user|>"), "{coloured:?}");

    let json =
        bench.crisol(&["data", "inspect", "turns.jsonl", "--model", &model, "--json"]).json();
    let sequence = &json["records"][0]["sequences"][0];
    let spans = sequence["spans"].as_array().unwrap();
    let trained: Vec<&str> = spans
        .iter()
        .filter(|s| s["trained"] == true)
        .map(|s| s["text"].as_str().unwrap())
        .collect();
    assert_eq!(trained, ["1.<|end|>", "2.<|end|>"]);
    let sum = |only_trained: bool| -> u64 {
        spans
            .iter()
            .filter(|s| !only_trained || s["trained"] == true)
            .map(|s| s["tokens"].as_u64().unwrap())
            .sum()
    };
    assert_eq!(
        (sequence["tokens"].as_u64(), sequence["trained"].as_u64()),
        (Some(sum(false)), Some(sum(true)))
    );
    assert_eq!(json["totals"]["records"], 1);
    assert_eq!(json["context"], 64);
}

#[test]
fn inspect_reports_every_problem_and_fails_on_errors() {
    let bench = Bench::new("");
    let good = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    let silent = r#"{"messages": [{"role": "user", "content": "a"}]}"#;
    bench.write("bad.jsonl", &format!("{good}\n{good}\n{{oops\n{silent}\n"));
    let finished = bench.crisol(&["data", "inspect", "bad.jsonl"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    for part in ["bad.jsonl:3", "bad.jsonl:4", "same as bad.jsonl:1"] {
        assert!(finished.stdout.contains(part), "{part}: {}", finished.stdout);
    }
    let finished = bench.crisol(&["data", "inspect", "bad.jsonl", "--json", "--limit", "1"]);
    assert_eq!(finished.code, Some(1));
    let json: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(json["records"].as_array().unwrap().len(), 1);
    let errors: Vec<bool> = json["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["error"].as_bool().unwrap())
        .collect();
    assert_eq!(errors, [false, true, true]);
    // Warnings alone are no failure.
    bench.write("twice.jsonl", &format!("{good}\n{good}\n"));
    assert!(bench.crisol(&["data", "inspect", "twice.jsonl"]).ok().contains("duplicate"));
    // What does not fit is cut; where the prompt alone does not, it is an error.
    let long = |prompt: &str, answer: &str| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "{prompt}"}}, {{"role": "assistant", "content": "{answer}"}}]}}"#
        )
    };
    bench.write("cut.jsonl", &long("a", &"b c ".repeat(50)));
    bench.crisol(&["data", "inspect", "cut.jsonl", "--context", "20"]).ok();
    bench.write("full.jsonl", &long(&"b c ".repeat(50), "a"));
    assert_eq!(bench.crisol(&["data", "inspect", "full.jsonl", "--context", "20"]).code, Some(1));
}

#[test]
fn export_writes_files_that_a_recipe_trains_on_and_overwrites_nothing() {
    let bench = Bench::new("");
    let listed = bench.crisol(&["data", "export", "world"]).ok();
    for file in ["pretrain.train.jsonl", "sft.train.jsonl", "preferences.test.jsonl"] {
        assert!(
            listed.contains(file) && bench.read(&format!("world/{file}")).starts_with('{'),
            "{listed}"
        );
    }
    let recipe = bench.read("world/recipe.toml");
    assert!(recipe.contains("data = \".\"") && recipe.contains("kind = \"ppo\""));
    // Again into the same folder: nothing to do. Over another file: refused before anything is
    // touched.
    bench.crisol(&["data", "export", "world"]).ok();
    bench.write("world/preferences.test.jsonl", "mine");
    std::fs::remove_file(bench.path("world/sft.train.jsonl")).unwrap();
    let error = bench.crisol(&["data", "export", "world"]).failed(1);
    assert!(error.contains("preferences.test.jsonl"), "{error}");
    assert_eq!(bench.read("world/preferences.test.jsonl"), "mine");
    assert!(!bench.path("world/sft.train.jsonl").exists());
}

#[test]
fn completions_know_the_commands() {
    let bench = Bench::new("");
    for shell in ["bash", "zsh", "fish"] {
        let script = bench.crisol(&["completions", shell]).ok();
        assert!(script.contains("pretrain") && script.contains("max-new-tokens"), "{shell}");
    }
    bench.crisol(&["completions", "tcsh"]).failed(2);
}
