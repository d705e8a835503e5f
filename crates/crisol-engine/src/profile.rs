//! Where the time of a step goes, and its work: seconds and floating-point operations per kind of operation, summed over threads.
//!
//! Switched off, as it is at first, it costs two loads of a flag per operation.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::op::Op;

/// What time is counted under.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part(usize);

impl Part {
    /// Gradient copies: zeroed before a step and summed after it.
    pub(crate) const REPLICAS: Part = Part(0);
    /// The optimizer's step.
    pub(crate) const OPTIMIZER: Part = Part(1);

    /// Attention over a cache.
    pub(crate) const CACHED_ATTENTION: Part = Part(2 + 2 * 11);

    pub(crate) fn forward(op: &Op) -> Part {
        Part(2 + 2 * kind(op))
    }

    pub(crate) fn backward(op: &Op) -> Part {
        Part(3 + 2 * kind(op))
    }
}

fn kind(op: &Op) -> usize {
    match op {
        Op::Embedding { .. } => 0,
        Op::Linear { .. } => 1,
        Op::Add { .. } => 2,
        Op::RmsNorm { .. } => 3,
        Op::Rope { .. } => 4,
        Op::Attention { .. } => 5,
        Op::SwiGlu { .. } => 6,
        Op::SelectRows { .. } => 7,
        Op::TokenScores { .. } => 8,
        Op::Router { .. }
        | Op::GroupedLinear { .. }
        | Op::ScaleRows { .. }
        | Op::SumRows { .. } => 9,
        Op::ConcatHeads { .. } => 10,
    }
}

/// Names of the parts, by number.
const NAMES: [&str; 25] = [
    "gradients zeroed and summed",
    "optimizer",
    "embedding forward",
    "embedding backward",
    "linear forward",
    "linear backward",
    "residual forward",
    "residual backward",
    "norm forward",
    "norm backward",
    "rope forward",
    "rope backward",
    "attention forward",
    "attention backward",
    "swiglu forward",
    "swiglu backward",
    "rows forward",
    "rows backward",
    "head and loss forward",
    "head and loss backward",
    "experts forward",
    "experts backward",
    "columns forward",
    "columns backward",
    "cached attention",
];

/// What one kind of operation took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profiled {
    /// The kind, and whether forward or backward.
    pub name: &'static str,
    /// Seconds, summed over threads.
    pub seconds: f64,
    /// Floating-point operations of its matrix products, by the convention of published figures: a multiplication and an addition are
    /// two, attention counts whole although what comes after a token is skipped, and what is computed again for backward does not
    /// count.
    pub flops: f64,
}

/// Time and work by part.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    on: AtomicBool,
    nanoseconds: [AtomicU64; NAMES.len()],
    flops: [AtomicU64; NAMES.len()],
}

impl Profile {
    /// Forgets what was counted, and counts from now on.
    pub(crate) fn start(&self) {
        for count in self.nanoseconds.iter().chain(&self.flops) {
            count.store(0, Ordering::Relaxed);
        }
        self.on.store(true, Ordering::Relaxed);
    }

    /// Stops counting and returns every part that took any time.
    pub(crate) fn stop(&self) -> Vec<Profiled> {
        self.on.store(false, Ordering::Relaxed);
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        let parts = NAMES.into_iter().zip(&self.nanoseconds).zip(&self.flops);
        let parts = parts.map(|((name, time), flops)| Profiled {
            name,
            seconds: load(time) * 1e-9,
            flops: load(flops),
        });
        parts.filter(|part| part.seconds > 0.0).collect()
    }

    /// Counts work under `part`.
    pub(crate) fn work(&self, part: Part, flops: impl FnOnce() -> u64) {
        if self.on.load(Ordering::Relaxed) {
            self.flops[part.0].fetch_add(flops(), Ordering::Relaxed);
        }
    }

    /// Runs `f`, which keeps `threads` threads busy, and counts its time under `part`.
    pub(crate) fn time<T>(&self, part: Part, threads: usize, f: impl FnOnce() -> T) -> T {
        if !self.on.load(Ordering::Relaxed) {
            return f();
        }
        let start = Instant::now();
        let result = f();
        let elapsed = start.elapsed().as_nanos() as u64 * threads as u64;
        self.nanoseconds[part.0].fetch_add(elapsed, Ordering::Relaxed);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn counts_between_start_and_stop_only() {
        let profile = Profile::default();
        let work = || {
            profile.work(Part::OPTIMIZER, || 7);
            profile.time(Part::OPTIMIZER, 2, || std::thread::sleep(Duration::from_millis(2)));
        };
        work();
        assert_eq!(profile.stop(), []);
        profile.start();
        work();
        let parts = profile.stop();
        assert_eq!(parts.len(), 1);
        let Profiled { name, seconds, flops } = parts[0];
        assert!(name == "optimizer" && seconds >= 0.004 && flops == 7.0, "{parts:?}");
        work();
        assert_eq!(profile.stop(), parts);
    }
}
