//! Encodes the records of data files as the examples of a phase, chunk by chunk as they are read.
//!
//! ```text
//! data files → Record → Example { ids, trained } → token store (store.rs)
//! ```

use crisol_report::MaskPicture;
use crisol_text::inspect::inspect_record;
use crisol_text::{
    Body, Encoded, Example, PreferenceExample, ReadOptions, Record, TextError, TextSetup,
    encode_chunks,
};

use crate::PhaseError;
use crate::context::PhaseContext;
use crate::data::DataSource;
use crate::pretrain::text_of;
use crate::store::{Examples, MAX_IN_MEMORY, Metadata, Writer};

/// Encoding of a phase's records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ExampleKind {
    /// Raw text, all of it trained.
    Text,
    /// Conversations and completions, of which the answers are trained, and raw text.
    Supervised,
    /// Pairs: the chosen answer's example, then the rejected one's.
    Preference,
}

impl ExampleKind {
    pub(crate) fn encode(
        self,
        text: &TextSetup,
        record: &Record,
        context: usize,
    ) -> Result<Encoded<Example>, TextError> {
        match self {
            ExampleKind::Text | ExampleKind::Supervised => text.supervised(record, context),
            ExampleKind::Preference => {
                let Encoded { examples, records, summary } = text.preference(record, context)?;
                let both = |pair: PreferenceExample| [pair.chosen, pair.rejected];
                let records = records.into_iter().flat_map(|record| [record; 2]).collect();
                Ok(Encoded {
                    examples: examples.into_iter().flat_map(both).collect(),
                    records,
                    summary,
                })
            }
        }
    }

    /// Refuses records that this kind cannot encode.
    fn check(self, record: Record) -> Result<Record, PhaseError> {
        if self == ExampleKind::Text {
            text_of(&record)?;
        }
        Ok(record)
    }
}

/// Data files of a phase.
pub(crate) struct Source<'s> {
    /// The setting that names them: `data`, `replay.data`, ….
    pub(crate) role: &'s str,
    /// Begins notes on the data.
    pub(crate) note_prefix: &'s str,
    pub(crate) files: &'s [String],
    pub(crate) kind: ExampleKind,
    /// Records whose loss mask goes into the report.
    pub(crate) masks: usize,
}

impl Source<'_> {
    /// Encodes them as examples of at most `context` tokens.
    pub(crate) fn load(
        &self,
        ctx: &mut PhaseContext<'_>,
        text: &TextSetup,
        context: usize,
    ) -> Result<Examples, PhaseError> {
        self.load_within(ctx, text, context, None, MAX_IN_MEMORY)
    }

    /// As [`Self::load`], for records read before from a source that cannot be read twice (a pipe).
    pub(crate) fn load_from(
        &self,
        ctx: &mut PhaseContext<'_>,
        text: &TextSetup,
        context: usize,
        records: Vec<Record>,
    ) -> Result<Examples, PhaseError> {
        self.load_within(ctx, text, context, Some(records), MAX_IN_MEMORY)
    }

    fn load_within(
        &self,
        ctx: &mut PhaseContext<'_>,
        text: &TextSetup,
        context: usize,
        held: Option<Vec<Record>>,
        memory_limit: usize,
    ) -> Result<Examples, PhaseError> {
        let path = ctx.tokens_file(self.role);
        if path.exists()
            && let Some(key) = self.key(ctx, text, context)
            && let Some((examples, metadata)) = Examples::open(&path, &key)?
        {
            Self::report(ctx, metadata.notes, metadata.masks);
            return Ok(examples);
        }
        let data = ctx.data;
        let records: Box<dyn Iterator<Item = Result<Record, PhaseError>> + Send> = match held {
            Some(records) => Box::new(records.into_iter().map(Ok)),
            None => Box::new(data.read(self.files)),
        };
        let records = records.map(|record| self.kind.check(record?));
        let mut writer = Writer::new(path, memory_limit);
        let mut masks = vec![];
        let mut masked_records = 0;
        let encode = |record: &Record| self.kind.encode(text, record, context);
        let summary = encode_chunks(records, encode, |records, encoded| {
            ctx.check_stop()?;
            for record in records.iter().take(self.masks.saturating_sub(masked_records)) {
                masked_records += 1;
                for sequence in inspect_record(text, record, context).sequences {
                    let spans =
                        sequence.spans.into_iter().map(|span| (span.text, span.trained)).collect();
                    masks.push(MaskPicture {
                        phase: ctx.name.clone(),
                        title: record.location.clone(),
                        spans,
                    });
                }
            }
            encoded.examples.iter().try_for_each(|example| writer.push(example))
        })?;
        let mut notes = data.notes(self.files);
        notes.extend(
            summary.notes(context).into_iter().map(|note| format!("{}{note}", self.note_prefix)),
        );
        Self::report(ctx, notes.clone(), masks.clone());
        let key = if writer.is_file() { self.key(ctx, text, context) } else { None };
        writer.finish(Metadata {
            key: key.unwrap_or_default(),
            notes,
            masks,
            ..Metadata::default()
        })
    }

    fn report(ctx: &mut PhaseContext<'_>, notes: Vec<String>, masks: Vec<MaskPicture>) {
        for note in notes {
            ctx.note(note);
        }
        ctx.masks.extend(masks);
    }

    /// Hash of the inputs of the encoding; `None` if one cannot be hashed (a pipe).
    fn key(&self, ctx: &PhaseContext<'_>, text: &TextSetup, context: usize) -> Option<String> {
        let contents = ctx.fingerprint().contents(self.role)?;
        let template = text.template.as_ref().map(crisol_text::ChatTemplate::sources);
        let inputs = format!(
            "{} {:?} {context} {contents:?} {:?} {:?} {template:?} {:?} {}",
            env!("CARGO_PKG_VERSION"),
            self.kind,
            ctx.data.options(),
            text.options(),
            text.stop_ids,
            text.tokenizer.to_json(),
        );
        Some(blake3::hash(inputs.as_bytes()).to_string())
    }
}

