//! Requests to a hub: file lists, file metadata, file contents.
//!
//! Responses are untrusted. Their size, time and redirects are bounded, and whatever becomes part
//! of a path is checked first.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use crisol_hub::{HubError, json_error};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::http::{Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::cache::is_commit;
use super::id::{Repo, RepoKind};
use super::{PullError, environment};
use crate::console::harmless;

/// Maximum size of a file list in bytes; enough for 100,000 names.
const MAX_LIST_BYTES: u64 = 16 << 20;

/// Timeout of a file list.
const LIST_TIMEOUT: Duration = Duration::from_mins(2);

/// Maximum redirects; a download needs one or two.
const MAX_REDIRECTS: usize = 8;

/// Maximum consecutive failures. The delays between attempts double from [`INITIAL_BACKOFF`].
pub(super) const MAX_ATTEMPTS: u32 = 5;
const INITIAL_BACKOFF: Duration = Duration::from_millis(400);

/// Characters that are not escaped in a URL segment.
const UNESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Characters that are not escaped in a URL path.
const UNESCAPED_IN_PATH: &AsciiSet = &UNESCAPED.remove(b'/');

/// A client of one hub.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// The commit and the files of a repository.
pub(super) struct Repository {
    pub(super) commit: String,
    pub(super) files: BTreeSet<String>,
}

/// The hub's metadata of a file.
#[derive(Debug)]
pub(super) struct RemoteFile {
    pub(super) name: String,
    pub(super) size: u64,
    /// Names the blob in the cache.
    pub(super) etag: String,
}

impl RemoteFile {
    /// SHA-256 of a file in large-file storage; small files have a git hash as ETag.
    pub(super) fn sha256(&self) -> Option<&str> {
        Some(self.etag.as_str())
            .filter(|etag| etag.len() == 64 && etag.chars().all(|c| c.is_ascii_hexdigit()))
    }
}

/// A request.
#[derive(Clone, Copy, Debug)]
enum Request {
    /// A small response, read as a whole.
    List,
    /// Headers only.
    Head,
    /// The bytes from an offset on.
    Bytes(u64),
}

/// A failed request: permanently, or worth retrying.
pub(super) enum Failure {
    Permanent(PullError),
    Transient(String),
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Failure {
        Failure::Permanent(error)
    }
}

impl Client {
    pub(super) fn new() -> Result<Client, PullError> {
        let config = Agent::config_builder()
            .user_agent(concat!("crisol/", env!("CARGO_PKG_VERSION")))
            // Redirects are followed here, since the token must not be sent to other hosts.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_resolve(Some(Duration::from_secs(20)))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_mins(1)))
            // No limit on the duration of a download, only on stalls.
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

    /// The web page of a repository.
    pub(super) fn page(&self, repo: &Repo) -> String {
        let prefix = match repo.kind {
            RepoKind::Model => "",
            RepoKind::Dataset => "datasets/",
        };
        format!("{}/{prefix}{}", self.endpoint, repo.name)
    }

    /// The commit and the files of the repository's revision.
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
        let revision = utf8_percent_encode(&repo.revision, UNESCAPED);
        let kind = match repo.kind {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        };
        let url = format!("{}/api/{kind}/{}/revision/{revision}", self.endpoint, repo.name);
        let unexpected =
            |problem: String| PullError::UnexpectedResponse { url: url.clone(), problem };
        let text = retry(&url, || {
            let (_, response) = self.follow_redirects(Request::List, &url, |_| false)?;
            let response = self.check_status(repo, &url, None, response)?;
            let body = response.into_body().into_with_config().limit(MAX_LIST_BYTES + 1);
            let text = body.read_to_vec().map_err(|e| match e {
                ureq::Error::BodyExceedsLimit(_) => Failure::Permanent(unexpected(format!(
                    "a list of more than {MAX_LIST_BYTES} bytes"
                ))),
                other => failure(&url, &other),
            })?;
            Ok(text)
        })?;
        let Info { sha, siblings } =
            serde_json::from_slice(&text).map_err(|e| unexpected(harmless(&json_error(&e))))?;
        if !is_commit(&sha) {
            return Err(unexpected(format!("a commit called {sha:?}")));
        }
        let files: BTreeSet<String> =
            siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        // Unusual names are accepted, since most files are not downloaded, but not escaping ones.
        let escapes = |name: &str| name.split('/').any(|part| matches!(part, "" | "." | ".."));
        if let Some(name) =
            files.iter().find(|name| escapes(name) || name.chars().any(char::is_control))
        {
            return Err(unexpected(format!("a file called {name:?}")));
        }
        Ok(Repository { commit: sha, files })
    }

