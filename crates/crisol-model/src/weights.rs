//! Filling a model's parameters from files: widened to f32 for training, matrices as they are stored for inference.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use crisol_engine::{Device, ParamSpec, Params, QuantisedMatrix, WeightFormat};
use crisol_hub::{HubError, Mapped, Scales};

use crate::model::specs;
use crate::{Config, Model, ModelError};

/// Bytes of f32 parameters up to which a model is loaded for inference as it is for training: its products are then those of
/// training, bit by bit, and a layout of its weights is kept for them.
const SMALL: usize = 128 << 20;

/// What a model is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Training,
    Inference,
}

/// Files that parameters come from, by their index among the model's specs.
pub(crate) trait Source {
    /// A parameter's values.
    fn values(&mut self, index: usize, spec: &ParamSpec) -> Result<Vec<f32>, HubError>;

    /// A matrix as it is stored, if inference can use it so.
    fn stored(&self, index: usize, spec: &ParamSpec) -> Result<Option<Rows<'_>>, HubError>;
}

/// Refuses values of a tensor that are NaN or infinite.
pub(crate) fn check_finite(file: &Path, tensor: &str, values: &[f32]) -> Result<(), HubError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => {
            let (file, tensor, value) = (file.to_owned(), tensor.to_owned(), values[index]);
            Err(HubError::NotFinite { file, tensor, value, index })
        }
    }
}

/// Refuses weights that are NaN or infinite: training on them would end in a loss that no setting mends.
pub(crate) fn check_params(file: &Path, params: &Params) -> Result<(), HubError> {
    params.ids().try_for_each(|id| check_finite(file, &params.spec(id).name, &params.read(id)))
}

/// Rows of a matrix as they are stored.
pub(crate) struct Rows<'a> {
    pub(crate) kind: WeightFormat,
    pub(crate) bytes: Bytes<'a>,
    /// Scalars of a head whose rows are in another order (see [`row_in_pairs`]).
    pub(crate) head_in_pairs: Option<usize>,
}

/// All rows, one after the other.
pub(crate) enum Bytes<'a> {
    Mapped(Mapped<'a>),
    Gathered(Vec<u8>),
    /// FP8 numbers with the scales of their blocks, if they have any.
    Scaled(Mapped<'a>, Option<Scales>),
}

impl Rows<'_> {
    fn lay_out(&self, device: &Device, shape: [usize; 2]) -> Option<QuantisedMatrix> {
        let row_bytes = self.kind.row_bytes(shape[1])?;
        let (bytes, row_bytes): (&[u8], usize) = match &self.bytes {
            Bytes::Mapped(mapped) => (mapped, row_bytes),
            Bytes::Gathered(bytes) => (bytes, row_bytes),
            Bytes::Scaled(codes, _) => (codes, shape[1]),
        };
        let row = |row: usize| {
            let row = self.head_in_pairs.map_or(row, |head_dim| row_in_pairs(row, head_dim));
            let bytes = &bytes[row * row_bytes..][..row_bytes];
            match &self.bytes {
                Bytes::Scaled(_, scales) => Cow::Owned(scaled_blocks(bytes, row, scales.as_ref())),
                _ => Cow::Borrowed(bytes),
            }
        };
        let done = |rows: Range<usize>| {
            if let Bytes::Mapped(mapped) | Bytes::Scaled(mapped, _) = &self.bytes {
                mapped.release(rows.start * row_bytes..rows.end * row_bytes);
            }
        };
        Some(QuantisedMatrix::new(device, self.kind, shape, row, done))
    }
}

/// The blocks of a row of FP8 numbers: before the numbers of each its scale.
fn scaled_blocks(codes: &[u8], row: usize, scales: Option<&Scales>) -> Vec<u8> {
    let (columns, bytes) = WeightFormat::F8E4M3.block();
    let mut blocks = Vec::with_capacity(codes.len() / columns * bytes);
    for (index, codes) in codes.chunks(columns).enumerate() {
        let scale = scales.map_or(1.0, |scales| scales.at(row, index * columns));
        blocks.extend(scale.to_le_bytes());
        blocks.extend(codes);
    }
    blocks
}

/// Bytes that a parameter takes for inference, stored as `kind` if it can be.
pub(crate) fn inference_bytes(spec: &ParamSpec, kind: Option<WeightFormat>) -> usize {
    let stored = match (kind, &spec.shape[..]) {
        (Some(kind), &[rows, cols]) => kind.row_bytes(cols).map(|row| rows * row),
        _ => None,
    };
    stored.unwrap_or(spec.shape.iter().product::<usize>() * size_of::<f32>())
}

