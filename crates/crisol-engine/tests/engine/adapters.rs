//! Frozen weights and their adapters: outputs and gradients are those of a trained twin with the
//! merged weights, `g ∘ (W + s·B·A)`, and the chain rule. Dropout against finite differences.

use std::sync::Arc;

use crisol_engine::{
    Adapter, Device, Experts, Grads, Init, ParamId, ParamSpec, Params, Precision, QuantisedMatrix,
    Role, Tape, Var, WeightFormat, Workspace,
};

use crate::harness::{Random, id, input};
use crate::reference::{Matrix, gemm};

const DIM: usize = 256;
const HIDDEN: usize = 300;
const VOCAB: usize = 1100;
const ROWS: usize = 270;
const RANK: usize = 5;
const SCALE: f32 = 0.7;
/// Frozen matrices and their shapes. More than one part of rows is dequantised of the largest.
const FROZEN: [(&str, [usize; 2]); 5] = [
    ("up", [HIDDEN, DIM]),
    ("head", [VOCAB, DIM]),
    ("expert 0", [DIM, DIM]),
    ("expert 1", [DIM, DIM]),
    ("expert 2", [DIM, DIM]),
];
/// Frozen vectors and their lengths.
const VECTORS: [(&str, usize); 5] = [
    ("norm", DIM),
    ("bias", HIDDEN),
    ("expert bias 0", DIM),
    ("expert bias 1", DIM),
    ("expert bias 2", DIM),
];
/// Those with an adapter. One expert has none.
const ADAPTED: [usize; 3] = [0, 2, 4];

fn spec(name: &str, shape: &[usize], init: Init) -> ParamSpec {
    let role = if shape.len() == 2 { Role::Hidden } else { Role::Vector };
    ParamSpec { name: name.into(), shape: shape.into(), init, role }
}

/// Frozen weights, in a format or as plain f32.
fn base(device: &Device, format: Option<WeightFormat>) -> Params {
    let mut specs: Vec<ParamSpec> =
        FROZEN.iter().map(|(name, shape)| spec(name, shape, Init::Normal(0.06))).collect();
    specs.extend(VECTORS.map(|(name, len)| spec(name, &[len], Init::Uniform(1.0))));
    let Some(format) = format else { return Params::init(device, specs, 3) };
    let mut random = Random::new(9);
    let mut matrices: Vec<Option<QuantisedMatrix>> = FROZEN
        .iter()
        .map(|(_, [rows, cols])| {
            let bytes: Vec<Vec<u8>> =
                (0..*rows).map(|_| row_bytes(format, *cols, &mut random)).collect();
            Some(QuantisedMatrix::new(device, format, [*rows, *cols], |i| &bytes[i], |_| ()))
        })
        .collect();
    matrices.extend(VECTORS.map(|_| None));
    let mut params = Params::with_quantised(device, specs, matrices);
    for (name, _) in VECTORS {
        let id = id(&params, name);
        let values: Vec<f32> = params.read(id).iter().map(|_| random.uniform()).collect();
        params.write(id, &values);
    }
    params
}

/// A row of random codes with scales that make weights of about 0.06.
fn row_bytes(format: WeightFormat, cols: usize, random: &mut Random) -> Vec<u8> {
    let half = |value: f32| half_bits(value).to_le_bytes();
    let mut row = Vec::new();
    let (columns, bytes) = format.block();
    for _ in 0..cols / columns {
        let mut block: Vec<u8> = (0..bytes).map(|_| random.between(0, 255) as u8).collect();
        match format {
            WeightFormat::F32 => block.copy_from_slice(&(0.1 * random.uniform()).to_le_bytes()),
            WeightFormat::F16 => block.copy_from_slice(&half(0.1 * random.uniform())),
            WeightFormat::Bf16 => {
                block.copy_from_slice(&(0.1 * random.uniform()).to_le_bytes()[2..]);
            }
            WeightFormat::Q8_0 => block[..2].copy_from_slice(&half(1e-3)),
            WeightFormat::Mxfp4 => block[0] = 122,
            WeightFormat::Q4_1 => {
                block[..2].copy_from_slice(&half(0.012));
                block[2..4].copy_from_slice(&half(-0.09));
            }
            WeightFormat::Q4K => {
                block[..2].copy_from_slice(&half(2e-4));
                block[2..4].copy_from_slice(&half(2e-3));
            }
            other => panic!("the test has no rows of {other:?}"),
        }
        row.extend(block);
    }
    row
}

