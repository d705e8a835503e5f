//! The processor: its threads, and the memory that their tasks reuse.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::gemm;
use super::math::sum;
use super::parallel;
use crate::backend::ThreadSpawnError;
use crate::buffer::Pool;
use crate::interrupt::Interrupt;
use crate::precision::Precision;

/// Tasks per thread that an operation is split into.
const TASKS_PER_THREAD: usize = 2;

/// Floats read to measure the memory bandwidth: 1 GiB, more than any cache.
const BANDWIDTH_FLOATS: usize = 256 << 20;

/// Unsuccessful polls for work, a few microseconds, before a helper yields its core.
const SPIN_POLLS: usize = 1000;
/// Unsuccessful polls, a few milliseconds, before a helper sleeps between polls: the caller waits
/// for something other than the processor.
const YIELD_POLLS: usize = 20_000;
/// Sleep between polls.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The CPU, with a thread pool of its own. Clones share it, and may differ in precision.
#[derive(Clone, Debug)]
pub(crate) struct Cpu {
    threads: Arc<Threads>,
    precision: Precision,
}

#[derive(Debug)]
struct Threads {
    /// `None`: everything runs on the calling thread.
    pool: Option<rayon::ThreadPool>,
    /// Memory of tasks within operations.
    idle: Mutex<Vec<Pool<f32>>>,
    interrupt: Interrupt,
}

fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Cpu {
    /// With so many threads; `None`: one per available core.
    pub(crate) fn start(
        threads: Option<usize>,
        interrupt: Interrupt,
    ) -> Result<Cpu, ThreadSpawnError> {
        let threads = threads.unwrap_or_else(available_threads);
        let pool = (threads > 1).then(|| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.thread_name(|i| format!("crisol-cpu-{i}")).build()
        });
        let pool = pool
            .transpose()
            .map_err(|cause| ThreadSpawnError { threads, cause: cause.to_string() })?;
        let threads = Arc::new(Threads { pool, idle: Mutex::default(), interrupt });
        Ok(Cpu { threads, precision: Precision::F32 })
    }

    /// One thread.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Cpu {
        Cpu::start(Some(1), Interrupt::default()).expect("it starts no thread")
    }

    /// The same processor with another precision of products.
    pub(crate) fn with_precision(&self, precision: Precision) -> Cpu {
        Cpu { threads: Arc::clone(&self.threads), precision }
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    pub(crate) fn interrupt(&self) -> &Interrupt {
        &self.threads.interrupt
    }

    pub(crate) fn thread_count(&self) -> usize {
        self.threads.pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// Runs `f(parallel)` in the thread pool; `parallel` is whether there is more than one thread.
    pub(crate) fn install<T: Send>(&self, f: impl FnOnce(bool) -> T + Send) -> T {
        match &self.threads.pool {
            Some(pool) => pool.install(|| f(true)),
            None => f(false),
        }
    }

    /// Lends memory to a task within an operation.
    pub(crate) fn with_task_memory<T>(&self, f: impl FnOnce(&mut Pool<f32>) -> T) -> T {
        let lent = self.threads.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut floats = lent.unwrap_or_default();
        let result = f(&mut floats);
        self.threads.idle.lock().unwrap_or_else(PoisonError::into_inner).push(floats);
        result
    }
}

/// See [`crate::backend::Backend::tasks_per_item`].
pub(crate) fn tasks_per_item(cpu: &Cpu, items: usize) -> usize {
    if items < cpu.thread_count() { TASKS_PER_THREAD * cpu.thread_count() } else { 1 }
}

/// See [`crate::backend::Backend::share`].
pub(crate) fn share<T: Send>(cpu: &Cpu, f: impl FnOnce() -> T + Send) -> T {
    cpu.install(|parallel| {
        if !parallel {
            return f();
        }
        let (caller, awake) = (rayon::current_thread_index(), HelperLoop(AtomicBool::new(true)));
        rayon::scope(|scope| {
            scope.spawn_broadcast(|_, context| {
                // The caller may run this while it waits for another thread.
                if Some(context.index()) != caller {
                    awake.help();
                }
            });
            let _asleep_afterwards = StopOnDrop(&awake);
            f()
        })
    })
}

/// See [`crate::backend::Backend::gemm_rate`].
pub(crate) fn gemm_rate(cpu: &Cpu, [rows, inner, cols]: [usize; 3], duration: Duration) -> f64 {
    let mut rates = vec![0.0; cpu.thread_count()];
    parallel::for_each(cpu, &mut rates, &|_, rate| {
        *rate = gemm::gemm_rate(cpu.precision(), rows, inner, cols, duration);
    });
    rates.iter().sum()
}

/// See [`crate::backend::Backend::read_bandwidth`].
pub(crate) fn read_bandwidth(cpu: &Cpu, duration: Duration) -> f64 {
    let memory = vec![1.0; BANDWIDTH_FLOATS];
    let part = BANDWIDTH_FLOATS.div_ceil(cpu.thread_count());
    let mut parts: Vec<&[f32]> = memory.chunks(part).collect();
    let (start, mut times) = (Instant::now(), 0);
    while start.elapsed() < duration {
        parallel::for_each(cpu, &mut parts, &|_, part| {
            std::hint::black_box(sum(part));
        });
        times += 1;
    }
    (times * memory.len() * size_of::<f32>()) as f64 / start.elapsed().as_secs_f64()
}

/// Whether helper threads keep polling.
struct HelperLoop(AtomicBool);

impl HelperLoop {
    /// Runs tasks of other threads until the flag is cleared.
    ///
    /// Returns the number of polls.
    fn help(&self) -> usize {
        let (mut polls, mut idle) = (0, 0);
        while self.0.load(Ordering::Acquire) {
            polls += 1;
            idle = if rayon::yield_now() == Some(rayon::Yield::Executed) { 0 } else { idle + 1 };
            if idle > YIELD_POLLS {
                std::thread::sleep(POLL_INTERVAL);
            } else if idle > SPIN_POLLS {
                // There may be more threads than cores.
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        polls
    }
}

/// Ends the helper loops when dropped, also by a panic.
struct StopOnDrop<'a>(&'a HelperLoop);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Helpers of a stalled caller must not cost a core.
    #[test]
    fn threads_without_work_go_to_sleep() {
        let awake = HelperLoop(AtomicBool::new(true));
        let polls = std::thread::scope(|scope| {
            let helper = scope.spawn(|| awake.help());
            std::thread::sleep(Duration::from_millis(500));
            drop(StopOnDrop(&awake));
            helper.join().expect("it does not panic")
        });
        assert!(polls < YIELD_POLLS + 1000, "{polls}");
    }
}
