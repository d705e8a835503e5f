//! Reads weights: memory-mapped, converted to f32.
//!
//! | format | one file | sharded |
//! |---|---|---|
//! | safetensors | `model.safetensors` | `model.safetensors.index.json` |
//! | PyTorch | `pytorch_model.bin` | `pytorch_model.bin.index.json` |
//!
//! A safetensors file is: header length (8 bytes), JSON header with type, shape and range of each
//! tensor, data (<https://github.com/huggingface/safetensors>).
//!
//! FP8 weights as in DeepSeek-V3 have block scales: `X.weight` is multiplied by
//! `X.weight_scale_inv`, which despite its name is the factor itself.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensorError, SafeTensors};

use crate::decode::{Scales, decode, is_fp8};
use crate::json_error::json_error;
use crate::map::{Mapped, map_file};
use crate::write::{INDEX_FILE, SINGLE_FILE};
use crate::{HubError, strides, torch_zip};

/// Weight files of a checkpoint folder in order of preference: single file, index of shards.
const WEIGHT_FILES: [(&str, &str); 2] =
    [(SINGLE_FILE, INDEX_FILE), ("pytorch_model.bin", "pytorch_model.bin.index.json")];

/// Extensions of PyTorch's files.
const TORCH_EXTENSIONS: [&str; 3] = ["bin", "pt", "pth"];

/// Suffix that turns the name of an FP8 weight into the name of its scales.
const SCALE_SUFFIX: &str = "_scale_inv";

/// Rows and columns that share a scale in DeepSeek-V3.
const DEFAULT_FP8_BLOCK: [usize; 2] = [128, 128];

/// The tensors of one file, or of all shards of a model. Data is read on demand.
#[derive(Debug)]
pub struct Tensors {
    /// The file or folder that the user named.
    path: PathBuf,
    files: Vec<(PathBuf, Mmap)>,
    entries: BTreeMap<String, TensorEntry>,
    /// Rows and columns of an FP8 weight that share a scale.
    block: [usize; 2],
}

#[derive(Debug)]
struct TensorEntry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Strides in elements; `None` if contiguous.
    strides: Option<Vec<usize>>,
    bytes: Range<usize>,
}

/// A tensor in the element type of its file.
pub struct Elements<'a> {
    /// The element type.
    pub dtype: Dtype,
    /// The elements, little-endian and row-major.
    pub bytes: Mapped<'a>,
    /// Rows and columns that share a scale, if the tensor has [`Tensors::scales`].
    pub block: Option<[usize; 2]>,
}

impl Tensors {
    /// Opens one file: PyTorch's if it ends in `.bin`, `.pt` or `.pth`, else safetensors.
    pub fn open(file: &Path) -> Result<Tensors, HubError> {
        let mut tensors = Tensors::empty(file);
        tensors.add_file(file)?;
        Ok(tensors)
    }

    /// Opens the weights of a checkpoint folder: safetensors or else PyTorch, single file or
    /// shards.
    pub fn open_folder(folder: &Path) -> Result<Tensors, HubError> {
        for (single, index) in WEIGHT_FILES {
            let (single, index) = (folder.join(single), folder.join(index));
            if single.exists() {
                return Tensors::open(&single);
            }
            if index.exists() {
                let mut tensors = Tensors::empty(folder);
                for name in shard_names(&index)? {
                    tensors.add_file(&folder.join(name))?;
                }
                return Ok(tensors);
            }
        }
        Err(HubError::NoWeights { path: folder.to_owned() })
    }

    /// Sets the FP8 block size (rows, columns) from `config.json`
    /// (`quantization_config.weight_block_size`); the default is 128 × 128. Shapes do not determine
    /// it: 3 scales for 192 rows fit blocks of 64 to 95.
    #[must_use]
    pub fn with_block_size(mut self, block: [NonZeroUsize; 2]) -> Tensors {
        self.block = block.map(NonZeroUsize::get);
        self
    }

    fn empty(path: &Path) -> Tensors {
        Tensors {
            path: path.to_owned(),
            files: Vec::new(),
            entries: BTreeMap::new(),
            block: DEFAULT_FP8_BLOCK,
        }
    }

