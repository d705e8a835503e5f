//! Key/value cache: keys and values of earlier tokens, per sequence.

use crate::backend::Backend;
use crate::device::{Device, OnDevice};

/// A cache with a fixed number of slots, one per sequence, of fixed capacity in tokens.
#[derive(Debug)]
pub struct KvCache {
    device: Device,
    pub(crate) on_device: <OnDevice as Backend>::Cache,
    pub(crate) layers: usize,
    /// Columns of keys and of values.
    pub(crate) dims: [usize; 2],
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
        let capacity = capacity.next_multiple_of(OnDevice::CACHE_ROWS);
        let dims = [k_dim, v_dim];
        let on_device = device.backend().cache(layers, dims, slots, capacity);
        let (device, lens) = (device.clone(), vec![0; slots]);
        KvCache { device, on_device, layers, dims, lens, capacity }
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
        self.device.backend().copy_slot(&mut self.on_device, from, to, len);
        self.lens[to] = len;
    }

    /// Panics if a slot has no room for so many more tokens.
    pub(crate) fn check_room(&self, slot: usize, rows: usize) {
        let len = self.lens[slot];
        assert!(
            len + rows <= self.capacity,
            "slot {slot} holds {len} of at most {} tokens, {rows} more do not fit",
            self.capacity
        );
    }

    /// Adds `rows` to a slot's length, once every layer has them.
    pub(crate) fn grow(&mut self, slot: usize, rows: usize) {
        self.lens[slot] += rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_copied_with_their_lengths() {
        let mut cache = KvCache::new(&Device::cpu(Some(1)), 2, 3, 5, 3, 33);
        assert_eq!((cache.capacity(), cache.slots()), (48, 3));
        cache.grow(1, 20);
        cache.copy_slot(1, 2);
        cache.clear(1);
        assert!(cache.is_empty(1) && cache.is_empty(0));
        assert_eq!(cache.len(2), 20);
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn a_full_slot_takes_no_more() {
        KvCache::new(&Device::cpu(Some(1)), 1, 1, 1, 1, 16).check_room(0, 17);
    }
}
