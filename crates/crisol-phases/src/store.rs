//! Tokens of all examples of a phase, back to back: in memory while they are few, else in a file beside the run.
//!
//! ```text
//! tokens   4 bytes each: the id, and bit 31 where it is trained
//! ends     8 bytes for each example: tokens up to its end
//! rows     4 bytes for each example: trained tokens
//! about    JSON: what the tokens were made of, how many there are, what was said of the data
//! 8 bytes  length of `about`
//! 32 bytes BLAKE3 of all before
//! ```
//!
//! Numbers are little-endian. Ends and rows are in memory: a phase plans its batches with them. Tokens are read when a
//! batch needs them, by position, so that the file takes no memory of the process.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crisol_report::MaskPicture;
use crisol_text::Example;
use serde::{Deserialize, Serialize};

use crate::PhaseError;
use crate::forecast::lengths::Length;

/// Tokens that are held in memory, 64 MiB of them.
pub(crate) const MAX_IN_MEMORY: usize = 16 << 20;
/// The bit of a trained token. Ids are below 2^24.
const TRAINED: u32 = 1 << 31;
const HASH_BYTES: usize = 32;
/// Length of `about`, and the hash.
const TRAILER_BYTES: u64 = 8 + HASH_BYTES as u64;

/// Examples of a phase.
#[derive(Debug)]
pub(crate) struct Examples {
    tokens: Tokens,
    /// Tokens up to the end of each example.
    ends: Vec<u64>,
    /// Trained tokens of each example.
    rows: Vec<u32>,
}

#[derive(Debug)]
enum Tokens {
    Memory(Vec<u32>),
    File(File, PathBuf),
}

/// What a file of tokens says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    /// Hash of all that the tokens depend on.
    pub(crate) key: String,
    /// What is said of the data at the start of the phase.
    pub(crate) notes: Vec<String>,
    /// The first examples, as the report shows them.
    pub(crate) masks: Vec<MaskPicture>,
    pub(crate) tokens: u64,
    pub(crate) examples: u64,
}

impl Examples {
    /// Examples of a test.
    #[cfg(test)]
    pub(crate) fn in_memory(examples: &[Example]) -> Examples {
        let mut writer = Writer::new(PathBuf::new(), usize::MAX);
        for example in examples {
            writer.push(example).expect("nothing is written");
        }
        writer.finish(About::default()).expect("nothing is written")
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The tokens of an example, and the trained ones of them.
    pub(crate) fn length(&self, i: usize) -> Length {
        Length { tokens: (self.ends[i] - self.start(i)) as usize, rows: self.rows[i] as usize }
    }

    /// Lengths of all examples.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = Length> {
        (0..self.len()).map(|i| self.length(i))
    }

    fn start(&self, i: usize) -> u64 {
        if i == 0 { 0 } else { self.ends[i - 1] }
    }

    /// An example.
    pub(crate) fn get(&self, i: usize) -> Result<Example, PhaseError> {
        let (start, end) = (self.start(i), self.ends[i]);
        Ok(match &self.tokens {
            Tokens::Memory(tokens) => unpack(tokens[start as usize..end as usize].iter().copied()),
            Tokens::File(file, path) => {
                let mut bytes = vec![0; (end - start) as usize * 4];
                read_at(file, &mut bytes, start * 4).map_err(|e| PhaseError::io(path, e))?;
                unpack(numbers(&bytes))
            }
        })
    }

    /// Several examples.
    pub(crate) fn batch(&self, chosen: &[usize]) -> Result<Vec<Example>, PhaseError> {
        chosen.iter().map(|&i| self.get(i)).collect()
    }

    /// All examples, for what is small.
    pub(crate) fn all(&self) -> Result<Vec<Example>, PhaseError> {
        (0..self.len()).map(|i| self.get(i)).collect()
    }

    /// The examples in a file that [`Writer`] wrote with this key. `None` if there is none, or of another key, or damaged:
    /// such a file is of no use, and is made again.
    pub(crate) fn open(path: &Path, key: &str) -> Result<Option<(Examples, About)>, PhaseError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(PhaseError::io(path, e)),
        };
        read(file, path, key).map_err(|e| PhaseError::io(path, e))
    }
}

