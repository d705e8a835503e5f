//! GGUF, the format of llama.cpp: one file with metadata, vocabulary and tensors, mostly quantised.
//!
//! Reading is memory-mapped; a tensor's values are widened to f32 when it is read, and its blocks can be had as
//! they are. Format: the GGUF specification, `docs/gguf.md` of ggml
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).

mod blocks;
mod header;
mod metadata;
mod write;

use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

pub use blocks::GgmlType;
use header::{Header, Info};
pub use metadata::{Array, Metadata, Value};
pub use write::{GgufTensor, write_gguf};

use crate::HubError;
use crate::map::{Mapped, map_file};

const MAGIC: &[u8] = b"GGUF";
/// Bytes, unless the metadata say otherwise.
const ALIGNMENT: usize = 32;
const ALIGNMENT_KEY: &str = "general.alignment";
/// `GGML_MAX_DIMS` in `ggml.h`.
const MAX_DIMS: usize = 4;

/// A GGUF file (version 2 or 3, little-endian). Data stays on disk until it is read.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    map: Mmap,
    header: Header,
}

impl Gguf {
    /// Opens a file and checks all of its header: whatever it contains, what is read later lies within it.
    pub fn open(path: &Path) -> Result<Gguf, HubError> {
        let map = map_file(path)?;
        let header = Header::parse(path, &map)?;
        Ok(Gguf { path: path.to_owned(), map, header })
    }

    /// What the file says about the model and its vocabulary.
    pub fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    /// Names of all tensors, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.iter().map(|info| info.name.as_str())
    }

    /// Shape of a tensor, row-major as in PyTorch: a linear layer's is outputs × inputs. (The file has it the
    /// other way round.)
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.find(name).map(|info| info.shape.as_slice())
    }

    /// How a tensor is stored.
    pub fn dtype(&self, name: &str) -> Option<GgmlType> {
        self.find(name).map(|info| info.dtype)
    }

    /// How a tensor is stored, by name, and in how many bytes.
    pub fn dtype_and_bytes(&self, name: &str) -> Option<(String, usize)> {
        self.find(name).map(|info| (info.dtype.to_string(), info.bytes.len()))
    }

    /// A tensor's blocks as they are in the file: row-major, [`GgmlType::block_bytes`] bytes for every
    /// [`GgmlType::block_len`] values.
    pub fn bytes(&self, name: &str) -> Result<&[u8], HubError> {
        self.info(name).map(|info| &self.map[info.bytes.clone()])
    }

    /// The same, to be given back to the system after reading.
    pub fn mapped(&self, name: &str) -> Result<Mapped<'_>, HubError> {
        self.info(name).map(|info| Mapped::new(&self.map, info.bytes.clone()))
    }

    /// The same of some of a tensor's rows, counted over all of its dimensions but the last. They must be there.
    pub fn mapped_rows(&self, name: &str, rows: Range<usize>) -> Result<Mapped<'_>, HubError> {
        self.info(name).map(|info| Mapped::new(&self.map, info.rows(rows)))
    }

    /// Reads a tensor as f32, row-major. The values are those of ggml's reference, bit by bit.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, HubError> {
        let info = self.info(name)?;
        self.widen(info, info.bytes.clone())
    }

    /// The same of some of its rows, as in [`Gguf::mapped_rows`].
    pub fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, HubError> {
        let info = self.info(name)?;
        self.widen(info, info.rows(rows))
    }

    fn widen(&self, info: &Info, bytes: Range<usize>) -> Result<Vec<f32>, HubError> {
        blocks::dequantise(info.dtype, &self.map[bytes]).ok_or_else(|| HubError::WrongBlocks {
            file: self.path.clone(),
            tensor: quoted(&info.name),
            dtype: info.dtype.to_string(),
            readable: blocks::READABLE,
        })
    }

    fn find(&self, name: &str) -> Option<&Info> {
        self.header.places.get(name).map(|&place| &self.header.tensors[place])
    }

    fn info(&self, name: &str) -> Result<&Info, HubError> {
        self.find(name)
            .ok_or_else(|| HubError::NoSuchTensor { file: self.path.clone(), tensor: quoted(name) })
    }
}

/// A name from a file as it can be shown: without control characters, and cut if it is absurdly long.
pub(crate) fn quoted(name: &str) -> String {
    const LONGEST: usize = 100;
    let shown: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST).is_some() { format!("{shown}…") } else { shown }
}
