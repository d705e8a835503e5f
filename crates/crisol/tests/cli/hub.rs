//! Models by their names on a hub: fetched, found again, refused; with a hub of our own
//! (`loopback.rs`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixture::{Bench, Finished, checkpoint, read};
use crate::loopback::{COMMIT, Hub, ID, Large, Reply, Request, Twist, etag, refusal};

const WEIGHTS: &str = "model.safetensors";

fn repository(bench: &Bench) -> PathBuf {
    bench.path("home/hub/models--org--tiny")
}

fn snapshot(bench: &Bench) -> PathBuf {
    repository(bench).join("snapshots").join(COMMIT)
}

/// Name → was there before, of what `crisol pull --json` lists.
fn listed(pulled: &Value) -> BTreeMap<String, bool> {
    let file = |file: &Value| Some((file["name"].as_str()?.to_owned(), file["cached"].as_bool()?));
    pulled["files"].as_array().unwrap().iter().map(|entry| file(entry).unwrap()).collect()
}

/// All files and folders below one.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

const SAY: [&str; 4] = ["--prompt", "The sky", "--max-new-tokens", "4"];

fn generate(hub: &Hub, bench: &Bench, id: &str, more: &[&str]) -> Finished {
    hub.crisol(bench, &[&["generate", id], &SAY[..], more].concat())
}

/// What the model says that the hub has, asked by its path.
fn expected(bench: &Bench) -> String {
    bench.crisol(&[&["generate", &checkpoint("2-sft")], &SAY[..]].concat()).ok()
}

#[test]
fn pulled_then_used_then_offline() {
    let (hub, bench) = (Hub::new(), Bench::new(""));
    let pulled = hub.crisol(&bench, &["pull", ID, "--json"]).json();
    let keys: Vec<&String> = pulled.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["repository", "revision", "folder", "files"]);
    assert_eq!((&pulled["repository"], &pulled["revision"]), (&ID.into(), &COMMIT.into()));
    assert_eq!(pulled["folder"].as_str().unwrap(), snapshot(&bench).to_str().unwrap());
    // Neither code nor a second form of the weights.
    let names = [
        "config.json",
        "generation_config.json",
        WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    let files = listed(&pulled);
    assert_eq!(files.keys().collect::<Vec<_>>(), names);
    assert!(files.values().all(|cached| !cached));

    // The layout of Python's huggingface_hub.
    assert_eq!(read(&repository(&bench).join("refs/main")), COMMIT);
    for name in names {
        let contents = hub.file(name);
        let blob = repository(&bench).join("blobs").join(etag(name, &contents));
        assert!(fs::read(&blob).unwrap() == contents, "{name}");
        #[cfg(unix)]
        assert_eq!(
            fs::read_link(snapshot(&bench).join(name)).unwrap(),
            Path::new("../../blobs").join(etag(name, &contents))
        );
    }
    assert!(
        tree(&bench.path("home"))
            .iter()
            .all(|path| !path.to_string_lossy().contains(".incomplete"))
    );

    // By its name it is the same model, and nobody is asked again.
    hub.log();
    assert_eq!(generate(&hub, &bench, ID, &[]).ok(), expected(&bench));
    assert_eq!(generate(&hub, &bench, ID, &["--offline"]).ok(), expected(&bench));
    assert_eq!(generate(&hub, &bench, &format!("{ID}@{COMMIT}"), &[]).ok(), expected(&bench));
    let mut offline = hub.command(&bench, &[&["generate", ID], &SAY[..]].concat());
    offline.env("HF_HUB_OFFLINE", "1");
    assert_eq!(Finished::of(offline.output().unwrap()).ok(), expected(&bench));
    let folder = hub.crisol(&bench, &["pull", ID, "--offline"]).ok();
    assert_eq!(folder.trim_end(), snapshot(&bench).to_str().unwrap());
    assert!(hub.log().is_empty());

    // Pulling asks whether there is something newer, and fetches nothing again.
    let again = hub.crisol(&bench, &["pull", ID, "--json"]).json();
    assert!(listed(&again).values().all(|cached| *cached));
    let log = hub.log();
    assert!(
        log.iter().all(|request| request.method == "HEAD" || request.path.starts_with("/api/")),
        "{log:?}"
    );
    // A tag of the same commit is a reference more.
    hub.crisol(&bench, &["pull", &format!("{ID}@refs/pr/3")]).ok();
    assert_eq!(read(&repository(&bench).join("refs/refs/pr/3")), COMMIT);
}

