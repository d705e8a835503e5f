//! bf16: operations equal the plain reference on rounded operands, and gradients of a transformer
//! are near those in f32.

use std::sync::Arc;

use crisol_engine::{
    Device, Grads, Init, ParamSpec, Params, Precision, QuantisedMatrix, Role, Tape, Var,
    WeightFormat, Workspace,
};

use crate::harness::{Random, id, input, offsets, params};
use crate::reference::{self, Matrix, bf16, gemm_bf16};
use crate::transformer::{Cached, VOCAB, forward, new_cache, new_params};

fn device() -> Device {
    Device::cpu(Some(1)).with_precision(Precision::Bf16)
}

fn matrix(params: &Params, name: &str) -> Matrix {
    let id = id(params, name);
    let shape = &params.spec(id).shape;
    Matrix::from_f32(shape[0], shape[1], &params.read(id))
}

fn assert_close(what: &str, result: &[f32], expected: &Matrix) {
    let size = expected.data.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
    assert_eq!(result.len(), expected.data.len(), "{what}");
    for (i, (&x, expected)) in result.iter().zip(&expected.data).enumerate() {
        let error = (f64::from(x) - expected).abs();
        assert!(error <= 1e-5 * size, "{what} {i}: {x} where the reference has {expected}");
    }
}

/// Output and gradients of `x · Wᵀ` for the output's gradient `dy`.
fn linear(params: &Params, dy: &[f32]) -> (Vec<f32>, Grads) {
    let mut workspace = Workspace::new(params.device());
    let mut tape = Tape::training(params, &mut workspace);
    let x = input(&mut tape, "x");
    let y = tape.linear(x, id(params, "w"), None);
    let output = tape.read(y).to_vec();
    let mut grads = Grads::zeros_like(params);
    tape.backward(&[(y, dy)], &mut grads);
    (output, grads)
}

/// Forward and both gradients are of rounded operands and are not rounded themselves. The last
/// weight is too large for packed copies to be kept.
#[test]
fn linear_rounds_operands_and_nothing_else() {
    for (rows, inner, cols) in [(1, 1, 1), (7, 33, 5), (61, 40, 67), (130, 3001, 11_200)] {
        let device = device();
        let large = rows == 130;
        let specs: [(&str, &[usize]); 2] = [("x", &[rows, inner]), ("w", &[cols, inner])];
        let params = params(&device, &specs, 1.0, 42);
        assert_eq!(Params::would_cache_packed(params.count()), !large);
        let mut random = Random::new(7);
        let dy: Vec<f32> = (0..rows * cols).map(|_| random.uniform()).collect();
        let (y, grads) = linear(&params, &dy);
        if large {
            // The reference would take minutes. A row and a column of it:
            let (x, w) = (params.read(id(&params, "x")), params.read(id(&params, "w")));
            let product = |l: usize, row: usize, col: usize| {
                bf16(x[row * inner + l].into()) * bf16(w[col * inner + l].into())
            };
            for at in (0..rows * cols).step_by(rows * cols / 50) {
                let expected: f64 = (0..inner).map(|l| product(l, at / cols, at % cols)).sum();
                let error = (f64::from(y[at]) - expected).abs();
                assert!(error < 1e-3, "{at}: {} where the reference has {expected}", y[at]);
            }
            continue;
        }
        let (x, w) = (matrix(&params, "x"), matrix(&params, "w"));
        let dy = Matrix::from_f32(rows, cols, &dy);
        assert_close("y", &y, &gemm_bf16(1.0, &x, &w.transposed()));
        let grad = |name| grads.read(id(&params, name));
        assert_close("dx", &grad("x"), &gemm_bf16(1.0, &dy, &w));
        assert_close("dw", &grad("w"), &gemm_bf16(1.0, &dy.transposed(), &x));
    }
}

/// Stored weights: values in half precision with an odd inner dimension, and quantised ones;
/// forward, and backward to the input. A few rows are multiplied with the codes, which are exact in
/// bf16, before the scales; for many rows weights are rounded.
#[test]
fn stored_weights_are_widened_to_bf16() {
    let cases = [
        (WeightFormat::F16, 37),
        (WeightFormat::Bf16, 37),
        (WeightFormat::F32, 33),
        (WeightFormat::Q8_0, 64),
        (WeightFormat::Q4_0, 96),
        (WeightFormat::Q4_1, 96),
        (WeightFormat::Mxfp4, 96),
    ];
    for (format, cols) in cases {
        let scaled = matches!(
            format,
            WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4_1 | WeightFormat::Mxfp4
        );
        for rows in [1, 3, 8, 23, 48, 49, 140] {
            let device = device();
            let mut random = Random::new(5);
            let out = 77;
            let stored: Vec<Vec<u8>> =
                (0..out).map(|_| stored_row(format, cols, &mut random)).collect();
            let packed = QuantisedMatrix::new(&device, format, [out, cols], |i| &stored[i], |_| ());
            let spec = |name: &str, shape: [usize; 2]| ParamSpec {
                name: name.into(),
                shape: shape.into(),
                init: Init::Normal(1.0),
                role: Role::Hidden,
            };
            let base =
                Params::with_quantised(&device, vec![spec("w", [out, cols])], vec![Some(packed)]);
            let params = Params::over(&Arc::new(base), vec![spec("x", [rows, cols])], 3);
            let dy: Vec<f32> = (0..rows * out).map(|_| random.uniform()).collect();
            let (y, grads) = linear(&params, &dy);
            let (x, w) = (matrix(&params, "x"), matrix(&params, "w"));
            let expected = if scaled && rows <= 48 {
                reference::gemm(1.0, &x.map(bf16), &w.transposed())
            } else {
                gemm_bf16(1.0, &x, &w.transposed())
            };
            assert_close(&format!("{format:?}, {rows} rows"), &y, &expected);
            let dx = gemm_bf16(1.0, &Matrix::from_f32(rows, out, &dy), &w);
            assert_close("dx", &grads.read(id(&params, "x")), &dx);
        }
    }
}

