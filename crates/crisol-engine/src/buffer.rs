//! Recycled memory: buffers by size class. After the first step of a shape nothing is allocated.
//!
//! Fresh pages from the operating system cost more than the arithmetic on them: candle and burn
//! train twice as fast once their allocator keeps its memory.

use std::ops::{Deref, DerefMut};

/// Buffers start on a cache line, for aligned vector loads.
const ALIGNMENT: usize = 64;
/// Capacity of the smallest size class, in scalars.
const MIN_CAPACITY: usize = 64;

/// A cache-line-aligned slice from a [`Pool`]. The default is empty.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    storage: Vec<T>,
    start: usize,
    len: usize,
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Buffer { storage: Vec::new(), start: 0, len: 0 }
    }
}

impl<T: Copy + Default> Buffer<T> {
    /// `len` zeros with the given capacity.
    fn with_capacity(len: usize, capacity: usize) -> Buffer<T> {
        let scalars_per_line = ALIGNMENT / size_of::<T>();
        let storage = vec![T::default(); capacity + scalars_per_line];
        // The vector is never resized, so its start does not move.
        let start = storage.as_ptr().align_offset(ALIGNMENT).min(scalars_per_line);
        Buffer { storage, start, len }
    }

    fn capacity(&self) -> usize {
        self.storage.len() - ALIGNMENT / size_of::<T>()
    }

    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Buffer<T> {
        Buffer::with_capacity(len, len)
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.storage[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

/// A request takes a buffer up to this many classes larger (four times its size), or replaces one
/// up to this many classes smaller.
const MAX_CLASS_GAP: usize = 4;

/// Free buffers by size class: powers of two and one and a half times powers of two.
///
/// Shards differ in length, and so do their buffers' classes. A request accepts a larger buffer; if
/// there is none, a new one replaces a smaller one. So a pool grows to the needs of the largest
/// shape, not to the sum of all shapes.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    free: Vec<Vec<Buffer<T>>>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Pool { free: Vec::new() }
    }
}

impl<T: Copy + Default> Pool<T> {
    /// A buffer of `len` scalars with unspecified contents.
    pub(crate) fn take(&mut self, len: usize) -> Buffer<T> {
        let (class, capacity) = size_class(len);
        let mut pop = |class: usize| self.free.get_mut(class).and_then(Vec::pop);
        if let Some(mut buffer) = (class..=class + MAX_CLASS_GAP).find_map(&mut pop) {
            buffer.len = len;
            return buffer;
        }
        drop((class.saturating_sub(MAX_CLASS_GAP)..class).rev().find_map(pop));
        Buffer::with_capacity(len, capacity)
    }

    /// A buffer of `len` zeros.
    pub(crate) fn take_zeros(&mut self, len: usize) -> Buffer<T> {
        let mut buffer = self.take(len);
        buffer.fill(T::default());
        buffer
    }

    /// A copy of `values`.
    pub(crate) fn take_copy(&mut self, values: &[T]) -> Buffer<T> {
        let mut buffer = self.take(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    /// A buffer of the smallest capacity in place of one that was larger, with the same values.
    pub(crate) fn fit(&mut self, buffer: Buffer<T>) -> Buffer<T> {
        let (class, capacity) = size_class(buffer.len);
        if buffer.capacity() == capacity {
            return buffer;
        }
        let free = self.free.get_mut(class).and_then(Vec::pop);
        let mut fitting = free.unwrap_or_else(|| Buffer::with_capacity(buffer.len, capacity));
        fitting.len = buffer.len;
        fitting.copy_from_slice(&buffer);
        self.give(buffer);
        fitting
    }

    /// Returns a buffer to the pool.
    pub(crate) fn give(&mut self, buffer: Buffer<T>) {
        if buffer.storage.is_empty() {
            return;
        }
        let (class, capacity) = size_class(buffer.capacity());
        debug_assert_eq!(capacity, buffer.capacity(), "pools take back what they gave");
        if self.free.len() <= class {
            self.free.resize_with(class + 1, Vec::new);
        }
        self.free[class].push(buffer);
    }
}

/// Index and capacity of the smallest class of at least `len`.
fn size_class(len: usize) -> (usize, usize) {
    let whole = len.max(MIN_CAPACITY).next_power_of_two();
    let log2 = whole.trailing_zeros() as usize;
    let three_quarters = whole / 4 * 3;
    if len > MIN_CAPACITY && len <= three_quarters {
        (2 * log2 - 1, three_quarters)
    } else {
        (2 * log2, whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_hold_their_length_and_waste_at_most_half() {
        for len in 0..5000 {
            let (class, capacity) = size_class(len);
            assert!(capacity >= len);
            assert!(len <= MIN_CAPACITY || capacity * 2 <= len * 3, "{len} in {capacity}");
            // One capacity per class, so a recycled buffer always fits.
            assert_eq!(size_class(capacity), (class, capacity));
        }
    }

    #[test]
    fn buffers_are_aligned_and_recycled() {
        let mut pool = Pool::<f32>::default();
        let buffer = pool.take(1000);
        let address = buffer.as_ptr();
        assert_eq!(address.align_offset(ALIGNMENT), 0);
        pool.give(buffer);
        let again = pool.take(1024);
        assert_eq!((again.as_ptr(), again.len()), (address, 1024));
    }

    #[test]
    fn what_is_kept_takes_no_more_than_it_needs() {
        let mut pool = Pool::<f32>::default();
        let wide = pool.take(4096);
        pool.give(wide);
        let mut kept = pool.take(1024);
        assert_eq!(kept.capacity(), 4096, "the wide one is free");
        kept.fill(3.0);
        let kept = pool.fit(kept);
        assert_eq!((kept.capacity(), &*kept), (1024, &[3.0; 1024][..]));
        assert_eq!(pool.take(4096).capacity(), 4096);
        assert!(pool.free.iter().all(Vec::is_empty), "the wide one was free again");
        let (address, kept) = (kept.as_ptr(), pool.fit(kept));
        assert_eq!(kept.as_ptr(), address, "one that fits stays");
    }

    #[test]
    fn buffers_of_one_shape_serve_another() {
        let mut pool = Pool::<f32>::default();
        // Three buffers at a time, of rising and falling lengths.
        for length in [300, 200, 500, 150, 400, 512] {
            let taken: Vec<_> = (0..3).map(|_| pool.take(10 * length)).collect();
            for buffer in taken {
                pool.give(buffer);
            }
        }
        let capacities: Vec<usize> = pool.free.iter().flatten().map(Buffer::capacity).collect();
        assert_eq!(capacities, [6144; 3]);
    }

    #[test]
    fn a_buffer_much_larger_than_a_request_waits_for_a_larger_one() {
        let mut pool = Pool::<f32>::default();
        let large = pool.take(1 << 20);
        pool.give(large);
        let small = pool.take(100);
        assert_eq!(small.capacity(), 128);
        pool.give(small);
        assert_eq!(pool.take(1 << 20).capacity(), 1 << 20);
        assert_eq!(pool.free.iter().flatten().count(), 1);
    }
}
