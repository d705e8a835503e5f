//! Attention on several threads: one head of keys and values of one document, with its queries, is a task of work.
//!
//! A task is copied out of the rows of all heads and its results are copied back, which costs little beside the work, and
//! is then computed as attention with a single head of keys and values: the same operations, so the same bits.

use std::ops::Range;

use super::attention::{self, Cached, Saved};
use crate::workspace::{Buffer, Pool};
use crate::{Attention, Device, parallel};

/// Documents and their heads, task after task.
struct HeadTasks<'a> {
    shape: &'a Attention,
    offsets: &'a [u32],
    /// Attention of one task.
    task: Attention,
}

impl<'a> HeadTasks<'a> {
    fn new(shape: &'a Attention, offsets: &'a [u32]) -> HeadTasks<'a> {
        let task = Attention { heads: shape.heads / shape.kv_heads, kv_heads: 1, ..*shape };
        HeadTasks { shape, offsets, task }
    }

    fn all(&self) -> Range<usize> {
        0..(self.offsets.len() - 1) * self.shape.kv_heads
    }

    /// Rows of a task's document, and its head.
    fn of(&self, task: usize) -> (Range<usize>, usize) {
        let document = task / self.shape.kv_heads;
        let rows = self.offsets[document] as usize..self.offsets[document + 1] as usize;
        (rows, task % self.shape.kv_heads)
    }

    /// Where a task starts among results that lie task after task, with `width` columns a head.
    fn start(&self, task: usize, width: usize) -> usize {
        let (rows, head) = match task {
            end if end == self.all().end => (self.offsets[self.offsets.len() - 1] as usize..0, 0),
            task => self.of(task),
        };
        let length = rows.end.saturating_sub(rows.start);
        (rows.start * self.shape.kv_heads + length * head) * width
    }

    /// A task's columns of `x`, which has `width` of them a head.
    fn gather(&self, task: usize, x: &[f32], width: usize, floats: &mut Pool<f32>) -> Buffer<f32> {
        let (rows, head) = self.of(task);
        let stride = self.shape.kv_heads * width;
        let mut columns = floats.take(rows.len() * width);
        let rows = x[rows.start * stride..rows.end * stride].chunks_exact(stride);
        for (to, row) in columns.chunks_exact_mut(width).zip(rows) {
            to.copy_from_slice(&row[head * width..][..width]);
        }
        columns
    }

    /// Puts the results of all tasks, which lie task after task, into their columns.
    fn scatter(&self, results: &[f32], width: usize, to: &mut [f32]) {
        let stride = self.shape.kv_heads * width;
        for task in self.all() {
            let (rows, head) = self.of(task);
            let results = &results[self.start(task, width)..self.start(task + 1, width)];
            let rows = to[rows.start * stride..rows.end * stride].chunks_exact_mut(stride);
            for (from, row) in results.chunks_exact(width).zip(rows) {
                row[head * width..][..width].copy_from_slice(from);
            }
        }
    }

    /// Runs `f(task, its parts of results)` for some tasks; `results` start with the first of them and have so many columns
    /// a head (`widths`).
    fn run<const N: usize>(
        &self,
        tasks: Range<usize>,
        widths: [usize; N],
        results: [&mut [f32]; N],
        f: &(impl Fn(usize, [&mut [f32]; N]) + Sync),
    ) {
        if tasks.len() <= 1 {
            if !tasks.is_empty() {
                f(tasks.start, results);
            }
            return;
        }
        let middle = tasks.start + tasks.len() / 2;
        let places = widths.map(|width| self.start(middle, width) - self.start(tasks.start, width));
        let (left, right) = parallel::split(results, places);
        rayon::join(
            || self.run(tasks.start..middle, widths, left, f),
            || self.run(middle..tasks.end, widths, right, f),
        );
    }
}

