//! Threads whose stack bears the deepest template that is accepted. Those on which records are encoded are such
//! ([`start_text_threads`]). Any other caller's template goes to a worker, one for each caller at a time. Workers are kept and
//! used again, because a process that renders a million records must not make a million threads.

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
use crate::guard::guarded;

/// Stack that bears a template. Expressions, statements, macros and values are bounded to what needs a part of it.
const STACK: usize = 16 << 20;
/// What a pool's thread needs besides: it takes up other work while it waits for its own.
const POOL_STACK: usize = 2 << 20;
/// A worker is waited for in slices, of which only so many may pass. A process that was stopped (Ctrl-Z) or a machine that slept
/// loses one slice, not the run. Fuel ends templates within a small part of this; what it does not pay for (the comparison of
/// large values) ends by itself, later.
const SLICE: Duration = Duration::from_millis(50);
const SLICES: u32 = 400;

type Work = Box<dyn FnOnce() + Send>;

thread_local! {
    /// Whether this thread has that stack.
    static BEARS_TEMPLATES: Cell<bool> = const { Cell::new(false) };
}

/// Makes the threads on which text is read and encoded; without `threads`, there is one per core. Only the first call of a
/// process counts, before any text is encoded.
pub fn start_text_threads(threads: Option<usize>) -> Result<(), TextError> {
    static STARTED: AtomicBool = AtomicBool::new(false);
    if STARTED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    // None: rayon's own choice, one per core.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .stack_size(STACK + POOL_STACK);
    let pool = pool
        .start_handler(|_| BEARS_TEMPLATES.set(true))
        .thread_name(|i| format!("crisol-text-{i}"));
    match pool.build_global() {
        // Only what the operating system says has a source; the other case is that they run already.
        Err(cause) if cause.source().is_some() => Err(TextError::ThreadsRefused(cause.to_string())),
        _ => Ok(()),
    }
}

/// Workers without work.
static IDLE: Mutex<Vec<Sender<Work>>> = Mutex::new(Vec::new());

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The system has no thread to give.
    NoThread(std::io::Error),
    /// It panicked.
    Broken,
    /// It is not waited for any longer.
    NotDone,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoThread(cause) => write!(
                f,
                "no thread to run it on: {cause}; raise the limit of threads or memory (`ulimit -u`, `ulimit -v`)"
            ),
            Self::Broken => f.write_str("it does what this program's Jinja cannot"),
            Self::NotDone => {
                write!(f, "it is not done after {} seconds", (SLICE * SLICES).as_secs())
            }
        }
    }
}

/// What `work` gives, from this thread where its stack bears it, else from a worker.
pub(crate) fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let work = || guarded(|| Ok::<T, Infallible>(work())).map_err(|_| Failure::Broken);
    if BEARS_TEMPLATES.get() {
        return work();
    }
    let (sender, receiver) = mpsc::channel();
    let work: Work = Box::new(move || {
        // Nobody waits for what comes too late.
        let _ = sender.send(work());
    });
    let worker = start(work)?;
    for _ in 0..SLICES {
        match receiver.recv_timeout(SLICE) {
            Ok(done) => {
                idle().push(worker);
                return done;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::Broken),
        }
    }
    // The worker is dropped, and ends with its work.
    Err(Failure::NotDone)
}

/// Gives the work to an idle worker, or a new one.
fn start(mut work: Work) -> Result<Sender<Work>, Failure> {
    loop {
        let idle = idle().pop();
        let Some(worker) = idle else { break };
        match worker.send(work) {
            Ok(()) => return Ok(worker),
            Err(mpsc::SendError(back)) => work = back,
        }
    }
    let (sender, receiver) = mpsc::channel::<Work>();
    let serve = move || {
        work();
        for work in receiver {
            work();
        }
    };
    let thread = thread::Builder::new().name("template".to_owned()).stack_size(STACK);
    thread.spawn(serve).map_err(Failure::NoThread)?;
    Ok(sender)
}

fn idle() -> std::sync::MutexGuard<'static, Vec<Sender<Work>>> {
    // Nothing panics while it is held.
    IDLE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_used_again_and_survive_what_breaks() {
        let name = || thread::current().id();
        let first = run(name).expect("a thread");
        assert_ne!(first, thread::current().id());
        let mut seen = std::collections::HashSet::from([first]);
        seen.extend((0..100).map(|_| run(name).expect("a thread")));
        // Other tests use workers too.
        assert!(seen.len() < 20, "{}", seen.len());
        assert!(matches!(run(|| panic!("of this test")), Err::<(), _>(Failure::Broken)));
        assert_eq!(run(|| 5).expect("a thread"), 5);
        let own = thread::Builder::new().stack_size(STACK).spawn(|| {
            BEARS_TEMPLATES.set(true);
            assert_eq!(run(|| thread::current().id()).expect("a result"), thread::current().id());
            assert!(matches!(run(|| panic!("of this test")), Err::<(), _>(Failure::Broken)));
        });
        own.expect("a thread").join().expect("no panic gets out");
        // What takes long because the machine does other things is waited for.
        run(|| thread::sleep(Duration::from_millis(1500))).expect("a result");
    }
}
