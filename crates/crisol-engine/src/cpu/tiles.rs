//! Matrices in half precision or quantised, as model files store them, for inference.
//!
//! Rows are packed into tiles of as many rows as two vector registers have lanes. A register holds
//! one column of as many rows, so a GEMM with few rows reads the matrix once, in one stream, and
//! dequantises in registers.
//!
//! Tiles take the file's bytes, but for: a padded last tile; `Q4_K` and `Q5_K` 2.5 % more (6-bit
//! scales become bytes); `F8_E4M3` 3 % more (a scale per row and block instead of one per many
//! rows).

use std::ops::Range;

use super::formats::{BlockFormat, TileRow, with_blocks};
use super::packed::panel_width;
use super::{Cpu, parallel};
use crate::buffer::Buffer;
use crate::weight_format::WeightFormat;

/// Bytes packed between two calls of `done`.
const PACK_CHUNK_BYTES: usize = 16 << 20;

/// A matrix packed into tiles for inference.
#[derive(Debug)]
pub(crate) struct Tiles {
    pub(crate) format: WeightFormat,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Tiles one after the other.
    data: Buffer<u32>,
}

impl Tiles {
    /// Packs a matrix whose row `i` has the little-endian bytes `row(i)`. Rows are read in order,
    /// some megabytes at a time; `done(rows)` reports rows that are no longer needed.
    pub(crate) fn new<R: AsRef<[u8]>>(
        cpu: &Cpu,
        format: WeightFormat,
        [rows, cols]: [usize; 2],
        row: impl Fn(usize) -> R + Sync,
        done: impl Fn(Range<usize>),
    ) -> Tiles {
        let row_bytes = format
            .row_bytes(cols)
            .unwrap_or_else(|| panic!("{cols} columns in blocks of {format:?}"));
        let (tile_rows, words) = (panel_width(), tile_words(format, cols));
        let mut data = Buffer::zeros(rows.div_ceil(tile_rows) * words);
        let tiles_per_chunk = (PACK_CHUNK_BYTES / size_of::<u32>() / words.max(1)).max(1);
        for (index, chunk) in data.chunks_mut(tiles_per_chunk * words.max(1)).enumerate() {
            let first = index * tiles_per_chunk * tile_rows;
            let mut tiles: Vec<&mut [u32]> = chunk.chunks_exact_mut(words).collect();
            parallel::for_each(cpu, &mut tiles, &|index, tile| {
                let first = first + index * tile_rows;
                for index in 0..tile_rows.min(rows - first) {
                    let row = row(first + index);
                    let bytes = row.as_ref();
                    assert_eq!(
                        bytes.len(),
                        row_bytes,
                        "bytes of a row of {cols} columns of {format:?}"
                    );
                    with_blocks!(format, F => put_row::<F>(bytes, tile, index));
                }
            });
            done(first..(first + tiles_per_chunk * tile_rows).min(rows));
        }
        Tiles { format, rows, cols, data }
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len() * size_of::<u32>()
    }

    /// Tiles from row `first` on, a multiple of a tile's rows.
    pub(crate) fn tiles(&self, first: usize) -> std::slice::ChunksExact<'_, u32> {
        debug_assert!(first.is_multiple_of(panel_width()));
        let words = tile_words(self.format, self.cols).max(1);
        self.data[(first / panel_width() * words).min(self.data.len())..].chunks_exact(words)
    }
}

/// Words of a tile.
fn tile_words(format: WeightFormat, cols: usize) -> usize {
    with_blocks!(format, F => F::registers(cols)) * panel_width() / 2
}

/// Packs a row into a tile.
fn put_row<F: BlockFormat>(row: &[u8], tile: &mut [u32], index: usize) {
    let lanes = panel_width() / 2;
    let (lane, second) = (index % lanes, index / lanes);
    for (bytes, block) in row.chunks(F::FILE_BYTES).zip(tile.chunks_exact_mut(F::BLOCK * lanes)) {
        F::pack(bytes, &mut TileRow { block, lanes, lane, second });
    }
}