fn unpack(tokens: impl Iterator<Item = u32>) -> Example {
    let (ids, trained) = tokens.map(|token| (token & !TRAINED, token & TRAINED != 0)).unzip();
    Example { ids, trained }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let (chunks, _) = bytes.as_chunks();
    chunks.iter().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
        }
    }
    Ok(())
}

fn read(mut file: File, path: &Path, key: &str) -> std::io::Result<Option<(Examples, About)>> {
    let Some(hashed) = file.metadata()?.len().checked_sub(HASH_BYTES as u64) else {
        return Ok(None);
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader((&mut file).take(hashed))?;
    let mut hash = [0; HASH_BYTES];
    file.read_exact(&mut hash)?;
    if *hasher.finalize().as_bytes() != hash {
        return Ok(None);
    }
    // What follows is as it was written.
    let Some(at) = hashed.checked_sub(8) else { return Ok(None) };
    let mut length = [0; 8];
    read_at(&file, &mut length, at)?;
    let length = u64::from_le_bytes(length);
    let Some(index_end) = at.checked_sub(length) else { return Ok(None) };
    let mut json = vec![0; length as usize];
    read_at(&file, &mut json, index_end)?;
    let Ok(about) = serde_json::from_slice::<About>(&json) else { return Ok(None) };
    if about.key != key
        || about.tokens * 4 + about.examples * 12 + length + TRAILER_BYTES != hashed + 32
    {
        return Ok(None);
    }
    let mut index = vec![0; about.examples as usize * 12];
    read_at(&file, &mut index, about.tokens * 4)?;
    let (ends, rows) = index.split_at(about.examples as usize * 8);
    let (chunks, _) = ends.as_chunks();
    let ends = chunks.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let rows = numbers(rows).collect();
    Ok(Some((Examples { tokens: Tokens::File(file, path.to_owned()), ends, rows }, about)))
}

/// Collects examples, in memory up to a limit.
pub(crate) struct Writer {
    /// Where the file is if there will be one.
    path: PathBuf,
    most_in_memory: usize,
    memory: Vec<u32>,
    file: Option<Hashed>,
    ends: Vec<u64>,
    rows: Vec<u32>,
}

impl Writer {
    /// Nothing yet; more than `most_in_memory` tokens go into a file.
    pub(crate) fn new(path: PathBuf, most_in_memory: usize) -> Writer {
        Writer { path, most_in_memory, memory: vec![], file: None, ends: vec![], rows: vec![] }
    }

    /// Adds an example.
    pub(crate) fn push(&mut self, example: &Example) -> Result<(), PhaseError> {
        let length = Length::of(example);
        if self.file.is_none() && self.memory.len() + length.tokens > self.most_in_memory {
            self.spill().map_err(|e| PhaseError::io(&self.path, e))?;
        }
        let mark = |(&id, &trained): (&u32, &bool)| if trained { id | TRAINED } else { id };
        let tokens = example.ids.iter().zip(&example.trained).map(mark);
        match &mut self.file {
            None => self.memory.extend(tokens),
            Some(file) => {
                for token in tokens {
                    file.write_all(&token.to_le_bytes())
                        .map_err(|e| PhaseError::io(&self.path, e))?;
                }
            }
        }
        self.ends.push(self.ends.last().copied().unwrap_or(0) + length.tokens as u64);
        // A document is a context long at most.
        self.rows.push(length.rows as u32);
        Ok(())
    }

    /// Where the file is until it is whole.
    fn unfinished(&self) -> PathBuf {
        self.path.with_added_extension("writing")
    }

    fn spill(&mut self) -> std::io::Result<()> {
        if let Some(parent) = self.path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.unfinished())?;
        let mut file =
            Hashed { file: BufWriter::with_capacity(1 << 20, file), hasher: blake3::Hasher::new() };
        for token in std::mem::take(&mut self.memory) {
            file.write_all(&token.to_le_bytes())?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Whether the tokens are in a file.
    pub(crate) fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// The examples. Their file, if there is one, becomes whole in one step.
    pub(crate) fn finish(mut self, about: About) -> Result<Examples, PhaseError> {
        let tokens = match self.file.take() {
            None => Tokens::Memory(std::mem::take(&mut self.memory)),
            Some(file) => {
                let file = self.complete(file, about).map_err(|e| PhaseError::io(&self.path, e))?;
                Tokens::File(file, self.path.clone())
            }
        };
        Ok(Examples {
            tokens,
            ends: std::mem::take(&mut self.ends),
            rows: std::mem::take(&mut self.rows),
        })
    }

    fn complete(&self, mut file: Hashed, about: About) -> std::io::Result<File> {
        let tokens = self.ends.last().copied().unwrap_or(0);
        let about =
            serde_json::to_vec(&About { tokens, examples: self.ends.len() as u64, ..about })?;
        for end in &self.ends {
            file.write_all(&end.to_le_bytes())?;
        }
        for rows in &self.rows {
            file.write_all(&rows.to_le_bytes())?;
        }
        file.write_all(&about)?;
        file.write_all(&(about.len() as u64).to_le_bytes())?;
        let Hashed { file: mut buffer, hasher } = file;
        buffer.write_all(hasher.finalize().as_bytes())?;
        let mut file = buffer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(self.unfinished(), &self.path)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }
}

impl Drop for Writer {
    /// What was given up is of no use to anybody.
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = std::fs::remove_file(self.unfinished());
        }
    }
}

