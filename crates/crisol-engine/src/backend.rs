//! The contract of a device: what a backend provides, on one page.
//!
//! | part | who calls it |
//! |---|---|
//! | parameters, gradients, moments | `params.rs`, `optimizer.rs` |
//! | values of a tape and their gradients | `workspace.rs`, `tape.rs` |
//! | operations, forward and backward | `tape.rs` |
//! | choices that the host gets: experts, tokens | `tape.rs` |
//! | keys and values of earlier tokens | `kv_cache.rs` |
//! | work in parallel, rates | `device.rs`, `replicas.rs` |
//!
//! Everything above the contract is independent of the device: handles, shapes, checks, the order
//! of operations. Numbers cross it in slices of the host, and only where somebody reads or writes
//! them. Results must have the same bits for any number of threads and `tasks`.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::draw::{Draw, Drawn, Sampling};
use crate::dropout::Dropout;
use crate::layout::{Layout, ParamId};
use crate::op::{Attention, Choice, Op, Shape, Var};
use crate::update::{MomentFormat, OptimizerConfig};
use crate::weight_format::WeightFormat;

/// What a forward pass is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    /// Whether a backward pass and a step follow.
    pub(crate) trains: bool,
    /// Whether operations keep what their backward needs.
    pub(crate) keeps: bool,
    /// Of the inputs of adapters.
    pub(crate) dropout: Option<Dropout>,
}

/// A device's memory and operations.
pub(crate) trait Backend: Sized {
    /// The parameters of one set, with a base that other sets share.
    type Params: fmt::Debug + Send + Sync;
    /// Gradients of a set's own parameters.
    type Grads: fmt::Debug + Send + Sync;
    /// The optimizer's moments of a set's own parameters.
    type Moments: fmt::Debug + Send + Sync;
    /// Values of one tape, their gradients, and what operations keep for backward.
    type Values: fmt::Debug + Send;
    /// Keys and values of earlier tokens.
    type Cache: fmt::Debug + Send;
    /// A matrix in the format of a model's file.
    type Matrix: fmt::Debug + Send + Sync;

    /// See [`crate::QuantisedMatrix::new`].
    fn matrix<R: AsRef<[u8]>>(
        &self,
        format: WeightFormat,
        shape: [usize; 2],
        row: impl Fn(usize) -> R + Sync,
        done: impl Fn(Range<usize>),
    ) -> Self::Matrix;
    /// Zeros, but for the quantised matrices: one entry for each parameter, or none at all.
    fn params(
        &self,
        layout: Arc<Layout>,
        base: Option<Arc<Self::Params>>,
        quantised: Vec<Option<Self::Matrix>>,
    ) -> Self::Params;
    /// The same parameters, for products in this device's precision, which the base has as well.
    fn view(&self, params: &Self::Params) -> Self::Params;
    /// Replaces the layout by one with more adapters.
    fn set_layout(&self, params: &mut Self::Params, layout: Arc<Layout>);
    /// Fills zeros with initial values ([`crate::init`]).
    fn initialise(&self, params: &mut Self::Params, seed: u64);
    /// Some rows of a parameter, as f32. A vector is one row.
    fn read(&self, params: &Self::Params, id: ParamId, rows: Range<usize>) -> Vec<f32>;
    /// Overwrites one of the set's own parameters.
    fn write(&self, params: &mut Self::Params, id: ParamId, numbers: &[f32]);
    /// Copies the own parameters of a set of equal shapes.
    fn copy(&self, to: &mut Self::Params, from: &Self::Params);
    /// The format of a quantised parameter; `None` for plain f32.
    fn quantised(&self, params: &Self::Params, id: ParamId) -> Option<WeightFormat>;
    /// Bytes of a parameter, without copies that the device makes for speed.
    fn bytes(&self, params: &Self::Params, id: ParamId) -> usize;
    /// Euclidean norms of a matrix's rows.
    fn row_norms(&self, params: &Self::Params, id: ParamId) -> Vec<f32>;
    /// Merges a weight's adapter into its numbers.
    fn merge_adapter(&self, params: &Self::Params, id: ParamId, numbers: &mut [f32]);

    /// Zeros.
    fn grads(&self, layout: Arc<Layout>) -> Self::Grads;
    /// Sets all gradients to zero.
    fn zero(&self, grads: &mut Self::Grads);
    /// Adds gradients, in order.
    fn add_all(&self, sum: &mut Self::Grads, others: &[&Self::Grads]);
    /// Their Euclidean norm.
    fn norm(&self, grads: &Self::Grads) -> f64;
    /// The gradient of one parameter.
    fn read_grad(&self, grads: &Self::Grads, id: ParamId) -> Vec<f32>;

    /// Zeros.
    fn moments(&self, layout: Arc<Layout>, format: MomentFormat) -> Self::Moments;
    /// Updates parameters and moments. `step` counts from 1; gradients are multiplied by `clip`.
    fn step(
        &self,
        params: &mut Self::Params,
        grads: &Self::Grads,
        moments: &mut Self::Moments,
        config: &OptimizerConfig,
        step: u64,
        clip: f32,
    );
    /// First and second moment of some rows of a parameter. A vector is one row.
    fn read_moments(
        &self,
        moments: &Self::Moments,
        id: ParamId,
        rows: Range<usize>,
    ) -> (Vec<f32>, Vec<f32>);
    /// Restores moments that were read.
    fn write_moments(&self, moments: &mut Self::Moments, id: ParamId, numbers: [&[f32]; 2]);