    fn add_file(&mut self, path: &Path) -> Result<(), HubError> {
        let map = map_file(path)?;
        let file = self.files.len();
        if is_torch(path) {
            for tensor in torch_zip::read_header(path, &map)? {
                let torch_zip::TorchTensor { name, dtype, shape, strides, bytes } = tensor;
                self.add_entry(path, name, TensorEntry { file, dtype, shape, strides, bytes })?;
            }
        } else {
            let (header, metadata) =
                SafeTensors::read_metadata(&map).map_err(|e| damaged(path, &map, &e))?;
            let data = size_of::<u64>() + header;
            for (name, info) in metadata.tensors() {
                let bytes = data + info.data_offsets.0..data + info.data_offsets.1;
                let (dtype, shape) = (info.dtype, info.shape.clone());
                self.add_entry(
                    path,
                    name.clone(),
                    TensorEntry { file, dtype, shape, strides: None, bytes },
                )?;
            }
        }
        self.files.push((path.to_owned(), map));
        Ok(())
    }

    fn add_entry(&mut self, path: &Path, name: String, entry: TensorEntry) -> Result<(), HubError> {
        match self.entries.entry(name) {
            btree_map::Entry::Vacant(vacant) => {
                vacant.insert(entry);
                Ok(())
            }
            btree_map::Entry::Occupied(occupied) => {
                // Names within one file are already unique.
                let first = self.files.get(occupied.get().file).map_or(path, |(first, _)| first);
                let (file, other, tensor) =
                    (first.to_owned(), path.to_owned(), occupied.key().clone());
                Err(HubError::StaleTensor { file, other, tensor })
            }
        }
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// `safetensors` or `pytorch`.
    pub fn format(&self) -> &'static str {
        let torch = self.files.first().is_some_and(|(path, _)| is_torch(path));
        if torch { "pytorch" } else { "safetensors" }
    }

    /// Name of a tensor's element type (`F32`, `BF16`, …), and its size in bytes.
    pub fn dtype_and_bytes(&self, name: &str) -> Option<(String, usize)> {
        self.entries.get(name).map(|entry| (format!("{:?}", entry.dtype), entry.bytes.len()))
    }

