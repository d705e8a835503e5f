//! A hub on this machine that speaks as much of the real one's HTTP as the program asks for, and
//! misbehaves on request.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::fixture::{Bench, Finished, checkpoint};

/// The one repository of the hub, unless a test says otherwise.
pub(crate) const ID: &str = "org/tiny";
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Of the branch with the hub's own Parquet files, which are those in this folder.
const CONVERTED_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";
pub(crate) const CONVERTED: &str = "@converted/";

/// What the hub is asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// The first byte that is wanted, where a range is.
    pub(crate) start: Option<u64>,
    pub(crate) token: Option<String>,
    /// Whether it came to the address that large files are redirected to.
    pub(crate) cdn: bool,
}

impl Request {
    /// Whether the bytes of a file are asked for, wherever they are.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.method == "GET" && self.path.ends_with(&format!("/{name}"))
    }
}

/// What it answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Send this many bytes of the body and close the connection.
    pub(crate) cut: Option<usize>,
    /// Send what `cut` says and then nothing, but keep the connection.
    pub(crate) stall: bool,
    /// Send the body over and over.
    pub(crate) endless: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Reply {
        let headers = headers.iter().map(|&(name, value)| (name, value.to_owned())).collect();
        Reply { status, headers, body: body.to_vec(), ..Reply::default() }
    }
}

/// Where large files are.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Large {
    Here,
    /// Redirected to another path of the hub.
    Relative,
    /// Redirected to another host.
    Elsewhere,
}

type Files = BTreeMap<String, Vec<u8>>;
/// What a test has answered instead: it sees the request, how many like it there were before, and
/// the honest answer.
pub(crate) type Twist = Box<dyn FnMut(&Request, usize, &Reply) -> Option<Reply> + Send>;

struct State {
    files: Files,
    large: Large,
    ranges: bool,
    cdn: String,
    twist: Option<Twist>,
    log: Vec<Request>,
}

/// A hub that answers until the test ends.
pub(crate) struct Hub {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// With a tiny model that can chat, and what else is in repositories.
    pub(crate) fn new() -> Hub {
        let mut files = Files::new();
        let folder = checkpoint("2-sft");
        for name in [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ] {
            files.insert(
                name.into(),
                std::fs::read(Path::new(&folder).join(name)).expect("a checkpoint has it"),
            );
        }
        for name in [
            "README.md",
            "modeling_tiny.py",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "odd: name?.txt",
        ] {
            files.insert(name.into(), b"not for us".to_vec());
        }
        Hub::with(files)
    }

    pub(crate) fn with(files: Files) -> Hub {
        let (hub, cdn) = (listener(), listener());
        let address = |listener: &TcpListener| {
            format!("http://{}", listener.local_addr().expect("a bound listener has an address"))
        };
        let endpoint = address(&hub);
        let state = State {
            files,
            large: Large::Relative,
            ranges: true,
            cdn: address(&cdn),
            twist: None,
            log: vec![],
        };
        let state = Arc::new(Mutex::new(state));
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = Arc::clone(&state);
                    // A client that goes away is part of the tests.
                    std::thread::spawn(move || serve(&stream, &state, is_cdn).ok());
                }
            });
        }
        Hub { endpoint, state }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no handler panics"));
    }

    pub(crate) fn large(&self, large: Large) {
        self.change(|state| state.large = large);
    }

    pub(crate) fn without_ranges(&self) {
        self.change(|state| state.ranges = false);
    }

    pub(crate) fn put(&self, name: &str, contents: &[u8]) {
        self.change(|state| drop(state.files.insert(name.into(), contents.to_vec())));
    }

    pub(crate) fn remove(&self, name: &str) {
        self.change(|state| drop(state.files.remove(name).expect("it is there")));
    }

    pub(crate) fn file(&self, name: &str) -> Vec<u8> {
        self.state.lock().expect("no handler panics").files[name].clone()
    }

    pub(crate) fn twist(
        &self,
        twist: impl FnMut(&Request, usize, &Reply) -> Option<Reply> + Send + 'static,
    ) {
        self.change(|state| state.twist = Some(Box::new(twist)));
    }

    pub(crate) fn honest(&self) {
        self.change(|state| state.twist = None);
    }

    /// The requests since this was asked last.
    pub(crate) fn log(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().expect("no handler panics").log)
    }

    /// The binary in the bench's folder, with this hub and a cache of the bench's own.
    pub(crate) fn command(&self, bench: &Bench, arguments: &[&str]) -> Command {
        let mut command = bench.command(arguments);
        for variable in [
            "HF_TOKEN",
            "HF_TOKEN_PATH",
            "HF_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "http_proxy",
            "HTTP_PROXY",
            "ALL_PROXY",
            "all_proxy",
        ] {
            command.env_remove(variable);
        }
        command.env("HF_ENDPOINT", &self.endpoint).env("HF_HOME", bench.path("home"));
        command
    }

    pub(crate) fn crisol(&self, bench: &Bench, arguments: &[&str]) -> Finished {
        Finished::of(self.command(bench, arguments).output().expect("the binary starts"))
    }
}

/// The hash that the hub gives large files.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The ETag of a file: the real hub gives small ones git's hash, which nobody checks.
pub(crate) fn etag(name: &str, bytes: &[u8]) -> String {
    let hash = sha256(bytes);
    if is_large(name) { hash } else { hash[..40].to_owned() }
}

