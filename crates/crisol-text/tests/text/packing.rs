//! Packing of examples into shards.

use crisol_text::{Example, Packed, pack};
use proptest::prelude::*;

/// Documents whose token ids encode document and position.
fn documents() -> impl Strategy<Value = Vec<Example>> {
    prop::collection::vec(prop::collection::vec(any::<bool>(), 1..30), 0..12).prop_map(|masks| {
        let example = |(d, trained): (usize, Vec<bool>)| Example {
            ids: (0..trained.len()).map(|t| (d * 1000 + t) as u32).collect(),
            trained,
        };
        masks.into_iter().enumerate().map(example).collect()
    })
}

proptest! {
    #[test]
    fn packing_keeps_every_token_and_target_within_its_document(examples in documents()) {
        let mut packed = Packed::new();
        for example in &examples {
            packed.push(example);
        }
        prop_assert_eq!(packed.documents(), examples.len());
        prop_assert_eq!(packed.offsets.len(), examples.len() + 1);
        prop_assert_eq!(packed.row_offsets.len(), examples.len() + 1);
        prop_assert_eq!(packed.rows.len(), packed.targets.len());
        let positions = packed.positions();
        prop_assert_eq!(positions.len(), packed.ids.len());
        for (d, example) in examples.iter().enumerate() {
            let tokens = packed.offsets[d] as usize..packed.offsets[d + 1] as usize;
            prop_assert_eq!(&packed.ids[tokens.clone()], &example.ids[..]);
            prop_assert!(positions[tokens.clone()].iter().copied().eq(0..example.ids.len() as u32));
            let rows = packed.row_offsets[d] as usize..packed.row_offsets[d + 1] as usize;
            let mut trained = vec![];
            for row in rows {
                let at = packed.rows[row] as usize;
                // The row and its target are in this document.
                prop_assert!(tokens.contains(&at) && tokens.contains(&(at + 1)));
                prop_assert_eq!(packed.ids[at + 1], packed.targets[row]);
                trained.push(at + 1 - tokens.start);
            }
            let targets = (1..example.ids.len()).filter(|&t| example.trained[t]);
            let expected: Vec<usize> = targets.collect();
            prop_assert_eq!(trained, expected);
        }
        prop_assert_eq!(packed.offsets.last().copied(), Some(packed.ids.len() as u32));
        prop_assert_eq!(packed.row_offsets.last().copied(), Some(packed.rows.len() as u32));
    }

    #[test]
    fn shards_keep_order_and_budget(
        lengths in prop::collection::vec(0usize..50, 0..40),
        budget in 1usize..100,
    ) {
        let shards = pack(&lengths, budget);
        let flat: Vec<usize> = shards.iter().flatten().copied().collect();
        prop_assert!(flat.into_iter().eq(0..lengths.len()));
        let total = |shard: &[usize]| shard.iter().map(|&d| lengths[d]).sum::<usize>();
        for shard in &shards {
            prop_assert!(!shard.is_empty());
            prop_assert!(total(shard) <= budget || shard.len() == 1);
        }
        // No shard ends early.
        for pair in shards.windows(2) {
            prop_assert!(total(&pair[0]) + lengths[pair[1][0]] > budget);
        }
    }
}

#[test]
fn a_scored_document_uses_its_last_row() {
    let mut packed = Packed::new();
    packed.push(&Example { ids: vec![7, 8, 9], trained: vec![true, false, true] });
    packed.push_last(&[4, 5]);
    packed.push_last(&[6]);
    let expected = Packed {
        ids: vec![7, 8, 9, 4, 5, 6],
        offsets: vec![0, 3, 5, 6],
        rows: vec![1, 4, 5],
        targets: vec![9, 0, 0],
        row_offsets: vec![0, 1, 2, 3],
    };
    assert_eq!(packed, expected);
}

#[test]
fn a_document_longer_than_the_budget_is_its_own_shard() {
    assert_eq!(pack(&[3, 20, 3, 7], 10), [vec![0], vec![1], vec![2, 3]]);
    assert!(pack(&[], 10).is_empty());
}
