//! Turns panics of libraries on damaged files into errors.

use std::cell::Cell;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a library call; its error or panic message becomes the error.
///
/// What `work` captures must be dropped or still be consistent after a panic.
pub(crate) fn catch_panic<T, E: Display>(work: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    let outer = CATCHING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(outer);
    match result {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or(panic.downcast_ref::<&str>().copied());
            Err(message.unwrap_or("it is damaged").to_owned())
        }
    }
}

/// Whether a panic of this thread becomes an error. A panic hook can then stay silent.
pub fn panic_is_caught() -> bool {
    CATCHING.get()
}
