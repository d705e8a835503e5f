//! Element types: their layout in the tiles of a [`crate::QuantisedMatrix`] and their
//! dequantisation.
//!
//! ```text
//!  tile:   rows 0 … 2L-1 of the matrix, L = 32-bit lanes of a register
//!          ┌─────────┬─────────┬───   block: header and units of 32 columns, all whole registers
//!          │ block 0 │ block 1 │
//!          └─────────┴─────────┴───
//!  pair of registers:  lane 0 … L-1 of the first:   rows 0 … L-1
//!                      lane 0 … L-1 of the second:  rows L … 2L-1
//! ```
//!
//! A unit is loaded, shifted and masked for all rows at once. Rows `r` and `r + L` may share a
//! word. An element is `scale · code + offset`; scale and offset belong to a row's unit or half
//! unit.
//!
//! Block layouts in files: `ggml-common.h` and `ggml-quants.c` of ggml.

// Everything here must inline into kernels compiled for an instruction set.
#![allow(clippy::inline_always)]

use pulp::Simd;

use super::gemm_bf16::Pairs;
use super::lanes::exact_pair;

/// Columns of a unit; each half may have its own scale and offset.
pub(crate) const UNIT_COLUMNS: usize = 32;

/// One float for each row of a tile: a pair of registers.
pub(crate) type Lanes<S> = [<S as Simd>::f32s; 2];

/// Layout of an element type in files and tiles.
pub(crate) trait BlockFormat {
    /// Bytes of a row's block in a file.
    const FILE_BYTES: usize;
    /// Registers before the units of a block.
    const HEADER: usize = 0;
    /// Units of a block.
    const UNITS: usize = 1;
    /// Registers of a unit.
    const UNIT: usize;
    /// Whether the halves of a unit have scales of their own.
    const SCALES_PER_HALF: bool = false;
    /// Whether elements have scales.
    const SCALED: bool = true;
    /// Whether elements have offsets.
    const OFFSET: bool = true;

    /// Registers of a block.
    const BLOCK: usize = Self::HEADER + Self::UNITS * Self::UNIT;

    /// Registers of a tile of `cols` columns.
    fn registers(cols: usize) -> usize {
        cols.div_ceil(Self::UNITS * UNIT_COLUMNS) * Self::BLOCK
    }

    /// Packs the bytes of a row's block. The last block may be short if there are no scales.
    fn pack(bytes: &[u8], row: &mut TileRow<'_>);

    /// The header's scales.
    #[inline(always)]
    fn header<S: Simd>(simd: S, _header: &[S::u32s]) -> [Lanes<S>; 2] {
        [[simd.splat_f32s(0.0); 2]; 2]
    }

    /// Scale and offset of a half of a unit.
    #[inline(always)]
    fn scales<S: Simd>(
        simd: S,
        _header: &[Lanes<S>; 2],
        _unit: &[S::u32s],
        _half: usize,
    ) -> [Lanes<S>; 2] {
        [[simd.splat_f32s(1.0); 2], [simd.splat_f32s(0.0); 2]]
    }

    /// The codes of four columns of a unit, from column `16 · HALF + 4 · quarter` on.
    fn codes<S: Simd, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4];

    /// What [`Self::code_pairs`] adds to every code.
    const PAIR_BIAS: f32 = 0.0;

    /// The same codes as pairs of bf16 ([`super::lanes`]): columns 0 and 2, then 1 and 3. Codes of
    /// scaled formats are exact in bf16; others are rounded.
    #[inline(always)]
    fn code_pairs<S: Simd, P: Pairs<S>, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 2] {
        let codes = Self::codes::<S, HALF>(simd, unit, quarter);
        let mut pairs = [codes[0], codes[1]];
        for (pair, second) in pairs.iter_mut().zip(&codes[2..]) {
            for (pair, second) in pair.iter_mut().zip(second) {
                *pair = if Self::SCALED {
                    exact_pair(simd, *pair, *second)
                } else {
                    P::round(simd, *pair, *second)
                };
            }
        }
        pairs
    }
}

