//! GEMM of pairs of bf16 ([`super::lanes`]): the loops of [`super::gemm`] with another inner step.
//!
//! ```text
//! sum += second(x) · second(b)      each a fused multiply-add in f32, in the order of `vdpbf16ps`
//! sum += first(x) · first(b)
//! ```
//!
//! | processor | step | mr |
//! |---|---|---|
//! | AMX-BF16 | `tdpbf16ps` on tiles, with loops and an order of its own ([`super::amx`]) | 32 |
//! | AVX512-BF16 | `vdpbf16ps` | 12 |
//! | AVX-512, NEON | lanes are split by shift and mask, then multiplied in f32 | 12 |
//! | AVX2, others | the same, with four registers for a split row of the panel | 4 |
//!
//! A panel of kc lanes takes the bytes of one of the same kc in f32 and holds twice the inner
//! dimension, so the blocks of [`super::gemm`] fit the caches as they are, and `C` is read and
//! written half as often.
//!
//! A product of two bf16 is exact in f32. The instruction takes subnormal operands and results as
//! zero and the emulation does not; otherwise they give the same bits. The plain twin is
//! `gemm_bf16` in [`reference`](super::reference).

use pulp::Simd;

#[cfg(target_arch = "x86_64")]
use super::amx::Amx;
use super::gemm::{Gemm, Product};
use super::lanes::{first_of_lanes, pair_vectors, second_of_lanes};
use super::mat::{Mat, MatMut};
use super::packed::PackedOperand;

/// [`super::gemm::gemm`] in bf16.
pub(super) fn multiply_pairs(
    dst: MatMut<'_>,
    accumulate: bool,
    factor: f32,
    a: Mat<'_>,
    b: PackedOperand<'_>,
) {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(amx) = Amx::detected() {
            return amx.multiply(dst, accumulate, factor, a, b);
        }
    }
    with_pairs(PairGemm { dst, accumulate, factor, a, b });
}

/// A kernel that multiplies pairs.
pub(super) trait PairKernel {
    fn run<S: Simd, P: Pairs<S>>(self, simd: S);
}

/// Runs a kernel with the processor's instruction, or with split lanes.
pub(super) fn with_pairs(kernel: impl PairKernel) {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = instruction::detected() {
        return instruction::run(simd, kernel);
    }
    pulp::Arch::new().dispatch(Split(kernel));
}

/// Lanes are pairs of bf16.
pub(super) trait Pairs<S: Simd>: Product<S> {
    /// The lanes of two vectors' elements, rounded.
    fn round(simd: S, first: S::f32s, second: S::f32s) -> S::f32s;
}

struct PairGemm<'a> {
    dst: MatMut<'a>,
    accumulate: bool,
    factor: f32,
    a: Mat<'a>,
    b: PackedOperand<'a>,
}

impl PairKernel for PairGemm<'_> {
    #[inline(always)]
    fn run<S: Simd, P: Pairs<S>>(self, simd: S) {
        let PairGemm { dst, accumulate, factor, a, b } = self;
        let gemm = Gemm::<P>::new(dst, accumulate, factor, a, b);
        // Accumulators, a split row of the panel, a broadcast and its half: 24 + 4 + 2 or 8 + 4 + 2
        // registers, and the mask. The instruction splits nothing.
        if S::REGISTER_COUNT >= 32 { gemm.run::<S, 12>(simd) } else { gemm.run::<S, 4>(simd) }
    }
}

/// A kernel for [`SplitPairs`].
struct Split<K>(K);

impl<K: PairKernel> pulp::WithSimd for Split<K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.0.run::<S, SplitPairs>(simd);
    }
}

/// Lanes are pairs, and are split.
struct SplitPairs;

impl<S: Simd> Pairs<S> for SplitPairs {
    #[inline(always)]
    fn round(simd: S, first: S::f32s, second: S::f32s) -> S::f32s {
        pair_vectors(simd, first, second)
    }
}

