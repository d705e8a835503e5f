//! Invariants of training through the public interface: splitting, packing, threads and
//! interruption do not change the result; a rollout's first update has importance ratios of 1.

use crisol_engine::{Device, MomentFormat, OptimizerConfig, Params, Precision, UpdateRule};
use crisol_model::{Architecture, Config, Model, SamplingOptions, generate};
use crisol_objectives::policy::{Normalisation, Options, RatioLevel};
use crisol_objectives::{BatchSize, Stats, next_token, policy};
use crisol_text::{Example, Packed, pack};
use crisol_train::{
    Output, TrainError, Trainer, TrainerOptions, evaluate, load_trainer, random_stream,
    save_trainer,
};
use rand::RngExt;

const VOCAB: usize = 61;
const LOGPROBS: Output = Output::TokenScores { logit_scale: 1.0, entropy: false };

fn config(architecture: Architecture) -> Config {
    let mut config = Config::new(architecture, VOCAB, 24, 2, 4, 40);
    config.num_key_value_heads = 2;
    config.max_position_embeddings = 64;
    config
}

/// Everything that saves memory.
const FRUGAL: TrainerOptions =
    TrainerOptions { recompute_blocks: true, moments: MomentFormat::Bf16 };

fn trainer(architecture: Architecture, threads: usize) -> Trainer {
    trainer_with(architecture, threads, TrainerOptions::default())
}

fn trainer_with(architecture: Architecture, threads: usize, options: TrainerOptions) -> Trainer {
    let (model, params) =
        Model::init(config(architecture), &Device::cpu(Some(threads)), 7).unwrap();
    Trainer::new(model, params, options)
}

/// Documents of different lengths, some with untrained prompts.
fn documents() -> Vec<Example> {
    let mut rng = random_stream(3, "documents", 0);
    (0..8)
        .map(|i| {
            let length = rng.random_range(2..30);
            let prompt = if i % 2 == 0 { 0 } else { length / 3 };
            Example {
                ids: (0..length).map(|_| rng.random_range(0..VOCAB as u32)).collect(),
                trained: (0..length).map(|t| t >= prompt).collect(),
            }
        })
        .collect()
}

fn shards(documents: &[Example], budget: usize) -> Vec<Packed> {
    let lengths: Vec<usize> = documents.iter().map(|d| d.ids.len()).collect();
    let cut = pack(&lengths, budget);
    cut.into_iter()
        .map(|shard| {
            let mut packed = Packed::new();
            for i in shard {
                packed.push(&documents[i]);
            }
            packed
        })
        .collect()
}

fn adamw(lr: f32) -> OptimizerConfig {
    OptimizerConfig {
        rule: UpdateRule::AdamW,
        lr,
        table_factor: 1.0,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        max_grad_norm: Some(1.0),
    }
}

/// Some steps of next-token training; returns the losses.
fn train(trainer: &mut Trainer, budget: usize, steps: usize) -> Vec<f64> {
    let shards = shards(&documents(), budget);
    let size: BatchSize = shards.iter().map(|s| BatchSize::of(&s.row_offsets)).sum();
    let step = |_| {
        trainer
            .step(&shards, LOGPROBS, &adamw(1e-2), |_, scores| next_token::loss(scores, size))
            .unwrap()
            .loss
    };
    (0..steps).map(step).collect()
}

