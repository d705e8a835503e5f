//! MXFP4: every code with every scale, in both layouts of files, forward and backward.

use std::sync::Arc;

use crisol_engine::{
    Device, Grads, Init, ParamSpec, Params, QuantisedMatrix, Role, Tape, WeightFormat, Workspace,
};

use crate::harness::{Random, id, input};
use crate::reference::{self, Matrix};

fn spec(name: &str, shape: [usize; 2]) -> ParamSpec {
    let init = Init::Normal(1.0);
    ParamSpec { name: name.into(), shape: shape.into(), init, role: Role::Hidden }
}

/// Parameters of a matrix with these rows.
fn frozen(rows: &[Vec<u8>], cols: usize) -> Params {
    let device = Device::cpu(Some(1));
    let shape = [rows.len(), cols];
    let matrix = QuantisedMatrix::new(&device, WeightFormat::Mxfp4, shape, |i| &rows[i], |_| ());
    Params::with_quantised(&device, vec![spec("w", shape)], vec![Some(matrix)])
}

#[test]
fn every_code_with_every_scale() {
    // Codes 0 to 15 twice, in an order that tells the halves of bytes apart.
    let codes: Vec<u8> = (0..16).map(|i| i | (i * 7 % 16) << 4).collect();
    let rows: Vec<Vec<u8>> =
        (0..=255).map(|scale| [&[scale], &codes[..], &[127], &codes].concat()).collect();
    let params = frozen(&rows, 64);
    let numbers = params.read(id(&params, "w"));
    for (row, numbers) in rows.iter().zip(numbers.chunks(64)) {
        let expected: Vec<f64> = row.chunks(17).flat_map(reference::mxfp4).collect();
        for (i, (x, expected)) in numbers.iter().zip(&expected).enumerate() {
            let same = f64::from(*x) == f64::from(*expected as f32);
            assert!(same || x.is_nan() && expected.is_nan(), "{} {i}: {x}, {expected}", row[0]);
        }
    }
}

/// gpt-oss's files have neighbouring columns in a byte.
#[test]
fn rows_of_both_layouts_are_equal() {
    let column = |k: usize| ((k * 5 + k / 32) % 16) as u8;
    let codes: Vec<u8> = (0..32).map(|i| column(2 * i) | column(2 * i + 1) << 4).collect();
    let row = WeightFormat::mxfp4_row(&[127, 130], &codes);
    let magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let params = frozen(&[row], 64);
    for (k, x) in params.read(id(&params, "w")).into_iter().enumerate() {
        let (code, scale) = (column(k), if k < 32 { 1.0 } else { 8.0 });
        let sign = if code < 8 { 1.0 } else { -1.0 };
        assert_eq!(x, sign * scale * magnitudes[usize::from(code % 8)], "column {k}");
    }
}

#[test]
#[should_panic(expected = "codes of 2 scales")]
fn parts_of_unequal_length_are_refused() {
    WeightFormat::mxfp4_row(&[127, 130], &[0; 16]);
}

/// Few rows are widened in registers, many in panels; backward goes to the input.
#[test]
fn forward_and_backward_equal_the_reference() {
    let (out, cols) = (77, 96);
    let mut random = Random::new(5);
    let rows: Vec<Vec<u8>> = (0..out)
        .map(|_| {
            let mut row: Vec<u8> = (0..3 * 17).map(|_| random.between(0, 255) as u8).collect();
            row.iter_mut().step_by(17).for_each(|scale| *scale = 125 + *scale % 3);
            row
        })
        .collect();
    let base = Arc::new(frozen(&rows, cols));
    let numbers = rows.iter().flat_map(|row| row.chunks(17).flat_map(reference::mxfp4));
    let w = Matrix { rows: out, cols, data: numbers.collect() };
    for n in [1, 5, 8, 140] {
        let params = Params::over(&base, vec![spec("x", [n, cols])], 3);
        let x = Matrix::from_f32(n, cols, &params.read(id(&params, "x")));
        let dy: Vec<f32> = (0..n * out).map(|_| random.uniform()).collect();
        let mut workspace = Workspace::new(params.device());
        let mut tape = Tape::training(&params, &mut workspace);
        let x_var = input(&mut tape, "x");
        let y = tape.linear(x_var, id(&params, "w"), None);
        let result = tape.read(y).to_vec();
        let mut grads = Grads::zeros_like(&params);
        tape.backward(&[(y, &dy)], &mut grads);
        let expected = reference::linear(&x, &w, None);
        let dx = reference::gemm(1.0, &Matrix::from_f32(n, out, &dy), &w);
        for (name, result, expected) in
            [("y", result, expected), ("dx", grads.read(id(&params, "x")), dx)]
        {
            let size = expected.data.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
            for (x, expected) in result.iter().zip(&expected.data) {
                let error = (f64::from(*x) - expected).abs();
                assert!(error < 1e-5 * size, "{name} of {n} rows: {x} and {expected}");
            }
        }
    }
}
