//! One optimizer step: clips the gradient by its norm, then updates the parameters.
//!
//! AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) in one pass over parameters, gradients and
//! moments. Or Muon (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>) for hidden
//! matrices and AdamW for the rest.
//!
//! Moments in bf16 take half the memory. A plain rounding would lose the second moment's changes,
//! which are smaller than half a bf16 step once beta2 is near 1. So moments are rounded up or down
//! at random, to their value in the mean ([`cpu::optimizer::round_at_random`]).

use std::ops::Range;
use std::sync::Arc;

use crate::parallel::CHUNK;
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

/// Number format of an optimizer's moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MomentFormat {
    /// Four bytes each.
    #[default]
    F32,
    /// Two bytes each.
    Bf16,
}

/// The moments of one set of parameters. Muon's momentum is the first; its matrices have no second.
#[derive(Debug)]
pub struct Optimizer {
    layout: Arc<Layout>,
    first: Moments,
    second: Moments,
    /// Step directions of the hidden matrices, allocated by Muon's first step.
    directions: Vec<(ParamId, Buffer<f32>)>,
    steps: u64,
}

/// One moment of every parameter.
#[derive(Debug)]
enum Moments {
    F32(Buffer<f32>),
    /// The upper halves of f32 numbers.
    Bf16(Buffer<u16>),
}

impl Moments {
    fn zeros(format: MomentFormat, len: usize) -> Moments {
        match format {
            MomentFormat::F32 => Moments::F32(Buffer::zeros(len)),
            MomentFormat::Bf16 => Moments::Bf16(Buffer::zeros(len)),
        }
    }

    fn read(&self, range: Range<usize>) -> Vec<f32> {
        match self {
            Moments::F32(numbers) => numbers[range].to_vec(),
            Moments::Bf16(halves) => {
                let mut numbers = vec![0.0; range.len()];
                cpu::optimizer::widen(&halves[range], &mut numbers);
                numbers
            }
        }
    }

    /// Moments that were read are exact in their format.
    fn write(&mut self, range: Range<usize>, numbers: &[f32]) {
        match self {
            Moments::F32(moments) => moments[range].copy_from_slice(numbers),
            Moments::Bf16(halves) => {
                for (half, number) in halves[range].iter_mut().zip(numbers) {
                    *half = (number.to_bits() >> 16) as u16;
                }
            }
        }
    }
}

impl Optimizer {
    /// Zero moments for `params`.
    pub fn new(params: &Params, format: MomentFormat) -> Optimizer {
        let layout = Arc::clone(&params.layout);
        let zeros = || Moments::zeros(format, layout.len);
        let (first, second) = (zeros(), zeros());
        Optimizer { layout, first, second, directions: Vec::new(), steps: 0 }
    }

    /// Number format of the moments.
    pub fn format(&self) -> MomentFormat {
        match self.first {
            Moments::F32(_) => MomentFormat::F32,
            Moments::Bf16(_) => MomentFormat::Bf16,
        }
    }

    /// One step with PyTorch's semantics (`torch.optim.AdamW` after `clip_grad_norm_`). Returns the
    /// gradient norm before clipping. A norm that is not finite is returned and nothing changes.
    pub fn step(&mut self, params: &mut Params, grads: &Grads, config: &OptimizerConfig) -> f64 {
        let device = self.layout.device.clone();
        let Device::Cpu(cpu) = &device;
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
        let Optimizer { layout, first, second, directions, steps } = self;
        // Updates parameters and moments of a chunk.
        let update = |chunk: Range<usize>, p: &mut [f32], m: &mut [f32], v: &mut [f32]| {
            for (segment, id) in layout.segments(chunk.clone()) {
                let part = segment.start - chunk.start..segment.end - chunk.start;
                let (p, m, g) =
                    (&mut p[part.clone()], &mut m[part.clone()], &grads.data[segment.clone()]);
                let role = layout.spec(id).role;
                let keep = if role == Role::Vector { 1.0 } else { decay };
                if role == Role::Hidden && config.rule == UpdateRule::Muon {
                    let start = layout.range(id).start;
                    let at = directions.partition_point(|(other, _)| other.0 < id.0);
                    let direction = &directions[at].1[segment.start - start..segment.end - start];
                    cpu::muon::update(p, m, g, direction, clip, keep, config.lr);
                } else {
                    let factor = if role == Role::Table { config.table_factor } else { 1.0 };
                    let step =
                        cpu::optimizer::AdamWStep { step_size: factor * step.step_size, ..step };
                    cpu::optimizer::adamw(p, m, &mut v[part], g, keep, step);
                }
            }
        };
        let (device, len, p) = (&layout.device, layout.len, params.data_mut());
        match (first, second) {
            (Moments::F32(first), Moments::F32(second)) => {
                let parts = [p, &mut **first, &mut **second];
                parallel::sum_chunks(device, len, parts, &|chunk, [p, m, v]| {
                    update(chunk, p, m, v);
                    0.0
                });
            }
            (Moments::Bf16(first), Moments::Bf16(second)) => {
                let moments = first.chunks_mut(CHUNK).zip(second.chunks_mut(CHUNK));
                let mut chunks: Vec<_> = p.chunks_mut(CHUNK).zip(moments).collect();
                parallel::for_each(device, &mut chunks, &|i, (p, (first, second))| {
                    device.with_task_workspace(|workspace| {
                        let mut wide = || workspace.floats.take(p.len());
                        let (mut m, mut v) = (wide(), wide());
                        cpu::optimizer::widen(first, &mut m);
                        cpu::optimizer::widen(second, &mut v);
                        let start = i * CHUNK;
                        update(start..start + p.len(), p, &mut m, &mut v);
                        let seed = cpu::optimizer::rounding_seed(*steps, start);
                        cpu::optimizer::round_at_random(&m, &v, first, second, seed);
                        [m, v].into_iter().for_each(|wide| workspace.floats.give(wide));
                    });
                });
            }
            _ => unreachable!("both moments have one format"),
        }
        norm
    }

    /// One task per matrix.
    fn find_directions(&mut self, grads: &Grads, clip: f32) {
        let Optimizer { layout, first, directions, .. } = self;
        if directions.is_empty() {
            let ids = layout.ids().filter(|&id| layout.spec(id).role == Role::Hidden);
            directions.extend(ids.map(|id| (id, Buffer::zeros(layout.range(id).len()))));
        }
        let (device, first) = (&layout.device, &*first);
        parallel::for_each(device, directions, &|_, (id, direction)| {
            let range = layout.range(*id);
            let [rows, cols] = layout.spec(*id).shape[..] else {
                panic!("a hidden matrix has two dimensions")
            };
            device.with_workspace(1, |workspace| {
                let floats = &mut workspace.floats;
                let g = &grads.data[range.clone()];
                match first {
                    Moments::F32(first) => {
                        cpu::muon::direction(&first[range], g, clip, rows, cols, direction, floats);
                    }
                    Moments::Bf16(halves) => {
                        let mut m = floats.take(range.len());
                        cpu::optimizer::widen(&halves[range], &mut m);
                        cpu::muon::direction(&m, g, clip, rows, cols, direction, floats);
                        floats.give(m);
                    }
                }
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
        (self.first.read(range.clone()), self.second.read(range))
    }

    /// Restores the moments of one parameter.
    pub fn write(&mut self, id: ParamId, first: &[f32], second: &[f32]) {
        let range = self.layout.range(id);
        self.first.write(range.clone(), first);
        self.second.write(range, second);
    }

    /// Restores the step count.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }
}
