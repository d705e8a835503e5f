//! Data sets by their names on a hub (`hf://datasets/…`), wherever a data file can be named; with a
//! hub of our own (`loopback.rs`).

use std::collections::BTreeMap;
use std::io::Write as _;

use serde_json::Value;

use crate::fixture::{Bench, checkpoint, read};
use crate::loopback::{COMMIT, CONVERTED, Hub, ID, Large, refusal};

/// Rows of raw text, numbered from a first one.
fn rows(first: usize, count: usize) -> Vec<u8> {
    (first..first + count)
        .map(|i| format!("{{\"text\": \"row {i}\"}}\n"))
        .collect::<Vec<_>>()
        .concat()
        .into_bytes()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../../tests/golden/data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn hub(files: &[(&str, Vec<u8>)]) -> Hub {
    Hub::with(
        files
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), bytes.clone()))
            .collect::<BTreeMap<_, _>>(),
    )
}

/// The texts that `data inspect` reads.
fn texts(hub: &Hub, bench: &Bench, name: &str, more: &[&str]) -> Vec<String> {
    let all = [&["data", "inspect", name, "--json", "--limit", "1000"], more].concat();
    let found = hub.crisol(bench, &all).json();
    let text = |span: &Value| span["text"].as_str().unwrap_or_default().to_owned();
    let of = |record: &Value| -> String {
        record["sequences"][0]["spans"].as_array().unwrap().iter().map(text).collect()
    };
    found["records"].as_array().unwrap().iter().map(of).collect()
}

fn numbers(texts: &[String]) -> Vec<usize> {
    let number = |text: &String| {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_else(|_| panic!("{text:?}"))
    };
    texts.iter().map(number).collect()
}

const NAME: &str = "hf://datasets/org/tiny";

/// Splits of files that are compressed and by name alone, ranges over several files, and what is
/// fetched for them.
#[test]
fn splits_and_ranges_over_files() {
    let bench = Bench::new("");
    let hub = hub(&[
        ("train-00000-of-00003.jsonl.gz", gz(&rows(0, 4))),
        ("train-00001-of-00003.jsonl.gz", gz(&rows(4, 4))),
        ("train-00002-of-00003.jsonl.gz", gz(&rows(8, 4))),
        ("test.jsonl", rows(100, 3)),
        ("load.py", b"never fetched".to_vec()),
    ]);
    let read =
        |part: &str, more: &[&str]| numbers(&texts(&hub, &bench, &format!("{NAME}{part}"), more));
    // Of files behind the range, nothing is fetched.
    for (part, expected) in [(":train[..3]", 0..3), (":train[3..6]", 3..6)] {
        assert_eq!(read(part, &[]), expected.collect::<Vec<_>>());
        assert!(!hub.log().iter().any(|request| request.path.contains("00002-of")));
    }
    // A part in the cache is not taken for the whole.
    let error = hub.crisol(&bench, &["data", "inspect", NAME, "--offline"]).failed(1);
    assert!(error.contains("not all that is asked of it"), "{error}");
    assert_eq!(read("", &[]), (0..12).collect::<Vec<_>>());
    hub.log();
    for (part, expected) in [
        ("", 0..12),
        (":train[7..]", 7..12),
        (":train[4..5]", 4..5),
        ("@main:train[2..100]", 2..12),
    ] {
        assert_eq!(read(part, &["--offline"]), expected.collect::<Vec<_>>());
    }
    assert_eq!(read(&format!("@{COMMIT}"), &[]).len(), 12);
    assert!(hub.log().is_empty());
    assert_eq!(read("@v1:test", &[]), [100, 101, 102]);
    assert!(!hub.log().iter().any(|request| request.wants("load.py")));
    let folder = bench.path("home/hub/datasets--org--tiny");
    assert!(folder.join("snapshots").join(COMMIT).join("test.jsonl").is_file());
    let error = hub.crisol(&bench, &["data", "inspect", &format!("{NAME}:train[12..]")]).failed(1);
    assert!(error.contains("12 rows") && error.contains("row 12"), "{error}");
    let error = hub.crisol(&bench, &["data", "inspect", &format!("{NAME}:dev")]).failed(1);
    assert!(error.contains("It has: test, train"), "{error}");
}

