//! Packing: documents concatenated without padding.
//!
//! ```text
//! ids          a0 a1 a2 | b0 b1          offsets      0 3 5
//! rows          0  1    |  3             row_offsets  0 2 3
//! targets      a1 a2    | b1
//! ```
//!
//! Attention stops at the offsets, and no row has its target in another document.

use crate::Example;

/// Concatenated documents: one shard of a training step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Token ids of all documents.
    pub ids: Vec<u32>,
    /// Start of each document in `ids`, then their length: `[documents + 1]`.
    pub offsets: Vec<u32>,
    /// Rows (indices into `ids`) whose output is used, ascending.
    pub rows: Vec<u32>,
    /// The target token of each of `rows`.
    pub targets: Vec<u32>,
    /// Start of each document in `rows`, then their length: `[documents + 1]`.
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
    /// If `trained` and `ids` differ in length.
    pub fn push(&mut self, example: &Example) {
        assert_eq!(example.ids.len(), example.trained.len(), "one flag per token");
        let start = self.ids.len();
        self.ids.extend_from_slice(&example.ids);
        for t in (1..example.ids.len()).filter(|&t| example.trained[t]) {
            self.rows.push((start + t - 1) as u32);
            self.targets.push(example.ids[t]);
        }
        self.end_document();
    }

    /// Appends a document of which only the last row is used, for a reward model's score. Its
    /// target is 0 and unused.
    ///
    /// # Panics
    /// If `ids` is empty.
    pub fn push_last(&mut self, ids: &[u32]) {
        assert!(!ids.is_empty(), "a document to be scored has at least one token");
        self.ids.extend_from_slice(ids);
        self.rows.push((self.ids.len() - 1) as u32);
        self.targets.push(0);
        self.end_document();
    }

    fn end_document(&mut self) {
        self.offsets.push(self.ids.len() as u32);
        self.row_offsets.push(self.rows.len() as u32);
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Position of each token within its document, from 0.
    pub fn positions(&self) -> Vec<u32> {
        self.offsets.windows(2).flat_map(|bounds| 0..bounds[1] - bounds[0]).collect()
    }
}

/// Splits documents, in order, into shards of at most `budget` tokens, given their `lengths`.
///
/// A document longer than the budget is its own shard. Returns indices of documents per shard.
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
