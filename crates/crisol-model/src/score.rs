//! Scores of given sequences: log-probabilities of their tokens, or scalars per token.

use crisol_engine::{Params, Tape, Var};

use crate::{Model, ModelError, PastKeyValues};

/// Maximum tokens per forward pass; bounds its memory. A longer sequence has its own pass.
const SHARD_TOKENS: usize = 2048;

/// Log-probability of every token but the first, `len - 1` numbers per sequence. `logit_scale` is
/// 1/temperature.
pub fn score<S: AsRef<[u32]> + Sync>(
    model: &Model,
    params: &Params,
    sequences: &[S],
    logit_scale: f32,
) -> Result<Vec<Vec<f32>>, ModelError> {
    model.needs_language_head()?;
    over_shards(model, params, sequences, 1, |tape, hidden, rows, ids| {
        let targets: Vec<u32> = rows.iter().map(|&row| ids[row as usize + 1]).collect();
        Ok(model.token_scores(tape, hidden, rows, &targets, logit_scale, false)?.0)
    })
}

/// The scalar head's output at every token, `len` numbers per sequence. A reward model's score is
/// the last one.
pub fn scalars<S: AsRef<[u32]> + Sync>(
    model: &Model,
    params: &Params,
    sequences: &[S],
) -> Result<Vec<Vec<f32>>, ModelError> {
    over_shards(model, params, sequences, 0, |tape, hidden, rows, _| {
        model.scalar(tape, hidden, rows)
    })
}

/// Runs packed shards of sequences in parallel and reads `head(tape, hidden, rows, ids)` for all
/// rows except the last `without_last` of each sequence.
fn over_shards<S: AsRef<[u32]> + Sync>(
    model: &Model,
    params: &Params,
    sequences: &[S],
    without_last: usize,
    head: impl Fn(&mut Tape<'_>, Var, &[u32], &[u32]) -> Result<Var, ModelError> + Sync,
) -> Result<Vec<Vec<f32>>, ModelError> {
    let lengths: Vec<usize> = sequences.iter().map(|s| s.as_ref().len()).collect();
    let shards = crisol_text::pack(&lengths, SHARD_TOKENS);
    let results = params.device().map(shards.len(), |shard, workspace| {
        let (mut ids, mut offsets, mut rows) = (Vec::new(), vec![0], Vec::new());
        let documents = &shards[shard];
        for &document in documents {
            let start = ids.len() as u32;
            ids.extend_from_slice(sequences[document].as_ref());
            offsets.push(ids.len() as u32);
            rows.extend(start..(ids.len() as u32).saturating_sub(without_last as u32).max(start));
        }
        if rows.is_empty() {
            return Ok::<_, ModelError>(vec![Vec::new(); documents.len()]);
        }
        let mut tape = Tape::inference(params, workspace);
        let hidden = model.hidden(&mut tape, &ids, &offsets, PastKeyValues::None)?;
        let numbers = head(&mut tape, hidden, &rows, &ids)?;
        let numbers = tape.read(numbers);
        let mut numbers = numbers.iter().copied();
        let take = |&document: &usize| {
            numbers.by_ref().take(lengths[document].saturating_sub(without_last)).collect()
        };
        Ok(documents.iter().map(take).collect())
    });
    let mut all = vec![Vec::new(); sequences.len()];
    for (documents, result) in shards.iter().zip(results) {
        let result: Vec<Vec<f32>> = result?;
        for (&document, numbers) in documents.iter().zip(result) {
            all[document] = numbers;
        }
    }
    Ok(all)
}
