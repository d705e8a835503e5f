//! `crisol notebook`.

use std::path::Path;

use serde_json::Value;

use crate::fixture::{Bench, checkpoint, finished_run, read, roomy};

/// A copy of a checkpoint's folder under another name, without some of its files.
fn copy(from: &Path, to: &Path, without: &[&str]) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !without.contains(&name) {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

#[test]
fn the_demonstrations_are_replayed_and_compared() {
    let bench = roomy();
    let base = bench.path("hub/OLMo-2-0425-1B");
    copy(&bench.path("run/1-pretrain"), &base, &["tokenizer_config.json"]);
    let chat = bench.path("run/2-sft");
    let arguments = |json: &'static [&'static str]| {
        let (base, chat) = (base.to_str().unwrap().to_owned(), chat.to_str().unwrap().to_owned());
        let all =
            ["notebook", "--base", &base, "--chat", &chat, "--aligned", &chat, "--out", "out"];
        bench.crisol(&[&all[..], json].concat())
    };
    let json = arguments(&["--json"]).json();
    assert_eq!(serde_json::from_str::<Value>(&bench.read("out/report.json")).unwrap(), json);
    let roles = |key: &str| -> Vec<String> {
        json[key]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["role"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(roles("models"), ["base", "chat", "aligned"]);
    assert_eq!(roles("demonstrations"), ["base", "base", "base", "chat", "aligned"]);
    assert_eq!(
        (&json["models"][0]["chat_template"], &json["models"][1]["chat_template"]),
        (&false.into(), &true.into())
    );

    // Each answer is the one that `generate` gives.
    let demonstrations = json["demonstrations"].as_array().unwrap();
    for (demonstration, how) in [(&demonstrations[0], "--prompt"), (&demonstrations[3], "--chat")] {
        let model = if how == "--chat" { chat.to_str() } else { base.to_str() };
        let prompt = demonstration["prompt"].as_str().unwrap();
        let alone = bench
            .crisol(&["generate", model.unwrap(), how, prompt, "--max-new-tokens", "100", "--json"])
            .json();
        assert_eq!(demonstration["answer"], alone["text"]);
        assert_eq!(demonstration["tokens"], alone["ids"].as_array().unwrap().len());
    }
    // The notebook's remark is on its own model; of this one's answer is said what was found.
    assert!(demonstrations[0]["refused"].is_null(), "nothing was to be refused");
    assert_eq!(demonstrations[3]["refused"], false);
    let given = demonstrations[3]["given"].as_str().unwrap();
    assert!(
        given.starts_with("<|user|>For security") && given.ends_with("site.<|end|><|assistant|>"),
        "{given}"
    );

    // Only the model with the notebook's name is compared with what the notebook has.
    let stored = &demonstrations[0]["notebook"];
    assert!(
        stored["answer"]
            .as_str()
            .unwrap()
            .starts_with("- What is the capital of the United States?")
    );
    let (answer, stored_answer) =
        (demonstrations[0]["answer"].as_str().unwrap(), stored["answer"].as_str().unwrap());
    let same = answer.chars().zip(stored_answer.chars()).take_while(|(a, b)| a == b).count();
    assert_eq!(stored["differs_at"], same);
    assert!(demonstrations[3]["notebook"].is_null());

    // Texts as text and as message, requests as message; a model without template gets a text once.
    let prompts = json["prompts"].as_array().unwrap();
    let forms: Vec<&str> = prompts.iter().map(|prompt| prompt["form"].as_str().unwrap()).collect();
    assert_eq!(forms, ["text", "chat", "text", "chat", "text", "chat", "chat", "chat"]);
    let answered =
        |i: usize| prompts[i]["outputs"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(answered(0), ["aligned", "base", "chat"]);
    assert_eq!(answered(1), ["aligned", "chat"]);
    assert_eq!(answered(6), ["aligned", "base", "chat"]);
    assert_eq!(prompts[0]["outputs"]["base"], demonstrations[0]["answer"]);
    assert_eq!(prompts[6]["outputs"]["chat"], demonstrations[3]["answer"]);

    let page = bench.read("out/report.html");
    for part in [
        "CC BY 4.0",
        "differs from the notebook",
        "float32 on the CPU",
        "This answer is no refusal.",
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<script"));
    let text = arguments(&[]).ok();
    assert!(
        text.contains("== After pre-training")
            && text.contains("-- The notebook says of TinyLlama/TinyLlama-1.1B-Chat-v1.0: ")
            && text.contains("(Here: no refusal.)")
            && text.contains("differs from the notebook's stored answer"),
        "{text}"
    );
    assert!(text.contains("out/report.html"), "{text}");
}

#[test]
fn a_run_has_the_three_models() {
    let bench = Bench::new("");
    let run = finished_run().to_str().unwrap().to_owned();
    let json = bench.crisol(&["notebook", "--run", &run, "--out", "out", "--json"]).json();
    let names: Vec<&str> = (0..3).map(|i| json["models"][i]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["1-pretrain", "2-sft", "5-ppo"].map(|folder| format!("{run}/{folder}")));
    // These models' context of 64 tokens does not hold most of the prompts, which is said.
    let problem = json["demonstrations"][1]["problem"].as_str().unwrap();
    assert!(problem.contains("of the 64 of the model's context"), "{problem}");
    assert!(read(&bench.path("out/report.html")).contains("no answer"));

    let empty = bench.crisol(&["notebook", "--run", "."]).failed(1);
    assert!(empty.contains("no finished phase pretrain"), "{empty}");
    bench.crisol(&["notebook", "--run", &run, "--base", "x"]).failed(2);
}

#[test]
fn models_that_are_not_there_are_named() {
    let bench = Bench::new("");
    let error = bench.crisol(&["notebook", "--offline"]).failed(1);
    assert!(error.contains("allenai/OLMo-2-0425-1B") && error.contains("offline"), "{error}");
    // Before anything is computed, also where only the last is missing.
    let there = checkpoint("2-sft");
    let arguments = ["notebook", "--base", &there, "--chat", &there, "--out", "out", "--offline"];
    let error = bench.crisol(&arguments).failed(1);
    assert!(error.contains("allenai/OLMo-2-0425-1B-DPO"), "{error}");
    assert!(!bench.path("out").exists());
}
