//! Sources of data files: the embedded world, or the user's files, folders and patterns. Both go
//! through the same readers.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crisol_text::{
    ReadOptions, Record, RowRange, TextError, data_files, jsonl_records, records, source_size,
};
use crisol_world::DataFile;

use crate::PhaseError;

/// Size of a data file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    pub(crate) bytes: usize,
    pub(crate) records: usize,
    /// Bytes of the longest record.
    pub(crate) longest: usize,
}

impl Size {
    fn of_lines(lines: impl Iterator<Item = usize>) -> Size {
        lines.fold(Size::default(), |size, bytes| {
            size.merge(Size { bytes, records: 1, longest: bytes })
        })
    }

    /// Mean bytes of a record.
    pub(crate) fn mean(self) -> usize {
        self.bytes / self.records.max(1)
    }

    /// Size of both files together.
    pub(crate) fn merge(self, other: Size) -> Size {
        Size {
            bytes: self.bytes + other.bytes,
            records: self.records + other.records,
            longest: self.longest.max(other.longest),
        }
    }
}

/// Data files by name.
#[derive(Debug)]
pub struct DataSource {
    backend: Backend,
    options: ReadOptions,
    /// What was ignored in each file read.
    ignored: Mutex<BTreeMap<String, Ignored>>,
}

#[derive(Debug)]
enum Backend {
    /// The embedded data set.
    Embedded(Vec<DataFile>),
    /// A folder; absolute names are taken as they are.
    Folder(PathBuf),
}

/// The files that a name of a recipe stands for.
pub(crate) enum DataFiles<'d> {
    /// Text of a file of the embedded data set, if it has one of this name.
    Embedded(Option<&'d str>),
    /// Paths. A name that matches no file, or a pipe, is its own path.
    Paths(Vec<PathBuf>),
}

/// Parts of a file that are not trained on. None is an error.
#[derive(Debug, Default)]
struct Ignored {
    /// Fields that nothing reads, with the number of their records.
    unused: BTreeMap<String, usize>,
    /// Pairs whose two answers are equal, and the location of the first.
    equal_pairs: usize,
    first_equal: String,
}

/// Current name of a file of the embedded data set that was renamed after version 0.1.
fn current_name(file: &str) -> Option<String> {
    file.strip_prefix("votes.").map(|split| format!("preferences.{split}"))
}

/// A file of the embedded data set, by its current name or that of version 0.1.
fn embedded<'d>(files: &'d [DataFile], file: &str) -> Option<&'d DataFile> {
    let name = current_name(file);
    files.iter().find(|known| known.name == name.as_deref().unwrap_or(file))
}

impl DataSource {
    /// The source that a recipe's `data` names.
    pub fn open(name: &str) -> DataSource {
        let backend = match name {
            "world" => Backend::Embedded(crisol_world::dataset()),
            folder => Backend::Folder(folder.into()),
        };
        DataSource { backend, options: ReadOptions::default(), ignored: Mutex::default() }
    }

    /// The source, with these options for reading files.
    #[must_use]
    pub fn with_options(self, options: ReadOptions) -> DataSource {
        DataSource { options, ..self }
    }

    /// Where a file is looked up. Data sets of the hub do not depend on the recipe's folder.
    fn backend(&self, file: &str) -> &Backend {
        static ANYWHERE: Backend = Backend::Folder(PathBuf::new());
        if self.options.datasets.contains_key(file) { &ANYWHERE } else { &self.backend }
    }

    /// Whether a file, folder or pattern exists and can be read twice. A pipe cannot.
    pub fn has(&self, file: &str) -> bool {
        match self.backend(file) {
            Backend::Embedded(files) => embedded(files, file).is_some(),
            Backend::Folder(folder) => {
                let files =
                    data_files(&self.source(folder, file), &self.options).unwrap_or_default();
                !files.is_empty() && files.iter().all(|file| file.is_file())
            }
        }
    }

    /// The records of one file, folder or pattern. Pairs of equal answers are left out; it is an
    /// error if all are.
    pub fn records(&self, file: &str) -> Result<Vec<Record>, PhaseError> {
        self.read(&[file.to_owned()]).collect()
    }

