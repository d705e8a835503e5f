//! Weights as files store them: every type gives what its values widened to f32 give, in every operation and on any number of
//! threads; and every architecture says the same with them.

use std::path::Path;

use crisol_engine::{Device, Init, ParamSpec, Params, Role, StoredMatrix, StoredType, Tape, Workspace};
use crisol_hub::{FloatType, Gguf};
use crisol_model::{
    Context, Model, ModelError, ModelFiles, SamplingOptions, generate, load_model, load_model_for_inference,
};

/// A matrix of blocks of the golden file, in some order, and its values.
struct Example {
    kind: StoredType,
    shape: [usize; 2],
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl Example {
    fn all() -> Vec<Example> {
        let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/gguf/blocks.gguf"));
        let gguf = Gguf::open(file).expect("committed");
        let of = |kind: StoredType| {
            let name = gguf
                .names()
                .find(|tensor| tensor.eq_ignore_ascii_case(kind.name()))
                .expect("a tensor of each type");
            let (all_bytes, all_values) =
                (gguf.bytes(name).expect("there"), gguf.read(name).expect("readable"));
            let (columns, size) = kind.block();
            let blocks = all_values.len() / columns;
            // Columns that are no whole unit where the type allows it, rows that are no whole tile.
            let cols = if columns == 1 { 70 } else { 2 * columns };
            let shape = [37, cols];
            let (mut bytes, mut values) = (Vec::new(), Vec::new());
            for i in 0..shape[0] * cols / columns {
                let block = i * 7919 % blocks;
                bytes.extend(&all_bytes[block * size..][..size]);
                values.extend(&all_values[block * columns..][..columns]);
            }
            Example { kind, shape, bytes, values }
        };
        StoredType::ALL.into_iter().map(of).collect()
    }

    fn specs(&self) -> Vec<ParamSpec> {
        let spec = |name: &str, shape: &[usize]| ParamSpec {
            name: name.into(),
            shape: shape.into(),
            init: Init::Zeros,
            role: Role::Hidden,
        };
        vec![spec("w", &self.shape), spec("b", &self.shape[..1])]
    }

    fn params(&self, threads: usize) -> Params {
        let device = Device::cpu(Some(threads));
        let row_bytes = self.kind.row_bytes(self.shape[1]).expect("whole blocks");
        let row = |i: usize| &self.bytes[i * row_bytes..][..row_bytes];
        let matrix = StoredMatrix::new(&device, self.kind, self.shape, row, |_| {});
        Params::with_stored(&device, self.specs(), vec![Some(matrix), None])
    }
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0).collect()
}

#[test]
fn what_is_read_is_what_the_file_has() {
    for example in Example::all() {
        let params = example.params(2);
        let values = params.read(params.id("w").expect("there"));
        for (i, (value, expected)) in values.iter().zip(&example.values).enumerate() {
            // Scale and code are multiplied and the offset added in one rounding.
            let error = (value - expected).abs();
            let size = example.values.iter().fold(0.0f32, |size, x| size.max(x.abs()));
            assert!(error <= 2e-7 * size, "{:?} value {i}: {value}, not {expected}", example.kind);
        }
        let exact =
            matches!(example.kind, StoredType::F32 | StoredType::F16 | StoredType::Bf16 | StoredType::Q8_0);
        assert!(!exact || values == example.values, "{:?}", example.kind);
    }
}

#[test]
fn products_are_those_with_the_values() {
    for example in Example::all() {
        let [out, inner] = example.shape;
        for rows in [1, 3, 4, 6, 8, 50] {
            let x = numbers(rows * inner);
            let mut bits = Vec::new();
            for threads in [1, 3] {
                let params = example.params(threads);
                let (w, device) = (params.id("w").expect("there"), params.device().clone());
                let result = device.map(1, |_, workspace| {
                    let mut tape = Tape::inference(&params, workspace);
                    let x = tape.constant(rows, inner, &x);
                    let y = tape.linear(x, w, params.id("b"));
                    tape.read(y).into_owned()
                });
                bits.push(result[0].iter().map(|y| y.to_bits()).collect::<Vec<_>>());
                for (i, &y) in result[0].iter().enumerate() {
                    let (x, w) =
                        (&x[i / out * inner..][..inner], &example.values[i % out * inner..][..inner]);
                    let products = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
                    let (sum, size) =
                        products.fold((0.0, 0.0), |(sum, size), p: f64| (sum + p, size + p.abs()));
                    let error = (f64::from(y) - sum).abs();
                    assert!(error <= 4e-6 * size, "{:?}, {rows} rows, {i}: {y}, not {sum}", example.kind);
                }
            }
            assert_eq!(bits[0], bits[1], "{:?}, {rows} rows, one thread and three", example.kind);
        }
    }
}

