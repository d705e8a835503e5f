//! Filling a model's parameters from files: widened to f32 for training, matrices as they are stored for inference.

use std::ops::Range;

use crisol_engine::{Device, ParamSpec, Params, StoredMatrix, StoredType};
use crisol_hub::Mapped;

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

/// Files that parameters come from.
pub(crate) trait Source {
    /// A parameter's values.
    fn values(&mut self, spec: &ParamSpec) -> Result<Vec<f32>, ModelError>;

    /// A matrix as it is stored, if inference can use it so.
    fn stored(&self, spec: &ParamSpec) -> Result<Option<Rows<'_>>, ModelError>;
}

/// Rows of a matrix as they are stored.
pub(crate) struct Rows<'a> {
    pub(crate) kind: StoredType,
    pub(crate) bytes: Bytes<'a>,
    /// Scalars of a head whose rows are in another order (see [`row_in_pairs`]).
    pub(crate) head_in_pairs: Option<usize>,
}

/// All rows, one after the other.
pub(crate) enum Bytes<'a> {
    Mapped(Mapped<'a>),
    Gathered(Vec<u8>),
}

impl Rows<'_> {
    fn lay_out(&self, device: &Device, shape: [usize; 2]) -> Option<StoredMatrix> {
        let row_bytes = self.kind.row_bytes(shape[1])?;
        let bytes: &[u8] = match &self.bytes {
            Bytes::Mapped(mapped) => mapped,
            Bytes::Gathered(bytes) => bytes,
        };
        let row = |row: usize| {
            let row = self.head_in_pairs.map_or(row, |head_dim| row_in_pairs(row, head_dim));
            &bytes[row * row_bytes..][..row_bytes]
        };
        let done = |rows: Range<usize>| {
            if let Bytes::Mapped(mapped) = &self.bytes {
                mapped.release(rows.start * row_bytes..rows.end * row_bytes);
            }
        };
        Some(StoredMatrix::new(device, self.kind, shape, row, done))
    }
}

/// llama.cpp rotates neighbouring rows of Llama's queries and keys where transformers rotates a head's halves; its converter
/// reorders the rows. Where row `row` is in a file.
pub(crate) fn row_in_pairs(row: usize, head_dim: usize) -> usize {
    let (head, in_head) = (row / head_dim * head_dim, row % head_dim);
    let (half, pair) = (in_head / (head_dim / 2), in_head % (head_dim / 2));
    head + 2 * pair + half
}

/// A model with its parameters, whose names and shapes the source has been checked for.
pub(crate) fn fill(
    config: Config,
    device: &Device,
    purpose: Purpose,
    source: &mut dyn Source,
) -> Result<(Model, Params), ModelError> {
    config.validate()?;
    let specs = specs(&config);
    let count: usize = specs.iter().map(|spec| spec.shape.iter().product::<usize>()).sum();
    let small = count * size_of::<f32>() <= SMALL;
    let mut stored = Vec::new();
    if purpose == Purpose::Inference {
        for spec in &specs {
            let &[rows, cols] = &spec.shape[..] else {
                stored.push(None);
                continue;
            };
            let matrix = source.stored(spec)?.filter(|rows| !(small && rows.kind == StoredType::F32));
            stored.push(matrix.and_then(|matrix| matrix.lay_out(device, [rows, cols])));
        }
    }
    let mut params = Params::with_stored(device, specs, stored);
    for id in params.ids() {
        if params.stored(id).is_none() {
            let values = source.values(params.spec(id))?;
            params.write(id, &values);
        }
    }
    Ok((Model::bind(config, &params), params))
}
