//! f32 values encoded as the element types of weight files: little-endian, rounded to nearest even.

/// A value outside the range of a type.
pub(crate) struct EncodeError {
    pub(crate) index: usize,
    pub(crate) problem: &'static str,
}

/// Appends values as F32.
pub(crate) fn encode_f32(values: &[f32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

/// Appends values as F16.
pub(crate) fn encode_f16(values: &[f32], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    halves(values, f32_to_f16, 0x7c00, out)
}

/// Appends values as BF16.
pub(crate) fn encode_bf16(values: &[f32], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    halves(values, f32_to_bf16, 0x7f80, out)
}

/// Appends 16-bit floats; `infinity` is the type's bit pattern, without sign.
fn halves(
    values: &[f32],
    narrow: fn(f32) -> u16,
    infinity: u16,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    for (index, &value) in values.iter().enumerate() {
        let half = narrow(value);
        // Infinities and NaN of the model are kept. A new infinity would corrupt it silently.
        if half & 0x7fff == infinity && value.is_finite() {
            return Err(EncodeError { index, problem: "is too large" });
        }
        out.extend(half.to_le_bytes());
    }
    Ok(())
}

/// IEEE 754 single to half precision, to nearest even; out-of-range values become infinity.
pub(crate) fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let half = if magnitude > 0x7f80_0000 {
        // A quiet NaN: truncating the payload of a signalling one could give infinity.
        0x7e00 | (magnitude >> 13 & 0x3ff)
    } else if magnitude < (127 - 14) << 23 {
        // Below 2^-14, halves are multiples of 2^-24; scaling by a power of two is exact.
        let units = f32::from_bits(magnitude) * f32::from_bits((127 + 24) << 23);
        units.round_ties_even() as u32
    } else {
        // Re-bias the exponent from 127 to 15. A carry out of the fraction increments the exponent.
        (round_bits(magnitude - (112 << 23), 13)).min(0x7c00)
    };
    sign | half as u16
}

/// The upper half of an f32, rounded to nearest even.
fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    // A quiet NaN: truncating the payload of a signalling one could give infinity.
    if value.is_nan() { (bits >> 16) as u16 | 0x40 } else { round_bits(bits, 16) as u16 }
}

/// Drops the lowest `drop` bits, rounding to nearest even.
fn round_bits(bits: u32, drop: u32) -> u32 {
    let odd = bits >> drop & 1;
    (bits + (1 << (drop - 1)) - 1 + odd) >> drop
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::f16_to_f32;

    fn bf16_to_f32(half: u16) -> f32 {
        f32::from_bits(u32::from(half) << 16)
    }

    /// Every value round-trips; a value between two neighbours goes to the nearer, at a tie to the
    /// even one.
    fn rounds_to_nearest_even(narrow: fn(f32) -> u16, widen: fn(u16) -> f32, infinity: u16) {
        for half in 0..infinity {
            let value = widen(half);
            assert_eq!(narrow(value), half, "{half:#06x}");
            assert_eq!(narrow(-value), half | 0x8000, "{half:#06x}");
            // Above the largest value, its neighbour is the power of two that would follow; 2^128
            // is not an f32.
            let next =
                if half + 1 == infinity { 2.0 * value - widen(half - 1) } else { widen(half + 1) };
            if next.is_finite() {
                // Exact: f32 has 13 or 16 more fraction bits than the type.
                let middle = value + (next - value) / 2.0;
                assert_eq!(narrow(middle), half + half % 2, "{half:#06x}");
                assert_eq!(narrow(middle.next_down()), half, "{half:#06x}");
                assert_eq!(narrow(middle.next_up()), half + 1, "{half:#06x}");
            }
        }
        for (value, half) in [(f32::INFINITY, infinity), (f32::NEG_INFINITY, infinity | 0x8000)] {
            assert_eq!(narrow(value), half);
        }
        // NaN payloads in upper and lower bits, none of which may become infinity.
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
