//! Crisol against PyTorch and transformers with equal weights: logits, loss, all gradients, ten
//! AdamW steps, scalar head. The files come from tests/golden/generate.py, which computes documents
//! one by one; here they are packed.

use std::fs;
use std::path::{Path, PathBuf};

use crisol_engine::{Device, Grads, OptimizerConfig, Params, Tape, UpdateRule, Workspace};
use crisol_hub::Tensors;
use crisol_model::{
    Model, ModelError, PastKeyValues, SamplingOptions, generate, load_model, scalars,
    skipped_tensors,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    documents: Vec<Vec<u32>>,
    /// Continuation of the first document by greedy generation.
    greedy: Vec<u32>,
    loss: f64,
    losses: Vec<f64>,
    gradient_norms: Vec<f64>,
    optimizer: Optimizer,
}

#[derive(Deserialize)]
struct Optimizer {
    lr: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    weight_decay: f32,
    max_grad_norm: f32,
}

fn folder(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")).join(name)
}

fn golden<T: for<'de> Deserialize<'de>>(folder: &Path) -> T {
    let text = fs::read_to_string(folder.join("golden.json")).expect("committed");
    serde_json::from_str(&text).expect("written by generate.py")
}

/// Packed documents, as in a training step.
struct Batch {
    ids: Vec<u32>,
    offsets: Vec<u32>,
    /// All rows but the last of each document; row `r` predicts token `r + 1`.
    rows: Vec<u32>,
    targets: Vec<u32>,
}

fn pack(documents: &[Vec<u32>]) -> Batch {
    let mut batch =
        Batch { ids: Vec::new(), offsets: vec![0], rows: Vec::new(), targets: Vec::new() };
    for document in documents {
        let start = batch.ids.len() as u32;
        batch.ids.extend(document);
        batch.offsets.push(batch.ids.len() as u32);
        batch.rows.extend(start..batch.ids.len() as u32 - 1);
        batch.targets.extend(&document[1..]);
    }
    batch
}

/// The mean cross-entropy of the batch; adds its gradients to `grads`.
fn loss_and_gradients(
    model: &Model,
    params: &Params,
    batch: &Batch,
    workspace: &mut Workspace,
    grads: &mut Grads,
) -> Result<f64, ModelError> {
    let mut tape = Tape::training(params, workspace);
    let hidden = model.hidden(&mut tape, &batch.ids, &batch.offsets, PastKeyValues::None)?;
    let (logp, _) =
        model.token_scores(&mut tape, hidden, &batch.rows, &batch.targets, 1.0, false)?;
    let count = batch.rows.len();
    let loss = -tape.read(logp).iter().map(|&x| f64::from(x)).sum::<f64>() / count as f64;
    tape.backward(&[(logp, &vec![-1.0 / count as f32; count])], grads);
    Ok(loss)
}

/// Largest difference, relative to the largest magnitude in `expected`.
fn relative_difference(actual: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(actual.len(), expected.len());
    let scale = expected.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
    assert!(scale > 0.0, "a golden tensor of zeros tests nothing");
    actual.iter().zip(expected).fold(0.0, |m: f32, (a, e)| m.max((a - e).abs())) / scale
}

/// The router's correction bias has no gradient; in PyTorch it is a buffer.
fn is_fixed(name: &str) -> bool {
    name.ends_with("e_score_correction_bias")
}

/// Gradients below this are rounding noise of zero.
const NOISE: f32 = 1e-6;

