//! Where data files come from: the embedded world, or the user's files, folders and patterns. Both go through the same
//! readers.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crisol_text::{
    ReadOptions, Record, RowRange, TextError, data_files, parse_jsonl_lines, records, source_size,
};
use crisol_world::DataFile;

use crate::PhaseError;

/// How much a data file holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    pub(crate) bytes: usize,
    pub(crate) records: usize,
    /// Bytes of the longest record.
    pub(crate) longest: usize,
}

impl Size {
    fn of(lines: impl Iterator<Item = usize>) -> Size {
        lines.fold(Size::default(), |size, bytes| {
            size.with(Size { bytes, records: 1, longest: bytes })
        })
    }

    /// Bytes of a record on average.
    pub(crate) fn mean(self) -> usize {
        self.bytes / self.records.max(1)
    }

    /// Of both files together.
    pub(crate) fn with(self, other: Size) -> Size {
        Size {
            bytes: self.bytes + other.bytes,
            records: self.records + other.records,
            longest: self.longest.max(other.longest),
        }
    }
}

/// A place to look up data files by name.
#[derive(Debug)]
pub struct DataSource {
    place: Place,
    options: ReadOptions,
    /// What is worth saying about each file that was read.
    findings: Mutex<BTreeMap<String, Findings>>,
}

#[derive(Debug)]
enum Place {
    /// The embedded data set.
    World(Vec<DataFile>),
    /// A folder; absolute names are taken as they are.
    Folder(PathBuf),
}

/// What a data file's name stands for.
pub(crate) enum Found<'d> {
    /// A text of the embedded data set, if it has one of this name.
    Embedded(Option<&'d str>),
    /// Files; of what cannot be found or has no name (a pipe), the name itself.
    Files(Vec<PathBuf>),
}

/// What of a file is not trained on, and is no error.
#[derive(Debug, Default)]
struct Findings {
    /// In how many records a field stands that nothing reads.
    unused: BTreeMap<String, usize>,
    /// Pairs whose two answers are the same, which were left out; and the first of them.
    equal_pairs: usize,
    first_equal: String,
}

/// Today's name of a file of the embedded data set that version 0.1 called otherwise.
fn renamed(file: &str) -> Option<String> {
    file.strip_prefix("votes.").map(|split| format!("preferences.{split}"))
}

/// A file of the embedded data set by its name of today or of version 0.1.
fn embedded<'d>(files: &'d [DataFile], file: &str) -> Option<&'d DataFile> {
    let name = renamed(file);
    files.iter().find(|known| known.name == name.as_deref().unwrap_or(file))
}

impl DataSource {
    /// The source that a recipe's `data` names.
    pub fn open(name: &str) -> DataSource {
        let place = match name {
            "world" => Place::World(crisol_world::dataset()),
            folder => Place::Folder(folder.into()),
        };
        DataSource { place, options: ReadOptions::default(), findings: Mutex::default() }
    }

    /// The source, with files read as these options say.
    #[must_use]
    pub fn reading(self, options: ReadOptions) -> DataSource {
        DataSource { options, ..self }
    }

    /// Where a file is looked up. Data sets are on the hub whatever the recipe's folder is.
    fn place(&self, file: &str) -> &Place {
        static ANYWHERE: Place = Place::Folder(PathBuf::new());
        if self.options.datasets.contains_key(file) { &ANYWHERE } else { &self.place }
    }

    /// Whether there is such a file, folder or pattern, that may be read more than once: a pipe is none.
    pub fn has(&self, file: &str) -> bool {
        match self.place(file) {
            Place::World(files) => embedded(files, file).is_some(),
            Place::Folder(folder) => {
                let files =
                    data_files(&self.source(folder, file), &self.options).unwrap_or_default();
                !files.is_empty() && files.iter().all(|file| file.is_file())
            }
        }
    }

    /// The records of one file, folder or pattern. Pairs without a preference are left out, unless all are.
    pub fn records(&self, file: &str) -> Result<Vec<Record>, PhaseError> {
        self.read(&[file.to_owned()]).collect()
    }