/// [`BlockFormat::PAIR_BIAS`] of [`nibble_pairs`].
const NIBBLE_BIAS: f32 = 128.0;

/// [`nibbles`] as pairs, in two operations: the number `128 + code` is a constant whose mantissa
/// ends in the code. Two bytes apart are the codes of columns 0 and 2, and of 1 and 3.
#[inline(always)]
fn nibble_pairs<S: Simd, const HALF: usize>(
    simd: S,
    words: &[S::u32s],
    quarter: usize,
) -> [Lanes<S>; 2] {
    let mut pairs = [[simd.splat_f32s(0.0); 2]; 2];
    for (column, pair) in pairs.iter_mut().enumerate() {
        for (pair, &word) in pair.iter_mut().zip(&words[2 * quarter..]) {
            let codes = shifted(simd, word, 8 * column + 4 * HALF);
            let codes = simd.and_u32s(codes, simd.splat_u32s(0x000f_000f));
            let numbers = simd.or_u32s(codes, simd.splat_u32s(0x4300_4300));
            *pair = simd.transmute_f32s_u32s(numbers);
        }
    }
    pairs
}

/// The pairs of a format whose codes are [`nibbles`] from this register on.
macro_rules! pairs_of_nibbles {
    ($first:expr) => {
        const PAIR_BIAS: f32 = NIBBLE_BIAS;

        #[inline(always)]
        fn code_pairs<S: Simd, P: Pairs<S>, const HALF: usize>(
            simd: S,
            unit: &[S::u32s],
            quarter: usize,
        ) -> [Lanes<S>; 2] {
            nibble_pairs::<S, HALF>(simd, &unit[$first..], quarter)
        }
    };
}

/// Evaluates an expression with the [`BlockFormat`] of a [`crate::WeightFormat`].
macro_rules! with_blocks {
    ($format:expr, $blocks:ident => $body:expr) => {
        with_blocks!(
            @ $format, $blocks, $body,
            F32 F16 Bf16 F8E4M3 Mxfp4 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4K Q5K Q6K
        )
    };
    (@ $format:expr, $blocks:ident, $body:expr, $($name:ident)*) => {
        match $format {
            $($crate::WeightFormat::$name => {
                type $blocks = $crate::cpu::formats::$name;
                $body
            })*
        }
    };
}
pub(crate) use with_blocks;

/// A row's words within a block of a tile.
pub(crate) struct TileRow<'a> {
    pub(crate) block: &'a mut [u32],
    /// Lanes of a register.
    pub(crate) lanes: usize,
    /// The row's lane, in the first (0) or second (1) register of a pair.
    pub(crate) lane: usize,
    pub(crate) second: usize,
}

impl TileRow<'_> {
    /// Writes one word to each pair of registers from `register` on.
    fn put_words(&mut self, register: usize, words: impl IntoIterator<Item = u32>) {
        let first = (register + self.second) * self.lanes + self.lane;
        let places = self.block[first..].iter_mut().step_by(2 * self.lanes);
        for (place, word) in places.zip(words) {
            *place = word;
        }
    }

    /// Writes words from bytes, of which the last word may lack some.
    fn put_bytes(&mut self, register: usize, bytes: &[u8]) {
        let (whole, rest) = bytes.as_chunks::<4>();
        let words = whole.iter().map(|&bytes| u32::from_le_bytes(bytes));
        self.put_words(register, words.chain((!rest.is_empty()).then(|| word(rest))));
    }

    /// Writes half a word of a register that both rows of a pair share.
    fn put_half(&mut self, register: usize, half: u32) {
        let shift = 16 * self.second;
        let place = &mut self.block[register * self.lanes + self.lane];
        *place = *place & !(0xffff << shift) | half << shift;
    }
}

