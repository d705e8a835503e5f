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
//! become infinite, subnormal ones stay subnormal, and NaN stays NaN.

use pulp::Simd;

use super::mat::Mat;
use super::math::vectorised;
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

vectorised! {
    /// Lanes of neighbours: `row` is along the inner dimension.
    pub(super) fn pair_neighbours<'a, S>(row: &'a [f32], lanes: &'a mut [f32]) {
        let (pairs, rest) = row.as_chunks::<2>();
        for (lane, [first, second]) in lanes.iter_mut().zip(pairs) {
            *lane = pair(*first, *second);
        }
        if let ([last], Some(lane)) = (rest, lanes.last_mut()) {
            *lane = pair(*last, 0.0);
        }
    }

    /// Lanes of two rows: the inner dimension is from row to row. Without a second one, of zeros.
    pub(super) fn pair_rows<'a, S>(first: &'a [f32], second: Option<&'a [f32]>, lanes: &'a mut [f32]) {
        match second {
            Some(second) => {
                for ((lane, first), second) in lanes.iter_mut().zip(first).zip(second) {
                    *lane = pair(*first, *second);
                }
            }
            None => {
                for (lane, first) in lanes.iter_mut().zip(first) {
                    *lane = pair(*first, 0.0);
                }
            }
        }
    }
}

/// Rows `2l` and `2l + 1` of a row-major matrix; the second may be missing.
pub(super) fn two_rows(mat: Mat<'_>, l: usize) -> (&[f32], Option<&[f32]>) {
    let (rows, cols) = (mat.row_count(), mat.col_count());
    let row = |row| mat.tile(row, 1, 0..cols);
    (row(2 * l), (2 * l + 1 < rows).then(|| row(2 * l + 1)))
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
                for (l, buffer) in part.zip(buffer.chunks_exact_mut(rows)) {
                    let (first, second) = two_rows(transposed, l);
                    pair_rows(first, second, buffer);
                }
            });
            multiply(Mat::new(&buffer, lanes, rows).t());
        }
    } else {
        multiply(Mat::new(&buffer, rows, lanes));
    }
    floats.give(buffer);
}
