//! `crisol`: trains a language model through every phase, shows what each phase did, and talks to
//! the result.
//!
//! One file per command in `commands`. Output for scripts goes to standard output, everything else
//! to standard error; an error is one message that names its cause and its remedy, and a non-zero
//! exit code.

// Doc comments of options are help texts: no markup.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

mod calibration;
mod clock;
mod commands;
mod console;
mod ctrl_c;
mod datasets;
mod error;
mod hub;
mod language;
mod model;
mod progress;
mod references;
mod shape;
mod texts;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Libraries panic on some damaged files. Whoever calls them makes an error of that, which says
    // all there is to say.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !crisol_text::panic_is_caught() {
            hook(panic);
        }
    }));
    match commands::Cli::from_command_line().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