/// A word from up to four little-endian bytes.
fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

/// 4-bit codes of 32 columns: column `k` is the low half of byte `k` or the high half of `k - 16`.
fn pack_nibbles(code: impl Fn(usize) -> u8) -> [u8; 16] {
    std::array::from_fn(|i| code(i) & 15 | code(i + 16) << 4)
}

/// Flips the sign bits: signed bytes become unsigned ones that are 128 larger.
const SIGN_BITS: u32 = 0x8080_8080;
/// 2²³: adding it puts an integer below it into the low mantissa bits.
const TWO_POW_23: f32 = 8_388_608.0;

/// `(word >> shift) & mask` (below 2²³) as a float, minus the integer `bias`.
#[inline(always)]
fn bit_field<S: Simd>(simd: S, word: S::u32s, shift: usize, mask: u32, bias: f32) -> S::f32s {
    let bits = simd.and_u32s(shifted(simd, word, shift), simd.splat_u32s(mask));
    to_float(simd, bits, bias)
}

#[inline(always)]
fn shifted<S: Simd>(simd: S, word: S::u32s, shift: usize) -> S::u32s {
    simd.wrapping_dyn_shr_u32s(word, simd.splat_u32s(shift as u32))
}

/// An integer below 2²³ as a float, minus the integer `bias`.
#[inline(always)]
fn to_float<S: Simd>(simd: S, bits: S::u32s, bias: f32) -> S::f32s {
    let above = simd.or_u32s(bits, simd.splat_u32s(TWO_POW_23.to_bits()));
    simd.sub_f32s(simd.transmute_f32s_u32s(above), simd.splat_f32s(TWO_POW_23 + bias))
}

/// `low & low_mask | high & high_mask` (below 2²³) as a float.
#[inline(always)]
fn two_bit_fields<S: Simd>(
    simd: S,
    low: S::u32s,
    low_mask: u32,
    high: S::u32s,
    high_mask: u32,
) -> S::f32s {
    let low = simd.and_u32s(low, simd.splat_u32s(low_mask));
    let high = simd.and_u32s(high, simd.splat_u32s(high_mask));
    to_float(simd, simd.or_u32s(low, high), 0.0)
}

/// The half-precision float in the low or high half of each word.
#[inline(always)]
fn half<S: Simd>(simd: S, word: S::u32s, high: usize) -> S::f32s {
    let bits = if high == 1 { word } else { simd.wrapping_dyn_shl_u32s(word, simd.splat_u32s(16)) };
    widen_small_float(simd, bits, 0x7fff_0000, 5, 0x7c00_0000)
}

/// The E4M3 float in a byte of each word. E4M3 has no infinities; NaN has all bits but the sign
/// set.
#[inline(always)]
fn e4m3<S: Simd>(simd: S, word: S::u32s, byte: usize) -> S::f32s {
    let bits = simd.wrapping_dyn_shl_u32s(word, simd.splat_u32s(24 - 8 * byte as u32));
    widen_small_float(simd, bits, 0x7f00_0000, 4, 0x7f00_0000)
}

/// Widens the float in the highest bits of each word: a sign, `exponent` bits of exponent, a
/// mantissa. From `special` on, a magnitude is infinite or NaN.
#[inline(always)]
fn widen_small_float<S: Simd>(
    simd: S,
    bits: S::u32s,
    magnitude: u32,
    exponent: u32,
    special: u32,
) -> S::f32s {
    let sign = simd.and_u32s(bits, simd.splat_u32s(0x8000_0000));
    // Move the exponent into place, then multiply to fix its bias. The product also normalises
    // subnormals.
    let shift = 8 - exponent;
    let bits = shifted(simd, simd.and_u32s(bits, simd.splat_u32s(magnitude)), shift as usize);
    let bias = 128 - (1 << (exponent - 1));
    let scale = simd.splat_f32s(f32::from_bits((127 + bias) << 23));
    let finite = simd.transmute_u32s_f32s(simd.mul_f32s(simd.transmute_f32s_u32s(bits), scale));
    let is_finite = simd.less_than_u32s(bits, simd.splat_u32s(special >> shift));
    let exponent = simd.select_u32s(is_finite, simd.splat_u32s(0), simd.splat_u32s(0x7f80_0000));
    simd.transmute_f32s_u32s(simd.or_u32s(simd.or_u32s(finite, exponent), sign))
}