#[test]
fn every_command_that_takes_a_model_takes_a_name() {
    let (hub, bench) = (Hub::new(), Bench::new(""));
    hub.large(Large::Elsewhere);
    // What training would cost and what data would train needs no weights.
    let cost = hub.crisol(&bench, &["cost", ID, "--tokens", "1M", "--json"]).json();
    assert_eq!(
        cost["flops"],
        bench.crisol(&["cost", &checkpoint("2-sft"), "--tokens", "1M", "--json"]).json()["flops"]
    );
    let inspect = ["data", "inspect", "sft.jsonl", "--model", ID, "--json"];
    let inspected = hub.crisol(&bench, &inspect).json();
    assert_eq!(inspected["context"], 64);
    assert!(!hub.log().iter().any(|request| request.path.ends_with(WEIGHTS)));
    hub.crisol(&bench, &inspect).ok();
    assert!(hub.log().is_empty());
    // The rest of the model is fetched when it is needed, and said to be.
    let said = generate(&hub, &bench, ID, &[]);
    assert!(
        said.stderr.contains("Fetching org/tiny") && said.stderr.contains("1 file, "),
        "{}",
        said.stderr
    );
    assert_eq!(said.ok(), expected(&bench));
    assert!(hub.log().iter().any(|request| request.wants(WEIGHTS) && request.cdn));

    let name = hub.crisol(&bench, &["score", ID, "--text", "The sky", "--json"]).json();
    assert_eq!(
        name,
        bench.crisol(&["score", &checkpoint("2-sft"), "--text", "The sky", "--json"]).json()
    );
    let compared = hub.crisol(
        &bench,
        &["compare", ID, &checkpoint("1-pretrain"), "--prompts", "demos.jsonl", "--json"],
    );
    assert!(compared.json()[0]["outputs"][ID].is_string());
    hub.crisol(&bench, &["chat", ID]).ok();
    let phases = [("sft", "sft"), ("pretrain", "pretrain"), ("dpo", "votes"), ("reward", "votes")];
    for (phase, data) in phases {
        let (data, out) = (format!("{data}.jsonl"), format!("out-{phase}"));
        let train = [phase, ID, "--data", &data, "--out", &out, "--set", "epochs=0.1", "--offline"];
        hub.crisol(&bench, &train).ok();
        let recipe = bench.read(&format!("{out}/recipe.toml"));
        assert!(recipe.contains(&format!("snapshots/{COMMIT}")), "{recipe}");
    }
    for (phase, data, more) in
        [("reason", "problems", None), ("ppo", "prompts", Some(["--reward-model", ID]))]
    {
        let (data, out) = (format!("{data}.jsonl"), format!("out-{phase}"));
        let train = [phase, ID, "--data", &data, "--out", &out, "--set", "steps=1"];
        let finished =
            hub.crisol(&bench, &[&train[..], more.as_ref().map_or(&[], |more| &more[..])].concat());
        // The name is no reward model; that it is said means that it was found.
        if phase == "ppo" {
            assert!(finished.failed(1).contains("scalar head"));
        } else {
            drop(finished.ok());
        }
    }
    assert!(hub.log().is_empty());
}

#[test]
fn what_exists_has_precedence() {
    let (hub, bench) = (Hub::new(), Bench::new(""));
    fs::create_dir_all(bench.path(ID)).unwrap();
    for name in [
        "config.json",
        WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ] {
        fs::copy(format!("{}/{name}", checkpoint("2-sft")), bench.path(ID).join(name)).unwrap();
    }
    assert_eq!(generate(&hub, &bench, ID, &[]).ok(), expected(&bench));
    assert!(hub.log().is_empty());
    // What is no name on a hub is a path.
    for path in ["nowhere", "./org/none", "org/tiny/none", "org/x.gguf"] {
        assert!(generate(&hub, &bench, path, &[]).failed(1).contains("no such folder"), "{path}");
    }
    assert!(hub.log().is_empty());
}

