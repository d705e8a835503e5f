//! The processor as a backend: what the contract asks for, by the modules that do it.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::device::Cpu;
use super::kv_cache::{Cache, TILE};
use super::optimizer::Moments;
use super::params::{Grads, Params};
use super::tiles::Tiles;
use super::values::{Kept, Values, data};
use super::{device, draw, experts, optimizer, parallel};
use crate::backend::{Backend, Pass};
use crate::draw::{Draw, Drawn, Sampling};
use crate::dropout::Dropout;
use crate::layout::{Layout, ParamId};
use crate::op::{Attention, Choice, Op, Shape, Var};
use crate::update::{MomentFormat, OptimizerConfig};
use crate::weight_format::WeightFormat;

impl Backend for Cpu {
    type Params = Params;
    type Grads = Grads;
    type Moments = Moments;
    type Values = Values;
    type Cache = Cache;
    type Matrix = Tiles;

    fn matrix<R: AsRef<[u8]>>(
        &self,
        format: WeightFormat,
        shape: [usize; 2],
        row: impl Fn(usize) -> R + Sync,
        done: impl Fn(Range<usize>),
    ) -> Tiles {
        Tiles::new(self, format, shape, row, done)
    }

    fn params(
        &self,
        layout: Arc<Layout>,
        base: Option<Arc<Params>>,
        quantised: Vec<Option<Tiles>>,
    ) -> Params {
        Params::new(self.precision(), layout, base, quantised)
    }

    fn view(&self, params: &Params) -> Params {
        params.in_precision(self.precision())
    }

    fn set_layout(&self, params: &mut Params, layout: Arc<Layout>) {
        params.set_layout(layout);
    }

    fn initialise(&self, params: &mut Params, seed: u64) {
        params.initialise(self, seed);
    }

    fn read(&self, params: &Params, id: ParamId, rows: Range<usize>) -> Vec<f32> {
        params.read(id, rows)
    }

    fn write(&self, params: &mut Params, id: ParamId, numbers: &[f32]) {
        params.write(id, numbers);
    }

    fn copy(&self, to: &mut Params, from: &Params) {
        to.copy_from(from);
    }

    fn quantised(&self, params: &Params, id: ParamId) -> Option<WeightFormat> {
        params.quantised(id).map(|matrix| matrix.format)
    }

    fn bytes(&self, params: &Params, id: ParamId) -> usize {
        let plain = || size_of_val(params.slice(id));
        params.quantised(id).map_or_else(plain, Tiles::bytes)
    }

    fn row_norms(&self, params: &Params, id: ParamId) -> Vec<f32> {
        params.row_squares(id).iter().map(|square| square.sqrt() as f32).collect()
    }

    fn merge_adapter(&self, params: &Params, id: ParamId, numbers: &mut [f32]) {
        params.merge_adapter(id, numbers);
    }

    fn grads(&self, layout: Arc<Layout>) -> Grads {
        Grads::zeros(layout)
    }

    fn zero(&self, grads: &mut Grads) {
        grads.zero(self);
    }

    fn add_all(&self, sum: &mut Grads, others: &[&Grads]) {
        sum.add_all(self, others);
    }

    fn norm(&self, grads: &Grads) -> f64 {
        grads.norm(self)
    }

    fn read_grad(&self, grads: &Grads, id: ParamId) -> Vec<f32> {
        grads.read(id)
    }

    fn moments(&self, layout: Arc<Layout>, format: MomentFormat) -> Moments {
        Moments::zeros(layout, format)
    }

    fn step(
        &self,
        params: &mut Params,
        grads: &Grads,
        moments: &mut Moments,
        config: &OptimizerConfig,
        step: u64,
        clip: f32,
    ) {
        optimizer::step(self, params, grads, moments, config, step, clip);
    }

    fn read_moments(
        &self,
        moments: &Moments,
        id: ParamId,
        rows: Range<usize>,
    ) -> (Vec<f32>, Vec<f32>) {
        moments.read(id, rows)
    }

    fn write_moments(&self, moments: &mut Moments, id: ParamId, numbers: [&[f32]; 2]) {
        moments.write(id, numbers);
    }

    fn values(&self) -> Values {
        Values::default()
    }

    fn allocate(&self, values: &mut Values, shape: Shape) {
        values.allocate(shape);
    }

    fn upload(&self, values: &mut Values, var: Var, numbers: &[f32]) {
        values.matrices[var.0 as usize].data.copy_from_slice(numbers);
    }

