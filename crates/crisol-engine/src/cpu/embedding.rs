//! Rows of a table: gathered in forward, scattered and added in backward.

use super::math::add_assign;

/// `out[i] = table[ids[i]]` for rows of `dim` columns.
pub(crate) fn gather(table: &[f32], ids: &[u32], out: &mut [f32], dim: usize) {
    for (row, &id) in out.chunks_exact_mut(dim).zip(ids) {
        row.copy_from_slice(&table[id as usize * dim..][..dim]);
    }
}

/// `table[ids[i]] += rows[i]`, in order.
pub(crate) fn scatter_add(rows: &[f32], ids: &[u32], table: &mut [f32], dim: usize) {
    for (row, &id) in rows.chunks_exact(dim).zip(ids) {
        add_assign(&mut table[id as usize * dim..][..dim], row);
    }
}
