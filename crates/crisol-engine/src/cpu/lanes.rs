//! Lanes: what the GEMM of [`super::gemm`] reads of its operands, 32 bits at a time.
//!
//! ```text
//!                     A [m, k]                 B [k, n] (a panel of it)
//!   F32    a lane is  one number               one number
//!   Bf16   a lane is  A[i, 2l], A[i, 2l + 1]   B[2l, j], B[2l + 1, j]
//!
//!          31            16 15             0
//!          └─ second bf16 ─┴─ first bf16 ──┘   what `vdpbf16ps` multiplies; 0 beyond an odd k
//! ```
//!
//! A matrix of lanes is a [`Mat`] like any other, whose inner dimension is half as long. Packing,
//! blocks and tiles know lanes only. Lanes are moved as f32 and never computed with as such.
//!
//! Numbers are rounded to the nearest bf16, ties to even. Those that round beyond the largest one
//! become infinite, and NaN stays NaN. AVX512-BF16 rounds with an instruction that takes subnormal
//! numbers as zero; `vdpbf16ps` would do so anyway.

use pulp::Simd;

use super::mat::Mat;
use super::parallel::for_rows;
use crate::buffer::Pool;
use crate::precision::Precision;

/// The bits of the second number of a lane.
const SECOND: u32 = 0xffff_0000;
/// Makes a NaN quiet. Without it, one whose set bits are all cut off would become infinite.
const QUIET: u32 = 0x0040_0000;
/// Just below half of the last place of bf16.
const BELOW_HALF: u32 = 0x7fff;

impl Precision {
    /// Lanes of `k` numbers along the inner dimension.
    pub(crate) fn lanes(self, k: usize) -> usize {
        match self {
            Precision::F32 => k,
            Precision::Bf16 => k.div_ceil(2),
        }
    }
}

/// A number rounded to bf16: the upper half of the result; the lower half is arbitrary.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(BELOW_HALF + (bits >> 16 & 1));
    if x.is_nan() { bits | QUIET } else { rounded }
}

/// A number rounded to bf16.
#[inline(always)]
pub(super) fn rounded(x: f32) -> f32 {
    f32::from_bits(round(x) & SECOND)
}

/// The lane of two numbers.
#[inline(always)]
pub(super) fn pair(first: f32, second: f32) -> f32 {
    f32::from_bits(round(first) >> 16 | round(second) & SECOND)
}

/// [`round`] of every element of a vector.
#[inline(always)]
fn round_vector<S: Simd>(simd: S, x: S::f32s) -> S::u32s {
    let splat = |bits| simd.splat_u32s(bits);
    let bits = simd.transmute_u32s_f32s(x);
    let odd = simd.and_u32s(simd.wrapping_dyn_shr_u32s(bits, splat(16)), splat(1));
    let rounded = simd.add_u32s(bits, simd.add_u32s(odd, splat(BELOW_HALF)));
    // Only NaN differs from itself.
    simd.select_u32s(simd.equal_f32s(x, x), rounded, simd.or_u32s(bits, splat(QUIET)))
}

/// The lanes of two vectors' elements.
#[inline(always)]
pub(super) fn pair_vectors<S: Simd>(simd: S, first: S::f32s, second: S::f32s) -> S::f32s {
    let first = simd.wrapping_dyn_shr_u32s(round_vector(simd, first), simd.splat_u32s(16));
    let second = simd.and_u32s(round_vector(simd, second), simd.splat_u32s(SECOND));
    simd.transmute_f32s_u32s(simd.or_u32s(first, second))
}

/// The lanes of two vectors' elements, which are exact in bf16.
#[inline(always)]
pub(super) fn exact_pair<S: Simd>(simd: S, first: S::f32s, second: S::f32s) -> S::f32s {
    let first = simd.wrapping_dyn_shr_u32s(simd.transmute_u32s_f32s(first), simd.splat_u32s(16));
    let second = simd.and_u32s(simd.transmute_u32s_f32s(second), simd.splat_u32s(SECOND));
    simd.transmute_f32s_u32s(simd.or_u32s(first, second))
}

/// The first numbers of lanes, as f32.
#[inline(always)]
pub(super) fn first_of_lanes<S: Simd>(simd: S, lanes: S::f32s) -> S::f32s {
    let bits = simd.transmute_u32s_f32s(lanes);
    simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(bits, simd.splat_u32s(16)))
}

/// The second numbers of lanes, as f32.
#[inline(always)]
pub(super) fn second_of_lanes<S: Simd>(simd: S, lanes: S::f32s) -> S::f32s {
    let bits = simd.transmute_u32s_f32s(lanes);
    simd.transmute_f32s_u32s(simd.and_u32s(bits, simd.splat_u32s(SECOND)))
}

