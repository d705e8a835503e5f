//! Records of data files become the examples of a phase, chunk by chunk as they are read. Nothing of the text stays in
//! memory, and the tokens only while they are few ([`crate::store`]).

use crisol_report::MaskPicture;
use crisol_text::inspect::inspect_record;
use crisol_text::{Encoded, Example, PreferenceExample, Record, TextError, TextSetup, encode_chunks};

use crate::PhaseError;
use crate::context::Context;
use crate::pretrain::text_of;
use crate::store::{About, Examples, MOST_IN_MEMORY, Writer};

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
    fn encode(
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
                Ok(Encoded { examples: examples.into_iter().flat_map(both).collect(), records, summary })
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
        ctx: &mut Context<'_>,
        text: &TextSetup,
        context: usize,
    ) -> Result<Examples, PhaseError> {
        self.load_within(ctx, text, context, None, MOST_IN_MEMORY)
    }

    /// The same of records that were read already, because what they came from cannot be read twice.
    pub(crate) fn load_from(
        &self,
        ctx: &mut Context<'_>,
        text: &TextSetup,
        context: usize,
        records: Vec<Record>,
    ) -> Result<Examples, PhaseError> {
        self.load_within(ctx, text, context, Some(records), MOST_IN_MEMORY)
    }

    fn load_within(
        &self,
        ctx: &mut Context<'_>,
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
            self.tell(ctx, about.notes, about.masks);
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
                    let spans = sequence.spans.into_iter().map(|span| (span.text, span.trained)).collect();
                    masks.push(MaskPicture { phase: ctx.name.clone(), title: record.place.clone(), spans });
                }
            }
            encoded.examples.iter().try_for_each(|example| writer.push(example))
        })?;
        let mut notes = data.notes(self.files);
        notes.extend(summary.notes(context).into_iter().map(|note| format!("{}{note}", self.what)));
        self.tell(ctx, notes.clone(), masks.clone());
        let key = if writer.is_file() { self.key(ctx, text, context) } else { None };
        writer.finish(About { key: key.unwrap_or_default(), notes, masks, ..About::default() })
    }

    fn tell(&self, ctx: &mut Context<'_>, notes: Vec<String>, masks: Vec<MaskPicture>) {
        for note in notes {
            ctx.note(note);
        }
        ctx.masks.extend(masks);
    }

    /// Hash of all that the tokens depend on; `None` if some of it cannot be known again (a pipe).
    fn key(&self, ctx: &Context<'_>, text: &TextSetup, context: usize) -> Option<String> {
        let contents = ctx.fingerprint().contents(self.role)?;
        let template = text.template.as_ref().map(|template| template.sources());
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
