//! Crisol against PyTorch, transformers and PEFT with equal weights: logits, loss, all gradients,
//! ten AdamW steps, scalar head. The files come from tests/golden/generate.py and adapters.py,
//! which compute documents one by one; here they are packed.

use std::fs;
use std::path::{Path, PathBuf};

use crisol_engine::{Device, Grads, OptimizerConfig, Params, Tape, UpdateRule, Workspace};
use crisol_hub::Tensors;
use crisol_model::{
    Model, ModelError, PastKeyValues, SamplingOptions, generate, load_model,
    load_model_for_inference, scalars, skipped_tensors,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    documents: Vec<Vec<u32>>,
    /// Continuation of the first document by greedy generation; none of adapters.
    #[serde(default)]
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

/// A model as loaded from its folder, and what PyTorch computes with it.
struct Case {
    name: String,
    golden: Golden,
    tensors: Tensors,
    model: Model,
    params: Params,
    workspace: Workspace,
    batch: Batch,
}

impl Case {
    /// `load`: for training, or an adapter with its frozen base.
    fn open(
        name: &str,
        load: impl Fn(&Path, &Device) -> Result<(Model, Params), ModelError>,
    ) -> Result<Case, ModelError> {
        let folder = folder(name);
        let golden: Golden = golden(&folder);
        let tensors = Tensors::open(&folder.join("golden.safetensors"))?;
        let device = Device::cpu(Some(1));
        let (model, params) = load(&folder, &device)?;
        let (workspace, batch) = (Workspace::new(&device), pack(&golden.documents));
        let name = name.to_owned();
        Ok(Case { name, golden, tensors, model, params, workspace, batch })
    }

    fn loss_and_gradients(&mut self, grads: &mut Grads) -> Result<f64, ModelError> {
        loss_and_gradients(&self.model, &self.params, &self.batch, &mut self.workspace, grads)
    }

    fn check_logits(&mut self) -> Result<(), ModelError> {
        let Case { name, tensors, model, params, workspace, batch, .. } = self;
        let mut tape = Tape::inference(params, workspace);
        let hidden = model.hidden(&mut tape, &batch.ids, &batch.offsets, PastKeyValues::None)?;
        let rows: Vec<u32> = (0..batch.ids.len() as u32).collect();
        let logits = model.logits(&mut tape, hidden, &rows)?;
        let expected = tensors.read("logits", &[batch.ids.len(), model.config().vocab_size])?;
        let difference = relative_difference(&tape.read(logits), &expected);
        assert!(difference < 1e-5, "{name}: logits differ by {difference}");
        Ok(())
    }

    fn check_gradients(&mut self, tolerance: f32) -> Result<(), ModelError> {
        let mut grads = Grads::zeros_like(&self.params);
        let loss = self.loss_and_gradients(&mut grads)?;
        let Case { name, golden, tensors, params, .. } = self;
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
            assert!(
                difference < tolerance,
                "{name}: gradient of {} differs by {difference}",
                spec.name
            );
            compared += 1;
        }
        assert!(2 * compared > params.ids().count(), "{name}: only {compared} gradients compared");
        Ok(())
    }

    /// Ten AdamW steps.
    fn check_steps(&mut self, tolerance: f64) -> Result<(), ModelError> {
        let (name, o) = (self.name.clone(), &self.golden.optimizer);
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
        let expected: Vec<(f64, f64)> =
            self.golden.losses.iter().copied().zip(self.golden.gradient_norms.clone()).collect();
        assert_eq!(expected.len(), 10, "{name}");
        let mut grads = Grads::zeros_like(&self.params);
        let mut adamw =
            crisol_engine::Optimizer::new(&self.params, crisol_engine::MomentFormat::F32);
        for (step, (expected_loss, expected_norm)) in expected.into_iter().enumerate() {
            grads.zero();
            let loss = self.loss_and_gradients(&mut grads)?;
            let norm = adamw.step(&mut self.params, &grads, &config);
            assert!(
                (loss - expected_loss).abs() < tolerance,
                "{name}: step {step}: loss {loss}, PyTorch {expected_loss}"
            );
            assert!(
                (norm / expected_norm - 1.0).abs() < 10.0 * tolerance,
                "{name}: step {step}: norm {norm}, PyTorch {expected_norm}"
            );
        }
        Ok(())
    }
}

/// Gradients below this are rounding noise of zero.
const NOISE: f32 = 1e-6;

fn compare(name: &str) -> Result<(), ModelError> {
    let mut case = Case::open(name, load_model)?;
    case.check_logits()?;
    let (documents, expected) = (&case.golden.documents[..1], &case.golden.greedy);
    assert!(!expected.is_empty(), "{name}: no greedy tokens");
    let options = SamplingOptions::greedy(expected.len(), Vec::new());
    let greedy = generate(&case.model, &case.params, documents, &options)?;
    assert_eq!(greedy[0].ids, *expected, "{name}: greedy tokens");
    case.check_gradients(1e-4)?;
    case.check_steps(1e-5)?;
    let Case { tensors, params, .. } = &case;
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

/// An adapter as PEFT saves it, against PEFT (adapters.py).
fn compare_adapter(name: &str) -> Result<(), ModelError> {
    let mut case = Case::open(&format!("adapters/{name}"), load_model_for_inference)?;
    assert!(case.params.base().is_some() && case.model.config().adapter.is_some(), "{name}");
    case.check_logits()?;
    case.check_gradients(1e-5)?;
    case.check_steps(1e-4)
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
fn adapters_of_every_architecture_equal_peft() -> Result<(), ModelError> {
    ["llama", "olmo2", "qwen3", "gemma3", "phi3", "gpt2", "llama4", "deepseek-v3", "gpt-oss"]
        .into_iter()
        .try_for_each(compare_adapter)
}

#[test]
fn scales_ranks_and_whole_weights_of_adapters_equal_peft() -> Result<(), ModelError> {
    ["rslora", "patterns", "whole"].into_iter().try_for_each(compare_adapter)
}

#[test]
fn trained_norms_of_adapters_equal_peft() -> Result<(), ModelError> {
    ["dora", "dora-patterns", "gpt2-dora"].into_iter().try_for_each(compare_adapter)
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
