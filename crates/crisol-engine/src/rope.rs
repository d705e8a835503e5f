//! Rotary position embedding tables (Su et al. 2021, arXiv:2104.09864).

use std::sync::Arc;

use crate::Device;

/// Which elements of a head form a rotated pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Element `i` with `i + dim/2` (Hugging Face's Llama, OLMo-2).
    Halves,
    /// Element `2i` with `2i + 1` (the paper's).
    Interleaved,
}

/// Cosines and sines for positions `0..max_positions`. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Rope {
    pub(crate) tables: Arc<RopeTables>,
}

/// What a [`Rope`] shares with the tapes that used it.
#[derive(Debug)]
pub(crate) struct RopeTables {
    /// `[max_positions, pairs]`.
    pub(crate) cos: Vec<f32>,
    /// `[max_positions, pairs]`.
    pub(crate) sin: Vec<f32>,
    pub(crate) pairs: usize,
    pub(crate) max_positions: usize,
    pub(crate) style: RopeStyle,
}

impl Rope {
    /// Tables from inverse frequencies (one per pair: `theta^(-2i/dim)`, already scaled where the model says so).
    /// Heads wider than two scalars per frequency keep the rest of their columns as it is.
    pub fn new(device: &Device, inverse_frequencies: &[f32], max_positions: usize, style: RopeStyle) -> Rope {
        let Device::Cpu(_) = device;
        let pairs = inverse_frequencies.len();
        assert!(pairs > 0, "rotary embedding without frequencies");
        // The angle is rounded to f32, as in transformers: at position 100,000 that is what a
        // checkpoint was trained with.
        let angles = (0..max_positions)
            .flat_map(|position| inverse_frequencies.iter().map(move |f| f64::from(position as f32 * f)));
        let (sin, cos) = angles.map(f64::sin_cos).map(|(sin, cos)| (sin as f32, cos as f32)).unzip();
        Rope { tables: Arc::new(RopeTables { cos, sin, pairs, max_positions, style }) }
    }

    /// Number of positions in the tables.
    pub fn max_positions(&self) -> usize {
        self.tables.max_positions
    }
}
