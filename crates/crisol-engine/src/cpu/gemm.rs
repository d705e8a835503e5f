//! GEMM on the CPU: `C = factor · A · B` or `C += factor · A · B`, with `B` packed ahead of time
//! ([`super::packed`]). `A` and `B` are in lanes ([`super::lanes`]): k below counts lanes, numbers
//! in f32 and pairs of numbers in bf16. Only [`Product`] knows the difference.
//!
//! The loops are those of BLIS (Van Zee & van de Geijn 2015) with the roles of `A` and `B`
//! exchanged: a block of `B` (kc × nc) stays in L2, and mr rows of `A` (mr × kc) stay in L1 while
//! the panels of that block pass.
//!
//! ```text
//!             k                     n                            n
//!        ┌─────kc─────┐      ┌──┬──┬──┬──┬──┐              ┌──┬──┬──┬──┬──┐
//!        │            │    kc│  │  │  │  │  │              │  │  │  │  │  │
//!      mc├────────────┤  ×   │nr│nr│  │  │  │   =        mr├──┼──┤  │  │  │
//!        │  mr rows   │      │  │  │  │  │  │              │  │▓▓│  │  │  │ ← one mr × nr tile
//!        ├────────────┤      │  │  │  │  │  │              ├──┼──┤  │  │  │   in registers
//!        │            │      │  │  │  │  │  │              │  │  │  │  │  │
//!        └────────────┘      └──┴──┴──┴──┴──┘              └──┴──┴──┴──┴──┘
//!           A (m × k)           B (k × n)                     C (m × n)
//!        in place or packed     packed in panels              row-major
//!
//!   for k_block in k by kc          Gemm::run
//!     for m_block in m by mc        Gemm::run              packs A where it pays
//!       for n_block in n by nc      Gemm::multiply_block   block of B in L2
//!  ┌      for i in m_block by mr    Gemm::multiply_block   rows of A in L1, prefetches the next mr
//!  │        for j in n_block by nr  Gemm::multiply_block   one panel of B
//!  │          for l in k_block      MicroKernel::run       tile of C += A[i.., l] ⊗ B[l, j..]
//!  └ macro-kernel
//! ```
//!
//! | size | value |
//! |---|---|
//! | mr | 6 with 16 vector registers (AVX2), 12 with 32 (AVX-512, NEON) |
//! | nr | two vectors: 16 floats with AVX2, 32 with AVX-512, 8 with NEON |
//! | kc | at most [`KC`] |
//! | nc | [`L2_FLOATS`] / kc, in whole panels |
//! | mc | [`MC`] if `A` is packed, else m |
//!
//! Each element is summed over `l` in ascending order, whatever tile or task it falls into. The
//! number of threads changes no bit. The plain twin is `gemm` in [`reference`](super::reference).

use std::marker::PhantomData;
use std::ops::Range;
use std::time::{Duration, Instant};

use pulp::Simd;

use super::gemm_bf16::multiply_pairs;
use super::lanes::in_lanes;
use super::mat::{Mat, MatMut};
use super::math::fma;
use super::packed::{MAX_NR, PackedOperand, packed_len, panel_width};
use crate::buffer::Pool;
use crate::precision::Precision;

/// Largest kc. With AVX2, a panel of `B` (24 KiB) and mr rows of `A` (9 KiB) then fill a 32 KiB L1.
pub(super) const KC: usize = 384;
/// Lanes of the block of `B` that stays in L2 while rows of `A` pass: half of an L2 cache.
const L2_FLOATS: usize = 64 * 1024;
/// mc of a packed `A`: three cache lines (3 · 16 floats), and a multiple of both mr (6 and 12).
const MC: usize = 48;
/// Least common multiple of every mr (6 and 12): a cut here splits no tile on any processor.
const MR_LCM: usize = 12;
/// An `A` that spans at most this many floats, half of an L1 cache, stays there and is not packed.
const L1_FLOATS: usize = 4 * 1024;
/// Largest k at which a column-major `A` may be read in place: the number of sets of an L1 cache.
///
/// A tile reads a cache line of each column, and the rows below read the same lines again. They are
/// still in L1 if every column falls into a set of its own. Line `x` falls into set `x mod 64`:
///
/// ```text
///   column stride    sets of columns 0, 1, 2, …
///   64 lines         0, 0, 0, 0, …     one set of 8 or 12 lines: columns evict each other
///   65 lines         0, 1, 2, 3, …     64 sets for 64 columns, as with every odd stride
/// ```
///
/// With more columns or an even stride, `A` is packed, unless all of it fits ([`L1_FLOATS`]).
const MAX_COLUMNS_IN_PLACE: usize = 64;
/// Floats in a cache line.
pub(super) const CACHE_LINE: usize = 16;
/// Steps over `l` per test for the end of the loop, for mr = 6: a test at every step would take
/// issue slots from the multiply-adds. The longer steps of mr = 12 hide the test, and unrolling
/// them makes the compiler spill accumulators to the stack.
const UNROLL: usize = 4;
/// Multiply-adds below which a second thread does not pay: about ten microseconds.
const MIN_PARALLEL_MACS: usize = if cfg!(miri) { 1 << 10 } else { 1 << 20 };

