//! Packing: documents laid back to back, with their boundaries, and never padded.
//!
//! Nothing may leak from one document to the next, so boundaries travel with the tokens (attention stops there) and a
//! row never has its target in another document.

use crate::Example;

/// Documents back to back for one shard of a training step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// All tokens.
    pub ids: Vec<u32>,
    /// Where each document starts in `ids`, and the total at the end: documents + 1.
    pub offsets: Vec<u32>,
    /// Rows (indices into `ids`) whose output is read, ascending.
    pub rows: Vec<u32>,
    /// The token that each of `rows` must predict.
    pub targets: Vec<u32>,
    /// Where each document's part of `rows` starts, and the total at the end: documents + 1.
    pub row_offsets: Vec<u32>,
}

impl Default for Packed {
    fn default() -> Self {
        Self { ids: vec![], offsets: vec![0], rows: vec![], targets: vec![], row_offsets: vec![0] }
    }
}

impl Packed {
    /// No documents.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a document. Its trained token t (t > 0) is the target of row t-1.
    ///
    /// # Panics
    /// Where `trained` is not as long as `ids`.
    pub fn push(&mut self, example: &Example) {
        assert_eq!(example.ids.len(), example.trained.len(), "one flag per token");
        let start = self.ids.len();
        self.ids.extend_from_slice(&example.ids);
        for t in (1..example.ids.len()).filter(|&t| example.trained[t]) {
            self.rows.push((start + t - 1) as u32);
            self.targets.push(example.ids[t]);
        }
        self.close();
    }

    /// Appends a document of which only the last token's row is read (a reward model's score). It predicts nothing:
    /// its target is 0.
    ///
    /// # Panics
    /// Where `ids` is empty.
    pub fn push_last(&mut self, ids: &[u32]) {
        assert!(!ids.is_empty(), "a document to be scored has at least one token");
        self.ids.extend_from_slice(ids);
        self.rows.push((self.ids.len() - 1) as u32);
        self.targets.push(0);
        self.close();
    }

    fn close(&mut self) {
        self.offsets.push(self.ids.len() as u32);
        self.row_offsets.push(self.rows.len() as u32);
    }

    /// How many documents there are.
    pub fn documents(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The position of every token within its document, from 0.
    pub fn positions(&self) -> Vec<u32> {
        self.offsets.windows(2).flat_map(|bounds| 0..bounds[1] - bounds[0]).collect()
    }
}

/// Cuts a list of documents, in order, into shards of at most `budget` tokens. A document that is longer than the
/// budget is a shard of its own. Returns the documents' indices, shard by shard.
pub fn pack(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut shards: Vec<Vec<usize>> = vec![];
    let mut used = 0;
    for (document, &length) in lengths.iter().enumerate() {
        match shards.last_mut() {
            Some(shard) if used + length <= budget => {
                shard.push(document);
                used += length;
            }
            _ => {
                shards.push(vec![document]);
                used = length;
            }
        }
    }
    shards
}
