//! Parameters of a model and their gradients, each one flat f32 allocation on the device.
//!
//! A flat allocation makes AdamW, the global norm, the sum over replicas and checkpoints single
//! passes. Parameters for inference may also hold quantised matrices outside of it; these have no
//! gradients.
//!
//! ```text
//! overlay   trainable f32: adapters, a scalar head      gradients and moments, each as long
//!    │
//! base      frozen, any weight format, shared           no gradients, no moments
//! ```
//!
//! [`Params::over`] lays trainable parameters over a frozen base. A policy, its reference and a
//! value model over the same base take its memory once. A frozen weight cannot lose a gradient: it
//! has none.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::cpu::dropout::{Dropout, mix};
use crate::cpu::packed::{PackedOperand, pack, packed_len};
use crate::cpu::{Mat, dora};
use crate::workspace::{Buffer, Pool};
use crate::{Device, QuantisedMatrix, cpu, parallel};

/// Parameters start at multiples of this many scalars (a cache line).
const ALIGNMENT: usize = 16;
/// Parameters of up to this many bytes cache their packed matrices, which takes the same memory
/// again for each orientation. Larger models pack for each GEMM with many rows, at a few percent.
const MAX_CACHED_PACKED_BYTES: usize = 128 << 20;

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
}

/// Index of a parameter within its [`Params`].
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

/// Ranges of the parameters in the flat allocation; shared by parameters, gradients and moments.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) device: Device,
    /// Number of parameters in the base, whose ids come first.
    first: u32,
    pub(crate) specs: Vec<ParamSpec>,
    /// In the order of `specs`, ascending, with gaps for alignment.
    pub(crate) ranges: Vec<Range<usize>>,
    /// Length of the flat allocation.
    pub(crate) len: usize,
}

impl Layout {
    /// Ranges for all parameters; empty for those that are `elsewhere`.
    fn new(
        device: &Device,
        first: u32,
        specs: Vec<ParamSpec>,
        elsewhere: impl Fn(usize) -> bool,
    ) -> Layout {
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
        Layout { device: device.clone(), first, specs, ranges, len }
    }

    /// The index of a parameter; `None` if it is in the base.
    fn index(&self, id: ParamId) -> Option<usize> {
        id.0.checked_sub(self.first).map(|index| index as usize)
    }

    /// All ids in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (self.first..self.first + self.specs.len() as u32).map(ParamId)
    }

    pub(crate) fn spec(&self, id: ParamId) -> &ParamSpec {
        &self.specs[self.index(id).expect("parameters of the base have no part in this")]
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

/// All parameters of one model on one device: its own, and those of a frozen base if it has one.
#[derive(Debug)]
pub struct Params {
    base: Option<Arc<Params>>,
    pub(crate) layout: Arc<Layout>,
    data: Buffer<f32>,
    packed: PackedCache,
    /// By parameter: quantised matrices outside of `data`. Empty if there are none.
    quantised: Vec<Option<QuantisedMatrix>>,
    /// By parameter of the base. Empty if there are none.
    adapters: Vec<Option<Adapter>>,
    /// By parameter of the base: factors on outputs where an adapter has magnitudes.
    gains: Vec<OnceLock<Buffer<f32>>>,
    /// By parameter: squares of the norms of its rows, which gains need.
    row_squares: Vec<OnceLock<Vec<f64>>>,
    /// Dropout of the adapters' inputs in training; the key is the run's seed.
    dropout: Option<Dropout>,
}

/// The orientation of a weight as the right operand of a GEMM.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Orientation {
    /// `[in, out]`: outputs from inputs.
    Transposed = 0,
    /// `[out, in]`: gradients of inputs from those of outputs.
    Normal = 1,
}

/// Packed weights: cached, lazily packed, invalidated when parameters change.
#[derive(Debug)]
struct PackedCache {
    /// By parameter and [`Orientation`].
    cells: Vec<[OnceLock<Buffer<f32>>; 2]>,
    /// Memory of invalidated ones.
    spare: Mutex<Pool<f32>>,
}

impl PackedCache {
    fn new(params: usize) -> PackedCache {
        PackedCache {
            cells: (0..params).map(|_| Default::default()).collect(),
            spare: Mutex::default(),
        }
    }

    fn invalidate(&mut self) {
        let spare = self.spare.get_mut().unwrap_or_else(PoisonError::into_inner);
        for buffer in self.cells.iter_mut().flatten().filter_map(OnceLock::take) {
            spare.give(buffer);
        }
    }