/// [`gemm`] of an `a` in f32, in `tasks` tasks. In bf16, `a` is rounded first. The number of tasks
/// changes no bit.
pub(crate) fn parallel_gemm(
    tasks: usize,
    dst: MatMut<'_>,
    accumulate: bool,
    factor: f32,
    a: Mat<'_>,
    b: PackedOperand<'_>,
    floats: &mut Pool<f32>,
) {
    assert_eq!(a.col_count(), b.row_count(), "inner dimension");
    in_lanes(b.precision(), tasks, a, floats, |a| {
        gemm_in_tasks(tasks, dst, accumulate, factor, a, b);
    });
}

/// Each task computes whole rows of `dst`, or whole panels of a single row.
fn gemm_in_tasks(
    tasks: usize,
    dst: MatMut<'_>,
    accumulate: bool,
    factor: f32,
    a: Mat<'_>,
    b: PackedOperand<'_>,
) {
    let (rows, cols) = (dst.row_count(), dst.col_count());
    let first_tasks = tasks.div_ceil(2);
    let (length, unit) = if rows == 1 { (cols, panel_width()) } else { (rows, MR_LCM) };
    // Cut at the nearest multiple of `unit`: 30 rows become 12 + 18. Rounded up, they would become
    // 24 + 6, and the second task would wait for the first.
    let middle = (length * first_tasks / tasks + unit / 2) / unit * unit;
    if tasks == 1
        || rows * cols * a.col_count() < MIN_PARALLEL_MACS
        || middle == 0
        || middle >= length
    {
        return gemm(dst, accumulate, factor, a, b);
    }
    let ((dst, other_dst), (a, other_a), (b, other_b)) = if rows == 1 {
        (dst.split_cols(middle), (a, a), (b.cols(0..middle), b.cols(middle..cols)))
    } else {
        (dst.split_rows(middle), (a.rows(0..middle), a.rows(middle..rows)), (b, b))
    };
    rayon::join(
        || gemm_in_tasks(first_tasks, dst, accumulate, factor, a, b),
        || gemm_in_tasks(tasks - first_tasks, other_dst, accumulate, factor, other_a, other_b),
    );
}

/// `dst = factor · a · b`, or `dst += factor · a · b` if `accumulate`. Shapes `[m, k]`, `[k, n]`
/// and `[m, n]`; `a` is row-major or column-major, and in lanes as `b` is.
pub(crate) fn gemm(
    dst: MatMut<'_>,
    accumulate: bool,
    factor: f32,
    a: Mat<'_>,
    b: PackedOperand<'_>,
) {
    let (rows, cols) = (dst.row_count(), dst.col_count());
    assert!(
        a.row_count() == rows && b.col_count() == cols && a.col_count() == b.lane_count(),
        "gemm of {}×{} and {}×{} into {rows}×{cols}",
        a.row_count(),
        a.col_count(),
        b.lane_count(),
        b.col_count()
    );
    match b.precision() {
        Precision::F32 => {
            pulp::Arch::new().dispatch(Gemm::<Numbers>::new(dst, accumulate, factor, a, b));
        }
        Precision::Bf16 => multiply_pairs(dst, accumulate, factor, a, b),
    }
}

/// What the micro-kernel does with lanes.
pub(super) trait Product<S: Simd> {
    /// One step of [`multiply_panel`]: the outer product of a column of `A` and a row of the panel.
    ///
    /// # Safety
    /// `at(i)` must be an index of `a` for `i < MR`.
    #[allow(unsafe_code)]
    unsafe fn rank_one_update<const MR: usize>(
        simd: S,
        a: &[f32],
        at: impl Fn(usize) -> usize,
        panel_row: &[S::f32s],
        sums: &mut [[S::f32s; 2]; MR],
    );
}

