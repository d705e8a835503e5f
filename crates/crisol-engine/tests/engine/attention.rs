//! Values and gradients of attention, and attention over a cache.

use crisol_engine::{Attention, Device, KvCache, Tape, Workspace};

use crate::harness::{Random, check, id, input, offsets, params};
use crate::reference;

fn shape(heads: usize, kv_heads: usize, qk_dim: usize, v_dim: usize) -> Attention {
    Attention::new(heads, kv_heads, qk_dim, v_dim, 1.0 / (qk_dim as f32).sqrt())
}

fn check_attention(shape: Attention, lengths: &[usize], deviation: f32) {
    check_with_sinks(shape, false, lengths, deviation);
}

/// With sinks if `sinks`; else their gradient is 0.
fn check_with_sinks(shape: Attention, sinks: bool, lengths: &[usize], deviation: f32) {
    let n = lengths.iter().sum();
    let offsets = offsets(lengths);
    check(
        &[
            ("q", &[n, shape.heads * shape.qk_dim]),
            ("k", &[n, shape.kv_heads * shape.qk_dim]),
            ("v", &[n, shape.kv_heads * shape.v_dim]),
            ("sinks", &[shape.heads]),
        ],
        deviation,
        |tape| {
            let [q, k, v] = ["q", "k", "v"].map(|name| input(tape, name));
            let sinks = sinks.then(|| id(tape.params(), "sinks"));
            vec![tape.attention(q, k, v, Attention { sinks, ..shape }, &offsets)]
        },
        |inputs| {
            let [q, k, v, all] = inputs else { unreachable!() };
            let sinks = if sinks { &all.data[..] } else { &[] };
            vec![reference::attention(q, k, v, shape, sinks, &offsets)]
        },
    );
}

/// Windows, soft-caps and sinks, of one head a key/value head and of several.
#[test]
fn with_windows_soft_caps_and_sinks() {
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let kv_heads = random.between(1, 2);
        let full = shape(kv_heads * random.between(1, 3), kv_heads, 7, 5);
        let window = (seed % 2 == 0).then(|| random.between(1, 50));
        let softcap = (seed % 3 != 0).then_some(0.8);
        let shape = Attention { window, softcap, ..full };
        check_with_sinks(shape, seed % 4 != 0, &[random.between(1, 90), 3, 40], 1.0);
    }
}

/// Windows over several blocks of keys, whose first is not at the document's start.
#[test]
fn with_windows_longer_than_a_block_of_keys() {
    let shape = Attention { window: Some(270), ..shape(2, 1, 4, 3) };
    check_with_sinks(shape, true, &[5, 620], 1.0);
}

#[test]
fn of_random_shapes_and_documents() {
    let mut checked = 0;
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let kv_heads = random.between(1, 3);
        let heads = kv_heads * random.between(1, 3);
        let shape = shape(heads, kv_heads, random.between(1, 20), random.between(1, 20));
        // Some documents are empty, some longer than a block of queries.
        let lengths: Vec<usize> =
            (0..random.between(1, 4)).map(|_| random.between(0, 40)).collect();
        if lengths.iter().sum::<usize>() > 0 {
            check_attention(shape, &lengths, 1.0);
            checked += 1;
        }
    }
    assert!(checked > 8, "{checked} of 12 cases have a row");
}

#[test]
fn of_documents_longer_than_a_block_of_keys() {
    check_attention(shape(2, 1, 4, 3), &[3, 300, 20], 1.0);
}

/// Scores in the hundreds, where the running maximum matters.
#[test]
fn of_large_scores() {
    check_attention(shape(1, 1, 8, 2), &[270], 4.0);
}