/// The half-precision floats of both rows that share a register.
#[inline(always)]
fn shared_halves<S: Simd>(simd: S, word: S::u32s) -> Lanes<S> {
    [half(simd, word, 0), half(simd, word, 1)]
}

/// The two half-precision floats of each row in a pair of registers.
#[inline(always)]
fn two_halves<S: Simd>(simd: S, pair: &[S::u32s]) -> [Lanes<S>; 2] {
    [
        [half(simd, pair[0], 0), half(simd, pair[1], 0)],
        [half(simd, pair[0], 1), half(simd, pair[1], 1)],
    ]
}

#[inline(always)]
fn mul<S: Simd>(simd: S, a: Lanes<S>, b: Lanes<S>) -> Lanes<S> {
    [simd.mul_f32s(a[0], b[0]), simd.mul_f32s(a[1], b[1])]
}

#[inline(always)]
fn mul_scalar<S: Simd>(simd: S, a: Lanes<S>, factor: f32) -> Lanes<S> {
    mul(simd, a, [simd.splat_f32s(factor); 2])
}

/// Evaluates an expression for four columns and both registers of a pair. A macro, because long
/// closures are not inlined into the kernels.
macro_rules! four_columns {
    ($simd:expr, |$i:ident, $second:ident| $number:expr) => {{
        let mut four = [[$simd.splat_f32s(0.0); 2]; 4];
        for $i in 0..4 {
            for $second in 0..2 {
                four[$i][$second] = $number;
            }
        }
        four
    }};
}

/// 4-bit codes packed by [`pack_nibbles`].
#[inline(always)]
fn nibbles<S: Simd, const HALF: usize>(
    simd: S,
    words: &[S::u32s],
    quarter: usize,
) -> [Lanes<S>; 4] {
    four_columns!(simd, |i, second| bit_field(
        simd,
        words[2 * quarter + second],
        8 * i + 4 * HALF,
        15,
        0.0
    ))
}

/// 5-bit codes: [`nibbles`] with the fifth bits of 32 columns in one word.
#[inline(always)]
fn five_bits<S: Simd, const HALF: usize>(
    simd: S,
    fifth: &[S::u32s],
    words: &[S::u32s],
    quarter: usize,
) -> [Lanes<S>; 4] {
    four_columns!(simd, |i, second| {
        let low = shifted(simd, words[2 * quarter + second], 8 * i + 4 * HALF);
        let upper = shifted(simd, fifth[second], 16 * HALF + 4 * quarter + i);
        let upper = simd.wrapping_dyn_shl_u32s(upper, simd.splat_u32s(4));
        two_bit_fields(simd, low, 15, upper, 16)
    })
}

pub(crate) struct F32;
impl BlockFormat for F32 {
    const FILE_BYTES: usize = 4 * UNIT_COLUMNS;
    const UNIT: usize = 2 * UNIT_COLUMNS;
    const SCALED: bool = false;
    const OFFSET: bool = false;

    fn pack(bytes: &[u8], row: &mut TileRow<'_>) {
        row.put_bytes(0, bytes);
    }

    #[inline(always)]
    fn codes<S: Simd, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4] {
        four_columns!(simd, |i, second| simd
            .transmute_f32s_u32s(unit[2 * (16 * HALF + 4 * quarter + i) + second]))
    }
}

