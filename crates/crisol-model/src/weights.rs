//! Loads a model's parameters from files: as f32 for training, in the file's weight format for
//! inference.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use crisol_engine::{Device, ParamSpec, Params, QuantisedMatrix, WeightFormat};
use crisol_hub::{HubError, Mapped, Scales};

use crate::checkpoint::read_by_rows;
use crate::model::specs;
use crate::{Config, Model, ModelError};

/// Models up to this size in bytes (as f32) keep f32 matrices as plain parameters in inference.
/// Their GEMMs then match training bit by bit and use cached packed weights.
const MAX_F32_INFERENCE_BYTES: usize = 128 << 20;

/// What a model is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Training,
    Inference,
}

/// Reads parameters by their index in the model's specs.
pub(crate) trait WeightSource {
    /// A parameter's values in f32.
    fn values(&mut self, index: usize, spec: &ParamSpec) -> Result<Vec<f32>, HubError>;

    /// A matrix in the file's weight format, if inference can use it.
    fn matrix(&self, index: usize, spec: &ParamSpec) -> Result<Option<FileMatrix<'_>>, HubError>;

    /// The format of that matrix.
    fn format(&self, index: usize, spec: &ParamSpec) -> Result<Option<WeightFormat>, HubError>;
}

/// Refuses NaN and infinity.
pub(crate) fn check_finite(file: &Path, tensor: &str, values: &[f32]) -> Result<(), HubError> {
    check_part(file, tensor, 0, values)
}

/// [`check_finite`] of the values from `start` on.
fn check_part(file: &Path, tensor: &str, start: usize, values: &[f32]) -> Result<(), HubError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => {
            let (file, tensor, value) = (file.to_owned(), tensor.to_owned(), values[index]);
            Err(HubError::NotFinite { file, tensor, value, index: start + index })
        }
    }
}

/// Refuses a model with NaN or infinite weights, on which no training can succeed.
pub(crate) fn check_params(file: &Path, params: &Params) -> Result<(), HubError> {
    params.ids().try_for_each(|id| {
        let mut first = 0;
        read_by_rows(params, id)(&mut |values| {
            check_part(file, &params.spec(id).name, first, values)?;
            first += values.len();
            Ok(())
        })
    })
}

/// A matrix in the weight format of its file.
pub(crate) struct FileMatrix<'a> {
    pub(crate) format: WeightFormat,
    pub(crate) bytes: Bytes<'a>,
    /// Head width, if rows are reordered (see [`interleaved_row`]).
    pub(crate) interleaved_head_dim: Option<usize>,
}

