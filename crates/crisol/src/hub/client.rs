//! What a hub is asked: which files a repository has, what a file is, and its bytes.
//!
//! Nothing that it answers is trusted: answers are bounded in size and time, redirections in number, and whatever
//! becomes part of a path is checked first.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use crisol_hub::HubError;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::http::{Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::cache::is_commit;
use super::id::{Kind, Repo};
use super::{PullError, environment};
use crate::console::harmless;

/// Bytes that the list of a repository's files may have: some 100,000 names.
const MAX_OF_LIST: u64 = 16 << 20;

/// Time that the list may take to arrive.
const LIST_TIME: Duration = Duration::from_mins(2);

/// Redirections before giving up; a download has one or two.
const MAX_REDIRECTIONS: usize = 8;

/// Attempts that fail in a row before giving up. The waits between them double from [`FIRST_WAIT`].
pub(super) const ATTEMPTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(400);

/// What stays as it is in a part of an address.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// The same for paths.
const PLAIN_PATH: &AsciiSet = &PLAIN.remove(b'/');

/// A connection to the hub.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// A repository at one commit.
pub(super) struct Repository {
    pub(super) commit: String,
    pub(super) files: BTreeSet<String>,
}

/// What the hub says of a file.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) name: String,
    pub(super) size: u64,
    /// Its name in the cache.
    pub(super) etag: String,
}

impl Remote {
    /// The SHA-256 of what the hub stores as a large file; small ones have a hash of git's as their ETag.
    pub(super) fn sha256(&self) -> Option<&str> {
        Some(self.etag.as_str())
            .filter(|etag| etag.len() == 64 && etag.chars().all(|c| c.is_ascii_hexdigit()))
    }
}

/// What is asked of an address.
#[derive(Clone, Copy, Debug)]
enum Ask {
    /// All of what is there, which is small.
    List,
    /// Only the headers.
    Head,
    /// What is there from a byte on.
    Bytes(u64),
}

/// Why a request came to nothing: for good, or perhaps not the next time.
pub(super) enum Failure {
    Final(PullError),
    Passing(String),
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Failure {
        Failure::Final(error)
    }
}

