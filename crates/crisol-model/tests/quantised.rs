//! Weights in the formats of files: every format gives the results of its values in f32, in every
//! operation, with any number of threads, for every architecture.

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

/// A matrix of shuffled blocks of the golden file, and its values.
struct Example {
    format: WeightFormat,
    shape: [usize; 2],
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl Example {
    fn all() -> Vec<Example> {
        let gguf = Gguf::open(&Path::new(GOLDEN).join("gguf/blocks.gguf")).expect("committed");
        let from_golden = |format: WeightFormat| {
            let name = gguf
                .names()
                .find(|tensor| tensor.eq_ignore_ascii_case(format.name()))
                .expect("a tensor of each type");
            let (all_bytes, all_values) =
                (gguf.bytes(name).expect("there"), gguf.read(name).expect("readable"));
            let (columns, size) = format.block();
            let blocks = all_values.len() / columns;
            // Columns that are not a multiple of a SIMD vector where the format allows it, rows
            // that are not a multiple of a tile.
            let cols = if columns == 1 { 70 } else { 2 * columns };
            let shape = [37, cols];
            let (mut bytes, mut values) = (Vec::new(), Vec::new());
            for i in 0..shape[0] * cols / columns {
                let block = i * 7919 % blocks;
                bytes.extend(&all_bytes[block * size..][..size]);
                values.extend(&all_values[block * columns..][..columns]);
            }
            Example { format, shape, bytes, values }
        };
        let example = |format| match format {
            WeightFormat::F8E4M3 => Example::fp8(),
            WeightFormat::Mxfp4 => Example::mxfp4(),
            format => from_golden(format),
        };
        WeightFormat::ALL.into_iter().map(example).collect()
    }

    /// All finite numbers of the format, with positive, negative and very small scales.
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
        Example { format: WeightFormat::F8E4M3, shape, bytes, values }
    }

    /// All codes, with scales from 2^-11 to 2^-9.
    fn mxfp4() -> Example {
        let shape = [37, 64];
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        for block in 0..shape[0] * 2 {
            let exponent = 116 + block % 3;
            let codes: Vec<u8> = (0..32).map(|i| ((block + i) * 7 % 16) as u8).collect();
            bytes.push(exponent as u8);
            bytes.extend((0..16).map(|i| codes[i] | codes[i + 16] << 4));
            let magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
            values.extend(codes.iter().map(|&code| {
                let magnitude =
                    magnitudes[usize::from(code & 7)] * 2f32.powi(exponent as i32 - 127);
                if code & 8 == 0 { magnitude } else { -magnitude }
            }));
        }
        Example { format: WeightFormat::Mxfp4, shape, bytes, values }
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
        let row_bytes = self.format.row_bytes(self.shape[1]).expect("whole blocks");
        let row = |i: usize| &self.bytes[i * row_bytes..][..row_bytes];
        let matrix = QuantisedMatrix::new(&device, self.format, self.shape, row, |_| {});
        Params::with_quantised(&device, self.specs(), vec![Some(matrix), None])
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
fn weights_are_read_as_in_the_file() {
    for example in Example::all() {
        let params = example.params(2);
        let values = params.read(params.id("w").expect("there"));
        assert_eq!(values.len(), example.values.len());
        for (i, (value, expected)) in values.iter().zip(&example.values).enumerate() {
            // The engine rounds scale, code and offset once (fused multiply-add).
            let error = (value - expected).abs();
            let size = example.values.iter().fold(0.0f32, |size, x| size.max(x.abs()));
            assert!(
                error <= 2e-7 * size,
                "{:?} value {i}: {value}, not {expected}",
                example.format
            );
        }
        let exact = matches!(
            example.format,
            WeightFormat::F32
                | WeightFormat::F16
                | WeightFormat::Bf16
                | WeightFormat::F8E4M3
                | WeightFormat::Mxfp4
                | WeightFormat::Q8_0
        );
        assert!(!exact || bits(&values) == bits(&example.values), "{:?}", example.format);
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_fp8_code_is_converted() {
    let codes: Vec<u8> = (0..=255).collect();
    for scale in [1.0, -0.37, 3e-43, 1e38] {
        let blocks =
            codes.chunks(128).flat_map(|codes| [&f32::to_le_bytes(scale)[..], codes].concat());
        let (bytes, values) =
            (blocks.collect(), codes.iter().map(|&code| e4m3(code) * scale).collect::<Vec<_>>());
        let example = Example { format: WeightFormat::F8E4M3, shape: [1, 256], bytes, values };
        let params = example.params(1);
        let read = params.read(params.id("w").expect("there"));
        for (code, (value, expected)) in read.iter().zip(&example.values).enumerate() {
            // NaN payloads are not defined.
            let same = value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan();
            assert!(same, "{code:#04x} times {scale}: {value}, not {expected}");
        }
        assert_eq!(read.iter().filter(|value| value.is_nan()).count(), 2);
    }
}

#[test]
fn gemm_equals_f64_dot_products() {
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
                assert_eq!(result[0].len(), rows * out);
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
                        example.format
                    );
                }
            }
            assert_eq!(bits[0], bits[1], "{:?}, {rows} rows, one thread and three", example.format);
        }
    }
}