/// Bits of a small normal number in half precision, rounded towards zero.
fn half_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 - 112;
    let magnitude = if exponent <= 0 { 0 } else { (exponent as u32) << 10 | bits >> 13 & 0x3ff };
    (bits >> 16 & 0x8000) as u16 | magnitude as u16
}

/// The overlay: the input, and an adapter for each of [`ADAPTED`], with magnitudes or without.
fn overlay(base: &Arc<Params>, magnitudes: bool) -> Params {
    let mut specs = vec![spec("x", &[ROWS, DIM], Init::Normal(1.0))];
    for weight in ADAPTED {
        let (name, [rows, cols]) = FROZEN[weight];
        specs.push(spec(&format!("{name}.A"), &[RANK, cols], Init::Normal(0.1)));
        specs.push(spec(&format!("{name}.B"), &[rows, RANK], Init::Normal(0.1)));
        if magnitudes {
            specs.push(spec(&format!("{name}.m"), &[rows], Init::Normal(1.0)));
        }
    }
    let mut params = Params::over(base, specs, 11);
    for weight in ADAPTED {
        let name = FROZEN[weight].0;
        let part = |part: &str| id(&params, &format!("{name}.{part}"));
        let magnitude = magnitudes.then(|| part("m"));
        let adapter = Adapter { a: part("A"), b: part("B"), scale: SCALE, magnitude };
        params.adapt(id(&params, name), adapter);
    }
    params
}

/// `W + s·B·A`, and the gain of each of its rows.
fn updated(params: &Params, weight: ParamId) -> (Matrix, Vec<f64>) {
    let mut updated = matrix(params, &params.read(weight), weight);
    let Some(Adapter { a, b, scale, magnitude }) = params.adapter(weight) else {
        let ones = vec![1.0; updated.rows];
        return (updated, ones);
    };
    let [a, b] = [a, b].map(|id| matrix(params, &params.read(id), id));
    for (value, update) in updated.data.iter_mut().zip(gemm(f64::from(scale), &b, &a).data) {
        *value += update;
    }
    let norm = |row: &[f64]| row.iter().map(|value| value * value).sum::<f64>().sqrt();
    let gains = match magnitude.map(|id| params.read(id)) {
        None => vec![1.0; updated.rows],
        Some(m) => {
            let rows = updated.data.chunks_exact(updated.cols);
            m.into_iter().zip(rows).map(|(m, row)| f64::from(m) / norm(row)).collect()
        }
    };
    (updated, gains)
}

/// Everything trained, with the adapters merged.
fn merged(device: &Device, params: &Params) -> Params {
    let mut specs = vec![spec("x", &[ROWS, DIM], Init::Zeros)];
    let names = FROZEN.map(|(name, _)| name).into_iter().chain(VECTORS.map(|(name, _)| name));
    specs.extend(names.map(|name| params.spec(id(params, name)).clone()));
    let mut twin = Params::zeros(device, specs);
    for at in twin.ids() {
        let name = twin.spec(at).name.clone();
        let weight = id(params, &name);
        if params.spec(weight).shape.len() == 1 {
            twin.write(at, &params.read(weight));
            continue;
        }
        let (updated, gains) = updated(params, weight);
        let rows = updated.data.chunks_exact(updated.cols).zip(&gains);
        let values: Vec<f32> =
            rows.flat_map(|(row, gain)| row.iter().map(move |x| (gain * x) as f32)).collect();
        twin.write(at, &values);
    }
    twin
}

