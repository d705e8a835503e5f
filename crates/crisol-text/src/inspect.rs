//! Inspects data files for `crisol data inspect`: which tokens are trained, and which problems
//! records have. It does not stop at the first problem.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};

use rayon::prelude::*;

use crate::chunks::chunks;
use crate::records::{Body, Record, Turns};
use crate::{Example, Message, TextError, TextSetup, dropped_text};

/// A file's records and their totals.
#[derive(Debug)]
pub struct Inspection {
    /// The first records with their sequences, and the others that have problems, without.
    pub records: Vec<InspectedRecord>,
    /// Totals of the file.
    pub totals: Totals,
}

/// Totals of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Records, unreadable ones included.
    pub records: usize,
    /// Records by shape.
    pub shapes: BTreeMap<&'static str, usize>,
    /// Tokens of all sequences.
    pub tokens: usize,
    /// Trained tokens.
    pub trained: usize,
    /// Tokens of the longest sequence.
    pub longest: usize,
    /// Number of problems by kind.
    pub problems: BTreeMap<&'static str, usize>,
}

/// One record as the model will see it.
#[derive(Debug)]
pub struct InspectedRecord {
    /// `file:line`; empty if unreadable, because its error has the location.
    pub location: String,
    /// The record's shape, or `unreadable`.
    pub shape: &'static str,
    /// Its token sequences: one, `chosen` and `rejected`, or one per assistant turn. None if it
    /// could not be encoded.
    pub sequences: Vec<Sequence>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// One sequence of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// `text`, `conversation`, `turn`, `completion`, `chosen`, `rejected` or `prompt`.
    pub name: &'static str,
    /// Its text, split between trained and untrained tokens.
    pub spans: Vec<Span>,
    /// Number of tokens.
    pub tokens: usize,
    /// Number of trained tokens.
    pub trained: usize,
}

/// Consecutive tokens that are all trained or all untrained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Their text, special tokens included.
    pub text: String,
    /// Whether they are trained.
    pub trained: bool,
    /// Number of tokens.
    pub tokens: usize,
}

/// What can be wrong with a record.
#[derive(Debug)]
pub enum Problem {
    /// It cannot be read or encoded.
    Error(TextError),
    /// None of its tokens is trained.
    NoTrainedTokens,
    /// It is longer than the context and will be truncated.
    TooLong {
        /// The sequence's tokens.
        tokens: usize,
        /// The context.
        context: usize,
        /// Tokens before the first trained one. If they fill the context, nothing is trained.
        prompt: usize,
    },
    /// Both answers of a pair have equal tokens within the context.
    EqualAnswers,
    /// Each assistant turn is a separate example.
    SplitTurns {
        /// Number of turns.
        turns: usize,
    },
    /// Content contains a special token, which the model reads as structure.
    SpecialInContent {
        /// The part of the record: `message 0 (user)`, `text`, ….
        part: String,
        /// The special token.
        token: String,
    },
    /// The template drops the thought of an answer. It is trained all the same.
    DroppedThought {
        /// The first dropped words.
        words: String,
    },
    /// The template leaves a system message, tool result or list of tools out of the prompt.
    DroppedContext {
        /// The first words, or a tool's name.
        words: String,
    },
    /// An answer without content: the model learns to say nothing.
    EmptyAnswer,
    /// It equals an earlier record.
    Duplicate {
        /// The earlier record's `file:line`.
        earlier: String,
    },
}

impl Problem {
    /// The kind of problem, a key of [`Totals::problems`].
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Error(error) => match innermost(error) {
                TextError::NoEndOfTurn { .. } => "no end of turn",
                TextError::NoTrainedTokens { .. } => "trains nothing",
                TextError::DroppedText { .. } => "words lost",
                TextError::EqualAnswers { .. } => "equal answers",
                TextError::Rated { .. } => "rated answers",
                TextError::Malformed { .. }
                | TextError::UnknownShape { .. }
                | TextError::Field { .. } => "unreadable",
                _ => "cannot be encoded",
            },
            Self::NoTrainedTokens => "trains nothing",
            Self::TooLong { .. } => "longer than the context",
            Self::EqualAnswers => "equal answers",
            Self::SplitTurns { .. } => "turns apart",
            Self::SpecialInContent { .. } => "special token in content",
            Self::DroppedThought { .. } => "thought cut out",
            Self::DroppedContext { .. } => "context left out",
            Self::EmptyAnswer => "empty answer",
            Self::Duplicate { .. } => "duplicate",
        }
    }
}

