//! Files mapped into memory.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::HubError;

/// Maps a file that is not empty.
pub(crate) fn map_file(path: &Path) -> Result<Mmap, HubError> {
    let file = File::open(path).map_err(|e| HubError::io("open", path, e))?;
    let length = file.metadata().map_err(|e| HubError::io("read", path, e))?.len();
    if length == 0 {
        return Err(HubError::Damaged { file: path.to_owned(), cause: "it is empty".into() });
    }
    // SAFETY: the mapping is only read, as bytes, for which every bit pattern is valid. Crisol replaces
    // files by renaming and never writes into one that exists, so the mapping does not change under us;
    // another program truncating the file while it is read would end the process with a signal, as
    // with every reader that maps weights.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(|e| HubError::io("map", path, e))
}
