//! Writing GGUF files, version 3: as floats, or quantised to 8 bits.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::metadata::{Array, Metadata, Value};
use super::{ALIGNMENT, ALIGNMENT_KEY, GgmlType, MAGIC, MAX_DIMS, quoted};
use crate::{HubError, Tensor};

/// llama.cpp refuses longer names (`GGML_MAX_NAME` in `ggml.h` counts the 0 at the end).
const LONGEST_NAME: usize = 63;

/// A tensor to write, and how to store it.
pub struct GgufTensor<'a> {
    /// Name, shape (row-major as in PyTorch) and values.
    pub tensor: Tensor<'a>,
    /// F32, F16, BF16 or `Q8_0`. Floats are rounded to nearest, ties to even; `Q8_0` is ggml's reference
    /// quantisation.
    pub dtype: GgmlType,
}

/// Writes a GGUF file (version 3, data aligned to 32 bytes) with these keys and tensors, in the given order. A key
/// `general.alignment` is left out, for it tells of the file that it came from. Values are fetched tensor by
/// tensor; their number must match the shape, and no two tensors may have one name. Not atomic by itself: meant
/// for a file in the folder that [`crate::write_folder_atomically`] is filling.
pub fn write_gguf(path: &Path, metadata: &Metadata, tensors: &[GgufTensor<'_>]) -> Result<(), HubError> {
    check(path, tensors)?;
    let header = header(metadata, tensors);
    let failed = |e| HubError::io("write", path, e);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    let mut write = |bytes: &[u8]| out.write_all(bytes).map_err(failed);
    write(&header)?;
    let mut blocks = Vec::new();
    for GgufTensor { tensor, dtype } in tensors {
        let values = (tensor.values)();
        assert_eq!(values.len(), tensor.shape.iter().product::<usize>(), "values of {}", tensor.name);
        let mut written = 0;
        // In portions of whole blocks, so that the encoded tensor is never in memory as a whole.
        for (portion, values) in values.chunks(PORTION).enumerate() {
            blocks.clear();
            encode(*dtype, values, &mut blocks).map_err(|Unfit { index, what }| {
                let cause =
                    format!("its value {} (number {}) {what}", values[index], portion * PORTION + index);
                refused(path, tensor, *dtype, cause, "Store the tensor as F32, or mend the model")
            })?;
            write(&blocks)?;
            written += blocks.len();
        }
        write(&[0; ALIGNMENT][..padding(written)])?;
    }
    out.into_inner().map(drop).map_err(|e| failed(e.into_error()))
}

/// Values that are encoded at a time; a multiple of every block.
const PORTION: usize = 1 << 16;

/// Bytes up to the next aligned place.
fn padding(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT) - length
}

fn refused(
    path: &Path,
    tensor: &Tensor<'_>,
    dtype: GgmlType,
    cause: String,
    remedy: &'static str,
) -> HubError {
    let (file, tensor) = (path.to_owned(), quoted(&tensor.name));
    HubError::CannotStore { file, tensor, dtype: dtype.to_string(), cause, remedy }
}