impl<S: Simd> Product<S> for SplitPairs {
    #[allow(unsafe_code)]
    #[inline(always)]
    unsafe fn rank_one_update<const MR: usize>(
        simd: S,
        a: &[f32],
        at: impl Fn(usize) -> usize,
        panel_row: &[S::f32s],
        sums: &mut [[S::f32s; 2]; MR],
    ) {
        let lanes = [panel_row[0], panel_row[1]];
        let second = [second_of_lanes(simd, lanes[0]), second_of_lanes(simd, lanes[1])];
        let first = [first_of_lanes(simd, lanes[0]), first_of_lanes(simd, lanes[1])];
        for (i, row_sums) in sums.iter_mut().enumerate() {
            // SAFETY: guaranteed by the caller.
            let x = simd.splat_f32s(unsafe { *a.get_unchecked(at(i)) });
            let (x_second, x_first) = (second_of_lanes(simd, x), first_of_lanes(simd, x));
            row_sums[0] = simd.mul_add_e_f32s(x_second, second[0], row_sums[0]);
            row_sums[1] = simd.mul_add_e_f32s(x_second, second[1], row_sums[1]);
            row_sums[0] = simd.mul_add_e_f32s(x_first, first[0], row_sums[0]);
            row_sums[1] = simd.mul_add_e_f32s(x_first, first[1], row_sums[1]);
        }
    }
}

