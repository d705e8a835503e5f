//! Downloads one file into the cache: resumes a partial download, verifies it, then renames it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crisol_hub::HubError;
use sha2::{Digest, Sha256};

use super::PullError;
use super::cache::{Cache, create_parent};
use super::client::{Client, Failure, MAX_ATTEMPTS, RemoteFile, back_off, range_start};
use super::download_progress::Transfer;
use super::id::Repo;

/// Bytes that count as progress of an attempt. A long download over an unreliable line continues;
/// one that delivers a byte at a time fails.
const PROGRESS: u64 = 1 << 20;

/// Bytes read, hashed and written at a time.
const CHUNK: usize = 1 << 18;

/// Whether the complete file is in the cache.
pub(super) fn is_cached(cache: &Cache, remote: &RemoteFile) -> bool {
    cache
        .blob(&remote.etag)
        .metadata()
        .is_ok_and(|file| file.is_file() && file.len() == remote.size)
}

/// Downloads a file into the cache.
pub(super) fn download(
    client: &Client,
    repo: &Repo,
    commit: &str,
    cache: &Cache,
    remote: &RemoteFile,
) -> Result<(), PullError> {
    let blob = cache.blob(&remote.etag);
    create_parent(&blob)?;
    let _lock = cache.lock(&remote.etag)?;
    // Another process may have downloaded it while this one waited for the lock.
    if is_cached(cache, remote) {
        return Ok(());
    }
    let mut path = blob.clone().into_os_string();
    path.push(".incomplete");
    let path = PathBuf::from(path);
    let url = client.url(repo, commit, &remote.name);
    loop {
        let mut partial = PartialFile::open(&path, remote)?;
        let resumed = partial.length > 0;
        let mut bar = Transfer::new(&remote.name, partial.length, remote.size);
        let received = receive(client, repo, &url, remote, &mut partial, &mut bar);
        bar.clear();
        received?;
        match partial.check(remote) {
            Ok(()) => {}
            // The resumed file may have been corrupt: one more attempt from the beginning.
            Err(_) if resumed => {
                partial.remove()?;
                continue;
            }
            Err(error) => {
                partial.remove()?;
                return Err(error);
            }
        }
        partial.file.sync_all().map_err(|e| HubError::io("write", &path, e))?;
        fs::rename(&path, &blob).map_err(|e| HubError::io("create", &blob, e))?;
        bar.finished();
        return Ok(());
    }
}

/// Appends to a partial file until it is complete, over several connections if needed.
fn receive(
    client: &Client,
    repo: &Repo,
    url: &str,
    remote: &RemoteFile,
    partial: &mut PartialFile,
    bar: &mut Transfer,
) -> Result<(), PullError> {
    let (first, mut failures) = (partial.length, 0);
    while partial.length < remote.size {
        let before = partial.length;
        let cause = match attempt(client, repo, url, remote, partial, bar) {
            Ok(()) => continue,
            Err(Failure::Transient(cause)) => cause,
            // The network worked a moment ago, so it may recover.
            Err(Failure::Permanent(PullError::Unreachable { cause, .. }))
                if partial.length > first =>
            {
                cause
            }
            Err(Failure::Permanent(error)) => return Err(error),
        };
        if partial.length >= before + PROGRESS {
            failures = 0;
        }
        failures += 1;
        if failures == MAX_ATTEMPTS {
            let (file, received, size) = (remote.name.clone(), partial.length, remote.size);
            return Err(PullError::Interrupted { file, received, size, cause });
        }
        bar.note(&format!("{cause}; trying again"));
        back_off(failures);
    }
    Ok(())
}

/// Receives over one connection.
fn attempt(
    client: &Client,
    repo: &Repo,
    url: &str,
    remote: &RemoteFile,
    partial: &mut PartialFile,
    bar: &mut Transfer,
) -> Result<(), Failure> {
    let response = client.bytes(repo, url, &remote.name, partial.length)?;
    let unexpected =
        |problem: String| PullError::UnexpectedResponse { url: url.to_owned(), problem };
    let (start, total) = range_start(&response)
        .ok_or_else(|| unexpected("it does not say which bytes these are".into()))?;
    if total.is_some_and(|total| total != remote.size) {
        let problem = format!("it sends {} bytes of a file of {}", total.unwrap_or(0), remote.size);
        return Err(unexpected(problem).into());
    }
    if start != partial.length {
        // A server without range support sends the whole file.
        if start != 0 {
            return Err(unexpected(format!(
                "asked for bytes from {} on, it sends those from {start} on",
                partial.length
            ))
            .into());
        }
        partial.restart()?;
        bar.restart();
    }
    let mut body = response.into_body().into_reader();
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = match body.read(&mut chunk) {
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(Failure::Transient(format!("the connection broke: {e}"))),
        };
        if read == 0 {
            break;
        }
        if read as u64 > remote.size - partial.length {
            return Err(unexpected(format!(
                "it sends more than the {} bytes of the file",
                remote.size
            ))
            .into());
        }
        partial.add(&chunk[..read])?;
        bar.add(read as u64);
    }
    if partial.length < remote.size {
        return Err(Failure::Transient("the connection was closed too early".into()));
    }
    Ok(())
}

/// An incomplete file.
struct PartialFile {
    path: PathBuf,
    file: File,
    length: u64,
    /// Hash of the bytes so far.
    hash: Sha256,
}

impl PartialFile {
    /// Opens the partial file of an earlier attempt, or a new one.
    fn open(path: &Path, remote: &RemoteFile) -> Result<PartialFile, PullError> {
        let open = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = open.map_err(|e| HubError::io("create", path, e))?;
        let mut partial =
            PartialFile { path: path.to_owned(), file, length: 0, hash: Sha256::new() };
        let length = partial.file.metadata().map_err(|e| HubError::io("read", path, e))?.len();
        if length > remote.size {
            partial.restart()?;
        } else if remote.sha256().is_some() {
            let mut chunk = vec![0; CHUNK];
            loop {
                match partial.file.read(&mut chunk).map_err(|e| HubError::io("read", path, e))? {
                    0 => break,
                    read => partial.hash.update(&chunk[..read]),
                }
            }
            partial.length = length;
        } else {
            // A file without SHA-256 is small; restart rather than trust the partial file.
            partial.restart()?;
        }
        Ok(partial)
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

    /// Verifies the SHA-256 of the complete file.
    fn check(&self, remote: &RemoteFile) -> Result<(), PullError> {
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