/// Lanes are numbers.
///
/// With AVX2 (8 SIMD lanes, mr = 6), 2 loads and 6 broadcasts feed 12 fused multiply-adds:
///
/// ```text
///                        panel_row[0]   panel_row[1]
///   lane                 0  …  7        0  …  7
///                        b0 …  b7       b8 … b15         row l of the panel
///   A[0, l] broadcast  × sums[0][0]     sums[0][1]   ┐
///   A[1, l] broadcast  × sums[1][0]     sums[1][1]   │   sums[i][v] += A[i, l] · panel_row[v]
///          ⋮                 ⋮              ⋮        │
///   A[5, l] broadcast  × sums[5][0]     sums[5][1]   ┘
/// ```
pub(super) struct Numbers;

impl<S: Simd> Product<S> for Numbers {
    #[allow(unsafe_code)]
    #[inline(always)]
    unsafe fn rank_one_update<const MR: usize>(
        simd: S,
        a: &[f32],
        at: impl Fn(usize) -> usize,
        panel_row: &[S::f32s],
        sums: &mut [[S::f32s; 2]; MR],
    ) {
        for (i, row_sums) in sums.iter_mut().enumerate() {
            // SAFETY: guaranteed by the caller.
            let x = simd.splat_f32s(unsafe { *a.get_unchecked(at(i)) });
            row_sums[0] = simd.mul_add_e_f32s(x, panel_row[0], row_sums[0]);
            row_sums[1] = simd.mul_add_e_f32s(x, panel_row[1], row_sums[1]);
        }
    }
}

impl pulp::WithSimd for Gemm<'_, Numbers> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Accumulators, a row of the panel and a broadcast: 24 + 2 + 1 or 12 + 2 + 1 registers.
        if S::REGISTER_COUNT >= 32 { self.run::<S, 12>(simd) } else { self.run::<S, 6>(simd) }
    }
}

/// A GEMM with the [`Product`] `P`.
pub(super) struct Gemm<'a, P> {
    dst: MatMut<'a>,
    accumulate: bool,
    factor: f32,
    a: Mat<'a>,
    b: PackedOperand<'a>,
    product: PhantomData<P>,
}

