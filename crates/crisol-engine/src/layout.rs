//! Names and shapes of parameters, and their places in one flat allocation.
//!
//! ```text
//! overlay   trainable f32: adapters, a scalar head      gradients and moments, each as long
//!    │
//! base      frozen, any weight format, shared           no gradients, no moments
//! ```

use std::ops::Range;
use std::sync::Arc;

/// Parameters start at multiples of this many scalars (a cache line).
const ALIGNMENT: usize = 16;

/// Initial values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones (norm weights).
    Ones,
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// Uniform between minus and plus this bound.
    Uniform(f32),
}

/// How the optimizer treats a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A matrix between hidden states: decays, and is updated by Muon if chosen.
    Hidden,
    /// A matrix with a row per token or class (embedding, head): decays.
    Table,
    /// A norm's weight or a bias: does not decay.
    Vector,
}

/// Name, shape and treatment of one parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Name in the checkpoint, as in Hugging Face's.
    pub name: String,
    /// Shape, row-major, `[out, in]` for matrices.
    pub shape: Vec<usize>,
    /// Initial values.
    pub init: Init,
    /// How the optimizer treats it.
    pub role: Role,
}

impl ParamSpec {
    /// Number of scalars.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Rows of a matrix; 1 for a vector.
    pub fn rows(&self) -> usize {
        if self.shape.len() < 2 { 1 } else { self.shape[0] }
    }

    /// Scalars of a row.
    pub fn row_len(&self) -> usize {
        self.len() / self.rows().max(1)
    }
}

/// Index of a parameter within its [`crate::Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(pub(crate) u32);

/// A low-rank update of a frozen weight, `W + scale · B·A` with A `[rank, in]` and B `[out, rank]`
/// (LoRA; Hu et al. 2021, arXiv:2106.09685). With a magnitude, the rows of that have trained norms
/// (DoRA; Liu et al. 2024, arXiv:2402.09353).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adapter {
    /// A.
    pub a: ParamId,
    /// B.
    pub b: ParamId,
    /// Factor on the product.
    pub scale: f32,
    /// Norms of the updated weight's rows, `[out]`.
    pub magnitude: Option<ParamId>,
}

/// Names, shapes and places of a set of parameters: of its own, and of the frozen base that they
/// lie over, if there is one. Shared by parameters, gradients and moments.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    base: Option<Arc<Layout>>,
    /// Number of parameters in the base, whose ids come first.
    first: u32,
    pub(crate) specs: Vec<ParamSpec>,
    /// In the order of `specs`, ascending, with gaps for alignment.
    pub(crate) ranges: Vec<Range<usize>>,
    /// Length of the flat allocation.
    pub(crate) len: usize,
    /// By parameter of the base. Empty if there are none.
    adapters: Vec<Option<Adapter>>,
}

impl Layout {
    /// Ranges for all parameters; empty for those that are `elsewhere`.
    pub(crate) fn new(
        base: Option<Arc<Layout>>,
        specs: Vec<ParamSpec>,
        elsewhere: impl Fn(usize) -> bool,
    ) -> Layout {
        let first = base.as_ref().map_or(0, |base| base.specs.len() as u32);
        let mut len = 0;
        let ranges = specs
            .iter()
            .enumerate()
            .map(|(index, spec)| {
                let start = len;
                let end = if elsewhere(index) { start } else { start + spec.len() };
                len = end.next_multiple_of(ALIGNMENT);
                start..end
            })
            .collect();
        Layout { base, first, specs, ranges, len, adapters: Vec::new() }
    }

    /// The index of a parameter; `None` if it is in the base.
    pub(crate) fn index(&self, id: ParamId) -> Option<usize> {
        id.0.checked_sub(self.first).map(|index| index as usize)
    }

    /// All ids in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (self.first..self.first + self.specs.len() as u32).map(ParamId)
    }

    /// The ids of the base's parameters and of all own ones.
    pub(crate) fn all_ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (0..self.first + self.specs.len() as u32).map(ParamId)
    }

    /// The id of the parameter named `name`, its own or the base's.
    pub(crate) fn id(&self, name: &str) -> Option<ParamId> {
        let own = self.ids().find(|&id| self.spec(id).name == name);
        own.or_else(|| self.base.as_ref()?.id(name))
    }

    /// Spec of a parameter, its own or the base's.
    pub(crate) fn spec(&self, id: ParamId) -> &ParamSpec {
        match (self.index(id), &self.base) {
            (Some(index), _) => &self.specs[index],
            (None, Some(base)) => base.spec(id),
            (None, None) => unreachable!("without a base, ids start at 0"),
        }
    }

    /// Whether a parameter is one of its own, not of the base.
    pub(crate) fn trains(&self, id: ParamId) -> bool {
        self.index(id).is_some()
    }

    /// `(out, in)` of a matrix.
    pub(crate) fn matrix_shape(&self, id: ParamId) -> (usize, usize) {
        let spec = self.spec(id);
        let [rows, cols] = spec.shape[..] else {
            panic!("`{}` {:?} is not a matrix", spec.name, spec.shape)
        };
        (rows, cols)
    }

    /// Adds an adapter to a weight of the base.
    pub(crate) fn adapt(&mut self, weight: ParamId, adapter: Adapter) {
        let (out_dim, in_dim) = self.matrix_shape(weight);
        let name = &self.spec(weight).name;
        assert!(!self.trains(weight), "`{name}` is trained itself");
        let (rank, columns) = self.matrix_shape(adapter.a);
        assert_eq!(columns, in_dim, "columns of A for `{name}`");
        assert_eq!(self.matrix_shape(adapter.b), (out_dim, rank), "B for `{name}`");
        if let Some(magnitude) = adapter.magnitude {
            assert_eq!(self.spec(magnitude).shape, [out_dim], "magnitudes for `{name}`");
        }
        self.adapters.resize(self.first as usize, None);
        self.adapters[weight.0 as usize] = Some(adapter);
    }

    /// The adapter of a weight.
    pub(crate) fn adapter(&self, weight: ParamId) -> Option<Adapter> {
        *self.adapters.get(weight.0 as usize)?
    }

    /// The rank of a weight's adapter; 0 without one.
    pub(crate) fn rank(&self, weight: ParamId) -> usize {
        self.adapter(weight).map_or(0, |adapter| self.matrix_shape(adapter.a).0)
    }

    pub(crate) fn range(&self, id: ParamId) -> Range<usize> {
        self.ranges[self.index(id).expect("parameters of the base have no range")].clone()
    }

    /// The segments of parameters within `chunk` of the flat allocation.
    pub(crate) fn segments(
        &self,
        chunk: Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, ParamId)> {
        let first = self.ranges.partition_point(|range| range.end <= chunk.start);
        let ids = self.first + first as u32..;
        self.ranges[first..].iter().zip(ids).map_while(move |(range, id)| {
            let part = range.start.max(chunk.start)..range.end.min(chunk.end);
            (range.start < chunk.end).then_some((part, ParamId(id)))
        })
    }
}