impl Client {
    pub(super) fn new() -> Result<Client, PullError> {
        let config = Agent::config_builder()
            .user_agent(concat!("crisol/", env!("CARGO_PKG_VERSION")))
            // Redirections are followed here, because the token must not go with all of them.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_resolve(Some(Duration::from_secs(20)))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_mins(1)))
            // A download takes as long as it takes, as long as something arrives.
            .timeout_per_read(Some(Duration::from_mins(1)))
            .tls_config(TlsConfig::builder().root_certs(roots()?).build())
            .build();
        Ok(Client {
            agent: config.into(),
            endpoint: environment::endpoint()?,
            token: environment::token()?,
        })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The page of a repository, for people.
    pub(super) fn page(&self, repo: &Repo) -> String {
        let place = match repo.kind {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
        };
        format!("{}/{place}{}", self.endpoint, repo.name)
    }

    /// Which commit the revision is and which files it has.
    pub(super) fn repository(&self, repo: &Repo) -> Result<Repository, PullError> {
        #[derive(Deserialize)]
        struct Info {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let revision = utf8_percent_encode(&repo.revision, PLAIN);
        let kind = match repo.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        let url = format!("{}/api/{kind}/{}/revision/{revision}", self.endpoint, repo.name);
        let answer = |problem: String| PullError::Answer { url: url.clone(), problem };
        let text = again(&url, || {
            let (_, response) = self.follow(Ask::List, &url, |_| false)?;
            let response = self.accept(repo, &url, None, response)?;
            let body = response.into_body().into_with_config().limit(MAX_OF_LIST + 1);
            let text = body.read_to_vec().map_err(|e| match e {
                ureq::Error::BodyExceedsLimit(_) => {
                    Failure::Final(answer(format!("a list of more than {MAX_OF_LIST} bytes")))
                }
                other => failure(&url, &other),
            })?;
            Ok(text)
        })?;
        let Info { sha, siblings } =
            serde_json::from_slice(&text).map_err(|e| answer(harmless(&e.to_string())))?;
        if !is_commit(&sha) {
            return Err(answer(format!("a commit called {sha:?}")));
        }
        let files: BTreeSet<String> =
            siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        // Names that are never used may be odd, but not so odd.
        let leads_out = |name: &str| name.split('/').any(|part| matches!(part, "" | "." | ".."));
        if let Some(name) =
            files.iter().find(|name| leads_out(name) || name.chars().any(char::is_control))
        {
            return Err(answer(format!("a file called {name:?}")));
        }
        Ok(Repository { commit: sha, files })
    }

    /// The address of a file.
    pub(super) fn url(&self, repo: &Repo, commit: &str, name: &str) -> String {
        format!("{}/resolve/{commit}/{}", self.page(repo), utf8_percent_encode(name, PLAIN_PATH))
    }

    /// What the hub says of a file, before it is fetched.
    pub(super) fn describe(
        &self,
        repo: &Repo,
        commit: &str,
        name: &str,
    ) -> Result<Remote, PullError> {
        let url = self.url(repo, commit, name);
        let answer =
            |problem: &str| PullError::Answer { url: url.clone(), problem: problem.to_owned() };
        again(&url, || {
            // Large files are elsewhere; what the hub says of them stands in the answers that lead there.
            let (mut etag, mut size) = (None, None);
            let (left, response) = self.follow(Ask::Head, &url, |response| {
                etag = header(response, "x-linked-etag").or(etag.take());
                size = header(response, "x-linked-size").or(size.take());
                etag.is_some() && size.is_some()
            })?;
            let elsewhere = response.status().is_redirection();
            let response =
                if elsewhere { response } else { self.accept(repo, &url, Some(name), response)? };
            if !elsewhere && !left {
                etag = etag.or_else(|| header(&response, "etag"));
                size = size.or_else(|| header(&response, "content-length"));
            }
            let etag = etag.ok_or_else(|| answer("no ETag of the file"))?;
            // A weak one (`W/"…"`) is made by compression on the way; it names the same file.
            let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
            if etag.is_empty()
                || etag.len() > 128
                || !etag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            {
                return Err(Failure::Final(answer("an ETag that cannot be a file's name")));
            }
            let size = size
                .and_then(|size| size.parse().ok())
                .ok_or_else(|| answer("no size of the file"))?;
            Ok(Remote { name: name.to_owned(), size, etag })
        })
    }

    /// The bytes of a file from `start` on; the answer's status says whether they begin there (206) or at the beginning (200).
    pub(super) fn bytes(
        &self,
        repo: &Repo,
        url: &str,
        name: &str,
        start: u64,
    ) -> Result<Response<Body>, Failure> {
        let (_, response) = self.follow(Ask::Bytes(start), url, |_| false)?;
        self.accept(repo, url, Some(name), response)
    }

    /// Sends a request, again wherever it is redirected to, until `enough` of an answer or one that redirects no
    /// further; also whether that one came from elsewhere than the hub.
    fn follow(
        &self,
        ask: Ask,
        url: &str,
        mut enough: impl FnMut(&Response<Body>) -> bool,
    ) -> Result<(bool, Response<Body>), Failure> {
        let mut place = url.to_owned();
        let mut left = false;
        for _ in 0..=MAX_REDIRECTIONS {
            let mut request = match ask {
                Ask::List => {
                    self.agent.get(&place).config().timeout_recv_body(Some(LIST_TIME)).build()
                }
                Ask::Head => self.agent.head(&place),
                Ask::Bytes(0) => self.agent.get(&place),
                Ask::Bytes(start) => {
                    self.agent.get(&place).header("range", format!("bytes={start}-"))
                }
            };
            // A compressed answer would have another size and another ETag.
            request = request.header("accept-encoding", "identity");
            if let Some(token) =
                self.token.as_ref().filter(|_| origin(&place) == origin(&self.endpoint))
            {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|e| failure(&place, &e))?;
            let location =
                header(&response, "location").filter(|_| response.status().is_redirection());
            let done = enough(&response);
            let Some(location) = location.filter(|_| !done) else { return Ok((left, response)) };
            place = join(&place, &location).ok_or_else(|| PullError::Answer {
                url: place.clone(),
                problem: "it redirects to nowhere".into(),
            })?;
            left |= origin(&place) != origin(&self.endpoint);
        }
        let problem = format!("it redirects more than {MAX_REDIRECTIONS} times");
        Err(Failure::Final(PullError::Answer { url: url.to_owned(), problem }))
    }

    /// The answer, if it is what was asked for. `name` is the file's, where a file was.
    fn accept(
        &self,
        repo: &Repo,
        url: &str,
        name: Option<&str>,
        response: Response<Body>,
    ) -> Result<Response<Body>, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let page = self.page(repo);
        let code = header(&response, "x-error-code").unwrap_or_default();
        let message: String = harmless(&header(&response, "x-error-message").unwrap_or_default())
            .chars()
            .take(300)
            .collect();
        let (url, revision) = (url.to_owned(), repo.revision.clone());
        Err(Failure::Final(match (status.as_u16(), code.as_str(), name) {
            (_, "GatedRepo", _) => PullError::Gated { page, message },
            (_, "RepoNotFound", _) => PullError::NoRepository { page },
            (_, "RevisionNotFound", _) => PullError::NoRevision { page, revision },
            (404, _, Some(name)) => {
                PullError::NoFile { page, file: name.to_owned(), revision, hint: String::new() }
            }
            (404, _, None) => PullError::NoRepository { page },
            // The hub does not tell strangers what is private from what does not exist.
            (401, _, None) if self.token.is_none() => PullError::NoRepository { page },
            (401, ..) if self.token.is_some() => PullError::BadToken { page, message },
            (401 | 403, ..) => PullError::Denied { page, message },
            (408 | 429 | 500..=504, ..) => {
                return Err(Failure::Passing(match message.as_str() {
                    "" => format!("the hub answers with status {status}"),
                    message => format!("the hub answers with status {status} (it says: {message})"),
                }));
            }
            (status, ..) => PullError::Status { url, status, message },
        }))
    }
}

/// The certificates that are trusted: Mozilla's, which are built in, or those of the user's file.
fn roots() -> Result<RootCerts, PullError> {
    let Some(path) = environment::certificates() else { return Ok(RootCerts::WebPki) };
    let pem = std::fs::read(&path).map_err(|e| HubError::io("read", &path, e))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(e) => {
                return Err(PullError::Environment(format!(
                    "SSL_CERT_FILE={}: {e}",
                    path.display()
                )));
            }
        }
    }
    Ok(certificates.into())
}

