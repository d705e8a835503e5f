//! Ctrl-C (and SIGTERM): the first asks the run to save and stop, the second ends the process.

use crisol_train::Interrupt;

use crate::console;
use crate::error::INTERRUPTED;

/// Lets Ctrl-C make a request to stop. Where nothing would be lost (data loads, a model is
/// measured, all is saved) the first one ends the process, after saying `how_to_go_on`: a run may
/// be killed at any time, and nobody has to wait for what is not needed.
pub(crate) fn save_and_stop(
    interrupt: &Interrupt,
    how_to_go_on: impl Fn() -> String + Send + 'static,
) {
    let interrupt = interrupt.clone();
    let handler = move || {
        if interrupt.requested() {
            std::process::exit(INTERRUPTED.into());
        }
        if !interrupt.unsaved() {
            console::say(format_args!("\nStopped; {}", how_to_go_on()));
            std::process::exit(INTERRUPTED.into());
        }
        interrupt.request();
        console::say("\nStopping and saving. Press Ctrl-C again to abort at once.");
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        // The run can still be killed and resumed; it only loses the steps since its last
        // checkpoint.
        console::say(format_args!("warning: Ctrl-C will not save first: {error}"));
    }
}
