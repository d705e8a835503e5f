//! Parameters, their gradients and their packed copies in the processor's memory.
//!
//! All own parameters are one allocation, and so are their gradients: AdamW, the global norm, the
//! sum over replicas and checkpoints are single passes. Quantised matrices are outside of it.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::device::Cpu;
use super::mat::Mat;
use super::packed::{PackedOperand, pack, packed_len};
use super::tiles::Tiles;
use super::{add_product, dora, math, parallel, quantised};
use crate::buffer::{Buffer, Pool};
use crate::init;
use crate::layout::{Adapter, Layout, ParamId};
use crate::precision::Precision;

/// Parameters of up to this many bytes cache their packed matrices, which takes the same memory
/// again for each orientation. Larger models pack for each GEMM with many rows, at a few percent.
const MAX_CACHED_PACKED_BYTES: usize = 128 << 20;

/// The parameters of one set, and of the base that it lies over.
#[derive(Debug)]
pub(crate) struct Params {
    layout: Arc<Layout>,
    base: Option<Arc<Params>>,
    /// Shared with views in another precision.
    own: Arc<Own>,
    /// Of the products with them.
    precision: Precision,
    /// Whether they keep packed copies also for GEMMs with many rows.
    caches: bool,
    packed: PackedCache,
    /// By parameter of the base: factors on outputs where an adapter has magnitudes.
    gains: Vec<OnceLock<Buffer<f32>>>,
}

/// The numbers of one set.
#[derive(Debug)]
struct Own {
    data: Buffer<f32>,
    /// By parameter: quantised matrices outside of `data`. Empty if there are none.
    quantised: Vec<Option<Tiles>>,
    /// By parameter: squares of the norms of its rows, which gains need.
    row_squares: Vec<OnceLock<Vec<f64>>>,
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

    fn get(
        &self,
        precision: Precision,
        index: usize,
        orientation: Orientation,
        mat: Mat<'_>,
    ) -> &[f32] {
        self.cells[index][orientation as usize].get_or_init(|| {
            let len = packed_len(precision, mat.row_count(), mat.col_count());
            let mut panels = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take(len);
            pack(precision, mat, &mut panels);
            panels
        })
    }
}

/// Whether a model with this many parameters caches its packed weights.
pub(crate) fn would_cache_packed(parameters: usize) -> bool {
    parameters * size_of::<f32>() <= MAX_CACHED_PACKED_BYTES
}

impl Params {
    /// Zeros, but for the quantised matrices.
    pub(crate) fn new(
        precision: Precision,
        layout: Arc<Layout>,
        base: Option<Arc<Params>>,
        quantised: Vec<Option<Tiles>>,
    ) -> Params {
        let data = Buffer::zeros(layout.len);
        let row_squares = layout.specs.iter().map(|_| OnceLock::new()).collect();
        let own = Arc::new(Own { data, quantised, row_squares });
        Params::of(precision, true, layout, base, own)
    }

    fn of(
        precision: Precision,
        caches: bool,
        layout: Arc<Layout>,
        base: Option<Arc<Params>>,
        own: Arc<Own>,
    ) -> Params {
        let packed = PackedCache::new(layout.specs.len());
        let adapted = base.as_ref().map_or(0, |base| base.layout.specs.len());
        let gains = (0..adapted).map(|_| OnceLock::new()).collect();
        Params { layout, base, own, precision, caches, packed, gains }
    }

    /// The same numbers for products in another precision. What is cached of them is the view's
    /// own, and little: a view is used for one measurement.
    pub(crate) fn in_precision(&self, precision: Precision) -> Params {
        let base = self.base.as_ref().map(|base| Arc::new(base.in_precision(precision)));
        Params::of(precision, false, Arc::clone(&self.layout), base, Arc::clone(&self.own))
    }

