//! The device: its threads, its workspaces and its profile.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cpu::gemm_rate;
use crate::cpu::math::sum;
use crate::profile::{Profile, Profiled};
use crate::{Interrupt, Workspace, parallel};

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

/// In what precision a device multiplies matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Operands are f32.
    #[default]
    F32,
    /// Operands of matrix products are rounded to bf16, to the nearest, ties to even: in linear
    /// layers, experts, heads and attention, going forward and backward. Sums, softmax, norms,
    /// values, gradients, weights and moments stay f32, and so do the optimizer's own products,
    /// attention of a few new tokens over a cache, and quantised weights times a few rows.
    Bf16,
}

impl Precision {
    /// Its name in recipes and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

/// The device of parameters and operations: a value, not a type parameter of models and phases.
/// Cloning is cheap and gives the same device.
#[derive(Clone, Debug)]
pub enum Device {
    /// The CPU, with a thread pool of its own.
    Cpu(Arc<Cpu>, Precision),
}

/// State of the CPU device.
#[derive(Debug)]
pub struct Cpu {
    /// `None`: everything runs on the calling thread.
    pool: Option<rayon::ThreadPool>,
    /// At most one per thread.
    idle_workspaces: Mutex<Vec<Workspace>>,
    /// A separate pool, so that tasks within an operation do not pin an extra full-size workspace.
    idle_task_workspaces: Mutex<Vec<Workspace>>,
    pub(crate) profile: Profile,
    interrupt: Interrupt,
}

/// The operating system refused to start threads.
#[derive(Clone, Debug)]
pub struct ThreadSpawnError {
    threads: usize,
    cause: String,
}

impl fmt::Display for ThreadSpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ThreadSpawnError { threads, cause } = self;
        write!(
            f,
            "the operating system refuses to start {threads} threads ({cause}); \
             ask for fewer (--threads 1), or raise its limits (`ulimit -u`, `ulimit -v`)"
        )
    }
}

impl std::error::Error for ThreadSpawnError {}

fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Device {
    /// The CPU with `threads` threads (`None`: one per available core).
    ///
    /// # Panics
    /// If the operating system refuses threads; [`Device::start_cpu`] returns the error.
    pub fn cpu(threads: Option<usize>) -> Device {
        Device::start_cpu(threads).expect("the operating system has threads for the device")
    }

    /// As [`Device::cpu`]. Fails if the operating system refuses threads.
    pub fn start_cpu(threads: Option<usize>) -> Result<Device, ThreadSpawnError> {
        let threads = threads.unwrap_or_else(available_threads);
        let pool = (threads > 1).then(|| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.thread_name(|i| format!("crisol-cpu-{i}")).build()
        });
        let pool = pool
            .transpose()
            .map_err(|cause| ThreadSpawnError { threads, cause: cause.to_string() })?;
        let cpu = Cpu {
            pool,
            idle_workspaces: Mutex::default(),
            idle_task_workspaces: Mutex::default(),
            profile: Profile::default(),
            interrupt: Interrupt::default(),
        };
        Ok(Device::Cpu(Arc::new(cpu), Precision::F32))
    }

    /// The same device with another precision, [`Precision::F32`] unless set. Parameters keep the
    /// one that they were made with.
    #[must_use]
    pub fn with_precision(&self, precision: Precision) -> Device {
        let Device::Cpu(cpu, _) = self;
        Device::Cpu(Arc::clone(cpu), precision)
    }

    /// In what precision it multiplies matrices.
    pub fn precision(&self) -> Precision {
        let &Device::Cpu(_, precision) = self;
        precision
    }

    /// The flag that stops this device's computations. Once it is set, results of running work are
    /// unspecified; check it before using them.
    pub fn interrupt(&self) -> &Interrupt {
        let Device::Cpu(cpu, _) = self;
        &cpu.interrupt
    }

    /// Number of worker threads.
    pub fn threads(&self) -> usize {
        let Device::Cpu(cpu, _) = self;
        cpu.pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// Runs `f(i, workspace)` for every `i` in `0..n` in parallel and returns the results in order,
    /// for inference and evaluation. If `n` is less than the number of threads, threads share each
    /// call.
    pub fn map<T: Send>(&self, n: usize, f: impl Fn(usize, &mut Workspace) -> T + Sync) -> Vec<T> {
        let mut results: Vec<Option<T>> = (0..n).map(|_| None).collect();
        let tasks = self.tasks_per_item(n);
        parallel::for_each(self, &mut results, &|i, result| {
            *result = Some(self.with_workspace(tasks, |workspace| f(i, workspace)));
        });
        results.into_iter().map(|result| result.expect("every item was run")).collect()
    }

    /// Runs `f` with its operations shared by all threads. The others poll for tasks meanwhile:
    /// most operations take less time than waking a thread.
    pub fn run<T: Send>(&self, f: impl FnOnce(&mut Workspace) -> T + Send) -> T {
        let tasks = self.tasks_per_item(1);
        self.install(|parallel| {
            if !parallel {
                return self.with_workspace(tasks, f);
            }
            let (caller, awake) =
                (rayon::current_thread_index(), HelperLoop(AtomicBool::new(true)));
            rayon::scope(|scope| {
                scope.spawn_broadcast(|_, context| {
                    // The caller may run this while it waits for another thread.
                    if Some(context.index()) != caller {
                        awake.help();
                    }
                });
                let _asleep_afterwards = StopOnDrop(&awake);
                self.with_workspace(tasks, f)
            })
        })
    }

    /// Starts counting the time of every operation, for benchmarks.
    pub fn start_profile(&self) {
        let Device::Cpu(cpu, _) = self;
        cpu.profile.start();
    }

    /// Stops the profile and returns the time and FLOPs of each kind of operation.
    pub fn stop_profile(&self) -> Vec<Profiled> {
        let Device::Cpu(cpu, _) = self;
        cpu.profile.stop()
    }

    /// FLOPs per second of the GEMM `[rows, inner] · [inner, cols]` in the device's precision, run
    /// by every thread by itself for `duration`. Large shapes give the machine's practical peak.
    pub fn gemm_rate(&self, [rows, inner, cols]: [usize; 3], duration: Duration) -> f64 {
        let rate = |_, _: &mut Workspace| gemm_rate(self.precision(), rows, inner, cols, duration);
        self.map(self.threads(), rate).iter().sum()
    }

    /// Memory bandwidth in bytes per second: all threads read for about `duration`.
    pub fn read_bandwidth(&self, duration: Duration) -> f64 {
        let memory = vec![1.0; BANDWIDTH_FLOATS];
        let parts: Vec<&[f32]> = memory.chunks(BANDWIDTH_FLOATS.div_ceil(self.threads())).collect();
        let (start, mut times) = (Instant::now(), 0);
        while start.elapsed() < duration {
            self.map(parts.len(), |i, _| std::hint::black_box(sum(parts[i])));
            times += 1;
        }
        (times * memory.len() * size_of::<f32>()) as f64 / start.elapsed().as_secs_f64()
    }

    /// Runs `f(parallel)` in the thread pool; `parallel` is whether there is more than one thread.
    pub(crate) fn install<T: Send>(&self, f: impl FnOnce(bool) -> T + Send) -> T {
        let Device::Cpu(cpu, _) = self;
        match &cpu.pool {
            Some(pool) => pool.install(|| f(true)),
            None => f(false),
        }
    }

    /// Number of tasks to split each of `items` items into: 1 if there are enough items, else more
    /// than there are threads, which balances the load.
    pub(crate) fn tasks_per_item(&self, items: usize) -> usize {
        if items < self.threads() { TASKS_PER_THREAD * self.threads() } else { 1 }
    }

    /// Threads that work on an operation of `tasks` tasks.
    pub(crate) fn threads_at(&self, tasks: usize) -> usize {
        if tasks > 1 { self.threads() } else { 1 }
    }

    /// Lends an idle workspace whose operations split into `tasks` tasks. Neither the choice of
    /// workspace nor `tasks` changes a bit of the result.
    pub(crate) fn with_workspace<T>(&self, tasks: usize, f: impl FnOnce(&mut Workspace) -> T) -> T {
        let Device::Cpu(cpu, _) = self;
        self.lend(&cpu.idle_workspaces, tasks, f)
    }

    /// Lends a workspace to a task within an operation.
    pub(crate) fn with_task_workspace<T>(&self, f: impl FnOnce(&mut Workspace) -> T) -> T {
        let Device::Cpu(cpu, _) = self;
        self.lend(&cpu.idle_task_workspaces, 1, f)
    }

    fn lend<T>(
        &self,
        idle: &Mutex<Vec<Workspace>>,
        tasks: usize,
        f: impl FnOnce(&mut Workspace) -> T,
    ) -> T {
        let lent = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut workspace = lent.unwrap_or_else(|| Workspace::new(self));
        workspace.tasks = tasks;
        let result = f(&mut workspace);
        idle.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        result
    }
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

    #[test]
    fn run_shares_work_and_ends() {
        for threads in [1, 2, 5] {
            let device = Device::cpu(Some(threads));
            for i in 0..100 {
                let sum = device.run(|_| {
                    let (a, b) = rayon::join(|| (0..1000u64).sum::<u64>(), || i);
                    a + b
                });
                assert_eq!(sum, 499_500 + i);
            }
            let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                device.run(|_| -> () { panic!("as asked") });
            }));
            assert!(broken.is_err());
        }
    }

    #[test]
    fn map_keeps_the_order_on_any_number_of_threads() {
        for threads in [1, 2, 5] {
            let device = Device::cpu(Some(threads));
            assert_eq!(device.threads(), threads);
            let squares = device.map(37, |i, _| i * i);
            assert_eq!(squares, (0..37).map(|i| i * i).collect::<Vec<_>>());
        }
    }

    #[test]
    fn map_of_nothing_is_empty() {
        assert!(Device::cpu(Some(2)).map(0, |i, _| i).is_empty());
    }
}
