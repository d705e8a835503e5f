//! Writes GGUF files, version 3: F32, F16, BF16, `Q8_0` and MXFP4.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::blocks::E2M1;
use super::metadata::{Array, Metadata, Value};
use super::{ALIGNMENT, ALIGNMENT_KEY, GgmlType, MAGIC, MAX_DIMS};
use crate::encode::{EncodeError, encode_bf16, encode_f16, encode_f32, f32_to_f16};
use crate::{HubError, Tensor};

/// `GGML_MAX_NAME` in `ggml.h`, without the terminating 0.
const MAX_NAME: usize = 63;

/// A tensor to write as F32, F16, BF16, `Q8_0` or MXFP4. Floats are rounded to nearest even; `Q8_0`
/// is ggml's reference quantisation. MXFP4 is for numbers that were read from it: others are an
/// error.
pub type GgufTensor<'a> = Tensor<'a, GgmlType>;

/// Writes a GGUF file (version 3, data aligned to 32 bytes) in the given order.
///
/// The key `general.alignment` is dropped, since it describes the source file. Values are fetched
/// one tensor at a time; their number must match the shape. Tensor names must be unique. Not
/// atomic: use it within [`crate::write_folder_atomically`] or
/// [`crate::write_file_atomically_with`].
pub fn write_gguf(
    path: &Path,
    metadata: &Metadata,
    tensors: &[GgufTensor<'_>],
) -> Result<(), HubError> {
    check(path, tensors)?;
    let header = header(metadata, tensors);
    let failed = |e| HubError::io("write", path, e);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    let mut write = |bytes: &[u8]| out.write_all(bytes).map_err(failed);
    write(&header)?;
    for tensor in tensors {
        let written = tensor.write_values(path, encode, &mut write)?;
        write(&[0; ALIGNMENT][..padding(written)])?;
    }
    out.into_inner().map(drop).map_err(|e| failed(e.into_error()))
}

/// Bytes to the next multiple of the alignment.
fn padding(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT) - length
}

