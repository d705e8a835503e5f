//! Weights as files store them: every type gives what its values widened to f32 give, in every operation and on any number of
//! threads; and every architecture says the same with them.

use std::fs;
use std::path::Path;

use crisol_engine::{
    Device, Init, ParamId, ParamSpec, Params, QuantisedMatrix, Role, Tape, WeightFormat, Workspace,
};
use crisol_hub::{FloatType, Gguf};
use crisol_model::{
    Config, Model, ModelError, ModelFiles, PastKeyValues, SamplingOptions, generate, load_model,
    load_model_for_inference,
};
use serde_json::{Map, Value, json};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden");

/// A matrix of blocks of the golden file, in some order, and its values.
struct Example {
    kind: WeightFormat,
    shape: [usize; 2],
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl Example {
    fn all() -> Vec<Example> {
        let gguf = Gguf::open(&Path::new(GOLDEN).join("gguf/blocks.gguf")).expect("committed");
        let of = |kind: WeightFormat| {
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
        let example = |kind| if kind == WeightFormat::F8E4M3 { Example::fp8() } else { of(kind) };
        WeightFormat::ALL.into_iter().map(example).collect()
    }

    /// All finite numbers of the type, with scales of any sign, of which some make products subnormal.
    fn fp8() -> Example {
        let shape = [37, 256];
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        for block in 0..shape[0] * 2 {
            let scale = [3e-4, -1e-4, 1e-41][block % 3] * (1.0 + block as f32 / 100.0);
            bytes.extend(scale.to_le_bytes());
            for i in 0..128 {
                let code = ((block * 128 + i) * 7919 + block) as u8;
                let code = if code & 0x7f == 0x7f { code & 0x80 } else { code };
                bytes.push(code);
                values.push(e4m3(code) * scale);
            }
        }
        Example { kind: WeightFormat::F8E4M3, shape, bytes, values }
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
        let matrix = QuantisedMatrix::new(&device, self.kind, self.shape, row, |_| {});
        Params::with_stored(&device, self.specs(), vec![Some(matrix), None])
    }
}

/// Table 1 of <https://arxiv.org/abs/2209.05433>.
fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let magnitude = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
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
        let exact = matches!(
            example.kind,
            WeightFormat::F32
                | WeightFormat::F16
                | WeightFormat::Bf16
                | WeightFormat::F8E4M3
                | WeightFormat::Q8_0
        );
        assert!(!exact || bits(&values) == bits(&example.values), "{:?}", example.kind);
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_number_of_fp8_is_widened() {
    let codes: Vec<u8> = (0..=255).collect();
    for scale in [1.0, -0.37, 3e-43, 1e38] {
        let blocks =
            codes.chunks(128).flat_map(|codes| [&f32::to_le_bytes(scale)[..], codes].concat());
        let (bytes, values) =
            (blocks.collect(), codes.iter().map(|&code| e4m3(code) * scale).collect::<Vec<_>>());
        let example = Example { kind: WeightFormat::F8E4M3, shape: [1, 256], bytes, values };
        let params = example.params(1);
        let read = params.read(params.id("w").expect("there"));
        for (code, (value, expected)) in read.iter().zip(&example.values).enumerate() {
            // What a NaN looks like is not defined.
            let same = value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan();
            assert!(same, "{code:#04x} times {scale}: {value}, not {expected}");
        }
        assert_eq!(read.iter().filter(|value| value.is_nan()).count(), 2);
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
                    let (x, w) = (
                        &x[i / out * inner..][..inner],
                        &example.values[i % out * inner..][..inner],
                    );
                    let products = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
                    let (sum, size) =
                        products.fold((0.0, 0.0), |(sum, size), p: f64| (sum + p, size + p.abs()));
                    let error = (f64::from(y) - sum).abs();
                    assert!(
                        error <= 4e-6 * size,
                        "{:?}, {rows} rows, {i}: {y}, not {sum}",
                        example.kind
                    );
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
        let (stored, mut plain) =
            (example.params(1), Params::zeros(&Device::cpu(Some(1)), example.specs()));
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
                assert!(
                    (a - b).abs() <= 1e-5 * (1.0 + b.abs()),
                    "{:?}, {what}: {a}, not {b}",
                    example.kind
                );
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
    let hidden = model.hidden(&mut tape, &ids, &[0, 5, 14], PastKeyValues::None)?;
    let logits = model.logits(&mut tape, hidden, &(0..14).collect::<Vec<u32>>())?;
    let logits = tape.read(logits).into_owned();
    drop(tape);
    let prompts = [ids[..5].to_vec(), ids[5..].to_vec()];
    let together = generate(model, params, &prompts, &SamplingOptions::greedy(8, Vec::new()))?;
    Ok((logits, together.into_iter().map(|generated| generated.ids).collect()))
}

/// Greedy tokens are the same, and logits up to the order of sums.
fn assert_same(
    (logits, ids): &(Vec<f32>, Vec<Vec<u32>>),
    (expected, expected_ids): &(Vec<f32>, Vec<Vec<u32>>),
    what: &str,
) {
    let size = expected.iter().fold(0.0f32, |size, x| size.max(x.abs()));
    let difference =
        logits.iter().zip(expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(difference <= 1e-5 * size, "{what}: logits differ by {difference} of {size}");
    assert_eq!(ids, expected_ids, "{what}");
}

#[test]
fn every_architecture_says_the_same() -> Result<(), ModelError> {
    let golden = Path::new(GOLDEN);
    let place = tempfile::tempdir().expect("a temporary folder");
    for name in ["llama", "llama-tied", "olmo2", "qwen3", "llama4", "deepseek-v3"] {
        for dtype in [FloatType::F16, FloatType::BF16] {
            let folder = place.path().join(format!("{name}-{dtype:?}"));
            ModelFiles::open(&golden.join(name))?.export_folder(&folder, dtype, u64::MAX)?;
            let device = Device::cpu(Some(2));
            let (model, params) = load_model(&folder, &device)?;
            let (stored_model, stored) = load_model_for_inference(&folder, &device)?;
            let matrices =
                |params: &Params| params.ids().filter(|&id| params.stored(id).is_some()).count();
            assert!(matrices(&params) == 0 && matrices(&stored) > 4, "{name}");
            let (expected, ours) = (answers(&model, &params)?, answers(&stored_model, &stored)?);
            assert_same(&ours, &expected, &format!("{name} {dtype:?}"));
        }
    }
    Ok(())
}

/// How the weights of a DeepSeek-V3 are stored in FP8.
struct Fp8 {
    dtype: &'static str,
    /// Rows and columns of a block, and whether config.json says so.
    block: [usize; 2],
    said: bool,
    scales: Option<&'static str>,
}

/// Blocks of the real model.
const REAL: Fp8 = Fp8 { dtype: "F8_E4M3", block: [128, 128], said: false, scales: Some("F32") };

impl Fp8 {
    /// Writes a model with numbers without a pattern. Columns of most matrices are whole blocks, rows are not.
    fn write(&self, folder: &Path) -> Result<(), ModelError> {
        let golden = Path::new(GOLDEN).join("deepseek-v3/config.json");
        let text = fs::read_to_string(golden).expect("committed");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        for (key, value) in [
            ("hidden_size", 256),
            ("intermediate_size", 200),
            ("moe_intermediate_size", 128),
            ("kv_lora_rank", 128),
            ("q_lora_rank", 128),
            ("qk_nope_head_dim", 40),
            ("qk_rope_head_dim", 8),
            ("qk_head_dim", 48),
            ("head_dim", 8),
            ("v_head_dim", 32),
        ] {
            config[key] = json!(value);
        }
        let mut quantization = json!({ "quant_method": "fp8", "fmt": "e4m3" });
        if self.said {
            quantization["weight_block_size"] = json!(self.block);
        }
        config["quantization_config"] = quantization;
        fs::create_dir_all(folder).expect("writable");
        fs::write(folder.join("config.json"), config.to_string()).expect("writable");

        let (_, params) = Model::init(Config::load(folder)?, &Device::cpu(Some(2)), 7)?;
        let (mut header, mut data) = (Map::new(), Vec::new());
        let mut add = |name: String, dtype: &str, shape: &[usize], bytes: Vec<u8>| {
            let (start, end) = (data.len(), data.len() + bytes.len());
            header.insert(
                name,
                json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }),
            );
            data.extend(bytes);
        };
        for (index, id) in params.ids().enumerate() {
            let spec = params.spec(id);
            let quantised =
                spec.name.starts_with("model.layers.") && !spec.name.ends_with("mlp.gate.weight");
            match &spec.shape[..] {
                &[rows, cols] if quantised => {
                    let hash =
                        |i: usize| ((index << 20 | i) as u32).wrapping_mul(2_654_435_761) >> 24;
                    // No NaN.
                    let code = |i: usize| (hash(i) & 0xfb) as u8;
                    let codes = (0..rows * cols).map(code).collect();
                    add(spec.name.clone(), self.dtype, &spec.shape, codes);
                    if let Some(dtype) = self.scales {
                        let shape = [rows.div_ceil(self.block[0]), cols.div_ceil(self.block[1])];
                        let scale = |i: usize| 3e-4 * (1.0 + (i % 7) as f32);
                        let bytes =
                            (0..shape[0] * shape[1]).flat_map(|i| scale(i).to_le_bytes()).collect();
                        add(format!("{}_scale_inv", spec.name), dtype, &shape, bytes);
                    }
                }
                shape => {
                    let bytes = params.read(id).into_iter().flat_map(f32::to_le_bytes).collect();
                    add(spec.name.clone(), "F32", shape, bytes);
                }
            }
        }
        let header = Value::Object(header).to_string();
        let length = (header.len() as u64).to_le_bytes();
        let file = [&length[..], header.as_bytes(), &data].concat();
        fs::write(folder.join("model.safetensors"), file).expect("writable");
        Ok(())
    }
}

/// Ids of matrices that are FP8 in memory.
fn in_fp8(params: &Params) -> Vec<ParamId> {
    let is_fp8 = |&id: &ParamId| {
        params.stored(id).is_some_and(|matrix| matrix.kind() == WeightFormat::F8E4M3)
    };
    params.ids().filter(is_fp8).collect()
}

#[test]
fn fp8_with_scales_says_the_same() -> Result<(), ModelError> {
    let place = tempfile::tempdir().expect("a temporary folder");
    let device = Device::cpu(Some(2));
    let others = [Fp8 { block: [48, 256], said: true, ..REAL }, Fp8 { scales: None, ..REAL }];
    for (i, fp8) in [REAL].iter().chain(&others).enumerate() {
        let folder = place.path().join(i.to_string());
        fp8.write(&folder)?;
        let (model, params) = load_model(&folder, &device)?;
        let (stored_model, stored) = load_model_for_inference(&folder, &device)?;
        for id in stored.ids() {
            assert_eq!(bits(&stored.read(id)), bits(&params.read(id)), "{}", params.spec(id).name);
        }
        // Of each layer five matrices of attention and three of each feed-forward layer, but for the one whose rows are no whole blocks.
        let kept = in_fp8(&stored);
        assert_eq!(kept.len(), 2 * 5 + 2 + 9 * 3);
        assert!(in_fp8(&params).is_empty());
        for part in ["experts.7.down_proj", "kv_b_proj", "0.mlp.up_proj"] {
            assert!(kept.iter().any(|&id| stored.spec(id).name.contains(part)), "{part}");
        }
        // Without scales numbers are so large that nothing but the largest counts, and rounding decides which that is.
        if fp8.scales.is_some() {
            let (expected, ours) = (answers(&model, &params)?, answers(&stored_model, &stored)?);
            assert_same(&ours, &expected, &format!("{:?}", fp8.block));
        }
        // Tiles at the end may be filled up.
        let (said, taken) = (
            ModelFiles::open(&folder)?.inference_bytes()?,
            stored.ids().map(|id| stored.bytes(id) as u64).sum::<u64>(),
        );
        assert!(said <= taken && taken <= said + said / 20, "{said} bytes, but {taken}");
    }
    Ok(())
}

#[test]
fn fp8_that_does_not_fit_is_widened() -> Result<(), ModelError> {
    let place = tempfile::tempdir().expect("a temporary folder");
    let device = Device::cpu(Some(2));
    let mut folders = vec![Path::new(GOLDEN).join("deepseek-v3-fp8")];
    let across = Fp8 { block: [128, 96], said: true, ..REAL };
    for (i, fp8) in [across, Fp8 { dtype: "F8_E5M2", ..REAL }].iter().enumerate() {
        folders.push(place.path().join(i.to_string()));
        fp8.write(&folders[i + 1])?;
    }
    for folder in folders {
        let (model, params) = load_model(&folder, &device)?;
        let (inference_model, inference) = load_model_for_inference(&folder, &device)?;
        assert_eq!(in_fp8(&inference), []);
        assert_eq!(
            answers(&inference_model, &inference)?,
            answers(&model, &params)?,
            "{}",
            folder.display()
        );
        let bytes = ModelFiles::open(&folder)?.inference_bytes()?;
        assert_eq!(bytes, 4 * params.count() as u64);
    }
    Ok(())
}

#[test]
fn scales_that_do_not_fit_are_the_same_error() -> Result<(), ModelError> {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path();
    let device = Device::cpu(Some(1));
    let more = Fp8 { block: [64, 128], ..REAL };
    for (fp8, cause) in [(more, "128 × 128"), (Fp8 { scales: Some("I32"), ..REAL }, "I32")] {
        fp8.write(folder)?;
        let error = load_model(folder, &device).expect_err("scales").to_string();
        assert!(error.contains("_scale_inv`") && error.contains(cause), "{error}");
        let inference = load_model_for_inference(folder, &device).expect_err("scales").to_string();
        assert_eq!(inference, error);
    }
    Ok(())
}
