//! A tiny data set, a recipe that trains a 30-thousand-parameter model on it through every phase in
//! a second or two, and helpers to run the binary.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

/// What every phase's model has in common.
const MODEL: &str = "
shard_tokens = 256
[model]
hidden_size = 32
layers = 2
heads = 2
kv_heads = 1
intermediate_size = 64
context = 64
vocab_size = 300
";

const PRETRAIN: &str = r#"
[[phases]]
kind = "pretrain"
data = "pretrain.jsonl"
heldout = "pretrain.jsonl"
batch_tokens = 512
"#;

const SFT: &str = r#"
[[phases]]
kind = "sft"
data = "sft.jsonl"
heldout = "sft.jsonl"
batch_tokens = 256
"#;

const REASON: &str = r#"
[[phases]]
kind = "reason"
data = "problems.jsonl"
steps = 4
kl_coefficient = 0.01
replay.data = "sft.jsonl"
replay.tokens = 64
cold_start.data = "cold.jsonl"
cold_start.batch_tokens = 256
rollout.prompts = 4
rollout.group_size = 4
rollout.max_new_tokens = 12
rollout.minibatches = 2
"#;

const ALIGNMENT: &str = r#"
[[phases]]
kind = "sft"
name = "refuse"
from = "BASE"
data = "refusals.jsonl"
heldout = []
batch_tokens = 256
[[phases]]
kind = "reward"
from = "BASE"
data = "votes.jsonl"
heldout = "votes.jsonl"
epochs = 2
batch_pairs = 8
optimizer = { lr = 5e-4, schedule = "wsd" }
[[phases]]
kind = "dpo"
from = "BASE"
data = "votes.jsonl"
heldout = "votes.jsonl"
epochs = 2
batch_pairs = 8
beta = 1.0
sft_weight = 3.0
optimizer = { lr = 2.5e-4, schedule = "wsd" }
replay.data = ["sft.jsonl", "pretrain.jsonl"]
replay.tokens = 64
"#;

const PPO: &str = r#"
[[phases]]
kind = "ppo"
from = "BASE"
data = "prompts.jsonl"
steps = 3
replay.data = "sft.jsonl"
replay.tokens = 64
rollout.prompts = 8
rollout.max_new_tokens = 8
"#;

/// Phases of [`full_recipe`] and their folders.
pub(crate) const FOLDERS: [(&str, &str); 7] = [
    ("pretrain", "1-pretrain"),
    ("sft", "2-sft"),
    ("reason", "3-reason"),
    ("refuse", "4-refuse"),
    ("reward", "4-reward"),
    ("dpo", "4-dpo"),
    ("ppo", "5-ppo"),
];

/// Every phase. `run` are settings of the whole run.
pub(crate) fn full_recipe(run: &str) -> String {
    let alignment = (ALIGNMENT.to_owned() + PPO).replace("BASE", "reason");
    format!("data = \".\"\n{run}{MODEL}{PRETRAIN}{SFT}{REASON}{alignment}")
}

/// The phases that sample nothing.
pub(crate) fn supervised_recipe(run: &str) -> String {
    format!("data = \".\"\n{run}{MODEL}{PRETRAIN}{SFT}{}", ALIGNMENT.replace("BASE", "sft"))
}

/// Pre-training and one supervised phase.
pub(crate) fn short_recipe(run: &str) -> String {
    format!("data = \".\"\n{run}{MODEL}{PRETRAIN}{SFT}")
}

/// A pre-trained and a fine-tuned model whose context holds the notebook's prompts, and lists of
/// items.
pub(crate) fn roomy() -> Bench {
    let bench = Bench::new(
        &short_recipe("")
            .replace("context = 64", "context = 700")
            .replace("batch_tokens = 512", "batch_tokens = 700")
            .replace("batch_tokens = 256", "batch_tokens = 700"),
    );
    bench.crisol(&["run", "tiny.toml", "--out", "run"]).ok();
    bench
}

/// Writes the data and nothing else into a folder.
pub(crate) fn write_data(folder: &Path) {
    const NAMES: [&str; 4] = ["Ana", "Ben", "Carl", "Dora"];
    const THINGS: [&str; 4] = ["apples", "pears", "books", "coins"];
    let thing = |i: usize| THINGS[i % 4];
    let sum = |i: usize| i % 7 + 1 + i % 5 + 2;
    let question = |i: usize| {
        format!("{} has {} {} and gets {}. How many?", NAMES[i % 4], i % 7 + 1, thing(i), i % 5 + 2)
    };
    let chat = |question: String, answer: String| json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]});
    let asked = |prompt: String| json!([{"role": "user", "content": prompt}]);
    let say = |i: usize| format!("Say {}", thing(i));
    let file = |name: &str, count: usize, record: &dyn Fn(usize) -> Value| {
        let lines: Vec<String> = (0..count).map(|i| record(i).to_string() + "\n").collect();
        std::fs::write(folder.join(name), lines.concat()).expect("the test's folder is writable");
    };
    file(
        "pretrain.jsonl",
        80,
        &|i| json!({"text": format!("{} {}. The sky is blue.", question(i), sum(i))}),
    );
    file("sft.jsonl", 40, &|i| chat(question(i), sum(i).to_string()));
    file("cold.jsonl", 40, &|i| {
        chat(question(i), format!("<think>{}+{}</think>{}", i % 7 + 1, i % 5 + 2, sum(i)))
    });
    file("refusals.jsonl", 24, &|i| chat(say(i), "I cannot.".into()));
    file(
        "problems.jsonl",
        35,
        &|i| json!({"prompt": asked(question(i)), "answer": sum(i).to_string()}),
    );
    file("prompts.jsonl", 8, &|i| json!({"prompt": asked(say(i))}));
    file("votes.jsonl", 32, &|i| {
        let answer = |text: String| json!([{"role": "assistant", "content": text}]);
        json!({"prompt": say(i), "chosen": answer(thing(i).into()), "rejected": answer(format!("No {i}."))})
    });
    // Test files by the names that make Crisol measure behaviours.
    file("facts.test.jsonl", 4, &|i| json!({"prompt": asked(say(i)), "answer": thing(i)}));
    file(
        "problems.test.jsonl",
        5,
        &|i| json!({"prompt": asked(question(i)), "answer": sum(i).to_string()}),
    );
    file("demos.jsonl", 2, &|i| match i {
        0 => json!({"prompt": "The sky", "form": "text", "kind": "question_list"}),
        _ => json!({"prompt": "Say coins", "form": "chat", "kind": "harmful"}),
    });
}

