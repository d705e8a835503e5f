//! Element types of weight files decoded to f32, and the block scales of FP8 weights.

use safetensors::Dtype;

/// Decodes little-endian elements to f32. Exact except for F64, which is rounded. `None` for
/// unsupported types.
pub(crate) fn decode(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let halves = || bytes.as_chunks::<2>().0.iter().map(|&b| u16::from_le_bytes(b));
    Some(match dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::F64 => {
            bytes.as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect()
        }
        // bf16 is the upper half of an f32.
        Dtype::BF16 => halves().map(|half| f32::from_bits(u32::from(half) << 16)).collect(),
        Dtype::F16 => halves().map(f16_to_f32).collect(),
        Dtype::F8_E4M3 => bytes.iter().map(|&byte| e4m3_to_f32(byte)).collect(),
        // E5M2 is the upper half of an f16.
        Dtype::F8_E5M2 => bytes.iter().map(|&byte| f16_to_f32(u16::from(byte) << 8)).collect(),
        _ => return None,
    })
}

/// Whether the type is FP8, so that weights can have block scales.
pub(crate) fn is_fp8(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2)
}

/// The block scales of an FP8 matrix. Blocks at the right and bottom edges can be smaller.
#[derive(Debug)]
pub struct Scales {
    factors: Vec<f32>,
    columns: usize,
    /// Rows and columns of a block.
    block: [usize; 2],
}

impl Scales {
    /// Scales of a matrix with `columns` columns: one factor per block, row-major.
    pub(crate) fn new(factors: Vec<f32>, columns: usize, block: [usize; 2]) -> Scales {
        Scales { factors, columns, block }
    }

    /// The scale of an element.
    pub fn at(&self, row: usize, column: usize) -> f32 {
        self.row(row)[column / self.block[1]]
    }

    fn row(&self, row: usize) -> &[f32] {
        let blocks_per_row = self.columns.div_ceil(self.block[1]);
        &self.factors[row / self.block[0] * blocks_per_row..][..blocks_per_row]
    }

    /// Multiplies a row-major matrix by its scales.
    pub(crate) fn apply(&self, values: &mut [f32]) {
        for (row, values) in values.chunks_exact_mut(self.columns.max(1)).enumerate() {
            for (block, factor) in values.chunks_mut(self.block[1]).zip(self.row(row)) {
                for value in block {
                    *value *= factor;
                }
            }
        }
    }
}

/// IEEE 754 half precision to single; exact for every value.
pub(crate) fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half & 0x3ff);
    match exponent {
        // Subnormal: fraction · 2^-24.
        0 => {
            let magnitude = fraction as f32 * (-24f32).exp2();
            f32::from_bits(magnitude.to_bits() | sign)
        }
        0x1f => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        // Re-bias the exponent from 15 to 127.
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// FP8 with 4 exponent and 3 fraction bits (<https://arxiv.org/abs/2209.05433>). No infinities; NaN
/// is all ones.
fn e4m3_to_f32(byte: u8) -> f32 {
    let sign = u32::from(byte & 0x80) << 24;
    let exponent = u32::from(byte >> 3) & 0xf;
    let fraction = u32::from(byte & 7);
    match (exponent, fraction) {
        (0xf, 7) => f32::from_bits(sign | f32::NAN.to_bits()),
        // Subnormal: fraction · 2^-9.
        (0, _) => {
            let magnitude = fraction as f32 * (-9f32).exp2();
            f32::from_bits(magnitude.to_bits() | sign)
        }
        // Re-bias the exponent from 7 to 127.
        _ => f32::from_bits(sign | (exponent + 120) << 23 | fraction << 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_widen_exactly() {
        // Values from the IEEE 754 binary16 definition.
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 2f32.powi(-14)),
            (0x0001, 2f32.powi(-24)),
            (0x83ff, -1023.0 * 2f32.powi(-24)),
            (0x3555, 1365.0 / 4096.0),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(f16_to_f32(bits), value, "{bits:#06x}");
        }
        assert!(f16_to_f32(0x7e00).is_nan());
        assert!(f16_to_f32(0x8000).is_sign_negative());
    }

    #[test]
    fn fp8_widens_exactly() {
        // Table 1 of the paper: the largest, smallest normal, and extreme subnormal values of both
        // types.
        let e5m2 = |byte| decode(Dtype::F8_E5M2, &[byte]).expect("a weight type")[0];
        for (byte, value) in [
            (0x00, 0.0),
            (0x38, 1.0),
            (0xb8, -1.0),
            (0x7e, 448.0),
            (0x08, 2f32.powi(-6)),
            (0x07, 0.875 * 2f32.powi(-6)),
            (0x01, 2f32.powi(-9)),
        ] {
            assert_eq!(e4m3_to_f32(byte), value, "{byte:#04x}");
        }
        for (byte, value) in [
            (0x3c, 1.0),
            (0x7b, 57344.0),
            (0x04, 2f32.powi(-14)),
            (0x03, 0.75 * 2f32.powi(-14)),
            (0x01, 2f32.powi(-16)),
            (0xfc, f32::NEG_INFINITY),
        ] {
            assert_eq!(e5m2(byte), value, "{byte:#04x}");
        }
        assert!(e4m3_to_f32(0x7f).is_nan() && e4m3_to_f32(0xff).is_nan() && e5m2(0x7d).is_nan());
        assert!(e4m3_to_f32(0x80).is_sign_negative());
    }

    #[test]
    fn scales_go_with_their_blocks() {
        let mut values = vec![1.0; 3 * 5];
        let scales = Scales::new(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 5, [2, 2]);
        scales.apply(&mut values);
        assert_eq!(
            values,
            [1.0, 1.0, 2.0, 2.0, 3.0, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0, 4.0, 5.0, 5.0, 6.0]
        );
        assert_eq!([scales.at(1, 3), scales.at(2, 4)], [2.0, 6.0]);
        Scales::new(Vec::new(), 0, [128, 128]).apply(&mut []);
    }
}
