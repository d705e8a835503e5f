//! Rotary position embedding tables (Su et al. 2021, arXiv:2104.09864).

use crate::Device;

/// Which elements of a head form a rotated pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Element `i` with `i + dim/2` (Hugging Face's Llama, OLMo-2).
    Halves,
    /// Element `2i` with `2i + 1` (the paper's).
    Interleaved,
}

/// Cosines and sines for positions `0..max_positions`.
#[derive(Debug)]
pub struct Rope {}

impl Rope {
    /// Tables from inverse frequencies (one per pair: `theta^(-2i/dim)`, already scaled where the model says so).
    pub fn new(_device: &Device, _inverse_frequencies: &[f32], _max_positions: usize, _style: RopeStyle) -> Rope {
        todo!()
    }
}
