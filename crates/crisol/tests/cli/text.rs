//! From a file's text to ids, as commands do it and as phases tell it.

use serde_json::{Value, json};

use crate::fixture::{Bench, checkpoint, copy_model};

fn lines(records: &[Value]) -> String {
    records.iter().map(|record| record.to_string() + "\n").collect()
}

fn notes(bench: &Bench, run: &str) -> Vec<String> {
    let report: Value = serde_json::from_str(&bench.read(&format!("{run}/report.json"))).unwrap();
    let notes = report["phases"][0]["notes"].as_array().unwrap().iter();
    notes.map(|note| note.as_str().unwrap().to_owned()).collect()
}

/// What is cut or dropped, and prompts that a chat model gets as raw text, are counted at the start
/// of a phase.
#[test]
fn a_phase_says_what_became_of_its_records() {
    let bench = Bench::new("");
    let base = checkpoint("2-sft");
    let long = "The sky is blue. ".repeat(40);
    let chat = |asked: &str, said: &str| json!({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]});
    bench.write(
        "mixed.jsonl",
        &lines(&[
            chat("Say pears", "pears"),
            chat("Say pears", &long),
            chat(&long, "pears"),
            json!({"prompt": "The sky", "completion": " is blue."}),
        ]),
    );
    bench
        .crisol(&["sft", &base, "--data", "mixed.jsonl", "--out", "tuned", "--set", "epochs=1"])
        .ok();
    let said = notes(&bench, "tuned").join("\n");
    for part in [
        "Of 4 records: 1 longer than the context of 64 tokens",
        "Of 4 records: 1 dropped, too long",
        "Of 4 records: 1 have a string as prompt",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Pairs that differ only behind the cut teach nothing.
    let pair = |end: &str| {
        json!({"prompt": [{"role": "user", "content": "Say"}],
            "chosen": format!("{long}{end}"), "rejected": format!("{long}{end}!")})
    };
    bench.write("equal.jsonl", &lines(&[pair("a"), pair("b")]));
    for phase in ["dpo", "reward"] {
        let error =
            bench.crisol(&[phase, &base, "--data", "equal.jsonl", "--out", phase]).failed(1);
        assert!(
            error.contains("equal.jsonl:1") && error.contains("none is left to train on"),
            "{error}"
        );
    }
}

#[test]
fn variables_of_the_template_are_set_by_name() {
    let bench = Bench::new("");
    let model = checkpoint("2-sft");
    let error = bench
        .crisol(&["generate", &model, "--chat", "Hi", "--template-arg", "enable_thinking=false"])
        .failed(2);
    assert!(error.contains("no such variable"), "{error}");
    let error =
        bench.crisol(&["generate", &model, "--chat", "Hi", "--template-arg", "thinking"]).failed(2);
    assert!(error.contains("NAME=VALUE"), "{error}");
    // The data set's template with a variable of its own.
    let folder = bench.path("model");
    std::fs::create_dir(&folder).unwrap();
    for file in std::fs::read_dir(&model).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
    }
    let template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}\
        {% if add_generation_prompt %}<|assistant|>{% if think is false %}<think></think>{% endif %}{% endif %}";
    std::fs::write(folder.join("chat_template.jinja"), template).unwrap();
    let ids = |more: &[&str]| {
        let arguments =
            [&["generate", "model", "--chat", "Hi", "--max-new-tokens", "1", "--json"], more]
                .concat();
        let output: Value = serde_json::from_str(&bench.crisol(&arguments).ok()).unwrap();
        output["prompt_ids"].as_array().unwrap().len()
    };
    assert_eq!(ids(&["--template-arg", "think=false"]), ids(&[]) + 2);
    assert_eq!(ids(&["--template-arg", "think=true"]), ids(&[]));
}