/// The error without its location.
fn innermost(error: &TextError) -> &TextError {
    match error {
        TextError::InRecord { source, .. } => innermost(source),
        error => error,
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::NoTrainedTokens => f.write_str(
                "none of its tokens is trained, because it has no unmasked assistant turn; \
                 training \
                 on it is an error",
            ),
            Self::TooLong { tokens, context, prompt } if prompt >= context => write!(
                f,
                "{tokens} tokens, of which the prompt's {prompt} fill the context of {context}: it \
                 is left out of training"
            ),
            Self::TooLong { tokens, context, .. } => {
                write!(
                    f,
                    "{tokens} tokens in a context of {context}: the last {} are cut off",
                    tokens - context
                )
            }
            Self::EqualAnswers => f.write_str(
                "both answers are the same tokens within the context: it is left out of \
                     training",
            ),
            Self::SplitTurns { turns } => write!(
                f,
                "each of its {turns} assistant turns is a separate example, because the template \
                 renders earlier turns differently once messages follow, or tokens merge where an \
                 answer begins"
            ),
            Self::SpecialInContent { part, token } => write!(
                f,
                "{part} contains {token}, which the tokenizer reads as a special token: the model \
                 takes this content for structure"
            ),
            Self::DroppedThought { words } => write!(
                f,
                "the chat template drops {words:?} of an answer; it is trained all the same, and \
                 later \
                 turns do not see it"
            ),
            Self::DroppedContext { words } => write!(
                f,
                "the chat template leaves {words:?} of a system message, a tool result or the tools \
                 out of the prompt; the model does not see it"
            ),
            Self::EmptyAnswer => f.write_str("an answer is empty: the model learns to say nothing"),
            Self::Duplicate { earlier } => write!(f, "the same as {earlier}"),
        }
    }
}

/// Inspects the records of a file, chunk by chunk.
///
/// Keeps the sequences of the first `shown` records. Calls `visit` with each readable record.
pub fn inspect(
    setup: &TextSetup,
    records: impl Iterator<Item = Result<Record, TextError>>,
    context: usize,
    shown: usize,
    mut visit: impl FnMut(&Record),
) -> Inspection {
    let mut inspection = Inspection { records: vec![], totals: Totals::default() };
    let mut duplicates = DuplicateFinder::default();
    for chunk in chunks(records) {
        let first = inspection.totals.records;
        let inspected: Vec<_> = chunk
            .par_iter()
            .enumerate()
            .map(|(i, record)| {
                let record = record.as_ref().ok()?;
                Some(inspect_record_with(setup, record, context, first + i < shown))
            })
            .collect();
        for (record, inspected) in chunk.into_iter().zip(inspected) {
            let inspected = match (record, inspected) {
                (Ok(record), Some(mut inspected)) => {
                    visit(&record);
                    let duplicate =
                        duplicates.earlier(&record).map(|earlier| Problem::Duplicate { earlier });
                    inspected.problems.extend(duplicate);
                    inspected
                }
                (Err(error), _) => InspectedRecord {
                    location: String::new(),
                    shape: "unreadable",
                    sequences: vec![],
                    problems: vec![Problem::Error(error)],
                },
                (Ok(_), None) => unreachable!("every readable record is inspected"),
            };
            inspection.add(inspected, shown);
        }
    }
    inspection
}

impl Inspection {
    fn add(&mut self, mut record: InspectedRecord, shown: usize) {
        let totals = &mut self.totals;
        *totals.shapes.entry(record.shape).or_default() += 1;
        for sequence in &record.sequences {
            totals.tokens += sequence.tokens;
            totals.trained += sequence.trained;
            totals.longest = totals.longest.max(sequence.tokens);
        }
        for problem in &record.problems {
            *totals.problems.entry(problem.kind()).or_default() += 1;
        }
        let is_shown = totals.records < shown;
        totals.records += 1;
        if !is_shown {
            record.sequences = vec![];
        }
        if is_shown || !record.problems.is_empty() {
            self.records.push(record);
        }
    }
}

