//! Attention on several threads: a task is one key/value head of one document with its query heads.
//!
//! A task's columns are gathered from the rows of all heads, run through [`attention`] with a
//! single key/value head, and scattered back. The operations are those of one thread, so the bits
//! are, too.

use std::ops::Range;

use super::attention::{self, Cached, Saved};
use super::device::Cpu;
use super::parallel;
use crate::buffer::{Buffer, Pool};
use crate::op::Attention;

/// All tasks: documents × key/value heads, in this order.
struct HeadTasks<'a> {
    shape: &'a Attention,
    offsets: &'a [u32],
    /// Shape of one task's attention.
    shape_of_task: Attention,
}

impl<'a> HeadTasks<'a> {
    fn new(shape: &'a Attention, offsets: &'a [u32]) -> HeadTasks<'a> {
        let task = Attention { heads: shape.heads / shape.kv_heads, kv_heads: 1, ..*shape };
        HeadTasks { shape, offsets, shape_of_task: task }
    }

    fn all(&self) -> Range<usize> {
        0..(self.offsets.len() - 1) * self.shape.kv_heads
    }

    /// The rows of a task's document, and its key/value head.
    fn rows_and_head(&self, task: usize) -> (Range<usize>, usize) {
        let document = task / self.shape.kv_heads;
        let rows = self.offsets[document] as usize..self.offsets[document + 1] as usize;
        (rows, task % self.shape.kv_heads)
    }

    /// Index of a task's first result in a buffer ordered by task, with `width` columns a head.
    fn start(&self, task: usize, width: usize) -> usize {
        let (rows, head) = match task {
            end if end == self.all().end => (self.offsets[self.offsets.len() - 1] as usize..0, 0),
            task => self.rows_and_head(task),
        };
        let length = rows.end.saturating_sub(rows.start);
        (rows.start * self.shape.kv_heads + length * head) * width
    }

    /// The sinks of a task's query heads; none of none.
    fn sinks<'s>(&self, task: usize, sinks: &'s [f32]) -> &'s [f32] {
        let (heads, (_, head)) = (self.shape_of_task.heads, self.rows_and_head(task));
        sinks.get(head * heads..(head + 1) * heads).unwrap_or_default()
    }

    /// A task's columns of `x`, which has `width` columns a head.
    fn gather(&self, task: usize, x: &[f32], width: usize, floats: &mut Pool<f32>) -> Buffer<f32> {
        let (rows, head) = self.rows_and_head(task);
        let stride = self.shape.kv_heads * width;
        let mut columns = floats.take(rows.len() * width);
        let rows = x[rows.start * stride..rows.end * stride].chunks_exact(stride);
        for (to, row) in columns.chunks_exact_mut(width).zip(rows) {
            to.copy_from_slice(&row[head * width..][..width]);
        }
        columns
    }

    /// Scatters results ordered by task into their columns of `to`.
    fn scatter(&self, results: &[f32], width: usize, to: &mut [f32]) {
        let stride = self.shape.kv_heads * width;
        for task in self.all() {
            let (rows, head) = self.rows_and_head(task);
            let results = &results[self.start(task, width)..self.start(task + 1, width)];
            let rows = to[rows.start * stride..rows.end * stride].chunks_exact_mut(stride);
            for (from, row) in results.chunks_exact(width).zip(rows) {
                row[head * width..][..width].copy_from_slice(from);
            }
        }
    }

    /// Runs `f(task, results)` for `tasks`; `results` start at the first of them and have `widths`
    /// columns a head.
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
        let cuts = widths.map(|width| self.start(middle, width) - self.start(tasks.start, width));
        let (left, right) = parallel::split(results, cuts);
        rayon::join(
            || self.run(tasks.start..middle, widths, left, f),
            || self.run(middle..tasks.end, widths, right, f),
        );
    }
}

/// [`attention::forward`] on the device's threads.
pub(crate) fn forward(
    cpu: &Cpu,
    [q, k, v]: [&[f32]; 3],
    shape: &Attention,
    sinks: &[f32],
    offsets: &[u32],
    out: &mut [f32],
    lse: &mut [f32],
    floats: &mut Pool<f32>,
) {
    let tasks = HeadTasks::new(shape, offsets);
    let &Attention { heads, qk_dim, v_dim, .. } = &tasks.shape_of_task;
    let (mut results, mut sums) = (floats.take(out.len()), floats.take(lse.len()));
    tasks.run(
        tasks.all(),
        [heads * v_dim, heads],
        [&mut results, &mut sums],
        &|task, [out, lse]| {
            cpu.with_task_memory(|floats| {
                let inputs = [(q, heads * qk_dim), (k, qk_dim), (v, v_dim)];
                let inputs = inputs.map(|(x, width)| tasks.gather(task, x, width, floats));
                let [q, k, v] = &inputs;
                let offsets = [0, tasks.rows_and_head(task).0.len() as u32];
                let (shape, sinks) = (&tasks.shape_of_task, tasks.sinks(task, sinks));
                attention::forward(q, k, v, shape, sinks, &offsets, out, lse, cpu, floats);
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
pub(crate) fn cached(cpu: &Cpu, cached: &Cached<'_>, out: &mut [f32], floats: &mut Pool<f32>) {
    let tasks = HeadTasks::new(cached.shape, cached.offsets);
    let &Attention { heads, qk_dim, v_dim, .. } = &tasks.shape_of_task;
    let mut results = floats.take(out.len());
    tasks.run(tasks.all(), [heads * v_dim], [&mut results], &|task, [out]| {
        cpu.with_task_memory(|floats| {
            let q = tasks.gather(task, cached.q, heads * qk_dim, floats);
            let (document, head) = (task / cached.shape.kv_heads, tasks.rows_and_head(task).1);
            cached.attend(document, head..head + 1, &q, out, floats);
            floats.give(q);
        });
    });
    tasks.scatter(&results, heads * v_dim, out);
    floats.give(results);
}

/// [`attention::backward`] on the device's threads; writes the `grads` of q, k and v.
pub(crate) fn backward(
    cpu: &Cpu,
    saved: &Saved<'_>,
    shape: &Attention,
    offsets: &[u32],
    dout: &[f32],
    grads: [&mut [f32]; 3],
    floats: &mut Pool<f32>,
) {
    let tasks = HeadTasks::new(shape, offsets);
    let &Attention { heads, qk_dim, v_dim, .. } = &tasks.shape_of_task;
    let widths = [heads * qk_dim, qk_dim, v_dim];
    let mut results: [_; 3] = std::array::from_fn(|i| floats.take(grads[i].len()));
    let [dq, dk, dv] = &mut results;
    tasks.run(tasks.all(), widths, [dq, dk, dv], &|task, [dq, dk, dv]| {
        cpu.with_task_memory(|floats| {
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
            let offsets = [0, tasks.rows_and_head(task).0.len() as u32];
            dk.fill(0.0);
            dv.fill(0.0);
            attention::backward(
                &saved,
                &tasks.shape_of_task,
                &offsets,
                dout,
                dq,
                dk,
                dv,
                cpu,
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