#[test]
fn tables_heads_and_products_of_heads_take_stored_weights() {
    for example in Example::all() {
        let [out, inner] = example.shape;
        let (stored, mut plain) = (example.params(1), Params::zeros(&Device::cpu(Some(1)), example.specs()));
        let w = plain.id("w").expect("there");
        plain.write(w, &stored.read(w));
        let run = |params: &Params| {
            let mut workspace = Workspace::new(params.device());
            let mut tape = Tape::inference(params, &mut workspace);
            let rows = tape.embedding(w, &[0, 36, 17, 17]);
            let x = tape.constant(2, inner, &numbers(2 * inner));
            let (logp, entropy) = tape.token_scores(x, w, &[3, 36], 0.7, true);
            let q = tape.constant(2, 7, &numbers(14));
            let to_latent = tape.head_products(q, w, out, 2..9, false);
            let from_latent = tape.head_products(x, w, out, 5..36, true);
            [rows, logp, entropy, to_latent, from_latent].map(|var| tape.read(var).into_owned())
        };
        for (what, (ours, expected)) in run(&stored).into_iter().zip(run(&plain)).enumerate() {
            assert_eq!(ours.len(), expected.len());
            for (a, b) in ours.iter().zip(&expected) {
                assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{:?}, {what}: {a}, not {b}", example.kind);
            }
        }
    }
}

#[test]
#[should_panic(expected = "parameters for inference")]
fn they_have_no_gradients() {
    let example = Example::all().pop().expect("several");
    let _ = crisol_engine::Grads::zeros_like(&example.params(1));
}

/// Logits of two documents without a cache, and what is generated with one, a prompt at a time and together.
fn answers(model: &Model, params: &Params) -> Result<(Vec<f32>, Vec<Vec<u32>>), ModelError> {
    let ids: Vec<u32> = (1..=14).collect();
    let mut workspace = Workspace::new(params.device());
    let mut tape = Tape::inference(params, &mut workspace);
    let hidden = model.hidden(&mut tape, &ids, &[0, 5, 14], Context::Full)?;
    let logits = model.logits(&mut tape, hidden, &(0..14).collect::<Vec<u32>>())?;
    let logits = tape.read(logits).into_owned();
    drop(tape);
    let prompts = [ids[..5].to_vec(), ids[5..].to_vec()];
    let together = generate(model, params, &prompts, &SamplingOptions::greedy(8, Vec::new()))?;
    Ok((logits, together.into_iter().map(|generated| generated.ids).collect()))
}

#[test]
fn every_architecture_says_the_same() -> Result<(), ModelError> {
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden"));
    let place = tempfile::tempdir().expect("a temporary folder");
    for name in ["llama", "llama-tied", "olmo2", "qwen3", "llama4", "deepseek-v3"] {
        for dtype in [FloatType::F16, FloatType::BF16] {
            let folder = place.path().join(format!("{name}-{dtype:?}"));
            ModelFiles::open(&golden.join(name))?.export_folder(&folder, dtype, u64::MAX)?;
            let device = Device::cpu(Some(2));
            let (model, params) = load_model(&folder, &device)?;
            let (stored_model, stored) = load_model_for_inference(&folder, &device)?;
            let matrices = |params: &Params| params.ids().filter(|&id| params.stored(id).is_some()).count();
            assert!(matrices(&params) == 0 && matrices(&stored) > 4, "{name}");
            let ((expected, expected_ids), (logits, ids)) =
                (answers(&model, &params)?, answers(&stored_model, &stored)?);
            let size = expected.iter().fold(0.0f32, |size, x| size.max(x.abs()));
            let difference =
                logits.iter().zip(&expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(difference <= 1e-5 * size, "{name} {dtype:?}: logits differ by {difference} of {size}");
            assert_eq!(ids, expected_ids, "{name} {dtype:?}");
        }
    }
    Ok(())
}
