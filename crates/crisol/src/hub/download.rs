//! One file from the hub into the cache: taken up where an earlier attempt stopped, checked, and only then given its
//! name.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crisol_hub::HubError;
use sha2::{Digest, Sha256};

use super::PullError;
use super::cache::{Cache, create_parent};
use super::client::{ATTEMPTS, Client, Failure, Remote, begins_at, wait};
use super::id::Repo;
use super::transfer::Transfer;

/// Bytes that make an attempt count as progress, so that a long download over a bad line is not given up, but one that
/// brings a byte at a time is.
const PROGRESS: u64 = 1 << 20;

/// Bytes that are read, hashed and written at a time.
const CHUNK: usize = 1 << 18;

/// Whether the whole file is in the cache.
pub(super) fn is_there(cache: &Cache, remote: &Remote) -> bool {
    cache
        .blob(&remote.etag)
        .metadata()
        .is_ok_and(|file| file.is_file() && file.len() == remote.size)
}

/// Brings a file into the cache.
pub(super) fn download(
    client: &Client,
    repo: &Repo,
    commit: &str,
    cache: &Cache,
    remote: &Remote,
) -> Result<(), PullError> {
    let blob = cache.blob(&remote.etag);
    create_parent(&blob)?;
    let _lock = cache.lock(&remote.etag)?;
    // Another process may have brought it while this one waited.
    if is_there(cache, remote) {
        return Ok(());
    }
    let mut path = blob.clone().into_os_string();
    path.push(".incomplete");
    let path = PathBuf::from(path);
    let url = client.url(repo, commit, &remote.name);
    loop {
        let mut part = Part::open(&path, remote)?;
        let resumed = part.length > 0;
        let mut bar = Transfer::new(&remote.name, part.length, remote.size);
        let received = receive(client, repo, &url, remote, &mut part, &mut bar);
        bar.clear();
        received?;
        match part.check(remote) {
            Ok(()) => {}
            // What was left of an earlier attempt may have been wrong; it gets one more from the beginning.
            Err(_) if resumed => {
                part.remove()?;
                continue;
            }
            Err(error) => {
                part.remove()?;
                return Err(error);
            }
        }
        part.file.sync_all().map_err(|e| HubError::io("write", &path, e))?;
        fs::rename(&path, &blob).map_err(|e| HubError::io("create", &blob, e))?;
        bar.finished();
        return Ok(());
    }
}

/// Adds to a part until it is as long as the file, over as many connections as it takes.
fn receive(
    client: &Client,
    repo: &Repo,
    url: &str,
    remote: &Remote,
    part: &mut Part,
    bar: &mut Transfer,
) -> Result<(), PullError> {
    let (first, mut failures) = (part.length, 0);
    while part.length < remote.size {
        let before = part.length;
        let cause = match attempt(client, repo, url, remote, part, bar) {
            Ok(()) => continue,
            Err(Failure::Passing(cause)) => cause,
            // A network that was there a moment ago may come back.
            Err(Failure::Final(PullError::Unreachable { cause, .. })) if part.length > first => {
                cause
            }
            Err(Failure::Final(error)) => return Err(error),
        };
        if part.length >= before + PROGRESS {
            failures = 0;
        }
        failures += 1;
        if failures == ATTEMPTS {
            let (file, received, size) = (remote.name.clone(), part.length, remote.size);
            return Err(PullError::Interrupted { file, received, size, cause });
        }
        bar.note(&format!("{cause}; trying again"));
        wait(failures);
    }
    Ok(())
}

/// One connection's worth.
fn attempt(
    client: &Client,
    repo: &Repo,
    url: &str,
    remote: &Remote,
    part: &mut Part,
    bar: &mut Transfer,
) -> Result<(), Failure> {
    let response = client.bytes(repo, url, &remote.name, part.length)?;
    let answer = |problem: String| PullError::Answer { url: url.to_owned(), problem };
    let (start, total) = begins_at(&response)
        .ok_or_else(|| answer("it does not say which bytes these are".into()))?;
    if total.is_some_and(|total| total != remote.size) {
        let problem = format!("it sends {} bytes of a file of {}", total.unwrap_or(0), remote.size);
        return Err(answer(problem).into());
    }
    if start != part.length {
        // A server that knows no ranges sends all of it again.
        if start != 0 {
            return Err(answer(format!(
                "asked for bytes from {} on, it sends those from {start} on",
                part.length
            ))
            .into());
        }
        part.restart()?;
        bar.restart();
    }
    let mut body = response.into_body().into_reader();
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = match body.read(&mut chunk) {
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(Failure::Passing(format!("the connection broke: {e}"))),
        };
        if read == 0 {
            break;
        }
        if read as u64 > remote.size - part.length {
            return Err(answer(format!(
                "it sends more than the {} bytes of the file",
                remote.size
            ))
            .into());
        }
        part.add(&chunk[..read])?;
        bar.add(read as u64);
    }
    if part.length < remote.size {
        return Err(Failure::Passing("the connection was closed too early".into()));
    }
    Ok(())
}

/// A file that is not whole yet.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
    /// Of what is there so far.
    hash: Sha256,
}

impl Part {
    /// What an earlier attempt left, or an empty file.
    fn open(path: &Path, remote: &Remote) -> Result<Part, PullError> {
        let open = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = open.map_err(|e| HubError::io("create", path, e))?;
        let mut part = Part { path: path.to_owned(), file, length: 0, hash: Sha256::new() };
        let length = part.file.metadata().map_err(|e| HubError::io("read", path, e))?.len();
        if length > remote.size {
            part.restart()?;
        } else if remote.sha256().is_some() {
            let mut chunk = vec![0; CHUNK];
            loop {
                match part.file.read(&mut chunk).map_err(|e| HubError::io("read", path, e))? {
                    0 => break,
                    read => part.hash.update(&chunk[..read]),
                }
            }
            part.length = length;
        } else {
            // A file without a checksum is small; what was left of it is not worth a doubt.
            part.restart()?;
        }
        Ok(part)
    }

    fn restart(&mut self) -> Result<(), PullError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|e| HubError::io("write", &self.path, e))?;
        self.length = 0;
        self.hash = Sha256::new();
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), PullError> {
        self.file.write_all(bytes).map_err(|e| HubError::io("write", &self.path, e))?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Whether the whole part is the file that the hub described.
    fn check(&self, remote: &Remote) -> Result<(), PullError> {
        let Some(expected) = remote.sha256() else { return Ok(()) };
        let digest = self.hash.clone().finalize();
        let actual: String =
            digest.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        if actual.eq_ignore_ascii_case(expected) {
            return Ok(());
        }
        Err(PullError::Corrupt { file: remote.name.clone(), actual, expected: expected.to_owned() })
    }

    fn remove(self) -> Result<(), PullError> {
        Ok(fs::remove_file(&self.path).map_err(|e| HubError::io("remove", &self.path, e))?)
    }
}
