//! Records encoded as they are read: one chunk is encoded on all cores while the next is read. No more than two chunks
//! are in memory, however large the files are.

use crate::examples::encode_all;
use crate::options::Summary;
use crate::records::{Body, Record, Turns};
use crate::{Encoded, Message, TextError};

/// A chunk ends after this many records, enough to keep all cores busy.
const CHUNK_RECORDS: usize = 1024;
/// And after this many bytes of text, unless one record alone is longer.
const CHUNK_BYTES: usize = 2 << 20;

/// Hands what `encode` makes of the records to `take`, chunk by chunk, in order, with the chunk's records. The first
/// error in the order of the records ends it. Records of which nothing is left are an error.
pub fn encode_chunks<T: Send, E: From<TextError> + Send>(
    mut records: impl Iterator<Item = Result<Record, E>> + Send,
    encode: impl Fn(&Record) -> Result<Encoded<T>, TextError> + Sync,
    mut take: impl FnMut(&[Record], Encoded<T>) -> Result<(), E>,
) -> Result<Summary, E> {
    let mut summary = Summary::default();
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
            first = chunk.records.first().map(|record| record.place.clone());
        }
        take(&chunk.records, encoded)?;
        if let Some(error) = chunk.error {
            return Err(error);
        }
        if last {
            break;
        }
        chunk = next;
    }
    match first {
        Some(place) if examples == 0 => {
            Err(TextError::NothingLeft { place, records: summary.records }.into())
        }
        _ => Ok(summary),
    }
}

/// Records and errors in chunks of the same size.
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

/// Records up to the end of a chunk, or up to an error.
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

/// Bytes of a record's text.
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
