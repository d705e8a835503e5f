//! GEMM of pairs of bf16 ([`super::lanes`]) by AMX tiles: a unit that multiplies whole blocks.
//!
//! A tile register has 16 rows of 64 bytes: 16 lanes or sums. Packed panels ([`super::packed`]) are
//! already in the order that `tdpbf16ps` reads, so the right operand is loaded from them as it is.
//!
//! ```text
//!                           B: 16 lanes of a panel of 32 columns
//!                           ┌── tmm6 ──┬── tmm7 ──┐
//!    A: 32 rows, 16 lanes   └──────────┴──────────┘
//!                ┌─ tmm4 ─┐ ┌── tmm0 ──┬── tmm1 ──┐
//!                ├─ tmm5 ─┤ ├── tmm2 ──┼── tmm3 ──┤   C: 32 × 32 sums
//!                └────────┘ └──────────┴──────────┘
//!
//!   for k_block in k by kc            Amx::multiply
//!     for m_block in m by mc          Amx::multiply    packs A into tiles, padded with zeros
//!       for j in n by 32              Amx::multiply    one panel of B
//!         for i in m_block by 32      prefetch C, multiply_tiles, store
//! ```
//!
//! `tdpbf16ps` sums the first numbers of its 16 lanes, sums the second ones, and adds both to `C`:
//! another order than that of `vdpbf16ps`, so the last bits differ. Neither the row of an element
//! nor the number of tasks changes them.
//!
//! Tiles of `A` are loaded with the hint `t1`: they stream from L2, and the panel stays in L1.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use pulp::x86::V4;

use super::gemm::KC;
use super::mat::{Mat, MatMut};
use super::math::{fma, vectorised};
use super::packed::{BLOCK, PackedOperand, transpose};

/// Rows of a tile, and lanes of one of them.
const TILE: usize = 16;
/// Rows and columns of `C` whose sums are in tiles at once. A panel of AVX-512 is as wide.
const SUMS: usize = 2 * TILE;
/// mc. Packed rows of `A` take up to 192 KiB of a thread's stack, which has at least 2 MiB.
const MC: usize = 128;

/// A tile of `A`, row-major.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Tile([[f32; TILE]; TILE]);