impl<'a, P> Gemm<'a, P> {
    pub(super) fn new(
        dst: MatMut<'a>,
        accumulate: bool,
        factor: f32,
        a: Mat<'a>,
        b: PackedOperand<'a>,
    ) -> Gemm<'a, P> {
        Gemm { dst, accumulate, factor, a, b, product: PhantomData }
    }

    #[inline(always)]
    pub(super) fn run<S: Simd, const MR: usize>(mut self, simd: S)
    where
        P: Product<S>,
    {
        let (m, k) = (self.a.row_count(), self.a.col_count());
        if k == 0 {
            if !self.accumulate {
                (0..m).for_each(|row| self.dst.row_mut(row, 0..self.b.col_count()).fill(0.0));
            }
            return;
        }
        // As few blocks as possible, because each reads and writes all of `C`; and equal ones:
        // 400 = 200 + 200, not 384 + 16.
        let kc = k.div_ceil(k.div_ceil(KC));
        let k_blocks = (0..k).step_by(kc).map(|start| start..(start + kc).min(k));
        let (row_stride, col_stride) = self.a.strides();
        if col_stride == 1
            || columns_in_distinct_sets(k, col_stride)
            || self.a.tile(0, m, 0..k).len() <= L1_FLOATS
        {
            for k_block in k_blocks {
                let a_block = ABlock {
                    data: self.a.tile(0, m, k_block.clone()),
                    row_stride,
                    col_stride,
                    tile_stride: MR * row_stride,
                };
                self.multiply_block::<S, MR>(simd, a_block, 0..m, k_block);
            }
        } else {
            // 72 KiB of a thread's stack, which has at least 2 MiB.
            #[allow(clippy::large_stack_arrays)]
            let mut scratch = [0.0; MC * KC];
            for k_block in k_blocks {
                for top in (0..m).step_by(MC) {
                    let m_block = top..(top + MC).min(m);
                    let a_block = self.pack_a::<MR>(m_block.clone(), k_block.clone(), &mut scratch);
                    self.multiply_block::<S, MR>(simd, a_block, m_block, k_block.clone());
                }
            }
        }
    }

    /// Packs a block of a column-major `A`: the micro-kernel then reads its mr rows as one stream,
    /// free of the set conflicts that [`MAX_COLUMNS_IN_PLACE`] describes.
    ///
    /// ```text
    ///   mr = 6    ┌──────────── tile_stride = mr · kc ───────────┐
    ///   scratch:  │ rows 0…5, l=0 │ rows 0…5, l=1 │ … │ … l=kc-1 │ rows 6…11, l=0 │ …
    ///             └col_stride = mr┘
    /// ```
    #[inline(always)]
    fn pack_a<'r, const MR: usize>(
        &self,
        m_block: Range<usize>,
        k_block: Range<usize>,
        scratch: &'r mut [f32],
    ) -> ABlock<'r> {
        let (row_stride, col_stride) = self.a.strides();
        assert_eq!(row_stride, 1, "`A` is neither row-major nor column-major");
        let columns = self.a.tile(m_block.start, m_block.len(), k_block.clone());
        let tile_stride = MR * k_block.len();
        for l in 0..k_block.len() {
            let column = &columns[l * col_stride..][..m_block.len()];
            let (tiles, rest) = column.as_chunks::<MR>();
            for (tile, numbers) in tiles.iter().enumerate() {
                scratch[tile * tile_stride + l * MR..][..MR].copy_from_slice(numbers);
            }
            // The last tile may have fewer rows. What lies beyond them is never read.
            if !rest.is_empty() {
                scratch[tiles.len() * tile_stride + l * MR..][..rest.len()].copy_from_slice(rest);
            }
        }
        ABlock { data: scratch, row_stride: 1, col_stride: MR, tile_stride }
    }

    /// `C[m_block, ..] += factor · A[m_block, k_block] · B[k_block, ..]`: the macro-kernel on each
    /// block of nc columns. The first `k_block` overwrites `C` unless `accumulate`.
    #[inline(always)]
    fn multiply_block<S: Simd, const MR: usize>(
        &mut self,
        simd: S,
        a_block: ABlock<'_>,
        m_block: Range<usize>,
        k_block: Range<usize>,
    ) where
        P: Product<S>,
    {
        let n = self.b.col_count();
        let nr = 2 * S::F32_LANES;
        let nc = (L2_FLOATS / k_block.len() / nr).max(1) * nr;
        for start in (0..n).step_by(nc) {
            let n_block = start..(start + nc).min(n);
            let mut i = 0;
            while i < m_block.len() {
                // Fewer than mr rows at the end: tiles of 4, 2 and 1 rows.
                let tile_rows = match m_block.len() - i {
                    rest if rest >= MR => MR,
                    4.. => 4,
                    2.. => 2,
                    _ => 1,
                };
                // The rows of the next tile are prefetched while this one is computed: some before
                // each panel. A column-major `A` is left to the hardware's prefetcher.
                let next_tile_rows = if a_block.col_stride == 1 { MR } else { 0 };
                let first_next = i + tile_rows;
                let mut next_rows = first_next..(first_next + next_tile_rows).min(m_block.len());
                let panels = n_block.len().div_ceil(nr);
                let rows_per_panel = MR.div_ceil(panels);
                let a = &a_block.data[a_block.offset::<MR>(i)..];
                for j in n_block.clone().step_by(nr) {
                    for next_row in next_rows.by_ref().take(rows_per_panel) {
                        let next = &a_block.data[a_block.offset::<MR>(next_row)..];
                        for line in next[..k_block.len().min(next.len())].chunks(CACHE_LINE) {
                            prefetch(&line[0]);
                        }
                    }
                    let columns = j..(j + nr).min(n);
                    let kernel = MicroKernel {
                        a,
                        row_stride: a_block.row_stride,
                        col_stride: a_block.col_stride,
                        panel: self.b.panel(j, k_block.clone(), nr),
                        accumulate: self.accumulate || k_block.start > 0,
                        factor: self.factor,
                    };
                    let top = m_block.start + i;
                    if tile_rows == MR {
                        kernel.run::<P, S, MR>(simd, &mut self.dst, top, columns);
                    } else {
                        match tile_rows {
                            4 => kernel.run::<P, S, 4>(simd, &mut self.dst, top, columns),
                            2 => kernel.run::<P, S, 2>(simd, &mut self.dst, top, columns),
                            _ => kernel.run::<P, S, 1>(simd, &mut self.dst, top, columns),
                        }
                    }
                }
                i += tile_rows;
            }
        }
    }
}