    /// Checks that the tensors are exactly `expected` (names and shapes), without reading them.
    /// Other tensors are an error unless `ignored(name)`, or they are scales of an expected FP8
    /// weight.
    pub fn check_shapes<'a>(
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
                Some(entry) => {
                    self.check_shape(name, entry, shape)?;
                    if let Some((scales, _)) = self.find_scales(name, entry)? {
                        surplus.remove(scales);
                    }
                }
            }
        }
        let file = self.path.clone();
        if let Some(tensor) = missing.first() {
            return Err(HubError::MissingTensor {
                file,
                tensor: (*tensor).into(),
                more: missing.len() - 1,
            });
        }
        match surplus.first() {
            None => Ok(()),
            Some(tensor) => Err(HubError::SurplusTensor {
                file,
                tensor: (*tensor).into(),
                more: surplus.len() - 1,
            }),
        }
    }

    /// Reads a tensor of this shape as f32, row-major. Exact, except that F64 is rounded; FP8
    /// scales are applied.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, HubError> {
        let mut values = self.values(name, self.entry(name, shape)?)?;
        if let Some(scales) = self.scales(name, shape)? {
            scales.apply(&mut values);
        }
        Ok(values)
    }

    /// The scales of an FP8 weight of this shape, if it has any.
    pub fn scales(&self, name: &str, shape: &[usize]) -> Result<Option<Scales>, HubError> {
        match (self.find_scales(name, self.entry(name, shape)?)?, shape) {
            (Some((name, scales)), &[_, columns]) => {
                Ok(Some(Scales::new(self.values(name, scales)?, columns, self.block)))
            }
            _ => Ok(None),
        }
    }

    /// The raw elements of a tensor of this shape; `None` if not contiguous.
    pub fn mapped(&self, name: &str, shape: &[usize]) -> Result<Option<Elements<'_>>, HubError> {
        let entry = self.entry(name, shape)?;
        let block = self.find_scales(name, entry)?.map(|_| self.block);
        if entry.strides.is_some() {
            return Ok(None);
        }
        let bytes = Mapped::new(&self.files[entry.file].1, entry.bytes.clone());
        Ok(Some(Elements { dtype: entry.dtype, bytes, block }))
    }

    /// The entry of a tensor that must exist and have this shape.
    fn entry(&self, name: &str, shape: &[usize]) -> Result<&TensorEntry, HubError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(HubError::MissingTensor {
                file: self.path.clone(),
                tensor: name.into(),
                more: 0,
            });
        };
        self.check_shape(name, entry, shape)?;
        Ok(entry)
    }

    /// The values without scales.
    fn values(&self, name: &str, entry: &TensorEntry) -> Result<Vec<f32>, HubError> {
        let (_, map) = &self.files[entry.file];
        let bytes = &map[entry.bytes.clone()];
        let values = match &entry.strides {
            None => decode(entry.dtype, bytes),
            Some(strides) => decode(
                entry.dtype,
                &strides::gather(bytes, entry.dtype.bitsize() / 8, &entry.shape, strides),
            ),
        };
        values.ok_or_else(|| self.unsupported(name))
    }

    /// The error of a tensor whose element type is not supported.
    pub fn unsupported(&self, name: &str) -> HubError {
        let entry = self.entries.get(name);
        HubError::UnsupportedDtype {
            file: entry.map_or(&self.path, |entry| &self.files[entry.file].0).clone(),
            tensor: name.into(),
            dtype: entry.map_or_else(String::new, |entry| format!("{:?}", entry.dtype)),
        }
    }

    /// The scales of an FP8 weight, if it has any. Errors unless there is one per block.
    fn find_scales(
        &self,
        name: &str,
        weight: &TensorEntry,
    ) -> Result<Option<(&str, &TensorEntry)>, HubError> {
        if !is_fp8(weight.dtype) {
            return Ok(None);
        }
        let Some((name, scales)) = self.entries.get_key_value(&format!("{name}{SCALE_SUFFIX}"))
        else {
            return Ok(None);
        };
        let fits = match weight.shape[..] {
            [rows, columns] => {
                scales.shape == [rows.div_ceil(self.block[0]), columns.div_ceil(self.block[1])]
            }
            _ => false,
        };
        if fits {
            return Ok(Some((name, scales)));
        }
        Err(HubError::WrongScale {
            file: self.files[scales.file].0.clone(),
            tensor: name.clone(),
            found: scales.shape.as_slice().into(),
            weight: weight.shape.as_slice().into(),
            block: self.block,
        })
    }

    fn check_shape(
        &self,
        name: &str,
        entry: &TensorEntry,
        expected: &[usize],
    ) -> Result<(), HubError> {
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

fn is_torch(path: &Path) -> bool {
    path.extension().is_some_and(|end| TORCH_EXTENSIONS.iter().any(|torch| end == *torch))
}

/// The distinct file names in an index, sorted. Only plain names within the folder are accepted.
fn shard_names(index: &Path) -> Result<BTreeSet<String>, HubError> {
    let damaged = |cause: String| HubError::Damaged { file: index.to_owned(), cause };
    let text = std::fs::read_to_string(index).map_err(|e| HubError::io("read", index, e))?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| damaged(json_error(&e)))?;
    let map = json.get("weight_map").and_then(serde_json::Value::as_object);
    let map = map.ok_or_else(|| damaged("it has no `weight_map`".into()))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        let name = file.as_str().unwrap_or_default();
        let mut parts = Path::new(name).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(damaged(format!(
                "the entry of `{tensor}` is not the name of a file in this folder"
            )));
        }
        names.insert(name.to_owned());
    }
    if names.is_empty() {
        return Err(damaged("its `weight_map` is empty".into()));
    }
    Ok(names)
}

/// Converts an error of the safetensors parser; a wrong length, the usual case, gets its numbers.
fn damaged(path: &Path, map: &[u8], error: &SafeTensorError) -> HubError {
    let file = path.to_owned();
    let actual = map.len() as u64;
    let cause = match error {
        SafeTensorError::HeaderTooSmall => "it is too short to be a safetensors file".into(),
        SafeTensorError::HeaderTooLarge => {
            "its first 8 bytes give an absurd header length, so it is not a safetensors file".into()
        }
        SafeTensorError::InvalidHeaderLength => {
            // The first 8 bytes exist, else the error would be HeaderTooSmall.
            let header = map.first_chunk().map_or(0, |&b| u64::from_le_bytes(b));
            return HubError::WrongLength { file, actual, expected: header.saturating_add(8) };
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            let header = map.first_chunk().map_or(0, |&b| u64::from_le_bytes(b)) as usize;
            let described = map
                .get(8..8 + header)
                .and_then(|json| serde_json::from_slice::<Metadata>(json).ok())
                .map_or(0, |metadata| metadata.data_len());
            return HubError::WrongLength {
                file,
                actual,
                expected: (8 + header + described) as u64,
            };
        }
        other => other.to_string(),
    };
    HubError::Damaged { file, cause }
}
