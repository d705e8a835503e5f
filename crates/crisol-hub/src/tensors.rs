//! Weights in the safetensors format: memory-mapped reading, widened to f32, and writing.
//!
//! Format: 8 bytes header length, a JSON header with type, shape and place of each tensor, then the data
//! (<https://github.com/huggingface/safetensors>). A large model is cut into several files, listed in
//! `model.safetensors.index.json`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensorError, SafeTensors, TensorInfo};

use crate::HubError;

/// The tensors of one file, or of all files of a sharded model. Data stays on disk until it is read.
#[derive(Debug)]
pub struct Tensors {
    /// What the user named: the file or the folder.
    path: PathBuf,
    files: Vec<(PathBuf, Mmap)>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl Tensors {
    /// Opens one safetensors file.
    pub fn open(file: &Path) -> Result<Tensors, HubError> {
        let mut tensors = Tensors { path: file.to_owned(), files: Vec::new(), entries: BTreeMap::new() };
        tensors.add_file(file)?;
        Ok(tensors)
    }

    /// Opens the weights of a checkpoint folder: `model.safetensors`, or the files that
    /// `model.safetensors.index.json` lists.
    pub fn open_folder(folder: &Path) -> Result<Tensors, HubError> {
        let single = folder.join("model.safetensors");
        if single.exists() {
            return Tensors::open(&single);
        }
        let index = folder.join("model.safetensors.index.json");
        if !index.exists() {
            return Err(HubError::NoWeights { path: folder.to_owned() });
        }
        let mut tensors = Tensors { path: folder.to_owned(), files: Vec::new(), entries: BTreeMap::new() };
        for name in shard_names(&index)? {
            tensors.add_file(&folder.join(name))?;
        }
        Ok(tensors)
    }

    fn add_file(&mut self, path: &Path) -> Result<(), HubError> {
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
        let map = unsafe { Mmap::map(&file) }.map_err(|e| HubError::io("map", path, e))?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| damaged(path, &map, &e))?;
        let data = size_of::<u64>() + header;
        let file = self.files.len();
        for (name, info) in metadata.tensors() {
            let bytes = data + info.data_offsets.0..data + info.data_offsets.1;
            let entry = Entry { file, dtype: info.dtype, shape: info.shape.clone(), bytes };
            if self.entries.insert(name.clone(), entry).is_some() {
                let cause = format!("it holds the tensor `{name}`, which another file holds too");
                return Err(HubError::Damaged { file: path.to_owned(), cause });
            }
        }
        self.files.push((path.to_owned(), map));
        Ok(())
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Checks that the tensors are exactly `expected` (names and shapes), before any of them is read. Other
    /// tensors are an error unless `ignored(name)`.
    pub fn expect<'a>(
        &self,
        expected: impl IntoIterator<Item = (&'a str, &'a [usize])>,
        ignored: impl Fn(&str) -> bool,
    ) -> Result<(), HubError> {
        let mut surplus: BTreeSet<&str> = self.names().filter(|name| !ignored(name)).collect();
        let mut missing = Vec::new();
        for (name, shape) in expected {
            surplus.remove(name);
            match self.entries.get(name) {
                None => missing.push(name),
                Some(entry) => self.check_shape(name, entry, shape)?,
            }
        }
        let file = self.path.clone();
        if let Some(tensor) = missing.first() {
            return Err(HubError::MissingTensor { file, tensor: (*tensor).into(), more: missing.len() - 1 });
        }
        match surplus.first() {
            None => Ok(()),
            Some(tensor) => {
                Err(HubError::SurplusTensor { file, tensor: (*tensor).into(), more: surplus.len() - 1 })
            }
        }
    }

    /// Reads a tensor as f32, row-major. It must have this shape.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, HubError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(HubError::MissingTensor { file: self.path.clone(), tensor: name.into(), more: 0 });
        };
        self.check_shape(name, entry, shape)?;
        let (file, map) = &self.files[entry.file];
        let bytes = &map[entry.bytes.clone()];
        let halves = || bytes.as_chunks::<2>().0.iter().map(|&b| u16::from_le_bytes(b));
        match entry.dtype {
            Dtype::F32 => Ok(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
            // bf16 is the upper half of an f32.
            Dtype::BF16 => Ok(halves().map(|half| f32::from_bits(u32::from(half) << 16)).collect()),
            Dtype::F16 => Ok(halves().map(f16_to_f32).collect()),
            other => Err(HubError::WrongType {
                file: file.clone(),
                tensor: name.into(),
                dtype: format!("{other:?}"),
            }),
        }
    }

    fn check_shape(&self, name: &str, entry: &Entry, expected: &[usize]) -> Result<(), HubError> {
        if entry.shape == expected {
            return Ok(());
        }
        Err(HubError::WrongShape {
            file: self.files[entry.file].0.clone(),
            tensor: name.into(),
            found: entry.shape.clone(),
            expected: expected.to_vec(),
        })
    }
}

