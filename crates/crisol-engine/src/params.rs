//! Parameters of a model and their gradients.
//!
//! [`Params::over`] lays trainable parameters over a frozen base. A policy, its reference and a
//! value model over the same base take its memory once. A frozen weight cannot lose a gradient: it
//! has none.

use std::ops::Range;
use std::sync::Arc;

use crate::backend::Backend;
use crate::device::{Device, OnDevice};
use crate::dropout::Dropout;
use crate::layout::{Adapter, Layout, ParamId, ParamSpec};
use crate::precision::Precision;
use crate::{QuantisedMatrix, WeightFormat, cpu};

/// All parameters of one model on one device: its own, and those of a frozen base if it has one.
#[derive(Debug)]
pub struct Params {
    device: Device,
    base: Option<Arc<Params>>,
    pub(crate) layout: Arc<Layout>,
    /// Of the adapters' inputs in training; the key is the run's seed.
    pub(crate) dropout: Option<Dropout>,
    /// Shared with the overlays of a base.
    pub(crate) on_device: Arc<<OnDevice as Backend>::Params>,
}

impl Params {
    /// Zeros for `specs`, whose order gives the `ParamId`s.
    pub fn zeros(device: &Device, specs: Vec<ParamSpec>) -> Params {
        Params::with_quantised(device, specs, Vec::new())
    }

    /// Parameters for inference: quantised where `quantised` has a matrix, else zeros. `quantised`
    /// is empty or has one entry for each of `specs`.
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
                assert_eq!(spec.shape, matrix.shape, "shape of `{}`", spec.name);
            }
        }
        let elsewhere = |index: usize| quantised.get(index).is_some_and(Option::is_some);
        let layout = Arc::new(Layout::new(None, specs, elsewhere));
        Params::new(device, None, layout, quantised)
    }

    fn new(
        device: &Device,
        base: Option<Arc<Params>>,
        layout: Arc<Layout>,
        quantised: Vec<Option<QuantisedMatrix>>,
    ) -> Params {
        let base_on_device = base.as_ref().map(|base| Arc::clone(&base.on_device));
        let on_device = device.backend().params(
            Arc::clone(&layout),
            base_on_device,
            quantised.into_iter().map(|matrix| Some(matrix?.on_device)).collect(),
        );
        let (device, on_device) = (device.clone(), Arc::new(on_device));
        Params { device, base, layout, dropout: None, on_device }
    }

    /// The device, and the parameters on it to change.
    pub(crate) fn on_device_mut(&mut self) -> (&OnDevice, &mut <OnDevice as Backend>::Params) {
        let on_device = Arc::get_mut(&mut self.on_device);
        // A base is behind an `Arc` itself.
        (self.device.backend(), on_device.expect("no overlay shares parameters that change"))
    }

    /// Trainable parameters over a frozen base, initialised as by [`Params::init`]. The base's
    /// parameters keep their ids. A name that both have means the new parameter.
    pub fn over(base: &Arc<Params>, specs: Vec<ParamSpec>, seed: u64) -> Params {
        assert!(base.base.is_none(), "a base has no base of its own");
        let layout = Arc::new(Layout::new(Some(Arc::clone(&base.layout)), specs, |_| false));
        let mut params = Params::new(&base.device, Some(Arc::clone(base)), layout, Vec::new());
        params.initialise(seed);
        params
    }

    /// A view of these parameters for inference in another precision. They cannot change while it
    /// exists.
    #[must_use]
    pub fn in_precision(&self, precision: Precision) -> Params {
        let device = self.device.with_precision(precision);
        let on_device = if precision == self.device.precision() {
            Arc::clone(&self.on_device)
        } else {
            Arc::new(device.backend().view(&self.on_device))
        };
        let base = self.base.as_ref().map(|base| Arc::new(base.in_precision(precision)));
        let (layout, dropout) = (Arc::clone(&self.layout), self.dropout);
        Params { device, base, layout, dropout, on_device }
    }

    /// The frozen base.
    pub fn base(&self) -> Option<&Arc<Params>> {
        self.base.as_ref()
    }

    /// Adds an adapter to a weight of the base. Every linear operation with the weight then uses
    /// the updated weight.
    pub fn adapt(&mut self, weight: ParamId, adapter: Adapter) {
        Arc::make_mut(&mut self.layout).adapt(weight, adapter);
        let layout = Arc::clone(&self.layout);
        let (backend, params) = self.on_device_mut();
        backend.set_layout(params, layout);
    }

    /// The adapter of a weight.
    pub fn adapter(&self, weight: ParamId) -> Option<Adapter> {
        self.layout.adapter(weight)
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

    /// Norms of a weight's rows, with which magnitudes start.
    pub fn row_norms(&self, weight: ParamId) -> Vec<f32> {
        self.device.backend().row_norms(&self.on_device, weight)
    }

    /// The format of a parameter that is a quantised matrix; `None` for plain f32.
    pub fn quantised(&self, id: ParamId) -> Option<WeightFormat> {
        self.device.backend().quantised(&self.on_device, id)
    }

    /// Panics if a parameter is quantised.
    fn assert_trainable(&self) {
        let quantised = self.ids().any(|id| self.quantised(id).is_some());
        assert!(!quantised, "parameters for inference can be neither trained nor copied");
    }

    /// Parameters initialised by their specs; a seed determines every bit. Each parameter has its
    /// own random stream, so appending a parameter does not change the others.
    pub fn init(device: &Device, specs: Vec<ParamSpec>, seed: u64) -> Params {
        let mut params = Params::zeros(device, specs);
        params.initialise(seed);
        params
    }

    fn initialise(&mut self, seed: u64) {
        let (backend, params) = self.on_device_mut();
        backend.initialise(params, seed);
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
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
        self.layout.all_ids()
    }

    /// The id of the parameter named `name`, its own or the base's.
    pub fn id(&self, name: &str) -> Option<ParamId> {
        self.layout.id(name)
    }

    /// Spec of one parameter.
    pub fn spec(&self, id: ParamId) -> &ParamSpec {
        self.layout.spec(id)
    }

    /// Bytes of one parameter, without packed copies.
    pub fn bytes(&self, id: ParamId) -> usize {
        self.device.backend().bytes(&self.on_device, id)
    }

    /// Number of scalars of all own parameters.
    pub fn count(&self) -> usize {
        self.layout.specs.iter().map(ParamSpec::len).sum()
    }

    /// Copies one parameter to the host, dequantised to f32.
    pub fn read(&self, id: ParamId) -> Vec<f32> {
        self.read_rows(id, 0..self.spec(id).rows())
    }

    /// Copies some rows of one parameter to the host. A vector is one row.
    pub fn read_rows(&self, id: ParamId, rows: Range<usize>) -> Vec<f32> {
        self.device.backend().read(&self.on_device, id, rows)
    }

    /// Copies one parameter to the host, with its adapter merged into it.
    pub fn merged(&self, id: ParamId) -> Vec<f32> {
        let mut values = self.read(id);
        self.device.backend().merge_adapter(&self.on_device, id, &mut values);
        values
    }

    /// Overwrites one parameter from the host; `values.len()` must be its size.
    pub fn write(&mut self, id: ParamId, values: &[f32]) {
        let (backend, params) = self.on_device_mut();
        backend.write(params, id, values);
    }

    /// A copy on the same device, e.g. a frozen reference policy. A base is shared.
    #[must_use]
    pub fn duplicate(&self) -> Params {
        self.assert_trainable();
        let layout = Arc::clone(&self.layout);
        let mut copy = Params::new(&self.device, self.base.clone(), layout, Vec::new());
        copy.dropout = self.dropout;
        copy.copy_from(self);
        copy
    }

    /// Copies all own parameters from `other`, which must have equal shapes.
    pub fn copy_from(&mut self, other: &Params) {
        assert_eq!(self.layout.ranges, other.layout.ranges, "parameters of different shapes");
        let (backend, params) = self.on_device_mut();
        backend.copy(params, &other.on_device);
    }

    /// Whether a model with this many parameters caches its packed weights.
    pub fn would_cache_packed(parameters: usize) -> bool {
        cpu::would_cache_packed(parameters)
    }
}

