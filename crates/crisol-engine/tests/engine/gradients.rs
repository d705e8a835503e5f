//! Values and gradients of the simple operations.

use crisol_engine::{GatedActivation, Rope, RopeStyle};

use crate::harness::{Random, check, id, input};
use crate::reference::{self, Matrix};

#[test]
fn embedding_adds_up_repeated_rows() {
    for seed in 0..5 {
        let mut random = Random::new(seed);
        let (vocab, dim) = (random.between(1, 9), random.between(1, 40));
        let n = random.between(1, 30);
        let ids = random.ids(n, vocab);
        check(
            &[("table", &[vocab, dim])],
            1.0,
            |tape| vec![tape.embedding(id(tape.params(), "table"), &ids)],
            |inputs| vec![reference::gather(&inputs[0], &ids)],
        );
    }
}

#[test]
fn linear_with_and_without_bias() {
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let (n, i, o) = (random.between(1, 70), random.between(1, 70), random.between(1, 70));
        check(
            &[("x", &[n, i]), ("w", &[o, i]), ("b", &[o])],
            1.0,
            |tape| {
                let x = input(tape, "x");
                let bias = (seed % 2 == 0).then(|| id(tape.params(), "b"));
                vec![tape.linear(x, id(tape.params(), "w"), bias)]
            },
            |inputs| {
                vec![reference::linear(
                    &inputs[0],
                    &inputs[1],
                    (seed % 2 == 0).then_some(&inputs[2]),
                )]
            },
        );
    }
}

/// Gradients of values and weights that are used several times add up.
#[test]
fn shared_values_and_weights_accumulate() {
    let (n, d) = (13, 19);
    check(
        &[("x", &[n, d]), ("w", &[d, d]), ("norm", &[d])],
        0.5,
        |tape| {
            let (w, norm) = (id(tape.params(), "w"), id(tape.params(), "norm"));
            let x = input(tape, "x");
            let a = tape.linear(x, w, None);
            let b = tape.linear(a, w, None);
            let c = tape.rms_norm(x, norm, 1e-3);
            let d = tape.rms_norm(c, norm, 1e-3);
            let sum = tape.add(x, b);
            let sum = tape.add(sum, d);
            let sum = tape.add(sum, sum);
            let gated = tape.gated(sum, sum, GatedActivation::Silu);
            // Outputs include intermediate values, one of them twice.
            vec![gated, a, a, x]
        },
        |inputs| {
            let [x, w, norm] = inputs else { unreachable!() };
            let a = reference::linear(x, w, None);
            let b = reference::linear(&a, w, None);
            let d = reference::rms_norm(&reference::rms_norm(x, norm, 1e-3), norm, 1e-3);
            let sum = reference::add(&reference::add(x, &b), &d);
            let sum = reference::add(&sum, &sum);
            vec![reference::gated(GatedActivation::Silu, &sum, &sum), a.clone(), a, x.clone()]
        },
    );
}

#[test]
fn add_of_two_values() {
    check(
        &[("x", &[7, 33]), ("y", &[7, 33])],
        1.0,
        |tape| {
            let (x, y) = (input(tape, "x"), input(tape, "y"));
            vec![tape.add(x, y)]
        },
        |inputs| vec![reference::add(&inputs[0], &inputs[1])],
    );
}

#[test]
fn rms_norm_of_rows_and_of_heads() {
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let (n, heads, dim) = (random.between(1, 20), random.between(1, 4), random.between(1, 50));
        let eps = 10f32.powi(-(random.between(2, 6) as i32));
        check(
            &[("x", &[n, heads * dim]), ("w", &[dim])],
            0.7,
            |tape| {
                let x = input(tape, "x");
                vec![tape.rms_norm(x, id(tape.params(), "w"), eps)]
            },
            |inputs| vec![reference::rms_norm(&inputs[0], &inputs[1], f64::from(eps))],
        );
    }
}

#[test]
fn rope_in_both_styles_whole_and_partial() {
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let (n, heads, pairs) =
            (random.between(1, 20), random.between(1, 4), random.between(1, 20));
        let head_dim = 2 * pairs + if seed % 2 == 0 { 0 } else { random.between(1, 5) };
        let style = if seed % 4 < 2 { RopeStyle::Halves } else { RopeStyle::Interleaved };
        let frequencies: Vec<f32> =
            (0..pairs).map(|i| 100f32.powf(-(i as f32) / pairs as f32)).collect();
        let positions = random.ids(n, 50);
        check(
            &[("x", &[n, heads * head_dim])],
            1.0,
            |tape| {
                let rope = Rope::new(&frequencies, 1.25, style);
                let x = input(tape, "x");
                vec![tape.rope(x, &rope, head_dim, &positions)]
            },
            |inputs| {
                vec![reference::rope(&inputs[0], &frequencies, 1.25, style, head_dim, &positions)]
            },
        );
    }
}