/// Parquet in configs, by folders and by the card, and the branch that the hub converts to Parquet.
#[cfg(feature = "parquet")]
#[test]
fn parquet_in_configs() {
    let bench = Bench::new("");
    let (pairs, plain) = (golden("pairs.parquet"), golden("texts.parquet"));
    let files = [
        ("main/train-00000-of-00001.parquet", plain.clone()),
        ("main/test-00000-of-00001.parquet", pairs.clone()),
        ("other/train-00000-of-00001.parquet", pairs.clone()),
        ("README.md", b"# Data\n".to_vec()),
    ];
    let hub = hub(&files);
    hub.large(Large::Elsewhere);
    let inspect =
        |name: &str| hub.crisol(&bench, &["data", "inspect", name, "--json", "--limit", "1000"]);
    let sequences = |name: &str| {
        let records = inspect(name).json()["records"].take();
        records
            .as_array()
            .unwrap()
            .iter()
            .map(|record| record["sequences"].clone())
            .collect::<Vec<_>>()
    };
    bench.write("pairs.parquet", "");
    std::fs::write(bench.path("pairs.parquet"), &pairs).unwrap();
    std::fs::write(bench.path("texts.parquet"), &plain).unwrap();
    let (pairs, plain) = (sequences("pairs.parquet"), sequences("texts.parquet"));
    assert_eq!(sequences(&format!("{NAME}/main")), plain);
    assert_eq!(sequences(&format!("{NAME}/main:test")), pairs);
    assert_eq!(sequences(&format!("{NAME}@{COMMIT}/other:train")), pairs);
    assert_eq!(sequences(&format!("{NAME}/main:train[1..]")).len(), plain.len() - 1);
    let error = inspect(NAME).failed(1);
    assert!(error.contains("several configs") && error.contains("main, other"), "{error}");

    let card = "---\nlicense: mit\nconfigs:\n- config_name: both\n  default: true\n  data_files:\n  - split: train\n    path: '*/test-*'\n- config_name: main\n  data_dir: main\n---\n";
    let fresh = Bench::new("");
    hub.put("README.md", card.as_bytes());
    let found = hub.crisol(&fresh, &["data", "inspect", NAME, "--json"]).json();
    assert_eq!(found["totals"]["records"], pairs.len());

    // A repository of a program alone: the hub's own files.
    for (name, _) in files {
        hub.remove(name);
    }
    hub.put("load.py", b"code");
    hub.put(&format!("{CONVERTED}default/train/0000.parquet"), &golden("texts.parquet"));
    let third = Bench::new("");
    let found = hub.crisol(&third, &["data", "inspect", NAME, "--json"]).json();
    assert_eq!(found["totals"]["records"], plain.len());
    hub.crisol(&third, &["data", "inspect", NAME, "--offline"]).ok();
}

/// Phases and recipes take them, name the commit, and go on with the same rows.
#[test]
fn phases_and_recipes_train_on_them() {
    let bench = Bench::new("");
    let hub = hub(&[("train.jsonl", rows(0, 40)), ("test.jsonl", rows(100, 8))]);
    let model = checkpoint("1-pretrain");
    let (data, heldout) = (format!("{NAME}:train[..20]"), format!("{NAME}:test"));
    let phase = [
        "pretrain",
        &model,
        "--data",
        &data,
        "--heldout",
        &heldout,
        "--out",
        "out",
        "--set",
        "epochs=1",
    ];
    hub.crisol(&bench, &phase).ok();
    let recipe = read(&bench.path("out/recipe.toml"));
    for name in
        [format!("{NAME}@{COMMIT}/default:train[..20]"), format!("{NAME}@{COMMIT}/default:test")]
    {
        assert!(recipe.contains(&format!("\"{name}\"")), "{recipe}");
    }
    hub.log();
    hub.crisol(&bench, &["run", "--resume", "--out", "out"]).ok();
    assert!(hub.log().is_empty());
    // Other rows of the same file are other data.
    std::fs::write(bench.path("out/recipe.toml"), recipe.replace("[..20]", "[..21]")).unwrap();
    let error = hub.crisol(&bench, &["run", "--resume", "--out", "out"]).failed(1);
    assert!(error.contains("rows of data"), "{error}");

    // What was trained is what the same rows in a file train.
    bench.write("rows.jsonl", &String::from_utf8(rows(0, 20)).unwrap());
    bench.write("test.jsonl", &String::from_utf8(rows(100, 8)).unwrap());
    let file = [
        "pretrain",
        &model,
        "--data",
        "rows.jsonl",
        "--heldout",
        "test.jsonl",
        "--out",
        "same",
        "--set",
        "epochs=1",
    ];
    bench.crisol(&file).ok();
    let weights = |out: &str| {
        std::fs::read(bench.path(&format!("{out}/1-pretrain/model.safetensors"))).unwrap()
    };
    assert!(weights("out") == weights("same"));

    bench.write("mine.toml", &format!("base = {model:?}\nevaluate = \"none\"\n[[phases]]\nkind = \"pretrain\"\ndata = [{data:?}]\nheldout = []\nepochs = 1\n"));
    hub.crisol(&bench, &["run", "mine.toml", "--out", "mine", "--offline"]).ok();
    assert!(weights("mine") == weights("same"));
}

