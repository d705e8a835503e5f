//! What of a dataset file will be trained, and what is wrong with it: the content of `crisol data inspect FILE`.
//!
//! Nothing here stops at the first problem. Every record is shown as the model will see it, token by token, and the
//! totals say what the file as a whole is good for.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};

use rayon::prelude::*;

use crate::chunks::chunks;
use crate::records::{Body, Record, Turns};
use crate::{Example, Message, TextError, TextSetup, words};

/// A file's records and their totals.
#[derive(Debug)]
pub struct Inspection {
    /// The first records, as many as are to be shown, and of the others those that have problems, without their sequences.
    pub records: Vec<InspectedRecord>,
    /// The sums over the file.
    pub totals: Totals,
}

/// The sums over a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Records, unreadable ones included.
    pub records: usize,
    /// Records by shape.
    pub shapes: BTreeMap<&'static str, usize>,
    /// Tokens of all sequences.
    pub tokens: usize,
    /// Tokens that are trained.
    pub trained: usize,
    /// Tokens of the longest sequence.
    pub longest: usize,
    /// How many problems of each kind there are.
    pub problems: BTreeMap<&'static str, usize>,
}

/// One record as the model will see it.
#[derive(Debug)]
pub struct InspectedRecord {
    /// `file:line`, where it is known (an unreadable line's problem says it itself).
    pub place: String,
    /// The record's shape, or `unreadable`.
    pub shape: &'static str,
    /// Its token sequences: one, `chosen` and `rejected`, or one for each turn of the assistant's; none where it could not be
    /// encoded.
    pub sequences: Vec<Sequence>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// One sequence of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// What it is: `text`, `conversation`, `turn`, `completion`, `chosen`, `rejected` or `prompt`.
    pub name: &'static str,
    /// Its text, cut where it changes between trained and not; the cuts are at tokens.
    pub spans: Vec<Span>,
    /// Its tokens.
    pub tokens: usize,
    /// Its trained tokens.
    pub trained: usize,
}

/// Consecutive tokens that are all trained or all not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Their text, special tokens included.
    pub text: String,
    /// Whether they are trained.
    pub trained: bool,
    /// How many they are.
    pub tokens: usize,
}

/// What can be wrong with a record.
#[derive(Debug)]
pub enum Problem {
    /// It cannot be read, or not be turned into tokens.
    Error(TextError),
    /// It is a training example of which no token is trained.
    TrainsNothing,
    /// It does not fit the context: the end will be cut off.
    TooLong {
        /// The sequence's tokens.
        tokens: usize,
        /// The context.
        context: usize,
        /// Tokens before the first trained one; from the context on, nothing is left to train.
        prompt: usize,
    },
    /// Both answers of a pair are the same tokens within the context.
    EqualAnswers,
    /// Each turn of the assistant's is an example of its own.
    TurnsApart {
        /// How many there are.
        turns: usize,
    },
    /// A message or text contains what the tokenizer reads as a special token, so that content passes for structure.
    SpecialInContent {
        /// Where: `message 0 (user)`, `text`, ….
        part: String,
        /// The special token.
        token: String,
    },
    /// The template cuts the thought out of an answer, which is trained with it all the same.
    CutThought {
        /// The first words that it cuts out.
        words: String,
    },
    /// An answer without content: the model learns to say nothing.
    EmptyAnswer,
    /// The same as an earlier record.
    Duplicate {
        /// The earlier record's `file:line`.
        of: String,
    },
}

impl Problem {
    /// The kind of problem, for totals.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Error(error) => match innermost(error) {
                TextError::NoEndOfTurn { .. } => "no end of turn",
                TextError::TrainsNothing { .. } => "trains nothing",
                TextError::LostWords { .. } => "words lost",
                TextError::EqualAnswers { .. } => "equal answers",
                TextError::Rated { .. } => "rated answers",
                TextError::Malformed { .. }
                | TextError::UnknownShape { .. }
                | TextError::Field { .. } => "unreadable",
                _ => "cannot be encoded",
            },
            Self::TrainsNothing => "trains nothing",
            Self::TooLong { .. } => "longer than the context",
            Self::EqualAnswers => "equal answers",
            Self::TurnsApart { .. } => "turns apart",
            Self::SpecialInContent { .. } => "special token in content",
            Self::CutThought { .. } => "thought cut out",
            Self::EmptyAnswer => "empty answer",
            Self::Duplicate { .. } => "duplicate",
        }
    }
}

