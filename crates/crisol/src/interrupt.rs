//! Ctrl-C (and SIGTERM): the first asks the run to save and stop, the second ends the process.

use crisol_train::Interrupt;

use crate::console;
use crate::error::INTERRUPTED;

/// A request to stop that Ctrl-C makes.
pub(crate) fn on_ctrl_c() -> Interrupt {
    let interrupt = Interrupt::default();
    let flag = interrupt.clone();
    let handler = move || {
        if flag.requested() {
            std::process::exit(INTERRUPTED.into());
        }
        flag.request();
        console::say("\nStopping after this step and saving. Press Ctrl-C again to abort at once.");
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        // The run can still be killed and resumed; it only loses the steps since its last checkpoint.
        console::say(format_args!("warning: Ctrl-C will not save first: {error}"));
    }
    interrupt
}