    fn download<'v>(&self, values: &'v Values, var: Var) -> Cow<'v, [f32]> {
        Cow::Borrowed(data(&values.matrices, var))
    }

    fn free(&self, values: &mut Values, var: Var) {
        values.free(var);
    }

    fn fit(&self, values: &mut Values, var: Var) {
        values.fit(var);
    }

    fn clear(&self, values: &mut Values) {
        values.clear();
    }

    fn add_grad(&self, values: &mut Values, var: Var, numbers: &[f32]) {
        values.grow_grads();
        let grad = values.floats.take_copy(numbers);
        super::add_grad(&mut values.grads, var, grad, &mut values.floats);
    }

    fn has_grad(&self, values: &Values, var: Var) -> bool {
        values.grads.get(var.0 as usize).is_some_and(|grad| !grad.is_empty())
    }

    fn move_grad(&self, values: &mut Values, from: Var, to: Var) {
        values.grow_grads();
        values.grads[to.0 as usize] = std::mem::take(&mut values.grads[from.0 as usize]);
    }

    fn forward(&self, op: &Op, params: &Params, values: &mut Values, tasks: usize, pass: Pass) {
        let kept = super::forward(self, op, params, values, tasks, pass);
        if pass.keeps {
            values.kept.push(kept);
        } else {
            kept.recycle(&mut values.floats);
        }
    }

    fn backward(
        &self,
        op: &Op,
        params: &Params,
        grads: &mut Grads,
        values: &mut Values,
        tasks: usize,
        dropout: Option<Dropout>,
        skip: bool,
    ) {
        let mut kept: Kept = values.kept.pop().expect("one for each recorded operation");
        if !skip {
            kept = super::backward(self, op, kept, params, grads, values, tasks, dropout);
        }
        kept.recycle(&mut values.floats);
    }

    fn choose_experts(
        &self,
        logits: Var,
        choice: &Choice,
        params: &Params,
        values: &Values,
    ) -> Vec<u32> {
        let correction = choice.correction.map(|id| params.slice(id));
        let values = &values.matrices;
        let experts = values[logits.0 as usize].cols;
        experts::choose(choice, data(values, logits), experts, correction)
    }

    fn draw_tokens(
        &self,
        logits: Var,
        sampling: &Sampling,
        draws: &[Draw<'_>],
        values: &mut Values,
        tasks: usize,
    ) -> Option<Vec<Drawn>> {
        let Values { matrices, samplers, .. } = values;
        let vocab = matrices[logits.0 as usize].cols;
        let logits = data(matrices, logits);
        draw::draw_tokens(self, logits, vocab, sampling, draws, samplers, tasks)
    }

    fn per_head_matmul(
        &self,
        x: Var,
        params: &Params,
        weight: ParamId,
        group: usize,
        rows: Range<usize>,
        transposed: bool,
        out: Var,
        values: &mut Values,
        tasks: usize,
    ) {
        super::per_head_matmul(x, params, weight, group, rows, transposed, out, values, tasks);
    }

    fn cache(&self, layers: usize, dims: [usize; 2], slots: usize, capacity: usize) -> Cache {
        Cache::new(layers, dims, slots, capacity)
    }

    fn copy_slot(&self, cache: &mut Cache, from: usize, to: usize, rows: usize) {
        cache.copy_slot(from, to, rows);
    }

    fn attention_cached(
        &self,
        vars: [Var; 4],
        params: &Params,
        shape: &Attention,
        offsets: &[u32],
        cache: &mut Cache,
        slots: &[usize],
        past: &[u32],
        layer: usize,
        chunk: Option<usize>,
        values: &mut Values,
        tasks: usize,
    ) {
        super::attention_cached(
            self, vars, params, shape, offsets, cache, slots, past, layer, chunk, values, tasks,
        );
    }

    const CACHE_ROWS: usize = TILE;

    fn threads(&self) -> usize {
        self.thread_count()
    }

    fn tasks_per_item(&self, items: usize) -> usize {
        device::tasks_per_item(self, items)
    }

    fn for_each<T: Send>(&self, items: &mut [T], f: &(impl Fn(usize, &mut T) + Sync)) {
        parallel::for_each(self, items, f);
    }

    fn share<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        device::share(self, f)
    }

    fn gemm_rate(&self, shape: [usize; 3], duration: Duration) -> f64 {
        device::gemm_rate(self, shape, duration)
    }

    fn read_bandwidth(&self, duration: Duration) -> f64 {
        device::read_bandwidth(self, duration)
    }
}