fn matrix(params: &Params, values: &[f32], id: ParamId) -> Matrix {
    let shape = &params.spec(id).shape;
    Matrix::from_f32(shape[0], shape[1], values)
}

/// Every operation with weights.
fn network(tape: &mut Tape<'_>) -> Vec<Var> {
    let [up, head, first, norm, bias, first_bias] =
        ["up", "head", "expert 0", "norm", "bias", "expert bias 0"]
            .map(|name| id(tape.params(), name));
    let x = input(tape, "x");
    let x = tape.rms_norm(x, norm, 1e-5);
    let up = tape.linear(x, up, Some(bias));
    let experts = Experts { first, count: 3 };
    let biases = Experts { first: first_bias, ..experts };
    let x = tape.grouped_linear(x, experts, Some(biases), &[0, 100, 130, ROWS as u32]);
    let targets: Vec<u32> = (0..ROWS as u32).map(|row| row * 4).collect();
    let (logp, entropy) = tape.token_scores(x, head, &targets, 0.9, None, true);
    vec![up, logp, entropy]
}

/// Outputs and gradients. With a key, a part of the adapters' inputs is dropped.
fn run(params: &Params, key: Option<u64>) -> (Vec<Vec<f32>>, Grads) {
    let mut grads = Grads::zeros_like(params);
    let outputs = params.device().run(|workspace: &mut Workspace| {
        let mut tape = Tape::training(params, workspace);
        if let Some(key) = key {
            tape.set_dropout_key(key);
        }
        let vars = network(&mut tape);
        let outputs: Vec<Vec<f32>> = vars.iter().map(|&var| tape.read(var).to_vec()).collect();
        let mut random = Random::new(5);
        let seeds: Vec<Vec<f32>> = outputs
            .iter()
            .map(|output| output.iter().map(|_| random.uniform()).collect())
            .collect();
        let seeded: Vec<(Var, &[f32])> =
            vars.iter().zip(&seeds).map(|(&var, seed)| (var, &seed[..])).collect();
        tape.backward(&seeded, &mut grads);
        outputs
    });
    (outputs, grads)
}

#[track_caller]
fn assert_close(what: &str, values: &[f32], expected: impl IntoIterator<Item = f64>) {
    let expected: Vec<f64> = expected.into_iter().collect();
    assert_eq!(values.len(), expected.len(), "{what}");
    let size = expected.iter().fold(0.0_f64, |size, value| size.max(value.abs()));
    assert!(size > 0.0, "{what}: nothing to compare");
    for (i, (&value, expected)) in values.iter().zip(&expected).enumerate() {
        let error = (f64::from(value) - expected).abs();
        assert!(error < 2e-5 * size, "{what}, {i}: {value} where the twin has {expected}");
    }
}

/// Outputs of a view have the bits of parameters that were made in its precision, and the
/// parameters can change after it.
#[test]
fn a_view_in_another_precision_equals_parameters_in_it() {
    let device = Device::cpu(Some(1));
    for (format, magnitudes) in [(None, true), (Some(WeightFormat::Q4_1), true), (None, false)] {
        let [(_, outputs), (mut rounded, before)] =
            [Precision::F32, Precision::Bf16].map(|precision| {
                let base = Arc::new(base(&device.with_precision(precision), format));
                let params = overlay(&base, magnitudes);
                let outputs = run(&params, None).0;
                (params, outputs)
            });
        assert_ne!(before, outputs, "{format:?}");
        assert_eq!(run(&rounded.in_precision(Precision::F32), None).0, outputs, "{format:?}");
        assert_eq!(run(&rounded.in_precision(Precision::Bf16), None).0, before, "{format:?}");
        let x = id(&rounded, "x");
        rounded.write(x, &rounded.read(x));
        assert_eq!(run(&rounded, None).0, before, "{format:?}");
    }
}