/// A row of random values of about 1.
fn stored_row(format: WeightFormat, cols: usize, random: &mut Random) -> Vec<u8> {
    let (columns, bytes) = format.block();
    let mut row = Vec::new();
    for _ in 0..cols / columns {
        let mut block: Vec<u8> = (0..bytes).map(|_| random.between(0, 255) as u8).collect();
        match format {
            WeightFormat::F32 => block.copy_from_slice(&random.uniform().to_le_bytes()),
            WeightFormat::Bf16 => block.copy_from_slice(&random.uniform().to_le_bytes()[2..]),
            // Exponents from 2^-15 to 1, and a scale of 2^-7.
            WeightFormat::F16 => block[1] &= 0b1011_1111,
            WeightFormat::Q8_0 => block[..2].copy_from_slice(&0x2000_u16.to_le_bytes()),
            // Scales from 1/4 to 1.
            WeightFormat::Mxfp4 => block[0] = 125 + block[0] % 3,
            WeightFormat::Q4_0 => block[..2].copy_from_slice(&0x3000_u16.to_le_bytes()),
            // A scale of 1/8 and a minimum of -1.
            WeightFormat::Q4_1 => {
                block[..2].copy_from_slice(&0x3000_u16.to_le_bytes());
                block[2..4].copy_from_slice(&0xbc00_u16.to_le_bytes());
            }
            other => panic!("the test has no rows of {other:?}"),
        }
        row.extend(block);
    }
    row
}

/// Log-probabilities of a transformer and its gradients.
fn trained(precision: Precision) -> (Vec<f32>, Vec<Vec<f32>>) {
    let device = Device::cpu(Some(1)).with_precision(precision);
    let params = new_params(&device);
    let mut random = Random::new(3);
    let starts = offsets(&[61, 7, 90]);
    let (ids, targets) = (random.ids(158, VOCAB), random.ids(158, VOCAB));
    let mut workspace = Workspace::new(&device);
    let mut tape = Tape::training(&params, &mut workspace);
    let x = forward(&mut tape, &ids, &starts, None);
    let (logp, entropy) = tape.token_scores(x, id(&params, "embedding"), &targets, 1.0, None, true);
    let logps = tape.read(logp).to_vec();
    let mut grads = Grads::zeros_like(&params);
    let seeds = [(logp, &[-1.0; 158][..]), (entropy, &[0.1; 158])];
    tape.backward(&seeds, &mut grads);
    (logps, params.ids().map(|id| grads.read(id)).collect())
}

/// The error of a gradient, in the norm of a whole parameter, is a few of bf16's roundings (2^-9).
#[test]
fn gradients_are_near_those_in_f32() {
    let [(logps, grads), (rounded_logps, rounded_grads)] =
        [Precision::F32, Precision::Bf16].map(trained);
    for (a, b) in logps.iter().zip(&rounded_logps) {
        assert!((a - b).abs() < 0.05 * (1.0 + a.abs()), "log-prob {b} for {a}");
    }
    for (index, (a, b)) in grads.iter().zip(&rounded_grads).enumerate() {
        let norm = |values: &mut dyn Iterator<Item = f32>| {
            values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
        };
        let error = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
        let size = norm(&mut a.iter().copied());
        // A rounding is off by up to 2^-9, and a gradient goes through some twenty in a row.
        assert!(error > 0.0 && error < 0.04 * size, "parameter {index}: {}", error / size);
    }
}

/// A prompt over a cache is computed as a training pass is.
#[test]
fn prompts_are_rounded_too() {
    let device = device();
    let params = new_params(&device);
    let mut workspace = Workspace::new(&device);
    let (ids, starts) = (Random::new(3).ids(40, VOCAB), [0, 40]);
    let mut read = |f: &dyn Fn(&mut Tape<'_>) -> Var| {
        let mut tape = Tape::inference(&params, &mut workspace);
        let x = f(&mut tape);
        tape.read(x).to_vec()
    };
    let plain = read(&|tape| forward(tape, &ids, &starts, None));
    let cached = read(&|tape| {
        let cache = &mut new_cache(&device, 1, 40);
        forward(tape, &ids, &starts, Some(Cached { cache, slots: &[0] }))
    });
    assert_eq!(plain, cached);
}