pub(crate) struct F16;
impl BlockFormat for F16 {
    const FILE_BYTES: usize = 2 * UNIT_COLUMNS;
    const UNIT: usize = UNIT_COLUMNS;
    const SCALED: bool = false;
    const OFFSET: bool = false;

    fn pack(bytes: &[u8], row: &mut TileRow<'_>) {
        row.put_bytes(0, bytes);
    }

    #[inline(always)]
    fn codes<S: Simd, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4] {
        four_columns!(simd, |i, second| half(
            simd,
            unit[2 * (8 * HALF + 2 * quarter + i / 2) + second],
            i % 2
        ))
    }
}

pub(crate) struct Bf16;
impl BlockFormat for Bf16 {
    const FILE_BYTES: usize = 2 * UNIT_COLUMNS;
    const UNIT: usize = UNIT_COLUMNS;
    const SCALED: bool = false;
    const OFFSET: bool = false;

    fn pack(bytes: &[u8], row: &mut TileRow<'_>) {
        row.put_bytes(0, bytes);
    }

    #[inline(always)]
    fn codes<S: Simd, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4] {
        four_columns!(simd, |i, second| {
            let word = unit[2 * (8 * HALF + 2 * quarter + i / 2) + second];
            simd.transmute_f32s_u32s(if i % 2 == 0 {
                simd.wrapping_dyn_shl_u32s(word, simd.splat_u32s(16))
            } else {
                simd.and_u32s(word, simd.splat_u32s(0xffff_0000))
            })
        })
    }
}

pub(crate) struct F8E4M3;
impl BlockFormat for F8E4M3 {
    const FILE_BYTES: usize = 132;
    const HEADER: usize = 2;
    const UNITS: usize = 4;
    const UNIT: usize = 16;
    const OFFSET: bool = false;

    fn pack(bytes: &[u8], row: &mut TileRow<'_>) {
        let (scale, codes) = bytes.split_at(size_of::<f32>());
        row.put_bytes(0, scale);
        for (i, codes) in codes.chunks(UNIT_COLUMNS).enumerate() {
            row.put_bytes(Self::HEADER + i * Self::UNIT, codes);
        }
    }

    #[inline(always)]
    fn header<S: Simd>(simd: S, header: &[S::u32s]) -> [Lanes<S>; 2] {
        let scale = [simd.transmute_f32s_u32s(header[0]), simd.transmute_f32s_u32s(header[1])];
        [scale, [simd.splat_f32s(0.0); 2]]
    }

    #[inline(always)]
    fn scales<S: Simd>(_: S, header: &[Lanes<S>; 2], _: &[S::u32s], _: usize) -> [Lanes<S>; 2] {
        *header
    }

    #[inline(always)]
    fn codes<S: Simd, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4] {
        four_columns!(simd, |i, second| e4m3(simd, unit[2 * (4 * HALF + quarter) + second], i))
    }
}

/// E2M1 codes: a sign, two bits of exponent, one of mantissa. The scale, a power of two, is kept as
/// the bf16 number that it is.
pub(crate) struct Mxfp4;
impl BlockFormat for Mxfp4 {
    const FILE_BYTES: usize = 17;
    const UNIT: usize = 1 + 8;
    const OFFSET: bool = false;

    fn pack(bytes: &[u8], row: &mut TileRow<'_>) {
        let scale = match bytes[0] {
            // 2^-127 is subnormal; the largest code is NaN.
            0 => 0x0040,
            255 => 0x7fc0,
            exponent => u32::from(exponent) << 7,
        };
        row.put_half(0, scale);
        row.put_bytes(1, &bytes[1..]);
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, _: &[Lanes<S>; 2], unit: &[S::u32s], _: usize) -> [Lanes<S>; 2] {
        let low = simd.wrapping_dyn_shl_u32s(unit[0], simd.splat_u32s(16));
        let high = simd.and_u32s(unit[0], simd.splat_u32s(0xffff_0000));
        let scale = [simd.transmute_f32s_u32s(low), simd.transmute_f32s_u32s(high)];
        [scale, [simd.splat_f32s(0.0); 2]]
    }

