//! One error of each kind as a file that is read as text: `tests/snapshots/errors/`.
//! `INSTA_UPDATE=always cargo test --test cli errors` writes them again.

use std::path::Path;

use crisol_phases::Owner;

use crate::fixture::{Bench, checkpoint, copy_model, finished_run, short_recipe};

/// Runs a command that fails, and compares what it says. Paths of this test are replaced.
#[track_caller]
fn snapshot(name: &str, bench: &Bench, arguments: &[&str], code: i32) {
    let said = bench.crisol(arguments).failed(code);
    let folder = |path: &Path| path.to_str().expect("the path is UTF-8").to_owned();
    let said = said
        .replace(&folder(finished_run()), "RUN")
        .replace(&folder(&bench.path("").canonicalize().expect("the folder is there")), "HERE")
        .replace(folder(&bench.path("")).trim_end_matches('/'), "HERE");
    // Who holds a lock: process, machine, time.
    let said = match (said.split_once("(process "), said.split_once(" UTC)")) {
        (Some((before, _)), Some((_, after))) => format!("{before}(HOLDER){after}"),
        _ => said,
    };
    insta::with_settings!({
        snapshot_path => "../snapshots/errors",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!(name, said);
    });
}

/// A file of a copied model with other contents.
fn spoilt(bench: &Bench, model: &str, file: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    copy_model("2-sft", &bench.path(model));
    let path = bench.path(model).join(file);
    let bytes = std::fs::read(&path).expect("the file was copied");
    std::fs::write(&path, change(bytes)).expect("the test's folder is writable");
}

fn replaced(from: &'static str, to: &'static str) -> impl Fn(Vec<u8>) -> Vec<u8> {
    move |bytes| {
        let text = String::from_utf8(bytes).expect("the file is text");
        assert!(text.contains(from), "no {from} in {text}");
        text.replace(from, to).into_bytes()
    }
}

#[test]
fn of_the_command_line() {
    let bench = Bench::new("");
    let model = checkpoint("2-sft");
    snapshot("unknown-option", &bench, &["run", "--sede", "3"], 2);
    snapshot("unknown-command", &bench, &["chatt"], 2);
    snapshot("unknown-phase", &bench, &["trian"], 2);
    snapshot("option-out-of-range", &bench, &["run", "--threads", "0"], 2);
    snapshot(
        "setting-out-of-range",
        &bench,
        &["dpo", &model, "--data", "votes.jsonl", "--out", "out", "--set", "beta=-1"],
        2,
    );
    snapshot(
        "setting-unknown",
        &bench,
        &["dpo", &model, "--data", "votes.jsonl", "--out", "out", "--set", "betta=1"],
        2,
    );
    snapshot("missing-tokens", &bench, &["cost", "olmo-2-1b", "--phase", "sft"], 2);
    snapshot("unknown-gpu", &bench, &["cost", "--budget", "1e20", "--gpu", "h1000"], 2);
}

#[test]
fn of_files() {
    let bench = Bench::new("");
    let model = checkpoint("2-sft");
    let sft = |data: &'static str| {
        ["sft", &model, "--data", data, "--out", "out"].map(str::to_owned).to_vec()
    };
    let snapshot_of = |name: &str, data: &'static str| {
        let arguments = sft(data);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        snapshot(name, &bench, &arguments, 1);
    };
    snapshot_of("data-missing", "nowhere.jsonl");
    bench.write("empty.jsonl", "");
    snapshot_of("data-empty", "empty.jsonl");
    bench.write("broken.jsonl", "{\"messages\": [\n");
    snapshot_of("record-not-json", "broken.jsonl");
    bench.write("keys.jsonl", "{\"question\": \"a\"}\n");
    snapshot_of("record-unknown-shape", "keys.jsonl");
    let reward = ["reward", &model, "--data", "sft.jsonl", "--out", "out"];
    snapshot("record-wrong-shape", &bench, &reward, 1);
    bench.write("silent.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n");
    snapshot_of("record-trains-nothing", "silent.jsonl");
    bench.write("tools.json", "{}");
    let tools = ["generate", &model, "--chat", "a", "--tools", "tools.json"];
    snapshot("tools-not-a-list", &bench, &tools, 1);
}