#[test]
fn frozen_weights_with_adapters_equal_merged_ones() {
    use WeightFormat::{Bf16, F16, F32, Mxfp4, Q4_1, Q4K, Q8_0};
    let formats = [F32, F16, Bf16, Q8_0, Q4_1, Q4K, Mxfp4].map(Some);
    for format in [None].into_iter().chain(formats) {
        let base = Arc::new(base(&Device::cpu(Some(1)), format));
        equals_merged(&format!("{format:?}"), &overlay(&base, false));
        equals_merged(&format!("{format:?} with magnitudes"), &overlay(&base, true));
    }
}

fn equals_merged(what: &str, params: &Params) {
    let twin = merged(params.device(), params);
    let (outputs, grads) = run(params, None);
    let (expected, expected_grads) = run(&twin, None);
    for (output, expected) in outputs.iter().zip(&expected) {
        assert_close(&format!("{what}: outputs"), output, expected.iter().copied().map(f64::from));
    }
    let of_input = expected_grads.read(id(&twin, "x")).into_iter().map(f64::from);
    assert_close(&format!("{what}: x"), &grads.read(id(params, "x")), of_input);
    for weight in ADAPTED {
        let name = FROZEN[weight].0;
        let weight = id(params, name);
        let Adapter { a, b, scale, magnitude } = params.adapter(weight).unwrap();
        let (updated, gains) = updated(params, weight);
        let mut dw = matrix(&twin, &expected_grads.read(id(&twin, name)), id(&twin, name));
        for (row, gain) in dw.data.chunks_exact_mut(updated.cols).zip(&gains) {
            for value in row {
                *value *= gain;
            }
        }
        let [a_mat, b_mat] = [a, b].map(|id| matrix(params, &params.read(id), id));
        let scaled = |m: Matrix| m.data.into_iter().map(move |x| f64::from(scale) * x);
        let (da, db) = (gemm(1.0, &b_mat.transposed(), &dw), gemm(1.0, &dw, &a_mat.transposed()));
        assert_close(&format!("{what}: A of {name}"), &grads.read(a), scaled(da));
        assert_close(&format!("{what}: B of {name}"), &grads.read(b), scaled(db));
        let Some(magnitude) = magnitude else { continue };
        // The norm is a constant: dm_j = dW_j·updated_j / m_j, as the output is linear in m.
        let rows = dw.data.chunks_exact(updated.cols).zip(updated.data.chunks_exact(updated.cols));
        let dm = rows.zip(params.read(magnitude)).map(|((dw, row), m)| {
            dw.iter().zip(row).map(|(dw, w)| dw * w).sum::<f64>() / f64::from(m)
        });
        assert_close(&format!("{what}: m of {name}"), &grads.read(magnitude), dm);
    }
}

/// The whole network is compared through its sum, weighted as the gradients are seeded.
fn weighted_sum(outputs: &[Vec<f32>]) -> f64 {
    let mut random = Random::new(5);
    outputs.iter().flatten().map(|&output| f64::from(output) * f64::from(random.uniform())).sum()
}

#[test]
fn gradients_with_dropout_are_finite_differences() {
    for magnitudes in [false, true] {
        let device = Device::cpu(Some(1));
        let mut params = overlay(&Arc::new(base(&device, None)), magnitudes);
        let plain = run(&params, Some(7)).0;
        params.set_adapter_dropout(0.3, 1);
        let (outputs, grads) = run(&params, Some(7));
        assert_eq!(run(&params, None).0, plain, "without a key, nothing is dropped");
        assert_ne!(outputs, plain);
        assert_ne!(outputs, run(&params, Some(8)).0);
        assert_eq!(outputs, run(&params, Some(7)).0);
        // One step along a direction of all parameters but the norms' A and B, which the gradient
        // of magnitudes takes as constants.
        let names: &[&str] = if magnitudes {
            &["x", "up.m", "expert 0.m"]
        } else {
            &["x", "up.A", "up.B", "expert 2.A", "expert 2.B"]
        };
        for name in names {
            let at = id(&params, name);
            let before = params.read(at);
            let mut random = Random::new(17);
            let direction: Vec<f32> = before.iter().map(|_| random.uniform() - 0.5).collect();
            let gradient = grads.read(at);
            let expected: f64 =
                gradient.iter().zip(&direction).map(|(&g, &d)| f64::from(g) * f64::from(d)).sum();
            let step = 1e-2;
            let mut moved = |sign: f32| {
                let values: Vec<f32> =
                    before.iter().zip(&direction).map(|(x, d)| x + sign * step * d).collect();
                params.write(at, &values);
                weighted_sum(&run(&params, Some(7)).0)
            };
            let difference = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(step));
            params.write(at, &before);
            let size = expected.abs().max(1.0);
            assert!(
                (difference - expected).abs() < 1e-2 * size,
                "{name}: {expected}, by differences {difference}"
            );
        }
    }
}

