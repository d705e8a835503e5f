//! Keys and values of earlier tokens, kept per sequence for generation.

use crate::Device;

/// A cache with a fixed number of slots (one sequence each) of fixed capacity in tokens.
#[derive(Debug)]
pub struct KvCache {}

impl KvCache {
    /// `slots` sequences of up to `capacity` tokens, for `layers` layers with rows of `k_dim` and `v_dim`
    /// scalars (`kv_heads * head_dim`).
    pub fn new(_device: &Device, _layers: usize, _k_dim: usize, _v_dim: usize, _slots: usize, _capacity: usize) -> KvCache {
        todo!()
    }
    /// Tokens that slot `slot` holds (the same for every layer between forward passes).
    pub fn len(&self, _slot: usize) -> usize {
        todo!()
    }
    /// Whether a slot holds nothing.
    pub fn is_empty(&self, slot: usize) -> bool {
        self.len(slot) == 0
    }
    /// Most tokens a slot can hold.
    pub fn capacity(&self) -> usize {
        todo!()
    }
    /// Empties a slot so that another sequence can use it.
    pub fn clear(&mut self, _slot: usize) {
        todo!()
    }
    /// Makes slot `to` hold what slot `from` holds (a prompt shared by a group is prefilled once).
    pub fn copy_slot(&mut self, _from: usize, _to: usize) {
        todo!()
    }
}