/// AVX512-BF16.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod instruction {
    use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps};
    use std::mem::transmute;

    use pulp::x86::V4;
    use pulp::{Simd, f32x16};

    use super::super::gemm::Product;
    use super::super::lanes::instruction::pair_vectors;
    use super::{PairKernel, Pairs};

    /// AVX-512 with the instruction, where the processor has it.
    pub(super) fn detected() -> Option<V4> {
        V4::try_new().filter(|_| std::arch::is_x86_feature_detected!("avx512bf16"))
    }

    /// `simd` is from [`detected`].
    pub(super) fn run(simd: V4, kernel: impl PairKernel) {
        // SAFETY: the processor has the features of `V4`, as a value of it shows, and AVX512-BF16.
        unsafe { run_with_features(simd, kernel) }
    }

    /// # Safety
    /// The processor must have the features.
    // Those of `V4`, or its operations would not be inlined.
    #[target_feature(enable = "sse,sse2,fxsr,sse3,ssse3,sse4.1,sse4.2,popcnt,avx,avx2,bmi1,bmi2")]
    #[target_feature(enable = "fma,lzcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16")]
    unsafe fn run_with_features(simd: V4, kernel: impl PairKernel) {
        kernel.run::<V4, Instruction>(simd);
    }

    /// Pairs are rounded and multiplied by instructions.
    struct Instruction;

    impl Pairs<V4> for Instruction {
        #[inline(always)]
        fn round(_: V4, first: f32x16, second: f32x16) -> f32x16 {
            // SAFETY: both types are 512 bits, any of which are valid; only `run_with_features`
            // reaches this, so the processor has the instructions.
            unsafe {
                let first = transmute::<f32x16, __m512>(first);
                let second = transmute::<f32x16, __m512>(second);
                transmute::<__m512, f32x16>(pair_vectors(first, second))
            }
        }
    }

    impl Product<V4> for Instruction {
        #[inline(always)]
        unsafe fn rank_one_update<const MR: usize>(
            simd: V4,
            a: &[f32],
            at: impl Fn(usize) -> usize,
            panel_row: &[f32x16],
            sums: &mut [[f32x16; 2]; MR],
        ) {
            for (i, row_sums) in sums.iter_mut().enumerate() {
                // SAFETY: guaranteed by the caller.
                let x = simd.splat_f32s(unsafe { *a.get_unchecked(at(i)) });
                for (sum, lanes) in row_sums.iter_mut().zip(panel_row) {
                    // SAFETY: all of these types are 512 bits, any of which are valid; only
                    // `run_with_features` reaches this, so the processor has the instruction.
                    *sum = unsafe {
                        transmute::<__m512, f32x16>(_mm512_dpbf16_ps(
                            transmute::<f32x16, __m512>(*sum),
                            transmute::<f32x16, __m512bh>(x),
                            transmute::<f32x16, __m512bh>(*lanes),
                        ))
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gemm::parallel_gemm;
    use super::super::lanes::in_lanes;
    use super::super::packed::{PackedBuffer, panel_width};
    use super::super::reference::{self, Matrix, bf16};
    use super::*;
    use crate::buffer::Pool;
    use crate::precision::Precision;

    fn number(i: usize) -> f32 {
        ((i * 7919 + 13) % 1009) as f32 / 500.0 - 1.0
    }

    fn matrix(rows: usize, cols: usize, seed: usize) -> Matrix {
        Matrix::from_fn(rows, cols, |i, j| number(i * cols + j + seed).into())
    }

    /// `rows × cols`, row-major or column-major.
    fn view(data: &[f32], rows: usize, cols: usize, column_major: bool) -> Mat<'_> {
        if column_major { Mat::new(data, cols, rows).t() } else { Mat::new(data, rows, cols) }
    }

    fn multiply(tasks: usize, result: &mut [f32], accumulate: bool, a: Mat<'_>, b: Mat<'_>) {
        let mut floats = Pool::default();
        let b = PackedBuffer::new(Precision::Bf16, tasks, b, &mut floats);
        let dst = MatMut::new(result, a.row_count(), b.as_operand().col_count());
        parallel_gemm(tasks, dst, accumulate, 0.5, a, b.as_operand(), &mut floats);
    }

    /// Sizes across the edges of pairs, tiles, panels and blocks; both orders of `A` and `B`;
    /// accumulation. Both are rounded, and nothing else is.
    #[test]
    fn equals_the_reference_on_rounded_operands() {
        let shapes = [
            (1, 1, 1),
            (3, 5, 7),
            (17, 33, 2),
            (40, 9, 1),
            (31, 130, 65),
            (2, 0, 3),
            (600, 70, 40),
            (13, 2 * 768 + 5, 37),
            (96, 768, 20),
            (272, 80, 20),
            (4, 300, 33),
        ];
        // The large ones take Miri minutes.
        let shapes = if cfg!(miri) { &shapes[..3] } else { &shapes[..] };
        for &(rows, inner, cols) in shapes {
            let (a, b, c) = (matrix(rows, inner, 0), matrix(inner, cols, 3), matrix(rows, cols, 5));
            let expected = reference::gemm_bf16(0.5, &a, &b);
            let size = reference::gemm(0.5, &a.map(f64::abs), &b.map(f64::abs));
            for case in 0..8 {
                let (a_by_column, b_by_column, accumulate) =
                    (case & 1 == 1, case & 2 == 2, case & 4 == 4);
                let a = if a_by_column { a.transposed() } else { a.clone() }.to_f32();
                let b = if b_by_column { b.transposed() } else { b.clone() }.to_f32();
                let mut result = c.to_f32();
                let (a, b) =
                    (view(&a, rows, inner, a_by_column), view(&b, inner, cols, b_by_column));
                multiply(1, &mut result, accumulate, a, b);
                for (i, &result) in result.iter().enumerate() {
                    let start = if accumulate { c.data[i] } else { 0.0 };
                    let error = (f64::from(result) - start - expected.data[i]).abs();
                    let limit = 1e-6 * (1.0 + 2.0 * size.data[i]);
                    assert!(
                        error < limit,
                        "{rows}×{inner}×{cols} case {case} at {i}: off by {error}"
                    );
                }
            }
        }
    }

    /// Every step that the processor has, on an `a` in lanes.
    fn in_each_way(
        [rows, cols]: [usize; 2],
        a: Mat<'_>,
        b: PackedOperand<'_>,
    ) -> Vec<(&'static str, Vec<f32>)> {
        let mut results = Vec::new();
        let mut run = |name, step: &dyn Fn(MatMut<'_>)| {
            let mut result = vec![0.0; rows * cols];
            step(MatMut::new(&mut result, rows, cols));
            results.push((name, result));
        };
        run("split lanes", &|dst| {
            pulp::Arch::new().dispatch(Split(PairGemm {
                dst,
                accumulate: false,
                factor: 1.0,
                a,
                b,
            }));
        });
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(simd) = instruction::detected() {
                run("vdpbf16ps", &|dst| {
                    let gemm = PairGemm { dst, accumulate: false, factor: 1.0, a, b };
                    instruction::run(simd, gemm);
                });
            }
            if let Some(amx) = Amx::detected() {
                run("tdpbf16ps", &|dst| amx.multiply(dst, false, 1.0, a, b));
            }
        }
        results
    }

    /// The same bits, except that tiles have an order of their own, which changes the bits of sums
    /// that are not exact. Those of small integers are.
    #[test]
    fn each_step_gives_the_same_bits() {
        let shapes = [(29, 1001, 70), (1, 17, 5), (150, 31, 33), (33, 64, 64), (20, 1600, 40)];
        let shapes = if cfg!(miri) { &[(5, 7, 9)][..] } else { &shapes[..] };
        let whole = |i: usize| ((i * 7919 + 13) % 17) as f32 - 8.0;
        for (&(rows, inner, cols), exact) in shapes.iter().flat_map(|s| [(s, true), (s, false)]) {
            let value = |i| if exact { whole(i) } else { number(i) };
            let a: Vec<f32> = (0..rows * inner).map(value).collect();
            let b: Vec<f32> = (0..inner * cols).map(|i| value(i + 3)).collect();
            let [a_matrix, b_matrix] = [(&a, rows, inner), (&b, inner, cols)]
                .map(|(data, rows, cols)| Matrix::from_f32(rows, cols, data));
            let mut floats = Pool::default();
            let b = Mat::new(&b, inner, cols);
            let packed = PackedBuffer::new(Precision::Bf16, 1, b, &mut floats);
            let mut results = Vec::new();
            in_lanes(Precision::Bf16, 1, Mat::new(&a, rows, inner), &mut floats, |a| {
                results = in_each_way([rows, cols], a, packed.as_operand());
            });
            let split = results[0].1.clone();
            if exact {
                assert_eq!(split, reference::gemm(1.0, &a_matrix, &b_matrix).to_f32());
            }
            let sizes = reference::gemm(1.0, &a_matrix.map(f64::abs), &b_matrix.map(f64::abs));
            for (name, result) in results {
                let limit = if exact || name != "tdpbf16ps" { 0.0 } else { 1e-6 };
                for ((x, split), size) in result.into_iter().zip(&split).zip(&sizes.data) {
                    let error = f64::from((x - split).abs());
                    assert!(
                        error <= limit * size,
                        "{name}, {rows}×{inner}×{cols}: {x} for {split}"
                    );
                }
            }
        }
    }

    /// Split by rows, and a single row by columns.
    #[test]
    fn tasks_change_no_bit() {
        let shapes = [(3, 5, 7), (25, 9, 21), (131, 97, 85), (1, 2201, 1000), (200, 181, 70)];
        let (shapes, numbers_of_tasks, cases) = if cfg!(miri) {
            (&shapes[..2], &[3][..], 3..4)
        } else {
            (&shapes[..], &[2, 3, 5, 16][..], 0..4)
        };
        for &(rows, inner, cols) in shapes {
            let a: Vec<f32> = (0..rows * inner).map(number).collect();
            let b: Vec<f32> = (0..inner * cols).map(|i| number(i + 3)).collect();
            for case in cases.clone() {
                let (a, b) =
                    (view(&a, rows, inner, case & 1 == 1), view(&b, inner, cols, case > 1));
                let run = |tasks| {
                    let mut result: Vec<f32> = (0..rows * cols).map(|i| number(i + 5)).collect();
                    multiply(tasks, &mut result, true, a, b);
                    result.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                let one = run(1);
                for &tasks in numbers_of_tasks {
                    assert_eq!(run(tasks), one, "{rows}×{inner}×{cols} in {tasks} tasks");
                }
            }
        }
    }

    /// Instructions round subnormal numbers in whole panels to zero, the rest is emulated.
    #[test]
    fn tasks_change_no_bit_of_subnormal_panels() {
        let (rows, cols) = if cfg!(miri) { (8, 40) } else { (2000, 40) };
        let b = vec![f32::from_bits(0x007f_ffff); rows * cols];
        let pack = |tasks, mat| {
            let mut floats = Pool::default();
            let packed = PackedBuffer::new(Precision::Bf16, tasks, mat, &mut floats);
            let operand = packed.as_operand();
            (0..cols.div_ceil(panel_width()))
                .flat_map(|i| operand.panel(i * panel_width(), 0..rows / 2, panel_width()))
                .map(|lane| lane.to_bits())
                .collect::<Vec<_>>()
        };
        for mat in [Mat::new(&b, rows, cols), Mat::new(&b, cols, rows).t()] {
            assert!(pack(1, mat) == pack(2, mat));
        }
    }

    /// Halfway cases go to even, what is too large becomes infinite, and NaN stays NaN although its
    /// set bits are cut off. Neither is lost or spread by padding or by the other half of a lane.
    #[test]
    fn rounding_and_what_is_not_finite() {
        // Half of bf16's last place at 1.
        let half = 1.0 / 256.0;
        let cases = [
            (1.0 + half, 1.0),
            (1.0 + 3.0 * half, 1.0 + 4.0 * half),
            (1.0 + half * 1.01, 1.0 + 2.0 * half),
            (-1.0 - half * 0.99, -1.0),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
            (f32::from_bits(0x7f80_0001), f32::NAN),
            (f32::from_bits(0xffff_ffff), f32::NAN),
        ];
        for (x, rounded) in cases {
            let twin = bf16(x.into()) as f32;
            assert!(twin == rounded || twin.is_nan() && rounded.is_nan(), "{x} became {twin}");
        }
        // Each case is in both halves of lanes and at the end of an odd inner dimension.
        for inner in [1, 2, 3] {
            for place in 0..inner {
                let mut a = vec![0.0; cases.len() * inner];
                for (row, (x, _)) in a.chunks_mut(inner).zip(cases) {
                    row[place] = x;
                }
                let b = vec![1.0; inner * 3];
                let mut result = vec![0.0; cases.len() * 3];
                let a_view = Mat::new(&a, cases.len(), inner);
                multiply(1, &mut result, false, a_view, Mat::new(&b, inner, 3));
                // The same numbers as right operand.
                let mut transposed = vec![0.0; cases.len() * 3];
                multiply(1, &mut transposed, false, Mat::new(&b, 3, inner), a_view.t());
                for (i, (x, rounded)) in cases.into_iter().enumerate() {
                    for result in [result[3 * i + 2], transposed[2 * cases.len() + i]] {
                        let expected = 0.5 * rounded;
                        assert!(
                            result == expected || (result.is_nan() && expected.is_nan()),
                            "{x} became {result} for {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn parts_of_a_packed_matrix_are_its_rows_and_columns() {
        let (inner, nr) = (11, panel_width());
        let cols = 2 * nr + 3;
        // All of them are bf16.
        let b: Vec<f32> = (0..inner * cols).map(|i| (i % 256) as f32).collect();
        let mut floats = Pool::default();
        let packed = PackedBuffer::new(Precision::Bf16, 1, Mat::new(&b, inner, cols), &mut floats);
        let part = packed.as_operand().rows(4..9).cols(nr..cols);
        let mut unit = [0.0; 5];
        for l in 0..5 {
            unit.fill(0.0);
            unit[l] = 1.0;
            let mut row = vec![0.0; cols - nr];
            let dst = MatMut::new(&mut row, 1, cols - nr);
            parallel_gemm(1, dst, false, 1.0, Mat::new(&unit, 1, 5), part, &mut floats);
            assert_eq!(row, b[(4 + l) * cols + nr..(5 + l) * cols]);
        }
    }
}
