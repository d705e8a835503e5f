//! Memory-mapped files.

use std::fs::{self, File};
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;

use crate::HubError;

/// Maps a non-empty regular file.
pub(crate) fn map_file(path: &Path) -> Result<Mmap, HubError> {
    let damaged = |cause: &str| HubError::Damaged { file: path.to_owned(), cause: cause.into() };
    // Opening a pipe would block until another process writes into it.
    if !fs::metadata(path).map_err(|e| HubError::io("open", path, e))?.is_file() {
        return Err(damaged("it is no regular file"));
    }
    let file = File::open(path).map_err(|e| HubError::io("open", path, e))?;
    if file.metadata().map_err(|e| HubError::io("read", path, e))?.len() == 0 {
        return Err(damaged("it is empty"));
    }
    // SAFETY: the mapping is read only, as bytes, for which every bit pattern is valid. Crisol
    // replaces files by renaming and never modifies existing ones. If another program truncates the
    // file, the process ends with a signal, as in every program that maps weights.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(|e| HubError::io("map", path, e))
}

/// A range of a mapped file.
pub struct Mapped<'a> {
    map: &'a Mmap,
    range: Range<usize>,
}

impl<'a> Mapped<'a> {
    pub(crate) fn new(map: &'a Mmap, range: Range<usize>) -> Mapped<'a> {
        Mapped { map, range }
    }

    /// Advises the system that this range is not needed soon, so its pages can be freed.
    #[cfg_attr(not(unix), allow(unused_variables, clippy::unused_self))]
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if range.start < range.end && range.end <= self.range.len() {
            // SAFETY: dropped pages of a shared file mapping are read again on the next access, so
            // the contents of the mapping do not change.
            #[allow(unsafe_code)]
            let released = unsafe {
                let start = self.range.start + range.start;
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    start,
                    range.len(),
                )
            };
            // Only advice: if ignored, memory is freed later.
            drop(released);
        }
    }
}

impl Deref for Mapped<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}
