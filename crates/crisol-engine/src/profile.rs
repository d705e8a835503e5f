//! Where the time of a step goes: seconds and FLOPs per kind of operation, summed over threads.
//!
//! Off by default; then it costs two loads of a flag per operation.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::op::Op;

/// Defines [`Part`] and its names from one table: work outside the tape, and operations of the tape
/// with a forward and a backward part each.
macro_rules! parts {
    (
        other { $($(#[$meta:meta])* $other:ident = $other_name:literal,)* }
        operations { $($operation:ident = $name:literal: $($op:ident)|+,)* }
    ) => {
        /// What time is counted under.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Part {
            $($(#[$meta])* $other,)*
            /// Forward of an operation.
            Forward(Operation),
            /// Backward of an operation.
            Backward(Operation),
        }

        /// Kinds of operations that are counted apart.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Operation { $($operation,)* }

        /// Work outside the tape.
        #[derive(Clone, Copy)]
        enum Other { $($other,)* }

        /// Names of all parts, by [`Part::index`].
        const NAMES: &[&str] = &[
            $($other_name,)*
            $(concat!($name, " forward"), concat!($name, " backward"),)*
        ];
        const OTHERS: usize = [$($other_name),*].len();

        impl Operation {
            fn of(op: &Op) -> Operation {
                match op { $($(Op::$op { .. })|+ => Operation::$operation,)* }
            }
        }

        impl Part {
            fn index(self) -> usize {
                match self {
                    $(Part::$other => Other::$other as usize,)*
                    Part::Forward(operation) => OTHERS + 2 * operation as usize,
                    Part::Backward(operation) => OTHERS + 2 * operation as usize + 1,
                }
            }
        }
    };
}

parts! {
    other {
        /// Gradient copies: zeroed before a step and summed after it.
        Replicas = "gradients zeroed and summed",
        /// The optimizer's step.
        Optimizer = "optimizer",
        /// Attention over a cache.
        CachedAttention = "cached attention",
        /// Drawing tokens from logits.
        Sampling = "sampling",
    }
    operations {
        Embedding = "embedding": Embedding,
        Linear = "linear": Linear,
        Residual = "residual": Add,
        Norm = "norm": RmsNorm | LayerNorm,
        Scale = "scale": Scale | SoftCap,
        Rope = "rope": Rope,
        Attention = "attention": Attention,
        Activation = "activation": Gated | Gelu,
        SelectRows = "rows": SelectRows,
        TokenScores = "head and loss": TokenScores,
        Experts = "experts": Router | GroupedLinear | ScaleRows | SumRows,
        ConcatHeads = "columns": ConcatHeads,
    }
}

impl Part {
    pub(crate) fn forward(op: &Op) -> Part {
        Part::Forward(Operation::of(op))
    }

    pub(crate) fn backward(op: &Op) -> Part {
        Part::Backward(Operation::of(op))
    }
}

/// Time and work of one part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profiled {
    /// The operation, and whether forward or backward.
    pub name: &'static str,
    /// Seconds, summed over threads.
    pub seconds: f64,
    /// FLOPs of its GEMMs as papers count them: two per multiply-add, attention without the causal
    /// mask's savings, nothing for recomputation in backward.
    pub flops: f64,
}

/// Time and work by part.
#[derive(Debug)]
pub(crate) struct Profile {
    on: AtomicBool,
    counters: [Counter; NAMES.len()],
}

impl Default for Profile {
    fn default() -> Profile {
        let counters = std::array::from_fn(|_| Counter::default());
        Profile { on: AtomicBool::new(false), counters }
    }
}

#[derive(Debug, Default)]
struct Counter {
    nanoseconds: AtomicU64,
    flops: AtomicU64,
}

impl Profile {
    /// Resets all counters and counts from now on.
    pub(crate) fn start(&self) {
        for counter in &self.counters {
            counter.nanoseconds.store(0, Ordering::Relaxed);
            counter.flops.store(0, Ordering::Relaxed);
        }
        self.on.store(true, Ordering::Relaxed);
    }

    /// Stops counting and returns every part that took any time.
    pub(crate) fn stop(&self) -> Vec<Profiled> {
        self.on.store(false, Ordering::Relaxed);
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        let parts = NAMES.iter().zip(&self.counters).map(|(&name, counter)| Profiled {
            name,
            seconds: load(&counter.nanoseconds) * 1e-9,
            flops: load(&counter.flops),
        });
        parts.filter(|part| part.seconds > 0.0).collect()
    }

    /// Adds FLOPs to `part`.
    pub(crate) fn work(&self, part: Part, flops: impl FnOnce() -> u64) {
        if self.on.load(Ordering::Relaxed) {
            self.counters[part.index()].flops.fetch_add(flops(), Ordering::Relaxed);
        }
    }

    /// Runs `f`, which occupies `threads` threads, and adds its time to `part`.
    pub(crate) fn time<T>(&self, part: Part, threads: usize, f: impl FnOnce() -> T) -> T {
        if !self.on.load(Ordering::Relaxed) {
            return f();
        }
        let start = Instant::now();
        let result = f();
        let elapsed = start.elapsed().as_nanos() as u64 * threads as u64;
        self.counters[part.index()].nanoseconds.fetch_add(elapsed, Ordering::Relaxed);
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
            profile.work(Part::Optimizer, || 7);
            profile.time(Part::Optimizer, 2, || std::thread::sleep(Duration::from_millis(2)));
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

    #[test]
    fn the_first_and_last_part_have_their_names() {
        for (part, name) in [
            (Part::Replicas, "gradients zeroed and summed"),
            (Part::Sampling, "sampling"),
            (Part::Forward(Operation::Embedding), "embedding forward"),
            (Part::Backward(Operation::ConcatHeads), "columns backward"),
        ] {
            assert_eq!(NAMES[part.index()], name);
        }
        assert_eq!(Part::Backward(Operation::ConcatHeads).index() + 1, NAMES.len());
    }
}
