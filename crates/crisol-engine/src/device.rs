//! The device of parameters and operations, and the workspaces that it lends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Workspace;
use crate::backend::{Backend, ThreadSpawnError};
use crate::cpu::Cpu;
use crate::interrupt::Interrupt;
use crate::precision::Precision;
use crate::profile::{Profile, Profiled};

/// What computes. A second backend makes this an enum of both that implements [`Backend`] by
/// passing on; nothing else in the engine names a backend.
pub(crate) type OnDevice = Cpu;

/// The device of parameters and operations: a value, not a type parameter of models and phases.
/// Cloning is cheap and gives the same device.
#[derive(Clone, Debug)]
pub struct Device {
    backend: OnDevice,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    interrupt: Interrupt,
    profile: Profile,
    /// At most one per thread.
    idle: Mutex<Vec<Workspace>>,
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
        let interrupt = Interrupt::default();
        let backend = Cpu::start(threads, interrupt.clone())?;
        let (profile, idle) = (Profile::default(), Mutex::default());
        let shared = Arc::new(Shared { interrupt, profile, idle });
        Ok(Device { backend, shared })
    }

    /// The same device with another precision, [`Precision::F32`] unless set. Parameters keep the
    /// one that they were made with.
    #[must_use]
    pub fn with_precision(&self, precision: Precision) -> Device {
        let backend = self.backend.with_precision(precision);
        Device { backend, shared: Arc::clone(&self.shared) }
    }

    /// In what precision it multiplies matrices.
    pub fn precision(&self) -> Precision {
        self.backend.precision()
    }

    pub(crate) fn backend(&self) -> &OnDevice {
        &self.backend
    }

    pub(crate) fn profile(&self) -> &Profile {
        &self.shared.profile
    }

    /// The flag that stops this device's computations. Once it is set, results of running work are
    /// unspecified; check it before using them.
    pub fn interrupt(&self) -> &Interrupt {
        &self.shared.interrupt
    }

    /// Number of worker threads.
    pub fn threads(&self) -> usize {
        self.backend().threads()
    }

    /// Runs `f(i, workspace)` for every `i` in `0..n` in parallel and returns the results in order,
    /// for inference and evaluation. If `n` is less than the number of threads, threads share each
    /// call.
    pub fn map<T: Send>(&self, n: usize, f: impl Fn(usize, &mut Workspace) -> T + Sync) -> Vec<T> {
        let mut results: Vec<Option<T>> = (0..n).map(|_| None).collect();
        let tasks = self.backend().tasks_per_item(n);
        self.backend().for_each(&mut results, &|i, result| {
            *result = Some(self.with_workspace(tasks, |workspace| f(i, workspace)));
        });
        results.into_iter().map(|result| result.expect("every item was run")).collect()
    }

    /// Runs `f` with its operations shared by all threads.
    pub fn run<T: Send>(&self, f: impl FnOnce(&mut Workspace) -> T + Send) -> T {
        let tasks = self.backend().tasks_per_item(1);
        self.backend().share(|| self.with_workspace(tasks, f))
    }

    /// Starts counting the time of every operation, for benchmarks.
    pub fn start_profile(&self) {
        self.profile().start();
    }

    /// Stops the profile and returns the time and FLOPs of each kind of operation.
    pub fn stop_profile(&self) -> Vec<Profiled> {
        self.profile().stop()
    }

    /// FLOPs per second of the GEMM `[rows, inner] · [inner, cols]` in the device's precision, run
    /// by every thread by itself for `duration`. Large shapes give the machine's practical peak.
    pub fn gemm_rate(&self, shape: [usize; 3], duration: Duration) -> f64 {
        self.backend().gemm_rate(shape, duration)
    }

    /// Memory bandwidth in bytes per second: all threads read for about `duration`.
    pub fn read_bandwidth(&self, duration: Duration) -> f64 {
        self.backend().read_bandwidth(duration)
    }

    /// Threads that work on an operation of `tasks` tasks.
    pub(crate) fn threads_at(&self, tasks: usize) -> usize {
        if tasks > 1 { self.threads() } else { 1 }
    }

    /// Lends an idle workspace whose operations split into `tasks` tasks. Neither the choice of
    /// workspace nor `tasks` changes a bit of the result.
    pub(crate) fn with_workspace<T>(&self, tasks: usize, f: impl FnOnce(&mut Workspace) -> T) -> T {
        let idle = &self.shared.idle;
        let lent = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut workspace = lent.unwrap_or_else(|| Workspace::new(self));
        workspace.tasks = tasks;
        let result = f(&mut workspace);
        idle.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