fn weights(params: &Params) -> Vec<f32> {
    params.ids().flat_map(|id| params.read(id)).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    assert!(!a.is_empty(), "nothing to compare");
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn one_batch_of_eight_is_eight_accumulated_batches_of_one() {
    for architecture in [Architecture::Llama, Architecture::Olmo2] {
        let losses = |budget: usize| train(&mut trainer(architecture, 2), budget, 4);
        // All documents in one shard; one per shard; two or three per shard.
        let (packed, single, few) = (losses(1000), losses(1), losses(40));
        assert!(packed[0] > packed[3], "training must lower the loss: {packed:?}");
        for other in [single, few] {
            assert_eq!(other.len(), packed.len());
            for (a, b) in packed.iter().zip(&other) {
                assert!((a - b).abs() < 2e-5 * a, "{packed:?} and {other:?}");
            }
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for options in [TrainerOptions::default(), FRUGAL] {
        let run = |threads| {
            let mut trainer = trainer_with(Architecture::Llama, threads, options);
            let losses = train(&mut trainer, 20, 3);
            (losses, weights(&trainer.params))
        };
        let one = run(1);
        for threads in [2, 3, 4, 8] {
            assert_eq!(run(threads), one, "{threads} threads, {options:?}");
        }
    }
}

#[test]
fn recomputed_blocks_give_the_same_bits() {
    let run = |options| {
        let mut trainer = trainer_with(Architecture::Qwen3, 2, options);
        (train(&mut trainer, 20, 3), weights(&trainer.params))
    };
    let recomputed = TrainerOptions { recompute_blocks: true, ..TrainerOptions::default() };
    assert_eq!(run(recomputed), run(TrainerOptions::default()));
}

/// Rounding of moments is noise, not a change of what is learnt.
#[test]
fn moments_in_bf16_learn_as_well() {
    let last = |moments| {
        let options = TrainerOptions { moments, ..TrainerOptions::default() };
        let mut trainer = trainer_with(Architecture::Llama, 2, options);
        let losses = train(&mut trainer, 20, 30);
        assert!(losses[29] < 0.6 * losses[0], "{losses:?}");
        losses[29]
    };
    let (whole, rounded) = (last(MomentFormat::F32), last(MomentFormat::Bf16));
    assert!((rounded / whole - 1.0).abs() < 0.05, "{rounded} and {whole}");
    assert!(rounded.to_bits() != whole.to_bits(), "nothing was rounded");
}

#[test]
fn a_saved_and_restored_trainer_goes_on_with_the_same_bits() {
    let mut sizes = Vec::new();
    for (precision, options) in
        [(Precision::F32, TrainerOptions::default()), (Precision::Bf16, FRUGAL)]
    {
        let folder = tempfile::tempdir().unwrap();
        let new = |threads, seed| {
            let device = Device::cpu(Some(threads)).with_precision(precision);
            let (model, params) = Model::init(config(Architecture::Llama), &device, seed).unwrap();
            Trainer::new(model, params, options)
        };
        let mut straight = new(2, 7);
        train(&mut straight, 20, 2);
        save_trainer(folder.path(), "model", &straight).unwrap();
        train(&mut straight, 20, 2);

        let mut resumed = new(1, 99);
        load_trainer(folder.path(), "model", &mut resumed).unwrap();
        assert_eq!(resumed.optimizer.steps(), 2);
        train(&mut resumed, 20, 2);
        assert_eq!(weights(&straight.params), weights(&resumed.params), "{precision:?}");
        let moments = folder.path().join("model.optimizer.safetensors");
        sizes.push(moments.metadata().unwrap().len());
    }
    assert!(sizes[1] < sizes[0] * 6 / 10, "bytes of moments in f32 and in bf16: {sizes:?}");
}

/// A stop at any shard of a step: later shards are not computed, and the step changes nothing.
#[test]
fn a_stopped_step_is_given_up_and_changes_nothing() {
    let shards = shards(&documents(), 1);
    let size: BatchSize = shards.iter().map(|s| BatchSize::of(&s.row_offsets)).sum();
    assert!(shards.len() > 4);
    for at in 0..shards.len() {
        let mut stopped = trainer(Architecture::Llama, 1);
        let device = stopped.params.device().clone();
        let computed = std::sync::atomic::AtomicUsize::new(0);
        let result = stopped.step(&shards, LOGPROBS, &adamw(1e-2), |_, scores| {
            if computed.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == at {
                device.interrupt().request();
            }
            next_token::loss(scores, size)
        });
        assert!(result.is_err_and(|error| error.is_stop()), "at {at}");
        assert_eq!(computed.into_inner(), at + 1, "shards after the stop");
        let fresh = trainer(Architecture::Llama, 1);
        assert_eq!(
            (weights(&stopped.params), stopped.optimizer.steps()),
            (weights(&fresh.params), 0)
        );
        // The device computes nothing else either.
        let (model, params) = (&stopped.model, &stopped.params);
        assert!(
            evaluate(model, params, &shards, LOGPROBS, |_, _| ())
                .is_err_and(|error| error.is_stop())
        );
        assert!(generate(model, params, &[vec![1]], &SamplingOptions::greedy(1, vec![])).is_err());
    }
}

#[test]
fn an_impossible_number_of_steps_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = trainer(Architecture::Llama, 1);
    for (steps, possible) in [(1 << 47, true), (u64::MAX, false)] {
        trainer.optimizer.set_steps(steps);
        save_trainer(folder.path(), "model", &trainer).unwrap();
        let loaded = load_trainer(folder.path(), "model", &mut trainer);
        match loaded {
            Ok(()) => assert!(possible && trainer.optimizer.steps() == steps),
            Err(error) => {
                assert!(!possible && error.to_string().contains("model.optimizer.safetensors"));
            }
        }
    }
}

#[test]
fn a_rollout_starts_with_importance_ratios_of_one() {
    let mut policy = trainer(Architecture::Llama, 2);
    train(&mut policy, 1000, 10);
    let prompts: Vec<Vec<u32>> = (0..6).map(|i| documents()[i].ids.clone()).collect();
    let temperature = 0.7;
    let options = SamplingOptions { temperature, seed: 5, ..SamplingOptions::greedy(20, vec![]) };
    let sampled = generate(&policy.model, &policy.params, &prompts, &options).unwrap();

    let mut packed = Packed::new();
    for (prompt, generated) in prompts.iter().zip(&sampled) {
        let mut ids = prompt.clone();
        ids.extend(&generated.ids);
        let trained = (0..ids.len()).map(|t| t >= prompt.len()).collect();
        packed.push(&Example { ids, trained });
    }
    let old: Vec<f32> = sampled.iter().flat_map(|g| g.logprobs.clone()).collect();
    let output = Output::TokenScores { logit_scale: 1.0 / temperature, entropy: true };
    let shards = [packed];
    let again = evaluate(&policy.model, &policy.params, &shards, output, |_, s| s.logp.to_vec())
        .unwrap()
        .remove(0);
    assert!(largest_difference(&old, &again) < 1e-4, "sampling and scoring must agree");

    let options = Options {
        clip_low: 0.2,
        clip_high: 0.2,
        ratio_level: RatioLevel::Token,
        normalisation: Normalisation::Token,
        max_length: 20,
        kl: None,
        entropy_bonus: 0.0,
    };
    let advantages: Vec<f32> =
        (0..old.len()).map(|i| if i % 3 == 0 { 1.0 } else { -0.5 }).collect();
    let size = BatchSize::of(&shards[0].row_offsets);
    let step = policy
        .step(&shards, output, &adamw(1e-3), |_, s| {
            policy::loss(s, &old, &[], &advantages, &options, size)
        })
        .unwrap();
    let means = step.stats.means();
    for (name, expected, tolerance) in [
        ("ratio", 1.0, 1e-4),
        ("clip_fraction_low", 0.0, 0.0),
        ("clip_fraction_high", 0.0, 0.0),
        ("kl_old", 0.0, 1e-6),
    ] {
        let (_, value) = means
            .iter()
            .find(|(mean, _)| *mean == name)
            .unwrap_or_else(|| panic!("no `{name}` among {means:?}"));
        assert!((value - expected).abs() <= tolerance, "{name}: {value}");
    }
}

#[test]
fn a_diverging_step_is_an_error_and_changes_nothing() {
    let mut trainer = trainer(Architecture::Llama, 2);
    train(&mut trainer, 1000, 1);
    let id = trainer.params.id("model.norm.weight").unwrap();
    let poison = vec![f32::NAN; trainer.params.spec(id).shape[0]];
    trainer.params.write(id, &poison);
    let before = weights(&trainer.params);
    let shards = shards(&documents(), 30);
    let size: BatchSize = shards.iter().map(|s| BatchSize::of(&s.row_offsets)).sum();
    let error = trainer
        .step(&shards, LOGPROBS, &adamw(1e-2), |_, scores| next_token::loss(scores, size))
        .unwrap_err();
    assert!(matches!(error, TrainError::Diverged { step: 2, .. }), "{error}");
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&before), bits(&weights(&trainer.params)));
    assert_eq!(trainer.optimizer.steps(), 1);
}