/// Checks, before anything is written, that the format has room for the tensors.
fn check(path: &Path, tensors: &[GgufTensor<'_>]) -> Result<(), HubError> {
    let mut names = HashSet::new();
    for GgufTensor { tensor, dtype } in tensors {
        assert!(names.insert(&tensor.name), "two tensors are named {}", tensor.name);
        let refused = |cause, remedy| Err(refused(path, tensor, *dtype, cause, remedy));
        if tensor.name.len() > LONGEST_NAME {
            let cause = format!("its name is longer than the {LONGEST_NAME} bytes that llama.cpp accepts");
            return refused(cause, "Rename the tensor");
        }
        if tensor.shape.len() > MAX_DIMS {
            let cause = format!("it has more than the {MAX_DIMS} dimensions that ggml knows");
            return refused(cause, "Reshape or split it");
        }
        let block = dtype.block_len();
        match dtype {
            GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 | GgmlType::Q8_0 => {}
            _ => return refused("this type can only be read".into(), "Choose F32, F16, BF16 or Q8_0"),
        }
        let row = tensor.shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(block) {
            let cause = format!("its rows have {row} values, which is no multiple of a block ({block})");
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
    for GgufTensor { tensor, dtype } in tensors {
        put_string(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        for &dim in tensor.shape.iter().rev() {
            out.extend((dim as u64).to_le_bytes());
        }
        out.extend(dtype.code().to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        let length = tensor.shape.iter().product::<usize>() / dtype.block_len() * dtype.block_bytes();
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

/// A value that a type has no room for.
struct Unfit {
    index: usize,
    what: &'static str,
}

/// Appends the blocks of `values` (whole blocks) to `out`.
fn encode(dtype: GgmlType, values: &[f32], out: &mut Vec<u8>) -> Result<(), Unfit> {
    match dtype {
        GgmlType::F32 => out.extend(values.iter().flat_map(|x| x.to_le_bytes())),
        GgmlType::F16 => halves(values, f32_to_f16, 0x7c00, out)?,
        GgmlType::BF16 => halves(values, f32_to_bf16, 0x7f80, out)?,
        GgmlType::Q8_0 => {
            for (number, block) in values.as_chunks().0.iter().enumerate() {
                q8_0(block, out)
                    .map_err(|unfit| Unfit { index: number * block.len() + unfit.index, ..unfit })?;
            }
        }
        _ => unreachable!("refused by `check`"),
    }
    Ok(())
}

/// Two bytes per value; `infinity` is the type's, without sign.
fn halves(values: &[f32], narrow: fn(f32) -> u16, infinity: u16, out: &mut Vec<u8>) -> Result<(), Unfit> {
    for (index, &value) in values.iter().enumerate() {
        let half = narrow(value);
        // Infinities and NaN of the model stay what they are; to make new ones would spoil it unnoticed.
        if half & 0x7fff == infinity && value.is_finite() {
            return Err(Unfit { index, what: "is too large" });
        }
        out.extend(half.to_le_bytes());
    }
    Ok(())
}

/// IEEE 754 single precision to half, to nearest, ties to even; beyond its range, infinity.
fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let half = if magnitude > 0x7f80_0000 {
        // NaN: made quiet, so that cutting its payload cannot turn it into infinity.
        0x7e00 | (magnitude >> 13 & 0x3ff)
    } else if magnitude < (127 - 14) << 23 {
        // Below 2^-14 halves are multiples of 2^-24; scaling by a power of two is exact.
        let units = f32::from_bits(magnitude) * f32::from_bits((127 + 24) << 23);
        units.round_ties_even() as u32
    } else {
        // Re-bias the exponent from 127 to 15; a carry out of the fraction correctly lands in the exponent.
        (round_bits(magnitude - (112 << 23), 13)).min(0x7c00)
    };
    sign | half as u16
}

/// The upper half of an f32, to nearest, ties to even.
fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    // NaN is made quiet, so that cutting its payload cannot turn it into infinity.
    if value.is_nan() { (bits >> 16) as u16 | 0x40 } else { round_bits(bits, 16) as u16 }
}

/// Drops the lowest `drop` bits, rounding to nearest, ties to even.
fn round_bits(bits: u32, drop: u32) -> u32 {
    let odd = bits >> drop & 1;
    (bits + (1 << (drop - 1)) - 1 + odd) >> drop
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::f16_to_f32;

    fn bf16_to_f32(half: u16) -> f32 {
        f32::from_bits(u32::from(half) << 16)
    }

    /// Every value of the type comes back, and between two neighbours the nearer is taken, the even one at a tie.
    fn rounds_to_nearest_even(narrow: fn(f32) -> u16, widen: fn(u16) -> f32, infinity: u16) {
        for half in 0..infinity {
            let value = widen(half);
            assert_eq!(narrow(value), half, "{half:#06x}");
            assert_eq!(narrow(-value), half | 0x8000, "{half:#06x}");
            // The largest value's upper neighbour is the power of two that is not there; 2^128 is beyond f32.
            let next = if half + 1 == infinity { 2.0 * value - widen(half - 1) } else { widen(half + 1) };
            if next.is_finite() {
                // Exact: a bit more than the type has, and f32 has 13 or 16 more.
                let middle = value + (next - value) / 2.0;
                assert_eq!(narrow(middle), half + half % 2, "{half:#06x}");
                assert_eq!(narrow(middle.next_down()), half, "{half:#06x}");
                assert_eq!(narrow(middle.next_up()), half + 1, "{half:#06x}");
            }
        }
        for (value, half) in [(f32::INFINITY, infinity), (f32::NEG_INFINITY, infinity | 0x8000)] {
            assert_eq!(narrow(value), half);
        }
        // Payloads of NaN in the upper and in the lower bits, neither of which may become infinity.
        for bits in [0x7fc0_0000, 0x7f80_0001, 0xff80_0001, 0x7fff_ffff] {
            assert!(widen(narrow(f32::from_bits(bits))).is_nan(), "{bits:#010x}");
        }
    }

    #[test]
    fn floats_are_rounded_to_nearest_even() {
        rounds_to_nearest_even(f32_to_f16, f16_to_f32, 0x7c00);
        rounds_to_nearest_even(f32_to_bf16, bf16_to_f32, 0x7f80);
        assert_eq!(f32_to_f16(f32::MAX), 0x7c00);
        assert_eq!(f32_to_f16(f32::MIN_POSITIVE), 0);
    }
}
