//! Libraries that panic on files that they could refuse: their panics become errors.

use std::cell::Cell;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What a library makes, or what it says: its error, or the words of its panic. What it works on must not be used after a panic,
/// or must be none the worse for it.
pub(crate) fn guarded<T, E: Display>(work: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    match result {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => {
            let said = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or(panic.downcast_ref::<&str>().copied());
            Err(said.unwrap_or("it is damaged").to_owned())
        }
    }
}

/// Whether a panic of this thread, if there is one, becomes an error: for a program's panic hook, which need not tell of it.
pub fn panic_becomes_error() -> bool {
    GUARDED.get()
}
