//! A small transformer from the engine's operations (two layers, grouped queries, per-head norms,
//! tied head), and its plain reference.

use crisol_engine::{
    Attention, Device, GatedActivation, KvCache, Params, Rope, RopeStyle, Tape, Var,
};

use crate::harness::{Random, check, id, offsets, params};
use crate::reference::{self, Matrix};

pub(crate) const VOCAB: usize = 530;
const DIM: usize = 20;
const FF: usize = 28;
const HEAD_DIM: usize = 6;
const SHAPE: Attention = Attention::new(4, 2, HEAD_DIM, HEAD_DIM, 0.408);
const LAYERS: usize = 2;
const FREQUENCIES: [f32; 3] = [1.0, 0.3, 0.1];
const EPS: f32 = 1e-5;

const LAYER: [(&str, &[usize]); 11] = [
    ("attention_norm", &[DIM]),
    ("q", &[4 * HEAD_DIM, DIM]),
    ("k", &[2 * HEAD_DIM, DIM]),
    ("v", &[2 * HEAD_DIM, DIM]),
    ("q_norm", &[HEAD_DIM]),
    ("k_norm", &[HEAD_DIM]),
    ("o", &[DIM, 4 * HEAD_DIM]),
    ("mlp_norm", &[DIM]),
    ("gate", &[FF, DIM]),
    ("up", &[FF, DIM]),
    ("down", &[DIM, FF]),
];

pub(crate) fn new_params(device: &Device) -> Params {
    let names = names();
    let specs: Vec<(&str, &[usize])> =
        names.iter().map(|(name, shape)| (&name[..], *shape)).collect();
    params(device, &specs, 0.4, 11)
}

fn names() -> Vec<(String, &'static [usize])> {
    let mut names: Vec<(String, &[usize])> =
        vec![("embedding".into(), &[VOCAB, DIM]), ("norm".into(), &[DIM])];
    for layer in 0..LAYERS {
        names.extend(LAYER.iter().map(|(name, shape)| (format!("{layer}.{name}"), *shape)));
    }
    names
}

/// Positions of tokens within their documents.
pub(crate) fn positions(offsets: &[u32]) -> Vec<u32> {
    offsets.windows(2).flat_map(|document| 0..document[1] - document[0]).collect()
}

/// Slots of a cache, one per document.
pub(crate) struct Cached<'a> {
    pub(crate) cache: &'a mut KvCache,
    pub(crate) slots: &'a [usize],
}

pub(crate) fn new_cache(device: &Device, slots: usize, capacity: usize) -> KvCache {
    KvCache::new(device, LAYERS, 2 * HEAD_DIM, 2 * HEAD_DIM, slots, capacity)
}

/// Final hidden states of documents, or of their next tokens with a cache.
pub(crate) fn forward(
    tape: &mut Tape<'_>,
    ids: &[u32],
    offsets: &[u32],
    mut cached: Option<Cached<'_>>,
) -> Var {
    let params = tape.params();
    let rope = Rope::new(&FREQUENCIES, 1.0, RopeStyle::Halves);
    let mut positions = positions(offsets);
    if let Some(Cached { cache, slots }) = &cached {
        for (document, &slot) in offsets.windows(2).zip(*slots) {
            let past = cache.len(slot) as u32;
            positions[document[0] as usize..document[1] as usize]
                .iter_mut()
                .for_each(|p| *p += past);
        }
    }
    let mut x = tape.embedding(id(params, "embedding"), ids);
    for layer in 0..LAYERS {
        let param = |name: &str| id(params, &format!("{layer}.{name}"));
        let h = tape.rms_norm(x, param("attention_norm"), EPS);
        let [q, k, v] = ["q", "k", "v"].map(|name| tape.linear(h, param(name), None));
        let [q, k] = [(q, "q_norm"), (k, "k_norm")].map(|(x, norm)| {
            let x = tape.rms_norm(x, param(norm), EPS);
            tape.rope(x, &rope, HEAD_DIM, &positions)
        });
        let h = match &mut cached {
            None => tape.attention(q, k, v, SHAPE, offsets),
            Some(Cached { cache, slots }) => {
                tape.attention_cached(q, k, v, SHAPE, offsets, cache, slots, layer, None)
            }
        };
        let h = tape.linear(h, param("o"), None);
        x = tape.add(x, h);
        let h = tape.rms_norm(x, param("mlp_norm"), EPS);
        let [gate, up] = ["gate", "up"].map(|name| tape.linear(h, param(name), None));
        let h = tape.gated(gate, up, GatedActivation::Silu);
        let h = tape.linear(h, param("down"), None);
        x = tape.add(x, h);
        tape.keep_only(x);
    }
    tape.rms_norm(x, id(params, "norm"), EPS)
}

fn twin(inputs: &[Matrix], ids: &[u32], offsets: &[u32]) -> Matrix {
    let positions = positions(offsets);
    let eps = f64::from(EPS);
    let mut x = reference::gather(&inputs[0], ids);
    for layer in inputs[2..].chunks_exact(LAYER.len()) {
        let [attention_norm, q, k, v, q_norm, k_norm, o, mlp_norm, gate, up, down] = layer else {
            unreachable!()
        };
        let h = reference::rms_norm(&x, attention_norm, eps);
        let rotated = |weight, norm| {
            let x = reference::rms_norm(&reference::linear(&h, weight, None), norm, eps);
            reference::rope(&x, &FREQUENCIES, 1.0, RopeStyle::Halves, HEAD_DIM, &positions)
        };
        let v = reference::linear(&h, v, None);
        let h =
            reference::attention(&rotated(q, q_norm), &rotated(k, k_norm), &v, SHAPE, &[], offsets);
        x = reference::add(&x, &reference::linear(&h, o, None));
        let h = reference::rms_norm(&x, mlp_norm, eps);
        let h = reference::gated(
            GatedActivation::Silu,
            &reference::linear(&h, gate, None),
            &reference::linear(&h, up, None),
        );
        x = reference::add(&x, &reference::linear(&h, down, None));
    }
    reference::rms_norm(&x, &inputs[1], eps)
}

#[test]
fn every_gradient_of_a_transformer() {
    let mut random = Random::new(1);
    let offsets = offsets(&[9, 1, 37]);
    let ids = random.ids(47, VOCAB);
    let rows: Vec<u32> = (0..47).filter(|i| i % 3 != 1).collect();
    let targets = random.ids(rows.len(), VOCAB);
    let names = names();
    let specs: Vec<(&str, &[usize])> =
        names.iter().map(|(name, shape)| (&name[..], *shape)).collect();
    check(
        &specs,
        0.4,
        |tape| {
            let x = forward(tape, &ids, &offsets, None);
            let x = tape.select_rows(x, &rows);
            let (logp, entropy) =
                tape.token_scores(x, id(tape.params(), "embedding"), &targets, 1.3, None, true);
            vec![logp, entropy]
        },
        |inputs| {
            let x = reference::gather(&twin(inputs, &ids, &offsets), &rows);
            let (logp, entropy) =
                reference::token_scores(&x, &inputs[0], &targets, f64::from(1.3f32), None);
            vec![logp, entropy]
        },
    );
}