/// The bytes of a matrix, row by row.
pub(crate) enum Bytes<'a> {
    Mapped(Mapped<'a>),
    Gathered(Vec<u8>),
    /// FP8 values, and the scales of their blocks if the file has any.
    Scaled(Mapped<'a>, Option<Scales>),
}

impl FileMatrix<'_> {
    fn quantised(&self, device: &Device, shape: [usize; 2]) -> Option<QuantisedMatrix> {
        let row_bytes = self.format.row_bytes(shape[1])?;
        let (bytes, row_bytes): (&[u8], usize) = match &self.bytes {
            Bytes::Mapped(mapped) => (mapped, row_bytes),
            Bytes::Gathered(bytes) => (bytes, row_bytes),
            Bytes::Scaled(codes, _) => (codes, shape[1]),
        };
        let row = |row: usize| {
            let row =
                self.interleaved_head_dim.map_or(row, |head_dim| interleaved_row(row, head_dim));
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
        Some(QuantisedMatrix::new(device, self.format, shape, row, done))
    }
}

/// A row of FP8 values in the engine's block layout: scale, then values.
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

/// Bytes of a parameter in inference, in this weight format if its shape allows.
pub(crate) fn inference_bytes(spec: &ParamSpec, format: Option<WeightFormat>) -> usize {
    let bytes = match (format, &spec.shape[..]) {
        (Some(format), &[rows, cols]) => format.row_bytes(cols).map(|row| rows * row),
        _ => None,
    };
    bytes.unwrap_or(spec.shape.iter().product::<usize>() * size_of::<f32>())
}

/// The row of a file with adjacent RoPE pairs that holds row `row` of a model with RoPE over
/// halves. llama.cpp's converter reorders Llama's queries and keys this way.
pub(crate) fn interleaved_row(row: usize, head_dim: usize) -> usize {
    let (head, in_head) = (row / head_dim * head_dim, row % head_dim);
    let (half, pair) = (in_head / (head_dim / 2), in_head % (head_dim / 2));
    head + 2 * pair + half
}

impl Model {
    /// A model with pseudo-random weights in a given format, for benchmarks.
    pub fn with_random_weights(
        config: Config,
        device: &Device,
        format: WeightFormat,
    ) -> Result<(Model, Params), ModelError> {
        let specs = specs(&config);
        load_params(config, specs, device, Purpose::Inference, &mut RandomWeights { format })
    }
}

struct RandomWeights {
    format: WeightFormat,
}

impl RandomWeights {
    /// Blocks of hashed bytes with scales of about 0.002.
    fn bytes(&self, len: usize) -> Vec<u8> {
        // Knuth's multiplicative hash (The Art of Computer Programming, volume 3, section 6.4).
        let mut bytes: Vec<u8> =
            (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let (_, size) = self.format.block();
        for block in bytes.chunks_exact_mut(size) {
            match self.format {
                // Keeps the sign and sets most exponent bits, which bounds the magnitude.
                WeightFormat::F32 => block[3] = block[3] & 0x80 | 0x3c,
                WeightFormat::F16 => block[1] = block[1] & 0x80 | 0x18,
                WeightFormat::Bf16 => block[1] = block[1] & 0x80 | 0x3b,
                WeightFormat::F8E4M3 => {
                    block[3] = 0x3b;
                    // Magnitudes between 1 and 2, random signs.
                    block[4..].iter_mut().for_each(|code| *code = *code & 0x87 | 0x38);
                }
                WeightFormat::Mxfp4 => block[0] = 118,
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

impl WeightSource for RandomWeights {
    fn values(&mut self, _: usize, spec: &ParamSpec) -> Result<Vec<f32>, HubError> {
        Ok(vec![0.5; spec.shape.iter().product()])
    }

    fn matrix(&self, _: usize, spec: &ParamSpec) -> Result<Option<FileMatrix<'_>>, HubError> {
        let &[rows, cols] = &spec.shape[..] else { return Ok(None) };
        let row_bytes = self.format.row_bytes(cols);
        let bytes = row_bytes.map(|row_bytes| Bytes::Gathered(self.bytes(rows * row_bytes)));
        Ok(bytes.map(|bytes| FileMatrix { format: self.format, bytes, interleaved_head_dim: None }))
    }

    fn format(&self, _: usize, _: &ParamSpec) -> Result<Option<WeightFormat>, HubError> {
        Ok(Some(self.format))
    }
}

/// Builds the model and loads its parameters. Names and shapes are already checked.
pub(crate) fn load_params(
    config: Config,
    specs: Vec<ParamSpec>,
    device: &Device,
    purpose: Purpose,
    source: &mut dyn WeightSource,
) -> Result<(Model, Params), ModelError> {
    config.validate()?;
    let count: usize = specs.iter().map(|spec| spec.shape.iter().product::<usize>()).sum();
    let small = count * size_of::<f32>() <= MAX_F32_INFERENCE_BYTES;
    let mut matrices = Vec::new();
    if purpose == Purpose::Inference {
        for (index, spec) in specs.iter().enumerate() {
            let &[rows, cols] = &spec.shape[..] else {
                matrices.push(None);
                continue;
            };
            let matrix = source
                .matrix(index, spec)?
                .filter(|matrix| !(small && matrix.format == WeightFormat::F32));
            matrices.push(matrix.and_then(|matrix| matrix.quantised(device, [rows, cols])));
        }
    }
    let mut params = Params::with_quantised(device, specs, matrices);
    for (index, id) in params.ids().enumerate() {
        if params.quantised(id).is_none() {
            let values = source.values(index, params.spec(id))?;
            params.write(id, &values);
        }
    }
    Ok((Model::bind(config, &params), params))
}
