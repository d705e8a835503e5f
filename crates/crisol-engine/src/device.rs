//! Where memory and threads live.

use std::sync::Arc;

/// A device is a value that is passed around, not a type parameter that leaks into models and phases.
/// Cloning is cheap and gives the same device.
#[derive(Clone, Debug)]
pub enum Device {
    /// The processor, with a thread pool of its own.
    Cpu(Arc<rayon::ThreadPool>),
}

impl Device {
    /// The CPU with `threads` threads (`None`: one per available core).
    pub fn cpu(_threads: Option<usize>) -> Device {
        todo!()
    }

    /// Number of worker threads.
    pub fn threads(&self) -> usize {
        todo!()
    }

    /// Runs `f(i, workspace)` for every `i` in `0..n` in parallel and returns the results in order.
    /// For inference and evaluation: each call is one fixed piece of work, single-threaded inside.
    pub fn map<T: Send>(&self, _n: usize, _f: impl Fn(usize, &mut Workspace) -> T + Sync) -> Vec<T> {
        todo!()
    }
}

/// Recycled memory for one tape at a time: after the first step of a shape nothing is allocated.
#[derive(Debug)]
pub struct Workspace {}

impl Workspace {
    /// An empty workspace on `device`.
    pub fn new(_device: &Device) -> Workspace {
        todo!()
    }
}
