//! Threads with enough stack for the deepest accepted template.
//!
//! The threads of [`start_text_threads`], which encode records, have it. Other callers send their
//! template to a worker thread and wait. Workers are reused: a process that renders a million
//! records must not start a million threads.

use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error as _;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::TextError;
use crate::panics::catch_panic;

/// Stack of a template in bytes. The bounds on source and values keep templates within a part of
/// it.
const STACK_BYTES: usize = 16 << 20;
/// Additional stack of a pool thread, which runs other tasks while it waits for its own.
const POOL_STACK_BYTES: usize = 2 << 20;
/// Length of one wait for a worker. A suspended process (Ctrl-Z) or machine loses one wait, not the
/// whole timeout.
const WAIT: Duration = Duration::from_millis(50);
/// Waits until the timeout. Fuel stops templates much earlier; what fuel does not cover, such as
/// comparing large values, ends later by itself.
const MAX_WAITS: u32 = 400;

type Work = Box<dyn FnOnce() + Send>;

thread_local! {
    /// Whether this thread has at least [`STACK_BYTES`] of stack.
    static HAS_TEMPLATE_STACK: Cell<bool> = const { Cell::new(false) };
}

/// Starts the threads that read and encode text; by default one per core.
///
/// Call it before any text is encoded; later calls of the process have no effect.
pub fn start_text_threads(threads: Option<usize>) -> Result<(), TextError> {
    static STARTED: AtomicBool = AtomicBool::new(false);
    if STARTED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    // 0 is rayon's default, one per core.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .stack_size(STACK_BYTES + POOL_STACK_BYTES);
    let pool = pool
        .start_handler(|_| HAS_TEMPLATE_STACK.set(true))
        .thread_name(|i| format!("crisol-text-{i}"));
    match pool.build_global() {
        // An error without a source means that the pool exists already.
        Err(cause) if cause.source().is_some() => Err(TextError::ThreadsRefused(cause.to_string())),
        _ => Ok(()),
    }
}

/// Idle workers.
static IDLE: Mutex<Vec<Sender<Work>>> = Mutex::new(Vec::new());

/// Why a template has no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The operating system refuses a thread.
    NoThread(std::io::Error),
    /// It panicked.
    Panicked,
    /// It timed out.
    TimedOut,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoThread(cause) => write!(
                f,
                "no thread to run it on: {cause}; raise the limit of threads or memory \
                 (`ulimit -u`, `ulimit -v`)"
            ),
            Self::Panicked => f.write_str("it uses what this program's Jinja does not support"),
            Self::TimedOut => {
                write!(f, "it is not done after {} seconds", (WAIT * MAX_WAITS).as_secs())
            }
        }
    }
}

/// Runs `work` on this thread if its stack is large enough, else on a worker.
pub(crate) fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let work = || catch_panic(|| Ok::<T, Infallible>(work())).map_err(|_| Failure::Panicked);
    if HAS_TEMPLATE_STACK.get() {
        return work();
    }
    let (sender, receiver) = mpsc::channel();
    let work: Work = Box::new(move || {
        // The receiver is gone after a timeout.
        let _ = sender.send(work());
    });
    let worker = send_to_worker(work)?;
    for _ in 0..MAX_WAITS {
        match receiver.recv_timeout(WAIT) {
            Ok(done) => {
                idle().push(worker);
                return done;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::Panicked),
        }
    }
    // The worker is not returned to the idle ones, and ends with its work.
    Err(Failure::TimedOut)
}

/// Sends the work to an idle worker, or to a new one.
fn send_to_worker(mut work: Work) -> Result<Sender<Work>, Failure> {
    loop {
        let idle = idle().pop();
        let Some(worker) = idle else { break };
        match worker.send(work) {
            Ok(()) => return Ok(worker),
            Err(mpsc::SendError(unsent)) => work = unsent,
        }
    }
    let (sender, receiver) = mpsc::channel::<Work>();
    let serve = move || {
        work();
        for work in receiver {
            work();
        }
    };
    let thread = thread::Builder::new().name("template".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(serve).map_err(Failure::NoThread)?;
    Ok(sender)
}

fn idle() -> std::sync::MutexGuard<'static, Vec<Sender<Work>>> {
    // No code panics while it holds the lock.
    IDLE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_reused_and_survive_panics() {
        let name = || thread::current().id();
        let first = run(name).expect("a thread");
        assert_ne!(first, thread::current().id());
        let mut seen = std::collections::HashSet::from([first]);
        seen.extend((0..100).map(|_| run(name).expect("a thread")));
        // Other tests use workers too.
        assert!(seen.len() < 20, "{}", seen.len());
        assert!(matches!(run(|| panic!("of this test")), Err::<(), _>(Failure::Panicked)));
        assert_eq!(run(|| 5).expect("a thread"), 5);
        let own = thread::Builder::new().stack_size(STACK_BYTES).spawn(|| {
            HAS_TEMPLATE_STACK.set(true);
            assert_eq!(run(|| thread::current().id()).expect("a result"), thread::current().id());
            assert!(matches!(run(|| panic!("of this test")), Err::<(), _>(Failure::Panicked)));
        });
        own.expect("a thread").join().expect("no panic gets out");
        // Slow work within the timeout is waited for.
        run(|| thread::sleep(Duration::from_millis(1500))).expect("a result");
    }
}
