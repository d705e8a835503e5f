//! Key/value cache: keys and values of earlier tokens, per sequence.
//!
//! Decoding reads all of a slot for every token. Keys are stored in tiles of [`TILE`] tokens, each
//! `[k_dim, TILE]`: the scores of a tile accumulate in one vector, without horizontal sums. Values
//! are row-major.

use crate::Device;
use crate::workspace::Buffer;

/// Tokens per tile: one vector of the widest instruction set.
pub(crate) const TILE: usize = 16;

/// A cache with a fixed number of slots, one per sequence, of fixed capacity in tokens.
#[derive(Debug)]
pub struct KvCache {
    /// Per layer `[slots, capacity / TILE, k_dim, TILE]`.
    keys: Vec<Buffer<f32>>,
    /// Per layer `[slots, capacity, v_dim]`.
    values: Vec<Buffer<f32>>,
    k_dim: usize,
    v_dim: usize,
    /// Tokens held, per slot.
    lens: Vec<usize>,
    capacity: usize,
}

impl KvCache {
    /// A cache of `slots` sequences of up to `capacity` tokens, for `layers` layers with rows of
    /// `k_dim` and `v_dim` scalars (`kv_heads * head_dim`).
    pub fn new(
        device: &Device,
        layers: usize,
        k_dim: usize,
        v_dim: usize,
        slots: usize,
        capacity: usize,
    ) -> KvCache {
        let Device::Cpu(..) = device;
        let capacity = capacity.next_multiple_of(TILE);
        KvCache {
            keys: (0..layers).map(|_| Buffer::zeros(slots * capacity * k_dim)).collect(),
            values: (0..layers).map(|_| Buffer::zeros(slots * capacity * v_dim)).collect(),
            k_dim,
            v_dim,
            lens: vec![0; slots],
            capacity,
        }
    }

    /// Tokens held by `slot`, equal for all layers between forward passes.
    pub fn len(&self, slot: usize) -> usize {
        self.lens[slot]
    }

    /// Whether a slot is empty.
    pub fn is_empty(&self, slot: usize) -> bool {
        self.len(slot) == 0
    }

    /// Capacity of a slot in tokens: as requested, rounded up to a tile.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.lens.len()
    }

    /// Empties a slot for another sequence.
    pub fn clear(&mut self, slot: usize) {
        self.lens[slot] = 0;
    }

    /// Keeps the first `len` tokens of a slot.
    pub fn truncate(&mut self, slot: usize, len: usize) {
        self.lens[slot] = self.lens[slot].min(len);
    }

    /// Copies slot `from` to slot `to`, e.g. a prompt that a group shares.
    pub fn copy_slot(&mut self, from: usize, to: usize) {
        let len = self.lens[from];
        let tiled = len.next_multiple_of(TILE);
        for (buffers, row, rows) in
            [(&mut self.keys, self.k_dim, tiled), (&mut self.values, self.v_dim, len)]
        {
            for buffer in buffers {
                let start = from * self.capacity * row;
                buffer.copy_within(start..start + rows * row, to * self.capacity * row);
            }
        }
        self.lens[to] = len;
    }

    pub(crate) fn layers(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn k_dim(&self) -> usize {
        self.k_dim
    }

    pub(crate) fn v_dim(&self) -> usize {
        self.v_dim
    }

    /// Appends keys and values of new tokens in one layer, without changing the slot's length.
    pub(crate) fn write(&mut self, layer: usize, slot: usize, k: &[f32], v: &[f32]) {
        let rows = k.len() / self.k_dim;
        let start = self.lens[slot];
        assert!(
            start + rows <= self.capacity,
            "slot {slot} holds {start} of at most {} tokens, {rows} more do not fit",
            self.capacity
        );
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

    /// Adds `rows` to a slot's length, once every layer has them.
    pub(crate) fn grow(&mut self, slot: usize, rows: usize) {
        self.lens[slot] += rows;
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
        let mut cache = KvCache::new(&Device::cpu(Some(1)), layers, k_dim, v_dim, 3, 33);
        assert_eq!((cache.capacity(), cache.slots()), (48, 3));
        let k: Vec<f32> = (0..20 * k_dim).map(|i| i as f32).collect();
        let v: Vec<f32> = (0..20 * v_dim).map(|i| -(i as f32)).collect();
        // Two writes, the second across a tile's edge.
        for rows in [0..7, 7..20] {
            for layer in 0..layers {
                let k = &k[rows.start * k_dim..rows.end * k_dim];
                let v = &v[rows.start * v_dim..rows.end * v_dim];
                cache.write(layer, 1, k, v);
            }
            cache.grow(1, rows.len());
        }
        cache.copy_slot(1, 2);
        cache.copy_slot(1, 0);
        cache.clear(1);
        assert!(cache.is_empty(1));
        for (slot, layer) in [(0, 0), (0, 1), (2, 0), (2, 1)] {
            assert_eq!(cache.len(slot), 20);
            let (keys, values) = cache.slot(layer, slot);
            for (token, row) in k.chunks(k_dim).enumerate() {
                for (column, &x) in row.iter().enumerate() {
                    assert_eq!(keys[(token / TILE * k_dim + column) * TILE + token % TILE], x);
                }
            }
            assert_eq!(&values[..v.len()], v);
        }
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn a_full_slot_takes_no_more() {
        let mut cache = KvCache::new(&Device::cpu(Some(1)), 1, 1, 1, 1, 16);
        cache.write(0, 0, &[0.0; 17], &[0.0; 17]);
    }
}
