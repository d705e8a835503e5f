//! Writing weights in the safetensors format, tensor by tensor: into one file, or into several with an index.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Map, Value, json};

use crate::HubError;
use crate::encode::{Unfit, bf16s, f16s, f32s};
use crate::gguf::quoted;

/// The file of a whole model.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Says in which file each tensor of a model in parts is.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// An element type of floats, narrower ones being rounded to nearest, ties to even.
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

/// As weight files name it.
impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dtype())
    }
}

/// Fetches a tensor's values.
pub type Values<'a> = Box<dyn Fn() -> Result<Cow<'a, [f32]>, HubError> + 'a>;

/// A tensor to write: its values are fetched only when their turn comes.
pub struct Tensor<'a, T = FloatType> {
    /// Name in the file.
    pub name: String,
    /// Shape, row-major as in PyTorch.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub dtype: T,
    /// Gives the values; their number must match the shape.
    pub values: Values<'a>,
}

/// Values that are encoded at a time; a multiple of every block of quantised types.
const PORTION: usize = 1 << 16;

impl<T: Copy + fmt::Display> Tensor<'_, T> {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Writes the values, encoded in portions, so that the encoded tensor is never in memory as a whole. The number of
    /// bytes.
    pub(crate) fn write_values(
        &self,
        path: &Path,
        encode: impl Fn(T, &[f32], &mut Vec<u8>) -> Result<(), Unfit>,
        mut write: impl FnMut(&[u8]) -> Result<(), HubError>,
    ) -> Result<usize, HubError> {
        let values = (self.values)()?;
        assert_eq!(values.len(), self.len(), "values of {}", self.name);
        let mut bytes = Vec::new();
        let mut written = 0;
        for (portion, values) in values.chunks(PORTION).enumerate() {
            bytes.clear();
            encode(self.dtype, values, &mut bytes).map_err(|Unfit { index, what }| {
                let cause = format!(
                    "its value {} (number {}) {what}",
                    values[index],
                    portion * PORTION + index
                );
                self.cannot_be_stored(path, cause, "Choose BF16 or F32, or mend the model")
            })?;
            write(&bytes)?;
            written += bytes.len();
        }
        Ok(written)
    }

    pub(crate) fn cannot_be_stored(
        &self,
        path: &Path,
        cause: String,
        remedy: &'static str,
    ) -> HubError {
        let (file, tensor) = (path.to_owned(), quoted(&self.name));
        HubError::CannotStore { file, tensor, dtype: self.dtype.to_string(), cause, remedy }
    }
}

impl Tensor<'_> {
    fn bytes(&self) -> usize {
        self.len() * self.dtype.bytes()
    }
}

/// Writes a safetensors file in the given order. Values that the type has no room for are an error that names the
/// tensor; infinities and NaN stay what they are. Not atomic by itself: meant for a file in the folder that
/// [`crate::write_folder_atomically`] is filling.
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
        tensor.write_values(path, encode, &mut write)?;
    }
    out.into_inner().map(drop).map_err(|e| failed(e.into_error()))
}

fn encode(dtype: FloatType, values: &[f32], out: &mut Vec<u8>) -> Result<(), Unfit> {
    match dtype {
        FloatType::F32 => f32s(values, out),
        FloatType::F16 => f16s(values, out)?,
        FloatType::BF16 => bf16s(values, out)?,
    }
    Ok(())
}

/// Writes a model's weights into a folder as transformers does: as `model.safetensors`, or, where they take more than
/// `shard_bytes`, in the given order as `model-00001-of-00003.safetensors` and so on, with their index. A tensor that
/// is larger than that has a file of its own. As [`write_tensors`] otherwise.
pub fn write_weights(
    folder: &Path,
    tensors: &[Tensor<'_>],
    shard_bytes: u64,
) -> Result<(), HubError> {
    let shards = shards(tensors, shard_bytes);
    if let [_] | [] = shards[..] {
        return write_tensors(&folder.join(SINGLE), tensors);
    }
    let mut places = Map::new();
    for (number, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        write_tensors(&folder.join(&name), shard)?;
        places
            .extend(shard.iter().map(|tensor| (tensor.name.clone(), Value::String(name.clone()))));
    }
    let total: usize = tensors.iter().map(Tensor::bytes).sum();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": places });
    let path = folder.join(INDEX);
    fs::write(&path, format!("{index:#}\n")).map_err(|e| HubError::io("write", &path, e))
}

/// Neighbours that fit into a file together.
fn shards<'t, 'v>(tensors: &'t [Tensor<'v>], most: u64) -> Vec<&'t [Tensor<'v>]> {
    let mut bounds = vec![0];
    let mut bytes = 0;
    for (place, tensor) in tensors.iter().enumerate() {
        let own = tensor.bytes() as u64;
        if bytes > 0 && bytes + own > most {
            bounds.push(place);
            bytes = 0;
        }
        bytes += own;
    }
    bounds.push(tensors.len());
    bounds.windows(2).map(|bounds| &tensors[bounds[0]..bounds[1]]).collect()
}