/// Result of [`preprocess`].
#[derive(Clone, Copy, Debug)]
pub struct Preprocessed {
    /// Records that were read.
    pub records: usize,
    /// Examples that they were encoded as; a pair is two.
    pub examples: usize,
    /// Tokens of the examples.
    pub tokens: u64,
}

/// Reads and encodes data as a training phase does, then drops the tokens: a benchmark.
pub fn preprocess(
    source: &str,
    options: &ReadOptions,
    text: &TextSetup,
    context: usize,
) -> Result<Preprocessed, PhaseError> {
    let path = std::env::temp_dir().join(format!("crisol-tokens-{}", std::process::id()));
    let mut writer = Writer::new(path.clone(), MAX_IN_MEMORY);
    let data = DataSource::open("").with_options(options.clone());
    let encode = |record: &Record| match record.body {
        Body::Preference { .. } => ExampleKind::Preference.encode(text, record, context),
        _ => ExampleKind::Supervised.encode(text, record, context),
    };
    let files = [source.to_owned()];
    let summary = encode_chunks(data.read(&files), encode, |_, encoded| {
        encoded.examples.iter().try_for_each(|example| writer.push(example))
    })?;
    let is_file = writer.is_file();
    let examples = writer.finish(Metadata::default())?;
    let tokens = examples.lengths().map(|length| length.tokens as u64).sum();
    let made = Preprocessed { records: summary.records, examples: examples.len(), tokens };
    drop(examples);
    if is_file {
        std::fs::remove_file(&path).map_err(|e| PhaseError::io(&path, e))?;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crisol_engine::Device;
    use crisol_text::{EMBEDDED_TOKENS, Tokenizer, encode_records};

    use super::*;
    use crate::fingerprint::{Fingerprint, Hashes};
    use crate::forecast::StageForecast;
    use crate::observer::Observer;
    use crate::recipe::Recipe;
    use crate::state::SaveStats;

    /// Collects notes.
    #[derive(Default)]
    struct Notes(Vec<String>);

    impl Observer for Notes {
        fn phase_started(&mut self, _: &str, _: usize, _: usize) {}
        fn stage_started(&mut self, _: &str, _: u64, _: u64) {}
        fn step(&mut self, _: u64, _: u64, _: &[(&str, f64)]) {}
        fn stage_forecast(&mut self, _: &StageForecast) {}
        fn measured(&mut self) {}
        fn memory_forecast(&mut self, _: f64, _: Option<f64>) {}
        fn saved(&mut self, _: &SaveStats) {}
        fn note(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
        fn phase_finished(&mut self, _: &crisol_report::PhaseReport) {}
    }

    const CONTEXT: usize = 40;
    const RECIPE: &str = "data = \".\"\nbase = \"none\"\nevaluate = \"none\"\n[[phases]]\nkind = \"sft\"\ndata = [\"a.jsonl\", \"b.jsonl\"]\n";

    fn setup() -> TextSetup {
        TextSetup::embedded(
            Tokenizer::train(["hello hell a number 1 2 3"], 300, &EMBEDDED_TOKENS).unwrap(),
        )
        .unwrap()
    }

    struct Loaded {
        examples: Vec<Example>,
        notes: Vec<String>,
        masks: Vec<MaskPicture>,
    }

    /// Loads the examples of a phase with this memory limit.
    fn load(folder: &Path, text: &TextSetup, context: usize, memory_limit: usize) -> Loaded {
        let recipe = Recipe::parse("test.toml", RECIPE).unwrap();
        let data = DataSource::open(folder.to_str().unwrap());
        let fingerprint = Fingerprint::compute(
            &recipe,
            &recipe.phases[0],
            folder,
            &data,
            None,
            &mut Hashes::default(),
        )
        .unwrap();
        let (device, mut notes) = (Device::cpu(Some(1)), Notes::default());
        let progress = folder.join("progress");
        let mut ctx = PhaseContext::open(
            &recipe.run,
            &device,
            &data,
            "sft",
            &progress,
            None,
            None,
            fingerprint,
            &mut notes,
        )
        .unwrap();
        let files = ["a.jsonl", "b.jsonl"].map(str::to_owned);
        let source = Source {
            role: "data",
            note_prefix: "",
            files: &files,
            kind: ExampleKind::Supervised,
            masks: 3,
        };
        let examples = source.load_within(&mut ctx, text, context, None, memory_limit).unwrap();
        let (examples, masks) = (examples.all().unwrap(), std::mem::take(&mut ctx.masks));
        drop(ctx);
        Loaded { examples, notes: notes.0, masks }
    }

    /// More than two chunks of records; some longer than the context, one with an unknown field.
    fn write_files(folder: &Path) {
        let record = |i: usize| {
            let answer = "hello ".repeat(i % 30 + 1);
            let id = if i == 7 { ", \"id\": 7" } else { "" };
            format!("{{\"prompt\": \"number {i}\", \"completion\": \"{answer}\"{id}}}\n")
        };
        std::fs::write(folder.join("a.jsonl"), (0..1500).map(record).collect::<String>()).unwrap();
        std::fs::write(folder.join("b.jsonl"), (1500..2500).map(record).collect::<String>())
            .unwrap();
    }

    /// Chunked encoding, in memory, in a file and from an earlier file, against encoding all
    /// records at once. The notes agree too.
    #[test]
    fn examples_are_those_of_all_records_at_once() {
        let folder = tempfile::tempdir().unwrap();
        write_files(folder.path());
        let text = setup();
        let data = DataSource::open(folder.path().to_str().unwrap());
        let records = data.all_records(&["a.jsonl", "b.jsonl"].map(str::to_owned)).unwrap();
        let all = encode_records(&records, |record| text.supervised(record, CONTEXT)).unwrap();
        let in_memory = load(folder.path(), &text, CONTEXT, usize::MAX);
        let tokens = folder.path().join("progress/tokens/data");
        assert!(!tokens.exists());
        let in_file = load(folder.path(), &text, CONTEXT, 1000);
        let written = std::fs::metadata(&tokens).unwrap().modified().unwrap();
        let again = load(folder.path(), &text, CONTEXT, 1000);
        assert_eq!(std::fs::metadata(&tokens).unwrap().modified().unwrap(), written);
        assert!(in_memory.examples == all.examples);
        assert_eq!(in_memory.masks.len(), 3);
        assert!(
            in_memory.notes.iter().any(|note| note.contains("id (1)")),
            "{:?}",
            in_memory.notes
        );
        assert!(
            in_memory.notes.iter().any(|note| note.contains("Of 2500 records")),
            "{:?}",
            in_memory.notes
        );
        for loaded in [in_file, again] {
            assert!(loaded.examples == all.examples);
            assert_eq!(
                (loaded.notes, loaded.masks),
                (in_memory.notes.clone(), in_memory.masks.clone())
            );
        }
    }

    /// The file is written again if an input differs or it is damaged.
    #[test]
    fn a_file_of_other_inputs_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        write_files(folder.path());
        let text = setup();
        let path = folder.path().join("progress/tokens/data");
        let check = |text: &TextSetup, context: usize| {
            let loaded = load(folder.path(), text, context, 1000).examples;
            let file = std::fs::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            assert!(loaded == load(folder.path(), text, context, usize::MAX).examples);
            std::fs::write(&path, file).unwrap();
        };
        check(&text, CONTEXT);
        check(&text, CONTEXT + 1);
        let other = Tokenizer::train(["number hell"], 290, &EMBEDDED_TOKENS).unwrap();
        check(&TextSetup::embedded(other).unwrap(), CONTEXT);
        let options = crisol_text::TextOptions {
            strings: crisol_text::StringFormat::Message,
            ..crisol_text::TextOptions::default()
        };
        let mut chat = setup();
        chat.set_options(options);
        check(&chat, CONTEXT);
        let mut file = std::fs::read(&path).unwrap();
        file[100] ^= 1;
        std::fs::write(&path, file).unwrap();
        check(&chat, CONTEXT);
        std::fs::write(folder.path().join("b.jsonl"), "{\"text\": \"hello\"}\n").unwrap();
        check(&chat, CONTEXT);
    }
}
