//! Files mapped into memory.

use std::fs::{self, File};
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;

use crate::HubError;

/// Maps a file that is not empty.
pub(crate) fn map_file(path: &Path) -> Result<Mmap, HubError> {
    let damaged = |cause: &str| HubError::Damaged { file: path.to_owned(), cause: cause.into() };
    // Opening a pipe would wait for somebody who writes into it.
    if !fs::metadata(path).map_err(|e| HubError::io("open", path, e))?.is_file() {
        return Err(damaged("it is no regular file"));
    }
    let file = File::open(path).map_err(|e| HubError::io("open", path, e))?;
    if file.metadata().map_err(|e| HubError::io("read", path, e))?.len() == 0 {
        return Err(damaged("it is empty"));
    }
    // SAFETY: the mapping is only read, as bytes, for which every bit pattern is valid. Crisol replaces
    // files by renaming and never writes into one that exists, so the mapping does not change under us;
    // another program truncating the file while it is read would end the process with a signal, as
    // with every reader that maps weights.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(|e| HubError::io("map", path, e))
}

/// A part of a mapped file.
pub struct Mapped<'a> {
    map: &'a Mmap,
    range: Range<usize>,
}

impl<'a> Mapped<'a> {
    pub(crate) fn new(map: &'a Mmap, range: Range<usize>) -> Mapped<'a> {
        Mapped { map, range }
    }

    /// Says that a range of it will not be read again soon, so that it need not stay in memory.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if range.start < range.end && range.end <= self.range.len() {
            // SAFETY: pages of a file's shared mapping that are dropped are read from the file again when they are next used, so
            // the mapping's contents stay what they are.
            #[allow(unsafe_code)]
            let released = unsafe {
                let start = self.range.start + range.start;
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    start,
                    range.len(),
                )
            };
            // It is only advice: where it is not taken, memory is freed later.
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