#[test]
fn embedding_head_and_per_head_gemms_take_quantised_weights() {
    for example in Example::all() {
        let [out, inner] = example.shape;
        let (quantised, mut plain) =
            (example.params(1), Params::zeros(&Device::cpu(Some(1)), example.specs()));
        let w = plain.id("w").expect("there");
        plain.write(w, &quantised.read(w));
        let run = |params: &Params| {
            let mut workspace = Workspace::new(params.device());
            let mut tape = Tape::inference(params, &mut workspace);
            let rows = tape.embedding(w, &[0, 36, 17, 17]);
            let x = tape.constant(2, inner, &numbers(2 * inner));
            let (logp, entropy) = tape.token_scores(x, w, &[3, 36], 0.7, None, true);
            let q = tape.constant(2, 7, &numbers(14));
            let to_latent = tape.per_head_matmul(q, w, out, 2..9, false);
            let from_latent = tape.per_head_matmul(x, w, out, 5..36, true);
            [rows, logp, entropy, to_latent, from_latent].map(|var| tape.read(var).into_owned())
        };
        for (index, (ours, expected)) in run(&quantised).into_iter().zip(run(&plain)).enumerate() {
            assert_eq!(ours.len(), expected.len());
            for (a, b) in ours.iter().zip(&expected) {
                assert!(
                    (a - b).abs() <= 1e-5 * (1.0 + b.abs()),
                    "{:?}, result {index}: {a}, not {b}",
                    example.format
                );
            }
        }
    }
}

#[test]
#[should_panic(expected = "parameters for inference")]
fn quantised_parameters_have_no_gradients() {
    let example = Example::all().pop().expect("several");
    let _ = crisol_engine::Grads::zeros_like(&example.params(1));
}

/// Logits of two documents without a cache, and batched generation with one.
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

/// Equal greedy tokens, and logits equal up to the order of summation.
fn assert_same(
    (logits, ids): &(Vec<f32>, Vec<Vec<u32>>),
    (expected, expected_ids): &(Vec<f32>, Vec<Vec<u32>>),
    what: &str,
) {
    assert_eq!(logits.len(), expected.len());
    let size = expected.iter().fold(0.0f32, |size, x| size.max(x.abs()));
    let difference = logits.iter().zip(expected).fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
    assert!(difference <= 1e-5 * size, "{what}: logits differ by {difference} of {size}");
    assert_eq!(ids, expected_ids, "{what}");
}