/// Removes the second number of each lane.
pub(super) fn clear_second(lanes: &mut [f32]) {
    for lane in lanes {
        *lane = f32::from_bits(lane.to_bits() & !SECOND);
    }
}

/// Lanes of neighbours: `row` is along the inner dimension.
pub(super) fn pair_neighbours(row: &[f32], lanes: &mut [f32]) {
    let done = instruction::pair_neighbours(row, lanes);
    emulated::pair_neighbours(&row[2 * done..], &mut lanes[done..]);
}

/// Lanes of pairs of rows of a row-major matrix, whose inner dimension is from row to row, in
/// panels of `width` columns ([`super::packed`]). An odd last row is paired with zeros.
pub(super) fn pair_rows(mat: Mat<'_>, panels: &mut [f32], width: usize) {
    // Row by row, because the matrix may come from main memory, and the panels stay in a cache.
    let lanes = mat.row_count().div_ceil(2);
    let done = instruction::pair_rows(mat, panels, width);
    for l in 0..lanes {
        let second = 2 * l + 1;
        let whole = second < mat.row_count();
        // The instruction does whole panels only, because tasks are cut between panels: their
        // number must not decide which way rounds a column.
        let cols = if whole { done } else { 0 }..mat.col_count();
        if !cols.is_empty() {
            let first = mat.tile(2 * l, 1, cols.clone());
            let second = whole.then(|| mat.tile(second, 1, cols.clone()));
            let to = &mut panels[cols.start * lanes + l * width..];
            emulated::pair_two_rows(first, second, to, width, lanes * width);
        }
    }
}

/// On any processor.
mod emulated {
    use super::super::math::vectorised;
    use super::pair;

    vectorised! {
        pub(super) fn pair_neighbours<'a, S>(row: &'a [f32], lanes: &'a mut [f32]) {
            let (pairs, rest) = row.as_chunks::<2>();
            for (lane, [first, second]) in lanes.iter_mut().zip(pairs) {
                *lane = pair(*first, *second);
            }
            if let ([last], Some(lane)) = (rest, lanes.last_mut()) {
                *lane = pair(*last, 0.0);
            }
        }

        pub(super) fn pair_two_rows<'a, S>(
            first: &'a [f32],
            second: Option<&'a [f32]>,
            panels: &'a mut [f32],
            width: usize,
            stride: usize,
        ) {
            for (i, first) in first.chunks(width).enumerate() {
                let lanes = &mut panels[i * stride..][..width];
                if let Some(second) = second {
                    let second = &second[i * width..];
                    for ((lane, first), second) in lanes.iter_mut().zip(first).zip(second) {
                        *lane = pair(*first, *second);
                    }
                } else {
                    for (lane, first) in lanes.iter_mut().zip(first) {
                        *lane = pair(*first, 0.0);
                    }
                }
                lanes[first.len()..].fill(0.0);
            }
        }
    }
}