/// Whether the `k` columns of a column-major `A` fall into L1 sets of their own
/// ([`MAX_COLUMNS_IN_PLACE`]): an odd number of cache lines from column to column.
fn columns_in_distinct_sets(k: usize, col_stride: usize) -> bool {
    k <= MAX_COLUMNS_IN_PLACE && (col_stride / CACHE_LINE) % 2 == 1
}

/// A block of `A`, in place or packed.
#[derive(Clone, Copy)]
struct ABlock<'a> {
    data: &'a [f32],
    row_stride: usize,
    col_stride: usize,
    /// Floats from the first row of a tile to that of the next.
    tile_stride: usize,
}

impl ABlock<'_> {
    /// Index of the first element of row `i` of the block.
    #[inline(always)]
    fn offset<const MR: usize>(&self, i: usize) -> usize {
        i / MR * self.tile_stride + i % MR * self.row_stride
    }
}

/// The micro-kernel: one tile of `C` in registers, from `MR` rows of `A` and one panel of `B`.
struct MicroKernel<'a> {
    a: &'a [f32],
    row_stride: usize,
    col_stride: usize,
    panel: &'a [f32],
    accumulate: bool,
    factor: f32,
}

impl MicroKernel<'_> {
    /// Computes rows `top..top + MR` of `columns`: nr of them, or fewer in the last panel.
    #[inline(always)]
    fn run<P: Product<S>, S: Simd, const MR: usize>(
        self,
        simd: S,
        dst: &mut MatMut<'_>,
        top: usize,
        columns: Range<usize>,
    ) {
        let MicroKernel { a, row_stride, col_stride, panel, accumulate, factor } = self;
        let (panel, _) = S::as_simd_f32s(panel);
        let kc = panel.len() / 2;
        assert!(
            (MR - 1) * row_stride + (kc - 1) * col_stride < a.len(),
            "rows of the tile within `A`"
        );
        // The loop over `l` hides the latency: `C` is needed only after it.
        for i in 0..MR {
            prefetch(&dst.row_mut(top + i, columns.clone())[0]);
        }
        let mut sums = [[simd.splat_f32s(0.0); 2]; MR];
        // Two instances of the loop, each with one stride as the constant 1.
        if col_stride == 1 {
            // SAFETY: asserted above.
            #[allow(unsafe_code)]
            unsafe {
                multiply_panel::<P, S, MR>(simd, a, |i, l| i * row_stride + l, panel, &mut sums);
            }
        } else {
            assert_eq!(row_stride, 1, "`A` is neither row-major nor column-major");
            // SAFETY: asserted above.
            #[allow(unsafe_code)]
            unsafe {
                multiply_panel::<P, S, MR>(simd, a, |i, l| i + l * col_stride, panel, &mut sums);
            }
        }
        if columns.len() == 2 * S::F32_LANES {
            let factor = simd.splat_f32s(factor);
            for (i, row_sums) in sums.into_iter().enumerate() {
                let (row, _) = S::as_mut_simd_f32s(dst.row_mut(top + i, columns.clone()));
                for (out, sum) in row.iter_mut().zip(row_sums) {
                    *out = if accumulate {
                        simd.mul_add_e_f32s(factor, sum, *out)
                    } else {
                        simd.mul_f32s(factor, sum)
                    };
                }
            }
        } else {
            // Fewer than nr columns go through a buffer on the stack: masked stores take dozens of
            // cycles on AMD processors.
            for (i, row_sums) in sums.into_iter().enumerate() {
                let mut buffer = [0.0; MAX_NR];
                S::as_mut_simd_f32s(&mut buffer).0[..2].copy_from_slice(&row_sums);
                for (out, sum) in dst.row_mut(top + i, columns.clone()).iter_mut().zip(buffer) {
                    *out = if accumulate { fma::<S>(factor, sum, *out) } else { factor * sum };
                }
            }
        }
    }
}