/// The binary, in English whatever the language of the one who tests.
fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crisol"));
    for variable in LOCALE {
        command.env_remove(variable);
    }
    command
}

/// The variables that choose the language.
pub(crate) const LOCALE: [&str; 3] = ["LC_ALL", "LC_MESSAGES", "LANG"];

/// A folder of a test's own with the data and a recipe in it; gone when dropped.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(recipe: &str) -> Bench {
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        write_data(folder.path());
        let bench = Bench { folder };
        bench.write("tiny.toml", recipe);
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the test's folder is writable");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        read(&self.path(name))
    }

    /// The binary, to be run in this folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = binary();
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .env_remove("CLICOLOR_FORCE");
        command
    }

    /// Runs it to its end.
    pub(crate) fn crisol(&self, arguments: &[&str]) -> Finished {
        Finished::of(self.command(arguments).output().expect("the binary starts"))
    }
}

/// Runs a command to its end, with `input` in a pipe.
pub(crate) fn fed(command: &mut Command, input: &str) -> Finished {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("the binary reads");
    drop(stdin);
    Finished::of(child.wait_with_output().expect("the binary ends"))
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What a finished process left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn of(output: Output) -> Finished {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the output is UTF-8");
        Finished {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Standard output, after making sure that all went well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// Standard output as JSON, after making sure that all went well; without `timing`, which
    /// differs from run to run.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let mut json: Value =
            serde_json::from_str(&self.ok()).expect("standard output is JSON and nothing else");
        if let Some(object) = json.as_object_mut() {
            object.shift_remove("timing");
        }
        json
    }

    /// Standard error, after making sure that the exit code is `code`, and that it is an error and
    /// no panic.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        assert_eq!(self.stderr.matches("error: ").count(), 1, "{}", self.stderr);
        self.stderr
    }
}

/// A finished run of [`full_recipe`] that tests share and only read.
pub(crate) fn finished_run() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        // A folder that cargo keeps for this purpose, because a static is never dropped.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("finished-run");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("cargo's folder for tests is writable");
        write_data(&folder);
        std::fs::write(folder.join("tiny.toml"), full_recipe("")).expect("the folder is writable");
        let mut command = binary();
        command.args(["run", "tiny.toml", "--out", "run", "--threads", "2"]).current_dir(&folder);
        Finished::of(command.output().expect("the binary starts")).ok();
        folder.join("run")
    })
}

/// Path of a phase's checkpoint in [`finished_run`], as an argument.
pub(crate) fn checkpoint(folder: &str) -> String {
    finished_run().join(folder).to_str().expect("the path is UTF-8").to_owned()
}

/// Copies a checkpoint of the finished run into a new folder.
pub(crate) fn copy_model(folder: &str, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(checkpoint(folder)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// The weights of every phase of a run, byte by byte.
pub(crate) fn weights(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(run).unwrap_or_else(|e| panic!("{}: {e}", run.display()));
    entries
        .filter_map(|entry| {
            let path = entry.expect("the folder can be listed").path();
            let bytes = std::fs::read(path.join("model.safetensors")).ok()?;
            Some((path.file_name()?.to_string_lossy().into_owned(), bytes))
        })
        .collect()
}

/// What a run's report says, without what differs from run to run (time, memory) and what `without`
/// names.
pub(crate) fn report(run: &Path, without: &[&str]) -> Value {
    let mut report: Value =
        serde_json::from_str(&read(&run.join("report.json"))).expect("report.json is JSON");
    let object = report.as_object_mut().expect("a report is an object");
    for key in ["created", "threads", "total_seconds", "peak_memory_bytes"].iter().chain(without) {
        assert!(object.shift_remove(*key).is_some(), "no {key}");
    }
    for phase in report["phases"].as_array_mut().expect("a list of phases") {
        let times = ["seconds", "sampling_seconds", "expected_seconds"];
        for key in times.into_iter().chain(["expected_memory_bytes", "peak_memory_bytes"]) {
            phase.as_object_mut().expect("a phase is an object").shift_remove(key).expect(key);
        }
    }
    report
}