/// A recipe's base may be a model on a hub where it is no path beside the recipe.
#[test]
fn the_base_of_a_recipe_on_a_hub() {
    let (hub, bench) = (Hub::new(), Bench::new(""));
    bench.write("rows.jsonl", &String::from_utf8(rows(0, 20)).unwrap());
    let phase =
        "[[phases]]\nkind = \"pretrain\"\ndata = [\"rows.jsonl\"]\nheldout = []\nepochs = 1\n";
    bench.write(
        "mine.toml",
        &format!("base = \"{ID}\"\ndata = \".\"\nevaluate = \"none\"\n{phase}"),
    );
    hub.crisol(&bench, &["run", "mine.toml", "--out", "mine"]).ok();
    assert!(read(&bench.path("mine/recipe.toml")).contains(&format!("snapshots/{COMMIT}\"")));
}

#[test]
fn what_is_no_data_set_is_an_error() {
    let bench = Bench::new("");
    let hub = hub(&[("train.jsonl", rows(0, 2))]);
    let error = |name: &str| hub.crisol(&bench, &["data", "inspect", name]).failed(1);
    for (name, part) in [
        ("hf://org/tiny", "hf://datasets/ORG/NAME"),
        ("hf://datasets/../tiny", "hf://datasets/ORG/NAME"),
        ("hf://datasets/org/tiny@../../x", "branch"),
        ("hf://datasets/org/tiny:train[5..2]", "empty"),
        ("hf://datasets/org/none", "no such repository"),
        ("hf://datasets/org/tiny@none", "no revision `none`"),
        ("hf://datasets/org/tiny/none", "It has: default"),
    ] {
        let said = error(name);
        assert!(said.contains(part), "{name}: {said}");
    }
    let said = hub.crisol(&bench, &["data", "inspect", NAME, "--offline"]).failed(1);
    assert!(said.contains("not in the cache"), "{said}");
    hub.twist(|_, _, _| Some(refusal(403, "GatedRepo")));
    assert!(error(NAME).contains("gated"));
    hub.honest();
    // Names that lead out of the cache, as files and in the card.
    let outside = bench.path("home");
    hub.put("../../../../train-evil.jsonl", b"{\"text\": \"evil\"}");
    assert!(error(NAME).contains("train-evil"));
    hub.remove("../../../../train-evil.jsonl");
    hub.put(
        "README.md",
        b"---\nconfigs:\n- config_name: default\n  data_files: ../../../*.jsonl\n---\n",
    );
    assert!(error(NAME).contains("no data file of that name"));
    // What is at a commit never changes, so that the cache would answer.
    let fresh = Bench::new("");
    hub.put("README.md", b"---\nconfigs: &a\n- *a\n---\n");
    let said = hub.crisol(&fresh, &["data", "inspect", NAME]).failed(1);
    assert!(said.contains("README.md lists configs in a way"), "{said}");
    assert!(!outside.join("train-evil.jsonl").exists());
}