/// As in PEFT, y = (x - x̂)·Wᵀ + g ∘ (x̂·Wᵀ + s·x̂·Aᵀ·Bᵀ). With A = W and B = b·I, the same product
/// x̂·Wᵀ is in a plain adapter's output too.
#[test]
fn with_magnitudes_what_is_dropped_reaches_the_weight_unscaled() {
    const SIZE: usize = 64;
    let device = Device::cpu(Some(1));
    let weight = vec![spec("w", &[SIZE, SIZE], Init::Normal(0.1))];
    let base = Arc::new(Params::init(&device, weight, 3));
    let w = id(&base, "w");
    let mut random = Random::new(4);
    let x: Vec<f32> = (0..SIZE * SIZE).map(|_| random.uniform() - 0.5).collect();
    let run = |b: f32, magnitudes: Option<&[f32]>, rate: f32| {
        let specs = vec![
            spec("A", &[SIZE, SIZE], Init::Zeros),
            spec("B", &[SIZE, SIZE], Init::Zeros),
            spec("m", &[SIZE], Init::Zeros),
        ];
        let mut params = Params::over(&base, specs, 1);
        let [a, own_b, m] = ["A", "B", "m"].map(|name| id(&params, name));
        params.write(a, &base.read(w));
        let diagonal = |i: usize| if i.is_multiple_of(SIZE + 1) { b } else { 0.0 };
        params.write(own_b, &(0..SIZE * SIZE).map(diagonal).collect::<Vec<_>>());
        params.write(m, magnitudes.unwrap_or(&[0.0; SIZE]));
        let magnitude = magnitudes.map(|_| m);
        params.adapt(w, Adapter { a, b: own_b, scale: 1.0, magnitude });
        params.set_adapter_dropout(rate, 1);
        device.run(|workspace: &mut Workspace| {
            let mut tape = Tape::training(&params, workspace);
            tape.set_dropout_key(7);
            let x = tape.constant(SIZE, SIZE, &x);
            let y = tape.linear(x, w, None);
            tape.read(y).to_vec()
        })
    };
    let whole = run(0.0, None, 0.0);
    let kept: Vec<f32> = run(1.0, None, 0.3).iter().zip(&whole).map(|(y, x)| y - x).collect();
    let m: Vec<f32> = (0..SIZE).map(|_| 1.0 + random.uniform()).collect();
    let norms = base.row_norms(w);
    let expected = (0..SIZE * SIZE).map(|i| {
        let gain = m[i % SIZE] / norms[i % SIZE];
        f64::from(whole[i] - kept[i] + gain * kept[i])
    });
    assert_close("outputs", &run(0.5, Some(&m), 0.3), expected);
}