#[test]
fn gated_activations_over_small_and_large_gates() {
    // A limit that gates and values of deviation 1 pass.
    let limit = 0.9;
    for activation in [
        GatedActivation::Silu,
        GatedActivation::Gelu,
        GatedActivation::ClampedSilu { limit },
        GatedActivation::ClampedSilu { limit: 7.0 },
    ] {
        for (n, d, deviation) in [(3, 5, 1.0), (9, 37, 1.0), (4, 16, 30.0)] {
            check(
                &[("gate", &[n, d]), ("up", &[n, d])],
                deviation,
                |tape| {
                    let (gate, up) = (input(tape, "gate"), input(tape, "up"));
                    vec![tape.gated(gate, up, activation)]
                },
                |inputs| vec![reference::gated(activation, &inputs[0], &inputs[1])],
            );
        }
    }
}

#[test]
fn gelu_over_small_and_large_values() {
    for (n, d, deviation) in [(3, 5, 1.0), (9, 37, 1.0), (4, 16, 30.0)] {
        check(
            &[("x", &[n, d])],
            deviation,
            |tape| {
                let x = input(tape, "x");
                vec![tape.gelu(x)]
            },
            |inputs| vec![reference::gelu(&inputs[0])],
        );
    }
}

/// Of rows and of heads, with factors that are one more than the weight.
#[test]
fn rms_norm_plus_one() {
    for (n, heads, dim) in [(3, 2, 5), (7, 1, 33), (1, 4, 16)] {
        check(
            &[("x", &[n, heads * dim]), ("w", &[dim])],
            0.7,
            |tape| {
                let x = input(tape, "x");
                vec![tape.rms_norm_plus_one(x, id(tape.params(), "w"), 1e-3)]
            },
            |inputs| {
                let factors = inputs[1].map(|w| 1.0 + w);
                vec![reference::rms_norm(&inputs[0], &factors, f64::from(1e-3f32))]
            },
        );
    }
}

#[test]
fn layer_norm_with_and_without_bias() {
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let (n, dim) = (random.between(1, 20), random.between(2, 50));
        let biased = seed % 2 == 0;
        check(
            &[("x", &[n, dim]), ("w", &[dim]), ("b", &[dim])],
            0.7,
            |tape| {
                let x = input(tape, "x");
                let bias = biased.then(|| id(tape.params(), "b"));
                let y = tape.layer_norm(x, id(tape.params(), "w"), bias, 1e-2);
                // The gradients of two uses add up.
                vec![y, tape.add(x, x)]
            },
            |inputs| {
                let [x, w, b] = inputs else { unreachable!() };
                let eps = f64::from(1e-2f32);
                let y = reference::layer_norm(x, w, biased.then_some(b), eps);
                vec![y, reference::add(x, x)]
            },
        );
    }
}

#[test]
fn scale_and_softcap() {
    check(
        &[("x", &[5, 37])],
        3.0,
        |tape| {
            let x = input(tape, "x");
            let scaled = tape.scale(x, -1.75);
            vec![scaled, tape.softcap(x, 2.5), tape.softcap(scaled, 30.0)]
        },
        |inputs| {
            let scaled = inputs[0].map(|x| -1.75 * x);
            let capped = |x: &Matrix, cap| x.map(|x| reference::softcap(x, cap));
            let all = [capped(&inputs[0], 2.5), capped(&scaled, 30.0)];
            [vec![scaled], all.to_vec()].concat()
        },
    );
}

#[test]
fn select_rows_leaves_the_rest_without_gradient() {
    for rows in [vec![4, 0, 9], vec![], (0..10).rev().collect()] {
        check(
            &[("x", &[10, 7])],
            1.0,
            |tape| {
                let x = input(tape, "x");
                vec![tape.select_rows(x, &rows)]
            },
            |inputs| vec![reference::gather(&inputs[0], &rows)],
        );
        // With other uses of `x` before and after it on the tape.
        check(
            &[("x", &[10, 7])],
            1.0,
            |tape| {
                let x = input(tape, "x");
                let first = tape.gated(x, x, GatedActivation::Silu);
                let selected = tape.select_rows(x, &rows);
                let last = tape.add(x, x);
                vec![first, selected, last]
            },
            |inputs| {
                let x = &inputs[0];
                vec![
                    reference::gated(GatedActivation::Silu, x, x),
                    reference::gather(x, &rows),
                    reference::add(x, x),
                ]
            },
        );
    }
}