/// `sums[i] += a[at(i, l)] · panel[l]` for every lane `l` in ascending order. A row of `panel` is
/// two vectors.
///
/// # Safety
/// `at(i, l)` must be an index of `a` for `i < MR` and `l < panel.len() / 2`.
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn multiply_panel<P: Product<S>, S: Simd, const MR: usize>(
    simd: S,
    a: &[f32],
    at: impl Fn(usize, usize) -> usize,
    panel: &[S::f32s],
    sums: &mut [[S::f32s; 2]; MR],
) {
    let (unrolled, rest) = if S::REGISTER_COUNT >= 32 {
        (&[][..], panel)
    } else {
        panel.as_chunks::<{ 2 * UNROLL }>()
    };
    for (group, panel_rows) in unrolled.iter().enumerate() {
        for (l, panel_row) in panel_rows.chunks_exact(2).enumerate() {
            let l = group * UNROLL + l;
            // SAFETY: guaranteed by the caller.
            unsafe { P::rank_one_update::<MR>(simd, a, |i| at(i, l), panel_row, sums) };
        }
    }
    for (l, panel_row) in rest.chunks_exact(2).enumerate() {
        let l = unrolled.len() * UNROLL + l;
        // SAFETY: guaranteed by the caller.
        unsafe { P::rank_one_update::<MR>(simd, a, |i| at(i, l), panel_row, sums) };
    }
}

/// Prefetches the cache line of a value.
#[inline(always)]
pub(super) fn prefetch<T>(value: &T) {
    prefetch_address(std::ptr::from_ref(value));
}