/// Finds records that equal an earlier one, by their hashes.
#[derive(Default)]
struct DuplicateFinder {
    /// First location of each record: index of its prefix, and the number after it.
    locations: HashMap<[u64; 2], (usize, Option<u64>)>,
    prefixes: Vec<String>,
    hashers: [RandomState; 2],
}

impl DuplicateFinder {
    /// The location of an equal earlier record; remembers this one otherwise.
    fn earlier(&mut self, record: &Record) -> Option<String> {
        let hash = self.hashers.each_ref().map(|hasher| hasher.hash_one(&record.body));
        if let Some(&(prefix, number)) = self.locations.get(&hash) {
            let number = number.map(|number| number.to_string());
            return Some(self.prefixes[prefix].clone() + &number.unwrap_or_default());
        }
        let prefix = record.location.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = record.location[prefix.len()..].parse().ok();
        // A location without number at its end, such as `file:2 (object 3)`, is kept whole.
        let prefix = if number.is_some() { prefix } else { &record.location };
        // Usually it equals that of the previous record.
        if self.prefixes.last().is_none_or(|last| last != prefix) {
            self.prefixes.push(prefix.to_owned());
        }
        self.locations.insert(hash, (self.prefixes.len() - 1, number));
        None
    }
}

/// The name of a sequence that is one turn of a conversation.
const TURN: &str = "turn";

/// Inspects one record.
pub fn inspect_record(setup: &TextSetup, record: &Record, context: usize) -> InspectedRecord {
    inspect_record_with(setup, record, context, true)
}

/// As [`inspect_record`]; `with_text` says whether to decode the sequences.
fn inspect_record_with(
    setup: &TextSetup,
    record: &Record,
    context: usize,
    with_text: bool,
) -> InspectedRecord {
    let mut problems = vec![];
    let mut sequences = vec![];
    match untruncated_sequences(setup, record) {
        Ok(examples) => {
            let turns = examples.iter().filter(|(name, _)| *name == TURN).count();
            if turns > 0 {
                problems.push(Problem::SplitTurns { turns });
            }
            let within =
                |i: usize| examples.get(i).map(|(_, e): &(_, Example)| e.ids.iter().take(context));
            if matches!(record.body, Body::Preference { .. })
                && within(0).is_some_and(|a| a.eq(within(1).into_iter().flatten()))
            {
                problems.push(Problem::EqualAnswers);
            }
            for (name, example) in examples {
                let (tokens, trained) = (example.ids.len(), example.trained_tokens());
                if trained == 0 && name != "prompt" {
                    problems.push(Problem::NoTrainedTokens);
                }
                // Raw text is split to fit the context. A prompt needs a free token for an answer.
                let free = usize::from(name == "prompt");
                if tokens.saturating_add(free) > context && name != "text" {
                    problems.push(Problem::TooLong {
                        tokens,
                        context,
                        prompt: example.prompt_tokens(),
                    });
                }
                let spans = if with_text { spans(setup, &example) } else { vec![] };
                sequences.push(Sequence { name, spans, tokens, trained });
            }
        }
        Err(error) => problems.push(Problem::Error(error)),
    }
    if let Some(template) = &setup.template {
        let dropped = record
            .body
            .trained_messages()
            .into_iter()
            .filter_map(|message| template.dropped_thought(message));
        problems.extend(dropped.map(|words| Problem::DroppedThought { words }));
    }
    let words = setup.dropped_context(record);
    problems.extend(words.map(|words| Problem::DroppedContext { words }));
    for Content { part, text, is_empty_answer } in contents(&record.body) {
        if is_empty_answer {
            problems.push(Problem::EmptyAnswer);
        }
        let ids = setup.tokenizer.encode(text).unwrap_or_default();
        if let Some(token) = ids.into_iter().find(|&id| setup.tokenizer.is_special(id)) {
            let token = setup.tokenizer.token(token).unwrap_or_default();
            problems.push(Problem::SpecialInContent { part, token });
        }
    }
    InspectedRecord {
        location: record.location.clone(),
        shape: record.body.shape(),
        sequences,
        problems,
    }
}

