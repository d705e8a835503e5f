//! GGUF, llama.cpp's format: one file with metadata, vocabulary and tensors, mostly quantised.
//!
//! Files are memory-mapped. Tensors can be dequantised to f32 or accessed as raw blocks.
//! Specification: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod blocks;
mod header;
mod metadata;
mod write;

use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

pub use blocks::{GgmlType, dequantise};
use header::{Header, TensorInfo};
pub use metadata::{Array, Metadata, Value};
pub use write::{GgufTensor, write_gguf};

use crate::HubError;
use crate::map::{Mapped, map_file};

const MAGIC: &[u8] = b"GGUF";
/// Default alignment of the data in bytes.
const ALIGNMENT: usize = 32;
const ALIGNMENT_KEY: &str = "general.alignment";
/// `GGML_MAX_DIMS` in `ggml.h`.
const MAX_DIMS: usize = 4;

/// A GGUF file (version 2 or 3, little-endian). Data is read on demand.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    map: Mmap,
    header: Header,
}

impl Gguf {
    /// Opens a file and validates its header, including the byte range of every tensor.
    pub fn open(path: &Path) -> Result<Gguf, HubError> {
        let map = map_file(path)?;
        let header = Header::parse(path, &map)?;
        Ok(Gguf { path: path.to_owned(), map, header })
    }

    /// Metadata of model and vocabulary.
    pub fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    /// Names of all tensors, in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.iter().map(|info| info.name.as_str())
    }

    /// Shape of a tensor, row-major as in PyTorch: `[out, in]` for a linear layer. (The file has
    /// the reverse order.)
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.find(name).map(|info| info.shape.as_slice())
    }

    /// Type of a tensor.
    pub fn dtype(&self, name: &str) -> Option<GgmlType> {
        self.find(name).map(|info| info.dtype)
    }

    /// Name of a tensor's type, and its size in bytes.
    pub fn dtype_and_bytes(&self, name: &str) -> Option<(String, usize)> {
        self.find(name).map(|info| (info.dtype.to_string(), info.bytes.len()))
    }

    /// The raw blocks of a tensor, row-major: [`GgmlType::block_bytes`] bytes per
    /// [`GgmlType::block_len`] values.
    pub fn bytes(&self, name: &str) -> Result<&[u8], HubError> {
        self.info(name).map(|info| &self.map[info.bytes.clone()])
    }

    /// The raw blocks of a tensor, as a mapping whose pages can be released.
    pub fn mapped(&self, name: &str) -> Result<Mapped<'_>, HubError> {
        self.info(name).map(|info| Mapped::new(&self.map, info.bytes.clone()))
    }

    /// The raw blocks of some rows, counted over all dimensions but the last. Panics if out of
    /// range.
    pub fn mapped_rows(&self, name: &str, rows: Range<usize>) -> Result<Mapped<'_>, HubError> {
        self.info(name).map(|info| Mapped::new(&self.map, info.rows(rows)))
    }

    /// Reads a tensor as f32, row-major. Bit-identical to ggml's reference.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, HubError> {
        let info = self.info(name)?;
        self.dequantise(info, info.bytes.clone())
    }

    /// Reads some rows of a tensor as f32, see [`Gguf::mapped_rows`].
    pub fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, HubError> {
        let info = self.info(name)?;
        self.dequantise(info, info.rows(rows))
    }

    fn dequantise(&self, info: &TensorInfo, bytes: Range<usize>) -> Result<Vec<f32>, HubError> {
        blocks::dequantise(info.dtype, &self.map[bytes]).ok_or_else(|| {
            HubError::UnsupportedQuantisation {
                file: self.path.clone(),
                tensor: quoted(&info.name),
                dtype: info.dtype.to_string(),
                supported: blocks::SUPPORTED,
            }
        })
    }

    fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.header.index.get(name).map(|&index| &self.header.tensors[index])
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, HubError> {
        self.find(name)
            .ok_or_else(|| HubError::NoSuchTensor { file: self.path.clone(), tensor: quoted(name) })
    }
}

/// Escapes control characters of a name from a file and truncates it, for error messages.
pub(crate) fn quoted(name: &str) -> String {
    const MAX_CHARS: usize = 100;
    let shown: String = name.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().nth(MAX_CHARS).is_some() { format!("{shown}…") } else { shown }
}