/// A base without a chat template gets one by a file, in every command and in recipes, and what is
/// trained has it.
#[test]
fn a_chat_template_is_given_by_a_file() {
    let bench = Bench::new("");
    copy_model("2-sft", &bench.path("own"));
    // The model's template, in both forms, and its model without one, as a GGUF file.
    std::fs::rename(bench.path("own/tokenizer_config.json"), bench.path("own.json")).unwrap();
    let mut config: Value = serde_json::from_str(&bench.read("own.json")).unwrap();
    let template = config.as_object_mut().unwrap().shift_remove("chat_template").unwrap();
    bench.write("own.jinja", template.as_str().unwrap());
    bench.write("own/tokenizer_config.json", &config.to_string());
    bench.crisol(&["export", "own", "--to", "gguf", "--out", "base.gguf"]).ok();

    let asked = |model: &str, more: &[&str]| {
        let chat = ["generate", model, "--chat", "Say pears", "--max-new-tokens", "4", "--json"];
        bench.crisol(&[&chat[..], more].concat()).json()
    };
    let chat = ["generate", "base.gguf", "--chat", "Say pears"];
    let error = bench.crisol(&chat).failed(1);
    assert!(error.contains("--chat-template FILE"), "{error}");
    let own = asked(&checkpoint("2-sft"), &[]);
    for file in ["own.jinja", "own.json"] {
        assert_eq!(asked("base.gguf", &["--chat-template", file]), own, "{file}");
    }
    let inspected = |model: &str, more: &[&str]| {
        let inspect = ["data", "inspect", "sft.jsonl", "--json", "--model", model];
        bench.crisol(&[&inspect[..], more].concat()).json()["records"].take()
    };
    assert_eq!(
        inspected("base.gguf", &["--chat-template", "own.jinja"]),
        inspected(&checkpoint("2-sft"), &[])
    );

    // Trained with it as with the model's own, by a command and by a recipe.
    let trained = |out: &str, model: &str, more: &[&str]| {
        let sft = ["sft", model, "--data", "sft.jsonl", "--out", out];
        bench.crisol(&[&sft[..], more].concat()).ok();
        std::fs::read(bench.path(out).join("1-sft/model.safetensors")).unwrap()
    };
    let expected = trained("folder", &checkpoint("2-sft"), &[]);
    assert!(trained("gguf", "base.gguf", &["--chat-template", "own.jinja"]) == expected);
    std::fs::create_dir(bench.path("recipes")).unwrap();
    bench.write(
        "recipes/mine.toml",
        &bench.read("gguf/recipe.toml").replace(bench.path("").to_str().unwrap(), "../"),
    );
    bench.crisol(&["run", "recipes/mine.toml", "--out", "again"]).ok();
    assert!(std::fs::read(bench.path("again/1-sft/model.safetensors")).unwrap() == expected);
    assert_eq!(asked("gguf/1-sft", &[]), asked("folder/1-sft", &[]));

    // It is an input of the run.
    bench.write("own.jinja", "other");
    let error = bench.crisol(&["run", "--resume", "--out", "gguf"]).failed(1);
    assert!(error.contains("own.jinja (chat template) is not what it was"), "{error}");

    // A new model has its own.
    let new = ["pretrain", "--data", "pretrain.jsonl", "--chat-template", "own.jinja"];
    let error = bench.crisol(&[&new[..], &["--out", "new"]].concat()).failed(2);
    assert!(error.contains("set `base`, or leave it out"), "{error}");

    bench.write("none.json", "{}");
    bench.write("named.json", r#"{"chat_template": [{"name": "rag", "template": "a"}]}"#);
    for (file, cause) in [
        ("none.json", "no `chat_template` in it"),
        ("named.json", "rag"),
        ("missing.jinja", "missing.jinja"),
        ("base.gguf", "not text"),
    ] {
        let given = ["--chat-template", file];
        let error = bench.crisol(&[&chat[..], &given].concat()).failed(1);
        assert!(error.contains(cause), "{file}: {error}");
        let sft = ["sft", "base.gguf", "--data", "sft.jsonl", "--out", "refused"];
        let error = bench.crisol(&[&sft[..], &given].concat()).failed(1);
        assert!(error.contains(cause), "{file}: {error}");
    }
}

/// Kind: what a phase did to held-out data cannot be told without how it was before.
#[test]
fn held_out_data_is_measured_before_and_after() {
    let bench = Bench::new("");
    let start = checkpoint("1-pretrain");
    for (phase, data, measure) in [
        ("sft", "sft.jsonl", "validation_loss"),
        ("pretrain", "pretrain.jsonl", "validation_loss"),
        ("reward", "votes.jsonl", "reward_accuracy"),
        ("dpo", "votes.jsonl", "preference_accuracy"),
        ("reason", "problems.jsonl", "heldout_accuracy"),
        ("ppo", "prompts.jsonl", "heldout_reward"),
    ] {
        let judge = checkpoint("4-reward");
        let short =
            ["--set", "steps=2", "--set", "rollout.prompts=4", "--set", "rollout.max_new_tokens=6"];
        let settings = match phase {
            "reason" => [&short[..], &["--set", "rollout.group_size=2"]].concat(),
            "ppo" => [&short[..], &["--reward-model", &judge]].concat(),
            _ => vec!["--set", "epochs=1"],
        };
        let train = [phase, &start, "--data", data, "--heldout", data, "--out", phase];
        let shown = bench.crisol(&[&train[..], &settings].concat()).ok();
        assert!(shown.contains(&format!("What {phase} changed")), "{phase}: {shown}");
        let all = bench.crisol(&["report", phase, "--full"]).ok();
        assert!(all.contains("Held-out data, before and after"), "{phase}: {all}");
        let report: Value =
            serde_json::from_str(&bench.read(&format!("{phase}/report.json"))).unwrap();
        let of = |when: &str| report["phases"][0][when][measure].as_f64();
        let (before, after) = (of("before").expect(phase), of("metrics").expect(phase));
        if measure == "validation_loss" {
            assert!(after < before, "{phase}: {before} {after}");
        } else if phase != "ppo" {
            assert!((0.0..=1.0).contains(&before) && (0.0..=1.0).contains(&after), "{phase}");
        }
        assert!(
            bench.read(&format!("{phase}/report.html")).contains("Held-out data, before and after")
        );
        // And the prompts of it are answered by the model before the phase and after it.
        let prompts = report["prompts"].as_array().unwrap();
        assert_eq!(prompts.is_empty(), phase == "reward");
        for prompt in prompts.iter().take(1) {
            let answer = |model: &str| {
                let text = prompt["prompt"].as_str().unwrap();
                let asked: &[&str] = if phase == "pretrain" {
                    &["generate", model, "--prompt", text, "--max-new-tokens", "64"]
                } else {
                    &["generate", model, "--chat", text, "--max-new-tokens", "96"]
                };
                let said: Value =
                    bench.crisol(&[asked, &["--json", "--temperature", "0"]].concat()).json();
                said["text"].clone()
            };
            assert_eq!(prompt["before"], answer(&start), "{phase}");
            let folder = report["phases"][0]["checkpoint"].as_str().unwrap();
            assert_eq!(prompt["outputs"][phase], answer(&format!("{phase}/{folder}")), "{phase}");
            assert!(shown.contains("A held-out prompt") && shown.contains("before  "), "{shown}");
        }
        let none = report["phases"][0]["notes"].as_array().unwrap();
        assert!(!none.iter().any(|note| note.as_str().unwrap().contains("No held-out data")));
    }
}

/// Kind: a phase that measures nothing, and does not say so.
#[test]
fn a_phase_without_held_out_data_says_how_to_give_some() {
    let bench = Bench::new("");
    let start = checkpoint("1-pretrain");
    bench
        .crisol(&["sft", &start, "--data", "sft.jsonl", "--out", "blind", "--set", "epochs=1"])
        .ok();
    let notes = notes(&bench, "blind");
    assert_eq!(notes.iter().filter(|note| note.contains("--heldout FILE")).count(), 1, "{notes:?}");
}

/// Kind: harm that nobody is told of.
#[test]
fn a_held_out_loss_that_rises_is_said_with_what_to_change() {
    let bench = Bench::new("");
    let harmful = ["--set", "optimizer.lr=0.5", "--set", "batch_tokens=256", "--set", "epochs=3"];
    let start = checkpoint("2-sft");
    let train =
        ["sft", &start, "--data", "refusals.jsonl", "--heldout", "sft.jsonl", "--out", "worse"];
    bench.crisol(&[&train[..], &harmful].concat()).ok();
    let notes = notes(&bench, "worse");
    assert!(
        notes.iter().any(|n| n.contains("held-out data rose") && n.contains("optimizer.lr")),
        "{notes:?}"
    );
}

/// Kind: tokens that were added to a published tokenizer, but not to the model. The model is as
/// good as before; a text with such a token has no meaning for it, in any command.
#[test]
fn a_token_without_a_row_in_the_model_is_refused_where_it_is_used() {
    let bench = Bench::new("");
    copy_model("2-sft", &bench.path("padded"));
    let file = bench.path("padded/tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let config: Value = serde_json::from_str(&bench.read("padded/config.json")).unwrap();
    let rows = &config["vocab_size"];
    let pad = json!({ "id": rows, "content": "<pad>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true });
    tokenizer["added_tokens"].as_array_mut().unwrap().push(pad);
    std::fs::write(file, tokenizer.to_string()).unwrap();

    let said = |model: &str| {
        bench.crisol(&["generate", model, "--chat", "What is 1 + 2?", "--json"]).json()["text"]
            .clone()
    };
    assert_eq!(said("padded"), said(&checkpoint("2-sft")));
    bench.crisol(&["export", "padded", "--to", "gguf", "--out", "padded.gguf"]).ok();
    assert_eq!(said("padded.gguf"), said("padded"));
    bench.write("raw.jsonl", &lines(&[json!({ "text": "One <pad> two" })]));
    bench.write("chat.jsonl", &lines(&[json!({ "prompt": "<pad>", "completion": "two" })]));
    bench.write(
        "votes.jsonl",
        &lines(&[json!({ "prompt": "One", "chosen": "<pad>", "rejected": "two" })]),
    );
    for command in [
        &["generate", "padded", "--prompt", "One <pad>"][..],
        &["score", "padded", "--text", "One <pad>"],
        &["pretrain", "padded", "--data", "raw.jsonl", "--out", "out"],
        &["sft", "padded", "--data", "chat.jsonl", "--out", "out"],
        &["dpo", "padded", "--data", "votes.jsonl", "--out", "out"],
    ] {
        let error = bench.crisol(command).failed(1);
        assert!(error.contains(&format!("<pad> (id {rows})")), "{command:?}: {error}");
    }
}
