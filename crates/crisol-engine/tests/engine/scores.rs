//! Values and gradients of log-probs and entropies.

use crisol_engine::{Device, Grads, Tape, Workspace};

use crate::harness::{Random, check, id, input, params};
use crate::reference;

/// The outputs that get a gradient.
#[derive(Clone, Copy, PartialEq)]
enum Seeded {
    LogProbs,
    Entropies,
    Both,
}

fn check_scores(n: usize, dim: usize, vocab: usize, scale: f32, deviation: f32, seeded: Seeded) {
    check_capped(n, dim, vocab, scale, None, deviation, seeded);
}

fn check_capped(
    n: usize,
    dim: usize,
    vocab: usize,
    scale: f32,
    softcap: Option<f32>,
    deviation: f32,
    seeded: Seeded,
) {
    let targets = Random::new(n as u64).ids(n, vocab);
    let choose = |logp, entropy| match seeded {
        Seeded::LogProbs => vec![logp],
        Seeded::Entropies => vec![entropy],
        Seeded::Both => vec![logp, entropy],
    };
    check(
        &[("x", &[n, dim]), ("head", &[vocab, dim])],
        deviation,
        |tape| {
            let x = input(tape, "x");
            let head = id(tape.params(), "head");
            let (logp, entropy) =
                tape.token_scores(x, head, &targets, scale, softcap, seeded != Seeded::LogProbs);
            match seeded {
                Seeded::LogProbs => vec![logp],
                Seeded::Entropies => vec![entropy],
                Seeded::Both => vec![logp, entropy],
            }
        },
        |inputs| {
            let (logp, entropy) = reference::token_scores(
                &inputs[0],
                &inputs[1],
                &targets,
                f64::from(scale),
                softcap,
            );
            choose(logp, entropy)
        },
    );
}

#[test]
fn of_capped_logits() {
    for seeded in [Seeded::LogProbs, Seeded::Entropies, Seeded::Both] {
        check_capped(7, 9, 33, 1.3, Some(2.0), 1.5, seeded);
        check_capped(261, 3, 1103, 0.7, Some(1.5), 1.0, seeded);
    }
}

#[test]
fn of_random_shapes() {
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let seeded = [Seeded::LogProbs, Seeded::Entropies, Seeded::Both][random.between(0, 2)];
        let (n, dim, vocab) = (random.between(1, 30), random.between(1, 20), random.between(2, 60));
        check_scores(n, dim, vocab, 1.0 + random.uniform() / 2.0, 1.0, seeded);
    }
}

#[test]
fn over_several_blocks_and_chunks() {
    for seeded in [Seeded::LogProbs, Seeded::Entropies, Seeded::Both] {
        check_scores(261, 3, 1103, 0.7, 1.0, seeded);
    }
}

/// Logits in the hundreds: entropies near zero, and any chunk may have a new maximum.
#[test]
fn of_large_logits() {
    check_scores(20, 30, 1300, 1.5, 3.0, Seeded::Both);
}

/// A tied embedding gets gradients as input and as output.
#[test]
fn with_a_head_that_is_the_embedding() {
    let ids = [3, 1, 4, 1, 5, 9, 2, 6];
    let targets = [1, 4, 1, 5, 9, 2, 6, 5];
    check(
        &[("table", &[10, 6])],
        0.8,
        |tape| {
            let table = id(tape.params(), "table");
            let x = tape.embedding(table, &ids);
            let (logp, entropy) = tape.token_scores(x, table, &targets, 1.0, None, true);
            vec![logp, entropy]
        },
        |inputs| {
            let x = reference::gather(&inputs[0], &ids);
            let (logp, entropy) = reference::token_scores(&x, &inputs[0], &targets, 1.0, None);
            vec![logp, entropy]
        },
    );
}

#[test]
fn entropies_that_were_not_requested_are_zero_and_change_nothing() {
    let device = Device::cpu(Some(1));
    let params = params(&device, &[("x", &[9, 5]), ("head", &[700, 5])], 1.0, 0);
    let mut workspace = Workspace::new(&device);
    let targets = Random::new(0).ids(9, 700);
    let mut logps = Vec::new();
    for asked in [false, true] {
        let mut tape = Tape::inference(&params, &mut workspace);
        let x = input(&mut tape, "x");
        let (logp, entropy) = tape.token_scores(x, id(&params, "head"), &targets, 1.0, None, asked);
        assert!(tape.read(entropy).iter().all(|&h| (h != 0.0) == asked));
        logps.push(tape.read(logp).to_vec());
    }
    for (a, b) in logps[0].iter().zip(&logps[1]) {
        assert!((a - b).abs() < 1e-6);
    }
}

#[test]
#[should_panic(expected = "not requested")]
fn a_gradient_of_an_entropy_that_was_not_requested_panics() {
    let device = Device::cpu(Some(1));
    let params = params(&device, &[("x", &[1, 5]), ("head", &[7, 5])], 1.0, 0);
    let mut workspace = Workspace::new(&device);
    let mut tape = Tape::training(&params, &mut workspace);
    let x = input(&mut tape, "x");
    let (_, entropy) = tape.token_scores(x, id(&params, "head"), &[0], 1.0, None, false);
    tape.backward(&[(entropy, &[1.0])], &mut Grads::zeros_like(&params));
}

#[test]
fn a_broken_hidden_state_shows() {
    for broken in [f32::NAN, f32::INFINITY] {
        let device = Device::cpu(Some(1));
        let mut params = params(&device, &[("x", &[2, 5]), ("head", &[700, 5])], 1.0, 0);
        let x = id(&params, "x");
        let mut values = params.read(x);
        values[0] = broken;
        params.write(x, &values);
        let mut workspace = Workspace::new(&device);
        for entropy in [false, true] {
            let mut tape = Tape::training(&params, &mut workspace);
            let x = input(&mut tape, "x");
            let (logp, entropies) =
                tape.token_scores(x, id(&params, "head"), &[0, 1], 1.0, None, entropy);
            assert!(!tape.read(logp)[0].is_finite() && tape.read(logp)[1].is_finite());
            if entropy {
                assert!(
                    !tape.read(entropies)[0].is_finite() && tape.read(entropies)[1].is_finite()
                );
            }
            let mut grads = Grads::zeros_like(&params);
            tape.backward(&[(logp, &[1.0, 1.0])], &mut grads);
            assert!(!grads.norm().is_finite());
        }
    }
}