    /// The URL of a file.
    pub(super) fn url(&self, repo: &Repo, commit: &str, name: &str) -> String {
        format!(
            "{}/resolve/{commit}/{}",
            self.page(repo),
            utf8_percent_encode(name, UNESCAPED_IN_PATH)
        )
    }

    /// Requests the metadata of a file.
    pub(super) fn describe(
        &self,
        repo: &Repo,
        commit: &str,
        name: &str,
    ) -> Result<RemoteFile, PullError> {
        let url = self.url(repo, commit, name);
        let unexpected = |problem: &str| PullError::UnexpectedResponse {
            url: url.clone(),
            problem: problem.to_owned(),
        };
        retry(&url, || {
            // Large files are redirected to another host; the hub's metadata is in the redirects.
            let (mut etag, mut size) = (None, None);
            let (redirected, response) =
                self.follow_redirects(Request::Head, &url, |response| {
                    etag = header(response, "x-linked-etag").or(etag.take());
                    size = header(response, "x-linked-size").or(size.take());
                    etag.is_some() && size.is_some()
                })?;
            let elsewhere = response.status().is_redirection();
            let response = if elsewhere {
                response
            } else {
                self.check_status(repo, &url, Some(name), response)?
            };
            if !elsewhere && !redirected {
                etag = etag.or_else(|| header(&response, "etag"));
                size = size.or_else(|| header(&response, "content-length"));
            }
            let etag = etag.ok_or_else(|| unexpected("no ETag of the file"))?;
            // Compression by a proxy weakens the ETag (`W/"…"`); it names the same file.
            let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
            if etag.is_empty()
                || etag.len() > 128
                || !etag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            {
                return Err(Failure::Permanent(unexpected("an ETag that cannot be a file's name")));
            }
            let size = size
                .and_then(|size| size.parse().ok())
                .ok_or_else(|| unexpected("no size of the file"))?;
            Ok(RemoteFile { name: name.to_owned(), size, etag })
        })
    }

    /// The bytes of a file from `start` on. Status 206: from `start`; status 200: from the
    /// beginning.
    pub(super) fn bytes(
        &self,
        repo: &Repo,
        url: &str,
        name: &str,
        start: u64,
    ) -> Result<Response<Body>, Failure> {
        let (_, response) = self.follow_redirects(Request::Bytes(start), url, |_| false)?;
        self.check_status(repo, url, Some(name), response)
    }