    #[inline(always)]
    fn codes<S: Simd, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4] {
        four_columns!(simd, |i, second| {
            let top = simd.splat_u32s(28 - (8 * i + 4 * HALF) as u32);
            let bits = simd.wrapping_dyn_shl_u32s(unit[1 + 2 * quarter + second], top);
            // No magnitude is infinite or NaN.
            widen_small_float(simd, bits, 0x7000_0000, 2, 0x8000_0000)
        })
    }
}

pub(crate) struct Q8_0;
impl BlockFormat for Q8_0 {
    const FILE_BYTES: usize = 34;
    const UNIT: usize = 1 + 16;
    const OFFSET: bool = false;

    fn pack(bytes: &[u8], row: &mut TileRow<'_>) {
        row.put_half(0, word(&bytes[..2]));
        row.put_words(1, bytes[2..].chunks(4).map(|bytes| word(bytes) ^ SIGN_BITS));
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, _: &[Lanes<S>; 2], unit: &[S::u32s], _: usize) -> [Lanes<S>; 2] {
        [shared_halves(simd, unit[0]), [simd.splat_f32s(0.0); 2]]
    }

    #[inline(always)]
    fn codes<S: Simd, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4] {
        four_columns!(simd, |i, second| bit_field(
            simd,
            unit[1 + 2 * (4 * HALF + quarter) + second],
            8 * i,
            255,
            128.0
        ))
    }
}

pub(crate) struct Q4_0;
impl BlockFormat for Q4_0 {
    const FILE_BYTES: usize = 18;
    const UNIT: usize = 1 + 8;

    fn pack(bytes: &[u8], row: &mut TileRow<'_>) {
        row.put_half(0, word(&bytes[..2]));
        row.put_bytes(1, &bytes[2..]);
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, _: &[Lanes<S>; 2], unit: &[S::u32s], _: usize) -> [Lanes<S>; 2] {
        let scale = shared_halves(simd, unit[0]);
        [scale, mul_scalar(simd, scale, -8.0)]
    }

    #[inline(always)]
    fn codes<S: Simd, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4] {
        nibbles::<S, HALF>(simd, &unit[1..], quarter)
    }

    pairs_of_nibbles!(1);
}

pub(crate) struct Q4_1;
impl BlockFormat for Q4_1 {
    const FILE_BYTES: usize = 20;
    const UNIT: usize = 2 + 8;

    fn pack(bytes: &[u8], row: &mut TileRow<'_>) {
        row.put_bytes(0, bytes);
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, _: &[Lanes<S>; 2], unit: &[S::u32s], _: usize) -> [Lanes<S>; 2] {
        two_halves(simd, unit)
    }

    #[inline(always)]
    fn codes<S: Simd, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4] {
        nibbles::<S, HALF>(simd, &unit[2..], quarter)
    }

    pairs_of_nibbles!(2);
}

pub(crate) struct Q5_0;
impl BlockFormat for Q5_0 {
    const FILE_BYTES: usize = 22;
    const UNIT: usize = 1 + 2 + 8;

    fn pack(bytes: &[u8], row: &mut TileRow<'_>) {
        row.put_half(0, word(&bytes[..2]));
        row.put_bytes(1, &bytes[2..]);
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, _: &[Lanes<S>; 2], unit: &[S::u32s], _: usize) -> [Lanes<S>; 2] {
        let scale = shared_halves(simd, unit[0]);
        [scale, mul_scalar(simd, scale, -16.0)]
    }

    #[inline(always)]
    fn codes<S: Simd, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4] {
        five_bits::<S, HALF>(simd, &unit[1..], &unit[3..], quarter)
    }
}

pub(crate) struct Q5_1;
impl BlockFormat for Q5_1 {
    const FILE_BYTES: usize = 24;
    const UNIT: usize = 2 + 2 + 8;