/// llama.cpp rotates neighbouring rows of Llama's queries and keys where transformers rotates a head's halves; its converter
/// reorders the rows. Where row `row` is in a file.
pub(crate) fn row_in_pairs(row: usize, head_dim: usize) -> usize {
    let (head, in_head) = (row / head_dim * head_dim, row % head_dim);
    let (half, pair) = (in_head / (head_dim / 2), in_head % (head_dim / 2));
    head + 2 * pair + half
}

impl Model {
    /// A model whose matrices are stored in a type and hold arbitrary small numbers: for benchmarks.
    pub fn arbitrary(
        config: Config,
        device: &Device,
        kind: WeightFormat,
    ) -> Result<(Model, Params), ModelError> {
        let specs = specs(&config);
        fill(config, specs, device, Purpose::Inference, &mut Arbitrary { kind })
    }
}

struct Arbitrary {
    kind: WeightFormat,
}

impl Arbitrary {
    /// Blocks of hashed bytes, with scales about 0.002.
    fn bytes(&self, len: usize) -> Vec<u8> {
        // Knuth's multiplicative hash (The Art of Computer Programming, volume 3, section 6.4).
        let mut bytes: Vec<u8> =
            (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let (_, size) = self.kind.block();
        for block in bytes.chunks_exact_mut(size) {
            match self.kind {
                // The high byte: sign and most of the exponent.
                WeightFormat::F32 => block[3] = block[3] & 0x80 | 0x3c,
                WeightFormat::F16 => block[1] = block[1] & 0x80 | 0x18,
                WeightFormat::Bf16 => block[1] = block[1] & 0x80 | 0x3b,
                WeightFormat::F8E4M3 => {
                    block[3] = 0x3b;
                    // Numbers between 1 and 2, with any sign.
                    block[4..].iter_mut().for_each(|code| *code = *code & 0x87 | 0x38);
                }
                WeightFormat::Q4_0 | WeightFormat::Q5_0 | WeightFormat::Q8_0 => block[1] = 0x18,
                WeightFormat::Q4_1 | WeightFormat::Q5_1 | WeightFormat::Q4K | WeightFormat::Q5K => {
                    block[1] = 0x18;
                    block[3] = 0x18;
                }
                WeightFormat::Q6K => block[209] = 0x18,
            }
        }
        bytes
    }
}

impl Source for Arbitrary {
    fn values(&mut self, _: usize, spec: &ParamSpec) -> Result<Vec<f32>, HubError> {
        Ok(vec![0.5; spec.shape.iter().product()])
    }

    fn stored(&self, _: usize, spec: &ParamSpec) -> Result<Option<Rows<'_>>, HubError> {
        let &[rows, cols] = &spec.shape[..] else { return Ok(None) };
        let row_bytes = self.kind.row_bytes(cols);
        let bytes = row_bytes.map(|row_bytes| Bytes::Gathered(self.bytes(rows * row_bytes)));
        Ok(bytes.map(|bytes| Rows { kind: self.kind, bytes, head_in_pairs: None }))
    }
}

/// A model with its parameters, whose names and shapes the source has been checked for.
pub(crate) fn fill(
    config: Config,
    specs: Vec<ParamSpec>,
    device: &Device,
    purpose: Purpose,
    source: &mut dyn Source,
) -> Result<(Model, Params), ModelError> {
    config.validate()?;
    let count: usize = specs.iter().map(|spec| spec.shape.iter().product::<usize>()).sum();
    let small = count * size_of::<f32>() <= SMALL;
    let mut stored = Vec::new();
    if purpose == Purpose::Inference {
        for (index, spec) in specs.iter().enumerate() {
            let &[rows, cols] = &spec.shape[..] else {
                stored.push(None);
                continue;
            };
            let matrix = source
                .stored(index, spec)?
                .filter(|rows| !(small && rows.kind == WeightFormat::F32));
            stored.push(matrix.and_then(|matrix| matrix.lay_out(device, [rows, cols])));
        }
    }
    let mut params = Params::with_stored(device, specs, stored);
    for (index, id) in params.ids().enumerate() {
        if params.stored(id).is_none() {
            let values = source.values(index, params.spec(id))?;
            params.write(id, &values);
        }
    }
    Ok((Model::bind(config, &params), params))
}