    /// Streams the records of several files, in order.
    pub(crate) fn read(&self, files: &[String]) -> RecordReader<'_> {
        RecordReader { data: self, files: files.to_vec().into(), current: None }
    }

    /// Opens one file, folder or pattern.
    fn open_file(&self, file: &str) -> Result<RecordIter<'_>, PhaseError> {
        Ok(match self.backend(file) {
            Backend::Embedded(files) => {
                let found = embedded(files, file).ok_or_else(|| PhaseError::NoSuchData {
                    file: file.into(),
                    known: files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", "),
                })?;
                Box::new(jsonl_records(file, found.jsonl.as_bytes()))
            }
            Backend::Folder(folder) => {
                Box::new(records(&self.source(folder, file), &self.options)?)
            }
        })
    }

    /// The first record of a file, folder or pattern; `None` for a pipe.
    pub(crate) fn first_record(&self, file: &str) -> Result<Option<Record>, PhaseError> {
        if !self.has(file) {
            return Ok(None);
        }
        Ok(self.open_file(file)?.next().transpose()?)
    }

    /// Notes on files that were read: fields that nothing reads, pairs left out, old names.
    pub fn notes(&self, files: &[String]) -> Vec<String> {
        let all = self.ignored.lock().unwrap_or_else(PoisonError::into_inner);
        let mut notes = vec![];
        for file in files.iter().filter(|file| matches!(self.backend(file), Backend::Embedded(_))) {
            if let Some(name) = current_name(file) {
                notes.push(format!("{file}: the embedded data set calls this file {name} now."));
            }
        }
        for (file, ignored) in files.iter().filter_map(|file| all.get_key_value(file)) {
            if !ignored.unused.is_empty() {
                let fields: Vec<_> = ignored
                    .unused
                    .iter()
                    .map(|(name, count)| format!("{name} ({count})"))
                    .collect();
                notes.push(format!("{file}: nothing reads the fields {}.", fields.join(", ")));
            }
            if ignored.equal_pairs > 0 {
                notes.push(format!(
                    "{file}: pairs with equal answers, left out: {} (the first: {}).",
                    ignored.equal_pairs, ignored.first_equal
                ));
            }
        }
        notes
    }

    /// Estimated size of one file; zero for a pipe or a missing file.
    pub(crate) fn size(&self, file: &str) -> Size {
        match self.backend(file) {
            Backend::Embedded(files) => embedded(files, file)
                .map_or(Size::default(), |found| Size::of_lines(found.jsonl.lines().map(str::len))),
            Backend::Folder(folder) => {
                let size = source_size(&self.source(folder, file), &self.options);
                Size { bytes: size.bytes, records: size.records, longest: size.longest_record }
            }
        }
    }

    /// The files that a name stands for.
    pub(crate) fn locate(&self, file: &str) -> DataFiles<'_> {
        match self.backend(file) {
            Backend::Embedded(files) => {
                DataFiles::Embedded(embedded(files, file).map(|f| f.jsonl.as_str()))
            }
            Backend::Folder(folder) => {
                let source = self.source(folder, file);
                let files = data_files(&source, &self.options).unwrap_or_default();
                DataFiles::Paths(if files.is_empty() { vec![source.into()] } else { files })
            }
        }
    }

    /// Rows of a data set of the hub; `None` for other files.
    pub(crate) fn rows(&self, file: &str) -> Option<RowRange> {
        self.options.datasets.get(file).map(|set| set.rows)
    }

    /// A recipe's file name in the form that the readers take.
    fn source(&self, folder: &Path, file: &str) -> String {
        if file == "-" || self.options.datasets.contains_key(file) {
            return file.to_owned();
        }
        folder.join(file).to_string_lossy().into_owned()
    }

    /// Bytes of data that stay in memory.
    pub(crate) fn resident_bytes(&self) -> usize {
        match &self.backend {
            Backend::Embedded(files) => files.iter().map(|file| file.jsonl.len()).sum(),
            Backend::Folder(_) => 0,
        }
    }

    /// The records of several files, in order.
    pub fn all_records(&self, files: &[String]) -> Result<Vec<Record>, PhaseError> {
        self.read(files).collect()
    }

    /// Options for reading files.
    pub(crate) fn options(&self) -> &ReadOptions {
        &self.options
    }
}

/// Records or errors of a file.
type RecordIter<'d> = Box<dyn Iterator<Item = Result<Record, TextError>> + Send + 'd>;

/// Streams the records of files, and stores what it ignored at the end of each.
pub(crate) struct RecordReader<'d> {
    data: &'d DataSource,
    files: VecDeque<String>,
    current: Option<OpenFile<'d>>,
}

struct OpenFile<'d> {
    file: String,
    lines: RecordIter<'d>,
    records: usize,
    ignored: Ignored,
}