/// The distinct file names in an index file, sorted; only plain names within the folder are accepted.
fn shard_names(index: &Path) -> Result<BTreeSet<String>, HubError> {
    let damaged = |cause: String| HubError::Damaged { file: index.to_owned(), cause };
    let text = std::fs::read_to_string(index).map_err(|e| HubError::io("read", index, e))?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| damaged(format!("it is not valid JSON ({e})")))?;
    let map = json.get("weight_map").and_then(serde_json::Value::as_object);
    let map = map.ok_or_else(|| damaged("it has no `weight_map`".into()))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        let name = file.as_str().unwrap_or_default();
        let mut parts = Path::new(name).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(damaged(format!("the entry of `{tensor}` is not the name of a file in this folder")));
        }
        names.insert(name.to_owned());
    }
    if names.is_empty() {
        return Err(damaged("its `weight_map` is empty".into()));
    }
    Ok(names)
}

/// Says what is wrong with a safetensors file; a wrong length, the usual case, gets its numbers.
fn damaged(path: &Path, map: &[u8], error: &SafeTensorError) -> HubError {
    let file = path.to_owned();
    let actual = map.len() as u64;
    let cause = match error {
        SafeTensorError::HeaderTooSmall => "it is too short to be a safetensors file".into(),
        SafeTensorError::HeaderTooLarge => {
            "its first 8 bytes give an absurd header length, so it is not a safetensors file".into()
        }
        SafeTensorError::InvalidHeaderLength => {
            // The first 8 bytes exist, else the error were HeaderTooSmall.
            let header = map.first_chunk().map_or(0, |&b| u64::from_le_bytes(b));
            return HubError::WrongLength { file, actual, expected: header.saturating_add(8) };
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            let header = map.first_chunk().map_or(0, |&b| u64::from_le_bytes(b)) as usize;
            let described = map
                .get(8..8 + header)
                .and_then(|json| serde_json::from_slice::<Metadata>(json).ok())
                .map_or(0, |metadata| metadata.data_len());
            return HubError::WrongLength { file, actual, expected: (8 + header + described) as u64 };
        }
        other => other.to_string(),
    };
    HubError::Damaged { file, cause }
}

/// IEEE 754 half precision to single; exact for every value.
pub(crate) fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half & 0x3ff);
    match exponent {
        // Subnormal: fraction · 2^-24.
        0 => {
            let magnitude = fraction as f32 * (-24f32).exp2();
            f32::from_bits(magnitude.to_bits() | sign)
        }
        0x1f => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        // Re-bias the exponent from 15 to 127.
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// A tensor to write: its values are fetched only when their turn comes.
pub struct Tensor<'a> {
    /// Name in the file.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Gives the values; their number must match the shape.
    pub values: Box<dyn Fn() -> Cow<'a, [f32]> + 'a>,
}

/// Writes a safetensors file of f32 tensors, in the given order. Not atomic by itself: meant for a file in
/// the folder that [`crate::write_folder_atomically`] is filling.
pub fn write_tensors(path: &Path, tensors: &[Tensor<'_>]) -> Result<(), HubError> {
    let mut end = 0;
    let infos = tensors.iter().map(|tensor| {
        let start = end;
        end += tensor.shape.iter().product::<usize>() * size_of::<f32>();
        let info = TensorInfo { dtype: Dtype::F32, shape: tensor.shape.clone(), data_offsets: (start, end) };
        (tensor.name.clone(), info)
    });
    // transformers refuses files that do not say for which framework they are.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let header = Metadata::new(Some(format), infos.collect())
        .ok()
        .and_then(|metadata| serde_json::to_vec(&metadata).ok())
        .expect("offsets were computed from the shapes just now, and string keys always serialise");
    // Data is aligned to 8 bytes, by padding the header with spaces.
    let padding = header.len().next_multiple_of(8) - header.len();

    let failed = |e| HubError::io("write", path, e);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    let mut write = |bytes: &[u8]| out.write_all(bytes).map_err(failed);
    write(&((header.len() + padding) as u64).to_le_bytes())?;
    write(&header)?;
    write(&b"       "[..padding])?;
    for tensor in tensors {
        let values = (tensor.values)();
        assert_eq!(values.len(), tensor.shape.iter().product::<usize>(), "values of {}", tensor.name);
        for &value in values.iter() {
            write(&value.to_le_bytes())?;
        }
    }
    out.into_inner().map(drop).map_err(|e| failed(e.into_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_widen_exactly() {
        // Values from the IEEE 754 binary16 definition.
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 2f32.powi(-14)),
            (0x0001, 2f32.powi(-24)),
            (0x83ff, -1023.0 * 2f32.powi(-24)),
            (0x3555, 1365.0 / 4096.0),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(f16_to_f32(bits), value, "{bits:#06x}");
        }
        assert!(f16_to_f32(0x7e00).is_nan());
        assert!(f16_to_f32(0x8000).is_sign_negative());
    }
}