    pub(crate) fn set_layout(&mut self, layout: Arc<Layout>) {
        self.layout = layout;
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
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
    pub(crate) fn quantised(&self, id: ParamId) -> Option<&Tiles> {
        let (holder, index) = self.holder(id);
        holder.own.quantised.get(index)?.as_ref()
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
    pub(crate) fn row_squares(&self, weight: ParamId) -> &[f64] {
        let (holder, index) = self.holder(weight);
        holder.own.row_squares[index].get_or_init(|| dora::row_squares(self, weight))
    }

    /// Fills zeros with initial values.
    pub(crate) fn initialise(&mut self, cpu: &Cpu, seed: u64) {
        let layout = Arc::clone(&self.layout);
        let mut rest: &mut [f32] = self.data_mut();
        let mut taken = 0;
        let mut parts = Vec::with_capacity(layout.ranges.len());
        for range in &layout.ranges {
            let (part, tail) = rest.split_at_mut(range.end - taken);
            parts.push(&mut part[range.start - taken..]);
            (rest, taken) = (tail, range.end);
        }
        parallel::for_each(cpu, &mut parts, &|index, part| {
            init::fill(part, layout.specs[index].init, seed, index as u64);
        });
    }

    /// Some rows of a parameter, dequantised. A vector is one row.
    pub(crate) fn read(&self, id: ParamId, rows: Range<usize>) -> Vec<f32> {
        let cols = self.layout.spec(id).shape.last().copied().unwrap_or(1);
        match self.quantised(id) {
            None => self.slice(id)[rows.start * cols..rows.end * cols].to_vec(),
            Some(matrix) => {
                let mut values = vec![0.0; rows.len() * cols];
                quantised::dequantise(matrix, rows, &mut values, &mut Pool::default());
                values
            }
        }
    }

    /// Adds the adapter of a weight to its values.
    pub(crate) fn merge_adapter(&self, id: ParamId, values: &mut [f32]) {
        if let Some(Adapter { a, b, scale, .. }) = self.adapter(id) {
            let (rows, cols) = self.matrix_shape(id);
            let shape = [rows, self.rank(id), cols];
            add_product(values, shape, scale, self.slice(b), self.slice(a));
            dora::scale_weight(values, cols, self.gains(id).unwrap_or_default());
        }
    }

    /// Overwrites one of its own parameters.
    pub(crate) fn write(&mut self, id: ParamId, values: &[f32]) {
        let range = self.layout.range(id);
        self.data_mut()[range].copy_from_slice(values);
    }

    /// Copies all own parameters from `other`, of equal shapes.
    pub(crate) fn copy_from(&mut self, other: &Params) {
        self.data_mut().copy_from_slice(&other.own.data);
    }

    /// All own parameters, mutable; invalidates what is cached of them.
    pub(crate) fn data_mut(&mut self) -> &mut [f32] {
        self.packed.invalidate();
        self.gains.iter_mut().for_each(|gains| drop(gains.take()));
        let own = Arc::get_mut(&mut self.own).expect("no view has parameters that change");
        own.row_squares.iter_mut().for_each(|squares| drop(squares.take()));
        &mut own.data
    }

    /// Whether packed copies of a weight are cached for all GEMMs; else only for those with few
    /// rows.
    pub(crate) fn caches_packed(&self, id: ParamId) -> bool {
        self.caches && would_cache_packed(self.holder(id).0.layout.len)
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
        let panels = holder.packed.get(self.precision, index, orientation, mat);
        PackedOperand::new(self.precision, panels, mat.row_count(), mat.col_count())
    }

    pub(crate) fn slice(&self, id: ParamId) -> &[f32] {
        assert!(self.quantised(id).is_none(), "`{}` is quantised", self.layout.spec(id).name);
        let (holder, index) = self.holder(id);
        &holder.own.data[holder.layout.ranges[index].clone()]
    }

    /// `(out, in)` of a matrix.
    pub(crate) fn matrix_shape(&self, id: ParamId) -> (usize, usize) {
        self.layout.matrix_shape(id)
    }

    pub(crate) fn adapter(&self, weight: ParamId) -> Option<Adapter> {
        self.layout.adapter(weight)
    }

    pub(crate) fn rank(&self, weight: ParamId) -> usize {
        self.layout.rank(weight)
    }
}

/// Gradients of a set's own parameters.
#[derive(Debug)]
pub(crate) struct Grads {
    layout: Arc<Layout>,
    pub(crate) data: Buffer<f32>,
}

impl Grads {
    pub(crate) fn zeros(layout: Arc<Layout>) -> Grads {
        let data = Buffer::zeros(layout.len);
        Grads { layout, data }
    }

    /// Zeroes every gradient.
    pub(crate) fn zero(&mut self, cpu: &Cpu) {
        parallel::sum_chunks(cpu, self.layout.len, [&mut *self.data], &|_, [part]| {
            part.fill(0.0);
            0.0
        });
    }

    /// Euclidean norm of all gradients, summed in f64 in a fixed order.
    pub(crate) fn norm(&self, cpu: &Cpu) -> f64 {
        parallel::sum_chunks(cpu, self.layout.len, [], &|range: Range<usize>, []| {
            math::sum_of_squares(&self.data[range])
        })
        .sqrt()
    }

    /// Adds `others` in order, in one pass.
    pub(crate) fn add_all(&mut self, cpu: &Cpu, others: &[&Grads]) {
        parallel::sum_chunks(cpu, self.layout.len, [&mut *self.data], &|range, [part]| {
            for other in others {
                math::add_assign(part, &other.data[range.clone()]);
            }
            0.0
        });
    }

    pub(crate) fn read(&self, id: ParamId) -> Vec<f32> {
        self.data[self.layout.range(id)].to_vec()
    }

    /// The gradient of a parameter; `None` if it is frozen.
    pub(crate) fn slice_mut(&mut self, id: ParamId) -> Option<&mut [f32]> {
        let range = self.layout.ranges[self.layout.index(id)?].clone();
        Some(&mut self.data[range])
    }
}