#[test]
fn every_architecture_gives_equal_logits() -> Result<(), ModelError> {
    let golden = Path::new(GOLDEN);
    let dir = tempfile::tempdir().expect("a temporary folder");
    for name in ["llama", "llama-tied", "olmo2", "qwen3", "llama4", "deepseek-v3"] {
        for dtype in [FloatType::F16, FloatType::BF16] {
            let folder = dir.path().join(format!("{name}-{dtype:?}"));
            ModelFiles::open(&golden.join(name))?.export_folder(&folder, dtype, u64::MAX)?;
            let device = Device::cpu(Some(2));
            let (model, params) = load_model(&folder, &device)?;
            let (inference_model, inference) = load_model_for_inference(&folder, &device)?;
            let matrices =
                |params: &Params| params.ids().filter(|&id| params.quantised(id).is_some()).count();
            assert!(matrices(&params) == 0 && matrices(&inference) > 4, "{name}");
            let (expected, ours) =
                (answers(&model, &params)?, answers(&inference_model, &inference)?);
            assert_same(&ours, &expected, &format!("{name} {dtype:?}"));
        }
    }
    Ok(())
}

/// The FP8 format of a DeepSeek-V3 checkpoint.
struct Fp8 {
    dtype: &'static str,
    /// Rows and columns of a block.
    block: [usize; 2],
    /// Whether config.json has the block size.
    block_in_config: bool,
    scales: Option<&'static str>,
}

/// The blocks of the published model.
const REAL: Fp8 =
    Fp8 { dtype: "F8_E4M3", block: [128, 128], block_in_config: false, scales: Some("F32") };

impl Fp8 {
    /// Writes a model with pseudo-random weights. Columns of most matrices are whole blocks, rows
    /// are not.
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
        if self.block_in_config {
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
                    // Excludes NaN.
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

/// Parameters that are FP8 in memory.
fn in_fp8(params: &Params) -> Vec<ParamId> {
    let is_fp8 = |&id: &ParamId| params.quantised(id) == Some(WeightFormat::F8E4M3);
    params.ids().filter(is_fp8).collect()
}

#[test]
fn fp8_weights_equal_their_f32_values() -> Result<(), ModelError> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let device = Device::cpu(Some(2));
    let others =
        [Fp8 { block: [48, 256], block_in_config: true, ..REAL }, Fp8 { scales: None, ..REAL }];
    for (i, fp8) in [REAL].iter().chain(&others).enumerate() {
        let folder = dir.path().join(i.to_string());
        fp8.write(&folder)?;
        let (model, params) = load_model(&folder, &device)?;
        let (inference_model, inference) = load_model_for_inference(&folder, &device)?;
        for id in inference.ids() {
            assert_eq!(
                bits(&inference.read(id)),
                bits(&params.read(id)),
                "{}",
                params.spec(id).name
            );
        }
        // Per layer five attention matrices and three per MLP, except for the matrix without whole
        // blocks per row.
        let fp8_weights = in_fp8(&inference);
        assert_eq!(fp8_weights.len(), 2 * 5 + 2 + 9 * 3);
        assert!(in_fp8(&params).is_empty());
        for part in ["experts.7.down_proj", "kv_b_proj", "0.mlp.up_proj"] {
            assert!(fp8_weights.iter().any(|&id| inference.spec(id).name.contains(part)), "{part}");
        }
        // Without scales, values are so large that rounding decides the largest logit.
        if fp8.scales.is_some() {
            let (expected, ours) =
                (answers(&model, &params)?, answers(&inference_model, &inference)?);
            assert_same(&ours, &expected, &format!("{:?}", fp8.block));
        }
        // The engine may pad the last tiles.
        let (estimated, actual) = (
            ModelFiles::open(&folder)?.inference_bytes()?,
            inference.ids().map(|id| inference.bytes(id) as u64).sum::<u64>(),
        );
        let bounds = estimated..=estimated + estimated / 20;
        assert!(bounds.contains(&actual), "{estimated} bytes estimated, {actual} allocated");
    }
    Ok(())
}

#[test]
fn unsupported_fp8_blocks_are_converted_to_f32() -> Result<(), ModelError> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let device = Device::cpu(Some(2));
    let mut folders = vec![Path::new(GOLDEN).join("deepseek-v3-fp8")];
    let across = Fp8 { block: [128, 96], block_in_config: true, ..REAL };
    for (i, fp8) in [across, Fp8 { dtype: "F8_E5M2", ..REAL }].iter().enumerate() {
        folders.push(dir.path().join(i.to_string()));
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
fn wrong_scales_are_refused_in_training_and_inference() -> Result<(), ModelError> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path();
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