/// A cache as Python leaves it: without locks, with references and links; and one with a file gone.
#[cfg(unix)]
#[test]
fn caches_that_python_made() {
    let (hub, bench) = (Hub::new(), Bench::new(""));
    let cache = bench.path("elsewhere/models--org--tiny");
    for folder in ["blobs", "refs"] {
        fs::create_dir_all(cache.join(folder)).unwrap();
    }
    let folder = cache.join("snapshots").join(COMMIT);
    fs::create_dir_all(&folder).unwrap();
    fs::write(cache.join("refs/main"), COMMIT).unwrap();
    for name in [
        "config.json",
        WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ] {
        fs::write(cache.join("blobs").join(name), hub.file(name)).unwrap();
        std::os::unix::fs::symlink(Path::new("../../blobs").join(name), folder.join(name)).unwrap();
    }
    let run = |more: &[&str]| {
        let mut command = hub.command(&bench, &[&["generate", ID], &SAY[..], more].concat());
        command.env("HF_HUB_CACHE", bench.path("elsewhere"));
        Finished::of(command.output().unwrap())
    };
    assert_eq!(run(&[]).ok(), expected(&bench));
    assert!(hub.log().is_empty());
    fs::remove_file(cache.join("blobs").join(WEIGHTS)).unwrap();
    assert!(run(&["--offline"]).failed(1).contains("incomplete"));
    assert_eq!(run(&[]).ok(), expected(&bench));
}