fn compare(name: &str) -> Result<(), ModelError> {
    let folder = folder(name);
    let golden: Golden = golden(&folder);
    let tensors = Tensors::open(&folder.join("golden.safetensors"))?;
    let device = Device::cpu(Some(1));
    let (model, mut params) = load_model(&folder, &device)?;
    let mut workspace = Workspace::new(&device);
    let batch = pack(&golden.documents);

    {
        let mut tape = Tape::inference(&params, &mut workspace);
        let hidden = model.hidden(&mut tape, &batch.ids, &batch.offsets, PastKeyValues::None)?;
        let rows: Vec<u32> = (0..batch.ids.len() as u32).collect();
        let logits = model.logits(&mut tape, hidden, &rows)?;
        let expected = tensors.read("logits", &[batch.ids.len(), model.config().vocab_size])?;
        let difference = relative_difference(&tape.read(logits), &expected);
        assert!(difference < 1e-5, "{name}: logits differ by {difference}");
    }

    assert!(!golden.greedy.is_empty(), "{name}: no greedy tokens");
    let options = SamplingOptions::greedy(golden.greedy.len(), Vec::new());
    let greedy = generate(&model, &params, &golden.documents[..1], &options)?;
    assert_eq!(greedy[0].ids, golden.greedy, "{name}: greedy tokens");

    let mut grads = Grads::zeros_like(&params);
    let loss = loss_and_gradients(&model, &params, &batch, &mut workspace, &mut grads)?;
    assert!((loss - golden.loss).abs() < 1e-5, "{name}: loss {loss}, PyTorch {}", golden.loss);
    let mut compared = 0;
    for id in params.ids() {
        let spec = params.spec(id);
        if is_fixed(&spec.name) {
            assert!(
                grads.read(id).iter().all(|&gradient| gradient == 0.0),
                "{name}: {}",
                spec.name
            );
            continue;
        }
        let expected = tensors.read(&format!("gradient.{}", spec.name), &spec.shape)?;
        // No token was routed to the expert; or a key bias without RoPE, to which softmax is
        // invariant.
        if expected.iter().all(|gradient| gradient.abs() < NOISE) {
            assert!(
                grads.read(id).iter().all(|gradient| gradient.abs() < NOISE),
                "{name}: {}",
                spec.name
            );
            continue;
        }
        let difference = relative_difference(&grads.read(id), &expected);
        assert!(difference < 1e-4, "{name}: gradient of {} differs by {difference}", spec.name);
        compared += 1;
    }
    assert!(2 * compared > params.ids().count(), "{name}: only {compared} gradients compared");

    let o = &golden.optimizer;
    let config = OptimizerConfig {
        rule: UpdateRule::AdamW,
        lr: o.lr,
        table_factor: 1.0,
        beta1: o.beta1,
        beta2: o.beta2,
        eps: o.eps,
        weight_decay: o.weight_decay,
        max_grad_norm: Some(o.max_grad_norm),
    };
    assert_eq!((golden.losses.len(), golden.gradient_norms.len()), (10, 10), "{name}");
    let mut adamw = crisol_engine::Optimizer::new(&params, crisol_engine::MomentFormat::F32);
    for (step, (expected_loss, expected_norm)) in
        golden.losses.iter().zip(&golden.gradient_norms).enumerate()
    {
        grads.zero();
        let loss = loss_and_gradients(&model, &params, &batch, &mut workspace, &mut grads)?;
        let norm = adamw.step(&mut params, &grads, &config);
        assert!(
            (loss - expected_loss).abs() < 1e-5,
            "{name}: step {step}: loss {loss}, PyTorch {expected_loss}"
        );
        assert!(
            (norm / expected_norm - 1.0).abs() < 1e-4,
            "{name}: step {step}: norm {norm}, PyTorch {expected_norm}"
        );
    }
    for id in params.ids() {
        let spec = params.spec(id);
        if is_fixed(&spec.name) {
            continue;
        }
        let golden = |what| tensors.read(&format!("{what}.{}", spec.name), &spec.shape);
        let (mut expected, gradient, actual) =
            (golden("final")?, golden("gradient")?, params.read(id));
        // Adam makes full steps from a gradient that is rounding noise. Softmax is nearly invariant
        // to key biases, so most of their gradients are noise.
        for ((expected, actual), gradient) in expected.iter_mut().zip(&actual).zip(gradient) {
            if gradient.abs() < NOISE {
                *expected = *actual;
            }
        }
        let difference = relative_difference(&actual, &expected);
        assert!(difference < 5e-5, "{name}: {} after ten steps differs by {difference}", spec.name);
    }
    Ok(())
}

#[test]
fn every_golden_model_equals_transformers() -> Result<(), ModelError> {
    let mut names: Vec<String> = fs::read_dir(folder(""))
        .expect("the folder of golden models")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("golden.safetensors").exists())
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 20, "{names:?}");
    names.iter().try_for_each(|name| compare(name))
}

#[test]
fn skipped_tensors_are_reported() -> Result<(), ModelError> {
    assert_eq!(skipped_tensors(&folder("deepseek-v3"))?, [""; 0]);
    let notes = skipped_tensors(&folder("deepseek-v3-fp8"))?;
    assert!(notes.len() == 1 && notes[0].ends_with("are left out (tensors: 1)"), "{notes:?}");
    Ok(())
}

#[test]
fn scalar_head_equals_transformers() -> Result<(), ModelError> {
    #[derive(Deserialize)]
    struct Golden {
        documents: Vec<Vec<u32>>,
        scalars: Vec<f32>,
    }
    let folder = folder("llama-scalar");
    let golden: Golden = golden(&folder);
    let (model, params) = load_model(&folder, &Device::cpu(Some(1)))?;
    let last: Vec<f32> =
        scalars(&model, &params, &golden.documents)?.iter().map(|all| all[all.len() - 1]).collect();
    let difference = relative_difference(&last, &golden.scalars);
    assert!(difference < 1e-5, "scalars differ by {difference}");
    Ok(())
}