    /// Sends a request and follows redirects until a response satisfies `enough` or does not
    /// redirect. Also returns whether that response came from another host.
    fn follow_redirects(
        &self,
        kind: Request,
        url: &str,
        mut enough: impl FnMut(&Response<Body>) -> bool,
    ) -> Result<(bool, Response<Body>), Failure> {
        let mut location_url = url.to_owned();
        let mut redirected = false;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = match kind {
                Request::List => self
                    .agent
                    .get(&location_url)
                    .config()
                    .timeout_recv_body(Some(LIST_TIMEOUT))
                    .build(),
                Request::Head => self.agent.head(&location_url),
                Request::Bytes(0) => self.agent.get(&location_url),
                Request::Bytes(start) => {
                    self.agent.get(&location_url).header("range", format!("bytes={start}-"))
                }
            };
            // A compressed response would have another size and ETag.
            request = request.header("accept-encoding", "identity");
            if let Some(token) =
                self.token.as_ref().filter(|_| origin(&location_url) == origin(&self.endpoint))
            {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|e| failure(&location_url, &e))?;
            let location =
                header(&response, "location").filter(|_| response.status().is_redirection());
            let done = enough(&response);
            let Some(location) = location.filter(|_| !done) else {
                return Ok((redirected, response));
            };
            location_url =
                join(&location_url, &location).ok_or_else(|| PullError::UnexpectedResponse {
                    url: location_url.clone(),
                    problem: "it redirects to nowhere".into(),
                })?;
            redirected |= origin(&location_url) != origin(&self.endpoint);
        }
        let problem = format!("it redirects more than {MAX_REDIRECTS} times");
        Err(Failure::Permanent(PullError::UnexpectedResponse { url: url.to_owned(), problem }))
    }

    /// Converts error statuses to errors. `name`: the requested file, if any.
    fn check_status(
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
        Err(Failure::Permanent(match (status.as_u16(), code.as_str(), name) {
            (_, "GatedRepo", _) => PullError::Gated { page, message },
            (_, "RepoNotFound", _) => PullError::NoRepository { page },
            (_, "RevisionNotFound", _) => PullError::NoRevision { page, revision },
            (404, _, Some(name)) => {
                PullError::NoFile { page, file: name.to_owned(), revision, hint: String::new() }
            }
            (404, _, None) => PullError::NoRepository { page },
            // The hub hides private repositories from anonymous users.
            (401, _, None) if self.token.is_none() => PullError::NoRepository { page },
            (401, ..) if self.token.is_some() => PullError::BadToken { page, message },
            (401 | 403, ..) => PullError::Denied { page, message },
            (408 | 429 | 500..=504, ..) => {
                return Err(Failure::Transient(match message.as_str() {
                    "" => format!("the hub answers with status {status}"),
                    message => format!("the hub answers with status {status} (it says: {message})"),
                }));
            }
            (status, ..) => PullError::Status { url, status, message },
        }))
    }
}

/// Trusted certificates: Mozilla's, which are built in, or those of the user's file.
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

/// Retries transient failures, up to [`MAX_ATTEMPTS`] times.
fn retry<T>(url: &str, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, PullError> {
    let mut failures = 0;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(Failure::Permanent(error)) => return Err(error),
            Err(Failure::Transient(cause)) => {
                failures += 1;
                if failures == MAX_ATTEMPTS {
                    return Err(PullError::Unreachable { url: url.to_owned(), cause });
                }
                back_off(failures);
            }
        }
    }
}

/// Waits after the n-th consecutive failure, with exponential backoff.
pub(super) fn back_off(failures: u32) {
    std::thread::sleep(INITIAL_BACKOFF * 2_u32.pow(failures - 1));
}

/// Classifies a request without a response: refused connections are permanent, timeouts transient.
fn failure(url: &str, error: &ureq::Error) -> Failure {
    let refused = match error {
        ureq::Error::Io(e) => matches!(
            e.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::HostUnreachable
                // rustls reports an untrusted certificate this way.
                | io::ErrorKind::InvalidData
        ),
        ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => false,
        _ => true,
    };
    let mut cause = harmless(&error.to_string());
    if cause.contains("certificate") {
        cause += " (if this network uses its own certificate, set SSL_CERT_FILE to its file)";
    }
    if refused {
        Failure::Permanent(PullError::Unreachable { url: url.to_owned(), cause })
    } else {
        Failure::Transient(cause)
    }
}

fn header(response: &Response<Body>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

/// Resolves a `Location` header. `None` if it leaves https or is not a web address.
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

/// The offset at which a response starts, and the size of the file if given.
pub(super) fn range_start(response: &Response<Body>) -> Option<(u64, Option<u64>)> {
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
        // Neither from https to http nor to other schemes.
        assert_eq!([to("http://hub.example/x"), to("file:///x"), to("")], [None, None, None]);
        assert_eq!(join("http://h:1/a", "http://k/x").as_deref(), Some("http://k/x"));
        assert_eq!(origin("http://h:1/a"), "http://h:1");
        assert_ne!(origin("https://hub.example.evil/a"), origin("https://hub.example"));
    }
}