    fn pack(bytes: &[u8], row: &mut TileRow<'_>) {
        row.put_bytes(0, bytes);
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, _: &[Lanes<S>; 2], unit: &[S::u32s], _: usize) -> [Lanes<S>; 2] {
        two_halves(simd, unit)
    }

    #[inline(always)]
    fn codes<S: Simd, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4] {
        five_bits::<S, HALF>(simd, &unit[2..], &unit[4..], quarter)
    }
}

/// Scale and minimum of unit `unit` of a `Q4_K` or `Q5_K` block, from its 12 bytes. Bytes 0 to 3
/// hold the first four scales, bytes 4 to 7 the first four minima, in their low six bits. Bytes 8
/// to 11 hold the low four bits of the others, whose upper two bits fill the first eight bytes.
fn scale_and_minimum(packed: &[u8], unit: usize) -> [u8; 2] {
    if unit < 4 {
        return [packed[unit] & 63, packed[unit + 4] & 63];
    }
    let low = packed[unit + 4];
    [low & 15 | packed[unit - 4] >> 6 << 4, low >> 4 | packed[unit] >> 6 << 4]
}

/// Scale and offset from two bytes per row of a shared register, times those of the header.
#[inline(always)]
fn scales_of_bytes<S: Simd>(simd: S, header: &[Lanes<S>; 2], shared: S::u32s) -> [Lanes<S>; 2] {
    let mut bytes = [[simd.splat_f32s(0.0); 2]; 2];
    for (i, bytes) in bytes.iter_mut().enumerate() {
        for (second, byte) in bytes.iter_mut().enumerate() {
            *byte = bit_field(simd, shared, 16 * second + 8 * i, 255, 0.0);
        }
    }
    let [scale, minimum] = bytes;
    [mul(simd, header[0], scale), mul_scalar(simd, mul(simd, header[1], minimum), -1.0)]
}

pub(crate) struct Q4K;
impl BlockFormat for Q4K {
    const FILE_BYTES: usize = 144;
    const HEADER: usize = 2;
    const UNITS: usize = 8;
    const UNIT: usize = 1 + 8;

    fn pack(bytes: &[u8], row: &mut TileRow<'_>) {
        row.put_bytes(0, &bytes[..4]);
        for i in 0..Self::UNITS {
            let unit = Self::HEADER + i * Self::UNIT;
            row.put_half(unit, word(&scale_and_minimum(&bytes[4..16], i)));
            let codes = &bytes[16 + i / 2 * 32..];
            row.put_bytes(unit + 1, &pack_nibbles(|k| codes[k] >> (i % 2 * 4) & 15));
        }
    }

    #[inline(always)]
    fn header<S: Simd>(simd: S, header: &[S::u32s]) -> [Lanes<S>; 2] {
        two_halves(simd, header)
    }

    #[inline(always)]
    fn scales<S: Simd>(
        simd: S,
        header: &[Lanes<S>; 2],
        unit: &[S::u32s],
        _: usize,
    ) -> [Lanes<S>; 2] {
        scales_of_bytes(simd, header, unit[0])
    }

    #[inline(always)]
    fn codes<S: Simd, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4] {
        nibbles::<S, HALF>(simd, &unit[1..], quarter)
    }

    pairs_of_nibbles!(1);
}

pub(crate) struct Q5K;
impl BlockFormat for Q5K {
    const FILE_BYTES: usize = 176;
    const HEADER: usize = 2;
    const UNITS: usize = 8;
    const UNIT: usize = 1 + 2 + 8;

