//! Reads and encodes records chunk by chunk.
//!
//! One chunk is encoded on all cores while the next is read. At most two chunks are in memory.

use crate::examples::encode_all;
use crate::options::EncodingSummary;
use crate::records::{Body, Record, Turns};
use crate::{Encoded, Message, TextError};

/// Most records of a chunk: enough to keep all cores busy.
const CHUNK_RECORDS: usize = 1024;
/// A chunk ends with the record that reaches this many bytes of text.
const CHUNK_BYTES: usize = 2 << 20;

/// Encodes the records and passes each chunk, with its records, to `consume`, in order.
///
/// Stops at the first error in the order of the records. It is an error if no example is left.
pub fn encode_chunks<T: Send, E: From<TextError> + Send>(
    mut records: impl Iterator<Item = Result<Record, E>> + Send,
    encode: impl Fn(&Record) -> Result<Encoded<T>, TextError> + Sync,
    mut consume: impl FnMut(&[Record], Encoded<T>) -> Result<(), E>,
) -> Result<EncodingSummary, E> {
    let mut summary = EncodingSummary::default();
    let mut examples = 0;
    let mut first = None;
    let mut chunk = Chunk::read(&mut records);
    loop {
        let last = chunk.error.is_some() || chunk.records.is_empty();
        let (next, encoded) = rayon::join(
            || if last { Chunk::default() } else { Chunk::read(&mut records) },
            || encode_all(&chunk.records, &encode),
        );
        let encoded = encoded?;
        summary += encoded.summary;
        examples += encoded.examples.len();
        if first.is_none() {
            first = chunk.records.first().map(|record| record.location.clone());
        }
        consume(&chunk.records, encoded)?;
        if let Some(error) = chunk.error {
            return Err(error);
        }
        if last {
            break;
        }
        chunk = next;
    }
    match first {
        Some(location) if examples == 0 => {
            Err(TextError::NoExamplesLeft { location, records: summary.records }.into())
        }
        _ => Ok(summary),
    }
}

/// Records and errors in chunks of the size above.
pub(crate) fn chunks(
    records: impl Iterator<Item = Result<Record, TextError>>,
) -> impl Iterator<Item = Vec<Result<Record, TextError>>> {
    let mut records = records.fuse();
    std::iter::from_fn(move || {
        let (mut chunk, mut bytes) = (vec![], 0);
        while chunk.len() < CHUNK_RECORDS && bytes < CHUNK_BYTES {
            let Some(record) = records.next() else { break };
            bytes += record.as_ref().map_or(0, |record| text_bytes(&record.body));
            chunk.push(record);
        }
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// The records of a chunk; an error ends it early.
struct Chunk<E> {
    records: Vec<Record>,
    error: Option<E>,
}

impl<E> Default for Chunk<E> {
    fn default() -> Self {
        Chunk { records: vec![], error: None }
    }
}

impl<E> Chunk<E> {
    fn read(records: &mut impl Iterator<Item = Result<Record, E>>) -> Self {
        let mut chunk = Chunk::default();
        let mut bytes = 0;
        while chunk.records.len() < CHUNK_RECORDS && bytes < CHUNK_BYTES {
            match records.next() {
                Some(Ok(record)) => {
                    bytes += text_bytes(&record.body);
                    chunk.records.push(record);
                }
                Some(Err(error)) => {
                    chunk.error = Some(error);
                    break;
                }
                None => break,
            }
        }
        chunk
    }
}

/// Bytes of text in a record.
fn text_bytes(body: &Body) -> usize {
    let messages = |messages: &[Message]| messages.iter().map(|m| m.content.len()).sum::<usize>();
    let turns = |turns: &Turns| match turns {
        Turns::Plain(text) => text.len(),
        Turns::Chat(chat) => messages(chat),
    };
    match body {
        Body::Text { text } => text.len(),
        Body::Chat { messages: chat } => messages(chat),
        Body::Completion { prompt, completion } | Body::Rated { prompt, completion, .. } => {
            turns(prompt) + turns(completion)
        }
        Body::Preference { prompt, chosen, rejected } => {
            turns(prompt) + turns(chosen) + turns(rejected)
        }
        Body::Problem { prompt, answer, solution } => {
            turns(prompt) + answer.len() + solution.as_ref().map_or(0, turns)
        }
        Body::Prompt { prompt } => turns(prompt),
    }
}
