//! One optimizer step: clips the gradient by its norm, then updates the parameters.
//!
//! AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) in one pass over parameters, gradients and
//! moments. Or Muon (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>) for hidden
//! matrices and AdamW for the rest.

use std::ops::Range;
use std::sync::Arc;

use crate::backend::Backend;
use crate::device::OnDevice;
use crate::layout::Layout;
use crate::profile::Part;
use crate::update::{MomentFormat, OptimizerConfig};
use crate::{Device, Grads, ParamId, Params};

/// An optimizer of one set of parameters, with its moments.
#[derive(Debug)]
pub struct Optimizer {
    device: Device,
    layout: Arc<Layout>,
    format: MomentFormat,
    moments: <OnDevice as Backend>::Moments,
    steps: u64,
}

impl Optimizer {
    /// Zero moments for `params`.
    pub fn new(params: &Params, format: MomentFormat) -> Optimizer {
        let (device, layout) = (params.device().clone(), Arc::clone(&params.layout));
        let moments = device.backend().moments(Arc::clone(&layout), format);
        Optimizer { device, layout, format, moments, steps: 0 }
    }

    /// Number format of the moments.
    pub fn format(&self) -> MomentFormat {
        self.format
    }

    /// One step with PyTorch's semantics (`torch.optim.AdamW` after `clip_grad_norm_`). Returns the
    /// gradient norm before clipping. A norm that is not finite is returned and nothing changes.
    pub fn step(&mut self, params: &mut Params, grads: &Grads, config: &OptimizerConfig) -> f64 {
        assert_eq!(self.layout.ranges, params.layout.ranges, "parameters of different shapes");
        assert_eq!(self.layout.ranges, grads.layout.ranges, "gradients of different shapes");
        let device = self.device.clone();
        device.profile().time(Part::Optimizer, device.threads(), || {
            let norm = grads.norm();
            if norm.is_finite() {
                self.steps += 1;
                // 1e-6 as in `clip_grad_norm_`.
                let clip = |most| (f64::from(most) / (norm + 1e-6)).min(1.0);
                let clip = config.max_grad_norm.map_or(1.0, clip) as f32;
                let (backend, params) = params.on_device_mut();
                let moments = &mut self.moments;
                backend.step(params, &grads.on_device, moments, config, self.steps, clip);
            }
            norm
        })
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// First and second moment of one parameter (for checkpoints).
    pub fn read(&self, id: ParamId) -> (Vec<f32>, Vec<f32>) {
        self.read_rows(id, 0..self.layout.spec(id).rows())
    }

    /// Those of some of its rows. A vector is one row.
    pub fn read_rows(&self, id: ParamId, rows: Range<usize>) -> (Vec<f32>, Vec<f32>) {
        self.device.backend().read_moments(&self.moments, id, rows)
    }

    /// Restores the moments of one parameter.
    pub fn write(&mut self, id: ParamId, first: &[f32], second: &[f32]) {
        self.device.backend().write_moments(&mut self.moments, id, [first, second]);
    }

    /// Restores the step count.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }
}