    /// No values.
    fn values(&self) -> Self::Values;
    /// Memory for the next value; its numbers are unspecified.
    fn allocate(&self, values: &mut Self::Values, shape: Shape);
    /// Writes a value.
    fn upload(&self, values: &mut Self::Values, var: Var, numbers: &[f32]);
    /// Reads a value.
    fn download<'v>(&self, values: &'v Self::Values, var: Var) -> Cow<'v, [f32]>;
    /// Frees a value and its gradient.
    fn free(&self, values: &mut Self::Values, var: Var);
    /// Gives back the memory of a value beyond what it needs.
    fn fit(&self, values: &mut Self::Values, var: Var);
    /// Frees everything.
    fn clear(&self, values: &mut Self::Values);
    /// Adds to the gradient of a value.
    fn add_grad(&self, values: &mut Self::Values, var: Var, numbers: &[f32]);
    /// Whether a value has a gradient.
    fn has_grad(&self, values: &Self::Values, var: Var) -> bool;
    /// Makes the gradient of one value that of another.
    fn move_grad(&self, values: &mut Self::Values, from: Var, to: Var);

    /// Computes an operation's outputs, and keeps what its backward needs besides.
    fn forward(
        &self,
        op: &Op,
        params: &Self::Params,
        values: &mut Self::Values,
        tasks: usize,
        pass: Pass,
    );
    /// Adds to the gradients of an operation's inputs and parameters, if its outputs have one.
    /// Operations come in the reverse order of their forward; `skip`: only what it kept is freed.
    fn backward(
        &self,
        op: &Op,
        params: &Self::Params,
        grads: &mut Self::Grads,
        values: &mut Self::Values,
        tasks: usize,
        dropout: Option<Dropout>,
        skip: bool,
    );
    /// [`crate::Tape::choose_experts`].
    fn choose_experts(
        &self,
        logits: Var,
        choice: &Choice,
        params: &Self::Params,
        values: &Self::Values,
    ) -> Vec<u32>;
    /// [`crate::Tape::draw_tokens`].
    fn draw_tokens(
        &self,
        logits: Var,
        sampling: &Sampling,
        draws: &[Draw<'_>],
        values: &mut Self::Values,
        tasks: usize,
    ) -> Option<Vec<Drawn>>;
    /// [`crate::Tape::per_head_matmul`].
    fn per_head_matmul(
        &self,
        x: Var,
        params: &Self::Params,
        weight: ParamId,
        group: usize,
        rows: Range<usize>,
        transposed: bool,
        out: Var,
        values: &mut Self::Values,
        tasks: usize,
    );

    /// An empty cache; rows have `dims` numbers of keys and of values.
    fn cache(&self, layers: usize, dims: [usize; 2], slots: usize, capacity: usize) -> Self::Cache;
    /// Copies the first `rows` rows of a slot.
    fn copy_slot(&self, cache: &mut Self::Cache, from: usize, to: usize, rows: usize);
    /// [`crate::Tape::attention_cached`]. `vars` are q, k, v and the output; `past` are the rows
    /// that each slot held before.
    fn attention_cached(
        &self,
        vars: [Var; 4],
        params: &Self::Params,
        shape: &Attention,
        offsets: &[u32],
        cache: &mut Self::Cache,
        slots: &[usize],
        past: &[u32],
        layer: usize,
        chunk: Option<usize>,
        values: &mut Self::Values,
        tasks: usize,
    );

    /// Rows to which the capacity of a cache is rounded up.
    const CACHE_ROWS: usize;
    /// Threads, or the like.
    fn threads(&self) -> usize;
    /// Number of tasks to split each of `items` items into: 1 if there are enough items, else more
    /// than there are threads, which balances the load.
    fn tasks_per_item(&self, items: usize) -> usize;
    /// Runs `f(i, &mut items[i])` for every item, several at a time.
    fn for_each<T: Send>(&self, items: &mut [T], f: &(impl Fn(usize, &mut T) + Sync));
    /// Runs `f`, whose operations all threads share. They poll for tasks meanwhile: most operations
    /// take less time than waking a thread.
    fn share<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T;
    /// FLOPs per second of a GEMM of this shape, on all threads.
    fn gemm_rate(&self, shape: [usize; 3], duration: Duration) -> f64;
    /// Bytes per second that all threads read.
    fn read_bandwidth(&self, duration: Duration) -> f64;
}

/// The operating system refused to start threads.
#[derive(Clone, Debug)]
pub struct ThreadSpawnError {
    pub(crate) threads: usize,
    pub(crate) cause: String,
}

impl fmt::Display for ThreadSpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ThreadSpawnError { threads, cause } = self;
        write!(
            f,
            "the operating system refuses to start {threads} threads ({cause}); \
             ask for fewer (--threads 1), or raise its limits (`ulimit -u`, `ulimit -v`)"
        )
    }
}

impl std::error::Error for ThreadSpawnError {}