fn is_large(name: &str) -> bool {
    [".safetensors", ".bin", ".gguf", ".parquet", "tokenizer.json"]
        .iter()
        .any(|end| name.ends_with(end))
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("this machine has a loopback address")
}

fn serve(stream: &TcpStream, state: &Mutex<State>, cdn: bool) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = Request { method, path, start: None, token: None, cdn };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let start = value.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
                request.start = start.and_then(|start| start.parse().ok());
            }
            "authorization" => request.token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    let reply = {
        let mut state = state.lock().expect("no handler panics");
        let before = state
            .log
            .iter()
            .filter(|past| past.path == request.path && past.method == request.method)
            .count();
        state.log.push(request.clone());
        let honest = answer(&state, &request);
        let twisted = state.twist.as_mut().and_then(|twist| twist(&request, before, &honest));
        twisted.unwrap_or(honest)
    };
    send(stream, &reply, request.method == "HEAD")
}

/// What the real hub answers.
fn answer(state: &State, request: &Request) -> Reply {
    let path = &request.path;
    // The one repository is a model and a data set.
    let (path, kind) = match path.strip_prefix("/datasets/") {
        Some(rest) => (&format!("/{rest}"), "models"),
        None => (path, if path.starts_with("/api/datasets/") { "datasets" } else { "models" }),
    };
    let converted = |name: &String| name.strip_prefix(CONVERTED).map(str::to_owned);
    if path == &format!("/api/{kind}/{ID}/revision/refs%2Fconvert%2Fparquet") {
        let files: Vec<_> = state.files.keys().filter_map(converted).collect();
        if files.is_empty() {
            return refusal(404, "RevisionNotFound");
        }
        let siblings: Vec<_> = files.iter().map(|name| json!({"rfilename": name})).collect();
        let info = json!({"id": ID, "sha": CONVERTED_COMMIT, "siblings": siblings});
        return Reply::new(
            200,
            &[("content-type", "application/json")],
            info.to_string().as_bytes(),
        );
    }
    if let Some(revision) = path.strip_prefix(&format!("/api/{kind}/{ID}/revision/")) {
        if ![COMMIT, "main", "v1", "refs%2Fpr%2F3"].contains(&revision) {
            return refusal(404, "RevisionNotFound");
        }
        let siblings: Vec<_> = state
            .files
            .keys()
            .filter(|name| converted(name).is_none())
            .map(|name| json!({"rfilename": name}))
            .collect();
        let info = json!({"id": ID, "sha": COMMIT, "siblings": siblings});
        return Reply::new(
            200,
            &[("content-type", "application/json")],
            info.to_string().as_bytes(),
        );
    }
    if path.starts_with("/api/") {
        return refusal(404, "RepoNotFound");
    }
    let file =
        |prefix: &str| path.strip_prefix(prefix).and_then(|name| state.files.get_key_value(name));
    if let Some((_, contents)) = file("/large/") {
        return bytes(state, request, contents, &[]);
    }
    let of_branch = path.strip_prefix(&format!("/{ID}/resolve/{CONVERTED_COMMIT}/"));
    let of_branch =
        of_branch.and_then(|name| state.files.get_key_value(&format!("{CONVERTED}{name}")));
    let Some((name, contents)) = file(&format!("/{ID}/resolve/{COMMIT}/")).or(of_branch) else {
        return refusal(404, "EntryNotFound");
    };
    let (quoted, size) = (format!("\"{}\"", etag(name, contents)), contents.len().to_string());
    if state.large == Large::Here || !is_large(name) {
        return bytes(state, request, contents, &[("etag", &quoted), ("x-repo-commit", COMMIT)]);
    }
    let host = if state.large == Large::Elsewhere { &state.cdn } else { "" };
    let location = format!("{host}/large/{name}");
    let headers = [
        ("location", location.as_str()),
        ("x-repo-commit", COMMIT),
        ("x-linked-etag", &quoted),
        ("x-linked-size", &size),
        // Of the redirection itself; not the file's.
        ("etag", "\"of-no-file\""),
    ];
    Reply::new(302, &headers, b"Found. Redirecting.")
}

fn bytes(
    state: &State,
    request: &Request,
    contents: &[u8],
    headers: &[(&'static str, &str)],
) -> Reply {
    let Some(start) = request.start.filter(|_| state.ranges) else {
        return Reply::new(200, headers, contents);
    };
    let range = format!("bytes {start}-{}/{}", contents.len() - 1, contents.len());
    Reply::new(206, &[headers, &[("content-range", &range)]].concat(), &contents[start as usize..])
}

/// An error as the hub puts it.
pub(crate) fn refusal(status: u16, code: &'static str) -> Reply {
    Reply::new(status, &[("x-error-code", code), ("x-error-message", "so says the hub")], b"{}")
}

fn send(mut stream: &TcpStream, reply: &Reply, head: bool) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {} Status\r\nconnection: close\r\n", reply.status);
    if !reply.endless && !reply.headers.iter().any(|(name, _)| *name == "content-length") {
        let _ = write!(text, "content-length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    stream.write_all((text + "\r\n").as_bytes())?;
    if head {
        return Ok(());
    }
    stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])?;
    if reply.endless {
        loop {
            stream.write_all(&reply.body)?;
        }
    }
    if reply.stall {
        std::thread::sleep(Duration::from_mins(1));
    }
    Ok(())
}