#[test]
fn weights_in_parts_and_of_pytorch() {
    let (hub, bench) = (Hub::new(), Bench::new(""));
    let index =
        |name: &str| format!(r#"{{"weight_map": {{"a": "model-1.safetensors", "b": "{name}"}}}}"#);
    hub.put("model-1.safetensors", &hub.file(WEIGHTS));
    hub.remove(WEIGHTS);
    hub.put("model.safetensors.index.json", index("model-2.safetensors").as_bytes());
    let error = hub.crisol(&bench, &["pull", ID]).failed(1);
    assert!(
        error.contains("model-2.safetensors") && error.contains("not in the repository"),
        "{error}"
    );
    // A file without a tensor.
    hub.put("model-2.safetensors", b"\x02\0\0\0\0\0\0\0{}");
    let files = listed(&hub.crisol(&bench, &["pull", ID, "--json"]).json());
    assert!(
        files.contains_key("model-1.safetensors") && files.contains_key("model-2.safetensors"),
        "{files:?}"
    );
    assert!(!files.contains_key("pytorch_model.bin"));
    assert_eq!(generate(&hub, &bench, ID, &["--offline"]).ok(), expected(&bench));
    // A part that is gone makes the model one that is not whole.
    fs::remove_file(snapshot(&bench).join("model-2.safetensors")).unwrap();
    assert!(generate(&hub, &bench, ID, &["--offline"]).failed(1).contains("incomplete"));

    hub.remove("model.safetensors.index.json");
    let files = listed(&hub.crisol(&bench, &["pull", ID, "--json"]).json());
    assert!(files.contains_key("pytorch_model.bin") && !files.contains_key("model-1.safetensors"));
    hub.remove("pytorch_model.bin");
    assert!(hub.crisol(&bench, &["pull", ID]).failed(1).contains("no weights"));
}

#[test]
fn gguf_files_are_named_one_by_one() {
    let files = ["tiny-Q8_0.gguf", "tiny-Q4_0.gguf", "big-00001-of-00002.gguf", "README.md"];
    let hub = Hub::with(files.map(|name| (name.to_owned(), name.as_bytes().to_vec())).into());
    let bench = Bench::new("");
    let error = generate(&hub, &bench, ID, &[]).failed(1);
    assert!(
        error.contains("org/tiny:")
            && error.contains("tiny-Q4_0.gguf")
            && !error.contains("README"),
        "{error}"
    );
    let error = hub.crisol(&bench, &["pull", "org/tiny:none.gguf"]).failed(1);
    assert!(error.contains("no file none.gguf") && error.contains("tiny-Q8_0.gguf"), "{error}");
    assert!(
        hub.crisol(&bench, &["pull", "org/tiny:big-00001-of-00002.gguf"])
            .failed(1)
            .contains("split")
    );
    let path = hub.crisol(&bench, &["pull", "org/tiny:tiny-Q8_0.gguf"]).ok();
    assert_eq!(read(Path::new(path.trim_end())), "tiny-Q8_0.gguf");
    // Only that file, and it is the model.
    assert_eq!(fs::read_dir(snapshot(&bench)).unwrap().count(), 1);
    let error = generate(&hub, &bench, "org/tiny:tiny-Q8_0.gguf", &["--offline"]).failed(1);
    assert!(error.contains("tiny-Q8_0.gguf is"), "{error}");
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let (hub, bench) = (Hub::new(), Bench::new(""));
    hub.large(Large::Elsewhere);
    fs::create_dir(bench.path("home")).unwrap();
    bench.write("home/token", "hf_of_the_file\n");
    let check = |token: &str| {
        let log = hub.log();
        let (cdn, own): (Vec<Request>, Vec<Request>) =
            log.into_iter().partition(|request| request.cdn);
        assert!(
            own.len() > 3 && own.iter().all(|request| request.token.as_deref() == Some(token)),
            "{own:?}"
        );
        assert!(!cdn.is_empty() && cdn.iter().all(|request| request.token.is_none()), "{cdn:?}");
    };
    hub.crisol(&bench, &["pull", ID]).ok();
    check("hf_of_the_file");
    fs::remove_dir_all(bench.path("home/hub")).unwrap();
    let mut command = hub.command(&bench, &["pull", ID]);
    Finished::of(command.env("HF_TOKEN", "hf_given").output().unwrap()).ok();
    check("hf_given");
    let mut command = hub.command(&bench, &["pull", ID]);
    let error = Finished::of(command.env("HF_TOKEN", "hf\nx: y").output().unwrap()).failed(1);
    assert!(error.contains("HF_TOKEN") && !error.contains("x: y"), "{error}");
}

/// The bytes that a reply has, cut off where a test says.
fn cut(reply: &Reply, at: usize) -> Reply {
    Reply { cut: Some(at), ..reply.clone() }
}

#[test]
fn a_dropped_connection_is_taken_up_again() {
    for (large, ranges) in [
        (Large::Here, true),
        (Large::Relative, true),
        (Large::Elsewhere, true),
        (Large::Relative, false),
    ] {
        let (hub, bench) = (Hub::new(), Bench::new(""));
        hub.large(large);
        if !ranges {
            hub.without_ranges();
        }
        hub.twist(|request, before, reply| {
            let drop = request.wants(WEIGHTS) && reply.status < 300 && before < 2;
            drop.then(|| cut(reply, 30_000))
        });
        let pulled = hub.crisol(&bench, &["pull", ID]);
        assert!(pulled.stderr.contains("trying again"), "{}", pulled.stderr);
        pulled.ok();
        if ranges {
            let log = hub.log();
            let starts = |request: &Request| request.wants(WEIGHTS) && request.start.is_some();
            assert!(
                log.iter().any(|request| starts(request) && request.start == Some(60_000)),
                "{log:?}"
            );
        }
        assert!(fs::read(snapshot(&bench).join(WEIGHTS)).unwrap() == hub.file(WEIGHTS));
    }
}

#[test]
fn a_killed_download_goes_on_where_it_stopped() {
    let (hub, bench) = (Hub::new(), Bench::new(""));
    hub.twist(|request, _, reply| {
        let stall = request.wants(WEIGHTS) && reply.status == 200;
        stall.then(|| Reply { stall: true, ..cut(reply, 40_000) })
    });
    let mut child = hub
        .command(&bench, &["pull", ID])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let blobs = repository(&bench).join("blobs");
    let part = blobs.join(format!("{}.incomplete", etag(WEIGHTS, &hub.file(WEIGHTS))));
    let began = Instant::now();
    while !part.metadata().is_ok_and(|part| part.len() == 40_000) {
        assert!(began.elapsed() < Duration::from_mins(1), "nothing arrives");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Nobody takes the part for a model.
    assert!(!repository(&bench).join("refs/main").exists());
    assert!(generate(&hub, &bench, ID, &["--offline"]).failed(1).contains("crisol pull org/tiny"));

    hub.honest();
    hub.log();
    let resumed = hub.crisol(&bench, &["pull", ID, "--json"]);
    assert!(resumed.stderr.contains("going on after 40.0 kB"), "{}", resumed.stderr);
    assert!(!listed(&resumed.json())[WEIGHTS]);
    assert!(
        hub.log().iter().any(|request| request.wants(WEIGHTS) && request.start == Some(40_000))
    );
    assert!(!part.exists());
    assert_eq!(generate(&hub, &bench, ID, &["--offline"]).ok(), expected(&bench));
}

#[test]
fn two_processes_fetch_a_file_once() {
    let (hub, bench) = (Hub::new(), Bench::new(""));
    let start = || {
        let mut command = hub.command(&bench, &["pull", ID]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for child in [start(), start()] {
        Finished::of(child.wait_with_output().unwrap()).ok();
    }
    let fetched = |request: &&Request| request.path == format!("/large/{WEIGHTS}");
    assert_eq!(hub.log().iter().filter(fetched).count(), 1);
    assert_eq!(generate(&hub, &bench, ID, &["--offline"]).ok(), expected(&bench));
}

#[test]
fn troubles_that_pass_and_troubles_that_stay() {
    let (hub, bench) = (Hub::new(), Bench::new(""));
    hub.twist(|_, before, _| (before == 0).then(|| Reply::new(503, &[], b"busy")));
    hub.crisol(&bench, &["pull", ID]).ok();

    let bench = Bench::new("");
    hub.twist(|request, _, _| request.wants("config.json").then(|| Reply::new(500, &[], b"")));
    let error = hub.crisol(&bench, &["pull", ID]).failed(1);
    assert!(
        error.contains("config.json") && error.contains("500") && error.contains("0 of"),
        "{error}"
    );
}

#[test]
fn what_arrives_must_be_what_was_described() {
    let (hub, bench) = (Hub::new(), Bench::new(""));
    let right = etag(WEIGHTS, &hub.file(WEIGHTS));
    hub.twist(|request, _, reply| {
        let mut wrong = reply.clone();
        *wrong.body.last_mut()? ^= 1;
        (request.wants(WEIGHTS) && reply.status == 200).then_some(wrong)
    });
    let error = hub.crisol(&bench, &["pull", ID]).failed(1);
    assert!(
        error.contains("SHA-256") && error.contains(&right) && error.contains(WEIGHTS),
        "{error}"
    );
    let blobs = repository(&bench).join("blobs");
    assert!(!tree(&blobs).iter().any(|path| path.to_string_lossy().contains(&right)));
    assert!(!snapshot(&bench).join(WEIGHTS).exists());

    // Remains that are wrong cost a second download, no more.
    hub.honest();
    let remains = blobs.join(format!("{right}.incomplete"));
    fs::write(&remains, vec![7; 1000]).unwrap();
    hub.crisol(&bench, &["pull", ID]).ok();
    assert_eq!(generate(&hub, &bench, ID, &["--offline"]).ok(), expected(&bench));
    // So does a file in the cache of another length.
    fs::write(blobs.join(&right), "short").unwrap();
    hub.crisol(&bench, &["pull", ID]).ok();
    assert!(fs::read(blobs.join(&right)).unwrap() == hub.file(WEIGHTS));

    // Too long, too short, from elsewhere in the file.
    let lies: [fn(&mut Reply); 3] = [
        |reply| reply.body.push(b' '),
        |reply| reply.body.truncate(reply.body.len() - 1),
        |reply| {
            reply.status = 206;
            reply.headers.push(("content-range", format!("bytes 5-9/{}", reply.body.len())));
        },
    ];
    for lie in lies {
        let bench = Bench::new("");
        hub.twist(move |request, _, reply| {
            let mut reply = reply.clone();
            lie(&mut reply);
            request.wants("config.json").then_some(reply)
        });
        let error = hub.crisol(&bench, &["pull", ID]).failed(1);
        assert!(
            error.contains("config.json") && error.contains("not what a hub answers"),
            "{error}"
        );
        assert!(!snapshot(&bench).join("config.json").exists());
    }
}

#[test]
fn refusals_say_what_to_do() {
    let (hub, bench) = (Hub::new(), Bench::new(""));
    let page = format!("{}/org/tiny", hub.endpoint);
    let pull = |name: &str| hub.crisol(&bench, &["pull", name]).failed(1);
    let none = pull("org/none");
    assert!(none.contains("no such repository") && none.contains("HF_TOKEN"), "{none}");
    let revision = pull("org/tiny@v9");
    assert!(revision.contains("no revision `v9`") && revision.contains(&page), "{revision}");
    hub.twist(|request, _, _| {
        request.path.ends_with("config.json").then(|| refusal(404, "EntryNotFound"))
    });
    assert!(pull(ID).contains("no file config.json"));
    for (status, code) in [(401, "GatedRepo"), (403, "GatedRepo")] {
        hub.twist(move |request, _, _| {
            request.path.contains("/resolve/").then(|| refusal(status, code))
        });
        let gated = pull(ID);
        assert!(
            gated.contains("gated") && gated.contains("licence") && gated.contains("HF_TOKEN"),
            "{gated}"
        );
        assert!(gated.contains(&page) && gated.contains("so says the hub"), "{gated}");
    }
    hub.twist(|_, _, _| Some(refusal(401, "")));
    assert!(pull(ID).contains("HF_TOKEN"));
    let mut command = hub.command(&bench, &["pull", ID]);
    let error = Finished::of(command.env("HF_TOKEN", "hf_old").output().unwrap()).failed(1);
    assert!(error.contains("refuses the token") && !error.contains("hf_old"), "{error}");
    hub.twist(|_, _, _| Some(refusal(403, "")));
    assert!(pull(ID).contains("access is denied"));
    hub.twist(|_, _, _| Some(refusal(418, "")));
    assert!(pull(ID).contains("418"));

    let offline = hub.crisol(&bench, &["pull", ID, "--offline"]).failed(1);
    assert!(offline.contains("not in the cache") && offline.contains("home/hub"), "{offline}");
    // Nothing listens at this port any more.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = hub.command(&bench, &["pull", ID]);
    let error =
        Finished::of(command.env("HF_ENDPOINT", format!("http://{free}")).output().unwrap())
            .failed(1);
    assert!(error.contains("cannot reach") && error.contains("--offline"), "{error}");
    let mut command = hub.command(&bench, &["pull", ID]);
    let error = Finished::of(command.env("HF_ENDPOINT", "ftp://x").output().unwrap()).failed(1);
    assert!(error.contains("HF_ENDPOINT"), "{error}");
    // No command makes sense of these.
    for name in ["tiny", "org/tiny@", "org/tiny:x.bin", "../tiny", "org/tiny@../x"] {
        hub.crisol(&bench, &["pull", name]).failed(2);
    }
}

/// A write that fails (here: a limit on the size of files, as on a full disk) leaves what can be
/// gone on with.
#[cfg(unix)]
#[test]
fn a_full_disk_is_named() {
    let (hub, bench) = (Hub::new(), Bench::new(""));
    let environment = hub.command(&bench, &[]);
    let mut shell = Command::new("sh");
    let script = "trap '' XFSZ; ulimit -f 80; exec \"$0\" pull org/tiny";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_crisol")]).current_dir(bench.path(""));
    for (name, value) in environment.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let error = Finished::of(shell.output().unwrap()).failed(1);
    assert!(error.contains("cannot write") && error.contains("home/hub"), "{error}");
    let resumed = hub.crisol(&bench, &["pull", ID]);
    assert!(resumed.stderr.contains("going on after"), "{}", resumed.stderr);
    assert_eq!(generate(&hub, &bench, ID, &["--offline"]).ok(), expected(&bench));
}

/// A hub that wants to write elsewhere, to fill memory or to keep the program busy gets an error.
#[test]
fn hostile_hubs() {
    let list = |json: &'static str| {
        move |request: &Request, _: usize, _: &Reply| {
            request.path.starts_with("/api/").then(|| Reply::new(200, &[], json.as_bytes()))
        }
    };
    let head = |name: &'static str, value: &'static str| {
        move |request: &Request, _: usize, reply: &Reply| {
            let mut reply = reply.clone();
            reply.headers.retain(|(header, _)| *header != name);
            reply.headers.push((name, value.to_owned()));
            (request.method == "HEAD").then_some(reply)
        }
    };
    let endless = Reply { endless: true, ..Reply::new(200, &[], br#"{"rfilename": "a"}, "#) };
    let sha = |json: &str| &*json.replace("SHA", COMMIT).leak();
    let cases: Vec<(Twist, &str)> = vec![
        (
            Box::new(list(sha(r#"{"sha": "SHA", "siblings": [{"rfilename": "../../../evil"}]}"#))),
            "a file called",
        ),
        (
            Box::new(list(sha(r#"{"sha": "SHA", "siblings": [{"rfilename": "/evil"}]}"#))),
            "a file called",
        ),
        (Box::new(list(r#"{"sha": "../../../evil", "siblings": []}"#)), "a commit called"),
        (Box::new(list("<html>")), "not what a hub answers"),
        (Box::new(list("{}")), "is missing"),
        (Box::new(move |_, _, _| Some(endless.clone())), "more than 16777216 bytes"),
        (Box::new(head("etag", "\"../../../evil\"")), "an ETag"),
        (Box::new(head("x-linked-etag", "\"../../../evil\"")), "an ETag"),
        (Box::new(head("content-length", "9223372036854775807")), "more than any such file"),
        (Box::new(head("x-linked-size", "9223372036854775807")), "more than any such file"),
        (Box::new(head("x-linked-size", "many")), "no size"),
        (
            Box::new(|request, n, _| {
                Some(Reply::new(302, &[("location", &format!("{}?{n}", request.path))], b""))
            }),
            "redirects more than",
        ),
        (
            Box::new(|_, _, _| Some(Reply::new(302, &[("location", "file:///etc/hostname")], b""))),
            "redirects to nowhere",
        ),
    ];
    for (twist, expected) in cases {
        let (hub, bench) = (Hub::new(), Bench::new(""));
        let before = tree(&bench.path(""));
        hub.twist(twist);
        let error = hub.crisol(&bench, &["pull", ID]).failed(1);
        assert!(error.contains(expected), "{expected}: {error}");
        let cache = bench.path("home");
        let mut after = tree(&bench.path(""));
        after.retain(|path| !path.starts_with(&cache));
        assert_eq!(after, before, "{expected}");
        assert!(!tree(&cache).iter().any(|path| path.ends_with("evil")), "{expected}");
    }
    // An index that leads out of the folder, and one that is none.
    for index in [
        r#"{"weight_map": {"a": "../../../evil.safetensors"}}"#,
        r#"{"weight_map": {"a": "run.py"}}"#,
        "[]",
    ] {
        let (hub, bench) = (Hub::new(), Bench::new(""));
        hub.remove(WEIGHTS);
        hub.put("model.safetensors.index.json", index.as_bytes());
        let error = hub.crisol(&bench, &["pull", ID]).failed(1);
        assert!(error.contains("model.safetensors.index.json"), "{error}");
    }
}
