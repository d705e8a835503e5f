//! Splitting of work over the processor's threads.
//!
//! Work is halved down to one item or chunk. The splits depend on its length only, so every result
//! and every sum has the same bits on any number of threads. Nothing here allocates.

use std::ops::Range;

use super::device::Cpu;

/// Scalars per chunk of a pass over parameters: large enough to hide the cost of a task, small
/// enough for the L2 cache.
pub(crate) const CHUNK: usize = 64 * 1024;
/// Scalars below which a second task does not pay.
const MIN_ROWS: usize = 8 * 1024;

/// Runs `f(i, &mut items[i])` for every item.
pub(crate) fn for_each<T: Send>(cpu: &Cpu, items: &mut [T], f: &(impl Fn(usize, &mut T) + Sync)) {
    cpu.install(|parallel| halve_items(parallel, 0, items, f));
}

fn halve_items<T: Send>(
    parallel: bool,
    first: usize,
    items: &mut [T],
    f: &(impl Fn(usize, &mut T) + Sync),
) {
    match items {
        [] => {}
        [item] => f(first, item),
        _ => {
            let half = items.len() / 2;
            let (left, right) = items.split_at_mut(half);
            join(
                parallel,
                || halve_items(parallel, first, left, f),
                || halve_items(parallel, first + half, right, f),
            );
        }
    }
}

/// Runs `f(range, parts)` over chunks of `0..len` and returns the sum of its results in a fixed
/// order. `parts` are that range of the given slices of length `len`.
pub(crate) fn sum_chunks<const N: usize>(
    cpu: &Cpu,
    len: usize,
    parts: [&mut [f32]; N],
    f: &(impl Fn(Range<usize>, [&mut [f32]; N]) -> f64 + Sync),
) -> f64 {
    assert!(parts.iter().all(|part| part.len() == len), "parts of unequal length");
    cpu.install(|parallel| halve_chunks(parallel, 0..len, parts, f))
}

fn halve_chunks<const N: usize>(
    parallel: bool,
    range: Range<usize>,
    parts: [&mut [f32]; N],
    f: &(impl Fn(Range<usize>, [&mut [f32]; N]) -> f64 + Sync),
) -> f64 {
    let chunks = range.len().div_ceil(CHUNK);
    if chunks <= 1 {
        return if range.is_empty() { 0.0 } else { f(range, parts) };
    }
    let half = chunks / 2 * CHUNK;
    let (left, right) = split(parts, [half; N]);
    let middle = range.start + half;
    let (a, b) = join(
        parallel,
        || halve_chunks(parallel, range.start..middle, left, f),
        || halve_chunks(parallel, middle..range.end, right, f),
    );
    a + b
}

/// Runs `f(rows, parts)` over ranges of `rows` in `tasks` tasks. `slices` start with the first row
/// and have `columns` columns. The rows must not depend on each other.
pub(crate) fn for_rows<const N: usize>(
    tasks: usize,
    rows: Range<usize>,
    columns: [usize; N],
    slices: [&mut [f32]; N],
    f: &(impl Fn(Range<usize>, [&mut [f32]; N]) + Sync),
) {
    let first = tasks.div_ceil(2);
    let middle = rows.len() * first / tasks;
    if tasks == 1 || rows.len() * columns.iter().sum::<usize>() < 2 * MIN_ROWS || middle == 0 {
        return f(rows, slices);
    }
    let (top, bottom) = split(slices, columns.map(|columns| middle * columns));
    let middle = rows.start + middle;
    rayon::join(
        || for_rows(first, rows.start..middle, columns, top, f),
        || for_rows(tasks - first, middle..rows.end, columns, bottom, f),
    );
}

/// Splits every slice at its place.
pub(crate) fn split<const N: usize>(
    slices: [&mut [f32]; N],
    places: [usize; N],
) -> ([&mut [f32]; N], [&mut [f32]; N]) {
    let mut firsts = slices;
    let seconds = std::array::from_fn(|i| {
        let (first, second) = std::mem::take(&mut firsts[i]).split_at_mut(places[i]);
        firsts[i] = first;
        second
    });
    (firsts, seconds)
}

/// Runs both, on two threads if `parallel`.
pub(crate) fn join<A: Send, B: Send>(
    parallel: bool,
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    if parallel { rayon::join(a, b) } else { (a(), b()) }
}
