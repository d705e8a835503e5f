//! Keys and values of earlier tokens in the processor's memory.
//!
//! Decoding reads all of a slot for every token. Keys are stored in tiles of [`TILE`] tokens, each
//! `[k_dim, TILE]`: the scores of a tile accumulate in one vector, without horizontal sums. Values
//! are row-major.

use crate::buffer::Buffer;

/// Tokens per tile: one vector of the widest instruction set.
pub(crate) const TILE: usize = 16;

/// Keys and values of slots of `capacity` rows, a multiple of [`TILE`].
#[derive(Debug)]
pub(crate) struct Cache {
    /// Per layer `[slots, capacity / TILE, k_dim, TILE]`.
    keys: Vec<Buffer<f32>>,
    /// Per layer `[slots, capacity, v_dim]`.
    values: Vec<Buffer<f32>>,
    pub(crate) k_dim: usize,
    pub(crate) v_dim: usize,
    pub(crate) capacity: usize,
}

impl Cache {
    pub(crate) fn new(
        layers: usize,
        [k_dim, v_dim]: [usize; 2],
        slots: usize,
        capacity: usize,
    ) -> Cache {
        Cache {
            keys: (0..layers).map(|_| Buffer::zeros(slots * capacity * k_dim)).collect(),
            values: (0..layers).map(|_| Buffer::zeros(slots * capacity * v_dim)).collect(),
            k_dim,
            v_dim,
            capacity,
        }
    }

    /// Copies the first `rows` rows of slot `from` to slot `to`.
    pub(crate) fn copy_slot(&mut self, from: usize, to: usize, rows: usize) {
        let tiled = rows.next_multiple_of(TILE);
        for (buffers, row, rows) in
            [(&mut self.keys, self.k_dim, tiled), (&mut self.values, self.v_dim, rows)]
        {
            for buffer in buffers {
                let start = from * self.capacity * row;
                buffer.copy_within(start..start + rows * row, to * self.capacity * row);
            }
        }
    }

    /// Writes keys and values of new tokens in one layer, after the first `start` rows of a slot.
    pub(crate) fn write(&mut self, layer: usize, slot: usize, start: usize, k: &[f32], v: &[f32]) {
        let base = slot * self.capacity;
        let keys = &mut self.keys[layer][base * self.k_dim..(base + self.capacity) * self.k_dim];
        for (token, row) in (start..).zip(k.chunks_exact(self.k_dim)) {
            let tile = &mut keys[token / TILE * TILE * self.k_dim..];
            for (column, &x) in tile[token % TILE..].iter_mut().step_by(TILE).zip(row) {
                *column = x;
            }
        }
        let values = &mut self.values[layer][(base + start) * self.v_dim..];
        values[..v.len()].copy_from_slice(v);
    }

    /// Tiled keys `[capacity / TILE, k_dim, TILE]` and values `[capacity, v_dim]` of one slot in
    /// one layer.
    pub(crate) fn slot(&self, layer: usize, slot: usize) -> (&[f32], &[f32]) {
        let rows = slot * self.capacity..(slot + 1) * self.capacity;
        (
            &self.keys[layer][rows.start * self.k_dim..rows.end * self.k_dim],
            &self.values[layer][rows.start * self.v_dim..rows.end * self.v_dim],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_from_their_tiles_and_slots_copy_whole() {
        let (layers, k_dim, v_dim) = (2, 3, 5);
        let mut cache = Cache::new(layers, [k_dim, v_dim], 3, 48);
        let k: Vec<f32> = (0..20 * k_dim).map(|i| i as f32).collect();
        let v: Vec<f32> = (0..20 * v_dim).map(|i| -(i as f32)).collect();
        // Two writes, the second across a tile's edge.
        for rows in [0..7, 7..20] {
            for layer in 0..layers {
                let k = &k[rows.start * k_dim..rows.end * k_dim];
                let v = &v[rows.start * v_dim..rows.end * v_dim];
                cache.write(layer, 1, rows.start, k, v);
            }
        }
        cache.copy_slot(1, 2, 20);
        cache.copy_slot(1, 0, 20);
        for (slot, layer) in [(0, 0), (0, 1), (2, 0), (2, 1)] {
            let (keys, values) = cache.slot(layer, slot);
            for (token, row) in k.chunks(k_dim).enumerate() {
                for (column, &x) in row.iter().enumerate() {
                    assert_eq!(keys[(token / TILE * k_dim + column) * TILE + token % TILE], x);
                }
            }
            assert_eq!(&values[..v.len()], v);
        }
    }
}