/// One value as query, key and value: its three gradients add up.
#[test]
fn of_a_value_with_itself() {
    let shape = shape(2, 2, 5, 5);
    check(
        &[("x", &[17, 10])],
        1.0,
        |tape| {
            let x = input(tape, "x");
            vec![tape.attention(x, x, x, shape, &[0, 6, 17])]
        },
        |inputs| {
            vec![reference::attention(&inputs[0], &inputs[0], &inputs[0], shape, &[], &[0, 6, 17])]
        },
    );
}

/// Any split of documents into prefills and single tokens equals attention over whole documents;
/// with chunks, attention over documents that are split into chunks. With windows, soft-caps and
/// sinks as without.
#[test]
fn over_a_cache_equals_whole_documents() {
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let kv_heads = random.between(1, 3);
        let heads = kv_heads * random.between(1, 3);
        let full = shape(heads, kv_heads, random.between(1, 40), random.between(1, 40));
        let window = (seed % 4 > 1).then(|| random.between(1, 200));
        let softcap = (seed % 5 > 2).then_some(0.8);
        let lengths: Vec<usize> = (0..3).map(|_| random.between(1, 320)).collect();
        let n: usize = lengths.iter().sum();
        let starts = offsets(&lengths);
        let device = Device::cpu(Some(1));
        let params = params(
            &device,
            &[
                ("q", &[n, heads * full.qk_dim]),
                ("k", &[n, kv_heads * full.qk_dim]),
                ("v", &[n, kv_heads * full.v_dim]),
                ("sinks", &[heads]),
            ],
            1.5,
            seed,
        );
        let sinks = (seed % 2 == 0).then(|| id(&params, "sinks"));
        let shape = Attention { window, softcap, sinks, ..full };
        let mut workspace = Workspace::new(&device);
        let mut tape = Tape::inference(&params, &mut workspace);
        let [q, k, v] = ["q", "k", "v"].map(|name| input(&mut tape, name));
        let chunk = (seed % 3 != 0).then(|| random.between(1, 100));
        let cut = |bounds: &[u32]| -> Vec<u32> {
            (bounds[0]..bounds[1]).step_by(chunk.unwrap_or(n)).collect()
        };
        let cuts: Vec<u32> = starts.windows(2).flat_map(cut).chain([n as u32]).collect();
        let whole = tape.attention(q, k, v, shape, &cuts);
        let whole = tape.read(whole).to_vec();
        drop(tape);

        let layers = 2;
        let mut cache =
            KvCache::new(&device, layers, kv_heads * shape.qk_dim, kv_heads * shape.v_dim, 5, 320);
        let slots = [3, 0, 4];
        let mut done = [0; 3];
        while done != lengths[..] {
            // Every document advances by no token, one, a few, or many.
            let steps: Vec<usize> = (0..3)
                .map(|i| {
                    [0, 1, 1, random.between(2, 12), 200][random.between(0, 4)]
                        .min(lengths[i] - done[i])
                })
                .collect();
            let rows: Vec<u32> = (0..3)
                .flat_map(|i| {
                    (0..steps[i]).map(|j| starts[i] + (done[i] + j) as u32).collect::<Vec<_>>()
                })
                .collect();
            let mut tape = Tape::inference(&params, &mut workspace);
            let [q, k, v] = ["q", "k", "v"].map(|name| tape.embedding(id(&params, name), &rows));
            for layer in 0..layers {
                let offsets = offsets(&steps);
                let out = tape
                    .attention_cached(q, k, v, shape, &offsets, &mut cache, &slots, layer, chunk);
                let width = heads * shape.v_dim;
                assert_eq!(tape.shape(out), (rows.len(), width));
                for (row, out) in rows.iter().zip(tape.read(out).chunks(width)) {
                    let expected = &whole[*row as usize * width..][..width];
                    for (a, b) in out.iter().zip(expected) {
                        assert!((a - b).abs() < 2e-5, "row {row}: {a} and {b}");
                    }
                }
            }
            for i in 0..3 {
                done[i] += steps[i];
                assert_eq!(cache.len(slots[i]), done[i]);
            }
        }
    }
}
