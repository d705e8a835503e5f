//! Documents of one step, packed into shards.
//!
//! ```text
//! groups      [a] [b] [c] [d]          or pairs     [a a'] [b b'] [c c']
//! shards      | a b |  c d |                        | a a' b b' | c c' |
//! members     | 0 1 |  2 3 |                        |   0    1  |  2   |
//! ```
//!
//! A group stays together: a document by itself, or the chosen and the rejected answer of a pair.

use crisol_cost::ModelShape;
use crisol_cost::units::Flops;
use crisol_objectives::BatchSize;
use crisol_text::{Example, Packed, pack};

use crate::forecast::lengths::{Length, forward};

/// The rows of a document whose output is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Those that predict a trained token.
    Trained,
    /// The last one: a reward model's score.
    Last,
}

/// Groups of documents in shards of about as many tokens.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The shards.
    pub shards: Vec<Packed>,
    /// Groups of each shard.
    pub members: Vec<Vec<usize>>,
    /// Documents and rows of all shards together.
    pub size: BatchSize,
}

impl Batch {
    /// Packs groups of `N` documents, in order.
    pub fn new<const N: usize>(groups: &[[&Example; N]], rows: Rows, shard_tokens: usize) -> Batch {
        let tokens = |group: &[&Example; N]| group.iter().map(|example| example.ids.len()).sum();
        let lengths: Vec<usize> = groups.iter().map(tokens).collect();
        let members = pack(&lengths, shard_tokens);
        let shard = |members: &Vec<usize>| {
            let mut packed = Packed::new();
            for example in members.iter().flat_map(|&i| groups[i]) {
                match rows {
                    Rows::Trained => packed.push(example),
                    Rows::Last => packed.push_last(&example.ids),
                }
            }
            packed
        };
        let shards: Vec<Packed> = members.iter().map(shard).collect();
        let size = shards.iter().map(|shard| BatchSize::of(&shard.row_offsets)).sum();
        Batch { shards, members, size }
    }

    /// Packs documents to train on.
    pub fn of_documents<'e>(
        documents: impl IntoIterator<Item = &'e Example>,
        shard_tokens: usize,
    ) -> Batch {
        let groups: Vec<[&Example; 1]> = documents.into_iter().map(|document| [document]).collect();
        Batch::new(&groups, Rows::Trained, shard_tokens)
    }

    /// How many tokens there are, prompts included.
    pub fn tokens(&self) -> usize {
        self.shards.iter().map(|shard| shard.ids.len()).sum()
    }

    /// Floating-point operations of a forward pass.
    pub(crate) fn forward_flops(&self, shape: &ModelShape) -> Flops {
        let bounds = |shard: &Packed| {
            let ends = shard.offsets.windows(2).zip(shard.row_offsets.windows(2));
            let count = |bounds: &[u32]| (bounds[1] - bounds[0]) as usize;
            ends.map(|(tokens, rows)| Length { tokens: count(tokens), rows: count(rows) })
                .collect::<Vec<_>>()
        };
        forward(shape, self.shards.iter().flat_map(bounds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost_shape::cost_shape;

    fn examples(lengths: &[usize]) -> Vec<Example> {
        let example =
            |(i, &n): (usize, &usize)| Example { ids: vec![i as u32; n], trained: vec![true; n] };
        lengths.iter().enumerate().map(example).collect()
    }

    #[test]
    fn groups_stay_together_and_in_order() {
        let examples = examples(&[3, 4, 2, 2, 5, 1]);
        let pairs: Vec<[&Example; 2]> =
            examples.chunks(2).map(|pair| [&pair[0], &pair[1]]).collect();
        let batch = Batch::new(&pairs, Rows::Trained, 11);
        assert_eq!(batch.members, [vec![0, 1], vec![2]]);
        assert_eq!(batch.shards[0].offsets, [0, 3, 7, 9, 11]);
        assert_eq!(batch.shards[1].ids, [4, 4, 4, 4, 4, 5]);
        assert_eq!((batch.size.sequences, batch.size.tokens, batch.tokens()), (6, 11, 17));
        let last = Batch::new(&pairs, Rows::Last, 11);
        assert_eq!((last.shards[0].rows.as_slice(), last.size.tokens), (&[2, 6, 8, 10][..], 6));
    }

    #[test]
    fn a_documents_operations_do_not_depend_on_its_shard() {
        let shape = cost_shape(&crisol_model::Config::new(
            crisol_model::Architecture::Llama,
            50,
            16,
            2,
            2,
            24,
        ));
        let examples = examples(&[3, 4, 2, 2, 5, 1]);
        let apart = forward(&shape, examples.iter().map(Length::of));
        for shard_tokens in [1, 7, 100] {
            let batch = Batch::of_documents(&examples, shard_tokens);
            assert_eq!(batch.forward_flops(&shape), apart);
        }
    }
}