    fn get(&self, index: usize, orientation: Orientation, mat: Mat<'_>) -> &[f32] {
        self.cells[index][orientation as usize].get_or_init(|| {
            let len = packed_len(mat.row_count(), mat.col_count());
            let mut panels = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take(len);
            pack(mat, &mut panels);
            panels
        })
    }
}

impl Params {
    /// Zeros for `specs`, whose order gives the `ParamId`s.
    pub fn zeros(device: &Device, specs: Vec<ParamSpec>) -> Params {
        Params::with_quantised(device, specs, Vec::new())
    }

    /// Parameters for inference: quantised where `stored` has a matrix, else zeros. `stored` is
    /// empty or has one entry for each of `specs`.
    pub fn with_quantised(
        device: &Device,
        specs: Vec<ParamSpec>,
        quantised: Vec<Option<QuantisedMatrix>>,
    ) -> Params {
        assert!(
            quantised.is_empty() || quantised.len() == specs.len(),
            "an entry for each parameter"
        );
        for (spec, matrix) in specs.iter().zip(&quantised) {
            if let Some(matrix) = matrix {
                assert_eq!(spec.shape, [matrix.rows, matrix.cols], "shape of `{}`", spec.name);
            }
        }
        let elsewhere = |index: usize| quantised.get(index).is_some_and(Option::is_some);
        let layout = Arc::new(Layout::new(device, 0, specs, elsewhere));
        let data = Buffer::zeros(layout.len);
        Params { quantised, ..Params::from_data(layout, data) }
    }

    fn from_data(layout: Arc<Layout>, data: Buffer<f32>) -> Params {
        let packed = PackedCache::new(layout.specs.len());
        let row_squares = layout.specs.iter().map(|_| OnceLock::new()).collect();
        Params {
            base: None,
            layout,
            data,
            packed,
            quantised: Vec::new(),
            adapters: Vec::new(),
            gains: Vec::new(),
            row_squares,
            dropout: None,
        }
    }

    /// Trainable parameters over a frozen base, initialised as by [`Params::init`]. The base's
    /// parameters keep their ids. A name that both have means the new parameter.
    pub fn over(base: &Arc<Params>, specs: Vec<ParamSpec>, seed: u64) -> Params {
        assert!(base.base.is_none(), "a base has no base of its own");
        let first = base.layout.specs.len() as u32;
        let layout = Arc::new(Layout::new(base.device(), first, specs, |_| false));
        let data = Buffer::zeros(layout.len);
        let mut params = Params::from_data(layout, data);
        params.base = Some(Arc::clone(base));
        params.fill(seed);
        params
    }

    /// The frozen base.
    pub fn base(&self) -> Option<&Arc<Params>> {
        self.base.as_ref()
    }

    /// Adds an adapter to a weight of the base. Every linear operation with the weight then uses
    /// the updated weight.
    pub fn adapt(&mut self, weight: ParamId, adapter: Adapter) {
        let (out_dim, in_dim) = self.matrix_shape(weight);
        let name = &self.spec(weight).name;
        assert!(!self.trains(weight), "`{name}` is trained itself");
        let (rank, columns) = self.matrix_shape(adapter.a);
        assert_eq!(columns, in_dim, "columns of A for `{name}`");
        assert_eq!(self.matrix_shape(adapter.b), (out_dim, rank), "B for `{name}`");
        if let Some(magnitude) = adapter.magnitude {
            assert_eq!(self.spec(magnitude).shape, [out_dim], "magnitudes for `{name}`");
        }
        self.adapters.resize(self.layout.first as usize, None);
        self.gains.resize_with(self.layout.first as usize, OnceLock::new);
        self.adapters[weight.0 as usize] = Some(adapter);
    }

    /// The adapter of a weight.
    pub fn adapter(&self, weight: ParamId) -> Option<Adapter> {
        *self.adapters.get(weight.0 as usize)?
    }

    /// The rank of a weight's adapter; 0 without one.
    pub(crate) fn rank(&self, weight: ParamId) -> usize {
        self.adapter(weight).map_or(0, |adapter| self.matrix_shape(adapter.a).0)
    }

