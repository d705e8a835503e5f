//! A run is its settings, its data and its base, and it has one owner. Also what is the user's own
//! in a folder.
#![cfg(unix)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::fixture::{Bench, Finished, checkpoint, short_recipe, weights};
use crate::resume::{EAGER, signal, start, wait_for, wait_until};

/// A recipe whose first phase reads a pipe that nobody writes to, so that it waits until it is
/// stopped.
fn waiting(bench: &Bench) {
    let made =
        Command::new("mkfifo").arg(bench.path("pipe.jsonl")).status().expect("there is a mkfifo");
    assert!(made.success());
    bench.write(
        "waiting.toml",
        &short_recipe("").replace("data = \"pretrain.jsonl\"", "data = \"pipe.jsonl\""),
    );
}

fn output(child: Child) -> Finished {
    Finished::of(child.wait_with_output().expect("the child's output can be read"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the test's folder is writable");
    for entry in fs::read_dir(from).expect("the folder can be listed") {
        let entry = entry.expect("the folder can be listed");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("the file can be copied");
    }
}

#[test]
fn two_runs_into_one_folder_the_second_is_refused() {
    let bench = Bench::new(&short_recipe(""));
    waiting(&bench);
    let mut owner = start(&bench, &["run", "waiting.toml", "--out", "run"]);
    wait_for(&bench.path("run/recipe.toml"));
    let before = bench.read("run/recipe.toml");
    let sft = ["sft", &checkpoint("2-sft"), "--data", "sft.jsonl", "--out", "run"];
    for second in [
        &["run", "tiny.toml", "--out", "run"][..],
        &["run", "tiny.toml", "--out", "run", "--seed", "2"],
        &["run", "--resume", "--out", "run"],
        &sft,
    ] {
        let error = bench.crisol(second).failed(1);
        assert!(error.contains("in use by another run"), "{error}");
        assert!(error.contains(&format!("process {} on", owner.id())), "{error}");
    }
    assert_eq!(bench.read("run/recipe.toml"), before);
    // The system releases the lock of a process that dies.
    owner.kill().expect("a child can be killed");
    owner.wait().expect("a child can be waited for");
    bench.crisol(&["run", "tiny.toml", "--out", "run"]).ok();
    bench.crisol(&["run", "--resume", "--out", "run"]).ok();
}

/// While data is read nothing would be lost, so nobody has to wait. (The pipe never gives anything:
/// without the fix the process never ends.)
#[test]
fn a_stop_is_heard_while_data_is_read() {
    for name in ["INT", "TERM"] {
        let bench = Bench::new("");
        waiting(&bench);
        let child = start(&bench, &["run", "waiting.toml", "--out", "run"]);
        wait_for(&bench.path("run/progress/1-pretrain/metrics.jsonl"));
        signal(&child, name);
        let stopped = output(child);
        assert_eq!(stopped.code, Some(130), "{stopped:#?}");
        assert!(stopped.stderr.contains("nothing is lost"), "{}", stopped.stderr);
    }
}

#[test]
fn a_users_own_files_are_left_alone() {
    let bench = Bench::new("");
    let recipe = format!("# mine\n{}", short_recipe(""));
    for own in
        ["recipe.toml", "report.html", "report.json", "1-pretrain/notes.txt", "progress/notes.txt"]
    {
        let folder = format!("own-{}", own.replace('/', "-"));
        fs::create_dir_all(bench.path(&folder).join(own).parent().expect("it has one"))
            .expect("writable");
        bench.write(&format!("{folder}/{own}"), &recipe);
        bench.write("mine.toml", &recipe);
        let given =
            if own == "recipe.toml" { format!("{folder}/{own}") } else { "mine.toml".into() };
        let error = bench.crisol(&["run", &given, "--out", &folder]).failed(1);
        let named = own.split('/').next().expect("a name");
        assert!(error.contains(&format!("{folder}/{named}")), "{error}");
        assert_eq!(bench.read(&format!("{folder}/{own}")), recipe);
        assert!(!bench.path(&folder).join("run.lock").exists(), "nothing is written");
    }
    // Files of other names are in nobody's way, and a recipe of a run that has not begun is only
    // replaced as it was written.
    bench.write("tiny.toml", &short_recipe("").replace("pretrain.jsonl", "missing.jsonl"));
    fs::create_dir(bench.path("run")).expect("writable");
    bench.write("run/notes.txt", "mine");
    for _ in 0..2 {
        bench.crisol(&["run", "tiny.toml", "--out", "run"]).failed(1);
    }
    let edited = bench.read("run/recipe.toml") + "# my own words\n";
    bench.write("run/recipe.toml", &edited);
    let error = bench.crisol(&["run", "tiny.toml", "--out", "run"]).failed(1);
    assert!(error.contains("run/recipe.toml was edited"), "{error}");
    assert_eq!(
        (bench.read("run/recipe.toml"), bench.read("run/notes.txt")),
        (edited, "mine".to_owned())
    );
}

/// An unfinished run of PPO: data, base and reward model are all somewhere.
fn unfinished() -> Bench {
    let bench = Bench::new("");
    copy(Path::new(&checkpoint("2-sft")), &bench.path("base"));
    copy(Path::new(&checkpoint("4-reward")), &bench.path("judge"));
    let recipe = format!(
        "data = \".\"\nbase = \"base\"\n{EAGER}[[phases]]\nkind = \"ppo\"\nreward_model = \"judge\"\ndata = \"prompts.jsonl\"\n\
         steps = 3000\nreplay.data = \"sft.jsonl\"\nreplay.tokens = 64\nrollout.prompts = 8\nrollout.max_new_tokens = 8\n"
    );
    bench.write("tiny.toml", &recipe);
    let mut child = start(&bench, &["run", "tiny.toml", "--out", "run"]);
    wait_for(&bench.path("run/progress/1-ppo/state"));
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
    bench
}

fn resume(bench: &Bench) -> Finished {
    bench.crisol(&["run", "--resume", "--out", "run"])
}

/// Resumes, waits for a save and stops.
fn goes_on(bench: &Bench) -> String {
    goes_on_with(bench, &["run", "--resume", "--out", "run"], "1-ppo")
}

fn goes_on_with(bench: &Bench, arguments: &[&str], phase: &str) -> String {
    let checksums = bench.path(&format!("run/progress/{phase}/state/checksums"));
    let before = fs::read(&checksums).expect("a state was saved");
    let child = start(bench, arguments);
    // While it is replaced it may be missing for a moment.
    wait_until(&checksums, || fs::read(&checksums).is_ok_and(|now| now != before));
    signal(&child, "INT");
    let stopped = output(child);
    assert_eq!(stopped.code, Some(130), "{stopped:#?}");
    stopped.stderr
}

#[test]
fn a_resume_with_other_data_base_reward_model_or_settings_is_refused() {
    let bench = unfinished();
    for file in [
        "prompts.jsonl",
        "sft.jsonl",
        "facts.test.jsonl",
        "demos.jsonl",
        "base/model.safetensors",
        "base/config.json",
        "base/tokenizer.json",
        "judge/model.safetensors",
    ] {
        let before = fs::read(bench.path(file)).expect("the file is there");
        let twice = [&before[..], &before].concat();
        let mut flipped = before.clone();
        flipped[before.len() / 2] ^= 1;
        for changed in [twice, flipped, before[..before.len() - 1].to_vec()] {
            fs::write(bench.path(file), changed).expect("the test's folder is writable");
            let error = resume(&bench).failed(1);
            assert!(
                error.contains("phase ppo cannot be resumed") && error.contains(file),
                "{error}"
            );
            assert!(error.contains("Restore") && error.contains("--out"), "{error}");
        }
        fs::remove_file(bench.path(file)).expect("the file is there");
        let error = resume(&bench).failed(1);
        assert!(error.contains(file) && error.contains("is gone"), "{error}");
        fs::write(bench.path(file), before).expect("the test's folder is writable");
    }
    let recipe = bench.read("run/recipe.toml");
    for (was, is, name) in [
        ("seed = 1", "seed = 2", "seed"),
        ("shard_tokens = 512", "shard_tokens = 256", "shard_tokens"),
        ("group_size = 1", "group_size = 2", "rollout.group_size"),
        ("rule = \"adamw\"", "rule = \"muon\"", "optimizer.rule"),
    ] {
        assert!(recipe.contains(was), "{was}");
        bench.write("run/recipe.toml", &recipe.replacen(was, is, 1));
        let error = resume(&bench).failed(1);
        assert!(error.contains(&format!("its setting `{name}` was")), "{error}");
    }
    bench.write("run/recipe.toml", &recipe);
    goes_on(&bench);
    // What may be edited is said.
    bench.write("run/recipe.toml", &recipe.replacen("lr = 0.0003", "lr = 0.0001", 1));
    let said = goes_on(&bench);
    assert!(said.contains("`optimizer.lr` was 0.0003 and is now 0.0001"), "{said}");
}

#[test]
fn every_damaged_file_of_a_state_is_found() {
    let bench = unfinished();
    let state = bench.path("run/progress/1-ppo/state");
    let mut files: Vec<_> =
        fs::read_dir(&state).expect("a state").map(|e| e.expect("a file").path()).collect();
    files.retain(|file| file.file_name().is_some_and(|name| name != ".crisol"));
    // Policy, value and reference, the moments of two, state.json and the checksums.
    assert_eq!(files.len(), 7, "{files:?}");
    files.push(bench.path("run/progress/1-ppo/metrics.jsonl"));
    for file in files {
        let before = fs::read(&file).expect("the file is there");
        let mut flipped = before.clone();
        flipped[before.len() / 3] ^= 1;
        for damaged in [Some(flipped), Some(vec![]), None] {
            match damaged {
                Some(bytes) => fs::write(&file, bytes).expect("the test's folder is writable"),
                None => fs::remove_file(&file).expect("the file is there"),
            }
            let error = resume(&bench).failed(1);
            let name = file.file_name().expect("a name").to_string_lossy();
            assert!(error.contains(&*name) && error.contains("damaged"), "{name}: {error}");
            assert!(error.contains("delete the phase's folder under progress/"), "{error}");
        }
        fs::write(&file, before).expect("the test's folder is writable");
    }
    goes_on(&bench);
}

/// The reference policy of a stage is one file, however often the state around it is saved.
#[test]
fn weights_that_do_not_change_are_written_once() {
    let bench = unfinished();
    let state = bench.path("run/progress/1-ppo/state");
    let names = ["reference.safetensors", "policy.safetensors"];
    // Second names keep the files' numbers from being used again.
    for name in names {
        fs::hard_link(state.join(name), bench.path(name)).expect("the file system has links");
    }
    goes_on(&bench);
    let number = |file: &Path| fs::metadata(file).expect("it is saved").ino();
    let kept = names.map(|name| number(&state.join(name)) == number(&bench.path(name)));
    assert_eq!(kept, [true, false]);
}

/// What came out of a pipe cannot be compared with anything, so it is said rather than taken for
/// the same.
#[test]
fn data_from_a_pipe_cannot_be_resumed() {
    let bench = Bench::new("");
    let model = checkpoint("1-pretrain");
    let mut command = bench.command(&["sft", &model, "--data", "/dev/stdin", "--out", "run"]);
    command.args(["--set", "checkpoint_seconds=0", "--set", "epochs=2000"]);
    let mut child =
        command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary starts");
    let mut pipe = child.stdin.take().expect("it is piped");
    pipe.write_all(bench.read("sft.jsonl").as_bytes()).expect("the binary reads");
    drop(pipe);
    wait_for(&bench.path("run/progress/1-sft/state"));
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
    let error = bench.crisol(&["sft", "--resume", "--out", "run"]).failed(1);
    assert!(
        error.contains("/dev/stdin") && error.contains("is a pipe, which cannot be read again"),
        "{error}"
    );
}

/// A finished phase counts too: what stands on it would stand on something else.
#[test]
fn finished_phases_are_compared_as_well() {
    let bench = Bench::new(&short_recipe(""));
    bench.crisol(&["run", "tiny.toml", "--out", "run"]).ok();
    let whole = weights(&bench.path("run"));
    let data = bench.read("sft.jsonl");
    bench.write("sft.jsonl", &(data.clone() + &data));
    let error = bench.crisol(&["run", "--resume", "--out", "run"]).failed(1);
    assert!(error.contains("phase sft") && error.contains("sft.jsonl"), "{error}");
    // Data that is gone is not needed any more.
    fs::remove_file(bench.path("sft.jsonl")).expect("the file is there");
    bench.crisol(&["run", "--resume", "--out", "run"]).ok();
    bench.write("sft.jsonl", &data);
    // A parent that is trained again is the same again.
    fs::remove_dir_all(bench.path("run/1-pretrain")).expect("the folder is there");
    bench.crisol(&["run", "--resume", "--out", "run"]).ok();
    assert!(weights(&bench.path("run")) == whole);
    let model = bench.path("run/1-pretrain/model.safetensors");
    let mut other = fs::read(&model).expect("the file is there");
    *other.last_mut().expect("it has bytes") ^= 1;
    fs::write(&model, other).expect("the test's folder is writable");
    let error = bench.crisol(&["run", "--resume", "--out", "run"]).failed(1);
    assert!(
        error.contains("phase sft") && error.contains("1-pretrain/model.safetensors"),
        "{error}"
    );
}

#[test]
fn a_single_phase_is_resumed_without_saying_everything_again() {
    let bench = Bench::new("");
    let model = checkpoint("1-pretrain");
    let begin =
        ["sft", &model, "--data", "sft.jsonl", "--out", "run", "--set", "checkpoint_seconds=0"];
    let begin = [&begin[..], &["--set", "epochs=2000"]].concat();
    let mut child = start(&bench, &begin);
    wait_for(&bench.path("run/progress/1-sft/state"));
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
    let error = bench.crisol(&["dpo", "--resume", "--out", "run"]).failed(1);
    assert!(error.contains("holds a run of sft"), "{error}");
    let error = bench.crisol(&["sft", &model, "--resume", "--out", "run"]).failed(2);
    assert!(error.contains("the whole command line again"), "{error}");
    goes_on_with(&bench, &["sft", "--resume", "--out", "run"], "1-sft");
    let error = bench.crisol(&["sft", "--out", "elsewhere"]);
    assert_eq!(error.code, Some(2), "{error:#?}");
    let error = bench.crisol(&["sft", "--resume", "--out", "elsewhere"]).failed(1);
    assert!(error.contains("no run"), "{error}");
}

#[test]
fn seeds_have_folders_of_their_own() {
    let bench = Bench::new(&short_recipe(""));
    bench.crisol(&["run", "tiny.toml"]).ok();
    bench.crisol(&["run", "tiny.toml", "--seed", "3"]).ok();
    bench.write("tiny.toml", &short_recipe("seed = 4\n"));
    bench.crisol(&["run", "tiny.toml"]).ok();
    for folder in ["runs/tiny", "runs/tiny-seed3", "runs/tiny-seed4"] {
        assert!(bench.path(folder).join("report.html").exists(), "{folder}");
    }
}