fn innermost(error: &TextError) -> &TextError {
    match error {
        TextError::At { source, .. } => innermost(source),
        error => error,
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::TrainsNothing => f.write_str(
                "no token of it is trained: it has no turn of the assistant's that is not masked; training on it is refused",
            ),
            Self::TooLong { tokens, context, prompt } if prompt >= context => write!(
                f,
                "{tokens} tokens, of which the prompt's {prompt} fill the context of {context}: it is left out of training"
            ),
            Self::TooLong { tokens, context, .. } => {
                write!(
                    f,
                    "{tokens} tokens in a context of {context}: the last {} are cut off",
                    tokens - context
                )
            }
            Self::EqualAnswers => {
                f.write_str("both answers are the same tokens within the context: it is left out of training")
            }
            Self::TurnsApart { turns } => write!(
                f,
                "each of its {turns} assistant turns is an example of its own, because the template writes earlier turns \
                 otherwise once messages follow, or tokens merge where an answer begins"
            ),
            Self::SpecialInContent { part, token } => write!(
                f,
                "{part} contains {token}, which the tokenizer reads as a special token: content passes for structure"
            ),
            Self::CutThought { words } => write!(
                f,
                "the chat template cuts {words:?} out of an answer; it is trained as the model is to write it, and later turns do \
                 not see it"
            ),
            Self::EmptyAnswer => f.write_str("an answer is empty: the model learns to say nothing"),
            Self::Duplicate { of } => write!(f, "the same as {of}"),
        }
    }
}

/// Inspects the records of a file as they are read, some at a time: nothing of the text stays in memory. `shown` records are
/// kept with their sequences; `look` sees each record that could be read.
pub fn inspect(
    setup: &TextSetup,
    records: impl Iterator<Item = Result<Record, TextError>>,
    context: usize,
    shown: usize,
    mut look: impl FnMut(&Record),
) -> Inspection {
    let mut inspection = Inspection { records: vec![], totals: Totals::default() };
    let mut seen = Seen::default();
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
                    look(&record);
                    let duplicate = seen.earlier(&record).map(|of| Problem::Duplicate { of });
                    inspected.problems.extend(duplicate);
                    inspected
                }
                (Err(error), _) => InspectedRecord {
                    place: String::new(),
                    shape: "unreadable",
                    sequences: vec![],
                    problems: vec![Problem::Error(error)],
                },
                (Ok(_), None) => unreachable!("a record that could be read is inspected"),
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

/// The records of a file that came before, by hashes of what they hold.
#[derive(Default)]
struct Seen {
    /// Where a record was first: what its place begins with, and the number at its end.
    places: HashMap<[u64; 2], (usize, Option<u64>)>,
    beginnings: Vec<String>,
    hashers: [RandomState; 2],
}

impl Seen {
    /// The place of an earlier record that holds the same.
    fn earlier(&mut self, record: &Record) -> Option<String> {
        let hash = self.hashers.each_ref().map(|hasher| hasher.hash_one(&record.body));
        if let Some(&(beginning, number)) = self.places.get(&hash) {
            let number = number.map(|number| number.to_string());
            return Some(self.beginnings[beginning].clone() + &number.unwrap_or_default());
        }
        let beginning = record.place.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = record.place[beginning.len()..].parse().ok();
        // One that ends otherwise, such as `file:2 (object 3)`, is kept whole.
        let beginning = if number.is_some() { beginning } else { &record.place };
        // Mostly that of the record before.
        if self.beginnings.last().is_none_or(|last| last != beginning) {
            self.beginnings.push(beginning.to_owned());
        }
        self.places.insert(hash, (self.beginnings.len() - 1, number));
        None
    }
}

/// The name of a sequence that is one of several of a conversation.
const TURN: &str = "turn";

/// Inspects one record.
pub fn inspect_record(setup: &TextSetup, record: &Record, context: usize) -> InspectedRecord {
    inspect_record_with(setup, record, context, true)
}

