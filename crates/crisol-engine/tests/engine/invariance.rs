//! What must not change a result: caching, packing, threads, the history of a workspace.

use std::convert::Infallible;

use crisol_engine::{
    Device, Grads, MomentFormat, Optimizer, OptimizerConfig, Params, Precision, Replicas, Tape,
    UpdateRule, Workspace,
};

use crate::harness::{Random, id, offsets};
use crate::reference::log_softmax;
use crate::transformer::{Cached, VOCAB, forward, new_cache, new_params};

/// Log-probabilities of `targets` by the training path.
fn training_logps(
    params: &Params,
    workspace: &mut Workspace,
    ids: &[u32],
    offsets: &[u32],
    targets: &[u32],
) -> Vec<f32> {
    let mut tape = Tape::training(params, workspace);
    let x = forward(&mut tape, ids, offsets, None);
    let (logp, _) = tape.token_scores(x, id(params, "embedding"), targets, 1.0, None, false);
    tape.read(logp).to_vec()
}

fn close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{i}: {a} and {b}");
    }
}

#[test]
fn training_prefill_and_decode_give_the_same_log_probs() {
    let device = Device::cpu(Some(1));
    let params = new_params(&device);
    let mut workspace = Workspace::new(&device);
    let lengths = [41, 7, 90];
    let starts = offsets(&lengths);
    let mut random = Random::new(3);
    let ids = random.ids(138, VOCAB);
    let targets = random.ids(138, VOCAB);
    let trained = training_logps(&params, &mut workspace, &ids, &starts, &targets);

    let log_prob = |logits: &[f32], target: u32| {
        let logits: Vec<f64> = logits.iter().map(|&z| z.into()).collect();
        log_softmax(&logits)[target as usize] as f32
    };
    let slots = [1, 2, 0];
    let mut run = |cache: &mut crisol_engine::KvCache,
                   slots: &[usize],
                   rows: &[usize],
                   offsets: &[u32]|
     -> Vec<f32> {
        let ids: Vec<u32> = rows.iter().map(|&row| ids[row]).collect();
        let mut tape = Tape::inference(&params, &mut workspace);
        let x = forward(&mut tape, &ids, offsets, Some(Cached { cache, slots }));
        let logits = tape.logits(x, id(&params, "embedding"));
        let logits = tape.read(logits);
        rows.iter()
            .zip(logits.chunks(VOCAB))
            .map(|(&row, logits)| log_prob(logits, targets[row]))
            .collect()
    };

    let all: Vec<usize> = (0..138).collect();
    let mut cache = new_cache(&device, 3, 90);
    let prefilled = run(&mut cache, &slots, &all, &starts);
    close(&prefilled, &trained, 1e-5);

    let mut cache = new_cache(&device, 3, 90);
    for step in 0..90 {
        let alive: Vec<usize> = (0..3).filter(|&i| step < lengths[i]).collect();
        let rows: Vec<usize> = alive.iter().map(|&i| starts[i] as usize + step).collect();
        let alive_slots: Vec<usize> = alive.iter().map(|&i| slots[i]).collect();
        let decoded = run(&mut cache, &alive_slots, &rows, &offsets(&vec![1; rows.len()]));
        let expected: Vec<f32> = rows.iter().map(|&row| trained[row]).collect();
        close(&decoded, &expected, 1e-5);
    }

    // A copied prompt continues like the original.
    let mut cache = new_cache(&device, 2, 90);
    run(&mut cache, &[0], &all[48..98], &[0, 50]);
    cache.copy_slot(0, 1);
    let rest = run(&mut cache, &[1], &all[98..138], &[0, 40]);
    close(&rest, &trained[98..138], 1e-5);
}

#[test]
fn packed_documents_equal_documents_one_by_one() {
    let device = Device::cpu(Some(1));
    let params = new_params(&device);
    let mut workspace = Workspace::new(&device);
    let lengths = [12, 1, 60, 33];
    let starts = offsets(&lengths);
    let mut random = Random::new(5);
    let (ids, targets) = (random.ids(106, VOCAB), random.ids(106, VOCAB));
    let seeds: Vec<f32> = (0..106).map(|_| random.uniform()).collect();
    let mut grads = [Grads::zeros_like(&params), Grads::zeros_like(&params)];
    let mut logps = [Vec::new(), Vec::new()];
    let cuts = [[0, 4].as_slice(), &[0, 1, 2, 3, 4]];
    for (cut, (grads, logps)) in cuts.iter().zip(grads.iter_mut().zip(&mut logps)) {
        for documents in cut.windows(2).map(|cut| cut[0]..cut[1]) {
            let rows = starts[documents.start] as usize..starts[documents.end] as usize;
            let mut tape = Tape::training(&params, &mut workspace);
            let x =
                forward(&mut tape, &ids[rows.clone()], &offsets(&lengths[documents.clone()]), None);
            let (logp, _) = tape.token_scores(
                x,
                id(&params, "embedding"),
                &targets[rows.clone()],
                1.0,
                None,
                false,
            );
            logps.extend_from_slice(&tape.read(logp));
            tape.backward(&[(logp, &seeds[rows])], grads);
        }
    }
    close(&logps[0], &logps[1], 1e-5);
    for id in params.ids() {
        close(&grads[0].read(id), &grads[1].read(id), 1e-4);
    }
}

