//! Values and gradients of the operations of mixtures of experts and multi-head latent attention.

use crisol_engine::{Choice, Device, Experts, HeadSlice, Router, Scoring, Tape, Workspace};

use crate::harness::{Random, check, id, input, params};
use crate::reference;

#[test]
fn unit_norm_of_heads() {
    for (n, heads, dim) in [(3, 2, 5), (7, 1, 33), (1, 4, 16)] {
        check(
            &[("x", &[n, heads * dim])],
            0.7,
            |tape| {
                let x = input(tape, "x");
                vec![tape.unit_norm(x, dim, 1e-3)]
            },
            |inputs| {
                let ones = reference::Matrix::from_fn(1, dim, |_, _| 1.0);
                vec![reference::rms_norm(&inputs[0], &ones, 1e-3)]
            },
        );
    }
}

#[test]
fn columns_of_heads_own_and_shared() {
    for seed in 0..6 {
        let mut random = Random::new(seed);
        let (n, heads) = (random.between(1, 9), random.between(1, 4));
        let [a, b] = [(); 2].map(|()| {
            let head_dim = random.between(1, 20);
            let first = random.between(0, head_dim - 1);
            (head_dim, first, random.between(1, head_dim - first))
        });
        let b_heads = if seed % 2 == 0 { 1 } else { heads };
        check(
            &[("a", &[n, heads * a.0]), ("b", &[n, b_heads * b.0])],
            1.0,
            |tape| {
                let part = |x, heads, (head_dim, first, width)| HeadSlice {
                    x,
                    heads,
                    head_dim,
                    first,
                    width,
                };
                let (x, y) = (input(tape, "a"), input(tape, "b"));
                let (x, y) = (part(x, heads, a), part(y, b_heads, b));
                // The gradients of both uses add up.
                vec![
                    tape.concat_heads(heads, [Some(x), Some(y)]),
                    tape.concat_heads(heads, [Some(x), None]),
                ]
            },
            |inputs| {
                let (x, y) = ((&inputs[0], heads, a.1, a.2), (&inputs[1], b_heads, b.1, b.2));
                vec![reference::concat_heads(heads, &[x, y]), reference::concat_heads(heads, &[x])]
            },
        );
    }
}

/// An expert is chosen if fewer than `k` of the eligible ones precede it, a group if fewer than
/// `kept_groups` groups do.
#[test]
fn experts_with_the_largest_scores_are_chosen() {
    let precedes = |scores: &[f32], a: usize, b: usize| {
        scores[a] > scores[b] || scores[a] == scores[b] && a < b
    };
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let (n, groups, group) = (5, random.between(1, 4), random.between(2, 4));
        let (experts, kept_groups) = (groups * group, random.between(1, groups));
        let k = random.between(1, kept_groups * group);
        let device = Device::cpu(Some(1));
        let params = params(&device, &[("z", &[n, experts]), ("c", &[experts])], 1.0, seed);
        let corrected = seed % 2 == 0;
        let correction = corrected.then(|| id(&params, "c"));
        let mut workspace = Workspace::new(&device);
        let mut tape = Tape::inference(&params, &mut workspace);
        // Few different numbers, so that there are ties.
        let rounded: Vec<f32> =
            params.read(id(&params, "z")).iter().map(|z| (2.0 * z).round()).collect();
        let logits = tape.constant(n, experts, &rounded);
        let choice = Choice { k, correction, groups, kept_groups };
        let chosen = tape.choose_experts(logits, &choice);
        let corrections = params.read(id(&params, "c"));
        let mut expected = Vec::new();
        for logits in rounded.chunks(experts) {
            let score = |(z, c): (&f32, &f32)| {
                if corrected { 1.0 / (1.0 + (-z).exp()) + c } else { *z }
            };
            let scores: Vec<f32> = logits.iter().zip(&corrections).map(score).collect();
            let of_groups: Vec<f32> = scores
                .chunks(group)
                .map(|scores| {
                    let mut two = scores.to_vec();
                    two.sort_by(|a, b| b.total_cmp(a));
                    two[0] + two[1]
                })
                .collect();
            let kept = |e: usize| {
                let own = e / group;
                (0..groups).filter(|&other| precedes(&of_groups, other, own)).count() < kept_groups
            };
            let before = |e: usize| {
                (0..experts).filter(|&other| kept(other) && precedes(&scores, other, e)).count()
            };
            expected.extend((0..experts).filter(|&e| kept(e) && before(e) < k).map(|e| e as u32));
        }
        assert_eq!(chosen, expected, "seed {seed}: {choice:?}");
    }
}

