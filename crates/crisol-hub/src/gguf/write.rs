//! Writing GGUF files, version 3: as floats, or quantised to 8 bits.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::metadata::{Array, Metadata, Value};
use super::{ALIGNMENT, ALIGNMENT_KEY, GgmlType, MAGIC, MAX_DIMS};
use crate::encode::{Unfit, bf16s, f16s, f32_to_f16, f32s};
use crate::{HubError, Tensor};

/// llama.cpp refuses longer names (`GGML_MAX_NAME` in `ggml.h` counts the 0 at the end).
const LONGEST_NAME: usize = 63;

/// A tensor to write into a GGUF file, as F32, F16, BF16 or `Q8_0`. Floats are rounded to nearest, ties to even; `Q8_0`
/// is ggml's reference quantisation.
pub type GgufTensor<'a> = Tensor<'a, GgmlType>;

/// Writes a GGUF file (version 3, data aligned to 32 bytes) with these keys and tensors, in the given order. A key
/// `general.alignment` is left out, for it tells of the file that it came from. Values are fetched tensor by
/// tensor; their number must match the shape, and no two tensors may have one name. Not atomic by itself: meant
/// for a file in the folder that [`crate::write_folder_atomically`] is filling.
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

/// Bytes up to the next aligned place.
fn padding(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT) - length
}

/// Checks, before anything is written, that the format has room for the tensors.
fn check(path: &Path, tensors: &[GgufTensor<'_>]) -> Result<(), HubError> {
    let mut names = HashSet::new();
    for tensor in tensors {
        let dtype = tensor.dtype;
        assert!(names.insert(&tensor.name), "two tensors are named {}", tensor.name);
        let refused = |cause: String, remedy| Err(tensor.cannot_be_stored(path, cause, remedy));
        if tensor.name.len() > LONGEST_NAME {
            let cause =
                format!("its name is longer than the {LONGEST_NAME} bytes that llama.cpp accepts");
            return refused(cause, "Rename the tensor");
        }
        if tensor.shape.len() > MAX_DIMS {
            let cause = format!("it has more than the {MAX_DIMS} dimensions that ggml knows");
            return refused(cause, "Reshape or split it");
        }
        let block = dtype.block_len();
        match dtype {
            GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 | GgmlType::Q8_0 => {}
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

/// Everything before the data, padding included.
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

/// Appends the blocks of `values` (whole blocks) to `out`.
fn encode(dtype: GgmlType, values: &[f32], out: &mut Vec<u8>) -> Result<(), Unfit> {
    match dtype {
        GgmlType::F32 => f32s(values, out),
        GgmlType::F16 => f16s(values, out)?,
        GgmlType::BF16 => bf16s(values, out)?,
        GgmlType::Q8_0 => {
            for (number, block) in values.as_chunks().0.iter().enumerate() {
                q8_0(block, out).map_err(|unfit| Unfit {
                    index: number * block.len() + unfit.index,
                    ..unfit
                })?;
            }
        }
        _ => unreachable!("refused by `check`"),
    }
    Ok(())
}

/// Scale f16, 32 × i8: ggml's reference (`quantize_row_q8_0_ref`). The scale that values are divided by is the one
/// before it is rounded to f16.
fn q8_0(values: &[f32; 32], out: &mut Vec<u8>) -> Result<(), Unfit> {
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(Unfit { index, what: "is not a finite number" });
    }
    let largest = values.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let half = f32_to_f16(scale);
    if half == 0x7c00 {
        let index = values.iter().position(|value| value.abs() == largest).unwrap_or(0);
        return Err(Unfit { index, what: "is too large" });
    }
    out.extend(half.to_le_bytes());
    // `round` rounds halves away from zero, as C's roundf.
    out.extend(values.iter().map(|value| ((value * inverse).round() as i8).cast_unsigned()));
    Ok(())
}
