//! Writes safetensors files tensor by tensor: one file, or shards with an index.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Map, Value, json};

use crate::HubError;
use crate::encode::{EncodeError, encode_bf16, encode_f16, encode_f32};
use crate::gguf::quoted;

/// The file of an unsharded model.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";
/// The index of a sharded model: the file of each tensor.
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";

/// A float type to write; values are rounded to nearest even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    BF16,
}

impl FloatType {
    /// Bytes per value.
    pub fn bytes(self) -> usize {
        match self {
            FloatType::F32 => 4,
            FloatType::F16 | FloatType::BF16 => 2,
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            FloatType::F32 => Dtype::F32,
            FloatType::F16 => Dtype::F16,
            FloatType::BF16 => Dtype::BF16,
        }
    }
}

/// The name in weight files.
impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dtype())
    }
}

/// Takes a portion of a tensor's values.
pub type Take<'t> = dyn FnMut(&[f32]) -> Result<(), HubError> + 't;

/// Fetches a tensor's values and passes them on in order, in one portion or several.
pub type Values<'a> = Box<dyn Fn(&mut Take<'_>) -> Result<(), HubError> + 'a>;

/// Values that are fetched at once.
pub fn whole<'a, 'v>(values: impl Fn() -> Result<Cow<'v, [f32]>, HubError> + 'a) -> Values<'a> {
    Box::new(move |take| take(&values()?))
}

/// Values that `read` fetches some rows at a time, so that a large tensor is never copied as a
/// whole.
pub fn by_rows<'a>(
    rows: usize,
    cols: usize,
    read: impl Fn(Range<usize>) -> Vec<f32> + 'a,
) -> Values<'a> {
    let step = (PORTION / cols.max(1)).max(1);
    Box::new(move |take| {
        (0..rows).step_by(step).try_for_each(|start| take(&read(start..(start + step).min(rows))))
    })
}

/// A tensor to write; its values are fetched when needed.
pub struct Tensor<'a, T = FloatType> {
    /// Name in the file.
    pub name: String,
    /// Shape, row-major as in PyTorch.
    pub shape: Vec<usize>,
    /// The type in the file.
    pub dtype: T,
    /// Fetches the values; their number must match the shape.
    pub values: Values<'a>,
}

/// Values of which [`by_rows`] makes a portion.
pub const PORTION: usize = 1 << 20;
/// Values encoded at a time; a multiple of every quantisation block.
const CHUNK: usize = 1 << 16;

impl<T: Copy + fmt::Display> Tensor<'_, T> {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Writes the values in portions, so that the encoded tensor is never in memory as a whole.
    /// Returns the number of bytes.
    pub(crate) fn write_values(
        &self,
        path: &Path,
        encode: impl Fn(T, &[f32], &mut Vec<u8>) -> Result<(), EncodeError>,
        mut write: impl FnMut(&[u8]) -> Result<(), HubError>,
    ) -> Result<usize, HubError> {
        let mut bytes = Vec::new();
        let (mut first, mut written) = (0, 0);
        (self.values)(&mut |portion| {
            for values in portion.chunks(CHUNK) {
                bytes.clear();
                encode(self.dtype, values, &mut bytes).map_err(
                    |EncodeError { index, problem }| {
                        let (value, number) = (values[index], first + index);
                        let cause = format!("its value {value} (number {number}) {problem}");
                        self.encode_error(path, cause, "Choose BF16 or F32, or mend the model")
                    },
                )?;
                write(&bytes)?;
                first += values.len();
                written += bytes.len();
            }
            Ok(())
        })?;
        assert_eq!(first, self.len(), "values of {}", self.name);
        Ok(written)
    }

    pub(crate) fn encode_error(
        &self,
        path: &Path,
        cause: String,
        remedy: &'static str,
    ) -> HubError {
        let (file, tensor) = (path.to_owned(), quoted(&self.name));
        HubError::CannotEncode { file, tensor, dtype: self.dtype.to_string(), cause, remedy }
    }
}

impl Tensor<'_> {
    fn bytes(&self) -> usize {
        self.len() * self.dtype.bytes()
    }
}

/// Writes a safetensors file in the given order. A finite value outside the type's range is an
/// error that names the tensor; infinities and NaN are kept. Not atomic: use it within
/// [`crate::write_folder_atomically`].
pub fn write_tensors(path: &Path, tensors: &[Tensor<'_>]) -> Result<(), HubError> {
    let mut end = 0;
    let infos = tensors.iter().map(|tensor| {
        let start = end;
        end += tensor.bytes();
        let info = TensorInfo {
            dtype: tensor.dtype.dtype(),
            shape: tensor.shape.clone(),
            data_offsets: (start, end),
        };
        (tensor.name.clone(), info)
    });
    // transformers refuses files without a framework.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let header = Metadata::new(Some(format), infos.collect())
        .ok()
        .and_then(|metadata| serde_json::to_vec(&metadata).ok())
        .expect("offsets were computed from the shapes just now, and string keys always serialise");
    // Spaces pad the header, so that data is aligned to 8 bytes.
    let padding = header.len().next_multiple_of(8) - header.len();

    let failed = |e| HubError::io("write", path, e);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    let mut write = |bytes: &[u8]| out.write_all(bytes).map_err(failed);
    write(&((header.len() + padding) as u64).to_le_bytes())?;
    write(&header)?;
    write(&b"       "[..padding])?;
    for tensor in tensors {
        tensor.write_values(path, encode, &mut write)?;
    }
    out.into_inner().map(drop).map_err(|e| failed(e.into_error()))
}

fn encode(dtype: FloatType, values: &[f32], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match dtype {
        FloatType::F32 => encode_f32(values, out),
        FloatType::F16 => encode_f16(values, out)?,
        FloatType::BF16 => encode_bf16(values, out)?,
    }
    Ok(())
}

/// Writes weights as transformers does: `model.safetensors`, or shards of at most `shard_bytes`
/// bytes (`model-00001-of-00003.safetensors`, …) with an index. A larger tensor has its own shard.
/// See [`write_tensors`].
pub fn write_weights(
    folder: &Path,
    tensors: &[Tensor<'_>],
    shard_bytes: u64,
) -> Result<(), HubError> {
    let shards = shards(tensors, shard_bytes);
    if let [_] | [] = shards[..] {
        return write_tensors(&folder.join(SINGLE_FILE), tensors);
    }
    let mut weight_map = Map::new();
    for (number, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        write_tensors(&folder.join(&name), shard)?;
        weight_map
            .extend(shard.iter().map(|tensor| (tensor.name.clone(), Value::String(name.clone()))));
    }
    let total: usize = tensors.iter().map(Tensor::bytes).sum();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    let path = folder.join(INDEX_FILE);
    fs::write(&path, format!("{index:#}\n")).map_err(|e| HubError::io("write", &path, e))
}

/// Splits tensors into consecutive shards of at most `max_bytes` bytes.
fn shards<'t, 'v>(tensors: &'t [Tensor<'v>], max_bytes: u64) -> Vec<&'t [Tensor<'v>]> {
    let mut bounds = vec![0];
    let mut bytes = 0;
    for (position, tensor) in tensors.iter().enumerate() {
        let own = tensor.bytes() as u64;
        if bytes > 0 && bytes + own > max_bytes {
            bounds.push(position);
            bytes = 0;
        }
        bytes += own;
    }
    bounds.push(tensors.len());
    bounds.windows(2).map(|bounds| &tensors[bounds[0]..bounds[1]]).collect()
}
