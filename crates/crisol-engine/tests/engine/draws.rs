//! Tokens drawn on a tape: together as one by one, on any number of threads.

use crisol_engine::{Device, Draw, Drawn, Sampling, Tape};

use crate::harness::{Random, params};

const ALL: Sampling =
    Sampling { temperature: 1.0, top_k: None, top_p: None, min_p: None, repetition_penalty: 1.0 };
const GREEDY: Sampling = Sampling { temperature: 0.0, ..ALL };

/// Draws from the logits `[rows, vocab]` in one call.
fn drawn(
    device: &Device,
    [rows, vocab]: [usize; 2],
    logits: &[f32],
    sampling: &Sampling,
    draws: &[Draw<'_>],
) -> Option<Vec<Drawn>> {
    let params = params(device, &[], 1.0, 0);
    device.run(|workspace| {
        let mut tape = Tape::inference(&params, workspace);
        let logits = tape.constant(rows, vocab, logits);
        tape.draw_tokens(logits, sampling, draws)
    })
}

#[test]
fn draws_are_the_same_together_and_one_by_one() {
    let devices = [1, 3].map(|threads| Device::cpu(Some(threads)));
    let settings = [
        ALL,
        GREEDY,
        Sampling { temperature: 0.7, repetition_penalty: 1.5, ..ALL },
        Sampling { top_k: Some(5), top_p: Some(0.9), ..ALL },
        Sampling { top_p: Some(0.8), min_p: Some(0.05), repetition_penalty: 1.2, ..ALL },
        Sampling { repetition_penalty: 2.0, ..GREEDY },
    ];
    let mut random = Random::new(1);
    // Buffers of a larger and of a smaller vocabulary are reused; the largest is drawn from in
    // several tasks.
    for (rows, vocab) in [(3, 50), (4, 12_000), (1, 7), (5, 333)] {
        let logits: Vec<f32> = (0..rows * vocab).map(|_| 4.0 * random.uniform()).collect();
        let seen: Vec<[Vec<u32>; 2]> =
            (0..11).map(|i| [random.ids(i, vocab), random.ids(3, vocab)]).collect();
        // Several draws of a row, in no order.
        let draws: Vec<Draw<'_>> = seen
            .iter()
            .map(|[prompt, answer]| Draw {
                row: random.between(0, rows - 1),
                uniform: f64::from(random.uniform()).abs().min(0.999),
                seen: [prompt, answer],
            })
            .collect();
        for sampling in &settings {
            let draw = |device, draws: &[Draw<'_>]| {
                drawn(device, [rows, vocab], &logits, sampling, draws).expect("finite logits")
            };
            let one_by_one: Vec<Drawn> =
                draws.iter().flat_map(|&one| draw(&devices[0], &[one])).collect();
            for device in &devices {
                assert_eq!(draw(device, &draws), one_by_one, "{sampling:?}");
                assert_eq!(draw(device, &[]), []);
            }
        }
    }
}

#[test]
fn greedy_draws_need_no_random_number() {
    let draw = |uniform| {
        let draws = [Draw { row: 0, uniform, seen: [&[]; 2] }];
        drawn(&Device::cpu(Some(1)), [1, 4], &[0.5, -1.0, 2.5, 2.0], &GREEDY, &draws)
    };
    let token = draw(f64::NAN).expect("finite logits");
    assert_eq!(token[0].id, 2);
    assert_eq!(draw(0.3), Some(token));
}

#[test]
fn only_rows_that_are_drawn_from_must_be_finite() {
    for threads in [1, 3] {
        let device = Device::cpu(Some(threads));
        // Enough logits for several tasks.
        let vocab = 20_000;
        let mut logits = vec![f32::NEG_INFINITY; 4 * vocab];
        let firsts = [[0.0, 1.0], [f32::NAN, 1.0], [f32::NEG_INFINITY, 0.0], [f32::INFINITY, 0.0]];
        for (logits, first) in logits.chunks_mut(vocab).zip(firsts) {
            logits[..2].copy_from_slice(&first);
        }
        let draw = |rows: &[usize]| {
            let draw = |&row| Draw { row, uniform: 0.9, seen: [&[]; 2] };
            let draws: Vec<Draw<'_>> = rows.iter().map(draw).collect();
            drawn(&device, [4, vocab], &logits, &ALL, &draws)
        };
        let ids = draw(&[2, 0, 2]).map(|drawn| drawn.iter().map(|drawn| drawn.id).collect());
        assert_eq!(ids, Some(vec![1, 1, 1]));
        for broken in [&[1][..], &[0, 0, 0, 3], &[1, 0, 2], &[0, 3, 0]] {
            assert_eq!(draw(broken), None, "{broken:?}");
        }
    }
}