/// Bits of parameters, losses and norms after a few steps of many shards.
fn train(threads: usize, precision: Precision) -> (Vec<u32>, Vec<u64>) {
    let device = Device::cpu(Some(threads)).with_precision(precision);
    let mut params = new_params(&device);
    let mut replicas = Replicas::new(&params);
    let mut optimizer = Optimizer::new(&params, MomentFormat::F32);
    let config = OptimizerConfig {
        rule: UpdateRule::AdamW,
        lr: 1e-2,
        table_factor: 1.0,
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-8,
        weight_decay: 0.1,
        max_grad_norm: Some(1.0),
    };
    let mut scalars = Vec::new();
    for step in 0..3 {
        let shards = 5 + 9 * step;
        let (grads, losses) = replicas
            .run(shards, |shard, workspace, grads| {
                let mut random = Random::new((100 * step + shard) as u64);
                let lengths = [random.between(1, 50), random.between(1, 9)];
                let starts = offsets(&lengths);
                let n = lengths.iter().sum();
                let (ids, targets) = (random.ids(n, VOCAB), random.ids(n, VOCAB));
                let mut tape = Tape::training(&params, workspace);
                let x = forward(&mut tape, &ids, &starts, None);
                let (logp, _) =
                    tape.token_scores(x, id(&params, "embedding"), &targets, 1.0, None, false);
                let loss: f32 = tape.read(logp).iter().sum();
                tape.backward(&[(logp, &vec![-1e-2; n])], grads);
                Ok::<_, Infallible>(loss)
            })
            .unwrap_or_else(|error| match error {});
        scalars.extend(losses.iter().map(|loss| u64::from(loss.to_bits())));
        scalars.push(optimizer.step(&mut params, grads, &config).to_bits());
    }
    let params = params.ids().flat_map(|id| params.read(id)).map(f32::to_bits).collect();
    (params, scalars)
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let [f32, bf16] = [Precision::F32, Precision::Bf16].map(|precision| {
        let one = train(1, precision);
        for threads in [2, 3, 8] {
            assert!(train(threads, precision) == one, "{threads} threads in {precision:?}");
        }
        one
    });
    assert!(f32 != bf16, "nothing was rounded");
}

/// More shards than replicas: the sum equals a loop over all shards.
#[test]
fn replicas_equal_a_plain_loop_over_shards() {
    let device = Device::cpu(Some(2));
    let params = new_params(&device);
    let shard =
        |i: usize, workspace: &mut Workspace, grads: &mut Grads| -> Result<(), Infallible> {
            let mut random = Random::new(i as u64);
            let (ids, targets) = (random.ids(20, VOCAB), random.ids(20, VOCAB));
            let mut tape = Tape::training(&params, workspace);
            let x = forward(&mut tape, &ids, &[0, 20], None);
            let (logp, _) =
                tape.token_scores(x, id(&params, "embedding"), &targets, 1.0, None, false);
            tape.backward(&[(logp, &[1.0; 20])], grads);
            Ok(())
        };
    let mut replicas = Replicas::new(&params);
    let (summed, _) = replicas.run(19, shard).unwrap_or_else(|error| match error {});
    let mut plain = Grads::zeros_like(&params);
    let mut workspace = Workspace::new(&device);
    for i in 0..19 {
        shard(i, &mut workspace, &mut plain).unwrap_or_else(|error| match error {});
    }
    for id in params.ids() {
        close(&summed.read(id), &plain.read(id), 1e-4);
    }
}

#[test]
fn inference_equals_training_bit_by_bit() {
    let device = Device::cpu(Some(1));
    let params = new_params(&device);
    let mut workspace = Workspace::new(&device);
    let mut random = Random::new(8);
    let (ids, targets) = (random.ids(30, VOCAB), random.ids(30, VOCAB));
    let trained = training_logps(&params, &mut workspace, &ids, &[0, 30], &targets);
    let mut tape = Tape::inference(&params, &mut workspace);
    let x = forward(&mut tape, &ids, &[0, 30], None);
    let (logp, _) = tape.token_scores(x, id(&params, "embedding"), &targets, 1.0, None, false);
    assert_eq!(*tape.read(logp), trained);
}

#[test]
#[should_panic(expected = "cannot go backward")]
fn backward_on_an_inference_tape_panics() {
    let device = Device::cpu(Some(1));
    let params = new_params(&device);
    let mut workspace = Workspace::new(&device);
    let mut tape = Tape::inference(&params, &mut workspace);
    let x = tape.embedding(id(&params, "embedding"), &[0]);
    tape.backward(&[(x, &[1.0; 20])], &mut Grads::zeros_like(&params));
}

#[test]
#[should_panic(expected = "no backward")]
fn cached_attention_on_a_training_tape_panics() {
    let device = Device::cpu(Some(1));
    let params = new_params(&device);
    let mut workspace = Workspace::new(&device);
    let mut cache = new_cache(&device, 1, 16);
    let mut tape = Tape::training(&params, &mut workspace);
    forward(&mut tape, &[0], &[0, 1], Some(Cached { cache: &mut cache, slots: &[0] }));
}

#[test]
#[should_panic(expected = "freed by `keep_only`")]
fn reading_a_value_that_was_given_back_panics() {
    let device = Device::cpu(Some(1));
    let params = new_params(&device);
    let mut workspace = Workspace::new(&device);
    let mut tape = Tape::inference(&params, &mut workspace);
    let x = tape.embedding(id(&params, "embedding"), &[0]);
    let y = tape.embedding(id(&params, "embedding"), &[1]);
    tape.keep_only(y);
    tape.read(x);
}