    /// Drops inputs of all adapters at this rate in training
    /// ([`crate::Tape::set_dropout_key`]).
    pub fn set_adapter_dropout(&mut self, rate: f32, seed: u64) {
        assert!((0.0..1.0).contains(&rate), "a dropout rate of {rate}");
        self.dropout = (rate > 0.0).then_some(Dropout { rate, key: seed });
    }

    /// Takes over the dropout of `other`'s adapters.
    pub fn copy_adapter_dropout(&mut self, other: &Params) {
        self.dropout = other.dropout;
    }

    /// The dropout of a training step with this key.
    pub(crate) fn dropout(&self, key: Option<u64>) -> Option<Dropout> {
        let Dropout { rate, key: seed } = self.dropout?;
        key.map(|key| Dropout { rate, key: mix(seed ^ mix(key)) })
    }

    /// Factors on the outputs of a weight whose adapter has magnitudes; cached.
    pub(crate) fn gains(&self, weight: ParamId) -> Option<&[f32]> {
        let adapter = self.adapter(weight)?;
        let magnitude = adapter.magnitude?;
        let gains = self.gains[weight.0 as usize].get_or_init(|| {
            dora::gains(self, weight, adapter, magnitude, self.row_squares(weight))
        });
        Some(gains)
    }

    /// Squares of the norms of a weight's rows; cached.
    fn row_squares(&self, weight: ParamId) -> &[f64] {
        let (holder, index) = self.holder(weight);
        holder.row_squares[index].get_or_init(|| dora::row_squares(self, weight))
    }

    /// Norms of a weight's rows, with which magnitudes start.
    pub fn row_norms(&self, weight: ParamId) -> Vec<f32> {
        self.row_squares(weight).iter().map(|square| square.sqrt() as f32).collect()
    }

    /// Whether a parameter is one of its own, not of the base.
    pub(crate) fn trains(&self, id: ParamId) -> bool {
        self.layout.index(id).is_some()
    }

    /// The set that holds a parameter, this one or its base, and the index in it.
    fn holder(&self, id: ParamId) -> (&Params, usize) {
        match (self.layout.index(id), &self.base) {
            (Some(index), _) => (self, index),
            (None, Some(base)) => (base, id.0 as usize),
            (None, None) => unreachable!("without a base, ids start at 0"),
        }
    }

    /// The quantised matrix of a parameter, if it is one.
    pub fn quantised(&self, id: ParamId) -> Option<&QuantisedMatrix> {
        let (holder, index) = self.holder(id);
        holder.quantised.get(index)?.as_ref()
    }

    /// Panics if a parameter is quantised.
    fn assert_trainable(&self) {
        assert!(
            self.quantised.iter().all(Option::is_none),
            "parameters for inference can be neither trained nor copied"
        );
    }

    /// Parameters initialised by their specs; a seed determines every bit. Each parameter has its
    /// own random stream, so appending a parameter does not change the others.
    pub fn init(device: &Device, specs: Vec<ParamSpec>, seed: u64) -> Params {
        let mut params = Params::zeros(device, specs);
        params.fill(seed);
        params
    }

    /// Fills zeros with initial values.
    fn fill(&mut self, seed: u64) {
        let layout = Arc::clone(&self.layout);
        let mut rest: &mut [f32] = &mut self.data;
        let mut taken = 0;
        let mut parts = Vec::with_capacity(layout.ranges.len());
        for range in &layout.ranges {
            let (part, tail) = rest.split_at_mut(range.end - taken);
            parts.push(&mut part[range.start - taken..]);
            (rest, taken) = (tail, range.end);
        }
        let device = &layout.device;
        parallel::for_each(device, &mut parts, &|index, part| match layout.specs[index].init {
            Init::Zeros => {}
            Init::Ones => part.fill(1.0),
            Init::Normal(deviation) => fill_normal(part, deviation, seed, index as u64),
            Init::Uniform(bound) => fill_uniform(part, bound, seed, index as u64),
        });
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.layout.device
    }