    fn pack(bytes: &[u8], row: &mut TileRow<'_>) {
        row.put_bytes(0, &bytes[..4]);
        for i in 0..Self::UNITS {
            let unit = Self::HEADER + i * Self::UNIT;
            row.put_half(unit, word(&scale_and_minimum(&bytes[4..16], i)));
            // Bit i of byte k is the fifth bit of column k of unit i.
            let fifth = |k: usize| u32::from(bytes[16 + k] >> i & 1);
            row.put_words(unit + 1, [(0..32).map(|k| fifth(k) << k).sum()]);
            let codes = &bytes[48 + i / 2 * 32..];
            row.put_bytes(unit + 3, &pack_nibbles(|k| codes[k] >> (i % 2 * 4) & 15));
        }
    }

    #[inline(always)]
    fn header<S: Simd>(simd: S, header: &[S::u32s]) -> [Lanes<S>; 2] {
        two_halves(simd, header)
    }

    #[inline(always)]
    fn scales<S: Simd>(
        simd: S,
        header: &[Lanes<S>; 2],
        unit: &[S::u32s],
        _: usize,
    ) -> [Lanes<S>; 2] {
        scales_of_bytes(simd, header, unit[0])
    }

    #[inline(always)]
    fn codes<S: Simd, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4] {
        five_bits::<S, HALF>(simd, &unit[1..], &unit[3..], quarter)
    }
}

pub(crate) struct Q6K;
impl BlockFormat for Q6K {
    const FILE_BYTES: usize = 210;
    const HEADER: usize = 1;
    const UNITS: usize = 8;
    const UNIT: usize = 1 + 4 + 8;
    const SCALES_PER_HALF: bool = true;

    fn pack(bytes: &[u8], row: &mut TileRow<'_>) {
        row.put_half(0, word(&bytes[208..]));
        for i in 0..Self::UNITS {
            let unit = Self::HEADER + i * Self::UNIT;
            // Each half of a block has four units: 64 bytes of low four bits (units 0 and 1 in the
            // low, 2 and 3 in the high halves of bytes), 32 bytes of upper two bits, and eight
            // scales.
            let (half, i) = (i / 4, i % 4);
            let (low, upper) = (&bytes[half * 64 + i % 2 * 32..], &bytes[128 + half * 32..]);
            let upper = |k: usize| u32::from(upper[k] >> (2 * i) & 3);
            row.put_half(unit, (word(&bytes[192 + half * 8 + 2 * i..][..2]) ^ SIGN_BITS) & 0xffff);
            let sixteen = |first: usize| (0..16).map(|k| upper(first + k) << (2 * k)).sum();
            row.put_words(unit + 1, [sixteen(0), sixteen(16)]);
            row.put_bytes(unit + 5, &pack_nibbles(|k| low[k] >> (i / 2 * 4) & 15));
        }
    }

    #[inline(always)]
    fn header<S: Simd>(simd: S, header: &[S::u32s]) -> [Lanes<S>; 2] {
        [shared_halves(simd, header[0]), [simd.splat_f32s(0.0); 2]]
    }

    #[inline(always)]
    fn scales<S: Simd>(
        simd: S,
        header: &[Lanes<S>; 2],
        unit: &[S::u32s],
        half: usize,
    ) -> [Lanes<S>; 2] {
        let first = bit_field(simd, unit[0], 8 * half, 255, 128.0);
        let second = bit_field(simd, unit[0], 16 + 8 * half, 255, 128.0);
        let scale = mul(simd, header[0], [first, second]);
        [scale, mul_scalar(simd, scale, -32.0)]
    }

    #[inline(always)]
    fn codes<S: Simd, const HALF: usize>(
        simd: S,
        unit: &[S::u32s],
        quarter: usize,
    ) -> [Lanes<S>; 4] {
        four_columns!(simd, |i, second| {
            let low = shifted(simd, unit[5 + 2 * quarter + second], 8 * i + 4 * HALF);
            let upper = shifted(simd, unit[1 + 2 * HALF + second], 2 * (4 * quarter + i));
            let upper = simd.wrapping_dyn_shl_u32s(upper, simd.splat_u32s(4));
            two_bit_fields(simd, low, 15, upper, 48)
        })
    }
}