/// Sums of `C`.
#[repr(align(64))]
struct Sums([[f32; SUMS]; SUMS]);

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    reserved: [u8; 15],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Eight whole tiles.
static WHOLE_TILES: TileConfig = TileConfig {
    palette: 1,
    reserved: [0; 15],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Shows that this process may use tiles.
#[derive(Clone, Copy)]
pub(super) struct Amx(());

impl Amx {
    /// Where the processor has AMX-BF16 and the operating system lets this process use it.
    pub(super) fn detected() -> Option<Amx> {
        static DETECTED: OnceLock<bool> = OnceLock::new();
        // With AVX-512, because panels are then as wide as two tiles.
        let detect = || V4::try_new().is_some() && has_instructions() && is_permitted();
        DETECTED.get_or_init(detect).then_some(Amx(()))
    }

    /// [`super::gemm_bf16::multiply_pairs`].
    pub(super) fn multiply(
        self,
        mut dst: MatMut<'_>,
        accumulate: bool,
        factor: f32,
        a: Mat<'_>,
        b: PackedOperand<'_>,
    ) {
        let (m, k, n) = (a.row_count(), a.col_count(), b.col_count());
        if k == 0 {
            if !accumulate {
                (0..m).for_each(|row| dst.row_mut(row, 0..n).fill(0.0));
            }
            return;
        }
        // Not zeroed: that would take longer than a small GEMM.
        #[allow(clippy::large_stack_arrays)]
        let mut a_tiles = [const { MaybeUninit::uninit() }; MC / TILE * (KC / TILE)];
        let mut sums = Sums([[0.0; SUMS]; SUMS]);
        // Blocks as equal as whole tiles allow.
        let kc = k.div_ceil(k.div_ceil(KC)).next_multiple_of(TILE);
        let configured = Configured::new(self);
        for first in (0..k).step_by(kc) {
            let k_block = first..(first + kc).min(k);
            let depth = k_block.len().div_ceil(TILE);
            for top in (0..m).step_by(MC) {
                let m_block = top..(top + MC).min(m);
                let part = a.rows(m_block.clone()).cols(k_block.clone());
                let tiles = m_block.len().div_ceil(SUMS) * 2 * depth;
                pack(part, depth, &mut a_tiles[..tiles]);
                for j in (0..n).step_by(SUMS) {
                    let panel = b.panel(j, k_block.clone(), SUMS);
                    let (whole, rest) = panel.as_chunks::<{ SUMS * TILE }>();
                    let mut last = [0.0; SUMS * TILE];
                    last[..rest.len()].copy_from_slice(rest);
                    let last = (!rest.is_empty()).then_some(&last);
                    for i in m_block.clone().step_by(SUMS) {
                        let a_tiles = &a_tiles[(i - top) / TILE * depth..][..2 * depth];
                        // SAFETY: `pack` has written `tiles` of them, and these are among them.
                        #[allow(unsafe_code)]
                        let a_tiles = unsafe { a_tiles.assume_init_ref() };
                        let rows = SUMS.min(m_block.end - i);
                        let dst = dst.cols(j..(j + SUMS).min(n));
                        // `C` may be in main memory; it arrives while its sums are computed.
                        dst.prefetch(i..i + rows);
                        multiply_tiles(&configured, a_tiles, whole, last, &mut sums);
                        store(dst, accumulate || first > 0, factor, i, &sums.0[..rows]);
                    }
                }
            }
        }
    }
}

/// Packs `a` into tiles, `depth` of them along its rows, padded with zeros.
fn pack(a: Mat<'_>, depth: usize, tiles: &mut [MaybeUninit<Tile>]) {
    let (m, k) = (a.row_count(), a.col_count());
    let (row_stride, col_stride) = a.strides();
    for (index, tile) in tiles.iter_mut().enumerate() {
        let (top, left) = (index / depth * TILE, index % depth * TILE);
        let (rows, lanes) = (TILE.min(m.saturating_sub(top)), TILE.min(k - left));
        if rows == 0 {
            tile.write(Tile([[0.0; TILE]; TILE]));
            continue;
        }
        let from = a.tile(top, rows, left..left + lanes);
        if col_stride == 1 && rows == TILE && lanes == TILE {
            // Whole, so it needs no zeros.
            let row = |row: usize| *from[row * row_stride..].first_chunk().expect("whole rows");
            tile.write(Tile(std::array::from_fn(row)));
            continue;
        }
        let tile = &mut tile.write(Tile([[0.0; TILE]; TILE])).0;
        if col_stride == 1 {
            for (row, to) in tile.iter_mut().take(rows).enumerate() {
                to[..lanes].copy_from_slice(&from[row * row_stride..][..lanes]);
            }
        } else {
            assert_eq!(row_stride, 1, "`A` is neither row-major nor column-major");
            let tile = tile.as_flattened_mut();
            for lane in (0..lanes).step_by(BLOCK) {
                for row in (0..rows).step_by(BLOCK) {
                    let (from, to) =
                        (&from[lane * col_stride + row..], &mut tile[row * TILE + lane..]);
                    let (lanes, rows) = (BLOCK.min(lanes - lane), BLOCK.min(rows - row));
                    transpose(from, col_stride, to, TILE, lanes, rows);
                }
            }
        }
    }
}

vectorised! {
    /// Rows from `top` of `dst` become `factor · sums`, or that is added to them.
    fn store<'a, S>(
        dst: MatMut<'a>,
        accumulate: bool,
        factor: f32,
        top: usize,
        sums: &'a [[f32; SUMS]],
    ) {
        let mut dst = dst;
        let columns = 0..dst.col_count();
        for (row, sums) in (top..).zip(sums) {
            for (out, &sum) in dst.row_mut(row, columns.clone()).iter_mut().zip(sums) {
                *out = if accumulate { fma::<S>(factor, sum, *out) } else { factor * sum };
            }
        }
    }
}