#[test]
fn a_batch_without_targets_is_an_error() {
    let mut trainer = trainer(Architecture::Llama, 1);
    let masked = Example { ids: vec![1, 2, 3], trained: vec![false; 3] };
    let shards = shards(&[masked], 10);
    let error = trainer
        .step(&shards, LOGPROBS, &adamw(1e-2), |_, s| {
            next_token::loss(s, BatchSize { sequences: 1, tokens: 1 })
        })
        .unwrap_err();
    assert!(matches!(error, TrainError::NothingToTrain { step: 1 }), "{error}");
}

/// GEMMs large enough for several threads: one shard that all threads share, and a few; documents
/// of all lengths.
#[test]
fn threads_that_share_a_shard_give_the_same_bits() {
    let vocab = 700;
    let documents = |seed| -> Vec<Example> {
        let mut rng = random_stream(seed, "documents", 0);
        [300, 5, 90, 1, 2, 130]
            .map(|length| Example {
                ids: (0..length).map(|_| rng.random_range(0..vocab as u32)).collect(),
                trained: vec![true; length],
            })
            .into()
    };
    let (f32, bf16) = (Precision::F32, Precision::Bf16);
    for (budget, heads, precision) in [(600, 2, f32), (200, 4, f32), (600, 2, bf16)] {
        let run = |threads| {
            let mut config = Config::new(Architecture::Llama, vocab, 96, 2, 4, 256);
            config.num_key_value_heads = heads;
            config.max_position_embeddings = 512;
            let device = Device::cpu(Some(threads)).with_precision(precision);
            let (model, params) = Model::init(config, &device, 7).unwrap();
            let mut trainer = Trainer::new(model, params, TrainerOptions::default());
            let mut losses = Vec::new();
            for step in 0..2 {
                let shards = shards(&documents(step), budget);
                let size: BatchSize = shards.iter().map(|s| BatchSize::of(&s.row_offsets)).sum();
                let output = Output::TokenScores { logit_scale: 0.9, entropy: step == 1 };
                let stats = trainer
                    .step(&shards, output, &adamw(1e-2), |_, scores| next_token::loss(scores, size))
                    .unwrap();
                losses.push(stats.loss.to_bits());
            }
            (losses, weights(&trainer.params).into_iter().map(f32::to_bits).collect::<Vec<_>>())
        };
        let one = run(1);
        for threads in [2, 3, 4, 8] {
            assert!(run(threads) == one, "{threads} threads, {precision:?}, shards of {budget}");
        }
    }
}
