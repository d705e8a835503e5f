//! Rotary position embedding tables (Su et al. 2021, arXiv:2104.09864).

use std::sync::{Arc, Mutex, PoisonError};

/// Which elements of a head form a rotated pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Element `i` with `i + dim/2` (Hugging Face's Llama, OLMo-2).
    Halves,
    /// Element `2i` with `2i + 1` (the paper's).
    Interleaved,
}

/// Cosines and sines by position, computed up to the largest position requested. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Rope {
    inverse_frequencies: Arc<[f32]>,
    amplitude: f32,
    style: RopeStyle,
    /// For positions below a power of two; for [`Rope::from_rows`], the given rows.
    tables: Arc<Mutex<Arc<RopeTables>>>,
}

/// The tables that a [`Rope`] shares with tapes.
#[derive(Debug)]
pub(crate) struct RopeTables {
    /// `[rows, pairs]`.
    pub(crate) cos: Vec<f32>,
    /// `[rows, pairs]`.
    pub(crate) sin: Vec<f32>,
    pub(crate) pairs: usize,
    pub(crate) style: RopeStyle,
}

/// Positions of the smallest table.
const MIN_POSITIONS: usize = 64;

impl Rope {
    /// Tables from inverse frequencies, one per pair: `theta^(-2i/dim)` after the model's scaling.
    /// `amplitude` multiplies cosines and sines; it is 1 except for YaRN. Columns beyond two per
    /// frequency are not rotated. Without any frequency, the tables are never asked for.
    pub fn new(inverse_frequencies: &[f32], amplitude: f32, style: RopeStyle) -> Rope {
        let tables = tables(std::iter::empty(), inverse_frequencies.len(), amplitude, style);
        let tables = Arc::new(Mutex::new(Arc::new(tables)));
        Rope { inverse_frequencies: inverse_frequencies.into(), amplitude, style, tables }
    }

    /// Tables of given rows, each a position and its inverse frequencies. The positions of
    /// [`crate::Tape::rope`] are then indices into `rows`.
    pub fn from_rows<'a>(
        rows: impl Iterator<Item = (u32, &'a [f32])>,
        amplitude: f32,
        style: RopeStyle,
    ) -> Rope {
        let mut rows = rows.peekable();
        let pairs = rows.peek().map_or(1, |(_, frequencies)| frequencies.len());
        let tables = Arc::new(Mutex::new(Arc::new(tables(rows, pairs, amplitude, style))));
        Rope { inverse_frequencies: [].into(), amplitude, style, tables }
    }

    /// Tables of at least `rows` rows.
    pub(crate) fn tables(&self, rows: usize) -> Arc<RopeTables> {
        // A thread that panicked with the lock left complete tables.
        let mut shared = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.rows() < rows {
            let frequencies = &*self.inverse_frequencies;
            assert!(!frequencies.is_empty(), "row {rows} of {}", shared.rows());
            let positions = 0..rows.next_power_of_two().max(MIN_POSITIONS) as u32;
            let rows = positions.map(|position| (position, frequencies));
            *shared = Arc::new(tables(rows, frequencies.len(), self.amplitude, self.style));
        }
        Arc::clone(&shared)
    }
}

impl RopeTables {
    fn rows(&self) -> usize {
        self.cos.len() / self.pairs
    }
}

fn tables<'a>(
    rows: impl Iterator<Item = (u32, &'a [f32])>,
    pairs: usize,
    amplitude: f32,
    style: RopeStyle,
) -> RopeTables {
    // Angles are rounded to f32, as in transformers: checkpoints were trained with that.
    let angles = rows.flat_map(|(position, frequencies)| {
        assert_eq!(frequencies.len(), pairs, "frequencies of a row");
        frequencies.iter().map(move |f| f64::from(position as f32 * f))
    });
    let numbers =
        angles.map(f64::sin_cos).map(|(sin, cos)| (sin as f32 * amplitude, cos as f32 * amplitude));
    let (sin, cos) = numbers.unzip();
    RopeTables { cos, sin, pairs, style }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_grow_without_changing() {
        let frequencies = [1.0, 0.3, 0.01];
        let rope = Rope::new(&frequencies, 1.25, RopeStyle::Halves);
        let small = rope.tables(3);
        let large = rope.tables(200);
        assert!(small.rows() < 200 && large.rows() >= 200);
        assert_eq!(small.cos, large.cos[..small.cos.len()]);
        assert_eq!(small.sin, large.sin[..small.sin.len()]);
        assert!(Arc::ptr_eq(&large, &rope.tables(200)));
        let given = Rope::from_rows(
            [7, 100].map(|position| (position, &frequencies[..])).into_iter(),
            1.25,
            RopeStyle::Halves,
        );
        let given = given.tables(2);
        assert_eq!(given.cos, [&large.cos[7 * 3..8 * 3], &large.cos[100 * 3..101 * 3]].concat());
    }
}
