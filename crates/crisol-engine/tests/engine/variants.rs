//! The operations that only some architectures have: threads and recomputation change no bit of a
//! block of them, and in bf16 their attention is near that in f32.

use crisol_engine::{
    Attention, Device, Experts, GatedActivation, Grads, ParamId, Params, Precision, Router,
    Scoring, Tape, Var, Workspace,
};

use crate::harness::{Random, id, input, params};

/// Long enough for two tasks an operation.
const ROWS: usize = 330;
const DIM: usize = 64;
const EXPERTS: usize = 3;
const VOCAB: usize = 600;
const OFFSETS: [u32; 4] = [0, 1, 300, ROWS as u32];

const WEIGHTS: [(&str, &[usize]); 19] = [
    ("x", &[ROWS, DIM]),
    ("norm", &[DIM]),
    ("layer norm", &[DIM]),
    ("layer norm's bias", &[DIM]),
    ("q", &[DIM, DIM]),
    ("k", &[DIM / 2, DIM]),
    ("v", &[DIM / 2, DIM]),
    ("o", &[DIM, DIM]),
    ("sinks", &[4]),
    ("router", &[EXPERTS, DIM]),
    ("router's bias", &[EXPERTS]),
    ("gate 0", &[DIM, DIM]),
    ("gate 1", &[DIM, DIM]),
    ("gate 2", &[DIM, DIM]),
    ("gate's bias 0", &[DIM]),
    ("gate's bias 1", &[DIM]),
    ("gate's bias 2", &[DIM]),
    ("up", &[DIM, DIM]),
    ("head", &[VOCAB, DIM]),
];

/// The id of a weight of [`WEIGHTS`], for closures that own what they read.
fn weights(params: &Params) -> [ParamId; WEIGHTS.len()] {
    WEIGHTS.map(|(name, _)| id(params, name))
}

fn block(tape: &mut Tape<'_>, ids: &[ParamId; WEIGHTS.len()], x: Var) -> Var {
    let of = |name: &str| {
        ids[WEIGHTS.iter().position(|(own, _)| *own == name).expect("a weight of the block")]
    };
    let x = tape.scale(x, 1.5);
    let h = tape.rms_norm_plus_one(x, of("norm"), 1e-5);
    let [q, k, v] = ["q", "k", "v"].map(|name| tape.linear(h, of(name), None));
    let attention = Attention {
        window: Some(60),
        softcap: Some(2.0),
        sinks: Some(of("sinks")),
        ..Attention::new(4, 2, DIM / 4, DIM / 4, 0.1)
    };
    let h = tape.attention(q, k, v, attention, &OFFSETS);
    let h = tape.linear(h, of("o"), None);
    let x = tape.add(x, h);
    let h = tape.layer_norm(x, of("layer norm"), Some(of("layer norm's bias")), 1e-5);
    let logits = tape.linear(h, of("router"), Some(of("router's bias")));
    // Each row goes to the expert of its third.
    let third = ROWS / EXPERTS;
    let chosen: Vec<u32> = (0..ROWS).map(|row| (row / third) as u32).collect();
    let router = Router { scoring: Scoring::Softmax, normalise: false, scale: 2.0 };
    let weight = tape.expert_weights(logits, router, &chosen);
    let experts = |name: &str| Experts { first: of(name), count: EXPERTS };
    let bounds: Vec<u32> = (0..=EXPERTS).map(|expert| (expert * third) as u32).collect();
    let (gates, biases) = (experts("gate 0"), experts("gate's bias 0"));
    let gate = tape.grouped_linear(h, gates, Some(biases), &bounds);
    let up = tape.linear(h, of("up"), None);
    let inner = tape.gated(gate, up, GatedActivation::ClampedSilu { limit: 1.0 });
    let entries: Vec<u32> = (0..ROWS as u32).collect();
    let inner = tape.scale_rows(inner, weight, &entries);
    let inner = tape.gated(inner, up, GatedActivation::Gelu);
    let inner = tape.gelu(inner);
    let inner = tape.softcap(inner, 3.0);
    tape.add(x, inner)
}

