//! Where memory and threads live.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cpu::gemm_rate;
use crate::cpu::math::sum;
use crate::profile::{Profile, Profiled};
use crate::{Interrupt, Workspace, parallel};

/// Tasks for each thread that an operation is cut into.
const TASKS_PER_THREAD: usize = 2;

/// Numbers that all threads together read to measure how fast memory is: 1 GiB, more than caches hold.
const BANDWIDTH_FLOATS: usize = 256 << 20;

/// Fruitless polls for work, some microseconds, before a thread that stays awake offers its core to others.
const SPIN_POLLS: usize = 1000;
/// Fruitless polls, some milliseconds, before it sleeps between polls: the piece of work waits for something else than the
/// processor, such as a reader of what it writes.
const YIELD_POLLS: usize = 20_000;
/// How long it sleeps between polls.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A device is a value that is passed around, not a type parameter that leaks into models and phases.
/// Cloning is cheap and gives the same device.
#[derive(Clone, Debug)]
pub enum Device {
    /// The processor, with a thread pool of its own.
    Cpu(Arc<Cpu>),
}

/// State of the CPU device: its threads and the workspaces they take turns to use.
#[derive(Debug)]
pub struct Cpu {
    /// `None` where everything runs on the calling thread.
    pool: Option<rayon::ThreadPool>,
    /// One per piece of work that runs at the same time, so at most one per thread.
    idle_workspaces: Mutex<Vec<Workspace>>,
    /// The same for parts of one operation. They need little, and a workspace keeps what it has grown to: if they shared the others,
    /// one more than pieces of work would come to have room for a whole piece.
    idle_task_workspaces: Mutex<Vec<Workspace>>,
    pub(crate) profile: Profile,
    interrupt: Interrupt,
}

/// The operating system has no threads to give.
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
            "the operating system refuses to start {threads} threads ({cause}); ask for fewer (--threads 1), or raise its \
             limits (`ulimit -u`, `ulimit -v`)"
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
    /// Where the operating system refuses threads; [`Device::start_cpu`] says so instead.
    pub fn cpu(threads: Option<usize>) -> Device {
        Device::start_cpu(threads).expect("the operating system has threads for the device")
    }

    /// As [`Device::cpu`]; an error where the operating system refuses threads.
    pub fn start_cpu(threads: Option<usize>) -> Result<Device, ThreadSpawnError> {
        let threads = threads.unwrap_or_else(available_threads);
        let pool = (threads > 1).then(|| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.thread_name(|i| format!("crisol-cpu-{i}")).build()
        });
        let pool = pool
            .transpose()
            .map_err(|cause| ThreadSpawnError { threads, cause: cause.to_string() })?;
        Ok(Device::Cpu(Arc::new(Cpu {
            pool,
            idle_workspaces: Mutex::default(),
            idle_task_workspaces: Mutex::default(),
            profile: Profile::default(),
            interrupt: Interrupt::default(),
        })))
    }

    /// The request to stop what the device computes. After one, losses, gradients and hidden states of work that was under way are
    /// unspecified, so whoever asked for them polls at it too.
    pub fn interrupt(&self) -> &Interrupt {
        let Device::Cpu(cpu) = self;
        &cpu.interrupt
    }

    /// Number of worker threads.
    pub fn threads(&self) -> usize {
        let Device::Cpu(cpu) = self;
        cpu.pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// Runs `f(i, workspace)` for every `i` in `0..n` in parallel and returns the results in order.
    /// For inference and evaluation: each call is one fixed piece of work. If there are fewer than threads, threads share it.
    pub fn map<T: Send>(&self, n: usize, f: impl Fn(usize, &mut Workspace) -> T + Sync) -> Vec<T> {
        let mut results: Vec<Option<T>> = (0..n).map(|_| None).collect();
        let tasks = self.tasks_per_item(n);
        parallel::for_each(self, &mut results, &|i, result| {
            *result = Some(self.with_workspace(tasks, |workspace| f(i, workspace)));
        });
        results.into_iter().map(|result| result.expect("every item was run")).collect()
    }

    /// Runs one piece of work, which all threads share. The others stay awake for its operations, most of which take less time than
    /// waking a thread.
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
                    // The caller may come here while it waits for another thread.
                    if Some(context.index()) != caller {
                        awake.help();
                    }
                });
                let _asleep_afterwards = StopOnDrop(&awake);
                self.with_workspace(tasks, f)
            })
        })
    }

    /// Counts the time of every operation from now on, for benchmarks.
    pub fn start_profile(&self) {
        let Device::Cpu(cpu) = self;
        cpu.profile.start();
    }

    /// Ends what [`Device::start_profile`] began: what each kind of operation took.
    pub fn stop_profile(&self) -> Vec<Profiled> {
        let Device::Cpu(cpu) = self;
        cpu.profile.stop()
    }

    /// Operations per second of a product `[rows, inner] · [inner, cols]` that every thread computes for itself over and over
    /// for `duration`, two per multiplication and addition. What large ones reach is what this machine can do.
    pub fn gemm_rate(&self, [rows, inner, cols]: [usize; 3], duration: Duration) -> f64 {
        self.map(self.threads(), |_, _| gemm_rate(rows, inner, cols, duration)).iter().sum()
    }

    /// Bytes per second that all threads together read from memory, measured for about `duration`.
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

    /// Runs `f` within the device's threads; tells it whether there is more than one.
    pub(crate) fn install<T: Send>(&self, f: impl FnOnce(bool) -> T + Send) -> T {
        let Device::Cpu(cpu) = self;
        match &cpu.pool {
            Some(pool) => pool.install(|| f(true)),
            None => f(false),
        }
    }

    /// Into how many tasks each of `pieces` pieces of work is to be cut: one, or a few for each thread if some would be
    /// idle otherwise; more tasks than threads, so that a thread which is held up is helped.
    pub(crate) fn tasks_per_item(&self, pieces: usize) -> usize {
        if pieces < self.threads() { TASKS_PER_THREAD * self.threads() } else { 1 }
    }

    /// Threads that work on an operation which is cut into so many tasks.
    pub(crate) fn threads_at(&self, tasks: usize) -> usize {
        if tasks > 1 { self.threads() } else { 1 }
    }

    /// Lends an idle workspace to a piece of work that is to be cut into so many tasks. Which one it gets, and how many tasks,
    /// never changes its results.
    pub(crate) fn with_workspace<T>(&self, tasks: usize, f: impl FnOnce(&mut Workspace) -> T) -> T {
        let Device::Cpu(cpu) = self;
        self.lend(&cpu.idle_workspaces, tasks, f)
    }

    /// The same to a part of an operation.
    pub(crate) fn with_task_workspace<T>(&self, f: impl FnOnce(&mut Workspace) -> T) -> T {
        let Device::Cpu(cpu) = self;
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

/// Whether threads are to stay awake.
struct HelperLoop(AtomicBool);

impl HelperLoop {
    /// Takes over tasks of other threads until it is no longer set.
    ///
    /// How often it looked for one.
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

/// Lets them sleep when it is dropped, also by a panic.
struct StopOnDrop<'a>(&'a HelperLoop);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that does not read must not cost a core.
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