/// [`attention::forward`] on the device's threads.
pub(crate) fn forward(
    device: &Device,
    [q, k, v]: [&[f32]; 3],
    shape: &Attention,
    offsets: &[u32],
    out: &mut [f32],
    lse: &mut [f32],
    floats: &mut Pool<f32>,
) {
    let tasks = HeadTasks::new(shape, offsets);
    let &Attention { heads, qk_dim, v_dim, .. } = &tasks.task;
    let (mut results, mut sums) = (floats.take(out.len()), floats.take(lse.len()));
    tasks.run(
        tasks.all(),
        [heads * v_dim, heads],
        [&mut results, &mut sums],
        &|task, [out, lse]| {
            device.with_task_workspace(|workspace| {
                let floats = &mut workspace.floats;
                let inputs = [(q, heads * qk_dim), (k, qk_dim), (v, v_dim)];
                let inputs = inputs.map(|(x, width)| tasks.gather(task, x, width, floats));
                let [q, k, v] = &inputs;
                let offsets = [0, tasks.of(task).0.len() as u32];
                attention::forward(
                    q,
                    k,
                    v,
                    &tasks.task,
                    &offsets,
                    out,
                    lse,
                    device.interrupt(),
                    floats,
                );
                for buffer in inputs {
                    floats.give(buffer);
                }
            });
        },
    );
    tasks.scatter(&results, heads * v_dim, out);
    tasks.scatter(&sums, heads, lse);
    floats.give(results);
    floats.give(sums);
}

/// [`Cached::attend_all`] on the device's threads.
pub(crate) fn cached(
    device: &Device,
    cached: &Cached<'_>,
    out: &mut [f32],
    floats: &mut Pool<f32>,
) {
    let tasks = HeadTasks::new(cached.shape, cached.offsets);
    let &Attention { heads, qk_dim, v_dim, .. } = &tasks.task;
    let mut results = floats.take(out.len());
    tasks.run(tasks.all(), [heads * v_dim], [&mut results], &|task, [out]| {
        device.with_task_workspace(|workspace| {
            let floats = &mut workspace.floats;
            let q = tasks.gather(task, cached.q, heads * qk_dim, floats);
            let (document, head) = (task / cached.shape.kv_heads, tasks.of(task).1);
            cached.attend(document, head..head + 1, &q, out, floats);
            floats.give(q);
        });
    });
    tasks.scatter(&results, heads * v_dim, out);
    floats.give(results);
}

/// [`attention::backward`] on the device's threads; `grads` of q, k and v are written.
pub(crate) fn backward(
    device: &Device,
    saved: &Saved<'_>,
    shape: &Attention,
    offsets: &[u32],
    dout: &[f32],
    grads: [&mut [f32]; 3],
    floats: &mut Pool<f32>,
) {
    let tasks = HeadTasks::new(shape, offsets);
    let &Attention { heads, qk_dim, v_dim, .. } = &tasks.task;
    let widths = [heads * qk_dim, qk_dim, v_dim];
    let mut results: [_; 3] = std::array::from_fn(|i| floats.take(grads[i].len()));
    let [dq, dk, dv] = &mut results;
    tasks.run(tasks.all(), widths, [dq, dk, dv], &|task, [dq, dk, dv]| {
        device.with_task_workspace(|workspace| {
            let floats = &mut workspace.floats;
            let inputs = [
                (saved.q, heads * qk_dim),
                (saved.k, qk_dim),
                (saved.v, v_dim),
                (saved.out, heads * v_dim),
                (saved.lse, heads),
                (dout, heads * v_dim),
            ];
            let inputs = inputs.map(|(x, width)| tasks.gather(task, x, width, floats));
            let [q, k, v, out, lse, dout] = &inputs;
            let saved = Saved { q, k, v, out, lse };
            let offsets = [0, tasks.of(task).0.len() as u32];
            dk.fill(0.0);
            dv.fill(0.0);
            attention::backward(
                &saved,
                &tasks.task,
                &offsets,
                dout,
                dq,
                dk,
                dv,
                device.interrupt(),
                floats,
            );
            for buffer in inputs {
                floats.give(buffer);
            }
        });
    });
    for ((result, grad), width) in results.into_iter().zip(grads).zip(widths) {
        tasks.scatter(&result, width, grad);
        floats.give(result);
    }
}