/// Scores, and the gradients of all parameters.
fn run(threads: usize, precision: Precision, recompute: bool) -> Vec<Vec<f32>> {
    let device = Device::cpu(Some(threads)).with_precision(precision);
    let params = params(&device, &WEIGHTS, 0.3, 5);
    let ids = weights(&params);
    let mut random = Random::new(3);
    let targets = random.ids(ROWS, VOCAB);
    let mut grads = Grads::zeros_like(&params);
    let scores = device.run(|workspace: &mut Workspace| {
        let mut tape = if recompute {
            Tape::recomputing(&params, workspace)
        } else {
            Tape::training(&params, workspace)
        };
        let mut x = input(&mut tape, "x");
        for _ in 0..2 {
            x = tape.segment(x, move |tape, x| block(tape, &ids, x));
        }
        let head = id(&params, "head");
        let (logp, entropy) = tape.token_scores(x, head, &targets, 0.8, Some(4.0), true);
        let scores = [logp, entropy].map(|var| tape.read(var).to_vec());
        tape.backward(&[(logp, &[-0.1; ROWS]), (entropy, &[0.02; ROWS])], &mut grads);
        scores
    });
    scores.into_iter().chain(params.ids().map(|id| grads.read(id))).collect()
}

#[test]
fn threads_and_recomputation_change_no_bit() {
    for precision in [Precision::F32, Precision::Bf16] {
        let plain = run(1, precision, false);
        for (index, numbers) in plain.iter().enumerate() {
            assert!(numbers.iter().any(|x| *x != 0.0), "numbers {index} are zeros");
            assert!(numbers.iter().all(|x| x.is_finite()), "numbers {index}");
        }
        for (threads, recompute) in [(3, false), (1, true), (2, true)] {
            let same = run(threads, precision, recompute) == plain;
            assert!(same, "{threads} threads, {precision:?}, recompute: {recompute}");
        }
    }
}

/// Output and gradients of attention alone.
fn attention(precision: Precision) -> Vec<Vec<f32>> {
    let device = Device::cpu(Some(1)).with_precision(precision);
    let specs: [(&str, &[usize]); 4] =
        [("q", &[ROWS, DIM]), ("k", &[ROWS, DIM]), ("v", &[ROWS, DIM]), ("sinks", &[4])];
    let params = params(&device, &specs, 1.0, 5);
    let mut workspace = Workspace::new(&device);
    let mut tape = Tape::training(&params, &mut workspace);
    let [q, k, v] = ["q", "k", "v"].map(|name| input(&mut tape, name));
    let shape = Attention {
        window: Some(290),
        softcap: Some(2.0),
        sinks: Some(id(&params, "sinks")),
        ..Attention::new(4, 4, DIM / 4, DIM / 4, 0.25)
    };
    let out = tape.attention(q, k, v, shape, &OFFSETS);
    let output = tape.read(out).to_vec();
    let mut random = Random::new(3);
    let dout: Vec<f32> = output.iter().map(|_| random.uniform()).collect();
    let mut grads = Grads::zeros_like(&params);
    tape.backward(&[(out, &dout)], &mut grads);
    [output].into_iter().chain(params.ids().map(|id| grads.read(id))).collect()
}

/// The error, in the norm of all numbers, is a few of bf16's roundings (2^-9).
#[test]
fn attention_in_bf16_is_near_that_in_f32() {
    let [exact, rounded] = [Precision::F32, Precision::Bf16].map(attention);
    for (index, (a, b)) in exact.iter().zip(&rounded).enumerate() {
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
        let error = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
        let size = norm(&mut a.iter().copied());
        assert!(error > 0.0 && error < 0.01 * size, "numbers {index}: {}", error / size);
    }
}
