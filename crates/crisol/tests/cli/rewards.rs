//! Rewards of `crisol reason`: forms that the template begins, answers without a form, and groups
//! that never learn.

use serde_json::{Value, json};

use crate::fixture::{Bench, copy_model};

/// The tiny run's pre-trained model in this bench, whose generation prompt ends in `ending`.
fn model_with_ending(bench: &Bench, ending: &str) {
    copy_model("1-pretrain", &bench.path("model"));
    let _ = std::fs::remove_file(bench.path("model/chat_template.jinja"));
    let config = bench.read("model/tokenizer_config.json");
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["chat_template"] = json!(format!(
        "{{% for m in messages %}}<|{{{{ m.role }}}}|>{{{{ m.content }}}}<|end|>{{% endfor %}}\
         {{% if add_generation_prompt %}}<|assistant|>{ending}{{% endif %}}"
    ));
    bench.write("model/tokenizer_config.json", &config.to_string());
}

/// Two problems and their worked solutions, which the tiny model learns by heart.
fn write_problems(bench: &Bench, solutions: [&str; 2]) {
    let (mut worked, mut problems) = (String::new(), String::new());
    for (i, solution) in solutions.iter().enumerate() {
        let question = format!("Q{i}?");
        let chat = json!([{"role": "user", "content": question}, {"role": "assistant", "content": solution}]);
        worked += &(json!({ "messages": chat }).to_string() + "\n");
        problems +=
            &(json!({"prompt": question, "answer": (7 + i).to_string()}).to_string() + "\n");
    }
    bench.write("worked.jsonl", &worked);
    bench.write("two.jsonl", &problems);
}

/// Runs `crisol reason` on them; the last line of the metrics, and the report of the phase.
fn reason(bench: &Bench, more: &[&str]) -> (Value, Value, String) {
    let fixed = [
        "reason",
        "model",
        "--cold-start",
        "worked.jsonl",
        "--data",
        "two.jsonl",
        "--out",
        "out",
        "--set",
        "cold_start.epochs=150",
        "--set",
        "cold_start.optimizer.lr=0.01",
        "--set",
        "cold_start.batch_tokens=64",
        "--set",
        "steps=3",
        "--set",
        "rollout.prompts=2",
        "--set",
        "rollout.group_size=4",
        "--set",
        "rollout.temperature=0.5",
        "--set",
        "optimizer.lr=1e-6",
    ];
    let finished = bench.crisol(&[&fixed[..], more].concat());
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let metrics = bench.read("out/1-reason/metrics.jsonl");
    let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let report: Value = serde_json::from_str(&bench.read("out/report.json")).unwrap();
    (last, report["phases"][0].clone(), finished.stderr)
}

/// Kind: the generation prompt begins the answer's form.
#[test]
fn a_thought_that_the_template_opens_counts_for_the_form() {
    let bench = Bench::new("");
    model_with_ending(&bench, "<think>");
    write_problems(&bench, ["<think>a</think>7", "<think>b</think>8"]);
    let (last, phase, _) = reason(&bench, &["--set", "rollout.max_new_tokens=30"]);
    assert!(last["reward/format"].as_f64().unwrap() > 0.6, "{last}");
    assert!(last["reward"].as_f64().unwrap() > 0.6, "{last}");
    assert!(!phase["notes"].to_string().contains("of the first 3 steps"), "{phase}");
}

/// Kind: no form is asked for.
#[test]
fn without_a_format_reward_right_answers_need_no_form() {
    let bench = Bench::new("");
    model_with_ending(&bench, "");
    write_problems(&bench, ["It is 7", "It is 8"]);
    let (last, _, _) =
        reason(&bench, &["--set", "rollout.max_new_tokens=30", "--set", "format_reward=0"]);
    assert!(last["reward"].as_f64().unwrap() > 0.6, "{last}");
    assert_eq!(last["reward/format"].as_f64(), Some(0.0));
    assert_eq!(last["reward"], last["reward/accuracy"]);
}

/// Kind: groups that can never be paid. The note stands in the terminal and in the report.
#[test]
fn groups_that_are_never_paid_are_said_with_what_to_change() {
    let bench = Bench::new("");
    model_with_ending(&bench, "");
    write_problems(&bench, ["It is 7", "It is 8"]);
    let (last, phase, terminal) = reason(&bench, &["--set", "rollout.max_new_tokens=2"]);
    assert_eq!(last["reward"].as_f64(), Some(0.0));
    let notes = phase["notes"].as_array().unwrap().iter().filter_map(Value::as_str);
    let note = notes.into_iter().find(|note| note.contains("the first 3 steps")).unwrap();
    for part in
        ["none of the 24 answers of the first 3 steps", "cut at 2 tokens", "rollout.max_new_tokens"]
    {
        assert!(note.contains(part), "{part}: {note}");
        assert!(terminal.contains(part), "{part}: {terminal}");
    }
    let page = bench.read("out/report.html");
    assert!(!page.contains("Grows as the task is mastered") && page.contains("0 throughout"));
}

/// Kind: references that no spelling but their own will match.
#[test]
fn inspect_counts_references_that_are_compared_as_text() {
    let bench = Bench::new("");
    let references = ["1/2", "50%", "B", "Paris", "12:30", "#### 7"];
    let lines: Vec<String> = references
        .iter()
        .map(|r| json!({"prompt": format!("Q {r}?"), "answer": r}).to_string() + "\n")
        .collect();
    bench.write("problems.jsonl", &lines.concat());
    let text = bench.crisol(&["data", "inspect", "problems.jsonl"]).ok();
    assert!(text.contains("2 of 6 references are compared as text, e.g. `Paris`"), "{text}");
    let json = bench.crisol(&["data", "inspect", "problems.jsonl", "--json"]).json();
    assert_eq!(json["references"], json!({"number": 3, "choice": 1, "text": 2}));
}