    /// The specs of all own parameters, in the order of their ids.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.layout.specs
    }

    /// The ids of all own parameters in order. Those of the base are not among them.
    pub fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        self.layout.ids()
    }

    /// The ids of the base's parameters and of all own ones.
    pub fn all_ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (0..self.layout.first + self.layout.specs.len() as u32).map(ParamId)
    }

    /// The id of the parameter named `name`, its own or the base's.
    pub fn id(&self, name: &str) -> Option<ParamId> {
        let own = self.ids().find(|&id| self.spec(id).name == name);
        own.or_else(|| self.base.as_ref()?.id(name))
    }

    /// Spec of one parameter.
    pub fn spec(&self, id: ParamId) -> &ParamSpec {
        let (holder, index) = self.holder(id);
        &holder.layout.specs[index]
    }

    /// Bytes of one parameter, without packed copies.
    pub fn bytes(&self, id: ParamId) -> usize {
        self.quantised(id).map_or(self.spec(id).len() * size_of::<f32>(), QuantisedMatrix::bytes)
    }

    /// Number of scalars of all own parameters.
    pub fn count(&self) -> usize {
        self.layout.specs.iter().map(ParamSpec::len).sum()
    }

    /// Copies one parameter to the host, dequantised to f32.
    pub fn read(&self, id: ParamId) -> Vec<f32> {
        match self.quantised(id) {
            None => self.slice(id).to_vec(),
            Some(matrix) => {
                let mut values = vec![0.0; matrix.rows * matrix.cols];
                cpu::dequantise(matrix, 0..matrix.rows, &mut values, &mut Pool::default());
                values
            }
        }
    }

    /// The first row of a matrix, or a vector, on the host.
    pub fn read_first_row(&self, id: ParamId) -> Vec<f32> {
        match self.quantised(id) {
            None => {
                let cols = self.spec(id).shape.last().copied().unwrap_or(1);
                self.slice(id)[..cols].to_vec()
            }
            Some(matrix) => {
                let mut values = vec![0.0; matrix.cols];
                cpu::dequantise(matrix, 0..1, &mut values, &mut Pool::default());
                values
            }
        }
    }

    /// Copies one parameter to the host, with its adapter merged into it.
    pub fn merged(&self, id: ParamId) -> Vec<f32> {
        let mut values = self.read(id);
        if let Some(Adapter { a, b, scale, .. }) = self.adapter(id) {
            let (rows, cols) = self.matrix_shape(id);
            cpu::add_product(
                &mut values,
                [rows, self.rank(id), cols],
                scale,
                self.slice(b),
                self.slice(a),
            );
            dora::scale_weight(&mut values, cols, self.gains(id).unwrap_or_default());
        }
        values
    }

    /// Overwrites one parameter from the host; `values.len()` must be its size.
    pub fn write(&mut self, id: ParamId, values: &[f32]) {
        let range = self.layout.range(id);
        self.data_mut()[range].copy_from_slice(values);
    }

    /// A copy on the same device, e.g. a frozen reference policy. A base is shared.
    #[must_use]
    pub fn duplicate(&self) -> Params {
        self.assert_trainable();
        let mut data = Buffer::zeros(self.layout.len);
        data.copy_from_slice(&self.data);
        Params {
            base: self.base.clone(),
            adapters: self.adapters.clone(),
            gains: self.adapters.iter().map(|_| OnceLock::new()).collect(),
            dropout: self.dropout,
            ..Params::from_data(Arc::clone(&self.layout), data)
        }
    }

    /// Copies all own parameters from `other`, which must have equal shapes.
    pub fn copy_from(&mut self, other: &Params) {
        assert_eq!(self.layout.ranges, other.layout.ranges, "parameters of different shapes");
        self.data_mut().copy_from_slice(&other.data);
    }

    /// All parameters, mutable; invalidates what is cached of them.
    pub(crate) fn data_mut(&mut self) -> &mut [f32] {
        self.packed.invalidate();
        self.gains.iter_mut().for_each(|gains| drop(gains.take()));
        self.row_squares.iter_mut().for_each(|squares| drop(squares.take()));
        &mut self.data
    }

    /// Whether packed copies of a weight are cached for all GEMMs; else only for those with few
    /// rows.
    pub(crate) fn caches_packed(&self, id: ParamId) -> bool {
        Params::would_cache_packed(self.holder(id).0.layout.len)
    }

    /// Whether a model with this many parameters caches its packed weights.
    pub fn would_cache_packed(parameters: usize) -> bool {
        parameters * size_of::<f32>() <= MAX_CACHED_PACKED_BYTES
    }

    /// A weight as the right operand of a GEMM, unpacked.
    pub(crate) fn right_operand(&self, id: ParamId, orientation: Orientation) -> Mat<'_> {
        let (out_dim, in_dim) = self.matrix_shape(id);
        let weight = Mat::new(self.slice(id), out_dim, in_dim);
        match orientation {
            Orientation::Transposed => weight.t(),
            Orientation::Normal => weight,
        }
    }

    /// [`Self::right_operand`], packed and cached.
    pub(crate) fn packed(&self, id: ParamId, orientation: Orientation) -> PackedOperand<'_> {
        let mat = self.right_operand(id, orientation);
        let (holder, index) = self.holder(id);
        let panels = holder.packed.get(index, orientation, mat);
        PackedOperand::new(panels, mat.row_count(), mat.col_count())
    }

    pub(crate) fn slice(&self, id: ParamId) -> &[f32] {
        assert!(self.quantised(id).is_none(), "`{}` is quantised", self.spec(id).name);
        let (holder, index) = self.holder(id);
        &holder.data[holder.layout.ranges[index].clone()]
    }

    /// `(out, in)` of a matrix.
    pub(crate) fn matrix_shape(&self, id: ParamId) -> (usize, usize) {
        let spec = self.spec(id);
        let [rows, cols] = spec.shape[..] else {
            panic!("`{}` {:?} is not a matrix", spec.name, spec.shape)
        };
        (rows, cols)
    }
}