#[test]
fn weights_of_chosen_experts() {
    for seed in 0..6 {
        let mut random = Random::new(seed);
        let (n, experts) = (random.between(1, 9), random.between(2, 9));
        let k = random.between(1, experts);
        let chosen: Vec<u32> = (0..n)
            .flat_map(|_| {
                let first = random.between(0, experts - 1);
                (0..k).map(move |i| ((first + i) % experts) as u32)
            })
            .collect();
        let (normalise, scale) = (seed % 2 == 0, 2.5);
        for scoring in [Scoring::Sigmoid, Scoring::Softmax] {
            let router = Router { scoring, normalise, scale };
            check(
                &[("logits", &[n, experts])],
                1.5,
                |tape| {
                    let logits = input(tape, "logits");
                    vec![tape.expert_weights(logits, router, &chosen)]
                },
                |inputs| {
                    let scale = f64::from(scale);
                    vec![reference::route(&inputs[0], scoring, normalise, scale, &chosen)]
                },
            );
        }
    }
}

/// Experts with no, one and many rows, below and above the rows that are packed for.
#[test]
fn rows_of_experts() {
    for (counts, i, o) in [(vec![3, 0, 1, 5], 7, 11), (vec![0, 150, 2], 20, 9), (vec![0, 0], 3, 4)]
    {
        let n: usize = counts.iter().sum();
        let mut bounds = vec![0u32];
        for count in &counts {
            bounds.push(bounds[bounds.len() - 1] + *count as u32);
        }
        let count = counts.len();
        let names = |part: &str| -> Vec<String> {
            (0..count).map(|expert| format!("{part}{expert}")).collect()
        };
        let (weights, biases) = (names("w"), names("b"));
        let (weight, bias, input_shape) = ([o, i], [o], [n.max(1), i]);
        let mut specs: Vec<(&str, &[usize])> = vec![("x", &input_shape)];
        specs.extend(weights.iter().map(|name| (name.as_str(), &weight[..])));
        specs.extend(biases.iter().map(|name| (name.as_str(), &bias[..])));
        for biased in [false, true] {
            check(
                &specs,
                1.0,
                |tape| {
                    let x = input(tape, "x");
                    let x = tape.select_rows(x, &(0..n as u32).collect::<Vec<_>>());
                    let experts = |name| Experts { first: id(tape.params(), name), count };
                    let (experts, biases) = (experts("w0"), biased.then(|| experts("b0")));
                    vec![tape.grouped_linear(x, experts, biases, &bounds)]
                },
                |inputs| {
                    let (weights, biases) = inputs[1..].split_at(count);
                    let biases = if biased { biases } else { &[] };
                    vec![reference::grouped_linear(&inputs[0], weights, biases, &bounds)]
                },
            );
        }
    }
}

/// A row is sent to several experts, scaled, and summed.
#[test]
fn rows_scaled_and_summed() {
    for seed in 0..6 {
        let mut random = Random::new(seed);
        let (n, k, dim) = (random.between(1, 8), random.between(1, 4), random.between(1, 40));
        let rows: Vec<u32> = random.ids(n * k, n);
        let entries = random.ids(n * k, n * k);
        let order: Vec<u32> = (0..(n * k) as u32).rev().collect();
        check(
            &[("x", &[n, dim]), ("weights", &[n, k])],
            1.0,
            |tape| {
                let (x, weights) = (input(tape, "x"), input(tape, "weights"));
                let sent = tape.select_rows(x, &rows);
                let scaled = tape.scale_rows(sent, weights, &entries);
                vec![tape.sum_rows(scaled, &order, k)]
            },
            |inputs| {
                let sent = reference::gather(&inputs[0], &rows);
                let scaled = reference::scale_rows(&sent, &inputs[1], &entries);
                vec![reference::sum_rows(&scaled, &order, k)]
            },
        );
    }
}

#[test]
fn per_head_matmul_in_both_orientations() {
    let (n, heads, group, inner) = (3, 4, 7, 5);
    let rows = 2..5;
    for transposed in [false, true] {
        let from = if transposed { inner } else { rows.len() };
        let device = Device::cpu(Some(1));
        let specs: [(&str, &[usize]); 2] =
            [("x", &[n, heads * from]), ("w", &[heads * group, inner])];
        let params = params(&device, &specs, 1.0, 3);
        let [x, w] = specs.map(|(name, shape)| {
            reference::Matrix::from_f32(shape[0], shape[1], &params.read(id(&params, name)))
        });
        let expected = reference::per_head_matmul(&x, &w, group, rows.clone(), transposed);
        let mut workspace = Workspace::new(&device);
        let mut tape = Tape::inference(&params, &mut workspace);
        let input = input(&mut tape, "x");
        let y = tape.per_head_matmul(input, id(&params, "w"), group, rows.clone(), transposed);
        assert_eq!(tape.shape(y), (expected.rows, expected.cols));
        for (i, (y, expected)) in tape.read(y).iter().zip(&expected.data).enumerate() {
            assert!((f64::from(*y) - expected).abs() < 1e-5, "{transposed} {i}: {y} {expected}");
        }
    }
}
