//! AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) in one pass over parameters, gradients and moments.

use std::sync::Arc;

use crate::params::Layout;
use crate::workspace::Buffer;
use crate::{Grads, ParamId, Params, cpu, parallel};

/// Hyper-parameters of one AdamW step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the denominator.
    pub eps: f32,
    /// Decoupled weight decay, on parameters whose spec says so.
    pub weight_decay: f32,
    /// Clip gradients to this global norm first.
    pub max_grad_norm: Option<f32>,
}

/// Moments of AdamW for one set of parameters.
#[derive(Debug)]
pub struct AdamW {
    layout: Arc<Layout>,
    first: Buffer<f32>,
    second: Buffer<f32>,
    steps: u64,
}

impl AdamW {
    /// Zero moments for `params`.
    pub fn new(params: &Params) -> AdamW {
        let layout = Arc::clone(&params.layout);
        let (first, second) = (Buffer::zeros(layout.len), Buffer::zeros(layout.len));
        AdamW { layout, first, second, steps: 0 }
    }

    /// One step, PyTorch's semantics (`torch.optim.AdamW` after `clip_grad_norm_`). Returns the gradient norm
    /// before clipping. If the norm is not finite nothing is changed, and it is returned for the caller to act on.
    pub fn step(&mut self, params: &mut Params, grads: &Grads, config: &AdamWConfig) -> f64 {
        assert_eq!(self.layout.ranges, params.layout.ranges, "parameters of different shapes");
        assert_eq!(self.layout.ranges, grads.layout.ranges, "gradients of different shapes");
        let norm = grads.norm();
        if !norm.is_finite() {
            return norm;
        }
        self.steps += 1;
        // 1e-6 as in clip_grad_norm_.
        let clip = config.max_grad_norm.map_or(1.0, |most| (f64::from(most) / (norm + 1e-6)).min(1.0));
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(self.steps as f64);
        let lr = f64::from(config.lr);
        let step = cpu::optimizer::AdamWStep {
            clip: clip as f32,
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.eps,
            step_size: (lr / correction(config.beta1)) as f32,
            second_correction: correction(config.beta2).sqrt() as f32,
        };
        let decay = (1.0 - lr * f64::from(config.weight_decay)) as f32;
        parallel::sum_chunks(
            &self.layout.device,
            self.layout.len,
            [&mut *params.data, &mut *self.first, &mut *self.second],
            &|chunk, [p, m, v]| {
                for (segment, spec) in self.layout.segments(chunk.clone()) {
                    let part = segment.start - chunk.start..segment.end - chunk.start;
                    let keep = if spec.decay { decay } else { 1.0 };
                    cpu::optimizer::adamw(
                        &mut p[part.clone()],
                        &mut m[part.clone()],
                        &mut v[part],
                        &grads.data[segment],
                        keep,
                        step,
                    );
                }
                0.0
            },
        );
        norm
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// First and second moment of one parameter (for checkpoints).
    pub fn read(&self, id: ParamId) -> (Vec<f32>, Vec<f32>) {
        let range = self.layout.range(id);
        (self.first[range.clone()].to_vec(), self.second[range].to_vec())
    }

    /// Restores the moments of one parameter.
    pub fn write(&mut self, id: ParamId, first: &[f32], second: &[f32]) {
        let range = self.layout.range(id);
        self.first[range.clone()].copy_from_slice(first);
        self.second[range].copy_from_slice(second);
    }

    /// Restores the step count.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }
}