/// Gradients of all parameters of one [`Params`].
#[derive(Debug)]
pub struct Grads {
    pub(crate) device: Device,
    pub(crate) layout: Arc<Layout>,
    pub(crate) on_device: <OnDevice as Backend>::Grads,
}

impl Grads {
    /// Zeros in the shapes of `params`.
    pub fn zeros_like(params: &Params) -> Grads {
        params.assert_trainable();
        let (device, layout) = (params.device.clone(), Arc::clone(&params.layout));
        let on_device = device.backend().grads(Arc::clone(&layout));
        Grads { device, layout, on_device }
    }

    /// Zeroes every gradient.
    pub fn zero(&mut self) {
        self.device.backend().zero(&mut self.on_device);
    }

    /// Copies the gradient of one parameter to the host.
    pub fn read(&self, id: ParamId) -> Vec<f32> {
        self.device.backend().read_grad(&self.on_device, id)
    }

    /// Euclidean norm of all gradients, summed in f64 in a fixed order.
    pub fn norm(&self) -> f64 {
        self.device.backend().norm(&self.on_device)
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
        let others: Vec<_> = others.iter().map(|other| &other.on_device).collect();
        self.device.backend().add_all(&mut self.on_device, &others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Init, Role};

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
            for id in params.ids() {
                grads.on_device.slice_mut(id).unwrap().copy_from_slice(&params.read(id));
            }
            let mut double = Grads::zeros_like(&params);
            double.add(&grads);
            double.add(&grads);
            let numbers = params.ids().flat_map(|id| params.read(id));
            let plain = numbers.map(|x| f64::from(2.0 * x).powi(2)).sum::<f64>().sqrt();
            assert!((double.norm() / plain - 1.0).abs() < 1e-12);
            norms.push(double.norm().to_bits());
            double.zero();
            assert_eq!(double.norm(), 0.0);
        }
        assert_eq!(norms[0], norms[1]);
    }
}