/// The sequences of a record by name, not truncated.
fn untruncated_sequences(
    setup: &TextSetup,
    record: &Record,
) -> Result<Vec<(&'static str, Example)>, TextError> {
    const NO_LIMIT: usize = usize::MAX;
    Ok(match &record.body {
        Body::Text { text } => {
            let documents = setup
                .text_documents(&[text], NO_LIMIT)
                .map_err(|e| e.in_record(&record.location))?;
            documents.into_iter().map(|document| ("text", document)).collect()
        }
        Body::Chat { .. } | Body::Completion { .. } => {
            let examples = setup.supervised_untruncated(record)?;
            let single = if matches!(record.body, Body::Chat { .. }) {
                "conversation"
            } else {
                "completion"
            };
            let name = if examples.len() > 1 { TURN } else { single };
            examples.into_iter().map(|example| (name, example)).collect()
        }
        Body::Preference { .. } => {
            let pair = setup.preference_untruncated(record)?;
            vec![("chosen", pair.chosen), ("rejected", pair.rejected)]
        }
        Body::Rated { .. } => return Err(TextError::Rated { location: record.location.clone() }),
        Body::Problem { .. } | Body::Prompt { .. } => {
            let ids = setup.prompt(record)?;
            vec![("prompt", Example { trained: vec![false; ids.len()], ids })]
        }
    })
}

/// The text of an example, split between trained and untrained tokens.
fn spans(setup: &TextSetup, example: &Example) -> Vec<Span> {
    let mut spans: Vec<Span> = vec![];
    let mut stream = setup.tokenizer.stream(false);
    for (t, (&id, &trained)) in example.ids.iter().zip(&example.trained).enumerate() {
        let trained = trained && t > 0;
        let text = stream.push(id);
        match spans.last_mut().filter(|span| span.trained == trained) {
            Some(span) => {
                span.text += &text;
                span.tokens += 1;
            }
            None => spans.push(Span { text, trained, tokens: 1 }),
        }
    }
    if let Some(last) = spans.last_mut() {
        last.text += &stream.finish();
    }
    spans
}

/// A text of a record.
struct Content<'a> {
    /// Its place in the record, such as `message 0 (user)`.
    part: String,
    text: &'a str,
    /// Whether it is a trained answer without text.
    is_empty_answer: bool,
}

/// The texts of a record, as its author wrote them.
fn contents(body: &Body) -> Vec<Content<'_>> {
    let mut parts = vec![];
    match body {
        Body::Text { text } => {
            parts.push(Content { part: "text".to_owned(), text, is_empty_answer: false });
        }
        Body::Chat { messages } => add_messages(&mut parts, "", messages, true),
        Body::Completion { prompt, completion } | Body::Rated { prompt, completion, .. } => {
            add_turns(&mut parts, "prompt", prompt, false);
            add_turns(&mut parts, "completion", completion, true);
        }
        Body::Preference { prompt, chosen, rejected } => {
            add_turns(&mut parts, "prompt", prompt, false);
            add_turns(&mut parts, "chosen", chosen, true);
            add_turns(&mut parts, "rejected", rejected, true);
        }
        Body::Problem { prompt, answer, .. } => {
            add_turns(&mut parts, "prompt", prompt, false);
            let is_empty_answer = answer.trim().is_empty();
            parts.push(Content { part: "answer".to_owned(), text: answer, is_empty_answer });
        }
        Body::Prompt { prompt } => add_turns(&mut parts, "prompt", prompt, false),
    }
    parts
}

fn add_turns<'a>(parts: &mut Vec<Content<'a>>, field: &str, turns: &'a Turns, trained: bool) {
    match turns {
        Turns::Plain(text) => {
            let is_empty_answer = trained && text.trim().is_empty();
            parts.push(Content { part: field.to_owned(), text, is_empty_answer });
        }
        Turns::Chat(messages) => add_messages(parts, &format!("{field} "), messages, trained),
    }
}

fn add_messages<'a>(
    parts: &mut Vec<Content<'a>>,
    field: &str,
    messages: &'a [Message],
    trained: bool,
) {
    for (i, message) in messages.iter().enumerate() {
        parts.push(Content {
            part: format!("{field}message {i} ({})", message.role),
            text: &message.content,
            is_empty_answer: trained && message.is_trained() && dropped_text::is_empty(message),
        });
    }
}
