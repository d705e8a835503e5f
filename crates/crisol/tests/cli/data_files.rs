//! Data as it is found, through the binary: formats and shapes in `data inspect` and in phases.
//! Each test names its kind.

use serde_json::Value;

use crate::fixture::{Bench, checkpoint, fed};

fn golden(name: &str) -> String {
    format!("{}/../../tests/golden/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// What a file's records become, without where they stand.
fn sequences(bench: &Bench, arguments: &[&str]) -> Vec<Value> {
    let model = checkpoint("1-pretrain");
    let all = [&["data", "inspect"], arguments, &["--model", &model, "--json", "--limit", "1000"]]
        .concat();
    let json = bench.crisol(&all).json();
    json["records"].as_array().unwrap().iter().map(|record| record["sequences"].clone()).collect()
}

/// One data set in every format: the same ids and masks.
#[test]
fn every_format_gives_the_same_tokens_and_masks() {
    let bench = Bench::new("");
    for (name, suffixes) in [
        (
            "pairs",
            &[
                "jsonl.gz",
                "jsonl.zst",
                "json",
                "indented.json",
                "loose.json",
                "concatenated.jsonl",
                "csv",
                "tsv",
            ][..],
        ),
        ("texts", &[]),
    ] {
        let expected = sequences(&bench, &[&golden(&format!("{name}.jsonl"))]);
        assert!(expected.len() > 2);
        let parquet = if cfg!(feature = "parquet") { &["parquet"][..] } else { &[] };
        for suffix in [suffixes, parquet].concat() {
            assert_eq!(
                sequences(&bench, &[&golden(&format!("{name}.{suffix}"))]),
                expected,
                "{name}.{suffix}"
            );
        }
    }
}

#[test]
fn standard_input_folders_patterns_and_text() {
    let bench = Bench::new("");
    let mut inspect = bench.command(&["data", "inspect", "-", "--json"]);
    let json = fed(&mut inspect, "{\"text\": \"abc def\"}\n").json();
    assert_eq!(json["totals"]["shapes"]["text"], 1);
    std::fs::create_dir(bench.path("books")).unwrap();
    bench.write("books/a.txt", "One.\r\n\r\nTwo.");
    bench.write("books/b.txt", "Three.");
    assert_eq!(sequences(&bench, &["books"]).len(), 2);
    assert_eq!(sequences(&bench, &["books/*.txt", "--text-separator", "\\n\\n"]).len(), 3);
    let error = bench.crisol(&["data", "inspect", "books/*.csv"]).failed(1);
    assert!(error.contains("no file matches"), "{error}");
    // A phase takes them too.
    let model = checkpoint("1-pretrain");
    bench
        .crisol(&["pretrain", &model, "--data", "books", "--out", "more", "--set", "epochs=1"])
        .ok();
    bench.crisol(&["sft", &model, "--data", "nowhere/*.csv", "--out", "out"]).failed(1);
}

/// Keys that no shape knows: the user says what they mean.
#[test]
fn columns_are_named_by_the_user() {
    let bench = Bench::new("");
    bench.write("x.jsonl", "{\"ask\": \"a\", \"say\": \"b\"}\n");
    let text = bench.crisol(&["data", "inspect", "x.jsonl"]);
    assert!(text.code == Some(1) && text.stdout.contains("`ask`, `say`"), "{text:?}");
    for (name, said) in [("nowhere.jsonl", "cannot be read"), ("empty.jsonl", "no records")] {
        bench.write("empty.jsonl", "\n");
        assert!(bench.crisol(&["data", "inspect", name]).failed(1).contains(said));
    }
    bench.crisol(&["data", "inspect", "x.jsonl", "--columns", "prompt=ask,completion=say"]).ok();
    let error = bench.crisol(&["data", "inspect", "x.jsonl", "--columns", "promt=ask"]).failed(1);
    assert!(error.contains("--columns promt=…"), "{error}");
}

/// One error of many lines is said once, with how many they are and where.
#[test]
fn problems_that_are_alike_are_one_group() {
    let bench = Bench::new("");
    let bad: Vec<String> =
        (0..300).map(|i| format!("{{\"ask\": \"{i}\", \"say\": {i}}}\n")).collect();
    let bad = bad.concat();
    bench.write("bad.jsonl", &format!("{{\"text\": \"a\", \"id\": 1}}\n{bad}{{oops\n"));
    let finished = bench.crisol(&["data", "inspect", "bad.jsonl"]);
    assert_eq!(finished.code, Some(1));
    let text = &finished.stdout;
    assert_eq!(text.matches("error: ").count(), 2, "{text}");
    assert!(text.contains("likewise (300 in all): bad.jsonl:3, bad.jsonl:4"), "{text}");
    assert!(text.contains("problem: unreadable (301)"), "{text}");
    assert!(text.contains("fields that nothing reads: id (1)"), "{text}");
    assert!(text.lines().count() < 20, "{text}");
}

/// Pairs without a preference among others are left out; a file of nothing else is refused.
#[test]
fn equal_pairs_do_not_refuse_a_file() {
    let bench = Bench::new("");
    let equal = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}\n".repeat(6);
    bench.write("some.jsonl", &(bench.read("votes.jsonl") + &equal));
    bench.write("all.jsonl", &equal);
    let text = bench.crisol(&["data", "inspect", "some.jsonl"]).ok();
    assert!(
        text.contains("problem: equal answers (6)") && text.contains("warning: some.jsonl:33"),
        "{text}"
    );
    assert_eq!(bench.crisol(&["data", "inspect", "all.jsonl"]).code, Some(1));
    let model = checkpoint("1-pretrain");
    bench
        .crisol(&["dpo", &model, "--data", "some.jsonl", "--out", "out", "--set", "epochs=0.1"])
        .ok();
    let error = bench.crisol(&["dpo", &model, "--data", "all.jsonl", "--out", "none"]).failed(1);
    assert!(error.contains("in all 6 pairs"), "{error}");
}

/// A thumbs-down row is not trained as an answer.
#[test]
fn rated_answers_are_refused_by_name() {
    let bench = Bench::new("");
    let row = |label: bool| {
        format!(
            "{{\"prompt\": [{{\"role\": \"user\", \"content\": \"a\"}}], \"completion\": [{{\"role\": \"assistant\", \"content\": \"b\"}}], \"label\": {label}}}\n"
        )
    };
    bench.write("kto.jsonl", &(row(true) + &row(false)));
    let model = checkpoint("1-pretrain");
    for phase in ["sft", "dpo"] {
        let error = bench.crisol(&[phase, &model, "--data", "kto.jsonl", "--out", "out"]).failed(1);
        assert!(
            error.contains("kto.jsonl:1") && error.contains("no phase trains on such records yet"),
            "{error}"
        );
    }
    let finished = bench.crisol(&["data", "inspect", "kto.jsonl"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stdout.contains("KTO"), "{}", finished.stdout);
}

/// GSM8K's rows serve two phases: the work for sft, the number behind it for reason.
#[test]
fn worked_problems_serve_two_phases() {
    let bench = Bench::new("");
    let rows: Vec<String> = (1..30)
        .map(|i| {
            format!(
                "{{\"question\": \"{i} and 1?\", \"answer\": \"{i}+1 = {0}\\n#### {0}\"}}\n",
                i + 1
            )
        })
        .collect();
    let rows = rows.concat();
    bench.write("gsm.jsonl", &rows);
    let model = checkpoint("1-pretrain");
    bench
        .crisol(&["sft", &model, "--data", "gsm.jsonl", "--out", "sft", "--set", "epochs=0.1"])
        .ok();
    let small =
        ["--set", "steps=1", "--set", "rollout.prompts=2", "--set", "rollout.max_new_tokens=4"];
    bench
        .crisol(
            &[&["reason", &model, "--data", "gsm.jsonl", "--out", "reason"], &small[..]].concat(),
        )
        .ok();
}

/// Kind: what a library makes of a damaged file is one error, not the trace of its panic, whichever
/// byte is wrong.
#[test]
fn a_damaged_parquet_file_is_an_error_and_nothing_else() {
    let bench = Bench::new("");
    let whole = std::fs::read(golden("chat.parquet")).unwrap();
    // Three at which the library panics, and others.
    let wrong = [(379, 127), (1451, 127), (1850, 1)];
    let others = (40..whole.len() - 8).step_by(whole.len() / 20).map(|at| (at, whole[at] ^ 0x80));
    for (at, byte) in wrong.into_iter().chain(others) {
        let mut damaged = whole.clone();
        damaged[at] = byte;
        std::fs::write(bench.path("damaged.parquet"), damaged).unwrap();
        let said = bench.crisol(&["data", "inspect", "damaged.parquet"]);
        assert!(!said.stderr.contains("panicked"), "byte {at}: {}", said.stderr);
        if wrong.contains(&(at, byte)) {
            assert_eq!(said.code, Some(1));
            assert!(
                said.stdout.contains("cannot be read as Parquet"),
                "byte {at}: {}",
                said.stdout
            );
        }
    }
}