/// Prefetches the cache line of any address.
#[inline(always)]
pub(super) fn prefetch_address<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: a prefetch has no architectural effect at any address; x86-64 includes SSE.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Floating-point operations per second of `[rows, inner] · [inner, cols]` on one thread, measured
/// for `duration`, with both operands in lanes.
pub(crate) fn gemm_rate(
    precision: Precision,
    rows: usize,
    inner: usize,
    cols: usize,
    duration: Duration,
) -> f64 {
    let (lanes, packed) = (precision.lanes(inner), packed_len(precision, inner, cols));
    let (a, b, mut c) = (vec![1.0; rows * lanes], vec![1.0; packed], vec![0.0; rows * cols]);
    let mut once = || {
        let a = Mat::new(&a, rows, lanes);
        let b = PackedOperand::new(precision, &b, inner, cols);
        gemm(MatMut::new(&mut c, rows, cols), false, 1.0, a, b);
    };
    once();
    let (mut runs, start) = (0, Instant::now());
    while start.elapsed() < duration {
        once();
        runs += 1;
    }
    (2 * rows * inner * cols * runs) as f64 / start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::super::packed::{PackedBuffer, pack};
    use super::super::reference::{self, Matrix};
    use super::*;
    use crate::buffer::Pool;

    fn number(i: usize) -> f32 {
        ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0
    }

    fn matrix(rows: usize, cols: usize, seed: usize) -> Matrix {
        Matrix::from_fn(rows, cols, |i, j| number(i * cols + j + seed).into())
    }

    /// Sizes across the edges of tiles, panels, `MC` and `KC`; both orders of `A` and `B`;
    /// accumulation.
    #[test]
    fn equals_the_reference() {
        let shapes = [
            (1, 1, 1),
            (3, 5, 7),
            (17, 33, 2),
            (40, 9, 1),
            (31, 130, 65),
            (2, 0, 3),
            (600, 70, 40),
            (13, 2 * KC + 5, 37),
            (2 * MC, KC, 20),
            // A column-major `A` that is read in place.
            (17 * CACHE_LINE, 40, 20),
        ];
        // The large ones take Miri minutes.
        let shapes = if cfg!(miri) { &shapes[..3] } else { &shapes[..] };
        for &(rows, inner, cols) in shapes {
            let (a, b) = (matrix(rows, inner, 0), matrix(inner, cols, 3));
            let c = matrix(rows, cols, 5);
            let expected = reference::gemm(0.5, &a, &b);
            let size = reference::gemm(0.5, &a.map(f64::abs), &b.map(f64::abs));
            for case in 0..8 {
                let (column_major_a, column_major_b, accumulate) =
                    (case & 1 == 1, case & 2 == 2, case & 4 == 4);
                let a = if column_major_a { a.transposed() } else { a.clone() }.to_f32();
                let a = if column_major_a {
                    Mat::new(&a, inner, rows).t()
                } else {
                    Mat::new(&a, rows, inner)
                };
                let b = if column_major_b { b.transposed() } else { b.clone() }.to_f32();
                let b = if column_major_b {
                    Mat::new(&b, cols, inner).t()
                } else {
                    Mat::new(&b, inner, cols)
                };
                let mut panels = vec![f32::NAN; packed_len(Precision::F32, inner, cols)];
                pack(Precision::F32, b, &mut panels);
                let b = PackedOperand::new(Precision::F32, &panels, inner, cols);
                let mut result = c.to_f32();
                gemm(MatMut::new(&mut result, rows, cols), accumulate, 0.5, a, b);
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

    #[test]
    fn parts_of_a_packed_matrix_are_its_rows_and_columns() {
        let (inner, nr) = (11, panel_width());
        let cols = 2 * nr + 3;
        let b: Vec<f32> = (0..inner * cols).map(|i| i as f32).collect();
        let mut panels = vec![0.0; packed_len(Precision::F32, inner, cols)];
        pack(Precision::F32, Mat::new(&b, inner, cols), &mut panels);
        let part =
            PackedOperand::new(Precision::F32, &panels, inner, cols).rows(4..9).cols(nr..cols);
        let mut unit = [0.0; 5];
        for l in 0..5 {
            unit.fill(0.0);
            unit[l] = 1.0;
            let mut row = vec![0.0; cols - nr];
            gemm(MatMut::new(&mut row, 1, cols - nr), false, 1.0, Mat::new(&unit, 1, 5), part);
            assert_eq!(row, b[(4 + l) * cols + nr..(5 + l) * cols]);
        }
    }

    /// Split by rows, and a single row by columns; both orders of `A`; above and below
    /// [`MIN_PARALLEL_MACS`].
    #[test]
    fn tasks_change_no_bit() {
        let shapes = [(3, 5, 7), (25, 9, 21), (131, 97, 85), (1, 1100, 1000), (200, 90, 70)];
        let (shapes, numbers_of_tasks) = if cfg!(miri) {
            (&shapes[..2], &[3, 16][..])
        } else {
            (&shapes[..], &[2, 3, 5, 16][..])
        };
        for &(rows, inner, cols) in shapes {
            let a: Vec<f32> = (0..rows * inner).map(number).collect();
            let b: Vec<f32> = (0..inner * cols).map(|i| number(i + 3)).collect();
            let run = |tasks, column_major| {
                let mut floats = Pool::default();
                let panels = PackedBuffer::new(
                    Precision::F32,
                    tasks,
                    Mat::new(&b, inner, cols),
                    &mut floats,
                );
                let left = if column_major {
                    Mat::new(&a, inner, rows).t()
                } else {
                    Mat::new(&a, rows, inner)
                };
                let mut result: Vec<f32> = (0..rows * cols).map(|i| number(i + 5)).collect();
                parallel_gemm(
                    tasks,
                    MatMut::new(&mut result, rows, cols),
                    true,
                    0.5,
                    left,
                    panels.as_operand(),
                    &mut floats,
                );
                result.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            for column_major in [false, true] {
                let one = run(1, column_major);
                for &tasks in numbers_of_tasks {
                    assert_eq!(
                        run(tasks, column_major),
                        one,
                        "{rows}×{inner}×{cols} in {tasks} tasks"
                    );
                }
            }
        }
    }

    /// NaN and infinity are neither lost nor spread by the padding of the last panel.
    #[test]
    fn nan_and_infinity_stay_where_they_are() {
        let a = [1.0, f32::NAN, f32::INFINITY, 1.0];
        let b = [1.0, 2.0, 3.0, 4.0];
        let mut panels = vec![0.0; packed_len(Precision::F32, 1, 4)];
        pack(Precision::F32, Mat::new(&b, 1, 4), &mut panels);
        let mut c = [0.0; 16];
        gemm(
            MatMut::new(&mut c, 4, 4),
            false,
            1.0,
            Mat::new(&a, 4, 1),
            PackedOperand::new(Precision::F32, &panels, 1, 4),
        );
        for (row, a) in c.chunks(4).zip(a) {
            assert!(
                row.iter()
                    .zip(b)
                    .all(|(c, b)| c.to_bits() == (a * b).to_bits() || (c.is_nan() && a.is_nan()))
            );
        }
    }
}
