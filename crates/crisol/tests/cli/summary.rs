//! What a run prints at its end, as files that are read as text: `tests/snapshots/summary/`.

use crisol_report::{Language, Layout, Next, Report, summary};

use crate::fixture::{Bench, checkpoint, read};

/// The embedded run: what `data/embedded-run.json` keeps of its report.
fn embedded() -> Report {
    serde_json::from_str(include_str!("../data/embedded-run.json")).expect("a report")
}

#[track_caller]
fn snapshot(name: &str, text: &str) {
    assert!(text.lines().count() <= 40, "{} lines:\n{text}", text.lines().count());
    insta::with_settings!({
        snapshot_path => "../snapshots/summary",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn of_the_embedded_run() {
    let commands = [
        "crisol chat runs/crisol-world/5-ppo",
        "runs/crisol-world/report.html",
        "crisol report runs/crisol-world --full",
    ];
    let english = ["talk to it", "read the report", "print all of it"];
    let spanish = ["habla con él", "lee el informe", "muéstralo todo"];
    for (language, purposes, suffix) in
        [(Language::English, english, ""), (Language::Spanish, spanish, "-es")]
    {
        let step = |(purpose, command): (_, &str)| Next { purpose, command: command.to_owned() };
        let next: Vec<Next> = purposes.into_iter().zip(commands).map(step).collect();
        let layout = Layout { width: 80, colour: false, language };
        let report = embedded();
        let text = summary(&report, &next, layout);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        snapshot(&format!("embedded-run{suffix}"), &text);
        // One of its phases alone, as `crisol sft` shows it.
        let one = Report { phases: vec![report.phases[1].clone()], ..report };
        snapshot(&format!("one-phase{suffix}"), &summary(&one, &next, layout));
    }
}

/// The last lines of a summary are commands that work.
#[test]
fn the_next_steps_can_be_pasted() {
    let bench = Bench::new("");
    let phase = |kind: &str, arguments: &[&str]| -> String {
        let base = checkpoint("2-sft");
        let model = if kind == "pretrain" { vec![] } else { vec![base.as_str()] };
        let always = ["--out", kind, "--set", "optimizer.lr=1e-4"];
        let text = bench.crisol(&[&[kind], &model[..], arguments, &always].concat()).ok();
        let next = text.split("Next ").nth(1).expect("next steps").to_owned();
        let (_, command) = next.lines().nth(1).and_then(|l| l.split_once("crisol ")).expect("one");
        command.to_owned()
    };
    let small = ["model.hidden_size=32", "model.heads=2", "model.kv_heads=1", "model.layers=1"];
    let small = small.map(|setting| ["--set", setting]).concat();
    let shape = [&["--data", "pretrain.jsonl", "--set", "model.vocab_size=300"], &small[..]];
    let command = phase("pretrain", &shape.concat());
    assert_eq!(command, "generate pretrain/1-pretrain --prompt \"The sky is\"");
    let arguments = ["generate", "pretrain/1-pretrain", "--prompt", "The sky is"];
    bench.crisol(&arguments).ok();
    let command = phase("sft", &["--data", "sft.jsonl"]);
    assert_eq!(command, "chat sft/1-sft");
    bench.crisol(&["chat", "sft/1-sft"]).ok();
    let command = phase("reward", &["--data", "votes.jsonl"]);
    assert_eq!(command, "eval reward/1-reward --data FILE");
    bench.crisol(&["eval", "reward/1-reward", "--data", "votes.jsonl"]).ok();
    let full = bench.crisol(&["report", "sft", "--full"]).ok();
    assert!(full.contains("What it cost") && !read(&bench.path("sft/report.html")).is_empty());
}
