//! Values and gradients of the simple operations.

use crisol_engine::{Rope, RopeStyle};

use crate::harness::{Random, check, id, input};
use crate::reference;

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
            let gated = tape.swiglu(sum, sum);
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
            vec![reference::swiglu(&sum, &sum), a.clone(), a, x.clone()]
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
fn swiglu_over_small_and_large_gates() {
    for (n, d, deviation) in [(3, 5, 1.0), (9, 37, 1.0), (4, 16, 30.0)] {
        check(
            &[("gate", &[n, d]), ("up", &[n, d])],
            deviation,
            |tape| {
                let (gate, up) = (input(tape, "gate"), input(tape, "up"));
                vec![tape.swiglu(gate, up)]
            },
            |inputs| vec![reference::swiglu(&inputs[0], &inputs[1])],
        );
    }
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
                let first = tape.swiglu(x, x);
                let selected = tape.select_rows(x, &rows);
                let last = tape.add(x, x);
                vec![first, selected, last]
            },
            |inputs| {
                let x = &inputs[0];
                vec![reference::swiglu(x, x), reference::gather(x, &rows), reference::add(x, x)]
            },
        );
    }
}
