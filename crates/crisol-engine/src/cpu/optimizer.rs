//! One optimizer step over all parameters, the AdamW update, and moments in bf16: the upper halves
//! of f32 numbers.
//!
//! A plain rounding of moments would lose the second moment's changes, which are smaller than half
//! a bf16 step once beta2 is near 1. So they are rounded up or down at random, to their value in
//! the mean ([`round_at_random`]).

use std::ops::Range;
use std::sync::Arc;

use super::device::Cpu;
use super::math::vectorised;
use super::parallel::CHUNK;
use super::params::{Grads, Params};
use super::{muon, parallel};
use crate::buffer::Buffer;
use crate::layout::{Layout, ParamId, Role};
use crate::update::{MomentFormat, OptimizerConfig, UpdateRule};

/// The moments of one set of parameters. Muon's momentum is the first; its matrices have no second.
#[derive(Debug)]
pub(crate) struct Moments {
    layout: Arc<Layout>,
    first: Moment,
    second: Moment,
    /// Step directions of the hidden matrices, allocated by Muon's first step.
    directions: Vec<(ParamId, Buffer<f32>)>,
}

impl Moments {
    pub(crate) fn zeros(layout: Arc<Layout>, format: MomentFormat) -> Moments {
        let zeros = || Moment::zeros(format, layout.len);
        let (first, second) = (zeros(), zeros());
        Moments { layout, first, second, directions: Vec::new() }
    }

    pub(crate) fn read(&self, id: ParamId, rows: Range<usize>) -> (Vec<f32>, Vec<f32>) {
        let (start, cols) = (self.layout.range(id).start, self.layout.spec(id).row_len());
        let range = start + rows.start * cols..start + rows.end * cols;
        (self.first.read(range.clone()), self.second.read(range))
    }

    pub(crate) fn write(&mut self, id: ParamId, [first, second]: [&[f32]; 2]) {
        let range = self.layout.range(id);
        self.first.write(range.clone(), first);
        self.second.write(range, second);
    }
}

/// One moment of every parameter.
#[derive(Debug)]
enum Moment {
    F32(Buffer<f32>),
    /// The upper halves of f32 numbers.
    Bf16(Buffer<u16>),
}

impl Moment {
    fn zeros(format: MomentFormat, len: usize) -> Moment {
        match format {
            MomentFormat::F32 => Moment::F32(Buffer::zeros(len)),
            MomentFormat::Bf16 => Moment::Bf16(Buffer::zeros(len)),
        }
    }

    fn read(&self, range: Range<usize>) -> Vec<f32> {
        match self {
            Moment::F32(numbers) => numbers[range].to_vec(),
            Moment::Bf16(halves) => {
                let mut numbers = vec![0.0; range.len()];
                widen(&halves[range], &mut numbers);
                numbers
            }
        }
    }

    /// Moments that were read are exact in their format.
    fn write(&mut self, range: Range<usize>, numbers: &[f32]) {
        match self {
            Moment::F32(moments) => moments[range].copy_from_slice(numbers),
            Moment::Bf16(halves) => {
                for (half, number) in halves[range].iter_mut().zip(numbers) {
                    *half = (number.to_bits() >> 16) as u16;
                }
            }
        }
    }
}

/// Updates parameters and moments; `step_number` counts from 1.
pub(crate) fn step(
    cpu: &Cpu,
    params: &mut Params,
    grads: &Grads,
    moments: &mut Moments,
    config: &OptimizerConfig,
    step_number: u64,
    clip: f32,
) {
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(step_number as f64);
    let lr = f64::from(config.lr);
    let step = AdamWStep {
        clip,
        beta1: config.beta1,
        beta2: config.beta2,
        eps: config.eps,
        step_size: (lr / correction(config.beta1)) as f32,
        second_correction: correction(config.beta2).sqrt() as f32,
    };
    let decay = (1.0 - lr * f64::from(config.weight_decay)) as f32;
    if config.rule == UpdateRule::Muon {
        find_directions(cpu, grads, moments, clip);
    }
    let Moments { layout, first, second, directions } = moments;
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
                muon::update(p, m, g, direction, clip, keep, config.lr);
            } else {
                let factor = if role == Role::Table { config.table_factor } else { 1.0 };
                let step = AdamWStep { step_size: factor * step.step_size, ..step };
                adamw(p, m, &mut v[part], g, keep, step);
            }
        }
    };
    let (len, p) = (layout.len, params.data_mut());
    match (first, second) {
        (Moment::F32(first), Moment::F32(second)) => {
            let parts = [p, &mut **first, &mut **second];
            parallel::sum_chunks(cpu, len, parts, &|chunk, [p, m, v]| {
                update(chunk, p, m, v);
                0.0
            });
        }
        (Moment::Bf16(first), Moment::Bf16(second)) => {
            let moments = first.chunks_mut(CHUNK).zip(second.chunks_mut(CHUNK));
            let mut chunks: Vec<_> = p.chunks_mut(CHUNK).zip(moments).collect();
            parallel::for_each(cpu, &mut chunks, &|i, (p, (first, second))| {
                cpu.with_task_memory(|floats| {
                    let mut wide = || floats.take(p.len());
                    let (mut m, mut v) = (wide(), wide());
                    widen(first, &mut m);
                    widen(second, &mut v);
                    let start = i * CHUNK;
                    update(start..start + p.len(), p, &mut m, &mut v);
                    let seed = rounding_seed(step_number, start);
                    round_at_random(&m, &v, first, second, seed);
                    floats.give(m);
                    floats.give(v);
                });
            });
        }
        _ => unreachable!("both moments have one format"),
    }
}