impl Iterator for RecordReader<'_> {
    type Item = Result<Record, PhaseError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(current) = &mut self.current else {
                let file = self.files.pop_front()?;
                match self.data.open_file(&file) {
                    Ok(lines) => {
                        let ignored = Ignored::default();
                        self.current = Some(OpenFile { file, lines, records: 0, ignored });
                    }
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            let ignored = &mut current.ignored;
            match current.lines.next() {
                Some(Ok(record)) => {
                    current.records += 1;
                    for field in &record.unused {
                        match ignored.unused.get_mut(field) {
                            Some(count) => *count += 1,
                            None => drop(ignored.unused.insert(field.clone(), 1)),
                        }
                    }
                    return Some(Ok(record));
                }
                Some(Err(TextError::EqualAnswers { location })) => {
                    if ignored.equal_pairs == 0 {
                        ignored.first_equal = location;
                    }
                    ignored.equal_pairs += 1;
                }
                Some(Err(error)) => return Some(Err(error.into())),
                None => {
                    let OpenFile { file, records, ignored, .. } = self.current.take()?;
                    if records == 0 {
                        let pairs = ignored.equal_pairs;
                        return Some(Err(TextError::OnlyEqualAnswers { file, pairs }.into()));
                    }
                    if matches!(self.data.backend, Backend::Folder(_)) {
                        let mut all =
                            self.data.ignored.lock().unwrap_or_else(PoisonError::into_inner);
                        all.insert(file, ignored);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_pairs_are_left_out_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let pair = |rejected: &str| {
            format!(
                "{{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"{rejected}\", \"id\": 7}}\n"
            )
        };
        std::fs::write(folder.path().join("v.jsonl"), [pair("b"), pair("c"), pair("b")].concat())
            .unwrap();
        std::fs::write(folder.path().join("all.jsonl"), [pair("b"), pair("b")].concat()).unwrap();
        let data = DataSource::open(folder.path().to_str().unwrap());
        assert_eq!(data.records("v.jsonl").unwrap().len(), 1);
        let notes = data.notes(&["v.jsonl".to_owned()]);
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(
            notes[0].contains("id (1)") && notes[1].contains("left out: 2 (the first: "),
            "{notes:?}"
        );
        let error = data.records("all.jsonl").unwrap_err().to_string();
        assert!(error.contains("all.jsonl") && error.contains("all 2 pairs"), "{error}");
    }

    #[test]
    fn the_embedded_data_set_has_no_unused_fields() {
        let data = DataSource::open("world");
        let Backend::Embedded(files) = &data.backend else { panic!("{data:?}") };
        let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
        assert!(!names.is_empty());
        for (name, file) in names.iter().zip(files) {
            let records = data.records(name).unwrap();
            assert_eq!(records.len(), file.jsonl.lines().count(), "{name}");
            let unused: Vec<_> = records.iter().flat_map(|record| &record.unused).collect();
            assert!(unused.is_empty(), "{name}: {:?}", unused[0]);
        }
    }

    #[test]
    fn a_folder_and_a_pattern_are_the_files_in_them() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("b.jsonl", "{\"text\": \"b\"}"),
            ("a.txt", "a"),
            ("note.md", "no data"),
            (".hidden.txt", "h"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let data = DataSource::open(folder.path().to_str().unwrap());
        let texts = |name: &str| -> Vec<String> {
            let text = |record: Record| match record.body {
                crisol_text::Body::Text { text } => text,
                other => panic!("{other:?}"),
            };
            data.records(name).unwrap().into_iter().map(text).collect()
        };
        assert_eq!(texts("."), ["a", "b"]);
        assert_eq!(texts("*.jsonl"), ["b"]);
        assert!(data.has(".") && data.has("?.txt") && !data.has("*.csv") && !data.has("-"));
        assert_eq!((data.size(".").records, data.size("b.jsonl").bytes), (2, 13));
    }

    #[test]
    fn files_of_the_embedded_set_are_found_by_their_older_names() {
        let data = DataSource::open("world");
        for (old, new) in [
            ("votes.train.jsonl", "preferences.train.jsonl"),
            ("votes.test.jsonl", "preferences.test.jsonl"),
        ] {
            let records = |file: &str| data.records(file).unwrap().len();
            assert_eq!(records(old), records(new));
            assert_eq!(data.size(old).bytes, data.size(new).bytes);
            let notes = data.notes(&[old.to_owned()]);
            assert_eq!(notes, [format!("{old}: the embedded data set calls this file {new} now.")]);
            assert!(data.notes(&[new.to_owned()]).is_empty());
        }
    }
}
