//! The tensor types of ggml and their dequantisation.
//!
//! A row consists of blocks of 1, 32 or 256 values. A quantised block has one or more scales (which
//! can be quantised too) and a few bits per value. Arithmetic is f32 in the order of ggml's
//! reference, `ggml-quants.c`, so values equal llama.cpp's bit by bit. The doc comment of each
//! function gives the block layout.

use std::fmt;

use crate::decode::f16_to_f32;

/// Defines [`GgmlType`] from one table: name, type number, values and bytes per block, doc comment.
macro_rules! ggml_types {
    ($($name:ident = $code:literal, $len:literal, $bytes:expr, $doc:literal;)*) => {
        /// A tensor type of ggml (`enum ggml_type` in `ggml.h`).
        // ggml's names, which users know from file names.
        #[allow(non_camel_case_types)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum GgmlType {
            $(#[doc = $doc] $name = $code,)*
        }

        impl GgmlType {
            /// The type with this number in GGUF files.
            pub(super) fn from_code(code: u32) -> Option<GgmlType> {
                match code {
                    $($code => Some(GgmlType::$name),)*
                    _ => None,
                }
            }

            /// The type's number in GGUF files.
            pub(super) fn code(self) -> u32 {
                self as u32
            }

            /// Values per block. A row has a whole number of blocks.
            pub fn block_len(self) -> usize {
                match self {
                    $(GgmlType::$name => $len,)*
                }
            }

            /// Bytes per block.
            pub fn block_bytes(self) -> usize {
                match self {
                    $(GgmlType::$name => $bytes,)*
                }
            }
        }

        impl fmt::Display for GgmlType {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(GgmlType::$name => stringify!($name),)*
                })
            }
        }
    };
}

// Missing numbers were retired by ggml (4, 5, 31 to 33, 36 to 38) or are unassigned.
ggml_types! {
    F32 = 0, 1, 4, "IEEE 754 single precision.";
    F16 = 1, 1, 2, "IEEE 754 half precision.";
    Q4_0 = 2, 32, 2 + 16, "4 bits and a scale.";
    Q4_1 = 3, 32, 2 + 2 + 16, "4 bits, a scale and a minimum.";
    Q5_0 = 6, 32, 2 + 4 + 16, "5 bits and a scale.";
    Q5_1 = 7, 32, 2 + 2 + 4 + 16, "5 bits, a scale and a minimum.";
    Q8_0 = 8, 32, 2 + 32, "8 bits and a scale.";
    Q8_1 = 9, 32, 4 + 32, "For intermediate results, not for files; not read.";
    Q2_K = 10, 256, 16 + 64 + 2 + 2, "2 bits; not read.";
    Q3_K = 11, 256, 32 + 64 + 12 + 2, "3 bits; not read.";
    Q4_K = 12, 256, 2 + 2 + 12 + 128, "4 bits, eight scales and minima of 6 bits.";
    Q5_K = 13, 256, 2 + 2 + 12 + 32 + 128, "5 bits, eight scales and minima of 6 bits.";
    Q6_K = 14, 256, 128 + 64 + 16 + 2, "6 bits, sixteen scales of 8 bits.";
    Q8_K = 15, 256, 4 + 256 + 32, "For intermediate results, not for files; not read.";
    IQ2_XXS = 16, 256, 2 + 64, "Codebook of 2.06 bits; not read.";
    IQ2_XS = 17, 256, 2 + 64 + 8, "Codebook of 2.31 bits; not read.";
    IQ3_XXS = 18, 256, 2 + 64 + 32, "Codebook of 3.06 bits; not read.";
    IQ1_S = 19, 256, 2 + 32 + 16, "Codebook of 1.56 bits; not read.";
    IQ4_NL = 20, 32, 2 + 16, "4 bits, non-linear; not read.";
    IQ3_S = 21, 256, 2 + 64 + 32 + 8 + 4, "Codebook of 3.44 bits; not read.";
    IQ2_S = 22, 256, 2 + 64 + 16, "Codebook of 2.5 bits; not read.";
    IQ4_XS = 23, 256, 2 + 2 + 128 + 4, "4 bits, non-linear, with 6-bit scales; not read.";
    I8 = 24, 1, 1, "Integers; not read.";
    I16 = 25, 1, 2, "Integers; not read.";
    I32 = 26, 1, 4, "Integers; not read.";
    I64 = 27, 1, 8, "Integers; not read.";
    F64 = 28, 1, 8, "IEEE 754 double precision; not read.";
    IQ1_M = 29, 256, 32 + 16 + 8, "Codebook of 1.75 bits; not read.";
    BF16 = 30, 1, 2, "The upper half of an f32.";
    TQ1_0 = 34, 256, 48 + 4 + 2, "Ternary, five in a byte; not read.";
    TQ2_0 = 35, 256, 64 + 2, "Ternary, four in a byte; not read.";
    MXFP4 = 39, 32, 1 + 16, "OCP microscaling: 4-bit floats and an exponent of 8 bits.";
    NVFP4 = 40, 64, 4 + 32, "4-bit floats with 8-bit float scales; not read.";
    Q1_0 = 41, 128, 2 + 16, "1 bit and a scale; not read.";
}