/// Checks that the format can represent the tensors, before anything is written.
fn check(path: &Path, tensors: &[GgufTensor<'_>]) -> Result<(), HubError> {
    let mut names = HashSet::new();
    for tensor in tensors {
        let dtype = tensor.dtype;
        assert!(names.insert(&tensor.name), "two tensors are named {}", tensor.name);
        let refused = |cause: String, remedy| Err(tensor.encode_error(path, cause, remedy));
        if tensor.name.len() > MAX_NAME {
            let cause =
                format!("its name is longer than the {MAX_NAME} bytes that llama.cpp accepts");
            return refused(cause, "Rename the tensor");
        }
        if tensor.shape.len() > MAX_DIMS {
            let cause = format!("it has more than the {MAX_DIMS} dimensions of ggml");
            return refused(cause, "Reshape or split it");
        }
        let block = dtype.block_len();
        match dtype {
            GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 | GgmlType::Q8_0 | GgmlType::MXFP4 => {}
            _ => {
                return refused(
                    "this type can only be read".into(),
                    "Choose F32, F16, BF16 or Q8_0",
                );
            }
        }
        let row = tensor.shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(block) {
            let cause =
                format!("its rows have {row} values, which is no multiple of a block ({block})");
            return refused(cause, "Store this tensor as F16, BF16 or F32");
        }
    }
    Ok(())
}

/// Everything before the data, including padding.
fn header(metadata: &Metadata, tensors: &[GgufTensor<'_>]) -> Vec<u8> {
    let keys = || metadata.iter().filter(|&(key, _)| key != ALIGNMENT_KEY);
    let mut out = MAGIC.to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((keys().count() as u64).to_le_bytes());
    for (key, value) in keys() {
        put_string(&mut out, key);
        out.extend((value.value_type() as u32).to_le_bytes());
        put_value(&mut out, value);
    }
    let mut offset = 0;
    for tensor in tensors {
        let dtype = tensor.dtype;
        put_string(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        for &dim in tensor.shape.iter().rev() {
            out.extend((dim as u64).to_le_bytes());
        }
        out.extend(dtype.code().to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        let length =
            tensor.shape.iter().product::<usize>() / dtype.block_len() * dtype.block_bytes();
        offset += length + padding(length);
    }
    out.resize(out.len() + padding(out.len()), 0);
    out
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(x) => out.extend(x.to_le_bytes()),
        Value::I8(x) => out.extend(x.to_le_bytes()),
        Value::U16(x) => out.extend(x.to_le_bytes()),
        Value::I16(x) => out.extend(x.to_le_bytes()),
        Value::U32(x) => out.extend(x.to_le_bytes()),
        Value::I32(x) => out.extend(x.to_le_bytes()),
        Value::F32(x) => out.extend(x.to_le_bytes()),
        Value::U64(x) => out.extend(x.to_le_bytes()),
        Value::I64(x) => out.extend(x.to_le_bytes()),
        Value::F64(x) => out.extend(x.to_le_bytes()),
        Value::Bool(x) => out.push(u8::from(*x)),
        Value::String(text) => put_string(out, text),
        Value::Array(array) => put_array(out, array),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    out.extend((array.value_type() as u32).to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(items) => out.extend(items),
        Array::I8(items) => out.extend(items.iter().flat_map(|x| x.to_le_bytes())),
        Array::U16(items) => out.extend(items.iter().flat_map(|x| x.to_le_bytes())),
        Array::I16(items) => out.extend(items.iter().flat_map(|x| x.to_le_bytes())),
        Array::U32(items) => out.extend(items.iter().flat_map(|x| x.to_le_bytes())),
        Array::I32(items) => out.extend(items.iter().flat_map(|x| x.to_le_bytes())),
        Array::F32(items) => out.extend(items.iter().flat_map(|x| x.to_le_bytes())),
        Array::U64(items) => out.extend(items.iter().flat_map(|x| x.to_le_bytes())),
        Array::I64(items) => out.extend(items.iter().flat_map(|x| x.to_le_bytes())),
        Array::F64(items) => out.extend(items.iter().flat_map(|x| x.to_le_bytes())),
        Array::Bool(items) => out.extend(items.iter().map(|&x| u8::from(x))),
        Array::String(items) => items.iter().for_each(|text| put_string(out, text)),
        Array::Array(items) => items.iter().for_each(|array| put_array(out, array)),
    }
}

/// Appends `values`, a whole number of blocks, to `out`.
fn encode(dtype: GgmlType, values: &[f32], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match dtype {
        GgmlType::F32 => encode_f32(values, out),
        GgmlType::F16 => encode_f16(values, out)?,
        GgmlType::BF16 => encode_bf16(values, out)?,
        GgmlType::Q8_0 => {
            for (number, block) in values.as_chunks().0.iter().enumerate() {
                q8_0(block, out).map_err(|error| EncodeError {
                    index: number * block.len() + error.index,
                    ..error
                })?;
            }
        }
        GgmlType::MXFP4 => {
            for (number, block) in values.as_chunks().0.iter().enumerate() {
                mxfp4(block, out).map_err(|error| EncodeError {
                    index: number * block.len() + error.index,
                    ..error
                })?;
            }
        }
        _ => unreachable!("refused by `check`"),
    }
    Ok(())
}

/// Layout: scale f16, 32 × i8. As in ggml's reference (`quantize_row_q8_0_ref`), values are divided
/// by the scale before its rounding to f16.
fn q8_0(values: &[f32; 32], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(EncodeError { index, problem: "is not a finite number" });
    }
    let largest = values.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let half = f32_to_f16(scale);
    if half == 0x7c00 {
        let index = values.iter().position(|value| value.abs() == largest).unwrap_or(0);
        return Err(EncodeError { index, problem: "is too large" });
    }
    out.extend(half.to_le_bytes());
    // `round` rounds ties away from zero, as C's roundf.
    out.extend(values.iter().map(|value| ((value * inverse).round() as i8).cast_unsigned()));
    Ok(())
}

/// Layout: exponent of the scale, 16 bytes of two codes, of columns `i` and `i + 16`. The scale is
/// that of OCP's Microscaling Formats 1.0, section 6.3: the largest code is 4 or 6.
fn mxfp4(values: &[f32; 32], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let largest = values.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
    let scale = ((largest.to_bits() >> 23) as u8).saturating_sub(2);
    let code = |index: usize| {
        let scaled = f64::from(values[index]) / f64::from(i32::from(scale) - 127).exp2();
        let code = E2M1.iter().position(|&known| f64::from(known) == scaled.abs());
        let sign = if scaled.is_sign_negative() { 8 } else { 0 };
        let code = code.ok_or(EncodeError { index, problem: "is no number of MXFP4" })?;
        Ok(code as u8 | sign)
    };
    out.push(scale);
    for column in 0..16 {
        out.push(code(column)? | code(column + 16)? << 4);
    }
    Ok(())
}
