//! What can go wrong with a command, what is said about it and with which exit code.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use crisol_hub::HubError;
use crisol_model::ModelError;
use crisol_phases::{LadderError, PhaseError, RecipeError};
use crisol_report::ReportError;
use crisol_text::TextError;

use crate::console;

/// Exit code of a run that was asked to stop: what shells give a process that Ctrl-C ended (128 +
/// SIGINT).
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A run stopped; `remedy` says how to go on.
    #[error("{source}{remedy}")]
    Run { source: Box<PhaseError>, remedy: String },
    #[error(transparent)]
    Phase(#[from] PhaseError),
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// `recipe` is the file, or words for the embedded one.
    #[error("{recipe}: {source}")]
    Ladder { recipe: String, source: Box<LadderError> },
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    Threads(#[from] crisol_engine::ThreadSpawnError),
    /// The weights are finite, and what is computed with them is not.
    #[error(
        "the log-probabilities are not finite, though every weight is: the model's numbers \
         outgrow f32. Take an earlier checkpoint, or another text."
    )]
    NotFinite,
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Pull(#[from] crate::hub::PullError),
    /// A hub is asked of a program that was built without it.
    #[cfg(not(feature = "hub"))]
    #[error(
        "{0}: there is no such file or folder, and this crisol was built without the feature \
         `hub`, which fetches models and data sets from a hub by their names. Build it in: cargo \
         install --path crates/crisol --features hub"
    )]
    NoHub(String),
    #[error(transparent)]
    Reflect(#[from] crisol_reflect::AnswerError),
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A folder or file named on the command line is not what it must be.
    #[error("{}: {problem}", path.display())]
    Place { path: PathBuf, problem: String },
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
    /// The data that was inspected has errors, all of them shown.
    #[error("the data has errors")]
    BadData,
}

impl CliError {
    /// Tells the user, once, and gives the exit code: 2 for a wrong command line, as clap does, 1
    /// for what failed.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            // `crisol … | head` has seen enough; there is nobody to tell and nothing went wrong.
            CliError::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::SUCCESS;
            }
            CliError::BadData => return ExitCode::FAILURE,
            CliError::Run { source, .. } if matches!(**source, PhaseError::Interrupted { .. }) => {
                console::say(self);
                return ExitCode::from(INTERRUPTED);
            }
            _ => console::say(format_args!("error: {}", message(self))),
        }
        ExitCode::from(if matches!(self, CliError::Usage(_)) { 2 } else { 1 })
    }
}

/// An error's message with those of its causes that it does not contain already.
fn message(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            let _ = write!(message, ": {text}");
        }
        cause = error.source();
    }
    message
}
