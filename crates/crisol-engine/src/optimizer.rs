//! One optimizer step: clips the gradient by its norm, then updates the parameters.
//!
//! AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) in one pass over parameters, gradients and
//! moments. Or Muon (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>) for hidden
//! matrices and AdamW for the rest.

use std::sync::Arc;

use crate::params::Layout;
use crate::profile::Part;
use crate::workspace::Buffer;
use crate::{Device, Grads, ParamId, Params, Role, cpu, parallel};

/// Update rule of the hidden matrices; everything else uses AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateRule {
    /// AdamW.
    AdamW,
    /// Orthogonalised momentum. Takes AdamW's learning rates; costs a few GEMMs per matrix and
    /// step.
    Muon,
}

/// Hyper-parameters of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerConfig {
    /// Update rule of hidden matrices.
    pub rule: UpdateRule,
    /// Learning rate of this step.
    pub lr: f32,
    /// Factor on the learning rate of embeddings and heads, not on their weight decay.
    pub table_factor: f32,
    /// Decay of AdamW's first moment.
    pub beta1: f32,
    /// Decay of AdamW's second moment.
    pub beta2: f32,
    /// Added to AdamW's denominator.
    pub eps: f32,
    /// Decoupled weight decay, on matrices.
    pub weight_decay: f32,
    /// Gradients are first clipped to this global norm.
    pub max_grad_norm: Option<f32>,
}

/// The moments of one set of parameters. Muon's momentum is the first; its matrices have no second.
#[derive(Debug)]
pub struct Optimizer {
    layout: Arc<Layout>,
    first: Buffer<f32>,
    second: Buffer<f32>,
    /// Step directions of the hidden matrices, allocated by Muon's first step.
    directions: Vec<(ParamId, Buffer<f32>)>,
    steps: u64,
}

impl Optimizer {
    /// Zero moments for `params`.
    pub fn new(params: &Params) -> Optimizer {
        let layout = Arc::clone(&params.layout);
        let (first, second) = (Buffer::zeros(layout.len), Buffer::zeros(layout.len));
        Optimizer { layout, first, second, directions: Vec::new(), steps: 0 }
    }

    /// One step with PyTorch's semantics (`torch.optim.AdamW` after `clip_grad_norm_`). Returns the
    /// gradient norm before clipping. A norm that is not finite is returned and nothing changes.
    pub fn step(&mut self, params: &mut Params, grads: &Grads, config: &OptimizerConfig) -> f64 {
        let device = self.layout.device.clone();
        let Device::Cpu(cpu, _) = &device;
        cpu.profile.time(Part::Optimizer, device.threads(), || self.update(params, grads, config))
    }

    fn update(&mut self, params: &mut Params, grads: &Grads, config: &OptimizerConfig) -> f64 {
        assert_eq!(self.layout.ranges, params.layout.ranges, "parameters of different shapes");
        assert_eq!(self.layout.ranges, grads.layout.ranges, "gradients of different shapes");
        let norm = grads.norm();
        if !norm.is_finite() {
            return norm;
        }
        self.steps += 1;
        // 1e-6 as in `clip_grad_norm_`.
        let clip =
            config.max_grad_norm.map_or(1.0, |most| (f64::from(most) / (norm + 1e-6)).min(1.0))
                as f32;
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(self.steps as f64);
        let lr = f64::from(config.lr);
        let step = cpu::optimizer::AdamWStep {
            clip,
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.eps,
            step_size: (lr / correction(config.beta1)) as f32,
            second_correction: correction(config.beta2).sqrt() as f32,
        };
        let decay = (1.0 - lr * f64::from(config.weight_decay)) as f32;
        if config.rule == UpdateRule::Muon {
            self.find_directions(grads, clip);
        }
        parallel::sum_chunks(
            &self.layout.device,
            self.layout.len,
            [params.data_mut(), &mut *self.first, &mut *self.second],
            &|chunk, [p, m, v]| {
                for (segment, id) in self.layout.segments(chunk.clone()) {
                    let part = segment.start - chunk.start..segment.end - chunk.start;
                    let (p, m, g) =
                        (&mut p[part.clone()], &mut m[part.clone()], &grads.data[segment.clone()]);
                    let role = self.layout.spec(id).role;
                    let keep = if role == Role::Vector { 1.0 } else { decay };
                    if role == Role::Hidden && config.rule == UpdateRule::Muon {
                        let start = self.layout.range(id).start;
                        let at = self.directions.partition_point(|(other, _)| other.0 < id.0);
                        let direction =
                            &self.directions[at].1[segment.start - start..segment.end - start];
                        cpu::muon::update(p, m, g, direction, clip, keep, config.lr);
                    } else {
                        let factor = if role == Role::Table { config.table_factor } else { 1.0 };
                        let step = cpu::optimizer::AdamWStep {
                            step_size: factor * step.step_size,
                            ..step
                        };
                        cpu::optimizer::adamw(p, m, &mut v[part], g, keep, step);
                    }
                }
                0.0
            },
        );
        norm
    }

    /// One task per matrix.
    fn find_directions(&mut self, grads: &Grads, clip: f32) {
        let Optimizer { layout, first, directions, .. } = self;
        if directions.is_empty() {
            let ids = layout.ids().filter(|&id| layout.spec(id).role == Role::Hidden);
            directions.extend(ids.map(|id| (id, Buffer::zeros(layout.range(id).len()))));
        }
        let device = &layout.device;
        parallel::for_each(device, directions, &|_, (id, direction)| {
            let range = layout.range(*id);
            let [rows, cols] = layout.spec(*id).shape[..] else {
                panic!("a hidden matrix has two dimensions")
            };
            device.with_workspace(1, |workspace| {
                let (m, g) = (&first[range.clone()], &grads.data[range]);
                cpu::muon::direction(m, g, clip, rows, cols, direction, &mut workspace.floats);
            });
        });
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