/// A file and the hash of what was written into it.
struct Hashed {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl Hashed {
    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(ids: &[u32], trained: &[bool]) -> Example {
        Example { ids: ids.to_vec(), trained: trained.to_vec() }
    }

    /// Documents of 0 to 40 tokens without a pattern; the first token's mark, which trains nothing, is kept too.
    fn examples() -> Vec<Example> {
        let number = |i: usize| (i as u32).wrapping_mul(2_654_435_761);
        (0..500)
            .map(|i| {
                let tokens: Vec<u32> =
                    (0..number(i) as usize % 41).map(|t| number(i * 64 + t) >> 8).collect();
                let trained: Vec<bool> = tokens.iter().map(|token| token % 3 == 0).collect();
                example(&tokens, &trained)
            })
            .collect()
    }

    fn written(path: &Path, limit: usize, key: &str) -> Examples {
        let mut writer = Writer::new(path.to_owned(), limit);
        for example in examples() {
            writer.push(&example).unwrap();
        }
        let notes = vec!["Of 500 records: 3 are odd".to_owned()];
        writer.finish(About { key: key.into(), notes, ..About::default() }).unwrap()
    }

    fn check(stored: &Examples) {
        let examples = examples();
        assert_eq!(stored.all().unwrap(), examples);
        assert!(stored.lengths().eq(examples.iter().map(Length::of)));
        let chosen = [499, 0, 17, 17, 255];
        assert_eq!(stored.batch(&chosen).unwrap(), chosen.map(|i| examples[i].clone()));
    }

    #[test]
    fn examples_are_the_same_in_memory_and_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let tokens: usize = examples().iter().map(|example| example.ids.len()).sum();
        for limit in [0, 1, 1000, tokens - 1, tokens] {
            let path = folder.path().join(format!("tokens/{limit}"));
            check(&written(&path, limit, "key"));
            assert_eq!(path.exists(), limit < tokens, "{limit}");
            assert!(!path.with_added_extension("writing").exists());
        }
        let (again, about) =
            Examples::open(&folder.path().join("tokens/1000"), "key").unwrap().unwrap();
        check(&again);
        assert_eq!(about.notes, ["Of 500 records: 3 are odd"]);
    }

    /// A file that was made of something else, or is not as it was written, is not used.
    #[test]
    fn files_of_another_key_or_damaged_are_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        assert!(Examples::open(&path, "key").unwrap().is_none());
        drop(written(&path, 0, "key"));
        assert!(Examples::open(&path, "other").unwrap().is_none());
        let whole = std::fs::read(&path).unwrap();
        let open = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Examples::open(&path, "key").unwrap().is_some()
        };
        for at in (0..whole.len()).step_by(whole.len() / 50).chain(whole.len() - 60..whole.len()) {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            assert!(!open(&damaged), "byte {at}");
            assert!(!open(&whole[..at]), "the first {at} bytes");
        }
        assert!(!open(&[&whole[..], b"\0"].concat()));
        assert!(open(&whole));
    }

    #[test]
    fn a_file_that_is_given_up_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(folder.path().join("data"), 0);
        writer.push(&example(&[1, 2], &[false, true])).unwrap();
        assert!(writer.is_file());
        drop(writer);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