/// This thread's tiles are [`WHOLE_TILES`] as long as it lives.
struct Configured;

#[allow(unsafe_code)]
impl Configured {
    fn new(_: Amx) -> Configured {
        // SAFETY: an `Amx` shows that the process may use tiles; the operand is 64 bytes. The
        // compiler itself never uses tiles, so they stay as they are until they are released.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE_TILES, options(nostack)) }
        Configured
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: they were configured, so the processor has the instruction.
        #[allow(unsafe_code)]
        unsafe {
            asm!("tilerelease", options(nomem, nostack));
        }
    }
}

/// `sums` of the products of 32 rows of `A`, the upper half of which is the first half of `a`,
/// and of a panel: its whole tiles, and what is left of it, padded with zeros.
#[allow(unsafe_code)]
fn multiply_tiles(
    _: &Configured,
    a: &[Tile],
    whole: &[[f32; SUMS * TILE]],
    last: Option<&[f32; SUMS * TILE]>,
    sums: &mut Sums,
) {
    let depth = whole.len() + usize::from(last.is_some());
    assert!(depth > 0 && a.len() == 2 * depth, "{} tiles for {depth}", a.len());
    let (upper, lower) = a.split_at(depth);
    // SAFETY: a `Configured` shows that tiles are configured. Each step reads a `Tile` of `upper`,
    // one of `lower`, and 16 rows of 128 bytes of the panel; there are `depth` steps. `sums` has 32
    // rows of 128 bytes.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "test {steps}, {steps}",
            "jz 3f",
            "2:",
            "tileloaddt1 tmm4, [{upper} + {row}*1]",
            "tileloadd tmm6, [{panel} + {row}*2]",
            "tileloadd tmm7, [{panel} + {row}*2 + 64]",
            "tileloaddt1 tmm5, [{lower} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {upper}, 1024",
            "add {lower}, 1024",
            "add {panel}, 2048",
            "dec {steps}",
            "jnz 2b",
            // Once more for what is left of the panel, if anything.
            "3:",
            "mov {panel}, {last}",
            "xor {last:e}, {last:e}",
            "mov {steps:e}, 1",
            "test {panel}, {panel}",
            "jnz 2b",
            "tilestored [{sums} + {row}*2], tmm0",
            "tilestored [{sums} + {row}*2 + 64], tmm1",
            "tilestored [{sums} + {row}*2 + 2048], tmm2",
            "tilestored [{sums} + {row}*2 + 2112], tmm3",
            steps = inout(reg) whole.len() => _,
            upper = inout(reg) upper.as_ptr() => _,
            lower = inout(reg) lower.as_ptr() => _,
            panel = inout(reg) whole.as_ptr() => _,
            last = inout(reg) last.map_or(std::ptr::null(), std::ptr::from_ref) => _,
            sums = in(reg) &raw mut *sums,
            row = in(reg) 64_usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// AMX-TILE and AMX-BF16. AVX-512, which the caller has seen, is newer than this leaf of CPUID.
fn has_instructions() -> bool {
    let features = __cpuid_count(7, 0).edx;
    features & 1 << 24 != 0 && features & 1 << 22 != 0
}

/// Asks Linux to let this process use tiles (`ARCH_REQ_XCOMP_PERM`, `XFEATURE_XTILEDATA`). It
/// refuses if it has not enabled them in the processor (XCR0).
fn is_permitted() -> bool {
    if !cfg!(target_os = "linux") {
        return false;
    }
    let result: isize;
    // SAFETY: the system call `arch_prctl` with this code reads and writes no memory of the
    // process, and changes the two registers named.
    #[allow(unsafe_code)]
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") 158_isize => result,
            in("rdi") 0x1023,
            in("rsi") 18,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}
