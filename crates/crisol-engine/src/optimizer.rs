//! AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) in one pass over parameters, gradients and moments.

use crate::{Grads, ParamId, Params};

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
pub struct AdamW {}

impl AdamW {
    /// Zero moments for `params`.
    pub fn new(_params: &Params) -> AdamW {
        todo!()
    }
    /// One step, PyTorch's semantics (`torch.optim.AdamW` after `clip_grad_norm_`). Returns the gradient norm
    /// before clipping. If the norm is not finite nothing is changed, and it is returned for the caller to act on.
    pub fn step(&mut self, _params: &mut Params, _grads: &Grads, _config: &AdamWConfig) -> f64 {
        todo!()
    }
    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        todo!()
    }
    /// First and second moment of one parameter (for checkpoints).
    pub fn read(&self, _id: ParamId) -> (Vec<f32>, Vec<f32>) {
        todo!()
    }
    /// Restores the moments of one parameter.
    pub fn write(&mut self, _id: ParamId, _first: &[f32], _second: &[f32]) {
        todo!()
    }
    /// Restores the step count.
    pub fn set_steps(&mut self, _steps: u64) {
        todo!()
    }
}
