//! `crisol eval` beside what other commands say of the same model and data.

use serde_json::{Value, json};

use crate::fixture::{Bench, checkpoint};

/// A measure of an evaluation.
fn measure<'j>(evaluation: &'j Value, shape: &str, id: &str) -> &'j Value {
    let all = evaluation["measures"].as_array().expect("a list");
    let found = all.iter().find(|measured| measured["shape"] == shape && measured["id"] == id);
    found.unwrap_or_else(|| panic!("{shape} {id}: {all:#?}"))
}

/// As `crisol score` finds the tokens, one text at a time.
#[test]
fn the_loss_of_text_is_that_of_its_tokens() {
    let bench = Bench::new("");
    let model = checkpoint("1-pretrain");
    let texts =
        ["Ana has 2 apples. The sky is blue.", "Ben", "The sky is blue. The sky is blue. The sky."];
    let lines: String =
        texts.iter().map(|text| json!({ "text": text }).to_string() + "\n").collect();
    bench.write("three.jsonl", &lines);
    let evaluation = bench.crisol(&["eval", &model, "--data", "three.jsonl", "--json"]).json();
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{model}/config.json")).unwrap())
            .unwrap();
    let (mut nats, mut tokens, mut of_each) = (0.0, 0.0, vec![]);
    for text in texts {
        let ids = bench.crisol(&["score", &model, "--text", text, "--json"]).json()["ids"].clone();
        let mut ids: Vec<String> = ids.as_array().unwrap().iter().map(Value::to_string).collect();
        ids.push(config["eos_token_id"].to_string());
        let scored = bench.crisol(&["score", &model, "--ids", &ids.join(","), "--json"]).json();
        let (own, count) = (-scored["total"].as_f64().unwrap(), (ids.len() - 1) as f64);
        nats += own;
        tokens += count;
        of_each.push((own, count));
    }
    let loss = measure(&evaluation, "text", "validation_loss");
    let value = |measured: &Value| measured["value"].as_f64().unwrap();
    assert!((value(loss) - nats / tokens).abs() < 1e-5, "{loss} {}", nats / tokens);
    assert_eq!((&loss["records"], &loss["of"]), (&json!(3), &json!(tokens as u64)));
    let squares: f64 =
        of_each.iter().map(|(own, count)| (own - nats / tokens * count).powi(2)).sum();
    let error = (squares * 3.0 / 2.0).sqrt() / tokens;
    assert!((loss["standard_error"].as_f64().unwrap() - error).abs() < 1e-5, "{loss} {error}");
    let perplexity = measure(&evaluation, "text", "perplexity");
    assert!((value(perplexity).ln() - value(loss)).abs() < 1e-9);
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    let bits = measure(&evaluation, "text", "bits_per_byte");
    assert!((value(bits) - nats / std::f64::consts::LN_2 / bytes as f64).abs() < 1e-5, "{bits}");
}

/// As phases measure the model that they start from and the one that they make.
/// Also if bf16 trains: what is held out is measured in f32.
#[test]
fn phases_and_evaluation_agree_on_held_out_data() {
    let bench = Bench::new("");
    let start = checkpoint("2-sft");
    for (phase, precision, data, shape, id) in [
        ("sft", "f32", "sft.jsonl", "messages", "validation_loss"),
        ("sft", "bf16", "sft.jsonl", "messages", "validation_loss"),
        ("dpo", "bf16", "votes.jsonl", "prompt/chosen/rejected", "preference_accuracy"),
        ("reward", "bf16", "votes.jsonl", "prompt/chosen/rejected", "reward_accuracy"),
    ] {
        let (out, precision) = (&format!("{phase}-{precision}"), format!("precision={precision}"));
        let train = [phase, &start, "--data", data, "--heldout", data, "--out", out];
        bench.crisol(&[&train[..], &["--set", "epochs=1", "--set", &precision]].concat()).ok();
        let report: Value =
            serde_json::from_str(&bench.read(&format!("{out}/report.json"))).unwrap();
        let of = |model: &str| {
            let evaluation = bench.crisol(&["eval", model, "--data", data, "--json"]).json();
            let measured = measure(&evaluation, shape, id);
            assert!(
                measured["standard_error"].as_f64().is_some_and(|error| error >= 0.0),
                "{measured}"
            );
            measured["value"].as_f64().unwrap()
        };
        let near = |a: f64, b: &Value| (a - b.as_f64().unwrap()).abs() < 1e-5;
        let (before, after) =
            (&report["phases"][0]["before"][id], &report["phases"][0]["metrics"][id]);
        assert!(near(of(&format!("{out}/1-{phase}")), after), "{phase} {after}");
        if phase != "reward" {
            assert!(near(of(&start), before), "{phase} {before}");
        }
    }
}

/// A file of several shapes: each is measured, what cannot be is said, and only where nothing can
/// be it is an error.
#[test]
fn each_shape_is_measured_by_itself() {
    let bench = Bench::new("");
    let model = checkpoint("2-sft");
    let all = ["pretrain.jsonl", "votes.jsonl", "problems.test.jsonl", "prompts.jsonl"];
    let files =
        [&["eval", &model, "--max-new-tokens", "8", "--data"][..], &all, &["--json"]].concat();
    let evaluation = bench.crisol(&files).json();
    measure(&evaluation, "text", "validation_loss");
    measure(&evaluation, "prompt/chosen/rejected", "preference_accuracy");
    let solved = measure(&evaluation, "prompt/answer", "problems_accuracy");
    assert_eq!(solved["records"], 5);
    // As the answers of `generate`: the tiny model says a number.
    let right = (0..5).filter(|&i| {
        let line: Value =
            serde_json::from_str(bench.read("problems.test.jsonl").lines().nth(i).unwrap())
                .unwrap();
        let asked = line["prompt"][0]["content"].as_str().unwrap();
        let said = ["generate", &model, "--chat", asked, "--max-new-tokens", "8", "--json"];
        bench.crisol(&said).json()["text"].as_str().unwrap().trim()
            == line["answer"].as_str().unwrap()
    });
    assert_eq!(solved["value"].as_f64().unwrap(), right.count() as f64 / 5.0);
    let notes = evaluation["notes"].to_string();
    assert!(
        notes.contains("Nothing is measured of 8 records that hold prompt (the first: "),
        "{notes}"
    );
    let shown = bench.crisol(&["eval", &model, "--data", "sft.jsonl", "--limit", "3"]).ok();
    assert!(shown.contains("held-out loss") && shown.contains("perplexity"), "{shown}");

    let error = bench.crisol(&["eval", &model, "--data", "prompts.jsonl"]).failed(1);
    assert!(
        error.contains("prompts.jsonl:1: it holds prompt, of which nothing is measured"),
        "{error}"
    );
    let error = bench.crisol(&["eval", &checkpoint("4-reward"), "--data", "sft.jsonl"]).failed(1);
    assert!(error.contains("a reward model ranks pairs"), "{error}");
}