/// Draws from 0 to 1, of 53 random bits: the mantissa of an f64.
fn uniform(seed: u64, stream: u64) -> impl FnMut() -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    move || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

fn fill_uniform(values: &mut [f32], bound: f32, seed: u64, stream: u64) {
    let mut uniform = uniform(seed, stream);
    for value in values {
        *value = ((2.0 * uniform() - 1.0) * f64::from(bound)) as f32;
    }
}

/// Draws from a normal distribution (Box & Muller 1958).
fn fill_normal(values: &mut [f32], deviation: f32, seed: u64, stream: u64) {
    let mut uniform = uniform(seed, stream);
    for pair in values.chunks_mut(2) {
        // 1 - u is in (0, 1], where the logarithm is finite.
        let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt() * f64::from(deviation);
        let (sin, cos) = (std::f64::consts::TAU * uniform()).sin_cos();
        for (value, direction) in pair.iter_mut().zip([cos, sin]) {
            *value = (radius * direction) as f32;
        }
    }
}

/// Gradients of all parameters of one [`Params`].
#[derive(Debug)]
pub struct Grads {
    pub(crate) layout: Arc<Layout>,
    pub(crate) data: Buffer<f32>,
}

impl Grads {
    /// Zeros in the shapes of `params`.
    pub fn zeros_like(params: &Params) -> Grads {
        params.assert_trainable();
        Grads { layout: Arc::clone(&params.layout), data: Buffer::zeros(params.layout.len) }
    }

    /// Zeroes every gradient.
    pub fn zero(&mut self) {
        parallel::sum_chunks(
            &self.layout.device,
            self.layout.len,
            [&mut *self.data],
            &|_, [part]| {
                part.fill(0.0);
                0.0
            },
        );
    }

    /// Copies the gradient of one parameter to the host.
    pub fn read(&self, id: ParamId) -> Vec<f32> {
        self.data[self.layout.range(id)].to_vec()
    }

    /// Euclidean norm of all gradients, summed in f64 in a fixed order.
    pub fn norm(&self) -> f64 {
        parallel::sum_chunks(&self.layout.device, self.layout.len, [], &|range, []| {
            cpu::math::sum_of_squares(&self.data[range])
        })
        .sqrt()
    }

    /// Adds `other` (gradient accumulation).
    pub fn add(&mut self, other: &Grads) {
        self.add_all(std::slice::from_ref(other));
    }

    /// Adds `others` in order, in one pass.
    pub(crate) fn add_all(&mut self, others: &[Grads]) {
        for other in others {
            assert_eq!(self.layout.ranges, other.layout.ranges, "gradients of different shapes");
        }
        parallel::sum_chunks(
            &self.layout.device,
            self.layout.len,
            [&mut *self.data],
            &|range, [part]| {
                for other in others {
                    cpu::math::add_assign(part, &other.data[range.clone()]);
                }
                0.0
            },
        );
    }