    /// The records of several files, in order, as they are read.
    pub(crate) fn read(&self, files: &[String]) -> Reader<'_> {
        Reader { data: self, files: files.to_vec().into(), current: None }
    }

    /// Opens one file, folder or pattern.
    fn lines(&self, file: &str) -> Result<Lines, PhaseError> {
        Ok(match self.place(file) {
            Place::World(files) => {
                let found = embedded(files, file).ok_or_else(|| PhaseError::NoSuchData {
                    file: file.into(),
                    known: files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", "),
                })?;
                Box::new(parse_jsonl_lines(file, found.jsonl.as_bytes())?.into_iter())
            }
            Place::Folder(folder) => Box::new(records(&self.source(folder, file), &self.options)?),
        })
    }

    /// The first record of a file, folder or pattern; none of a pipe, which can be read only once.
    pub(crate) fn first_record(&self, file: &str) -> Result<Option<Record>, PhaseError> {
        if !self.has(file) {
            return Ok(None);
        }
        Ok(self.lines(file)?.next().transpose()?)
    }

    /// What is worth saying of these files once they were read: fields that nothing reads, pairs that were left out.
    pub fn notes(&self, files: &[String]) -> Vec<String> {
        let all = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut notes = vec![];
        for file in files.iter().filter(|file| matches!(self.place(file), Place::World(_))) {
            if let Some(name) = renamed(file) {
                notes.push(format!("{file}: the embedded data set calls this file {name} now."));
            }
        }
        for (file, found) in files.iter().filter_map(|file| all.get_key_value(file)) {
            if !found.unused.is_empty() {
                let fields: Vec<_> =
                    found.unused.iter().map(|(name, count)| format!("{name} ({count})")).collect();
                notes.push(format!("{file}: nothing reads the fields {}.", fields.join(", ")));
            }
            if found.equal_pairs > 0 {
                notes.push(format!(
                    "{file}: pairs with equal answers, left out: {} (the first: {}).",
                    found.equal_pairs, found.first_equal
                ));
            }
        }
        notes
    }

    /// How much one file holds, about; nothing if there is none, which is an error once it is needed, or if it is a pipe.
    pub(crate) fn size(&self, file: &str) -> Size {
        match self.place(file) {
            Place::World(files) => embedded(files, file)
                .map_or(Size::default(), |found| Size::of(found.jsonl.lines().map(str::len))),
            Place::Folder(folder) => {
                let size = source_size(&self.source(folder, file), &self.options);
                Size { bytes: size.bytes, records: size.records, longest: size.longest_record }
            }
        }
    }

    /// What a name stands for.
    pub(crate) fn find(&self, file: &str) -> Found<'_> {
        match self.place(file) {
            Place::World(files) => Found::Embedded(embedded(files, file).map(|f| f.jsonl.as_str())),
            Place::Folder(folder) => {
                let source = self.source(folder, file);
                let files = data_files(&source, &self.options).unwrap_or_default();
                Found::Files(if files.is_empty() { vec![source.into()] } else { files })
            }
        }
    }

    /// Which rows of a data set a name stands for, where it is one.
    pub(crate) fn rows(&self, file: &str) -> Option<RowRange> {
        self.options.datasets.get(file).map(|set| set.rows)
    }

    /// What a recipe's file names, as the readers take it.
    fn source(&self, folder: &Path, file: &str) -> String {
        if file == "-" || self.options.datasets.contains_key(file) {
            return file.to_owned();
        }
        folder.join(file).to_string_lossy().into_owned()
    }

    /// Bytes of data that are in memory all the time.
    pub(crate) fn held_bytes(&self) -> usize {
        match &self.place {
            Place::World(files) => files.iter().map(|file| file.jsonl.len()).sum(),
            Place::Folder(_) => 0,
        }
    }

    /// The records of several files, in order.
    pub fn all_records(&self, files: &[String]) -> Result<Vec<Record>, PhaseError> {
        self.read(files).collect()
    }

    /// How files are read.
    pub(crate) fn options(&self) -> &ReadOptions {
        &self.options
    }
}

/// What the readers give for the rows of a file.
type Lines = Box<dyn Iterator<Item = Result<Record, TextError>> + Send>;

/// Records of files as they are read. What is worth saying of a file is kept at its end.
pub(crate) struct Reader<'d> {
    data: &'d DataSource,
    files: VecDeque<String>,
    current: Option<Current>,
}

struct Current {
    file: String,
    lines: Lines,
    records: usize,
    findings: Findings,
}

impl Iterator for Reader<'_> {
    type Item = Result<Record, PhaseError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(current) = &mut self.current else {
                let file = self.files.pop_front()?;
                match self.data.lines(&file) {
                    Ok(lines) => {
                        let findings = Findings::default();
                        self.current = Some(Current { file, lines, records: 0, findings });
                    }
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            let findings = &mut current.findings;
            match current.lines.next() {
                Some(Ok(record)) => {
                    current.records += 1;
                    for field in &record.unused {
                        match findings.unused.get_mut(field) {
                            Some(count) => *count += 1,
                            None => drop(findings.unused.insert(field.clone(), 1)),
                        }
                    }
                    return Some(Ok(record));
                }
                Some(Err(TextError::EqualAnswers { location })) => {
                    if findings.equal_pairs == 0 {
                        findings.first_equal = location;
                    }
                    findings.equal_pairs += 1;
                }
                Some(Err(error)) => return Some(Err(error.into())),
                None => {
                    let Current { file, records, findings, .. } = self.current.take()?;
                    if records == 0 {
                        let pairs = findings.equal_pairs;
                        return Some(Err(TextError::OnlyEqualAnswers { file, pairs }.into()));
                    }
                    if matches!(self.data.place, Place::Folder(_)) {
                        let mut all =
                            self.data.findings.lock().unwrap_or_else(PoisonError::into_inner);
                        all.insert(file, findings);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair without a preference is no reason to refuse the others; what nothing reads is said once.
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

    /// The embedded data set is in shapes of this program's own.
    #[test]
    fn the_embedded_data_set_is_read_without_a_word() {
        let data = DataSource::open("world");
        let Place::World(files) = &data.place else { panic!("{data:?}") };
        let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
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
    fn files_of_the_embedded_set_are_read_under_their_older_names() {
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