/// Does what may fail in passing, up to [`ATTEMPTS`] times.
fn again<T>(url: &str, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, PullError> {
    let mut failures = 0;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(cause)) => {
                failures += 1;
                if failures == ATTEMPTS {
                    return Err(PullError::Unreachable { url: url.to_owned(), cause });
                }
                wait(failures);
            }
        }
    }
}

/// Waits after the n-th failure in a row, longer each time.
pub(super) fn wait(failures: u32) {
    std::thread::sleep(FIRST_WAIT * 2_u32.pow(failures - 1));
}

/// What to make of a request without an answer: where nothing listens, nothing will a second later.
fn failure(url: &str, error: &ureq::Error) -> Failure {
    let refused = match error {
        ureq::Error::Io(e) => matches!(
            e.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::HostUnreachable
                // What rustls makes of a certificate that it does not trust.
                | io::ErrorKind::InvalidData
        ),
        ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => false,
        _ => true,
    };
    let mut cause = harmless(&error.to_string());
    if cause.contains("certificate") {
        cause += " (if this network has a certificate of its own, let SSL_CERT_FILE name its file)";
    }
    if refused {
        Failure::Final(PullError::Unreachable { url: url.to_owned(), cause })
    } else {
        Failure::Passing(cause)
    }
}

fn header(response: &Response<Body>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

/// Where a `Location` leads from an address; `None` where it leads out of what is encrypted, or to no web page.
fn join(from: &str, location: &str) -> Option<String> {
    let scheme = from.split_once("://")?.0;
    if location.starts_with("https://") || (scheme == "http" && location.starts_with("http://")) {
        return Some(location.to_owned());
    }
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    if location.starts_with('/') {
        return Some(format!("{}{location}", origin(from)));
    }
    let path = from.split(['?', '#']).next()?;
    let plain = !location.is_empty() && !location.split('/').next()?.contains(':');
    plain
        .then(|| format!("{}/{location}", path.rsplit_once('/').map_or(path, |(folder, _)| folder)))
}

/// Whether an answer begins where it was asked to.
pub(super) fn begins_at(response: &Response<Body>) -> Option<(u64, Option<u64>)> {
    match response.status() {
        StatusCode::OK => Some((0, response.body().content_length())),
        StatusCode::PARTIAL_CONTENT => {
            let range = header(response, "content-range")?;
            let (range, total) = range.strip_prefix("bytes ")?.split_once('/')?;
            Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_lead_where_they_say() {
        let from = "https://hub.example/a/b?c=/d";
        let to = |location: &str| join(from, location);
        assert_eq!(to("/x?y").as_deref(), Some("https://hub.example/x?y"));
        assert_eq!(to("x").as_deref(), Some("https://hub.example/a/x"));
        assert_eq!(to("//cdn.example/x").as_deref(), Some("https://cdn.example/x"));
        assert_eq!(to("https://cdn.example/x").as_deref(), Some("https://cdn.example/x"));
        // Neither out of encryption nor to other schemes.
        assert_eq!([to("http://hub.example/x"), to("file:///x"), to("")], [None, None, None]);
        assert_eq!(join("http://h:1/a", "http://k/x").as_deref(), Some("http://k/x"));
        assert_eq!(origin("http://h:1/a"), "http://h:1");
        assert_ne!(origin("https://hub.example.evil/a"), origin("https://hub.example"));
    }
}