/// Muon's directions, one task per matrix.
fn find_directions(cpu: &Cpu, grads: &Grads, moments: &mut Moments, clip: f32) {
    let Moments { layout, first, directions, .. } = moments;
    if directions.is_empty() {
        let ids = layout.ids().filter(|&id| layout.spec(id).role == Role::Hidden);
        directions.extend(ids.map(|id| (id, Buffer::zeros(layout.range(id).len()))));
    }
    let first = &*first;
    parallel::for_each(cpu, directions, &|_, (id, direction)| {
        let range = layout.range(*id);
        let [rows, cols] = layout.spec(*id).shape[..] else {
            panic!("a hidden matrix has two dimensions")
        };
        cpu.with_task_memory(|floats| {
            let g = &grads.data[range.clone()];
            match first {
                Moment::F32(first) => {
                    muon::direction(&first[range], g, clip, rows, cols, direction, floats);
                }
                Moment::Bf16(halves) => {
                    let mut m = floats.take(range.len());
                    widen(&halves[range], &mut m);
                    muon::direction(&m, g, clip, rows, cols, direction, floats);
                    floats.give(m);
                }
            }
        });
    });
}

/// Factors of an update that all parameters share.
#[derive(Clone, Copy)]
struct AdamWStep {
    /// Factor on the gradient.
    clip: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    /// Learning rate over the first moment's bias correction.
    step_size: f32,
    /// Square root of the second moment's bias correction.
    second_correction: f32,
}

vectorised! {
    /// Updates parameters and moments; `keep` is `1 - lr · weight_decay`.
    fn adamw<'a, S>(
        p: &'a mut [f32],
        m: &'a mut [f32],
        v: &'a mut [f32],
        g: &'a [f32],
        keep: f32,
        step: AdamWStep,
    ) {
        let AdamWStep { clip, beta1, beta2, eps, step_size, second_correction } = step;
        for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
            let g = g * clip;
            *m += (1.0 - beta1) * (g - *m);
            *v = *v * beta2 + (1.0 - beta2) * g * g;
            let denominator = v.sqrt() / second_correction + eps;
            *p = *p * keep - step_size * (*m / denominator);
        }
    }
}

vectorised! {
    /// Moments as f32.
    fn widen<'a, S>(halves: &'a [u16], numbers: &'a mut [f32]) {
        for (number, half) in numbers.iter_mut().zip(halves) {
            *number = f32::from_bits(u32::from(*half) << 16);
        }
    }
}

/// Seed of the rounding of a chunk of moments at a step. The numbers of a chunk take consecutive
/// seeds.
fn rounding_seed(step: u64, first: usize) -> u32 {
    // The golden ratio spreads the steps over all seeds (Knuth, volume 3, section 6.4).
    (step as u32).wrapping_mul(0x9e37_79b9).wrapping_add(first as u32)
}

/// A permutation of the 32-bit numbers whose bits look random (`lowbias32` of Wellons 2018,
/// <https://nullprogram.com/blog/2018/07/31/>).
#[inline(always)]
fn mix(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

vectorised! {
    /// Rounds both moments to bf16, up with the probability of the part that is cut off, else down:
    /// the mean is the number itself. The same seed gives the same bits.
    fn round_at_random<'a, S>(
        m: &'a [f32],
        v: &'a [f32],
        first: &'a mut [u16],
        second: &'a mut [u16],
        seed: u32,
    ) {
        let moments = m.iter().zip(v).zip(first.iter_mut().zip(second));
        for (i, ((m, v), (first, second))) in moments.enumerate() {
            let random = mix(seed.wrapping_add(i as u32));
            *first = ((m.to_bits().wrapping_add(random & 0xffff)) >> 16) as u16;
            *second = ((v.to_bits().wrapping_add(random >> 16)) >> 16) as u16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_at_random_keeps_the_mean() {
        const N: usize = 40_000;
        // A quarter of a bf16 step above 1, and exact numbers.
        for (number, tolerance) in [(1.0 + 1.0 / 512.0, 1e-4), (-3.0e-5, 0.0), (0.0, 0.0)] {
            let number = if tolerance == 0.0 { exact(number) } else { number };
            let numbers = vec![number; N];
            let (mut first, mut second) = (vec![0; N], vec![0; N]);
            round_at_random(&numbers, &numbers, &mut first, &mut second, 7);
            for halves in [&first, &second] {
                let mut wide = vec![0.0; N];
                widen(halves, &mut wide);
                let mean = wide.iter().map(|&x| f64::from(x)).sum::<f64>() / N as f64;
                assert!((mean - f64::from(number)).abs() <= tolerance, "{number}: {mean}");
            }
            assert!(tolerance == 0.0 || first != second, "both moments were rounded alike");
        }
    }

    fn exact(number: f32) -> f32 {
        f32::from_bits(number.to_bits() & 0xffff_0000)
    }

    #[test]
    fn infinity_and_nan_stay_themselves() {
        let numbers = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        for seed in 0..100 {
            let (mut first, mut second) = ([0; 3], [0; 3]);
            round_at_random(&numbers, &numbers, &mut first, &mut second, seed);
            let mut wide = [0.0; 3];
            widen(&first, &mut wide);
            assert_eq!(wide[..2], numbers[..2]);
            assert!(wide[2].is_nan());
        }
    }
}