/// The same, with the text of its sequences or without.
fn inspect_record_with(
    setup: &TextSetup,
    record: &Record,
    context: usize,
    with_text: bool,
) -> InspectedRecord {
    let mut problems = vec![];
    let mut sequences = vec![];
    match examples(setup, record) {
        Ok(examples) => {
            let turns = examples.iter().filter(|(name, _)| *name == TURN).count();
            if turns > 0 {
                problems.push(Problem::TurnsApart { turns });
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
                    problems.push(Problem::TrainsNothing);
                }
                // Raw text is cut into pieces that fit, and a prompt needs room for an answer.
                let room = usize::from(name == "prompt");
                if tokens.saturating_add(room) > context && name != "text" {
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
        let cut = record
            .body
            .trained_messages()
            .into_iter()
            .filter_map(|message| template.cut_thought(message));
        problems.extend(cut.map(|words| Problem::CutThought { words }));
    }
    for (part, text, answers) in contents(&record.body) {
        if answers {
            problems.push(Problem::EmptyAnswer);
        }
        let ids = setup.tokenizer.encode(text).unwrap_or_default();
        if let Some(token) = ids.into_iter().find(|&id| setup.tokenizer.is_special(id)) {
            let token = setup.tokenizer.token(token).unwrap_or_default();
            problems.push(Problem::SpecialInContent { part, token });
        }
    }
    InspectedRecord { place: record.place.clone(), shape: record.body.shape(), sequences, problems }
}

/// The sequences of a record, uncut.
fn examples(setup: &TextSetup, record: &Record) -> Result<Vec<(&'static str, Example)>, TextError> {
    const UNCUT: usize = usize::MAX;
    Ok(match &record.body {
        Body::Text { text } => {
            let documents =
                setup.text_documents(&[text], UNCUT).map_err(|e| e.at(&record.place))?;
            documents.into_iter().map(|document| ("text", document)).collect()
        }
        Body::Chat { .. } | Body::Completion { .. } => {
            let examples = setup.whole(record)?;
            let one = if matches!(record.body, Body::Chat { .. }) {
                "conversation"
            } else {
                "completion"
            };
            let name = if examples.len() > 1 { TURN } else { one };
            examples.into_iter().map(|example| (name, example)).collect()
        }
        Body::Preference { .. } => {
            let pair = setup.pair(record)?;
            vec![("chosen", pair.chosen), ("rejected", pair.rejected)]
        }
        Body::Rated { .. } => return Err(TextError::Rated { place: record.place.clone() }),
        Body::Problem { .. } | Body::Prompt { .. } => {
            let ids = setup.prompt(record)?;
            vec![("prompt", Example { trained: vec![false; ids.len()], ids })]
        }
    })
}

/// The tokens of an example as text, cut where trained and untrained tokens meet.
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

/// The parts of a record that its author wrote: where, the text, and whether it is an answer to be learnt that says nothing.
fn contents(body: &Body) -> Vec<(String, &str, bool)> {
    let mut parts = vec![];
    match body {
        Body::Text { text } => parts.push(("text".to_owned(), text.as_str(), false)),
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
            parts.push(("answer".to_owned(), answer, answer.trim().is_empty()));
        }
        Body::Prompt { prompt } => add_turns(&mut parts, "prompt", prompt, false),
    }
    parts
}

fn add_turns<'a>(
    parts: &mut Vec<(String, &'a str, bool)>,
    field: &str,
    turns: &'a Turns,
    learnt: bool,
) {
    match turns {
        Turns::Plain(text) => {
            parts.push((field.to_owned(), text, learnt && text.trim().is_empty()))
        }
        Turns::Chat(messages) => add_messages(parts, &format!("{field} "), messages, learnt),
    }
}

fn add_messages<'a>(
    parts: &mut Vec<(String, &'a str, bool)>,
    field: &str,
    messages: &'a [Message],
    learnt: bool,
) {
    for (i, message) in messages.iter().enumerate() {
        let empty = learnt && message.is_trained() && words::is_empty(message);
        parts.push((format!("{field}message {i} ({})", message.role), &message.content, empty));
    }
}