/// The types that [`dequantise`] supports, for error messages.
pub(super) const SUPPORTED: &str =
    "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K and MXFP4";

/// Dequantises whole blocks to f32; `None` for unsupported types.
pub fn dequantise(dtype: GgmlType, bytes: &[u8]) -> Option<Vec<f32>> {
    let mut values = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block_len()];
    let out = values.as_mut_slice();
    match dtype {
        GgmlType::F32 => {
            for_each_block(bytes, out, |block, out| *out = [f32::from_le_bytes(*block)]);
        }
        GgmlType::F16 => for_each_block(bytes, out, |block, out| *out = [half::<2>(block, 0)]),
        GgmlType::BF16 => for_each_block(bytes, out, |&block, out| {
            *out = [f32::from_bits(u32::from(u16::from_le_bytes(block)) << 16)];
        }),
        GgmlType::Q8_0 => for_each_block(bytes, out, q8_0),
        GgmlType::Q4_0 => for_each_block(bytes, out, q4_0),
        GgmlType::Q4_1 => for_each_block(bytes, out, q4_1),
        GgmlType::Q5_0 => for_each_block(bytes, out, q5_0),
        GgmlType::Q5_1 => for_each_block(bytes, out, q5_1),
        GgmlType::Q4_K => for_each_block(bytes, out, q4_k),
        GgmlType::Q5_K => for_each_block(bytes, out, q5_k),
        GgmlType::Q6_K => for_each_block(bytes, out, q6_k),
        GgmlType::MXFP4 => for_each_block(bytes, out, mxfp4),
        _ => return None,
    }
    Some(values)
}

/// Dequantises blocks of `B` bytes to `N` values each.
fn for_each_block<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; B], &mut [f32; N]),
) {
    for (bytes, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        block(bytes, out);
    }
}

/// The f16 at byte `at` of a block.
fn half<const B: usize>(block: &[u8; B], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Value `i` of 32 nibbles in 16 bytes from `at`: low nibbles are values 0 to 15, high ones 16 to
/// 31.
fn nibble<const B: usize>(block: &[u8; B], at: usize, i: usize) -> u8 {
    (block[at + i % 16] >> (i / 16 * 4)) & 15
}

/// Bit `i` of 32 bits from byte `at`, shifted to bit 4 of a value.
fn fifth_bit<const B: usize>(block: &[u8; B], at: usize, i: usize) -> u8 {
    ((block[at + i / 8] >> (i % 8)) & 1) << 4
}

/// Layout: scale f16, 32 × i8.
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(q.cast_signed()) * scale;
    }
}

/// Magnitudes of the lower three bits of a code of MXFP4 (1 sign, 2 exponent, 1 fraction bit).
pub(super) const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// Layout: exponent of the scale (E8M0), 32 nibbles (OCP Microscaling Formats 1.0, section 5).
fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    let scale = match block[0] {
        // 2^-127 is subnormal.
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        exponent => f32::from_bits(u32::from(exponent) << 23),
    };
    for (i, out) in out.iter_mut().enumerate() {
        let code = nibble(block, 1, i);
        let magnitude = E2M1[usize::from(code & 7)] * scale;
        *out = if code & 8 == 0 { magnitude } else { -magnitude };
    }
}

/// Layout: scale f16, 32 nibbles (value - 8).
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (i, out) in out.iter_mut().enumerate() {
        *out = scale * f32::from(nibble(block, 2, i).cast_signed() - 8);
    }
}