#[test]
fn of_recipes() {
    let recipe = short_recipe("");
    for (name, from, to) in [
        ("recipe-unknown-setting", "batch_tokens = 512", "batch_token = 512"),
        ("recipe-unknown-kind", "\"pretrain\"", "\"pretrian\""),
        ("recipe-wrong-type", "layers = 2", "layers = \"two\""),
        ("recipe-out-of-range", "layers = 2", "layers = 0"),
        ("recipe-not-toml", "layers = 2", "layers = "),
    ] {
        let wrong = recipe.replace(from, to);
        assert_ne!(wrong, recipe, "{from}");
        snapshot(name, &Bench::new(&wrong), &["run", "tiny.toml"], 1);
    }
    snapshot("recipe-missing", &Bench::new(""), &["run", "missing.toml"], 1);
}

#[test]
fn of_models() {
    let bench = Bench::new("");
    snapshot("model-missing", &bench, &["info", "nowhere"], 1);
    let run = finished_run().to_str().expect("the path is UTF-8");
    snapshot("model-is-a-run", &bench, &["info", run], 1);
    spoilt(&bench, "foreign", "config.json", replaced("LlamaForCausalLM", "MambaForCausalLM"));
    snapshot("model-unknown-architecture", &bench, &["info", "foreign"], 1);
    spoilt(&bench, "cut", "model.safetensors", |mut bytes| {
        bytes.truncate(bytes.len() - 100);
        bytes
    });
    snapshot("model-cut-off", &bench, &["generate", "cut", "--prompt", "a"], 1);
    spoilt(
        &bench,
        "other",
        "config.json",
        replaced("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"),
    );
    snapshot("model-lacks-a-tensor", &bench, &["generate", "other", "--prompt", "a"], 1);
    let reward = checkpoint("4-reward");
    snapshot("model-is-a-reward-model", &bench, &["generate", &reward, "--prompt", "a"], 1);
    copy_model("2-sft", &bench.path("plain"));
    let config = bench.path("plain/tokenizer_config.json");
    let text = std::fs::read_to_string(&config).expect("it was copied");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    json.as_object_mut().expect("an object").shift_remove("chat_template").expect("a template");
    std::fs::write(&config, json.to_string()).expect("the test's folder is writable");
    let _ = std::fs::remove_file(bench.path("plain/chat_template.jinja"));
    snapshot("model-without-template", &bench, &["chat", "plain"], 1);
    bench.write("broken.gguf", "GGUF");
    snapshot("gguf-cut-off", &bench, &["info", "broken.gguf"], 1);
}

#[test]
fn of_runs() {
    let bench = Bench::new(&short_recipe(""));
    snapshot("run-nothing-to-resume", &bench, &["run", "--resume", "--out", "new"], 1);
    snapshot("report-of-no-run", &bench, &["report", "."], 1);
    snapshot(
        "export-exists",
        &bench,
        &["export", &checkpoint("2-sft"), "--to", "gguf", "--out", "tiny.toml"],
        1,
    );
    let run = finished_run().to_str().expect("the path is UTF-8");
    snapshot("run-exists", &bench, &["run", "tiny.toml", "--out", run], 1);
    std::fs::create_dir(bench.path("mine")).expect("the test's folder is writable");
    bench.write("mine/recipe.toml", "# my own\n");
    snapshot("file-of-the-users", &bench, &["run", "tiny.toml", "--out", "mine"], 1);
    // This process holds the lock.
    std::fs::create_dir(bench.path("held")).expect("the test's folder is writable");
    let owner = Owner::take(&bench.path("held"), "2026-11-03 14:20 UTC").expect("nobody holds it");
    snapshot("run-in-use", &bench, &["run", "tiny.toml", "--out", "held"], 1);
    drop(owner);
}
