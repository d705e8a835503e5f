//! Records of data files become the examples of a phase, chunk by chunk as they are read. Nothing of the text stays in
//! memory, and the tokens only while they are few ([`crate::store`]).

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
use crate::store::{About, Examples, MAX_IN_MEMORY, Writer};

/// What a phase makes of records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Raw text, all of it trained.
    Text,
    /// Conversations and completions, of which the answers are trained, and raw text.
    Supervised,
    /// Pairs: the chosen answer's example, then the rejected one's.
    Preference,
}

impl Kind {
    pub(crate) fn encode(
        self,
        text: &TextSetup,
        record: &Record,
        context: usize,
    ) -> Result<Encoded<Example>, TextError> {
        match self {
            Kind::Text | Kind::Supervised => text.supervised(record, context),
            Kind::Preference => {
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

    /// Records of this kind only.
    fn check(self, record: Record) -> Result<Record, PhaseError> {
        if self == Kind::Text {
            text_of(&record)?;
        }
        Ok(record)
    }
}

/// Data files of a phase.
pub(crate) struct Source<'s> {
    /// Their setting: `data`, `replay.data`, ….
    pub(crate) role: &'s str,
    /// What notes call them.
    pub(crate) what: &'s str,
    pub(crate) files: &'s [String],
    pub(crate) kind: Kind,
    /// Of how many records the report shows which tokens are trained.
    pub(crate) pictures: usize,
}

impl Source<'_> {
    /// Their examples of at most `context` tokens.
    pub(crate) fn load(
        &self,
        ctx: &mut PhaseContext<'_>,
        text: &TextSetup,
        context: usize,
    ) -> Result<Examples, PhaseError> {
        self.load_within(ctx, text, context, None, MAX_IN_MEMORY)
    }

    /// The same of records that were read already, because what they came from cannot be read twice.
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
        most_in_memory: usize,
    ) -> Result<Examples, PhaseError> {
        let path = ctx.tokens_file(self.role);
        if path.exists()
            && let Some(key) = self.key(ctx, text, context)
            && let Some((examples, about)) = Examples::open(&path, &key)?
        {
            Self::tell(ctx, about.notes, about.masks);
            return Ok(examples);
        }
        let data = ctx.data;
        let records: Box<dyn Iterator<Item = Result<Record, PhaseError>> + Send> = match held {
            Some(records) => Box::new(records.into_iter().map(Ok)),
            None => Box::new(data.read(self.files)),
        };
        let records = records.map(|record| self.kind.check(record?));
        let mut writer = Writer::new(path, most_in_memory);
        let mut masks = vec![];
        let mut pictured = 0;
        let encode = |record: &Record| self.kind.encode(text, record, context);
        let summary = encode_chunks(records, encode, |records, encoded| {
            ctx.check_stop()?;
            for record in records.iter().take(self.pictures.saturating_sub(pictured)) {
                pictured += 1;
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
        notes.extend(summary.notes(context).into_iter().map(|note| format!("{}{note}", self.what)));
        Self::tell(ctx, notes.clone(), masks.clone());
        let key = if writer.is_file() { self.key(ctx, text, context) } else { None };
        writer.finish(About { key: key.unwrap_or_default(), notes, masks, ..About::default() })
    }

    fn tell(ctx: &mut PhaseContext<'_>, notes: Vec<String>, masks: Vec<MaskPicture>) {
        for note in notes {
            ctx.note(note);
        }
        ctx.masks.extend(masks);
    }

    /// Hash of all that the tokens depend on; `None` if some of it cannot be known again (a pipe).
    fn key(&self, ctx: &PhaseContext<'_>, text: &TextSetup, context: usize) -> Option<String> {
        let contents = ctx.fingerprint().contents(self.role)?;
        let template = text.template.as_ref().map(crisol_text::ChatTemplate::sources);
        let made = format!(
            "{} {:?} {context} {contents:?} {:?} {:?} {template:?} {:?} {}",
            env!("CARGO_PKG_VERSION"),
            self.kind,
            ctx.data.options(),
            text.options(),
            text.stop_ids,
            text.tokenizer.to_json(),
        );
        Some(blake3::hash(made.as_bytes()).to_string())
    }
}

/// What [`preprocess`] made.
#[derive(Clone, Copy, Debug)]
pub struct Preprocessed {
    /// Records that were read.
    pub records: usize,
    /// Examples that they became; a pair is two.
    pub examples: usize,
    /// Tokens of the examples.
    pub tokens: u64,
}

/// Reads data as a phase does that trains on it, keeps the tokens as the phase would, and drops them: to measure it.
pub fn preprocess(
    source: &str,
    options: &ReadOptions,
    text: &TextSetup,
    context: usize,
) -> Result<Preprocessed, PhaseError> {
    let path = std::env::temp_dir().join(format!("crisol-tokens-{}", std::process::id()));
    let mut writer = Writer::new(path.clone(), MAX_IN_MEMORY);
    let data = DataSource::open("").reading(options.clone());
    let encode = |record: &Record| match record.body {
        Body::Preference { .. } => Kind::Preference.encode(text, record, context),
        _ => Kind::Supervised.encode(text, record, context),
    };
    let files = [source.to_owned()];
    let summary = encode_chunks(data.read(&files), encode, |_, encoded| {
        encoded.examples.iter().try_for_each(|example| writer.push(example))
    })?;
    let is_file = writer.is_file();
    let examples = writer.finish(About::default())?;
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
    use crate::context::{Observer, Saves};
    use crate::fingerprint::{Fingerprint, Hashes};
    use crate::forecast::StageForecast;
    use crate::recipe::Recipe;

    /// Keeps what is said.
    #[derive(Default)]
    struct Said(Vec<String>);

    impl Observer for Said {
        fn phase_started(&mut self, _: &str, _: usize, _: usize) {}
        fn stage_started(&mut self, _: &str, _: u64, _: u64) {}
        fn step(&mut self, _: u64, _: u64, _: &[(&str, f64)]) {}
        fn stage_forecast(&mut self, _: &StageForecast) {}
        fn measured(&mut self) {}
        fn memory_forecast(&mut self, _: f64, _: Option<f64>) {}
        fn saved(&mut self, _: &Saves) {}
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
        said: Vec<String>,
        masks: Vec<MaskPicture>,
    }

    /// What a phase begins with that keeps so many tokens in memory.
    fn load(folder: &Path, text: &TextSetup, context: usize, most_in_memory: usize) -> Loaded {
        let recipe = Recipe::parse("test.toml", RECIPE).unwrap();
        let data = DataSource::open(folder.to_str().unwrap());
        let fingerprint =
            Fingerprint::of(&recipe, &recipe.phases[0], folder, &data, &mut Hashes::default())
                .unwrap();
        let (device, mut said) = (Device::cpu(Some(1)), Said::default());
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
            &mut said,
        )
        .unwrap();
        let files = ["a.jsonl", "b.jsonl"].map(str::to_owned);
        let source =
            Source { role: "data", what: "", files: &files, kind: Kind::Supervised, pictures: 3 };
        let examples = source.load_within(&mut ctx, text, context, None, most_in_memory).unwrap();
        let (examples, masks) = (examples.all().unwrap(), std::mem::take(&mut ctx.masks));
        drop(ctx);
        Loaded { examples, said: said.0, masks }
    }

    /// More than two chunks of records; some longer than the context, one field that nothing reads.
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

    /// The same examples as of all records at once, whether they are in memory, in a file, or in the file of an attempt
    /// before; and the same is said.
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
        assert!(in_memory.said.iter().any(|note| note.contains("id (1)")), "{:?}", in_memory.said);
        assert!(
            in_memory.said.iter().any(|note| note.contains("Of 2500 records")),
            "{:?}",
            in_memory.said
        );
        for loaded in [in_file, again] {
            assert!(loaded.examples == all.examples);
            assert_eq!(
                (loaded.said, loaded.masks),
                (in_memory.said.clone(), in_memory.masks.clone())
            );
        }
    }

    /// The file is made anew where anything differs that the tokens depend on, or it is damaged.
    #[test]
    fn a_file_of_other_tokens_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        write_files(folder.path());
        let text = setup();
        let path = folder.path().join("progress/tokens/data");
        let right = |text: &TextSetup, context: usize| {
            let loaded = load(folder.path(), text, context, 1000).examples;
            let file = std::fs::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            assert!(loaded == load(folder.path(), text, context, usize::MAX).examples);
            std::fs::write(&path, file).unwrap();
        };
        right(&text, CONTEXT);
        right(&text, CONTEXT + 1);
        let other = Tokenizer::train(["number hell"], 290, &EMBEDDED_TOKENS).unwrap();
        right(&TextSetup::embedded(other).unwrap(), CONTEXT);
        let options = crisol_text::TextOptions {
            strings: crisol_text::StringFormat::Message,
            ..crisol_text::TextOptions::default()
        };
        let mut chat = setup();
        chat.set_options(options);
        right(&chat, CONTEXT);
        let mut file = std::fs::read(&path).unwrap();
        file[100] ^= 1;
        std::fs::write(&path, file).unwrap();
        right(&chat, CONTEXT);
        std::fs::write(folder.path().join("b.jsonl"), "{\"text\": \"hello\"}\n").unwrap();
        right(&chat, CONTEXT);
    }
}