/// Layout: scale f16, minimum f16, 32 nibbles.
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, min) = (half(block, 0), half(block, 2));
    for (i, out) in out.iter_mut().enumerate() {
        *out = scale * f32::from(nibble(block, 4, i)) + min;
    }
}

/// Layout: scale f16, 32 fifth bits, 32 nibbles (value - 16).
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (i, out) in out.iter_mut().enumerate() {
        let q = nibble(block, 6, i) | fifth_bit(block, 2, i);
        *out = scale * f32::from(q.cast_signed() - 16);
    }
}

/// Layout: scale f16, minimum f16, 32 fifth bits, 32 nibbles.
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, min) = (half(block, 0), half(block, 2));
    for (i, out) in out.iter_mut().enumerate() {
        let q = nibble(block, 8, i) | fifth_bit(block, 4, i);
        *out = scale * f32::from(q) + min;
    }
}

/// The first 16 bytes of `Q4_K` and `Q5_K`: the scale of the scales (f16), the scale of the minima
/// (f16), then eight 6-bit scales and eight 6-bit minima in 12 bytes.
///
/// ```text
/// byte        low 6 bits    high 2 bits
/// 0 to 3      scales 0-3    high bits of scales 4-7
/// 4 to 7      minima 0-3    high bits of minima 4-7
/// 8 to 11     low nibble: low 4 bits of scales 4-7; high nibble: of minima 4-7
/// ```
fn scales_and_minima<const B: usize>(block: &[u8; B]) -> [(f32, f32); 8] {
    let (d, dmin) = (half(block, 0), half(block, 2));
    let packed = &block[4..16];
    std::array::from_fn(|i| {
        let (scale, min) = if i < 4 {
            (packed[i] & 63, packed[i + 4] & 63)
        } else {
            let low = packed[i + 4];
            ((low & 15) | (packed[i - 4] >> 6 << 4), (low >> 4) | (packed[i] >> 6 << 4))
        };
        (d * f32::from(scale), dmin * f32::from(min))
    })
}

/// Layout: 16 bytes of scales and minima, then 4 × 32 bytes. Each 32 bytes hold one sub-block in
/// the low nibbles and the next one in the high nibbles.
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let scales = scales_and_minima(block);
    for (sub, ((scale, min), out)) in
        scales.into_iter().zip(out.as_chunks_mut::<32>().0).enumerate()
    {
        let packed = &block[16 + sub / 2 * 32..];
        for (out, &byte) in out.iter_mut().zip(packed) {
            *out = scale * f32::from((byte >> (sub % 2 * 4)) & 15) - min;
        }
    }
}

/// Like [`q4_k`], with 32 bytes of fifth bits before the nibbles. Bit `sub` of byte `i` belongs to
/// value `i` of sub-block `sub`.
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let scales = scales_and_minima(block);
    let fifth = &block[16..48];
    for (sub, ((scale, min), out)) in
        scales.into_iter().zip(out.as_chunks_mut::<32>().0).enumerate()
    {
        let packed = &block[48 + sub / 2 * 32..];
        for ((out, &byte), &fifth) in out.iter_mut().zip(packed).zip(fifth) {
            let q = ((byte >> (sub % 2 * 4)) & 15) | (((fifth >> sub) & 1) << 4);
            *out = scale * f32::from(q) - min;
        }
    }
}

/// Layout: 128 bytes of low 4 bits, 64 bytes of high 2 bits, 16 scales i8, scale of the scales f16.
///
/// Each half of the block has 4 rows of 32 values, 64 bytes of low bits and 32 bytes of high bits.
/// Low nibbles of the 64 bytes are rows 0 and 1, high nibbles rows 2 and 3. Row r has bits 2r and
/// 2r + 1 of the 32 bytes.
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half(block, 208);
    for (row, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (part, row) = (row / 4, row % 4);
        let low = &block[part * 64 + row % 2 * 32..];
        let upper = &block[128 + part * 32..];
        let scales = &block[192 + part * 8 + row * 2..];
        for (i, out) in out.iter_mut().enumerate() {
            let q = ((low[i] >> (row / 2 * 4)) & 15) | (((upper[i] >> (row * 2)) & 3) << 4);
            let scale = d * f32::from(scales[i / 16].cast_signed());
            *out = scale * f32::from(q.cast_signed() - 32);
        }
    }
}