    /// The gradient of a parameter; `None` if it is frozen.
    pub(crate) fn slice_mut(&mut self, id: ParamId) -> Option<&mut [f32]> {
        let range = self.layout.ranges[self.layout.index(id)?].clone();
        Some(&mut self.data[range])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> Vec<ParamSpec> {
        let spec = |name: &str, shape: &[usize], init| ParamSpec {
            name: name.into(),
            shape: shape.into(),
            init,
            role: if shape.len() == 2 { Role::Hidden } else { Role::Vector },
        };
        vec![
            spec("a", &[7, 5], Init::Normal(0.5)),
            spec("b", &[3], Init::Ones),
            spec("c", &[300, 400], Init::Normal(2.0)),
            spec("d", &[9], Init::Zeros),
        ]
    }

    #[test]
    fn initial_values_depend_on_the_seed_and_the_index_only() {
        let one = Params::init(&Device::cpu(Some(1)), specs(), 7);
        let two = Params::init(&Device::cpu(Some(2)), specs(), 7);
        let other = Params::init(&Device::cpu(Some(1)), specs(), 8);
        let shorter = Params::init(&Device::cpu(Some(1)), specs()[..3].to_vec(), 7);
        for id in one.ids() {
            assert_eq!(one.read(id), two.read(id));
        }
        for id in shorter.ids() {
            assert_eq!(one.read(id), shorter.read(id));
        }
        assert_ne!(one.read(ParamId(0)), other.read(ParamId(0)));
        assert_eq!(one.read(ParamId(1)), [1.0; 3]);
        assert_eq!(one.read(ParamId(3)), [0.0; 9]);
    }

    #[test]
    fn normal_values_have_the_moments_of_a_normal() {
        let params = Params::init(&Device::cpu(Some(1)), specs(), 1);
        let values = params.read(params.id("c").unwrap());
        let moment = |power: i32| {
            values.iter().map(|&x| (f64::from(x) / 2.0).powi(power)).sum::<f64>()
                / values.len() as f64
        };
        // Standard errors of the moments of 120,000 draws are 0.003, 0.004, 0.011 and 0.028.
        for (power, expected, tolerance) in
            [(1, 0.0, 0.015), (2, 1.0, 0.02), (3, 0.0, 0.06), (4, 3.0, 0.15)]
        {
            assert!(
                (moment(power) - expected).abs() < tolerance,
                "moment {power}: {}",
                moment(power)
            );
        }
    }

    #[test]
    fn reading_and_writing_keep_every_bit() {
        let mut params = Params::zeros(&Device::cpu(Some(1)), specs());
        let id = params.id("b").unwrap();
        let odd = [f32::from_bits(0x7fc0_1234), -0.0, f32::MIN_POSITIVE / 2.0];
        params.write(id, &odd);
        let copy = params.duplicate();
        let mut third = Params::zeros(&Device::cpu(Some(1)), specs());
        third.copy_from(&copy);
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&third.read(id)), bits(&odd));
        assert_eq!(params.count(), 35 + 3 + 120_000 + 9);
        assert_eq!(params.id("nothing"), None);
    }

    #[test]
    fn segments_cover_every_parameter_once() {
        let params = Params::zeros(&Device::cpu(Some(1)), specs());
        let mut seen = vec![0; params.layout.len];
        for start in (0..params.layout.len).step_by(50) {
            let end = (start + 50).min(params.layout.len);
            for (segment, id) in params.layout.segments(start..end) {
                assert!(start <= segment.start && segment.end <= end, "{segment:?} of {id:?}");
                segment.for_each(|i| seen[i] += 1);
            }
        }
        let expected: usize = seen.iter().sum();
        assert_eq!(expected, params.count());
        assert!(
            params.layout.ranges.iter().all(|range| seen[range.clone()].iter().all(|&n| n == 1))
        );
    }

    #[test]
    fn norm_and_sum_match_a_plain_loop_on_any_number_of_threads() {
        let mut norms = Vec::new();
        for threads in [1, 3] {
            let params = Params::init(&Device::cpu(Some(threads)), specs(), 3);
            let mut grads = Grads::zeros_like(&params);
            grads.data.copy_from_slice(&params.data);
            let mut double = Grads::zeros_like(&params);
            double.add(&grads);
            double.add(&grads);
            let plain = grads.data.iter().map(|&x| f64::from(2.0 * x).powi(2)).sum::<f64>().sqrt();
            assert!((double.norm() / plain - 1.0).abs() < 1e-12);
            norms.push(double.norm().to_bits());
            double.zero();
            assert_eq!(double.norm(), 0.0);
        }
        assert_eq!(norms[0], norms[1]);
    }
}