/// With AVX512-BF16, where the processor has it: 16 lanes at a time.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
pub(super) mod instruction {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_permutexvar_epi16,
    };
    use std::mem::transmute;

    use super::super::mat::prefetch_rows;
    use super::Mat;

    fn detected() -> bool {
        std::arch::is_x86_feature_detected!("avx512bf16")
            && std::arch::is_x86_feature_detected!("avx512bw")
    }

    /// How many lanes it wrote.
    pub(super) fn pair_neighbours(row: &[f32], lanes: &mut [f32]) -> usize {
        let (vectors, _) = row.as_chunks::<32>();
        let (lanes, _) = lanes.as_chunks_mut::<16>();
        if vectors.is_empty() || !detected() {
            return 0;
        }
        // SAFETY: the processor has the features.
        unsafe { pair_neighbours_of_vectors(vectors, lanes) }
        16 * vectors.len().min(lanes.len())
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn pair_neighbours_of_vectors(vectors: &[[f32; 32]], lanes: &mut [[f32; 16]]) {
        for (lanes, numbers) in lanes.iter_mut().zip(vectors) {
            // SAFETY: all of these types are plain bits of the same size.
            unsafe {
                let [low, high] = transmute::<[f32; 32], [__m512; 2]>(*numbers);
                let bf16 = _mm512_cvtne2ps_pbh(high, low);
                *lanes = transmute::<__m512bh, [f32; 16]>(bf16);
            }
        }
    }

    /// How many columns of whole pairs it wrote: those of whole panels.
    pub(super) fn pair_rows(mat: Mat<'_>, panels: &mut [f32], width: usize) -> usize {
        let cols = mat.col_count() / width * width;
        if cols == 0 || !width.is_multiple_of(16) || !detected() {
            return 0;
        }
        // SAFETY: the processor has the features.
        unsafe { pair_vectors_of_rows(mat.cols(0..cols), panels, width) }
        cols
    }

    /// Rows from those that are rounded to those that are prefetched.
    const AHEAD: usize = 8;

    /// One call for all rows: a call for each pair took longer than their rounding.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn pair_vectors_of_rows(mat: Mat<'_>, panels: &mut [f32], width: usize) {
        let (rows, cols) = (mat.row_count(), mat.col_count());
        let (numbers, stride) = (mat.tile(0, rows, 0..cols), mat.strides().0);
        let panel = rows.div_ceil(2) * width;
        for l in 0..rows / 2 {
            let first = &numbers[2 * l * stride..][..cols];
            let second = &numbers[(2 * l + 1) * stride..][..cols];
            // Short runs of a wide matrix end before the processor foresees the next. Whole rows
            // follow each other.
            if cols < stride {
                let first = 2 * l + AHEAD;
                prefetch_rows(numbers.as_ptr(), stride, cols, first..first + 2);
            }
            let pairs = first.chunks_exact(width).zip(second.chunks_exact(width));
            for ((first, second), panel) in pairs.zip(panels.chunks_exact_mut(panel)) {
                let (lanes, _) = panel[l * width..][..width].as_chunks_mut::<16>();
                let (first, second) = (first.as_chunks::<16>().0, second.as_chunks::<16>().0);
                for ((lanes, first), second) in lanes.iter_mut().zip(first).zip(second) {
                    // SAFETY: all of these types are 512 bits, any of which are valid.
                    unsafe {
                        let first = transmute::<[f32; 16], __m512>(*first);
                        let second = transmute::<[f32; 16], __m512>(*second);
                        *lanes = transmute::<__m512, [f32; 16]>(pair_vectors(first, second));
                    }
                }
            }
        }
    }

    /// Puts 16 first numbers and 16 second ones in lanes: 0, 16, 1, 17, …
    const INTERLEAVED: [[u16; 2]; 16] = {
        let mut order = [[0, 16]; 16];
        let mut lane = 0;
        while lane < 16 {
            order[lane] = [lane as u16, lane as u16 + 16];
            lane += 1;
        }
        order
    };

    /// The lanes of two vectors' elements.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(in super::super) fn pair_vectors(first: __m512, second: __m512) -> __m512 {
        let halves = _mm512_cvtne2ps_pbh(second, first);
        // SAFETY: all of these types are 512 bits, any of which are valid.
        unsafe {
            let order = transmute::<[[u16; 2]; 16], __m512i>(INTERLEAVED);
            let halves = transmute::<__m512bh, __m512i>(halves);
            transmute::<__m512i, __m512>(_mm512_permutexvar_epi16(order, halves))
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod instruction {
    use super::Mat;

    pub(super) fn pair_neighbours(_: &[f32], _: &mut [f32]) -> usize {
        0
    }

    pub(super) fn pair_rows(_: Mat<'_>, _: &mut [f32], _: usize) -> usize {
        0
    }
}

/// Calls `multiply` with the left operand `a`, in lanes.
pub(super) fn in_lanes(
    precision: Precision,
    tasks: usize,
    a: Mat<'_>,
    floats: &mut Pool<f32>,
    multiply: impl FnOnce(Mat<'_>),
) {
    if precision == Precision::F32 {
        return multiply(a);
    }
    let (rows, lanes) = (a.row_count(), precision.lanes(a.col_count()));
    let mut buffer = floats.take(rows * lanes);
    if rows > 0 && lanes > 0 {
        if a.strides().1 == 1 {
            let inner = a.col_count();
            for_rows(tasks, 0..rows, [lanes], [&mut *buffer], &|part, [buffer]| {
                for (row, buffer) in part.zip(buffer.chunks_exact_mut(lanes)) {
                    pair_neighbours(a.tile(row, 1, 0..inner), buffer);
                }
            });
            multiply(Mat::new(&buffer, rows, lanes));
        } else {
            let transposed = a.t();
            for_rows(tasks, 0..lanes, [rows], [&mut *buffer], &|part, [buffer]| {
                let inner = transposed.row_count();
                pair_rows(transposed.rows(2 * part.start..inner.min(2 * part.end)), buffer, rows);
            });
            multiply(Mat::new(&buffer, lanes, rows).t());
        }
    } else {
        multiply(Mat::new(&buffer, rows, lanes));
    }
    floats.give(buffer);
}