/// Fewer rows than quantised weights are widened for, whose products add to others.
#[test]
fn a_few_rows_with_magnitudes_and_dropout_are_those_of_many() {
    let device = Device::cpu(Some(1));
    let base = Arc::new(base(&device, Some(WeightFormat::Q4_1)));
    let mut params = overlay(&base, true);
    params.set_adapter_dropout(0.3, 1);
    let (x, weight) = (params.read(id(&params, "x")), id(&params, "up"));
    let run = |rows: usize| {
        device.run(|workspace: &mut Workspace| {
            let mut tape = Tape::training(&params, workspace);
            tape.set_dropout_key(7);
            let x = tape.constant(rows, DIM, &x[..rows * DIM]);
            let y = tape.linear(x, weight, None);
            tape.read(y).to_vec()
        })
    };
    let many = run(60);
    for rows in [1, 3, 7] {
        let expected = many[..rows * HIDDEN].iter().copied().map(f64::from);
        assert_close(&format!("{rows} rows"), &run(rows), expected);
    }
}

#[test]
fn the_norms_of_rows_are_those_with_which_magnitudes_change_nothing() {
    for format in [None, Some(WeightFormat::Q4_1)] {
        let device = Device::cpu(Some(1));
        let mut params = overlay(&Arc::new(base(&device, format)), true);
        let mut plain = overlay(params.base().unwrap(), false);
        for weight in ADAPTED {
            let name = FROZEN[weight].0;
            let (weight, b) = (id(&params, name), id(&params, &format!("{name}.B")));
            let norms = params.row_norms(weight);
            params.write(id(&params, &format!("{name}.m")), &norms);
            params.write(b, &vec![0.0; params.read(b).len()]);
            let b = id(&plain, &format!("{name}.B"));
            plain.write(b, &vec![0.0; plain.read(b).len()]);
        }
        for (output, expected) in run(&params, None).0.iter().zip(&run(&plain, None).0) {
            let expected = expected.iter().copied().map(f64::from);
            assert_close(&format!("{format:?}"), output, expected);
        }
    }
}

#[test]
fn threads_change_no_bit_of_gradients_through_frozen_weights() {
    for format in [None, Some(WeightFormat::Q4_1)] {
        let bits = |threads: usize| {
            let device = Device::cpu(Some(threads));
            let mut params = overlay(&Arc::new(base(&device, format)), true);
            params.set_adapter_dropout(0.1, 3);
            let (outputs, grads) = run(&params, Some(1));
            let grads = params.ids().flat_map(|id| grads.read(id));
            outputs.concat().into_iter().chain(grads).map(f32::to_bits).collect::<Vec<_>>()
        };
        let one = bits(1);
        for threads in [2, 3] {
            assert!(bits(threads) == one, "{format:?} on {threads} threads");
        }
    }
}

#[test]
fn a_copy_shares_the_base_and_an_overlay_trains_only_its_own() {
    let device = Device::cpu(Some(1));
    let base = Arc::new(base(&device, Some(WeightFormat::Q8_0)));
    let params = overlay(&base, false);
    assert_eq!(params.ids().count(), 1 + 2 * ADAPTED.len());
    let mut copy = params.duplicate();
    assert!(Arc::ptr_eq(copy.base().unwrap(), &base));
    let a = id(&params, "up.A");
    copy.write(a, &vec![0.0; RANK * DIM]);
    assert!(params.read(a).iter().any(|&value| value != 0.0));
    assert_eq!(params.adapter(id(&params, "head")), None);
}

#[test]
#[should_panic(expected = "parameters of the base have no range")]
fn a_frozen_weight_has_no_gradient_to_read() {
    let device = Device::cpu(Some(1));
    let params = overlay(&Arc::new(base(&device, None)), false);
    let grads = Grads::zeros_like(&params);
    grads.read(id(&params, "head"));
}

#[test]
#[should_panic(expected = "columns of A")]
fn an_adapter_of_another_shape_is_refused() {
    let device = Device::cpu(Some(1));
    let base = Arc::new(base(&device, None));
    let specs =
        vec![spec("A", &[RANK, DIM + 1], Init::Zeros), spec("B", &[HIDDEN, RANK], Init::Zeros)];
    let mut params = Params::over(&base, specs, 1);
    let [a, b] = ["A", "B"].map(|name| id(&params, name));
    let adapter = Adapter { a, b, scale: 1.0, magnitude: None };
    params.adapt(id(&params, "up"), adapter);
}
