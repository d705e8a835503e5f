//! Rotary position embedding: rotates pairs of columns by angles of the row's position.

use super::math::vectorised;
use crate::RopeStyle;
use crate::rope::RopeTables;

/// Backward of a rotation is the rotation by the opposite angle.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

vectorised! {
    /// Rotates every head of every row in place.
    pub(crate) fn rotate<'a, S>(
        x: &'a mut [f32],
        tables: &'a RopeTables,
        head_dim: usize,
        positions: &'a [u32],
        direction: Direction,
    ) {
        if positions.is_empty() {
            return;
        }
        let pairs = tables.pairs;
        let sign = if direction == Direction::Forward { 1.0 } else { -1.0 };
        for (row, &position) in x.chunks_exact_mut(x.len() / positions.len()).zip(positions) {
            let angles = position as usize * pairs..(position as usize + 1) * pairs;
            let (cos, sin) = (&tables.cos[angles.clone()], &tables.sin[angles]);
            for head in row.chunks_exact_mut(head_dim) {
                match tables.style {
                    RopeStyle::Halves => {
                        let (first, second) = head[..2 * pairs].split_at_mut(pairs);
                        for (((a, b), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                            let s = sign * s;
                            (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                        }
                    }
                    RopeStyle::Interleaved => {
                        let (pairs, _) = head[..2 * pairs].as_chunks_mut::<2>();
                        for (([a, b], c), s) in pairs.iter_mut().zip(cos).zip(sin) {
                            let s = sign * s;
                            (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                        }
                    }
                }
            }
        }
    }
}
